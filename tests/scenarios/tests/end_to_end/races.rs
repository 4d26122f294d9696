//! Pushes, cleanups, rollbacks and updates of the stacks at the same time, in the orders that matter.
//! Delayed and held AWS calls bring a race about. Who has to win it follows from what each execution knew when it
//! began, and what each reports must be true.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use lifecycle::tags::ROLLED_BACK_AT;
use localcloud::gateway::faults::FaultRule;
use scenarios::delay::{DELAY, DELAY_PAST_TIMEOUT};
use scenarios::faults::foreign::Foreign;
use scenarios::machines::{drain_record, outcome};
use scenarios::remaining::PARTS;
use scenarios::websocket::Socket;
use scenarios::{Execution, Observers, TestEnvironment};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_push_goes_live_and_concurrent_cleanups_disturb_neither_it_nor_each_other()
-> Result<()> {
    let env = TestEnvironment::deploy_for_cleanups_by_hand().await?;
    let seed = match std::env::var("RACES_SEED") {
        Ok(seed) => seed.parse()?,
        Err(_) => fastrand::u64(..1_000_000),
    };
    println!("RACES_SEED={seed}");
    let base = env.deploy_live(&[]).await?.name;
    let foreign = Foreign::make(&env, &base).await?;
    let untouched = foreign.described(&env).await?;

    let observers = Observers::on(&env, &[&base]).await?;
    let mut live = Vec::new();
    let in_order = |number: usize| -> Vec<String> { (0..number).map(|_| env.new_id()).collect() };
    let (two, mut newest_first, mut shuffled) = (in_order(2), in_order(2), in_order(5));
    newest_first.reverse();
    fastrand::Rng::with_seed(seed).shuffle(&mut shuffled);
    for ids in [two, newest_first, shuffled] {
        let newest = pushed_at_once(&env, &ids).await?;
        observers.also_on(&newest);
        live.push(newest);
    }
    observers.finish().await?;

    let [first, second, third] = &live[..] else {
        panic!("not three were live: {live:?}");
    };
    // No old one is kept warm. Two of them have a visitor, and the other one is long idle.
    for id in [&base, first, second] {
        env.tag(id, "pulse:rolled-back-at", LONG_AGO).await?;
    }
    let last_one = Socket::open(&env, &base).await?;
    let mut socket = Socket::open(&env, second).await?;
    env.tag(first, "pulse:idle-since", LONG_AGO).await?;
    let observers = Observers::on(&env, &[third]).await?;
    let input = json!({});
    let starts = [(); 2].map(|()| env.start("cleanup", &input));
    let cleanups = both_clean_up(&env, &try_join_all(starts).await?).await?;
    assert!(cleanups.iter().any(|it| is_deleted(it, first)));
    assert_eq!(env.remaining(first).await?, Vec::<String>::new());
    for id in [&base, second] {
        assert_eq!(env.remaining(id).await?.len(), PARTS, "{id}");
        assert!(env.tags(id).await?.contains_key("pulse:draining-since"));
    }
    socket.talk("after both").await?;

    // The drain deadline of one of them passes while an image is pushed.
    env.drains_since_long_ago(&base).await?;
    let fourth = pushed_during_a_cleanup(&env, third).await?;
    observers.also_on(&fourth);
    // That cleanup met a switch, and nothing is deleted by force while a switch may be under way.
    env.clean_up().await?;
    drop(last_one);
    assert_eq!(env.remaining(&base).await?, Vec::<String>::new());
    socket.talk("after the push").await?;
    socket.close().await?;
    has_no_sessions(&env, second).await?;

    // One cleanup is delayed after it has read the resources, until the other one has done what both plan.
    env.tag(second, "pulse:idle-since", LONG_AGO).await?;
    let late = env.delay_call("states", "ListExecutions", 1, DELAY_PAST_TIMEOUT);
    env.delay_call("states", "ListExecutions", 3, DELAY_PAST_TIMEOUT);
    let slow = env.start("cleanup", &json!({})).await?;
    env.call_arrived(&late).await?;
    let quick = env.start("cleanup", &json!({})).await?;
    let cleanups = both_clean_up(&env, &[slow, quick]).await?;
    assert!(cleanups.iter().any(|it| is_deleted(it, second)));
    assert_eq!(env.remaining(second).await?, Vec::<String>::new());

    for id in [third, &fourth] {
        assert!(env.was_live(id).await?, "{id}");
        is_not_drained(&env, id).await?;
    }
    assert_eq!(env.active().await?, Some(fourth));
    assert_eq!(foreign.described(&env).await?, untouched);
    observers.finish().await?;
    env.tear_down().await;
    Ok(())
}

/// A time so long ago that a drain deadline has passed, and that an idle task was found in an earlier sweep.
const LONG_AGO: &str = "2026-01-01T00:00:00Z";

/// Delivers the events of pushes in this order, one right after the other. Returns the newest, which is
/// live afterwards.
async fn pushed_at_once(env: &TestEnvironment, ids: &[String]) -> Result<String> {
    // The images are pushed before the first event, because a push takes time.
    let pushed = env.push_without_events(ids, &[]).await?;
    for event in &pushed {
        env.cloud.push_events().deliver(event).await?;
    }
    let ended = try_join_all(ids.iter().map(|id| env.wait_for_deployment(id))).await?;
    let newest = ids.iter().max().context("nothing was pushed")?;
    for execution in &ended {
        let Execution { name, cause, .. } = execution;
        let was_live = env.was_live(name).await?;
        match execution.ending() {
            "Succeeded" => assert!(was_live, "{name}"),
            // It may have been live for a moment, even if its execution does not know that.
            "Superseded" => {
                let note = execution.output["note"].as_str().unwrap_or_default();
                let by = ids.iter().filter(|id| *id > name);
                let is_named = by.into_iter().any(|id| note.contains(id.as_str()));
                assert!(is_named, "{name} is superseded: {note}");
            }
            other => panic!("{name} ended as {other}: {cause}"),
        }
    }
    let executions = env.executions().await?;
    for id in ids {
        let of_it = executions.iter().filter(|name| *name == id).count();
        assert_eq!(of_it, 1, "{id}: {executions:?}");
    }
    assert_eq!(env.active().await?.as_ref(), Some(newest));
    env.reaches_visitors(newest).await?;
    Ok(newest.clone())
}

/// A cleanup reads the resources while the candidate has half of its parts, and lists the running
/// executions when the candidate's may have ended. It changes neither the candidate nor what is active.
async fn pushed_during_a_cleanup(env: &TestEnvironment, active: &str) -> Result<String> {
    let candidate = env.new_id();
    let group = env.delay_call("elasticloadbalancing", "CreateRule", 1, DELAY / 4);
    env.push(&candidate, &[]).await?;
    env.call_arrived(&group).await?;
    // Two delays take longer than a deployment.
    for nth in 1..=2 {
        env.delay_call("states", "ListExecutions", nth, DELAY_PAST_TIMEOUT);
    }
    let cleanup = env.start("cleanup", &json!({})).await?;
    let deployed = env.wait_for_deployment(&candidate).await?;
    let cleanup = env.wait_for_execution(&cleanup).await?;
    env.cloud.faults().clear();
    assert_eq!(deployed.ending(), "Succeeded", "{}", deployed.cause);
    assert_eq!(cleanup.ending(), "CleanedUp", "{}", cleanup.cause);
    for id in [candidate.as_str(), active] {
        assert!(outcome(&cleanup, id).is_err(), "{}", cleanup.output);
        is_not_drained(env, id).await?;
    }
    env.reaches_visitors(&candidate).await?;
    Ok(candidate)
}

/// Waits for both cleanups, which must succeed.
async fn both_clean_up(env: &TestEnvironment, arns: &[String]) -> Result<[Execution; 2]> {
    let ended = try_join_all(arns.iter().map(|arn| env.wait_for_execution(arn))).await?;
    env.cloud.faults().clear();
    for cleanup in &ended {
        ensure!(
            cleanup.ending() == "CleanedUp",
            "a cleanup ended as {}: {}",
            cleanup.ending(),
            cleanup.cause
        );
    }
    ended.try_into().ok().context("not two cleanups")
}

/// Whether the cleanup reports that it deleted the deployment.
fn is_deleted(cleanup: &Execution, id: &str) -> bool {
    outcome(cleanup, id).is_ok_and(|(what, _)| what == "deleted")
}

/// Waits until no task of the deployment has a session.
async fn has_no_sessions(env: &TestEnvironment, id: &str) -> Result<()> {
    for task in env.tasks_running(id, 2).await? {
        env.wait_until(Duration::from_secs(60), async || {
            let page = task.get("/").await?;
            Ok(page["activeSessions"] == 0)
        })
        .await
        .with_context(|| format!("{task:?} still has a session"))?;
    }
    Ok(())
}

/// Two tasks run, and have received no drain request.
async fn is_not_drained(env: &TestEnvironment, id: &str) -> Result<()> {
    for task in env.tasks_running(id, 2).await? {
        assert_eq!(drain_record(&task).await?["draining"], false, "{task:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_concurrent_rollbacks_pushes_and_stack_updates_one_wins_and_all_report_it() -> Result<()>
{
    let env = TestEnvironment::deploy_for_cleanups_by_hand().await?;
    let old = env.deploy_live(&[]).await?.name;
    let bad = env.deploy_live(&[]).await?.name;
    let observers = Observers::on(&env, &[&old, &bad]).await?;

    // The candidate becomes ready, and live, between the beginning of the rollback and its switch.
    let ready = env.hold_calls("switch-traffic", "elasticloadbalancing", "AddTags");
    let candidate = env.new_id();
    env.push(&candidate, &[]).await?;
    env.call_arrived(&ready).await?;
    let (looks, [rollback]) = held_rollbacks(&env, [json!({"evict": false})]).await?;
    env.let_go(&ready);
    let deployed = env.wait_for_deployment(&candidate).await?;
    assert_eq!(deployed.output["previousDeploymentId"], bad.as_str());
    env.let_go(&looks);
    let winner = winner_of(&env, &rollback, &candidate).await?;
    assert_eq!(winner, Winner::Candidate);

    // The rollback overwrites the switch of the candidate. It has set its tags before the candidate became ready,
    // unless the machine is slow.
    ensure_another_is_active(&env, &old).await?;
    let ready = env.delay_call("elasticloadbalancing", "AddTags", 2, DELAY / 2);
    let candidate = env.new_id();
    env.push(&candidate, &[]).await?;
    env.call_arrived(&ready).await?;
    env.delay_call("elasticloadbalancing", "ModifyListener", 1, DELAY);
    let rollback = env.start("rollback", &json!({"evict": false})).await?;
    winner_of(&env, &rollback, &candidate).await?;

    // The candidate overwrites the switch of a rollback that began and ended during its own. It is ready by then.
    ensure_another_is_active(&env, &old).await?;
    let switch = env.delay_call("elasticloadbalancing", "ModifyListener", 1, DELAY);
    let candidate = env.new_id();
    env.push(&candidate, &[]).await?;
    env.call_arrived(&switch).await?;
    let back = json!({"deploymentId": old, "evict": false});
    let rollback = env.start("rollback", &back).await?;
    let winner = winner_of(&env, &rollback, &candidate).await?;
    assert_eq!(winner, Winner::Rollback);
    assert_eq!(env.active().await?.as_ref(), Some(&old));

    // Two rollbacks at once, first to the same deployment, then to different ones.
    let live = env.deploy_live(&[]).await?.name;
    two_to_the_same(&env).await?;
    assert_eq!(env.active().await?.as_ref(), Some(&old));
    two_to_different_ones(&env, &live, &bad).await?;

    // After all these rollbacks the next push goes live, even while both stacks are updated.
    pushed_during_an_update(&env).await?;
    observers.finish().await?;
    env.tear_down().await;
    Ok(())
}

/// Makes sure that another deployment than `old` is active, so that a rollback can go back to `old`.
async fn ensure_another_is_active(env: &TestEnvironment, old: &str) -> Result<()> {
    if env.active().await?.as_deref() == Some(old) {
        env.deploy_live(&[]).await?;
    }
    Ok(())
}

/// Which of a deployment and a concurrent rollback wins.
#[derive(Debug, PartialEq)]
enum Winner {
    /// The candidate, because it was not ready when the rollback began.
    Candidate,
    /// The rollback, because the candidate was ready when it began.
    Rollback,
}

/// Waits for both executions. The one that has to win has won, and what both report is true.
async fn winner_of(env: &TestEnvironment, rollback: &str, candidate: &str) -> Result<Winner> {
    let (rollback, deployed) = tokio::try_join!(
        env.wait_for_execution(rollback),
        env.wait_for_deployment(candidate)
    )?;
    env.cloud.faults().clear();
    let active = env.active().await?.context("nothing is active")?;
    let began = rollback.output_of("RestoreDeployment")?["Payload"].clone();
    let target = began["deploymentId"].as_str().context("no target")?;
    let replaced = began["replaced"].as_array().context("no list")?;
    let reported = format!(
        "{} {}{}; {} {}{}",
        rollback.ending(),
        rollback.cause,
        rollback.output,
        deployed.ending(),
        deployed.cause,
        deployed.output
    );
    let winner = if replaced.contains(&json!(candidate)) {
        Winner::Rollback
    } else {
        Winner::Candidate
    };
    match winner {
        Winner::Candidate => {
            assert_eq!(active, candidate, "{reported}");
            assert_eq!(deployed.ending(), "Succeeded", "{reported}");
            let tags = env.tags(candidate).await?;
            assert!(!tags.contains_key(ROLLED_BACK_AT), "{tags:?}");
            match rollback.ending() {
                // It was over before the candidate became ready, which then replaced its target.
                "Succeeded" => assert_eq!(
                    deployed.output["previousDeploymentId"], target,
                    "{reported}"
                ),
                ending => {
                    assert_eq!(ending, "RollbackFailed", "{reported}");
                    let newer = format!("{candidate} is newer and active");
                    assert!(rollback.cause.contains(&newer), "{reported}");
                }
            }
        }
        Winner::Rollback => {
            assert_eq!(active, target, "{reported}");
            assert_eq!(rollback.ending(), "Succeeded", "{reported}");
            let was_live = env.was_live(candidate).await?;
            match deployed.ending() {
                // It was live first, and the rollback replaced it.
                "Succeeded" => assert!(was_live, "{reported}"),
                ending => {
                    let expected = if was_live { "UndoFailed" } else { "Failed" };
                    assert_eq!(ending, expected, "{reported}");
                    let why = format!("{candidate} was rolled back; {active} stays active");
                    assert!(deployed.cause.contains(&why), "{reported}");
                }
            }
            if was_live {
                let tags = env.tags(candidate).await?;
                assert!(tags.contains_key(ROLLED_BACK_AT), "{tags:?}");
            }
        }
    }
    env.reaches_visitors(&active).await?;
    Ok(winner)
}

/// Starts rollbacks that are held when they have begun and before they switch. Returns what to let go, and their
/// ARNs.
async fn held_rollbacks<const N: usize>(
    env: &TestEnvironment,
    inputs: [Value; N],
) -> Result<(FaultRule, [String; N])> {
    let looks = env.hold_calls(
        "check-target-health",
        "elasticloadbalancing",
        "DescribeTargetHealth",
    );
    let arns = try_join_all(inputs.iter().map(|input| env.start("rollback", input))).await?;
    for arn in &arns {
        env.wait_until(Duration::from_secs(60), async || {
            let execution = Execution::read(&env.sfn, arn).await?;
            Ok(execution.entered("CheckTargetHealth").is_some())
        })
        .await
        .context("a rollback does not begin")?;
    }
    let arns = arns.try_into().ok().context("not all were started")?;
    Ok((looks, arns))
}

/// Runs two rollbacks that begin before either of them switches, each delayed at its switch.
async fn two_rollbacks(env: &TestEnvironment, inputs: [Value; 2]) -> Result<[Execution; 2]> {
    let (looks, arns) = held_rollbacks(env, inputs).await?;
    for nth in 1..=2 {
        env.delay_call("elasticloadbalancing", "ModifyListener", nth, DELAY / 3);
    }
    env.let_go(&looks);
    let ended = try_join_all(arns.iter().map(|arn| env.wait_for_execution(arn))).await?;
    env.cloud.faults().clear();
    ended.try_into().ok().context("not two rollbacks")
}

/// Both go back to the same deployment, and both report that it is live.
async fn two_to_the_same(env: &TestEnvironment) -> Result<()> {
    let ended = two_rollbacks(env, [json!({"evict": false}), json!({"evict": false})]).await?;
    let active = env.active().await?.context("nothing is active")?;
    for rollback in &ended {
        assert_eq!(rollback.ending(), "Succeeded", "{}", rollback.cause);
        assert_eq!(rollback.output["deploymentId"], active.as_str());
    }
    is_live_again(env, &active).await
}

/// Either may win, because both were asked for. The other one reports what is active, unless it was over before.
async fn two_to_different_ones(env: &TestEnvironment, newer: &str, older: &str) -> Result<()> {
    let to = [newer, older];
    let inputs = to.map(|id| json!({"deploymentId": id, "evict": false}));
    let ended = two_rollbacks(env, inputs).await?;
    let active = env.active().await?.context("nothing is active")?;
    assert!(to.contains(&&*active), "{active} is active");
    for (rollback, id) in ended.iter().zip(to) {
        match rollback.ending() {
            "Succeeded" => assert_eq!(rollback.output["deploymentId"], id),
            ending => {
                assert_ne!(id, active, "{}", rollback.cause);
                assert_eq!(ending, "RollbackFailed", "{}", rollback.cause);
                assert!(rollback.cause.contains(&active), "{}", rollback.cause);
            }
        }
    }
    // Else the next switch would go forward to it.
    if active == older {
        let tags = env.tags(newer).await?;
        assert!(tags.contains_key(ROLLED_BACK_AT), "{tags:?}");
    }
    is_live_again(env, &active).await
}

/// Visitors reach the target of a rollback, which carries no mark of an earlier one.
async fn is_live_again(env: &TestEnvironment, id: &str) -> Result<()> {
    let tags = env.tags(id).await?;
    assert!(!tags.contains_key(ROLLED_BACK_AT), "{tags:?}");
    env.reaches_visitors(id).await
}

/// Pushes twice while the stacks are updated: once with the baseline, once with the machines.
async fn pushed_during_an_update(env: &TestEnvironment) -> Result<()> {
    let changed = [
        (
            "BASELINE_PARAMETERS",
            "LogRetentionDays=7 ContainerInsights=enabled",
        ),
        (
            "PIPELINE_PARAMETERS",
            "HealthTimeoutSeconds=300 LogRetentionDays=7",
        ),
    ];
    let ids = [env.new_id(), env.new_id()];
    let pushed = env.push_without_events(&ids, &[]).await?;
    let [with_baseline, with_machines] = ids;
    let before = env.cloud.calls().newest();
    let update = env.cloud.deploy_with(&env.name, &changed);
    let pushes = async {
        for (number, event) in pushed.iter().enumerate() {
            env.wait_until(Duration::from_secs(120), async || {
                let calls = env.cloud.calls().since(before);
                let updates = calls.iter().filter(|it| it.operation == "CreateChangeSet");
                Ok(updates.count() > number)
            })
            .await
            .context("the stack was not updated")?;
            env.cloud.push_events().deliver(event).await?;
        }
        tokio::try_join!(
            env.wait_for_deployment(&with_baseline),
            env.wait_for_deployment(&with_machines)
        )
    };
    let ((), (first, second)) = tokio::try_join!(update, pushes)?;
    assert_eq!(second.ending(), "Succeeded", "{}", second.cause);
    // The second one may be live before the first one is ready.
    match first.ending() {
        "Succeeded" => assert!(env.was_live(&with_baseline).await?),
        ending => assert_eq!(ending, "Superseded", "{}", first.cause),
    }
    assert_eq!(env.active().await?.as_ref(), Some(&with_machines));
    env.reaches_visitors(&with_machines).await
}
