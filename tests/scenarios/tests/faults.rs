//! A deployment whose calls fail, one at a time: a sample of what `make faults` runs, and proof that
//! what the sweep looks for would be seen.

use std::time::Duration;

use anyhow::{Context, Result};
use aws_sdk_elasticloadbalancingv2::types::{Action, ActionTypeEnum};
use localcloud::front_door::faults::Fault;
use scenarios::sweep::invariants::{End, Invariant, Observation, Watched};
use scenarios::sweep::plan::{self, Case, Point};
use scenarios::sweep::{Summary, Sweep};
use scenarios::visitors::{Pin, Tally};

/// What fits some minutes on two cores: every kind of fault, at the calls that make or move something.
/// By name, so that a run that looked at the health once more runs the same.
const SAMPLE: [&str; 10] = [
    "ecr:DescribeImages #1 throttled",
    "ecs:RegisterTaskDefinition #1 answer lost",
    "elasticloadbalancing:CreateTargetGroup #1 answer lost",
    "elasticloadbalancing:CreateRule #2 answer lost",
    "elasticloadbalancing:DescribeRules #1 stale read",
    "ecs:CreateService #1 500",
    "ecs:DescribeServices #1 connection reset",
    "elasticloadbalancing:AddTags #1 too slow",
    "elasticloadbalancing:ModifyListener #1 answer lost",
    "elasticloadbalancing:ModifyListener #1 access denied",
];
/// The same for the undo; the answer of a deletion that is lost cost an undo once.
const SAMPLE_OF_UNDO: [&str; 2] = ["DeleteTargetGroup #1 503", "DeleteRule #2 answer lost"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_call_fails_nobody_notices_and_what_breaks_a_promise_is_caught() -> Result<()> {
    let mut sweep = Sweep::prepare().await?;
    let points = sweep.record().await?;
    let mut drawn = named(plan::cases(&points, false), &SAMPLE);
    drawn.extend(named(
        plan::cases(&sweep.record_undo().await?, true),
        &SAMPLE_OF_UNDO,
    ));
    let mut summary = Summary::default();
    for case in drawn {
        let observed = sweep.run(&case).await;
        println!("{}", summary.add(&case, observed));
    }
    println!("{summary}");
    assert!(summary.holds(), "{summary}");

    somebody_who_breaks_traffic_and_foreign_things_is_caught(&mut sweep).await?;
    a_machine_that_does_not_undo_is_caught(&mut sweep).await?;
    sweep.strike().await;
    Ok(())
}

/// The cases of these names, of which each has to be there.
fn named(cases: Vec<Case>, names: &[&str]) -> Vec<Case> {
    let all: Vec<String> = cases.iter().map(Case::to_string).collect();
    for name in names {
        assert!(
            all.iter().any(|case| case.ends_with(name)),
            "no {name} in {all:#?}"
        );
    }
    let mut cases = cases;
    cases.retain(|case| names.iter().any(|name| case.to_string().ends_with(name)));
    cases
}

/// New visitors are sent to a group without targets for a moment, and a rule of somebody else goes.
async fn somebody_who_breaks_traffic_and_foreign_things_is_caught(sweep: &mut Sweep) -> Result<()> {
    let (elb, foreign) = (sweep.stage.elb.clone(), sweep.foreign.clone());
    let listener = sweep.stage.listener_arn().await?;
    let break_things = async || {
        let read = elb.describe_listeners().listener_arns(&listener);
        let read = read.send().await?;
        let before = read.listeners().first().context("no listener")?;
        let nowhere = Action::builder()
            .r#type(ActionTypeEnum::Forward)
            .target_group_arn(&foreign.group)
            .build();
        let modify = || elb.modify_listener().listener_arn(&listener);
        modify().default_actions(nowhere).send().await?;
        // Longer than the load balancer takes to apply a change at the local cloud's pace.
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        modify()
            .set_default_actions(before.default_actions.clone())
            .send()
            .await?;
        elb.delete_rule().rule_arn(&foreign.rule).send().await?;
        Ok(())
    };
    let case = case("ecs", "RegisterTaskDefinition", Fault::Throttled);
    let observation = sweep.run_while(&case, break_things).await?;
    let caught = caught(&observation);
    for invariant in [Invariant::Routed, Invariant::Unnoticed, Invariant::Foreign] {
        assert!(caught.contains(&invariant), "{invariant:?}: {caught:?}");
    }
    Ok(())
}

/// The deploy machine says that it has rolled back without having done so.
async fn a_machine_that_does_not_undo_is_caught(sweep: &mut Sweep) -> Result<()> {
    let sfn = sweep.stage.sfn.clone();
    let machine = sweep.stage.machine("deploy");
    let described = sfn.describe_state_machine().state_machine_arn(&machine);
    let definition = described.send().await?.definition;
    let broken = definition.replace(
        r#""Next": "UndoDeployment""#,
        r#""Next": "PublishRolledBack""#,
    );
    assert_ne!(broken, definition);
    let update = |definition: String| {
        let update = sfn.update_state_machine().state_machine_arn(&machine);
        update.definition(definition).send()
    };
    update(broken).await?;
    let observation = sweep
        .run(&case("ecs", "CreateService", Fault::AccessDenied))
        .await?;
    update(definition).await?;
    let caught = caught(&observation);
    assert_eq!(observation.first.ending, "RolledBack");
    assert!(caught.contains(&Invariant::Ended), "{caught:?}");
    Ok(())
}

fn case(service: &str, operation: &str, fault: Fault) -> Case {
    let point = Point {
        service: service.to_owned(),
        operation: operation.to_owned(),
        nth: 1,
    };
    Case {
        point,
        fault,
        undoing: false,
    }
}

fn caught(observation: &Observation) -> Vec<Invariant> {
    let violations = observation.violations();
    let mut caught: Vec<_> = violations.iter().map(|found| found.invariant).collect();
    caught.dedup();
    caught
}

/// A run in which everything held.
fn sound() -> Observation {
    let base = "test-20261123-100000Z".to_owned();
    let id = "test-20261123-100001Z".to_owned();
    let live = End {
        ending: "Succeeded".into(),
        switching: true,
        active: Some(id.clone()),
        ..End::default()
    };
    let mut met = Tally::default();
    for deployment in [&base, &id] {
        met.answered.insert((Pin::None, deployment.clone()), 10);
    }
    let pinned = (Pin::Cookie(base.clone()), base.clone());
    met.answered.insert(pinned, 10);
    Observation {
        case: Some(case("ecs", "CreateService", Fault::Throttled)),
        befell: true,
        watched: Watched {
            looks: 100,
            unhealthy: Vec::new(),
        },
        met,
        first: live.clone(),
        again: live,
        foreign: ("a rule".into(), "a rule".into()),
        left_of_base: Vec::new(),
        base,
        id,
    }
}

/// What the judge finds in a sound run that was changed in one way.
fn found(change: impl FnOnce(&mut Observation)) -> Vec<Invariant> {
    let mut observation = sound();
    change(&mut observation);
    caught(&observation)
}

#[test]
fn a_run_that_broke_nothing_is_not_blamed() {
    assert_eq!(found(|_| {}), []);
    let rolled_back = |run: &mut Observation| {
        run.case = Some(case("ecs", "CreateService", Fault::AccessDenied));
        run.first.ending = "RolledBack".into();
        run.first.active = Some(run.base.clone());
    };
    assert_eq!(found(rolled_back), []);
}

#[test]
fn a_default_action_that_nobody_healthy_serves_is_caught() {
    let caught = [Invariant::Routed];
    assert_eq!(found(|run| run.watched.unhealthy.push("x".into())), caught);
    assert_eq!(found(|run| run.watched.looks = 0), caught);
}

#[test]
fn a_failed_request_and_a_client_that_lost_its_version_are_caught() {
    let caught = [Invariant::Unnoticed];
    assert_eq!(found(|run| run.met.failed.push("503".into())), caught);
    assert_eq!(found(|run| run.met.answered.clear()), caught);
    let moved = |run: &mut Observation| {
        let moved = (Pin::Cookie(run.base.clone()), run.id.clone());
        run.met.answered.insert(moved, 1);
    };
    assert_eq!(found(moved), caught);
    let stranger = |run: &mut Observation| {
        run.met.answered.insert((Pin::None, "other".into()), 1);
    };
    assert_eq!(found(stranger), caught);
}

#[test]
fn an_ending_that_does_not_keep_what_it_promises_is_caught() {
    let caught = [Invariant::Ended];
    assert_eq!(found(|run| run.first.ending.clear()), caught);
    assert_eq!(
        found(|run| run.first.active = Some(run.base.clone())),
        caught
    );
    // A fault that passes costs nobody a deployment.
    let gave_up = |run: &mut Observation| {
        run.first.ending = "RolledBack".into();
        run.first.active = Some(run.base.clone());
    };
    assert_eq!(found(gave_up), caught);
    let denied = |run: &mut Observation| {
        gave_up(run);
        run.case = Some(case("ecs", "CreateService", Fault::AccessDenied));
    };
    let littered = |run: &mut Observation| {
        denied(run);
        run.first.left.push("target group".into());
    };
    assert_eq!(found(littered), caught);
    let switched_yet_rolled_back = |run: &mut Observation| {
        denied(run);
        run.first.active = Some(run.id.clone());
    };
    assert_eq!(found(switched_yet_rolled_back), caught);
    // An undo that was denied something may leave things, but not move traffic or go live.
    let undo_denied = |run: &mut Observation| {
        littered(run);
        run.case = run.case.take().map(|case| Case {
            undoing: true,
            ..case
        });
        run.first.ending = "RollbackFailed".into();
        run.first.switching = false;
    };
    assert_eq!(found(undo_denied), []);
    let undone_and_live = |run: &mut Observation| {
        undo_denied(run);
        run.first.active = Some(run.id.clone());
    };
    assert_eq!(found(undone_and_live), caught);
    let stuck_before_the_switch = |run: &mut Observation| {
        denied(run);
        run.first.ending = "RollbackFailed".into();
        run.first.switching = false;
    };
    assert_eq!(found(stuck_before_the_switch), caught);
}

#[test]
fn a_change_to_what_is_not_ours_is_caught() {
    let caught = [Invariant::Foreign];
    assert_eq!(found(|run| run.foreign.1.clear()), caught);
    assert_eq!(found(|run| run.foreign = Default::default()), caught);
}

#[test]
fn a_second_run_that_does_not_get_there_is_caught() {
    let caught = [Invariant::Converged];
    assert_eq!(found(|run| run.again.ending = "RolledBack".into()), caught);
    assert_eq!(
        found(|run| run.again.active = Some(run.base.clone())),
        caught
    );
    assert_eq!(
        found(|run| run.left_of_base.push("rule 100".into())),
        caught
    );
}

#[test]
fn the_same_seed_draws_the_same_cases_and_another_seed_others() {
    let points: Vec<_> = (1..=5)
        .flat_map(|nth| {
            ["DescribeRules", "CreateRule"].map(|operation| Point {
                service: "elasticloadbalancing".into(),
                operation: operation.into(),
                nth,
            })
        })
        .collect();
    let cases = plan::cases(&points, false);
    // Eight kinds for a call that reads, no stale answer for one that writes.
    assert_eq!(cases.len(), 5 * 8 + 5 * 7);
    let drawn = plan::sample(cases.clone(), 7, 10);
    assert_eq!(drawn, plan::sample(cases.clone(), 7, 10));
    let mut recorded_otherwise = cases.clone();
    recorded_otherwise.reverse();
    assert_eq!(drawn, plan::sample(recorded_otherwise, 7, 10));
    assert_ne!(drawn, plan::sample(cases.clone(), 8, 10));
    assert_eq!(
        plan::sample(cases.clone(), 7, usize::MAX).len(),
        cases.len()
    );
}
