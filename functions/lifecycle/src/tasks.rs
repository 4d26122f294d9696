//! The tasks of a deployment's service.

use aws_sdk_ecs::Client;
use aws_sdk_ecs::operation::list_tasks::ListTasksError;
use aws_sdk_ecs::types::{DesiredStatus, Task};

use crate::aws_error::{failed, found};
use crate::{Baseline, DeploymentId, StepError};

/// The tasks with that desired status, past every page. ECS lists stopped tasks for at least an hour;
/// tasks that are stopping are among them.
///
/// A service that was deleted has no tasks. A task that expired after it was listed is left out.
pub async fn list(
    ecs: &Client,
    baseline: &Baseline,
    deployment: &DeploymentId,
    desired: DesiredStatus,
) -> Result<Vec<Task>, StepError> {
    let what = format!("the {} tasks of {deployment}", desired.as_str());
    // A page holds 100 at most, which is also what DescribeTasks takes:
    // https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ListTasks.html
    let mut pages = ecs
        .list_tasks()
        .cluster(&baseline.cluster)
        .service_name(deployment.as_str())
        .desired_status(desired)
        .into_paginator()
        .send();
    let mut tasks = Vec::new();
    while let Some(page) = pages.next().await {
        let is_gone = ListTasksError::is_service_not_found_exception;
        let page = found(format_args!("list {what}"), page, is_gone)?;
        let arns = page.and_then(|page| page.task_arns).unwrap_or_default();
        if arns.is_empty() {
            continue;
        }
        let described = ecs
            .describe_tasks()
            .cluster(&baseline.cluster)
            .set_tasks(Some(arns))
            .send()
            .await
            .map_err(|error| failed(format_args!("read {what}"), error))?;
        tasks.extend(described.tasks.unwrap_or_default());
    }
    Ok(tasks)
}

/// The private IPv4 address of a task, once it has one. ECS shows it among the details of the attachment:
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Attachment.html>.
pub fn private_address(task: &Task) -> Option<&str> {
    task.attachments()
        .iter()
        .filter(|attachment| attachment.r#type() == Some("ElasticNetworkInterface"))
        .flat_map(|attachment| attachment.details())
        .find(|detail| detail.name() == Some("privateIPv4Address"))
        .and_then(|detail| detail.value())
}
