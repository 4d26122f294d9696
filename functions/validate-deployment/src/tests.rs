use super::*;
use aws_sdk_ecr::operation::describe_images::{DescribeImagesError, DescribeImagesOutput};
use aws_sdk_ecr::types::ImageDetail;
use aws_sdk_ecr::types::error::ImageNotFoundException;
use aws_sdk_elasticloadbalancingv2::operation::describe_account_limits::DescribeAccountLimitsOutput;
use aws_sdk_elasticloadbalancingv2::operation::describe_listeners::DescribeListenersOutput;
use aws_sdk_elasticloadbalancingv2::operation::describe_rules::DescribeRulesOutput;
use aws_sdk_elasticloadbalancingv2::operation::describe_tags::DescribeTagsOutput;
use aws_sdk_elasticloadbalancingv2::types::{
    Action, ActionTypeEnum, Limit, Listener, Rule, Tag, TagDescription,
};
use aws_smithy_mocks::{RuleMode, mock, mock_client};
use serde_json::{Value, json};

const OLD: &str = "test-20251027-122112Z";
const ID: &str = "test-20251027-122113Z";
const NEW: &str = "test-20251027-122114Z";
const DIGEST: &str = "sha256:7f5b2640fe6fb4f46592dfd3410c4a79dac4f89e4782432e0378abcd12345678";

fn arn(name: &str) -> String {
    format!("arn:aws:elasticloadbalancing:us-east-1:1:targetgroup/{name}/abc")
}

fn forward(name: &str) -> Action {
    Action::builder()
        .r#type(ActionTypeEnum::Forward)
        .target_group_arn(arn(name))
        .build()
}

/// A listener with that active deployment and those rules, one per named target group.
struct World {
    active: Option<&'static str>,
    rules: Vec<String>,
    rolled_back: Option<&'static str>,
    rule_limit: &'static str,
}

fn world() -> World {
    World {
        active: Some(OLD),
        rules: vec![OLD.into(), OLD.into()],
        rolled_back: None,
        rule_limit: "100",
    }
}

async fn validate(world: World, input: Value) -> Result<Output, StepError> {
    let World {
        active,
        rules,
        rolled_back,
        rule_limit,
    } = world;
    let images = mock!(aws_sdk_ecr::Client::describe_images).then_output(|| {
        DescribeImagesOutput::builder()
            .image_details(ImageDetail::builder().image_digest(DIGEST).build())
            .build()
    });
    let listeners =
        mock!(aws_sdk_elasticloadbalancingv2::Client::describe_listeners).then_output(move || {
            let default = match active {
                Some(name) => forward(name),
                None => Action::builder()
                    .r#type(ActionTypeEnum::FixedResponse)
                    .build(),
            };
            DescribeListenersOutput::builder()
                .listeners(
                    Listener::builder()
                        .listener_arn("listener")
                        .default_actions(default)
                        .build(),
                )
                .build()
        });
    let described_rules = mock!(aws_sdk_elasticloadbalancingv2::Client::describe_rules)
        .then_output(move || {
            let rules = rules.iter().map(|name| {
                Rule::builder()
                    .is_default(false)
                    .actions(forward(name))
                    .build()
            });
            let default = Rule::builder().is_default(true).build();
            DescribeRulesOutput::builder()
                .set_rules(Some(rules.chain([default]).collect()))
                .build()
        });
    let described_tags = mock!(aws_sdk_elasticloadbalancingv2::Client::describe_tags)
        .then_compute_output(move |request| {
            let descriptions = request.resource_arns().iter().map(|arn| {
                let id = target_group::name(arn).unwrap();
                let mark = rolled_back
                    .filter(|name| *name == id)
                    .map(|_| (tags::ROLLED_BACK_AT, "then".to_owned()));
                let tags = tags::for_deployment(&id.parse().unwrap())
                    .into_iter()
                    .chain(mark);
                let tags = tags
                    .map(|(key, value)| Tag::builder().key(key).value(value).build())
                    .collect();
                TagDescription::builder()
                    .resource_arn(arn)
                    .set_tags(Some(tags))
                    .build()
            });
            DescribeTagsOutput::builder()
                .set_tag_descriptions(Some(descriptions.collect()))
                .build()
        });
    let limits = mock!(aws_sdk_elasticloadbalancingv2::Client::describe_account_limits)
        .then_output(move || {
            let limit = |name: &str, max: &str| Limit::builder().name(name).max(max).build();
            DescribeAccountLimitsOutput::builder()
                .limits(limit("rules-per-application-load-balancer", rule_limit))
                .limits(limit("target-groups-per-application-load-balancer", "100"))
                .build()
        });
    let ecr = mock_client!(aws_sdk_ecr, RuleMode::MatchAny, [&images]);
    let elb = mock_client!(
        aws_sdk_elasticloadbalancingv2,
        RuleMode::MatchAny,
        [&listeners, &described_rules, &described_tags, &limits]
    );
    let now = time::macros::utc_datetime!(2025-10-27 13:00:00);
    run(
        &ecr,
        &elb,
        &Settings::for_tests(),
        now,
        lifecycle::input::decode(input)?,
    )
    .await
}

fn input() -> Value {
    json!({"deploymentId": ID})
}

#[tokio::test]
async fn a_newer_deployment_goes_on_with_its_digest_pinned() {
    let output = validate(world(), input()).await.unwrap();
    assert_eq!(output.verdict, Verdict::Proceed);
    assert_eq!(
        serde_json::to_value(&output).unwrap(),
        json!({
            "verdict": "proceed", "reason": format!("{OLD} is active and older"), "imageDigest": DIGEST,
            "deploymentId": ID, "desiredCount": 2, "cpu": 256, "memory": 512, "environment": {}
        })
    );
}

#[tokio::test]
async fn the_first_deployment_goes_on() {
    let output = validate(
        World {
            active: None,
            rules: vec![],
            ..world()
        },
        input(),
    )
    .await
    .unwrap();
    assert_eq!(output.verdict, Verdict::Proceed);
}

#[tokio::test]
async fn what_is_active_already_needs_nothing() {
    let output = validate(
        World {
            active: Some(ID),
            ..world()
        },
        input(),
    )
    .await
    .unwrap();
    assert_eq!(output.verdict, Verdict::AlreadyActive);
}

#[tokio::test]
async fn an_older_deployment_is_superseded_before_anything_is_made() {
    let output = validate(
        World {
            active: Some(NEW),
            ..world()
        },
        input(),
    )
    .await
    .unwrap();
    assert_eq!(output.verdict, Verdict::Superseded);
    assert!(output.reason.contains(NEW), "{}", output.reason);
}

#[tokio::test]
async fn a_deployment_that_was_rolled_back_is_refused() {
    let rules = vec![OLD.into(), ID.into()];
    let error = validate(
        World {
            rules,
            rolled_back: Some(ID),
            ..world()
        },
        input(),
    )
    .await
    .unwrap_err();
    assert_eq!(error.name, ErrorName::DeploymentRolledBack);
}

#[tokio::test]
async fn two_rules_must_fit() {
    let rules = |count| (0..count).map(|n| format!("other-{n}")).collect::<Vec<_>>();
    let shared = |count| vec!["other".to_owned(); count];
    assert!(
        validate(
            World {
                rules: shared(98),
                ..world()
            },
            input()
        )
        .await
        .is_ok()
    );
    let error = validate(
        World {
            rules: shared(99),
            ..world()
        },
        input(),
    )
    .await
    .unwrap_err();
    assert_eq!(error.name, ErrorName::QuotaExceeded);
    assert!(
        error.message.contains("2 more rules") && error.message.contains("99 of 100"),
        "{}",
        error.message
    );
    // On a raised quota the target groups are what runs out.
    let error = validate(
        World {
            rules: rules(100),
            rule_limit: "1000",
            ..world()
        },
        input(),
    )
    .await
    .unwrap_err();
    assert!(
        error.message.contains("1 more target groups"),
        "{}",
        error.message
    );
}

#[tokio::test]
async fn what_an_earlier_run_made_is_not_counted_twice() {
    let mut rules = vec!["other".to_owned(); 98];
    rules.extend([ID.to_owned(), ID.to_owned()]);
    assert!(validate(World { rules, ..world() }, input()).await.is_ok());
}

#[tokio::test]
async fn an_image_that_is_not_there_is_named() {
    let images = mock!(aws_sdk_ecr::Client::describe_images)
        .match_requests(|request| request.image_ids()[0].image_tag() == Some(ID))
        .then_error(|| {
            let meta = aws_sdk_ecr::error::ErrorMetadata::builder()
                .code("ImageNotFoundException")
                .build();
            DescribeImagesError::ImageNotFoundException(
                ImageNotFoundException::builder().meta(meta).build(),
            )
        });
    let ecr = mock_client!(aws_sdk_ecr, RuleMode::MatchAny, [&images]);
    let elb = mock_client!(aws_sdk_elasticloadbalancingv2, RuleMode::MatchAny, []);
    let now = time::macros::utc_datetime!(2025-10-27 13:00:00);
    let input = lifecycle::input::decode(input()).unwrap();
    let error = run(&ecr, &elb, &Settings::for_tests(), now, input)
        .await
        .unwrap_err();
    assert_eq!(error.name, ErrorName::ImageNotFound);
    assert!(
        error.message.contains(&format!("test:{ID}")),
        "{}",
        error.message
    );
}
