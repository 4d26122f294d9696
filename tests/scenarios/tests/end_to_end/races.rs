//! Pushes, cleanups, rollbacks and updates of the stacks at the same time, in the orders that matter.
//! Delayed AWS calls bring a race about. In any order that it then takes, what the executions report
//! must be true.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use lifecycle::tags::LIVE_SINCE;
use scenarios::delay::{DELAY, DELAY_PAST_TIMEOUT};
use scenarios::faults::foreign::Foreign;
use scenarios::machines::{drain_record, outcome};
use scenarios::websocket::Socket;
use scenarios::{Execution, Observers, TestEnvironment};
use serde_json::{Value, json};

/// The parts of a whole deployment: two rules, target group, service, two tasks and task definition.
const PARTS: usize = 7;

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
    println!("pushes: {} requests answered", observers.finish().await?);

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
        assert_eq!(parts(&env, id).await?.len(), PARTS, "{id}");
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
        assert_eq!(parts(&env, id).await?.len(), PARTS, "{id}");
        is_not_drained(&env, id).await?;
    }
    assert_eq!(env.active().await?, Some(fourth));
    assert_eq!(foreign.described(&env).await?, untouched);
    println!("cleanups: {} requests answered", observers.finish().await?);
    env.tear_down().await;
    Ok(())
}

/// A time so long ago that a drain deadline has passed, and that an idle task was found in an earlier sweep.
const LONG_AGO: &str = "2026-01-01T00:00:00Z";

/// Delivers the events of pushes in this order, one right after the other. Returns the newest, which is
/// live afterwards.
async fn pushed_at_once(env: &TestEnvironment, ids: &[String]) -> Result<String> {
    // The images are pushed before the first event, because a push takes time.
    let mut pushed = Vec::new();
    for id in ids {
        pushed.push(env.push_without_event(id, &[]).await?);
    }
    let begun = Instant::now();
    for event in &pushed {
        env.cloud.push_events().deliver(event).await?;
    }
    println!("{} events in {:.2?}: {ids:?}", ids.len(), begun.elapsed());
    let ended = try_join_all(ids.iter().map(|id| env.wait_for_deployment(id))).await?;
    let newest = ids.iter().max().context("nothing was pushed")?;
    for execution in &ended {
        let Execution { name, cause, .. } = execution;
        let left = parts(env, name).await?;
        println!("{name}: {}, {} parts", execution.ending(), left.len());
        // One that was live for a moment is whole, even if its execution does not know that.
        let was_live = !left.is_empty() && env.tags(name).await?.contains_key(LIVE_SINCE);
        match execution.ending() {
            "Succeeded" => assert!(was_live, "{name}: {left:?}"),
            "Superseded" => assert!(name != newest, "{}", execution.output),
            other => panic!("{name} ended as {other}: {cause}"),
        }
        assert_eq!(left.len(), if was_live { PARTS } else { 0 }, "{left:?}");
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

/// What exists of a deployment, whether or not it is active.
async fn parts(env: &TestEnvironment, id: &str) -> Result<Vec<String>> {
    let mut parts = env.remaining(id).await?;
    parts.retain(|part| part != "rule default");
    Ok(parts)
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
    println!("during a push: {}", cleanup.output);
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
        println!("{}: {}", cleanup.ending(), cleanup.output["deployments"]);
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
    for task in env.tasks(id).await? {
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

    // The candidate becomes ready after the rollback has begun, and the rollback switches after it.
    // Its first tag is that of its execution.
    let ready = env.delay_call("elasticloadbalancing", "AddTags", 2, DELAY / 2);
    let candidate = env.new_id();
    env.push(&candidate, &[]).await?;
    env.call_arrived(&ready).await?;
    env.delay_call("elasticloadbalancing", "DescribeTargetHealth", 1, DELAY);
    let race = rollback_against(&env, json!({}), &candidate).await?;
    println!("ready after the rollback began: {race:?}");

    // The rollback overwrites the switch of the candidate, which became ready after the rollback had set
    // its tags.
    ensure_another_is_active(&env, &old).await?;
    let ready = env.delay_call("elasticloadbalancing", "AddTags", 2, DELAY / 2);
    let candidate = env.new_id();
    env.push(&candidate, &[]).await?;
    env.call_arrived(&ready).await?;
    env.delay_call("elasticloadbalancing", "ModifyListener", 1, DELAY);
    let race = rollback_against(&env, json!({}), &candidate).await?;
    println!("ready before the rollback's switch: {race:?}");

    // The candidate overwrites the switch of a rollback that began and ended during its own.
    ensure_another_is_active(&env, &old).await?;
    let switch = env.delay_call("elasticloadbalancing", "ModifyListener", 1, DELAY);
    let candidate = env.new_id();
    env.push(&candidate, &[]).await?;
    env.call_arrived(&switch).await?;
    let back = json!({"deploymentId": old});
    let race = rollback_against(&env, back, &candidate).await?;
    println!("a rollback within the switch: {race:?}");

    // Two rollbacks at once, first to the same deployment, then to different ones.
    let live = env.deploy_live(&[]).await?.name;
    two_rollbacks(&env, [json!({}), json!({})]).await?;
    assert_ne!(env.active().await?.as_ref(), Some(&live));
    let named = [&live, &bad].map(|id| json!({"deploymentId": id}));
    two_rollbacks(&env, named).await?;

    // After all these rollbacks the next push goes live, even while both stacks are updated.
    pushed_during_an_update(&env).await?;
    println!("{} requests answered", observers.finish().await?);
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

/// Which of a deployment and a concurrent rollback won.
#[derive(Debug)]
enum Won {
    /// The candidate, which became ready after the rollback had begun.
    Newer,
    /// The rollback, because the candidate was ready before it began.
    Rollback,
}

/// Starts the rollback, waits for both executions, and checks that what both report is true.
async fn rollback_against(env: &TestEnvironment, input: Value, candidate: &str) -> Result<Won> {
    let rollback = env.start("rollback", &input).await?;
    let (rollback, deployed) = tokio::try_join!(
        env.wait_for_execution(&rollback),
        env.wait_for_deployment(candidate)
    )?;
    env.cloud.faults().clear();
    let active = env.active().await?.context("nothing is active")?;
    println!(
        "active: {active}; rollback {} {}{}; {candidate} {} {}{}",
        rollback.ending(),
        rollback.cause,
        rollback.output,
        deployed.ending(),
        deployed.cause,
        deployed.output
    );
    env.reaches_visitors(&active).await?;
    if active == candidate {
        assert_eq!(deployed.ending(), "Succeeded", "{}", deployed.cause);
        if rollback.ending() != "Succeeded" {
            assert_eq!(rollback.ending(), "RollbackFailed");
            let newer = format!("{candidate} is newer and active");
            assert!(rollback.cause.contains(&newer), "{}", rollback.cause);
        }
        return Ok(Won::Newer);
    }
    assert_eq!(rollback.ending(), "Succeeded", "{}", rollback.cause);
    assert_eq!(rollback.output["deploymentId"], active.as_str());
    match deployed.ending() {
        // It was live first, and the rollback replaced it.
        "Succeeded" => assert_eq!(rollback.output["replacedDeploymentId"], candidate),
        ending => {
            assert!(["Failed", "UndoFailed"].contains(&ending));
            let why = format!("{candidate} was rolled back; {active} stays active");
            assert!(deployed.cause.contains(&why), "{}", deployed.cause);
        }
    }
    Ok(Won::Rollback)
}

/// Starts two rollbacks at once, each delayed before its switch.
async fn two_rollbacks(env: &TestEnvironment, inputs: [Value; 2]) -> Result<()> {
    for nth in 1..=2 {
        env.delay_call("elasticloadbalancing", "ModifyListener", nth, DELAY / 3);
    }
    let arns = try_join_all(inputs.iter().map(|input| env.start("rollback", input))).await?;
    let ended = try_join_all(arns.iter().map(|arn| env.wait_for_execution(arn))).await?;
    env.cloud.faults().clear();
    let active = env.active().await?.context("nothing is active")?;
    println!("two rollbacks: {active} is active");
    let mut to = BTreeSet::new();
    for rollback in &ended {
        println!(
            "{} {}{}",
            rollback.ending(),
            rollback.cause,
            rollback.output
        );
        if rollback.ending() == "Succeeded" {
            to.insert(rollback.output["deploymentId"].as_str());
        } else {
            assert_eq!(rollback.ending(), "RollbackFailed", "{}", rollback.cause);
            assert!(rollback.cause.contains(&active), "{}", rollback.cause);
        }
    }
    assert!(to.contains(&Some(active.as_str())), "{to:?}");
    assert!(
        !env.tags(&active)
            .await?
            .contains_key("pulse:rolled-back-at")
    );
    env.reaches_visitors(&active).await
}

/// Pushes twice while the stacks are updated: once with the baseline, once with the machines.
async fn pushed_during_an_update(env: &TestEnvironment) -> Result<()> {
    let mut live = BTreeSet::from([env.active().await?.context("nothing is active")?]);
    let changed = [
        (
            "BASELINE_PARAMETERS",
            "NatGateway=false LogRetentionDays=7 ContainerInsights=enabled",
        ),
        (
            "PIPELINE_PARAMETERS",
            "HealthTimeoutSeconds=300 LogRetentionDays=7",
        ),
    ];
    let [with_baseline, with_machines] = [env.new_id(), env.new_id()];
    let pushed = [
        env.push_without_event(&with_baseline, &[]).await?,
        env.push_without_event(&with_machines, &[]).await?,
    ];
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
    let ((), ended) = tokio::try_join!(update, pushes)?;
    for deployed in [ended.0, ended.1] {
        let (name, ending) = (&deployed.name, deployed.ending());
        println!("during an update: {name} {ending} {}", deployed.cause);
        match ending {
            "Succeeded" => {
                live.insert(name.clone());
            }
            "Superseded" => assert_eq!(*name, with_baseline, "{}", deployed.output),
            // Refused or undone, and nothing remains.
            _ => {
                assert!(["Failed", "Refused"].contains(&ending), "{ending}");
                assert_eq!(env.remaining(name).await?, Vec::<String>::new());
            }
        }
    }
    assert_eq!(env.active().await?.as_ref(), live.last());
    if !live.contains(&with_machines) {
        let input = json!({"deploymentId": with_machines}).to_string();
        let again = env.start_by_hand("again", &input).await?;
        assert_eq!(again.ending(), "Succeeded", "{}", again.cause);
    }
    assert_eq!(env.active().await?.as_ref(), Some(&with_machines));
    env.reaches_visitors(&with_machines).await
}
