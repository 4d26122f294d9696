//! Properties that hold for the plan of any facts.

use super::tests::{SERVICE, arn, id};
use super::*;
use crate::executions::Executions;
use crate::facts::{Service, Targets};
use crate::observations::observe;
use lifecycle::affinity::Affinity;
use lifecycle::tags::{
    DELETING_SINCE, DOWN_SINCE, DRAINING_SINCE, IDLE_SINCE, LIVE_SINCE, READY_AT, REPLACED_AT,
    RESTORING_SINCE, ROLLED_BACK_AT, UNHEALTHY_SINCE,
};
use proptest::collection::{btree_map, btree_set};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use time::macros::utc_datetime;

const NOW: UtcDateTime = utc_datetime!(2025-10-27 12:00:00);
const DAYS: u8 = 12;
const MARKS: [&str; 10] = [
    READY_AT,
    LIVE_SINCE,
    DRAINING_SINCE,
    IDLE_SINCE,
    DELETING_SINCE,
    ROLLED_BACK_AT,
    RESTORING_SINCE,
    REPLACED_AT,
    DOWN_SINCE,
    UNHEALTHY_SINCE,
];

/// The most that a policy of these properties has, in seconds.
const MAX_SETTLE: i64 = 300;

/// Ages in seconds, most of them around the limits at which a plan changes, some in the future.
fn age() -> impl Strategy<Value = i64> {
    let around = |limit: Duration, seconds: i64| {
        let limit = limit.whole_seconds();
        limit - seconds..limit + seconds
    };
    prop_oneof![
        8 => -5..MAX_SETTLE + 5,
        2 => around(defaults::SWITCH_IN_FLIGHT, 3),
        1 => around(-defaults::CLOCK_TOLERANCE, 5),
        2 => around(defaults::RESTORE_TIME, 5),
        2 => around(Duration::DAY, 400),
        1 => 0..200_000_i64,
    ]
}

/// Marks as steps and operators set them: of any age, some in the future, some without a valid time.
fn marks() -> impl Strategy<Value = Tags> {
    let value = prop_oneof![
        9 => age().prop_map(|age| tags::timestamp(NOW - Duration::seconds(age))),
        1 => Just("yesterday".to_owned()),
    ];
    // Live deployments need the most decisions.
    let usual = subsequence(vec![READY_AT, LIVE_SINCE], 0..=2);
    (usual, btree_map(select(&MARKS[..]), value, 0..4)).prop_map(|(usual, others)| {
        let long_ago = tags::timestamp(NOW - Duration::DAY);
        usual
            .into_iter()
            .map(|mark| (mark.to_owned(), long_ago.clone()))
            .chain(others.into_iter().map(|(k, v)| (k.to_owned(), v)))
            .collect()
    })
}

fn deployment(day: u8) -> impl Strategy<Value = Deployment> {
    let id = id(day);
    let (ours, not_ours) = (arn(&id), arn(&id));
    let group = prop_oneof![
        8 => (marks(), any::<bool>()).prop_map(move |(tags, in_use)| TargetGroup::Ours {
            arn: ours.clone(), tags, in_use,
        }),
        1 => Just(TargetGroup::Absent),
        1 => Just(TargetGroup::NotOurs { arn: not_ours }),
    ];
    let service = prop_oneof![
        2 => Just(Some(SERVICE)),
        1 => Just(None),
        1 => (0..3, any::<bool>()).prop_map(|(running, has_failed)| Some(Service {
            running, has_failed, ..SERVICE
        })),
    ];
    let targets = prop_oneof![
        1 => Just(None),
        1 => (0..3_usize, 0..3_usize).prop_map(|(registered, healthy)| Some(Targets {
            registered, healthy: healthy.min(registered),
        })),
    ];
    (
        group,
        service,
        any::<bool>(),
        prop::bool::weighted(0.1),
        prop::option::of(0..2 * MAX_SETTLE),
        targets,
    )
        .prop_map(
            move |(target_group, service, has_task_definition, is_protected, age, targets)| {
                Deployment {
                    id: id.clone(),
                    target_group,
                    service,
                    has_task_definition,
                    is_protected,
                    made_at: age.map(|age| NOW - Duration::seconds(age)),
                    targets,
                    waits: false,
                }
            },
        )
}

fn facts() -> impl Strategy<Value = Facts> {
    let days = || subsequence((1..=DAYS).rev().collect::<Vec<_>>(), 0..=DAYS as usize);
    let deployments =
        days().prop_flat_map(|days| days.into_iter().map(deployment).collect::<Vec<_>>());
    let default_action = prop_oneof![
        6 => Just(DefaultActionKind::Forward),
        2 => Just(DefaultActionKind::NothingDeployed),
        1 => Just(DefaultActionKind::ForwardToNothing),
        1 => Just(DefaultActionKind::Other),
    ];
    let named = prop_oneof![
        8 => (1..=DAYS).prop_map(|day| vec![id(day)]),
        1 => Just(vec![]),
        1 => (1..=DAYS, 1..=DAYS).prop_map(|(a, b)| vec![id(a), id(b)]),
    ];
    let running = btree_set((1..=DAYS).prop_map(id), 0..3);
    let unknown = prop_oneof![9 => Just(vec![]), 1 => Just(vec!["by-hand".to_owned()])];
    (
        deployments,
        default_action,
        named,
        prop::bool::weighted(0.1),
        running,
        unknown,
        subsequence(Affinity::PINS.to_vec(), 0..=2),
    )
        .prop_map(
            |(deployments, default_action, named, moved, running, unknown, unpinned)| Facts {
                named: match default_action {
                    DefaultActionKind::Forward | DefaultActionKind::ForwardToNothing => named,
                    _ => vec![],
                },
                default_action,
                moved,
                deployments,
                unpinned,
                executions: Executions { running, unknown },
            },
        )
}

/// The facts with an active deployment that serves.
fn healthy(facts: &Facts) -> Facts {
    let mut facts = facts.clone();
    for deployment in &mut facts.deployments {
        if facts.named.contains(&deployment.id) {
            deployment.targets = None;
        }
    }
    facts
}

fn policy() -> impl Strategy<Value = Policy> {
    (0_usize..4, 0_i64..MAX_SETTLE, prop::bool::weighted(0.2)).prop_map(
        |(keep_previous, settle, remove_everything)| Policy {
            keep_previous,
            drain_deadline: Duration::DAY,
            settle: Duration::seconds(settle),
            remove_everything,
        },
    )
}

fn has(deployment: &Deployment, mark: &str) -> bool {
    deployment
        .marks()
        .is_some_and(|marks| marks.contains_key(mark))
}

/// The facts after a sweep has left its observations.
fn observed(facts: &Facts, now: UtcDateTime) -> Facts {
    let mut after = facts.clone();
    for seen in observe(facts, now) {
        for deployment in &mut after.deployments {
            match &mut deployment.target_group {
                TargetGroup::Ours { arn, tags, .. } if *arn == seen.target_group_arn => {
                    if seen.is_set {
                        tags.insert(seen.key.to_owned(), tags::timestamp(now));
                    } else {
                        tags.remove(seen.key);
                    }
                }
                _ => {}
            }
        }
    }
    after
}

/// The facts after the plan was carried out.
fn applied(facts: &Facts, plan: &Plan) -> Facts {
    let mut after = facts.clone();
    after.deployments.retain_mut(|deployment| {
        let planned = plan
            .deployments
            .iter()
            .find(|it| it.deployment_id == deployment.id)
            .unwrap();
        if let (Action::Drain, TargetGroup::Ours { tags, .. }) =
            (planned.action, &mut deployment.target_group)
        {
            tags.entry(DRAINING_SINCE.to_owned())
                .or_insert_with(|| tags::timestamp(NOW));
        }
        planned.action != Action::Delete
    });
    after
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn what_the_default_action_names_is_never_touched(facts in facts(), policy in policy()) {
        for planned in plan(&facts, &policy, NOW).deployments {
            if facts.named.contains(&planned.deployment_id) {
                prop_assert!(matches!(planned.action, Action::Keep | Action::Restart));
            } else {
                prop_assert_ne!(planned.state, State::Active);
                prop_assert_ne!(planned.action, Action::Restart);
            }
        }
    }

    #[test]
    fn what_is_protected_is_never_touched(facts in facts(), policy in policy()) {
        let plan = plan(&facts, &policy, NOW);
        for (deployment, planned) in facts.deployments.iter().zip(&plan.deployments) {
            if deployment.is_protected {
                prop_assert!(matches!(planned.action, Action::Keep | Action::Restart));
            }
        }
    }

    #[test]
    fn what_has_not_our_tags_is_never_touched(facts in facts(), policy in policy()) {
        let plan = plan(&facts, &policy, NOW);
        for (deployment, planned) in facts.deployments.iter().zip(&plan.deployments) {
            if matches!(deployment.target_group, TargetGroup::NotOurs { .. }) {
                prop_assert_eq!(planned.action, Action::Keep);
            }
        }
        if let Some(repair) = plan.repair {
            let repaired_with = facts.deployments.iter().find(|it| it.id == repair.deployment_id);
            prop_assert!(repaired_with.is_some_and(Deployment::may_take_over));
        }
    }

    #[test]
    fn a_plan_lists_each_deployment_once_in_the_order_of_the_facts(
        facts in facts(), policy in policy(),
    ) {
        let plan = plan(&facts, &policy, NOW);
        let planned: Vec<_> = plan.deployments.iter().map(|it| &it.deployment_id).collect();
        let found: Vec<_> = facts.deployments.iter().map(|it| &it.id).collect();
        prop_assert_eq!(planned, found);
        for planned in &plan.deployments {
            prop_assert!(!planned.reason.is_empty());
            prop_assert!(!planned.force || planned.action == Action::Delete);
            // The drain step needs the target group.
            prop_assert!(planned.action != Action::Drain || planned.target_group_arn.is_some());
        }
    }

    #[test]
    fn the_default_action_is_only_repaired_when_it_is_lost_and_then_once(
        facts in facts(), policy in policy(),
    ) {
        let first = plan(&facts, &policy, NOW);
        let Some(repair) = first.repair else { return Ok(()) };
        prop_assert!(!policy.remove_everything);
        prop_assert_eq!(repair.roll_back, first.active_deployment_id.is_some());
        prop_assert!(first.active_deployment_id.is_none_or(|it| repair.replaced == [it]));
        let chosen = facts.deployments.iter().find(|it| it.id == repair.deployment_id).unwrap();
        prop_assert!(has(chosen, READY_AT) && !has(chosen, ROLLED_BACK_AT));
        prop_assert!(!has(chosen, DELETING_SINCE) && !has(chosen, DRAINING_SINCE));
        let repaired = Facts {
            default_action: DefaultActionKind::Forward,
            named: vec![repair.deployment_id.clone()],
            ..facts
        };
        let second = plan(&healthy(&repaired), &policy, NOW);
        prop_assert_eq!(second.repair, None);
        prop_assert_eq!(second.active_deployment_id, Some(repair.deployment_id));
    }

    #[test]
    fn rules_are_made_again_for_the_active_deployment_alone(facts in facts(), policy in policy()) {
        let plan = plan(&facts, &policy, NOW);
        let is_ours = |it: &&Deployment| matches!(it.target_group, TargetGroup::Ours { .. });
        let mut all = facts.deployments.iter().filter(is_ours);
        let active = all.find(|it| plan.active_deployment_id.as_ref() == Some(&it.id));
        let is_due = !facts.unpinned.is_empty() && !facts.moved && !policy.remove_everything;
        let due = active.filter(|_| is_due).map(|it| it.id.clone());
        prop_assert_eq!(plan.missing_rules.map(|it| it.deployment_id), due);
    }

    #[test]
    fn a_repair_goes_to_the_newest_that_is_fit(facts in facts(), policy in policy()) {
        let first = plan(&facts, &policy, NOW);
        let is_healthy = |it: &Deployment| it.targets.is_some_and(|targets| targets.healthy > 0);
        let is_passed_over = |it: &Deployment| {
            let since = it.marks().and_then(|marks| tags::seen_at(marks, UNHEALTHY_SINCE, NOW));
            let is_old = |since| NOW - since >= policy.settle.max(defaults::SWEEPS_APART);
            it.has_no_healthy_target() && since.is_some_and(is_old)
        };
        let is_next = |it: &&Deployment| {
            it.may_take_over() && !is_passed_over(it) && first.active_deployment_id.as_ref() != Some(&it.id)
        };
        let next = facts.deployments.iter().filter(is_next).max_by_key(|it| &it.id);
        match &first.repair {
            Some(repair) => {
                prop_assert!(next.is_some_and(|next| next.id == repair.deployment_id && is_healthy(next)));
            }
            None if first.is_down && !facts.moved && !policy.remove_everything => {
                prop_assert!(next.is_none_or(|next| !is_healthy(next)));
                prop_assert!(!first.problems.is_empty());
            }
            None => {}
        }
    }

    #[test]
    fn nothing_begins_to_drain_before_its_replacement_has_settled(
        facts in facts(), policy in policy(),
    ) {
        let is_settled = |at: Option<UtcDateTime>| at.is_none_or(|at| NOW - at >= policy.settle);
        let marks_of_all = || facts.deployments.iter().filter_map(Deployment::marks);
        let last_change = marks_of_all()
            .flat_map(|marks| [READY_AT, LIVE_SINCE, ROLLED_BACK_AT].map(|it| tags::time(marks, it, NOW)))
            .max()
            .flatten();
        let first = plan(&facts, &policy, NOW);
        for (deployment, planned) in facts.deployments.iter().zip(&first.deployments) {
            if planned.action != Action::Drain || has(deployment, DRAINING_SINCE) {
                continue;
            }
            let marks = deployment.marks().unwrap();
            prop_assert!(!facts.moved);
            prop_assert!(is_settled(tags::switched_to_at(marks, NOW)));
            let noted = tags::seen_at(marks, REPLACED_AT, NOW);
            let is_noted = noted.is_some() && is_settled(noted);
            prop_assert!(is_noted || is_settled(last_change), "{}", deployment.id);
        }
    }

    #[test]
    fn what_an_execution_works_on_is_not_deleted(facts in facts(), policy in policy()) {
        prop_assume!(!policy.remove_everything);
        let first = plan(&facts, &policy, NOW);
        for (deployment, planned) in facts.deployments.iter().zip(&first.deployments) {
            let is_known = facts.executions.unknown.is_empty();
            let is_young = deployment.made_at.is_some_and(|made| NOW - made < policy.settle);
            let is_busy = facts.executions.running.contains(&deployment.id) || !is_known || is_young;
            if is_busy && !deployment.was_live() && !facts.named.contains(&deployment.id) {
                prop_assert_eq!(planned.action, Action::Keep, "{}", planned.reason);
            }
        }
    }

    #[test]
    fn what_a_rollback_brings_back_stays_as_it_is(facts in facts(), policy in policy()) {
        prop_assume!(!policy.remove_everything);
        let first = plan(&facts, &policy, NOW);
        for (deployment, planned) in facts.deployments.iter().zip(&first.deployments) {
            let is_restored = deployment.marks().is_some_and(|it| tags::is_being_restored(it, NOW));
            if is_restored && deployment.was_live() && !facts.named.contains(&deployment.id) {
                prop_assert_eq!(planned.action, Action::Keep, "{}", planned.reason);
            }
        }
    }

    #[test]
    fn nothing_that_was_live_goes_while_no_active_deployment_is_known(
        facts in facts(), policy in policy(),
    ) {
        let plan = plan(&facts, &policy, NOW);
        if plan.active_deployment_id.is_none() && !policy.remove_everything {
            for (deployment, planned) in facts.deployments.iter().zip(&plan.deployments) {
                prop_assert!(!has(deployment, LIVE_SINCE) || planned.action == Action::Keep);
            }
        }
    }

    #[test]
    fn the_newest_previous_ones_stay_warm_and_only_as_many_as_wanted(
        facts in facts(), policy in policy(),
    ) {
        prop_assume!(!policy.remove_everything);
        let first = plan(&facts, &policy, NOW);
        let Some(active) = first.active_deployment_id else { return Ok(()) };
        let spared = [ROLLED_BACK_AT, DRAINING_SINCE, DELETING_SINCE];
        let previous: Vec<_> = facts.deployments.iter().zip(&first.deployments)
            .filter(|(it, _)| has(it, LIVE_SINCE) && it.id < active && !facts.named.contains(&it.id))
            .filter(|(it, _)| !spared.iter().any(|mark| has(it, mark)))
            .collect();
        let (warm, _) = previous.split_at(previous.len().min(policy.keep_previous));
        for (deployment, planned) in warm {
            let is_kept = matches!(planned.action, Action::Keep | Action::Unroute);
            prop_assert!(is_kept, "{}", deployment.id);
        }
        // What may be empty takes no place of one that is warm.
        let is_warm = |it: &Deployment| {
            let in_use = matches!(it.target_group, TargetGroup::Ours { in_use: true, .. });
            in_use && it.service.is_some_and(|service| service.running > 0)
        };
        let older = previous.iter().enumerate()
            .filter(|(n, _)| {
                let before = previous[..*n].iter();
                before.filter(|(it, _)| is_warm(it)).count() >= policy.keep_previous
            })
            .map(|(_, it)| it);
        // After the settling time, no others stay, except those with a reason of their own.
        // By then every mark is older than all the times that protect a deployment.
        let later = NOW + Duration::DAY;
        let settled = observed(&healthy(&Facts { moved: false, ..facts.clone() }), later);
        let later = later + policy.settle;
        for (deployment, _) in older {
            let due = plan(&settled, &policy, later).deployments.into_iter()
                .find(|it| it.deployment_id == deployment.id).unwrap();
            let expected = if deployment.is_protected { Action::Keep } else { Action::Drain };
            let is_unrouted = due.action == Action::Unroute && !is_warm(deployment);
            prop_assert!(due.action == expected || is_unrouted, "{}", due.reason);
        }
    }

    /// Without a settling time: the tags of a deleted deployment may have held the time of the last
    /// switch.
    #[test]
    fn the_plan_after_a_plan_keeps_what_was_kept_and_goes_on_with_what_was_begun(
        facts in facts(), policy in policy(),
    ) {
        let policy = Policy { settle: Duration::ZERO, ..policy };
        let facts = Facts {
            deployments: facts.deployments.into_iter().map(|mut it| {
                if let TargetGroup::Ours { tags, .. } = &mut it.target_group {
                    for mark in [LIVE_SINCE, ROLLED_BACK_AT] {
                        // A switch in the future would still be unsettled.
                        if let Some(at) = tags.get_mut(mark) {
                            *at = tags::timestamp(NOW - Duration::DAY);
                        }
                    }
                }
                it
            }).collect(),
            ..facts
        };
        let first = plan(&facts, &policy, NOW);
        let second = plan(&applied(&facts, &first), &policy, NOW);
        prop_assert_eq!(&first.active_deployment_id, &second.active_deployment_id);
        for after in &second.deployments {
            let before = first.deployments.iter()
                .find(|it| it.deployment_id == after.deployment_id).unwrap();
            match before.action {
                Action::Keep => prop_assert_eq!(before, after),
                Action::Drain => {
                    prop_assert_eq!(after.action, Action::Drain);
                    prop_assert!(matches!(after.state, State::Draining | State::Deleting));
                }
                // The rules are still there, and the rollout has still failed, as far as the facts say.
                Action::Unroute | Action::Restart => prop_assert_eq!(before.action, after.action),
                Action::Delete => prop_assert!(false, "{} is gone", after.deployment_id),
            }
        }
        let third = plan(&applied(&applied(&facts, &first), &second), &policy, NOW);
        prop_assert_eq!(second, third);
    }
}
