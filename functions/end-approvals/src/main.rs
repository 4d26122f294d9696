//! The Lambda function of this step.

use end_approvals::Clients;
use lifecycle::{Baseline, sdk, serve::serve};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let baseline = Baseline::from_env()?;
    let sdk = sdk::config().await;
    let clients = Clients {
        elb: aws_sdk_elasticloadbalancingv2::Client::new(&sdk),
        sfn: aws_sdk_sfn::Client::new(&sdk),
    };
    serve(async |input| end_approvals::run(&clients, &baseline, input).await).await
}
