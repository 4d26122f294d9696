//! Which tasks stopped for a reason that will stop the next one too.

use crate::stopped_task::container;
use crate::{Baseline, DeploymentId, StepError, tasks};
use aws_sdk_ecs::types::{DesiredStatus, Task, TaskStopCode};

/// The deployment's stopped tasks, newest first. ECS shows them for at least an hour.
pub async fn stopped_tasks(
    ecs: &aws_sdk_ecs::Client,
    baseline: &Baseline,
    deployment: &DeploymentId,
) -> Result<Vec<Task>, StepError> {
    let mut tasks = tasks::list(ecs, baseline, deployment, DesiredStatus::Stopped).await?;
    tasks.sort_by_key(|task| {
        std::cmp::Reverse(
            task.stopping_at()
                .or(task.stopped_at())
                .map(|time| time.as_nanos()),
        )
    });
    Ok(tasks)
}

/// Parts of reasons why a task did not start that say nothing about its image: AWS had no capacity, could not
/// attach the network interface in time, or the way to the registry or to a secret failed. If such a trouble
/// lasts, it is reported when the time is up.
///
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/stopped-task-error-codes.html>,
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task_cannot_pull_image.html>
const NOT_THE_IMAGES_FAULT: [&str; 18] = [
    "capacity is unavailable",
    "network interface provisioning",
    "unexpected ec2 error",
    "i/o timeout",
    "context deadline exceeded",
    "context canceled",
    "request canceled",
    "tls handshake timeout",
    "connection reset",
    "connection refused",
    "unexpected eof",
    "temporary failure in name resolution",
    "dockertimeouterror",
    "timed out after waiting",
    "toomanyrequests",
    "rate exceeded",
    "internal server error",
    "service unavailable",
];

/// Whether the task stopped for a reason that will stop the next task too: not for a trouble of AWS, and not
/// because an operator stopped it.
pub fn counts(task: &Task) -> bool {
    let reason = task.stopped_reason().unwrap_or_default();
    match task.stop_code() {
        Some(TaskStopCode::EssentialContainerExited) => true,
        Some(TaskStopCode::TaskFailedToStart) => {
            let detail = container(task).and_then(|container| container.reason());
            let text = format!("{reason} {}", detail.unwrap_or_default()).to_lowercase();
            !NOT_THE_IMAGES_FAULT.iter().any(|part| text.contains(part))
        }
        // ECS itself stopped it, and only failed health checks say something about the image.
        _ => reason.contains("health checks"),
    }
}
