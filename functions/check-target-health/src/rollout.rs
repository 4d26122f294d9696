//! How far the newest rollout of a service has come.
//!
//! ECS calls a rollout of a service a deployment, and the newest one PRIMARY:
//! <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Deployment.html>.

use aws_sdk_ecs::types::{Deployment, DeploymentRolloutState, Service, Task};

/// Whether this is the newest rollout.
pub fn is_newest(rollout: &Deployment) -> bool {
    rollout.status() == Some("PRIMARY")
}

/// Whether the newest rollout is completed and nothing is left of earlier ones.
pub fn is_over(service: &Service) -> bool {
    matches!(service.deployments(), [only] if is_newest(only)
        && only.rollout_state() == Some(&DeploymentRolloutState::Completed))
}

/// Whether the task was started by the newest rollout. ECS writes the rollout's id into `startedBy`:
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Task.html>.
pub fn is_fresh(service: &Service, task: &Task) -> bool {
    task.started_by().is_some_and(|rollout| {
        service
            .deployments()
            .iter()
            .any(|known| is_newest(known) && known.id() == Some(rollout))
    })
}

/// What is not over yet.
pub fn in_words(service: &Service) -> String {
    let newest = service.deployments().iter().find(|one| is_newest(one));
    let state = newest
        .and_then(Deployment::rollout_state)
        .map_or("unknown", DeploymentRolloutState::as_str);
    let earlier = service.deployments().len() - usize::from(newest.is_some());
    format!("the rollout of fresh tasks is {state}, {earlier} earlier ones are left")
}
