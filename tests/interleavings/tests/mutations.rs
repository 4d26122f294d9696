//! Checks that the exploration finds defects. Each one is planted in the shipped code: it does not see something, or
//! does not do something.

use std::rc::Rc;

use interleavings::call::{
    ANNOUNCED, Answer, Call, DELETING, DRAINING, Deployment, LIVE, Marks, READY, RESTORING,
    ROLLED_BACK, Resource,
};
use interleavings::explore::explore;
use interleavings::learned::{Defect, Invocation, Seer};
use interleavings::scenario::{Death, Plan, Scenario};
use interleavings::world::{Group, World};

/// Code of these functions that sees and does everything.
fn correct(of: fn(&Invocation) -> bool) -> Defect {
    Defect {
        of,
        sees: Rc::new(|_, answer, _| answer),
        omits: |_| false,
    }
}

/// Code of these functions that sees this of an answer.
fn blind(
    of: fn(&Invocation) -> bool,
    sees: impl Fn(&Call, Answer, Seer) -> Answer + 'static,
) -> Defect {
    Defect {
        sees: Rc::new(sees),
        ..correct(of)
    }
}

/// A switch that does not see these marks.
fn unseen(unseen: Marks) -> Defect {
    blind(switch, move |call, answer, _| {
        tags(call, answer, |_, marks| marks & !unseen)
    })
}

fn switch(invocation: &Invocation) -> bool {
    matches!(invocation, Invocation::Switch { .. })
}

fn delete(invocation: &Invocation) -> bool {
    matches!(invocation, Invocation::Delete { .. })
}

fn drain(invocation: &Invocation) -> bool {
    matches!(invocation, Invocation::Drain { .. })
}

/// The tags as seen through `change`.
fn tags(call: &Call, answer: Answer, change: impl Fn(Deployment, Marks) -> Marks) -> Answer {
    match (call, answer) {
        (Call::DescribeTags(resources), Answer::Marks(marks)) => {
            let seen = resources
                .iter()
                .zip(marks)
                .map(|(resource, marks)| match resource {
                    Resource::Group(deployment) => change(*deployment, marks),
                    Resource::Rule(..) => marks,
                });
            Answer::Marks(seen.collect())
        }
        (_, answer) => answer,
    }
}

/// Every defect, with what it breaks first.
fn defects() -> Vec<(&'static str, Defect, &'static str)> {
    vec![
        (
            "the switch does not read back what it did",
            blind(switch, |call, answer, seer| match (call, seer.switched) {
                (Call::DescribeListeners, Some(own)) => Answer::Default(Some(own), None),
                (_, Some(own)) => tags(call, answer, |it, marks| match it == own {
                    true => marks,
                    false => marks & !READY,
                }),
                _ => answer,
            }),
            "two: the end is Some(1), the newest ready one Some(2)",
        ),
        (
            "the switch does not mark what goes live",
            Defect {
                omits: |call| matches!(call, Call::AddTags(_, marks) if marks & LIVE != 0),
                ..correct(switch)
            },
            "not marked as live",
        ),
        (
            "the switch takes everything for ready",
            blind(switch, |call, answer, _| {
                tags(call, answer, |_, marks| marks | READY)
            }),
            "announces 2, which was not ready",
        ),
        (
            "the switch does not see what was rolled back",
            unseen(ROLLED_BACK),
            "one and a rolled back one: the end is Some(2)",
        ),
        (
            "the switch does not see what is being deleted",
            unseen(DELETING),
            "is active and lost its rules",
        ),
        (
            "the switch does not see what drains",
            unseen(DRAINING),
            "whose tasks were asked to drain",
        ),
        (
            "the switch takes everything for healthy",
            blind(switch, |_, answer, _| match answer {
                Answer::Healthy(_) => Answer::Healthy(true),
                answer => answer,
            }),
            "which has no healthy target",
        ),
        (
            "the switch sees no other deployment",
            blind(switch, |call, answer, seer| {
                tags(call, answer, |it, marks| {
                    if it == seer.own {
                        marks
                    } else {
                        marks & !READY
                    }
                })
            }),
            "two: the end is Some(1), the newest ready one Some(2)",
        ),
        (
            "the drain does not look again before it asks",
            blind(drain, |call, answer, _| match (call, &answer) {
                (Call::DescribeListeners, Answer::Default(..)) => Answer::Default(None, None),
                _ => tags(call, answer, |_, marks| marks & !(RESTORING | ANNOUNCED)),
            }),
            "whose tasks were asked to drain",
        ),
        (
            "the deletion does not look at the listener",
            blind(delete, |call, answer, _| match call {
                Call::DescribeListeners => Answer::Default(None, None),
                _ => answer,
            }),
            "is active and lost its rules",
        ),
        (
            "the deletion does not say that it begins",
            Defect {
                omits: |call| matches!(call, Call::AddTags(_, marks) if marks & DELETING != 0),
                ..correct(delete)
            },
            "switch, undo: an execution never ends",
        ),
    ]
}

/// Small scenarios, of which each defect breaks one.
fn scenarios() -> Vec<Scenario> {
    let active = Group::with(READY | LIVE);
    let world = |groups: &[Group]| World::new(Some(0), groups.to_vec());
    let (new, ready) = (Group::with(0), Group::with(READY));
    let switch = [Plan::Switch(1), Plan::Switch(2)];
    let replaced = |previous: Group| World::new(Some(1), vec![previous, active]);
    vec![
        Scenario::new("two", world(&[active, new, new]), &switch),
        Scenario::new("two, one dies", world(&[active, new, new]), &switch)
            .dying(0, Death::Retried(1)),
        Scenario::new(
            "one and a new one",
            world(&[active, new, new]),
            &[Plan::Switch(1)],
        ),
        Scenario::new(
            "one and a rolled back one",
            world(&[active, new, Group::with(READY | ROLLED_BACK)]),
            &[Plan::Switch(1)],
        ),
        Scenario::new(
            "one and an unhealthy one",
            world(&[active, new, ready.unhealthy()]),
            &[Plan::Switch(1)],
        ),
        Scenario::new(
            "one and a draining one",
            world(&[active, new, active.asked()]),
            &[Plan::Switch(1)],
        ),
        undo_during_a_switch(),
        Scenario::new(
            "drain, roll back",
            replaced(active),
            &[Plan::RollBack(0), Plan::Drain(0)],
        ),
        Scenario::new(
            "delete, roll back",
            replaced(active),
            &[Plan::RollBack(0), Plan::DeleteByHand(0)],
        ),
    ]
}

fn undo_during_a_switch() -> Scenario {
    let active = Group::with(READY | LIVE);
    let groups = vec![active, Group::with(0), Group::with(READY)];
    let plans = [Plan::Switch(1), Plan::Undo(2)];
    Scenario::new("switch, undo", World::new(Some(0), groups), &plans)
}

fn found(defect: Option<Defect>) -> Option<String> {
    let mut scenarios = scenarios().into_iter();
    scenarios.find_map(|scenario| explore(&scenario, defect.clone()).err())
}

#[test]
fn the_shipped_code_holds_in_these_scenarios() {
    assert_eq!(found(None), None);
}

#[test]
fn every_defect_is_found() {
    let mut wrong = Vec::new();
    for (what, defect, broken) in defects() {
        let report = found(Some(defect)).unwrap_or_default();
        let first = report.lines().next().unwrap_or_default();
        if !first.contains(broken) {
            wrong.push(format!("{what}: `{first}` instead of `{broken}`"));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn an_undo_that_does_not_wait_for_switches_in_flight_is_found() {
    let mut hasty = undo_during_a_switch();
    hasty.undo_waits = false;
    let what = explore(&hasty, None).expect_err("a defect");
    assert!(what.contains("is active and lost its rules"), "{what}");
}
