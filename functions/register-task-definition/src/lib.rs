//! Registers the task definition of a deployment: one Fargate container, its image by digest.

mod definition;

use std::collections::BTreeMap;

use aws_sdk_ecs::Client;
use aws_sdk_ecs::config::Config;
use aws_sdk_ecs::config::http::HttpResponse;
use aws_sdk_ecs::config::retry::RetryConfig;
use aws_sdk_ecs::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ecs::operation::register_task_definition::RegisterTaskDefinitionError;
use aws_sdk_ecs::types::{
    Compatibility, NetworkMode, SortOrder, TaskDefinition, TaskDefinitionStatus,
};
use lifecycle::aws_error::{created_arn, failed};
use lifecycle::task_definition;
use lifecycle::{Baseline, DeploymentId, ErrorName, Origin, StepError, defaults, tags};
use serde::{Deserialize, Serialize};

/// What the task definition is made of.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Input {
    /// The deployment.
    pub deployment_id: DeploymentId,
    /// The image's digest, `sha256:…`.
    pub image_digest: String,
    /// CPU units of a task.
    pub cpu: u32,
    /// Memory of a task in MiB.
    pub memory: u32,
    /// The user's own environment variables.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Environment variables that ECS reads when a task starts, with where it gets them.
    #[serde(default)]
    pub secrets: BTreeMap<String, String>,
    /// What runs in place of the image's command.
    #[serde(default)]
    pub command: Option<Vec<String>>,
    /// What stands before the command in place of the image's entry point.
    #[serde(default)]
    pub entry_point: Option<Vec<String>>,
    /// The version of the environment's settings that the deployment is made with.
    #[serde(default)]
    pub settings_version: Option<i64>,
}

/// The revision, registered or adopted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// The ARN of the revision to run.
    pub task_definition_arn: String,
    /// Whether this run registered it.
    pub outcome: Origin,
}

/// Adopts the deployment's revision if one matches the input, else registers one.
///
/// Other revisions of the deployment, as an earlier run with other sizes leaves them, stay as they are,
/// because a service may run them.
///
/// # Errors
/// `InvalidInput` when Fargate does not have the size or a variable has a reserved name, else as
/// [`lifecycle::aws_error::CODES`] say.
pub async fn run(ecs: &Client, baseline: &Baseline, input: Input) -> Result<Output, StepError> {
    let wanted = definition::container(baseline, &input)?;
    let existing = registered(ecs, baseline, &input.deployment_id)
        .await?
        .into_iter()
        .find(|found| definition::is_same(found, &input, &wanted))
        .and_then(|found| found.task_definition_arn);
    if let Some(task_definition_arn) = existing {
        return Ok(Output {
            task_definition_arn,
            outcome: Origin::Adopted,
        });
    }

    let attempt = format!("register a task definition for {}", input.deployment_id);
    let answer = ecs
        .register_task_definition()
        .family(task_definition::family(baseline))
        .requires_compatibilities(Compatibility::Fargate)
        .network_mode(NetworkMode::Awsvpc)
        .runtime_platform(definition::platform(baseline))
        .cpu(input.cpu.to_string())
        .memory(input.memory.to_string())
        .execution_role_arn(&baseline.execution_role_arn)
        .task_role_arn(&baseline.task_role_arn)
        .container_definitions(wanted)
        .set_tags(Some(definition::tags(&input)))
        .customize()
        // The call is not idempotent: the same request again after a lost answer registers a second
        // revision. The state machine retries the whole step, which looks up first.
        .config_override(Config::builder().retry_config(RetryConfig::disabled()))
        .send()
        .await
        .map_err(|error| register_error(&input, &attempt, error))?;
    let arn = answer
        .task_definition
        .and_then(|definition| definition.task_definition_arn);
    Ok(Output {
        task_definition_arn: created_arn(&attempt, arn)?,
        outcome: Origin::Created,
    })
}

fn register_error(
    input: &Input,
    attempt: &str,
    error: SdkError<RegisterTaskDefinitionError, HttpResponse>,
) -> StepError {
    let has = |part| {
        error
            .message()
            .is_some_and(|message| message.contains(part))
    };
    let is_not_a_size = has("No Fargate configuration exists");
    // Deployments share the family, and two may register at the same moment.
    let is_concurrent = has("Too many concurrent attempts");
    let mut error = failed(attempt, error);
    if is_concurrent {
        error.name = ErrorName::Transient;
    }
    if is_not_a_size {
        error.name = ErrorName::InvalidInput;
        error.message += &format!(
            "; field `cpu` is {} and `memory` is {}",
            input.cpu, input.memory
        );
    }
    error
}

/// The active revisions that carry the deployment's tags, the newest first.
///
/// Reads back to the time in the deployment's id less [`defaults::CLOCK_SKEW`]. An id may lie at most that
/// far in the future, so no revision of this deployment can be older.
pub async fn registered(
    ecs: &Client,
    baseline: &Baseline,
    deployment: &DeploymentId,
) -> Result<Vec<TaskDefinition>, StepError> {
    let family = task_definition::family(baseline);
    let oldest = (deployment.created() - defaults::CLOCK_SKEW).unix_timestamp();
    let mut pages = ecs
        .list_task_definitions()
        .family_prefix(&family)
        .status(TaskDefinitionStatus::Active)
        .sort(SortOrder::Desc)
        .into_paginator()
        .items()
        .send();
    let mut found = Vec::new();
    while let Some(arn) = pages.next().await {
        let arn = arn.map_err(|error| {
            failed(format_args!("list the task definitions of {family}"), error)
        })?;
        let Some((definition, tags)) = task_definition::describe(ecs, &arn).await? else {
            continue;
        };
        if definition
            .registered_at()
            .is_some_and(|registered| registered.secs() < oldest)
        {
            break;
        }
        if definition.family() == Some(&family)
            && task_definition::is_active(&definition)
            && tags::belong_to(&tags, deployment)
        {
            found.push(definition);
        }
    }
    Ok(found)
}

/// Deregisters every active revision of the deployment. Returns how many there were.
///
/// A service that runs one keeps running it:
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DeregisterTaskDefinition.html>.
///
/// # Errors
/// As [`lifecycle::aws_error::CODES`] say. A revision that is gone or inactive already is not an error.
pub async fn undo(
    ecs: &Client,
    baseline: &Baseline,
    deployment: &DeploymentId,
) -> Result<usize, StepError> {
    let mut deregistered = 0;
    for definition in registered(ecs, baseline, deployment).await? {
        if deregister(ecs, definition.task_definition_arn().unwrap_or_default()).await? {
            deregistered += 1;
        }
    }
    Ok(deregistered)
}

/// Deregisters one revision. Returns whether it was active until now.
async fn deregister(ecs: &Client, arn: &str) -> Result<bool, StepError> {
    let answer = ecs
        .deregister_task_definition()
        .task_definition(arn)
        .send()
        .await;
    let Err(error) = answer else { return Ok(true) };
    let may_be_gone = error
        .as_service_error()
        .is_some_and(|error| error.is_client_exception() || error.is_invalid_parameter_exception());
    // AWS does not document its answer for a revision that another run has deregistered, so the revision
    // is read.
    if may_be_gone
        && task_definition::describe(ecs, arn)
            .await?
            .is_none_or(|(definition, _)| !task_definition::is_active(&definition))
    {
        return Ok(false);
    }
    Err(failed(format_args!("deregister {arn}"), error))
}

#[cfg(test)]
mod tests;
