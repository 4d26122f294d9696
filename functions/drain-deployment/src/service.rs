//! The deployment's service and its health check grace period.

use aws_sdk_ecs::Client;
use aws_sdk_ecs::types::ServiceField;
use lifecycle::aws_error::{code, failed};
use lifecycle::tags::{self, Tags};
use lifecycle::{DeploymentId, ErrorName, Settings, StepError};

/// The grace period, in seconds, of the deployment's service; nothing when there is no service or it
/// is being deleted.
///
/// # Errors
/// `ResourceConflict` when the service does not carry the deployment's tags, else as
/// [`lifecycle::aws_error::CODES`] say.
pub async fn find(
    ecs: &Client,
    settings: &Settings,
    deployment: &DeploymentId,
) -> Result<Option<i32>, StepError> {
    let answer = ecs
        .describe_services()
        .cluster(&settings.cluster)
        .services(deployment.as_str())
        .include(ServiceField::Tags)
        .send()
        .await;
    let services = match answer {
        Ok(answer) => answer.services.unwrap_or_default(),
        Err(error) if code(&error) == Some("ServiceNotFoundException") => return Ok(None),
        Err(error) => return Err(failed(format_args!("read service {deployment}"), error)),
    };
    let Some(service) = services
        .iter()
        .find(|service| service.status() == Some("ACTIVE"))
    else {
        return Ok(None);
    };
    let tags: Tags = service
        .tags()
        .iter()
        .filter_map(|tag| Some((tag.key()?.to_owned(), tag.value()?.to_owned())))
        .collect();
    if !tags::belong_to(&tags, deployment) {
        return Err(StepError::new(
            ErrorName::ResourceConflict,
            format!(
                "service {} has the name of {deployment} but not its tags, so nothing is drained",
                service.service_arn().unwrap_or_default()
            ),
        ));
    }
    Ok(Some(
        service.health_check_grace_period_seconds().unwrap_or(0),
    ))
}

/// Sets the grace period, during which ECS replaces no task for failing health checks. Starts no
/// rollout: <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_UpdateService.html>.
///
/// # Errors
/// As [`lifecycle::aws_error::CODES`] say; a service that is gone needs none.
pub async fn set_grace_period(
    ecs: &Client,
    settings: &Settings,
    deployment: &DeploymentId,
    seconds: i32,
) -> Result<(), StepError> {
    let answer = ecs
        .update_service()
        .cluster(&settings.cluster)
        .service(deployment.as_str())
        .health_check_grace_period_seconds(seconds)
        .send()
        .await;
    match answer {
        Ok(_) => Ok(()),
        // Deleted by another run since the look-up.
        Err(error)
            if matches!(
                code(&error),
                Some("ServiceNotFoundException" | "ServiceNotActiveException")
            ) =>
        {
            Ok(())
        }
        Err(error) => Err(failed(
            format_args!("set the health check grace period of service {deployment}"),
            error,
        )),
    }
}
