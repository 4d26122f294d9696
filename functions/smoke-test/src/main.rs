//! The Lambda function of this step.

use lifecycle::{sdk, serve::serve};
use smoke_test::{Clients, Config};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let config = Config::read(|name| std::env::var(name).ok())?;
    let sdk = sdk::config().await;
    let clients = Clients {
        ecs: aws_sdk_ecs::Client::new(&sdk),
        elb: aws_sdk_elasticloadbalancingv2::Client::new(&sdk),
        http: task_requests::client(),
    };
    serve(async |input| smoke_test::run(&clients, &config, input).await).await
}
