//! A version is as large as the one that it replaces was scaled to, and its number of tasks follows its load.

use std::time::Duration;

use anyhow::{Context, Result};
use scenarios::machines::outcome;
use scenarios::visitors::{Phase, Pin};
use scenarios::{Execution, TestEnvironment, Traffic};
use serde_json::{Value, json};

const SETTINGS: &str = "/pulse/test/settings";
/// How long the local cloud may take for what takes minutes on AWS.
const SOON: Duration = Duration::from_secs(60);
/// Requests per second on this machine. A minute of AWS's time takes six seconds here.
const BUSY: u32 = 40;
const QUIET: u32 = 5;
/// Requests per task and minute with which [`BUSY`] needs four tasks and [`QUIET`] one.
const PER_TARGET: u32 = 60;

/// What each task serves at once, and how long a request takes: 50 a second, so that two tasks serve half of [`LOAD`].
const CAPACITY: [(&str, &str); 2] = [("CONCURRENT_REQUESTS", "4"), ("SERVICE_MILLISECONDS", "80")];
/// Requests per second, of which 16 are in flight if none waits.
const LOAD: u32 = 200;
/// Requests in flight at most. Six tasks serve 24 at once, so that a request waits in line only when they are spread
/// unevenly, and two tasks 8, so that most do. This holds on any machine: a slow one sends fewer.
const IN_FLIGHT: usize = 20;

/// What is live was scaled to six tasks, of which two can serve only half of its load.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_traffic_moves_only_to_as_many_tasks() -> Result<()> {
    let env = TestEnvironment::deploy_for_cleanups_by_hand().await?;
    put(&env, json!({"desiredCount": 2})).await?;
    let first = env.deploy_live(&CAPACITY).await?.name;
    scale(&env, &first, 6).await?;
    let traffic = Traffic::with_in_flight(&env, LOAD, vec![Pin::None], IN_FLIGHT)?;
    traffic.each_is_answered(1000).await?;

    traffic.next_phase();
    let second = env.deploy_live(&CAPACITY).await?;
    assert_eq!(second.output["desiredCount"], 6, "{}", second.output);
    traffic.next_phase();
    traffic.each_is_answered(1000).await?;

    // The warm one gets as many before it is switched to.
    scale(&env, &first, 2).await?;
    traffic.next_phase();
    let rollback = env.run("rollback", &json!({})).await?;
    assert_eq!(rollback.ending(), "Succeeded", "{}", rollback.cause);
    assert_eq!(rollback.output["deploymentId"], json!(first));
    assert_eq!(rollback.output["desiredCount"], 6, "{}", rollback.output);
    assert!(
        comes_before(&rollback, "CheckRaisedTasks", "SwitchTraffic"),
        "{:?}",
        rollback.path()
    );
    env.reaches_visitors(&first).await?;
    traffic.next_phase();
    traffic.each_is_answered(1000).await?;

    // What too few tasks do to the visitors: the input asks for two, and gets them.
    traffic.next_phase();
    let id = env.new_id();
    env.push_without_event(&id, &CAPACITY).await?;
    let input = json!({"deploymentId": id, "desiredCount": 2}).to_string();
    let small = env.start_by_hand(&id, &input).await?;
    assert_eq!(small.ending(), "Succeeded", "{}", small.cause);
    env.reaches_visitors(&id).await?;
    traffic.next_phase();
    traffic.each_is_answered(1000).await?;

    let (tally, rate) = traffic.stop().await?;
    println!("{rate:.0} requests a second");
    let names = [
        "before, six tasks",
        "during a push",
        "after the push",
        "during a rollback",
        "after the rollback",
        "during a push of two tasks",
        "with two tasks",
    ];
    assert_eq!(tally.phases.len(), names.len());
    for (name, phase) in names.iter().zip(&tally.phases) {
        println!("{name}: {}", described(phase));
    }
    assert_eq!(tally.failed, Vec::<String>::new());
    for (name, phase) in names[..5].iter().zip(&tally.phases) {
        assert!(phase.waited_percent() < 25, "{name}: {}", described(phase));
    }
    let small = &tally.phases[6];
    assert!(small.waited_percent() > 75, "{}", described(small));
    env.tear_down().await;
    Ok(())
}

fn described(phase: &Phase) -> String {
    format!(
        "{} answers, {} % waited in line, half took {:?} and 99 % at most {:?}",
        phase.took.len(),
        phase.waited_percent(),
        phase.percentile(50),
        phase.percentile(99)
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_is_as_large_as_what_it_replaces_and_no_request_fails() -> Result<()> {
    let env = TestEnvironment::deploy_for_cleanups_by_hand().await?;
    put(&env, json!({"desiredCount": 3})).await?;
    let first = env.deploy_live(&[]).await?;
    assert_eq!(first.output["desiredCount"], 3, "{}", first.output);
    scale(&env, &first.name, 6).await?;

    let traffic = Traffic::start(&env, BUSY, vec![Pin::None])?;
    traffic.each_is_answered(20).await?;
    let second = env.deploy_live(&[]).await?;
    assert_eq!(second.output["desiredCount"], 6, "{}", second.output);
    let reason = format!("6 tasks, because {}, which it replaces, has 6", first.name);
    assert_eq!(second.output["countReason"], json!(reason));
    assert_eq!(env.tasks(&second.name).await?.len(), 6);
    traffic.each_is_answered(20).await?;
    let (tally, _) = traffic.stop().await?;
    assert_eq!(tally.failed, Vec::<String>::new());

    // The settings say less, and the active one is not scaled beyond what it asked for.
    scale(&env, &second.name, 3).await?;
    put(&env, json!({"desiredCount": 2})).await?;
    let third = env.deploy_live(&[]).await?;
    assert_eq!(third.output["desiredCount"], 2, "{}", third.output);

    // A number in the input is meant as it is.
    scale(&env, &third.name, 5).await?;
    let id = env.new_id();
    env.push_without_event(&id, &[]).await?;
    let input = json!({"deploymentId": id, "desiredCount": 1}).to_string();
    let fourth = env.start_by_hand(&id, &input).await?;
    assert_eq!(fourth.ending(), "Succeeded", "{}", fourth.cause);
    assert_eq!(fourth.output["desiredCount"], 1, "{}", fourth.output);
    // Again, it is as it was started, whatever it was scaled to.
    scale(&env, &id, 4).await?;
    let again = env.start_by_hand(&format!("{id}-2"), &input).await?;
    assert_eq!(again.ending(), "Succeeded", "{}", again.cause);
    assert_eq!(env.service(&id).await?.desired_count(), 4);

    // The warm one has five tasks, and what the rollback replaces has six.
    scale(&env, &id, 6).await?;
    let rollback = env.run("rollback", &json!({})).await?;
    assert_eq!(rollback.ending(), "Succeeded", "{}", rollback.cause);
    assert_eq!(rollback.output["deploymentId"], json!(third.name));
    assert_eq!(rollback.output["desiredCount"], 6, "{}", rollback.output);
    assert!(
        comes_before(&rollback, "CheckRaisedTasks", "SwitchTraffic"),
        "{:?}",
        rollback.path()
    );
    assert_eq!(env.tasks(&third.name).await?.len(), 6);
    env.tear_down().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_follow_the_load_until_a_version_drains_or_is_deleted() -> Result<()> {
    let env = TestEnvironment::deploy_for_cleanups_by_hand().await?;
    let scaling = json!({"max": 5, "requestsPerTarget": PER_TARGET});
    put(&env, json!({"scaling": scaling})).await?;
    let first = env.deploy_live(&[]).await?.name;
    assert_eq!(bounds(&env, &first).await?, Some((2, 5)));

    let traffic = Traffic::start(&env, BUSY, vec![Pin::None])?;
    has_tasks(&env, &first, |tasks| tasks >= 4).await?;
    traffic.stop().await?;
    let traffic = Traffic::start(&env, QUIET, vec![Pin::None])?;
    has_tasks(&env, &first, |tasks| tasks < 4).await?;

    // The next one is as large, and follows the load from the switch on.
    let switched = env.deploy_live(&[]).await?;
    let second = switched.name.clone();
    assert!(
        switched.output["desiredCount"].as_u64() >= Some(3),
        "{}",
        switched.output
    );
    assert!(
        comes_before(&switched, "SwitchTraffic", "RegisterScaling"),
        "{:?}",
        switched.path()
    );
    let (tally, _) = traffic.stop().await?;
    assert_eq!(tally.failed, Vec::<String>::new());

    // A registration that is missing is made by a cleanup.
    deregister(&env, &second).await?;
    env.clean_up().await?;
    assert_eq!(bounds(&env, &second).await?, Some((2, 5)));

    // What is deleted by force stays without tasks, although it was registered.
    assert!(bounds(&env, &first).await?.is_some());
    let traffic = Traffic::start(&env, BUSY, vec![Pin::Header(first.clone())])?;
    env.wait_until(SOON, async || {
        delete_by_force(&env, &first).await?;
        Ok(env
            .find_service(&first)
            .await?
            .is_none_or(|it| it.desired_count() < 2))
    })
    .await?;
    assert_eq!(bounds(&env, &first).await?, None);
    env.wait_until(SOON, async || {
        delete_by_force(&env, &first).await?;
        Ok(env.remaining(&first).await?.is_empty())
    })
    .await?;
    traffic.stop().await?;

    // What drains is not scaled any more.
    let third = env.deploy_live(&[]).await?.name;
    env.deploy_live(&[]).await?;
    let mut cleanup = env.clean_up().await?;
    if outcome(&cleanup, &second).is_err() {
        // The last switch had not settled yet.
        cleanup = env.clean_up_later().await?;
    }
    assert_eq!(outcome(&cleanup, &second)?.0, "draining");
    assert_eq!(bounds(&env, &second).await?, None);
    assert!(
        bounds(&env, &third).await?.is_some(),
        "the warm one stays registered"
    );
    env.tear_down().await;
    Ok(())
}

/// Whether the execution had left one state when it first entered the other.
fn comes_before(execution: &Execution, one: &str, other: &str) -> bool {
    let (one, other) = (execution.left(one), execution.entered(other));
    one.zip(other).is_some_and(|(one, other)| one < other)
}

async fn put(env: &TestEnvironment, settings: Value) -> Result<()> {
    let settings = settings.to_string();
    let mut put = vec![
        "ssm",
        "put-parameter",
        "--name",
        SETTINGS,
        "--type",
        "String",
    ];
    put.extend(["--overwrite", "--value", &settings]);
    env.aws(&put).await.map(drop)
}

/// What an operator does by hand. Waits until all tasks are healthy.
async fn scale(env: &TestEnvironment, id: &str, count: usize) -> Result<()> {
    let number = count.to_string();
    let mut update = vec!["ecs", "update-service", "--cluster", env.name.as_str()];
    update.extend(["--service", id, "--desired-count", &number]);
    env.aws(&update).await?;
    has_tasks(env, id, |tasks| tasks == count).await
}

async fn has_tasks(env: &TestEnvironment, id: &str, enough: impl Fn(usize) -> bool) -> Result<()> {
    let group = env.target_group(id).await?;
    env.wait_until(SOON, async || {
        let health = env.elb.describe_target_health().target_group_arn(&group);
        let health = health.send().await?;
        let healthy = health.target_health_descriptions().iter().filter(|target| {
            let state = target.target_health().and_then(|health| health.state());
            state.is_some_and(|state| state.as_str() == "healthy")
        });
        Ok(enough(healthy.count()))
    })
    .await
    .with_context(|| format!("the tasks of {id}"))
}

/// The least and the most tasks of a version that is registered with Application Auto Scaling.
async fn bounds(env: &TestEnvironment, id: &str) -> Result<Option<(u64, u64)>> {
    let resource = format!("service/{}/{id}", env.name);
    let mut describe = vec!["application-autoscaling", "describe-scalable-targets"];
    describe.extend(["--service-namespace", "ecs", "--resource-ids", &resource]);
    let described: Value = serde_json::from_str(&env.aws(&describe).await?)?;
    let target = &described["ScalableTargets"][0];
    Ok(target["MinCapacity"]
        .as_u64()
        .zip(target["MaxCapacity"].as_u64()))
}

async fn deregister(env: &TestEnvironment, id: &str) -> Result<()> {
    let resource = format!("service/{}/{id}", env.name);
    let mut deregister = vec!["application-autoscaling", "deregister-scalable-target"];
    deregister.extend(["--service-namespace", "ecs", "--resource-id", &resource]);
    deregister.extend(["--scalable-dimension", "ecs:service:DesiredCount"]);
    env.aws(&deregister).await.map(drop)
}

/// Calls the function once, as an operator does.
async fn delete_by_force(env: &TestEnvironment, id: &str) -> Result<()> {
    let payload = json!({"deploymentId": id, "force": true}).to_string();
    let function = format!("{}-delete-deployment", env.name);
    let mut invoke = vec!["lambda", "invoke", "--function-name", &function];
    invoke.extend(["--payload", &payload, "/dev/stdout"]);
    env.aws(&invoke).await.map(drop)
}
