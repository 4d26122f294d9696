//! Checks whether as many tasks are healthy as desired. Health is data: the answer is a verdict with a
//! reason, and the state machine decides by it.

pub mod failed_tasks;
mod rollout;

use aws_sdk_ecs::types::{Deployment, DeploymentRolloutState, Service, Task};
use aws_sdk_elasticloadbalancingv2::types::{
    TargetHealth, TargetHealthReasonEnum, TargetHealthStateEnum,
};
use lifecycle::printable::{MAX_TEXT, printable};
use lifecycle::{DeploymentId, Settings, StepError, defaults, service, target_group};
use serde::{Deserialize, Serialize};

/// The deployment to check.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Input {
    /// The deployment.
    pub deployment_id: DeploymentId,
    /// The ARN of its target group.
    pub target_group_arn: String,
    /// How many healthy targets it needs.
    pub desired_count: u32,
    /// Count only tasks of the service's newest rollout, and require that nothing is left of earlier ones:
    /// for a deployment that a rollback gave fresh tasks, whose old tasks are healthy but drained.
    #[serde(default)]
    pub fresh_tasks: bool,
}

/// What the state machine decides by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// As many targets are healthy as desired.
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
    /// How many tasks are desired.
    pub desired: usize,
    /// Why, in words that an operator can act on.
    pub reason: String,
}

/// The clients that the step reads with.
#[derive(Debug, Clone)]
pub struct Clients {
    /// For the service and its tasks.
    pub ecs: aws_sdk_ecs::Client,
    /// For the health of the targets.
    pub elb: aws_sdk_elasticloadbalancingv2::Client,
    /// For the last log lines of a container that stopped.
    pub logs: aws_sdk_cloudwatchlogs::Client,
}

/// Checks targets, service and stopped tasks once.
///
/// # Errors
/// As [`lifecycle::aws_error::CODES`] say. An unhealthy deployment is not an error.
pub async fn run(
    clients: &Clients,
    settings: &Settings,
    input: Input,
) -> Result<Output, StepError> {
    let id = &input.deployment_id;
    let desired = input.desired_count as usize;
    let Some(targets) = target_group::health(&clients.elb, &input.target_group_arn).await? else {
        let reason = format!("target group {} is gone", input.target_group_arn);
        return Ok(judged(Verdict::Failed, 0, desired, reason));
    };
    let healthy = target_group::healthy(&targets);
    let judged = |verdict, reason| Ok(judged(verdict, healthy, desired, reason));
    if healthy >= desired && !input.fresh_tasks {
        return judged(
            Verdict::Healthy,
            format!("{healthy} of {desired} targets are healthy"),
        );
    }
    if targets
        .iter()
        .any(|target| target.reason() == Some(&TargetHealthReasonEnum::NotInUse))
    {
        let reason = "no listener rule names the target group (Target.NotInUse), so its targets are never \
                      checked; was a rule deleted by hand?";
        return judged(Verdict::Failed, reason.to_owned());
    }
    let Some(service) = service::describe(&clients.ecs, settings, id).await? else {
        // ECS may not show a new service for some seconds. It shows a deleted one for a long time.
        return judged(
            Verdict::Waiting,
            format!("ECS does not show service {id} (yet)"),
        );
    };
    if service.status() != Some("ACTIVE") {
        return judged(Verdict::Failed, format!("service {id} is being deleted"));
    }
    if healthy >= desired && rollout::is_over(&service) {
        return judged(
            Verdict::Healthy,
            format!("{healthy} of {desired} fresh targets are healthy"),
        );
    }
    let mut failures = failed_tasks::stopped_tasks(&clients.ecs, settings, id).await?;
    // Old tasks that failed say nothing about fresh ones: they may have been drained, or belong to an
    // earlier service of this name, which was undone.
    failures.retain(|task| rollout::is_fresh(&service, task) && failed_tasks::counts(task));
    let found = Found {
        targets,
        service,
        failures,
        healthy,
        desired,
    };
    if found.has_failed() {
        return judged(
            Verdict::Failed,
            found.why_failed(clients, settings, id).await,
        );
    }
    let mut reason = found.why_waiting();
    if input.fresh_tasks {
        reason = format!("{reason}; {}", rollout::describe(&found.service));
    }
    judged(Verdict::Waiting, reason)
}

fn judged(verdict: Verdict, healthy: usize, desired: usize, reason: String) -> Output {
    Output {
        verdict,
        healthy,
        desired,
        // It contains log lines and AWS's own words, which may have any length.
        reason: printable(&reason, MAX_TEXT),
    }
}

/// A deployment that is not healthy, as it was found.
struct Found {
    targets: Vec<TargetHealth>,
    service: Service,
    /// Tasks of the newest rollout that failed, newest first.
    failures: Vec<Task>,
    healthy: usize,
    desired: usize,
}

impl Found {
    fn has_failed(&self) -> bool {
        self.failures.len() >= defaults::FAILED_TASKS_MEAN_FAILURE
            || self.failed_rollout().is_some()
    }

    fn failed_rollout(&self) -> Option<&Deployment> {
        service::newest_rollout(&self.service)
            .filter(|rollout| rollout.rollout_state() == Some(&DeploymentRolloutState::Failed))
    }

    async fn why_failed(
        &self,
        clients: &Clients,
        settings: &Settings,
        id: &DeploymentId,
    ) -> String {
        let mut parts = vec![self.counts()];
        let rollout_reason = self
            .failed_rollout()
            .and_then(Deployment::rollout_state_reason);
        parts.extend(rollout_reason.map(str::to_owned));
        // The newest failure represents all of them. Their number shows whether it is an exception.
        if let Some(task) = self.failures.first() {
            let number = self.failures.len();
            let logs = &clients.logs;
            parts.push(failed_tasks::describe(logs, settings, id, task, number).await);
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
        parts.extend(self.failures.first().map(failed_tasks::stop_reason));
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
        format!("{} of {} targets are healthy", self.healthy, self.desired)
    }
}

/// The distinct reasons of targets that are unhealthy.
fn unhealthy_reasons(targets: &[TargetHealth]) -> Option<String> {
    let mut reasons: Vec<String> = targets
        .iter()
        .filter(|target| target.state() == Some(&TargetHealthStateEnum::Unhealthy))
        .map(|target| {
            let reason = target
                .reason()
                .map_or("no reason", |reason| reason.as_str());
            match target.description() {
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
