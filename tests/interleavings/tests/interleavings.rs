//! Checks the shipped functions in every order of their calls.

use std::time::Instant;

use interleavings::call::{DRAINING, Deployment, EVICTED, LIVE, READY, ROLLED_BACK};
use interleavings::explore::explore;
use interleavings::scenario::{Death, Plan, Scenario};
use interleavings::world::{Group, World};
use serde_json::Value;

/// Deployment 0 is active, the others are candidates.
fn candidates(number: usize) -> World {
    let mut groups = vec![Group::with(READY | LIVE)];
    groups.resize(number + 1, Group::with(0));
    World::new(Some(0), groups)
}

fn deploy(deployments: &[Deployment]) -> Vec<Plan> {
    deployments.iter().copied().map(Plan::Deploy).collect()
}

fn holds(scenario: &Scenario) {
    let began = Instant::now();
    match explore(scenario, None) {
        Ok(explored) => {
            println!(
                "{}: {} states, {} steps, {:.1e} orders, {} ends, {} without an excuse; the code at {} points, {} calls; \
                 {:.1} s",
                scenario.name,
                explored.states,
                explored.steps,
                explored.schedules,
                explored.ends,
                explored.checked,
                explored.points,
                explored.calls,
                began.elapsed().as_secs_f64(),
            );
            assert!(explored.checked > 0, "{}: all is excused", scenario.name);
        }
        Err(what) => panic!("{what}"),
    }
}

#[test]
fn two_deployments_switch_in_every_order() {
    holds(&Scenario::new("two", candidates(2), &deploy(&[1, 2])));
}

#[test]
fn the_very_first_two_deployments_switch_in_every_order() {
    let world = World::new(None, vec![Group::with(0); 2]);
    holds(&Scenario::new("first two", world, &deploy(&[0, 1])));
}

#[test]
fn three_deployments_switch_in_every_order_with_few_preemptions() {
    let plans = [Plan::Switch(1), Plan::Switch(2), Plan::Switch(3)];
    holds(&Scenario::new("three", candidates(3), &plans).with_preemptions(4));
}

#[test]
fn a_switch_may_die_after_any_call_and_run_again() {
    for execution in [0, 1] {
        let two = Scenario::new("two, one dies twice", candidates(2), &deploy(&[1, 2]));
        holds(&two.dying(execution, Death::Retried(2)));
    }
}

#[test]
fn a_switch_that_dies_and_is_given_up_leaves_an_active_deployment_with_healthy_targets() {
    for death in [Death::GivenUp, Death::Stopped] {
        for execution in [0, 1] {
            let two = Scenario::new("two, one dies", candidates(2), &deploy(&[1, 2]));
            holds(&two.dying(execution, death));
        }
    }
}

#[test]
fn a_candidate_that_is_ready_is_undone_while_others_switch() {
    let mut world = candidates(3);
    world.groups[2] = Group::with(READY);
    let plans = [Plan::Deploy(1), Plan::Undo(2)];
    holds(&Scenario::new("switch, undo", world.clone(), &plans));
    let plans = [Plan::Switch(1), Plan::Undo(2), Plan::Switch(3)];
    holds(&Scenario::new("switch, undo, switch", world, &plans).with_preemptions(3));
}

#[test]
fn a_deployment_is_deleted_while_it_is_rolled_back_to() {
    let warm = Group::with(READY | LIVE);
    for (plan, previous) in [
        (Plan::CleanUp(0), warm.asked()),
        (Plan::Expire(0), warm.asked()),
        (Plan::DeleteByHand(0), warm),
    ] {
        let plans = [plan, Plan::RollBack(0)];
        holds(&Scenario::new(
            "delete, roll back",
            replaced(previous),
            &plans,
        ));
    }
}

#[test]
fn a_deployment_is_deleted_while_a_rollback_replaces_it() {
    for plan in [Plan::DeleteByHand(1), Plan::Expire(1)] {
        let mut world = replaced(Group::with(READY | LIVE));
        if matches!(plan, Plan::Expire(_)) {
            // A switch overtook the drain, and the mark was not removed yet.
            world.groups[1].marks |= DRAINING;
        }
        let plans = [plan, Plan::RollBack(0)];
        holds(&Scenario::new(
            "delete the active, roll back",
            world,
            &plans,
        ));
    }
}

/// A field that is new in the machine belongs in `interleavings::learned` as well.
#[test]
fn a_rollback_is_explored_with_all_that_the_machine_sends() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../statemachine/rollback.asl.json"
    );
    let machine = std::fs::read(path).expect("the machine");
    let machine: Value = serde_json::from_slice(&machine).expect("JSON");
    let payload = |state: &str| {
        let fields = machine["States"][state]["Arguments"]["Payload"].as_object();
        let mut names: Vec<_> = fields.into_iter().flat_map(|it| it.keys()).collect();
        names.sort();
        names
    };
    let switch = [
        "deploymentId",
        "replaced",
        "replacedDeploymentId",
        "restoringSince",
        "rollBack",
        "targetGroupArn",
        "wasRolledBack",
    ];
    // The rollbacks here name no deployment to take back. With one, a switch only stops earlier.
    let mut to_switch = [&switch[..], &["from"]].concat();
    to_switch.sort_unstable();
    assert_eq!(payload("SwitchTraffic"), to_switch);
    let mut take_back = [&switch[..], &["marked", "takeBack"]].concat();
    take_back.sort_unstable();
    assert_eq!(payload("TakeMarksBack"), take_back);
    let merged = &machine["States"]["StartFreshTasks"]["Assign"]["target"];
    let merged = merged.as_str().unwrap_or_default();
    let kept: Vec<_> = merged.split('\'').skip(1).step_by(2).collect();
    assert_eq!(
        kept,
        ["replaced", "replacedDeploymentId", "wasRolledBack", "evict"]
    );
}

#[test]
fn a_rollback_goes_to_a_deployment_without_rules_while_others_switch() {
    let mut world = replaced(Group::with(READY | LIVE).unrouted());
    world.groups.push(Group::with(0));
    let plans = [Plan::RollBack(0), Plan::Deploy(2)];
    holds(&Scenario::new("no rules, switch", world.clone(), &plans));
    world.groups[0] = Group::with(READY | LIVE).asked().unrouted();
    let plans = [Plan::RollBack(0), Plan::CleanUp(0)];
    holds(&Scenario::new("no rules, delete", world, &plans));
}

#[test]
fn a_rollback_and_switches_at_the_same_time() {
    let mut world = candidates(3);
    world.groups[1] = Group::with(READY | LIVE);
    world.default = Some(1);
    let plans = [Plan::RollBack(0), Plan::Deploy(2)];
    holds(&Scenario::new("roll back, switch", world, &plans));
}

#[test]
fn two_rollbacks_at_the_same_time() {
    let world = World::new(Some(2), vec![Group::with(READY | LIVE); 3]);
    for plans in [[0, 0], [0, 1]] {
        let plans = plans.map(Plan::RollBack);
        let two = Scenario::new("two rollbacks", world.clone(), &plans);
        holds(&two.with_preemptions(4));
    }
}

#[test]
fn a_rollback_may_die_after_any_call_and_run_again() {
    let mut world = candidates(2);
    world.groups[1] = Group::with(READY | LIVE);
    world.default = Some(1);
    for execution in [0, 1] {
        let plans = [Plan::RollBack(0), Plan::Deploy(2)];
        let both = Scenario::new("roll back, switch, one dies", world.clone(), &plans);
        let both = both.dying(execution, Death::Retried(1));
        holds(&both.with_preemptions(3));
    }
}

#[test]
fn a_change_may_fail_in_every_order() {
    let two = Scenario::new("two, a failure", candidates(2), &deploy(&[1, 2]));
    holds(&two.failing(1));
    let mut world = candidates(2);
    world.groups[1] = Group::with(READY | LIVE);
    world.default = Some(1);
    let plans = [Plan::RollBack(0), Plan::Deploy(2)];
    let both = Scenario::new("roll back, switch, a failure", world, &plans);
    holds(&both.failing(1).with_preemptions(2));
}

#[test]
fn a_change_may_be_made_twice_and_may_land_late() {
    let two = Scenario::new("two, a late change", candidates(2), &deploy(&[1, 2]));
    holds(&two.losing(1));
    let warm = Group::with(READY | LIVE);
    for (name, plans, previous) in [
        ("late, drain", [Plan::RollBack(0), Plan::Drain(0)], warm),
        (
            "late, draining",
            [Plan::RollBack(0), Plan::Drain(0)],
            warm.asked(),
        ),
        (
            "late, delete",
            [Plan::RollBack(0), Plan::CleanUp(0)],
            warm.asked(),
        ),
        (
            "late, expire",
            [Plan::RollBack(0), Plan::Expire(0)],
            warm.asked(),
        ),
    ] {
        holds(&Scenario::new(name, replaced(previous), &plans).losing(1));
    }
    let mut world = candidates(2);
    world.groups[2] = Group::with(READY);
    let plans = [Plan::Deploy(1), Plan::Undo(2)];
    holds(&Scenario::new("late, undo", world, &plans).losing(1));
}

#[test]
fn an_operator_splits_the_traffic_at_any_moment() {
    let warm = Group::with(READY | LIVE);
    let mut world = replaced(warm);
    world.groups.push(Group::with(0));
    for (name, plans) in [
        ("split, switch", [Plan::Split(0), Plan::Deploy(2)]),
        ("split, drain", [Plan::Split(0), Plan::Drain(0)]),
        ("split, delete", [Plan::Split(0), Plan::DeleteByHand(0)]),
        ("split, roll back", [Plan::Split(0), Plan::RollBack(0)]),
    ] {
        holds(&Scenario::new(name, world.clone(), &plans));
    }
}

#[test]
fn a_newer_one_without_a_healthy_target_is_passed_over_in_every_order() {
    let mut world = candidates(3);
    world.groups[3] = Group::with(READY).unhealthy();
    let plans = deploy(&[1, 2]);
    holds(&Scenario::new("two and an unhealthy one", world, &plans));
}

/// Deployment 0 is active again, because 1 was taken back.
fn taken_back() -> World {
    let live = Group::with(READY | LIVE);
    World::new(Some(0), vec![live, Group::with(READY | LIVE | ROLLED_BACK)])
}

#[test]
fn a_rollback_goes_to_a_deployment_that_was_taken_back() {
    let mut world = taken_back();
    let back = Plan::RollBack(1);
    let drain = Scenario::new("again, drain", world.clone(), &[back, Plan::Drain(1)]);
    holds(&drain);
    holds(&drain.clone().failing(1));
    holds(&drain.losing(1));
    let plans = [back, Plan::Forget(1), Plan::Drain(1)];
    holds(&Scenario::new("again, redrive", world.clone(), &plans));
    for plan in [Plan::RollBack(0), back] {
        let two = Scenario::new("again, roll back", world.clone(), &[back, plan]);
        holds(&two.with_preemptions(4));
    }
    world.groups.push(Group::with(0));
    let both = Scenario::new("again, switch", world, &[back, Plan::Deploy(2)]);
    holds(&both);
    for execution in [0, 1] {
        let both = both.clone().dying(execution, Death::Retried(1));
        holds(&both.with_preemptions(3));
    }
    holds(&both.failing(1).with_preemptions(2));
}

/// Deployment 1 is active, and 0 was live before it.
fn replaced(previous: Group) -> World {
    World::new(Some(1), vec![previous, Group::with(READY | LIVE)])
}

/// Deployment 1 is active, and a rollback to 0 takes it back and its visitors along.
fn evicting(name: &'static str, other: &[Plan]) -> Scenario {
    let mut world = replaced(Group::with(READY | LIVE));
    world.groups.push(Group::with(0));
    let plans = [&[Plan::Evict(0)], other].concat();
    Scenario::new(name, world, &plans)
}

#[test]
fn visitors_go_along_whatever_else_runs() {
    for (name, other) in [
        ("evict", None),
        ("evict, switch", Some(Plan::Deploy(2))),
        ("evict, roll back", Some(Plan::RollBack(1))),
        ("evict, evict", Some(Plan::Evict(1))),
        ("evict, the same again", Some(Plan::Evict(0))),
        ("evict, drain", Some(Plan::Drain(1))),
        ("evict, delete", Some(Plan::DeleteByHand(1))),
        ("evict, expire", Some(Plan::Expire(1))),
    ] {
        let other: Vec<_> = other.into_iter().collect();
        holds(&evicting(name, &other).with_preemptions(3));
    }
    // All orders of what comes after its switch.
    for (name, other) in [
        ("take along, roll back", Plan::RollBack(1)),
        ("take along, evict", Plan::Evict(1)),
        ("take along, switch", Plan::Deploy(2)),
        ("take along, the same again", Plan::TakeAlong(0)),
        ("take along, the rollback again", Plan::Evict(0)),
    ] {
        holds(&taking_along(name, &[other]));
    }
}

/// A rollback to 0 has taken back 1, and takes its visitors along.
fn taking_along(name: &'static str, others: &[Plan]) -> Scenario {
    let mut world = taken_back();
    world.groups.push(Group::with(0));
    let plans = [&[Plan::TakeAlong(0)], others].concat();
    Scenario::new(name, world, &plans)
}

#[test]
fn visitors_go_along_while_two_others_run() {
    let others = [Plan::RollBack(1), Plan::Deploy(2)];
    holds(&taking_along("take along, roll back, switch", &others).with_preemptions(2));
}

#[test]
fn an_eviction_may_die_and_its_changes_may_fail_or_land_late() {
    let back = taking_along("take along, roll back, a fault", &[Plan::RollBack(1)]);
    for death in [Death::Retried(1), Death::Stopped] {
        for execution in [0, 1] {
            holds(&back.clone().dying(execution, death).with_preemptions(4));
        }
    }
    holds(&back.clone().failing(1).with_preemptions(3));
    holds(&back.losing(1).with_preemptions(3));
}

#[test]
fn a_rollback_goes_to_a_deployment_whose_visitors_went_along() {
    let mut world = taken_back();
    world.groups[1].marks |= EVICTED;
    world.groups[1].rules = 0;
    world.groups.push(Group::with(0));
    for (name, other) in [
        ("evicted, switch", Plan::Deploy(2)),
        ("evicted, evict", Plan::Evict(0)),
        ("evicted, delete", Plan::DeleteByHand(1)),
    ] {
        let plans = [Plan::RollBack(1), other];
        holds(&Scenario::new(name, world.clone(), &plans).with_preemptions(3));
    }
}

#[test]
fn a_deployment_is_drained_while_it_is_rolled_back_to() {
    let warm = Group::with(READY | LIVE);
    for (name, previous) in [("warm", warm), ("draining", warm.asked())] {
        let plans = [Plan::RollBack(0), Plan::Drain(0)];
        let both = Scenario::new(name, replaced(previous), &plans);
        holds(&both);
        for execution in [0, 1] {
            holds(&both.clone().dying(execution, Death::Retried(1)));
        }
        holds(&both.failing(1));
    }
}

#[test]
fn a_rollback_is_redriven_after_its_mark_has_aged_and_its_fresh_tasks_were_drained() {
    let warm = Group::with(READY | LIVE);
    for (name, previous) in [("redrive, warm", warm), ("redrive", warm.asked())] {
        let plans = [Plan::RollBack(0), Plan::Forget(0), Plan::Drain(0)];
        holds(&Scenario::new(name, replaced(previous), &plans));
    }
}

#[test]
fn two_sweeps_drain_a_deployment_while_it_is_rolled_back_to() {
    let plans = [Plan::RollBack(0), Plan::Drain(0), Plan::Drain(0)];
    let world = replaced(Group::with(READY | LIVE));
    holds(&Scenario::new("two sweeps", world, &plans).with_preemptions(4));
}

#[test]
fn a_deployment_that_never_switched_is_drained_while_it_is_started_again() {
    // It was tagged as live, and the modification of the listener failed.
    let world = World::new(Some(0), vec![Group::with(READY | LIVE); 2]);
    let plans = [Plan::Switch(1), Plan::Drain(1)];
    let again = Scenario::new("drain, switch again", world, &plans);
    holds(&again);
    holds(&again.clone().failing(1));
    for execution in [0, 1] {
        holds(&again.clone().dying(execution, Death::Retried(1)));
    }
}

#[test]
fn a_draining_one_is_not_switched_to_by_another_deployment() {
    let live = Group::with(READY | LIVE);
    let world = World::new(Some(0), vec![live, Group::with(0), live]);
    let plans = [Plan::Switch(1), Plan::Drain(2)];
    holds(&Scenario::new("drain a newer one, switch", world, &plans));
}
