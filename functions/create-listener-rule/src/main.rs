//! The Lambda function of this step.

use lifecycle::{Settings, sdk, serve::serve};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let settings = Settings::from_env()?;
    let elb = aws_sdk_elasticloadbalancingv2::Client::new(&sdk::config().await);
    serve(async |input| create_listener_rule::run(&elb, &settings, input).await).await
}
