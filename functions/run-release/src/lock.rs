//! Only one release of an environment runs at a time, and the lock is the task: a client token that is made of the
//! newest release that has stopped can start one task, and no other until that one has stopped.
//!
//! <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/ECS_Idempotency.html>
//!
//! Two calls make different tokens if AWS forgets the newest one between their looks, and then each starts a task. So a
//! release also looks for others after it has started its task, and at each call until that runs. Of the two, all see
//! the same one as the first, and the other one withdraws. What remains possible, and is not known to happen: the lists
//! show one side nothing of the other for as long as its task takes to start; or the execution of the one that should
//! withdraw is stopped in that time.

use std::cmp::Reverse;

use aws_sdk_ecs::types::{Task, TaskStopCode};
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

/// Why a release stops its own task, by which everybody knows that it did.
pub(crate) const WITHDRAWN: &str =
    "another release began first, and this one begins again when that one has ended";

/// Whether the task has run. One that waits for its image or a secret has not, and may never.
pub(crate) fn has_run(task: &Task) -> bool {
    task.started_at().is_some()
        || task.last_status() == Some("RUNNING")
        || stopped_task::container(task).is_some_and(|app| app.exit_code().is_some())
}

/// Whether the task has ended because its own release withdrew it, and so did nothing.
///
/// One that began to run while it was asked to stop was interrupted instead, which is a failure.
pub(crate) fn has_withdrawn(task: &Task) -> bool {
    let by_itself = task.stop_code() == Some(&TaskStopCode::UserInitiated)
        && task.stopped_reason() == Some(WITHDRAWN);
    has_ended(task) && by_itself && !has_run(task)
}

/// The release that `own` has to withdraw for: another one that has not ended and runs or began earlier, while `own`
/// does not run yet. One that runs is never taken back, so that no work is interrupted.
pub(crate) fn goes_before<'a>(tasks: &'a [Task], own: &Task) -> Option<&'a Task> {
    let order = |task: &Task| {
        let created = task.created_at().map(|at| at.as_nanos());
        (!has_run(task), created, task.task_arn().map(str::to_owned))
    };
    let others = tasks
        .iter()
        .filter(|it| it.task_arn() != own.task_arn() && !has_ended(it));
    let first = others.min_by_key(|it| order(it))?;
    (!has_run(own) && order(first) < order(own)).then_some(first)
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
    let by_task = tasks
        .iter()
        // Until it runs, everybody waits for it.
        .filter(|task| has_run(task))
        // Tags vanish when a task stops.
        .filter_map(|task| task.started_by()?.parse::<DeploymentId>().ok())
        .filter(|id| id.environment() == environment);
    let by_definition = definitions
        .filter(|tags| tags.contains_key(tags::RELEASED_AT))
        .filter_map(|tags| tags::deployment(tags, environment));
    by_task.chain(by_definition).max()
}
