//! The Lambda function of this step.

use lifecycle::{Baseline, sdk, serve::serve};
use run_release::Clients;
use time::UtcDateTime;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let baseline = Baseline::from_env()?;
    let config = sdk::config().await;
    let clients = Clients {
        ecs: aws_sdk_ecs::Client::new(&config),
        elb: aws_sdk_elasticloadbalancingv2::Client::new(&config),
        logs: aws_sdk_cloudwatchlogs::Client::new(&config),
    };
    serve(async |input| run_release::run(&clients, &baseline, &UtcDateTime::now, input).await).await
}
