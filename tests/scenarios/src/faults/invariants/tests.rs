use super::*;
use crate::faults::plan::{Injection, Point};

/// A deployment with this fault at one of its calls.
fn failing(fault: Fault) -> Case {
    let point = Point {
        function: "create-service".into(),
        service: "ecs".into(),
        operation: "CreateService".into(),
        nth: 1,
    };
    Case {
        workflow: Workflow::Deploy,
        injections: vec![Injection::Call(point, fault)],
    }
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
    let mut tally = Tally::default();
    for deployment in [&base, &id] {
        tally.answered.insert((Pin::None, deployment.clone()), 10);
    }
    let pinned = (Pin::Cookie(base.clone()), base.clone());
    tally.answered.insert(pinned, 10);
    let cookie = Pin::Cookie(base.clone());
    Observation {
        case: failing(Fault::Throttled),
        was_hit: true,
        allowed: vec![
            (Pin::None, vec![base.clone(), id.clone()]),
            (cookie, vec![base.clone()]),
        ],
        watched: Watched {
            checks: 100,
            wrong: Vec::new(),
        },
        tally,
        first: live.clone(),
        due: Vec::new(),
        again: live,
        foreign: ("a rule".into(), "a rule".into()),
        left: Vec::new(),
        before: base,
        after: id,
    }
}

/// The invariants that do not hold after a change to a run in which everything held.
fn found(change: impl FnOnce(&mut Observation)) -> Vec<Invariant> {
    let mut observation = sound();
    change(&mut observation);
    let violations = observation.violations();
    let mut caught: Vec<_> = violations.iter().map(|found| found.invariant).collect();
    caught.dedup();
    caught
}

#[test]
fn a_run_in_which_everything_held_violates_nothing() {
    assert_eq!(found(|_| {}), []);
    let failed = |run: &mut Observation| {
        run.case = failing(Fault::AccessDenied);
        run.first.ending = "Failed".into();
        run.first.active = Some(run.before.clone());
    };
    assert_eq!(found(failed), []);
}

#[test]
fn a_default_action_without_a_healthy_target_is_detected() {
    let caught = [Invariant::Routed];
    assert_eq!(found(|run| run.watched.wrong.push("x".into())), caught);
    assert_eq!(found(|run| run.watched.checks = 0), caught);
}

#[test]
fn a_failed_request_and_a_visitor_who_lost_their_version_are_detected() {
    let caught = [Invariant::Unnoticed];
    assert_eq!(found(|run| run.tally.failed.push("503".into())), caught);
    assert_eq!(found(|run| run.tally.answered.clear()), caught);
    let moved = |run: &mut Observation| {
        let moved = (Pin::Cookie(run.before.clone()), run.after.clone());
        run.tally.answered.insert(moved, 1);
    };
    assert_eq!(found(moved), caught);
    let stranger = |run: &mut Observation| {
        run.tally.answered.insert((Pin::None, "other".into()), 1);
    };
    assert_eq!(found(stranger), caught);
}

#[test]
fn an_ending_that_is_not_true_is_detected() {
    let caught = [Invariant::Ended];
    assert_eq!(found(|run| run.first.ending.clear()), caught);
    assert_eq!(
        found(|run| run.first.active = Some(run.before.clone())),
        caught
    );
    // A transient fault fails no deployment.
    let gave_up = |run: &mut Observation| {
        run.first.ending = "Failed".into();
        run.first.active = Some(run.before.clone());
    };
    assert_eq!(found(gave_up), caught);
    let denied = |run: &mut Observation| {
        gave_up(run);
        run.case = failing(Fault::AccessDenied);
    };
    let littered = |run: &mut Observation| {
        denied(run);
        run.first.left.push("target group".into());
    };
    assert_eq!(found(littered), caught);
    let switched_yet_failed = |run: &mut Observation| {
        denied(run);
        run.first.active = Some(run.after.clone());
    };
    assert_eq!(found(switched_yet_failed), caught);
    // An undo without a permission may leave resources, but may not move traffic.
    let undo_denied = |run: &mut Observation| {
        littered(run);
        run.case.workflow = Workflow::Undo;
        run.first.ending = "UndoFailed".into();
        run.first.switching = false;
    };
    assert_eq!(found(undo_denied), []);
    let undone_and_live = |run: &mut Observation| {
        undo_denied(run);
        run.first.active = Some(run.after.clone());
    };
    assert_eq!(found(undone_and_live), caught);
    let stuck_before_the_switch = |run: &mut Observation| {
        denied(run);
        run.first.ending = "UndoFailed".into();
        run.first.switching = false;
    };
    assert_eq!(found(stuck_before_the_switch), caught);
}

#[test]
fn a_change_to_a_foreign_resource_is_detected() {
    let caught = [Invariant::Foreign];
    assert_eq!(found(|run| run.foreign.1.clear()), caught);
    assert_eq!(found(|run| run.foreign = Default::default()), caught);
}

#[test]
fn a_second_run_that_does_not_succeed_is_detected() {
    let caught = [Invariant::Converged];
    assert_eq!(found(|run| run.again.ending = "Failed".into()), caught);
    assert_eq!(
        found(|run| run.again.active = Some(run.before.clone())),
        caught
    );
    assert_eq!(found(|run| run.left.push("rule 100".into())), caught);
}

#[test]
fn what_a_cleanup_leaves_to_do_is_detected() {
    let caught = [Invariant::Converged];
    assert_eq!(found(|run| run.due.push("delete x".into())), caught);
    let cleanup = |run: &mut Observation| {
        run.case.workflow = Workflow::Cleanup;
        run.after = run.before.clone();
        for end in [&mut run.first, &mut run.again] {
            end.ending = "CleanedUp".into();
            end.active = Some(run.before.clone());
        }
        run.tally.answered.retain(|(_, by), _| *by == run.before);
    };
    assert_eq!(found(cleanup), []);
    let left = |run: &mut Observation| {
        cleanup(run);
        run.first.left.push("service".into());
    };
    assert_eq!(found(left), [Invariant::Ended]);
    let moved = |run: &mut Observation| {
        cleanup(run);
        run.first.active = None;
    };
    assert_eq!(found(moved), [Invariant::Ended]);
}

#[test]
fn an_eviction_that_leaves_visitors_is_detected() {
    let evict = |run: &mut Observation| run.case.workflow = Workflow::Evict;
    assert_eq!(found(evict), []);
    let left = |run: &mut Observation| {
        evict(run);
        run.first.left.push("rule 100".into());
    };
    assert_eq!(found(left), [Invariant::Ended]);
    // The second run may have to do it.
    let denied = |run: &mut Observation| {
        left(run);
        run.case.injections = failing(Fault::AccessDenied).injections;
    };
    assert_eq!(found(denied), []);
    let never = |run: &mut Observation| {
        denied(run);
        run.again.left.push("rule 100".into());
    };
    assert_eq!(found(never), [Invariant::Converged]);
}

#[test]
fn a_rollback_that_does_not_move_traffic_as_its_ending_says_is_detected() {
    let rollback = |run: &mut Observation| run.case.workflow = Workflow::Rollback;
    assert_eq!(found(rollback), []);
    let stayed = |run: &mut Observation| {
        rollback(run);
        run.first.active = Some(run.before.clone());
    };
    assert_eq!(found(stayed), [Invariant::Ended]);
    let gave_up = |run: &mut Observation| {
        stayed(run);
        run.first.ending = "RollbackFailed".into();
    };
    assert_eq!(found(gave_up), [Invariant::Ended]);
    let denied = |run: &mut Observation| {
        gave_up(run);
        run.case.injections = failing(Fault::AccessDenied).injections;
    };
    assert_eq!(found(denied), []);
}
