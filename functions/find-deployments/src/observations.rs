//! What a sweep leaves for the next one: tags that say since when it has seen something.
//!
//! One sample is not a verdict, so a sweep decides by what an earlier one has seen as well.

use aws_sdk_elasticloadbalancingv2::Client;
use lifecycle::{Clock, StepError, tags, target_group};
use time::UtcDateTime;

use crate::facts::{DefaultActionKind, Facts, TargetGroup};
use crate::plan::seen_at;

/// A tag that is to be set to the time of this sweep, or removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// The target group.
    pub target_group_arn: String,
    /// [`tags::REPLACED_AT`] or [`tags::DOWN_SINCE`].
    pub key: &'static str,
    /// Whether to set it.
    pub is_set: bool,
}

/// What the tags do not say yet. Nothing, if the default action changed while the facts were read.
pub fn observe(facts: &Facts, now: UtcDateTime) -> Vec<Observation> {
    let active = facts.named.first();
    if facts.moved || active.is_none() || facts.default_action != DefaultActionKind::Forward {
        return Vec::new();
    }
    let mut observations = Vec::new();
    for deployment in &facts.deployments {
        let is_active = active == Some(&deployment.id);
        let TargetGroup::Ours { arn, tags, .. } = &deployment.target_group else {
            continue;
        };
        if !is_active && !deployment.was_live() {
            continue;
        }
        let is_replaced = !facts.named.contains(&deployment.id);
        for (key, is_seen) in [
            (tags::REPLACED_AT, is_replaced),
            (tags::DOWN_SINCE, deployment.is_down(is_active)),
        ] {
            let is_said = tags.contains_key(key);
            let is_valid = seen_at(tags, key, now).is_some();
            if is_seen != is_said || (is_seen && !is_valid) {
                observations.push(Observation {
                    target_group_arn: arn.clone(),
                    key,
                    is_set: is_seen,
                });
            }
        }
    }
    observations
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
        let written = if *is_set {
            target_group::tag(elb, arn, key, clock).await
        } else {
            target_group::untag(elb, arn, &[key]).await
        };
        if let Err(error) = written
            && !is_gone(elb, arn).await
        {
            return Err(error);
        }
    }
    Ok(())
}

async fn is_gone(elb: &Client, arn: &str) -> bool {
    matches!(tags::read_one(elb, arn).await, Ok(None))
}
