//! Lists every deployment of the environment with its state and what is due for it.
//!
//! [`facts`] reads what exists, in as few calls as AWS's batch limits allow. [`plan`] decides without a
//! call, so that a dry run and a real one cannot differ. Unless it is a dry run, [`observations`] leaves what
//! this sweep has seen for the next one, in tags. Nothing else changes.

pub mod executions;
pub mod facts;
pub mod observations;
pub mod plan;

use lifecycle::{Clock, StepError, defaults, variables};
use serde::{Deserialize, Serialize};
use time::Duration;

pub use plan::{Action, MissingRules, Plan, Planned, Repair, State};

/// The input of the cleanup machine, from an operator, the schedule or `make destroy`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Input {
    /// Only report what would be done. Passed on to the output; without it, this function writes tags.
    #[serde(default)]
    pub dry_run: bool,
    /// Delete every deployment of the environment that the default action does not name.
    #[serde(default)]
    pub remove_everything: bool,
}

/// The plan, and whether it is to be carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// As in the input.
    pub dry_run: bool,
    /// What exists and what is due.
    #[serde(flatten)]
    pub plan: Plan,
}

/// What the function knows of its environment, read once at start.
#[derive(Debug, Clone)]
pub struct Config {
    /// The baseline's resources.
    pub baseline: lifecycle::Baseline,
    /// The deploy state machine.
    pub state_machine_arn: String,
    /// How many previous deployments stay warm.
    pub keep_previous: usize,
    /// From the start of draining, or from its replacement if that was later, to deleting the deployment
    /// even if it has visitors.
    pub drain_deadline: Duration,
    /// From when a deployment was replaced to when it begins to drain; and from the creation of a part to
    /// when its execution must be listed.
    pub settle: Duration,
}

impl Config {
    /// Reads it through `variable`, which gives the value of an environment variable.
    ///
    /// # Errors
    /// `Configuration`, naming the first variable that is missing or wrong.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, StepError> {
        let seconds = |name, default| variables::seconds(&variable, name, default);
        let keep_previous = variables::number(&variable, "KEEP_PREVIOUS", defaults::KEEP_PREVIOUS)?;
        Ok(Config {
            baseline: lifecycle::Baseline::read(&variable)?,
            state_machine_arn: variables::required(&variable, "STATE_MACHINE_ARN")?,
            keep_previous: keep_previous as usize,
            drain_deadline: seconds("DRAIN_DEADLINE_SECONDS", defaults::DRAIN_DEADLINE_SECONDS)?,
            settle: seconds("SETTLE_SECONDS", defaults::SETTLE_SECONDS)?,
        })
    }
}

/// The clients that the step reads with.
#[derive(Debug, Clone)]
pub struct Clients {
    /// For services and task definitions.
    pub ecs: aws_sdk_ecs::Client,
    /// For the listener, its rules and the target groups.
    pub elb: aws_sdk_elasticloadbalancingv2::Client,
    /// For running executions.
    pub sfn: aws_sdk_sfn::Client,
}

/// Reads what exists and plans what is due.
pub async fn run(
    clients: &Clients,
    config: &Config,
    clock: Clock<'_>,
    input: Input,
) -> Result<Output, StepError> {
    let facts = facts::read(clients, config).await?;
    let now = clock();
    let policy = plan::Policy {
        keep_previous: config.keep_previous,
        drain_deadline: config.drain_deadline,
        settle: config.settle,
        remove_everything: input.remove_everything,
    };
    if !input.dry_run {
        let seen = observations::observe(&facts, now);
        observations::record(&clients.elb, &seen, clock).await?;
    }
    Ok(Output {
        dry_run: input.dry_run,
        plan: plan::plan(&facts, &policy, now),
    })
}

#[cfg(test)]
mod tests;
