use super::*;
use memory_aws::{MemoryAws, group_arn, own_tags};

#[test]
fn the_name_is_read_from_the_arn() {
    assert_eq!(name(&group_arn("test-1")), Some("test-1"));
    assert_eq!(name("arn:aws:s3:::bucket"), None);
}

fn with_groups(names: &[String]) -> (MemoryAws, Client) {
    let aws = MemoryAws::default();
    aws.with(|state| {
        for name in names {
            state.add_target_group(name, own_tags(name));
        }
    });
    let elb = Client::new(&aws.config());
    (aws, elb)
}

#[tokio::test]
async fn tags_are_read_by_twenty_and_only_of_groups_named_like_ours() {
    let mut names: Vec<String> = (0..45)
        .map(|second| format!("test-20251027-1221{second:02}Z"))
        .collect();
    names.extend(["an-operators", "prod-20251027-122112Z"].map(str::to_owned));
    let (aws, elb) = with_groups(&names);
    let arns: Vec<String> = names.iter().map(|name| group_arn(name)).collect();
    let environment = "test".parse().unwrap();
    let found = of_environment(&elb, &environment, arns.iter().map(String::as_str)).await;
    assert_eq!(found.unwrap().len(), 45);
    assert_eq!(aws.count("DescribeTags"), 3);
}

#[tokio::test]
async fn a_group_that_is_deleted_in_the_meantime_does_not_hide_the_tags_of_the_others() {
    let (_, elb) = with_groups(&["one", "two"].map(str::to_owned));
    let found = tags::read(&elb, &["one", "gone", "two"].map(group_arn)).await;
    let mut found: Vec<_> = found.unwrap().into_keys().collect();
    found.sort();
    assert_eq!(found, ["one", "two"].map(group_arn));
}

#[tokio::test]
async fn a_group_with_the_tags_of_another_deployment_is_not_ours() {
    let (name, other) = ("test-20251027-122112Z", "test-20251027-122113Z");
    let aws = MemoryAws::default();
    aws.with(|state| {
        state.add_target_group(name, own_tags(other));
    });
    let elb = Client::new(&aws.config());
    let (environment, arn) = ("test".parse().unwrap(), group_arn(name));
    let found = of_environment(&elb, &environment, [arn.as_str()]).await;
    assert_eq!(found.unwrap(), []);
    let found = look_up(&elb, &name.parse().unwrap()).await;
    assert_eq!(found.unwrap(), Found::NotOurs { arn });
}
