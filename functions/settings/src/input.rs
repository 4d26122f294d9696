//! The execution's input as people type it and the trigger sends it.

use std::collections::BTreeMap;

use lifecycle::scaling::Scaling;
use lifecycle::{Baseline, DeploymentId, StepError, defaults, input, is_image_digest};
use serde::Deserialize;
use serde_json::Value;
use time::UtcDateTime;

use crate::{
    ApproveFields, Fields, HealthFields, ReleaseFields, SmokeFields, Source, WatchFields, object,
};

/// What an execution of the deploy machine may be started with: which deployment, and any of the fields of the
/// settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// The deployment.
    pub deployment_id: DeploymentId,
    /// The image's digest, if it is not what the tag points to.
    pub image_digest: Option<String>,
    /// Whether it goes on although alarms that the settings name ring. Those are then not watched.
    pub despite_alarms: bool,
    /// What the deployment runs with, in place of the settings.
    pub fields: Fields,
}

/// The input with all of its fields beside each other, so that the message about an unknown one lists them all.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Flat {
    /// The deployment: the environment, a day and a time of UTC.
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    deployment_id: DeploymentId,
    /// The digest of the image, if it is not what the tag points to.
    image_digest: Option<String>,
    /// Whether it goes on although alarms that the settings name ring. Those are then not watched.
    despite_alarms: Option<bool>,
    desired_count: Option<u32>,
    cpu: Option<u32>,
    memory: Option<u32>,
    environment: Option<BTreeMap<String, String>>,
    secrets: Option<BTreeMap<String, String>>,
    base: Option<String>,
    command: Option<Vec<String>>,
    entry_point: Option<Vec<String>>,
    stickiness: Option<u32>,
    #[serde(default, deserialize_with = "object::optional")]
    health: Option<HealthFields>,
    #[serde(default, deserialize_with = "object::optional")]
    release: Option<ReleaseFields>,
    #[serde(default, deserialize_with = "object::optional")]
    watch: Option<WatchFields>,
    scaling: Option<Scaling>,
    #[serde(default, deserialize_with = "object::list")]
    smoke: Option<Vec<SmokeFields>>,
    hooks: Option<Vec<String>>,
    #[serde(default, deserialize_with = "object::optional")]
    approve: Option<ApproveFields>,
}

impl From<Flat> for Input {
    fn from(flat: Flat) -> Self {
        Input {
            deployment_id: flat.deployment_id,
            image_digest: flat.image_digest,
            despite_alarms: flat.despite_alarms.unwrap_or(false),
            fields: Fields {
                desired_count: flat.desired_count,
                cpu: flat.cpu,
                memory: flat.memory,
                environment: flat.environment,
                secrets: flat.secrets,
                base: flat.base,
                command: flat.command,
                entry_point: flat.entry_point,
                stickiness: flat.stickiness,
                health: flat.health,
                release: flat.release,
                watch: flat.watch,
                scaling: flat.scaling,
                smoke: flat.smoke,
                hooks: flat.hooks,
                approve: flat.approve,
            },
        }
    }
}

impl Input {
    /// Decodes an input and checks what it says by itself.
    ///
    /// # Errors
    /// `InvalidInput`, naming the field by its path.
    pub fn read(payload: Value, baseline: &Baseline, now: UtcDateTime) -> Result<Self, StepError> {
        let input = Input::from(input::decode::<Flat>(payload)?);
        input.check(baseline, now)?;
        Ok(input)
    }

    fn check(&self, baseline: &Baseline, now: UtcDateTime) -> Result<(), StepError> {
        let id = &self.deployment_id;
        let refused = |field, why: String| Err(Source::Input.refused(field, why));
        if *id.environment() != baseline.environment {
            return refused(
                "deploymentId",
                format!(
                    "{id} is a deployment of environment {}, and this machine serves {}",
                    id.environment(),
                    baseline.environment
                ),
            );
        }
        if id.created() > now + defaults::CLOCK_SKEW {
            return refused(
                "deploymentId",
                format!(
                    "{id} lies more than {} minutes in the future; it would stay the newest until then",
                    defaults::CLOCK_SKEW.whole_minutes()
                ),
            );
        }
        let digest = self.image_digest.as_deref();
        if digest.is_some_and(|digest| !is_image_digest(digest)) {
            return refused(
                "imageDigest",
                "must be `sha256:` and 64 lower-case hexadecimal digits".to_owned(),
            );
        }
        self.fields.check(&Source::Input)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lifecycle::ErrorName;
    use serde_json::json;

    fn check(input: Value) -> Result<Input, StepError> {
        let now = time::macros::utc_datetime!(2025-10-27 13:00:00);
        Input::read(input, &Baseline::for_tests(), now)
    }

    #[test]
    fn every_refusal_names_the_field() {
        for (field, value, why) in [
            (
                "deploymentId",
                json!("prod-20251027-122112Z"),
                "environment prod",
            ),
            (
                "deploymentId",
                json!("test-20250230-122112Z"),
                "does not exist",
            ),
            ("deploymentId", json!("latest"), "not a deployment id"),
            (
                "deploymentId",
                json!("test-20991027-122112Z"),
                "in the future",
            ),
            ("deploymentId", json!(5), "expected a string"),
            ("deploymentId", json!(null), "expected a string"),
            ("imageDigest", json!("sha256:ABC"), "hexadecimal"),
            (
                "imageDigest",
                json!(format!("sha256:{}", "g".repeat(64))),
                "hexadecimal",
            ),
            ("desiredCount", json!("2"), "expected a whole number"),
            ("desiredCount", json!(0), "between 1 and"),
            ("desiredCount", json!(-1), "expected a whole number"),
            ("desiredCount", json!(1.5), "expected a whole number"),
            ("cpu", json!("256"), "expected a whole number"),
            ("cpu", json!(300), "256, 512"),
            ("memory", json!(700), "with no size of CPU"),
            ("environment", json!([]), "expected a map"),
            ("environment", json!({"A": 1}), "expected a string"),
            (
                "environment",
                json!({"1A": "x"}),
                "not the name of a variable",
            ),
            (
                "environment",
                json!({"": "x"}),
                "not the name of a variable",
            ),
            (
                "environment",
                json!({"PORT": "x"}),
                "set by the deployment itself",
            ),
            (
                "environment",
                json!({"A": "x".repeat(40_000)}),
                "are allowed",
            ),
            (
                "environment",
                json!({"A": "\u{1}".repeat(6_000)}),
                "are allowed",
            ),
            (
                "environment",
                (0..1_200).map(|n| (format!("A{n}"), "x")).collect(),
                "are allowed",
            ),
            ("environment", json!({"A": "x\0y"}), "the character NUL"),
            ("count", json!(2), "unknown field"),
        ] {
            let mut input = json!({"deploymentId": "test-20251027-122112Z"});
            input[field] = value;
            let error = check(input).unwrap_err();
            assert_eq!(error.name, ErrorName::InvalidInput);
            assert!(
                error.message.contains(&format!("`{field}")),
                "{}",
                error.message
            );
            assert!(error.message.contains(why), "{field}: {}", error.message);
        }
    }

    #[test]
    fn an_id_may_lie_an_hour_ahead_and_no_more() {
        // The clock of these tests stands at 13:00.
        let id = |time: &str| json!({"deploymentId": format!("test-20251027-{time}Z")});
        assert!(check(id("140000")).is_ok());
        let error = check(id("140001")).unwrap_err();
        assert!(error.message.contains("in the future"), "{error}");
    }

    #[test]
    fn a_missing_id_and_the_consoles_own_example_are_refused() {
        assert!(
            check(json!({}))
                .unwrap_err()
                .message
                .contains("`deploymentId`")
        );
        let error = check(json!({"Comment": "Insert your JSON here"})).unwrap_err();
        assert!(
            error.message.contains("unknown field `Comment`"),
            "{}",
            error.message
        );
    }
}
