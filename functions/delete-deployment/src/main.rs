//! The Lambda function of this step.

use std::sync::Arc;

use delete_deployment::Clients;
use lifecycle::{Settings, defaults, sdk, serve::serve, settings};
use time::{Duration, UtcDateTime};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let settings = Arc::new(Settings::from_env()?);
    let variable = |name: &str| std::env::var(name).ok();
    let settle = settings::number(variable, "SETTLE_SECONDS", defaults::SETTLE_SECONDS)?;
    let settle = Duration::seconds(i64::from(settle));
    let config = sdk::config().await;
    let clients = Arc::new(Clients {
        ecs: aws_sdk_ecs::Client::new(&config),
        elb: aws_sdk_elasticloadbalancingv2::Client::new(&config),
    });
    serve(move |input| {
        let (clients, settings) = (Arc::clone(&clients), Arc::clone(&settings));
        async move {
            delete_deployment::run(&clients, &settings, settle, UtcDateTime::now(), input).await
        }
    })
    .await
}
