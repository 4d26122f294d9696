//! The Lambda function of this step.

use delete_deployment::Config;
use lifecycle::sdk::{self, Clients};
use lifecycle::serve::serve;
use time::UtcDateTime;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let config = Config::read(|name| std::env::var(name).ok())?;
    let clients = Clients::new(&sdk::config().await);
    serve(async |input| delete_deployment::run(&clients, &config, &UtcDateTime::now, input).await)
        .await
}
