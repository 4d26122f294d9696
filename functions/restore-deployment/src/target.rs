//! Which deployment a rollback goes to.

use lifecycle::routing::Routing;
use lifecycle::target_group::TargetGroup;
use lifecycle::{DeploymentId, ErrorName, StepError, rollback_target, tags};

/// The deployment to go back to: the named one, or [`rollback_target::previous`]. `unrouted` is the named one's target group, if no rule forwards to it.
///
/// # Errors
/// `NoRollbackTarget`, with the reason and the deployments that can be named instead.
pub fn choose<'r>(
    routing: &'r Routing,
    unrouted: Option<&'r TargetGroup>,
    named: Option<&DeploymentId>,
) -> Result<&'r TargetGroup, StepError> {
    match named {
        Some(id) => choose_named(routing, unrouted, id),
        None => choose_previous(routing),
    }
}

fn choose_named<'r>(
    routing: &'r Routing,
    unrouted: Option<&'r TargetGroup>,
    id: &DeploymentId,
) -> Result<&'r TargetGroup, StepError> {
    let refuse = |why: String| Err(refused(routing, Some(id), why));
    if routing.default_action.active() == Some(id) {
        return refuse(format!("{id} is already active"));
    }
    let Some(group) = routing.deployment(id).or(unrouted) else {
        return refuse(format!(
            "{id} is gone: it has no target group with its tags; push its image again under a new deployment id"
        ));
    };
    if group.has(tags::DELETING_SINCE) {
        return refuse(format!(
            "{id} is being deleted; push its image again under a new deployment id"
        ));
    }
    if !group.has(tags::LIVE_SINCE) {
        return refuse(format!("{id} was never live"));
    }
    Ok(group)
}

fn choose_previous(routing: &Routing) -> Result<&TargetGroup, StepError> {
    rollback_target::previous(routing).ok_or_else(|| {
        refused(routing, None, match routing.default_action.active() {
            Some(active) => format!(
                "there is no deployment to go back to: none that is older than {active} was live and was not rolled back"
            ),
            None => "there is no deployment to go back to".to_owned(),
        })
    })
}

/// The error, with the deployments that can be named instead of the one that cannot be the target.
pub fn refused(routing: &Routing, impossible: Option<&DeploymentId>, why: String) -> StepError {
    let mut choices: Vec<_> = rollback_target::choices(routing)
        .map(|group| &group.deployment)
        .filter(|id| Some(*id) != impossible)
        .collect();
    choices.sort();
    choices.reverse();
    let choices: Vec<_> = choices.into_iter().map(DeploymentId::as_str).collect();
    let advice = match choices.as_slice() {
        [] => "no other deployment that was live has rules; one without tasks and rules can be named as well, and a dry \
               run of the cleanup machine lists it"
            .to_owned(),
        choices => format!("a rollback can go to: {}", choices.join(", ")),
    };
    StepError::new(ErrorName::NoRollbackTarget, format!("{why}; {advice}"))
}
