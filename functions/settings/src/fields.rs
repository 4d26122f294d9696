//! The fields that settings and input share. All are optional: what neither names has a default.

use std::collections::BTreeMap;

use lifecycle::scaling::Scaling;
use serde::Deserialize;

use crate::object;

/// What a deployment runs with, as far as one source says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fields {
    /// How many tasks to run.
    pub desired_count: Option<u32>,
    /// Fargate CPU units of a task (1024 are one vCPU).
    pub cpu: Option<u32>,
    /// MiB of a task.
    pub memory: Option<u32>,
    /// Environment variables for the application, in addition to those that the contract sets.
    pub environment: Option<BTreeMap<String, String>>,
    /// Environment variables whose values ECS reads when a task starts: the name of the variable, and the name or
    /// ARN of a parameter of Parameter Store, or the ARN of a secret of Secrets Manager, with a JSON key and a
    /// version as ECS takes them.
    pub secrets: Option<BTreeMap<String, String>>,
    /// The family of a task definition of your own, whose newest active revision is copied for all that is not named
    /// here: sidecars, volumes, roles and the like.
    pub base: Option<String>,
    /// What the container runs, in place of the image's command.
    pub command: Option<Vec<String>>,
    /// What stands before the command, in place of the image's entry point.
    pub entry_point: Option<Vec<String>>,
    /// Seconds for which a visitor stays on the same task of a deployment.
    pub stickiness: Option<u32>,
    /// How the load balancer and ECS find out that a task is well.
    #[serde(default, deserialize_with = "object::optional")]
    pub health: Option<HealthFields>,
    /// How the number of tasks follows the load, between `desiredCount` and `max`.
    pub scaling: Option<Scaling>,
    /// What runs once, in the new image, before a deployment is made.
    #[serde(default, deserialize_with = "object::optional")]
    pub release: Option<ReleaseFields>,
    /// How a deployment is watched after the switch.
    #[serde(default, deserialize_with = "object::optional")]
    pub watch: Option<WatchFields>,
    /// What every task of a candidate has to answer before traffic moves to it.
    #[serde(default, deserialize_with = "object::list")]
    pub smoke: Option<Vec<SmokeFields>>,
    /// The Lambda functions that judge a candidate before traffic moves to it, one after another: their names or ARNs.
    pub hooks: Option<Vec<String>>,
    /// That a person approves a candidate before traffic moves to it.
    #[serde(default, deserialize_with = "object::optional")]
    pub approve: Option<ApproveFields>,
}

/// How a deployment is watched after the switch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WatchFields {
    /// Seconds after the switch for which it is watched; 0 for not at all.
    pub seconds: Option<u32>,
    /// The names of CloudWatch alarms, none of which may ring.
    pub alarms: Option<Vec<String>>,
    /// Which share of its requests may fail.
    #[serde(default, deserialize_with = "object::optional")]
    pub errors: Option<ErrorFields>,
    /// What is done when it is found to be bad.
    pub on_breach: Option<OnBreach>,
}

/// Which share of a version's requests may fail.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ErrorFields {
    /// Per cent of its requests.
    pub percent: Option<u32>,
    /// How many requests it has to have answered before that is judged.
    pub at_least: Option<u32>,
}

/// What is done when a version that is watched is found to be bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, serde::Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum OnBreach {
    /// It is rolled back.
    RollBack,
    /// Traffic stays, and an event says so.
    Tell,
}

/// A request that every task of a candidate has to answer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SmokeFields {
    /// The path that is asked with GET, with a query if it needs one.
    pub path: String,
    /// The status of the right answer.
    pub status: Option<u32>,
    /// A text that the first 64 KiB of the right answer contain.
    pub contains: Option<String>,
}

/// That a person approves a candidate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApproveFields {
    /// How many seconds a candidate waits to be approved. Then it has failed.
    pub timeout_seconds: Option<u32>,
}

/// What runs once, in the new image, before a deployment is made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReleaseFields {
    /// What the container runs. Its entry point stays in front.
    pub command: Option<Vec<String>>,
    /// Seconds after which it is stopped and the deployment has failed.
    pub timeout_seconds: Option<u32>,
}

/// How the load balancer and ECS find out that a task is well.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HealthFields {
    /// The path that the load balancer asks.
    pub path: Option<String>,
    /// Seconds for which ECS does not stop a task that fails its health checks.
    pub grace_seconds: Option<u32>,
    /// Seconds that a candidate has to become healthy.
    pub timeout_seconds: Option<u32>,
}

impl Fields {
    /// These fields, and where they are absent those of `defaults`: field by field; variables and secrets name by
    /// name.
    pub fn or(self, defaults: Fields) -> Fields {
        Fields {
            desired_count: self.desired_count.or(defaults.desired_count),
            cpu: self.cpu.or(defaults.cpu),
            memory: self.memory.or(defaults.memory),
            environment: by_name(self.environment, defaults.environment),
            secrets: by_name(self.secrets, defaults.secrets),
            base: self.base.or(defaults.base),
            command: self.command.or(defaults.command),
            entry_point: self.entry_point.or(defaults.entry_point),
            stickiness: self.stickiness.or(defaults.stickiness),
            health: match (self.health, defaults.health) {
                (Some(own), Some(defaults)) => Some(HealthFields {
                    path: own.path.or(defaults.path),
                    grace_seconds: own.grace_seconds.or(defaults.grace_seconds),
                    timeout_seconds: own.timeout_seconds.or(defaults.timeout_seconds),
                }),
                (own, defaults) => own.or(defaults),
            },
            release: match (self.release, defaults.release) {
                (Some(own), Some(defaults)) => Some(ReleaseFields {
                    command: own.command.or(defaults.command),
                    timeout_seconds: own.timeout_seconds.or(defaults.timeout_seconds),
                }),
                (own, defaults) => own.or(defaults),
            },
            watch: match (self.watch, defaults.watch) {
                (Some(own), Some(defaults)) => Some(WatchFields {
                    seconds: own.seconds.or(defaults.seconds),
                    alarms: own.alarms.or(defaults.alarms),
                    // As a whole: the two numbers belong together.
                    errors: own.errors.or(defaults.errors),
                    on_breach: own.on_breach.or(defaults.on_breach),
                }),
                (own, defaults) => own.or(defaults),
            },
            // As a whole: what is kept is one or the other.
            scaling: self.scaling.or(defaults.scaling),
            // The lists as a whole too: an empty one asks for nothing.
            smoke: self.smoke.or(defaults.smoke),
            hooks: self.hooks.or(defaults.hooks),
            approve: match (self.approve, defaults.approve) {
                (Some(own), Some(defaults)) => Some(ApproveFields {
                    timeout_seconds: own.timeout_seconds.or(defaults.timeout_seconds),
                }),
                (own, defaults) => own.or(defaults),
            },
        }
    }
}

type Named = Option<BTreeMap<String, String>>;

fn by_name(own: Named, defaults: Named) -> Named {
    match (own, defaults) {
        (Some(own), Some(mut all)) => {
            all.extend(own);
            Some(all)
        }
        (own, defaults) => own.or(defaults),
    }
}
