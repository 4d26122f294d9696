use super::*;
use crate::executions::Executions;
use crate::facts::{Service, Targets};
use lifecycle::defaults;
use lifecycle::tags::{
    DELETING_SINCE, DOWN_SINCE, DRAINING_SINCE, EVICTED_AT, IDLE_SINCE, LIVE_SINCE, PROTECTED,
    PROVEN_AT, READY_AT, REPLACED_AT, RESTORING_SINCE, ROLLED_BACK_AT, UNHEALTHY_SINCE,
    WATCH_UNTIL,
};
use time::macros::utc_datetime;

const NOW: UtcDateTime = utc_datetime!(2025-10-27 12:00:00);
const HOUR: i64 = 3600;

pub(super) fn id(day: u8) -> DeploymentId {
    format!("test-202510{day:02}-080000Z").parse().unwrap()
}

pub(super) fn arn(id: &DeploymentId) -> String {
    format!("arn:aws:elasticloadbalancing:us-east-1:1:targetgroup/{id}/abc")
}

fn ago(seconds: i64) -> String {
    tags::timestamp(NOW - Duration::seconds(seconds))
}

/// A complete deployment of that day in October with these marks and their ages in seconds.
fn deployment(day: u8, marks: &[(&str, i64)]) -> Deployment {
    let id = id(day);
    let tags = tags::for_deployment(&id)
        .map(|(key, value)| (key.to_owned(), value))
        .into_iter()
        .chain(
            marks
                .iter()
                .map(|(mark, age)| (mark.to_string(), ago(*age))),
        )
        .collect();
    Deployment {
        target_group: TargetGroup::Ours {
            arn: arn(&id),
            tags,
            in_use: true,
        },
        id,
        service: Some(SERVICE),
        has_task_definition: true,
        is_protected: marks.iter().any(|(mark, _)| *mark == PROTECTED),
        made_at: Some(NOW - Duration::HOUR),
        targets: None,
        waits: false,
    }
}

/// A service in order.
pub(super) const SERVICE: Service = Service {
    running: 2,
    wanted: 2,
    has_failed: false,
    keeps_unhealthy: false,
};

/// A deployment that was switched to this many hours ago, with these other marks. The sweep that began to
/// drain it noted as well that it was replaced.
fn live(day: u8, hours: i64, marks: &[(&str, i64)]) -> Deployment {
    let mut all = vec![(READY_AT, hours * HOUR), (LIVE_SINCE, hours * HOUR)];
    all.extend(marks);
    let is_noted = all.iter().any(|(mark, _)| *mark == REPLACED_AT);
    if let Some((_, age)) = marks.iter().find(|(mark, _)| *mark == DRAINING_SINCE)
        && !is_noted
    {
        all.push((REPLACED_AT, *age));
    }
    deployment(day, &all)
}

fn facts(active: Option<u8>, deployments: impl IntoIterator<Item = Deployment>) -> Facts {
    let mut deployments: Vec<_> = deployments.into_iter().collect();
    deployments.sort_by(|a, b| b.id.cmp(&a.id));
    Facts {
        default_action: match active {
            Some(_) => DefaultActionKind::Forward,
            None => DefaultActionKind::NothingDeployed,
        },
        named: active.map(id).into_iter().collect(),
        moved: false,
        deployments,
        unpinned: Vec::new(),
        executions: Executions::default(),
    }
}

fn policy() -> Policy {
    Policy {
        keep_previous: 1,
        drain_deadline: Duration::DAY,
        settle: Duration::MINUTE,
        remove_everything: false,
    }
}

fn due(plan: &Plan, day: u8) -> (State, Action) {
    let planned = planned(plan, day);
    (planned.state, planned.action)
}

fn planned(plan: &Plan, day: u8) -> &Planned {
    plan.deployments
        .iter()
        .find(|it| it.deployment_id == id(day))
        .unwrap_or_else(|| panic!("{day} is not in {plan:?}"))
}

fn planned_with(facts: &Facts) -> Plan {
    plan(facts, &policy(), NOW)
}

#[test]
fn the_newest_previous_deployment_stays_warm_and_older_ones_are_drained() {
    let plan = planned_with(&facts(
        Some(4),
        [
            live(4, 1, &[]),
            live(3, 2, &[]),
            live(2, 3, &[]),
            live(1, 4, &[]),
        ],
    ));
    assert_eq!(plan.active_deployment_id, Some(id(4)));
    assert_eq!(plan.repair, None);
    assert_eq!(due(&plan, 4), (State::Active, Action::Keep));
    assert_eq!(due(&plan, 3), (State::Previous, Action::Keep));
    assert_eq!(due(&plan, 2), (State::Previous, Action::Drain));
    assert_eq!(due(&plan, 1), (State::Previous, Action::Drain));
    assert_eq!(
        planned(&plan, 1).reason,
        "only the newest previous deployment is kept warm"
    );
    assert_eq!(
        plan.deployments
            .iter()
            .map(|it| it.deployment_id.clone())
            .collect::<Vec<_>>(),
        [id(4), id(3), id(2), id(1)]
    );
}

#[test]
fn while_the_active_one_is_watched_the_newest_that_was_found_well_is_kept_whatever_the_policy() {
    const TRIAL: (&str, i64) = (WATCH_UNTIL, -100);
    let plan = |keep_previous, active: &[(&str, i64)], proven: &[u8]| {
        let policy = Policy {
            keep_previous,
            ..policy()
        };
        let replaced = |day| {
            let proven = proven.contains(&day).then_some((PROVEN_AT, HOUR));
            let marks: Vec<_> = [(REPLACED_AT, HOUR)].into_iter().chain(proven).collect();
            live(day, 90, &marks)
        };
        let facts = facts(
            Some(4),
            [replaced(1), replaced(2), replaced(3), live(4, 1, active)],
        );
        let plan = super::plan(&facts, &policy, NOW);
        let kept = plan
            .deployments
            .iter()
            .filter(|it| it.action == Action::Keep);
        let kept: Vec<_> = kept.map(|it| it.deployment_id.clone()).collect();
        [1, 2, 3].map(|day| kept.contains(&id(day)))
    };
    assert_eq!(plan(1, &[TRIAL], &[1, 2]), [false, true, true]);
    assert_eq!(plan(0, &[TRIAL], &[1]), [true, false, false]);
    // None was judged: the newest is better than none.
    assert_eq!(plan(0, &[TRIAL], &[]), [false, false, true]);
    // Its watch has ended well, or without a verdict.
    assert_eq!(
        plan(1, &[TRIAL, (PROVEN_AT, 1)], &[1, 2]),
        [false, false, true]
    );
    assert_eq!(plan(1, &[(WATCH_UNTIL, 1)], &[1, 2]), [false, false, true]);
    // No watch lasts that long.
    assert_eq!(
        plan(1, &[(WATCH_UNTIL, -9 * HOUR)], &[1, 2]),
        [false, false, true]
    );
}

#[test]
fn as_many_previous_deployments_stay_warm_as_the_operator_wants() {
    let facts = facts(Some(4), (1..=4).map(|day| live(day, 5, &[])));
    for (keep_previous, kept) in [(0, 0), (2, 2), (9, 3)] {
        let policy = Policy {
            keep_previous,
            ..policy()
        };
        let plan = plan(&facts, &policy, NOW);
        let keeps = plan
            .deployments
            .iter()
            .filter(|it| it.state == State::Previous && it.action == Action::Keep)
            .count();
        assert_eq!(keeps, kept, "{plan:?}");
    }
}

#[test]
fn the_active_deployment_is_kept_with_any_tags() {
    let spoilt = live(
        2,
        90,
        &[
            (ROLLED_BACK_AT, HOUR),
            (DRAINING_SINCE, 90 * HOUR),
            (DELETING_SINCE, HOUR),
        ],
    );
    let untagged = Deployment {
        target_group: TargetGroup::NotOurs { arn: arn(&id(2)) },
        ..deployment(2, &[])
    };
    for active in [deployment(2, &[]), spoilt, untagged] {
        let facts = facts(Some(2), [active, live(1, 99, &[])]);
        let plan = planned_with(&facts);
        assert_eq!(due(&plan, 2), (State::Active, Action::Keep));
        assert_eq!(due(&plan, 1), (State::Previous, Action::Keep));
        let everything = Policy {
            remove_everything: true,
            ..policy()
        };
        let plan = super::plan(&facts, &everything, NOW);
        assert_eq!(due(&plan, 2), (State::Active, Action::Keep));
        assert_eq!(due(&plan, 1).1, Action::Delete);
    }
}

#[test]
fn a_deployment_that_gets_a_share_of_the_new_visitors_is_kept() {
    let mut facts = facts(Some(3), [live(3, 1, &[]), live(2, 2, &[]), live(1, 3, &[])]);
    facts.named.push(id(1));
    let plan = planned_with(&facts);
    assert_eq!(plan.active_deployment_id, Some(id(3)));
    assert_eq!(due(&plan, 1), (State::Active, Action::Keep));
    assert_eq!(due(&plan, 2), (State::Previous, Action::Keep));
    // Nor is its rollout started again: that is done for the active one alone.
    let last = facts.deployments.last_mut().unwrap();
    last.service = Some(Service {
        running: 1,
        has_failed: true,
        ..SERVICE
    });
    assert_eq!(due(&planned_with(&facts), 1).1, Action::Keep);
    // It does not take a warm place either.
    facts.named = vec![id(3), id(2)];
    let plan = planned_with(&facts);
    assert_eq!(due(&plan, 2), (State::Active, Action::Keep));
    assert_eq!(due(&plan, 1), (State::Previous, Action::Keep));
}

#[test]
fn a_deletion_is_over_once_traffic_was_switched_to_the_deployment() {
    for (ago, state) in [
        (HOUR - 1, State::Deleting),
        (HOUR, State::Deleting),
        (HOUR + 1, State::Draining),
    ] {
        let marks = [(DRAINING_SINCE, HOUR / 2), (DELETING_SINCE, ago)];
        let plan = planned_with(&facts(Some(2), [live(2, 1, &[]), live(1, 1, &marks)]));
        assert_eq!(due(&plan, 1).0, state, "{ago}");
    }
}

#[test]
fn a_draining_deployment_that_lost_its_live_mark_is_not_a_candidate() {
    let plan = planned_with(&facts(
        Some(2),
        [live(2, 9, &[]), deployment(1, &[(DRAINING_SINCE, HOUR)])],
    ));
    assert_eq!(due(&plan, 1), (State::Draining, Action::Drain));
}

#[test]
fn a_protected_deployment_is_neither_drained_nor_deleted() {
    let facts = facts(
        Some(5),
        [
            live(5, 1, &[]),
            live(4, 2, &[]),
            live(3, 3, &[(PROTECTED, 0)]),
            live(2, 90, &[(PROTECTED, 0), (DRAINING_SINCE, 80 * HOUR)]),
            deployment(1, &[(PROTECTED, 0)]),
        ],
    );
    for remove_everything in [false, true] {
        let policy = Policy {
            remove_everything,
            ..policy()
        };
        let plan = plan(&facts, &policy, NOW);
        for day in [1, 2, 3] {
            assert_eq!(due(&plan, day).1, Action::Keep);
            assert_eq!(
                planned(&plan, day).reason,
                "it carries the tag pulse:protected"
            );
        }
    }
}

#[test]
fn a_candidate_is_swept_once_its_execution_is_gone() {
    let mut facts = facts(
        Some(3),
        [
            live(3, 1, &[]),
            deployment(2, &[(READY_AT, 9)]),
            deployment(1, &[]),
        ],
    );
    facts.executions.running.insert(id(2));
    let plan = planned_with(&facts);
    assert_eq!(due(&plan, 2), (State::Candidate, Action::Keep));
    assert_eq!(due(&plan, 1), (State::Candidate, Action::Delete));
    assert!(!planned(&plan, 1).force);
}

#[test]
fn a_new_candidate_is_kept_until_its_execution_can_be_listed() {
    let mut young = deployment(2, &[]);
    young.made_at = Some(NOW - Duration::seconds(59));
    let mut part = deployment(3, &[]);
    part.target_group = TargetGroup::Absent;
    part.made_at = young.made_at;
    let all = facts(Some(1), [live(1, 1, &[]), young, part]);
    let now = planned_with(&all);
    assert_eq!(due(&now, 2), (State::Candidate, Action::Keep));
    assert_eq!(due(&now, 3), (State::Orphaned, Action::Keep));
    assert_eq!(
        planned(&now, 2).reason,
        "a part of it was created at 2025-10-27T11:59:01Z, and its execution may not be listed yet"
    );
    let later = plan(&all, &policy(), NOW + Duration::SECOND);
    assert_eq!(due(&later, 2), (State::Candidate, Action::Delete));
    assert_eq!(due(&later, 3), (State::Orphaned, Action::Delete));
}

#[test]
fn a_candidate_that_was_rolled_back_before_it_was_live_is_swept_like_any_other() {
    let facts = facts(
        Some(1),
        [
            live(1, 9, &[]),
            deployment(2, &[(READY_AT, 9), (ROLLED_BACK_AT, 5)]),
        ],
    );
    assert_eq!(
        due(&planned_with(&facts), 2),
        (State::Candidate, Action::Delete)
    );
}

#[test]
fn no_candidate_and_no_orphan_is_swept_while_the_deployment_of_an_execution_is_unknown() {
    let orphan = Deployment {
        target_group: TargetGroup::Absent,
        ..deployment(2, &[])
    };
    let mut facts = facts(Some(3), [live(3, 1, &[]), orphan, deployment(1, &[])]);
    facts.executions.unknown.push("by-hand".into());
    let plan = planned_with(&facts);
    assert_eq!(due(&plan, 2), (State::Orphaned, Action::Keep));
    assert_eq!(due(&plan, 1), (State::Candidate, Action::Keep));
    assert!(planned(&plan, 1).reason.contains("by-hand"));
}

#[test]
fn nothing_is_drained_before_the_last_switch_has_settled() {
    let facts = facts(
        Some(3),
        [
            deployment(3, &[(READY_AT, 60), (LIVE_SINCE, 59)]),
            live(2, 2, &[]),
            live(1, 3, &[]),
        ],
    );
    let plan = planned_with(&facts);
    assert_eq!(due(&plan, 1), (State::Previous, Action::Keep));
    assert_eq!(
        planned(&plan, 1).reason,
        "only the newest previous deployment is kept warm; not drained yet: the switch at \
         2025-10-27T11:59:01Z settles until 2025-10-27T12:00:01Z"
    );
    let plan = super::plan(&facts, &policy(), NOW + Duration::SECOND);
    assert_eq!(due(&plan, 1), (State::Previous, Action::Drain));
}

#[test]
fn a_switch_of_the_far_future_does_not_stop_the_draining_of_the_others() {
    let century = -100 * 365 * 24 * HOUR;
    for mark in [READY_AT, LIVE_SINCE, ROLLED_BACK_AT] {
        let by_hand = live(1, 9, &[(DRAINING_SINCE, HOUR), (mark, century)]);
        let others = [live(2, 8, &[]), live(3, 7, &[]), live(4, 6, &[])];
        let plan = planned_with(&facts(Some(4), others.into_iter().chain([by_hand])));
        assert_eq!(due(&plan, 2), (State::Previous, Action::Drain), "{mark}");
    }
}

#[test]
fn a_rolled_back_deployment_is_drained_once_the_rollback_has_settled() {
    let rolled_back = |age| {
        facts(
            Some(1),
            [live(1, 9, &[]), live(2, 2, &[(ROLLED_BACK_AT, age)])],
        )
    };
    let plan = planned_with(&rolled_back(59));
    assert_eq!(due(&plan, 2), (State::RolledBack, Action::Keep));
    let plan = planned_with(&rolled_back(60));
    assert_eq!(due(&plan, 2), (State::RolledBack, Action::Drain));
}

#[test]
fn what_lost_its_visitors_is_deleted_task_by_task_once_the_rollback_has_settled() {
    let evicted = |age, more: &[(&str, i64)]| {
        let marks = [&[(ROLLED_BACK_AT, age), (EVICTED_AT, age)], more].concat();
        planned_with(&facts(Some(1), [live(1, 9, &[]), live(2, 2, &marks)]))
    };
    assert_eq!(due(&evicted(59, &[]), 2), (State::Evicted, Action::Keep));
    let plan = evicted(60, &[]);
    assert_eq!(due(&plan, 2), (State::Evicted, Action::Delete));
    assert!(
        plan.deployments
            .iter()
            .any(|it| it.deployment_id == id(2) && it.force)
    );
    // What its deletion has begun is finished likewise.
    let plan = evicted(HOUR, &[(DELETING_SINCE, 60)]);
    assert_eq!(due(&plan, 2), (State::Evicted, Action::Delete));
    assert!(
        plan.deployments
            .iter()
            .any(|it| it.deployment_id == id(2) && it.force)
    );
    // An operator, and a rollback to it, keep it.
    for mark in [PROTECTED, RESTORING_SINCE] {
        assert_eq!(
            due(&evicted(HOUR, &[(mark, 60)]), 2).1,
            Action::Keep,
            "{mark}"
        );
    }
    // It was made live since, and taken back again without its visitors.
    let again = evicted(HOUR, &[(READY_AT, 600), (REPLACED_AT, 300)]);
    assert_eq!(due(&again, 2), (State::RolledBack, Action::Drain));
}

#[test]
fn a_repeated_switch_has_to_settle_again() {
    let tried_again = |age| {
        let rolled_back = live(2, 2, &[(ROLLED_BACK_AT, HOUR)]);
        facts(Some(1), [live(1, 9, &[(READY_AT, age)]), rolled_back])
    };
    let plan = planned_with(&tried_again(59));
    assert_eq!(due(&plan, 2), (State::RolledBack, Action::Keep));
    let plan = planned_with(&tried_again(60));
    assert_eq!(due(&plan, 2), (State::RolledBack, Action::Drain));
}

#[test]
fn a_rolled_back_deployment_does_not_take_a_warm_place() {
    let plan = planned_with(&facts(
        Some(3),
        [
            live(3, 1, &[]),
            live(2, 2, &[(ROLLED_BACK_AT, HOUR)]),
            live(1, 3, &[]),
        ],
    ));
    assert_eq!(due(&plan, 2), (State::RolledBack, Action::Drain));
    assert_eq!(due(&plan, 1), (State::Previous, Action::Keep));
}

#[test]
fn a_live_deployment_that_is_newer_than_the_active_one_is_kept_until_a_person_decides() {
    let newer = |marks: &[(&str, i64)]| {
        let newer = live(3, 2, marks);
        planned_with(&facts(Some(2), [newer, live(2, 3, &[]), live(1, 4, &[])]))
    };
    // Just after the change, the sweep may have met a switch.
    for noted in [&[][..], &[(REPLACED_AT, 59)]] {
        let plan = newer(noted);
        assert_eq!(due(&plan, 3), (State::Previous, Action::Keep));
        assert_eq!(plan.problems, [""; 0]);
        // It does not take a warm place.
        assert_eq!(due(&plan, 1), (State::Previous, Action::Keep));
    }
    let plan = newer(&[(REPLACED_AT, 60)]);
    assert_eq!(due(&plan, 3), (State::Previous, Action::Keep));
    let problem = format!(
        "{}: it was live, or its switch ended without an answer; it is newer than {}, which is active, and no rollback \
         took it back; start the rollback machine with {} to make it live, or tag its target group with \
         pulse:rolled-back-at to give it up",
        id(3),
        id(2),
        id(3)
    );
    assert_eq!(plan.problems, [problem]);
    // Of several, only the newest is named, when it has settled.
    let all = [
        live(4, 1, &[(REPLACED_AT, 5)]),
        live(3, 2, &[(REPLACED_AT, HOUR)]),
        live(2, 3, &[]),
    ];
    assert_eq!(planned_with(&facts(Some(2), all)).problems, [""; 0]);
    let given_up = newer(&[(REPLACED_AT, HOUR), (ROLLED_BACK_AT, 60)]);
    assert_eq!(due(&given_up, 3), (State::RolledBack, Action::Drain));
    assert_eq!(given_up.problems, [""; 0]);
}

#[test]
fn a_switch_in_flight_to_a_newer_deployment_is_not_a_problem() {
    let policy = Policy {
        settle: Duration::ZERO,
        ..policy()
    };
    let problems = |seconds| {
        let mut newer = live(3, 2, &[]);
        if let TargetGroup::Ours { tags, .. } = &mut newer.target_group {
            tags.insert(LIVE_SINCE.to_owned(), ago(seconds));
        }
        plan(&facts(Some(2), [newer, live(2, 3, &[])]), &policy, NOW).problems
    };
    let in_flight = defaults::SWITCH_IN_FLIGHT.whole_seconds();
    assert_eq!(problems(in_flight - 1), [""; 0]);
    assert_eq!(problems(in_flight).len(), 1);
}

#[test]
fn nothing_is_begun_on_facts_from_before_and_after_a_switch() {
    let mut facts = facts(
        Some(4),
        [
            live(4, 9, &[]),
            live(3, 9, &[]),
            live(2, 9, &[]),
            live(1, 9, &[(DRAINING_SINCE, HOUR)]),
            deployment(5, &[]),
            deployment(6, &[(DELETING_SINCE, HOUR)]),
        ],
    );
    facts.moved = true;
    let plan = planned_with(&facts);
    assert_eq!(due(&plan, 2), (State::Previous, Action::Keep));
    assert_eq!(due(&plan, 5), (State::Candidate, Action::Keep));
    assert_eq!(due(&plan, 1), (State::Draining, Action::Drain));
    assert_eq!(due(&plan, 6), (State::Candidate, Action::Delete));
}

#[test]
fn a_draining_deployment_is_drained_again_until_its_deadline_and_then_forced() {
    let draining = |age| {
        facts(
            Some(2),
            [
                live(2, 1, &[]),
                live(1, 90, &[(DRAINING_SINCE, age), (IDLE_SINCE, 9)]),
            ],
        )
    };
    let plan = planned_with(&draining(24 * HOUR - 1));
    assert_eq!(due(&plan, 1), (State::Draining, Action::Drain));
    assert!(!planned(&plan, 1).force);
    let plan = planned_with(&draining(24 * HOUR));
    assert_eq!(due(&plan, 1), (State::Draining, Action::Delete));
    assert!(planned(&plan, 1).force);
    assert_eq!(
        planned(&plan, 1).reason,
        "its drain deadline was 2025-10-27T12:00:00Z"
    );
}

#[test]
fn the_reason_to_drain_says_when_the_deadline_is_or_why_it_passed_without_a_deletion() {
    for (hours, words) in [
        (1, "and at 2025-10-28T11:00:00Z at the latest"),
        (25, "is over, but it is not deleted yet: the default action"),
    ] {
        let draining = live(1, 30, &[(DRAINING_SINCE, hours * HOUR)]);
        let mut facts = facts(Some(2), [live(2, 29, &[]), draining]);
        facts.moved = true;
        let plan = planned_with(&facts);
        assert_eq!(due(&plan, 1), (State::Draining, Action::Drain));
        let reason = &planned(&plan, 1).reason;
        assert!(reason.contains(words), "{reason}");
    }
}

#[test]
fn the_deadline_counts_from_the_start_of_draining_not_of_being_live() {
    let plan = planned_with(&facts(
        Some(2),
        [live(2, 1, &[]), live(1, 900, &[(DRAINING_SINCE, 10)])],
    ));
    assert_eq!(due(&plan, 1), (State::Draining, Action::Drain));
}

#[test]
fn a_start_of_draining_that_is_not_a_time_never_forces() {
    let mut facts = facts(Some(2), [live(2, 1, &[]), live(1, 900, &[])]);
    if let TargetGroup::Ours { tags, .. } = &mut facts.deployments[1].target_group {
        tags.insert(DRAINING_SINCE.into(), "long ago".into());
    }
    let plan = planned_with(&facts);
    assert_eq!(due(&plan, 1), (State::Draining, Action::Drain));
    assert!(planned(&plan, 1).reason.contains("long ago"));
}

#[test]
fn a_deletion_that_has_begun_is_finished() {
    let mut facts = facts(
        Some(5),
        [
            live(5, 1, &[]),
            live(4, 9, &[(DRAINING_SINCE, HOUR), (DELETING_SINCE, 9)]),
            live(3, 90, &[(DRAINING_SINCE, 80 * HOUR), (DELETING_SINCE, 9)]),
            live(2, 90, &[(DELETING_SINCE, 9)]),
            deployment(1, &[(DELETING_SINCE, 9)]),
        ],
    );
    let plan = planned_with(&facts);
    // A visitor may have come back to its tasks while nobody looked.
    assert_eq!(due(&plan, 4), (State::Deleting, Action::Drain));
    assert_eq!(due(&plan, 3), (State::Deleting, Action::Delete));
    assert_eq!(due(&plan, 2), (State::Previous, Action::Delete));
    assert_eq!(due(&plan, 1), (State::Candidate, Action::Delete));
    let forced = [1, 2, 3, 4].map(|day| planned(&plan, day).force);
    assert_eq!(forced, [false, false, true, false]);

    facts.deployments[1].service = Some(Service {
        running: 0,
        ..SERVICE
    });
    let plan = planned_with(&facts);
    assert_eq!(due(&plan, 4), (State::Deleting, Action::Delete));

    facts.executions.running.extend([id(1), id(2), id(4)]);
    let plan = planned_with(&facts);
    for day in [1, 2, 4] {
        assert_eq!(due(&plan, day).1, Action::Keep);
    }
}

#[test]
fn a_deployment_that_a_rollback_brings_back_is_left_alone_as_long_as_the_rollback_may_run() {
    let most = defaults::RESTORE_TIME.whole_seconds();
    let restoring = |age, others: &[(&str, i64)]| {
        let mut marks = vec![(RESTORING_SINCE, age)];
        marks.extend(others);
        let facts = facts(
            Some(3),
            [live(3, 90, &[]), live(2, 90, &[]), live(1, 90, &marks)],
        );
        due(&planned_with(&facts), 1)
    };
    let draining = [(DRAINING_SINCE, 80 * HOUR)];
    let deleting = [(DELETING_SINCE, HOUR)];
    assert_eq!(restoring(most - 1, &[]), (State::Previous, Action::Keep));
    assert_eq!(
        restoring(most - 1, &draining),
        (State::Draining, Action::Keep)
    );
    assert_eq!(
        restoring(most - 1, &deleting),
        (State::Previous, Action::Keep)
    );
    assert_eq!(restoring(most, &[]), (State::Previous, Action::Drain));
    assert_eq!(
        restoring(most, &draining),
        (State::Draining, Action::Delete)
    );
    assert_eq!(
        restoring(most, &deleting),
        (State::Previous, Action::Delete)
    );
}

#[test]
fn resources_without_a_target_group_are_deleted_when_no_execution_works_on_them() {
    let orphan = |day, has_service: bool| Deployment {
        target_group: TargetGroup::Absent,
        service: has_service.then_some(SERVICE),
        ..deployment(day, &[])
    };
    let mut facts = facts(
        Some(9),
        [
            live(9, 1, &[]),
            orphan(3, true),
            orphan(2, false),
            orphan(1, false),
        ],
    );
    facts.executions.running.insert(id(1));
    let plan = planned_with(&facts);
    assert_eq!(due(&plan, 3), (State::Orphaned, Action::Delete));
    assert_eq!(due(&plan, 2), (State::Orphaned, Action::Delete));
    assert_eq!(due(&plan, 1), (State::Orphaned, Action::Keep));
    assert_eq!(planned(&plan, 3).target_group_arn, None);
    assert!(
        planned(&plan, 2)
            .reason
            .starts_with("a task definition was left without")
    );
}

#[test]
fn resources_whose_target_group_lacks_our_tags_are_kept_and_the_reason_says_what_to_do() {
    let untagged = Deployment {
        target_group: TargetGroup::NotOurs { arn: arn(&id(1)) },
        ..deployment(1, &[])
    };
    let facts = facts(Some(2), [live(2, 1, &[]), untagged]);
    for remove_everything in [false, true] {
        let policy = Policy {
            remove_everything,
            ..policy()
        };
        let plan = plan(&facts, &policy, NOW);
        assert_eq!(due(&plan, 1), (State::Orphaned, Action::Keep));
        assert!(
            planned(&plan, 1)
                .reason
                .contains("put the tags pulse:deployment-id")
        );
    }
}

#[test]
fn without_an_active_deployment_nothing_that_was_live_is_touched() {
    let mut facts = facts(
        None,
        [
            live(5, 9, &[]),
            live(4, 9, &[(ROLLED_BACK_AT, HOUR)]),
            live(3, 90, &[(DRAINING_SINCE, 80 * HOUR)]),
            live(2, 90, &[(DELETING_SINCE, HOUR)]),
            deployment(1, &[]),
        ],
    );
    for default_action in [
        DefaultActionKind::NothingDeployed,
        DefaultActionKind::ForwardToNothing,
        DefaultActionKind::Forward,
        DefaultActionKind::Other,
    ] {
        facts.default_action = default_action;
        let plan = planned_with(&facts);
        assert_eq!(plan.active_deployment_id, None);
        for day in [2, 3, 4, 5] {
            assert_eq!(due(&plan, day).1, Action::Keep, "{day}");
        }
        assert_eq!(due(&plan, 1), (State::Candidate, Action::Delete));
    }
}

#[test]
fn a_lost_default_action_is_repaired_with_the_newest_suitable_deployment() {
    let not_in_a_rule = |day| {
        let mut deployment = live(day, 9, &[]);
        if let TargetGroup::Ours { in_use, .. } = &mut deployment.target_group {
            *in_use = false;
        }
        deployment
    };
    let mut facts = facts(
        None,
        [
            deployment(8, &[(READY_AT, 9)]),
            not_in_a_rule(7),
            live(6, 2, &[(DELETING_SINCE, HOUR)]),
            live(5, 3, &[(ROLLED_BACK_AT, HOUR)]),
            live(9, 3, &[(DRAINING_SINCE, HOUR)]),
            deployment(4, &[(LIVE_SINCE, HOUR)]),
            with_targets(live(10, 4, &[(UNHEALTHY_SINCE, 60)]), (2, 0)),
            with_targets(live(3, 4, &[]), (2, 2)),
            with_targets(live(2, 5, &[]), (2, 2)),
        ],
    );
    let repair = Repair {
        deployment_id: id(3),
        target_group_arn: arn(&id(3)),
        roll_back: false,
        replaced: vec![],
        reason: "the default action named no deployment".into(),
    };
    assert_eq!(planned_with(&facts).repair, Some(repair.clone()));

    // One sample is no verdict: traffic does not go to an older version for it.
    let mut seen_once = facts.clone();
    let newest = seen_once.deployments.iter_mut().find(|it| it.id == id(10));
    *newest.unwrap() = with_targets(live(10, 4, &[(UNHEALTHY_SINCE, 59)]), (2, 0));
    let waits = planned_with(&seen_once);
    assert_eq!((waits.repair, waits.is_down), (None, true));
    let problem = &waits.problems[0];
    assert!(
        problem.contains(&format!("{} is the newest that can take over", id(10))),
        "{problem}"
    );

    facts.default_action = DefaultActionKind::ForwardToNothing;
    facts.named = vec![id(1)];
    let plan_of_all = planned_with(&facts);
    assert_eq!(
        (plan_of_all.repair, plan_of_all.is_down),
        (Some(repair), true)
    );

    let everything = Policy {
        remove_everything: true,
        ..policy()
    };
    let moved = Facts {
        moved: true,
        ..facts.clone()
    };
    assert_eq!(plan(&facts, &everything, NOW).repair, None);
    assert_eq!(planned_with(&moved).repair, None);

    // A deployment without a healthy target is not made live. The cleanup fails instead, so that an operator sees it.
    let all = std::mem::take(&mut facts.deployments).into_iter();
    facts.deployments = all.map(|it| with_targets(it, (2, 0))).collect();
    let plan_of_sick = planned_with(&facts);
    assert_eq!(plan_of_sick.repair, None);
    assert!(plan_of_sick.problems[0].starts_with("the default action names no deployment"));

    assert_eq!(plan(&facts, &everything, NOW).problems, [""; 0]);
    facts.moved = true;
    assert_eq!(planned_with(&facts).problems, [""; 0]);
}

#[test]
fn a_default_action_that_an_operator_chose_is_not_repaired() {
    let mut facts = facts(None, [live(1, 9, &[])]);
    for chosen in [DefaultActionKind::Other, DefaultActionKind::Forward] {
        facts.default_action = chosen;
        assert_eq!(planned_with(&facts).repair, None);
    }
}

#[test]
fn resources_of_the_deployment_that_a_lost_default_action_names_are_kept() {
    let mut facts = facts(
        Some(1),
        [Deployment {
            target_group: TargetGroup::Absent,
            ..deployment(1, &[])
        }],
    );
    facts.default_action = DefaultActionKind::ForwardToNothing;
    let plan = planned_with(&facts);
    assert_eq!(plan.active_deployment_id, None);
    assert_eq!(due(&plan, 1), (State::Orphaned, Action::Keep));
}

#[test]
fn everything_is_removed_when_asked_except_what_the_default_action_names() {
    let mut facts = facts(
        None,
        [
            live(4, 1, &[]),
            live(3, 2, &[(DRAINING_SINCE, 9)]),
            deployment(2, &[]),
            Deployment {
                target_group: TargetGroup::Absent,
                ..deployment(1, &[])
            },
        ],
    );
    facts.executions.running.insert(id(2));
    let everything = Policy {
        remove_everything: true,
        ..policy()
    };
    let plan = plan(&facts, &everything, NOW);
    for day in [1, 2, 3, 4] {
        assert_eq!(due(&plan, day).1, Action::Delete);
        assert!(planned(&plan, day).force);
    }
}

/// This many task definitions without any other resource, newest last, all older than the other
/// deployments.
fn orphans(number: usize) -> impl Iterator<Item = Deployment> {
    (0..number).map(|number| Deployment {
        id: format!(
            "test-202509{:02}-{:02}{:02}00Z",
            1 + number / 1440,
            number / 60 % 24,
            number % 60
        )
        .parse()
        .unwrap(),
        target_group: TargetGroup::Absent,
        service: None,
        has_task_definition: true,
        is_protected: false,
        made_at: None,
        targets: None,
        waits: false,
    })
}

#[test]
fn one_run_plans_as_many_as_a_state_machine_can_hold_and_those_with_visitors_come_first() {
    let live = [live(4, 1, &[]), live(3, 2, &[]), live(2, 3, &[])];
    let all = facts(Some(4), live.into_iter().chain(orphans(230)));
    let plan = planned_with(&all);
    assert_eq!(plan.deployments.len(), defaults::MAX_PLANNED);
    assert_eq!(plan.left_out, 33);
    assert_eq!(due(&plan, 4), (State::Active, Action::Keep));
    assert_eq!(due(&plan, 3), (State::Previous, Action::Keep));
    assert_eq!(due(&plan, 2), (State::Previous, Action::Drain));
    assert!(
        plan.deployments
            .is_sorted_by(|one, other| one.deployment_id > other.deployment_id)
    );
    // The oldest orphans come first; the next run takes the others.
    let planned: Vec<_> = plan.deployments[3..].iter().rev().collect();
    let oldest: Vec<_> = orphans(197).map(|it| it.id).collect();
    assert!(planned.iter().map(|it| &it.deployment_id).eq(&oldest));
    let rest = facts(Some(4), orphans(230).skip(197));
    assert_eq!(planned_with(&rest).left_out, 0);
}

#[test]
fn of_more_than_one_run_takes_what_has_nothing_due_and_is_not_active_is_left_out() {
    let like = |orphan: Deployment, marks: &[(&str, i64)]| {
        let TargetGroup::Ours { tags, .. } = live(1, 2, marks).target_group else {
            unreachable!()
        };
        Deployment {
            target_group: TargetGroup::Ours {
                arn: arn(&orphan.id),
                tags,
                in_use: true,
            },
            service: Some(SERVICE),
            ..orphan
        }
    };
    let mut previous: Vec<_> = orphans(defaults::MAX_PLANNED + 1).collect();
    let draining = previous.pop().unwrap();
    let drains = draining.id.clone();
    let warm = previous.into_iter().map(|it| like(it, &[]));
    let draining = like(draining, &[(DRAINING_SINCE, HOUR)]);
    let all = facts(Some(4), warm.chain([draining, live(4, 1, &[])]));
    let keep_all = Policy {
        keep_previous: 1000,
        ..policy()
    };
    let plan = plan(&all, &keep_all, NOW);
    assert_eq!(plan.deployments.len(), defaults::MAX_PLANNED);
    assert_eq!(plan.left_out, 2);
    assert_eq!(due(&plan, 4), (State::Active, Action::Keep));
    assert_eq!(plan.deployments[1].deployment_id, drains);
    assert_eq!(plan.deployments[1].action, Action::Drain);
    assert_eq!(plan.deployments[2].action, Action::Keep);
}

#[test]
fn the_longest_plan_takes_less_than_half_of_what_a_state_machine_can_hold() {
    // The longest possible ids and reasons.
    let mut all = facts(None, []);
    all.deployments = orphans(defaults::MAX_PLANNED + 50)
        .map(|orphan| {
            let id = orphan.id.as_str().replace("test", "fifteen-letters");
            let region = "arn:aws:elasticloadbalancing:ap-southeast-2:123456789012";
            let arn = format!("{region}:targetgroup/{id}/0123456789abcdef");
            Deployment {
                id: id.parse().unwrap(),
                target_group: TargetGroup::NotOurs { arn },
                ..orphan
            }
        })
        .collect();
    let plan = planned_with(&all);
    let bytes = serde_json::to_string(&plan).unwrap().len();
    println!("{bytes} bytes for {} deployments", plan.deployments.len());
    assert!(bytes < 262_144 / 2, "{bytes}");
}

#[test]
fn of_many_executions_that_cannot_be_read_the_reason_names_some() {
    let mut all = facts(None, orphans(1));
    all.executions.unknown = (0..500).map(|n| format!("{n:080}")).collect();
    let plan = planned_with(&all);
    let reason = &plan.deployments[0].reason;
    assert_eq!(plan.deployments[0].action, Action::Keep);
    assert!(reason.contains("and 497 more"), "{reason}");
    assert!(reason.len() < 500, "{reason}");
}

#[test]
fn a_switch_a_minute_does_not_keep_an_earlier_deployment_from_draining() {
    let busy = |noted| {
        facts(
            Some(9),
            [
                deployment(9, &[(READY_AT, 20), (LIVE_SINCE, 19)]),
                deployment(8, &[(READY_AT, 80), (LIVE_SINCE, 79)]),
                deployment(
                    7,
                    &[(READY_AT, 140), (LIVE_SINCE, 139), (REPLACED_AT, noted)],
                ),
            ],
        )
    };
    let plan = planned_with(&busy(59));
    assert_eq!(due(&plan, 7), (State::Previous, Action::Keep));
    let plan = planned_with(&busy(60));
    assert_eq!(due(&plan, 7), (State::Previous, Action::Drain));
    // A note from before it was live again says nothing.
    let plan = planned_with(&busy(150));
    assert_eq!(due(&plan, 7), (State::Previous, Action::Keep));
}

#[test]
fn a_replacement_by_hand_settles_from_the_first_sweep_that_finds_it() {
    // The rollback to 2 was the last switch; then an operator made 3 active.
    let by_hand = |marks: &[(&str, i64)]| {
        facts(
            Some(3),
            [live(3, 9, &[]), live(2, 2, marks), live(1, 1, marks)],
        )
    };
    let drained = |marks| due(&planned_with(&by_hand(marks)), 1).1;
    assert_eq!(drained(&[]), Action::Keep);
    assert_eq!(drained(&[(REPLACED_AT, 59)]), Action::Keep);
    assert_eq!(drained(&[(REPLACED_AT, 60)]), Action::Drain);
}

/// A deployment may be live although it drains, after a race or by an operator's hand.
#[test]
fn the_deadline_counts_from_the_later_of_the_start_of_draining_and_the_replacement() {
    let drained = (DRAINING_SINCE, 25 * HOUR);
    // Switched to an hour ago, replaced a minute ago; the sweep finds it for the first time, or found it then.
    for noted in [
        &[drained][..],
        &[drained, (REPLACED_AT, 60)],
        &[drained, (REPLACED_AT, 26 * HOUR)],
    ] {
        let mut marks = vec![(READY_AT, HOUR), (LIVE_SINCE, 30 * HOUR)];
        marks.extend(noted);
        let plan = planned_with(&facts(
            Some(2),
            [
                deployment(2, &[(READY_AT, 90), (LIVE_SINCE, 90)]),
                deployment(1, &marks),
            ],
        ));
        assert_eq!(due(&plan, 1), (State::Draining, Action::Drain), "{noted:?}");
    }
    let replaced = |age| {
        let marks = [drained, (REPLACED_AT, age)];
        let plan = planned_with(&facts(Some(2), [live(2, 1, &[]), live(1, 30, &marks)]));
        due(&plan, 1)
    };
    assert_eq!(replaced(24 * HOUR - 1), (State::Draining, Action::Drain));
    assert_eq!(replaced(24 * HOUR), (State::Draining, Action::Delete));
}

#[test]
fn nothing_is_deleted_by_force_while_the_switch_settles_or_the_active_one_is_down() {
    let policy = Policy {
        drain_deadline: Duration::seconds(30),
        ..policy()
    };
    let late = |settled, targets| {
        let marks = [(DRAINING_SINCE, 90 * HOUR), (REPLACED_AT, settled)];
        let active = with_targets(live(2, 1, &[]), targets);
        let begun = [(DELETING_SINCE, 9), marks[0], marks[1]];
        let all = [active, live(1, 90, &marks), live(3, 90, &begun)];
        let plan = plan(&facts(Some(2), all), &policy, NOW);
        [1, 3].map(|day| (planned(&plan, day).action, planned(&plan, day).force))
    };
    let forced = [(Action::Delete, true); 2];
    let waits = [(Action::Drain, false); 2];
    assert_eq!(late(60, (2, 2)), forced);
    assert_eq!(late(59, (2, 2)), forced, "the tags show an older switch");
    assert_eq!(late(60, (2, 0)), waits);
}

#[test]
fn a_deletion_that_began_before_the_deployment_was_live_again_is_not_finished() {
    let marks = [(DELETING_SINCE, 3 * HOUR), (DRAINING_SINCE, 4 * HOUR)];
    let plan = planned_with(&facts(Some(2), [live(2, 1, &[]), live(1, 2, &marks)]));
    assert_eq!(due(&plan, 1).1, Action::Drain);
}

/// The deployment with this many targets, and this many healthy ones.
fn with_targets(deployment: Deployment, (registered, healthy): (usize, usize)) -> Deployment {
    Deployment {
        targets: Some(Targets {
            registered,
            healthy,
        }),
        ..deployment
    }
}

/// The deployment without a task and without a target.
fn empty(deployment: Deployment) -> Deployment {
    let service = deployment.service.map(|it| Service { running: 0, ..it });
    with_targets(
        Deployment {
            service,
            ..deployment
        },
        (0, 0),
    )
}

#[test]
fn an_active_deployment_without_a_healthy_target_on_two_sweeps_is_taken_back() {
    let down = |marks: &[(&str, i64)], others: [Deployment; 2]| {
        let active = with_targets(live(3, 9, marks), (0, 0));
        planned_with(&facts(Some(3), [active].into_iter().chain(others)))
    };
    let healthy = |day| with_targets(live(day, 90, &[]), (2, 1));
    // One sample is not a verdict, but nothing begins to drain.
    for seen in [&[][..], &[(DOWN_SINCE, 59)], &[(DOWN_SINCE, 10 * HOUR)]] {
        let plan = down(seen, [healthy(2), healthy(1)]);
        assert_eq!((plan.repair, plan.problems.len()), (None, 0), "{seen:?}");
        let draining = plan.deployments.iter().any(|it| it.action != Action::Keep);
        assert!(!draining);
    }
    let seen = [(DOWN_SINCE, 60)];
    let plan = down(&seen, [healthy(2), healthy(1)]);
    let repair = Repair {
        deployment_id: id(2),
        target_group_arn: arn(&id(2)),
        roll_back: true,
        replaced: vec![id(3)],
        reason: format!(
            "{} has had no healthy target since 2025-10-27T11:59:00Z",
            id(3)
        ),
    };
    assert_eq!(plan.repair, Some(repair));
    assert_eq!(
        plan.problems,
        [format!(
            "{}: it is active and has had no healthy target since 2025-10-27T11:59:00Z (0 of 0 targets are healthy \
             now); new visitors go to {}",
            id(3),
            id(2)
        )]
    );
    assert_eq!(plan.unhealthy_targets, 2);
    // Neither to one that is unhealthy or empty, nor to one that drains or was rolled back.
    let unhealthy = |day| with_targets(live(day, 90, &[(UNHEALTHY_SINCE, 60)]), (2, 0));
    let ends = |mark| with_targets(live(2, 90, &[(mark, HOUR)]), (2, 2));
    for other in [
        unhealthy(2),
        empty(live(2, 90, &[(UNHEALTHY_SINCE, 60)])),
        ends(DRAINING_SINCE),
        ends(ROLLED_BACK_AT),
        ends(DELETING_SINCE),
    ] {
        let plan = down(&seen, [other.clone(), healthy(1)]);
        assert_eq!(plan.repair.unwrap().deployment_id, id(1));
        let plan = down(&seen, [other, unhealthy(1)]);
        assert_eq!(plan.repair, None);
        assert!(plan.problems[0].contains("no deployment that was live can take over"));
    }
}

#[test]
fn an_active_deployment_with_a_healthy_target_is_in_order_whatever_an_earlier_sweep_saw() {
    let active = with_targets(live(2, 9, &[(DOWN_SINCE, HOUR)]), (2, 1));
    let plan = planned_with(&facts(Some(2), [active, live(1, 90, &[])]));
    assert_eq!((plan.repair, plan.problems.len()), (None, 0));
    assert_eq!(plan.unhealthy_targets, 1);
}

#[test]
fn a_lost_default_action_that_nothing_can_take_over_is_a_problem() {
    let ends = live(1, 9, &[(DRAINING_SINCE, HOUR)]);
    let plan = planned_with(&facts(None, [ends]));
    assert_eq!((plan.repair, plan.unhealthy_targets), (None, 1));
    assert!(plan.problems[0].starts_with("the default action names no deployment"));
    // Before the first deployment, nothing is lost.
    let plan = planned_with(&facts(None, [deployment(1, &[])]));
    assert_eq!(plan.problems, [""; 0]);
    assert_eq!((plan.unhealthy_targets, plan.is_down), (0, false));
}

#[test]
fn whether_a_registration_may_be_missing_is_known_from_the_tag_of_the_active_one() {
    let scaled = || live(2, 9, &[(tags::SCALING, 0)]);
    for (active, deployments, is_scaled) in [
        (Some(2), [scaled(), live(1, 90, &[])], true),
        (Some(1), [scaled(), live(1, 90, &[])], false),
        (None, [scaled(), live(1, 90, &[])], false),
    ] {
        assert_eq!(
            planned_with(&facts(active, deployments)).is_scaled,
            is_scaled
        );
    }
}

#[test]
fn a_failed_rollout_of_the_active_deployment_is_started_again_while_tasks_are_missing() {
    let active = |running, has_failed| {
        let service = Some(Service {
            running,
            wanted: 3,
            has_failed,
            keeps_unhealthy: false,
        });
        let active = Deployment {
            service,
            ..live(2, 9, &[])
        };
        let other = Deployment {
            service,
            ..live(1, 9, &[])
        };
        let plan = planned_with(&facts(Some(2), [active, other]));
        assert_eq!(due(&plan, 1), (State::Previous, Action::Keep));
        due(&plan, 2).1
    };
    assert_eq!(active(1, true), Action::Restart);
    assert_eq!(active(3, true), Action::Keep);
    assert_eq!(active(1, false), Action::Keep);
}

#[test]
fn an_active_deployment_that_was_drained_gets_fresh_tasks() {
    let action = |keeps_unhealthy, marks: &[(&str, i64)]| {
        let service = Some(Service {
            keeps_unhealthy,
            ..SERVICE
        });
        let active = Deployment {
            service,
            ..live(2, 9, marks)
        };
        due(&planned_with(&facts(Some(2), [active])), 2)
    };
    let asked = [(DRAINING_SINCE, HOUR)];
    assert_eq!(action(true, &asked), (State::Active, Action::Restart));
    assert_eq!(action(false, &asked), (State::Active, Action::Restart));
    // The drain gave way to the switch and died.
    assert_eq!(action(true, &[]), (State::Active, Action::Restart));
    let gave_way = [(DRAINING_SINCE, 9 * HOUR - 3)];
    assert_eq!(action(true, &gave_way), (State::Active, Action::Restart));
    assert_eq!(action(false, &gave_way), (State::Active, Action::Keep));
}

#[test]
fn what_has_no_tasks_takes_no_place_of_one_that_is_warm() {
    let scaled_down = empty(live(3, 90, &[(DOWN_SINCE, 60)]));
    let mut unrouted = live(4, 90, &[]);
    if let TargetGroup::Ours { in_use, .. } = &mut unrouted.target_group {
        *in_use = false;
    }
    let warm = [live(2, 91, &[]), live(1, 92, &[])];
    let others = [live(5, 9, &[]), unrouted, scaled_down];
    let plan = planned_with(&facts(Some(5), others.into_iter().chain(warm)));
    assert_eq!(due(&plan, 4), (State::Previous, Action::Keep));
    assert_eq!(due(&plan, 3), (State::Previous, Action::Unroute));
    assert_eq!(due(&plan, 2), (State::Previous, Action::Keep));
    assert_eq!(due(&plan, 1), (State::Previous, Action::Drain));
}

#[test]
fn a_kept_deployment_without_a_task_on_two_sweeps_loses_its_rules() {
    let kept = |marks: &[(&str, i64)]| {
        let all = [live(3, 9, &[]), empty(live(2, 90, marks))];
        planned_with(&facts(Some(3), all))
    };
    let is = (State::Previous, Action::Unroute);
    assert_eq!(due(&kept(&[]), 2).1, Action::Keep);
    assert_eq!(due(&kept(&[(DOWN_SINCE, 59)]), 2).1, Action::Keep);
    assert_eq!(due(&kept(&[(DOWN_SINCE, 60)]), 2), is);
    for spared in [PROTECTED, RESTORING_SINCE] {
        let plan = kept(&[(DOWN_SINCE, 60), (spared, 9)]);
        assert_eq!(due(&plan, 2).1, Action::Keep, "{spared}");
    }
    // One with a task or a target serves its visitors, whatever its health.
    let seen = live(2, 90, &[(DOWN_SINCE, 60)]);
    let starting = with_targets(seen.clone(), (0, 0));
    let unhealthy = Deployment {
        service: None,
        ..with_targets(seen.clone(), (1, 0))
    };
    for other in [starting, unhealthy] {
        let plan = planned_with(&facts(Some(3), [live(3, 9, &[]), other]));
        assert_eq!(due(&plan, 2).1, Action::Keep);
    }
    // Its visitors would find no tasks either.
    let down = with_targets(live(3, 9, &[(DOWN_SINCE, 60)]), (0, 0));
    let plan = planned_with(&facts(Some(3), [down, empty(seen.clone())]));
    assert_eq!(due(&plan, 2).1, Action::Keep);
    // Newer than the active one, and kept for a person to decide.
    let newer = empty(live(4, 90, &[(DOWN_SINCE, 60), (REPLACED_AT, HOUR)]));
    let plan = planned_with(&facts(Some(3), [live(3, 9, &[]), newer]));
    assert_eq!(due(&plan, 4), is);
    assert_eq!(plan.problems.len(), 1);
    // The dead one that a repair has replaced: its visitors do not wait until it has drained.
    let marks = [(DOWN_SINCE, 60), (ROLLED_BACK_AT, 5), (REPLACED_AT, 5)];
    let plan = planned_with(&facts(
        Some(3),
        [live(3, 9, &[]), empty(live(4, 90, &marks))],
    ));
    assert_eq!(due(&plan, 4), (State::RolledBack, Action::Unroute));
    // Done.
    let mut done = empty(seen);
    if let TargetGroup::Ours { in_use, .. } = &mut done.target_group {
        *in_use = false;
    }
    let plan = planned_with(&facts(Some(3), [live(3, 9, &[]), done]));
    assert_eq!(due(&plan, 2).1, Action::Keep);
    assert!(
        planned(&plan, 2)
            .reason
            .contains("a rollback to it starts and makes them again")
    );
}
