//! The errors of the steps: one name per decision of a state machine.

use std::fmt;

use lambda_runtime::Diagnostic;

use crate::printable::{MAX_TEXT, printable};

/// The names that a state machine matches in `ErrorEquals`. `docs/errors.md` explains each to an
/// operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorName {
    /// The input is wrong, and nothing was changed.
    InvalidInput,
    /// The environment's settings are wrong, and nothing was changed.
    InvalidSettings,
    /// The environment's settings forbid deployments for now.
    Frozen,
    /// An alarm that the settings name rings already.
    InAlarm,
    /// The repository does not have the image.
    ImageNotFound,
    /// A rollback took the deployment back before, so no event or retry switches to it again.
    DeploymentRolledBack,
    /// The deployment's tasks may have been asked to drain, so it is not made live without fresh tasks.
    DeploymentDraining,
    /// A quota of AWS leaves no room.
    QuotaExceeded,
    /// A resource with that name exists, but it is not ours or has other settings.
    ResourceConflict,
    /// A resource of the baseline stack or a setting of the function is missing.
    Configuration,
    /// The function's role does not allow a call.
    AccessDenied,
    /// The same call may succeed later.
    Transient,
    /// The default action names the deployment, so it is neither drained nor deleted.
    DeploymentActive,
    /// An operator protects the deployment, or a rollback is bringing it back. It is not active, but it
    /// is neither drained nor deleted.
    DeploymentKept,
    /// The deployment was live and visitors may be on it, so it is not undone like a candidate.
    DeploymentWasLive,
    /// Another deployment is active than the one that the rollback takes back.
    RollbackNotNeeded,
    /// There is no deployment to roll back to, or the given one cannot be rolled back to.
    NoRollbackTarget,
    /// An operator set the listener's default action, as for a maintenance page, so it is left as it is.
    DefaultActionNotOurs,
    /// A bug, or an answer of AWS that the code does not know.
    Unexpected,
}

impl ErrorName {
    /// All names, in the order of `docs/errors.md`.
    pub const ALL: [ErrorName; 19] = [
        ErrorName::InvalidInput,
        ErrorName::InvalidSettings,
        ErrorName::Frozen,
        ErrorName::InAlarm,
        ErrorName::ImageNotFound,
        ErrorName::DeploymentRolledBack,
        ErrorName::DeploymentDraining,
        ErrorName::QuotaExceeded,
        ErrorName::ResourceConflict,
        ErrorName::Configuration,
        ErrorName::AccessDenied,
        ErrorName::Transient,
        ErrorName::DeploymentActive,
        ErrorName::DeploymentKept,
        ErrorName::DeploymentWasLive,
        ErrorName::RollbackNotNeeded,
        ErrorName::NoRollbackTarget,
        ErrorName::DefaultActionNotOurs,
        ErrorName::Unexpected,
    ];

    /// The name as Lambda's `errorType` and as Step Functions' error name.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorName::InvalidInput => "InvalidInputError",
            ErrorName::InvalidSettings => "InvalidSettingsError",
            ErrorName::Frozen => "FrozenError",
            ErrorName::ImageNotFound => "ImageNotFoundError",
            ErrorName::DeploymentRolledBack => "DeploymentRolledBackError",
            ErrorName::DeploymentDraining => "DeploymentDrainingError",
            ErrorName::QuotaExceeded => "QuotaExceededError",
            ErrorName::ResourceConflict => "ResourceConflictError",
            ErrorName::Configuration => "ConfigurationError",
            ErrorName::AccessDenied => "AccessDeniedError",
            ErrorName::Transient => "TransientError",
            ErrorName::DeploymentActive => "DeploymentActiveError",
            ErrorName::DeploymentKept => "DeploymentKeptError",
            ErrorName::DeploymentWasLive => "DeploymentWasLiveError",
            ErrorName::NoRollbackTarget => "NoRollbackTargetError",
            ErrorName::RollbackNotNeeded => "RollbackNotNeededError",
            ErrorName::InAlarm => "InAlarmError",
            ErrorName::DefaultActionNotOurs => "DefaultActionNotOursError",
            ErrorName::Unexpected => "UnexpectedError",
        }
    }
}

/// Why a step failed: a name for the state machine, a sentence for the person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepError {
    /// The name that the state machine decides by.
    pub name: ErrorName,
    /// Which deployment, which resource, why, and what to do.
    pub message: String,
}

impl StepError {
    /// An error of that name with that message, as far as it can be shown.
    pub fn new(name: ErrorName, message: impl Into<String>) -> Self {
        StepError {
            name,
            message: printable(&message.into(), MAX_TEXT),
        }
    }

    /// The same error with the deployment named first, unless the message names it already.
    pub fn with_deployment(mut self, deployment: &crate::DeploymentId) -> Self {
        if !self.message.contains(deployment.as_str()) {
            self.message = format!("{deployment}: {}", self.message);
        }
        self
    }
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name.as_str(), self.message)
    }
}

impl std::error::Error for StepError {}

impl From<StepError> for Diagnostic {
    fn from(error: StepError) -> Self {
        Diagnostic {
            error_type: error.name.as_str().to_owned(),
            error_message: error.message,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_machine_sees_our_name_and_the_whole_message() {
        let diagnostic = Diagnostic::from(StepError::new(ErrorName::QuotaExceeded, "no room"));
        assert_eq!(diagnostic.error_type, "QuotaExceededError");
        assert_eq!(diagnostic.error_message, "no room");
    }

    #[test]
    fn a_message_has_a_maximum_length_and_no_control_characters() {
        let error = StepError::new(ErrorName::Unexpected, "\u{1b}[2Jx\n".repeat(100_000));
        assert!(error.message.chars().count() <= MAX_TEXT + 1);
        assert!(!error.message.contains(char::is_control));
    }

    #[test]
    fn no_name_looks_like_one_of_step_functions_or_lambda() {
        for name in ErrorName::ALL {
            assert!(name.as_str().ends_with("Error"));
            assert!(!name.as_str().starts_with("States.") && !name.as_str().starts_with("Lambda."));
        }
    }
}
