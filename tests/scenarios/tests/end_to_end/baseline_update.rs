//! The stacks are deployed again while visitors use the environment.

use std::collections::BTreeSet;

use anyhow::Result;
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
    let actions = format!("{:?}", env.default_actions().await?);

    // Unchanged.
    env.cloud.deploy(environment).await?;
    assert_eq!(format!("{:?}", env.default_actions().await?), actions);

    // With other parameters, in both stacks.
    let changed = [
        (
            "BASELINE_PARAMETERS",
            "LogRetentionDays=7 ContainerInsights=enabled",
        ),
        (
            "PIPELINE_PARAMETERS",
            "HealthTimeoutSeconds=300 LogRetentionDays=7",
        ),
        ("ARCH", ""),
    ];
    env.cloud.deploy_with(environment, &changed).await?;
    assert_eq!(format!("{:?}", env.default_actions().await?), actions);

    // With another certificate for the listener.
    let certificate = "arn:aws:acm:us-east-1:000000000000:certificate/another";
    let mut another = changed.to_vec();
    another.push(("CERTIFICATE_ARN", certificate));
    env.cloud.deploy_with(environment, &another).await?;
    assert_eq!(format!("{:?}", env.default_actions().await?), actions);
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
    traffic.each_is_answered(50).await?;
    let (tally, _) = traffic.stop().await?;
    assert_eq!(tally.failed, Vec::<String>::new());
    for (pin, id) in [
        (Pin::None, &live),
        (Pin::Header(old.clone()), &old),
        (Pin::Cookie(live.clone()), &live),
    ] {
        let by = tally.answered_by(&pin, 0, 0);
        assert_eq!(by, BTreeSet::from([id.as_str()]), "{pin:?}");
    }

    // The environment still deploys, for the architecture that only the first deploy was given.
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
