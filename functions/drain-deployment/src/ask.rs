//! Asks one task, by its private address, to take nobody new in and to count its sessions.

use std::net::Ipv4Addr;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, USER_AGENT};
use hyper::{Method, Request, StatusCode};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use lifecycle::defaults;
use serde::{Deserialize, Serialize};

use crate::secret::DrainSecret;
use crate::tasks::RunningTask;

/// Where an application takes the request.
const PATH: &str = "/drain";
/// The most of an answer that is read, in bytes; the contract needs some fifty.
const MOST_OF_AN_ANSWER: usize = 16 * 1024;

/// Plain HTTP without proxies, redirects or kept connections: the secret goes to the task's address
/// and nowhere else, and a frozen function leaves nothing half open.
pub type Client = legacy::Client<HttpConnector, Empty<Bytes>>;

/// The client that tasks are asked with.
pub fn client() -> Client {
    legacy::Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .build_http()
}

/// How a task answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// It began to drain.
    Ok,
    /// It drains since an earlier sweep.
    AlreadyDraining,
    /// 503: it serves nobody any more.
    Unavailable,
    /// 404 or 405: the application keeps no such contract.
    NoDrainEndpoint,
    /// 401 or 403: it knows another secret.
    Unauthorized,
    /// Another status, or an answer that is not as the contract says.
    Unexpected,
    /// It could not be asked, or did not answer to the end.
    Unreachable,
    /// It did not answer in time.
    TimedOut,
}

/// What one task said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The task.
    pub task_id: String,
    /// The private address that was asked.
    pub address: Option<String>,
    /// How it answered.
    pub answer: Answer,
    /// Sessions that are still open, when it said so.
    pub active_sessions: Option<u64>,
    /// What was met, in words. Never anything that the task wrote: it might repeat the secret.
    pub detail: String,
}

impl Report {
    /// Whether nobody is on the task.
    pub fn is_idle(&self) -> bool {
        match self.answer {
            Answer::Ok | Answer::AlreadyDraining => self.active_sessions == Some(0),
            Answer::Unavailable => true,
            _ => false,
        }
    }
}

/// What the contract says a task answers with 200.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Contract {
    status: Option<String>,
    active_sessions: u64,
}

/// Asks one task once, for [`defaults::DRAIN_TIMEOUT`] at most. Asking again is harmless.
pub async fn ask(client: &Client, task: &RunningTask, secret: &DrainSecret) -> Report {
    let (answer, active_sessions, detail) = match &task.address {
        Some(address) if task.status == "RUNNING" => {
            match tokio::time::timeout(defaults::DRAIN_TIMEOUT, post(client, address, secret)).await
            {
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
            format!("the task is {}; it is asked by the next sweep", task.status),
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

/// How a task answered, how many sessions it has if it said so, and what was met in words.
pub type Told = (Answer, Option<u64>, String);

async fn post(client: &Client, address: &str, secret: &DrainSecret) -> Told {
    let unreachable = |why: String| (Answer::Unreachable, None, why);
    // A name would be looked up, and the secret sent to whoever answers to it.
    let Ok(address) = address.parse::<Ipv4Addr>() else {
        return unreachable(format!("`{address}` is no address"));
    };
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("http://{address}:{}{PATH}", defaults::PORT))
        .header(AUTHORIZATION, secret.authorization())
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
    let said = format!("HTTP {}", status.as_u16());
    match status {
        StatusCode::OK => {
            match Limited::new(response.into_body(), MOST_OF_AN_ANSWER)
                .collect()
                .await
            {
                Ok(body) => read(&body.to_bytes()),
                Err(error) => unreachable(format!(
                    "{said}, but the answer broke off: {}",
                    causes(error.as_ref())
                )),
            }
        }
        StatusCode::SERVICE_UNAVAILABLE => (Answer::Unavailable, None, said),
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => (
            Answer::NoDrainEndpoint,
            None,
            format!("{said}: the application has no POST {PATH}"),
        ),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => (
            Answer::Unauthorized,
            None,
            format!(
                "{said}: the application expects another secret; was it changed since the task started?"
            ),
        ),
        _ => (Answer::Unexpected, None, said),
    }
}

/// Reads the body of an answer with 200.
pub fn read(body: &[u8]) -> Told {
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
            "HTTP 200, but the answer is no JSON with a whole number in `activeSessions`"
                .to_owned(),
        ),
    }
}

/// The error with its causes, because the outermost says next to nothing.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut texts = vec![error.to_string()];
    let mut source = error.source();
    while let Some(cause) = source {
        texts.push(cause.to_string());
        source = cause.source();
    }
    texts.dedup();
    texts.join(": ")
}
