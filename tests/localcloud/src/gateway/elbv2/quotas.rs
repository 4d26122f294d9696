//! How many rules and target groups a load balancer can have.
//!
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-limits.html>

use std::collections::BTreeSet;

use super::{request::target_groups_named, snapshot::Snapshot};
use crate::gateway::{answer::AwsError, operation::Params};

/// The default quota of rules per load balancer, without default rules. AWS raises it on request.
pub const RULES_PER_LOAD_BALANCER: usize = 100;

/// The quota of target groups per load balancer. AWS does not raise it.
pub const TARGET_GROUPS_PER_LOAD_BALANCER: usize = 100;

/// Refuses a rule that exceeds the quota, with `TooManyRules`.
pub fn of_rules(params: &Params, state: &Snapshot, quota: usize) -> Result<(), AwsError> {
    let Some(listener) = params
        .get("ListenerArn")
        .and_then(|arn| state.listener(arn))
    else {
        return Ok(());
    };
    let rules = state
        .rules_of(&listener.load_balancer_arn)
        .filter(|rule| !rule.is_default)
        .count();
    if rules < quota {
        return Ok(());
    }
    Err(AwsError::new(
        "TooManyRules",
        "You've reached the limit on the number of rules per load balancer.",
    ))
}

/// Refuses actions with which a load balancer would route to more target groups than the quota, or a
/// target group would belong to a second load balancer.
///
/// The groups that the changed rule or listener names before the change do not count, because the
/// change replaces them.
pub fn of_target_groups(params: &Params, state: &Snapshot) -> Result<(), AwsError> {
    let changed = params.get("RuleArn").map(|arn| ("", arn)).or_else(|| {
        let listener = params.get("ListenerArn")?;
        Some((listener, ""))
    });
    let replaces_default = params.get("Action") == Some("ModifyListener");
    let load_balancer = match changed {
        Some((listener, "")) => state
            .listener(listener)
            .map(|l| l.load_balancer_arn.as_str()),
        Some((_, rule)) => state
            .rule(rule)
            .and_then(|rule| state.load_balancer_of(rule)),
        None => params.get("LoadBalancerArn"),
    };
    let Some(load_balancer) = load_balancer else {
        return Ok(());
    };
    let kept = |rule: &super::snapshot::Rule| match changed {
        Some((listener, "")) => {
            !(replaces_default && rule.is_default && rule.listener_arn == listener)
        }
        Some((_, arn)) => rule.rule_arn != arn,
        None => true,
    };
    let named = target_groups_named(params);
    let mut routed: BTreeSet<&str> = BTreeSet::new();
    for rule in state.rules.iter().filter(|rule| kept(rule)) {
        let groups = rule.target_groups();
        if state.load_balancer_of(rule) == Some(load_balancer) {
            routed.extend(groups);
        } else if let Some(group) = groups.intersection(&named).next() {
            return Err(AwsError::new(
                "TargetGroupAssociationLimit",
                format!(
                    "The following target groups cannot be associated with more than one load balancer: {group}"
                ),
            ));
        }
    }
    let before = routed.len();
    routed.extend(named);
    if routed.len() > before && routed.len() > TARGET_GROUPS_PER_LOAD_BALANCER {
        return Err(AwsError::new(
            "TooManyUniqueTargetGroupsPerLoadBalancer",
            "You've reached the limit on the number of unique target groups per load balancer across \
             all listeners. If a target group is used by multiple actions for a load balancer, it is \
             counted as only one use.",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::elbv2::examples::{default_rule, group, listener, rule, state};

    #[test]
    fn a_rule_over_the_quota_is_refused_and_default_rules_do_not_count() {
        let rules = (1..=3)
            .map(|n| rule(1, &n.to_string(), "a"))
            .chain([default_rule(1, "a")]);
        let state = state(rules);
        let arn = listener(1);
        let params = [("ListenerArn", arn.as_str())].into_iter().collect();
        assert_eq!(of_rules(&params, &state, 4), Ok(()));
        assert_eq!(
            of_rules(&params, &state, 3).unwrap_err().code,
            "TooManyRules"
        );
    }

    #[test]
    fn the_101st_target_group_is_refused_and_one_that_is_already_in_use_is_not() {
        let rules = (1..=99).map(|n| rule(1, &n.to_string(), &n.to_string()));
        let state = state(rules.chain([default_rule(1, "live")]));
        let (listener, new, known) = (listener(1), group("new"), group("7"));
        let create = |group: &str, action| {
            let params = [
                ("Action", action),
                ("ListenerArn", listener.as_str()),
                ("DefaultActions.member.1.TargetGroupArn", group),
            ];
            of_target_groups(&params.into_iter().collect(), &state).map_err(|error| error.code)
        };
        assert_eq!(create(&known, "CreateRule"), Ok(()));
        assert_eq!(
            create(&new, "CreateRule"),
            Err("TooManyUniqueTargetGroupsPerLoadBalancer")
        );
        assert_eq!(
            create(&new, "ModifyListener"),
            Ok(()),
            "it replaces the group of the default action"
        );
    }

    #[test]
    fn a_target_group_belongs_to_one_load_balancer() {
        let state = state([rule(1, "1", "a"), default_rule(2, "b")]);
        let (listener, group) = (listener(2), group("a"));
        let params = [
            ("Action", "CreateRule"),
            ("ListenerArn", listener.as_str()),
            (
                "Actions.member.1.ForwardConfig.TargetGroups.member.1.TargetGroupArn",
                group.as_str(),
            ),
        ];
        let refused = of_target_groups(&params.into_iter().collect(), &state).unwrap_err();
        assert_eq!(refused.code, "TargetGroupAssociationLimit");
    }
}
