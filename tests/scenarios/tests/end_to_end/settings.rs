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

/// On an environment with a deployment that is live. Each document is one version of the parameter, and each start of a
/// deployment is refused with the version and with the field by its path.
pub async fn every_wrong_document_is_refused_and_makes_nothing(
    env: &TestEnvironment,
) -> Result<()> {
    // The image exists, so that only the settings can be refused.
    let id = env.new_id();
    env.push_without_event(&id, &[]).await?;
    for (family, more) in [
        ("restarts", json!({"restartPolicy": {"enabled": true}})),
        ("privileged", json!({"privileged": true})),
    ] {
        let mut app = json!({"name": "app", "image": "any"});
        for (member, value) in more.as_object().into_iter().flatten() {
            app[member] = value.clone();
        }
        let base = json!({
            "family": family, "networkMode": "awsvpc", "cpu": "256", "memory": "512", "containerDefinitions": [app],
        });
        let mut register = vec!["ecs", "register-task-definition", "--cli-input-json"];
        let base = base.to_string();
        register.push(&base);
        env.aws(&register).await?;
    }

    // Parameter Store itself refuses these two, so that no deployment meets them.
    for variable in ["x".repeat(9000), "{{ssm:other}}".to_owned()] {
        let text = json!({"environment": {"A": variable}}).to_string();
        let mut put = vec!["ssm", "put-parameter", "--name", NAME, "--type", "String"];
        put.extend(["--tier", "Advanced", "--value", &text]);
        let refused = env.aws(&put).await.map_err(|why| why.to_string());
        assert!(refused.is_err_and(|why| why.contains("ValidationException")));
    }

    let before = env.cloud.calls().newest();
    let active = env.active().await?;
    for (number, (text, words)) in wrong_documents().into_iter().enumerate() {
        put(env, &text).await?;
        let version = version(env).await?;
        let input = json!({"deploymentId": id}).to_string();
        let name = format!("{id}-{}", number + 2);
        let ended = env.start_by_hand(&name, &input).await?;
        let shown: String = text.chars().take(200).collect();
        assert_eq!(ended.ending(), "Refused", "{shown}: {}", ended.cause);
        assert_eq!(ended.error, "Refused", "{shown}");
        let source = format!("(/pulse/test/settings, version {version}): ");
        let begins = format!("InvalidSettingsError: {id}: invalid settings {source}");
        assert!(ended.cause.starts_with(&begins), "{shown}: {}", ended.cause);
        for words in words {
            assert!(ended.cause.contains(words), "{shown}: {}", ended.cause);
        }
        // A plain message, without JSON around it or a stack trace after it.
        assert!(
            ended.cause.len() < 1000 && !ended.cause.contains(['\n', '\\']),
            "{shown}: {}",
            ended.cause
        );
    }
    assert_eq!(env.changes_since(before), Vec::<String>::new());
    assert_eq!(env.active().await?, active);
    assert_eq!(env.remaining(&id).await?, Vec::<String>::new());
    env.aws(&["ssm", "delete-parameter", "--name", NAME])
        .await?;
    Ok(())
}

/// Documents, and what the refusal of each says.
fn wrong_documents() -> Vec<(String, Vec<&'static str>)> {
    let no_json = "{\n  \"cpu\": 512,\n  \"memory\" 1024\n}".to_owned();
    let mut documents = vec![(no_json, vec!["cannot be read as JSON", "line 3 column 12"])];
    let rows: [(Value, &[&str]); 24] = [
        (json!([{"cpu": 512}]), &["must be a JSON object"]),
        (Value::Null, &["must be a JSON object"]),
        (
            json!({"desired": 2}),
            &["unknown field `desired`", "`desiredCount`"],
        ),
        (
            json!({"health": {"grace": 1}}),
            &["field `health.grace`: unknown field", "`graceSeconds`"],
        ),
        (
            json!({"desiredCount": "two"}),
            &["field `desiredCount`: ", "\"two\"", "a whole number"],
        ),
        (
            json!({"environment": {"PORTS": 8000}}),
            &["field `environment.PORTS`: ", "expected a string"],
        ),
        (
            json!({"desiredCount": 1001}),
            &["field `desiredCount`: is 1001", "between 1 and 1000"],
        ),
        (
            json!({"cpu": 1024, "memory": 1024}),
            &["field `memory`: ", "1024 MiB with cpu 1024", "2048, 3072"],
        ),
        (
            json!({"environment": {"KEY": "a"}, "secrets": {"KEY": "/pulse/test/KEY"}}),
            &["field `secrets.KEY`: is also in `environment`"],
        ),
        (
            json!({"environment": {"DRAIN_SECRET": "a"}}),
            &["field `environment.DRAIN_SECRET`: is set by the deployment"],
        ),
        (
            json!({"secrets": {"KEY": "arn:aws:s3:::bucket/key"}}),
            &["field `secrets.KEY`: must be the name of a parameter"],
        ),
        (
            json!({"base": "no-such-family"}),
            &[
                "field `base`: ",
                "the family no-such-family has no active task definition",
            ],
        ),
        (
            json!({"base": "restarts"}),
            &[
                "field `base`: ",
                "task-definition/restarts:1: ",
                "`restartPolicy`",
            ],
        ),
        (
            json!({"base": "privileged"}),
            &[
                "field `base`: ",
                "task-definition/privileged:1: ",
                "`privileged`",
            ],
        ),
        (
            json!({"base": "test-app"}),
            &["field `base`: test-app is a family of the deployments themselves"],
        ),
        (
            json!({"release": {"command": ["migrate"], "timeoutSeconds": 0}}),
            &["field `release.timeoutSeconds`: is 0", "between 1 and 3600"],
        ),
        (
            json!({"release": {"timeoutSeconds": 60}}),
            &["field `release.command`: is needed"],
        ),
        (
            json!({"desiredCount": 4, "scaling": {"max": 3, "cpuPercent": 60}}),
            &["field `scaling.max`: is 3", "`desiredCount`"],
        ),
        (
            json!({"scaling": {"max": 3}}),
            &["field `scaling`: needs `cpuPercent` or"],
        ),
        (
            json!({"stickiness": 604_801}),
            &["field `stickiness`: is 604801", "between 1 and 604800"],
        ),
        (
            json!({"health": {"path": "up"}}),
            &["field `health.path`: is `up`", "begin with `/`"],
        ),
        (
            json!({"health": {"graceSeconds": 7201}}),
            &["field `health.graceSeconds`: is 7201", "between 0 and 7200"],
        ),
        (
            json!({"health": {"timeoutSeconds": 59}}),
            &[
                "field `health.timeoutSeconds`: is 59",
                "between 60 and 3600",
            ],
        ),
        (
            json!({"command": []}),
            &["field `command`: must not be empty"],
        ),
    ];
    documents.extend(rows.map(|(document, words)| (document.to_string(), words.to_vec())));
    documents
}

/// The version of the settings that the next deployment reads.
async fn version(env: &TestEnvironment) -> Result<String> {
    let mut get = vec!["ssm", "get-parameter", "--name", NAME];
    get.extend(["--query", "Parameter.Version", "--output", "text"]);
    Ok(env.aws(&get).await?.trim_end().to_owned())
}

/// Stores the settings.
pub async fn put(env: &TestEnvironment, settings: &str) -> Result<()> {
    let mut put = vec!["ssm", "put-parameter", "--name", NAME, "--type", "String"];
    put.extend(["--overwrite", "--value", settings]);
    env.aws(&put).await.map(drop)
}
