//! A rollback to what is active already: an earlier one has switched, and may not have taken the visitors along.

use lifecycle::routing::{self, Routing};
use lifecycle::tags::{self, RolledBack};
use lifecycle::target_group::TargetGroup;

/// What a rollback has taken back, is newer than what is active, and still has a rule that pins visitors to it; with the
/// marks of that rollback.
pub(crate) fn left_pinned(routing: &Routing) -> Vec<RolledBack> {
    let active = routing.default_action.active();
    let is_left = |group: &&TargetGroup| {
        let id = &group.deployment;
        let mut pins = routing.rules.iter().filter(|rule| routing::is_pin(rule));
        active.is_some_and(|active| active < id)
            && group.has(tags::LIVE_SINCE)
            && !group.has(tags::DELETING_SINCE)
            && pins.any(|rule| routing::forwards_to(rule, id))
    };
    let left = routing.deployments.iter().filter(is_left);
    left.filter_map(|group| {
        Some(RolledBack {
            deployment_id: group.deployment.clone(),
            rolled_back_at: group.tags.get(tags::ROLLED_BACK_AT)?.clone(),
        })
    })
    .collect()
}
