//! Handles one request: finds its route, chooses a target, sends it there and returns the answer.
//!
//! The answers that do not come from a target follow
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-troubleshooting.html#load-balancer-http-error-codes>.
//! As documented there, a target that refuses the connection, or closes it before it has answered,
//! causes status 502. The request is not retried on another target.

use std::error::Error as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, LOCATION, SERVER, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::{Empty, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::sync::watch;

use super::idle::{Activity, GuardedBody, ResponseBody, boxed};
use super::metrics::{Answered, Metrics};
use super::routing::{self, Decision, Ports, Routes};
use super::targets::{Chosen, Targets};
use super::tunnel;

/// "The load balancer failed to establish a connection to the target before the connection
/// timeout expired (10 seconds)."
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");

/// Headers that concern a single connection. They are not passed on, and neither are the headers that
/// `Connection` names (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [HeaderName; 7] = [
    CONNECTION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// The connection on which a request arrived.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionInfo {
    /// The listener's port on AWS: 80 or 443.
    pub listener_port: u16,
    /// The local port.
    pub port: u16,
    pub scheme: &'static str,
    pub client: IpAddr,
}

/// The listener of this port was deleted. The connection is closed without an answer, as on AWS.
#[derive(Debug)]
pub struct NoListener;

impl std::fmt::Display for NoListener {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("no listener on this port")
    }
}

impl std::error::Error for NoListener {}

/// What all requests share.
pub struct Proxy {
    client: Client<HttpConnector, GuardedBody<Incoming>>,
    targets: Targets,
    metrics: Metrics,
    ports: Ports,
    idle_timeout: Duration,
    /// Closes when the load balancer stops.
    open: watch::Receiver<()>,
}

impl Proxy {
    /// A proxy to `targets`, which counts requests in `metrics`. Upgraded connections end when the sender of `open` is dropped.
    pub fn new(
        targets: Targets,
        metrics: Metrics,
        ports: Ports,
        idle_timeout: Duration,
        open: watch::Receiver<()>,
    ) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        Proxy {
            client: Client::builder(TokioExecutor::new()).build(connector),
            targets,
            metrics,
            ports,
            idle_timeout,
            open,
        }
    }

    pub async fn handle(
        &self,
        routes: Arc<Routes>,
        connection_info: ConnectionInfo,
        mut request: Request<Incoming>,
    ) -> Result<Response<ResponseBody>, NoListener> {
        if request.method() == Method::TRACE {
            return Ok(error_page(StatusCode::METHOD_NOT_ALLOWED));
        }
        let Some(path_and_query) = request.uri().path_and_query().cloned() else {
            return Ok(error_page(StatusCode::BAD_REQUEST));
        };
        if let Some(authority) = request.uri().authority().cloned() {
            // RFC 9112, section 3.2.2: the authority of an absolute request target wins.
            let host = HeaderValue::from_str(authority.as_str());
            if let Ok(host) = host {
                request.headers_mut().insert(HOST, host);
            }
        }
        if request.version() == Version::HTTP_11 && !request.headers().contains_key(HOST) {
            return Ok(error_page(StatusCode::BAD_REQUEST));
        }
        let routed = routing::Request {
            scheme: connection_info.scheme,
            port: connection_info.port,
            path_and_query: &path_and_query,
            headers: request.headers(),
        };
        let decision = routes
            .decide(connection_info.listener_port, routed, self.ports)
            .ok_or(NoListener)?;
        let load_balancer = routes
            .load_balancer_arn(connection_info.listener_port)
            .ok_or(NoListener)?;
        let answer = match decision {
            Decision::Forward(group) => match self.targets.choose(&group) {
                Some(target) => {
                    let mut counted = self.metrics.request(load_balancer, Some(&group));
                    let forwarded = self
                        .forward(connection_info, &group, target, &path_and_query, request)
                        .await;
                    return Ok(match forwarded {
                        Ok(answer) => {
                            counted.answered = Answered::ByTarget(answer.status().as_u16());
                            answer
                        }
                        Err(failed) => {
                            counted.answered = failed.answered();
                            error_page(failed.status)
                        }
                    });
                }
                None => {
                    tracing::warn!(group, "503: no target takes requests");
                    error_page(StatusCode::SERVICE_UNAVAILABLE)
                }
            },
            Decision::Redirect { location, status } => redirect(&location, status),
            Decision::FixedResponse {
                status,
                content_type,
                body,
            } => fixed_response(status, &content_type, body),
            Decision::Nothing => error_page(StatusCode::SERVICE_UNAVAILABLE),
        };
        let mut counted = self.metrics.request(load_balancer, None);
        counted.answered = Answered::ByLoadBalancer(answer.status().as_u16());
        Ok(answer)
    }

    async fn forward(
        &self,
        connection_info: ConnectionInfo,
        group: &str,
        target: Chosen,
        path_and_query: &PathAndQuery,
        mut request: Request<Incoming>,
    ) -> Result<Response<ResponseBody>, Failed> {
        let Chosen {
            address,
            deregistered,
        } = target;
        let upgrade = requested_upgrade(request.headers());
        let client_side = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));

        let activity = Activity::new();
        let (mut parts, body) = request.into_parts();
        remove_hop_by_hop(&mut parts.headers);
        add_forwarded(&mut parts.headers, connection_info);
        if let Some(protocol) = &upgrade {
            set_upgrade(&mut parts.headers, protocol.clone());
        }
        parts.uri = uri(address, path_and_query);
        parts.version = Version::HTTP_11;
        let body = GuardedBody::watched(body, activity.clone());
        let answer = self.client.request(Request::from_parts(parts, body));
        let bad = |status: StatusCode, reason: &str| {
            tracing::warn!(group, %address, reason, "{}", status.as_u16());
            Err(Failed {
                status,
                connected: true,
            })
        };
        let mut response = tokio::select! {
            answer = answer => match answer {
                Ok(response) => response,
                Err(error) => {
                    let (status, reason) = classify(&error);
                    let connected = !error.is_connect();
                    return bad(status, &reason).map_err(|failed| Failed { connected, ..failed });
                }
            },
            () = activity.clone().idle_for(self.idle_timeout) => {
                let reason = "the target did not answer before the idle timeout";
                return bad(StatusCode::GATEWAY_TIMEOUT, reason);
            }
            () = deregistered.clone().wait() => {
                let reason = "the deregistration delay ended before the target answered";
                return bad(StatusCode::BAD_GATEWAY, reason);
            }
        };

        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let (Some(protocol), Some(client_side)) =
                (requested_upgrade(response.headers()), client_side)
            else {
                let reason = "the target switched protocols without a request to do so";
                return bad(StatusCode::BAD_GATEWAY, reason);
            };
            let target_side = hyper::upgrade::on(&mut response);
            let idle_timeout = self.idle_timeout;
            let mut open = self.open.clone();
            tokio::spawn(async move {
                let copied = async {
                    match tokio::try_join!(client_side, target_side) {
                        Ok((client, target)) => {
                            tunnel::copy_both_ways(client, target, idle_timeout).await
                        }
                        Err(error) => tracing::debug!(%error, "upgrade failed"),
                    }
                };
                tokio::select! {
                    () = copied => {}
                    () = deregistered.wait() => {}
                    _ = open.changed() => {}
                }
            });
            let (mut parts, _) = response.into_parts();
            remove_hop_by_hop(&mut parts.headers);
            set_upgrade(&mut parts.headers, protocol);
            return Ok(Response::from_parts(parts, boxed(Empty::new())));
        }

        let (mut parts, body) = response.into_parts();
        remove_hop_by_hop(&mut parts.headers);
        let idle = activity.clone().idle_for(self.idle_timeout);
        let guard = async move {
            tokio::select! {
                () = idle => "the target sent nothing for the idle timeout",
                () = deregistered.wait() => "the deregistration delay has ended",
            }
        };
        let body = GuardedBody::guarded(body, activity, guard);
        Ok(Response::from_parts(parts, boxed(body)))
    }
}

/// The target did not answer, so that the load balancer does.
struct Failed {
    status: StatusCode,
    /// Whether there was a connection to the target.
    connected: bool,
}

impl Failed {
    fn answered(&self) -> Answered {
        let status = self.status.as_u16();
        if self.connected {
            Answered::ByLoadBalancer(status)
        } else {
            Answered::WithoutConnection(status)
        }
    }
}

/// The protocol of the upgrade that a message requests or confirms, if it does.
fn requested_upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    connection_options(headers)
        .any(|option| option.eq_ignore_ascii_case("upgrade"))
        .then(|| headers.get(UPGRADE).cloned())
        .flatten()
}

fn connection_options(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(CONNECTION).into_iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = connection_options(headers)
        .filter_map(|option| option.parse().ok())
        .collect();
    for name in HOP_BY_HOP.iter().chain(&named) {
        headers.remove(name);
    }
}

fn set_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
}

/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/x-forwarded-headers.html>:
/// the client's address is appended, the protocol and "the destination port that the client used"
/// are set.
fn add_forwarded(headers: &mut HeaderMap, connection_info: ConnectionInfo) {
    let mut addresses: Vec<String> = headers
        .get_all(X_FORWARDED_FOR)
        .iter()
        .filter_map(|value| value.to_str().ok().map(str::to_string))
        .collect();
    addresses.push(connection_info.client.to_string());
    if let Ok(addresses) = HeaderValue::from_str(&addresses.join(", ")) {
        headers.insert(X_FORWARDED_FOR, addresses);
    }
    headers.insert(
        X_FORWARDED_PROTO,
        HeaderValue::from_static(connection_info.scheme),
    );
    headers.insert(X_FORWARDED_PORT, HeaderValue::from(connection_info.port));
}

fn uri(address: SocketAddr, path_and_query: &PathAndQuery) -> Uri {
    Uri::builder()
        .scheme("http")
        .authority(address.to_string())
        .path_and_query(path_and_query.clone())
        .build()
        .expect("an address and a parsed path make a URI")
}

/// The status for the client when the request to a target failed, and the reason for the log.
fn classify(error: &hyper_util::client::legacy::Error) -> (StatusCode, String) {
    let mut reason = error.to_string();
    let mut timed_out = false;
    let mut client_failed = false;
    let mut source = error.source();
    while let Some(cause) = source {
        reason = format!("{reason}: {cause}");
        let io = cause.downcast_ref::<std::io::Error>();
        timed_out |= io.is_some_and(|io| io.kind() == std::io::ErrorKind::TimedOut);
        let hyper = cause.downcast_ref::<hyper::Error>();
        client_failed |= hyper.is_some_and(hyper::Error::is_user);
        source = cause.source();
    }
    let status = if error.is_connect() && timed_out {
        StatusCode::GATEWAY_TIMEOUT
    } else if client_failed {
        // "The client closed the connection before sending the full request body."
        StatusCode::BAD_REQUEST
    } else {
        StatusCode::BAD_GATEWAY
    };
    (status, reason)
}

/// The page that the load balancer sends for an error of its own.
fn error_page(status: StatusCode) -> Response<ResponseBody> {
    let page = format!(
        "<html>\r\n<head><title>{status}</title></head>\r\n<body>\r\n<center><h1>{status}</h1>\
         </center>\r\n</body>\r\n</html>\r\n"
    );
    own(status, "text/html", page)
}

fn fixed_response(status: u16, content_type: &str, body: String) -> Response<ResponseBody> {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    own(status, content_type, body)
}

fn redirect(location: &str, status: u16) -> Response<ResponseBody> {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::FOUND);
    let mut response = error_page(status);
    match HeaderValue::from_str(location) {
        Ok(location) => {
            response.headers_mut().insert(LOCATION, location);
            response
        }
        Err(_) => error_page(StatusCode::BAD_REQUEST),
    }
}

fn own(status: StatusCode, content_type: &str, body: String) -> Response<ResponseBody> {
    let mut response = Response::new(boxed(Full::new(Bytes::from(body))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(SERVER, HeaderValue::from_static("awselb/2.0"));
    if let Ok(content_type) = HeaderValue::from_str(content_type) {
        headers.insert(CONTENT_TYPE, content_type);
    }
    response
}
