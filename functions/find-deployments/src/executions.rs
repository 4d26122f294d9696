//! Which deployments have a running execution of the deploy machine.

use std::collections::BTreeSet;

use aws_sdk_sfn::Client;
use lifecycle::executions::{self, Owner};
use lifecycle::{DeploymentId, StepError};

/// The running executions of the deploy machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Executions {
    /// The deployments that they work on.
    pub running: BTreeSet<DeploymentId>,
    /// The names of those whose deployment could not be read.
    pub unknown: Vec<String>,
}

/// Reads the running executions of the deploy machine.
///
/// # Errors
/// As [`lifecycle::aws_error::CODES`] say. An execution that has ended in the meantime is left out.
pub async fn running(sfn: &Client, state_machine_arn: &str) -> Result<Executions, StepError> {
    let mut found = Executions::default();
    for execution in executions::running(sfn, state_machine_arn).await? {
        match executions::owner(sfn, &execution).await? {
            Owner::Deployment(id) => drop(found.running.insert(id)),
            Owner::Unknown => found.unknown.push(execution.name),
            Owner::Ended => {}
        }
    }
    Ok(found)
}
