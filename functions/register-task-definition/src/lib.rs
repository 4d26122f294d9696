//! Registers the task definition of a deployment: one Fargate container, its image by digest; or a copy of a task
//! definition of the team's own in which the container `app` has that image.

mod definition;

use std::collections::BTreeMap;

use aws_sdk_ecs::Client;
use lifecycle::{
    Baseline, DeploymentId, ErrorName, Origin, StepError, raw_task_definition, task_definition,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What the task definition is made of.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Input {
    /// The deployment.
    pub deployment_id: DeploymentId,
    /// The image's digest, `sha256:…`.
    pub image_digest: String,
    /// CPU units of a task; none for those of the base.
    #[serde(default)]
    pub cpu: Option<u32>,
    /// Memory of a task in MiB; none for that of the base.
    #[serde(default)]
    pub memory: Option<u32>,
    /// The user's own environment variables.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Environment variables that ECS reads when a task starts, with where it gets them.
    #[serde(default)]
    pub secrets: BTreeMap<String, String>,
    /// The ARN of the revision that is copied.
    #[serde(default)]
    pub base: Option<String>,
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
/// `InvalidInput` when Fargate does not have the size or a variable has a reserved name; `Configuration` when the base
/// was deleted; else as [`lifecycle::aws_error::CODES`] say.
pub async fn run(ecs: &Client, baseline: &Baseline, input: Input) -> Result<Output, StepError> {
    definition::refuse_reserved(&input)?;
    let base = base(ecs, &input).await?;
    let wanted = definition::wanted(baseline, &input, base)?;
    let family = task_definition::family(baseline);
    let existing = task_definition::registered(ecs, &family, &input.deployment_id)
        .await?
        .into_iter()
        .find(|(found, tags)| definition::is_same(found, tags, &wanted))
        .and_then(|(found, _)| found.task_definition_arn);
    if let Some(task_definition_arn) = existing {
        return Ok(Output {
            task_definition_arn,
            outcome: Origin::Adopted,
        });
    }
    let attempt = format!("register a task definition for {}", input.deployment_id);
    let registered = raw_task_definition::register(ecs, &attempt, &wanted).await;
    Ok(Output {
        task_definition_arn: registered.map_err(|error| register_error(&wanted, error))?,
        outcome: Origin::Created,
    })
}

/// The revision that is copied. One that was deregistered since the first step still is.
async fn base(ecs: &Client, input: &Input) -> Result<Option<Value>, StepError> {
    let Some(arn) = &input.base else {
        return Ok(None);
    };
    match raw_task_definition::read(ecs, arn).await? {
        Some(base) => Ok(Some(base)),
        None => Err(StepError::new(
            ErrorName::Configuration,
            format!(
                "{}: its base {arn} is gone; push its image again under a new deployment id",
                input.deployment_id
            ),
        )),
    }
}

fn register_error(wanted: &Value, mut error: StepError) -> StepError {
    if error.message.contains("No Fargate configuration exists") {
        error.name = ErrorName::InvalidInput;
        let size = |member: &str| wanted[member].as_str().unwrap_or("absent").to_owned();
        error.message += &format!(
            "; field `cpu` is {} and `memory` is {}",
            size("cpu"),
            size("memory")
        );
    }
    error
}

/// Deregisters every active revision of the deployment. Returns how many there were.
///
/// # Errors
/// As [`lifecycle::aws_error::CODES`] say. A revision that is gone or inactive already is not an error.
pub async fn undo(
    ecs: &Client,
    baseline: &Baseline,
    deployment: &DeploymentId,
) -> Result<usize, StepError> {
    let family = task_definition::family(baseline);
    task_definition::deregister_all(ecs, &family, deployment).await
}

#[cfg(test)]
mod tests;
