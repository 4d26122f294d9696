//! The environment variables of a function: required ones, numbers with a default, and errors that name them.

use time::Duration;

use crate::{Environment, ErrorName, StepError};

/// The value of a variable that has to be there.
///
/// # Errors
/// `Configuration`, naming the variable.
pub fn required(
    variable: impl Fn(&str) -> Option<String>,
    name: &str,
) -> Result<String, StepError> {
    variable(name).filter(|value| !value.is_empty()).ok_or_else(|| {
        StepError::new(
            ErrorName::Configuration,
            format!("the function's environment variable {name} is not set; deploy infra/pipeline.yaml again"),
        )
    })
}

/// The value of a variable that is a whole number, or `default` when it is not set.
///
/// # Errors
/// `Configuration`, naming the variable, when it is something else.
pub fn number(
    variable: impl Fn(&str) -> Option<String>,
    name: &str,
    default: u32,
) -> Result<u32, StepError> {
    match variable(name).filter(|value| !value.is_empty()) {
        None => Ok(default),
        Some(value) => value.parse().map_err(|_| {
            StepError::new(
                ErrorName::Configuration,
                format!(
                    "the function's environment variable {name} is `{value}`, not a whole number; correct it in infra/pipeline.yaml"
                ),
            )
        }),
    }
}

/// The value of a variable that is a number of seconds, or `default` seconds when it is not set.
///
/// # Errors
/// As [`number`].
pub fn seconds(
    variable: impl Fn(&str) -> Option<String>,
    name: &str,
    default: u32,
) -> Result<Duration, StepError> {
    number(variable, name, default).map(|seconds| Duration::seconds(seconds.into()))
}

/// The environment that a function serves.
///
/// # Errors
/// `Configuration` when `PULSE_ENVIRONMENT` is missing or not the name of an environment.
pub fn environment(variable: impl Fn(&str) -> Option<String>) -> Result<Environment, StepError> {
    required(variable, "PULSE_ENVIRONMENT")?
        .parse()
        .map_err(|why| {
            StepError::new(
                ErrorName::Configuration,
                format!("PULSE_ENVIRONMENT: {why}"),
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_a_default_and_anything_else_is_refused_by_name() {
        let read = |value: Option<&str>| {
            number(|_| value.map(str::to_owned), "KEEP_PREVIOUS", 1).map_err(|error| error.message)
        };
        assert_eq!(read(None), Ok(1));
        assert_eq!(read(Some("")), Ok(1));
        assert_eq!(read(Some("3")), Ok(3));
        for wrong in ["-1", "two", "1.5"] {
            let message = read(Some(wrong)).unwrap_err();
            assert!(
                message.contains("KEEP_PREVIOUS") && message.contains(wrong),
                "{message}"
            );
        }
    }
}
