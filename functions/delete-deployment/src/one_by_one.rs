//! Stops the tasks of a service one after another.

use aws_sdk_ecs::Client;
use aws_sdk_ecs::error::ProvideErrorMetadata;
use aws_sdk_ecs::types::{DesiredStatus, Service};
use lifecycle::aws_error::{code, failed};
use lifecycle::{DeploymentId, Settings, StepError, tasks};

/// Lets ECS stop the next task, if the one before has stopped. Says what we wait for, or nothing when
/// the service wants no more tasks.
///
/// The new count follows from the one that ECS says, so a call whose answer was lost asks for the
/// same again.
///
/// # Errors
/// As [`lifecycle::aws_error::CODES`] say.
pub async fn stop_next(
    ecs: &Client,
    settings: &Settings,
    deployment: &DeploymentId,
) -> Result<Option<String>, StepError> {
    let Some(service) = create_service::find(ecs, settings, deployment).await? else {
        return Ok(None);
    };
    let wanted = service.desired_count();
    if wanted <= 0 {
        return Ok(None);
    }
    // ECS chooses a task to stop some time after it was told to want one less.
    if surplus(&service) > 0 || stops(ecs, settings, deployment).await? {
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
        // Deleted by another run since the look-up.
        Err(error)
            if matches!(
                code(&error),
                Some("ServiceNotFoundException" | "ServiceNotActiveException")
            ) =>
        {
            Ok(None)
        }
        // Its rules are gone, so no load balancer knows its target group any more. Where ECS minds that,
        // the tasks stop together, for a deployment that cannot be deleted is worse.
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

/// Tasks beyond those that are wanted.
fn surplus(service: &Service) -> i32 {
    service.running_count() + service.pending_count() - service.desired_count()
}

/// Whether a task of the service was told to stop and has not stopped yet.
async fn stops(
    ecs: &Client,
    settings: &Settings,
    deployment: &DeploymentId,
) -> Result<bool, StepError> {
    let stopping = tasks::of(ecs, settings, deployment, DesiredStatus::Stopped).await?;
    Ok(stopping
        .iter()
        .any(|task| task.last_status() != Some("STOPPED")))
}
