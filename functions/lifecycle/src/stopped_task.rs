//! Why a task stopped: stop reason, exit code and the last log lines of the application's container.

use aws_sdk_cloudwatchlogs::operation::get_log_events::GetLogEventsError;
use aws_sdk_ecs::types::{Container, Task};

use crate::aws_error::found;
use crate::printable::printable;
use crate::{Baseline, DeploymentId, defaults};

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

/// The container of the application.
pub fn container(task: &Task) -> Option<&Container> {
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
