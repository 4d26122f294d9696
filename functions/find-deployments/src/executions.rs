//! Which deployments have a running execution of the deploy machine.

use aws_sdk_sfn::Client;
use aws_sdk_sfn::error::ProvideErrorMetadata;
use aws_sdk_sfn::types::{ExecutionListItem, ExecutionStatus};
use lifecycle::aws_error::failed;
use lifecycle::{DeploymentId, ErrorName, StepError};
use serde_json::Value;

use crate::facts::Executions;

/// The most that ListExecutions gives at once:
/// <https://docs.aws.amazon.com/step-functions/latest/apireference/API_ListExecutions.html>.
const PER_PAGE: i32 = 1000;

/// Reads the running executions of the deploy machine.
///
/// A push names its execution by the deployment id. One that a person started has a name of its own,
/// so its input is asked for.
///
/// # Errors
/// As [`lifecycle::aws_error::CODES`] say; an execution that has ended meanwhile is none.
pub async fn running(sfn: &Client, state_machine_arn: &str) -> Result<Executions, StepError> {
    let mut found = Executions::default();
    let mut token = None;
    loop {
        let page = sfn
            .list_executions()
            .state_machine_arn(state_machine_arn)
            .status_filter(ExecutionStatus::Running)
            .max_results(PER_PAGE)
            .set_next_token(token)
            .send()
            .await
            .map_err(|error| {
                failed(
                    format_args!("list the executions of {state_machine_arn}"),
                    error,
                )
            })?;
        for execution in page.executions {
            if let Ok(id) = execution.name.parse() {
                found.running.insert(id);
                continue;
            }
            match deployment_of(sfn, &execution).await? {
                Whose::Deployment(id) => drop(found.running.insert(id)),
                Whose::Unknown => found.unknown.push(execution.name),
                Whose::Ended => {}
            }
        }
        token = page.next_token.filter(|token| !token.is_empty());
        if token.is_none() {
            return Ok(found);
        }
    }
}

/// What an execution's input says.
enum Whose {
    Deployment(DeploymentId),
    Unknown,
    Ended,
}

/// The deployment that an execution's input names, if that can be told: a person may have typed
/// anything.
pub fn asked_for(input: &str) -> Option<DeploymentId> {
    let input: Value = serde_json::from_str(input).ok()?;
    input["deploymentId"].as_str()?.parse().ok()
}

async fn deployment_of(sfn: &Client, execution: &ExecutionListItem) -> Result<Whose, StepError> {
    let answer = sfn
        .describe_execution()
        .execution_arn(&execution.execution_arn)
        .send()
        .await;
    match answer {
        Ok(answer) => Ok(answer
            .input
            .and_then(|input| asked_for(&input))
            .map_or(Whose::Unknown, Whose::Deployment)),
        Err(error) if error.code() == Some("ExecutionDoesNotExist") => Ok(Whose::Ended),
        Err(error) => {
            let error = failed(format_args!("read execution {}", execution.name), error);
            match error.name {
                // An input that is encrypted with a key of somebody else's, say.
                ErrorName::Unexpected => Ok(Whose::Unknown),
                _ => Err(error),
            }
        }
    }
}
