//! The Lambda function of this step.

use lifecycle::sdk::{self, Clients};
use lifecycle::{Settings, serve::serve};
use time::UtcDateTime;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let settings = Settings::from_env()?;
    let clients = Clients::new(&sdk::config().await);
    serve(async |input| restart_rollout::run(&clients, &settings, &UtcDateTime::now, input).await)
        .await
}
