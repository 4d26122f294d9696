//! The secret that `POST /drain` is authorised with.

use aws_sdk_secretsmanager::Client;
use hyper::header::HeaderValue;
use lifecycle::aws_error::failed;
use lifecycle::{Baseline, ErrorName, StepError};

/// The staging label of the version that new tasks get.
const CURRENT: &str = "AWSCURRENT";
/// The staging label of the version before it.
const PREVIOUS: &str = "AWSPREVIOUS";

/// The secret, only ever as the header that carries it. Its `Debug` shows nothing of it.
#[derive(Debug, Clone)]
pub struct DrainSecret(HeaderValue);

impl DrainSecret {
    /// The value of the `Authorization` header; marked sensitive, so that nothing prints it.
    pub fn authorization(&self) -> HeaderValue {
        self.0.clone()
    }

    fn new(secret: &str) -> Option<Self> {
        if secret.is_empty() {
            return None;
        }
        let mut header = HeaderValue::try_from(format!("Bearer {secret}")).ok()?;
        header.set_sensitive(true);
        Some(DrainSecret(header))
    }
}

/// Reads the current version of the secret. It is read at each use, so that a change takes effect at once.
///
/// # Errors
/// `Configuration` when the secret does not exist or cannot be sent in a header, else as
/// [`lifecycle::aws_error::CODES`] say. No message contains any part of the secret.
pub async fn read(secrets: &Client, baseline: &Baseline) -> Result<DrainSecret, StepError> {
    let secret = read_version(secrets, baseline, CURRENT).await?;
    let secret = secret.ok_or_else(|| unusable(baseline, "does not exist"))?;
    DrainSecret::new(&secret)
        .ok_or_else(|| unusable(baseline, "is empty or is not text that a header can carry"))
}

/// Reads the version before the current one, which tasks expect that were started before the secret was
/// rotated. `None` when that version does not exist or a header cannot carry it.
///
/// # Errors
/// As [`read`].
pub async fn read_previous(
    secrets: &Client,
    baseline: &Baseline,
) -> Result<Option<DrainSecret>, StepError> {
    let secret = read_version(secrets, baseline, PREVIOUS).await?;
    Ok(secret.as_deref().and_then(DrainSecret::new))
}

/// Reads the version with that staging label, or `None` when the secret has none.
/// <https://docs.aws.amazon.com/secretsmanager/latest/userguide/whats-in-a-secret.html#term_version>.
async fn read_version(
    secrets: &Client,
    baseline: &Baseline,
    stage: &str,
) -> Result<Option<String>, StepError> {
    let arn = &baseline.drain_secret_arn;
    let request = secrets.get_secret_value().secret_id(arn);
    match request.version_stage(stage).send().await {
        Ok(answer) => Ok(Some(answer.secret_string.unwrap_or_default())),
        Err(error) => match error.as_service_error() {
            Some(why) if why.is_resource_not_found_exception() => Ok(None),
            // It is scheduled for deletion.
            Some(why) if why.is_invalid_request_exception() => {
                let why = "cannot be read, perhaps because it was deleted";
                Err(unusable(baseline, why))
            }
            _ => Err(failed(format_args!("read the drain secret {arn}"), error)),
        },
    }
}

fn unusable(baseline: &Baseline, why: &str) -> StepError {
    let arn = &baseline.drain_secret_arn;
    StepError::new(
        ErrorName::Configuration,
        format!(
            "the drain secret {arn} {why}; check that the baseline stack of this environment is deployed and complete"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_the_secret_is_printed() {
        let secret = DrainSecret::new("open-sesame").unwrap();
        assert!(!format!("{secret:?}").contains("sesame"), "{secret:?}");
        assert_eq!(secret.authorization(), "Bearer open-sesame");
    }

    #[test]
    fn what_no_header_can_carry_is_no_secret() {
        for unusable in ["", "two\nlines"] {
            assert!(DrainSecret::new(unusable).is_none());
        }
    }
}
