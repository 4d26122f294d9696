//! The Lambda function of this step.

use find_deployments::{Clients, Config};
use lifecycle::{sdk, serve::serve};
use time::UtcDateTime;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let config = Config::read(|name| std::env::var(name).ok())?;
    let sdk = sdk::config().await;
    let clients = Clients {
        ecs: aws_sdk_ecs::Client::new(&sdk),
        elb: aws_sdk_elasticloadbalancingv2::Client::new(&sdk),
        sfn: aws_sdk_sfn::Client::new(&sdk),
    };
    serve(async |input| find_deployments::run(&clients, &config, &UtcDateTime::now, input).await)
        .await
}
