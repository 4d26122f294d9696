//! The Lambda function of this step.

use delete_deployment::Settings;
use lifecycle::sdk::{self, Clients};
use lifecycle::serve::serve;
use time::UtcDateTime;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let settings = Settings::read(|name| std::env::var(name).ok())?;
    let clients = Clients::new(&sdk::config().await);
    serve(async |input| delete_deployment::run(&clients, &settings, &UtcDateTime::now, input).await)
        .await
}
