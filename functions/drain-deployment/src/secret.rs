//! The secret that `POST /drain` is authorised with.

use aws_sdk_secretsmanager::Client;
use hyper::header::HeaderValue;
use lifecycle::aws_error::failed;
use lifecycle::{ErrorName, Settings, StepError};

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

/// Reads the secret. It is read at each use, so that an old one is never sent after a change.
///
/// # Errors
/// `Configuration` when the secret does not exist or cannot be sent in a header, else as
/// [`lifecycle::aws_error::CODES`] say. No message contains any part of the secret.
pub async fn read(secrets: &Client, settings: &Settings) -> Result<DrainSecret, StepError> {
    let arn = &settings.drain_secret_arn;
    let unusable = |why: &str| {
        StepError::new(
            ErrorName::Configuration,
            format!(
                "the drain secret {arn} {why}; check that the baseline stack of this environment is deployed and complete"
            ),
        )
    };
    let answer = secrets.get_secret_value().secret_id(arn).send().await;
    match answer {
        Ok(answer) => answer
            .secret_string()
            .and_then(DrainSecret::new)
            .ok_or_else(|| unusable("is empty or is not text that a header can carry")),
        Err(error) => Err(match error.as_service_error() {
            Some(why) if why.is_resource_not_found_exception() => unusable("does not exist"),
            // It is scheduled for deletion.
            Some(why) if why.is_invalid_request_exception() => {
                unusable("cannot be read, perhaps because it was deleted")
            }
            _ => failed(format_args!("read the drain secret {arn}"), error),
        }),
    }
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
