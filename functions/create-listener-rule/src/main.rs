//! The Lambda function of this step.

use lifecycle::sdk::{self, Clients};
use lifecycle::{Settings, serve::serve};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let settings = Settings::from_env()?;
    let Clients { elb, secrets, .. } = Clients::new(&sdk::config().await);
    serve(async |input| create_listener_rule::run(&elb, &secrets, &settings, input).await).await
}
