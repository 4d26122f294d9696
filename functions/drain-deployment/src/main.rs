//! The Lambda function of this step.

use drain_deployment::Clients;
use lifecycle::{Baseline, sdk, serve::serve};
use time::UtcDateTime;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let baseline = Baseline::from_env()?;
    let config = sdk::config().await;
    let clients = Clients {
        ecs: aws_sdk_ecs::Client::new(&config),
        elb: aws_sdk_elasticloadbalancingv2::Client::new(&config),
        secrets: aws_sdk_secretsmanager::Client::new(&config),
        http: task_requests::client(),
    };
    serve(async |input| drain_deployment::run(&clients, &baseline, &UtcDateTime::now, input).await)
        .await
}
