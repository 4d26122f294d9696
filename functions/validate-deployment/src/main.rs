//! The Lambda function of this step.

use lifecycle::{Settings, sdk, serve::serve};
use time::UtcDateTime;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let settings = Settings::from_env()?;
    let config = sdk::config().await;
    let ecr = aws_sdk_ecr::Client::new(&config);
    let elb = aws_sdk_elasticloadbalancingv2::Client::new(&config);
    serve(async |input| {
        validate_deployment::run(&ecr, &elb, &settings, UtcDateTime::now(), input).await
    })
    .await
}
