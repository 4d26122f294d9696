//! Registers the task definition of a deployment: one Fargate container, its image by digest.

mod definition;

use std::collections::BTreeMap;

use aws_sdk_ecs::Client;
use aws_sdk_ecs::config::Config;
use aws_sdk_ecs::config::retry::RetryConfig;
use aws_sdk_ecs::error::ProvideErrorMetadata;
use aws_sdk_ecs::types::{
    Compatibility, NetworkMode, SortOrder, Tag, TaskDefinition, TaskDefinitionField,
    TaskDefinitionStatus,
};
use lifecycle::aws_error::failed;
use lifecycle::tags::{self, Tags};
use lifecycle::{DeploymentId, ErrorName, Settings, StepError, defaults};
use serde::{Deserialize, Serialize};

/// What the step needs to know.
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
}

/// What the step made or found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// The revision to run.
    pub task_definition_arn: String,
}

/// The family that all deployments of the environment share.
pub fn family(settings: &Settings) -> String {
    format!("{}-app", settings.environment)
}

/// Adopts the deployment's revision when it is as the input says, else registers one.
///
/// Other revisions of the deployment, as another run with other sizes leaves them, stay as they are:
/// a service may run them.
///
/// # Errors
/// `InvalidInput` when the sizes are none of Fargate's or a variable has a reserved name, else as
/// [`lifecycle::aws_error::CODES`] say.
pub async fn run(ecs: &Client, settings: &Settings, input: Input) -> Result<Output, StepError> {
    adopt_or_register(ecs, settings, &input)
        .await
        .map(|task_definition_arn| Output {
            task_definition_arn,
        })
        .map_err(|error| error.of(&input.deployment_id))
}

async fn adopt_or_register(
    ecs: &Client,
    settings: &Settings,
    input: &Input,
) -> Result<String, StepError> {
    let wanted = definition::container(settings, input)?;
    let existing = registered(ecs, settings, &input.deployment_id)
        .await?
        .into_iter()
        .find(|found| definition::is_same(found, input, &wanted))
        .and_then(|found| found.task_definition_arn);
    if let Some(arn) = existing {
        return Ok(arn);
    }

    let attempt = format!("register a task definition for {}", input.deployment_id);
    let answer = ecs
        .register_task_definition()
        .family(family(settings))
        .requires_compatibilities(Compatibility::Fargate)
        .network_mode(NetworkMode::Awsvpc)
        .runtime_platform(definition::platform(settings))
        .cpu(input.cpu.to_string())
        .memory(input.memory.to_string())
        .execution_role_arn(&settings.execution_role_arn)
        .task_role_arn(&settings.task_role_arn)
        .container_definitions(wanted)
        .set_tags(Some(
            tags::of(&input.deployment_id)
                .map(|(key, value)| Tag::builder().key(key).value(value).build())
                .to_vec(),
        ))
        .customize()
        // The call is not idempotent: the same request again after a lost answer makes a second
        // revision. The state machine retries the whole step, which looks first.
        .config_override(Config::builder().retry_config(RetryConfig::disabled()))
        .send()
        .await
        .map_err(|error| {
            let says = |part| {
                error
                    .message()
                    .is_some_and(|message| message.contains(part))
            };
            let no_such_size = says("No Fargate configuration exists");
            // Deployments share the family, and two may register at the same moment.
            let taken_turns = says("Too many concurrent attempts");
            let mut error = failed(&attempt, error);
            if taken_turns {
                error.name = ErrorName::Transient;
            }
            if no_such_size {
                error.name = ErrorName::InvalidInput;
                error.message += &format!(
                    "; field `cpu` is {} and `memory` is {}",
                    input.cpu, input.memory
                );
            }
            error
        })?;
    answer
        .task_definition
        .and_then(|definition| definition.task_definition_arn)
        .ok_or_else(|| {
            StepError::new(
                ErrorName::Transient,
                format!("could not {attempt}: the answer holds no ARN"),
            )
        })
}

/// The active revisions that carry the deployment's tags, the newest first.
///
/// Reads back in time to the deployment's id less [`defaults::CLOCK_SKEW`]: an id may lie at most that
/// far in the future, so nothing of this deployment can be older.
///
/// # Errors
/// As [`lifecycle::aws_error::CODES`] say.
pub async fn registered(
    ecs: &Client,
    settings: &Settings,
    deployment: &DeploymentId,
) -> Result<Vec<TaskDefinition>, StepError> {
    let family = family(settings);
    let oldest = (deployment.created() - defaults::CLOCK_SKEW).unix_timestamp();
    let mut found = Vec::new();
    let mut token = None;
    loop {
        let page = ecs
            .list_task_definitions()
            .family_prefix(&family)
            .status(TaskDefinitionStatus::Active)
            .sort(SortOrder::Desc)
            .set_next_token(token)
            .send()
            .await
            .map_err(|error| {
                failed(format_args!("list the task definitions of {family}"), error)
            })?;
        for arn in page.task_definition_arns() {
            let Some((definition, tags)) = describe(ecs, arn).await? else {
                continue;
            };
            if definition
                .registered_at()
                .is_some_and(|registered| registered.secs() < oldest)
            {
                return Ok(found);
            }
            if definition.family() == Some(&family)
                && definition.status() == Some(&TaskDefinitionStatus::Active)
                && tags::belong_to(&tags, deployment)
            {
                found.push(definition);
            }
        }
        token = page.next_token.filter(|token| !token.is_empty());
        if token.is_none() {
            return Ok(found);
        }
    }
}

/// Deregisters every active revision of the deployment and says how many those were.
///
/// A service that runs one goes on running it:
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DeregisterTaskDefinition.html>.
///
/// # Errors
/// As [`lifecycle::aws_error::CODES`] say; a revision that is gone or inactive already is none.
pub async fn undo(
    ecs: &Client,
    settings: &Settings,
    deployment: &DeploymentId,
) -> Result<usize, StepError> {
    let deregister_all = async {
        let mut deregistered = 0;
        for definition in registered(ecs, settings, deployment).await? {
            if deregister(ecs, definition.task_definition_arn().unwrap_or_default()).await? {
                deregistered += 1;
            }
        }
        Ok(deregistered)
    };
    deregister_all
        .await
        .map_err(|error: StepError| error.of(deployment))
}

/// Deregisters one revision; says whether it was active until now.
async fn deregister(ecs: &Client, arn: &str) -> Result<bool, StepError> {
    let Err(error) = ecs
        .deregister_task_definition()
        .task_definition(arn)
        .send()
        .await
    else {
        return Ok(true);
    };
    let may_be_gone = matches!(
        error.code(),
        Some("ClientException" | "InvalidParameterException")
    );
    if may_be_gone {
        // AWS does not document what it answers for a revision that another run has deregistered, so
        // the revision itself is asked.
        let active = describe(ecs, arn)
            .await?
            .is_some_and(|(now, _)| now.status() == Some(&TaskDefinitionStatus::Active));
        if !active {
            return Ok(false);
        }
    }
    Err(failed(format_args!("deregister {arn}"), error))
}

/// A revision and its tags, or `None` when there is no such revision any more.
async fn describe(ecs: &Client, arn: &str) -> Result<Option<(TaskDefinition, Tags)>, StepError> {
    let answer = ecs
        .describe_task_definition()
        .task_definition(arn)
        .include(TaskDefinitionField::Tags)
        .send()
        .await;
    match answer {
        Ok(answer) => {
            let tags = answer
                .tags()
                .iter()
                .filter_map(|tag| Some((tag.key()?.to_owned(), tag.value()?.to_owned())))
                .collect();
            Ok(answer.task_definition.map(|definition| (definition, tags)))
        }
        // The only thing wrong with an ARN that AWS itself listed is that it is gone.
        Err(error) if error.code() == Some("ClientException") => Ok(None),
        Err(error) => Err(failed(format_args!("read task definition {arn}"), error)),
    }
}

#[cfg(test)]
mod tests;
