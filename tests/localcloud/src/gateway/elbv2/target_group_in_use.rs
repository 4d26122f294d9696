//! A target group that an action names cannot be deleted.
//!
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_DeleteTargetGroup.html>

use super::snapshot::Snapshot;
use crate::gateway::{answer::AwsError, operation::Params};

/// Refuses to delete a group that a rule or a default action names, with `ResourceInUse`.
pub fn refuse_deletion(params: &Params, state: &Snapshot) -> Result<(), AwsError> {
    let arn = params.get("TargetGroupArn").unwrap_or_default();
    if state
        .rules
        .iter()
        .any(|rule| rule.target_groups().contains(arn))
    {
        return Err(AwsError::new(
            "ResourceInUse",
            format!("Target group '{arn}' is currently in use by a listener or a rule"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::elbv2::examples::{default_rule, group, rule, state};

    #[test]
    fn a_group_that_a_rule_or_a_default_action_names_cannot_be_deleted() {
        let state = state([rule(1, "1", "a"), default_rule(1, "b")]);
        let delete = |name: &str| {
            let arn = group(name);
            refuse_deletion(
                &[("TargetGroupArn", arn.as_str())].into_iter().collect(),
                &state,
            )
            .map_err(|error| error.code)
        };
        assert_eq!(delete("a"), Err("ResourceInUse"));
        assert_eq!(delete("b"), Err("ResourceInUse"));
        assert_eq!(delete("c"), Ok(()));
    }
}
