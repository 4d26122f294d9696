//! What is active stays and answers when executions are killed, tags are removed and machines overlap.

use std::time::Duration;

use anyhow::{Context, Result};
use localcloud::gateway::faults::{Fault, FaultRule};
use scenarios::machines::{drain_record, planned};
use scenarios::visitors::Pin;
use scenarios::{Execution, TestEnvironment, Traffic};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_active_one_survives_a_killed_execution_removed_tags_and_concurrent_cleanups()
-> Result<()> {
    let env = TestEnvironment::deploy_for_cleanups_by_hand().await?;
    let first = env.deploy_live(&[]).await?.name;
    let traffic = Traffic::start(&env, 50, vec![Pin::None, Pin::Cookie(first.clone())])?;

    // Killed after the switch, before it learns of it: the answer is lost, and the retry is slow.
    let slow = Fault::Slow { milliseconds: 4000 };
    for (nth, fault) in [(1, Fault::AnswerLost), (2, slow)] {
        let rule = FaultRule::next("elasticloadbalancing", "ModifyListener", fault);
        env.cloud.faults().add(rule.at(nth));
    }
    let second = env.new_id();
    let before = env.cloud.calls().newest();
    env.push(&second, &[]).await?;
    env.wait_until(Duration::from_secs(60), async || {
        let calls = env.cloud.calls().since(before);
        Ok(calls.iter().any(|call| call.operation == "ModifyListener"))
    })
    .await?;
    let arn = env.execution_arn(&second);
    env.stop(&arn).await?;
    let killed = Execution::read(&env.sfn, &arn).await?;
    assert_eq!(killed.status.as_str(), "ABORTED");
    assert_eq!(killed.ending(), "SwitchTraffic", "{:?}", killed.path());
    for _ in 0..2 {
        env.clean_up().await?;
    }
    assert_eq!(env.active().await?.as_ref(), Some(&second));
    let plan = env.plan().await?;
    assert_eq!(planned(&plan, &second)?.0, "active");
    assert_eq!(planned(&plan, &first)?.1, "keep");
    env.reaches_visitors(&second).await?;
    assert_eq!(env.tasks(&second).await?.len(), 2);

    // An operator removes every tag of its target group.
    let tags = env.tags(&second).await?;
    let group = env.target_group(&second).await?;
    env.elb
        .remove_tags()
        .resource_arns(&group)
        .set_tag_keys(Some(tags.keys().cloned().collect()))
        .send()
        .await?;
    assert!(env.tags(&second).await?.is_empty());
    for _ in 0..2 {
        env.clean_up().await?;
    }
    let plan = env.plan().await?;
    assert_eq!(plan["activeDeploymentId"], second.as_str(), "{plan}");
    assert_eq!(planned(&plan, &second)?.1, "keep");
    assert_eq!(env.active().await?.as_ref(), Some(&second));
    assert_eq!(env.tasks(&second).await?.len(), 2);
    for task in env.tasks(&second).await? {
        assert_eq!(drain_record(&task).await?["draining"], false);
    }

    // The next image still goes live, while cleanups run all the time.
    let third = env.new_id();
    env.push(&third, &[("SESSION_IDLE_SECONDS", "302")]).await?;
    let arn = env.execution_arn(&third);
    loop {
        env.clean_up().await?;
        let execution = Execution::read(&env.sfn, &arn).await;
        if execution.is_ok_and(|execution| execution.has_ended()) {
            break;
        }
    }
    let deployed = env.wait_for_deployment(&third).await?;
    assert_eq!(deployed.ending(), "Succeeded", "{}", deployed.cause);
    env.reaches_visitors(&third).await?;
    assert_eq!(env.active().await?.as_ref(), Some(&third));
    assert_eq!(env.tasks(&third).await?.len(), 2);

    // A deployment without tags is kept, and the plan says what to do.
    let plan = env.plan().await?;
    let (_, action, why) = planned(&plan, &second)?;
    assert_eq!(action, "keep");
    assert!(why.contains("put the tags"), "{why}");
    assert!(!env.remaining(&second).await?.is_empty());

    let (tally, _) = traffic.stop().await?;
    assert_eq!(tally.failed, Vec::<String>::new());
    env.tear_down().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn during_a_rollback_and_a_cleanup_what_visitors_reach_is_never_drained() -> Result<()> {
    let env = TestEnvironment::deploy_keeping_no_previous().await?;
    let first = env.deploy_live(&[]).await?.name;
    let mut replaced = env.deploy_live(&[]).await?.name;
    let mut back = first;
    let traffic = Traffic::start(&env, 50, vec![Pin::None])?;

    // The first one to start is delayed, the cleanup before it drains or the rollback before it
    // switches, and the other one overtakes it.
    for (delayed, service, operation) in [
        ("cleanup", "ecs", "ListTasks"),
        ("cleanup", "secretsmanager", "GetSecretValue"),
        ("rollback", "elasticloadbalancing", "ModifyListener"),
    ] {
        // Otherwise the drain would give way to the switches before and make no call.
        env.age_switches().await?;
        let delayed_call = env.delay_call(service, operation, 1, Duration::from_secs(3));
        let to = json!({"deploymentId": back, "evict": false});
        let (cleanup, rollback) = if delayed == "cleanup" {
            let cleanup = env.start("cleanup", &json!({})).await?;
            env.call_arrived(&delayed_call).await?;
            (cleanup, env.start("rollback", &to).await?)
        } else {
            let rollback = env.start("rollback", &to).await?;
            env.call_arrived(&delayed_call).await?;
            (env.start("cleanup", &json!({})).await?, rollback)
        };
        let rollback = env.wait_for_execution(&rollback).await?;
        let cleanup = env.wait_for_execution(&cleanup).await?;
        assert_eq!(rollback.ending(), "Succeeded", "{}", rollback.cause);
        assert_eq!(cleanup.ending(), "CleanedUp", "{}", cleanup.cause);
        let active = env.active().await?.context("nothing is active")?;
        assert_eq!(active, back);
        env.reaches_visitors(&active).await?;
        let tasks = env.tasks_running(&active, 2).await?;
        for task in &tasks {
            assert_eq!(drain_record(task).await?["draining"], false, "{task:?}");
        }
        assert!(!env.remaining(&replaced).await?.is_empty());
        std::mem::swap(&mut back, &mut replaced);
    }
    let (tally, _) = traffic.stop().await?;
    assert_eq!(tally.failed, Vec::<String>::new());
    env.tear_down().await;
    Ok(())
}
