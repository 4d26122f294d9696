//! The Lambda function of this step.

use lifecycle::{Baseline, sdk, serve::serve};
use time::UtcDateTime;
use validate_deployment::Clients;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let baseline = Baseline::from_env()?;
    let config = sdk::config().await;
    let clients = Clients {
        cloudwatch: aws_sdk_cloudwatch::Client::new(&config),
        ecr: aws_sdk_ecr::Client::new(&config),
        ecs: aws_sdk_ecs::Client::new(&config),
        elb: aws_sdk_elasticloadbalancingv2::Client::new(&config),
        secrets: aws_sdk_secretsmanager::Client::new(&config),
        sfn: aws_sdk_sfn::Client::new(&config),
        ssm: aws_sdk_ssm::Client::new(&config),
    };
    serve(async |payload| {
        validate_deployment::run(&clients, &baseline, UtcDateTime::now(), payload).await
    })
    .await
}
