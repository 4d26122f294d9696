//! Stops the tasks of a service one after another.

use aws_sdk_ecs::Client;
use aws_sdk_ecs::error::ProvideErrorMetadata;
use aws_sdk_ecs::types::{DesiredStatus, Service};
use lifecycle::aws_error::failed;
use lifecycle::{DeploymentId, Settings, StepError, service, tasks};

/// Lets ECS stop the next task, if the one before has stopped. Returns what the deletion waits for, or
/// `None` when the service wants no more tasks.
///
/// The new count follows from the one that ECS reports, so a call whose answer was lost asks for the same
/// count again.
pub async fn stop_next(
    ecs: &Client,
    settings: &Settings,
    deployment: &DeploymentId,
) -> Result<Option<String>, StepError> {
    let Some(service) = service::find(ecs, settings, deployment).await? else {
        return Ok(None);
    };
    let wanted = service.desired_count();
    if wanted <= 0 {
        return Ok(None);
    }
    // ECS chooses the task to stop some time after the count was lowered.
    if surplus(&service) > 0 || is_stopping(ecs, settings, deployment).await? {
        return Ok(Some(format!(
            "a task to stop before the next one; {wanted} are left"
        )));
    }
    let left = wanted - 1;
    let answer = ecs
        .update_service()
        .cluster(&settings.cluster)
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
        Err(error)
            if error
                .message()
                .is_some_and(|it| it.contains("does not have an associated load balancer")) =>
        {
            Ok(None)
        }
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
    settings: &Settings,
    deployment: &DeploymentId,
) -> Result<bool, StepError> {
    let stopping = tasks::list(ecs, settings, deployment, DesiredStatus::Stopped).await?;
    Ok(stopping
        .iter()
        .any(|task| task.last_status() != Some("STOPPED")))
}
