//! The task definitions of an environment's deployments, all revisions of one family.

use aws_sdk_ecs::Client;
use aws_sdk_ecs::types::{TaskDefinition, TaskDefinitionField, TaskDefinitionStatus};

use crate::aws_error::failed;
use crate::tags::{self, Tags};
use crate::{Settings, StepError};

/// The family that all deployments of the environment share.
pub fn family(settings: &Settings) -> String {
    format!("{}-app", settings.environment)
}

/// A revision and its tags, or `None` when it does not exist any more.
///
/// # Errors
/// As [`crate::aws_error::CODES`] say.
pub async fn describe(
    ecs: &Client,
    arn: &str,
) -> Result<Option<(TaskDefinition, Tags)>, StepError> {
    let answer = ecs
        .describe_task_definition()
        .task_definition(arn)
        .include(TaskDefinitionField::Tags)
        .send()
        .await;
    match answer {
        Ok(answer) => {
            let tags = tags::from_ecs(answer.tags());
            Ok(answer.task_definition.map(|definition| (definition, tags)))
        }
        // All that can be wrong with an ARN that AWS itself listed is that it is gone.
        Err(error)
            if error
                .as_service_error()
                .is_some_and(|error| error.is_client_exception()) =>
        {
            Ok(None)
        }
        Err(error) => Err(failed(format_args!("read task definition {arn}"), error)),
    }
}

/// Whether new tasks can be started from the revision.
pub fn is_active(definition: &TaskDefinition) -> bool {
    definition.status() == Some(&TaskDefinitionStatus::Active)
}
