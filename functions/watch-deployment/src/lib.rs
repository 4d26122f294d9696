//! Watches a deployment that has just gone live, one look at each call, and has it rolled back when it is bad.
//!
//! The rollback is an execution of the rollback machine, with the deployment that it takes back in its input. So it
//! changes nothing if another deployment is active by then, which may be the cure. Its name is made of the deployment's
//! id, so that it is started once, however often this step is tried.
//!
//! What cannot be read is not a verdict: the deployment stays, and the output says what was not watched.

mod breach;
mod rollback;

use lifecycle::printable::{MAX_TEXT, printable};
use lifecycle::routing::DefaultAction;
use lifecycle::tags::{self, Tags};
use lifecycle::{
    Baseline, Clock, DeploymentId, ErrorName, StepError, defaults, target_group, variables,
};
use serde::{Deserialize, Serialize};
use settings::{OnBreach, Watch, object};
use time::{Duration, UtcDateTime};

use breach::{Breach, Found};

/// The deployment to watch, and what the look before has found.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Input {
    /// The deployment.
    pub deployment_id: DeploymentId,
    /// The ARN of its target group.
    pub target_group_arn: String,
    /// How it is watched.
    #[serde(deserialize_with = "object::required")]
    pub watch: Watch,
    /// The alarms that rang before it was made. They are not watched.
    #[serde(default)]
    pub accepted_alarms: Vec<String>,
    /// How many tasks it should have.
    pub desired_count: Option<u32>,
    /// The deployment that it replaced.
    pub previous_deployment_id: Option<DeploymentId>,
    /// How long ago traffic was switched to it.
    pub watched_seconds: u32,
    /// Whether the look before found no healthy target, as its [`Output::unhealthy`] said.
    #[serde(default)]
    pub unhealthy_before: bool,
    /// The rollback that an earlier look has started, as its [`Output::rollback`] said.
    #[serde(default, deserialize_with = "object::optional")]
    pub rollback: Option<Rollback>,
}

/// A rollback that the watch has started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rollback {
    /// The ARN of the execution of the rollback machine.
    pub execution_arn: String,
    /// What was found, in a sentence.
    pub breach: String,
}

/// What the state machine decides by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// Nothing is wrong so far; look again after [`Output::next_look_seconds`].
    Watching,
    /// Its time is over and nothing was wrong.
    Proven,
    /// It is not active any more, or a rollback is about to take it back, so there is nothing to watch.
    Over,
    /// It is bad, and the rollback that takes it back is under way; look again.
    RollingBack,
    /// It was taken back.
    RolledBack,
    /// It is bad, and its settings ask only for a report.
    Reported,
    /// It is bad, and could not be taken back. Traffic is on it.
    Unhealthy,
}

/// The verdict of one look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// The verdict, by which the state machine decides.
    pub verdict: Verdict,
    /// When to look again, if it goes on: one of [`LOOK_AGAIN`], [`LOOK_CLOSELY`] and [`LOOK_ON`].
    pub next_look_seconds: u32,
    /// Whether it has no healthy target at this look.
    pub unhealthy: bool,
    /// The rollback that takes it back, if one was started.
    pub rollback: Option<Rollback>,
    /// What is not watched, and why, a sentence for each.
    pub not_watched: Vec<String>,
    /// Why, in words that an operator can act on.
    pub reason: String,
}

/// Seconds until the second look at a deployment without a healthy target: long enough that the two are not one moment.
pub const LOOK_AGAIN: u32 = 5;
/// Seconds between two looks at first, when most bad versions show it.
pub const LOOK_CLOSELY: u32 = 15;
/// Seconds between two looks later, so that a long watch costs little.
pub const LOOK_ON: u32 = 30;
/// How long a deployment is watched closely.
const CLOSELY_FOR_SECONDS: u32 = 120;

/// What the step is told by its environment variables.
#[derive(Debug, Clone)]
pub struct Config {
    /// The baseline's resources.
    pub baseline: Baseline,
    /// The machine that rolls back.
    pub rollback_machine_arn: String,
}

impl Config {
    /// Reads it through `variable`, which gives the value of an environment variable.
    ///
    /// # Errors
    /// `Configuration`, naming the first variable that is missing or wrong.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, StepError> {
        Ok(Config {
            baseline: Baseline::read(&variable)?,
            rollback_machine_arn: variables::required(&variable, "ROLLBACK_MACHINE_ARN")?,
        })
    }
}

/// The clients of the step.
#[derive(Debug, Clone)]
pub struct Clients {
    /// For alarms and failed requests.
    pub cloudwatch: aws_sdk_cloudwatch::Client,
    /// For its tasks.
    pub ecs: aws_sdk_ecs::Client,
    /// For what is active, and the health of targets.
    pub elb: aws_sdk_elasticloadbalancingv2::Client,
    /// For the last log lines of a task that crashed.
    pub logs: aws_sdk_cloudwatchlogs::Client,
    /// For the rollback.
    pub sfn: aws_sdk_sfn::Client,
}

/// Looks once.
///
/// # Errors
/// As [`lifecycle::aws_error::CODES`] say, when it cannot be read what is active, how its tasks are, or where its
/// rollback stands. What CloudWatch does not show is not an error, and a rollback that cannot be started is a verdict.
pub async fn run(
    clients: &Clients,
    config: &Config,
    clock: Clock<'_>,
    input: Input,
) -> Result<Output, StepError> {
    let look = Look {
        clients,
        config,
        clock,
        input: &input,
    };
    let looked = look.run().await;
    looked.map_err(|error| error.with_deployment(&input.deployment_id))
}

struct Look<'a> {
    clients: &'a Clients,
    config: &'a Config,
    clock: Clock<'a>,
    input: &'a Input,
}

impl Look<'_> {
    async fn run(&self) -> Result<Output, StepError> {
        if let Some(rollback) = &self.input.rollback {
            return self.follow(rollback).await;
        }
        let id = &self.input.deployment_id;
        let (default_action, tags) = self.what_is_active().await?;
        if default_action.active() != Some(id) {
            return Ok(self.moved(&default_action, tags.as_ref(), None));
        }
        // A rollback marks a deployment before it moves the traffic. One that has died may leave its mark.
        let now = (self.clock)();
        let marked = tags
            .as_ref()
            .and_then(|tags| tags::time(tags, tags::ROLLED_BACK_AT, now));
        if marked.is_some_and(|at| now - at < defaults::SWITCHED_WITHIN) {
            let reason = format!("a rollback is about to take {id} back");
            return Ok(self.look_again_in(LOOK_CLOSELY, reason));
        }
        if self.input.watch.seconds == 0 {
            return self.prove(Vec::new()).await;
        }
        match self.breach().await? {
            Found::Breach(breach) => self.act(breach).await,
            Found::NoHealthyTarget => {
                let reason = format!("{id} has no healthy target at this look");
                Ok(Output {
                    unhealthy: true,
                    ..self.look_again_in(LOOK_AGAIN, reason)
                })
            }
            Found::Nothing { not_watched } if self.is_over() => self.prove(not_watched).await,
            Found::Nothing { not_watched } => {
                let watched = self.input.watched_seconds;
                let seconds = match watched < CLOSELY_FOR_SECONDS {
                    true => LOOK_CLOSELY,
                    false => LOOK_ON,
                };
                let reason = format!(
                    "{id} has been live for {watched} s of {} s, and nothing is wrong",
                    self.input.watch.seconds
                );
                Ok(Output {
                    not_watched,
                    ..self.look_again_in(seconds, reason)
                })
            }
        }
    }

    fn is_over(&self) -> bool {
        self.input.watched_seconds >= self.input.watch.seconds
    }

    /// When traffic was switched to it.
    fn switched_at(&self) -> UtcDateTime {
        (self.clock)() - Duration::seconds(self.input.watched_seconds.into())
    }

    /// The default action, and then the tags of the deployment, if it still exists. In this order, because a rollback
    /// marks what it takes back before it moves the traffic.
    async fn what_is_active(&self) -> Result<(DefaultAction, Option<Tags>), StepError> {
        let elb = &self.clients.elb;
        let default_action = DefaultAction::read(elb, &self.config.baseline).await?;
        let tags = tags::read_one(elb, &self.input.target_group_arn).await?;
        Ok((default_action, tags))
    }

    /// Notes that the deployment was found well.
    async fn prove(&self, not_watched: Vec<String>) -> Result<Output, StepError> {
        let arn = &self.input.target_group_arn;
        target_group::tag_unless_gone(&self.clients.elb, arn, tags::PROVEN_AT, self.clock).await?;
        let id = &self.input.deployment_id;
        let reason = match self.input.watch.seconds {
            0 => format!("{id} is not watched, as its settings say"),
            seconds => format!("{id} was watched for {seconds} s, and nothing was wrong"),
        };
        Ok(Output {
            not_watched,
            ..output(Verdict::Proven, reason)
        })
    }

    /// Does what the settings say of a deployment that is bad.
    async fn act(&self, found: Breach) -> Result<Output, StepError> {
        let Input {
            deployment_id: id,
            watched_seconds: seconds,
            ..
        } = self.input;
        let breach = format!("{id} was live for {seconds} s; {}", found.why);
        match self.input.watch.on_breach {
            OnBreach::Tell => {
                let reason = format!("{breach}; traffic stays on it, as its settings say");
                Ok(output(Verdict::Reported, reason))
            }
            OnBreach::RollBack => {
                let started = self.roll_back(&breach, found.has_lost_health).await;
                started.or_else(|error| self.not_rolled_back(&breach, &error))
            }
        }
    }

    /// The verdict when the rollback could not be started. What may pass is tried again at the next look.
    fn not_rolled_back(&self, breach: &str, error: &StepError) -> Result<Output, StepError> {
        let why = format!(
            "{breach}; its rollback could not be started: {}",
            error.message
        );
        Ok(match error.name {
            ErrorName::Transient => Output {
                unhealthy: self.input.unhealthy_before,
                ..self.look_again_in(LOOK_CLOSELY, why)
            },
            _ => output(Verdict::Unhealthy, why),
        })
    }

    /// The verdict when another deployment is active, or none. `breach` is what the watch found before.
    fn moved(
        &self,
        default_action: &DefaultAction,
        tags: Option<&Tags>,
        breach: Option<&str>,
    ) -> Output {
        let id = &self.input.deployment_id;
        let so_far = match breach {
            Some(breach) => breach.to_owned(),
            None => format!("{id} was live for {} s", self.input.watched_seconds),
        };
        let Some(active) = default_action.active() else {
            let why =
                format!("{so_far}; no deployment is active any more, as an operator has decided");
            return output(Verdict::Over, why);
        };
        // A cleanup deletes what was taken back with its visitors as soon as that has settled.
        let is_taken_back = tags.is_none_or(|tags| tags.contains_key(tags::ROLLED_BACK_AT));
        if active < id && is_taken_back {
            let why = match breach {
                Some(_) => format!("{so_far}; {active} is live again"),
                None => {
                    format!("{so_far}; another rollback took it back, and {active} is live again")
                }
            };
            return output(Verdict::RolledBack, why);
        }
        let why = match active > id {
            true => format!("{so_far}; {active}, which is newer, has replaced it"),
            false => format!("{so_far}; {active} was made active without a rollback"),
        };
        output(Verdict::Over, why)
    }

    fn look_again_in(&self, seconds: u32, reason: String) -> Output {
        Output {
            next_look_seconds: seconds,
            ..output(Verdict::Watching, reason)
        }
    }
}

fn output(verdict: Verdict, reason: String) -> Output {
    Output {
        verdict,
        next_look_seconds: LOOK_CLOSELY,
        unhealthy: false,
        rollback: None,
        not_watched: Vec::new(),
        // It contains log lines and causes of executions, which may have any length.
        reason: printable(&reason, MAX_TEXT),
    }
}

#[cfg(test)]
mod tests;
