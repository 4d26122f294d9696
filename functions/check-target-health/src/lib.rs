//! Checks whether a deployment is healthy enough to be switched to. Health is data: the answer is a verdict
//! with a reason, and the state machine decides by it.
//!
//! One sample is not a verdict. Healthy targets count when ECS has completed the rollout as well. A part that is
//! missing is missing only when AWS has had the time to show it. A few tasks that did not start say nothing
//! about the next one.

mod rollout;

use std::collections::BTreeSet;

use aws_sdk_ecs::types::{Deployment, DeploymentRolloutState, DesiredStatus, Service, Task};
use aws_sdk_elasticloadbalancingv2::types::{
    TargetHealthDescription, TargetHealthReasonEnum, TargetHealthStateEnum,
};
use lifecycle::printable::{MAX_TEXT, printable};
use lifecycle::routing::{self, DefaultAction};
use lifecycle::{
    Baseline, Clock, DeploymentId, StepError, defaults, failed_tasks, service, stopped_task,
    target_group, tasks,
};
use serde::{Deserialize, Serialize};

/// The deployment to check.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Input {
    /// The deployment.
    pub deployment_id: DeploymentId,
    /// The ARN of its target group.
    pub target_group_arn: String,
    /// How many tasks it should have.
    pub desired_count: u32,
    /// Whether a rollback goes to it as it is. Then it does not need all its tasks: traffic may be on a broken
    /// deployment, and ECS replaces what is missing.
    #[serde(default)]
    pub warm: bool,
    /// How long the machine has waited for it.
    #[serde(default)]
    pub waited_seconds: u64,
    /// Whether a part was missing at the look before, as its [`Output::missing`] said.
    #[serde(default)]
    pub missing_before: bool,
}

/// What the state machine decides by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// As many targets are healthy as it needs.
    Healthy,
    /// Not yet; check again later.
    Waiting,
    /// It will not become healthy by waiting.
    Failed,
}

/// The counts and the verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// The verdict, by which the state machine decides.
    pub verdict: Verdict,
    /// How many targets are healthy.
    pub healthy: usize,
    /// How many healthy targets it needs.
    pub needed: usize,
    /// Whether no rule names its target group, so that the load balancer checks the health of no target.
    pub unrouted: bool,
    /// Whether a part of it is missing: one is missing for good when two looks in a row find it missing, and AWS has had
    /// the time to show it.
    pub missing: bool,
    /// Why, in words that an operator can act on.
    pub reason: String,
}

/// The clients that the step reads with.
#[derive(Debug, Clone)]
pub struct Clients {
    /// For the service and its tasks.
    pub ecs: aws_sdk_ecs::Client,
    /// For the health of the targets, and what the listener names.
    pub elb: aws_sdk_elasticloadbalancingv2::Client,
    /// For the last log lines of a container that stopped.
    pub logs: aws_sdk_cloudwatchlogs::Client,
}

/// Checks targets, service and tasks once.
///
/// # Errors
/// As [`lifecycle::aws_error::CODES`] say. An unhealthy deployment is not an error.
pub async fn run(
    clients: &Clients,
    baseline: &Baseline,
    clock: Clock<'_>,
    input: Input,
) -> Result<Output, StepError> {
    let check = Check {
        clients,
        baseline,
        clock,
        input: &input,
    };
    check.run().await
}

struct Check<'a> {
    clients: &'a Clients,
    baseline: &'a Baseline,
    clock: Clock<'a>,
    input: &'a Input,
}

impl Check<'_> {
    async fn run(&self) -> Result<Output, StepError> {
        let Clients { ecs, elb, .. } = self.clients;
        let (id, group) = (&self.input.deployment_id, &self.input.target_group_arn);
        let needed = self.needed().await?;
        let Some(targets) = target_group::targets(elb, group).await? else {
            return Ok(self.missing(0, needed, format!("target group {group} is gone")));
        };
        let healthy = targets.iter().filter(is_healthy).count();
        let judged = |verdict, reason| Ok(judged(verdict, healthy, needed, reason));
        let missing = |what| Ok(self.missing(healthy, needed, what));
        let Some(service) = service::describe(ecs, self.baseline, id).await? else {
            return missing(format!("ECS does not show service {id}"));
        };
        if service.status() != Some("ACTIVE") {
            return missing(format!("service {id} is being deleted"));
        }
        if healthy >= needed && self.is_steady(&service, &targets).await? {
            let reason = format!("{healthy} of {needed} targets are healthy");
            return judged(Verdict::Healthy, reason);
        }
        if targets.iter().any(is_not_in_use) {
            return match self.is_named_by_a_rule().await? {
                // AWS still attaches it, or a zone of the tasks is not one of the load balancer's.
                true => judged(
                    Verdict::Waiting,
                    "the load balancer does not use the target group (Target.NotInUse), although a rule names it"
                        .to_owned(),
                ),
                false => {
                    let what = "no listener rule names the target group (Target.NotInUse), so its targets are never \
                                checked; was a rule deleted by hand?";
                    Ok(Output {
                        unrouted: true,
                        ..self.missing(healthy, needed, what.to_owned())
                    })
                }
            };
        }
        let mut stopped = failed_tasks::stopped_tasks(ecs, self.baseline, id).await?;
        // Old tasks that failed say nothing about fresh ones: they may have been drained, or belong to an
        // earlier service of this name, which was undone.
        stopped.retain(|task| rollout::is_fresh(&service, task));
        let found = Found {
            targets,
            service,
            stopped,
            healthy,
            needed,
        };
        if found.has_failed(self.input.desired_count) {
            return judged(Verdict::Failed, found.why_failed(self).await);
        }
        judged(Verdict::Waiting, found.why_waiting())
    }

    /// How many healthy targets the deployment needs.
    ///
    /// A warm one is enough with as many as the active one has, or with three quarters of its own tasks,
    /// whichever is less, and with one at least.
    async fn needed(&self) -> Result<usize, StepError> {
        let desired = self.input.desired_count as usize;
        if !self.input.warm {
            return Ok(desired);
        }
        let elb = &self.clients.elb;
        let default_action = DefaultAction::read(elb, self.baseline).await?;
        let active = match default_action.active_target_group() {
            Some(arn) => target_group::health(elb, arn).await?.unwrap_or_default(),
            None => Vec::new(),
        };
        let three_quarters = (desired * 3).div_ceil(4);
        Ok(target_group::healthy(&active).clamp(1, three_quarters.max(1)))
    }

    /// Whether healthy targets are more than a moment's luck.
    ///
    /// ECS completes a rollout when all its tasks run and are healthy and the tasks of earlier ones are gone:
    /// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/early-success-criteria.html>. A task that
    /// is protected from being stopped can keep an earlier rollout for days, so the tasks of the newest one
    /// also count when they have been running for so long that all others would have stopped.
    async fn is_steady(
        &self,
        service: &Service,
        targets: &[TargetHealthDescription],
    ) -> Result<bool, StepError> {
        if self.input.warm || rollout::is_over(service) {
            return Ok(true);
        }
        let (ecs, id) = (&self.clients.ecs, &self.input.deployment_id);
        let running = tasks::list(ecs, self.baseline, id, DesiredStatus::Running).await?;
        let settled_by = (self.clock)() - defaults::REPLACED_TASKS_STOP_WITHIN;
        let lasting: BTreeSet<&str> = running
            .iter()
            .filter(|task| rollout::is_fresh(service, task))
            .filter(|task| {
                let started = task.started_at().map(|at| at.secs());
                started.is_some_and(|started| started <= settled_by.unix_timestamp())
            })
            .filter_map(tasks::private_address)
            .collect();
        let counts = |target: &&TargetHealthDescription| {
            is_healthy(target)
                && target
                    .target()
                    .and_then(|target| target.id())
                    .is_some_and(|address| lasting.contains(address))
        };
        Ok(targets.iter().filter(counts).count() >= self.input.desired_count as usize)
    }

    async fn is_named_by_a_rule(&self) -> Result<bool, StepError> {
        let rules = routing::rules(&self.clients.elb, &self.baseline.listener_arn).await?;
        let mut named = rules
            .iter()
            .flat_map(|rule| routing::forwarded_to(rule.actions()));
        Ok(named.any(|arn| arn == self.input.target_group_arn))
    }

    /// The verdict when a part is not there: AWS shows what was made, or made again, a little later, and a single
    /// answer may be an old one.
    fn missing(&self, healthy: usize, needed: usize, what: String) -> Output {
        let is_final = self.input.waited_seconds >= defaults::SHOWN_WITHIN_SECONDS
            && self.input.missing_before;
        let (verdict, what) = match is_final {
            true => (Verdict::Failed, what),
            false => (Verdict::Waiting, format!("{what} (yet)")),
        };
        Output {
            missing: true,
            ..judged(verdict, healthy, needed, what)
        }
    }
}

fn judged(verdict: Verdict, healthy: usize, needed: usize, reason: String) -> Output {
    Output {
        verdict,
        healthy,
        needed,
        unrouted: false,
        missing: false,
        // It contains log lines and AWS's own words, which may have any length.
        reason: printable(&reason, MAX_TEXT),
    }
}

fn is_healthy(target: &&TargetHealthDescription) -> bool {
    state(target) == Some(&TargetHealthStateEnum::Healthy)
}

fn is_not_in_use(target: &TargetHealthDescription) -> bool {
    let reason = target.target_health().and_then(|health| health.reason());
    reason == Some(&TargetHealthReasonEnum::NotInUse)
}

fn state(target: &TargetHealthDescription) -> Option<&TargetHealthStateEnum> {
    target.target_health()?.state()
}

/// A deployment that is not healthy, as it was found.
struct Found {
    targets: Vec<TargetHealthDescription>,
    service: Service,
    /// Tasks of the newest rollout that stopped, newest first.
    stopped: Vec<Task>,
    healthy: usize,
    needed: usize,
}

impl Found {
    /// Whether the next task will fail as well: so many failed that it is not chance, before the rollout was
    /// completed. Tasks that crash later are replaced, and what they did an hour ago is not a verdict.
    fn has_failed(&self, desired_count: u32) -> bool {
        let is_over = rollout::is_over(&self.service);
        self.failed_rollout().is_some()
            || !is_over
                && self.failures().count() >= defaults::failed_tasks_mean_failure(desired_count)
    }

    /// Those that say something about the image, newest first.
    fn failures(&self) -> impl Iterator<Item = &Task> {
        self.stopped
            .iter()
            .filter(|task| failed_tasks::counts(task))
    }

    fn failed_rollout(&self) -> Option<&Deployment> {
        service::newest_rollout(&self.service)
            .filter(|rollout| rollout.rollout_state() == Some(&DeploymentRolloutState::Failed))
    }

    async fn why_failed(&self, check: &Check<'_>) -> String {
        let mut parts = vec![self.counts()];
        let rollout_reason = self
            .failed_rollout()
            .and_then(Deployment::rollout_state_reason);
        parts.extend(rollout_reason.map(str::to_owned));
        // The newest failure represents all of them. Their number shows whether it is an exception.
        let newest = self.failures().next().or(self.stopped.first());
        if let Some(task) = newest {
            let number = self.failures().count().max(1);
            let (logs, id) = (&check.clients.logs, &check.input.deployment_id);
            parts.push(stopped_task::describe(logs, check.baseline, id, task, number).await);
        }
        parts.extend(unhealthy_reasons(&self.targets).or_else(|| reason_in_events(&self.service)));
        parts.join("; ")
    }

    /// Also the reason that is reported when the time is up.
    fn why_waiting(&self) -> String {
        let (running, pending) = (self.service.running_count(), self.service.pending_count());
        let mut parts = vec![
            self.counts(),
            format!("tasks: {running} running, {pending} pending"),
        ];
        parts.extend(unhealthy_reasons(&self.targets));
        // Also one that does not count: it is what the operator has to know when the time is up.
        parts.extend(self.stopped.first().map(stopped_task::stop_reason));
        if self.healthy >= self.needed {
            parts.push(rollout::describe(&self.service));
        }
        // ECS reports here, and only here, that it cannot place a task, as when a quota is used up.
        let newest_event = self
            .service
            .events()
            .first()
            .and_then(|event| event.message());
        parts.extend(
            newest_event
                .filter(|message| message.contains("unable to"))
                .map(str::to_owned),
        );
        parts.join("; ")
    }

    fn counts(&self) -> String {
        format!("{} of {} targets are healthy", self.healthy, self.needed)
    }
}

/// The distinct reasons of targets that are unhealthy.
fn unhealthy_reasons(targets: &[TargetHealthDescription]) -> Option<String> {
    let mut reasons: Vec<String> = targets
        .iter()
        .filter(|target| state(target) == Some(&TargetHealthStateEnum::Unhealthy))
        .filter_map(|target| target.target_health())
        .map(|health| {
            let reason = health
                .reason()
                .map_or("no reason", |reason| reason.as_str());
            match health.description() {
                Some(description) => format!("{reason}: {description}"),
                None => reason.to_owned(),
            }
        })
        .collect();
    let count = reasons.len();
    reasons.sort();
    reasons.dedup();
    (count > 0).then(|| {
        format!(
            "{count} targets fail GET {} ({})",
            defaults::HEALTH_CHECK_PATH,
            reasons.join(", ")
        )
    })
}

/// Why targets were unhealthy that ECS has replaced since. ECS reports it only in the service's events, as
/// "(port 8000) is unhealthy in (target-group …) due to (reason Health checks failed with these codes:
/// [500])". An event in other words is returned as it is.
///
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-event-messages-list.html>
fn reason_in_events(service: &Service) -> Option<String> {
    let message = service
        .events()
        .iter()
        .filter_map(|event| event.message())
        .find(|message| message.contains("is unhealthy in"))?;
    let reason = message
        .split_once("(reason ")
        .and_then(|(_, rest)| rest.rsplit_once(')'))
        .map_or(message, |(reason, _)| reason);
    Some(format!(
        "targets failed GET {} ({reason})",
        defaults::HEALTH_CHECK_PATH
    ))
}

#[cfg(test)]
mod tests;
