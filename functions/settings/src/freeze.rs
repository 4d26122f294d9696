//! Settings that forbid deployments for now, such as `"frozen": "the sale runs until Monday"`.

use lifecycle::{DeploymentId, ErrorName, StepError, printable::printable};
use serde_json::Value;

use crate::Source;

/// The most characters of the reason.
pub(crate) const MAX_REASON: usize = 500;

/// Why nothing is deployed for now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freeze {
    source: Source,
    reason: String,
}

impl Freeze {
    /// Reads the field `frozen`, if it is there.
    pub(crate) fn read(source: &Source, field: Option<Value>) -> Result<Option<Self>, StepError> {
        let reason = match field {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::String(reason)) => reason,
            Some(other) => {
                let other = printable(&other.to_string(), 40);
                let why = format!(
                    "is {other}, and must be a text that says why nothing is deployed; or remove the field"
                );
                return Err(source.refused("frozen", why));
            }
        };
        let length = reason.chars().count();
        if reason.trim().is_empty() || length > MAX_REASON {
            let why = format!(
                "must say in 1 to {MAX_REASON} characters why nothing is deployed, and has {length}"
            );
            return Err(source.refused("frozen", why));
        }
        Ok(Some(Freeze {
            source: source.clone(),
            reason,
        }))
    }

    /// Why nothing is deployed, in one line.
    pub fn reason(&self) -> String {
        printable(&self.reason, MAX_REASON)
    }

    /// The error that a deployment is refused with.
    pub fn refuses(&self, id: &DeploymentId) -> StepError {
        let Freeze { source, reason } = self;
        StepError::new(
            ErrorName::Frozen,
            format!(
                "{id} is not deployed, because {source} has `frozen`: {reason}; when that is over, remove the field, \
                 and start the deployment again under the name {id}-2, or push the image under a new deployment id"
            ),
        )
    }
}

#[cfg(test)]
mod tests {
    use crate::Document;
    use lifecycle::ErrorName;

    #[test]
    fn a_reason_is_shown_with_where_it_stands_and_what_to_do() {
        let environment = "test".parse().expect("a name");
        let text = r#"{"cpu": 512, "frozen": "the sale runs"}"#;
        let document = Document::read(&environment, Some(7), text).expect("accepted");
        let freeze = document.frozen.expect("frozen");
        let error = freeze.refuses(&"test-20251027-122112Z".parse().expect("an id"));
        assert_eq!(error.name, ErrorName::Frozen);
        for words in [
            "the sale runs",
            "/pulse/test/settings, version 7",
            "`frozen`",
            "test-20251027-122112Z-2",
            // A push of the same id starts nothing: it has an execution, which was refused.
            "a new deployment id",
        ] {
            assert!(error.message.contains(words), "{error}");
        }
        let later = Document::read_freeze(&environment, Some(7), text);
        assert_eq!(later, Ok(Some(freeze)));
    }

    #[test]
    fn without_a_reason_nothing_is_frozen() {
        let environment = "test".parse().expect("a name");
        for text in ["{}", r#"{"frozen": null}"#] {
            let document = Document::read(&environment, None, text).expect("accepted");
            assert_eq!(document.frozen, None, "{text}");
            assert_eq!(Document::read_freeze(&environment, None, text), Ok(None));
        }
    }

    #[test]
    fn what_is_no_reason_is_refused_and_other_fields_do_not_matter_later() {
        let environment = "test".parse().expect("a name");
        for reason in [
            "false",
            "true",
            "[]",
            "\"\"",
            "\" \"",
            &format!("\"{}\"", "x".repeat(501)),
        ] {
            let text = format!(r#"{{"frozen": {reason}, "cpu": 1}}"#);
            for error in [
                Document::read(&environment, None, &text).expect_err(reason),
                Document::read_freeze(&environment, None, &text).expect_err(reason),
            ] {
                assert_eq!(error.name, ErrorName::InvalidSettings);
                assert!(error.message.contains("field `frozen`: "), "{error}");
            }
        }
        let wrong = r#"{"cpu": 1}"#;
        assert!(Document::read(&environment, None, wrong).is_err());
        assert_eq!(Document::read_freeze(&environment, None, wrong), Ok(None));
        assert!(Document::read_freeze(&environment, None, "{").is_err());
    }
}
