use super::*;
use aws_sdk_ecs::Client;
use lifecycle::{Baseline, ErrorName, StepError};
use memory_aws::{MemoryAws, State, Tags, group_arn, own_tags, service_arn, tags as pairs};
use serde_json::{Value, json};

const ID: &str = "test-20251027-122112Z";
const DEFINITION: &str = "task-definition:1";

/// An account with the deployment's target group, attached to the listener.
fn aws() -> MemoryAws {
    let aws = MemoryAws::default();
    aws.with(|state| {
        state.add_target_group(ID, own_tags(ID));
        state.add_rule(100, ID, own_tags(ID));
    });
    aws
}

/// Adds a service as this step makes it, but for status and tags.
fn add(state: &mut State, status: &str, tags: Tags) {
    let service = state.add_service(ID, tags);
    service["status"] = status.into();
    service["taskDefinition"] = DEFINITION.into();
}

fn with_service(status: &str, tags: Tags) -> MemoryAws {
    let aws = aws();
    aws.with(|state| add(state, status, tags));
    aws
}

/// The tags of the deployment without each of them.
fn incomplete_tags() -> [Tags; 3] {
    let id = ("pulse:deployment-id", ID);
    let environment = ("pulse:environment", "test");
    [pairs([]), pairs([id]), pairs([environment])]
}

async fn run_step(aws: &MemoryAws) -> Result<Output, StepError> {
    run_with(aws, json!({})).await
}

async fn run_with(aws: &MemoryAws, more: Value) -> Result<Output, StepError> {
    let mut input = json!({
        "deploymentId": ID,
        "taskDefinitionArn": DEFINITION,
        "targetGroupArn": group_arn(ID),
        "desiredCount": 2,
        "fromALaterVersion": 1,
    });
    for (key, value) in more.as_object().unwrap() {
        input[key] = value.clone();
    }
    let input = serde_json::from_value(input).unwrap();
    run(&Client::new(&aws.config()), &Baseline::for_tests(), input).await
}

async fn undo_step(aws: &MemoryAws) -> Undone {
    let ecs = Client::new(&aws.config());
    undo(&ecs, &Baseline::for_tests(), &ID.parse().unwrap())
        .await
        .unwrap()
}

/// Checks that the step ends with the deployment's service.
async fn assert_ends_with_the_service(aws: &MemoryAws) {
    assert_eq!(run_step(aws).await.unwrap().service_arn, service_arn(ID));
}

#[tokio::test]
async fn a_missing_service_is_created_as_the_design_says() {
    let aws = aws();
    assert_ends_with_the_service(&aws).await;
    assert_eq!(
        aws.calls_to("CreateService"),
        // No client token.
        [json!({
            "cluster": "test",
            "serviceName": ID,
            "taskDefinition": DEFINITION,
            "availabilityZoneRebalancing": "DISABLED",
            "loadBalancers": [{
                "targetGroupArn": group_arn(ID),
                "containerName": "app",
                "containerPort": 8000,
            }],
            "desiredCount": 2,
            "launchType": "FARGATE",
            "platformVersion": "LATEST",
            "deploymentConfiguration": {
                "deploymentCircuitBreaker": {"enable": false, "rollback": false},
                "maximumPercent": 200,
                "minimumHealthyPercent": 100,
            },
            "networkConfiguration": {"awsvpcConfiguration": {
                "subnets": ["subnet-1", "subnet-2"],
                "securityGroups": ["sg-1"],
                "assignPublicIp": "DISABLED",
            }},
            "healthCheckGracePeriodSeconds": 600,
            "tags": [
                {"key": "pulse:deployment-id", "value": ID},
                {"key": "pulse:environment", "value": "test"},
            ],
            "enableECSManagedTags": true,
            "propagateTags": "SERVICE",
            "enableExecuteCommand": false,
        })]
    );
}

#[tokio::test]
async fn run_twice_it_creates_once() {
    let aws = aws();
    let first = run_step(&aws).await.unwrap();
    assert_eq!(first.outcome, Origin::Created);
    let second = run_step(&aws).await.unwrap();
    let outcome = Origin::Adopted;
    assert_eq!(second, Output { outcome, ..first });
    assert_eq!(aws.count("CreateService"), 1);
}

#[tokio::test]
async fn a_service_that_already_exists_with_our_tags_is_adopted() {
    let aws = with_service("ACTIVE", own_tags(ID));
    assert_ends_with_the_service(&aws).await;
    assert_eq!(aws.count("CreateService"), 0);
}

#[tokio::test]
async fn a_service_of_that_name_without_our_tags_is_refused() {
    for tags in incomplete_tags() {
        let aws = with_service("ACTIVE", tags);
        let error = run_step(&aws).await.unwrap_err();
        assert_eq!(error.name, ErrorName::ResourceConflict);
        assert!(error.message.contains(&service_arn(ID)), "{error}");
        assert_eq!(aws.count("CreateService"), 0);
    }
}

#[tokio::test]
async fn a_service_that_runs_something_else_is_neither_changed_nor_adopted() {
    for (more, named) in [
        (
            json!({"taskDefinitionArn": "task-definition:2"}),
            "it runs task definition task-definition:1, not task-definition:2",
        ),
        (
            json!({"targetGroupArn": "another"}),
            "it does not register its tasks in another",
        ),
    ] {
        let aws = with_service("ACTIVE", own_tags(ID));
        let error = run_with(&aws, more).await.unwrap_err();
        assert_eq!(error.name, ErrorName::ResourceConflict);
        assert!(error.message.contains(named), "{error}");
        assert!(error.message.contains(ID), "{error}");
        assert!(aws.changes().is_empty(), "{aws:?}");
    }
}

#[tokio::test]
async fn a_service_still_being_deleted_is_waited_for() {
    // Also one of another owner: the name is not free.
    for tags in [pairs([]), own_tags(ID)] {
        let aws = with_service("DRAINING", tags);
        let error = run_step(&aws).await.unwrap_err();
        assert_eq!(error.name, ErrorName::Transient);
        assert!(error.message.contains("still being deleted"), "{error}");
        assert_eq!(aws.count("CreateService"), 0);
    }
}

#[tokio::test]
async fn the_name_of_a_deleted_service_is_used_again() {
    for tags in [pairs([]), own_tags(ID)] {
        let aws = with_service("INACTIVE", tags);
        assert_ends_with_the_service(&aws).await;
        assert_eq!(aws.count("CreateService"), 1);
    }
}

#[tokio::test]
async fn a_service_that_ecs_has_forgotten_is_missing() {
    let aws = aws();
    aws.on("DescribeServices").fails("ServiceNotFoundException");
    assert_ends_with_the_service(&aws).await;
    assert_eq!(undo_step(&aws).await, Undone::Gone);
}

#[tokio::test]
async fn a_rule_not_yet_in_force_and_a_name_not_yet_free_are_tried_again_later() {
    let unattached = MemoryAws::default();
    let draining = aws();
    draining
        .on("CreateService")
        .before(|state, _| add(state, "DRAINING", own_tags(ID)));
    for (aws, message) in [
        (
            unattached,
            "does not have an associated load balancer.".to_owned(),
        ),
        (
            draining,
            "Unable to Start a service that is still Draining.".to_owned(),
        ),
    ] {
        let error = run_step(&aws).await.unwrap_err();
        assert_eq!(error.name, ErrorName::Transient, "{message}");
        assert!(error.message.contains(&message), "{error}");
        assert!(error.message.contains(ID), "{error}");
    }
}

#[tokio::test]
async fn any_other_invalid_parameter_is_not_tried_again() {
    let aws = aws();
    aws.on("CreateService")
        .fails_with("InvalidParameterException", "Invalid platform.");
    let error = run_step(&aws).await.unwrap_err();
    assert_eq!(error.name, ErrorName::Unexpected);
    assert!(error.message.contains("Invalid platform."), "{error}");
    assert_eq!(aws.count("CreateService"), 1);
}

/// An account in which a service of the deployment's name appears right before it is created.
fn with_race(tags: Tags) -> MemoryAws {
    let aws = aws();
    aws.on("CreateService")
        .before(move |state, _| add(state, "ACTIVE", tags.clone()));
    aws
}

#[tokio::test]
async fn a_race_lost_to_another_run_of_the_step_ends_with_its_service() {
    assert_ends_with_the_service(&with_race(own_tags(ID))).await;
}

#[tokio::test]
async fn a_race_lost_to_another_program_or_to_another_revision_is_a_conflict() {
    let error = run_step(&with_race(pairs([]))).await.unwrap_err();
    assert_eq!(error.name, ErrorName::ResourceConflict);

    let another = json!({"taskDefinitionArn": "task-definition:2"});
    let error = run_with(&with_race(own_tags(ID)), another).await;
    assert_eq!(error.unwrap_err().name, ErrorName::ResourceConflict);
}

#[tokio::test]
async fn however_many_tasks_it_has_a_service_is_adopted_and_keeps_them() {
    for scaled_to in [0, 1, 6] {
        let aws = with_service("ACTIVE", own_tags(ID));
        aws.with(|state| state.service(ID)["desiredCount"] = json!(scaled_to));
        assert_ends_with_the_service(&aws).await;
        assert!(aws.changes().is_empty(), "{aws:?}");
    }
}

#[tokio::test]
async fn a_name_that_is_taken_and_not_found_is_tried_again_later() {
    let aws = aws();
    aws.on("CreateService").fails_with(
        "InvalidParameterException",
        "Creation of service was not idempotent.",
    );
    let error = run_step(&aws).await.unwrap_err();
    assert_eq!(error.name, ErrorName::Transient);
    assert_eq!(aws.count("CreateService"), 1);
}

#[tokio::test]
async fn a_creation_whose_answer_was_lost_is_adopted_by_the_next_run() {
    let aws = aws();
    aws.on("CreateService").loses_the_answer("ServerException");
    assert_eq!(run_step(&aws).await.unwrap_err().name, ErrorName::Transient);
    assert_ends_with_the_service(&aws).await;
    assert_eq!(aws.count("CreateService"), 1);
}

#[tokio::test]
async fn a_number_of_tasks_beyond_what_ecs_can_hold_names_the_field() {
    let error = run_with(&aws(), json!({"desiredCount": u32::MAX}))
        .await
        .unwrap_err();
    assert_eq!(error.name, ErrorName::InvalidInput);
    assert!(error.message.contains("`desiredCount`"), "{error}");
}

#[tokio::test]
async fn undo_deletes_only_an_active_service_of_ours() {
    for (aws, deletions) in [
        (with_service("ACTIVE", own_tags(ID)), 1),
        (with_service("ACTIVE", pairs([])), 0),
        (with_service("DRAINING", own_tags(ID)), 0),
        (with_service("INACTIVE", own_tags(ID)), 0),
        (aws(), 0),
    ] {
        undo_step(&aws).await;
        assert_eq!(aws.count("DeleteService"), deletions, "{aws:?}");
    }
}

#[tokio::test]
async fn undo_deletes_once_and_then_reports_the_progress() {
    let aws = with_service("ACTIVE", own_tags(ID));
    assert_eq!(undo_step(&aws).await, Undone::Draining);
    assert_eq!(undo_step(&aws).await, Undone::Draining);
    aws.with(|state| state.service(ID)["status"] = "INACTIVE".into());
    assert_eq!(undo_step(&aws).await, Undone::Gone);
    aws.with(|state| state.services.clear());
    assert_eq!(undo_step(&aws).await, Undone::Gone);
    // Without scaling it down first.
    let deletion = json!({"cluster": "test", "service": ID, "force": true});
    assert_eq!(aws.calls_to("DeleteService"), [deletion]);
}

#[tokio::test]
async fn undo_does_not_touch_what_is_not_ours() {
    let aws = with_service("ACTIVE", pairs([("pulse:deployment-id", ID)]));
    assert_eq!(undo_step(&aws).await, Undone::Gone);
    assert!(aws.changes().is_empty(), "{aws:?}");
}

#[tokio::test]
async fn a_service_without_tasks_is_gone_at_once() {
    let aws = with_service("ACTIVE", own_tags(ID));
    aws.with(|state| state.service(ID)["runningCount"] = json!(0));
    assert_eq!(undo_step(&aws).await, Undone::Gone);
    assert_eq!(aws.count("DeleteService"), 1);
}

#[tokio::test]
async fn undo_of_a_service_that_another_run_deletes_meanwhile_reports_the_progress() {
    for code in ["ServiceNotFoundException", "ServiceNotActiveException"] {
        for (status, left) in [
            ("DRAINING", Undone::Draining),
            ("INACTIVE", Undone::Gone),
            // What is read lags behind; the next call sees it.
            ("ACTIVE", Undone::Draining),
        ] {
            let aws = with_service("ACTIVE", own_tags(ID));
            aws.on("DeleteService")
                .before(move |state, _| state.service(ID)["status"] = status.into());
            aws.on("DeleteService").fails(code);
            assert_eq!(undo_step(&aws).await, left, "{code} {status}");
            assert_eq!(aws.count("DeleteService"), 1);
        }
    }
}

#[tokio::test]
async fn a_missing_cluster_is_a_configuration_error() {
    let aws = aws();
    aws.on("DescribeServices").fails("ClusterNotFoundException");
    let error = run_step(&aws).await.unwrap_err();
    assert_eq!(error.name, ErrorName::Configuration);
    assert!(error.message.contains(ID), "{error}");
}

/// The service that an earlier run made, with this grace period.
fn with_grace(seconds: i32) -> MemoryAws {
    let aws = with_service("ACTIVE", own_tags(ID));
    aws.with(|state| state.service(ID)["healthCheckGracePeriodSeconds"] = json!(seconds));
    aws
}

fn grace(aws: &MemoryAws) -> Value {
    aws.with(|state| state.service(ID)["healthCheckGracePeriodSeconds"].clone())
}

#[tokio::test]
async fn an_adopted_service_gets_the_grace_period_of_this_input_and_no_new_tasks() {
    let aws = with_grace(600);
    let other = json!({"graceSeconds": 90});
    let output = run_with(&aws, other.clone()).await.unwrap();
    assert_eq!(output.outcome, Origin::Adopted);
    let update = json!({"cluster": "test", "service": ID, "healthCheckGracePeriodSeconds": 90});
    assert_eq!(aws.calls_to("UpdateService"), [update]);
    assert_eq!(grace(&aws), 90);
    run_with(&aws, other).await.unwrap();
    assert_eq!(aws.count("UpdateService"), 1, "it is right already");
    // A machine of an earlier version does not say it.
    run_step(&aws).await.unwrap();
    assert_eq!(grace(&aws), 90);
    assert_eq!(aws.changes().len(), 1, "{aws:?}");
}

#[tokio::test]
async fn a_service_that_another_run_was_faster_to_create_gets_the_grace_period_of_this_input() {
    let aws = with_race(own_tags(ID));
    run_with(&aws, json!({"graceSeconds": 90})).await.unwrap();
    assert_eq!(grace(&aws), 90);
}

#[tokio::test]
async fn a_grace_period_that_a_drain_has_raised_stays() {
    let aws = with_grace(i32::MAX);
    run_with(&aws, json!({"graceSeconds": 90})).await.unwrap();
    assert!(aws.changes().is_empty(), "{aws:?}");
}

#[tokio::test]
async fn a_correction_whose_answer_was_lost_is_there_for_the_next_run() {
    let aws = with_grace(600);
    aws.on("UpdateService").loses_the_answer("ServerException");
    let input = json!({"graceSeconds": 90});
    let error = run_with(&aws, input.clone()).await.unwrap_err();
    assert_eq!(error.name, ErrorName::Transient);
    assert!(error.message.contains(ID), "{error}");
    run_with(&aws, input).await.unwrap();
    assert_eq!((grace(&aws), aws.count("UpdateService")), (json!(90), 1));
}

#[tokio::test]
async fn a_service_that_runs_something_else_keeps_its_grace_period() {
    let aws = with_grace(600);
    let other = json!({"taskDefinitionArn": "task-definition:2", "graceSeconds": 90});
    run_with(&aws, other).await.unwrap_err();
    assert!(aws.changes().is_empty(), "{aws:?}");
}

#[tokio::test]
async fn the_grace_period_is_as_the_input_says() {
    let aws = aws();
    run_with(&aws, json!({"graceSeconds": 90})).await.unwrap();
    let call = aws.calls_to("CreateService").pop().unwrap();
    assert_eq!(call["healthCheckGracePeriodSeconds"], 90);
}
