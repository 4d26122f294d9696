//! The Lambda function of this step.

use std::sync::Arc;

use lifecycle::{sdk, serve::serve};
use start_deployment::Settings;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let settings = Arc::new(Settings::read(|name| std::env::var(name).ok())?);
    let sfn = aws_sdk_sfn::Client::new(&sdk::config().await);
    serve(move |event| {
        let (sfn, settings) = (sfn.clone(), Arc::clone(&settings));
        async move {
            let output = start_deployment::run(&sfn, &settings, event).await?;
            lambda_runtime::tracing::info!("{output}");
            Ok(output)
        }
    })
    .await
}
