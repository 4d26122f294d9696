//! A task definition of the team's own under a deployment, and a command that runs once before it is made.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use localcloud::time_scale::TimeScale;
use scenarios::visitors::Pin;
use scenarios::{Execution, TestEnvironment, Traffic};
use serde_json::{Value, json};

use crate::settings::{NAME, put};

/// What the sample application prints as its last line, as a release that was asked to end with 1.
const LAST_LINE: &str = "ends with 1 as it was asked to";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_runs_once_before_the_deployment_that_copies_a_base() -> Result<()> {
    let env = TestEnvironment::deploy_for_cleanups_by_hand().await?;
    let live = env.deploy_live(&[]).await?.name;
    with_a_base_and_a_release(&env, &live).await?;
    let live = env.active().await?.context("nothing is live")?;
    one_that_fails_is_undone_with_its_last_lines(&env, &live).await?;
    one_that_hangs_is_stopped_at_its_time(&env, &live).await?;
    without_a_secret_it_fails_within_a_minute(&env, &live).await?;
    releases_of_pushes_in_a_row_do_not_overlap(&env).await?;
    env.aws(&["ssm", "delete-parameter", "--name", NAME])
        .await?;
    env.tear_down().await;
    Ok(())
}

async fn with_a_base_and_a_release(env: &TestEnvironment, live: &str) -> Result<()> {
    let of_live = definition_of(env, live).await?;
    let image = &of_live["taskDefinition"]["containerDefinitions"][0]["image"];
    let mount = json!([{"sourceVolume": "shared", "containerPath": "/shared"}]);
    let base = json!({
        "family": "web", "requiresCompatibilities": ["FARGATE"], "networkMode": "awsvpc",
        "cpu": "1024", "memory": "2048", "volumes": [{"name": "shared"}],
        "executionRoleArn": of_live["taskDefinition"]["executionRoleArn"],
        "containerDefinitions": [
            {
                "name": "app", "image": "any", "mountPoints": mount,
                "environment": [{"name": "OF_BASE", "value": "kept"}],
            },
            {
                "name": "sidecar", "image": image, "essential": false, "mountPoints": mount,
                "command": ["release", "3600", "0"],
            },
        ],
    });
    register(env, &base).await?;

    let mut create = vec!["secretsmanager", "create-secret", "--name", "test/db"];
    create.extend(["--secret-string", "open sesame", "--query", "ARN"]);
    create.extend(["--output", "text"]);
    let secret = env.aws(&create).await?.trim_end().to_owned();
    let settings = json!({
        "desiredCount": 1, "cpu": 512, "base": "web", "environment": {"SESSION_IDLE_SECONDS": "5"},
        "secrets": {"DB_PASSWORD": secret}, "release": {"command": ["release", "1", "0"], "timeoutSeconds": 60},
    });
    put(env, &settings.to_string()).await?;

    let before = env.cloud.calls().newest();
    let pushed = env.push_and_wait(&[]).await?;
    assert_eq!(pushed.ending(), "Succeeded", "{}", pushed.cause);
    let id = &pushed.name;
    env.reaches_visitors(id).await?;
    assert!(pushed.left("IsReleaseOver") < pushed.entered("CreateTargetGroup"));
    let changes = env.change_calls_since(before);
    let at = |operation: &str| -> Vec<usize> {
        let of_it = changes.iter().enumerate();
        let of_it = of_it.filter(|(_, call)| call.operation == operation);
        of_it.map(|(number, _)| number).collect()
    };
    let (runs, services) = (at("RunTask"), at("CreateService"));
    assert_eq!((runs.len(), services.len()), (1, 1));
    assert!(runs < services);
    let [release] = &releases(env).await?[..] else {
        anyhow::bail!("not one release ran");
    };
    assert_eq!(release["startedBy"], id.as_str());
    let app = release["containers"].as_array().context("no containers")?;
    let app = app.iter().find(|it| it["name"] == "app");
    assert_eq!(app.context("no app")?["exitCode"], 0);

    // The revision has the size of the settings, and the rest of the base.
    let described = definition_of(env, id).await?;
    let definition = &described["taskDefinition"];
    assert_eq!(
        (&definition["cpu"], &definition["memory"]),
        (&json!("512"), &json!("2048"))
    );
    assert_eq!(definition["volumes"][0]["name"], "shared");
    let sidecar = &definition["containerDefinitions"][1];
    assert_eq!(sidecar["name"], "sidecar");
    assert_eq!(sidecar["mountPoints"][0]["containerPath"], "/shared");
    let tags = described["tags"].as_array().context("no tags")?;
    let copied = json!({"key": "pulse:copy-of", "value": "web:1"});
    assert!(tags.contains(&copied), "{tags:?}");

    // What the application itself gets.
    let [task] = &env.tasks(id).await?[..] else {
        anyhow::bail!("not one task runs");
    };
    let mut environments = Vec::new();
    for process in env.cloud.ecs().processes() {
        if process.task_id == task.id {
            let path = format!("/proc/{}/environ", process.process_group);
            environments.push(String::from_utf8(std::fs::read(path)?)?);
        }
    }
    assert_eq!(environments.len(), 2, "the application and its sidecar");
    let has_all = |environment: &String| {
        let mut wanted = [
            "DB_PASSWORD=open sesame",
            "OF_BASE=kept",
            "SESSION_IDLE_SECONDS=5",
        ]
        .iter();
        wanted.all(|variable| environment.split('\0').any(|it| it == *variable))
    };
    assert!(environments.iter().any(has_all));

    // A later revision of the base changes nothing of what runs.
    let mut later = base;
    later["cpu"] = "2048".into();
    later["memory"] = "4096".into();
    register(env, &later).await?;
    assert_eq!(
        definition_of(env, id).await?["taskDefinition"]["taskDefinitionArn"],
        definition["taskDefinitionArn"]
    );
    Ok(())
}

async fn one_that_fails_is_undone_with_its_last_lines(
    env: &TestEnvironment,
    live: &str,
) -> Result<()> {
    let release = json!({"command": ["release", "0", "1"]});
    put(env, &json!({"release": release}).to_string()).await?;
    let failed = env.push_and_wait(&[]).await?;
    is_undone(
        env,
        &failed,
        live,
        &["(ReleaseFailed)", "exit code 1", LAST_LINE],
    )
    .await
}

async fn one_that_hangs_is_stopped_at_its_time(env: &TestEnvironment, live: &str) -> Result<()> {
    let release = json!({"command": ["release", "3600", "0"], "timeoutSeconds": 5});
    put(env, &json!({"release": release}).to_string()).await?;
    let before = env.cloud.calls().newest();
    let hung = env.push_and_wait(&[]).await?;
    is_undone(env, &hung, live, &["(ReleaseFailed)", "it had 5 s"]).await?;
    let changes = env.change_calls_since(before);
    assert!(changes.iter().any(|call| call.operation == "StopTask"));
    Ok(())
}

/// The settings name a parameter that does not exist.
async fn without_a_secret_it_fails_within_a_minute(
    env: &TestEnvironment,
    live: &str,
) -> Result<()> {
    const MISSING: &str = "/pulse/test/NOT-THERE";
    let traffic = Traffic::start(env, 20, vec![Pin::None])?;
    traffic.each_is_answered(1).await?;
    let mut settings = json!({"secrets": {"API_KEY": MISSING}});
    put(env, &settings.to_string()).await?;
    let of_service = env.push_and_wait(&[]).await?;
    settings["release"] = json!({"command": ["release", "0", "0"]});
    put(env, &settings.to_string()).await?;
    let of_release = env.push_and_wait(&[]).await?;
    let (tally, _) = traffic.stop().await?;

    let words = ["(ReleaseFailed)", "ResourceInitializationError", MISSING];
    is_undone(env, &of_release, live, &words).await?;
    for execution in [&of_service, &of_release] {
        let Execution { name, cause, .. } = execution;
        ensure!(execution.ending() == "Failed", "{name}: {cause}");
        assert!(cause.contains(MISSING), "{cause}");
        assert_eq!(env.remaining(name).await?, Vec::<String>::new());
        // Also of its undo. A machine that is slow makes fewer of these waits while tasks start or stop, and not more.
        let path = execution.path();
        let waited: u32 = path.iter().map(|state| seconds_of(state)).sum();
        assert!(
            (1..60).contains(&waited),
            "{name} waited {waited} s: {cause}"
        );
        let undo = execution.entered("UndoDeployment").context("no undo")?;
        println!(
            "without a secret, {name} waited for {waited} s; by the history it began its undo after {:.0} s and failed \
             after {:.0} s of AWS's time",
            aws_seconds(execution, undo),
            aws_seconds(execution, execution.history.len() - 1)
        );
    }
    assert!(
        of_service.cause.contains("(Unhealthy)"),
        "{}",
        of_service.cause
    );
    assert_eq!(env.active().await?.as_deref(), Some(live));
    assert_eq!(tally.failed, Vec::<String>::new());
    assert_eq!(tally.answered_by(&Pin::None, 0, 0), BTreeSet::from([live]));
    Ok(())
}

/// How long a state of the deploy machine waits.
fn seconds_of(state: &str) -> u32 {
    match state {
        "WaitForTargets" | "WaitForUndo" => 5,
        "WaitForRelease" => 15,
        _ => 0,
    }
}

/// Seconds on AWS from the first event to this one, if the local cloud has its usual speed.
fn aws_seconds(execution: &Execution, event: usize) -> f64 {
    let at = |event: usize| execution.history[event].timestamp().as_secs_f64();
    (at(event) - at(0)) / TimeScale::default().0
}

/// It failed with these words before anything but revisions was made, and those are deregistered.
async fn is_undone(
    env: &TestEnvironment,
    execution: &Execution,
    live: &str,
    words: &[&str],
) -> Result<()> {
    let Execution { name, cause, .. } = execution;
    ensure!(execution.ending() == "Failed", "{name}: {cause}");
    for word in words {
        assert!(cause.contains(word), "`{word}` is not in: {cause}");
    }
    assert_eq!(execution.entered("CreateTargetGroup"), None);
    assert_eq!(env.remaining(name).await?, Vec::<String>::new());
    assert_eq!(env.active().await?.as_deref(), Some(live));
    Ok(())
}

async fn releases_of_pushes_in_a_row_do_not_overlap(env: &TestEnvironment) -> Result<()> {
    let release = json!({"command": ["release", "3", "0"]});
    put(
        env,
        &json!({"desiredCount": 1, "release": release}).to_string(),
    )
    .await?;
    let ids: Vec<String> = (0..5).map(|_| env.new_id()).collect();
    // The images are pushed before the first event, because a push takes time.
    let pushed = env.push_without_events(&ids, &[]).await?;
    for event in &pushed {
        env.cloud.push_events().deliver(event).await?;
    }
    let ended = try_join_all(ids.iter().map(|id| env.wait_for_deployment(id))).await?;
    let newest = ids.last().context("nothing was pushed")?;
    for execution in &ended {
        let Execution { name, cause, .. } = execution;
        let is_right = match execution.ending() {
            "Succeeded" => true,
            "Superseded" => name != newest,
            _ => false,
        };
        assert!(is_right, "{name} ended as {}: {cause}", execution.ending());
    }
    assert_eq!(env.active().await?.as_ref(), Some(newest));
    env.reaches_visitors(newest).await?;

    let mut times = Vec::new();
    let mut begun = Vec::new();
    for task in releases(env).await? {
        let whose = task["startedBy"].as_str().unwrap_or_default().to_owned();
        if ids.contains(&whose) {
            let at = |field: &str| time_of(&task[field]).with_context(|| field.to_owned());
            times.push((at("createdAt")?, at("stoppedAt")?));
            begun.push(whose);
        }
    }
    times.sort_by(|one, other| one.0.total_cmp(&other.0));
    for pair in times.windows(2) {
        assert!(pair[0].1 <= pair[1].0, "two ran at once: {times:?}");
    }
    begun.sort();
    assert_eq!(begun.last(), Some(newest));
    begun.dedup();
    assert_eq!(begun.len(), times.len(), "one ran twice");
    Ok(())
}

/// The stopped tasks of all releases, as the CLI shows them.
async fn releases(env: &TestEnvironment) -> Result<Vec<Value>> {
    let mut list = vec!["ecs", "list-tasks", "--cluster", &env.name];
    list.extend(["--family", "test-release", "--desired-status", "STOPPED"]);
    // A task that has just ended is shown as running for a moment.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let listed: Value = serde_json::from_str(&env.aws(&list).await?)?;
    let arns = listed["taskArns"].as_array().context("no list")?.iter();
    let arns: Vec<_> = arns.filter_map(Value::as_str).collect();
    if arns.is_empty() {
        return Ok(Vec::new());
    }
    let mut describe = vec!["ecs", "describe-tasks", "--cluster", &env.name, "--tasks"];
    describe.extend(arns);
    let mut described: Value = serde_json::from_str(&env.aws(&describe).await?)?;
    Ok(serde_json::from_value(described["tasks"].take())?)
}

/// Seconds since 1970: the CLI shows a number or a text.
fn time_of(shown: &Value) -> Option<f64> {
    let text = || {
        let format = &time::format_description::well_known::Rfc3339;
        let at = time::OffsetDateTime::parse(shown.as_str()?, format).ok()?;
        Some(at.unix_timestamp_nanos() as f64 / 1e9)
    };
    shown.as_f64().or_else(text)
}

async fn register(env: &TestEnvironment, definition: &Value) -> Result<()> {
    let text = definition.to_string();
    let register = ["ecs", "register-task-definition", "--cli-input-json", &text];
    env.aws(&register).await.map(drop)
}

/// What the deployment's service runs, with its tags.
async fn definition_of(env: &TestEnvironment, id: &str) -> Result<Value> {
    let service = env.service(id).await?;
    let revision = service.task_definition().unwrap_or_default();
    let mut describe = vec!["ecs", "describe-task-definition", "--include", "TAGS"];
    describe.extend(["--task-definition", revision]);
    Ok(serde_json::from_str(&env.aws(&describe).await?)?)
}
