//! A missing permission is reported by its name where it is needed, and moves no traffic.

use std::time::Duration;

use anyhow::{Context, Result};
use localcloud::Options;
use localcloud::time_scale::TimeScale;
use scenarios::queues::{dead_letters, messages, take};
use scenarios::{Execution, TestEnvironment};
use serde_json::json;

/// Whether the cause names the missing permission.
fn names_permission(execution: &Execution, action: &str) -> bool {
    execution.cause.contains("is not authorized to perform") && execution.cause.contains(action)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_permission_that_a_step_or_machine_lacks_is_named_and_no_traffic_moves() -> Result<()> {
    let env = TestEnvironment::deploy_keeping_no_previous().await?;
    let old = env.deploy_live(&[]).await?.name;
    let live = env.deploy_live(&[]).await?.name;
    let id = env.new_id();
    env.push_without_event(&id, &[]).await?;

    for (number, (role, action, ending)) in [
        ("ValidateDeploymentRole", "ecr:DescribeImages", "Refused"),
        ("RegisterTaskDefinitionRole", "iam:PassRole", "Failed"),
        ("RunReleaseRole", "ecs:RunTask", "Failed"),
        (
            "CreateTargetGroupRole",
            "elasticloadbalancing:AddTags",
            "Failed",
        ),
        (
            "CreateListenerRuleRole",
            "elasticloadbalancing:CreateRule",
            "Failed",
        ),
        ("ChooseCountRole", "ecs:DescribeServices", "Failed"),
        ("CreateServiceRole", "ecs:CreateService", "Failed"),
        (
            "CheckTargetHealthRole",
            "elasticloadbalancing:DescribeTargetHealth",
            "Failed",
        ),
        ("SmokeTestRole", "ecs:ListTasks", "Failed"),
        ("CheckGateRole", "ssm:GetParameter", "Failed"),
        ("DeployStateMachineRole", "sns:Publish", "Failed"),
        ("DeployStateMachineRole", "kms:GenerateDataKey", "Failed"),
        (
            "SwitchTrafficRole",
            "elasticloadbalancing:ModifyListener",
            "Failed",
        ),
        ("DeployStateMachineRole", "lambda:InvokeFunction", "Refused"),
    ]
    .into_iter()
    .enumerate()
    {
        let permission = env.revoke_permission(role, action).await?;
        let name = format!("denied-{number}");
        let mut input = json!({"deploymentId": id});
        if role == "RunReleaseRole" {
            input["release"] = json!({"command": ["release", "0", "0"]});
        }
        if ["sns:Publish", "kms:GenerateDataKey"].contains(&action) {
            input["approve"] = json!({});
        }
        if role == "SmokeTestRole" {
            input["smoke"] = json!([{"path": "/"}]);
        }
        let denied = env.start_by_hand(&name, &input.to_string()).await?;
        permission.restore().await?;
        assert_eq!(denied.ending(), ending, "{role}: {}", denied.cause);
        assert!(
            names_permission(&denied, action),
            "{role}: {}",
            denied.cause
        );
        assert_eq!(env.active().await?.as_ref(), Some(&live), "{role}");
        assert_eq!(env.remaining(&id).await?, Vec::<String>::new(), "{role}");
    }

    for (machine, role, action, ending) in [
        (
            "cleanup",
            "FindDeploymentsRole",
            "ecs:ListServices",
            "CleanupFailed",
        ),
        (
            "cleanup",
            "DrainDeploymentRole",
            "secretsmanager:GetSecretValue",
            "CleanupFailed",
        ),
        (
            "cleanup",
            "CleanupStateMachineRole",
            "lambda:InvokeFunction",
            "CleanupFailed",
        ),
        (
            "rollback",
            "RestoreDeploymentRole",
            "elasticloadbalancing:DescribeRules",
            "RollbackFailed",
        ),
        (
            "rollback",
            "RollbackStateMachineRole",
            "lambda:InvokeFunction",
            "RollbackFailed",
        ),
    ] {
        let permission = env.revoke_permission(role, action).await?;
        let denied = env.run(machine, &json!({})).await?;
        permission.restore().await?;
        assert_eq!(denied.ending(), ending, "{role}: {}", denied.cause);
        assert!(
            names_permission(&denied, action),
            "{role}: {}",
            denied.cause
        );
        assert_eq!(env.active().await?.as_ref(), Some(&live), "{role}");
        assert!(!env.remaining(&old).await?.is_empty(), "{role}");
    }

    env.drains_since_long_ago(&old).await?;
    let action = "ecs:DeleteService";
    let permission = env
        .revoke_permission("DeleteDeploymentRole", action)
        .await?;
    let denied = env.run("cleanup", &json!({})).await?;
    permission.restore().await?;
    assert_eq!(denied.ending(), "CleanupFailed", "{}", denied.cause);
    assert!(names_permission(&denied, action), "{}", denied.cause);
    assert!(!env.remaining(&old).await?.is_empty());
    // With the permission, the next cleanup continues.
    env.clean_up().await?;
    assert_eq!(env.remaining(&old).await?, Vec::<String>::new());

    // An event that cannot be published fails no deployment, and is in the history.
    let permission = env
        .revoke_permission("DeployStateMachineRole", "events:PutEvents")
        .await?;
    let input = json!({"deploymentId": id}).to_string();
    let unpublished = env.start_by_hand("unpublished", &input).await?;
    permission.restore().await?;
    assert_eq!(unpublished.ending(), "Succeeded", "{}", unpublished.cause);
    assert_eq!(env.active().await?, Some(id));
    let failed = unpublished
        .history
        .iter()
        .filter_map(|event| event.task_failed_event_details()?.cause())
        .find(|cause| cause.contains("events:PutEvents"));
    assert!(failed.is_some(), "not in {:?}", unpublished.path());

    // A push that cannot start an execution ends in the dead-letter queue.
    let permission = env
        .revoke_permission("StartDeploymentRole", "states:StartExecution")
        .await?;
    let pushed = env.new_id();
    env.push(&pushed, &[]).await?;
    let queue = dead_letters(&env).await?;
    env.wait_until(Duration::from_secs(120), async || {
        Ok(messages(&env, &queue).await? >= 1)
    })
    .await
    .context("the push that started nothing left no dead letter")?;
    permission.restore().await?;
    let letters = take(&env, &queue).await?;
    assert!(json!(letters).to_string().contains(&pushed), "{letters:?}");
    assert!(!env.executions().await?.contains(&pushed));
    env.tear_down().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schedule_without_permission_leaves_dead_letters_until_it_has_it() -> Result<()> {
    // The five minutes of the schedule are 6 s.
    let options = Options {
        time_scale: TimeScale(0.02),
        ..Options::default()
    };
    let env = TestEnvironment::deploy_with(options).await?;
    let permission = env
        .revoke_permission("CleanupScheduleRole", "states:StartExecution")
        .await?;
    let cleanups = async || {
        let listed = env
            .sfn
            .list_executions()
            .state_machine_arn(env.machine("cleanup"))
            .send();
        anyhow::Ok(listed.await?.executions.len())
    };
    // A cleanup that was on its way before the permission was revoked may still start.
    let queue = dead_letters(&env).await?;
    let dead = async |number| {
        env.wait_until(Duration::from_secs(120), async || {
            Ok(messages(&env, &queue).await? >= number)
        })
        .await
        .context("the schedule left no dead letter")
    };
    dead(1).await?;
    let begun = cleanups().await?;
    dead(3).await?;
    assert_eq!(cleanups().await?, begun);
    for letter in take(&env, &queue).await? {
        let body = letter["Body"].as_str().unwrap_or_default();
        assert!(body.contains("schedule/default/test-cleanup"), "{letter}");
    }

    permission.restore().await?;
    env.wait_until(Duration::from_secs(120), async || {
        Ok(cleanups().await? > begun)
    })
    .await
    .context("the schedule starts nothing although it has the permission again")?;
    env.tear_down().await;
    Ok(())
}
