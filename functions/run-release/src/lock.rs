//! Only one release of an environment runs at a time, and the lock is the task: a client token that is made of the
//! newest release that has stopped can start one task, and no other until that one has stopped.
//!
//! <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/ECS_Idempotency.html>

use std::cmp::Reverse;

use aws_sdk_ecs::types::Task;
use lifecycle::stopped_task;
use lifecycle::tags::{self, Tags};
use lifecycle::{DeploymentId, Environment};

/// Whether the task has ended. One that is stopping has not.
pub(crate) fn has_ended(task: &Task) -> bool {
    task.last_status() == Some("STOPPED")
}

/// A release that has not ended.
pub(crate) fn holder(tasks: &[Task]) -> Option<&Task> {
    tasks.iter().find(|task| !has_ended(task))
}

/// The client token with which the next release is started.
pub(crate) fn token(tasks: &[Task]) -> String {
    let ended = tasks.iter().filter(|task| has_ended(task));
    let newest = ended.max_by_key(|task| {
        let at = task.stopped_at().or(task.created_at());
        // By its ARN, if two stopped at the same moment: everybody has to choose the same.
        (at.map(|at| at.as_nanos()), Reverse(task.task_arn()))
    });
    let id = newest.and_then(|task| task.task_arn()?.rsplit('/').next());
    format!("release-after-{}", id.unwrap_or("none"))
}

/// The newest deployment whose release has begun: its task ran, or its definition says that it ended well.
pub(crate) fn newest_begun<'a>(
    environment: &Environment,
    tasks: &[Task],
    definitions: impl Iterator<Item = &'a Tags>,
) -> Option<DeploymentId> {
    // One that waits for its image or a secret may never run. Until then everybody waits for it.
    let has_run = |task: &&Task| {
        task.started_at().is_some()
            || stopped_task::container(task).is_some_and(|app| app.exit_code().is_some())
    };
    let by_task = tasks
        .iter()
        .filter(has_run)
        // Tags vanish when a task stops.
        .filter_map(|task| task.started_by()?.parse::<DeploymentId>().ok())
        .filter(|id| id.environment() == environment);
    let by_definition = definitions
        .filter(|tags| tags.contains_key(tags::RELEASED_AT))
        .filter_map(|tags| tags::deployment(tags, environment));
    by_task.chain(by_definition).max()
}
