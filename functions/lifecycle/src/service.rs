//! The ECS service that keeps a deployment's tasks running.

use aws_sdk_ecs::Client;
use aws_sdk_ecs::error::ProvideErrorMetadata;
use aws_sdk_ecs::operation::update_service::UpdateServiceError;
use aws_sdk_ecs::types::{Deployment, Service, ServiceField};

use crate::aws_error::{code, failed, found};
use crate::{Baseline, DeploymentId, StepError, defaults, tags};

/// What exists under a deployment's name.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// There is no service, or it was deleted and its name is free again.
    Nothing,
    /// A service that carries the deployment's tags.
    Ours(Box<Service>),
    /// A service without the deployment's tags, which is neither changed nor deleted.
    NotOurs {
        /// Its ARN.
        arn: String,
    },
    /// A service that is being deleted; its name is not free yet.
    Draining {
        /// Its ARN.
        arn: String,
    },
}

/// The service that is named after the deployment, with its tags and in any status. ECS describes one
/// that was deleted for a while, as `INACTIVE`.
pub async fn describe(
    ecs: &Client,
    baseline: &Baseline,
    deployment: &DeploymentId,
) -> Result<Option<Service>, StepError> {
    let answer = ecs
        .describe_services()
        .cluster(&baseline.cluster)
        .services(deployment.as_str())
        .include(ServiceField::Tags)
        .send()
        .await;
    match answer {
        // A service that never existed is among the failures, as MISSING; for one that was purged, AWS
        // documents an error that the SDK does not model for this call:
        // https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DeleteService.html
        Ok(answer) => Ok(answer.services.unwrap_or_default().into_iter().next()),
        Err(error) if code(&error) == Some("ServiceNotFoundException") => Ok(None),
        Err(error) => Err(failed(format_args!("read service {deployment}"), error)),
    }
}

/// Looks up the service that is named after the deployment, with its tags.
pub async fn look_up(
    ecs: &Client,
    baseline: &Baseline,
    deployment: &DeploymentId,
) -> Result<Found, StepError> {
    let Some(service) = describe(ecs, baseline, deployment).await? else {
        return Ok(Found::Nothing);
    };
    let arn = service.service_arn().unwrap_or_default().to_owned();
    let is_ours = tags::belong_to(&tags::from_ecs(service.tags()), deployment);
    Ok(match service.status() {
        Some("INACTIVE") => Found::Nothing,
        Some("DRAINING") => Found::Draining { arn },
        _ if is_ours => Found::Ours(Box::new(service)),
        _ => Found::NotOurs { arn },
    })
}

/// The deployment's active service, with its tags. `None` when there is none, when it is being
/// deleted, or when the service of that name does not carry the deployment's tags.
pub async fn find(
    ecs: &Client,
    baseline: &Baseline,
    deployment: &DeploymentId,
) -> Result<Option<Service>, StepError> {
    Ok(match look_up(ecs, baseline, deployment).await? {
        Found::Ours(service) => Some(*service),
        Found::Nothing | Found::NotOurs { .. } | Found::Draining { .. } => None,
    })
}

/// Whether UpdateService failed because the service was deleted after it was looked up.
pub fn is_gone(error: &UpdateServiceError) -> bool {
    error.is_service_not_found_exception() || error.is_service_not_active_exception()
}

/// Whether ECS refused a change because no load balancer uses the service's target group: no rule names it. Reported
/// of UpdateService in <https://github.com/aws/copilot-cli/issues/5652>, with the words that CreateService is
/// documented to use.
pub fn is_unrouted<E: ProvideErrorMetadata>(error: &E) -> bool {
    let message = error.message();
    message.is_some_and(|it| it.contains("does not have an associated load balancer"))
}

/// The newest rollout of the service. ECS calls a rollout a deployment, and the newest one `PRIMARY`:
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Deployment.html>.
pub fn newest_rollout(service: &Service) -> Option<&Deployment> {
    service
        .deployments()
        .iter()
        .find(|rollout| rollout.status() == Some("PRIMARY"))
}

/// Whether the service has the grace period of a deployment that drains, so that ECS does not replace a task that
/// answers its health checks with 503.
pub fn keeps_unhealthy(service: &Service) -> bool {
    service.health_check_grace_period_seconds() == Some(defaults::DRAINING_GRACE_PERIOD_SECONDS)
}

/// Sets the health check grace period, in seconds, during which ECS does not replace a task that fails
/// its health checks. Starts no rollout:
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_UpdateService.html>.
///
/// # Errors
/// As [`crate::aws_error::CODES`] say. A service that was deleted needs no grace period, and one whose target group
/// no load balancer uses has no health checks.
pub async fn set_grace_period(
    ecs: &Client,
    baseline: &Baseline,
    deployment: &DeploymentId,
    seconds: i32,
) -> Result<(), StepError> {
    let request = ecs
        .update_service()
        .cluster(&baseline.cluster)
        .service(deployment.as_str())
        .health_check_grace_period_seconds(seconds);
    let attempt = format!("set the health check grace period of service {deployment}");
    let answer = request.send().await;
    if answer.as_ref().is_err_and(is_unrouted) {
        return Ok(());
    }
    found(attempt, answer, is_gone).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorName;
    use memory_aws::{MemoryAws, own_tags};
    use serde_json::json;

    const ID: &str = "test-20251027-122112Z";

    fn aws() -> MemoryAws {
        let aws = MemoryAws::default();
        aws.with(|state| _ = state.add_service(ID, own_tags(ID)));
        aws
    }

    async fn looked_up(aws: &MemoryAws) -> Result<Found, StepError> {
        let ecs = Client::new(&aws.config());
        look_up(&ecs, &Baseline::for_tests(), &ID.parse().unwrap()).await
    }

    #[tokio::test]
    async fn a_service_is_ours_by_its_tags_and_is_there_until_ecs_has_deleted_it() {
        let aws = aws();
        let found = looked_up(&aws).await.unwrap();
        assert!(matches!(found, Found::Ours(_)), "{found:?}");
        aws.with(|state| state.service(ID)["tags"] = json!([]));
        let found = looked_up(&aws).await.unwrap();
        assert!(matches!(found, Found::NotOurs { .. }), "{found:?}");
        aws.with(|state| state.service(ID)["status"] = "DRAINING".into());
        let found = looked_up(&aws).await.unwrap();
        assert!(matches!(found, Found::Draining { .. }), "{found:?}");
        aws.with(|state| state.service(ID)["status"] = "INACTIVE".into());
        assert_eq!(looked_up(&aws).await, Ok(Found::Nothing));
    }

    #[tokio::test]
    async fn only_the_error_of_a_purged_service_means_that_there_is_none() {
        let aws = aws();
        aws.on("DescribeServices")
            .once()
            .fails("ServiceNotFoundException");
        assert_eq!(looked_up(&aws).await, Ok(Found::Nothing));
        aws.on("DescribeServices")
            .once()
            .fails("AccessDeniedException");
        let error = looked_up(&aws).await.unwrap_err();
        assert_eq!(error.name, ErrorName::AccessDenied);
        assert!(error.message.contains(ID), "{error}");
    }
}
