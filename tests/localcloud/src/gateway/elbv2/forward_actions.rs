//! The target groups of a forward action, and their weights.
//!
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_ForwardActionConfig.html>
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-limits.html>

use crate::gateway::{answer::AwsError, operation::Params};

/// The limit on target groups per action, which AWS does not raise.
pub const TARGET_GROUPS: usize = 5;

/// The highest weight.
const WEIGHT: u32 = 999;

/// Refuses a forward action with too many target groups or a weight that is not valid. AWS documents these limits
/// without an error for them.
///
/// # Errors
/// `ValidationError`.
pub fn check(params: &Params) -> Result<(), AwsError> {
    for list in ["Actions", "DefaultActions"] {
        // A list has ten actions at most.
        for number in 1..=10 {
            let action = format!("{list}.member.{number}");
            let single = params.get(&format!("{action}.TargetGroupArn"));
            check_groups(
                params,
                &format!("{action}.ForwardConfig.TargetGroups"),
                single,
            )?;
        }
    }
    Ok(())
}

fn check_groups(params: &Params, groups: &str, single: Option<&str>) -> Result<(), AwsError> {
    let refused = |message: String| Err(AwsError::new("ValidationError", message));
    let arns = params.members(groups, ".TargetGroupArn");
    if arns.len() > TARGET_GROUPS {
        return refused(format!(
            "A forward action can have at most '{TARGET_GROUPS}' target groups"
        ));
    }
    // https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_Action.html
    if single.is_some_and(|arn| !arns.is_empty() && arns != [arn]) {
        return refused("TargetGroupArn and ForwardConfig must name the same target group".into());
    }
    for number in 1..=arns.len() {
        let weight = params.get(&format!("{groups}.member.{number}.Weight"));
        // Only the weight of a single group can be absent, as the message and its cause show:
        // https://github.com/aws/aws-cdk/issues/24805
        let valid = match weight {
            Some(weight) => weight.parse().is_ok_and(|weight: u32| weight <= WEIGHT),
            None => arns.len() == 1,
        };
        if !valid {
            return refused(format!(
                "The weight for each target group must be between 0 and {WEIGHT}, inclusive"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::elbv2::examples::group;

    /// Checks an action that forwards to groups with these weights.
    fn check_weights(action: &str, weights: &[&str], single: Option<&str>) -> bool {
        let mut pairs = Vec::new();
        for (number, weight) in (1..).zip(weights) {
            let entry = format!("{action}.ForwardConfig.TargetGroups.member.{number}");
            pairs.push((
                format!("{entry}.TargetGroupArn"),
                group(&number.to_string()),
            ));
            pairs.push((format!("{entry}.Weight"), (*weight).to_owned()));
        }
        if let Some(name) = single {
            pairs.push((format!("{action}.TargetGroupArn"), group(name)));
        }
        let pairs = pairs.iter().map(|(name, value)| (&**name, &**value));
        check(&pairs.collect()).is_ok()
    }

    #[test]
    fn an_action_forwards_to_five_groups_at_most() {
        for action in ["Actions.member.1", "DefaultActions.member.2"] {
            assert!(check_weights(action, &["1"; 5], None));
            assert!(!check_weights(action, &["1"; 6], None));
        }
    }

    #[test]
    fn a_weight_is_from_0_to_999_and_only_that_of_a_single_group_may_be_absent() {
        for (weights, valid) in [
            (&["0", "999"][..], true),
            (&["1000"], false),
            (&["1", "-1"], false),
            (&["much"], false),
            (&[""], true),
            (&["1", ""], false),
        ] {
            assert_eq!(
                check_weights("Actions.member.1", weights, None),
                valid,
                "{weights:?}"
            );
        }
    }

    #[test]
    fn both_ways_to_name_a_group_name_the_same_one() {
        assert!(check_weights("Actions.member.1", &[], Some("1")));
        assert!(check_weights("Actions.member.1", &["1"], Some("1")));
        assert!(!check_weights("Actions.member.1", &["1"], Some("2")));
        assert!(!check_weights("Actions.member.1", &["1", "1"], Some("1")));
    }
}
