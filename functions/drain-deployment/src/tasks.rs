//! The tasks of a deployment that run or are about to.

use aws_sdk_ecs::Client;
use aws_sdk_ecs::types::{DesiredStatus, Task};
use lifecycle::{DeploymentId, Settings, StepError, tasks};

/// A task that ECS keeps running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningTask {
    /// The last part of its ARN.
    pub id: String,
    /// `RUNNING`, or what comes before.
    pub status: String,
    /// Its private IPv4 address, once it has one.
    pub address: Option<String>,
}

/// The tasks of the deployment's service that ECS wants to run, past every page.
///
/// # Errors
/// As [`lifecycle::aws_error::CODES`] say; a service that is gone has no tasks.
pub async fn running(
    ecs: &Client,
    settings: &Settings,
    deployment: &DeploymentId,
) -> Result<Vec<RunningTask>, StepError> {
    let wanted = tasks::of(ecs, settings, deployment, DesiredStatus::Running).await?;
    Ok(wanted
        .iter()
        // One that was told to stop since it was listed takes nobody new in.
        .filter(|task| task.desired_status() != Some("STOPPED"))
        .map(running_task)
        .collect())
}

fn running_task(task: &Task) -> RunningTask {
    let id = task.task_arn().unwrap_or_default();
    RunningTask {
        id: id.rsplit('/').next().unwrap_or(id).to_owned(),
        status: task.last_status().unwrap_or_default().to_owned(),
        address: private_address(task),
    }
}

/// The address of the task's network interface, which ECS shows among the details of the attachment:
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Attachment.html>.
fn private_address(task: &Task) -> Option<String> {
    task.attachments()
        .iter()
        .filter(|attachment| attachment.r#type() == Some("ElasticNetworkInterface"))
        .flat_map(|attachment| attachment.details())
        .find(|detail| detail.name() == Some("privateIPv4Address"))
        .and_then(|detail| detail.value())
        .map(str::to_owned)
}
