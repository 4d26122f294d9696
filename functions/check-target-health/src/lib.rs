//! Are as many tasks healthy as desired? Health is data: the answer is a verdict with a reason, and
//! the state machine decides by it.

pub mod failed_tasks;
mod rollout;

use aws_sdk_ecs::types::{DeploymentRolloutState, Service};
use aws_sdk_elasticloadbalancingv2::types::{
    TargetHealth, TargetHealthReasonEnum, TargetHealthStateEnum,
};
use lifecycle::aws_error::{code, failed};
use lifecycle::printable::{MOST_OF_A_TEXT, printable};
use lifecycle::{DeploymentId, Settings, StepError, defaults};
use serde::{Deserialize, Serialize};

/// What is checked.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Input {
    /// The deployment.
    pub deployment_id: DeploymentId,
    /// Its target group.
    pub target_group_arn: String,
    /// How many healthy targets it needs.
    pub desired_count: u32,
    /// Only tasks of the service's newest rollout count, and nothing may be left of earlier ones: for
    /// a deployment that was brought back with fresh tasks, whose old ones are healthy but drained.
    #[serde(default)]
    pub fresh_tasks: bool,
}

/// What the state machine decides by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// As many targets are healthy as desired.
    Healthy,
    /// Not yet; ask again later.
    Waiting,
    /// It will not get healthy by waiting.
    Failed,
}

/// The counts and the verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// What follows from the counts.
    pub verdict: Verdict,
    /// Healthy targets.
    pub healthy: usize,
    /// Desired tasks.
    pub desired: usize,
    /// Why, in words that a person can act on.
    pub reason: String,
}

/// The clients that the check reads with.
#[derive(Debug, Clone)]
pub struct Clients {
    /// Services and tasks.
    pub ecs: aws_sdk_ecs::Client,
    /// Target health.
    pub elb: aws_sdk_elasticloadbalancingv2::Client,
    /// The last lines of a container that stopped.
    pub logs: aws_sdk_cloudwatchlogs::Client,
}

/// Looks at targets, service and stopped tasks once.
///
/// # Errors
/// As AWS answers the reads; an unhealthy deployment is no error.
pub async fn run(
    clients: &Clients,
    settings: &Settings,
    input: Input,
) -> Result<Output, StepError> {
    let id = input.deployment_id.clone();
    check(clients, settings, input)
        .await
        .map_err(|error| error.of(&id))
}

async fn check(clients: &Clients, settings: &Settings, input: Input) -> Result<Output, StepError> {
    let desired = input.desired_count as usize;
    let Some(targets) = target_health(&clients.elb, &input.target_group_arn).await? else {
        return Ok(judged(
            Verdict::Failed,
            0,
            desired,
            format!("target group {} is gone", input.target_group_arn),
        ));
    };
    let healthy = in_state(&targets, &TargetHealthStateEnum::Healthy);
    let judged = |verdict, reason| judged(verdict, healthy, desired, reason);
    let enough = |fresh: &str| {
        judged(
            Verdict::Healthy,
            format!("{healthy} of {desired} {fresh}targets are healthy"),
        )
    };
    if healthy >= desired && !input.fresh_tasks {
        return Ok(enough(""));
    }
    if targets
        .iter()
        .any(|target| target.reason() == Some(&TargetHealthReasonEnum::NotInUse))
    {
        return Ok(judged(
            Verdict::Failed,
            "the target group is in no listener rule (Target.NotInUse), so its targets are never checked; \
             was a rule deleted by hand?"
                .to_owned(),
        ));
    }
    let Some(service) = service(&clients.ecs, settings, &input.deployment_id).await? else {
        // ECS may not show a new service for some seconds; one that was deleted it shows for long.
        return Ok(judged(
            Verdict::Waiting,
            format!("ECS does not show service {} (yet)", input.deployment_id),
        ));
    };
    if service.status() != Some("ACTIVE") {
        return Ok(judged(
            Verdict::Failed,
            format!("service {} is being deleted", input.deployment_id),
        ));
    }
    if healthy >= desired && rollout::is_over(&service) {
        return Ok(enough("fresh "));
    }
    let stopped = failed_tasks::stopped_tasks(&clients.ecs, settings, &input.deployment_id).await?;
    let failures: Vec<_> = stopped
        .iter()
        // Old tasks that failed say nothing about fresh ones: they may have been drained, or be of an
        // earlier service of this name, which was undone.
        .filter(|task| rollout::is_fresh(&service, task))
        .filter(|task| failed_tasks::counts(task))
        .collect();
    let rollout_failed = service
        .deployments()
        .iter()
        .filter(|deployment| rollout::is_newest(deployment))
        .find(|deployment| deployment.rollout_state() == Some(&DeploymentRolloutState::Failed));
    if failures.len() >= defaults::FAILED_TASKS_MEAN_FAILURE || rollout_failed.is_some() {
        let mut parts = vec![format!("{healthy} of {desired} targets are healthy")];
        parts.extend(
            rollout_failed
                .and_then(|deployment| deployment.rollout_state_reason())
                .map(str::to_owned),
        );
        // The newest failure stands for all; their number says whether it is the rule.
        if let Some(task) = failures.first() {
            parts.push(
                failed_tasks::describe(
                    &clients.logs,
                    settings,
                    &input.deployment_id,
                    task,
                    failures.len(),
                )
                .await,
            );
        }
        parts.extend(unhealthy_reasons(&targets).or_else(|| reason_in_events(&service)));
        return Ok(judged(Verdict::Failed, parts.join("; ")));
    }
    let mut reason = waiting_for(&service, &targets, &failures, healthy, desired);
    if input.fresh_tasks {
        reason.push_str("; ");
        reason.push_str(&rollout::in_words(&service));
    }
    Ok(judged(Verdict::Waiting, reason))
}

fn judged(verdict: Verdict, healthy: usize, desired: usize, reason: String) -> Output {
    Output {
        verdict,
        healthy,
        desired,
        // Log lines and AWS's own words are in it, which may be of any length.
        reason: printable(&reason, MOST_OF_A_TEXT),
    }
}

fn in_state(targets: &[TargetHealth], state: &TargetHealthStateEnum) -> usize {
    targets
        .iter()
        .filter(|target| target.state() == Some(state))
        .count()
}

/// Why we wait, which is also what is shown when the time is up.
fn waiting_for(
    service: &Service,
    targets: &[TargetHealth],
    failures: &[&aws_sdk_ecs::types::Task],
    healthy: usize,
    desired: usize,
) -> String {
    let mut parts = vec![
        format!("{healthy} of {desired} targets are healthy"),
        format!(
            "{} tasks run and {} are pending",
            service.running_count(),
            service.pending_count()
        ),
    ];
    parts.extend(unhealthy_reasons(targets));
    parts.extend(failures.first().map(|task| failed_tasks::stop_reason(task)));
    // ECS says here, and only here, that it cannot place a task, as when a quota is used up.
    parts.extend(
        service
            .events()
            .first()
            .and_then(|event| event.message())
            .filter(|message| message.contains("unable to"))
            .map(str::to_owned),
    );
    parts.join("; ")
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

/// Why targets were unhealthy that ECS has replaced since: it says so in the service's events only,
/// as "(port 8000) is unhealthy in (target-group …) due to (reason Health checks failed with these
/// codes: [500])". An event in other words is given whole.
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

/// The health of every target of the group; none when the group is gone.
async fn target_health(
    elb: &aws_sdk_elasticloadbalancingv2::Client,
    target_group_arn: &str,
) -> Result<Option<Vec<TargetHealth>>, StepError> {
    // Not paginated: https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_DescribeTargetHealth.html
    match elb
        .describe_target_health()
        .target_group_arn(target_group_arn)
        .send()
        .await
    {
        Ok(answer) => Ok(Some(
            answer
                .target_health_descriptions
                .unwrap_or_default()
                .into_iter()
                .filter_map(|description| description.target_health)
                .collect(),
        )),
        Err(error) if code(&error) == Some("TargetGroupNotFound") => Ok(None),
        Err(error) => Err(failed(
            format_args!("read the target health of {target_group_arn}"),
            error,
        )),
    }
}

/// The deployment's service, whatever its status.
async fn service(
    ecs: &aws_sdk_ecs::Client,
    settings: &Settings,
    deployment: &DeploymentId,
) -> Result<Option<Service>, StepError> {
    let answer = ecs
        .describe_services()
        .cluster(&settings.cluster)
        .services(deployment.as_str())
        .send()
        .await
        .map_err(|error| failed(format_args!("read service {deployment}"), error))?;
    Ok(answer.services.unwrap_or_default().into_iter().next())
}

#[cfg(test)]
mod tests;
