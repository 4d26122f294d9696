//! Creates the service that keeps a deployment's tasks running.

mod refusal;

use aws_sdk_ecs::Client;
use aws_sdk_ecs::types::{
    AssignPublicIp, AvailabilityZoneRebalancing, AwsVpcConfiguration, DeploymentCircuitBreaker,
    DeploymentConfiguration, LaunchType, LoadBalancer, NetworkConfiguration, PropagateTags,
    Service, ServiceField, Tag,
};
use lifecycle::aws_error::{code, failed};
use lifecycle::tags::{self, Tags};
use lifecycle::{DeploymentId, ErrorName, Settings, StepError, defaults};
use serde::{Deserialize, Serialize};

use refusal::Refusal;

/// What the step needs to know.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Input {
    /// The deployment.
    pub deployment_id: DeploymentId,
    /// The task definition's revision to run.
    pub task_definition_arn: String,
    /// The target group that tasks are registered in; a listener rule must name it already.
    pub target_group_arn: String,
    /// How many tasks to run.
    pub desired_count: u32,
}

/// What the step made or found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// The service.
    pub service_arn: String,
}

/// What [`undo`] has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Undone {
    /// The deployment has no service any more.
    Gone,
    /// The service is being deleted and its tasks still stop; look again later.
    Draining,
}

/// Adopts the deployment's service when it is as the input says, else creates it.
///
/// A service of the deployment that runs something else, because an earlier run was started with
/// other sizes, is a conflict: going on would put live what nobody asked for this time, and changing
/// it would replace tasks that people may be on. Nothing is changed, and the undo path removes it as
/// long as it was never live, so that the next start makes it anew.
///
/// # Errors
/// `ResourceConflict` when the name is taken by a service that is not ours or not as the input says,
/// `Transient` while an earlier service of that name is being deleted or the listener rule is not in
/// force yet, else as [`lifecycle::aws_error::CODES`] say.
pub async fn run(ecs: &Client, settings: &Settings, input: Input) -> Result<Output, StepError> {
    adopt_or_create(ecs, settings, &input)
        .await
        .map(|service_arn| Output { service_arn })
        .map_err(|error| error.of(&input.deployment_id))
}

async fn adopt_or_create(
    ecs: &Client,
    settings: &Settings,
    input: &Input,
) -> Result<String, StepError> {
    let deployment = &input.deployment_id;
    if let Some(arn) = adopt(look_up(ecs, settings, deployment).await?, input)? {
        return Ok(arn);
    }
    let attempt = format!("create service {deployment}");
    // No client token: how long AWS replays one is not documented, and a deployment that was rolled
    // back may be started again under the same name.
    let answer = ecs
        .create_service()
        .cluster(&settings.cluster)
        .service_name(deployment.as_str())
        .task_definition(&input.task_definition_arn)
        .desired_count(desired_count(input)?)
        .launch_type(LaunchType::Fargate)
        .platform_version("LATEST")
        .network_configuration(network(settings)?)
        .load_balancers(
            LoadBalancer::builder()
                .target_group_arn(&input.target_group_arn)
                .container_name(defaults::CONTAINER)
                .container_port(defaults::PORT.into())
                .build(),
        )
        .deployment_configuration(
            DeploymentConfiguration::builder()
                .deployment_circuit_breaker(
                    DeploymentCircuitBreaker::builder()
                        .enable(true)
                        // There is no earlier revision in this service to go back to.
                        .rollback(false)
                        .build(),
                )
                .minimum_healthy_percent(100)
                .maximum_percent(200)
                .build(),
        )
        // On unless told otherwise; it would stop tasks that people are on:
        // https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-rebalancing.html
        .availability_zone_rebalancing(AvailabilityZoneRebalancing::Disabled)
        .health_check_grace_period_seconds(defaults::HEALTH_CHECK_GRACE_PERIOD_SECONDS)
        .propagate_tags(PropagateTags::Service)
        .enable_ecs_managed_tags(true)
        .enable_execute_command(false)
        .set_tags(Some(
            tags::of(deployment)
                .map(|(key, value)| Tag::builder().key(key).value(value).build())
                .to_vec(),
        ))
        .send()
        .await;
    let error = match answer {
        Ok(answer) => {
            return answer
                .service
                .and_then(|service| service.service_arn)
                .ok_or_else(|| {
                    StepError::new(
                        ErrorName::Transient,
                        format!("could not {attempt}: the answer holds no ARN"),
                    )
                });
        }
        Err(error) => error,
    };
    let refusal = Refusal::of(&error);
    let mut error = failed(&attempt, error);
    match refusal {
        Some(Refusal::Passing) => error.name = ErrorName::Transient,
        Some(Refusal::NameTaken) => {
            // By a call whose answer was lost, by another run, or by somebody else.
            if let Some(arn) = adopt(look_up(ecs, settings, deployment).await?, input)? {
                return Ok(arn);
            }
            // Taken a moment ago and not there now: the next attempt sees one or the other.
            error.name = ErrorName::Transient;
        }
        None => (),
    }
    Err(error)
}

fn desired_count(input: &Input) -> Result<i32, StepError> {
    i32::try_from(input.desired_count).map_err(|_| {
        StepError::new(
            ErrorName::InvalidInput,
            format!(
                "field `desiredCount`: {} is more than can be",
                input.desired_count
            ),
        )
    })
}

fn network(settings: &Settings) -> Result<NetworkConfiguration, StepError> {
    let vpc = AwsVpcConfiguration::builder()
        .set_subnets(Some(settings.private_subnets.clone()))
        .security_groups(&settings.service_security_group)
        .assign_public_ip(AssignPublicIp::Disabled)
        .build()
        .map_err(|error| {
            StepError::new(
                ErrorName::Configuration,
                format!("could not describe the network: {error}"),
            )
        })?;
    Ok(NetworkConfiguration::builder()
        .awsvpc_configuration(vpc)
        .build())
}

/// What stands under a deployment's name.
enum Found {
    /// Nothing, or a service that was deleted and whose name is free again.
    Nothing,
    Ours(Box<Service>),
    NotOurs {
        arn: String,
    },
    /// Being deleted; its name is not free yet.
    Draining {
        arn: String,
    },
}

/// The ARN of the service to adopt, or nothing when there is none.
fn adopt(found: Found, input: &Input) -> Result<Option<String>, StepError> {
    let deployment = &input.deployment_id;
    match found {
        Found::Nothing => Ok(None),
        Found::Draining { arn } => Err(StepError::new(
            ErrorName::Transient,
            format!("an earlier service of {deployment} is still being deleted: {arn}"),
        )),
        Found::NotOurs { arn } => Err(StepError::new(
            ErrorName::ResourceConflict,
            format!(
                "the service {arn} has the name of deployment {deployment} but not its tags; delete \
                 it, or push the image under another deployment id"
            ),
        )),
        Found::Ours(service) => {
            let differences = differences(&service, input);
            if differences.is_empty() {
                return Ok(service.service_arn);
            }
            Err(StepError::new(
                ErrorName::ResourceConflict,
                format!(
                    "deployment {deployment} already has a service from an earlier run, which is left \
                     as it is: {}; start the deployment with the same input as then, or delete it \
                     first",
                    differences.join(", ")
                ),
            ))
        }
    }
}

/// In what the service is not as the input says.
fn differences(service: &Service, input: &Input) -> Vec<String> {
    let mut differences = Vec::new();
    let running = service.task_definition().unwrap_or_default();
    if running != input.task_definition_arn {
        differences.push(format!(
            "it runs task definition {running}, not {}",
            input.task_definition_arn
        ));
    }
    if i64::from(service.desired_count()) != i64::from(input.desired_count) {
        differences.push(format!(
            "it runs {} tasks, not {}",
            service.desired_count(),
            input.desired_count
        ));
    }
    let attached = service
        .load_balancers()
        .iter()
        .any(|balancer| balancer.target_group_arn() == Some(&input.target_group_arn));
    if !attached {
        differences.push(format!(
            "it does not register its tasks in {}",
            input.target_group_arn
        ));
    }
    differences
}

async fn look_up(
    ecs: &Client,
    settings: &Settings,
    deployment: &DeploymentId,
) -> Result<Found, StepError> {
    let answer = ecs
        .describe_services()
        .cluster(&settings.cluster)
        .services(deployment.as_str())
        .include(ServiceField::Tags)
        .send()
        .await;
    let service = match answer {
        // A service that never was is among the failures, as MISSING; one that was purged is an error:
        // https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DeleteService.html
        Ok(answer) => answer
            .services
            .and_then(|services| services.into_iter().next()),
        Err(error) if code(&error) == Some("ServiceNotFoundException") => None,
        Err(error) => return Err(failed(format_args!("look up service {deployment}"), error)),
    };
    let Some(service) = service else {
        return Ok(Found::Nothing);
    };
    let arn = service.service_arn().unwrap_or_default().to_owned();
    Ok(match service.status() {
        Some("INACTIVE") => Found::Nothing,
        Some("DRAINING") => Found::Draining { arn },
        _ if is_ours(&service, deployment) => Found::Ours(Box::new(service)),
        _ => Found::NotOurs { arn },
    })
}

fn is_ours(service: &Service, deployment: &DeploymentId) -> bool {
    let tags: Tags = service
        .tags()
        .iter()
        .filter_map(|tag| Some((tag.key()?.to_owned(), tag.value()?.to_owned())))
        .collect();
    tags::belong_to(&tags, deployment)
}

/// The deployment's active service, with its tags. `None` when there is none, when it is being
/// deleted, or when what has its name does not carry its tags.
///
/// # Errors
/// As [`lifecycle::aws_error::CODES`] say.
pub async fn find(
    ecs: &Client,
    settings: &Settings,
    deployment: &DeploymentId,
) -> Result<Option<Service>, StepError> {
    Ok(match look_up(ecs, settings, deployment).await? {
        Found::Ours(service) => Some(*service),
        Found::Nothing | Found::NotOurs { .. } | Found::Draining { .. } => None,
    })
}

/// Deletes the deployment's service with its tasks, or says how far an earlier call has come.
///
/// ECS deregisters the tasks, waits out the deregistration delay and stops them after this call, so
/// whoever needs the tasks gone calls it again until it says [`Undone::Gone`].
///
/// # Errors
/// As [`lifecycle::aws_error::CODES`] say; a service that is gone already is none.
pub async fn undo(
    ecs: &Client,
    settings: &Settings,
    deployment: &DeploymentId,
) -> Result<Undone, StepError> {
    let delete = async {
        match look_up(ecs, settings, deployment).await? {
            Found::Nothing | Found::NotOurs { .. } => return Ok(Undone::Gone),
            Found::Draining { .. } => return Ok(Undone::Draining),
            Found::Ours(_) => (),
        }
        let answer = ecs
            .delete_service()
            .cluster(&settings.cluster)
            .service(deployment.as_str())
            // Without it the tasks would have to be scaled down and waited for first.
            .force(true)
            .send()
            .await;
        match answer {
            Ok(answer) => {
                let inactive = answer
                    .service
                    .is_some_and(|service| service.status() == Some("INACTIVE"));
                Ok(if inactive {
                    Undone::Gone
                } else {
                    Undone::Draining
                })
            }
            // Deleted by another run since the look-up; its tasks may still stop.
            Err(error)
                if matches!(
                    code(&error),
                    Some("ServiceNotFoundException" | "ServiceNotActiveException")
                ) =>
            {
                Ok(match look_up(ecs, settings, deployment).await? {
                    Found::Nothing | Found::NotOurs { .. } => Undone::Gone,
                    Found::Ours(_) | Found::Draining { .. } => Undone::Draining,
                })
            }
            Err(error) => Err(failed(format_args!("delete service {deployment}"), error)),
        }
    };
    delete
        .await
        .map_err(|error: StepError| error.of(deployment))
}

#[cfg(test)]
mod tests;
