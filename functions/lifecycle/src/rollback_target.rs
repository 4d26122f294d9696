//! Which deployment a rollback goes to that names none, and whether one that takes back a certain deployment is needed.

use crate::DeploymentId;
use crate::routing::{self, DefaultAction, Routing};
use crate::tags;
use crate::target_group::TargetGroup;

/// Every deployment that a rollback may name.
pub fn choices(routing: &Routing) -> impl Iterator<Item = &TargetGroup> {
    routing.deployments.iter().filter(|group| {
        !routing.is_active(group) && group.has(tags::LIVE_SINCE) && !group.has(tags::DELETING_SINCE)
    })
}

/// The previous deployment: of those that were live, are older than the active one and were not rolled back, the newest
/// that a watch has found well; if there is none, the newest.
///
/// One that was replaced before its watch ended has no verdict. The deployment that replaced it may be its cure.
pub fn previous(routing: &Routing) -> Option<&TargetGroup> {
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
        .max_by_key(|group| (group.has(tags::PROVEN_AT), &group.deployment))
}

/// Why a rollback that takes back `from` is not needed: another deployment is active, which may be its cure, or none is.
pub fn why_not_needed(default_action: &DefaultAction, from: &DeploymentId) -> Option<String> {
    let is_active = match default_action.active() {
        Some(active) if active == from => return None,
        Some(active) => format!("{active} is active by now"),
        None => "no deployment is active any more".to_owned(),
    };
    Some(format!("{from} is not to be taken back: {is_active}"))
}
