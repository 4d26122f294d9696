//! Stops the tasks of a service one after another.

use aws_sdk_ecs::Client;
use aws_sdk_ecs::types::{DesiredStatus, Service};
use lifecycle::aws_error::failed;
use lifecycle::{Baseline, DeploymentId, StepError, service, tasks};

/// What the next step is.
pub enum Next {
    /// The service wants no tasks any more, or there is none.
    Nothing,
    /// A task has to stop before the next one. Contains what the deletion waits for.
    Waits(String),
    /// One more task can stop, so that the service wants this many.
    Stops(i32),
}

/// Decides the next step from what ECS reports, so a call whose answer was lost leads to the same step again.
pub async fn next(
    ecs: &Client,
    baseline: &Baseline,
    deployment: &DeploymentId,
) -> Result<Next, StepError> {
    let Some(service) = service::find(ecs, baseline, deployment).await? else {
        return Ok(Next::Nothing);
    };
    let wanted = service.desired_count();
    if wanted <= 0 {
        return Ok(Next::Nothing);
    }
    // ECS chooses the task to stop some time after the count was lowered.
    if surplus(&service) > 0 || is_stopping(ecs, baseline, deployment).await? {
        let what = format!("a task to stop before the next one; {wanted} are left");
        return Ok(Next::Waits(what));
    }
    Ok(Next::Stops(wanted - 1))
}

/// Lowers the number of tasks. Returns what the deletion waits for, or `None` when the tasks stop together.
pub async fn lower(
    ecs: &Client,
    baseline: &Baseline,
    deployment: &DeploymentId,
    left: i32,
) -> Result<Option<String>, StepError> {
    let answer = ecs
        .update_service()
        .cluster(&baseline.cluster)
        .service(deployment.as_str())
        .desired_count(left)
        .send()
        .await;
    match answer {
        Ok(_) => Ok(Some(format!("ECS to stop a task; {left} are left"))),
        // Deleted by another run since it was looked up.
        Err(error) if error.as_service_error().is_some_and(service::is_gone) => Ok(None),
        // Its rules are gone, so no load balancer is associated with its target group. If ECS refuses the
        // lower count for that, the tasks stop together: a deployment that cannot be deleted is worse.
        Err(error) if service::is_unrouted(&error) => Ok(None),
        Err(error) => Err(failed(
            format_args!("lower the task count of service {deployment} to {left}"),
            error,
        )),
    }
}

/// How many more tasks there are than wanted.
fn surplus(service: &Service) -> i32 {
    service.running_count() + service.pending_count() - service.desired_count()
}

/// Whether a task of the service is stopping and has not stopped yet.
async fn is_stopping(
    ecs: &Client,
    baseline: &Baseline,
    deployment: &DeploymentId,
) -> Result<bool, StepError> {
    let stopping = tasks::list(ecs, baseline, deployment, DesiredStatus::Stopped).await?;
    Ok(stopping
        .iter()
        .any(|task| task.last_status() != Some("STOPPED")))
}
