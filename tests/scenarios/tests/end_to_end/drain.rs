//! Visitors stay on their version until they leave, and its end disturbs no other visitor.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result};
use scenarios::machines::{Task, drain_record, outcome, planned};
use scenarios::visitors::Pin;
use scenarios::websocket::{Session, Socket};
use scenarios::{TestEnvironment, Traffic, Visitor};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_task_is_drained_directly_and_one_that_ecs_started_later_by_the_next_cleanup()
-> Result<()> {
    let env = TestEnvironment::deploy_keeping_no_previous().await?;
    // It fails its health checks while it drains, and ECS would replace it for that.
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
    assert_eq!(what, "draining", "{why}");
    for task in &first {
        was_drained_directly(task).await?;
    }
    for task in env.tasks_running(&new, 2).await? {
        assert_eq!(drain_record(&task).await?["draining"], false, "{task:?}");
    }

    // Their health checks fail, and ECS replaces neither of them.
    are_unhealthy(&env, &old).await?;
    socket.talk("still here").await?;

    // One task dies. ECS starts another one, which nothing has asked to drain yet. It would have replaced the unhealthy
    // task before that, if at all.
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
    socket.talk("and here").await?;
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
    assert_eq!(env.active().await?.as_ref(), Some(&new));

    an_operator_deletes_a_version_at_once(&env, &new).await?;
    env.tear_down().await;
    Ok(())
}

/// The active version is replaced and begins to drain, and an operator calls its deletion until it is done, although a
/// visitor is still on it.
async fn an_operator_deletes_a_version_at_once(env: &TestEnvironment, id: &str) -> Result<()> {
    let _visitor = Socket::open(env, id).await?;
    let pins = vec![Pin::None, Pin::Cookie(id.to_owned())];
    let newest = env.deploy_live(&[]).await?.name;
    let sweep = env.clean_up().await?;
    assert_eq!(outcome(&sweep, id)?.0, "draining");
    let traffic = Traffic::start(env, 50, pins)?;
    let function = format!("{}-delete-deployment", env.name);
    let payload = json!({"deploymentId": id, "force": true}).to_string();
    let mut invoke = vec!["lambda", "invoke", "--function-name", &function];
    invoke.extend(["--payload", &payload, "/dev/stdout"]);
    loop {
        let printed = env.aws(&invoke).await?;
        // The answer of the function comes before that of Lambda.
        let mut answers = serde_json::Deserializer::from_str(&printed).into_iter::<Value>();
        let answer = answers.next().context("no answer")??;
        match answer["verdict"].as_str() {
            Some("deleting") => tokio::time::sleep(Duration::from_secs(1)).await,
            Some("deleted") => break,
            _ => anyhow::bail!("the deletion answers {printed}"),
        }
    }
    assert_eq!(env.remaining(id).await?, Vec::<String>::new());
    let (tally, _) = traffic.stop().await?;
    assert_eq!(tally.failed, Vec::<String>::new());
    assert_eq!(env.active().await?, Some(newest));
    Ok(())
}

/// Waits until the load balancer finds both tasks of the deployment unhealthy.
async fn are_unhealthy(env: &TestEnvironment, id: &str) -> Result<()> {
    let group = env.target_group(id).await?;
    env.wait_until(Duration::from_secs(120), async || {
        let health = env.elb.describe_target_health().target_group_arn(&group);
        let described = health.send().await?;
        let unhealthy = described.target_health_descriptions().iter().filter(|it| {
            let state = it.target_health().and_then(|health| health.state());
            state.is_some_and(|state| state.as_str() == "unhealthy")
        });
        Ok(unhealthy.count() == 2)
    })
    .await
    .context("the tasks stay healthy")
}

/// The task's own record says that the request named its private address. A request through the load
/// balancer would have named the load balancer.
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

/// The task without sessions.
async fn idle_one(tasks: &[Task]) -> Result<Task> {
    for task in tasks {
        let page = task.get("/").await?;
        if page["activeSessions"] == 0 {
            return Ok(task.clone());
        }
    }
    anyhow::bail!("each of {tasks:?} has a session")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_without_drain_is_reported_and_stops_task_by_task_after_the_deadline()
-> Result<()> {
    let env = TestEnvironment::deploy_keeping_no_previous().await?;
    let old = env.deploy_live(&[("NO_DRAIN", "1")]).await?.name;
    let new = env.deploy_live(&[]).await?.name;
    // A time in the future, which an operator wrote by hand, does not stop the draining of others.
    env.tag(&new, "pulse:live-since", "2099-01-01T00:00:00Z")
        .await?;
    for sweep in [env.clean_up().await?, env.clean_up_later().await?] {
        let (what, why) = outcome(&sweep, &old)?;
        assert_eq!(what, "draining");
        assert!(why.contains("404"), "{why}");
        assert!(why.contains("drain deadline"), "{why}");
    }

    // The deadline counts from the start of draining, which is moved to long ago.
    env.drains_since_long_ago(&old).await?;
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
        // Tasks first: one that stops between the two calls must not seem to be one too many.
        let running = env.tasks(&old).await.unwrap_or_default().len();
        let service = env.service(&old).await;
        let desired = service.map_or(0, |service| service.desired_count());
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
    let at = |wanted| counts.iter().position(|count| *count == wanted);
    assert!(
        at((2, 2)) < at((1, 1)) && at((1, 1)).is_some(),
        "{counts:?}"
    );
    assert!(
        !counts.contains(&(0, 2)),
        "both tasks stopped at once: {counts:?}"
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
async fn visitors_with_a_websocket_or_a_session_keep_their_version_until_they_leave() -> Result<()>
{
    let env = TestEnvironment::deploy_keeping_no_previous().await?;
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

    // No number of cleanups moves either of them.
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

    // After one sweep without sessions a visitor may still reconnect. After two the version is deleted.
    let sweep = env.clean_up_later().await?;
    assert_eq!(outcome(&sweep, &old)?.0, "draining");
    assert!(!env.remaining(&old).await?.is_empty());
    let sweep = env.clean_up_later().await?;
    assert_eq!(outcome(&sweep, &old)?.0, "deleted");
    assert_eq!(env.remaining(&old).await?, Vec::<String>::new());

    // The active deployment answers visitors who are still pinned to the deleted one.
    let visitor = Visitor::of(&env)?;
    for pin in &pins {
        env.wait_until(Duration::from_secs(60), async || {
            Ok(visitor.visit(pin).await?.deployment == new)
        })
        .await?;
    }
    traffic.next_phase();
    traffic.each_is_answered(20).await?;
    let (tally, _) = traffic.stop().await?;
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
