//! The SDK's configuration, the same for every client.

use std::pin::Pin;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_smithy_http_client::tls::{self, rustls_provider::CryptoMode};

use crate::defaults;

/// The clients of a step that works with several services.
#[derive(Debug, Clone)]
pub struct Clients {
    /// For services, tasks and task definitions.
    pub ecs: aws_sdk_ecs::Client,
    /// For the listener, its rules and the target groups.
    pub elb: aws_sdk_elasticloadbalancingv2::Client,
    /// For the executions of the deploy machine.
    pub sfn: aws_sdk_sfn::Client,
    /// For the secret of the listener's OIDC client.
    pub secrets: aws_sdk_secretsmanager::Client,
}

impl Clients {
    /// The clients of this configuration.
    pub fn new(config: &SdkConfig) -> Self {
        Clients {
            ecs: aws_sdk_ecs::Client::new(config),
            elb: aws_sdk_elasticloadbalancingv2::Client::new(config),
            sfn: aws_sdk_sfn::Client::new(config),
            secrets: aws_sdk_secretsmanager::Client::new(config),
        }
    }
}

/// Region, credentials and endpoint from the environment; time limits and retries from
/// [`defaults`].
///
/// Boxed, so that it is compiled once, in this crate.
pub fn config() -> Pin<Box<dyn Future<Output = SdkConfig>>> {
    Box::pin(load())
}

async fn load() -> SdkConfig {
    let http_client = aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(CryptoMode::Ring))
        .build_https();
    aws_config::defaults(BehaviorVersion::latest())
        .http_client(http_client)
        .retry_config(RetryConfig::standard().with_max_attempts(defaults::CALL_ATTEMPTS))
        .timeout_config(
            TimeoutConfig::builder()
                .operation_attempt_timeout(defaults::ATTEMPT_TIMEOUT)
                .operation_timeout(defaults::CALL_TIMEOUT)
                .build(),
        )
        .load()
        .await
}
