//! The Lambda function of this step.

use lifecycle::{Baseline, sdk, serve::serve};
use time::UtcDateTime;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let baseline = Baseline::from_env()?;
    let elb = aws_sdk_elasticloadbalancingv2::Client::new(&sdk::config().await);
    serve(async |input| evict_visitors::run(&elb, &baseline, &UtcDateTime::now, input).await).await
}
