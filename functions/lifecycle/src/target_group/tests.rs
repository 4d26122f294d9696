use super::*;
use aws_sdk_elasticloadbalancingv2::operation::describe_tags::{
    DescribeTagsError, DescribeTagsOutput,
};
use aws_sdk_elasticloadbalancingv2::types::TagDescription;
use aws_sdk_elasticloadbalancingv2::types::error::TargetGroupNotFoundException;
use aws_smithy_mocks::{MockResponse, RuleMode, mock, mock_client};

fn arn(name: &str) -> String {
    format!("arn:aws:elasticloadbalancing:us-east-1:1:targetgroup/{name}/abc")
}

#[test]
fn the_name_is_read_from_the_arn() {
    assert_eq!(name(&arn("test-1")), Some("test-1"));
    assert_eq!(name("arn:aws:s3:::bucket"), None);
}

#[tokio::test]
async fn tags_are_read_by_twenty_and_only_of_what_may_be_ours() {
    let described = mock!(Client::describe_tags)
        .match_requests(|request| request.resource_arns().len() <= 20)
        .then_compute_output(|request| {
            let descriptions = request
                .resource_arns()
                .iter()
                .map(|arn| {
                    let id = name(arn).unwrap();
                    TagDescription::builder()
                        .resource_arn(arn)
                        .tags(Tag::builder().key(tags::DEPLOYMENT_ID).value(id).build())
                        .tags(Tag::builder().key(tags::ENVIRONMENT).value("test").build())
                        .build()
                })
                .collect();
            DescribeTagsOutput::builder()
                .set_tag_descriptions(Some(descriptions))
                .build()
        });
    let elb = mock_client!(
        aws_sdk_elasticloadbalancingv2,
        RuleMode::MatchAny,
        [&described]
    );
    let mut arns: Vec<String> = (0..45)
        .map(|second| arn(&format!("test-20251027-1221{second:02}Z")))
        .collect();
    arns.push(arn("somebody-elses"));
    arns.push(arn("prod-20251027-122112Z"));
    let environment = "test".parse().unwrap();
    let found = of_environment(&elb, &environment, arns.iter().map(String::as_str))
        .await
        .unwrap();
    assert_eq!(found.len(), 45);
    assert_eq!(described.num_calls(), 3);
}

#[tokio::test]
async fn a_group_that_is_deleted_in_the_meantime_does_not_hide_the_tags_of_the_others() {
    let described = mock!(Client::describe_tags).then_compute_response(|request| {
        if request.resource_arns().contains(&arn("gone")) {
            return MockResponse::Error(DescribeTagsError::TargetGroupNotFoundException(
                TargetGroupNotFoundException::builder().build(),
            ));
        }
        let descriptions = request
            .resource_arns()
            .iter()
            .map(|arn| TagDescription::builder().resource_arn(arn).build())
            .collect();
        MockResponse::Output(
            DescribeTagsOutput::builder()
                .set_tag_descriptions(Some(descriptions))
                .build(),
        )
    });
    let elb = mock_client!(
        aws_sdk_elasticloadbalancingv2,
        RuleMode::MatchAny,
        [&described]
    );
    let found = tags::read(&elb, &[arn("one"), arn("gone"), arn("two")])
        .await
        .unwrap();
    let mut found: Vec<_> = found.into_keys().collect();
    found.sort();
    assert_eq!(found, [arn("one"), arn("two")]);
}
