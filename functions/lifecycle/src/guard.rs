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
    fn participle(self) -> &'static str {
        match self {
            Intent::Drain => "drained",
            Intent::Delete => "deleted",
        }
    }
}

/// Refuses a deployment that the default action names. The listener is the truth, whatever tags or
/// callers say.
///
/// # Errors
/// `DeploymentActive`.
pub fn refuse_if_active(
    default_action: &DefaultAction,
    deployment: &DeploymentId,
    intent: Intent,
) -> Result<(), StepError> {
    if !default_action.is_named(deployment) {
        return Ok(());
    }
    Err(StepError::new(
        ErrorName::DeploymentActive,
        format!(
            "{deployment} carries the default traffic and is not {}; switch to another deployment first",
            intent.participle()
        ),
    ))
}

/// Refuses a deployment that a rollback is bringing back.
///
/// # Errors
/// `DeploymentKept`.
pub fn refuse_if_restored(
    tags: &Tags,
    now: UtcDateTime,
    deployment: &DeploymentId,
    intent: Intent,
) -> Result<(), StepError> {
    if !tags::is_being_restored(tags, now) {
        return Ok(());
    }
    Err(StepError::new(
        ErrorName::DeploymentKept,
        format!(
            "{deployment} is being rolled back to and is not {}; if no rollback is running, remove its tag {}",
            intent.participle(),
            tags::RESTORING_SINCE
        ),
    ))
}

/// Refuses a deployment that an operator protects.
///
/// # Errors
/// `DeploymentKept`.
pub fn refuse_if_protected(
    tags: &Tags,
    deployment: &DeploymentId,
    intent: Intent,
) -> Result<(), StepError> {
    if !tags.contains_key(tags::PROTECTED) {
        return Ok(());
    }
    Err(StepError::new(
        ErrorName::DeploymentKept,
        format!(
            "{deployment} is protected and is not {}; remove its tag {} first",
            intent.participle(),
            tags::PROTECTED
        ),
    ))
}
