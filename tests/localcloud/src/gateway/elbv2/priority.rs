//! A priority is a number from 1 to 50000 that no other rule of the listener has.
//!
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_CreateRule.html>
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_SetRulePriorities.html>

use std::collections::BTreeMap;

use super::snapshot::Snapshot;
use crate::gateway::{answer::AwsError, operation::Params};

/// Refuses a new rule whose priority is out of range or taken.
pub fn of_a_new_rule(params: &Params, state: &Snapshot) -> Result<(), AwsError> {
    let listener = params.get("ListenerArn").unwrap_or_default();
    let priority = number(params.get("Priority").unwrap_or_default())?;
    match taken(state, listener, priority, &BTreeMap::new()) {
        true => Err(in_use(priority)),
        false => Ok(()),
    }
}

/// Refuses new priorities that are out of range, taken by another rule, or given to two rules.
pub fn of_existing_rules(params: &Params, state: &Snapshot) -> Result<(), AwsError> {
    let arns = params.members("RulePriorities", ".RuleArn");
    let priorities = params.members("RulePriorities", ".Priority");
    let mut moved: BTreeMap<&str, u32> = BTreeMap::new();
    for (arn, priority) in arns.into_iter().zip(priorities) {
        let rule = state
            .rule(arn)
            .ok_or_else(|| AwsError::new("RuleNotFound", "One or more rules not found"))?;
        if rule.is_default {
            return Err(AwsError::new(
                "OperationNotPermitted",
                format!("Default rule '{arn}' priority cannot be modified"),
            ));
        }
        moved.insert(arn, number(priority)?);
    }
    for (arn, priority) in &moved {
        let listener = state.rule(arn).map(|rule| rule.listener_arn.as_str());
        let twice = moved.iter().any(|(other, taken)| {
            other != arn
                && taken == priority
                && state.rule(other).map(|r| r.listener_arn.as_str()) == listener
        });
        if twice || taken(state, listener.unwrap_or_default(), *priority, &moved) {
            return Err(in_use(*priority));
        }
    }
    Ok(())
}

fn taken(state: &Snapshot, listener: &str, priority: u32, moved: &BTreeMap<&str, u32>) -> bool {
    state.rules.iter().any(|rule| {
        rule.listener_arn == listener
            && rule.priority.parse() == Ok(priority)
            && !moved.contains_key(rule.rule_arn.as_str())
    })
}

fn number(priority: &str) -> Result<u32, AwsError> {
    priority
        .parse()
        .ok()
        .filter(|priority| (1..=50_000).contains(priority))
        .ok_or_else(|| {
            AwsError::new(
                "ValidationError",
                format!("Priority '{priority}' must be a number between 1 and 50000"),
            )
        })
}

fn in_use(priority: u32) -> AwsError {
    AwsError::new(
        "PriorityInUse",
        format!("Priority '{priority}' is currently in use"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::elbv2::examples::{listener, rule, state};

    #[test]
    fn a_priority_in_use_on_the_same_listener_is_refused() {
        let state = state([rule(1, "100", "a"), rule(2, "101", "b")]);
        let create = |number, priority| {
            let listener = listener(number);
            of_a_new_rule(
                &[("ListenerArn", listener.as_str()), ("Priority", priority)]
                    .into_iter()
                    .collect(),
                &state,
            )
            .map_err(|error| error.code)
        };
        assert_eq!(create(1, "100"), Err("PriorityInUse"));
        assert_eq!(create(1, "101"), Ok(()), "another listener's rule has it");
        assert_eq!(create(1, "0"), Err("ValidationError"));
        assert_eq!(create(1, "50001"), Err("ValidationError"));
        assert_eq!(create(1, "50000"), Ok(()));
    }

    #[test]
    fn two_rules_may_swap_their_priorities_but_not_share_one() {
        let (a, b) = (rule(1, "100", "a"), rule(1, "101", "b"));
        let (a_arn, b_arn) = (a.rule_arn.clone(), b.rule_arn.clone());
        let state = state([a, b]);
        let set = |first, second| {
            of_existing_rules(
                &[
                    ("RulePriorities.member.1.RuleArn", a_arn.as_str()),
                    ("RulePriorities.member.1.Priority", first),
                    ("RulePriorities.member.2.RuleArn", b_arn.as_str()),
                    ("RulePriorities.member.2.Priority", second),
                ]
                .into_iter()
                .collect(),
                &state,
            )
            .map_err(|error| error.code)
        };
        assert_eq!(set("101", "100"), Ok(()));
        assert_eq!(set("7", "7"), Err("PriorityInUse"));
    }
}
