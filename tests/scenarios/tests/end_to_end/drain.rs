//! People stay on the version they are on until they leave, and nobody after them notices its end.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result};
use localcloud::Options;
use scenarios::machines::{BY_HAND, Task, drain_record, outcome, planned};
use scenarios::visitors::Pin;
use scenarios::websocket::{Session, Socket};
use scenarios::{TestEnvironment, Traffic};
use serde_json::json;

/// Nothing is kept warm, so that what was replaced drains at the next sweep.
async fn environment() -> Result<TestEnvironment> {
    let parameters = format!("{BY_HAND} KeepPrevious=0");
    TestEnvironment::deploy_as(
        Options::default(),
        &[("PIPELINE_PARAMETERS", parameters.as_str())],
    )
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_task_is_drained_by_its_own_address_and_one_that_ecs_replaced_by_the_next_sweep()
-> Result<()> {
    let env = environment().await?;
    // It fails its health checks once it drains, for which ECS would replace it.
    let old = env
        .deploy_live(&[("HEALTH_503_WHILE_DRAINING", "1")])
        .await?
        .name;
    let mut socket = Socket::open(&env, &old).await?;
    let new = env.deploy_live(&[]).await?.name;
    let first = env.tasks_running(&old, 2).await?;
    for task in &first {
        assert_eq!(drain_record(task).await?["draining"], false);
    }

    let sweep = env.clean_up().await?;
    let (what, why) = outcome(&sweep, &old)?;
    println!("{what}: {why}");
    assert_eq!(what, "draining", "{why}");
    for task in &first {
        was_drained_directly(task).await?;
    }
    for task in env.tasks_running(&new, 2).await? {
        assert_eq!(drain_record(&task).await?["draining"], false, "{task:?}");
    }

    // Longer than three failed health checks: nothing is replaced.
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!(env.tasks(&old).await?, first);
    socket.talk("still here").await?;

    // One dies and ECS puts another in its place, which knows nothing of the draining.
    let idle = idle_one(&first).await?;
    assert!(env.cloud.ecs().kill(&idle.id).await);
    env.wait_until(Duration::from_secs(60), async || {
        let tasks = env.tasks(&old).await?;
        Ok(tasks.len() == 2 && !tasks.contains(&idle))
    })
    .await
    .context("the killed task was not replaced")?;
    let second = env.tasks(&old).await?;
    let fresh: Vec<_> = second.iter().filter(|task| !first.contains(task)).collect();
    assert_eq!(fresh.len(), 1, "{first:?} {second:?}");
    env.wait_until(Duration::from_secs(60), async || {
        Ok(drain_record(fresh[0]).await.is_ok())
    })
    .await?;
    assert_eq!(drain_record(fresh[0]).await?["draining"], false);
    env.clean_up().await?;
    for task in &second {
        was_drained_directly(task).await?;
    }

    socket.talk("and now").await?;
    socket.close().await?;
    let sweep = env.clean_up_later().await?;
    assert_eq!(outcome(&sweep, &old)?.0, "draining");
    let sweep = env.clean_up_later().await?;
    assert_eq!(outcome(&sweep, &old)?.0, "deleted");
    assert_eq!(env.remaining(&old).await?, Vec::<String>::new());
    assert_eq!(env.active().await?, Some(new));
    env.tear_down().await;
    Ok(())
}

/// The task's own record says that it was asked by its private address, and so by nobody else: the
/// load balancer would have sent its own name.
async fn was_drained_directly(task: &Task) -> Result<()> {
    let record = drain_record(task).await?;
    assert_eq!(record["draining"], true, "{task:?} {record}");
    assert_eq!(
        record["host"],
        format!("{}:8000", task.address),
        "{task:?} {record}"
    );
    Ok(())
}

/// The one that nobody has a session on.
async fn idle_one(tasks: &[Task]) -> Result<Task> {
    for task in tasks {
        let page = task.ask("/").await?;
        if page["activeSessions"] == 0 {
            return Ok(task.clone());
        }
    }
    anyhow::bail!("each of {tasks:?} has a session")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_without_drain_is_reported_and_ends_by_the_deadline_task_by_task()
-> Result<()> {
    let env = environment().await?;
    let old = env.deploy_live(&[("NO_DRAIN", "1")]).await?.name;
    let new = env.deploy_live(&[]).await?.name;
    for sweep in [env.clean_up().await?, env.clean_up_later().await?] {
        let (what, why) = outcome(&sweep, &old)?;
        println!("{what}: {why}");
        assert_eq!(what, "draining");
        assert!(why.contains("404"), "{why}");
        assert!(why.contains("drain deadline"), "{why}");
    }

    // The deadline counts from the start of draining, so that is moved to long ago.
    env.tag(&old, "pulse:draining-since", "2026-01-01T00:00:00Z")
        .await?;
    let plan = env.plan().await?;
    let (state, action, why) = planned(&plan, &old)?;
    assert_eq!((state, action), ("draining", "delete"), "{why}");
    assert!(why.contains("deadline"), "{why}");

    let pins = vec![
        Pin::None,
        Pin::Cookie(old.clone()),
        Pin::Header(old.clone()),
    ];
    let traffic = Traffic::start(&env, 50, pins)?;
    let execution = env.start("cleanup", &json!({})).await?;
    let counts = Mutex::new(Vec::new());
    env.wait_until(Duration::from_secs(120), async || {
        // Tasks first: one that stops between the two looks must not seem to be one too many.
        let running = env.tasks(&old).await.unwrap_or_default().len();
        let desired = env.desired_count(&old).await.unwrap_or_default();
        let described = env.sfn.describe_execution().execution_arn(&execution);
        let has_ended = described.send().await?.status().as_str() != "RUNNING";
        let mut counts = counts.lock().expect("no panic while watching");
        if counts.last() != Some(&(desired, running)) {
            counts.push((desired, running));
        }
        Ok(has_ended)
    })
    .await?;
    let counts = counts.into_inner()?;
    println!("(desired, running): {counts:?}");
    let at = |wanted| counts.iter().position(|count| *count == wanted);
    assert!(
        at((2, 2)) < at((1, 1)) && at((1, 1)).is_some(),
        "{counts:?}"
    );
    assert!(
        !counts.contains(&(0, 2)),
        "both were stopped at once: {counts:?}"
    );

    let sweep = env.wait_for_execution(&execution).await?;
    assert_eq!(outcome(&sweep, &old)?.0, "deleted", "{}", sweep.cause);
    assert_eq!(env.remaining(&old).await?, Vec::<String>::new());
    let (tally, _) = traffic.stop().await?;
    assert_eq!(tally.failed, Vec::<String>::new());
    assert_eq!(env.active().await?, Some(new));
    env.tear_down().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_and_a_cookie_client_keep_their_version_until_they_close_and_then_it_is_gone()
-> Result<()> {
    let env = environment().await?;
    let deployed = env.deploy_live(&[]).await?;
    let old = deployed.name.clone();
    let mut socket = Socket::open(&env, &old).await?;
    let session = Session::open(&env, &deployed).await?;
    let pins = vec![
        Pin::None,
        Pin::Cookie(old.clone()),
        Pin::Header(old.clone()),
    ];
    let traffic = Traffic::start(&env, 50, pins.clone())?;
    let new = env.deploy_live(&[]).await?.name;

    // However often it is swept, both stay where they are.
    let sweep = env.clean_up().await?;
    let (what, why) = outcome(&sweep, &old)?;
    assert_eq!(what, "draining");
    assert!(why.contains("2 sessions on 2 tasks"), "{why}");
    for words in ["one", "two"] {
        let sweep = env.clean_up_later().await?;
        assert_eq!(outcome(&sweep, &old)?.0, "draining");
        socket.talk(words).await?;
        assert_eq!(session.visit().await?, old);
    }
    socket.close().await?;
    for _ in 0..2 {
        let sweep = env.clean_up_later().await?;
        let (what, why) = outcome(&sweep, &old)?;
        assert_eq!(what, "draining");
        assert!(why.contains("1 sessions"), "{why}");
        assert_eq!(session.visit().await?, old);
    }
    session.close().await?;

    // One sweep without a session may be somebody who reconnects; the second is the end.
    let sweep = env.clean_up_later().await?;
    assert_eq!(outcome(&sweep, &old)?.0, "draining");
    assert!(!env.remaining(&old).await?.is_empty());
    let sweep = env.clean_up_later().await?;
    assert_eq!(outcome(&sweep, &old)?.0, "deleted");
    assert_eq!(env.remaining(&old).await?, Vec::<String>::new());

    // Whoever still asks for it is answered by the active one.
    tokio::time::sleep(Duration::from_secs(3)).await;
    traffic.next_phase();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (tally, rate) = traffic.stop().await?;
    println!("{} requests at {rate:.0}/s", tally.sent);
    assert_eq!(tally.failed, Vec::<String>::new());
    for pin in &pins {
        assert_eq!(tally.answered_by(pin, 1, 1), BTreeSet::from([new.as_str()]));
    }
    for pin in &pins[1..] {
        assert!(tally.answered_by(pin, 0, 0).contains(old.as_str()));
    }
    assert_eq!(env.active().await?, Some(new));
    env.tear_down().await;
    Ok(())
}
