//! Why tasks stopped: stop reason, exit code and the container's last log lines.

use aws_sdk_cloudwatchlogs::operation::get_log_events::GetLogEventsError;
use aws_sdk_ecs::types::{Container, DesiredStatus, Task, TaskStopCode};
use lifecycle::aws_error::found;
use lifecycle::printable::printable;
use lifecycle::{Baseline, DeploymentId, StepError, defaults, tasks};

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

/// The stop reason with exit code and container reason, in one sentence.
pub fn stop_reason(task: &Task) -> String {
    let reason = task.stopped_reason().unwrap_or("no reason given");
    let container = container(task);
    let exit = container
        .and_then(Container::exit_code)
        .map(|code| format!("exit code {code}"));
    let detail = container
        .and_then(|container| container.reason())
        .filter(|detail| !reason.contains(detail));
    let details: Vec<_> = exit.into_iter().chain(detail.map(str::to_owned)).collect();
    match details.as_slice() {
        [] => format!("a task stopped: {reason}"),
        details => format!("a task stopped: {reason} ({})", details.join(", ")),
    }
}

/// [`stop_reason`] with the number of such tasks and the last log lines of this one.
pub async fn describe(
    logs: &aws_sdk_cloudwatchlogs::Client,
    baseline: &Baseline,
    deployment: &DeploymentId,
    task: &Task,
    number: usize,
) -> String {
    let mut text = match number {
        1 => stop_reason(task),
        _ => format!(
            "{number} tasks stopped, the last one: {}",
            stop_reason(task).trim_start_matches("a task stopped: ")
        ),
    };
    // A container that never started wrote nothing.
    if container(task).and_then(Container::exit_code).is_some() {
        match last_log_lines(logs, baseline, deployment, task).await {
            Ok(lines) if lines.is_empty() => text.push_str("; it logged nothing"),
            Ok(lines) => text.push_str(&format!("; its last log lines: {}", lines.join(" | "))),
            // The stop reason alone is worth more than an error about logs.
            Err(why) => text.push_str(&format!("; its log could not be read ({why})")),
        }
    }
    text
}

fn container(task: &Task) -> Option<&Container> {
    task.containers()
        .iter()
        .find(|container| container.name() == Some(defaults::CONTAINER))
}

/// The maximum number of characters of a log line that are shown.
const MAX_LINE: usize = 300;

async fn last_log_lines(
    logs: &aws_sdk_cloudwatchlogs::Client,
    baseline: &Baseline,
    deployment: &DeploymentId,
    task: &Task,
) -> Result<Vec<String>, String> {
    let task_id = task
        .task_arn()
        .and_then(|arn| arn.rsplit('/').next())
        .unwrap_or_default();
    let request = logs
        .get_log_events()
        .log_group_name(&baseline.log_group)
        .log_stream_name(format!("{deployment}/{}/{task_id}", defaults::CONTAINER))
        .limit(defaults::LOG_LINES)
        .start_from_head(false);
    // The stream is created with the first line.
    let is_gone = GetLogEventsError::is_resource_not_found_exception;
    let answer =
        found("read the log", request.send().await, is_gone).map_err(|error| error.to_string())?;
    let events = answer.and_then(|answer| answer.events).unwrap_or_default();
    let shown = |line: &str| printable(&line.trim_end().replace('\t', " "), MAX_LINE);
    Ok(events
        .iter()
        .filter_map(|event| event.message())
        .map(shown)
        .collect())
}
