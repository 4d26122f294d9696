//! The Lambda function of this step.

use find_deployments::{Clients, Settings};
use lifecycle::{sdk, serve::serve};
use time::UtcDateTime;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let settings = Settings::read(|name| std::env::var(name).ok())?;
    let config = sdk::config().await;
    let clients = Clients {
        ecs: aws_sdk_ecs::Client::new(&config),
        elb: aws_sdk_elasticloadbalancingv2::Client::new(&config),
        sfn: aws_sdk_sfn::Client::new(&config),
    };
    serve(async |input| find_deployments::run(&clients, &settings, &UtcDateTime::now, input).await)
        .await
}
