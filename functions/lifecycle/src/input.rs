//! Decoding what comes in, so that bad input gets our error and names the field.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::printable::printable;
use crate::{ErrorName, StepError};

/// The maximum number of characters of the payload that a refusal shows.
const MAX_SHOWN: usize = 640;
/// The maximum number of characters of a field's path that are shown.
const MAX_PATH: usize = 100;

/// A payload as it arrived, whether it can be read as JSON or not.
///
/// The runtime decodes a payload before it calls the handler. For one that it cannot decode it answers with
/// the name of one of its own types, which no state machine knows. So this type can be decoded from any
/// payload and reports later what is wrong. Lambda accepts some payloads that cannot be read here: half a
/// surrogate pair, a number too large for a float, very deep nesting.
#[derive(Debug)]
pub struct Payload(Result<Value, String>);

impl Payload {
    /// Decodes it.
    ///
    /// # Errors
    /// `InvalidInput` when it cannot be read as JSON, else as [`decode`].
    pub fn decode<T: DeserializeOwned>(self) -> Result<T, StepError> {
        decode(self.0.map_err(|why| {
            StepError::new(
                ErrorName::InvalidInput,
                format!("invalid input: it cannot be read as JSON: {why}"),
            )
        })?)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Payload(
            Value::deserialize(deserializer).map_err(|error| error.to_string()),
        ))
    }
}

/// Decodes a payload. If a field occurs twice, the last value counts, as is usual in JSON.
///
/// # Errors
/// `InvalidInput`, naming the field by its path and what it should have been.
pub fn decode<T: DeserializeOwned>(payload: Value) -> Result<T, StepError> {
    decode_part(payload)
        .map_err(|why| StepError::new(ErrorName::InvalidInput, format!("invalid input: {why}")))
}

/// Decodes an object that is not a whole payload.
///
/// # Errors
/// Which field is wrong, by its path, and what it should have been.
pub fn decode_part<T: DeserializeOwned>(part: Value) -> Result<T, String> {
    // Without this, serde would read a list as the fields in the order of their declaration.
    if !part.is_object() {
        return Err("it must be a JSON object, with each field by its name".to_owned());
    }
    serde_path_to_error::deserialize(part).map_err(|error| {
        let path = error.path().to_string();
        let mut why = error.inner().to_string();
        // The name that people know, not Rust's.
        if let Some(start) = why.strip_suffix("expected u32") {
            why = format!("{start}expected a whole number");
        }
        let is_named = path == "." || why.contains(&format!("`{path}`"));
        let why = printable(&why, MAX_SHOWN);
        if is_named {
            why
        } else {
            format!("field `{}`: {why}", printable(&path, MAX_PATH))
        }
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

    /// As the runtime does it.
    fn arrived(body: &[u8]) -> Result<Sample, StepError> {
        let json = &mut serde_json::Deserializer::from_slice(body);
        serde_path_to_error::deserialize::<_, Payload>(json)
            .expect("every payload reaches the handler")
            .decode()
    }

    #[test]
    fn what_is_no_json_is_refused_by_our_name() {
        let deep = format!("{}1{}", "[".repeat(500), "]".repeat(500));
        for (body, why) in [
            (&b""[..], "EOF"),
            (b"{\"desiredCount\": 2", "EOF"),
            (b"\xef\xbb\xbf{\"desiredCount\": 2}", "expected value"),
            (b"{\"desiredCount\": \"\xff\"}", "invalid unicode"),
            (b"{\"desiredCount\": \"\\ud800\"}", "hex escape"),
            (b"{\"desiredCount\": 1e999}", "out of range"),
            (b"{\"desiredCount\": NaN}", "expected value"),
            (deep.as_bytes(), "recursion limit"),
        ] {
            let error = arrived(body).unwrap_err();
            assert_eq!(error.name, ErrorName::InvalidInput);
            assert!(error.message.contains("cannot be read as JSON"));
            assert!(error.message.contains(why), "{}", error.message);
        }
        assert_eq!(arrived(b"{\"desiredCount\": 2}").unwrap().desired_count, 2);
    }

    #[test]
    fn of_a_field_that_is_there_twice_the_last_counts() {
        let twice = arrived(b"{\"desiredCount\": 2, \"desiredCount\": 3}");
        assert_eq!(twice.unwrap().desired_count, 3);
    }

    #[test]
    fn a_refusal_shows_both_ends_of_what_is_too_long_and_escapes_what_is_no_text() {
        let mut wrong = json!({"desiredCount": 2});
        wrong["\u{1b}[2J".repeat(100_000)] = json!(3);
        let message = message(wrong);
        assert!(
            message.starts_with(r"invalid input: unknown field `\u{1b}[2J"),
            "{message}"
        );
        assert!(message.ends_with("`, expected `desiredCount`"), "{message}");
        assert!(message.len() < 740, "{}", message.len());
    }

    #[test]
    fn what_is_no_object_is_refused_even_a_list_of_the_right_values() {
        for payload in [json!([2]), json!([]), json!(null), json!("2")] {
            assert!(message(payload).contains("must be a JSON object"));
        }
    }
}
