//! What fails before the switch leaves traffic where it was and nothing behind, and says why.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::Bytes;
use http::Method;
use localcloud::front_door::ecr::PushEvent;
use localcloud::front_door::faults::{Fault, FaultRule};
use scenarios::visitors::Pin;
use scenarios::{Execution, Stage, Steady};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_image_is_rolled_back_with_its_reason_and_nobody_notices() -> Result<()> {
    let stage = Stage::set().await?;
    let live = stage.deploy_live(&[]).await?.name;
    let pins = vec![
        Pin::None,
        Pin::Header(live.clone()),
        Pin::Cookie(live.clone()),
    ];
    let traffic = Steady::traffic(&stage, 50, pins.clone())?;

    // A crash is reported in under a minute of real time, push included.
    let pushed = Instant::now();
    let crashed = stage.deploy(&[("CRASH_ON_START", "3")]).await?;
    let took = pushed.elapsed();
    println!("the crash was reported after {:.1} s", took.as_secs_f64());
    assert!(took < Duration::from_secs(60), "{took:?}");
    is_rolled_back(
        &stage,
        &crashed,
        &["exit code 3", "CRASH_ON_START asks for exit code 3"],
    )
    .await?;

    // The others side by side: they have nothing to do with each other.
    let gone = stage.new_id();
    // An image of its own, and not what is live under another tag.
    let gone_event = stage
        .push_unnoticed(&gone, &[("SESSION_IDLE_SECONDS", "77")])
        .await?;
    let unhealthy = async {
        let ended = stage.deploy(&[("NEVER_HEALTHY", "1")]).await?;
        is_rolled_back(&stage, &ended, &["/_health", "500"]).await
    };
    let image_gone = async {
        let ended = deploy_and_delete_the_image(&stage, &gone_event).await?;
        let image = format!("{}@sha256:", stage.environment);
        is_rolled_back(&stage, &ended, &["CannotPull", &image]).await
    };
    let no_image = async {
        let id = stage.new_id();
        let input = json!({"deploymentId": id}).to_string();
        let ended = stage.start_by_hand(&id, &input).await?;
        ensure!(
            ended.ending() == "Refused",
            "{}: {}",
            ended.ending(),
            ended.cause
        );
        println!("{}: {}", ended.error, ended.cause);
        let image = format!("{}:{id}", stage.environment);
        assert!(ended.cause.contains(&image), "{}", ended.cause);
        assert_eq!(stage.leftovers(&id).await?, Vec::<String>::new());
        Ok(())
    };
    tokio::try_join!(unhealthy, image_gone, no_image)?;

    assert_eq!(stage.active().await?.as_ref(), Some(&live));
    let (tally, rate) = traffic.stop().await?;
    println!(
        "{} requests at {rate:.0}/s, {} failed",
        tally.sent,
        tally.failed.len()
    );
    assert_eq!(tally.failed, Vec::<String>::new());
    assert_eq!(tally.answers(), tally.sent);
    for pin in &pins {
        assert_eq!(tally.met(pin, 0, 0), BTreeSet::from([live.as_str()]));
    }

    // None of this is in the way of the next deployment.
    stage.deploy_live(&[]).await?;
    stage.strike().await;
    Ok(())
}

/// The execution ended RolledBack with these words in its cause, and nothing of it is left.
async fn is_rolled_back(stage: &Stage, execution: &Execution, words: &[&str]) -> Result<()> {
    let Execution {
        name, error, cause, ..
    } = execution;
    println!("{error}: {cause}");
    ensure!(
        execution.ending() == "RolledBack",
        "{name}: {}: {cause}",
        execution.ending()
    );
    assert_eq!(error, "RolledBack");
    for word in words {
        assert!(cause.contains(word), "`{word}` is not in: {cause}");
    }
    assert_eq!(stage.leftovers(name).await?, Vec::<String>::new());
    Ok(())
}

/// Deploys the image of an event and deletes it after it was found and before a task pulls it.
async fn deploy_and_delete_the_image(stage: &Stage, event: &PushEvent) -> Result<Execution> {
    let id = &event.tag;
    // A slow call between the two, to have the time.
    let slow = Fault::Slow { milliseconds: 3000 };
    stage.cloud.faults().add(FaultRule::next(
        "elasticloadbalancing",
        "CreateTargetGroup",
        slow,
    ));
    stage.cloud.push_events().deliver(event).await?;
    let arn = stage.execution_arn(id);
    let registered = async || {
        // Until it has begun it cannot be read.
        let execution = Execution::read(&stage.sfn, &arn).await;
        Ok(execution.is_ok_and(|execution| execution.left("RegisterTaskDefinition").is_some()))
    };
    stage.within(Duration::from_secs(60), registered).await?;
    let manifest = format!("/v2/{}/manifests/{}", stage.environment, event.digest);
    let registry = stage.cloud.client();
    registry
        .rest("ecr", Method::DELETE, &manifest, Bytes::new())
        .await?;
    stage.end_of(id).await
}
