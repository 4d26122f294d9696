//! Checks that the exploration finds defects. Each one is planted in the shipped code: it does not see something, or
//! does not do something.

use std::rc::Rc;

use interleavings::call::{
    ANNOUNCED, Answer, Call, DELETING, DRAINING, Deployment, EVICTED, LIVE, Marks, READY,
    RESTORING, ROLLED_BACK, Resource, UNSEEN,
};
use interleavings::explore::explore;
use interleavings::learned::{Defect, Deletion, Ending, Invocation, Rollback, Seer};
use interleavings::scenario::{Death, Plan, Scenario};
use interleavings::world::{Group, World};

/// Code of these functions that sees and does everything.
fn correct(of: fn(&Invocation) -> bool) -> Defect {
    Defect {
        of,
        sees: Rc::new(|_, answer, _| answer),
        makes: |call, _| Some(call.clone()),
        ends: |ending, _| ending,
    }
}

/// Code of these functions that makes this call in place of another one, or none.
fn making(of: fn(&Invocation) -> bool, makes: fn(&Call, Seer) -> Option<Call>) -> Defect {
    Defect {
        makes,
        ..correct(of)
    }
}

/// The call, unless it is that one.
fn unless(is_that_one: bool, call: &Call) -> Option<Call> {
    (!is_that_one).then(|| call.clone())
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

fn restore(invocation: &Invocation) -> bool {
    matches!(invocation, Invocation::Restore { .. })
}

fn take_back(invocation: &Invocation) -> bool {
    matches!(invocation, Invocation::TakeBack { .. })
}

fn drain(invocation: &Invocation) -> bool {
    matches!(invocation, Invocation::Drain { .. })
}

fn evict(invocation: &Invocation) -> bool {
    matches!(invocation, Invocation::Evict { .. })
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
            making(switch, |call, _| {
                unless(
                    matches!(call, Call::AddTags(_, marks) if marks & LIVE != 0),
                    call,
                )
            }),
            "not marked as live",
        ),
        (
            "the switch fails if it cannot tidy up",
            Defect {
                ends: |ending, seer| match ending {
                    Ending::Switched | Ending::SwitchedBack(_) if seer.met_a_failure => {
                        Ending::Failed("AccessDeniedError")
                    }
                    ending => ending,
                },
                ..correct(switch)
            },
            "0 is active, but ended as Ended(TakenBack)",
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
            blind(drain, |call, answer, seer| match call {
                // It has looked once, before it wrote its mark.
                _ if seer.wrote & DRAINING == 0 => answer,
                Call::DescribeListeners => Answer::Default(None, None),
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
                // It sees its own mark, and no switch does.
                makes: |call, _| {
                    let hidden = |marks| match marks & DELETING {
                        0 => marks,
                        _ => marks & !DELETING | UNSEEN,
                    };
                    Some(match call {
                        Call::AddTags(it, marks) => Call::AddTags(*it, hidden(*marks)),
                        Call::RemoveTags(it, marks) => Call::RemoveTags(*it, hidden(*marks)),
                        call => call.clone(),
                    })
                },
                ..blind(delete, |call, answer, _| {
                    tags(call, answer, |_, marks| match marks & UNSEEN {
                        0 => marks,
                        _ => marks | DELETING,
                    })
                })
            },
            "switch, undo: 2 is active and lost its rules",
        ),
        (
            "the rollback does not see that its target drains",
            blind(restore, |call, answer, _| {
                tags(call, answer, |_, marks| marks & !DRAINING)
            }),
            "the default action names 0, whose tasks were asked to drain",
        ),
        (
            "an eviction deletes one rule",
            making(evict, |call, _| {
                unless(matches!(call, Call::DeleteRule(_, 1)), call)
            }),
            "1 was evicted, and requests still reach it",
        ),
        (
            "an eviction does not look again before it deletes",
            blind(evict, |call, answer, seer| match call {
                _ if seer.wrote & EVICTED == 0 => answer,
                Call::DescribeListeners => Answer::Default(Some(seer.own), None),
                _ => tags(call, answer, |_, marks| {
                    marks & !(RESTORING | ANNOUNCED) | ROLLED_BACK
                }),
            }),
            "evict, roll back: 1 is active and lost its rules",
        ),
        (
            "an eviction does not read the mark of the rollback again",
            blind(evict, |call, answer, seer| match seer.wrote & EVICTED {
                0 => answer,
                _ => tags(call, answer, |_, marks| marks | ROLLED_BACK),
            }),
            "take along, roll back, switch: 1 was not taken back, and lost its rules",
        ),
        (
            "an eviction deletes rules before its tag is written",
            making(evict, |call, _| {
                unless(
                    matches!(call, Call::AddTags(_, marks) if marks & EVICTED != 0),
                    call,
                )
            }),
            "evict, roll back: 1 is active and lost its rules",
        ),
        (
            "an eviction does not see what is active",
            blind(evict, |call, answer, seer| match call {
                Call::DescribeListeners => Answer::Default(Some(seer.own), None),
                _ => tags(call, answer, |_, marks| marks & !ANNOUNCED | ROLLED_BACK),
            }),
            "1 is active and lost its rules",
        ),
        (
            "an eviction does not see a switch that is in flight",
            blind(evict, |call, answer, _| {
                tags(call, answer, |_, marks| marks & !ANNOUNCED)
            }),
            "lost its rules",
        ),
        (
            "a rollback does not wait for an eviction that may not have seen it",
            blind(restore, |call, answer, _| {
                tags(call, answer, |_, marks| marks & !EVICTED)
            }),
            "evict, roll back: 1 is active and lost its rules",
        ),
        (
            "a failed rollback does not let its target go",
            making(take_back, |call, _| {
                unless(
                    matches!(call, Call::RemoveTags(_, marks) if marks & RESTORING != 0),
                    call,
                )
            }),
            "is kept for a rollback that has ended",
        ),
        (
            "a failed rollback does not mark again what was taken back before",
            making(take_back, |call, seer| {
                unless(
                    matches!(call, Call::AddTags(own, marks) if *own == seer.own && marks & ROLLED_BACK != 0),
                    call,
                )
            }),
            "1 was taken back before, and the rollback to it that failed has not marked it again",
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
            "roll back to what drains",
            replaced(active.asked()),
            &[Plan::RollBack(0)],
        ),
        Scenario::new(
            "roll back, a failure",
            replaced(active),
            &[Plan::RollBack(0)],
        )
        .failing(1),
        Scenario::new(
            "roll back again, a failure",
            world(&[active, Group::with(READY | LIVE | ROLLED_BACK)]),
            &[Plan::RollBack(1)],
        )
        .failing(1),
        Scenario::new(
            "delete, roll back",
            replaced(active),
            &[Plan::RollBack(0), Plan::DeleteByHand(0)],
        ),
        evicting("evict", &[]),
        evicting("evict, roll back", &[Plan::RollBack(1)]).with_preemptions(1),
        evicting("evict, switch", &[Plan::Deploy(2)]).with_preemptions(1),
        Scenario::new(
            "take along, roll back, switch",
            world(&[active, Group::with(READY | LIVE | ROLLED_BACK), new]),
            &[Plan::TakeAlong(0), Plan::RollBack(1), Plan::Deploy(2)],
        )
        .with_preemptions(1),
    ]
}

/// Deployment 1 is active, and a rollback to 0 takes it back and its visitors along.
fn evicting(name: &'static str, other: &[Plan]) -> Scenario {
    let active = Group::with(READY | LIVE);
    let world = World::new(Some(1), vec![active, active, Group::with(0)]);
    let plans = [&[Plan::Evict(0)], other].concat();
    Scenario::new(name, world, &plans)
}

fn undo_during_a_switch() -> Scenario {
    let active = Group::with(READY | LIVE);
    let groups = vec![active, Group::with(0), Group::with(READY)];
    let plans = [Plan::Switch(1), Plan::Undo(2)];
    Scenario::new("switch, undo", World::new(Some(0), groups), &plans)
}

fn found(defect: Option<Defect>) -> Option<String> {
    let concerned = |scenario: &Scenario| match &defect {
        Some(defect) => scenario.plans.iter().any(|plan| invokes(*plan, defect.of)),
        None => true,
    };
    let mut scenarios = scenarios().into_iter().filter(concerned);
    scenarios.find_map(|scenario| explore(&scenario, defect.clone()).err())
}

/// Whether an execution of this plan invokes one of these functions.
fn invokes(plan: Plan, of: fn(&Invocation) -> bool) -> bool {
    let (deployment, deletion) = (0, Deletion::ByHand);
    let rollback = Rollback {
        replaced: 0,
        active: None,
        was_rolled_back: false,
        is_marked: true,
        taken_back: 0,
    };
    let switch = Invocation::Switch {
        deployment,
        rollback: None,
    };
    let invoked = match plan {
        Plan::RollBack(_) | Plan::Evict(_) => vec![
            switch,
            Invocation::Evict {
                deployment,
                taken_back: 1,
            },
            Invocation::Restore {
                deployment,
                is_late: false,
                evicts: true,
            },
            Invocation::TakeBack {
                deployment,
                marked: true,
                rollback,
            },
        ],
        Plan::TakeAlong(_) => vec![Invocation::Evict {
            deployment,
            taken_back: 1,
        }],
        Plan::Drain(_) => vec![Invocation::Drain { deployment }],
        Plan::Undo(_) | Plan::DeleteByHand(_) => vec![Invocation::Delete {
            deployment,
            deletion,
        }],
        _ => vec![switch],
    };
    invoked.iter().any(of)
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
