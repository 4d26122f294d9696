//! Decoding what comes in, so that bad input gets our error and names the field.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{ErrorName, StepError};

/// Decodes a payload.
///
/// # Errors
/// `InvalidInput`, naming the field by its path and what it should have been.
pub fn decode<T: DeserializeOwned>(payload: Value) -> Result<T, StepError> {
    // Without this, serde would take a list for the fields in the order of their declaration.
    if !payload.is_object() {
        return Err(StepError::new(
            ErrorName::InvalidInput,
            "invalid input: it must be a JSON object, with each field by its name",
        ));
    }
    serde_path_to_error::deserialize(payload).map_err(|error| {
        let path = error.path().to_string();
        let mut why = error.inner().to_string();
        // The name that people know, not Rust's.
        if let Some(start) = why.strip_suffix("expected u32") {
            why = format!("{start}expected a whole number");
        }
        let message = if path == "." || why.contains(&format!("`{path}`")) {
            format!("invalid input: {why}")
        } else {
            format!("invalid input: field `{path}`: {why}")
        };
        StepError::new(ErrorName::InvalidInput, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::json;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Sample {
        #[allow(dead_code)]
        desired_count: u32,
    }

    fn message(payload: Value) -> String {
        let error = decode::<Sample>(payload).unwrap_err();
        assert_eq!(error.name, ErrorName::InvalidInput);
        error.message
    }

    #[test]
    fn the_message_names_the_field() {
        assert_eq!(
            message(json!({"desiredCount": "two"})),
            "invalid input: field `desiredCount`: invalid type: string \"two\", expected a whole number"
        );
        assert_eq!(
            message(json!({"desiredCount": 2, "count": 3})),
            "invalid input: unknown field `count`, expected `desiredCount`"
        );
        assert_eq!(
            message(json!({})),
            "invalid input: missing field `desiredCount`"
        );
    }

    #[test]
    fn what_is_no_object_is_refused_even_a_list_of_the_right_values() {
        for payload in [json!([2]), json!([]), json!(null), json!("2")] {
            assert!(message(payload).contains("must be a JSON object"));
        }
    }
}
