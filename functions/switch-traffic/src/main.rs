//! The Lambda function of this step.

use lifecycle::sdk::{self, Clients};
use lifecycle::{Settings, serve::serve};
use time::UtcDateTime;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let settings = Settings::from_env()?;
    let Clients { elb, secrets, .. } = Clients::new(&sdk::config().await);
    serve(async |input| {
        switch_traffic::run(&elb, &secrets, &settings, &UtcDateTime::now, input).await
    })
    .await
}
