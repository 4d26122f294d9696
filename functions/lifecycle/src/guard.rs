//! What keeps a deployment from being drained or deleted, whatever the plan says.

use time::UtcDateTime;

use crate::routing::DefaultAction;
use crate::tags::{self, Tags};
use crate::{DeploymentId, ErrorName, StepError};

/// What a step is about to do to a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent {
    /// Ask its tasks to drain, which they never undo.
    Drain,
    /// Delete its resources.
    Delete,
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
