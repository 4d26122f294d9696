//! Which deployment a rollback goes to.

use lifecycle::routing::{self, Routing};
use lifecycle::target_group::TargetGroup;
use lifecycle::{DeploymentId, ErrorName, StepError, tags};

/// The deployment to go back to: the named one, or the newest that was live, is older than the active
/// one and was not rolled back. `unrouted` is the named one's target group, if no rule forwards to it.
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
    let active = routing.default_action.active();
    // Of one that only waits for tasks, an earlier rollback has found none. It is named if it is wanted.
    let waits = |group: &TargetGroup| {
        let id = &group.deployment;
        let mut own = routing
            .rules
            .iter()
            .filter(|rule| routing::forwards_to(rule, id));
        own.all(routing::is_waiting)
    };
    choices(routing)
        .filter(|group| !group.has(tags::ROLLED_BACK_AT) && !waits(group))
        .filter(|group| active.is_none_or(|active| group.deployment < *active))
        .max_by_key(|group| &group.deployment)
        .ok_or_else(|| {
            refused(routing, None, match active {
                Some(active) => format!(
                    "there is no deployment to go back to: none that is older than {active} was live and was not rolled back"
                ),
                None => "there is no deployment to go back to".to_owned(),
            })
        })
}

/// Every deployment that a rollback may name.
fn choices(routing: &Routing) -> impl Iterator<Item = &TargetGroup> {
    routing.deployments.iter().filter(|group| {
        !routing.is_active(group) && group.has(tags::LIVE_SINCE) && !group.has(tags::DELETING_SINCE)
    })
}

/// The error, with the deployments that can be named instead of the one that cannot be the target.
pub fn refused(routing: &Routing, impossible: Option<&DeploymentId>, why: String) -> StepError {
    let mut choices: Vec<_> = choices(routing)
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
