//! The Lambda function of this step.

use lifecycle::{Settings, sdk, serve::serve};
use restart_rollout::Clients;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let settings = Settings::from_env()?;
    let config = sdk::config().await;
    let clients = Clients {
        ecs: aws_sdk_ecs::Client::new(&config),
        elb: aws_sdk_elasticloadbalancingv2::Client::new(&config),
    };
    serve(async |input| restart_rollout::run(&clients, &settings, input).await).await
}
