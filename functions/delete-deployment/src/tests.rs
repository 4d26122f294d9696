use super::*;
use lifecycle::{ErrorName, StepError, defaults, tags};
use memory_aws::{MemoryAws, Tags};
use serde_json::{Value, json};
use time::{Duration, UtcDateTime};

const ID: &str = "test-20251027-122112Z";
const OTHER: &str = "test-20251027-122113Z";
const NOW: UtcDateTime = time::macros::utc_datetime!(2025-10-27 12:30:00);
const SETTLE: Duration = Duration::seconds(60);
/// After this time the load balancer has surely forgotten rules; a mark has a precision of a second.
const FORGOTTEN: Duration = Duration::seconds(61);
/// Live before, and being deleted.
const DELETING: &[&str] = &[tags::READY_AT, tags::LIVE_SINCE, tags::DELETING_SINCE];

/// A whole deployment with these tags on its target group, while another one is active.
fn marked(marks: &[&str]) -> MemoryAws {
    let aws = MemoryAws::default();
    aws.with(|state| {
        state.deploy(ID, marks);
        state.add_target_group(OTHER, memory_aws::own_tags(OTHER));
        state.activate(OTHER);
    });
    aws
}

/// The same without its rules.
fn marked_without_rules(marks: &[&str]) -> MemoryAws {
    let aws = marked(marks);
    aws.with(|state| state.rules.clear());
    aws
}

/// Calls the step once; the calls before are forgotten.
async fn call(aws: &MemoryAws, more: Value) -> Result<Output, StepError> {
    aws.forget_calls();
    let mut input = json!({"deploymentId": ID});
    for (key, value) in more.as_object().unwrap() {
        input[key] = value.clone();
    }
    let sdk_config = aws.config();
    let clients = Clients {
        shared: sdk::Clients::new(&sdk_config),
        autoscaling: aws_sdk_applicationautoscaling::Client::new(&sdk_config),
    };
    let config = Config {
        baseline: lifecycle::Baseline::for_tests(),
        settle: SETTLE,
    };
    let input = serde_json::from_value(input).unwrap();
    run(&clients, &config, &|| aws.time(), input).await
}

async fn delete(aws: &MemoryAws) -> Result<Output, StepError> {
    call(aws, json!({})).await
}

/// Undoes a candidate.
async fn undo(aws: &MemoryAws) -> Result<Output, StepError> {
    call(aws, json!({"onlyIfNeverLive": true})).await
}

async fn force(aws: &MemoryAws) -> Result<Output, StepError> {
    call(aws, json!({"force": true})).await
}

async fn assert_deleting(output: impl Future<Output = Result<Output, StepError>>) {
    assert_eq!(output.await.unwrap().verdict, Verdict::Deleting);
}

/// What the last call changed, without the name of the deployment. Without what ends a registration that is not there.
fn done(aws: &MemoryAws) -> Vec<String> {
    let changes = aws.changes().into_iter();
    changes
        .filter(|it| !it.starts_with("DeregisterScalableTarget"))
        .map(|it| it.replace(&format!(" {ID}"), ""))
        .collect()
}

fn tags_of(aws: &MemoryAws) -> Tags {
    aws.with(|state| state.group(ID).tags.clone())
}

/// Marks the target group as of so long ago.
fn mark_since(aws: &MemoryAws, mark: &str, time: Duration) {
    aws.with(|state| state.tag(ID, mark, &tags::timestamp(NOW - time)));
}

fn is_gone(aws: &MemoryAws) -> bool {
    aws.with(|state| {
        let is_service_gone = state.services.iter().all(|it| it["status"] == "INACTIVE");
        let is_definition_gone = state.active_revisions() == 0;
        state.rules.is_empty() && !state.has_group(ID) && is_service_gone && is_definition_gone
    })
}

const UNMARKED: [&str; 1] = ["RemoveTags pulse:deleting-since pulse:unrouted-since"];

#[tokio::test]
async fn a_target_group_that_another_run_deletes_meanwhile_needs_no_tag() {
    let live = [tags::READY_AT, tags::LIVE_SINCE, tags::DRAINING_SINCE];
    for marks in [&live[..], DELETING] {
        let aws = marked_without_rules(marks);
        aws.on("AddTags")
            .before(|state, _| state.target_groups.retain(|group| group.name != ID));
        assert_eq!(delete(&aws).await.unwrap().verdict, Verdict::Deleting);
    }
    // Any other failure is reported.
    let aws = marked_without_rules(DELETING);
    aws.on("AddTags").fails("AccessDenied");
    assert_eq!(
        delete(&aws).await.unwrap_err().name,
        ErrorName::AccessDenied
    );
}

#[tokio::test]
async fn rules_go_first_then_the_service_the_target_group_and_the_task_definition() {
    let aws = marked(&[]);
    let mut all = Vec::new();
    for _ in 0..10 {
        let output = delete(&aws).await.unwrap();
        all.extend(done(&aws));
        if output.verdict == Verdict::Deleted {
            assert!(is_gone(&aws));
            break;
        }
        // ECS stops the tasks until the next call.
        aws.with(|state| {
            if state.service(ID)["status"] == "DRAINING" {
                state.service(ID)["status"] = "INACTIVE".into();
            }
        });
    }
    assert_eq!(
        all,
        [
            "AddTags pulse:deleting-since",
            "DeleteRule rule-1",
            "DeleteRule rule-2",
            "DeleteService",
            "DeleteTargetGroup",
            "DeregisterTaskDefinition test-app:1"
        ]
    );
}

#[tokio::test]
async fn a_deployment_that_is_gone_already_is_a_success() {
    let aws = MemoryAws::default();
    assert_eq!(undo(&aws).await.unwrap().verdict, Verdict::Deleted);
    assert!(done(&aws).is_empty());
}

#[tokio::test]
async fn rules_that_an_old_list_hid_are_deleted_when_the_target_group_is_in_use() {
    let aws = marked(&[tags::DELETING_SINCE]);
    aws.with(|state| state.services.clear());
    let mut without_rules = aws.with(|state| state.clone());
    without_rules.rules.clear();
    for read in [1, 2] {
        let list = without_rules.clone();
        aws.on("DescribeRules").nth(read).shows(list);
    }
    assert_deleting(delete(&aws)).await;
    assert_eq!(
        done(&aws),
        [
            "DeleteTargetGroup",
            "DeleteRule rule-1",
            "DeleteRule rule-2"
        ]
    );
    assert_eq!(delete(&aws).await.unwrap().verdict, Verdict::Deleted);
    assert!(is_gone(&aws));
}

#[tokio::test]
async fn the_active_deployment_is_refused_and_left_whole() {
    let aws = marked(&[]);
    aws.with(|state| state.activate(ID));
    let error = delete(&aws).await.unwrap_err();
    assert_eq!(error.name, ErrorName::DeploymentActive);
    assert_eq!(done(&aws), UNMARKED);
}

#[tokio::test]
async fn a_deployment_that_was_live_is_not_undone_like_a_candidate() {
    let aws = marked(&[tags::LIVE_SINCE]);
    let error = undo(&aws).await.unwrap_err();
    assert_eq!(error.name, ErrorName::DeploymentWasLive);
    assert!(done(&aws).is_empty());
}

#[tokio::test]
async fn one_that_was_brought_back_since_it_was_planned_is_kept() {
    let planned = || json!({"onlyIfDraining": true, "force": true});
    let aws = marked(&[tags::READY_AT, tags::LIVE_SINCE]);
    let error = call(&aws, planned()).await.unwrap_err();
    assert_eq!(error.name, ErrorName::DeploymentWasLive);
    assert!(error.message.contains("is not draining now"), "{error}");
    assert!(done(&aws).is_empty(), "{aws:?}");
    // The tag may be left from a deletion that gave way to a switch.
    let aws = marked(DELETING);
    let error = call(&aws, planned()).await.unwrap_err();
    assert_eq!(error.name, ErrorName::DeploymentWasLive);
    assert_eq!(done(&aws), UNMARKED);
    for marks in [
        [tags::READY_AT, tags::LIVE_SINCE, tags::DRAINING_SINCE].as_slice(),
        &[tags::READY_AT, tags::DELETING_SINCE],
    ] {
        let aws = marked(marks);
        assert_deleting(call(&aws, planned())).await;
        assert!(!done(&aws).is_empty(), "{marks:?}");
    }
}

#[tokio::test]
async fn a_ready_candidate_is_marked_first_and_deleted_by_the_next_call() {
    let aws = marked(&[tags::READY_AT]);
    assert_deleting(undo(&aws)).await;
    assert_eq!(done(&aws), ["AddTags pulse:deleting-since"]);
    // Called again at once, as after an answer that was lost.
    assert_deleting(undo(&aws)).await;
    assert!(done(&aws).is_empty(), "{aws:?}");
    mark_since(&aws, tags::DELETING_SINCE, defaults::SWITCH_IN_FLIGHT);
    assert_deleting(undo(&aws)).await;
    assert!(done(&aws).contains(&"DeleteService".to_owned()), "{aws:?}");
}

#[tokio::test]
async fn one_that_was_switched_to_after_the_mark_is_kept_and_unmarked() {
    let aws = marked(&[]);
    aws.on("AddTags").after(|state, _| state.activate(ID));
    let error = delete(&aws).await.unwrap_err();
    assert_eq!(error.name, ErrorName::DeploymentActive);
    assert_eq!(done(&aws), ["AddTags pulse:deleting-since", UNMARKED[0]]);
    assert_eq!(aws.with(|state| state.rules.len()), 2);
}

#[tokio::test]
async fn one_that_went_live_during_its_undo_loses_the_mark_of_its_deletion() {
    let aws = marked(DELETING);
    let error = undo(&aws).await.unwrap_err();
    assert_eq!(error.name, ErrorName::DeploymentWasLive);
    assert_eq!(done(&aws), UNMARKED);
}

#[tokio::test]
async fn one_that_was_protected_since_the_plan_is_refused_and_left_whole() {
    let aws = marked(&[tags::READY_AT, tags::LIVE_SINCE, tags::PROTECTED]);
    let error = force(&aws).await.unwrap_err();
    assert_eq!(error.name, ErrorName::DeploymentKept);
    assert!(error.message.contains("is protected"), "{error}");
    assert!(done(&aws).is_empty(), "{aws:?}");
}

#[tokio::test]
async fn a_protected_candidate_is_undone_all_the_same() {
    assert_deleting(undo(&marked(&[tags::PROTECTED]))).await;
}

#[tokio::test]
async fn tasks_outlive_the_rules_of_a_deployment_that_was_live() {
    for forced in [false, true] {
        let aws = marked(DELETING);
        let output = call(&aws, json!({"force": forced})).await.unwrap();
        assert_eq!(output.verdict, Verdict::Deleting);
        assert!(
            output.reason.contains("stop routing by its rules"),
            "{output:?}"
        );
        assert!(aws.with(|state| state.service(ID)["status"] == "ACTIVE"));
        assert_eq!(
            done(&aws),
            [
                "DeleteRule rule-1",
                "DeleteRule rule-2",
                "AddTags pulse:unrouted-since"
            ]
        );
    }
}

#[tokio::test]
async fn tasks_outlive_rules_that_were_deleted_at_an_unknown_time() {
    // The call that deleted the rules was killed before it wrote when.
    let aws = marked_without_rules(&[tags::LIVE_SINCE, tags::DELETING_SINCE]);
    for expected in [&["AddTags pulse:unrouted-since"][..], &[]] {
        assert_deleting(delete(&aws)).await;
        assert_eq!(done(&aws), expected);
        assert!(aws.with(|state| state.service(ID)["status"] == "ACTIVE"));
    }
    // The mark may have been written almost a second later than it says.
    mark_since(&aws, tags::UNROUTED_SINCE, SETTLE);
    assert_deleting(delete(&aws)).await;
    assert!(done(&aws).is_empty(), "{aws:?}");
    mark_since(&aws, tags::UNROUTED_SINCE, FORGOTTEN);
    delete(&aws).await.unwrap();
    assert_eq!(done(&aws), ["DeleteService"]);
}

#[tokio::test]
async fn the_wait_begins_again_when_rules_were_deleted_once_more() {
    let aws = marked(&[tags::LIVE_SINCE, tags::DELETING_SINCE]);
    mark_since(&aws, tags::UNROUTED_SINCE, FORGOTTEN);
    assert_deleting(delete(&aws)).await;
    assert_eq!(
        done(&aws),
        [
            "DeleteRule rule-1",
            "DeleteRule rule-2",
            "AddTags pulse:unrouted-since"
        ]
    );
    assert_eq!(tags_of(&aws)[tags::UNROUTED_SINCE], tags::timestamp(NOW));
}

#[tokio::test]
async fn the_wait_for_the_load_balancer_begins_when_the_rules_are_gone_not_when_the_call_began() {
    let aws = marked(DELETING);
    aws.on("DeleteRule").after(|state, _| state.now += 20);
    assert_deleting(delete(&aws)).await;
    assert_eq!(tags_of(&aws)[tags::UNROUTED_SINCE], "2025-10-27T12:30:40Z");
}

#[tokio::test]
async fn the_wait_for_switches_in_flight_begins_when_its_mark_is_written() {
    let aws = marked(&[tags::READY_AT]);
    aws.on("DescribeListeners")
        .once()
        .after(|state, _| state.now += 14);
    assert_deleting(undo(&aws)).await;
    aws.with(|state| state.now += 20);
    assert_deleting(undo(&aws)).await;
    assert!(done(&aws).is_empty(), "{aws:?}");
}

/// Live before, past its deadline, its rules gone and forgotten.
fn without_rules() -> MemoryAws {
    let aws = marked_without_rules(DELETING);
    mark_since(&aws, tags::UNROUTED_SINCE, FORGOTTEN);
    // A task that has stopped does not count.
    aws.with(|state| {
        let task = state.add_task(ID, "10.0.0.1");
        task["desiredStatus"] = "STOPPED".into();
        task["lastStatus"] = "STOPPED".into();
    });
    aws
}

/// Adds a task that is to stop and has not yet.
fn add_stopping_task(state: &mut memory_aws::State) {
    let task = state.add_task(ID, "10.0.0.2");
    task["desiredStatus"] = "STOPPED".into();
    task["lastStatus"] = "DEACTIVATING".into();
}

#[tokio::test]
async fn forced_tasks_stop_one_after_another() {
    let aws = without_rules();
    let mut calls = Vec::new();
    for _ in 0..20 {
        let output = force(&aws).await.unwrap();
        calls.push(done(&aws).join(", "));
        if output.verdict == Verdict::Deleted {
            assert_eq!(
                calls,
                [
                    "AddTags pulse:stopping-since, UpdateService desiredCount=1",
                    "", // the first task stops
                    "AddTags pulse:stopping-since, UpdateService desiredCount=0",
                    // Without tasks, the service is gone at once.
                    "DeleteService, DeleteTargetGroup, DeregisterTaskDefinition test-app:1"
                ]
            );
            return;
        }
        // What ECS does until the next call.
        aws.with(|state| {
            let service = state.service(ID).clone();
            let (running, desired) = (&service["runningCount"], &service["desiredCount"]);
            let is_stopping = state.tasks.len() > 1;
            if is_stopping {
                state.tasks.pop();
            } else if running.as_i64() > desired.as_i64() {
                state.service(ID)["runningCount"] = json!(running.as_i64().unwrap() - 1);
                add_stopping_task(state);
            }
        });
    }
    panic!("never ends: {calls:?}");
}

#[tokio::test]
async fn a_lost_answer_does_not_stop_a_second_task() {
    let aws = without_rules();
    aws.on("UpdateService")
        .once()
        .loses_the_answer("ServerException");
    let error = force(&aws).await.unwrap_err();
    assert_eq!(error.name, ErrorName::Transient);
    let lowered = "UpdateService desiredCount=1";
    assert_eq!(done(&aws), ["AddTags pulse:stopping-since", lowered]);
    let output = force(&aws).await.unwrap();
    assert_eq!(output.verdict, Verdict::Deleting);
    assert!(output.reason.contains("task to stop"), "{output:?}");
    assert!(done(&aws).is_empty(), "{aws:?}");
}

#[tokio::test]
async fn a_task_that_does_not_stop_in_time_lets_all_stop_together() {
    let patience = SETTLE + defaults::TASK_STOPS_WITHIN;
    let aws = without_rules();
    // It is protected from scale-in, or ECS does not act on the lower count: no task stops.
    assert_deleting(force(&aws)).await;
    mark_since(&aws, tags::UNROUTED_SINCE, Duration::hours(3));
    for (task_stops_since, expected) in [
        (Duration::ZERO, &[][..]),
        (patience - Duration::SECOND, &[]),
        (patience, &["DeleteService"]),
    ] {
        mark_since(&aws, tags::STOPPING_SINCE, task_stops_since);
        assert_deleting(force(&aws)).await;
        assert_eq!(done(&aws), expected, "{task_stops_since}");
    }
}

#[tokio::test]
async fn tasks_stop_together_if_ecs_refuses_a_lower_number_once_the_rules_are_gone() {
    let aws = without_rules();
    let refusal =
        "The target group with targetGroupArn arn does not have an associated load balancer.";
    aws.on("UpdateService")
        .fails_with("InvalidParameterException", refusal);
    assert_deleting(force(&aws)).await;
    let calls = done(&aws);
    assert!(calls.contains(&"DeleteService".into()), "{calls:?}");
    // Another refusal is reported.
    let aws = without_rules();
    aws.on("UpdateService")
        .fails_with("InvalidParameterException", "desiredCount is too low");
    assert_eq!(force(&aws).await.unwrap_err().name, ErrorName::Unexpected);
    assert_eq!(aws.count("DeleteService"), 0);
}

#[tokio::test]
async fn the_mark_of_an_earlier_deletion_says_nothing_of_this_one() {
    let aws = without_rules();
    mark_since(&aws, tags::STOPPING_SINCE, Duration::hours(3));
    aws.with(add_stopping_task);
    assert_deleting(force(&aws)).await;
    assert!(done(&aws).is_empty(), "{aws:?}");
}

#[tokio::test]
async fn one_that_a_rule_of_others_forwards_to_is_refused_before_anything_is_deleted() {
    for marks in [&[tags::LIVE_SINCE][..], DELETING, &[]] {
        for forced in [false, true] {
            let aws = marked(marks);
            let theirs = aws.with(|state| state.add_rule(50, ID, Tags::new()).arn.clone());
            let error = call(&aws, json!({"force": forced})).await.unwrap_err();
            assert_eq!(error.name, ErrorName::ResourceConflict);
            for words in [ID, &theirs, "priority 50", "or delete it"] {
                assert!(error.message.contains(words), "{error}");
            }
            assert!(done(&aws).is_empty(), "{aws:?}");
            // The operator deletes the rule.
            aws.with(|state| state.rules.retain(|rule| rule.arn != theirs));
            assert_deleting(call(&aws, json!({"force": forced}))).await;
        }
    }
}

#[tokio::test]
async fn one_that_another_listener_uses_is_refused_before_anything_is_deleted() {
    let aws = marked(DELETING);
    let another = format!("{}9", memory_aws::LISTENER_ARN);
    aws.with(|state| {
        state.listeners.push(memory_aws::Listener {
            arn: another.clone(),
            default_actions: vec![memory_aws::forward(&[(ID, 1)])],
        });
    });
    let error = delete(&aws).await.unwrap_err();
    assert_eq!(error.name, ErrorName::ResourceConflict);
    assert!(error.message.contains(&another), "{error}");
    assert!(done(&aws).is_empty(), "{aws:?}");

    aws.with(|state| {
        state.listeners[1].default_actions = vec![memory_aws::fixed_response("404", "")];
        state.add_rule(7, ID, Tags::new()).listener_arn = another;
    });
    let error = delete(&aws).await.unwrap_err();
    assert!(error.message.contains("priority 7"), "{error}");
}

#[tokio::test]
async fn a_candidate_that_became_ready_after_it_was_looked_up_waits_for_the_switch() {
    let aws = marked(&[]);
    aws.on("AddTags")
        .once()
        .before(|state, _| state.tag(ID, tags::READY_AT, "2025-10-27T12:30:00Z"));
    assert_deleting(undo(&aws)).await;
    assert_eq!(done(&aws), [format!("AddTags {}", tags::DELETING_SINCE)]);
    // The switch has acted by then.
    aws.with(|state| state.activate(ID));
    let error = undo(&aws).await.unwrap_err();
    assert_eq!(error.name, ErrorName::DeploymentActive);
}

#[tokio::test]
async fn a_cleanup_leaves_what_an_execution_has_begun_to_work_on_since_the_plan() {
    let aws = MemoryAws::default();
    aws.with(|state| {
        state.add_target_group(OTHER, memory_aws::own_tags(OTHER));
        state.activate(OTHER);
        state.add_task_definition(memory_aws::own_tags(ID));
        state.add_execution(ID, &json!({"deploymentId": ID}).to_string());
    });
    let planned = json!({"onlyIfNeverLive": true, "stateMachine": memory_aws::DEPLOY_MACHINE_ARN});
    let error = call(&aws, planned.clone()).await.unwrap_err();
    assert_eq!(error.name, ErrorName::DeploymentKept);
    assert_eq!(aws.with(|state| state.active_revisions()), 1);
    aws.with(|state| state.executions.clear());
    let output = call(&aws, planned).await.unwrap();
    assert_eq!(output.verdict, Verdict::Deleted);
}

#[tokio::test]
async fn a_rule_that_is_deleted_while_it_is_looked_at_is_not_one_of_others() {
    let aws = marked(DELETING);
    let theirs = aws.with(|state| state.add_rule(50, ID, Tags::new()).arn.clone());
    let delete_rule = move |state: &mut memory_aws::State, _: &memory_aws::Call| {
        state.rules.retain(|rule| rule.arn != theirs);
    };
    aws.on("DescribeRules").once().after(delete_rule);
    assert_deleting(delete(&aws)).await;
    assert_eq!(
        done(&aws),
        [
            "DeleteRule rule-1",
            "DeleteRule rule-2",
            "AddTags pulse:unrouted-since"
        ]
    );
}

#[tokio::test]
async fn a_candidate_has_no_visitors_so_its_tasks_stop_together_even_by_force() {
    let aws = marked_without_rules(&[tags::DELETING_SINCE]);
    force(&aws).await.unwrap();
    assert_eq!(done(&aws), ["DeleteService"]);
}

#[tokio::test]
async fn the_active_deployment_is_refused_even_by_force() {
    let aws = without_rules();
    aws.with(|state| state.activate(ID));
    let error = force(&aws).await.unwrap_err();
    assert_eq!(error.name, ErrorName::DeploymentActive);
    assert!(aws.with(|state| state.service(ID)["desiredCount"] == 2));
}

#[tokio::test]
async fn one_that_is_being_rolled_back_to_is_kept_and_unmarked() {
    for forced in [false, true] {
        let aws = marked(DELETING);
        mark_since(&aws, tags::RESTORING_SINCE, Duration::MINUTE);
        let error = call(&aws, json!({"force": forced})).await.unwrap_err();
        assert_eq!(error.name, ErrorName::DeploymentKept);
        assert_eq!(done(&aws), UNMARKED);
        // Again, as by a retry.
        let error = force(&aws).await.unwrap_err();
        assert_eq!(error.name, ErrorName::DeploymentKept);
        assert!(done(&aws).is_empty(), "{aws:?}");
    }
}

#[tokio::test]
async fn a_rollback_that_died_long_ago_keeps_nothing() {
    let aws = without_rules();
    mark_since(&aws, tags::RESTORING_SINCE, Duration::hours(2));
    assert_deleting(force(&aws)).await;
}

#[tokio::test]
async fn a_deployment_that_the_default_action_names_with_weight_zero_is_kept() {
    let aws = without_rules();
    aws.with(|state| {
        state.listeners[0].default_actions = vec![memory_aws::forward(&[(OTHER, 100), (ID, 0)])];
    });
    let error = force(&aws).await.unwrap_err();
    assert_eq!(error.name, ErrorName::DeploymentKept);
    assert!(aws.with(|state| state.service(ID)["desiredCount"] == 2));
}

fn execution_arn(name: &str) -> String {
    format!("arn:aws:states:us-east-1:1:execution:test-deploy:{name}")
}

/// Undoes a candidate in the execution that is named after it.
async fn undo_as_execution(aws: &MemoryAws) -> Result<Output, StepError> {
    let execution = execution_arn(ID);
    call(
        aws,
        json!({"onlyIfNeverLive": true, "execution": execution}),
    )
    .await
}

/// A candidate that the execution of its name and this other one have created or adopted.
fn used_by(other: &str) -> MemoryAws {
    let aws = marked(&[]);
    let own = [ID, other].map(str::to_owned);
    aws.with(|state| {
        for name in own {
            let tag = format!("{}{name}", tags::EXECUTION);
            state.tag(ID, &tag, &execution_arn(&name));
            state.add_execution(&name, &json!({"deploymentId": ID}).to_string());
        }
    });
    aws
}

#[tokio::test]
async fn an_undo_leaves_what_another_running_execution_has_adopted() {
    let other = format!("{ID}-2");
    let aws = used_by(&other);
    // The list lags.
    let nothing = memory_aws::State::default();
    aws.on("ListExecutions").shows(nothing);
    let error = undo_as_execution(&aws).await.unwrap_err();
    assert_eq!(error.name, ErrorName::DeploymentKept);
    assert!(error.message.contains(&execution_arn(&other)), "{error}");
    assert!(done(&aws).is_empty(), "{aws:?}");
}

#[tokio::test]
async fn an_undo_leaves_a_deployment_to_another_execution_that_is_listed() {
    let aws = marked(&[]);
    aws.with(|state| {
        state.target_groups.retain(|group| group.name != ID);
        state.add_execution("by-hand", &json!({"deploymentId": ID}).to_string());
    });
    let error = undo_as_execution(&aws).await.unwrap_err();
    assert_eq!(error.name, ErrorName::DeploymentKept);
    assert!(done(&aws).is_empty(), "{aws:?}");
}

#[tokio::test]
async fn an_undo_deletes_what_only_ended_executions_have_used_besides_itself() {
    for ended in ["FAILED", "ABORTED", "gone"] {
        let aws = used_by("by-hand");
        aws.with(|state| match ended {
            "gone" => state.executions.retain(|it| it["name"] == ID),
            _ => state.executions[1]["status"] = ended.into(),
        });
        undo_as_execution(&aws).await.unwrap();
        assert!(aws.with(|state| state.rules.is_empty()), "{ended}");
    }
}

#[tokio::test]
async fn an_undo_gives_way_to_an_execution_that_adopts_the_candidate_while_it_begins() {
    let aws = marked(&[]);
    let tag = format!("{}{ID}-2", tags::EXECUTION);
    aws.on("AddTags").once().before(move |state, _| {
        state.add_execution(&format!("{ID}-2"), "{}");
        state.tag(ID, &tag, &execution_arn(&format!("{ID}-2")));
    });
    let error = undo_as_execution(&aws).await.unwrap_err();
    assert_eq!(error.name, ErrorName::DeploymentKept);
    assert!(!tags_of(&aws).contains_key(tags::DELETING_SINCE));
    assert!(aws.with(|state| !state.rules.is_empty()));
}

#[tokio::test]
async fn a_cleanup_leaves_a_candidate_that_an_execution_has_adopted_since_the_plan() {
    let aws = used_by("by-hand");
    assert_eq!(
        undo(&aws).await.unwrap_err().name,
        ErrorName::DeploymentKept
    );
    // A deployment that was live is drained first, and not made again.
    assert!(delete(&aws).await.is_ok());
}

/// A deployment that was live and is kept, without a task and without a target.
fn empty(marks: &[&str]) -> MemoryAws {
    let aws = marked(marks);
    aws.with(|state| {
        state.group(ID).health.clear();
        state.service(ID)["runningCount"] = json!(0);
    });
    aws
}

async fn unroute(aws: &MemoryAws) -> Result<Output, StepError> {
    call(aws, json!({"onlyRules": true})).await
}

#[tokio::test]
async fn a_kept_deployment_that_serves_no_visitors_loses_its_rules_and_nothing_else() {
    let aws = empty(&[tags::LIVE_SINCE]);
    for deleted in [2, 0] {
        let output = unroute(&aws).await.unwrap();
        assert_eq!(output.verdict, Verdict::Unrouted);
        let rules = ["DeleteRule", "DeleteRule"];
        let changes = aws.changes();
        assert_eq!(changes.len(), deleted);
        assert!(
            changes
                .iter()
                .zip(rules)
                .all(|(it, rule)| it.starts_with(rule))
        );
    }
    aws.with(|state| {
        assert!(state.has_group(ID) && state.service(ID)["status"] == "ACTIVE");
        assert_eq!(state.active_revisions(), 1);
    });
}

#[tokio::test]
async fn a_deployment_that_serves_is_wanted_or_is_active_keeps_its_rules() {
    type Change = fn(&mut memory_aws::State);
    let changes: [(Change, ErrorName); 5] = [
        (
            |state| state.service(ID)["runningCount"] = json!(1),
            ErrorName::DeploymentKept,
        ),
        (
            |state| state.group(ID).health.push(json!({"State": "unhealthy"})),
            ErrorName::DeploymentKept,
        ),
        (
            |state| state.tag(ID, tags::PROTECTED, "yes"),
            ErrorName::DeploymentKept,
        ),
        (
            |state| state.tag(ID, tags::RESTORING_SINCE, &tags::timestamp(NOW)),
            ErrorName::DeploymentKept,
        ),
        (|state| state.activate(ID), ErrorName::DeploymentActive),
    ];
    for (change, expected) in changes {
        let aws = empty(&[tags::LIVE_SINCE]);
        aws.with(change);
        assert_eq!(unroute(&aws).await.unwrap_err().name, expected);
        assert_eq!(aws.changes(), [""; 0]);
    }
}

#[tokio::test]
async fn what_was_made_live_since_its_visitors_were_taken_along_is_not_deleted() {
    let evicted = [
        tags::READY_AT,
        tags::LIVE_SINCE,
        tags::ROLLED_BACK_AT,
        tags::EVICTED_AT,
    ];
    let input = json!({"force": true, "onlyIfEvicted": true});
    let aws = marked_without_rules(&evicted);
    assert_deleting(call(&aws, input.clone())).await;
    // Live again and replaced, without a mark or with that of another rollback.
    type Change = fn(&mut memory_aws::State);
    let changes: [Change; 2] = [
        |state| drop(state.group(ID).tags.remove(tags::ROLLED_BACK_AT)),
        |state| state.tag(ID, tags::READY_AT, &tags::timestamp(NOW)),
    ];
    for change in changes {
        let aws = marked(&evicted);
        aws.with(change);
        let error = call(&aws, input.clone()).await.unwrap_err();
        assert_eq!(error.name, ErrorName::DeploymentWasLive);
        assert_eq!(aws.changes(), [""; 0]);
    }
}

#[tokio::test]
async fn a_release_stops_before_the_definition_that_a_cleanup_finds_it_by_is_deregistered() {
    let aws = MemoryAws::default();
    aws.with(|state| {
        state.add_task_definition(memory_aws::own_tags(ID));
        let release = state.add_task_definition(memory_aws::own_tags(ID));
        state.task_definitions[1]["family"] = "test-release".into();
        state.add_task("release", "10.0.0.1");
        let task = &mut state.tasks[0];
        task["group"] = "family:test-release".into();
        task["taskDefinitionArn"] = release.into();
        task["createdAt"] = state.now.into();
        task["containers"] = json!([{"name": "app"}]);
        task["tags"] = memory_aws::ecs_tags(&memory_aws::own_tags(ID));
    });
    for stops in [1, 0] {
        let output = undo(&aws).await.unwrap();
        assert_eq!(output.verdict, Verdict::Deleting);
        assert!(output.reason.contains("release"), "{output:?}");
        assert_eq!(aws.count("StopTask"), stops);
        aws.with(|state| assert_eq!(state.active_revisions(), 2));
    }
    aws.with(|state| _ = state.end_task(143));
    let output = undo(&aws).await.unwrap();
    assert_eq!(output.verdict, Verdict::Deleted);
    assert!(
        output.reason.ends_with("task definitions (2)"),
        "{output:?}"
    );
    aws.with(|state| assert_eq!(state.active_revisions(), 0));
}

/// Lets the service follow its load, from 2 tasks on.
fn register(aws: &MemoryAws) {
    aws.with(|state| {
        let target = json!({"MinCapacity": 2, "MaxCapacity": 10, "policies": []});
        let resource = format!("service/test/{ID}");
        state.scalable_targets.insert(resource, target);
    });
}

#[tokio::test]
async fn the_scaler_is_gone_before_a_task_is_taken_from_it() {
    for (input, lowers) in [
        (json!({"force": true}), "UpdateService"),
        (json!({}), "DeleteService"),
    ] {
        let aws = without_rules();
        register(&aws);
        aws.on(lowers)
            .before(|state, _| assert!(state.scalable_targets.is_empty()));
        call(&aws, input.clone()).await.unwrap();
        assert_eq!(aws.count(lowers), 1, "{aws:?}");
        // As long as it is there, nothing is lowered.
        for operation in ["DeregisterScalableTarget", "DescribeScalableTargets"] {
            let aws = without_rules();
            register(&aws);
            aws.on(operation).fails("InternalServiceException");
            let error = call(&aws, input.clone()).await.unwrap_err();
            assert_eq!(error.name, ErrorName::Transient);
            assert_eq!(aws.count(lowers), 0, "{aws:?}");
        }
    }
}

#[tokio::test]
async fn a_target_group_that_cannot_be_deleted_is_reported_unless_its_rules_were_not_seen() {
    let own = memory_aws::own_tags(ID);
    for (code, rule, name) in [
        ("ResourceInUse", None, Some(ErrorName::Transient)),
        (
            "ResourceInUse",
            Some(Tags::new()),
            Some(ErrorName::ResourceConflict),
        ),
        ("ResourceInUse", Some(own.clone()), None),
        ("AccessDenied", Some(own), Some(ErrorName::AccessDenied)),
    ] {
        let aws = MemoryAws::default();
        aws.with(|state| {
            state.add_target_group(ID, memory_aws::own_tags(ID));
            state.add_target_group(OTHER, memory_aws::own_tags(OTHER));
            state.activate(OTHER);
        });
        // A list that lags has hidden it from the step that deletes rules.
        let hidden = rule.clone();
        aws.on("DescribeServices").once().before(move |state, _| {
            if let Some(tags) = &hidden {
                state.add_rule(100, ID, tags.clone());
            }
        });
        aws.on("DeleteTargetGroup").fails(code);
        let outcome = undo(&aws).await;
        assert_eq!(
            outcome.as_ref().err().map(|error| error.name),
            name,
            "{code} {rule:?}"
        );
        if let Ok(output) = outcome {
            assert_eq!(output.verdict, Verdict::Deleting);
        }
        assert_eq!(
            aws.count("DeleteRule"),
            usize::from(name.is_none()),
            "{code} {rule:?}"
        );
    }
}

#[tokio::test]
async fn what_was_never_live_is_left_to_a_running_execution_and_what_drains_is_not() {
    let planned = json!({"stateMachine": memory_aws::DEPLOY_MACHINE_ARN});
    for (marks, is_kept) in [
        (&[tags::READY_AT][..], true),
        (
            &[tags::READY_AT, tags::LIVE_SINCE, tags::DRAINING_SINCE],
            false,
        ),
    ] {
        let aws = marked(marks);
        aws.with(|state| {
            state.add_execution(ID, &json!({"deploymentId": ID}).to_string());
        });
        let outcome = call(&aws, planned.clone()).await;
        let kept = outcome.is_err_and(|error| error.name == ErrorName::DeploymentKept);
        assert_eq!(kept, is_kept, "{marks:?}");
    }
}

#[tokio::test]
async fn a_task_that_is_still_to_start_is_waited_for_before_the_next_one_stops() {
    let aws = without_rules();
    aws.with(|state| {
        let service = state.service(ID);
        service["desiredCount"] = json!(2);
        service["runningCount"] = json!(2);
        service["pendingCount"] = json!(1);
    });
    assert_deleting(force(&aws)).await;
    assert_eq!(aws.count("UpdateService"), 0);
}

#[tokio::test]
async fn a_service_that_another_run_deletes_before_its_count_is_lowered_is_done() {
    let aws = without_rules();
    aws.on("UpdateService").fails("ServiceNotActiveException");
    force(&aws).await.unwrap();
    assert_eq!(aws.count("DeleteService"), 1);
}
