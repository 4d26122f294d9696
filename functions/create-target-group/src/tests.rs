use super::*;
use aws_sdk_elasticloadbalancingv2::Client;
use lifecycle::{Baseline, ErrorName, StepError};
use memory_aws::{MemoryAws, Tags, group_arn, own_tags, tags as pairs};
use serde_json::{Value, json};

const ID: &str = "test-20251027-122112Z";

/// An account that holds a target group of the deployment's name with these tags.
fn with_group(tags: Tags) -> MemoryAws {
    let aws = MemoryAws::default();
    aws.with(|state| {
        state.add_target_group(ID, tags);
    });
    aws
}

fn with_ours() -> MemoryAws {
    with_group(own_tags(ID))
}

fn not_ours() -> Tags {
    pairs([("team", "other")])
}

async fn run_step(aws: &MemoryAws) -> Result<Output, StepError> {
    let input = json!({"deploymentId": ID, "fromALaterVersion": 1});
    let input = serde_json::from_value(input).unwrap();
    run(&Client::new(&aws.config()), &Baseline::for_tests(), input).await
}

async fn undo_step(aws: &MemoryAws) -> Result<(), StepError> {
    let elb = Client::new(&aws.config());
    undo(&elb, &Baseline::for_tests(), &ID.parse().unwrap()).await
}

fn deregistration_delay(aws: &MemoryAws) -> Option<String> {
    let key = "deregistration_delay.timeout_seconds";
    aws.with(|state| state.group(ID).attributes.get(key).cloned())
}

#[tokio::test]
async fn a_missing_target_group_is_created_as_the_design_says() {
    let aws = MemoryAws::default();
    let output = run_step(&aws).await.unwrap();
    assert_eq!(output.target_group_arn, group_arn(ID));
    assert_eq!(
        aws.calls_to("CreateTargetGroup"),
        [json!({
            "Action": "CreateTargetGroup",
            "Version": "2015-12-01",
            "Name": ID,
            "Protocol": "HTTP",
            "Port": "8000",
            "VpcId": "vpc-1",
            "HealthCheckProtocol": "HTTP",
            "HealthCheckEnabled": "true",
            "HealthCheckPath": "/_health",
            "HealthCheckIntervalSeconds": "30",
            "HealthCheckTimeoutSeconds": "5",
            "HealthyThresholdCount": "2",
            "UnhealthyThresholdCount": "3",
            "Matcher": {"HttpCode": "200"},
            "TargetType": "ip",
            "Tags": [
                {"Key": "pulse:deployment-id", "Value": ID},
                {"Key": "pulse:environment", "Value": "test"},
            ],
        })]
    );
    assert_eq!(deregistration_delay(&aws).as_deref(), Some("60"));
}

#[tokio::test]
async fn run_twice_it_creates_once() {
    let aws = MemoryAws::default();
    let first = run_step(&aws).await.unwrap();
    assert_eq!(first.outcome, Origin::Created);
    let second = run_step(&aws).await.unwrap();
    let outcome = Origin::Adopted;
    assert_eq!(second, Output { outcome, ..first });
    assert_eq!(aws.count("CreateTargetGroup"), 1);
}

#[tokio::test]
async fn a_target_group_that_already_exists_with_our_tags_is_adopted() {
    let aws = with_ours();
    let output = run_step(&aws).await.unwrap();
    assert_eq!(output.target_group_arn, group_arn(ID));
    assert_eq!(aws.count("CreateTargetGroup"), 0);
    // The run that created it may have died before it set the attributes.
    assert_eq!(deregistration_delay(&aws).as_deref(), Some("60"));
}

#[tokio::test]
async fn a_target_group_that_is_being_deleted_is_not_adopted() {
    let aws = with_ours();
    aws.with(|state| state.tag(ID, "pulse:deleting-since", "2025-10-27T12:25:00Z"));
    let error = run_step(&aws).await.unwrap_err();
    assert_eq!(error.name, ErrorName::Transient);
}

#[tokio::test]
async fn a_target_group_of_that_name_without_our_tags_is_refused_and_left_alone() {
    for tags in [
        pairs([]),
        pairs([("pulse:deployment-id", ID)]),
        pairs([("pulse:deployment-id", ID), ("pulse:environment", "prod")]),
    ] {
        let aws = with_group(tags);
        let error = run_step(&aws).await.unwrap_err();
        assert_eq!(error.name, ErrorName::ResourceConflict);
        assert!(error.message.contains(&group_arn(ID)), "{error}");
        assert!(error.message.contains("delete it"), "{error}");
        assert!(aws.changes().is_empty(), "{aws:?}");
    }
}

#[tokio::test]
async fn a_race_lost_to_another_run_of_the_step_ends_with_its_target_group() {
    let aws = MemoryAws::default();
    aws.on("CreateTargetGroup").before(|state, _| {
        state.add_target_group(ID, own_tags(ID));
    });
    let output = run_step(&aws).await.unwrap();
    assert_eq!(output.target_group_arn, group_arn(ID));
    assert_eq!(deregistration_delay(&aws).as_deref(), Some("60"));
}

#[tokio::test]
async fn a_race_lost_to_another_program_is_a_conflict() {
    let aws = MemoryAws::default();
    aws.on("CreateTargetGroup").before(|state, _| {
        state.add_target_group(ID, not_ours());
    });
    let error = run_step(&aws).await.unwrap_err();
    assert_eq!(error.name, ErrorName::ResourceConflict);
    assert_eq!(aws.count("CreateTargetGroup"), 1);
}

#[tokio::test]
async fn a_name_that_is_taken_and_not_found_is_tried_again_later() {
    let aws = MemoryAws::default();
    aws.on("CreateTargetGroup")
        .fails("DuplicateTargetGroupName");
    let error = run_step(&aws).await.unwrap_err();
    assert_eq!(error.name, ErrorName::Transient);
    assert_eq!(aws.count("CreateTargetGroup"), 1);
}

#[tokio::test]
async fn a_full_account_is_reported_as_a_quota() {
    let aws = MemoryAws::default();
    aws.on("CreateTargetGroup").fails("TooManyTargetGroups");
    let error = run_step(&aws).await.unwrap_err();
    assert_eq!(error.name, ErrorName::QuotaExceeded);
    assert!(error.message.contains(ID), "{error}");
}

#[tokio::test]
async fn a_creation_whose_answer_was_lost_is_adopted_by_the_next_run() {
    let aws = MemoryAws::default();
    aws.on("CreateTargetGroup")
        .loses_the_answer("InternalFailure");
    assert_eq!(run_step(&aws).await.unwrap_err().name, ErrorName::Transient);
    assert_eq!(
        run_step(&aws).await.unwrap().target_group_arn,
        group_arn(ID)
    );
    assert_eq!(aws.count("CreateTargetGroup"), 1);
}

#[tokio::test]
async fn a_target_group_deleted_between_the_look_up_and_its_tags_does_not_exist() {
    let aws = with_ours();
    aws.on("DescribeTargetGroups")
        .after(|state, _| state.target_groups.clear());
    undo_step(&aws).await.unwrap();
    assert!(aws.changes().is_empty(), "{aws:?}");
}

#[tokio::test]
async fn undo_twice_deletes_once() {
    let aws = with_ours();
    undo_step(&aws).await.unwrap();
    assert!(!aws.with(|state| state.has_group(ID)));
    undo_step(&aws).await.unwrap();
}

#[tokio::test]
async fn undo_does_not_touch_what_is_not_ours() {
    let aws = with_group(not_ours());
    undo_step(&aws).await.unwrap();
    assert!(aws.changes().is_empty(), "{aws:?}");
}

#[tokio::test]
async fn undo_treats_a_target_group_that_another_run_deleted_as_done() {
    let aws = with_ours();
    aws.on("DeleteTargetGroup")
        .before(|state, _| state.target_groups.clear());
    undo_step(&aws).await.unwrap();
    assert_eq!(aws.count("DeleteTargetGroup"), 1);
}

#[tokio::test]
async fn a_target_group_in_use_is_kept_and_the_error_names_its_users() {
    let aws = with_ours();
    aws.with(|state| {
        state.page_size = 1;
        state.add_rule(100, "another", own_tags(ID));
        state.add_rule(20_100, ID, own_tags(ID));
        state.activate(ID);
    });
    let error = undo_step(&aws).await.unwrap_err();
    assert_eq!(error.name, ErrorName::ResourceConflict);
    let users = "rule-2 (priority 20100) and the default action of arn:aws:";
    assert!(error.message.contains(users), "{error}");
    assert!(!error.message.contains("rule-1 "), "{error}");
    assert!(aws.with(|state| state.has_group(ID)));
}

#[tokio::test]
async fn a_target_group_that_is_no_longer_named_by_a_rule_is_deleted_a_little_later() {
    let aws = with_ours();
    aws.with(|state| {
        state.add_rule(100, "another", own_tags(ID));
    });
    aws.on("DeleteTargetGroup").fails("ResourceInUse");
    let error = undo_step(&aws).await.unwrap_err();
    assert_eq!(error.name, ErrorName::Transient);
    assert!(error.message.contains(&group_arn(ID)), "{error}");
}

#[tokio::test]
async fn a_deletion_whose_answer_was_lost_succeeds_though_the_next_attempt_is_denied() {
    let aws = with_ours();
    aws.on("DeleteTargetGroup").loses_the_answer("AccessDenied");
    undo_step(&aws).await.unwrap();

    let aws = with_ours();
    aws.on("DeleteTargetGroup").fails("AccessDenied");
    let error = undo_step(&aws).await.unwrap_err();
    assert_eq!(error.name, ErrorName::AccessDenied);
}

const EXECUTION: &str = "arn:aws:states:us-east-1:1:execution:test-deploy:test-20251027-122112Z-2";
const EXECUTION_TAG: &str = "pulse:execution:test-20251027-122112Z-2";

async fn run_in_execution(aws: &MemoryAws) -> Result<Output, StepError> {
    let input = json!({"deploymentId": ID, "execution": EXECUTION});
    let input = serde_json::from_value(input).unwrap();
    run(&Client::new(&aws.config()), &Baseline::for_tests(), input).await
}

#[tokio::test]
async fn the_execution_that_creates_or_adopts_the_target_group_is_in_its_tags() {
    for aws in [MemoryAws::default(), with_ours()] {
        run_in_execution(&aws).await.unwrap();
        let tags = aws.with(|state| state.group(ID).tags.clone());
        assert_eq!(tags[EXECUTION_TAG], EXECUTION);
    }
}

#[tokio::test]
async fn an_undo_that_begins_while_the_target_group_is_adopted_is_waited_for() {
    let aws = with_ours();
    aws.on("AddTags").before(|state, _| {
        state.tag(ID, "pulse:deleting-since", "2025-10-27T12:25:00Z");
    });
    let error = run_in_execution(&aws).await.unwrap_err();
    assert_eq!(error.name, ErrorName::Transient);
}

#[tokio::test]
async fn path_stickiness_and_an_unusual_time_of_grace_are_as_the_input_says() {
    for (grace, tagged) in [(90, Some("90")), (600, None)] {
        let aws = MemoryAws::default();
        let input = json!({
            "deploymentId": ID, "healthCheckPath": "/up", "stickiness": 3600, "graceSeconds": grace,
        });
        let input = serde_json::from_value(input).unwrap();
        run(&Client::new(&aws.config()), &Baseline::for_tests(), input)
            .await
            .unwrap();
        let call = aws.calls_to("CreateTargetGroup").pop().unwrap();
        assert_eq!(call["HealthCheckPath"], "/up");
        aws.with(|state| {
            let group = state.group(ID);
            let tag = group.tags.get("pulse:grace-seconds");
            assert_eq!(tag.map(String::as_str), tagged);
            let stickiness = pairs([
                ("deregistration_delay.timeout_seconds", "60"),
                ("stickiness.enabled", "true"),
                ("stickiness.type", "lb_cookie"),
                ("stickiness.lb_cookie.duration_seconds", "3600"),
            ]);
            assert_eq!(group.attributes, stickiness);
        });
    }
}

async fn run_with_count(aws: &MemoryAws, count: u32, scaling: Value) -> Output {
    let input = json!({"deploymentId": ID, "wantedCount": count, "scaling": scaling});
    let input = serde_json::from_value(input).unwrap();
    let elb = Client::new(&aws.config());
    run(&elb, &Baseline::for_tests(), input).await.unwrap()
}

#[tokio::test]
async fn tags_keep_what_was_asked_for_last() {
    let aws = MemoryAws::default();
    let kept = || {
        let tag = |key: &str| aws.with(|state| state.group(ID).tags.get(key).cloned());
        [tag("pulse:wanted-count"), tag("pulse:scaling")].map(Option::unwrap_or_default)
    };
    let scaling = json!({"max": 10, "cpuPercent": 60});
    let created = run_with_count(&aws, 4, scaling.clone()).await;
    assert_eq!(created.outcome, Origin::Created);
    assert_eq!(kept(), ["4", "max=10 cpuPercent=60"]);
    assert_eq!(aws.count("AddTags"), 0);
    // Another execution continues with what the first one left, and has other settings.
    let adopted = run_with_count(&aws, 3, Value::Null).await;
    assert_eq!(adopted.outcome, Origin::Adopted);
    assert_eq!(kept(), ["3", ""]);
    run_with_count(&aws, 3, scaling).await;
    assert_eq!(kept(), ["3", "max=10 cpuPercent=60"]);
}

#[tokio::test]
async fn a_group_that_another_input_made_is_corrected_when_it_is_adopted() {
    let aws = MemoryAws::default();
    let run_with = async |more: Value| {
        let mut input = json!({"deploymentId": ID, "wantedCount": 2});
        input
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let input = serde_json::from_value(input).unwrap();
        let elb = Client::new(&aws.config());
        run(&elb, &Baseline::for_tests(), input).await.unwrap()
    };
    let shown = || {
        aws.with(|state| {
            let group = state.group(ID);
            [
                group.settings["HealthCheckPath"]
                    .as_str()
                    .map(str::to_owned),
                group.tags.get("pulse:grace-seconds").cloned(),
                group.attributes.get("stickiness.enabled").cloned(),
            ]
            .map(Option::unwrap_or_default)
        })
    };
    let wrong = json!({"healthCheckPath": "/wrong", "graceSeconds": 90, "stickiness": 3600});
    run_with(wrong).await;
    assert_eq!(shown(), ["/wrong", "90", "true"]);
    let right = json!({"healthCheckPath": "/up", "graceSeconds": 600});
    let output = run_with(right.clone()).await;
    assert_eq!(output.outcome, Origin::Adopted);
    assert_eq!(shown(), ["/up", "", "false"]);
    run_with(right).await;
    assert_eq!(aws.count("ModifyTargetGroup"), 1, "it is right already");
    let other = json!({"healthCheckPath": "/up", "graceSeconds": 120, "stickiness": 60});
    run_with(other).await;
    assert_eq!(shown(), ["/up", "120", "true"]);
}
