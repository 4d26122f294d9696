//! Starts the deployment of an image that was pushed, once.

use aws_lambda_events::event::eventbridge::EventBridgeEvent;
use aws_sdk_sfn::Client;
use aws_sdk_sfn::operation::start_execution::StartExecutionError;
use lifecycle::aws_error::failed;
use lifecycle::{
    DeploymentId, Environment, ErrorName, StepError, defaults, executions, input, is_image_digest,
    printable::printable,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What the function knows of its environment, read once at start.
#[derive(Debug, Clone)]
pub struct Config {
    /// The environment that this function serves.
    pub environment: Environment,
    /// The repository whose pushes start deployments.
    pub repository_name: String,
    /// The deploy state machine.
    pub state_machine_arn: String,
}

impl Config {
    /// Reads it through `variable`, which gives the value of an environment variable.
    ///
    /// # Errors
    /// `Configuration`, naming the variable that is missing or wrong.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, StepError> {
        let required = |name: &str| lifecycle::variables::required(&variable, name);
        Ok(Config {
            environment: lifecycle::variables::environment(&variable)?,
            repository_name: required("REPOSITORY_NAME")?,
            state_machine_arn: required("STATE_MACHINE_ARN")?,
        })
    }
}

/// The detail of an "ECR Image Action" event.
///
/// <https://docs.aws.amazon.com/AmazonECR/latest/userguide/ecr-eventbridge.html>. Parts of a
/// multi-architecture push come with an empty tag or none.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
struct ImageAction {
    action_type: String,
    result: String,
    repository_name: String,
    #[serde(default)]
    image_digest: Option<String>,
    #[serde(default)]
    image_tag: Option<String>,
}

/// The maximum number of characters of an event's field that a reason shows; those of ECR are shorter.
const MAX_SHOWN: usize = 64;

/// What became of the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// An execution was started.
    Started,
    /// The deployment already has an execution; the event arrived again.
    AlreadyStarted,
    /// The event calls for nothing.
    Ignored,
}

/// What became of the event, and why.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// Whether there is an execution for the event.
    pub outcome: Outcome,
    /// The execution's name, if there is one.
    pub deployment_id: Option<DeploymentId>,
    /// Why, in a sentence.
    pub reason: String,
}

/// Starts the deploy machine for a pushed image, with the deployment id as the execution's name, so
/// that a redelivered event starts nothing twice. Neither does a late one whose deployment an operator started
/// by hand, under whichever name: it may have been rolled back and deleted since.
///
/// # Errors
/// `InvalidInput` when the payload is not an ECR event, else as [`lifecycle::aws_error::CODES`] say.
pub async fn run(sfn: &Client, config: &Config, event: Value) -> Result<Output, StepError> {
    let execution = match read(config, event)? {
        Asked::For(execution) => execution,
        Asked::Nothing { reason } => {
            return Ok(Output {
                outcome: Outcome::Ignored,
                deployment_id: None,
                reason,
            });
        }
    };
    let input = serde_json::to_string(&execution).map_err(|error| {
        StepError::new(
            ErrorName::Unexpected,
            format!("could not write the execution's input: {error}"),
        )
    })?;
    let deployment_id = execution.deployment_id;
    if let Some(earlier) = earlier(sfn, config, &deployment_id).await? {
        return Ok(Output {
            outcome: Outcome::AlreadyStarted,
            reason: format!("{deployment_id}: it already has the execution {earlier}"),
            deployment_id: Some(deployment_id),
        });
    }
    let started = sfn
        .start_execution()
        .state_machine_arn(&config.state_machine_arn)
        .name(deployment_id.as_str())
        .input(input)
        .send()
        .await;
    let (outcome, reason) = match started {
        Ok(_) => (Outcome::Started, "its image was pushed"),
        Err(error)
            if error
                .as_service_error()
                .is_some_and(StartExecutionError::is_execution_already_exists) =>
        {
            (Outcome::AlreadyStarted, "it already has an execution")
        }
        Err(error) => {
            let attempt = format_args!("start the deployment of {deployment_id}");
            return Err(failed(attempt, error));
        }
    };
    Ok(Output {
        outcome,
        reason: format!("{deployment_id}: {reason}"),
        deployment_id: Some(deployment_id),
    })
}

/// The name of an execution of the deployment. Step Functions keeps executions for 90 days, which is longer than an
/// event can wait in EventBridge and in the dead-letter queue, and no deletion of a deployment removes them.
async fn earlier(
    sfn: &Client,
    config: &Config,
    id: &DeploymentId,
) -> Result<Option<String>, StepError> {
    let machine = &config.state_machine_arn;
    // An earlier one would have been refused, because the id lay too far in the future.
    let since = id.created() - defaults::CLOCK_SKEW;
    let found = executions::newest_of(sfn, machine, id, since).await?;
    Ok(found.map(|it| it.name))
}

/// What an event calls for.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    /// An execution of the deploy machine.
    For(Execution),
    /// Nothing that this function does.
    Nothing {
        /// Why not.
        reason: String,
    },
}

/// The input of an execution of the deploy machine.
///
/// Only what is the same in every delivery of an event may be in it: another input under the same
/// name would be refused even while the first execution runs.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Execution {
    /// What was pushed; also the execution's name.
    pub deployment_id: DeploymentId,
    /// The image itself, if the event says which.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<String>,
}

/// Reads an event.
///
/// # Errors
/// `InvalidInput` when it is not an ECR event.
pub fn read(config: &Config, event: Value) -> Result<Asked, StepError> {
    // serde would take a list for the fields in the order of their declaration.
    if event.get("detail").is_some_and(Value::is_array) {
        return Err(StepError::new(
            ErrorName::InvalidInput,
            "invalid input: field `detail`: it must be a JSON object, with each field by its name",
        ));
    }
    let event: EventBridgeEvent<ImageAction> = input::decode(event)?;
    let asked = match asked_for(config, event.detail) {
        Ok(execution) => execution,
        Err(reason) => return Ok(Asked::Nothing { reason }),
    };
    match asked.image_digest.as_deref() {
        Some(digest) if !is_image_digest(digest) => Err(StepError::new(
            ErrorName::InvalidInput,
            "invalid input: field `detail.image-digest`: must be `sha256:` and 64 lower-case hexadecimal digits",
        )),
        _ => Ok(Asked::For(asked)),
    }
}

/// The deployment that the event calls for, or why it calls for none.
fn asked_for(config: &Config, action: ImageAction) -> Result<Execution, String> {
    let shown = |text: &str| printable(text, MAX_SHOWN);
    if action.action_type != "PUSH" {
        return Err(format!(
            "the action is {}, not PUSH",
            shown(&action.action_type)
        ));
    }
    if action.result != "SUCCESS" {
        return Err(format!("the push ended with {}", shown(&action.result)));
    }
    if action.repository_name != config.repository_name {
        return Err(format!(
            "the repository {} is not {}",
            shown(&action.repository_name),
            config.repository_name
        ));
    }
    let tag = action
        .image_tag
        .filter(|tag| !tag.is_empty())
        .ok_or("the image has no tag: part of a multi-architecture push")?;
    let deployment_id: DeploymentId = tag.parse()?;
    if *deployment_id.environment() != config.environment {
        return Err(format!(
            "{deployment_id} is a deployment of {}, not of {}",
            deployment_id.environment(),
            config.environment
        ));
    }
    Ok(Execution {
        deployment_id,
        image_digest: action.image_digest,
    })
}

#[cfg(test)]
mod tests;
