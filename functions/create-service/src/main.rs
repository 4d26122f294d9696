//! The Lambda function of this step.

use lifecycle::{Settings, sdk, serve::serve};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let settings = Settings::from_env()?;
    let ecs = aws_sdk_ecs::Client::new(&sdk::config().await);
    serve(async |input| create_service::run(&ecs, &settings, input).await).await
}
