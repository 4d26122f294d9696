//! Lets the number of tasks of the active deployment follow its load, as a tag of its target group says, and ends that
//! before a deployment drains.
//!
//! It comes after the switch: a candidate has no load, so it would be made smaller before it gets traffic. Whatever drains
//! or deletes a deployment takes its service from the scaler first, which otherwise fights it.

use autoscaling::Clients;
use lifecycle::guard::Intent;
use lifecycle::routing::DefaultAction;
use lifecycle::scaling::Scaling;
use lifecycle::target_group::TargetGroup;
use lifecycle::{
    Baseline, Clock, DeploymentId, ErrorName, StepError, defaults, service, tags, target_group,
};
use serde::{Deserialize, Serialize};

/// The deployment whose service follows its load, or does not any more.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Input {
    /// The deployment. Without it, the active one.
    #[serde(default)]
    pub deployment_id: Option<DeploymentId>,
    /// How many tasks a rollback chose for it: its most is not less. A deployment does not send it.
    #[serde(default)]
    pub desired_count: Option<u32>,
    /// Leave a registration as it is, and make one that is missing.
    #[serde(default)]
    pub only_if_missing: bool,
    /// Whether the deployment is about to drain, so that its registration ends.
    #[serde(default)]
    pub deregister: bool,
}

/// What became of the registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// The number of tasks follows the load.
    Registered,
    /// The number of tasks stays as it is.
    Deregistered,
    /// There was nothing to do.
    Kept,
}

/// What this call did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// What became of the registration.
    pub verdict: Verdict,
    /// Why, in a sentence.
    pub reason: String,
}

/// Registers the service of the deployment if that is active and its settings say so, or ends the registration of one
/// that is not.
///
/// # Errors
/// `InvalidInput` without the deployment whose registration is to end; `Configuration` when the tag has been changed into something else; when it is to end, `DeploymentActive` for the
/// active deployment and `DeploymentKept` for one that is protected or being rolled back to; else as
/// [`lifecycle::aws_error::CODES`] say.
pub async fn run(
    clients: &Clients,
    baseline: &Baseline,
    clock: Clock<'_>,
    input: Input,
) -> Result<Output, StepError> {
    let default_action = DefaultAction::read(&clients.elb, baseline).await?;
    if input.deregister {
        // The registration of the active one must not end by a field that was left out.
        let id = input.deployment_id.ok_or_else(|| {
            let why = "invalid input: field `deploymentId` is needed to end a registration";
            StepError::new(ErrorName::InvalidInput, why)
        })?;
        return deregister(clients, baseline, clock, &default_action, &id).await;
    }
    let Some(active) = default_action.active() else {
        return kept("no deployment is active".to_owned());
    };
    if let Some(id) = input.deployment_id.as_ref().filter(|id| *id != active) {
        return kept(format!("{id} is not active any more; {active} is"));
    }
    register(clients, baseline, active, &input)
        .await
        .map_err(|error| error.with_deployment(active))
}

async fn register(
    clients: &Clients,
    baseline: &Baseline,
    active: &DeploymentId,
    input: &Input,
) -> Result<Output, StepError> {
    let Clients {
        autoscaling,
        ecs,
        elb,
    } = clients;
    let Some(group) = target_group::find(elb, active).await? else {
        return kept(format!("{active} has no target group with its tags"));
    };
    let Some(scaling) = Scaling::of(&group.tags) else {
        return kept(format!("the settings of {active} have no `scaling`"));
    };
    let scaling = scaling.map_err(|why| StepError::new(ErrorName::Configuration, why))?;
    if input.only_if_missing && autoscaling::is_registered(autoscaling, baseline, active).await? {
        return kept(format!("{active} follows its load"));
    }
    let Some(service) = service::find(ecs, baseline, active).await? else {
        return kept(format!("{active} has no service with its tags"));
    };
    // A registration moves the number of tasks into its bounds, and the switch has just brought the load for all
    // of these tasks.
    let running = u32::try_from(service.desired_count()).unwrap_or_default();
    let chosen = input.desired_count.unwrap_or_default();
    let most = scaling.max.max(running).max(chosen);
    let least = least(&group).min(most);
    autoscaling::register(
        autoscaling,
        baseline,
        active,
        least..=most,
        &scaling,
        &group.arn,
    )
    .await?;
    Ok(Output {
        verdict: Verdict::Registered,
        reason: format!(
            "the number of tasks of {active} follows its load, between {least} and {most} ({})",
            scaling.to_tag()
        ),
    })
}

/// How many tasks the deployment asked for.
fn least(group: &TargetGroup) -> u32 {
    tags::wanted_count(&group.tags).unwrap_or(defaults::DESIRED_COUNT)
}

async fn deregister(
    clients: &Clients,
    baseline: &Baseline,
    clock: Clock<'_>,
    default_action: &DefaultAction,
    id: &DeploymentId,
) -> Result<Output, StepError> {
    let group = target_group::find(&clients.elb, id).await?;
    let marks = group.map(|group| group.tags).unwrap_or_default();
    // As the drain that follows.
    Intent::Drain.refuse_named(id, default_action)?;
    Intent::Drain.refuse_protected(id, &marks)?;
    Intent::Drain.refuse_restored(id, &marks, clock())?;
    autoscaling::take_off(&clients.autoscaling, &clients.ecs, baseline, id).await?;
    Ok(Output {
        verdict: Verdict::Deregistered,
        reason: format!("the number of tasks of {id} does not follow its load any more"),
    })
}

fn kept(why: String) -> Result<Output, StepError> {
    Ok(Output {
        verdict: Verdict::Kept,
        reason: why,
    })
}

#[cfg(test)]
mod tests;
