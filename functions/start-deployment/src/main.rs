//! The Lambda function of this step.

use lifecycle::{sdk, serve::serve};
use start_deployment::Config;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let config = Config::read(|name| std::env::var(name).ok())?;
    let sfn = aws_sdk_sfn::Client::new(&sdk::config().await);
    serve(async |event| start_deployment::run(&sfn, &config, event).await).await
}
