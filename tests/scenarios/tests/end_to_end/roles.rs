//! A right that a role lacks is noticed by who needs it, and told by its name; traffic stays where it
//! is.

use std::time::Duration;

use anyhow::{Context, Result};
use localcloud::Options;
use localcloud::pace::Pace;
use scenarios::machines::BY_HAND;
use scenarios::queues::{dead_letters, messages, take};
use scenarios::{Execution, Stage};
use serde_json::json;

/// Whether the execution says which right was missed.
fn names_right(execution: &Execution, action: &str) -> bool {
    execution.cause.contains("is not authorized to perform") && execution.cause.contains(action)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_right_that_a_step_or_machine_lacks_is_named_and_no_traffic_moves() -> Result<()> {
    let parameters = format!("{BY_HAND} KeepPrevious=0");
    let variables = [("PIPELINE_PARAMETERS", parameters.as_str())];
    let stage = Stage::set_as(Options::default(), &variables).await?;
    let old = stage.deploy_live(&[]).await?.name;
    let live = stage.deploy_live(&[]).await?.name;
    let id = stage.new_id();
    stage.push_unnoticed(&id, &[]).await?;

    for (number, (role, action, ending)) in [
        ("ValidateDeploymentRole", "ecr:DescribeImages", "Refused"),
        ("RegisterTaskDefinitionRole", "iam:PassRole", "RolledBack"),
        (
            "CreateTargetGroupRole",
            "elasticloadbalancing:AddTags",
            "RolledBack",
        ),
        (
            "CreateListenerRuleRole",
            "elasticloadbalancing:CreateRule",
            "RolledBack",
        ),
        ("CreateServiceRole", "ecs:CreateService", "RolledBack"),
        (
            "CheckTargetHealthRole",
            "elasticloadbalancing:DescribeTargetHealth",
            "RolledBack",
        ),
        (
            "SwitchTrafficRole",
            "elasticloadbalancing:ModifyListener",
            "RolledBack",
        ),
        ("DeployStateMachineRole", "lambda:InvokeFunction", "Refused"),
    ]
    .into_iter()
    .enumerate()
    {
        let right = stage.take_right(role, action).await?;
        let name = format!("denied-{number}");
        let input = json!({"deploymentId": id}).to_string();
        let denied = stage.start_by_hand(&name, &input).await?;
        right.give_back().await?;
        println!("{role}: {} {}", denied.ending(), denied.cause);
        assert_eq!(denied.ending(), ending, "{role}: {}", denied.cause);
        assert!(names_right(&denied, action), "{role}: {}", denied.cause);
        assert_eq!(stage.active().await?.as_ref(), Some(&live), "{role}");
        assert_eq!(stage.leftovers(&id).await?, Vec::<String>::new(), "{role}");
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
        let right = stage.take_right(role, action).await?;
        let denied = stage.run(machine, &json!({})).await?;
        right.give_back().await?;
        println!("{role}: {} {}", denied.ending(), denied.cause);
        assert_eq!(denied.ending(), ending, "{role}: {}", denied.cause);
        assert!(names_right(&denied, action), "{role}: {}", denied.cause);
        assert_eq!(stage.active().await?.as_ref(), Some(&live), "{role}");
        assert!(!stage.leftovers(&old).await?.is_empty(), "{role}");
    }

    stage
        .mark(&old, "pulse:draining-since", "2026-01-01T00:00:00Z")
        .await?;
    let action = "ecs:DeleteService";
    let right = stage.take_right("DeleteDeploymentRole", action).await?;
    let denied = stage.run("cleanup", &json!({})).await?;
    right.give_back().await?;
    assert_eq!(denied.ending(), "CleanupFailed", "{}", denied.cause);
    assert!(names_right(&denied, action), "{}", denied.cause);
    assert!(!stage.leftovers(&old).await?.is_empty());
    // With the right it goes on where it stopped.
    stage.clean_up().await?;
    assert_eq!(stage.leftovers(&old).await?, Vec::<String>::new());

    // What cannot be published fails no deployment, and is in its history.
    let right = stage
        .take_right("DeployStateMachineRole", "events:PutEvents")
        .await?;
    let input = json!({"deploymentId": id}).to_string();
    let untold = stage.start_by_hand("untold", &input).await?;
    right.give_back().await?;
    assert_eq!(untold.ending(), "Succeeded", "{}", untold.cause);
    assert_eq!(stage.active().await?, Some(id));
    let failed = untold
        .history
        .iter()
        .filter_map(|event| event.task_failed_event_details()?.cause())
        .find(|cause| cause.contains("events:PutEvents"));
    assert!(failed.is_some(), "no event says so: {:?}", untold.path());

    // Who cannot start an execution leaves the push in the dead-letter queue.
    let right = stage
        .take_right("StartDeploymentRole", "states:StartExecution")
        .await?;
    let unheard = stage.new_id();
    stage.push(&unheard, &[]).await?;
    let queue = dead_letters(&stage).await?;
    stage
        .within(Duration::from_secs(120), async || {
            Ok(messages(&stage, &queue).await? >= 1)
        })
        .await
        .context("the push that started nothing left no dead letter")?;
    right.give_back().await?;
    let letters = take(&stage, &queue).await?;
    assert!(json!(letters).to_string().contains(&unheard), "{letters:?}");
    assert!(!stage.executions().await?.contains(&unheard));
    stage.strike().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schedule_without_the_right_to_start_leaves_dead_letters_until_it_has_it() -> Result<()> {
    // Five minutes are 6 s then.
    let options = Options {
        pace: Pace(0.02),
        ..Options::default()
    };
    let stage = Stage::set_with(options).await?;
    let right = stage
        .take_right("CleanupScheduleRole", "states:StartExecution")
        .await?;
    let cleanups = async || {
        let listed = stage
            .sfn
            .list_executions()
            .state_machine_arn(stage.machine("cleanup"))
            .send();
        anyhow::Ok(listed.await?.executions.len())
    };
    // One that was on its way when the right was taken may still begin.
    let queue = dead_letters(&stage).await?;
    let dead = async |number| {
        stage
            .within(Duration::from_secs(120), async || {
                Ok(messages(&stage, &queue).await? >= number)
            })
            .await
            .context("the schedule left no dead letter")
    };
    dead(1).await?;
    let begun = cleanups().await?;
    dead(3).await?;
    assert_eq!(cleanups().await?, begun);
    for letter in take(&stage, &queue).await? {
        let body = letter["Body"].as_str().unwrap_or_default();
        assert!(body.contains("schedule/default/test-cleanup"), "{letter}");
    }

    right.give_back().await?;
    stage
        .within(Duration::from_secs(120), async || {
            Ok(cleanups().await? > begun)
        })
        .await
        .context("the schedule starts nothing although it may again")?;
    stage.strike().await;
    Ok(())
}
