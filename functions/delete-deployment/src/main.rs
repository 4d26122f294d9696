//! The Lambda function of this step.

use delete_deployment::{Clients, Config};
use lifecycle::sdk;
use lifecycle::serve::serve;
use time::UtcDateTime;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let config = Config::read(|name| std::env::var(name).ok())?;
    let sdk_config = sdk::config().await;
    let clients = Clients {
        shared: sdk::Clients::new(&sdk_config),
        autoscaling: aws_sdk_applicationautoscaling::Client::new(&sdk_config),
    };
    serve(async |input| delete_deployment::run(&clients, &config, &UtcDateTime::now, input).await)
        .await
}
