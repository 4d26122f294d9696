//! The default actions with another deployment in them and everything else as it was.

use aws_sdk_elasticloadbalancingv2::types::{
    Action, ActionTypeEnum, ForwardActionConfig, TargetGroupTuple,
};
use lifecycle::listener;

/// ELB's largest weight.
const HEAVIEST: i32 = 999;

/// `actions` with the target groups of our deployments replaced by `target_group_arn`.
///
/// What stands beside them stays: other target groups with their weights, the group stickiness, an
/// authentication before the forward. Our entry keeps the weight that ours had together. An action
/// that forwards to nothing of ours (the fixed 503 before the first deployment, say) gives way whole.
pub fn pointing_at(
    target_group_arn: &str,
    actions: &[Action],
    ours: impl Fn(&str) -> bool,
) -> Vec<Action> {
    let groups = listener::forwards(actions);
    let (mut replaced, mut others) = (Vec::new(), Vec::new());
    for group in groups {
        match group.target_group_arn() {
            Some(arn) if ours(arn) => replaced.push(group),
            _ => others.push(group),
        }
    }
    if replaced.is_empty() {
        others.clear();
    }
    let weight: i32 = replaced
        .iter()
        .map(|group| group.weight().unwrap_or(1))
        .sum();
    let weight = match others.is_empty() {
        // Alone, any weight but 0 means everything.
        true => weight.clamp(1, HEAVIEST),
        false => weight.min(HEAVIEST),
    };
    let mut tuples = vec![
        TargetGroupTuple::builder()
            .target_group_arn(target_group_arn)
            .weight(weight)
            .build(),
    ];
    tuples.extend(others);

    let forward = actions
        .iter()
        .find(|action| action.r#type() == Some(&ActionTypeEnum::Forward));
    let stickiness = forward
        .and_then(|action| action.forward_config())
        .and_then(|config| config.target_group_stickiness_config())
        .cloned();
    let last = Action::builder()
        .r#type(ActionTypeEnum::Forward)
        .forward_config(
            ForwardActionConfig::builder()
                .set_target_groups(Some(tuples))
                .set_target_group_stickiness_config(stickiness)
                .build(),
        );
    // What comes before the one routing action: authentication.
    let mut kept: Vec<Action> = actions
        .iter()
        .filter(|action| {
            matches!(
                action.r#type(),
                Some(ActionTypeEnum::AuthenticateOidc | ActionTypeEnum::AuthenticateCognito)
            )
        })
        .cloned()
        .map(with_its_secret)
        .collect();
    let order = (!kept.is_empty()).then(|| {
        kept.iter()
            .filter_map(Action::order)
            .max()
            .unwrap_or_default()
            + 1
    });
    kept.push(last.set_order(order).build());
    kept
}

/// AWS never tells the secret of an OIDC client, but can be told to keep the one that it has.
/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_AuthenticateOidcActionConfig.html>
fn with_its_secret(mut action: Action) -> Action {
    if let Some(oidc) = &mut action.authenticate_oidc_config {
        oidc.client_secret = None;
        oidc.use_existing_client_secret = Some(true);
    }
    action
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
        listener::forwards(actions)
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
        let actions = pointing_at("ours-2", &[fixed], is_ours);
        assert_eq!(actions.len(), 1);
        assert_eq!(weights(&actions), [("ours-2".into(), 1)]);
    }

    #[test]
    fn weights_of_target_groups_that_are_not_ours_stay() {
        let actions = pointing_at(
            "ours-2",
            &[forward(vec![tuple("other", 10), tuple("ours-1", 90)])],
            is_ours,
        );
        assert_eq!(
            weights(&actions),
            [("ours-2".into(), 90), ("other".into(), 10)]
        );
    }

    #[test]
    fn two_of_ours_become_one_with_the_weight_of_both() {
        let actions = pointing_at(
            "ours-3",
            &[forward(vec![tuple("ours-1", 90), tuple("ours-2", 10)])],
            is_ours,
        );
        assert_eq!(weights(&actions), [("ours-3".into(), 100)]);
    }

    #[test]
    fn a_lone_weight_of_zero_would_be_an_outage() {
        let actions = pointing_at("ours-2", &[forward(vec![tuple("ours-1", 0)])], is_ours);
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
        let actions = pointing_at("ours-2", &[authenticate, old], is_ours);
        let oidc = actions[0].authenticate_oidc_config().unwrap();
        assert_eq!((actions[0].order(), oidc.client_id()), (Some(1), Some("c")));
        // The old answer did not tell the secret, and an action without any is refused.
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
