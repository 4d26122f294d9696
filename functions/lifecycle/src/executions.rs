//! The executions of the machines, and of those of the deploy machine: which deployment each works on, and which are running.
//!
//! Step Functions lists executions late, so an execution that has just begun may be missing.

use aws_sdk_sfn::Client;
use aws_sdk_sfn::types::{ExecutionListItem, ExecutionStatus};
use serde::{Deserialize, Deserializer, de};
use serde_json::Value;
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcDateTime};

use crate::aws_error::{failed, found};
use crate::tags::{self, Tags};
use crate::{DeploymentId, ErrorName, StepError};

/// ListExecutions returns at most 1,000 at once, the newest first:
/// <https://docs.aws.amazon.com/step-functions/latest/apireference/API_ListExecutions.html>.
const PER_PAGE: i32 = 1000;

/// An execution as its machine describes it to a function: `$states.context.Execution`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Execution {
    /// `arn:aws:states:…:execution:<machine>:<name>`.
    pub id: String,
    /// When it was started, to the millisecond. A redrive does not change it.
    #[serde(deserialize_with = "time")]
    pub start_time: UtcDateTime,
}

impl Execution {
    /// Its name.
    pub fn name(&self) -> &str {
        name(&self.id)
    }

    /// The ARN of its machine.
    pub fn state_machine_arn(&self) -> String {
        state_machine_arn(&self.id)
    }
}

/// What the machine sends: the execution's own input, and which execution it is.
#[derive(Debug, Clone, Deserialize)]
pub struct Started {
    /// What the execution was started with.
    pub input: Value,
    /// The execution itself. A machine of an earlier version sends the input alone.
    pub execution: Option<Execution>,
}

impl Started {
    /// Reads a payload.
    pub fn read(payload: Value) -> Self {
        match Started::deserialize(&payload) {
            Ok(started) if started.execution.is_some() => started,
            _ => Started {
                input: payload,
                execution: None,
            },
        }
    }
}

/// The name of the execution with this ARN.
pub fn name(execution_arn: &str) -> &str {
    execution_arn.rsplit(':').next().unwrap_or_default()
}

/// The ARN of the execution of a machine with this name.
pub fn arn(state_machine_arn: &str, name: &str) -> String {
    let execution = state_machine_arn.replacen(":stateMachine:", ":execution:", 1);
    format!("{execution}:{name}")
}

/// The ARN of the machine of the execution with this ARN.
pub fn state_machine_arn(execution_arn: &str) -> String {
    let machine = execution_arn
        .rsplit_once(':')
        .map_or(execution_arn, |it| it.0);
    machine.replacen(":execution:", ":stateMachine:", 1)
}

fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<UtcDateTime, D::Error> {
    let text = String::deserialize(deserializer)?;
    OffsetDateTime::parse(&text, &Rfc3339)
        .ok()
        .and_then(OffsetDateTime::checked_to_utc)
        .ok_or_else(|| de::Error::custom("not a time"))
}

/// Which deployment an execution works on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// This one.
    Deployment(DeploymentId),
    /// Its input names none, or cannot be read.
    Unknown,
    /// The execution does not exist any more.
    Ended,
}

/// The deployment that an execution's name begins with: `<id>`, or `<id>-2` when the first name is used up.
pub fn named_by(execution_name: &str) -> Option<DeploymentId> {
    // The name of an environment is in lower case, so the first `Z` ends the id.
    let (id, rest) = execution_name.split_at(execution_name.find('Z')? + 1);
    let ends_here = rest.is_empty() || rest.starts_with('-');
    id.parse().ok().filter(|_| ends_here)
}

/// The deployment that an execution's input names, if it names one: an operator can type anything.
pub fn asked_for(input: &str) -> Option<DeploymentId> {
    let input: Value = serde_json::from_str(input).ok()?;
    input["deploymentId"].as_str()?.parse().ok()
}

/// The running executions of the machine.
///
/// # Errors
/// As [`crate::aws_error::CODES`] say.
pub async fn running(
    sfn: &Client,
    state_machine_arn: &str,
) -> Result<Vec<ExecutionListItem>, StepError> {
    let executions = sfn
        .list_executions()
        .state_machine_arn(state_machine_arn)
        .status_filter(ExecutionStatus::Running)
        .max_results(PER_PAGE)
        .into_paginator()
        .items();
    let executions = executions.send().try_collect().await;
    executions.map_err(|error| list_error(state_machine_arn, error))
}

/// The running executions of the deployment.
///
/// # Errors
/// As [`crate::aws_error::CODES`] say.
pub async fn running_for(
    sfn: &Client,
    state_machine_arn: &str,
    deployment: &DeploymentId,
) -> Result<Vec<ExecutionListItem>, StepError> {
    let mut own = Vec::new();
    for execution in running(sfn, state_machine_arn).await? {
        if owner(sfn, &execution).await? == Owner::Deployment(deployment.clone()) {
            own.push(execution);
        }
    }
    Ok(own)
}

/// The newest execution of the deployment, running or not, among those that were started since `since`.
///
/// # Errors
/// As [`crate::aws_error::CODES`] say.
pub async fn newest_of(
    sfn: &Client,
    state_machine_arn: &str,
    deployment: &DeploymentId,
    since: UtcDateTime,
) -> Result<Option<ExecutionListItem>, StepError> {
    let mut executions = sfn
        .list_executions()
        .state_machine_arn(state_machine_arn)
        .max_results(PER_PAGE)
        .into_paginator()
        .items()
        .send();
    while let Some(execution) = executions.next().await {
        let execution = execution.map_err(|error| list_error(state_machine_arn, error))?;
        if execution.start_date.secs() < since.unix_timestamp() {
            break;
        }
        if owner(sfn, &execution).await? == Owner::Deployment(deployment.clone()) {
            return Ok(Some(execution));
        }
    }
    Ok(None)
}

/// The deployment that an execution works on: the one that its name begins with, else the one that its input
/// names.
///
/// # Errors
/// As [`crate::aws_error::CODES`] say.
pub async fn owner(sfn: &Client, execution: &ExecutionListItem) -> Result<Owner, StepError> {
    if let Some(id) = named_by(&execution.name) {
        return Ok(Owner::Deployment(id));
    }
    let attempt = format_args!("read execution {}", execution.name);
    let request = sfn
        .describe_execution()
        .execution_arn(&execution.execution_arn);
    match found(attempt, request.send().await, |error| {
        error.is_execution_does_not_exist()
    }) {
        Ok(None) => Ok(Owner::Ended),
        Ok(Some(answer)) => Ok(answer
            .input
            .and_then(|input| asked_for(&input))
            .map_or(Owner::Unknown, Owner::Deployment)),
        // The input may be encrypted with a key that the function may not use.
        Err(error) if error.name == ErrorName::Unexpected => Ok(Owner::Unknown),
        Err(error) => Err(error),
    }
}

/// The ARN of a running execution that these tags say uses the deployment, and that is not `own`.
///
/// An execution writes such a tag when it creates or adopts the target group, so this holds when the list of
/// executions lags.
///
/// # Errors
/// As [`crate::aws_error::CODES`] say.
pub async fn other_user(
    sfn: &Client,
    tags: &Tags,
    own: Option<&str>,
) -> Result<Option<String>, StepError> {
    let users = tags
        .iter()
        .filter(|(key, _)| key.starts_with(tags::EXECUTION))
        .map(|(_, arn)| arn.as_str());
    for arn in users.filter(|arn| own != Some(*arn)) {
        let attempt = format_args!("read execution {arn}");
        let answer = sfn.describe_execution().execution_arn(arn).send().await;
        let answer = found(attempt, answer, |error| error.is_execution_does_not_exist())?;
        if answer.is_some_and(|it| it.status == ExecutionStatus::Running) {
            return Ok(Some(arn.to_owned()));
        }
    }
    Ok(None)
}

fn list_error<E>(
    state_machine_arn: &str,
    error: aws_sdk_sfn::error::SdkError<E, aws_sdk_sfn::config::http::HttpResponse>,
) -> StepError
where
    E: aws_sdk_sfn::error::ProvideErrorMetadata + std::error::Error + 'static,
{
    failed(
        format_args!("list the executions of {state_machine_arn}"),
        error,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_gives_the_deployment_that_it_begins_with() {
        let id = "test-20251027-122112Z";
        for name in [id, "test-20251027-122112Z-2", "test-20251027-122112Z-again"] {
            assert_eq!(named_by(name).unwrap().as_str(), id, "{name}");
        }
        for name in [
            "",
            "Z",
            "test-20251027-122112Z2",
            "test-20250230-122112Z",
            "13cde686-328b-6117-af20-0e5566167482",
            "again-test-20251027-122112Z-2é",
        ] {
            let read = named_by(name);
            assert!(read.is_none_or(|read| read.as_str() != id), "{name}");
        }
    }

    #[test]
    fn an_arn_gives_the_machine_and_the_name() {
        let arn = "arn:aws:states:eu-west-1:1:execution:test-deploy:test-20251027-122112Z-2";
        assert_eq!(name(arn), "test-20251027-122112Z-2");
        assert_eq!(
            state_machine_arn(arn),
            "arn:aws:states:eu-west-1:1:stateMachine:test-deploy"
        );
    }
}
