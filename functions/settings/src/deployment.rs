//! A deployment with every value that it runs with.

use std::collections::BTreeMap;

use lifecycle::scaling::Scaling;
use lifecycle::{Baseline, DeploymentId, StepError, defaults};
use serde::Serialize;

use crate::check::{check_both, check_environment_size, check_scaling_count, check_secrets_size};
use crate::{Document, Fields, Input, Source, fargate};

/// What a deployment runs with: the input, in its place the settings, and in theirs the defaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Deployment {
    /// Its id.
    pub deployment_id: DeploymentId,
    /// How many tasks to run.
    pub desired_count: u32,
    /// Whether it gets more tasks than that if the deployment that it replaces was scaled further. Not if the input
    /// names a number.
    pub parity: bool,
    /// Fargate CPU units (1024 are one vCPU).
    pub cpu: u32,
    /// MiB.
    pub memory: u32,
    /// Environment variables for the application, in addition to those that the contract sets.
    pub environment: BTreeMap<String, String>,
    /// Environment variables that ECS reads from elsewhere when a task starts.
    pub secrets: BTreeMap<String, String>,
    /// What the container runs, in place of the image's command.
    pub command: Option<Vec<String>>,
    /// What stands before the command, in place of the image's entry point.
    pub entry_point: Option<Vec<String>>,
    /// Seconds for which a visitor stays on the same task.
    pub stickiness: Option<u32>,
    /// How its health is judged.
    pub health: Health,
    /// How its number of tasks follows its load.
    pub scaling: Option<Scaling>,
}

/// How the health of a deployment is judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// The path that the load balancer asks.
    pub path: String,
    /// Seconds for which ECS does not stop a task that fails its health checks.
    pub grace_seconds: u32,
    /// Seconds that a candidate has to become healthy.
    pub timeout_seconds: u32,
}

impl Deployment {
    /// Merges the input with the settings, and both with the defaults.
    ///
    /// # Errors
    /// `InvalidInput` or `InvalidSettings` when a field that is right by itself does not go with another: of the
    /// source that the field comes from.
    pub fn of(
        input: Input,
        settings: Option<Document>,
        baseline: &Baseline,
    ) -> Result<Self, StepError> {
        let (settings_source, settings) = match settings {
            Some(document) => (document.source, document.fields),
            None => (Source::Input, Fields::default()),
        };
        let named = input.fields.clone();
        let fields = input.fields.or(settings);
        // Who would have to change something: the input, if it names the field.
        let source = |is_named: bool| {
            if is_named {
                &Source::Input
            } else {
                &settings_source
            }
        };
        check_both(fields.environment.as_ref(), fields.secrets.as_ref()).map_err(
            |(field, why)| {
                source(named.secrets.is_some() || named.environment.is_some()).refused(&field, why)
            },
        )?;
        let environment = fields.environment.unwrap_or_default();
        check_environment_size(&environment)
            .map_err(|(field, why)| source(named.environment.is_some()).refused(&field, why))?;
        let secrets = fields.secrets.unwrap_or_default();
        check_secrets_size(&secrets)
            .map_err(|(field, why)| source(named.secrets.is_some()).refused(&field, why))?;
        let desired_count = fields.desired_count.unwrap_or(defaults::DESIRED_COUNT);
        if let Some(scaling) = &fields.scaling {
            check_scaling_count(scaling, desired_count).map_err(|(field, why)| {
                source(named.scaling.is_some() || named.desired_count.is_some())
                    .refused(&field, why)
            })?;
        }
        let cpu = fields.cpu.unwrap_or(defaults::CPU);
        // With a given CPU size, the least memory that Fargate offers with it.
        let least = || fargate::least_memory(cpu).unwrap_or(defaults::MEMORY);
        let memory = fields.memory.unwrap_or_else(least);
        fargate::check(cpu, memory).map_err(|(field, why)| {
            source(named.cpu.is_some() || named.memory.is_some()).refused(field, why)
        })?;
        let health = fields.health.unwrap_or_default();
        let timeout_seconds = health
            .timeout_seconds
            .unwrap_or(baseline.health_timeout_seconds);
        Ok(Deployment {
            deployment_id: input.deployment_id,
            desired_count,
            parity: named.desired_count.is_none(),
            cpu,
            memory,
            environment,
            secrets,
            command: fields.command,
            entry_point: fields.entry_point,
            stickiness: fields.stickiness,
            health: Health {
                path: health
                    .path
                    .unwrap_or_else(|| defaults::HEALTH_CHECK_PATH.to_owned()),
                grace_seconds: health
                    .grace_seconds
                    .unwrap_or_else(|| defaults::grace_seconds(timeout_seconds)),
                timeout_seconds,
            },
            scaling: fields.scaling,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lifecycle::ErrorName;
    use serde_json::{Value, json};

    fn merged(input: Value, settings: Option<Value>) -> Result<Deployment, StepError> {
        let baseline = Baseline::for_tests();
        let now = time::macros::utc_datetime!(2025-10-27 13:00:00);
        let mut whole = json!({"deploymentId": "test-20251027-122112Z"});
        for (field, value) in input.as_object().expect("an object") {
            whole[field] = value.clone();
        }
        let input = Input::read(whole, &baseline, now).expect("valid by itself");
        let settings = settings.map(|settings| {
            Document::read(&baseline.environment, Some(7), &settings.to_string())
                .expect("valid by itself")
        });
        Deployment::of(input, settings, &baseline)
    }

    #[test]
    fn the_id_alone_is_enough() {
        let deployment = merged(json!({}), None).unwrap();
        assert_eq!(
            (deployment.desired_count, deployment.cpu, deployment.memory),
            (2, 256, 512)
        );
        assert_eq!(deployment.health.path, "/_health");
        assert_eq!(
            (
                deployment.health.grace_seconds,
                deployment.health.timeout_seconds
            ),
            (600, 600)
        );
        assert!(deployment.environment.is_empty() && deployment.secrets.is_empty());
    }

    #[test]
    fn a_number_of_tasks_in_the_input_is_meant_as_it_is_and_one_in_the_settings_is_the_least() {
        let settings = Some(json!({"desiredCount": 4}));
        for (input, count, parity) in [(json!({}), 4, true), (json!({"desiredCount": 3}), 3, false)]
        {
            let deployment = merged(input, settings.clone()).unwrap();
            assert_eq!(
                (deployment.desired_count, deployment.parity),
                (count, parity)
            );
        }
    }

    #[test]
    fn the_scaling_of_the_input_replaces_that_of_the_settings_and_fits_the_number_of_tasks() {
        let settings = || Some(json!({"desiredCount": 4, "scaling": {"max": 8, "cpuPercent": 60}}));
        let deployment = merged(json!({}), settings()).unwrap();
        assert_eq!(deployment.scaling.unwrap().to_tag(), "max=8 cpuPercent=60");
        let other = json!({"scaling": {"max": 5, "requestsPerTarget": 500}});
        let deployment = merged(other, settings()).unwrap();
        assert_eq!(
            deployment.scaling.unwrap().to_tag(),
            "max=5 requestsPerTarget=500"
        );
        for (input, settings, name) in [
            (
                json!({"desiredCount": 9}),
                settings(),
                ErrorName::InvalidInput,
            ),
            (
                json!({"scaling": {"max": 3, "cpuPercent": 60}}),
                settings(),
                ErrorName::InvalidInput,
            ),
            // Two tasks are the default.
            (
                json!({}),
                Some(json!({"scaling": {"max": 1, "cpuPercent": 60}})),
                ErrorName::InvalidSettings,
            ),
        ] {
            let error = merged(input, settings).unwrap_err();
            assert_eq!(error.name, name, "{error}");
            assert!(error.message.contains("`scaling.max`"), "{error}");
        }
    }

    #[test]
    fn a_cpu_size_alone_brings_the_least_memory_that_goes_with_it() {
        let deployment = merged(json!({"cpu": 2048}), None).unwrap();
        assert_eq!(deployment.memory, 4096);
    }

    #[test]
    fn the_input_beats_the_settings_field_by_field_and_variables_name_by_name() {
        let settings = json!({
            "desiredCount": 4, "cpu": 512, "memory": 2048,
            "environment": {"A": "settings", "B": "settings"},
            "secrets": {"S": "/settings", "T": "/settings"},
            "command": ["settings"],
            "health": {"path": "/up", "timeoutSeconds": 300},
        });
        let input = json!({
            "desiredCount": 3,
            "environment": {"B": "input", "C": "input"},
            "secrets": {"T": "/input"},
            "health": {"graceSeconds": 90},
        });
        let deployment = merged(input, Some(settings)).unwrap();
        assert_eq!(deployment.desired_count, 3);
        assert_eq!((deployment.cpu, deployment.memory), (512, 2048));
        assert_eq!(
            json!(deployment.environment),
            json!({"A": "settings", "B": "input", "C": "input"})
        );
        assert_eq!(
            json!(deployment.secrets),
            json!({"S": "/settings", "T": "/input"})
        );
        assert_eq!(deployment.command, Some(vec!["settings".to_owned()]));
        assert_eq!(
            json!(deployment.health),
            json!({"path": "/up", "graceSeconds": 90, "timeoutSeconds": 300})
        );
    }

    #[test]
    fn what_does_not_go_together_is_refused_at_the_source_that_can_change_it() {
        for (input, settings, name, why) in [
            (
                json!({"environment": {"A": "x"}}),
                json!({"secrets": {"A": "/a"}}),
                ErrorName::InvalidInput,
                "`secrets.A`: is also in `environment`",
            ),
            (
                json!({"cpu": 1024}),
                json!({"memory": 512}),
                ErrorName::InvalidInput,
                "`memory`: Fargate does not offer 512 MiB with cpu 1024",
            ),
            (
                json!({}),
                json!({"memory": 8192}),
                ErrorName::InvalidSettings,
                "`memory`: Fargate does not offer 8192 MiB with cpu 256",
            ),
            (
                json!({"environment": {"A": "x".repeat(30_000)}}),
                json!({"environment": {"B": "x".repeat(3_000)}}),
                ErrorName::InvalidInput,
                "`environment`: takes",
            ),
            (
                json!({"secrets": {"A": "x".repeat(2_000), "B": "x".repeat(2_000), "C": "x".repeat(2_000)}}),
                json!({"secrets": {"D": "x".repeat(2_000), "E": "x".repeat(2_000)}}),
                ErrorName::InvalidInput,
                "`secrets`: takes",
            ),
        ] {
            let error = merged(input, Some(settings)).unwrap_err();
            assert_eq!(error.name, name, "{error}");
            assert!(error.message.contains(why), "{error}");
        }
    }
}
