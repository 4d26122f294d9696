//! The Lambda function of this step.

use lifecycle::sdk::{self, Clients};
use lifecycle::{Baseline, serve::serve};
use time::UtcDateTime;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let baseline = Baseline::from_env()?;
    let clients = Clients::new(&sdk::config().await);
    serve(async |payload| {
        restore_deployment::run(&clients, &baseline, &UtcDateTime::now, payload).await
    })
    .await
}
