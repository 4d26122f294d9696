//! The Lambda function of this step.

use lifecycle::{Baseline, sdk, serve::serve};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let baseline = Baseline::from_env()?;
    let ecs = aws_sdk_ecs::Client::new(&sdk::config().await);
    serve(async |input| register_task_definition::run(&ecs, &baseline, input).await).await
}
