//! The forms of `secrets[].valueFrom` of a container, and the values that they stand for.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/secrets-envvar-ssm-paramstore.html>
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/secrets-envvar-secrets-manager.html>

use serde_json::{Map, Value};

/// The limit on the names of a GetParameters call.
/// <https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParameters.html>
pub const PARAMETERS_PER_CALL: usize = 10;

/// What a `valueFrom` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A parameter, by its name or its ARN. Every value that is not the ARN of a secret is one.
    Parameter(String),
    Secret(SecretReference),
}

/// A secret of Secrets Manager, or one value in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecretReference {
    pub arn: String,
    /// The name of the value, if the secret is a JSON object and only one value of it is wanted.
    pub json_key: Option<String>,
    /// `AWSCURRENT`, `AWSPREVIOUS` or another label. It excludes `version_id`.
    pub version_stage: Option<String>,
    pub version_id: Option<String>,
}

impl Source {
    /// Reads a `valueFrom`: a name or an ARN of a parameter, or the ARN of a secret, after which
    /// `:json-key:version-stage:version-id` may follow. All three colons are needed then.
    ///
    /// # Errors
    /// The message of ECS for a secret's ARN with another number of parts.
    pub fn of(value_from: &str) -> Result<Self, String> {
        if !value_from.starts_with("arn:") || value_from.split(':').nth(2) != Some("secretsmanager")
        {
            return Ok(Source::Parameter(value_from.to_owned()));
        }
        let parts: Vec<&str> = value_from.split(':').collect();
        let part = |index: usize| {
            let text = parts.get(index).filter(|text| !text.is_empty())?;
            Some((*text).to_owned())
        };
        match parts.len() {
            7 | 10 => Ok(Source::Secret(SecretReference {
                arn: parts[..7].join(":"),
                json_key: part(7),
                version_stage: part(8),
                version_id: part(9),
            })),
            _ => Err(
                "unexpected ARN format with parameters when trying to retrieve ASM secret".into(),
            ),
        }
    }
}

impl SecretReference {
    /// The wanted value of a secret's text.
    ///
    /// # Errors
    /// The message of ECS, if only one value is wanted and the secret is not a JSON object or does not
    /// contain it.
    pub fn value(&self, secret: String) -> Result<String, String> {
        let Some(key) = &self.json_key else {
            return Ok(secret);
        };
        let values: Map<String, Value> =
            serde_json::from_str(&secret).map_err(|_| not_an_object(&secret))?;
        match values.get(key) {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(other) => Ok(other.to_string()),
            None => Err(format!(
                "retrieved secret from Secrets Manager did not contain json key {key}"
            )),
        }
    }
}

/// What the JSON decoder of ECS says about a text that is not an object.
fn not_an_object(text: &str) -> String {
    let kind = match serde_json::from_str(text) {
        Ok(Value::Null | Value::Object(_)) => "null",
        Ok(Value::Bool(_)) => "bool",
        Ok(Value::Number(_)) => "number",
        Ok(Value::String(_)) => "string",
        Ok(Value::Array(_)) => "array",
        Err(_) => {
            return match text.trim_start().chars().next() {
                Some(first) => {
                    format!("invalid character {first:?} looking for beginning of value")
                }
                None => "unexpected end of JSON input".to_owned(),
            };
        }
    };
    format!("json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}")
}

/// The ARN of a parameter that is given by its name or its ARN, with or without a version or label, as it
/// stands in policies.
/// <https://docs.aws.amazon.com/service-authorization/latest/reference/list_awssystemsmanager.html>
pub fn parameter_arn(name_or_arn: &str, region_and_account: &str) -> String {
    let colons = if name_or_arn.starts_with("arn:") {
        5
    } else {
        0
    };
    let end = name_or_arn
        .match_indices(':')
        .nth(colons)
        .map_or(name_or_arn.len(), |(index, _)| index);
    let name = &name_or_arn[..end];
    if name.starts_with("arn:") {
        return name.to_owned();
    }
    let name = name.trim_start_matches('/');
    format!("arn:aws:ssm:{region_and_account}:parameter/{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "arn:aws:secretsmanager:us-east-1:000000000000:secret:test/db-Ab12Cd";
    const PARAMETER: &str = "arn:aws:ssm:us-east-1:000000000000:parameter/pulse/test/url";

    fn secret(key: Option<&str>, stage: Option<&str>, id: Option<&str>) -> Source {
        Source::Secret(SecretReference {
            arn: SECRET.into(),
            json_key: key.map(str::to_owned),
            version_stage: stage.map(str::to_owned),
            version_id: id.map(str::to_owned),
        })
    }

    #[test]
    fn every_form_of_value_from_is_read() {
        for name in ["/pulse/test/url", "url", PARAMETER] {
            assert_eq!(Source::of(name), Ok(Source::Parameter(name.into())));
        }
        for (rest, expected) in [
            ("", secret(None, None, None)),
            (":::", secret(None, None, None)),
            (":password::", secret(Some("password"), None, None)),
            ("::AWSPREVIOUS:", secret(None, Some("AWSPREVIOUS"), None)),
            (
                ":password::9d4c",
                secret(Some("password"), None, Some("9d4c")),
            ),
        ] {
            assert_eq!(
                Source::of(&format!("{SECRET}{rest}")),
                Ok(expected),
                "{rest}"
            );
        }
    }

    #[test]
    fn an_arn_without_all_three_colons_is_refused() {
        for rest in [":password", ":password:", ":password:::"] {
            let refused = Source::of(&format!("{SECRET}{rest}")).unwrap_err();
            assert!(refused.starts_with("unexpected ARN format"), "{rest}");
        }
    }

    #[test]
    fn a_json_key_selects_one_value_and_must_exist() {
        let reference = SecretReference {
            json_key: Some("port".into()),
            ..SecretReference::default()
        };
        let value = |text: &str| reference.value(text.into());
        assert_eq!(value(r#"{"port": "5432"}"#), Ok("5432".into()));
        assert_eq!(value(r#"{"port": 5432}"#), Ok("5432".into()));
        assert_eq!(
            value(r#"{"host": "db"}"#).unwrap_err(),
            "retrieved secret from Secrets Manager did not contain json key port"
        );
        assert_eq!(
            value("'port'").unwrap_err(),
            r"invalid character '\'' looking for beginning of value"
        );
        assert!(
            value("5432")
                .unwrap_err()
                .contains("cannot unmarshal number")
        );
        let whole = SecretReference::default();
        assert_eq!(whole.value("text".into()), Ok("text".into()));
    }

    #[test]
    fn a_parameter_has_one_arn_however_it_is_named() {
        for name in ["/pulse/test/url", "/pulse/test/url:3", PARAMETER] {
            assert_eq!(parameter_arn(name, "us-east-1:000000000000"), PARAMETER);
        }
        assert_eq!(
            parameter_arn(&format!("{PARAMETER}:3"), "us-east-1:000000000000"),
            PARAMETER
        );
        assert_eq!(
            parameter_arn("url", "us-east-1:000000000000"),
            "arn:aws:ssm:us-east-1:000000000000:parameter/url"
        );
    }
}
