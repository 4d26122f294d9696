//! The settings of an environment are what its next deployment runs with.

use anyhow::{Context, Result};
use scenarios::TestEnvironment;
use serde_json::{Value, json};

/// The parameter of the settings.
pub const NAME: &str = "/pulse/test/settings";

/// On an environment with a deployment that is live.
pub async fn the_next_deployment_runs_with_the_settings(env: &TestEnvironment) -> Result<()> {
    let id = env.new_id();
    env.push_without_event(&id, &[]).await?;
    let input = json!({"deploymentId": id, "desiredCount": 1}).to_string();

    let before = env.cloud.calls().newest();
    put(env, r#"{"cpu": 512, "health": {"timeoutSeconds": 1}}"#).await?;
    let refused = env.start_by_hand(&id, &input).await?;
    assert_eq!(refused.ending(), "Refused", "{}", refused.cause);
    for words in [
        "InvalidSettingsError: ",
        "/pulse/test/settings, version 1",
        "`health.timeoutSeconds`",
    ] {
        assert!(refused.cause.contains(words), "{}", refused.cause);
    }
    assert_eq!(env.changes_since(before), Vec::<String>::new());

    let mut create = vec!["secretsmanager", "create-secret", "--name", "test/api-key"];
    create.extend([
        "--secret-string",
        "a key",
        "--query",
        "ARN",
        "--output",
        "text",
    ]);
    let secret = env.aws(&create).await?.trim_end().to_owned();
    let settings = json!({
        "desiredCount": 3, "cpu": 512, "environment": {"SESSION_IDLE_SECONDS": "5"},
        "secrets": {"API_KEY": secret}, "stickiness": 60, "health": {"graceSeconds": 90},
    });
    put(env, &settings.to_string()).await?;
    let live = env.start_by_hand(&format!("{id}-2"), &input).await?;
    assert_eq!(live.ending(), "Succeeded", "{}", live.cause);
    assert_eq!(live.output["settingsVersion"], 2);
    env.reaches_visitors(&id).await?;

    let service = env.service(&id).await?;
    assert_eq!(service.desired_count(), 1, "the input beats the settings");
    assert_eq!(service.health_check_grace_period_seconds(), Some(90));
    let revision = service.task_definition().unwrap_or_default();
    let mut describe = vec!["ecs", "describe-task-definition", "--include", "TAGS"];
    describe.extend(["--task-definition", revision]);
    let described: Value = serde_json::from_str(&env.aws(&describe).await?)?;
    let definition = &described["taskDefinition"];
    assert_eq!(
        (&definition["cpu"], &definition["memory"]),
        (&json!("512"), &json!("1024"))
    );
    let tags = described["tags"].as_array().context("no tags")?;
    let version = json!({"key": "pulse:settings-version", "value": "2"});
    assert!(tags.contains(&version), "{tags:?}");

    // What the application itself gets.
    let [task] = &env.tasks(&id).await?[..] else {
        anyhow::bail!("not one task runs");
    };
    let processes = env.cloud.ecs().processes();
    let process = processes.iter().find(|it| it.task_id == task.id);
    let group = process.context("the task has no process")?.process_group;
    let environment = std::fs::read(format!("/proc/{group}/environ"))?;
    let environment = String::from_utf8(environment)?;
    for variable in ["API_KEY=a key", "SESSION_IDLE_SECONDS=5"] {
        assert!(
            environment.split('\0').any(|it| it == variable),
            "{variable}"
        );
    }

    let mut attributes = vec!["elbv2", "describe-target-group-attributes"];
    let group = env.target_group(&id).await?;
    attributes.extend(["--target-group-arn", &group, "--query"]);
    attributes.push("Attributes[?Key=='stickiness.lb_cookie.duration_seconds'].Value | [0]");
    attributes.extend(["--output", "text"]);
    assert_eq!(env.aws(&attributes).await?.trim_end(), "60");
    env.aws(&["ssm", "delete-parameter", "--name", NAME])
        .await?;
    Ok(())
}

/// Stores the settings.
pub async fn put(env: &TestEnvironment, settings: &str) -> Result<()> {
    let mut put = vec!["ssm", "put-parameter", "--name", NAME, "--type", "String"];
    put.extend(["--overwrite", "--value", settings]);
    env.aws(&put).await.map(drop)
}
