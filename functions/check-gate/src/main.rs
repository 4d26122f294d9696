//! The Lambda function of this step.

use check_gate::Clients;
use lifecycle::{Baseline, sdk, serve::serve};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let baseline = Baseline::from_env()?;
    let config = sdk::config().await;
    let clients = Clients {
        cloudwatch: aws_sdk_cloudwatch::Client::new(&config),
        ssm: aws_sdk_ssm::Client::new(&config),
    };
    serve(async |input| check_gate::run(&clients, &baseline, input).await).await
}
