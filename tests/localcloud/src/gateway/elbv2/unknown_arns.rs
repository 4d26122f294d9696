//! Calls that name a resource that does not exist.
//!
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_Operations.html>

use super::{request::target_groups_named, snapshot::Snapshot};
use crate::gateway::{answer::AwsError, operation::Params};

/// Refuses a call that names a listener, rule or target group that does not exist. MiniStack does
/// nothing in some of these cases, and answers with an empty list in others.
///
/// # Errors
/// `RuleNotFound`, `ListenerNotFound` or `TargetGroupNotFound`.
pub fn check(operation: &str, params: &Params, state: &Snapshot) -> Result<(), AwsError> {
    let rules = || {
        params
            .members("RuleArns", "")
            .into_iter()
            .chain(params.get("RuleArn"))
    };
    let listeners = || {
        params
            .members("ListenerArns", "")
            .into_iter()
            .chain(params.get("ListenerArn"))
    };
    if rules().any(|arn| state.rule(arn).is_none()) {
        return Err(AwsError::new("RuleNotFound", "One or more rules not found"));
    }
    if listeners().any(|arn| state.listener(arn).is_none()) {
        return Err(AwsError::new(
            "ListenerNotFound",
            "One or more listeners not found",
        ));
    }
    let no_group = || {
        Err(AwsError::new(
            "TargetGroupNotFound",
            "One or more target groups not found",
        ))
    };
    if target_groups_named(params)
        .into_iter()
        .any(|arn| state.target_group(arn).is_none())
    {
        return no_group();
    }
    if operation == "DescribeTargetGroups" {
        let names = params.members("Names", "");
        let arns = params.members("TargetGroupArns", "");
        let missing = |name: &&str| {
            !state
                .target_groups
                .iter()
                .any(|g| g.target_group_name == **name)
        };
        if names.iter().any(missing) || arns.iter().any(|arn| state.target_group(arn).is_none()) {
            return no_group();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::elbv2::examples::{default_rule, group, listener, state};

    #[test]
    fn each_kind_of_missing_resource_has_its_own_error() {
        let state = state([default_rule(1, "a")]);
        let check = |operation, name, value: &str| {
            check(operation, &[(name, value)].into_iter().collect(), &state).map_err(|e| e.code)
        };
        assert_eq!(check("DescribeRules", "ListenerArn", &listener(1)), Ok(()));
        assert_eq!(
            check("DescribeRules", "ListenerArn", &listener(9)),
            Err("ListenerNotFound")
        );
        assert_eq!(
            check("DeleteRule", "RuleArn", "arn:missing"),
            Err("RuleNotFound")
        );
        assert_eq!(check("DescribeTargetGroups", "Names.member.1", "a"), Ok(()));
        assert_eq!(
            check("DescribeTargetGroups", "Names.member.1", "b"),
            Err("TargetGroupNotFound")
        );
        let missing = group("missing");
        assert_eq!(
            check("CreateRule", "Actions.member.1.TargetGroupArn", &missing),
            Err("TargetGroupNotFound")
        );
    }
}
