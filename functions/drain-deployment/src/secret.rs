//! The secret that `POST /drain` is authorised with.

use aws_sdk_secretsmanager::Client;
use hyper::header::HeaderValue;
use lifecycle::aws_error::{code, failed};
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

/// Reads the secret as it is now. It is read at each use, so that nothing old is sent after it was
/// changed.
///
/// # Errors
/// `Configuration` when there is no such secret or it cannot be sent in a header, else as
/// [`lifecycle::aws_error::CODES`] say. No message holds any of it.
pub async fn read(secrets: &Client, settings: &Settings) -> Result<DrainSecret, StepError> {
    let arn = &settings.drain_secret_arn;
    let unusable = |why: &str| {
        StepError::new(
            ErrorName::Configuration,
            format!(
                "the drain secret {arn} {why}; is the baseline stack of this environment deployed and whole?"
            ),
        )
    };
    let answer = secrets.get_secret_value().secret_id(arn).send().await;
    match answer {
        Ok(answer) => answer
            .secret_string()
            .and_then(DrainSecret::new)
            .ok_or_else(|| unusable("is empty or no text that a header can carry")),
        Err(error) if code(&error) == Some("ResourceNotFoundException") => {
            Err(unusable("does not exist"))
        }
        // It is to be deleted.
        Err(error) if code(&error) == Some("InvalidRequestException") => {
            Err(unusable("cannot be read, perhaps because it was deleted"))
        }
        Err(error) => Err(failed(format_args!("read the drain secret {arn}"), error)),
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
