//! The Lambda function of this step.

use lifecycle::{sdk, serve::serve};
use time::UtcDateTime;
use watch_deployment::{Clients, Config};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let config = Config::read(|name| std::env::var(name).ok())?;
    let sdk = sdk::config().await;
    let clients = Clients {
        cloudwatch: aws_sdk_cloudwatch::Client::new(&sdk),
        ecs: aws_sdk_ecs::Client::new(&sdk),
        elb: aws_sdk_elasticloadbalancingv2::Client::new(&sdk),
        logs: aws_sdk_cloudwatchlogs::Client::new(&sdk),
        sfn: aws_sdk_sfn::Client::new(&sdk),
    };
    serve(async |input| watch_deployment::run(&clients, &config, &UtcDateTime::now, input).await)
        .await
}
