//! A target group that an action names cannot be deleted.
//!
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_DeleteTargetGroup.html>

use super::snapshot::Snapshot;
use crate::gateway::{answer::AwsError, operation::Params};

/// Refuses to delete a group that some rule or default action names.
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
    fn a_group_in_a_rule_or_in_a_default_action_stays() {
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
