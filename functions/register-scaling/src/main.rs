//! The Lambda function of this step.

use autoscaling::Clients;
use lifecycle::{Baseline, sdk, serve::serve};
use time::UtcDateTime;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let baseline = Baseline::from_env()?;
    let clients = Clients::new(&sdk::config().await);
    serve(async |input| register_scaling::run(&clients, &baseline, &UtcDateTime::now, input).await)
        .await
}
