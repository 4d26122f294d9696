//! Starts the rollout of the active deployment again.
//!
//! After a rollout has failed, ECS starts no task for it any more, not even in place of one that stops:
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-circuit-breaker.html>. A live service
//! would stay at the tasks that are left. And tasks that were asked to drain before an operator pointed the
//! listener at them take no new sessions. The listener and the service are read again first, because fresh
//! tasks replace those that run.

use aws_sdk_ecs::types::{Deployment, DeploymentRolloutState, Service};
use lifecycle::aws_error::found;
use lifecycle::routing::DefaultAction;
use lifecycle::sdk::Clients;
use lifecycle::tags::{self, Tags};
use lifecycle::{Baseline, Clock, DeploymentId, StepError, guard, service, target_group};
use serde::{Deserialize, Serialize};
use time::UtcDateTime;

/// The deployment whose rollout has failed, or whose tasks were asked to drain.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Input {
    /// The deployment.
    pub deployment_id: DeploymentId,
}

/// Whether there is a new rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// ECS starts tasks again.
    Restarted,
    /// Its tasks are in order, and so are now its tags and its grace period.
    Corrected,
    /// It was not needed any more.
    Kept,
}

/// What this call did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// Whether there is a new rollout.
    pub verdict: Verdict,
    /// Why, in a sentence.
    pub reason: String,
}

/// Starts the rollout again if the deployment is active, and its rollout has failed and tasks are missing or its
/// tasks were asked to drain. The tag of draining goes when fresh tasks have replaced those that were asked, which
/// a later call finds out.
///
/// # Errors
/// As [`lifecycle::aws_error::CODES`] say.
pub async fn run(
    clients: &Clients,
    baseline: &Baseline,
    clock: Clock<'_>,
    input: Input,
) -> Result<Output, StepError> {
    let id = &input.deployment_id;
    let kept = |why: String| {
        Ok(Output {
            verdict: Verdict::Kept,
            reason: why,
        })
    };
    let Some(service) = service::find(&clients.ecs, baseline, id).await? else {
        return kept(format!("{id} has no service with its tags"));
    };
    let (running, wanted) = (service.running_count(), service.desired_count());
    let group = target_group::find(&clients.elb, id).await?;
    let grace_seconds = match &group {
        Some(group) => tags::grace_seconds(&group.tags, baseline),
        None => tags::grace_seconds(&tags::Tags::new(), baseline),
    };
    let drained =
        group.filter(|group| group.has(tags::DRAINING_SINCE) && !guard::gave_way(&group.tags));
    let has_failed = rollout_state(&service) == Some(&DeploymentRolloutState::Failed);
    let lacks_tasks = has_failed && running < wanted;
    if drained.is_none() && !lacks_tasks && !service::keeps_unhealthy(&service) {
        return kept(format!(
            "{running} of {wanted} tasks of {id} run, and its rollout goes on"
        ));
    }
    let default_action = DefaultAction::read(&clients.elb, baseline).await?;
    if default_action.active() != Some(id) {
        return kept(format!("{id} is not active any more"));
    }
    if drained.is_none() && !lacks_tasks {
        service::set_grace_period(&clients.ecs, baseline, id, grace_seconds).await?;
        return corrected("ECS replaces its unhealthy tasks again");
    }
    if let Some(group) = &drained
        && is_restarted(&service, &group.tags, clock())
        && !lacks_tasks
    {
        // Its tasks that were asked to drain run until the rollout is over.
        if rollout_state(&service) != Some(&DeploymentRolloutState::Completed) {
            return kept("fresh tasks are replacing those that were asked to drain".to_owned());
        }
        let marks = [tags::DRAINING_SINCE, tags::IDLE_SINCE];
        target_group::untag(&clients.elb, &group.arn, &marks).await?;
        return corrected("fresh tasks have replaced those that were asked to drain");
    }
    // A rollout cannot be newer than a tag that is not a time or that lies in the future, so every sweep would start another one.
    if let Some(group) = &drained
        && tags::time(&group.tags, tags::DRAINING_SINCE, clock()).is_none_or(|at| at >= clock())
    {
        target_group::tag(&clients.elb, &group.arn, tags::DRAINING_SINCE, clock).await?;
    }
    let request = clients
        .ecs
        .update_service()
        .cluster(&baseline.cluster)
        .service(id.as_str())
        .health_check_grace_period_seconds(grace_seconds)
        .force_new_deployment(true);
    let attempt = format_args!("start the rollout of service {id} again");
    if found(attempt, request.send().await, service::is_gone)?.is_none() {
        return kept(format!("the service of {id} was deleted"));
    }
    let reason = match lacks_tasks {
        true => format!(
            "its rollout had failed and {running} of {wanted} tasks ran; ECS starts tasks again"
        ),
        false => "its tasks were asked to drain before it was made active; ECS replaces them by fresh ones"
            .to_owned(),
    };
    Ok(Output {
        verdict: Verdict::Restarted,
        reason,
    })
}

fn corrected(why: &str) -> Result<Output, StepError> {
    Ok(Output {
        verdict: Verdict::Corrected,
        reason: why.to_owned(),
    })
}

fn rollout_state(service: &Service) -> Option<&DeploymentRolloutState> {
    service::newest_rollout(service).and_then(Deployment::rollout_state)
}

/// Whether the newest rollout began after the draining with these tags, so that its tasks were not asked to drain.
fn is_restarted(service: &Service, tags: &Tags, now: UtcDateTime) -> bool {
    let began = service::newest_rollout(service).and_then(Deployment::created_at);
    let asked = tags::time(tags, tags::DRAINING_SINCE, now);
    match (began, asked) {
        (Some(began), Some(asked)) => began.secs() > asked.unix_timestamp(),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
