//! Which deployments have a running execution of the deploy machine.

use std::collections::BTreeSet;

use aws_sdk_sfn::Client;
use aws_sdk_sfn::types::{ExecutionListItem, ExecutionStatus};
use lifecycle::aws_error::failed;
use lifecycle::{DeploymentId, ErrorName, StepError};
use serde_json::Value;

/// The running executions of the deploy machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Executions {
    /// The deployments that they work on.
    pub running: BTreeSet<DeploymentId>,
    /// The names of those whose deployment could not be read.
    pub unknown: Vec<String>,
}

/// ListExecutions returns at most 1,000 at once:
/// <https://docs.aws.amazon.com/step-functions/latest/apireference/API_ListExecutions.html>.
const PER_PAGE: i32 = 1000;

/// Reads the running executions of the deploy machine.
///
/// The execution of a push is named by the deployment id. One that an operator started may have any name,
/// so its input is read.
///
/// # Errors
/// As [`lifecycle::aws_error::CODES`] say. An execution that has ended in the meantime is left out.
pub async fn running(sfn: &Client, state_machine_arn: &str) -> Result<Executions, StepError> {
    let executions = sfn
        .list_executions()
        .state_machine_arn(state_machine_arn)
        .status_filter(ExecutionStatus::Running)
        .max_results(PER_PAGE)
        .into_paginator()
        .items();
    let executions = executions.send().try_collect().await;
    let attempt = format_args!("list the executions of {state_machine_arn}");
    let mut found = Executions::default();
    for execution in executions.map_err(|error| failed(attempt, error))? {
        if let Ok(id) = execution.name.parse() {
            found.running.insert(id);
            continue;
        }
        match owner(sfn, &execution).await? {
            Owner::Deployment(id) => drop(found.running.insert(id)),
            Owner::Unknown => found.unknown.push(execution.name),
            Owner::Ended => {}
        }
    }
    Ok(found)
}

/// Which deployment an execution works on.
enum Owner {
    Deployment(DeploymentId),
    Unknown,
    Ended,
}

/// The deployment that an execution's input names, if it names one: an operator can type anything.
pub fn asked_for(input: &str) -> Option<DeploymentId> {
    let input: Value = serde_json::from_str(input).ok()?;
    input["deploymentId"].as_str()?.parse().ok()
}

async fn owner(sfn: &Client, execution: &ExecutionListItem) -> Result<Owner, StepError> {
    let answer = sfn
        .describe_execution()
        .execution_arn(&execution.execution_arn)
        .send()
        .await;
    match answer {
        Ok(answer) => Ok(answer
            .input
            .and_then(|input| asked_for(&input))
            .map_or(Owner::Unknown, Owner::Deployment)),
        Err(error)
            if error
                .as_service_error()
                .is_some_and(|it| it.is_execution_does_not_exist()) =>
        {
            Ok(Owner::Ended)
        }
        Err(error) => {
            let error = failed(format_args!("read execution {}", execution.name), error);
            match error.name {
                // The input may be encrypted with a key that the function may not use.
                ErrorName::Unexpected => Ok(Owner::Unknown),
                _ => Err(error),
            }
        }
    }
}
