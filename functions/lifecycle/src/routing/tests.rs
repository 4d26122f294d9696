use super::*;
use memory_aws::{LISTENER_ARN, MemoryAws, group_arn, own_tags, rule_arn};

fn default_action(groups: &[(&str, Option<i32>)]) -> DefaultAction {
    let tuple = |(name, weight): &(&str, Option<i32>)| {
        TargetGroupTuple::builder()
            .target_group_arn(group_arn(name))
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

#[test]
fn a_forward_with_an_empty_list_of_groups_goes_to_the_group_beside_it() {
    let action = Action::builder()
        .r#type(ActionTypeEnum::Forward)
        .target_group_arn("a")
        .forward_config(
            ForwardActionConfig::builder()
                .set_target_groups(Some(Vec::new()))
                .build(),
        )
        .build();
    assert_eq!(forwarded_to(&[action]), ["a"]);
}

#[tokio::test]
async fn rules_are_read_past_the_first_page() {
    let aws = MemoryAws::default();
    aws.with(|state| {
        state.page_size = 1;
        for priority in [1, 2] {
            state.add_rule(priority, "one", own_tags("one"));
        }
    });
    let elb = Client::new(&aws.config());
    let rules = rules(&elb, LISTENER_ARN).await.unwrap();
    let arns: Vec<_> = rules.into_iter().filter_map(|rule| rule.rule_arn).collect();
    assert_eq!(arns, ["rule-1", "rule-2", "default"].map(rule_arn));
    assert_eq!(aws.count("DescribeRules"), 3);
}
