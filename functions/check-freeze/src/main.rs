//! The Lambda function of this step.

use lifecycle::{Baseline, sdk, serve::serve};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let baseline = Baseline::from_env()?;
    let ssm = aws_sdk_ssm::Client::new(&sdk::config().await);
    serve(async |input| check_freeze::run(&ssm, &baseline, input).await).await
}
