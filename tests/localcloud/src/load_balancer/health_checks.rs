//! Health checks: the state of a target, and the request that determines it.
//!
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/target-group-health-checks.html>

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::state::TargetGroup;

/// The outcome of one health check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Status(u16),
    /// The target did not answer before the timeout.
    TimedOut,
    /// The connection failed, or the answer is not HTTP.
    Failed,
}

/// Why a target is unhealthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It answered with a status code that the matcher does not contain.
    ResponseCodeMismatch(u16),
    Timeout,
    /// It could not be reached, or its answer is not HTTP.
    FailedHealthChecks,
}

impl Reason {
    /// The reason code of `DescribeTargetHealth`.
    pub fn code(self) -> &'static str {
        match self {
            Reason::ResponseCodeMismatch(_) => "Target.ResponseCodeMismatch",
            Reason::Timeout => "Target.Timeout",
            Reason::FailedHealthChecks => "Target.FailedHealthChecks",
        }
    }

    pub fn description(self) -> String {
        match self {
            Reason::ResponseCodeMismatch(status) => {
                format!("Health checks failed with these codes: [{status}]")
            }
            Reason::Timeout => "Request timed out".to_string(),
            Reason::FailedHealthChecks => "Health checks failed".to_string(),
        }
    }
}

/// The state of a target according to its health checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The target was just registered. No check has begun.
    Registering,
    /// No check has passed yet, and fewer have failed than the unhealthy threshold.
    Checking,
    /// The target gets requests.
    Healthy,
    /// The target gets requests only if no target of the group is healthy.
    Unhealthy(Reason),
}

/// The health of one target, which the outcomes of its checks change.
#[derive(Debug, Clone)]
pub struct Health {
    status: Status,
    passes_in_a_row: u32,
    failures_in_a_row: u32,
}

impl Default for Health {
    fn default() -> Self {
        Health {
            status: Status::Registering,
            passes_in_a_row: 0,
            failures_in_a_row: 0,
        }
    }
}

impl Health {
    pub fn status(&self) -> Status {
        self.status
    }

    /// Registration is complete, and the first check begins.
    pub fn registered(&mut self) {
        if self.status == Status::Registering {
            self.status = Status::Checking;
        }
    }

    /// Records the outcome of a check under the settings of its target group.
    pub fn observe(&mut self, outcome: Outcome, settings: &TargetGroup) {
        let failure = match outcome {
            Outcome::Status(status) if matches(&settings.matcher, status) => None,
            Outcome::Status(status) => Some(Reason::ResponseCodeMismatch(status)),
            Outcome::TimedOut => Some(Reason::Timeout),
            Outcome::Failed => Some(Reason::FailedHealthChecks),
        };
        match failure {
            None => {
                self.failures_in_a_row = 0;
                self.passes_in_a_row += 1;
                let needed = match self.status {
                    // "After your target is registered, it must pass one health check to be
                    // considered healthy". The threshold does not apply.
                    Status::Registering | Status::Checking => 1,
                    _ => settings.healthy_threshold,
                };
                if self.passes_in_a_row >= needed {
                    self.status = Status::Healthy;
                }
            }
            Some(reason) => {
                self.passes_in_a_row = 0;
                self.failures_in_a_row += 1;
                self.registered();
                let already = matches!(self.status, Status::Unhealthy(_));
                if already || self.failures_in_a_row >= settings.unhealthy_threshold {
                    self.status = Status::Unhealthy(reason);
                }
            }
        }
    }
}

/// Whether a matcher in AWS's grammar (`200`, `200,202`, `200-299`) contains `status`.
fn matches(matcher: &str, status: u16) -> bool {
    matcher.split(',').map(str::trim).any(|part| {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        match (low.trim().parse::<u16>(), high.trim().parse::<u16>()) {
            (Ok(low), Ok(high)) => (low..=high).contains(&status),
            _ => false,
        }
    })
}

/// Sends one health check as a load balancer node does: a GET on a new connection.
pub async fn check(address: SocketAddr, path: String, timeout: Duration) -> Outcome {
    match tokio::time::timeout(timeout, request(address, &path)).await {
        Ok(Ok(status)) => Outcome::Status(status),
        Ok(Err(error)) => {
            tracing::debug!(%address, path, %error, "health check failed");
            Outcome::Failed
        }
        Err(_) => Outcome::TimedOut,
    }
}

async fn request(address: SocketAddr, path: &str) -> anyhow::Result<u16> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // "The host header value contains the private IP address of the target, followed by the health
    // check port when not using a default port", per the load balancer's troubleshooting page.
    let host = match address.port() {
        80 => address.ip().to_string(),
        _ => address.to_string(),
    };
    let request = http::Request::get(path)
        .header(http::header::HOST, host)
        .header(http::header::USER_AGENT, "ELB-HealthChecker/2.0")
        .header(http::header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    // The connection is polled here instead of spawned, so that a check that times out leaves no task
    // behind. An answer that came before the target closed the connection still counts.
    let response = sender.send_request(request);
    tokio::pin!(response);
    let response = tokio::select! {
        biased;
        response = &mut response => response?,
        _ = connection => response.await?,
    };
    Ok(response.status().as_u16())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load_balancer::test_support::group;

    fn settings() -> TargetGroup {
        TargetGroup {
            healthy_threshold: 2,
            unhealthy_threshold: 3,
            ..group("arn:tg")
        }
    }

    fn after(outcomes: &[Outcome]) -> Status {
        let mut health = Health::default();
        for outcome in outcomes {
            health.observe(*outcome, &settings());
        }
        health.status()
    }

    const PASS: Outcome = Outcome::Status(200);

    #[test]
    fn a_new_target_is_healthy_after_its_first_passing_check() {
        assert_eq!(after(&[PASS]), Status::Healthy);
        assert_eq!(after(&[Outcome::Failed, PASS]), Status::Healthy);
    }

    #[test]
    fn a_new_target_stays_initial_below_the_unhealthy_threshold() {
        assert_eq!(after(&[]), Status::Registering);
        assert_eq!(after(&[Outcome::Failed, Outcome::Failed]), Status::Checking);
    }

    #[test]
    fn only_consecutive_failures_make_a_target_unhealthy() {
        let failed = Outcome::Failed;
        assert_eq!(after(&[PASS, failed, failed]), Status::Healthy);
        assert_eq!(
            after(&[PASS, failed, failed, PASS, failed, failed]),
            Status::Healthy
        );
        assert_eq!(
            after(&[PASS, failed, failed, failed]),
            Status::Unhealthy(Reason::FailedHealthChecks)
        );
    }

    #[test]
    fn an_unhealthy_target_must_pass_as_many_checks_in_a_row_as_the_healthy_threshold() {
        let failures = [Outcome::Failed; 3];
        let then = |more: &[Outcome]| after(&[&failures, more].concat());
        assert!(matches!(then(&[PASS]), Status::Unhealthy(_)));
        assert!(matches!(
            then(&[PASS, Outcome::Failed, PASS]),
            Status::Unhealthy(_)
        ));
        assert_eq!(then(&[PASS, PASS]), Status::Healthy);
    }

    #[test]
    fn an_unhealthy_target_reports_the_reason_of_its_latest_failure() {
        let Status::Unhealthy(reason) = after(&[
            Outcome::Failed,
            Outcome::TimedOut,
            Outcome::TimedOut,
            Outcome::Status(500),
        ]) else {
            panic!("not unhealthy");
        };
        assert_eq!(reason.code(), "Target.ResponseCodeMismatch");
        assert_eq!(
            reason.description(),
            "Health checks failed with these codes: [500]"
        );
        assert_eq!(Reason::Timeout.code(), "Target.Timeout");
        assert_eq!(Reason::Timeout.description(), "Request timed out");
        assert_eq!(
            Reason::FailedHealthChecks.code(),
            "Target.FailedHealthChecks"
        );
    }

    #[test]
    fn a_matcher_may_be_a_list_or_a_range() {
        assert!(matches("200", 200));
        assert!(!matches("200", 204));
        assert!(matches("200,204", 204));
        assert!(matches("200-299, 404", 299));
        assert!(matches("200-299, 404", 404));
        assert!(!matches("200-299", 300));
    }

    #[tokio::test]
    async fn a_check_distinguishes_a_status_a_refused_connection_a_timeout_and_an_invalid_answer() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let answering = |answer: Option<&'static str>, timeout: Duration| async move {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 1024];
                let length = stream.read(&mut request).await.unwrap();
                let request = String::from_utf8_lossy(&request[..length]).to_lowercase();
                assert!(
                    request.starts_with("get /_health http/1.1\r\n"),
                    "{request}"
                );
                assert!(request.contains("user-agent: elb-healthchecker/2.0"));
                match answer {
                    Some(answer) => stream.write_all(answer.as_bytes()).await.unwrap(),
                    None => std::future::pending().await,
                }
            });
            check(address, "/_health".into(), timeout).await
        };
        let hour = Duration::from_secs(3600);
        for (answer, outcome) in [
            ("HTTP/1.1 204 No Content\r\n\r\n", Outcome::Status(204)),
            ("invalid\r\n\r\n", Outcome::Failed),
            ("", Outcome::Failed),
        ] {
            assert_eq!(answering(Some(answer), hour).await, outcome, "{answer:?}");
        }
        let soon = Duration::from_millis(300);
        assert_eq!(answering(None, soon).await, Outcome::TimedOut);

        let closed = {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap()
        };
        let refused = check(closed, "/".into(), hour).await;
        assert_eq!(refused, Outcome::Failed);
    }
}
