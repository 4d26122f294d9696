//! Creates the service that keeps a deployment's tasks running.

mod create_error;

use aws_sdk_ecs::Client;
use aws_sdk_ecs::operation::create_service::builders::CreateServiceFluentBuilder;
use aws_sdk_ecs::types::{
    AvailabilityZoneRebalancing, DeploymentCircuitBreaker, DeploymentConfiguration, LaunchType,
    LoadBalancer, PropagateTags, Service,
};
use lifecycle::aws_error::{code, created_arn, failed};
use lifecycle::service::{self, Found};
use lifecycle::{Baseline, DeploymentId, ErrorName, Origin, StepError, defaults, tags, tasks};
use serde::{Deserialize, Serialize};

use create_error::CreateError;

/// The service that is needed.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Input {
    /// The deployment.
    pub deployment_id: DeploymentId,
    /// The ARN of the task definition revision to run.
    pub task_definition_arn: String,
    /// The ARN of the target group to register tasks in. A listener rule must name it already.
    pub target_group_arn: String,
    /// How many tasks to run.
    pub desired_count: u32,
    /// Seconds during which ECS does not stop a new task for failing its health checks. A machine of an earlier
    /// version does not send it.
    #[serde(default)]
    pub grace_seconds: Option<u32>,
}

/// The service, created or adopted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// The ARN of the service.
    pub service_arn: String,
    /// Whether this run created it.
    pub outcome: Origin,
}

/// What is left after [`undo`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Undone {
    /// The deployment has no service any more.
    Gone,
    /// The service is being deleted and its tasks are still stopping; call again later.
    Draining,
}

/// Adopts the deployment's service if it matches the input, else creates it.
///
/// Only the grace period of an adopted service is made as the input says. The run that created the service may have
/// read other settings, and a change of the grace period replaces no task.
///
/// A service of the deployment that runs something else, because an earlier run was started with another input, is a
/// conflict. However many tasks it has, it is not. To continue would make live what this run did not ask for, and to change the
/// service would replace tasks that may have visitors. So nothing is changed. If it was never live, the undo
/// deletes it, and the next start creates it again.
///
/// # Errors
/// `ResourceConflict` when the name is taken by a service that is not ours or does not match the input,
/// `Transient` while an earlier service of that name is being deleted or the listener rule is not in
/// force yet, else as [`lifecycle::aws_error::CODES`] say.
pub async fn run(ecs: &Client, baseline: &Baseline, input: Input) -> Result<Output, StepError> {
    let deployment = &input.deployment_id;
    if let Some(adopted) = adopt_and_correct(ecs, baseline, &input).await? {
        return Ok(adopted);
    }
    let attempt = format!("create service {deployment}");
    let error = match create(ecs, baseline, &input)?.send().await {
        Ok(answer) => {
            let arn = answer.service.and_then(|service| service.service_arn);
            return Ok(Output {
                service_arn: created_arn(&attempt, arn)?,
                outcome: Origin::Created,
            });
        }
        Err(error) => error,
    };
    let known = CreateError::of(&error);
    let mut error = failed(&attempt, error);
    // The name is taken by a call whose answer was lost, by another run, or by a service of another owner.
    if known == Some(CreateError::NameTaken)
        && let Some(adopted) = adopt_and_correct(ecs, baseline, &input).await?
    {
        return Ok(adopted);
    }
    // A name that was taken a moment ago but is free now is transient too: the next attempt finds either
    // the service or the free name.
    if known.is_some() {
        error.name = ErrorName::Transient;
    }
    Err(error)
}

/// The deployment's service with the grace period of the input, or `None` when there is none.
async fn adopt_and_correct(
    ecs: &Client,
    baseline: &Baseline,
    input: &Input,
) -> Result<Option<Output>, StepError> {
    let deployment = &input.deployment_id;
    let found = service::look_up(ecs, baseline, deployment).await?;
    let Some(service) = adopt(found, input)? else {
        return Ok(None);
    };
    // A drain has raised it, and a drain alone takes that back: with less, ECS would replace tasks that drain.
    let is_raised = service::keeps_unhealthy(&service);
    if let Some(wanted) = input.grace_seconds.map(in_ecs)
        && service.health_check_grace_period_seconds() != Some(wanted)
        && !is_raised
    {
        service::set_grace_period(ecs, baseline, deployment, wanted).await?;
    }
    Ok(service.service_arn.map(|service_arn| Output {
        service_arn,
        outcome: Origin::Adopted,
    }))
}

/// Seconds as ECS takes them.
fn in_ecs(seconds: u32) -> i32 {
    seconds.try_into().unwrap_or(i32::MAX)
}

/// Without a client token: how long AWS replays one is not documented, and a deployment that was undone
/// may be started again under the same name.
fn create(
    ecs: &Client,
    baseline: &Baseline,
    input: &Input,
) -> Result<CreateServiceFluentBuilder, StepError> {
    let load_balancer = LoadBalancer::builder()
        .target_group_arn(&input.target_group_arn)
        .container_name(defaults::CONTAINER)
        .container_port(defaults::PORT.into())
        .build();
    // Off: it counts AWS's own troubles too, such as a network interface that came too late, and a rollout that
    // it failed starts no more tasks, even when the service is live. `check-target-health` counts instead.
    let circuit_breaker = DeploymentCircuitBreaker::builder()
        .enable(false)
        .rollback(false)
        .build();
    let grace_seconds = input
        .grace_seconds
        .unwrap_or_else(|| baseline.health_check_grace_seconds());
    let deployment_configuration = DeploymentConfiguration::builder()
        .deployment_circuit_breaker(circuit_breaker)
        .minimum_healthy_percent(100)
        .maximum_percent(200)
        .build();
    Ok(ecs
        .create_service()
        .cluster(&baseline.cluster)
        .service_name(input.deployment_id.as_str())
        .task_definition(&input.task_definition_arn)
        .desired_count(desired_count(input)?)
        .launch_type(LaunchType::Fargate)
        .platform_version("LATEST")
        .network_configuration(tasks::network(baseline)?)
        .load_balancers(load_balancer)
        .deployment_configuration(deployment_configuration)
        // Enabled by default; it would stop tasks that have visitors:
        // https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-rebalancing.html
        .availability_zone_rebalancing(AvailabilityZoneRebalancing::Disabled)
        .health_check_grace_period_seconds(in_ecs(grace_seconds))
        .propagate_tags(PropagateTags::Service)
        .enable_ecs_managed_tags(true)
        .enable_execute_command(false)
        .set_tags(Some(tags::to_ecs(&input.deployment_id))))
}

fn desired_count(input: &Input) -> Result<i32, StepError> {
    i32::try_from(input.desired_count).map_err(|_| {
        StepError::new(
            ErrorName::InvalidInput,
            format!("field `desiredCount`: {} is too large", input.desired_count),
        )
    })
}

/// The service to adopt, or `None` if no service has that name.
fn adopt(found: Found, input: &Input) -> Result<Option<Service>, StepError> {
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
                return Ok(Some(*service));
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

/// How the service differs from the input. Not by its number of tasks: an operator may have scaled it since, and
/// a retry must not take that back.
fn differences(service: &Service, input: &Input) -> Vec<String> {
    let mut differences = Vec::new();
    let running = service.task_definition().unwrap_or_default();
    if running != input.task_definition_arn {
        differences.push(format!(
            "it runs task definition {running}, not {}",
            input.task_definition_arn
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

/// Deletes the deployment's service with its tasks, or reports how far an earlier call has come.
///
/// ECS deregisters the tasks, waits for the deregistration delay and stops them after this call, so a
/// caller that needs the tasks gone calls it again until it returns [`Undone::Gone`].
///
/// # Errors
/// As [`lifecycle::aws_error::CODES`] say. A service that is gone already is not an error.
pub async fn undo(
    ecs: &Client,
    baseline: &Baseline,
    deployment: &DeploymentId,
) -> Result<Undone, StepError> {
    match service::look_up(ecs, baseline, deployment).await? {
        Found::Nothing | Found::NotOurs { .. } => return Ok(Undone::Gone),
        Found::Draining { .. } => return Ok(Undone::Draining),
        Found::Ours(_) => (),
    }
    let answer = ecs
        .delete_service()
        .cluster(&baseline.cluster)
        .service(deployment.as_str())
        // Without it the tasks would have to be scaled down and waited for first.
        .force(true)
        .send()
        .await;
    let error = match answer {
        Ok(answer) => {
            let is_gone = answer
                .service
                .is_some_and(|it| it.status() == Some("INACTIVE"));
            return Ok(if is_gone {
                Undone::Gone
            } else {
                Undone::Draining
            });
        }
        Err(error) => error,
    };
    // Deleted by another run since it was looked up; its tasks may still be stopping. The SDK does not
    // model the second error for this call.
    let is_deleted = error
        .as_service_error()
        .is_some_and(|error| error.is_service_not_found_exception())
        || code(&error) == Some("ServiceNotActiveException");
    if !is_deleted {
        return Err(failed(format_args!("delete service {deployment}"), error));
    }
    Ok(match service::look_up(ecs, baseline, deployment).await? {
        Found::Nothing | Found::NotOurs { .. } => Undone::Gone,
        Found::Ours(_) | Found::Draining { .. } => Undone::Draining,
    })
}

#[cfg(test)]
mod tests;
