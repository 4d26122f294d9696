//! What the rules read from a request.

use std::collections::BTreeSet;

use crate::gateway::operation::Params;

/// The ARNs of the target groups that a request's actions name, as `TargetGroupArn` or in a
/// `ForwardConfig`.
pub fn target_groups_named(params: &Params) -> BTreeSet<&str> {
    params
        .values(|name| {
            (name.starts_with("Actions.member.") || name.starts_with("DefaultActions.member."))
                && name.ends_with(".TargetGroupArn")
        })
        .collect()
}
