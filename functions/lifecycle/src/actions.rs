//! Builds every list of actions: the default action's and the rules'.

use aws_sdk_elasticloadbalancingv2::types::builders::ForwardActionConfigBuilder;
use aws_sdk_elasticloadbalancingv2::types::{
    Action, ActionTypeEnum, ForwardActionConfig, TargetGroupTuple,
};

use crate::policy::{self, Policy};
use crate::{StepError, routing};

/// ELB's largest weight.
const MAX_WEIGHT: i32 = 999;

/// The default action that forwards to a deployment's target group, in place of `current`.
///
/// Everything else in `current` stays: its policy, target groups that are not ours with their weights, the
/// group stickiness. The new entry gets the total weight of the entries that it replaces. If `current`
/// forwards to nothing of ours, as with the fixed 503 before the first deployment, its routing is replaced
/// as a whole.
///
/// # Errors
/// As for [`Policy::of`].
pub fn forwarding_to(
    target_group_arn: &str,
    current: &[Action],
    is_ours: impl Fn(&str) -> bool,
) -> Result<Vec<Action>, StepError> {
    let policy = Policy::of("the default action", current)?;
    let stickiness = current
        .iter()
        .filter_map(Action::forward_config)
        .find_map(|config| config.target_group_stickiness_config().cloned());
    let forward = ForwardActionConfig::builder()
        .set_target_groups(Some(target_groups(target_group_arn, current, is_ours)))
        .set_target_group_stickiness_config(stickiness);
    Ok(in_order(
        policy.with_existing_secret(),
        Some(forward_action(forward)),
    ))
}

/// The actions of a new rule: `before`, and a forward to the target group.
pub fn of_new_rule(before: Vec<Action>, target_group_arn: &str) -> Vec<Action> {
    let forward = ForwardActionConfig::builder().set_target_groups(Some(target_groups(
        target_group_arn,
        &[],
        |_| false,
    )));
    in_order(before, Some(forward_action(forward)))
}

/// The actions of a rule that exists: `before`, and its routing as it is.
pub fn of_rule(before: Vec<Action>, current: &[Action]) -> Vec<Action> {
    let routing = current.iter().filter(|action| policy::is_routing(action));
    in_order(before, routing.cloned())
}

fn forward_action(config: ForwardActionConfigBuilder) -> Action {
    Action::builder()
        .r#type(ActionTypeEnum::Forward)
        .forward_config(config.build())
        .build()
}

/// The routing action comes last. If it is the only action, it needs no order.
fn in_order(before: Vec<Action>, routing: impl IntoIterator<Item = Action>) -> Vec<Action> {
    let mut actions = before;
    actions.extend(routing);
    let is_alone = actions.len() == 1;
    for (order, action) in (1..).zip(&mut actions) {
        action.order = (!is_alone).then_some(order);
    }
    actions
}

/// The new entry, and after it those of `current` that are not ours.
fn target_groups(
    target_group_arn: &str,
    current: &[Action],
    is_ours: impl Fn(&str) -> bool,
) -> Vec<TargetGroupTuple> {
    let (replaced, mut others): (Vec<_>, Vec<_>) = routing::forwards(current)
        .into_iter()
        .partition(|group| group.target_group_arn().is_some_and(&is_ours));
    if replaced.is_empty() {
        others.clear();
    }
    let weight: i32 = replaced.iter().filter_map(TargetGroupTuple::weight).sum();
    // For a single target group, a weight of 0 is an outage, and any other weight sends it all requests.
    let least = i32::from(others.is_empty());
    let ours = TargetGroupTuple::builder()
        .target_group_arn(target_group_arn)
        .weight(weight.clamp(least, MAX_WEIGHT))
        .build();
    std::iter::once(ours).chain(others).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_elasticloadbalancingv2::types::{
        AuthenticateOidcActionConfig, FixedResponseActionConfig, TargetGroupStickinessConfig,
    };

    fn tuple(arn: &str, weight: i32) -> TargetGroupTuple {
        TargetGroupTuple::builder()
            .target_group_arn(arn)
            .weight(weight)
            .build()
    }

    fn forward(groups: Vec<TargetGroupTuple>) -> Action {
        Action::builder()
            .r#type(ActionTypeEnum::Forward)
            .forward_config(
                ForwardActionConfig::builder()
                    .set_target_groups(Some(groups))
                    .build(),
            )
            .build()
    }

    fn weights(actions: &[Action]) -> Vec<(String, i32)> {
        routing::forwards(actions)
            .into_iter()
            .map(|group| {
                (
                    group.target_group_arn().unwrap().to_owned(),
                    group.weight().unwrap(),
                )
            })
            .collect()
    }

    fn is_ours(arn: &str) -> bool {
        arn.starts_with("ours")
    }

    #[test]
    fn the_fixed_response_before_the_first_deployment_gives_way() {
        let fixed = Action::builder()
            .r#type(ActionTypeEnum::FixedResponse)
            .fixed_response_config(
                FixedResponseActionConfig::builder()
                    .status_code("503")
                    .build(),
            )
            .build();
        let actions = forwarding_to("ours-2", &[fixed], is_ours).unwrap();
        assert_eq!(actions.len(), 1);
        assert_eq!(weights(&actions), [("ours-2".into(), 1)]);
    }

    #[test]
    fn a_new_rule_forwards_to_its_target_group_alone() {
        let actions = of_new_rule(Vec::new(), "ours-1");
        assert_eq!(actions, [forward(vec![tuple("ours-1", 1)])]);
    }

    #[test]
    fn weights_of_target_groups_that_are_not_ours_stay() {
        let actions = forwarding_to(
            "ours-2",
            &[forward(vec![tuple("other", 10), tuple("ours-1", 90)])],
            is_ours,
        )
        .unwrap();
        assert_eq!(
            weights(&actions),
            [("ours-2".into(), 90), ("other".into(), 10)]
        );
    }

    #[test]
    fn two_of_ours_become_one_with_the_weight_of_both() {
        let actions = forwarding_to(
            "ours-3",
            &[forward(vec![tuple("ours-1", 90), tuple("ours-2", 10)])],
            is_ours,
        )
        .unwrap();
        assert_eq!(weights(&actions), [("ours-3".into(), 100)]);
    }

    #[test]
    fn a_lone_weight_of_zero_would_be_an_outage() {
        let actions =
            forwarding_to("ours-2", &[forward(vec![tuple("ours-1", 0)])], is_ours).unwrap();
        assert_eq!(weights(&actions), [("ours-2".into(), 1)]);
    }

    #[test]
    fn stickiness_and_authentication_stay() {
        let stickiness = TargetGroupStickinessConfig::builder()
            .enabled(true)
            .duration_seconds(60)
            .build();
        let authenticate = Action::builder()
            .r#type(ActionTypeEnum::AuthenticateOidc)
            .order(1)
            .authenticate_oidc_config(
                AuthenticateOidcActionConfig::builder()
                    .client_id("c")
                    .build(),
            )
            .build();
        let old = Action::builder()
            .r#type(ActionTypeEnum::Forward)
            .order(2)
            .forward_config(
                ForwardActionConfig::builder()
                    .target_groups(tuple("ours-1", 1))
                    .target_group_stickiness_config(stickiness.clone())
                    .build(),
            )
            .build();
        let actions = forwarding_to("ours-2", &[authenticate, old], is_ours).unwrap();
        let oidc = actions[0].authenticate_oidc_config().unwrap();
        assert_eq!((actions[0].order(), oidc.client_id()), (Some(1), Some("c")));
        // The description did not include the secret, and an action without one is refused.
        assert_eq!(oidc.use_existing_client_secret(), Some(true));
        assert_eq!(oidc.client_secret(), None);
        assert_eq!(actions[1].order(), Some(2));
        let kept = actions[1]
            .forward_config()
            .unwrap()
            .target_group_stickiness_config();
        assert_eq!(kept, Some(&stickiness));
    }
}
