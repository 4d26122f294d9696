//! Decodes the payload of an invocation.

use lifecycle::StepError;
use lifecycle::input::Payload;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Decodes the body of an invocation as `lambda_runtime` and [`lifecycle::serve`] do together.
///
/// # Errors
/// Those of [`Payload::decode`].
///
/// # Panics
/// If the runtime would refuse the body, because the error then has a name of the runtime.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, StepError> {
    let json = &mut serde_json::Deserializer::from_slice(body);
    let mut track = serde_path_to_error::Track::new();
    Payload::deserialize(serde_path_to_error::Deserializer::new(json, &mut track))
        .expect("every body reaches the step")
        .decode()
}
