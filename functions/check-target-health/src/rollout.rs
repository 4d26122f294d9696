//! How far the newest rollout of a service has come.

use aws_sdk_ecs::types::{Deployment, DeploymentRolloutState, Service, Task};
use lifecycle::service::newest_rollout;

/// Whether the newest rollout is completed and nothing is left of earlier ones.
pub fn is_over(service: &Service) -> bool {
    let state = newest_rollout(service).and_then(Deployment::rollout_state);
    service.deployments().len() == 1 && state == Some(&DeploymentRolloutState::Completed)
}

/// Whether the newest rollout started the task. ECS writes the rollout's id into `startedBy`:
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Task.html>.
pub fn is_fresh(service: &Service, task: &Task) -> bool {
    let newest = newest_rollout(service).and_then(Deployment::id);
    task.started_by()
        .is_some_and(|rollout| newest == Some(rollout))
}

/// How far it has come, in words.
pub fn describe(service: &Service) -> String {
    let newest = newest_rollout(service);
    let state = newest
        .and_then(Deployment::rollout_state)
        .map_or("unknown", DeploymentRolloutState::as_str);
    let earlier = service.deployments().len() - usize::from(newest.is_some());
    format!("the newest rollout is {state}, {earlier} earlier rollouts are left")
}
