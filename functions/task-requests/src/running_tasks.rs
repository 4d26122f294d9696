//! The tasks of a deployment that are running or about to run.

use aws_sdk_ecs::Client;
use aws_sdk_ecs::types::{DesiredStatus, Task};
use lifecycle::{Baseline, DeploymentId, StepError, tasks};

/// A task that ECS wants to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningTask {
    /// The last part of the task's ARN.
    pub id: String,
    /// `RUNNING`, or one of the statuses before it.
    pub status: String,
    /// Its private IPv4 address, once it has one.
    pub address: Option<String>,
}

impl RunningTask {
    /// Where it can be asked.
    ///
    /// # Errors
    /// That it cannot yet, in words.
    pub fn reachable(&self) -> Result<&str, String> {
        match &self.address {
            Some(address) if self.status == "RUNNING" => Ok(address),
            Some(_) | None => Err(format!("the task is {}", self.status)),
        }
    }
}

/// The tasks of the deployment's service that ECS wants to run, past every page.
///
/// # Errors
/// As [`lifecycle::aws_error::CODES`] say. A service that was deleted has no tasks.
pub async fn list(
    ecs: &Client,
    baseline: &Baseline,
    deployment: &DeploymentId,
) -> Result<Vec<RunningTask>, StepError> {
    let wanted = tasks::list(ecs, baseline, deployment, DesiredStatus::Running).await?;
    Ok(wanted
        .iter()
        // A task that began to stop after it was listed takes no new visitors.
        .filter(|task| task.desired_status() != Some("STOPPED"))
        .map(running_task)
        .collect())
}

fn running_task(task: &Task) -> RunningTask {
    let id = task.task_arn().unwrap_or_default();
    RunningTask {
        id: id.rsplit('/').next().unwrap_or(id).to_owned(),
        status: task.last_status().unwrap_or_default().to_owned(),
        address: tasks::private_address(task).map(str::to_owned),
    }
}
