//! The Lambda function of this step.

use choose_count::Clients;
use lifecycle::{Baseline, sdk, serve::serve};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let baseline = Baseline::from_env()?;
    let config = sdk::config().await;
    let clients = Clients {
        autoscaling: aws_sdk_applicationautoscaling::Client::new(&config),
        ecs: aws_sdk_ecs::Client::new(&config),
        elb: aws_sdk_elasticloadbalancingv2::Client::new(&config),
    };
    serve(async |input| choose_count::run(&clients, &baseline, input).await).await
}
