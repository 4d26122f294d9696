//! The Lambda function of this step.

use std::sync::Arc;

use lifecycle::{Settings, sdk, serve::serve};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let settings = Arc::new(Settings::from_env()?);
    let ecs = aws_sdk_ecs::Client::new(&sdk::config().await);
    serve(move |input| {
        let (ecs, settings) = (ecs.clone(), Arc::clone(&settings));
        async move { create_service::run(&ecs, &settings, input).await }
    })
    .await
}
