//! What keeps a deployment from being drained, deleted or made live, even if the plan says otherwise.

use time::UtcDateTime;

use crate::routing::DefaultAction;
use crate::tags::{self, Tags};
use crate::{DeploymentId, ErrorName, StepError, defaults};

/// What a step is about to do to a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent {
    /// Ask its tasks to drain, which they never undo.
    Drain,
    /// Delete its resources.
    Delete,
    /// Delete the rules that pin visitors to it.
    Evict,
}

impl Intent {
    /// Refuses a deployment that the default action names: with `DeploymentActive` if it is active, and with
    /// `DeploymentKept` if another one has more weight. The listener is the truth, whatever tags or callers
    /// say.
    pub fn refuse_named(
        self,
        deployment: &DeploymentId,
        default_action: &DefaultAction,
    ) -> Result<(), StepError> {
        let is_active = default_action.active() == Some(deployment);
        let name = if is_active {
            ErrorName::DeploymentActive
        } else {
            ErrorName::DeploymentKept
        };
        let advice = "is named by the default action; make another deployment live first";
        self.refuse_if(
            default_action.is_named(deployment),
            deployment,
            name,
            advice,
        )
    }

    /// Refuses a deployment that a rollback is bringing back, with `DeploymentKept`.
    pub fn refuse_restored(
        self,
        deployment: &DeploymentId,
        tags: &Tags,
        now: UtcDateTime,
    ) -> Result<(), StepError> {
        let tag = tags::RESTORING_SINCE;
        let advice =
            format!("is being rolled back to; if no rollback is running, remove its tag {tag}");
        let is_restored = tags::is_being_restored(tags, now);
        self.refuse_if(is_restored, deployment, ErrorName::DeploymentKept, &advice)
    }

    /// Refuses a deployment that a switch has just announced, with `DeploymentKept`: the switch may be about to
    /// point the default action at it.
    pub fn refuse_announced(
        self,
        deployment: &DeploymentId,
        tags: &Tags,
        now: UtcDateTime,
    ) -> Result<(), StepError> {
        let ready = tags::time(tags, tags::READY_AT, now);
        let is_announced = ready.is_some_and(|at| now - at < defaults::SWITCH_ANNOUNCED);
        let advice = "may be about to get traffic; the next cleanup decides";
        self.refuse_if(is_announced, deployment, ErrorName::DeploymentKept, advice)
    }

    /// Refuses a deployment that an operator protects, with `DeploymentKept`.
    pub fn refuse_protected(self, deployment: &DeploymentId, tags: &Tags) -> Result<(), StepError> {
        let advice = format!("is protected; remove its tag {} first", tags::PROTECTED);
        let is_protected = tags.contains_key(tags::PROTECTED);
        self.refuse_if(is_protected, deployment, ErrorName::DeploymentKept, &advice)
    }

    fn refuse_if(
        self,
        is_kept: bool,
        deployment: &DeploymentId,
        name: ErrorName,
        why: &str,
    ) -> Result<(), StepError> {
        let intent = match self {
            Intent::Drain => "drained",
            Intent::Delete => "deleted",
            Intent::Evict => "evicted",
        };
        if !is_kept {
            return Ok(());
        }
        Err(StepError::new(
            name,
            format!("{deployment} is not {intent}: it {why}"),
        ))
    }
}

/// Refuses to make a deployment live whose tasks may have been asked to drain, with `DeploymentDraining`.
pub fn refuse_draining(deployment: &DeploymentId, tags: &Tags) -> Result<(), StepError> {
    match tags.get(tags::DRAINING_SINCE) {
        None => Ok(()),
        Some(since) => Err(StepError::new(
            ErrorName::DeploymentDraining,
            format!(
                "{deployment} has been draining since {since}, so its tasks take no new sessions and it is not made live; \
                 start the rollback machine with {deployment}, which gives it fresh tasks, or push its image under a new \
                 deployment id"
            ),
        )),
    }
}

/// Whether the draining tag was written by a drain that then gave way, so that no task was asked: one that began
/// while a switch to the deployment was announced ([`Intent::refuse_announced`]) or while a rollback brought it
/// back ([`Intent::refuse_restored`]).
pub fn gave_way(tags: &Tags) -> bool {
    let written = |key| tags::written(tags, key);
    let Some(draining) = written(tags::DRAINING_SINCE) else {
        return false;
    };
    // A switch that is announced during the sweep is met by its last look.
    let is_announced = |ready: UtcDateTime| {
        draining - ready < defaults::SWITCH_ANNOUNCED && ready - draining < defaults::SWEEP_TIME
    };
    let is_restored = |since| since <= draining && draining - since < defaults::RESTORE_TIME;
    written(tags::READY_AT).is_some_and(is_announced)
        || written(tags::RESTORING_SINCE).is_some_and(is_restored)
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::Duration;
    use time::macros::utc_datetime;

    const BEGAN: UtcDateTime = utc_datetime!(2025-10-27 12:30:00);

    fn drained(after: Duration, mark: &str) -> Tags {
        [(mark, BEGAN), (tags::DRAINING_SINCE, BEGAN + after)]
            .map(|(key, time)| (key.to_owned(), tags::timestamp(time)))
            .into()
    }

    #[test]
    fn a_drain_gives_way_to_a_switch_for_as_long_as_it_may_act() {
        let id = "test-20251027-122112Z".parse().unwrap();
        for (after, is_refused) in [
            (Duration::ZERO, true),
            (defaults::SWITCH_ANNOUNCED - Duration::SECOND, true),
            (defaults::SWITCH_ANNOUNCED, false),
        ] {
            let tags = drained(after, tags::READY_AT);
            let refusal = Intent::Drain.refuse_announced(&id, &tags, BEGAN + after);
            assert_eq!(refusal.is_err(), is_refused, "{after}");
            assert_eq!(gave_way(&tags), is_refused, "{after}");
        }
        let nothing = Tags::default();
        assert!(Intent::Drain.refuse_announced(&id, &nothing, BEGAN).is_ok());
        // Announced during the sweep, and long after it.
        let sweep = defaults::SWEEP_TIME - Duration::SECOND;
        assert!(gave_way(&drained(-sweep, tags::READY_AT)));
        assert!(!gave_way(&drained(-defaults::SWEEP_TIME, tags::READY_AT)));
    }

    #[test]
    fn a_drain_gives_way_to_a_rollback_for_as_long_as_its_tag_holds() {
        for (after, gives_way) in [
            (-Duration::SECOND, false),
            (Duration::ZERO, true),
            (defaults::RESTORE_TIME - Duration::SECOND, true),
            (defaults::RESTORE_TIME, false),
        ] {
            let tags = drained(after, tags::RESTORING_SINCE);
            assert_eq!(gave_way(&tags), gives_way, "{after}");
        }
    }

    #[test]
    fn a_drain_without_a_reason_to_give_way_may_have_asked() {
        assert!(!gave_way(&Tags::default()));
        assert!(!gave_way(&drained(Duration::ZERO, tags::LIVE_SINCE)));
        let mut unreadable = drained(Duration::ZERO, tags::READY_AT);
        unreadable.insert(tags::DRAINING_SINCE.to_owned(), "yesterday".to_owned());
        assert!(!gave_way(&unreadable));
    }

    #[test]
    fn what_drains_is_not_made_live() {
        let id = "test-20251027-122112Z".parse().unwrap();
        assert_eq!(refuse_draining(&id, &Tags::default()), Ok(()));
        let error = refuse_draining(&id, &drained(Duration::ZERO, tags::READY_AT)).unwrap_err();
        assert_eq!(error.name, ErrorName::DeploymentDraining);
        for words in [id.as_str(), "2025-10-27T12:30:00Z", "rollback"] {
            assert!(error.message.contains(words), "{error}");
        }
    }
}
