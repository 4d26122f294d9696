//! Asks one task, by its private address, to take no new visitors and to count its sessions.

use std::net::Ipv4Addr;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderName, USER_AGENT};
use hyper::{Method, Request, StatusCode};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use lifecycle::aws_error::causes;
use lifecycle::{DeploymentId, defaults};
use serde::{Deserialize, Serialize};

use crate::running_tasks::RunningTask;
use crate::secret::DrainSecret;

/// The path of the request.
const PATH: &str = "/drain";
/// The deployment that is asked to drain. ECS gives the address of a task that has stopped to another one, which
/// may belong to another deployment.
const DEPLOYMENT: HeaderName = HeaderName::from_static("x-pulse-deployment");
/// The maximum number of bytes of an answer that are read. The contract needs about fifty.
const MAX_ANSWER: usize = 16 * 1024;

/// Plain HTTP without proxies, redirects or kept connections. The secret goes to the task's address and
/// nowhere else, and a frozen function leaves no connection half open.
pub type Client = legacy::Client<HttpConnector, Empty<Bytes>>;

/// The client that sends the requests.
pub fn client() -> Client {
    legacy::Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .build_http()
}

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
    let (answer, active_sessions, detail) = match &task.address {
        Some(address) if task.status == "RUNNING" => {
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
        Some(_) | None => (
            Answer::Unreachable,
            None,
            format!("the task is {}; the next sweep asks it", task.status),
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
    // A name would be resolved, and the secret sent to the host that this leads to.
    let Ok(address) = address.parse::<Ipv4Addr>() else {
        return unreachable(format!("`{address}` is not an IPv4 address"));
    };
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("http://{address}:{}{PATH}", defaults::PORT))
        .header(AUTHORIZATION, secret.authorization())
        .header(DEPLOYMENT, deployment.as_str())
        .header(USER_AGENT, "pulse-deploy")
        .header(CONTENT_LENGTH, 0)
        .body(Empty::new());
    let request = match request {
        Ok(request) => request,
        Err(error) => return unreachable(causes(&error)),
    };
    let response = match client.request(request).await {
        Ok(response) => response,
        Err(error) => return unreachable(causes(&error)),
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
