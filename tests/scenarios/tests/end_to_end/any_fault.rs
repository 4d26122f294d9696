//! Calls that fail, functions that are killed and events that arrive twice: a sample of what
//! `make faults` runs, and proof that the fault runs detect violations.

use std::time::Duration;

use anyhow::{Context, Result};
use localcloud::gateway::faults::Fault;
use scenarios::faults::broken_function::{UNCHECKED_SWITCH, break_function, restore_function};
use scenarios::faults::invariants::{Invariant, Observation};
use scenarios::faults::plan::{Case, Injection, NOT_READY, Point, Workflow};
use scenarios::faults::{FaultRunner, Summary};
use scenarios::visitors::{Pin, Visitor};
use serde_json::Value;
use tokio::time::timeout;

use Workflow::{Cleanup, Deploy, Evict, Push, Restore, Rollback, Undo};

const TOO_SLOW: Fault = Fault::Slow {
    milliseconds: 6_000,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_fault_in_a_deployment_disturbs_visitors_and_violations_are_detected() -> Result<()> {
    // Every kind of fault, at the calls that create or change something. Faults of different steps come together.
    let cases = [
        at(
            Deploy,
            [
                (
                    "validate-deployment ecr:DescribeImages #1",
                    Fault::Throttled,
                ),
                (
                    "register-task-definition ecs:RegisterTaskDefinition #1",
                    Fault::AnswerLost,
                ),
                (
                    "create-target-group elasticloadbalancing:CreateTargetGroup #1",
                    Fault::KilledAfterCall,
                ),
                ("create-service ecs:CreateService #1", Fault::InternalError),
                (
                    "check-target-health ecs:DescribeServices #1",
                    Fault::ConnectionReset,
                ),
                ("switch-traffic elasticloadbalancing:AddTags #1", TOO_SLOW),
            ],
        ),
        at(
            Deploy,
            [
                (
                    "create-listener-rule elasticloadbalancing:CreateRule #2",
                    Fault::AnswerLost,
                ),
                (
                    "switch-traffic elasticloadbalancing:ModifyListener #1",
                    Fault::KilledAfterCall,
                ),
            ],
        ),
        at(
            Deploy,
            [(
                "create-listener-rule elasticloadbalancing:DescribeRules #1",
                Fault::StaleRead,
            )],
        ),
        at(
            Deploy,
            [(
                "switch-traffic elasticloadbalancing:ModifyListener #1",
                Fault::AccessDenied,
            )],
        ),
        with(Deploy, [Injection::Panic("create-service".into())]),
        with(
            Deploy,
            NOT_READY
                .into_iter()
                .zip(Deploy.functions())
                .map(|(error, function)| Injection::NotReady((*function).to_owned(), error)),
        ),
        at(
            Undo,
            [
                (
                    "delete-deployment elasticloadbalancing:DeleteTargetGroup #1",
                    Fault::Unavailable,
                ),
                // A lost answer to a deletion once made an undo fail.
                (
                    "delete-deployment elasticloadbalancing:DeleteRule #2",
                    Fault::AnswerLost,
                ),
            ],
        ),
        at(
            Push,
            [(
                "start-deployment states:StartExecution #1",
                Fault::KilledAfterCall,
            )],
        ),
        with(Push, [Injection::EventTwice]),
        with(Push, [Injection::EventNever]),
    ];
    let mut runner = FaultRunner::prepare().await?;
    everything_holds(&mut runner, &cases).await;

    the_deletion_of_a_foreign_rule_is_detected(&mut runner).await?;
    a_machine_that_does_not_undo_is_detected(&mut runner).await?;
    // Last, because the broken switch does not set the tags of a real one.
    a_switch_that_does_not_check_health_is_detected(&mut runner).await?;
    runner.tear_down().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_fault_in_a_cleanup_or_a_rollback_disturbs_visitors() -> Result<()> {
    let cases = [
        at(
            Rollback,
            [(
                "switch-traffic elasticloadbalancing:ModifyListener #1",
                Fault::AnswerLost,
            )],
        ),
        at(
            Evict,
            [
                (
                    "evict-visitors elasticloadbalancing:AddTags #1",
                    Fault::AnswerLost,
                ),
                (
                    "evict-visitors elasticloadbalancing:DeleteRule #1",
                    Fault::KilledAfterCall,
                ),
            ],
        ),
        at(
            Evict,
            [(
                "evict-visitors elasticloadbalancing:DeleteRule #2",
                Fault::AccessDenied,
            )],
        ),
        at(
            Restore,
            [(
                "restore-deployment ecs:UpdateService #1",
                Fault::KilledAfterCall,
            )],
        ),
        // A drain and a deletion run at the same time.
        at(
            Cleanup,
            [
                (
                    "drain-deployment elasticloadbalancing:AddTags #1",
                    Fault::AnswerLost,
                ),
                // The service was once deleted before the load balancer had applied the deletion of the rules.
                (
                    "delete-deployment elasticloadbalancing:DeleteRule #2",
                    Fault::KilledAfterCall,
                ),
            ],
        ),
        at(
            Cleanup,
            [
                (
                    "create-listener-rule elasticloadbalancing:CreateRule #1",
                    Fault::AnswerLost,
                ),
                (
                    "drain-deployment ecs:DescribeTasks #1",
                    Fault::KilledBeforeCall,
                ),
                (
                    "delete-deployment elasticloadbalancing:DeleteTargetGroup #1",
                    Fault::AnswerLost,
                ),
            ],
        ),
        at(
            Cleanup,
            [(
                "delete-deployment ecs:DeleteService #1",
                Fault::AccessDenied,
            )],
        ),
    ];
    let mut runner = FaultRunner::prepare().await?;
    everything_holds(&mut runner, &cases).await;

    a_cleanup_that_does_not_delete_is_detected(&mut runner).await?;
    runner.tear_down().await;
    Ok(())
}

/// Runs the cases. Every fault must hit a call, and every invariant must hold.
async fn everything_holds(runner: &mut FaultRunner, cases: &[Case]) {
    let mut summary = Summary::default();
    for case in cases {
        let observed = runner.run(case).await;
        println!("{}", summary.add(case, observed));
    }
    println!("{summary}");
    assert!(summary.holds(), "{summary}");
    assert_eq!(summary.not_reached, Vec::<String>::new());
}

/// The cleanup machine keeps what it should delete.
async fn a_cleanup_that_does_not_delete_is_detected(runner: &mut FaultRunner) -> Result<()> {
    let keep = (
        r#""Next": "DeleteDeployment""#,
        r#""Next": "StillDeleting""#,
    );
    let original = replace(runner, "cleanup", keep).await?;
    let observation = runner.run(&with(Cleanup, [])).await;
    update_machine(runner, "cleanup", original).await?;
    let caught = caught(&observation?);
    for invariant in [Invariant::Ended, Invariant::Converged] {
        assert!(caught.contains(&invariant), "{invariant:?}: {caught:?}");
    }
    Ok(())
}

/// The test deletes the rule itself, because the roles of the functions do not permit it.
async fn the_deletion_of_a_foreign_rule_is_detected(runner: &mut FaultRunner) -> Result<()> {
    let (elb, rule) = (runner.env.elb.clone(), runner.foreign.rule.clone());
    let delete = async || {
        elb.delete_rule().rule_arn(&rule).send().await?;
        Ok(())
    };
    let observation = runner.run_while(&with(Deploy, []), delete).await?;
    assert_eq!(caught(&observation), [Invariant::Foreign]);
    Ok(())
}

/// The machine takes unreadable health for good health, and the switch does not check it.
async fn a_switch_that_does_not_check_health_is_detected(runner: &mut FaultRunner) -> Result<()> {
    let machine = definition(runner, "deploy").await?;
    let mut broken: Value = serde_json::from_str(&machine)?;
    let unread = broken.pointer_mut("/States/CheckTargetHealth/Catch/0/Next");
    *unread.context("no catch")? = "SwitchTraffic".into();
    update_machine(runner, "deploy", broken.to_string()).await?;
    break_function(&runner.env, "switch-traffic", UNCHECKED_SWITCH).await?;
    let unreadable = (
        "check-target-health elasticloadbalancing:DescribeTargetHealth #1",
        Fault::AccessDenied,
    );
    let visitor = Visitor::of(&runner.env)?;
    // A request must fail before the new tasks are healthy, after the load balancer has switched.
    let request_fails = async || {
        let answered = async || visitor.visit(&Pin::None).await.is_ok();
        let failed = async { while answered().await {} };
        Ok(timeout(Duration::from_secs(60), failed).await?)
    };
    let observation = runner
        .run_while(&at(Deploy, [unreadable]), request_fails)
        .await;
    restore_function(&runner.env, "switch-traffic").await?;
    update_machine(runner, "deploy", machine).await?;
    let caught = caught(&observation?);
    for invariant in [Invariant::Routed, Invariant::Unnoticed] {
        assert!(caught.contains(&invariant), "{invariant:?}: {caught:?}");
    }
    Ok(())
}

/// The deploy machine says that it has undone the deployment, but has not.
async fn a_machine_that_does_not_undo_is_detected(runner: &mut FaultRunner) -> Result<()> {
    let original = definition(runner, "deploy").await?;
    let broken = original
        .replace(r#""Next": "UndoDeployment""#, r#""Next": "ExplainFailure""#)
        .replace(
            r#""Default": "PublishUndoFailed""#,
            r#""Default": "PublishFailed""#,
        );
    assert_ne!(broken, original);
    update_machine(runner, "deploy", broken).await?;
    let denied = ("create-service ecs:CreateService #1", Fault::AccessDenied);
    let observation = runner.run(&at(Deploy, [denied])).await;
    update_machine(runner, "deploy", original).await?;
    let observation = observation?;
    assert_eq!(observation.first.ending, "Failed");
    let caught = caught(&observation);
    assert!(caught.contains(&Invariant::Ended), "{caught:?}");
    Ok(())
}

/// Replaces a part of a machine's definition; returns the original definition.
async fn replace(runner: &FaultRunner, machine: &str, (part, by): (&str, &str)) -> Result<String> {
    let definition = definition(runner, machine).await?;
    let broken = definition.replace(part, by);
    assert_ne!(broken, definition);
    update_machine(runner, machine, broken).await?;
    Ok(definition)
}

async fn definition(runner: &FaultRunner, machine: &str) -> Result<String> {
    let (sfn, arn) = (&runner.env.sfn, runner.env.machine(machine));
    let described = sfn.describe_state_machine().state_machine_arn(arn);
    Ok(described.send().await?.definition)
}

async fn update_machine(runner: &FaultRunner, machine: &str, definition: String) -> Result<()> {
    let (sfn, arn) = (&runner.env.sfn, runner.env.machine(machine));
    let update = sfn.update_state_machine().state_machine_arn(arn);
    update.definition(definition).send().await?;
    Ok(())
}

fn with(workflow: Workflow, injections: impl IntoIterator<Item = Injection>) -> Case {
    let injections = injections.into_iter().collect();
    Case {
        workflow,
        injections,
    }
}

fn at<const N: usize>(workflow: Workflow, calls: [(&str, Fault); N]) -> Case {
    let injections = calls.map(|(call, fault)| Injection::Call(point(call), fault));
    with(workflow, injections)
}

/// The call of that name.
fn point(name: &str) -> Point {
    let parts: Vec<_> = name.split([' ', ':', '#']).collect();
    let [function, service, operation, "", nth] = parts[..] else {
        panic!("{name} is not a call");
    };
    Point {
        function: function.into(),
        service: service.into(),
        operation: operation.into(),
        nth: nth.parse().expect("a number"),
    }
}

fn caught(observation: &Observation) -> Vec<Invariant> {
    let violations = observation.violations();
    violations.iter().map(|found| found.invariant).collect()
}
