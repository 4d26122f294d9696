//! The Lambda function of this step.

use std::sync::Arc;

use find_deployments::{Clients, Settings};
use lifecycle::{sdk, serve::serve};
use time::UtcDateTime;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let settings = Arc::new(Settings::read(|name| std::env::var(name).ok())?);
    let config = sdk::config().await;
    let clients = Arc::new(Clients {
        ecs: aws_sdk_ecs::Client::new(&config),
        elb: aws_sdk_elasticloadbalancingv2::Client::new(&config),
        sfn: aws_sdk_sfn::Client::new(&config),
    });
    serve(move |input| {
        let (clients, settings) = (Arc::clone(&clients), Arc::clone(&settings));
        async move { find_deployments::run(&clients, &settings, UtcDateTime::now(), input).await }
    })
    .await
}
