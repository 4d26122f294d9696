//! What a sweep leaves for the next one: tags that say since when it has seen something.
//!
//! One sample is not a verdict, so a sweep decides by what an earlier one has seen as well. It also removes tags that
//! an execution left on the active deployment when it was stopped.

use aws_sdk_elasticloadbalancingv2::Client;
use lifecycle::tags::{self, Tags, seen_at};
use lifecycle::{Clock, StepError, defaults, guard, target_group};
use time::UtcDateTime;

use crate::facts::{DefaultActionKind, Deployment, Facts, TargetGroup};

/// A tag that is to be set to the time of this sweep, or removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// The target group.
    pub target_group_arn: String,
    /// Such as [`tags::REPLACED_AT`].
    pub key: &'static str,
    /// Whether to set it.
    pub is_set: bool,
}

/// What the tags do not say yet. Nothing, if the default action changed while the facts were read.
pub fn observe(facts: &Facts, now: UtcDateTime) -> Vec<Observation> {
    if facts.moved {
        return Vec::new();
    }
    let mut observations = unhealthy(facts, now);
    let active = facts.named.first();
    if active.is_none() || facts.default_action != DefaultActionKind::Forward {
        return observations;
    }
    for deployment in &facts.deployments {
        let is_active = active == Some(&deployment.id);
        let TargetGroup::Ours { arn, tags, .. } = &deployment.target_group else {
            continue;
        };
        // An operator has given it traffic by hand. Visitors may be on it now, so it is no candidate any more.
        if facts.named.contains(&deployment.id) && !deployment.was_live() {
            observations.push(Observation {
                target_group_arn: arn.clone(),
                key: tags::LIVE_SINCE,
                is_set: true,
            });
        }
        if !is_active && !deployment.was_live() {
            continue;
        }
        if is_active {
            let left = left_behind(tags, now).into_iter();
            observations.extend(left.map(|key| Observation {
                target_group_arn: arn.clone(),
                key,
                is_set: false,
            }));
        }
        let is_replaced = !facts.named.contains(&deployment.id);
        let seen = [
            (tags::REPLACED_AT, is_replaced),
            (tags::DOWN_SINCE, deployment.is_down(is_active)),
        ];
        observations.extend(
            seen.into_iter()
                .filter_map(|(key, is_seen)| correction(arn, tags, key, is_seen, now)),
        );
    }
    observations
}

/// Which deployments have no healthy target and may take over, while new visitors reach nothing.
fn unhealthy(facts: &Facts, now: UtcDateTime) -> Vec<Observation> {
    let active = facts.named.first();
    let is_active = |it: &Deployment| active == Some(&it.id);
    let is_served = match facts.default_action {
        DefaultActionKind::Forward => !facts
            .deployments
            .iter()
            .any(|it| is_active(it) && it.has_no_healthy_target()),
        DefaultActionKind::Other => true,
        DefaultActionKind::NothingDeployed | DefaultActionKind::ForwardToNothing => false,
    };
    let of = |it: &Deployment| {
        let TargetGroup::Ours { arn, tags, .. } = &it.target_group else {
            return None;
        };
        let is_seen =
            !is_served && !is_active(it) && it.may_take_over() && it.has_no_healthy_target();
        correction(arn, tags, tags::UNHEALTHY_SINCE, is_seen, now)
    };
    facts.deployments.iter().filter_map(of).collect()
}

/// What has to change so that the tag says since when sweeps in a row have seen something.
fn correction(
    arn: &str,
    tags: &Tags,
    key: &'static str,
    is_seen: bool,
    now: UtcDateTime,
) -> Option<Observation> {
    let is_said = tags.contains_key(key);
    let is_valid = seen_at(tags, key, now).is_some();
    let is_due = is_seen != is_said || (is_seen && !is_valid);
    is_due.then(|| Observation {
        target_group_arn: arn.to_owned(),
        key,
        is_set: is_seen,
    })
}

/// Writes the tags. A target group that another cleanup has deleted needs none.
///
/// # Errors
/// As [`lifecycle::aws_error::CODES`] say.
pub async fn record(
    elb: &Client,
    observations: &[Observation],
    clock: Clock<'_>,
) -> Result<(), StepError> {
    for Observation {
        target_group_arn: arn,
        key,
        is_set,
    } in observations
    {
        if *is_set {
            target_group::tag_unless_gone(elb, arn, key, clock).await?;
        } else {
            target_group::untag_unless_gone(elb, arn, &[key]).await?;
        }
    }
    Ok(())
}

/// Those of its tags that are not true of the active deployment. A drain or a deletion that gave way to the switch may
/// have died before it removed them, and a rollback may have been stopped before its switch. A rollback that is about
/// to switch writes its tag again when it is gone.
fn left_behind(tags: &Tags, now: UtcDateTime) -> Vec<&'static str> {
    let gave_way = guard::gave_way(tags);
    let is_stale = |key| {
        let since = tags::time(tags, key, now);
        since.is_some_and(|at| now - at >= defaults::SWITCHED_WITHIN)
    };
    let draining = [tags::DRAINING_SINCE, tags::IDLE_SINCE].map(|key| (key, gave_way));
    let others = [
        tags::ROLLED_BACK_AT,
        tags::DELETING_SINCE,
        tags::UNROUTED_SINCE,
    ]
    .map(|key| (key, is_stale(key)));
    draining
        .into_iter()
        .chain(others)
        .filter(|(key, is_left)| *is_left && tags.contains_key(*key))
        .map(|(key, _)| key)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::Duration;
    use time::macros::utc_datetime;

    const NOW: UtcDateTime = utc_datetime!(2025-10-27 12:30:00);

    fn left_behind_of(marks: &[(&str, i64)]) -> Vec<&'static str> {
        let ago = |seconds| tags::timestamp(NOW - Duration::seconds(seconds));
        let marks = marks
            .iter()
            .map(|(mark, age)| ((*mark).to_owned(), ago(*age)));
        left_behind(&marks.collect(), NOW)
    }

    #[test]
    fn what_a_drain_left_that_gave_way_to_the_switch_is_removed() {
        let gave_way = [
            (tags::READY_AT, 90),
            (tags::DRAINING_SINCE, 80),
            (tags::IDLE_SINCE, 80),
        ];
        let removed = [tags::DRAINING_SINCE, tags::IDLE_SINCE];
        assert_eq!(left_behind_of(&gave_way), removed);
        let asked = [(tags::READY_AT, 90), (tags::DRAINING_SINCE, 60)];
        assert_eq!(left_behind_of(&asked), [""; 0]);
        // An operator gave traffic to what drained, and a switch then announced it.
        let announced_later = [(tags::READY_AT, 60), (tags::DRAINING_SINCE, 3600)];
        assert_eq!(left_behind_of(&announced_later), [""; 0]);
    }

    #[test]
    fn the_mark_of_a_rollback_or_a_deletion_is_removed_when_it_cannot_be_under_way() {
        let within = defaults::SWITCHED_WITHIN.whole_seconds();
        for mark in [
            tags::ROLLED_BACK_AT,
            tags::DELETING_SINCE,
            tags::UNROUTED_SINCE,
        ] {
            let marked = |age| left_behind_of(&[(mark, age)]);
            assert_eq!(marked(within - 1), [""; 0]);
            assert_eq!(marked(within), [mark]);
        }
    }
}
