//! From a push to live.

use anyhow::{Context, Result, ensure};
use aws_sdk_elasticloadbalancingv2::types::{
    Action, ActionTypeEnum, ForwardActionConfig, TargetGroupTuple,
};
use scenarios::visitors::Pin;
use scenarios::{TestEnvironment, Traffic, Visitor};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_goes_live_by_its_push_or_by_an_execution_started_with_its_id() -> Result<()> {
    let env = TestEnvironment::deploy().await?;
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

/// Starts an execution of the deploy machine as operators do in a terminal; returns its ARN.
async fn start_by_cli(env: &TestEnvironment, name: &str, input: &Value) -> Result<String> {
    let output = env
        .cloud
        .command("aws")?
        .args([
            "stepfunctions",
            "start-execution",
            "--output",
            "text",
            "--query",
            "executionArn",
        ])
        .args([
            "--state-machine-arn",
            &env.machine("deploy"),
            "--name",
            name,
        ])
        .args(["--input", &input.to_string()])
        .output()
        .await?;
    ensure!(
        output.status.success(),
        "aws: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
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
