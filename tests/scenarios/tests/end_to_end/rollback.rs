//! Back to a deployment that was live before.

use std::time::{Duration, Instant};

use anyhow::Result;
use scenarios::machines::{drain_record, outcome, planned};
use scenarios::visitors::Pin;
use scenarios::{Stage, Steady};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_takes_seconds_to_a_warm_deployment_and_is_never_taken_back_by_an_old_event()
-> Result<()> {
    let stage = Stage::set_for_cleanups_by_hand().await?;
    // One that goes live first, so that there is nothing to go back to.
    let first = stage.deploy_live(&[]).await?.name;
    let nowhere = stage.run("rollback", &json!({})).await?;
    assert_eq!(nowhere.ending(), "Refused");
    println!("{}", nowhere.cause);
    assert!(
        nowhere.cause.contains("NoRollbackTargetError"),
        "{}",
        nowhere.cause
    );

    let second = stage.deploy_live(&[]).await?.name;
    let pins = vec![Pin::None, Pin::Cookie(second.clone())];
    let traffic = Steady::traffic(&stage, 50, pins.clone())?;
    let begun = Instant::now();
    let execution = stage.start("rollback", &json!({})).await?;
    stage
        .within(Duration::from_secs(30), async || {
            Ok(stage.active().await?.as_deref() == Some(&first))
        })
        .await?;
    let took = begun.elapsed();
    println!(
        "from start to verified default action: {:.2} s",
        took.as_secs_f64()
    );
    let ended = stage.ended(&execution).await?;
    assert_eq!(ended.ending(), "Succeeded", "{}", ended.cause);
    assert_eq!(ended.output["deploymentId"], first);
    assert_eq!(ended.output["leftDeploymentId"], second);
    // Seconds on AWS, because it waits for nothing: one look, no wait, no second try.
    let (path, looks) = (ended.path(), |path: &[&str], state| {
        path.iter().filter(|entered| **entered == state).count()
    });
    assert_eq!(looks(&path, "CheckTargetHealth"), 1, "{path:?}");
    assert_eq!(looks(&path, "WaitForTargets"), 0, "{path:?}");
    assert_eq!(ended.task_errors(), Vec::<&str>::new());
    stage.reaches_visitors(&first).await?;

    // Whatever tells of the one that was left, it does not come back.
    let before = stage.cloud.calls().newest();
    let events = stage.cloud.push_events().clone();
    let emitted = events.emitted();
    let event = emitted.iter().rfind(|event| event.tag == second);
    let event = event.expect("the second push caused an event");
    events.deliver(event).await?;
    events.deliver(event).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(stage.executions().await?.len(), 2);
    assert_eq!(stage.changes_since(before), Vec::<String>::new());
    // Nor by hand, under another name.
    let by_hand = stage
        .start_by_hand("again", &json!({"deploymentId": second}).to_string())
        .await?;
    println!("{}: {} {}", by_hand.ending(), by_hand.cause, by_hand.output);
    assert_ne!(by_hand.ending(), "Succeeded", "{}", by_hand.output);
    assert_eq!(stage.changes_since(before), Vec::<String>::new());
    assert_eq!(stage.active().await?.as_ref(), Some(&first));

    // To undo the rollback, name the one that was left.
    let back = stage
        .run("rollback", &json!({"deploymentId": second}))
        .await?;
    assert_eq!(back.ending(), "Succeeded", "{}", back.cause);
    stage.reaches_visitors(&second).await?;
    let (tally, _) = traffic.stop().await?;
    assert_eq!(tally.failed, Vec::<String>::new());
    stage.strike().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draining_deployment_gets_fresh_tasks_before_a_rollback_and_one_that_is_gone_is_refused()
-> Result<()> {
    let stage = Stage::set_for_cleanups_by_hand().await?;
    let first = stage
        .deploy_live(&[("SESSION_IDLE_SECONDS", "301")])
        .await?;
    // Somebody is on it, so that it drains and does not end.
    let mut socket = scenarios::websocket::Socket::open(&stage, &first.name).await?;
    let first = first.name;
    let second = stage.deploy_live(&[]).await?.name;
    let third = stage.deploy_live(&[]).await?.name;
    let sweep = stage.clean_up().await?;
    assert_eq!(outcome(&sweep, &first)?.0, "draining");
    assert_eq!(planned(&stage.plan().await?, &second)?.1, "keep");
    socket.talk("here").await?;
    let drained = stage.tasks_running(&first, 2).await?;
    for task in &drained {
        assert_eq!(drain_record(task).await?["draining"], true);
    }

    let traffic = Steady::traffic(&stage, 50, vec![Pin::None])?;
    let begun = Instant::now();
    let execution = stage
        .start("rollback", &json!({"deploymentId": first}))
        .await?;
    stage
        .within(Duration::from_secs(180), async || {
            Ok(stage.active().await?.as_deref() == Some(&first))
        })
        .await?;
    println!("to a draining one: {:.1} s", begun.elapsed().as_secs_f64());
    // At the moment of the switch already.
    let fresh = stage.tasks(&first).await?;
    let ended = stage.ended(&execution).await?;
    assert_eq!(ended.ending(), "Succeeded", "{}", ended.cause);
    assert!(
        ended.left("CheckTargetHealth") < ended.entered("SwitchTraffic"),
        "{:?}",
        ended.path()
    );
    assert_eq!(fresh.len(), 2, "{fresh:?}");
    for task in &fresh {
        assert!(!drained.contains(task), "{task:?} is of before");
        assert_eq!(drain_record(task).await?["draining"], false, "{task:?}");
    }
    stage.reaches_visitors(&first).await?;
    let (tally, _) = traffic.stop().await?;
    assert_eq!(tally.failed, Vec::<String>::new());

    // What was left drains like anything else, and is then too late to go back to.
    let sweep = stage.clean_up().await?;
    for id in [&second, &third] {
        assert_eq!(outcome(&sweep, id)?.0, "draining");
    }
    let sweep = stage.clean_up_later().await?;
    assert_eq!(outcome(&sweep, &third)?.0, "deleted");
    assert_eq!(stage.leftovers(&third).await?, Vec::<String>::new());
    let before = stage.cloud.calls().newest();
    for (input, word) in [
        (json!({"deploymentId": third}), "is gone"),
        (json!({"deploymentId": first}), "is active already"),
        (json!({"deploymentId": "latest"}), "InvalidInputError"),
        (json!({"to": third}), "InvalidInputError"),
    ] {
        let refused = stage.run("rollback", &input).await?;
        println!("{input}: {}", refused.cause);
        assert_eq!(refused.ending(), "Refused", "{}", refused.cause);
        assert!(refused.cause.contains(word), "{}", refused.cause);
    }
    assert_eq!(stage.changes_since(before), Vec::<String>::new());
    assert_eq!(stage.active().await?, Some(first));
    stage.strike().await;
    Ok(())
}
