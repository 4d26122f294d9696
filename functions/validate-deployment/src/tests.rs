use super::*;
use lifecycle::{ErrorName, Settings, StepError, tags};
use memory_aws::{DIGEST, MemoryAws, State, forward, own_tags, tags as pairs};
use serde_json::json;

const OLD: &str = "test-20251027-122112Z";
const ID: &str = "test-20251027-122113Z";
const NEW: &str = "test-20251027-122114Z";

/// An account with the deployment's image, where an older deployment is active.
fn aws() -> MemoryAws {
    let aws = MemoryAws::default();
    aws.with(|state| {
        state.images.push((ID.into(), DIGEST.into()));
        state.deploy(OLD, &[]);
        state.activate(OLD);
    });
    aws
}

/// An account without the older deployment's rules, changed so.
fn with(change: impl FnOnce(&mut State)) -> MemoryAws {
    let aws = aws();
    aws.with(|state| {
        state.rules.clear();
        change(state);
    });
    aws
}

/// Adds so many rules that forward to the target groups of these names.
fn add_rules(state: &mut State, names: impl IntoIterator<Item = String>) {
    for (priority, name) in (1..).zip(names) {
        state.add_rule(priority, &name, pairs([]));
    }
}

async fn validate(aws: &MemoryAws) -> Result<Output, StepError> {
    let ecr = aws_sdk_ecr::Client::new(&aws.config());
    let elb = aws_sdk_elasticloadbalancingv2::Client::new(&aws.config());
    let now = time::macros::utc_datetime!(2025-10-27 13:00:00);
    let input = lifecycle::input::decode(json!({"deploymentId": ID}))?;
    run(&ecr, &elb, &Settings::for_tests(), now, input).await
}

#[tokio::test]
async fn a_newer_deployment_proceeds_with_its_digest_pinned() {
    let output = validate(&aws()).await.unwrap();
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
async fn the_first_deployment_proceeds() {
    let aws = MemoryAws::default();
    aws.with(|state| state.images.push((ID.into(), DIGEST.into())));
    assert_eq!(validate(&aws).await.unwrap().verdict, Verdict::Proceed);
}

#[tokio::test]
async fn a_deployment_that_is_active_already_needs_nothing() {
    let aws = aws();
    aws.with(|state| {
        state.deploy(ID, &[]);
        state.activate(ID);
    });
    let output = validate(&aws).await.unwrap();
    assert_eq!(output.verdict, Verdict::AlreadyActive);
}

#[tokio::test]
async fn an_older_deployment_is_superseded_before_anything_is_created() {
    let aws = aws();
    aws.with(|state| {
        state.deploy(NEW, &[]);
        state.activate(NEW);
    });
    let output = validate(&aws).await.unwrap();
    assert_eq!(output.verdict, Verdict::Superseded);
    assert!(output.reason.contains(NEW), "{}", output.reason);
}

#[tokio::test]
async fn a_deployment_that_was_rolled_back_is_refused() {
    let aws = aws();
    aws.with(|state| state.deploy(ID, &[tags::ROLLED_BACK_AT]));
    let error = validate(&aws).await.unwrap_err();
    assert_eq!(error.name, ErrorName::DeploymentRolledBack);
}

#[tokio::test]
async fn a_rollback_during_the_reads_is_seen() {
    let roll_back = |state: &mut memory_aws::State| {
        state.tag(ID, tags::ROLLED_BACK_AT, "2025-10-27T12:30:00Z");
        state.activate(OLD);
    };
    for read in ["DescribeRules", "DescribeListeners", "DescribeTags"] {
        let aws = aws();
        aws.with(|state| {
            state.deploy(OLD, &[]);
            state.deploy(ID, &[]);
            state.activate(ID);
        });
        aws.on(read).once().after(move |state, _| roll_back(state));
        match validate(&aws).await {
            Ok(output) => assert_eq!(output.verdict, Verdict::AlreadyActive, "{read}"),
            Err(error) => assert_eq!(error.name, ErrorName::DeploymentRolledBack, "{read}"),
        }
    }
}

#[tokio::test]
async fn two_rules_must_fit() {
    let same = |count| (0..count).map(|_| "other".to_owned());
    assert!(
        validate(&with(|state| add_rules(state, same(98))))
            .await
            .is_ok()
    );
    let aws = with(|state| add_rules(state, same(99)));
    let error = validate(&aws).await.unwrap_err();
    assert_eq!(error.name, ErrorName::QuotaExceeded);
    for words in ["2 more rules", "99 of 100"] {
        assert!(error.message.contains(words), "{error}");
    }
    // With a raised quota for rules, there is no room for the target group.
    let aws = with(|state| {
        add_rules(state, (0..100).map(|number| format!("other-{number}")));
        let quota = "rules-per-application-load-balancer".to_owned();
        state.limits.insert(quota, 1000);
    });
    let error = validate(&aws).await.unwrap_err();
    assert!(error.message.contains("1 more target groups"), "{error}");
}

#[tokio::test]
async fn every_rule_of_every_listener_and_every_limit_counts() {
    let aws = with(|state| {
        state.page_size = 1;
        let mut other = state.listeners[0].clone();
        other.arn += "0";
        add_rules(state, (0..99).map(|_| "other".to_owned()));
        for rule in &mut state.rules {
            rule.listener_arn = other.arn.clone();
        }
        state.listeners.push(other);
    });
    let error = validate(&aws).await.unwrap_err();
    assert_eq!(error.name, ErrorName::QuotaExceeded);
    assert!(error.message.contains("99 of 100"), "{error}");
}

#[tokio::test]
async fn resources_of_an_earlier_run_are_not_counted_twice() {
    let aws = with(|state| {
        let others = (0..98).map(|_| "other".to_owned());
        add_rules(state, others.chain([ID.to_owned(), ID.to_owned()]));
        state.add_target_group(ID, own_tags(ID));
    });
    assert!(validate(&aws).await.is_ok());
}

#[tokio::test]
async fn a_missing_image_is_named() {
    let aws = aws();
    aws.with(|state| state.images.clear());
    let error = validate(&aws).await.unwrap_err();
    assert_eq!(error.name, ErrorName::ImageNotFound);
    assert!(error.message.contains(&format!("test:{ID}")), "{error}");
    let asked = json!({"repositoryName": "test", "imageIds": [{"imageTag": ID}]});
    assert_eq!(aws.calls_to("DescribeImages"), [asked]);
}

#[tokio::test]
async fn a_deployment_that_the_default_action_names_with_weight_zero_is_not_active() {
    let aws = aws();
    aws.with(|state| {
        state.deploy(ID, &[]);
        state.listeners[0].default_actions = vec![forward(&[(OLD, 100), (ID, 0)])];
    });
    let output = validate(&aws).await.unwrap();
    assert_eq!(output.verdict, Verdict::Proceed, "{}", output.reason);
}
