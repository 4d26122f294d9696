//! Where a field comes from, for the errors that name it.

use lifecycle::{Environment, ErrorName, StepError};

use crate::parameter_name;

/// Where fields come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The input of the execution.
    Input,
    /// The settings of the environment.
    Settings {
        /// The environment.
        environment: Environment,
        /// The version of the parameter; none for a file that is checked before it becomes the parameter.
        version: Option<i64>,
    },
}

impl Source {
    /// The settings of an environment; with the version of the parameter, if they are one.
    pub fn settings(environment: &Environment, version: Option<i64>) -> Self {
        Source::Settings {
            environment: environment.clone(),
            version,
        }
    }

    /// The name of errors about it.
    pub fn error_name(&self) -> ErrorName {
        match self {
            Source::Input => ErrorName::InvalidInput,
            Source::Settings { .. } => ErrorName::InvalidSettings,
        }
    }

    /// The beginning of messages about it.
    pub fn is_invalid(&self) -> String {
        match self {
            Source::Input => "invalid input".to_owned(),
            Source::Settings { .. } => format!("invalid settings ({self})"),
        }
    }

    /// The error that it as a whole is wrong.
    pub fn error(&self, why: impl std::fmt::Display) -> StepError {
        StepError::new(self.error_name(), format!("{}: {why}", self.is_invalid()))
    }

    /// The error that a field of it, by its path, is wrong.
    pub fn refused(&self, field: &str, why: impl std::fmt::Display) -> StepError {
        self.error(format_args!("field `{field}`: {why}"))
    }
}

impl std::fmt::Display for Source {
    /// What a person finds it by.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Source::Input => f.write_str("the execution's input"),
            Source::Settings {
                environment,
                version,
            } => {
                f.write_str(&parameter_name(environment))?;
                version.map_or(Ok(()), |version| write!(f, ", version {version}"))
            }
        }
    }
}
