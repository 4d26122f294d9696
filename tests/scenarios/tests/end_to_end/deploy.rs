//! From a push to live.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result};
use aws_sdk_elasticloadbalancingv2::types::{
    Action, ActionTypeEnum, ForwardActionConfig, TargetGroupTuple,
};
use scenarios::machines::Task;
use scenarios::traces::drain_secret;
use scenarios::visitors::Pin;
use scenarios::{TestEnvironment, Traffic, Visitor};
use serde_json::{Value, json};

use crate::input::wrong_input_is_refused_and_its_field_is_named;
use crate::settings::{
    every_wrong_document_is_refused_and_makes_nothing, the_next_deployment_runs_with_the_settings,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_goes_live_by_its_push_or_by_an_execution_started_with_its_id() -> Result<()> {
    let env = TestEnvironment::deploy_for_cleanups_by_hand().await?;
    wrong_input_is_refused_and_its_field_is_named(&env).await?;
    let visitor = Visitor::of(&env)?;

    // Before the first deployment every request fails, and is counted as failed.
    let traffic = Traffic::start(&env, 50, vec![Pin::None])?;
    let nothing = visitor.visit(&Pin::None).await.unwrap_err();
    assert!(format!("{nothing:#}").contains("503"), "{nothing:#}");
    let (tally, _) = traffic.stop().await?;
    assert!(tally.sent > 0);
    assert_eq!((tally.answers(), tally.failed.len()), (0, tally.sent));

    // By its push.
    let pushed = env.deploy_live(&[]).await?;
    assert_eq!(pushed.output["outcome"], "live");
    assert_eq!(pushed.output["previousDeploymentId"], Value::Null);
    let answer = visitor.visit(&Pin::None).await?;
    assert_eq!(answer.deployment, pushed.name);
    assert_eq!(answer.cookie.as_ref(), Some(&pushed.name));

    // ECS refuses a service whose target group is not attached to a load balancer.
    let attached = pushed.left("CreateListenerRule");
    let attached = attached.context("the rules were never created")?;
    let created = pushed.entered("CreateService");
    let created = created.context("the service was never created")?;
    assert!(attached < created, "{:?}", pushed.path());
    let calls = env.cloud.calls().all();
    let last_rule = calls.iter().rposition(|c| c.operation == "CreateRule");
    let service = calls.iter().position(|c| c.operation == "CreateService");
    assert!(last_rule.is_some() && last_rule < service);

    // With the AWS CLI, when the push event was lost.
    let id = env.new_id();
    env.push_without_event(&id, &[]).await?;
    let started = start_by_cli(&env, &id, &json!({"deploymentId": id})).await?;
    assert_eq!(started, env.execution_arn(&id));
    let execution = env.wait_for_deployment(&id).await?;
    assert_eq!(execution.ending(), "Succeeded", "{}", execution.cause);
    assert_eq!(execution.output["previousDeploymentId"], pushed.name);
    assert_eq!(env.active().await?, Some(id.clone()));
    env.reaches_visitors(&id).await?;

    // The execution entered the same states in the same order, apart from repeated polls.
    assert_eq!(
        without_repeats(&execution.path()),
        without_repeats(&pushed.path())
    );

    // A deployment that is already live changes nothing.
    let before = env.cloud.calls().newest();
    let again = env
        .start_by_hand("again", &json!({"deploymentId": id}).to_string())
        .await?;
    assert_eq!(again.ending(), "Succeeded", "{}", again.cause);
    let larger = json!({"deploymentId": id, "desiredCount": 3}).to_string();
    let refused = env.start_by_hand(&format!("{id}-2"), &larger).await?;
    assert_eq!(refused.ending(), "Refused", "{}", refused.cause);
    assert!(
        refused.cause.contains("`desiredCount` is 2"),
        "{}",
        refused.cause
    );
    assert_eq!(env.changes_since(before), Vec::<String>::new());

    a_deployment_with_weight_0_is_switched_to(&env, &pushed.name, &id).await?;

    // Sizes and variables can be given by hand.
    let id = env.new_id();
    env.push_without_event(&id, &[]).await?;
    let input = json!({"deploymentId": id, "desiredCount": 1, "cpu": 512, "memory": 1024, "environment": {"SESSION_IDLE_SECONDS": "5"}});
    let by_hand = env.start_by_hand("by-hand", &input.to_string()).await?;
    assert_eq!(by_hand.ending(), "Succeeded", "{}", by_hand.cause);
    let service = env.service(&id).await?;
    assert_eq!((service.desired_count(), service.running_count()), (1, 1));
    let definition = env
        .ecs
        .describe_task_definition()
        .task_definition(service.task_definition().unwrap_or_default())
        .send()
        .await?;
    let definition = definition.task_definition().context("no task definition")?;
    assert_eq!(
        (definition.cpu(), definition.memory()),
        (Some("512"), Some("1024"))
    );
    env.reaches_visitors(&id).await?;

    replaced_tasks_know_a_rotated_secret(&env, &id).await?;
    the_next_deployment_runs_with_the_settings(&env).await?;
    every_wrong_document_is_refused_and_makes_nothing(&env).await?;
    env.tear_down().await;
    Ok(())
}

/// The default action, set by hand, gives the old deployment all the traffic and the newest none. The
/// newest is not active then, and starting its deployment again must switch.
async fn a_deployment_with_weight_0_is_switched_to(
    env: &TestEnvironment,
    old: &str,
    newest: &str,
) -> Result<()> {
    let mut config = ForwardActionConfig::builder();
    for (id, weight) in [(old, 100), (newest, 0)] {
        let group = TargetGroupTuple::builder().target_group_arn(env.target_group(id).await?);
        config = config.target_groups(group.weight(weight).build());
    }
    let forward = Action::builder().r#type(ActionTypeEnum::Forward);
    env.elb
        .modify_listener()
        .listener_arn(env.listener_arn().await?)
        .default_actions(forward.forward_config(config.build()).build())
        .send()
        .await?;
    env.reaches_visitors(old).await?;
    let before = env.cloud.calls().newest();
    let input = json!({"deploymentId": newest}).to_string();
    let again = env.start_by_hand("weight-0", &input).await?;
    assert_eq!(again.ending(), "Succeeded", "{}", again.cause);
    assert_eq!(again.output["previousDeploymentId"], old);
    let changes = env.changes_since(before);
    assert!(
        changes.contains(&"ModifyListener".to_owned()),
        "{changes:?}"
    );
    let actions = format!("{:?}", env.default_actions().await?);
    assert!(
        actions.contains(newest) && !actions.contains(old),
        "{actions}"
    );
    env.reaches_visitors(newest).await
}

/// An operator rotates the drain secret, and replaces the tasks that know the old one.
async fn replaced_tasks_know_a_rotated_secret(env: &TestEnvironment, id: &str) -> Result<()> {
    const ROTATED: &str = "a secret that is as long as a generated one is";
    let before = env.tasks_running(id, 1).await?;
    let old = drain_secret(env).await?;
    let pins = vec![Pin::None, Pin::Cookie(id.to_owned())];
    let traffic = Traffic::start(env, 50, pins.clone())?;
    let secret = format!("{}/drain-secret", env.name);
    let mut rotate = vec!["secretsmanager", "put-secret-value", "--secret-id", &secret];
    rotate.extend(["--secret-string", ROTATED]);
    env.aws(&rotate).await?;
    let mut replace = vec!["ecs", "update-service", "--cluster", &env.name];
    replace.extend(["--service", id, "--force-new-deployment"]);
    env.aws(&replace).await?;
    env.wait_until(Duration::from_secs(120), async || {
        let tasks = env.tasks(id).await?;
        Ok(tasks.len() == 1 && tasks != before)
    })
    .await
    .context("the task is not replaced")?;
    traffic.next_phase();
    traffic.each_is_answered(20).await?;
    let (tally, _) = traffic.stop().await?;
    assert_eq!(tally.failed, Vec::<String>::new());
    for pin in &pins {
        assert_eq!(tally.answered_by(pin, 0, 1), BTreeSet::from([id]));
    }
    let [fresh] = &env.tasks(id).await?[..] else {
        anyhow::bail!("not one task runs");
    };
    assert_eq!(answer_to(fresh, &old).await?, 403);
    assert_eq!(answer_to(fresh, ROTATED).await?, 409);
    Ok(())
}

/// The status with which a task answers a request to drain that names another deployment, and so is never carried out.
async fn answer_to(task: &Task, secret: &str) -> Result<u16> {
    let client = reqwest::Client::builder().tls_certs_only([]).build()?;
    let request = client
        .post(format!("http://{}:8000/drain", task.address))
        .header("X-Pulse-Deployment", "test-20250101-000000Z")
        .bearer_auth(secret);
    Ok(request.send().await?.status().as_u16())
}

/// Starts an execution of the deploy machine as operators do in a terminal; returns its ARN.
async fn start_by_cli(env: &TestEnvironment, name: &str, input: &Value) -> Result<String> {
    let (machine, input) = (env.machine("deploy"), input.to_string());
    let mut start = vec!["stepfunctions", "start-execution", "--output", "text"];
    start.extend(["--query", "executionArn", "--name", name]);
    start.extend(["--state-machine-arn", &machine, "--input", &input]);
    Ok(env.aws(&start).await?.trim().to_owned())
}

/// The states of the path in the order in which they were first entered.
fn without_repeats<'a>(path: &[&'a str]) -> Vec<&'a str> {
    let mut seen = Vec::new();
    for state in path {
        if !seen.contains(state) {
            seen.push(*state);
        }
    }
    seen
}
