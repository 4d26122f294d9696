//! Drains a deployment: asks every task, by its private address, to take nobody new in, and says
//! whether anybody is left.
//!
//! A task that was asked stays drained for as long as it runs, so the mark on the target group is
//! written before any is asked, and a rollback that wants the deployment back sees it and starts
//! fresh tasks. What a rollback or a switch did since is looked at once more after the mark: of the
//! two, at least one sees the other.
//!
//! Asking again is harmless, and drains the tasks that were started since.

pub mod ask;
mod secret;
mod service;
mod tasks;

use aws_sdk_elasticloadbalancingv2::types::Tag;
use futures_util::future::join_all;
use lifecycle::aws_error::failed;
use lifecycle::printable::{MOST_OF_A_TEXT, first_of, printable};
use lifecycle::tags::{self, Tags};
use lifecycle::{DeploymentId, ErrorName, Settings, StepError, defaults, listener};
use serde::{Deserialize, Serialize};
use time::UtcDateTime;

use ask::{Answer, Report};

/// What is to be drained.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Input {
    /// The deployment.
    pub deployment_id: DeploymentId,
    /// Its target group, which carries its state.
    pub target_group_arn: String,
}

/// Whether anybody is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// Somebody may be on it; sweep again.
    Draining,
    /// Nobody is on it.
    Drained,
    /// Another cleanup has deleted it.
    Gone,
}

/// What this sweep found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// Whether anybody is left.
    pub verdict: Verdict,
    /// Why, in words that a person can act on.
    pub reason: String,
    /// What each task said; of very many, those that keep the deployment first.
    pub tasks: Vec<Report>,
}

/// The clients that the step works with.
#[derive(Debug, Clone)]
pub struct Clients {
    /// The service and its tasks.
    pub ecs: aws_sdk_ecs::Client,
    /// The listener and the target group's tags.
    pub elb: aws_sdk_elasticloadbalancingv2::Client,
    /// The drain secret.
    pub secrets: aws_sdk_secretsmanager::Client,
    /// The tasks themselves.
    pub http: ask::Client,
}

/// Sweeps over the deployment's tasks once.
///
/// # Errors
/// `DeploymentActive` when the deployment has to stay as it is: the default action names it, a
/// rollback to it is under way, or a person protects it; `ResourceConflict` when target group or
/// service do not carry its tags; else as [`lifecycle::aws_error::CODES`] say. A task that does not
/// answer is no error.
pub async fn run(
    clients: &Clients,
    settings: &Settings,
    now: UtcDateTime,
    input: Input,
) -> Result<Output, StepError> {
    let drain = Drain {
        clients,
        settings,
        now,
        id: &input.deployment_id,
        target_group_arn: &input.target_group_arn,
    };
    drain
        .run()
        .await
        .map_err(|error| error.of(&input.deployment_id))
}

struct Drain<'a> {
    clients: &'a Clients,
    settings: &'a Settings,
    now: UtcDateTime,
    id: &'a DeploymentId,
    target_group_arn: &'a str,
}

impl Drain<'_> {
    /// Two cleanups may be at work. The other one may have drained the deployment and deleted it since
    /// this one's plan, and then whatever fails here is no failure.
    async fn run(&self) -> Result<Output, StepError> {
        match self.sweep().await {
            Err(error) if error.name != ErrorName::DeploymentActive && self.is_gone().await => {
                Ok(Output {
                    verdict: Verdict::Gone,
                    reason: "another cleanup has deleted it".to_owned(),
                    tasks: Vec::new(),
                })
            }
            swept => swept,
        }
    }

    /// Whether neither target group nor service is there any more. Not if that cannot be read: what
    /// failed before is what is told.
    async fn is_gone(&self) -> bool {
        let Clients { ecs, elb, .. } = self.clients;
        let arn = self.target_group_arn.to_owned();
        let tags = listener::tags(elb, std::slice::from_ref(&arn)).await;
        tags.is_ok_and(|tags| tags.is_empty())
            && matches!(service::find(ecs, self.settings, self.id).await, Ok(None))
    }

    async fn sweep(&self) -> Result<Output, StepError> {
        let Clients { ecs, secrets, .. } = self.clients;
        let tags = self.tags().await?;
        self.refuse_if_kept(&tags).await?;
        let service = service::find(ecs, self.settings, self.id).await?;
        let begins = !tags.contains_key(tags::DRAINING_SINCE);
        if begins {
            self.mark(tags::DRAINING_SINCE).await?;
        }
        if service.is_some_and(|grace| grace < defaults::DRAINING_GRACE_PERIOD_SECONDS) {
            self.set_grace_period(defaults::DRAINING_GRACE_PERIOD_SECONDS)
                .await?;
        }
        let running = match service {
            Some(_) => tasks::running(ecs, self.settings, self.id).await?,
            None => Vec::new(),
        };
        if running.is_empty() {
            return Ok(Output {
                verdict: Verdict::Drained,
                reason: "no task runs any more".to_owned(),
                tasks: Vec::new(),
            });
        }
        let secret = secret::read(secrets, self.settings).await?;

        // The last moment at which nothing has happened that cannot be taken back.
        let tags = self.tags().await?;
        if let Err(refusal) = self.refuse_if_kept(&tags).await {
            self.give_way(begins).await?;
            return Err(refusal);
        }
        let mut reports = Vec::new();
        for some in running.chunks(defaults::TASKS_ASKED_AT_ONCE) {
            let asked = some
                .iter()
                .map(|task| ask::ask(&self.clients.http, task, &secret));
            reports.extend(join_all(asked).await);
        }
        let mut output = self.judge(&tags, reports).await?;
        tell_of_some(&mut output.tasks);
        Ok(output)
    }

    /// The verdict, with the mark that the next sweep judges by.
    async fn judge(&self, tags: &Tags, tasks: Vec<Report>) -> Result<Output, StepError> {
        let number = tasks.len();
        if !tasks.iter().all(Report::is_idle) {
            if tags.contains_key(tags::IDLE_SINCE) {
                self.unmark(tags::IDLE_SINCE).await?;
            }
            return Ok(Output {
                verdict: Verdict::Draining,
                reason: in_words(&tasks),
                tasks,
            });
        }
        // A mark in the future is none of a sweep's, and would count as none until then.
        let idle_since = tags::time(tags, tags::IDLE_SINCE).filter(|since| *since <= self.now);
        let (verdict, reason) = match idle_since {
            Some(since) if self.now - since >= defaults::SWEEPS_APART => (
                Verdict::Drained,
                format!(
                    "no session on {number} tasks, and none since {}",
                    tags::timestamp(since)
                ),
            ),
            since => {
                if since.is_none() {
                    self.mark(tags::IDLE_SINCE).await?;
                }
                (
                    Verdict::Draining,
                    format!("no session on {number} tasks; drained if the next sweep finds none"),
                )
            }
        };
        Ok(Output {
            verdict,
            reason,
            tasks,
        })
    }

    /// The guard: the listener is the truth, whatever tags or callers say.
    async fn refuse_if_kept(&self, tags: &Tags) -> Result<(), StepError> {
        let refused = |why: String| Err(StepError::new(ErrorName::DeploymentActive, why));
        if tags.contains_key(tags::PROTECTED) {
            return refused(format!(
                "{} is protected and is not drained; remove its tag {} first",
                self.id,
                tags::PROTECTED
            ));
        }
        if tags::is_being_restored(tags, self.now) {
            return refused(format!(
                "{} is being rolled back to and is not drained; if no rollback runs any more, remove its tag {}",
                self.id,
                tags::RESTORING_SINCE
            ));
        }
        let listener = listener::read(&self.clients.elb, &self.settings.listener_arn).await?;
        let named = listener::forwards(listener.default_actions())
            .iter()
            .filter_map(|group| {
                group
                    .target_group_arn()
                    .and_then(listener::target_group_name)
            })
            .any(|name| name == self.id.as_str());
        if named {
            return refused(format!(
                "{} carries the default traffic and is not drained; switch to another deployment first",
                self.id
            ));
        }
        Ok(())
    }

    /// Takes back what this sweep did before it met a rollback or a switch: no task was asked yet.
    async fn give_way(&self, began: bool) -> Result<(), StepError> {
        self.set_grace_period(defaults::HEALTH_CHECK_GRACE_PERIOD_SECONDS)
            .await?;
        if began {
            self.unmark(tags::DRAINING_SINCE).await?;
        }
        Ok(())
    }

    async fn set_grace_period(&self, seconds: i32) -> Result<(), StepError> {
        service::set_grace_period(&self.clients.ecs, self.settings, self.id, seconds).await
    }

    /// The target group's tags, which must be the deployment's.
    async fn tags(&self) -> Result<Tags, StepError> {
        let arn = self.target_group_arn.to_owned();
        listener::tags(&self.clients.elb, std::slice::from_ref(&arn))
            .await?
            .remove(&arn)
            .filter(|tags| tags::belong_to(tags, self.id))
            .ok_or_else(|| {
                StepError::new(
                    ErrorName::ResourceConflict,
                    format!(
                        "target group {arn} is gone or does not carry the tags of {}, so nothing is drained",
                        self.id
                    ),
                )
            })
    }

    async fn mark(&self, key: &str) -> Result<(), StepError> {
        let arn = self.target_group_arn;
        self.clients
            .elb
            .add_tags()
            .resource_arns(arn)
            .tags(
                Tag::builder()
                    .key(key)
                    .value(tags::timestamp(self.now))
                    .build(),
            )
            .send()
            .await
            .map(drop)
            .map_err(|error| failed(format_args!("tag target group {arn} with {key}"), error))
    }

    async fn unmark(&self, key: &str) -> Result<(), StepError> {
        let arn = self.target_group_arn;
        self.clients
            .elb
            .remove_tags()
            .resource_arns(arn)
            .tag_keys(key)
            .send()
            .await
            .map(drop)
            .map_err(|error| failed(format_args!("remove {key} from target group {arn}"), error))
    }
}

/// Keeps as many reports as a state machine can hold, those of tasks that are not idle first.
fn tell_of_some(tasks: &mut Vec<Report>) {
    if tasks.len() > defaults::TASKS_TOLD_OF {
        tasks.sort_by_key(Report::is_idle);
        tasks.truncate(defaults::TASKS_TOLD_OF);
    }
}

/// How many tasks that did not answer the reason names.
const NAMED_IN_THE_REASON: usize = 10;

/// Why the deployment is not idle: the sessions, and the tasks that did not say how many they have.
fn in_words(tasks: &[Report]) -> String {
    // An application may say any number.
    let sessions = tasks
        .iter()
        .filter_map(|task| task.active_sessions)
        .fold(0_u64, u64::saturating_add);
    let silent: Vec<String> = tasks
        .iter()
        .filter(|task| task.active_sessions.is_none() && task.answer != Answer::Unavailable)
        .map(|task| format!("task {}: {}", task.task_id, task.detail))
        .collect();
    let mut reason = format!("{sessions} sessions on {} tasks", tasks.len());
    if !silent.is_empty() {
        let named = first_of(silent.iter().map(String::as_str), NAMED_IN_THE_REASON);
        reason += &format!("; {named}; what does not answer ends by the drain deadline");
    }
    printable(&reason, MOST_OF_A_TEXT)
}

#[cfg(test)]
mod tests;
