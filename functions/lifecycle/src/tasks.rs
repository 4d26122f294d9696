//! The tasks of a deployment's service.

use aws_sdk_ecs::Client;
use aws_sdk_ecs::types::{DesiredStatus, Task};

use crate::aws_error::{code, failed};
use crate::{DeploymentId, Settings, StepError};

/// The tasks that ECS wants in that status, past every page. Those that stopped are shown for an hour
/// at least, and among them are those that were told to stop and have not yet.
///
/// A service that is gone has no tasks, and a task that is gone since it was listed is left out.
///
/// # Errors
/// As [`crate::aws_error::CODES`] say.
pub async fn of(
    ecs: &Client,
    settings: &Settings,
    deployment: &DeploymentId,
    desired: DesiredStatus,
) -> Result<Vec<Task>, StepError> {
    let what = format!("the {} tasks of {deployment}", desired.as_str());
    let mut tasks = Vec::new();
    let mut next_token = None;
    loop {
        // A page holds 100 at most, which is also what DescribeTasks takes:
        // https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ListTasks.html
        let answer = ecs
            .list_tasks()
            .cluster(&settings.cluster)
            .service_name(deployment.as_str())
            .desired_status(desired.clone())
            .set_next_token(next_token)
            .send()
            .await;
        let page = match answer {
            Ok(page) => page,
            Err(error) if code(&error) == Some("ServiceNotFoundException") => return Ok(tasks),
            Err(error) => return Err(failed(format_args!("list {what}"), error)),
        };
        let arns = page.task_arns.unwrap_or_default();
        if !arns.is_empty() {
            let described = ecs
                .describe_tasks()
                .cluster(&settings.cluster)
                .set_tasks(Some(arns))
                .send()
                .await
                .map_err(|error| failed(format_args!("read {what}"), error))?;
            tasks.extend(described.tasks.unwrap_or_default());
        }
        next_token = page.next_token.filter(|token| !token.is_empty());
        if next_token.is_none() {
            return Ok(tasks);
        }
    }
}
