//! Ends the waits of older deployments for their approval, whose tasks would run for nothing.
//!
//! A deployment calls this right before its own wait, and right after its switch. Two that call it at the same moment must
//! not both wait: each has entered the state of this step before it looks, and the state's entry is in its history. So of the
//! two, at least one sees the other. The older one does not begin to wait. The newer one looks again while an older one may
//! be about to.

mod stage;

use lifecycle::aws_error::found;
use lifecycle::executions::{self, Owner};
use lifecycle::routing::DefaultAction;
use lifecycle::{Baseline, DeploymentId, ErrorName, StepError};
use serde::{Deserialize, Serialize};
use serde_json::json;

use stage::Stage;

pub use stage::{ASKS, TOKEN, WAITS};

/// The deployment before which no older one goes.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Input {
    /// The deployment.
    pub deployment_id: DeploymentId,
    /// The ARN of its execution.
    pub execution: String,
    /// Whether it is about to wait for its own approval; else it is active.
    pub asks: bool,
}

/// Whether the deployment may wait for its approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// It may.
    Proceed,
    /// A newer one is active or waits itself.
    Superseded,
}

/// What was found and done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// Whether the deployment may wait for its approval.
    pub verdict: Verdict,
    /// Why, in a sentence.
    pub reason: String,
    /// The older deployments whose wait this call has ended.
    pub ended: Vec<DeploymentId>,
}

/// The clients that the step works with.
#[derive(Debug, Clone)]
pub struct Clients {
    /// For the listener.
    pub elb: aws_sdk_elasticloadbalancingv2::Client,
    /// For the executions of the deploy machine.
    pub sfn: aws_sdk_sfn::Client,
}

/// Looks for a newer deployment first, if this one is about to wait. Then ends the waits of the older ones.
///
/// # Errors
/// `Transient` when an older deployment is about to wait, so that it has to be looked at again; else as
/// [`lifecycle::aws_error::CODES`] say.
pub async fn run(
    clients: &Clients,
    baseline: &Baseline,
    input: Input,
) -> Result<Output, StepError> {
    let (id, sfn) = (&input.deployment_id, &clients.sfn);
    let superseded = |newer: &DeploymentId, does: &str| Output {
        verdict: Verdict::Superseded,
        reason: format!("{newer} is newer and {does}"),
        ended: Vec::new(),
    };
    if input.asks {
        let default_action = DefaultAction::read(&clients.elb, baseline).await?;
        if let Some(active) = default_action.active().filter(|active| *active > id) {
            return Ok(superseded(active, "active"));
        }
    }
    let others = others(sfn, &input).await?;
    let (newer, older): (Vec<_>, Vec<_>) = others.iter().partition(|(other, _)| other > id);
    if input.asks {
        for (other, execution) in &newer {
            if Stage::read(sfn, execution).await? != Stage::Elsewhere {
                return Ok(superseded(other, "waits for its approval"));
            }
        }
    }
    let (mut ended, mut about) = (Vec::new(), Vec::new());
    for (other, execution) in &older {
        match Stage::read(sfn, execution).await? {
            Stage::Waits { token } => {
                if supersede(sfn, id, other, &token).await? {
                    ended.push(other.clone());
                }
            }
            Stage::IsAboutTo => about.push(other.as_str()),
            Stage::Elsewhere => {}
        }
    }
    if !about.is_empty() {
        let why = format!(
            "older deployments are about to wait for their approval, and {id} goes before them: {}",
            about.join(", ")
        );
        return Err(StepError::new(ErrorName::Transient, why));
    }
    let number = ended.len();
    Ok(Output {
        verdict: Verdict::Proceed,
        reason: format!("{number} older deployments that waited for their approval were ended"),
        ended,
    })
}

/// The deployments of the other running executions, the newest first, each with the ARN of its execution.
async fn others(
    sfn: &aws_sdk_sfn::Client,
    input: &Input,
) -> Result<Vec<(DeploymentId, String)>, StepError> {
    let machine = executions::state_machine_arn(&input.execution);
    let mut others = Vec::new();
    for execution in executions::running(sfn, &machine).await? {
        if let Owner::Deployment(other) = executions::owner(sfn, &execution).await?
            && other != input.deployment_id
        {
            others.push((other, execution.execution_arn));
        }
    }
    others.sort();
    others.reverse();
    Ok(others)
}

/// Answers in place of a person. Returns whether the deployment still waited.
async fn supersede(
    sfn: &aws_sdk_sfn::Client,
    newer: &DeploymentId,
    older: &DeploymentId,
    token: &str,
) -> Result<bool, StepError> {
    let answer = json!({"verdict": "superseded", "by": newer}).to_string();
    let request = sfn.send_task_success().task_token(token).output(answer);
    let answer = found(
        format_args!("end the wait of {older} for its approval"),
        request.send().await,
        |error| error.is_task_does_not_exist() || error.is_task_timed_out(),
    )?;
    Ok(answer.is_some())
}

#[cfg(test)]
mod tests;
