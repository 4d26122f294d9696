//! The task definitions of an environment's deployments, all revisions of one family.

use aws_sdk_ecs::Client;
use aws_sdk_ecs::operation::describe_task_definition::DescribeTaskDefinitionError;
use aws_sdk_ecs::types::{SortOrder, TaskDefinition, TaskDefinitionField, TaskDefinitionStatus};

use crate::aws_error::{failed, found};
use crate::tags::{self, Tags};
use crate::{Baseline, DeploymentId, Environment, StepError, defaults};

/// The family that all deployments of the environment share.
pub fn family(baseline: &Baseline) -> String {
    of_environment(&baseline.environment, APPLICATION)
}

/// The family of the tasks that run before a deployment, all releases of the environment. One of its own makes them
/// findable after they have stopped.
pub fn release_family(baseline: &Baseline) -> String {
    of_environment(&baseline.environment, RELEASE)
}

/// Whether it is a family that deployments of the environment register.
pub fn is_of_deployments(environment: &Environment, family: &str) -> bool {
    [APPLICATION, RELEASE]
        .iter()
        .any(|own| of_environment(environment, own) == family)
}

const APPLICATION: &str = "app";
const RELEASE: &str = "release";

fn of_environment(environment: &Environment, name: &str) -> String {
    format!("{environment}-{name}")
}

/// A revision and its tags, or `None` when it does not exist any more.
pub async fn describe(
    ecs: &Client,
    arn: &str,
) -> Result<Option<(TaskDefinition, Tags)>, StepError> {
    let request = ecs
        .describe_task_definition()
        .task_definition(arn)
        .include(TaskDefinitionField::Tags);
    // AWS itself listed the ARN, so this error can only mean that the revision is gone.
    let is_gone = DescribeTaskDefinitionError::is_client_exception;
    let attempt = format_args!("read task definition {arn}");
    let answer = found(attempt, request.send().await, is_gone)?;
    Ok(answer.and_then(|answer| {
        let tags = tags::from_ecs(answer.tags());
        Some((answer.task_definition?, tags))
    }))
}

/// Whether new tasks can be started from the revision.
pub fn is_active(definition: &TaskDefinition) -> bool {
    definition.status() == Some(&TaskDefinitionStatus::Active)
}

/// The active revisions of the family that were registered since the deployment can exist, the newest first, each
/// with its tags.
///
/// Reads back to the time in the deployment's id less [`defaults::CLOCK_SKEW`]. An id may lie at most that
/// far in the future, so no revision of this deployment can be older.
///
/// # Errors
/// As [`crate::aws_error::CODES`] say.
pub async fn since(
    ecs: &Client,
    family: &str,
    deployment: &DeploymentId,
) -> Result<Vec<(TaskDefinition, Tags)>, StepError> {
    let oldest = (deployment.created() - defaults::CLOCK_SKEW).unix_timestamp();
    let mut pages = ecs
        .list_task_definitions()
        .family_prefix(family)
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
        let Some((definition, tags)) = describe(ecs, &arn).await? else {
            continue;
        };
        if definition
            .registered_at()
            .is_some_and(|registered| registered.secs() < oldest)
        {
            break;
        }
        if definition.family() == Some(family) && is_active(&definition) {
            found.push((definition, tags));
        }
    }
    Ok(found)
}

/// Those of [`since`] that carry the deployment's tags.
///
/// # Errors
/// As [`crate::aws_error::CODES`] say.
pub async fn registered(
    ecs: &Client,
    family: &str,
    deployment: &DeploymentId,
) -> Result<Vec<(TaskDefinition, Tags)>, StepError> {
    let mut found = since(ecs, family, deployment).await?;
    found.retain(|(_, tags)| tags::belong_to(tags, deployment));
    Ok(found)
}

/// Deregisters every active revision of the deployment in the family. Returns how many there were.
///
/// A service that runs one keeps running it:
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DeregisterTaskDefinition.html>.
///
/// # Errors
/// As [`crate::aws_error::CODES`] say. A revision that is gone or inactive already is not an error.
pub async fn deregister_all(
    ecs: &Client,
    family: &str,
    deployment: &DeploymentId,
) -> Result<usize, StepError> {
    let mut deregistered = 0;
    for (definition, _) in registered(ecs, family, deployment).await? {
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
        && describe(ecs, arn)
            .await?
            .is_none_or(|(definition, _)| !is_active(&definition))
    {
        return Ok(false);
    }
    Err(failed(format_args!("deregister {arn}"), error))
}

/// The family and the number of a revision with this ARN, which fit into a tag.
pub fn revision_of(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap_or_default()
}
