//! The stacks are deployed again while people are on the environment.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use aws_sdk_ecs::types::CpuArchitecture;
use localcloud::Options;
use scenarios::visitors::Pin;
use scenarios::{TestEnvironment, Traffic};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deploying_the_stacks_again_moves_no_traffic() -> Result<()> {
    let images = [("IMAGE_ARCH", "arm64")];
    let env = TestEnvironment::deploy_as(Options::default(), &images).await?;
    let old = env.deploy_live(&[]).await?.name;
    let live = env.deploy_live(&[]).await?.name;
    let traffic = Traffic::start(
        &env,
        50,
        vec![
            Pin::None,
            Pin::Header(old.clone()),
            Pin::Cookie(live.clone()),
        ],
    )?;
    let environment = &env.name;
    let listener = format!("{:?}", default_actions(&env).await?);

    // Unchanged.
    env.cloud.deploy(environment).await?;
    assert_eq!(format!("{:?}", default_actions(&env).await?), listener);

    // With other parameters, in both stacks.
    let changed = [
        (
            "BASELINE_PARAMETERS",
            "NatGateway=false LogRetentionDays=7 ContainerInsights=enabled",
        ),
        (
            "PIPELINE_PARAMETERS",
            "HealthTimeoutSeconds=300 LogRetentionDays=7",
        ),
        ("ARCH", ""),
    ];
    env.cloud.deploy_with(environment, &changed).await?;
    assert_eq!(format!("{:?}", default_actions(&env).await?), listener);

    // With another certificate, which is the listener's.
    let certificate = "arn:aws:acm:us-east-1:000000000000:certificate/another";
    let mut another = changed.to_vec();
    another.push(("CERTIFICATE_ARN", certificate));
    env.cloud.deploy_with(environment, &another).await?;
    assert_eq!(format!("{:?}", default_actions(&env).await?), listener);
    let listeners = env
        .elb
        .describe_listeners()
        .listener_arns(env.listener_arn().await?)
        .send()
        .await?;
    let certificates = listeners
        .listeners()
        .iter()
        .flat_map(|listener| listener.certificates());
    assert_eq!(
        certificates
            .filter_map(|c| c.certificate_arn())
            .collect::<Vec<_>>(),
        [certificate]
    );

    assert_eq!(env.active().await?.as_ref(), Some(&live));
    let (tally, rate) = traffic.stop().await?;
    println!(
        "{} requests at {rate:.0}/s, {} failed",
        tally.sent,
        tally.failed.len()
    );
    assert_eq!(tally.failed, Vec::<String>::new());
    assert_eq!(
        tally.answered_by(&Pin::None, 0, 0),
        BTreeSet::from([live.as_str()])
    );
    assert_eq!(
        tally.answered_by(&Pin::Header(old.clone()), 0, 0),
        BTreeSet::from([old.as_str()])
    );

    // The environment still deploys, for the processor that only the first time was told.
    env.deploy_live(&[]).await?;
    let newest = env.ecs.describe_task_definition();
    let newest = newest.task_definition(format!("{environment}-app"));
    let newest = newest.send().await?;
    let platform = newest
        .task_definition()
        .and_then(|definition| definition.runtime_platform());
    assert_eq!(
        platform.and_then(|platform| platform.cpu_architecture()),
        Some(&CpuArchitecture::Arm64)
    );
    env.tear_down().await;
    Ok(())
}

/// The default actions of the HTTPS listener.
async fn default_actions(
    env: &TestEnvironment,
) -> Result<Vec<aws_sdk_elasticloadbalancingv2::types::Action>> {
    let listeners = env
        .elb
        .describe_listeners()
        .listener_arns(env.listener_arn().await?)
        .send()
        .await?;
    let listener = listeners.listeners().first().context("no listener")?;
    Ok(listener.default_actions().to_vec())
}
