//! Drains a deployment: asks every task, by its private address, to take no new visitors, and reports
//! whether any are left.
//!
//! A task that was asked to drain drains for as long as it runs. So the tag on the target group is
//! written before the first task is asked. A switch that sees it does not make the deployment live, and a
//! rollback that sees it starts fresh tasks. After it has set the tag, this step checks once more what a rollback
//! or a switch did in the meantime, and gives way. Of the two, at least one sees the other.
//!
//! Asking again is harmless, and it drains the tasks that were started since.

pub mod drain_request;
mod secret;

use aws_sdk_ecs::types::Service;
use futures_util::future::join_all;
use lifecycle::guard::{self, Intent};
use lifecycle::printable::{MAX_TEXT, first_of, printable};
use lifecycle::routing::DefaultAction;
use lifecycle::service::{self, Found};
use lifecycle::tags::{self, Tags};
use lifecycle::{Baseline, Clock, DeploymentId, ErrorName, StepError, defaults, target_group};
use serde::{Deserialize, Serialize};
use task_requests::running_tasks::{self, RunningTask};
use time::UtcDateTime;

use drain_request::{Answer, Report};
use secret::DrainSecret;

/// The deployment to drain.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Input {
    /// The deployment.
    pub deployment_id: DeploymentId,
    /// The ARN of its target group, which carries its state.
    pub target_group_arn: String,
}

/// Whether the deployment has visitors left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// It may have visitors; sweep again.
    Draining,
    /// It has none.
    Drained,
    /// Another cleanup has deleted it.
    Gone,
}

/// What this sweep found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// Whether the deployment has visitors left.
    pub verdict: Verdict,
    /// Why, in words that an operator can act on.
    pub reason: String,
    /// How each task answered. Of very many, those that keep the deployment come first and the rest is
    /// left out.
    pub tasks: Vec<Report>,
}

/// The clients that the step works with.
#[derive(Debug, Clone)]
pub struct Clients {
    /// For the service and its tasks.
    pub ecs: aws_sdk_ecs::Client,
    /// For the listener and the target group's tags.
    pub elb: aws_sdk_elasticloadbalancingv2::Client,
    /// For the drain secret.
    pub secrets: aws_sdk_secretsmanager::Client,
    /// For the tasks themselves.
    pub http: task_requests::Client,
}

/// Sweeps over the deployment's tasks once.
///
/// # Errors
/// `DeploymentActive` when the default action names the deployment; `DeploymentKept` when a rollback or a
/// switch to it is under way or an operator protects it; `ResourceConflict` when the target group or the service
/// does not carry its tags; else as [`lifecycle::aws_error::CODES`] say. A task that does not answer is
/// not an error.
pub async fn run(
    clients: &Clients,
    baseline: &Baseline,
    clock: Clock<'_>,
    input: Input,
) -> Result<Output, StepError> {
    let Input {
        deployment_id: id,
        target_group_arn,
    } = &input;
    let drain = Drain {
        clients,
        baseline,
        clock,
        id,
        target_group_arn,
    };
    drain.run().await
}

struct Drain<'a> {
    clients: &'a Clients,
    baseline: &'a Baseline,
    clock: Clock<'a>,
    id: &'a DeploymentId,
    target_group_arn: &'a str,
}

impl Drain<'_> {
    /// Sweeps, unless another cleanup has drained the deployment and deleted it since this one's plan was
    /// made. In that case a failure of the sweep does not matter.
    async fn run(&self) -> Result<Output, StepError> {
        let swept = self.sweep().await;
        let may_be_gone = |error: &StepError| {
            !matches!(
                error.name,
                ErrorName::DeploymentActive | ErrorName::DeploymentKept
            )
        };
        match swept {
            Err(error) if may_be_gone(&error) && self.is_gone().await => Ok(Output {
                verdict: Verdict::Gone,
                reason: "another cleanup has deleted it".to_owned(),
                tasks: Vec::new(),
            }),
            swept => swept,
        }
    }

    /// Whether neither the target group nor the service exists any more. Not if that cannot be read: then
    /// the earlier failure is the one to report.
    async fn is_gone(&self) -> bool {
        let Clients { ecs, elb, .. } = self.clients;
        matches!(tags::read_one(elb, self.target_group_arn).await, Ok(None))
            && matches!(
                service::look_up(ecs, self.baseline, self.id).await,
                Ok(Found::Nothing | Found::Draining { .. })
            )
    }

    async fn sweep(&self) -> Result<Output, StepError> {
        let Clients { ecs, secrets, .. } = self.clients;
        let tags = self.tags().await?;
        self.refuse_if_kept(&tags).await?;
        let service = self.service().await?;
        // A drain that gave way has asked no task, so its tag does not say since when they drain.
        if !tags.contains_key(tags::DRAINING_SINCE) || guard::gave_way(&tags) {
            self.tag(tags::DRAINING_SINCE).await?;
        }
        let running = match &service {
            Some(service) => {
                self.stop_replacing_tasks(service).await?;
                running_tasks::list(ecs, self.baseline, self.id).await?
            }
            None => Vec::new(),
        };
        if running.is_empty() {
            return self.judge_without_tasks(&tags, service.as_ref()).await;
        }
        let secret = secret::read(secrets, self.baseline).await?;

        // The last check before a change that cannot be undone.
        let tags = self.tags().await?;
        self.refuse_if_kept(&tags).await?;
        // What it met has ended, and the tasks are asked now: the tag must not say that the drain gave way.
        if guard::gave_way(&tags) {
            self.tag(tags::DRAINING_SINCE).await?;
        }
        // The sweep counts from here: what it finds is not older.
        let swept_at = (self.clock)();
        let reports = self.ask(&running, &secret).await?;
        let mut output = self.judge(&tags, reports, swept_at).await?;
        keep_what_fits(&mut output.tasks);
        Ok(output)
    }

    /// Asks every task. A task that was started before the secret was rotated refuses the current version, and is
    /// asked once more with the previous one.
    async fn ask(
        &self,
        tasks: &[RunningTask],
        secret: &DrainSecret,
    ) -> Result<Vec<Report>, StepError> {
        let all: Vec<&RunningTask> = tasks.iter().collect();
        let mut reports = self.ask_with(&all, secret).await;
        let refusing = |(_, report): &(_, &mut Report)| report.answer == Answer::Unauthorized;
        let (refusing, refused): (Vec<_>, Vec<_>) =
            tasks.iter().zip(&mut reports).filter(refusing).unzip();
        if refusing.is_empty() {
            return Ok(reports);
        }
        let secrets = &self.clients.secrets;
        if let Some(previous) = secret::read_previous(secrets, self.baseline).await? {
            let again = self.ask_with(&refusing, &previous).await;
            for (report, again) in refused.into_iter().zip(again) {
                *report = again;
            }
        }
        Ok(reports)
    }

    /// Asks these tasks, some at a time. The answers have the order of the tasks.
    async fn ask_with(&self, tasks: &[&RunningTask], secret: &DrainSecret) -> Vec<Report> {
        let http = &self.clients.http;
        let mut reports = Vec::new();
        for some in tasks.chunks(defaults::TASKS_ASKED_AT_ONCE) {
            let requests = some
                .iter()
                .map(|task| drain_request::send(http, self.id, task, secret));
            reports.extend(join_all(requests).await);
        }
        reports
    }

    /// The verdict. Sets or removes the tag by which the next sweep decides.
    async fn judge(
        &self,
        tags: &Tags,
        tasks: Vec<Report>,
        swept_at: UtcDateTime,
    ) -> Result<Output, StepError> {
        let number = tasks.len();
        if !tasks.iter().all(Report::is_idle) {
            if tags.contains_key(tags::IDLE_SINCE) {
                self.untag(tags::IDLE_SINCE).await?;
            }
            let reason = describe(&tasks);
            return Ok(Output {
                verdict: Verdict::Draining,
                reason,
                tasks,
            });
        }
        let since = tags::time(tags, tags::IDLE_SINCE, swept_at);
        if let Some(since) = since
            && swept_at - since >= defaults::SWEEPS_APART
        {
            let since = tags::timestamp(since);
            let reason = format!("no session on {number} tasks, and none since {since}");
            return Ok(Output {
                verdict: Verdict::Drained,
                reason,
                tasks,
            });
        }
        if since.is_none() {
            self.tag(tags::IDLE_SINCE).await?;
        }
        let reason = format!(
            "no session on {number} tasks; it is drained if the next sweep finds none either"
        );
        Ok(Output {
            verdict: Verdict::Draining,
            reason,
            tasks,
        })
    }

    /// The verdict when no task is listed, which may be the moment between a crash and the replacement: the
    /// next sweep has to find none either, and ECS has to count none.
    async fn judge_without_tasks(
        &self,
        tags: &Tags,
        service: Option<&Service>,
    ) -> Result<Output, StepError> {
        match service.map_or(0, Service::running_count) {
            ..=0 => self.judge(tags, Vec::new(), (self.clock)()).await,
            counted => Ok(Output {
                verdict: Verdict::Draining,
                reason: format!(
                    "ECS counts {counted} running tasks and lists none; the next sweep asks them"
                ),
                tasks: Vec::new(),
            }),
        }
    }

    /// Refuses a deployment that has to stay as it is, and gives way to what keeps it.
    async fn refuse_if_kept(&self, tags: &Tags) -> Result<(), StepError> {
        let now = (self.clock)();
        let default_action = DefaultAction::read(&self.clients.elb, self.baseline).await?;
        let refusal = Intent::Drain
            .refuse_named(self.id, &default_action)
            .and_then(|()| Intent::Drain.refuse_protected(self.id, tags))
            .and_then(|()| Intent::Drain.refuse_restored(self.id, tags, now))
            .and_then(|()| Intent::Drain.refuse_announced(self.id, tags, now));
        if refusal.is_err() {
            self.give_way(tags, default_action.is_named(self.id))
                .await?;
        }
        refusal
    }

    /// Takes back what a sweep did before it met a switch or a rollback, this sweep or an earlier one that
    /// could not finish giving way.
    ///
    /// The tag is removed only from what is live: while the deployment is not, another sweep may have asked its
    /// tasks since the tag was written. A rollback removes it when it switches.
    async fn give_way(&self, tags: &Tags, is_live: bool) -> Result<(), StepError> {
        let gave_way = guard::gave_way(tags);
        if is_live && gave_way {
            let marks = [tags::DRAINING_SINCE, tags::IDLE_SINCE];
            target_group::untag(&self.clients.elb, self.target_group_arn, &marks).await?;
        }
        let is_asked = tags.contains_key(tags::DRAINING_SINCE) && !gave_way;
        if is_asked && !is_live {
            return Ok(());
        }
        match self.service().await? {
            Some(service) if service::keeps_unhealthy(&service) => {
                self.set_grace_period(tags::grace_seconds(tags, self.baseline))
                    .await
            }
            _ => Ok(()),
        }
    }

    /// Keeps ECS from replacing a task that answers its health checks with 503 by a fresh one, which does
    /// not drain.
    async fn stop_replacing_tasks(&self, service: &Service) -> Result<(), StepError> {
        if service::keeps_unhealthy(service) {
            return Ok(());
        }
        self.set_grace_period(defaults::DRAINING_GRACE_PERIOD_SECONDS)
            .await
    }

    async fn set_grace_period(&self, seconds: i32) -> Result<(), StepError> {
        service::set_grace_period(&self.clients.ecs, self.baseline, self.id, seconds).await
    }

    /// The deployment's service, or `None` when it does not exist or is being deleted.
    async fn service(&self) -> Result<Option<Service>, StepError> {
        match service::look_up(&self.clients.ecs, self.baseline, self.id).await? {
            Found::Ours(service) => Ok(Some(*service)),
            Found::Nothing | Found::Draining { .. } => Ok(None),
            Found::NotOurs { arn } => Err(StepError::new(
                ErrorName::ResourceConflict,
                format!(
                    "service {arn} has the name of {} but not its tags, so it is not drained",
                    self.id
                ),
            )),
        }
    }

    /// The target group's tags, which must be the deployment's.
    async fn tags(&self) -> Result<Tags, StepError> {
        let arn = self.target_group_arn;
        tags::read_one(&self.clients.elb, arn)
            .await?
            .filter(|tags| tags::belong_to(tags, self.id))
            .ok_or_else(|| {
                StepError::new(
                    ErrorName::ResourceConflict,
                    format!(
                        "target group {arn} is gone or does not carry the tags of {}, so it is not drained",
                        self.id
                    ),
                )
            })
    }

    async fn tag(&self, key: &str) -> Result<(), StepError> {
        target_group::tag(&self.clients.elb, self.target_group_arn, key, self.clock).await
    }

    async fn untag(&self, key: &str) -> Result<(), StepError> {
        target_group::untag(&self.clients.elb, self.target_group_arn, &[key]).await
    }
}

/// Keeps as many reports as the data of a state can hold, those of tasks that are not idle first.
fn keep_what_fits(tasks: &mut Vec<Report>) {
    if tasks.len() > defaults::MAX_REPORTED_TASKS {
        tasks.sort_by_key(Report::is_idle);
        tasks.truncate(defaults::MAX_REPORTED_TASKS);
    }
}

/// How many tasks that did not answer the reason names.
const MAX_NAMED_TASKS: usize = 10;

/// Why the deployment is not idle: the sessions, and the tasks that did not report theirs.
fn describe(tasks: &[Report]) -> String {
    // An application may report any number.
    let sessions = tasks
        .iter()
        .filter_map(|task| task.active_sessions)
        .fold(0_u64, u64::saturating_add);
    let silent: Vec<String> = tasks
        .iter()
        .filter(|task| task.active_sessions.is_none())
        .map(|task| format!("task {}: {}", task.task_id, task.detail))
        .collect();
    let mut reason = format!("{sessions} sessions on {} tasks", tasks.len());
    if !silent.is_empty() {
        reason.insert_str(0, "at least ");
        let named = first_of(silent.iter().map(String::as_str), MAX_NAMED_TASKS);
        reason += &format!(
            "; {named}; a task whose sessions are unknown is stopped at the drain deadline"
        );
    }
    printable(&reason, MAX_TEXT)
}

#[cfg(test)]
mod tests;
