//! A deployment that fails before its switch moves no traffic, leaves nothing behind, and says why.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use bytes::Bytes;
use http::Method;
use localcloud::gateway::ecr::PushEvent;
use scenarios::visitors::Pin;
use scenarios::{Execution, TestEnvironment, Traffic};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_image_fails_with_its_reason_and_disturbs_no_visitor() -> Result<()> {
    let env = TestEnvironment::deploy().await?;
    let live = env.deploy_live(&[]).await?.name;
    let pins = vec![
        Pin::None,
        Pin::Header(live.clone()),
        Pin::Cookie(live.clone()),
    ];
    let traffic = Traffic::start(&env, 50, pins.clone())?;

    // A crash is reported once three tasks have stopped, long before the deployment is out of time.
    let crashed = env.push_and_wait(&[("CRASH_ON_START", "3")]).await?;
    let words = [
        "(Unhealthy)",
        "tasks stopped, the last one:",
        "exit code 3",
        "CRASH_ON_START asks for exit code 3",
    ];
    is_undone(&env, &crashed, &words).await?;

    // The others at the same time, because they are independent.
    let gone = env.new_id();
    // An image of its own, which differs from the live one.
    let gone_event = env
        .push_without_event(&gone, &[("SESSION_IDLE_SECONDS", "77")])
        .await?;
    let unhealthy = async {
        let ended = env.push_and_wait(&[("NEVER_HEALTHY", "1")]).await?;
        is_undone(&env, &ended, &["/_health", "500"]).await
    };
    let image_gone = async {
        let ended = deploy_and_delete_the_image(&env, &gone_event).await?;
        let image = format!("{}@sha256:", env.name);
        is_undone(&env, &ended, &["CannotPull", &image]).await
    };
    let no_image = async {
        let id = env.new_id();
        let input = json!({"deploymentId": id}).to_string();
        let ended = env.start_by_hand(&id, &input).await?;
        ensure!(
            ended.ending() == "Refused",
            "{}: {}",
            ended.ending(),
            ended.cause
        );
        let image = format!("{}:{id}", env.name);
        assert!(ended.cause.contains(&image), "{}", ended.cause);
        assert_eq!(env.remaining(&id).await?, Vec::<String>::new());
        Ok(())
    };
    tokio::try_join!(unhealthy, image_gone, no_image)?;

    assert_eq!(env.active().await?.as_ref(), Some(&live));
    let (tally, _) = traffic.stop().await?;
    assert_eq!(tally.failed, Vec::<String>::new());
    assert_eq!(tally.answers(), tally.sent);
    for pin in &pins {
        assert_eq!(
            tally.answered_by(pin, 0, 0),
            BTreeSet::from([live.as_str()])
        );
    }

    // None of this affects the next deployment.
    env.deploy_live(&[]).await?;
    env.tear_down().await;
    Ok(())
}

/// The execution ended as Failed with these words in its cause, and nothing of the deployment remains.
async fn is_undone(env: &TestEnvironment, execution: &Execution, words: &[&str]) -> Result<()> {
    let Execution {
        name, error, cause, ..
    } = execution;
    ensure!(
        execution.ending() == "Failed",
        "{name}: {}: {cause}",
        execution.ending()
    );
    assert_eq!(error, "Failed");
    for word in words {
        assert!(cause.contains(word), "`{word}` is not in: {cause}");
    }
    assert_eq!(env.remaining(name).await?, Vec::<String>::new());
    Ok(())
}

/// Deploys the image of an event, and deletes it after the deployment found it and before a task pulls it.
async fn deploy_and_delete_the_image(
    env: &TestEnvironment,
    event: &PushEvent,
) -> Result<Execution> {
    let id = &event.tag;
    // Until then, no task pulls anything.
    env.cloud.ecs().pause_starts(true);
    env.cloud.push_events().deliver(event).await?;
    env.wait_until_left(id, "CreateService").await?;
    let manifest = format!("/v2/{}/manifests/{}", env.name, event.digest);
    let registry = env.cloud.client();
    registry
        .rest("ecr", Method::DELETE, &manifest, Bytes::new())
        .await?;
    env.cloud.ecs().pause_starts(false);
    env.wait_for_deployment(id).await
}
