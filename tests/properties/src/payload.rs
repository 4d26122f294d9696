//! A payload on its way to a step.

use lifecycle::StepError;
use lifecycle::input::Payload;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Decodes the body of an invocation as `lambda_runtime` and [`lifecycle::serve`] do it together.
///
/// # Errors
/// As [`Payload::decode`].
///
/// # Panics
/// When the runtime would refuse the body, and so answer with an error name of its own.
pub fn arrive<T: DeserializeOwned>(body: &[u8]) -> Result<T, StepError> {
    let json = &mut serde_json::Deserializer::from_slice(body);
    let mut track = serde_path_to_error::Track::new();
    Payload::deserialize(serde_path_to_error::Deserializer::new(json, &mut track))
        .expect("every body reaches the step")
        .decode()
}
