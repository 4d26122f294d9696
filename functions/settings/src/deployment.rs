//! A deployment with every value that it runs with.

use std::collections::BTreeMap;

use lifecycle::printable::printable;
use lifecycle::scaling::Scaling;
use lifecycle::{Baseline, DeploymentId, Environment, StepError, defaults, task_definition};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::base::Base;
use crate::check::{
    check_both, check_environment_size, check_scaling_count, check_secrets_size, check_watch_lasts,
};
use crate::{Document, Fields, Input, OnBreach, SmokeFields, Source, fargate};

/// The most bytes that a task definition may have:
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-quotas.html>.
const MAX_TASK_DEFINITION_BYTES: usize = 64 * 1024;

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
    /// Fargate CPU units (1024 are one vCPU); none for those of the base.
    pub cpu: Option<u32>,
    /// MiB; none for those of the base.
    pub memory: Option<u32>,
    /// Environment variables for the application, in addition to those that the contract sets.
    pub environment: BTreeMap<String, String>,
    /// Environment variables that ECS reads from elsewhere when a task starts.
    pub secrets: BTreeMap<String, String>,
    /// The ARN of the revision that is copied for all that is not named here.
    pub base: Option<String>,
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
    /// What runs once before it is made.
    pub release: Option<Release>,
    /// How it is watched after the switch.
    pub watch: Watch,
    /// What every task of it has to answer before traffic moves to it.
    pub smoke: Vec<Smoke>,
    /// The functions that judge it before traffic moves to it, in this order.
    pub hooks: Vec<String>,
    /// That a person approves it before traffic moves to it.
    pub approve: Option<Approve>,
}

/// How a deployment is watched after the switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Watch {
    /// Seconds for which it is watched.
    pub seconds: u32,
    /// The names of CloudWatch alarms, none of which may ring.
    #[serde(default)]
    pub alarms: Vec<String>,
    /// Which share of its requests may fail.
    #[serde(default)]
    pub errors: Option<FailedShare>,
    /// What is done when it is found to be bad.
    pub on_breach: OnBreach,
}

/// Which share of a version's requests may fail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FailedShare {
    /// Per cent of its requests.
    pub percent: u32,
    /// How many requests it has to have answered before that is judged.
    pub at_least: u32,
}

/// What is taken where neither input nor settings say something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Defaults {
    /// Seconds that a candidate has to become healthy.
    pub health_timeout_seconds: u32,
    /// Seconds for which a deployment is watched.
    pub watch_seconds: u32,
}

impl Defaults {
    /// Those of the environment.
    pub fn of(baseline: &Baseline) -> Self {
        Defaults {
            health_timeout_seconds: baseline.health_timeout_seconds,
            watch_seconds: baseline.watch_seconds,
        }
    }
}

/// A request that every task of a deployment has to answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Smoke {
    /// The path that is asked with GET.
    pub path: String,
    /// The status of the right answer.
    pub status: u32,
    /// A text that the right answer contains.
    pub contains: Option<String>,
}

/// That a person approves a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Approve {
    /// Seconds after which it has failed without an approval.
    pub timeout_seconds: u32,
}

/// What runs once before a deployment is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Release {
    /// What the container runs.
    pub command: Vec<String>,
    /// Seconds after which it is stopped.
    pub timeout_seconds: u32,
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
    /// What a push runs, whose input names nothing but the id: the settings and the defaults. Which task definition a
    /// base is, is not known before the deployment, so that only the name of the base is checked.
    ///
    /// # Errors
    /// `InvalidSettings` when every push would be refused.
    pub fn of_push(settings: Document, environment: &Environment) -> Result<Self, StepError> {
        let id = format!("{environment}-20000101-000000Z").parse();
        let input = Input {
            deployment_id: id.map_err(|why| settings.source.error(why))?,
            image_digest: None,
            despite_alarms: false,
            fields: Fields::default(),
        };
        base_of(&input, Some(&settings), environment)?;
        let of_the_template = Defaults {
            health_timeout_seconds: defaults::HEALTH_TIMEOUT_SECONDS,
            watch_seconds: defaults::WATCH_SECONDS,
        };
        Self::of(input, Some(settings), None, of_the_template)
    }

    /// Merges the input with the settings, and both with the defaults, or with `base`: the task definition that
    /// [`base_of`] names, as AWS describes it. `otherwise` are the defaults of the environment.
    ///
    /// # Errors
    /// `InvalidInput` or `InvalidSettings` when a field that is right by itself does not go with another, or with the
    /// base: of the source that the field comes from.
    pub fn of(
        input: Input,
        settings: Option<Document>,
        base: Option<&Value>,
        otherwise: Defaults,
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
        let base = base.map(Base::read).transpose();
        let base = base.map_err(|why| source(named.base.is_some()).refused("base", why))?;
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
        if let Some(base) = &base {
            for (field, own, named, other) in [
                ("environment", &environment, &named.environment, "secrets"),
                ("secrets", &secrets, &named.secrets, "environment"),
            ] {
                let of_base = base.names(other);
                if let Some(name) = own.keys().find(|name| of_base.contains(name.as_str())) {
                    let is_named = named.as_ref().is_some_and(|it| it.contains_key(name));
                    return Err(source(is_named).refused(
                        &format!("{field}.{}", printable(name, 64)),
                        format!("is also in `{other}` of the base, and a variable has one value"),
                    ));
                }
            }
            let own = json!([environment, secrets, fields.command, fields.entry_point]);
            let bytes = base.bytes() + own.to_string().len();
            if bytes > MAX_TASK_DEFINITION_BYTES {
                let why = format!(
                    "takes {bytes} bytes with what is added; ECS allows {MAX_TASK_DEFINITION_BYTES}"
                );
                return Err(source(named.base.is_some()).refused("base", why));
            }
        }
        let desired_count = fields.desired_count.unwrap_or(defaults::DESIRED_COUNT);
        if let Some(scaling) = &fields.scaling {
            check_scaling_count(scaling, fields.desired_count).map_err(|(field, why)| {
                source(named.scaling.is_some() || named.desired_count.is_some())
                    .refused(&field, why)
            })?;
        }
        let (cpu, memory) = match &fields.base {
            // What is absent is as the base says.
            Some(_) => (fields.cpu, fields.memory),
            None => {
                let cpu = fields.cpu.unwrap_or(defaults::CPU);
                // With a given CPU size, the least memory that Fargate offers with it.
                let least = || fargate::least_memory(cpu).unwrap_or(defaults::MEMORY);
                (Some(cpu), Some(fields.memory.unwrap_or_else(least)))
            }
        };
        let is_named = named.cpu.is_some() || named.memory.is_some();
        check_size(cpu, memory, base.as_ref())
            .map_err(|(field, why)| source(is_named).refused(field, why))?;
        let release = match fields.release {
            None => None,
            Some(release) => Some(Release {
                command: release.command.ok_or_else(|| {
                    source(named.release.is_some()).refused(
                        "release.command",
                        "is needed, because it is what runs; give it, or leave `release` out",
                    )
                })?,
                timeout_seconds: release
                    .timeout_seconds
                    .unwrap_or(defaults::RELEASE_TIMEOUT_SECONDS),
            }),
        };
        let watch = fields.watch.unwrap_or_default();
        let watch_seconds = watch.seconds.unwrap_or(otherwise.watch_seconds);
        check_watch_lasts(&watch, Some(watch_seconds))
            .map_err(|(field, why)| source(named.watch.is_some()).refused(&field, why))?;
        let health = fields.health.unwrap_or_default();
        let timeout_seconds = health
            .timeout_seconds
            .unwrap_or(otherwise.health_timeout_seconds);
        Ok(Deployment {
            deployment_id: input.deployment_id,
            desired_count,
            parity: named.desired_count.is_none(),
            cpu,
            memory,
            environment,
            secrets,
            base: base.map(|base| base.arn.to_owned()),
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
            release,
            scaling: fields.scaling,
            watch: Watch {
                seconds: watch_seconds,
                alarms: watch.alarms.unwrap_or_default(),
                errors: watch.errors.and_then(|errors| {
                    Some(FailedShare {
                        percent: errors.percent?,
                        at_least: errors
                            .at_least
                            .unwrap_or(defaults::FAILED_REQUESTS_AT_LEAST),
                    })
                }),
                on_breach: watch.on_breach.unwrap_or(OnBreach::RollBack),
            },
            smoke: smoke_of(fields.smoke),
            hooks: fields.hooks.unwrap_or_default(),
            approve: fields.approve.map(|approve| Approve {
                timeout_seconds: approve
                    .timeout_seconds
                    .unwrap_or(defaults::APPROVAL_TIMEOUT_SECONDS),
            }),
        })
    }
}

fn smoke_of(tests: Option<Vec<SmokeFields>>) -> Vec<Smoke> {
    let with_status = |test: SmokeFields| Smoke {
        path: test.path,
        status: test.status.unwrap_or(defaults::SMOKE_STATUS),
        contains: test.contains,
    };
    tests.into_iter().flatten().map(with_status).collect()
}

/// The family that the deployment copies, if it copies one, and where it is named.
///
/// # Errors
/// `InvalidInput` or `InvalidSettings` when it is one that deployments of the environment make.
pub fn base_of<'a>(
    input: &'a Input,
    settings: Option<&'a Document>,
    environment: &Environment,
) -> Result<Option<(&'a str, &'a Source)>, StepError> {
    let named = input.fields.base.as_deref().map(|it| (it, &Source::Input));
    let named = named.or_else(|| {
        let settings = settings?;
        Some((settings.fields.base.as_deref()?, &settings.source))
    });
    match named {
        Some((family, source)) if task_definition::is_of_deployments(environment, family) => {
            let why = format!(
                "{family} is a family of the deployments themselves; name one that your team registers"
            );
            Err(source.refused("base", why))
        }
        named => Ok(named),
    }
}

/// Checks the size of a task, which is that of the base where it is absent.
fn check_size(
    cpu: Option<u32>,
    memory: Option<u32>,
    base: Option<&Base<'_>>,
) -> Result<(), (&'static str, String)> {
    let whole_cpu = cpu.or(base.and_then(|base| base.cpu));
    let whole_memory = memory.or(base.and_then(|base| base.memory));
    let (Some(whole_cpu), Some(whole_memory)) = (whole_cpu, whole_memory) else {
        let Some(base) = base else { return Ok(()) };
        let field = if whole_cpu.is_none() { "cpu" } else { "memory" };
        let why = format!("is needed, because {} does not say it", base.arn);
        return Err((field, why));
    };
    fargate::check(whole_cpu, whole_memory)?;
    base.map_or(Ok(()), |base| base.check_fits(whole_cpu, whole_memory))
        .map_err(|why| match (cpu, memory) {
            (None, None) => ("base", why),
            (Some(_), None) => ("cpu", why),
            _ => ("memory", why),
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use lifecycle::ErrorName;

    fn merged(input: Value, settings: Option<Value>) -> Result<Deployment, StepError> {
        merged_with(input, settings, None)
    }

    fn merged_with(
        input: Value,
        settings: Option<Value>,
        base: Option<&Value>,
    ) -> Result<Deployment, StepError> {
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
        Deployment::of(input, settings, base, Defaults::of(&baseline))
    }

    #[test]
    fn the_id_alone_is_enough() {
        let deployment = merged(json!({}), None).unwrap();
        assert_eq!(
            (deployment.desired_count, deployment.cpu, deployment.memory),
            (2, Some(256), Some(512))
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
    fn as_many_tasks_at_most_as_at_least_are_accepted() {
        let scaling = json!({"desiredCount": 3, "scaling": {"max": 3, "cpuPercent": 60}});
        assert_eq!(merged(scaling, None).unwrap().desired_count, 3);
    }

    #[test]
    fn a_cpu_size_alone_brings_the_least_memory_that_goes_with_it() {
        let deployment = merged(json!({"cpu": 2048}), None).unwrap();
        assert_eq!(deployment.memory, Some(4096));
    }

    #[test]
    fn the_input_beats_the_settings_field_by_field_and_variables_name_by_name() {
        let settings = json!({
            "desiredCount": 4, "cpu": 512, "memory": 2048,
            "environment": {"A": "settings", "B": "settings"},
            "secrets": {"S": "/settings", "T": "/settings"},
            "command": ["settings"],
            "health": {"path": "/up", "timeoutSeconds": 300},
            "release": {"command": ["migrate"], "timeoutSeconds": 60},
        });
        let input = json!({
            "desiredCount": 3,
            "release": {"timeoutSeconds": 90},
            "environment": {"B": "input", "C": "input"},
            "secrets": {"T": "/input"},
            "health": {"graceSeconds": 90},
        });
        let deployment = merged(input, Some(settings)).unwrap();
        assert_eq!(deployment.desired_count, 3);
        assert_eq!((deployment.cpu, deployment.memory), (Some(512), Some(2048)));
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
        assert_eq!(
            json!(deployment.release),
            json!({"command": ["migrate"], "timeoutSeconds": 90})
        );
    }

    #[test]
    fn what_a_candidate_has_to_pass_has_defaults_and_lists_are_replaced_as_a_whole() {
        let none = merged(json!({}), None).unwrap();
        assert!(none.smoke.is_empty() && none.hooks.is_empty());
        assert_eq!(none.approve, None);

        let settings = json!({
            "smoke": [{"path": "/"}, {"path": "/up?x=1", "status": 204, "contains": "ok"}],
            "hooks": ["one", "two"],
            "approve": {},
        });
        let of_settings = merged(json!({}), Some(settings.clone())).unwrap();
        assert_eq!(
            json!(of_settings.smoke),
            json!([
                {"path": "/", "status": 200, "contains": null},
                {"path": "/up?x=1", "status": 204, "contains": "ok"},
            ])
        );
        assert_eq!(of_settings.hooks, ["one", "two"]);
        assert_eq!(json!(of_settings.approve), json!({"timeoutSeconds": 3600}));

        let input = json!({"smoke": [], "hooks": ["three"], "approve": {"timeoutSeconds": 60}});
        let of_input = merged(input, Some(settings)).unwrap();
        assert!(of_input.smoke.is_empty());
        assert_eq!(of_input.hooks, ["three"]);
        assert_eq!(json!(of_input.approve), json!({"timeoutSeconds": 60}));

        let settings = json!({"approve": {"timeoutSeconds": 90}});
        let kept = merged(json!({"approve": {}}), Some(settings)).unwrap();
        assert_eq!(json!(kept.approve), json!({"timeoutSeconds": 90}));
    }

    #[test]
    fn what_does_not_go_together_is_refused_at_the_source_that_can_change_it() {
        for (input, settings, name, why) in [
            (
                json!({}),
                json!({"release": {"timeoutSeconds": 60}}),
                ErrorName::InvalidSettings,
                "`release.command`: is needed",
            ),
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

    /// What a push would run with this document.
    fn pushed(settings: &Value) -> Result<Deployment, StepError> {
        let environment = "test".parse().expect("a name");
        let document = Document::read(&environment, None, &settings.to_string())?;
        Deployment::of_push(document, &environment)
    }

    #[test]
    fn a_push_runs_what_the_first_step_makes_of_an_input_that_names_only_the_id() {
        for settings in [
            json!({}),
            json!({"desiredCount": 4, "cpu": 512, "scaling": {"max": 4, "cpuPercent": 60}}),
            json!({"base": "web", "cpu": 512, "release": {"command": ["migrate"]}}),
        ] {
            let pushed = pushed(&settings).expect("right");
            let expected = merged(json!({}), Some(settings)).expect("right");
            let deployment_id = pushed.deployment_id.clone();
            assert_eq!(deployment_id.environment().as_str(), "test");
            assert_eq!(
                pushed,
                Deployment {
                    deployment_id,
                    ..expected
                }
            );
        }
    }

    #[test]
    fn settings_that_only_an_input_could_complete_are_refused_for_a_push() {
        for (settings, input, words) in [
            (
                json!({"release": {"timeoutSeconds": 60}}),
                json!({"release": {"command": ["migrate"]}}),
                ["`release.command`: is needed", "leave `release` out"],
            ),
            (
                json!({"scaling": {"max": 1, "cpuPercent": 60}}),
                json!({"desiredCount": 1}),
                [
                    "`scaling.max`: is 1, and `desiredCount`, the least number of tasks, is 2 by default",
                    "raise `scaling.max`",
                ],
            ),
            (
                json!({"memory": 8192}),
                json!({"cpu": 1024}),
                [
                    "`memory`: Fargate does not offer 8192 MiB with cpu 256",
                    "8192 MiB goes with cpu 1024, 2048, 4096",
                ],
            ),
            (
                json!({"base": "test-app"}),
                json!({"base": "web"}),
                [
                    "`base`: test-app is a family of the deployments",
                    "your team",
                ],
            ),
            (
                json!({"base": "test-release"}),
                json!({"base": "web"}),
                [
                    "`base`: test-release is a family of the deployments",
                    "your team",
                ],
            ),
        ] {
            merged(input, Some(settings.clone())).expect("an input completes it");
            let error = pushed(&settings).expect_err("a push has no input");
            assert_eq!(error.name, ErrorName::InvalidSettings, "{error}");
            for words in words {
                assert!(error.message.contains(words), "{error}");
            }
        }
    }

    fn base() -> Value {
        json!({
            "taskDefinitionArn": "arn:aws:ecs:us-east-1:1:task-definition/web:3", "networkMode": "awsvpc",
            "cpu": "2048", "memory": "8192",
            "containerDefinitions": [{
                "name": "app", "memory": 4096,
                "environment": [{"name": "A", "value": "base"}, {"name": "DRAIN_SECRET", "value": "base"}],
                "secrets": [{"name": "S", "valueFrom": "/base"}],
            }],
        })
    }

    #[test]
    fn what_is_absent_is_as_the_base_says_and_its_revision_is_pinned() {
        let settings = json!({"base": "web"});
        let deployment = merged_with(json!({}), Some(settings), Some(&base())).unwrap();
        assert_eq!((deployment.cpu, deployment.memory), (None, None));
        assert_eq!(
            deployment.base.as_deref(),
            Some("arn:aws:ecs:us-east-1:1:task-definition/web:3")
        );
        let input = json!({"base": "web", "cpu": 4096, "environment": {"A": "input"}});
        let deployment = merged_with(input, None, Some(&base())).unwrap();
        assert_eq!((deployment.cpu, deployment.memory), (Some(4096), None));
        assert_eq!(json!(deployment.environment), json!({"A": "input"}));
    }

    #[test]
    fn the_base_that_is_read_is_that_of_the_input_else_of_the_settings() {
        let baseline = Baseline::for_tests();
        let now = time::macros::utc_datetime!(2025-10-27 13:00:00);
        let input = |base: Value| {
            let input = json!({"deploymentId": "test-20251027-122112Z", "base": base});
            Input::read(input, &baseline, now).unwrap()
        };
        let settings = |text: &str| Document::read(&baseline.environment, Some(7), text).unwrap();
        let (with, without) = (settings(r#"{"base": "web"}"#), settings("{}"));
        let of = |input: &Input, settings: Option<&Document>| {
            base_of(input, settings, &baseline.environment)
                .unwrap()
                .map(|(family, source)| (family.to_owned(), source.clone()))
        };
        let named = input(json!("own"));
        assert_eq!(of(&named, Some(&with)), Some(("own".into(), Source::Input)));
        let unnamed = input(Value::Null);
        let of_settings = ("web".into(), with.source.clone());
        assert_eq!(of(&unnamed, Some(&with)), Some(of_settings));
        assert_eq!(of(&unnamed, Some(&without)), None);
        assert_eq!(of(&unnamed, None), None);
    }

    #[test]
    fn a_copy_may_have_as_many_bytes_as_a_task_definition() {
        let added = r#"[{},{},["serve"],null]"#;
        for (bytes, is_accepted) in [(65_536, true), (65_537, false)] {
            let mut base = base();
            base["more"] = json!("");
            let rest = bytes - added.len() - base.to_string().len();
            base["more"] = json!("x".repeat(rest));
            let input = json!({"base": "web", "command": ["serve"]});
            let deployment = merged_with(input, None, Some(&base));
            assert_eq!(deployment.is_ok(), is_accepted, "{bytes}");
        }
    }

    #[test]
    fn what_does_not_go_with_the_base_is_refused_at_the_source_that_can_change_it() {
        let (input, settings) = (ErrorName::InvalidInput, ErrorName::InvalidSettings);
        let by = |change: fn(&mut Value)| {
            let mut base = base();
            change(&mut base);
            base
        };
        for (more, base, name, why) in [
            (
                json!({"secrets": {"A": "/a"}}),
                base(),
                input,
                "`secrets.A`: is also in `environment` of the base",
            ),
            (
                json!({"environment": {"S": "x"}}),
                base(),
                input,
                "`environment.S`: is also in `secrets` of the base",
            ),
            (json!({"cpu": 256}), base(), input, "8192 MiB with cpu 256"),
            (
                json!({"cpu": 512, "memory": 2048}),
                base(),
                input,
                "`memory`: the containers",
            ),
            (
                json!({"cpu": 1024}),
                by(|base| base["containerDefinitions"][0]["cpu"] = json!(2048)),
                input,
                "`cpu`: the containers",
            ),
            (
                json!({}),
                by(|base| base["cpu"] = Value::Null),
                settings,
                "`cpu`: is needed",
            ),
            (
                json!({}),
                by(|base| base["networkMode"] = json!("host")),
                settings,
                "`base`: the task definition arn",
            ),
            (
                json!({}),
                by(|base| base["containerDefinitions"][0]["memory"] = json!(9000)),
                settings,
                "`base`: the containers",
            ),
            (
                json!({}),
                by(|base| base["more"] = json!("x".repeat(66_000))),
                settings,
                "ECS allows 65536",
            ),
        ] {
            let document = Some(json!({"base": "web"}));
            let error = merged_with(more, document, Some(&base)).unwrap_err();
            assert_eq!(error.name, name, "{error}");
            assert!(error.message.contains(why), "{error}");
        }
    }
}
