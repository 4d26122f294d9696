//! The execution's input as people type it and the trigger sends it, checked field by field.

use std::collections::BTreeMap;

use lifecycle::printable::printable;
use lifecycle::{DeploymentId, ErrorName, StepError, defaults, is_image_digest};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::fargate;

/// What an execution of the deploy machine may be started with.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Input {
    deployment_id: DeploymentId,
    image_digest: Option<String>,
    desired_count: Option<u32>,
    cpu: Option<u32>,
    memory: Option<u32>,
    environment: Option<BTreeMap<String, String>>,
}

/// The deployment with every value filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Deployment {
    /// Its id.
    pub deployment_id: DeploymentId,
    /// What the input itself names, in place of defaults.
    #[serde(skip)]
    pub named: Named,
    /// How many tasks to run.
    pub desired_count: u32,
    /// Fargate CPU units (1024 are one vCPU).
    pub cpu: u32,
    /// MiB.
    pub memory: u32,
    /// Environment variables for the application, in addition to those that the contract sets.
    pub environment: BTreeMap<String, String>,
}

/// The fields that an input names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The digest, if there is one.
    pub image_digest: Option<String>,
    /// Whether the number of tasks is named.
    pub desired_count: bool,
    /// Whether the CPU size is named.
    pub cpu: bool,
    /// Whether the memory size is named.
    pub memory: bool,
    /// Whether environment variables are named.
    pub environment: bool,
}

/// Half of a task definition's 64 KiB, so that the rest of it always fits:
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-quotas.html>.
const MAX_ENVIRONMENT_BYTES: usize = 32 * 1024;

impl Input {
    /// Checks what the types alone do not say and fills in the defaults.
    ///
    /// # Errors
    /// `InvalidInput`, naming the field.
    pub fn check(
        self,
        baseline: &lifecycle::Baseline,
        now: time::UtcDateTime,
    ) -> Result<Deployment, StepError> {
        let id = self.deployment_id;
        if *id.environment() != baseline.environment {
            return Err(refused(
                "deploymentId",
                format!(
                    "{id} is a deployment of environment {}, and this machine serves {}",
                    id.environment(),
                    baseline.environment
                ),
            ));
        }
        if id.created() > now + defaults::CLOCK_SKEW {
            return Err(refused(
                "deploymentId",
                format!(
                    "{id} lies more than {} minutes in the future; it would stay the newest until then",
                    defaults::CLOCK_SKEW.whole_minutes()
                ),
            ));
        }
        if self
            .image_digest
            .as_deref()
            .is_some_and(|digest| !is_image_digest(digest))
        {
            return Err(refused(
                "imageDigest",
                "must be `sha256:` and 64 lower-case hexadecimal digits".into(),
            ));
        }
        let named = Named {
            image_digest: self.image_digest,
            desired_count: self.desired_count.is_some(),
            cpu: self.cpu.is_some(),
            memory: self.memory.is_some(),
            environment: self.environment.is_some(),
        };
        let desired_count = self.desired_count.unwrap_or(defaults::DESIRED_COUNT);
        if !(1..=defaults::MAX_TASKS).contains(&desired_count) {
            return Err(refused(
                "desiredCount",
                format!("must be between 1 and {}", defaults::MAX_TASKS),
            ));
        }
        let cpu = self.cpu.unwrap_or(defaults::CPU);
        let memory = match (self.memory, self.cpu) {
            (Some(memory), _) => memory,
            // With a given CPU size, the least memory that Fargate offers with it.
            (None, Some(cpu)) => fargate::least_memory(cpu).unwrap_or(defaults::MEMORY),
            (None, None) => defaults::MEMORY,
        };
        fargate::check(cpu, memory).map_err(|(field, why)| refused(field, why))?;
        let environment = self.environment.unwrap_or_default();
        check_environment(&environment)?;
        Ok(Deployment {
            deployment_id: id,
            named,
            desired_count,
            cpu,
            memory,
            environment,
        })
    }
}

fn check_environment(environment: &BTreeMap<String, String>) -> Result<(), StepError> {
    for (name, value) in environment {
        let shown = printable(name, 64);
        let valid = !name.starts_with(|first: char| first.is_ascii_digit())
            && !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !valid {
            return Err(refused(
                "environment",
                format!(
                    "`{shown}` is not the name of a variable: letters, digits and underscores, not beginning with a digit"
                ),
            ));
        }
        if defaults::RESERVED_VARIABLES.contains(&name.as_str()) {
            return Err(refused(
                "environment",
                format!("`{shown}` is set by the deployment itself"),
            ));
        }
        // A process cannot be started with one, and ECS would show that only by a task that never starts.
        if value.contains('\0') {
            return Err(refused(
                "environment",
                format!(
                    "the value of `{shown}` contains the character NUL, which a variable cannot hold"
                ),
            ));
        }
    }
    let bytes = bytes_in_a_task_definition(environment);
    if bytes > MAX_ENVIRONMENT_BYTES {
        return Err(refused(
            "environment",
            format!(
                "takes {bytes} bytes of the task definition; at most {MAX_ENVIRONMENT_BYTES} are allowed"
            ),
        ));
    }
    Ok(())
}

/// ECS writes `{"name":"A","value":"x"},` for each. Some characters are longer there: a line break takes
/// two bytes, other control characters take six.
fn bytes_in_a_task_definition(environment: &BTreeMap<String, String>) -> usize {
    environment
        .iter()
        .map(|(name, value)| json!({"name": name, "value": value}).to_string().len() + ",".len())
        .sum()
}

fn refused(field: &str, why: String) -> StepError {
    StepError::new(
        ErrorName::InvalidInput,
        format!("invalid input: field `{field}`: {why}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use lifecycle::{Baseline, input::decode};
    use serde_json::Value;

    fn check(input: Value) -> Result<Deployment, StepError> {
        let now = time::macros::utc_datetime!(2025-10-27 13:00:00);
        decode::<Input>(input)?.check(&Baseline::for_tests(), now)
    }

    #[test]
    fn the_id_alone_is_enough() {
        let deployment = check(json!({"deploymentId": "test-20251027-122112Z"})).unwrap();
        assert_eq!(
            (deployment.desired_count, deployment.cpu, deployment.memory),
            (2, 256, 512)
        );
        assert!(deployment.environment.is_empty());
    }

    #[test]
    fn a_cpu_size_alone_brings_the_least_memory_that_goes_with_it() {
        let deployment =
            check(json!({"deploymentId": "test-20251027-122112Z", "cpu": 2048})).unwrap();
        assert_eq!(deployment.memory, 4096);
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
            ("memory", json!(700), "512, 1024"),
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
