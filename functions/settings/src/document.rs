//! The settings of an environment: a JSON document in Parameter Store.

use lifecycle::{Environment, StepError, input, printable::printable};
use serde_json::Value;

use crate::{Fields, Freeze, Source};

/// The name of the parameter that holds an environment's settings.
pub fn parameter_name(environment: &Environment) -> String {
    format!("/pulse/{environment}/settings")
}

/// The most bytes that a parameter holds, in its advanced tier:
/// <https://docs.aws.amazon.com/systems-manager/latest/userguide/parameter-store-advanced-parameters.html>.
const MAX_BYTES: usize = 8 * 1024;
/// The most characters of an error of the JSON parser that are shown.
const MAX_SHOWN: usize = 200;

/// The settings of an environment, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Where they come from.
    pub source: Source,
    /// What they say.
    pub fields: Fields,
    /// Why nothing is deployed for now.
    pub frozen: Option<Freeze>,
}

impl Document {
    /// The version of the parameter, if it is one.
    pub fn version(&self) -> Option<i64> {
        match self.source {
            Source::Settings { version, .. } => version,
            Source::Input => None,
        }
    }

    /// Reads and checks the text of an environment's settings. `version` is that of the parameter, if it is one.
    ///
    /// # Errors
    /// `InvalidSettings`: where it is no JSON, by line and column; which field is wrong, by its path; or that a
    /// parameter cannot hold it.
    pub fn read(
        environment: &Environment,
        version: Option<i64>,
        text: &str,
    ) -> Result<Self, StepError> {
        let source = Source::settings(environment, version);
        if text.len() > MAX_BYTES {
            return Err(source.error(format_args!(
                "the document has {} bytes, and Parameter Store holds {MAX_BYTES} at most",
                text.len()
            )));
        }
        // https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_PutParameter.html
        if text.contains("{{") {
            return Err(source.error(
                "the document contains `{{`, which Parameter Store takes for a reference to another parameter",
            ));
        }
        let mut value = parse(&source, text)?;
        let mut frozen = None;
        if let Some(fields) = value.as_object_mut() {
            // For editors, and not for deployments.
            fields.shift_remove("$schema");
            frozen = Freeze::read(&source, fields.shift_remove("frozen"))?;
        }
        let fields: Fields = input::decode_part(value).map_err(|why| source.error(why))?;
        fields.check(&source)?;
        Ok(Document {
            source,
            fields,
            frozen,
        })
    }

    /// Reads only whether the settings freeze deployments. A deployment that is under way keeps to what it was
    /// started with, so it does not matter to it what else may be wrong in a later version.
    ///
    /// # Errors
    /// `InvalidSettings` when that cannot be read.
    pub fn read_freeze(
        environment: &Environment,
        version: Option<i64>,
        text: &str,
    ) -> Result<Option<Freeze>, StepError> {
        let source = Source::settings(environment, version);
        let mut value = parse(&source, text)?;
        let fields = value.as_object_mut();
        let frozen = fields.and_then(|fields| fields.shift_remove("frozen"));
        Freeze::read(&source, frozen)
    }
}

fn parse(source: &Source, text: &str) -> Result<Value, StepError> {
    serde_json::from_str(text).map_err(|error| {
        source.error(format_args!(
            "it cannot be read as JSON: {}",
            printable(&error.to_string(), MAX_SHOWN)
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use lifecycle::ErrorName;

    fn read(text: &str) -> Result<Fields, String> {
        let environment = "test".parse().expect("a name");
        Document::read(&environment, Some(7), text)
            .map(|document| document.fields)
            .map_err(|error| {
                assert_eq!(error.name, ErrorName::InvalidSettings);
                error.message
            })
    }

    #[test]
    fn an_empty_document_says_nothing() {
        assert_eq!(read("{}"), Ok(Fields::default()));
    }

    #[test]
    fn a_document_knows_the_version_of_its_parameter() {
        let environment = "test".parse().expect("a name");
        for version in [None, Some(7)] {
            let document = Document::read(&environment, version, "{}").expect("accepted");
            assert_eq!(document.version(), version);
        }
    }

    #[test]
    fn a_document_of_8_kib_is_read_and_a_longer_one_is_not() {
        for (length, is_read) in [(8192, true), (8193, false)] {
            assert_eq!(read(&format!("{:length$}", "{}")).is_ok(), is_read);
        }
    }

    #[test]
    fn the_address_of_the_schema_is_for_editors() {
        let fields = read(r#"{"$schema": "docs/settings.schema.json", "cpu": 512}"#);
        assert_eq!(fields.expect("accepted").cpu, Some(512));
    }

    #[test]
    fn text_that_is_no_json_is_refused_with_line_and_column() {
        let message = read("{\n  \"cpu\": 512,\n  \"memory\" 1024\n}").expect_err("refused");
        assert!(message.contains("line 3 column 12"), "{message}");
        assert!(
            message.starts_with("invalid settings (/pulse/test/settings, version 7): "),
            "{message}"
        );
    }

    #[test]
    fn what_a_parameter_cannot_hold_is_refused_in_words() {
        let long = format!(r#"{{"environment": {{"A": "{}"}}}}"#, "x".repeat(9000));
        assert!(read(&long).expect_err("refused").contains("8192 at most"));
        let reference = r#"{"environment": {"A": "{{ssm:other}}"}}"#;
        assert!(
            read(reference)
                .expect_err("refused")
                .contains("contains `{{`")
        );
    }

    #[test]
    fn every_wrong_field_is_named_by_its_path() {
        for (text, path, why) in [
            (r#"[]"#, "invalid", "must be a JSON object"),
            (
                r#"{"desiredCount": "two"}"#,
                "desiredCount",
                "a whole number",
            ),
            (r#"{"desiredCount": 0}"#, "desiredCount", "between 1"),
            (r#"{"desired": 2}"#, "`desired`", "unknown field"),
            (r#"{"base": "web:3"}"#, "`base`", "without a revision"),
            (
                r#"{"release": {"command": []}}"#,
                "`release.command`",
                "must not be empty",
            ),
            (
                r#"{"release": {"command": "migrate"}}"#,
                "`release.command`",
                "expected a sequence",
            ),
            (
                r#"{"release": {"command": ["a"], "timeoutSeconds": 0}}"#,
                "`release.timeoutSeconds`",
                "between 1 and 3600",
            ),
            (
                r#"{"release": [["a"], 60]}"#,
                "`release`",
                "expected an object",
            ),
            (r#"{"health": ["/up"]}"#, "`health`", "expected an object"),
            (r#"{"release": {"run": 1}}"#, "release.run", "unknown field"),
            (r#"{"base": ""}"#, "`base`", "family"),
            (r#"{"cpu": 300}"#, "`cpu`", "256, 512"),
            (r#"{"cpu": 512, "memory": 512}"#, "`memory`", "1024, 2048"),
            (
                r#"{"environment": {"A": 1}}"#,
                "`environment.A`",
                "expected a string",
            ),
            (
                r#"{"environment": {"PORT": "1"}}"#,
                "`environment.PORT`",
                "is set by the deployment",
            ),
            (
                r#"{"secrets": {"PORT": "/a"}}"#,
                "`secrets.PORT`",
                "is set by the deployment",
            ),
            (
                r#"{"secrets": {"1A": "/a"}}"#,
                "`secrets.1A`",
                "not the name of a variable",
            ),
            (
                r#"{"secrets": {"A": "no name"}}"#,
                "`secrets.A`",
                "must be the name of a parameter",
            ),
            (
                r#"{"environment": {"A": "x"}, "secrets": {"A": "/a"}}"#,
                "`secrets.A`",
                "is also in `environment`",
            ),
            (r#"{"command": []}"#, "`command`", "must not be empty"),
            (
                r#"{"entryPoint": "sh"}"#,
                "`entryPoint`",
                "expected a sequence",
            ),
            (r#"{"entryPoint": ["a\u0000"]}"#, "`entryPoint`", "NUL"),
            (r#"{"stickiness": 0}"#, "`stickiness`", "between 1"),
            (r#"{"stickiness": 604801}"#, "`stickiness`", "604800"),
            (r#"{"health": {"path": "x"}}"#, "`health.path`", "begin"),
            (
                r#"{"health": {"timeoutSeconds": 59}}"#,
                "`health.timeoutSeconds`",
                "between 60",
            ),
            (
                r#"{"scaling": {"cpuPercent": 60}}"#,
                "`scaling`",
                "missing field `max`",
            ),
            (
                r#"{"scaling": {"max": 8}}"#,
                "`scaling`",
                "needs `cpuPercent` or",
            ),
            (
                r#"{"scaling": {"max": 8, "cpuPercent": 60, "requestsPerTarget": 500}}"#,
                "`scaling`",
                "not both",
            ),
            (
                r#"{"scaling": {"max": 1001, "cpuPercent": 60}}"#,
                "`scaling.max`",
                "between 1 and 1000",
            ),
            (
                r#"{"scaling": {"max": 8, "cpuPercent": 0}}"#,
                "`scaling.cpuPercent`",
                "between 1 and 100",
            ),
            (
                r#"{"scaling": {"max": 8, "requestsPerTarget": 0}}"#,
                "`scaling.requestsPerTarget`",
                "between 1 and",
            ),
            (
                r#"{"scaling": {"max": 8, "memoryPercent": 60}}"#,
                "`memoryPercent`",
                "unknown field",
            ),
            (
                r#"{"health": {"graceSeconds": 7201}}"#,
                "`health.graceSeconds`",
                "between 0",
            ),
            (
                r#"{"health": {"grace": 1}}"#,
                "`health.grace`",
                "unknown field",
            ),
            (r#"{"smoke": {"path": "/"}}"#, "`smoke`", "a sequence"),
            (r#"{"smoke": ["/"]}"#, "`smoke[0]`", "expected an object"),
            (
                r#"{"smoke": [["/", 200]]}"#,
                "`smoke[0]`",
                "expected an object",
            ),
            (r#"{"smoke": [null]}"#, "`smoke[0]`", "must be an object"),
            (r#"{"smoke": [{}]}"#, "`smoke[0]`", "missing field `path`"),
            (
                r#"{"smoke": [{"path": "/"}, {"path": "up"}]}"#,
                "`smoke[1].path`",
                "must begin with `/`",
            ),
            (
                r#"{"smoke": [{"path": "/#a"}]}"#,
                "`smoke[0].path`",
                "not sent",
            ),
            (
                r#"{"smoke": [{"path": "/", "status": 199}]}"#,
                "`smoke[0].status`",
                "between 200 and 599",
            ),
            (
                r#"{"smoke": [{"path": "/", "status": "200"}]}"#,
                "`smoke[0].status`",
                "a whole number",
            ),
            (
                r#"{"smoke": [{"path": "/", "contains": ""}]}"#,
                "`smoke[0].contains`",
                "1 to 1024",
            ),
            (
                r#"{"smoke": [{"path": "/", "method": "POST"}]}"#,
                "`smoke[0].method`",
                "unknown field",
            ),
            (r#"{"hooks": "check"}"#, "`hooks`", "a sequence"),
            (r#"{"hooks": [1]}"#, "`hooks[0]`", "a string"),
            (
                r#"{"hooks": ["check", "a b"]}"#,
                "`hooks[1]`",
                "the name of a Lambda function",
            ),
            (r#"{"approve": true}"#, "`approve`", "expected an object"),
            (r#"{"approve": [60]}"#, "`approve`", "expected an object"),
            (
                r#"{"approve": {"timeoutSeconds": 59}}"#,
                "`approve.timeoutSeconds`",
                "between 60 and 43200",
            ),
            (
                r#"{"approve": {"by": "me"}}"#,
                "`approve.by`",
                "unknown field",
            ),
        ] {
            let message = read(text).expect_err(text);
            assert!(message.contains(path), "{text}: {message}");
            assert!(message.contains(why), "{text}: {message}");
        }
    }
}
