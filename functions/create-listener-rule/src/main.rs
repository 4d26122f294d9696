//! The Lambda function of this step.

use lifecycle::sdk::{self, Clients};
use lifecycle::{Baseline, serve::serve};
use time::UtcDateTime;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let baseline = Baseline::from_env()?;
    let Clients { elb, secrets, .. } = Clients::new(&sdk::config().await);
    let clock = &UtcDateTime::now;
    serve(async |input| create_listener_rule::run(&elb, &secrets, &baseline, clock, input).await)
        .await
}
