use super::*;
use aws_sdk_elasticloadbalancingv2::operation::describe_rules::DescribeRulesOutput;
use aws_smithy_mocks::{RuleMode, mock, mock_client};

fn default_action(groups: &[(&str, Option<i32>)]) -> DefaultAction {
    let tuple = |(name, weight): &(&str, Option<i32>)| {
        TargetGroupTuple::builder()
            .target_group_arn(format!(
                "arn:aws:elasticloadbalancing:us-east-1:1:targetgroup/{name}/abc"
            ))
            .set_weight(*weight)
            .build()
    };
    let config = ForwardActionConfig::builder()
        .set_target_groups(Some(groups.iter().map(tuple).collect()))
        .build();
    let forward = Action::builder()
        .r#type(ActionTypeEnum::Forward)
        .forward_config(config)
        .build();
    DefaultAction::new(vec![forward], &"test".parse().unwrap())
}

const OLD: &str = "test-20251027-122110Z";
const NEW: &str = "test-20251027-122111Z";

#[test]
fn the_heaviest_group_is_active_and_of_equals_the_newest() {
    for (groups, active) in [
        (&[(OLD, Some(100)), (NEW, Some(0))][..], Some(OLD)),
        (&[(NEW, Some(0)), (OLD, Some(100))], Some(OLD)),
        (&[(OLD, Some(1)), (NEW, Some(99))], Some(NEW)),
        (&[(OLD, Some(50)), (NEW, Some(50))], Some(NEW)),
        (&[(NEW, None), (OLD, Some(1))], Some(NEW)),
        (&[("an-operators", Some(900)), (OLD, Some(100))], Some(OLD)),
        (
            &[("prod-20251027-122111Z", Some(100)), (OLD, Some(0))],
            Some(OLD),
        ),
        (&[("an-operators", Some(100))], None),
        (&[], None),
    ] {
        let default_action = default_action(groups);
        let named = default_action.active().map(DeploymentId::as_str);
        assert_eq!(named, active, "{groups:?}");
    }
}

#[test]
fn a_group_is_named_with_any_weight_and_alone_only_without_another_of_ours() {
    let (old, new): (DeploymentId, DeploymentId) = (OLD.parse().unwrap(), NEW.parse().unwrap());
    let both = default_action(&[(OLD, Some(100)), (NEW, Some(0))]);
    assert!(both.is_named(&old) && both.is_named(&new));
    assert!(!both.names_only(&old) && !both.names_only(&new));
    let alone = default_action(&[("an-operators", Some(100)), (OLD, Some(1))]);
    assert!(alone.names_only(&old) && !alone.names_only(&new) && !alone.is_named(&new));
}

#[test]
fn a_forward_without_weights_counts_as_weight_one() {
    let action = Action::builder()
        .r#type(ActionTypeEnum::Forward)
        .target_group_arn("a")
        .build();
    let groups = forwards(&[action]);
    assert_eq!(
        (groups[0].target_group_arn(), groups[0].weight()),
        (Some("a"), Some(1))
    );
}

#[tokio::test]
async fn rules_are_read_past_the_first_page() {
    let page = |marker: Option<&str>, arn: &str| {
        DescribeRulesOutput::builder()
            .rules(Rule::builder().rule_arn(arn).build())
            .set_next_marker(marker.map(str::to_owned))
            .build()
    };
    let first = mock!(Client::describe_rules)
        .match_requests(|request| request.marker().is_none())
        .then_output(move || page(Some("more"), "one"));
    let second = mock!(Client::describe_rules)
        .match_requests(|request| request.marker() == Some("more"))
        .then_output(move || page(None, "two"));
    let elb = mock_client!(
        aws_sdk_elasticloadbalancingv2,
        RuleMode::MatchAny,
        [&first, &second]
    );
    let arns: Vec<_> = rules(&elb, "listener")
        .await
        .unwrap()
        .into_iter()
        .filter_map(|r| r.rule_arn)
        .collect();
    assert_eq!(arns, ["one", "two"]);
}
