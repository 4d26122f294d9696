//! Starts the failed rollout of the active deployment again.
//!
//! After a rollout has failed, ECS starts no task for it any more, not even in place of one that stops:
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-circuit-breaker.html>. A live service
//! would stay at the tasks that are left. The listener and the service are read again first, because fresh
//! tasks replace those that run.

use aws_sdk_ecs::types::{Deployment, DeploymentRolloutState, Service};
use lifecycle::aws_error::found;
use lifecycle::routing::DefaultAction;
use lifecycle::sdk::Clients;
use lifecycle::{DeploymentId, Settings, StepError, service};
use serde::{Deserialize, Serialize};

/// The deployment whose rollout has failed.
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

/// Starts the rollout again if the deployment is active, its rollout has failed and tasks are missing.
///
/// # Errors
/// As [`lifecycle::aws_error::CODES`] say.
pub async fn run(
    clients: &Clients,
    settings: &Settings,
    input: Input,
) -> Result<Output, StepError> {
    let id = &input.deployment_id;
    let kept = |why: String| {
        Ok(Output {
            verdict: Verdict::Kept,
            reason: why,
        })
    };
    let Some(service) = service::find(&clients.ecs, settings, id).await? else {
        return kept(format!("{id} has no service with its tags"));
    };
    let (running, wanted) = (service.running_count(), service.desired_count());
    if !has_failed(&service) || running >= wanted {
        return kept(format!(
            "{running} of {wanted} tasks of {id} run, and its rollout goes on"
        ));
    }
    let default_action = DefaultAction::read(&clients.elb, settings).await?;
    if default_action.active() != Some(id) {
        return kept(format!("{id} is not active any more"));
    }
    let request = clients
        .ecs
        .update_service()
        .cluster(&settings.cluster)
        .service(id.as_str())
        .force_new_deployment(true);
    let attempt = format_args!("start the rollout of service {id} again");
    match found(attempt, request.send().await, service::is_gone)? {
        Some(_) => Ok(Output {
            verdict: Verdict::Restarted,
            reason: format!(
                "its rollout had failed and {running} of {wanted} tasks ran; ECS starts tasks again"
            ),
        }),
        None => kept(format!("the service of {id} was deleted")),
    }
}

fn has_failed(service: &Service) -> bool {
    let rollout = service::newest_rollout(service);
    rollout.and_then(Deployment::rollout_state) == Some(&DeploymentRolloutState::Failed)
}

#[cfg(test)]
mod tests;
