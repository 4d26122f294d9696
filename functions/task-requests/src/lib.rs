//! The running tasks of a deployment, and requests to their private addresses; a library, and apart because few functions
//! send such requests.

pub mod running_tasks;

use std::net::Ipv4Addr;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::header::USER_AGENT;
use hyper::http::request::Builder;
use hyper::{Response, header::HeaderValue};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use lifecycle::aws_error::causes;
use lifecycle::defaults;

/// Plain HTTP without proxies, redirects or kept connections. A request goes to the task's address and
/// nowhere else, and a frozen function leaves no connection half open.
pub type Client = legacy::Client<HttpConnector, Empty<Bytes>>;

/// The client that sends the requests.
pub fn client() -> Client {
    legacy::Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .build_http()
}

/// Sends a request without a body to the path at the task's private address, on the application's port. Returns
/// as soon as the head of the answer is there.
///
/// # Errors
/// Why there is no answer, in words.
pub async fn send(
    client: &Client,
    address: &str,
    path: &str,
    request: Builder,
) -> Result<Response<Incoming>, String> {
    // A name would be resolved, and the request sent to the host that this leads to.
    let Ok(address) = address.parse::<Ipv4Addr>() else {
        return Err(format!("`{address}` is not an IPv4 address"));
    };
    let request = request
        .uri(format!("http://{address}:{}{path}", defaults::PORT))
        .header(USER_AGENT, HeaderValue::from_static("pulse-deploy"))
        .body(Empty::new())
        .map_err(|error| causes(&error))?;
    client
        .request(request)
        .await
        .map_err(|error| causes(&error))
}
