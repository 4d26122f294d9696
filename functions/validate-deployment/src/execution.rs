//! Whether another execution of the same deployment goes first.

use aws_sdk_sfn::Client;
use aws_sdk_sfn::types::ExecutionListItem;
use lifecycle::executions::{self, Execution};
use lifecycle::{DeploymentId, ErrorName, StepError};

/// Checks the execution's name: it may begin with a deployment id, and then it is this deployment's; and a tag
/// can hold it.
///
/// # Errors
/// `InvalidInput`, with a name to use.
pub fn check_name(execution: &Execution, id: &DeploymentId) -> Result<(), StepError> {
    let name = execution.name();
    let refused = |why: String| {
        let message = format!(
            "the execution's name {name} {why}; start the deployment under the name {id}, or {id}-2 when that name is \
             used up"
        );
        Err(StepError::new(ErrorName::InvalidInput, message))
    };
    match executions::named_by(name) {
        Some(other) if other != *id => {
            refused(format!("is one of {other}, and its input asks for {id}"))
        }
        _ if !name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) =>
        {
            refused("has other characters than letters, digits, `-`, `_` and `.`".into())
        }
        _ => Ok(()),
    }
}

/// Refuses every running execution of the deployment but the first one that was started: each would take the
/// other's parts for its own, and undo them. Of equals, the one with the lower ARN goes on.
///
/// # Errors
/// `ResourceConflict`, with the execution that goes on.
pub async fn refuse_if_not_first(
    sfn: &Client,
    execution: &Execution,
    id: &DeploymentId,
) -> Result<(), StepError> {
    let machine = execution.state_machine_arn();
    let running = executions::running_for(sfn, &machine, id).await?;
    let own = running.iter().find(|it| it.execution_arn == execution.id);
    let own_start = own.map_or_else(
        || execution.start_time.unix_timestamp_nanos() / 1_000_000,
        started,
    );
    let first = running
        .iter()
        .filter(|it| it.execution_arn != execution.id)
        .min_by_key(|it| (started(it), it.execution_arn.clone()))
        .filter(|it| (started(it), &it.execution_arn) < (own_start, &execution.id));
    match first {
        None => Ok(()),
        Some(first) => Err(StepError::new(
            ErrorName::ResourceConflict,
            format!(
                "another execution of {id} was started first and is running: {}; wait for its end, or stop it",
                first.execution_arn
            ),
        )),
    }
}

/// When an execution was started, in milliseconds since 1970.
fn started(execution: &ExecutionListItem) -> i128 {
    execution.start_date.as_nanos() / 1_000_000
}
