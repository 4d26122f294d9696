//! The task definitions of an environment's deployments, all revisions of one family.

use aws_sdk_ecs::Client;
use aws_sdk_ecs::operation::describe_task_definition::DescribeTaskDefinitionError;
use aws_sdk_ecs::types::{TaskDefinition, TaskDefinitionField, TaskDefinitionStatus};

use crate::aws_error::found;
use crate::tags::{self, Tags};
use crate::{Baseline, StepError};

/// The family that all deployments of the environment share.
pub fn family(baseline: &Baseline) -> String {
    format!("{}-app", baseline.environment)
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
