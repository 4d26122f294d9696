//! Asks one task, by its private address, to take no new visitors and to count its sessions.

use http_body_util::{BodyExt, Limited};
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderName};
use hyper::{Method, Request, StatusCode};
use lifecycle::aws_error::causes;
use lifecycle::{DeploymentId, defaults};
use serde::{Deserialize, Serialize};
use task_requests::Client;
use task_requests::running_tasks::RunningTask;

use crate::secret::DrainSecret;

/// The path of the request.
const PATH: &str = "/drain";
/// The deployment that is asked to drain. ECS gives the address of a task that has stopped to another one, which
/// may belong to another deployment.
const DEPLOYMENT: HeaderName = HeaderName::from_static("x-pulse-deployment");
/// The maximum number of bytes of an answer that are read. The contract needs about fifty.
const MAX_ANSWER: usize = 16 * 1024;

/// How a task answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// 200: it begins to drain.
    Ok,
    /// 200: it has been draining since an earlier sweep.
    AlreadyDraining,
    /// 503: it cannot answer now. A server that is full answers so before the application sees the request.
    Unavailable,
    /// 404 or 405: the application does not keep the contract.
    NoDrainEndpoint,
    /// 401 or 403: it expects another secret.
    Unauthorized,
    /// 409: it belongs to another deployment.
    OtherDeployment,
    /// Another status, or a 200 whose body is not as the contract says.
    Unexpected,
    /// It could not be reached, or its answer broke off.
    Unreachable,
    /// It did not answer in time.
    TimedOut,
}

/// The answer of one task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The last part of the task's ARN.
    pub task_id: String,
    /// The private IPv4 address that the request went to.
    pub address: Option<String>,
    /// How it answered.
    pub answer: Answer,
    /// Sessions that are still open, if the task reported them.
    pub active_sessions: Option<u64>,
    /// What happened, in words. Never text that the task wrote, which might repeat the secret.
    pub detail: String,
}

impl Report {
    /// Whether the task has reported that it has no visitors. Any other answer, and silence, says nothing about
    /// visitors.
    pub fn is_idle(&self) -> bool {
        matches!(self.answer, Answer::Ok | Answer::AlreadyDraining)
            && self.active_sessions == Some(0)
    }
}

/// The body of a 200, as the contract has it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Contract {
    status: Option<String>,
    active_sessions: u64,
}

/// Sends the request to one task and waits for [`defaults::DRAIN_TIMEOUT`] at most. Sending it again is
/// harmless.
pub async fn send(
    client: &Client,
    deployment: &DeploymentId,
    task: &RunningTask,
    secret: &DrainSecret,
) -> Report {
    let (answer, active_sessions, detail) = match task.reachable() {
        Ok(address) => {
            let answer = post(client, deployment, address, secret);
            match tokio::time::timeout(defaults::DRAIN_TIMEOUT, answer).await {
                Ok(answer) => answer,
                Err(_) => (
                    Answer::TimedOut,
                    None,
                    format!("no answer within {:?}", defaults::DRAIN_TIMEOUT),
                ),
            }
        }
        Err(why) => (
            Answer::Unreachable,
            None,
            format!("{why}; the next sweep asks it"),
        ),
    };
    Report {
        task_id: task.id.clone(),
        address: task.address.clone(),
        answer,
        active_sessions,
        detail,
    }
}

/// How a task answered, the sessions that it reported, and what happened in words.
pub type Outcome = (Answer, Option<u64>, String);

async fn post(
    client: &Client,
    deployment: &DeploymentId,
    address: &str,
    secret: &DrainSecret,
) -> Outcome {
    let unreachable = |why: String| (Answer::Unreachable, None, why);
    let request = Request::builder()
        .method(Method::POST)
        .header(AUTHORIZATION, secret.authorization())
        .header(DEPLOYMENT, deployment.as_str())
        .header(CONTENT_LENGTH, 0);
    let response = match task_requests::send(client, address, PATH, request).await {
        Ok(response) => response,
        Err(why) => return unreachable(why),
    };
    let status = response.status();
    let answered = format!("HTTP {}", status.as_u16());
    match status {
        StatusCode::OK => {
            match Limited::new(response.into_body(), MAX_ANSWER)
                .collect()
                .await
            {
                Ok(body) => read(&body.to_bytes()),
                Err(error) => unreachable(format!(
                    "{answered}, but the answer broke off: {}",
                    causes(error.as_ref())
                )),
            }
        }
        StatusCode::SERVICE_UNAVAILABLE => (
            Answer::Unavailable,
            None,
            format!("{answered}: it may be full, and its sessions are unknown"),
        ),
        StatusCode::CONFLICT => (
            Answer::OtherDeployment,
            None,
            format!("{answered}: the address belongs to another deployment by now"),
        ),
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => (
            Answer::NoDrainEndpoint,
            None,
            format!("{answered}: the application has no POST {PATH}"),
        ),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => (
            Answer::Unauthorized,
            None,
            format!(
                "{answered}: the application expects neither the current nor the previous drain secret"
            ),
        ),
        _ => (Answer::Unexpected, None, answered),
    }
}

/// Reads the body of an answer with 200.
pub fn read(body: &[u8]) -> Outcome {
    // serde would take a list for the fields in the order of their declaration.
    let is_object = body.trim_ascii_start().starts_with(b"{");
    match serde_json::from_slice::<Contract>(body) {
        Ok(Contract {
            status,
            active_sessions,
        }) if is_object => {
            let answer = match status.as_deref() {
                Some("already_draining") => Answer::AlreadyDraining,
                _ => Answer::Ok,
            };
            (answer, Some(active_sessions), "HTTP 200".to_owned())
        }
        _ => (
            Answer::Unexpected,
            None,
            "HTTP 200, but the answer is not JSON with a whole number in `activeSessions`"
                .to_owned(),
        ),
    }
}
