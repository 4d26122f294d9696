//! One request to one task, and whether its answer is right.

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{HOST, HeaderName, HeaderValue};
use hyper::{Method, Request};
use lifecycle::aws_error::causes;
use lifecycle::defaults;
use lifecycle::printable::printable;
use task_requests::Client;
use task_requests::running_tasks::RunningTask;

use crate::Test;

/// How visitors reach the load balancer. An application may redirect all others:
/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/x-forwarded-headers.html>.
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// The maximum number of bytes of an answer that are read.
const MAX_ANSWER: usize = 64 * 1024;
/// The maximum number of characters of an answer that are shown.
const MAX_SHOWN: usize = 200;

/// What became of a request.
pub(crate) enum Answer {
    Right,
    /// How it is wrong, after the words "GET /path of task …".
    Wrong(String),
    /// Why there is none.
    None(String),
}

/// Asks one task and waits for [`defaults::SMOKE_TIMEOUT`] at most. A redirect is an answer like any other.
pub(crate) async fn to(
    client: &Client,
    domain: &HeaderValue,
    task: &RunningTask,
    test: &Test,
) -> Answer {
    let address = match task.reachable() {
        Ok(address) => address,
        Err(why) => return Answer::None(why),
    };
    match tokio::time::timeout(defaults::SMOKE_TIMEOUT, get(client, domain, address, test)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(why)) => Answer::None(why),
        Err(_) => Answer::None(format!("no answer within {:?}", defaults::SMOKE_TIMEOUT)),
    }
}

async fn get(
    client: &Client,
    domain: &HeaderValue,
    address: &str,
    test: &Test,
) -> Result<Answer, String> {
    let request = Request::builder()
        .method(Method::GET)
        .header(HOST, domain)
        .header(FORWARDED_PROTO, "https");
    let response = task_requests::send(client, address, &test.path, request).await?;
    let status = response.status().as_u16();
    if status != test.status {
        // What it says is for the reader only, so that it may break off.
        let body = beginning(response.into_body())
            .await
            .unwrap_or_else(|it| it.0);
        return Ok(Answer::Wrong(is_status(status, test, &body)));
    }
    let Some(wanted) = &test.contains else {
        return Ok(Answer::Right);
    };
    let body = beginning(response.into_body())
        .await
        .map_err(|(_, why)| why)?;
    let wanted_bytes = wanted.as_bytes();
    if body
        .windows(wanted_bytes.len())
        .any(|it| it == wanted_bytes)
    {
        return Ok(Answer::Right);
    }
    Ok(Answer::Wrong(format!(
        "answered {status} without `{}` in its first {} KiB{}",
        printable(wanted, MAX_SHOWN),
        MAX_ANSWER / 1024,
        first_line(&body)
    )))
}

fn is_status(status: u16, test: &Test, body: &[u8]) -> String {
    format!("answered {status}, not {}{}", test.status, first_line(body))
}

/// The first bytes of a body. If it breaks off before, what came until then, and why.
async fn beginning(mut body: Incoming) -> Result<Vec<u8>, (Vec<u8>, String)> {
    let mut read = Vec::new();
    while read.len() < MAX_ANSWER {
        match body.frame().await {
            None => break,
            Some(Ok(frame)) => read.extend_from_slice(frame.data_ref().map_or(&[], |it| it)),
            Some(Err(error)) => {
                let why = format!("the answer broke off: {}", causes(&error));
                return Err((read, why));
            }
        }
    }
    read.truncate(MAX_ANSWER);
    Ok(read)
}

/// The first line that is not empty, to follow other words.
fn first_line(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    match lines.next() {
        Some(line) => format!("; it begins: {}", printable(line.trim(), MAX_SHOWN)),
        None => "; it is empty".to_owned(),
    }
}
