//! Rollbacks to deployments that were live before.

use std::time::Duration;

use anyhow::Result;
use aws_sdk_elasticloadbalancingv2::types::{Action, ActionTypeEnum};
use scenarios::blueprint::Blueprint;
use scenarios::machines::{drain_record, outcome, planned};
use scenarios::visitors::Pin;
use scenarios::{TestEnvironment, Traffic, Visitor};
use serde_json::json;

use crate::freeze::a_freeze_stops_deployments_and_no_rollback;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_to_a_warm_deployment_takes_seconds_and_no_old_event_reverts_it() -> Result<()> {
    let env = TestEnvironment::deploy_for_cleanups_by_hand().await?;
    // The first deployment has nothing to go back to.
    let first = env.deploy_live(&[]).await?.name;
    let nowhere = env.run("rollback", &json!({})).await?;
    assert_eq!(nowhere.ending(), "Refused");
    assert!(
        nowhere.cause.contains("NoRollbackTargetError"),
        "{}",
        nowhere.cause
    );

    let second = env.deploy_live(&[]).await?.name;
    let pins = vec![Pin::None, Pin::Cookie(second.clone())];
    let traffic = Traffic::start(&env, 50, pins.clone())?;
    let ended = env.run("rollback", &json!({"evict": false})).await?;
    assert_eq!(ended.ending(), "Succeeded", "{}", ended.cause);
    assert_eq!(ended.output["deploymentId"], first);
    assert_eq!(ended.output["replacedDeploymentId"], second);
    // It takes seconds on AWS, because it checks once, does not wait and does not retry.
    let (path, count) = (ended.path(), |path: &[&str], state| {
        path.iter().filter(|entered| **entered == state).count()
    });
    assert_eq!(count(&path, "CheckTargetHealth"), 1, "{path:?}");
    assert_eq!(count(&path, "WaitForTargets"), 0, "{path:?}");
    assert_eq!(ended.task_errors(), Vec::<&str>::new());
    env.reaches_visitors(&first).await?;

    // No event of the replaced deployment makes it active again.
    let before = env.cloud.calls().newest();
    let events = env.cloud.push_events().clone();
    let emitted = events.emitted();
    let event = emitted.iter().rfind(|event| event.tag == second);
    let event = event.expect("the second push caused an event");
    events.deliver(event).await?;
    events.deliver(event).await?;
    env.events_are_acted_on(before, 2).await?;
    // Nor does an execution that is started by hand with another name.
    let by_hand = env
        .start_by_hand("again", &json!({"deploymentId": second}).to_string())
        .await?;
    assert_eq!(by_hand.ending(), "Refused", "{}", by_hand.output);
    let why = "DeploymentRolledBackError";
    assert!(by_hand.cause.contains(why), "{}", by_hand.cause);
    // The two pushes and this one.
    assert_eq!(env.executions().await?.len(), 3);
    assert_eq!(env.changes_since(before), Vec::<String>::new());
    assert_eq!(env.active().await?.as_ref(), Some(&first));

    // A rollback to the replaced deployment reverts the rollback.
    let back = env
        .run("rollback", &json!({"deploymentId": second, "evict": false}))
        .await?;
    assert_eq!(back.ending(), "Succeeded", "{}", back.cause);
    env.reaches_visitors(&second).await?;
    a_freeze_stops_deployments_and_no_rollback(&env, &first).await?;
    let (tally, _) = traffic.stop().await?;
    assert_eq!(tally.failed, Vec::<String>::new());
    env.tear_down().await;
    Ok(())
}

/// An operator stops all tasks of a deployment that was live, and two cleanups find it empty.
async fn a_rollback_makes_rules_and_tasks_again(env: &TestEnvironment, id: &str) -> Result<()> {
    let newer = env.deploy_live(&[]).await?.name;
    let stop = env.ecs.update_service().cluster(&env.name).service(id);
    stop.desired_count(0).send().await?;
    let group = env.target_group(id).await?;
    env.wait_until(Duration::from_secs(60), async || {
        let health = env.elb.describe_target_health().target_group_arn(&group);
        let targets = health.send().await?.target_health_descriptions;
        Ok(env.tasks(id).await?.is_empty() && targets.is_none_or(|targets| targets.is_empty()))
    })
    .await?;
    env.clean_up().await?;
    let sweep = env.clean_up_later().await?;
    assert_eq!(outcome(&sweep, id)?.0, "unrouted");
    let pin = Pin::Cookie(id.to_owned());
    let visitor = Visitor::of(env)?;
    assert_eq!(visitor.visit(&pin).await?.deployment, newer);

    let input = json!({"deploymentId": id, "evict": false});
    let ended = env.run("rollback", &input).await?;
    assert_eq!(ended.ending(), "Succeeded", "{}", ended.cause);
    let found = ended.output_of("RestoreDeployment")?;
    assert_eq!(found["Payload"]["unrouted"], true, "{found}");
    let order = [
        "CreateWaitingRule",
        "StartFreshTasks",
        "CreateListenerRule",
        "SwitchTraffic",
    ];
    let entered = order.map(|state| ended.entered(state));
    assert!(
        entered.is_sorted() && entered[0].is_some(),
        "{:?}",
        ended.path()
    );
    assert_eq!(ended.output["replacedDeploymentId"], newer);
    assert_eq!(env.active().await?.as_deref(), Some(id));
    env.tasks_running(id, 2).await?;
    env.reaches_visitors(id).await?;
    // Its rules route again, also past the default action.
    for id in [id, &newer] {
        for pin in [Pin::Cookie(id.to_owned()), Pin::Header(id.to_owned())] {
            assert_eq!(visitor.visit(&pin).await?.deployment, id, "{pin:?}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_drains_and_is_made_active_by_hand_gets_fresh_tasks() -> Result<()> {
    let env = TestEnvironment::deploy_keeping_no_previous().await?;
    let first = env.deploy_live(&[]).await?.name;
    let second = env.deploy_live(&[]).await?.name;
    // A visitor is on it, so that it keeps draining.
    let mut socket = scenarios::websocket::Socket::open(&env, &second).await?;
    let ended = env.run("rollback", &json!({"evict": false})).await?;
    assert_eq!(ended.ending(), "Succeeded", "{}", ended.cause);
    env.reaches_visitors(&first).await?;
    let sweep = env.clean_up().await?;
    assert_eq!(outcome(&sweep, &second)?.0, "draining");
    socket.talk("here").await?;
    let drained = env.tasks_running(&second, 2).await?;
    for task in &drained {
        assert_eq!(drain_record(task).await?["draining"], true);
    }

    // An operator takes the rollback back without the machine.
    let group = env.target_group(&second).await?;
    let forward = Action::builder().r#type(ActionTypeEnum::Forward);
    env.elb
        .modify_listener()
        .listener_arn(env.listener_arn().await?)
        .default_actions(forward.target_group_arn(group).build())
        .send()
        .await?;
    env.reaches_visitors(&second).await?;
    let (state, action, why) = planned_for(&env, &second).await?;
    assert_eq!((&*state, &*action), ("active", "restart"), "{why}");
    let traffic = Traffic::start(&env, 50, vec![Pin::None])?;
    let sweep = env.clean_up().await?;
    let (what, why) = outcome(&sweep, &second)?;
    assert_eq!(what, "restarted", "{why}");
    assert!(why.contains("were asked to drain"), "{why}");
    env.wait_until(Duration::from_secs(180), async || {
        let tasks = env.tasks(&second).await?;
        let service = env.service(&second).await?;
        Ok(tasks.len() == 2
            && tasks.iter().all(|task| !drained.contains(task))
            && service.deployments().len() == 1)
    })
    .await?;
    for task in env.tasks_running(&second, 2).await? {
        assert_eq!(drain_record(&task).await?["draining"], false, "{task:?}");
    }

    // The next cleanup finds that out.
    let sweep = env.clean_up_later().await?;
    let (what, why) = outcome(&sweep, &second)?;
    assert_eq!(what, "corrected", "{why}");
    let tags = env.tags(&second).await?;
    assert!(!tags.contains_key("pulse:draining-since"), "{tags:?}");
    assert_eq!(planned_for(&env, &second).await?.1, "keep");
    assert_eq!(env.active().await?.as_ref(), Some(&second));
    env.reaches_visitors(&second).await?;
    let (tally, _) = traffic.stop().await?;
    assert_eq!(tally.failed, Vec::<String>::new());
    env.tear_down().await;
    Ok(())
}

/// The state, the planned action and the reason of a deployment in the plan of the next cleanup.
async fn planned_for(env: &TestEnvironment, id: &str) -> Result<(String, String, String)> {
    let plan = env.plan().await?;
    let (state, action, why) = planned(&plan, id)?;
    Ok((state.to_owned(), action.to_owned(), why.to_owned()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_to_a_draining_deployment_starts_fresh_tasks_and_to_a_deleted_one_is_refused()
-> Result<()> {
    let env = TestEnvironment::deploy_for_cleanups_by_hand().await?;
    let first = env.deploy_live(&[("SESSION_IDLE_SECONDS", "301")]).await?;
    // A visitor is on it, so that it keeps draining.
    let mut socket = scenarios::websocket::Socket::open(&env, &first.name).await?;
    let first = first.name;
    let second = env.deploy_live(&[]).await?.name;
    let third = env.deploy_live(&[]).await?;
    let digest = third.output["imageDigest"].clone();
    let third = third.name;
    let sweep = env.clean_up().await?;
    assert_eq!(outcome(&sweep, &first)?.0, "draining");
    assert_eq!(planned(&env.plan().await?, &second)?.1, "keep");
    socket.talk("here").await?;
    let drained = env.tasks_running(&first, 2).await?;
    for task in &drained {
        assert_eq!(drain_record(task).await?["draining"], true);
    }

    let traffic = Traffic::start(&env, 50, vec![Pin::None])?;
    let execution = env
        .start("rollback", &json!({"deploymentId": first, "evict": false}))
        .await?;
    env.wait_until(Duration::from_secs(180), async || {
        Ok(env.active().await?.as_deref() == Some(&first))
    })
    .await?;
    // The tasks at the moment of the switch.
    let fresh = env.tasks(&first).await?;
    let ended = env.wait_for_execution(&execution).await?;
    assert_eq!(ended.ending(), "Succeeded", "{}", ended.cause);
    assert!(
        ended.left("CheckTargetHealth") < ended.entered("SwitchTraffic"),
        "{:?}",
        ended.path()
    );
    assert_eq!(fresh.len(), 2, "{fresh:?}");
    for task in &fresh {
        assert!(!drained.contains(task), "{task:?} is not fresh");
        assert_eq!(drain_record(task).await?["draining"], false, "{task:?}");
    }
    env.reaches_visitors(&first).await?;
    let (tally, _) = traffic.stop().await?;
    assert_eq!(tally.failed, Vec::<String>::new());

    // What was replaced drains, and cannot be gone back to once it is deleted.
    let sweep = env.clean_up().await?;
    for id in [&second, &third] {
        assert_eq!(outcome(&sweep, id)?.0, "draining");
    }
    let sweep = env.clean_up_later().await?;
    assert_eq!(outcome(&sweep, &third)?.0, "deleted");
    assert_eq!(env.remaining(&third).await?, Vec::<String>::new());
    let before = env.cloud.calls().newest();
    for (input, word) in [
        (json!({"deploymentId": third}), "is gone"),
        (json!({"deploymentId": first}), "is already active"),
        (json!({"deploymentId": "latest"}), "InvalidInputError"),
        (json!({"to": third}), "InvalidInputError"),
    ] {
        let refused = env.run("rollback", &input).await?;
        assert_eq!(refused.ending(), "Refused", "{}", refused.cause);
        assert!(refused.cause.contains(word), "{}", refused.cause);
    }
    assert_eq!(env.changes_since(before), Vec::<String>::new());
    assert_eq!(env.active().await?.as_ref(), Some(&first));

    // Its image goes live under a new id, although the tag of that id names another image.
    let again = env.new_id();
    let pushed = env
        .push_without_event(&again, &[("ANOTHER", "image")])
        .await?;
    assert_ne!(json!(pushed.digest), digest);
    let input = json!({"deploymentId": again, "imageDigest": digest});
    let execution = env.start_by_hand(&again, &input.to_string()).await?;
    assert_eq!(execution.ending(), "Succeeded", "{}", execution.cause);
    assert_eq!(execution.output["imageDigest"], digest);
    let definition = Blueprint::of(&env, &again).await?.definition;
    let image = definition.container_definitions()[0]
        .image()
        .unwrap_or_default();
    assert!(
        digest
            .as_str()
            .is_some_and(|digest| image.ends_with(digest)),
        "{image}"
    );
    env.reaches_visitors(&again).await?;

    // When the service of the active deployment is gone for two sweeps, traffic goes to the one before.
    let delete = env.ecs.delete_service().cluster(&env.name).service(&again);
    delete.force(true).send().await?;
    env.wait_until(Duration::from_secs(60), async || {
        Ok(env.tasks(&again).await?.is_empty())
    })
    .await?;
    let sweep = env.clean_up().await?;
    assert_eq!(sweep.output["unhealthyTargets"], 1, "{}", sweep.output);
    env.age_sweeps().await?;
    assert_eq!(env.plan().await?["isDown"], true);
    let sweep = env.run("cleanup", &json!({})).await?;
    assert_eq!(sweep.ending(), "CleanupFailed");
    for words in [&*again, "no healthy target", &*first] {
        assert!(sweep.cause.contains(words), "{}", sweep.cause);
    }
    // Its number of tasks is compared with that of the dead one, which has none.
    assert!(sweep.left("RaiseCount").is_some(), "{:?}", sweep.path());
    assert!(!sweep.cause.contains("as many tasks"), "{}", sweep.cause);
    assert_eq!(env.active().await?.as_ref(), Some(&first));
    env.reaches_visitors(&first).await?;
    // Who is pinned to the dead one does not wait until it has drained, once its last targets have left.
    let group = env.target_group(&again).await?;
    env.wait_until(Duration::from_secs(60), async || {
        let health = env.elb.describe_target_health().target_group_arn(&group);
        let targets = health.send().await?.target_health_descriptions;
        Ok(targets.is_none_or(|targets| targets.is_empty()))
    })
    .await?;
    let sweep = env.clean_up().await?;
    assert_eq!(outcome(&sweep, &again)?.0, "unrouted");
    a_rollback_makes_rules_and_tasks_again(&env, &first).await?;
    env.tear_down().await;
    Ok(())
}
