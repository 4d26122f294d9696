use super::*;
use lifecycle::{Baseline, DeploymentId, ErrorName, StepError, defaults, tags};
use memory_aws::{MemoryAws, State, forward, group_arn, own_tags};
use serde_json::{Value, json};
use time::Duration;

const OLDEST: &str = "test-20251027-122111Z";
const OLD: &str = "test-20251027-122112Z";
const NEW: &str = "test-20251027-122113Z";
const NEWEST: &str = "test-20251027-122114Z";

/// Live before, and nothing else.
const LIVE: &[&str] = &[tags::READY_AT, tags::LIVE_SINCE];

const RESTART: &str =
    "UpdateService desiredCount=3 forceNewDeployment=true healthCheckGracePeriodSeconds=600";

/// Deployments with these tags and three tasks each, with the grace period of one that drains.
fn with(deployments: &[(&str, &[&str])]) -> MemoryAws {
    let aws = MemoryAws::default();
    aws.with(|state| {
        for (id, marks) in deployments {
            state.deploy(id, marks);
            let service = state.service(id);
            service["desiredCount"] = json!(3);
            service["healthCheckGracePeriodSeconds"] = json!(i32::MAX);
        }
    });
    aws
}

/// The same with one that is active.
fn with_active(active: &str, deployments: &[(&str, &[&str])]) -> MemoryAws {
    let aws = with(deployments);
    aws.with(|state| state.activate(active));
    aws
}

/// Calls the step once, with this as the execution's input; the calls before are forgotten.
async fn restore(aws: &MemoryAws, input: Value) -> Result<Output, StepError> {
    restore_by(aws, "rollback-1", input).await
}

/// The same by the execution of this name.
async fn restore_by(aws: &MemoryAws, execution: &str, input: Value) -> Result<Output, StepError> {
    aws.forget_calls();
    let clients = Clients::new(&aws.config());
    let payload = json!({
        "input": input,
        "execution": {
            "id": format!("arn:aws:states:eu-central-1:123456789012:execution:test-rollback:{execution}"),
            "startTime": "2025-10-27T12:30:00.000Z",
        },
    });
    run(&clients, &Baseline::for_tests(), &|| aws.time(), payload).await
}

async fn to_previous(aws: &MemoryAws) -> Result<Output, StepError> {
    restore(aws, json!({})).await
}

/// What the last call changed, without the name of the deployment.
fn done(aws: &MemoryAws) -> Vec<String> {
    let changes = aws.changes().into_iter();
    changes
        .map(|it| it.replace(&format!(" {OLD}"), ""))
        .collect()
}

fn restarts(aws: &MemoryAws) -> usize {
    aws.count("UpdateService")
}

fn has(aws: &MemoryAws, id: &str, mark: &str) -> bool {
    aws.with(|state| state.has_tag(id, mark))
}

fn wait(aws: &MemoryAws, time: Duration) {
    aws.with(|state| state.now += time.whole_seconds());
}

/// Ends the rollout that a restart has begun; the old tasks are gone.
fn end_rollout(state: &mut State, outcome: &str) {
    let mut rollout = state.service(OLD)["deployments"][0].clone();
    rollout["rolloutState"] = outcome.into();
    state.service(OLD)["deployments"] = json!([rollout]);
}

/// One that drains since 12:25, replaced by a newer one.
fn draining() -> MemoryAws {
    let marks = [LIVE, &[tags::DRAINING_SINCE, tags::IDLE_SINCE]].concat();
    with_active(NEW, &[(OLD, &marks), (NEW, LIVE)])
}

#[tokio::test]
async fn a_warm_previous_one_is_ready_as_it_is() {
    let aws = with_active(NEW, &[(OLDEST, LIVE), (OLD, LIVE), (NEW, LIVE)]);
    for _ in 0..2 {
        assert_eq!(
            to_previous(&aws).await.unwrap(),
            Output {
                deployment_id: OLD.parse().unwrap(),
                target_group_arn: group_arn(OLD),
                desired_count: 3,
                restored: false,
                unrouted: false,
                pinned: true,
                was_rolled_back: false,
                replaced_deployment_id: Some(NEW.parse().unwrap()),
                replaced: vec![NEW.parse().unwrap()],
                evict: true,
                from: None,
                left_pinned: Vec::new(),
                restoring_since: Some("2025-10-27T12:30:00Z by rollback-1".into()),
                reason: format!("{OLD} is warm"),
            }
        );
        assert_eq!(restarts(&aws), 0);
        let tags = aws.with(|state| state.group(OLD).tags.clone());
        assert_eq!(
            tags[tags::RESTORING_SINCE],
            "2025-10-27T12:30:00Z by rollback-1"
        );
    }
}

#[tokio::test]
async fn the_mark_of_a_rollback_has_the_time_at_which_it_was_written() {
    let aws = with_active(NEW, &[(OLD, LIVE), (NEW, LIVE)]);
    aws.on("DescribeServices")
        .once()
        .after(|state, _| state.now += 20);
    to_previous(&aws).await.unwrap();
    let tags = aws.with(|state| state.group(OLD).tags.clone());
    assert_eq!(
        tags[tags::RESTORING_SINCE],
        "2025-10-27T12:30:20Z by rollback-1"
    );
}

#[tokio::test]
async fn a_mark_of_an_earlier_rollback_is_removed_from_the_replaced_deployment() {
    let marked = [LIVE, &[tags::RESTORING_SINCE]].concat();
    let aws = with_active(NEW, &[(OLDEST, &marked), (OLD, LIVE), (NEW, &marked)]);
    let output = to_previous(&aws).await;
    assert_eq!(output.unwrap().deployment_id.as_str(), OLD);
    assert!(!has(&aws, NEW, tags::RESTORING_SINCE));
    // A rollback to another one may still be running.
    assert!(has(&aws, OLDEST, tags::RESTORING_SINCE));
    assert!(has(&aws, OLD, tags::RESTORING_SINCE));
}

#[tokio::test]
async fn a_rollback_replaces_what_is_active_and_what_is_ready_and_newer_when_it_begins() {
    let deleting = [LIVE, &[tags::DELETING_SINCE]].concat();
    let aws = with_active(
        NEW,
        &[
            (OLDEST, LIVE),
            (OLD, LIVE),
            (NEW, LIVE),
            (NEWEST, &[tags::READY_AT]),
            ("test-20251027-122115Z", &[]),
            ("test-20251027-122116Z", &deleting),
        ],
    );
    let output = to_previous(&aws).await;
    let [new, newest]: [DeploymentId; 2] = [NEW, NEWEST].map(|id| id.parse().unwrap());
    assert_eq!(output.unwrap().replaced, [new.clone(), newest.clone()]);
    // Further back, it replaces more.
    let output = restore(&aws, json!({"deploymentId": OLDEST})).await;
    assert_eq!(
        output.unwrap().replaced,
        [OLD.parse().unwrap(), new, newest]
    );
}

#[tokio::test]
async fn one_that_drains_gets_fresh_tasks_and_the_usual_grace_period() {
    let aws = draining();
    let output = to_previous(&aws).await.unwrap();
    assert!(output.restored);
    assert_eq!(output.desired_count, 3);
    assert_eq!(done(&aws), ["AddTags pulse:restoring-since", RESTART,]);
    // Until traffic is switched, the tasks that drain may still run.
    assert!(has(&aws, OLD, tags::DRAINING_SINCE));
    assert_eq!(
        output.restoring_since.unwrap(),
        "2025-10-27T12:30:00Z by rollback-1"
    );
}

#[tokio::test]
async fn running_it_twice_restarts_once_and_still_reports_fresh_tasks() {
    let aws = draining();
    to_previous(&aws).await.unwrap();
    let output = to_previous(&aws).await.unwrap();
    assert!(output.restored, "the rollout still goes on");
    assert!(done(&aws).is_empty(), "{aws:?}");
    // Also once it is over, and the tag that the switch removes is still there.
    aws.with(|state| end_rollout(state, "COMPLETED"));
    assert!(to_previous(&aws).await.unwrap().restored);
    assert!(done(&aws).is_empty(), "{aws:?}");
}

#[tokio::test]
async fn a_lost_answer_restarts_nothing_twice() {
    for (lost, code, then) in [
        ("AddTags", "InternalFailure", 1),
        ("UpdateService", "ServerException", 0),
    ] {
        let aws = draining();
        aws.on(lost).once().loses_the_answer(code);
        let error = to_previous(&aws).await.unwrap_err();
        assert_eq!(error.name, ErrorName::Transient, "{lost}");
        wait(&aws, Duration::seconds(20));
        assert!(to_previous(&aws).await.unwrap().restored, "{lost}");
        assert_eq!(restarts(&aws), then, "{lost}: {aws:?}");
    }
}

#[tokio::test]
async fn fresh_tasks_that_a_dead_rollback_left_to_be_drained_again_are_replaced() {
    let aws = draining();
    to_previous(&aws).await.unwrap();
    // Hours later its mark has ended, and a sweep has drained the tasks that it started.
    wait(&aws, defaults::RESTORE_TIME + Duration::minutes(5));
    aws.with(|state| {
        state.tag(OLD, tags::DRAINING_SINCE, "2025-10-27T14:31:00Z");
        end_rollout(state, "COMPLETED");
    });
    assert!(to_previous(&aws).await.unwrap().restored);
    assert_eq!(restarts(&aws), 1);
    let tags = aws.with(|state| state.group(OLD).tags.clone());
    assert_eq!(
        tags[tags::RESTORING_SINCE],
        "2025-10-27T14:35:00Z by rollback-1"
    );
}

#[tokio::test]
async fn a_mark_past_half_its_time_is_written_again() {
    for (age, is_written) in [
        (defaults::RESTORE_TIME / 2 - Duration::SECOND, false),
        (defaults::RESTORE_TIME / 2, true),
    ] {
        let aws = with_active(NEW, &[(OLD, LIVE), (NEW, LIVE)]);
        to_previous(&aws).await.unwrap();
        wait(&aws, age);
        to_previous(&aws).await.unwrap();
        assert_eq!(aws.count("AddTags"), usize::from(is_written), "{age}");
    }
}

#[tokio::test]
async fn tasks_of_a_rollout_under_way_are_waited_for() {
    let (old, completed, running) = (
        json!({"id": "old", "status": "ACTIVE", "rolloutState": "COMPLETED"}),
        json!({"id": "new", "status": "PRIMARY", "rolloutState": "COMPLETED"}),
        json!({"id": "new", "status": "PRIMARY", "rolloutState": "IN_PROGRESS"}),
    );
    for (rollouts, is_rolling) in [
        (json!([completed]), false),
        (json!([running]), true),
        (json!([completed, old]), true),
    ] {
        let aws = with_active(NEW, &[(OLD, LIVE), (NEW, LIVE)]);
        aws.with(|state| state.service(OLD)["deployments"] = rollouts.clone());
        let output = to_previous(&aws).await.unwrap();
        assert_eq!(output.restored, is_rolling, "{rollouts}");
        assert_eq!(restarts(&aws), 0);
    }
}

#[tokio::test]
async fn fresh_tasks_that_failed_are_replaced_by_the_next_rollback() {
    let aws = draining();
    to_previous(&aws).await.unwrap();
    aws.with(|state| end_rollout(state, "FAILED"));
    wait(&aws, Duration::minutes(10));
    assert!(to_previous(&aws).await.unwrap().restored);
    assert_eq!(done(&aws), [RESTART]);
}

#[tokio::test]
async fn one_without_tasks_gets_as_many_as_it_asked_for() {
    let aws = with_active(NEW, &[(OLD, LIVE), (NEW, LIVE)]);
    aws.with(|state| {
        state.service(OLD)["desiredCount"] = json!(0);
        state.tag(OLD, tags::WANTED_COUNT, "5");
    });
    let output = to_previous(&aws).await.unwrap();
    assert!(output.restored);
    assert_eq!(output.desired_count, 5);
    assert_eq!(done(&aws)[1], RESTART.replace('3', "5"));
    // One that has tasks keeps its number.
    let aws = draining();
    aws.with(|state| state.tag(OLD, tags::WANTED_COUNT, "5"));
    assert_eq!(to_previous(&aws).await.unwrap().desired_count, 3);
}

#[tokio::test]
async fn one_of_an_earlier_version_without_tasks_gets_as_many_as_a_new_deployment() {
    let aws = with_active(NEW, &[(OLD, LIVE), (NEW, LIVE)]);
    aws.with(|state| state.service(OLD)["desiredCount"] = json!(0));
    let output = to_previous(&aws).await.unwrap();
    assert!(output.restored);
    assert_eq!(output.desired_count, defaults::DESIRED_COUNT);
    let restart = RESTART.replace('3', "2");
    assert_eq!(done(&aws), ["AddTags pulse:restoring-since", &restart]);
    let output = to_previous(&aws).await;
    assert!(output.unwrap().restored);
    assert!(done(&aws).is_empty(), "{aws:?}");
}

#[tokio::test]
async fn draining_that_begins_before_the_mark_is_seen() {
    let aws = with_active(NEW, &[(OLD, LIVE), (NEW, LIVE)]);
    aws.on("AddTags")
        .after(|state, _| state.tag(OLD, tags::DRAINING_SINCE, "2025-10-27T12:30:00Z"));
    let output = to_previous(&aws).await;
    assert!(output.unwrap().restored);
    assert_eq!(restarts(&aws), 1);
}

#[tokio::test]
async fn deletion_that_begins_before_the_mark_wins() {
    let aws = with_active(NEW, &[(OLD, LIVE), (NEW, LIVE)]);
    aws.on("AddTags")
        .after(|state, _| state.tag(OLD, tags::DELETING_SINCE, "2025-10-27T12:30:00Z"));
    let error = to_previous(&aws).await.unwrap_err();
    assert_eq!(error.name, ErrorName::NoRollbackTarget);
    assert!(error.message.contains("being deleted"), "{}", error.message);
    assert!(!has(&aws, OLD, tags::RESTORING_SINCE));
    assert_eq!(restarts(&aws), 0);
}

#[tokio::test]
async fn one_that_is_deleted_before_the_mark_or_right_after_it_is_no_target() {
    let begins = |state: &mut State| state.tag(OLD, tags::DELETING_SINCE, "2025-10-27T12:30:00Z");
    let ends = |state: &mut State| state.target_groups.retain(|group| group.name != OLD);
    let before = with_active(NEW, &[(OLD, LIVE), (NEW, LIVE)]);
    before.on("AddTags").before(move |state, _| ends(state));
    let after = with_active(NEW, &[(OLD, LIVE), (NEW, LIVE)]);
    after.on("AddTags").after(move |state, _| begins(state));
    after.on("RemoveTags").before(move |state, _| ends(state));
    for aws in [before, after] {
        let error = to_previous(&aws).await.unwrap_err();
        assert_eq!(error.name, ErrorName::NoRollbackTarget);
        assert!(error.message.contains("being deleted"), "{}", error.message);
    }
}

#[tokio::test]
async fn the_previous_one_is_the_newest_older_one_that_was_live_and_stays() {
    let back = [LIVE, &[tags::ROLLED_BACK_AT]].concat();
    let deleting = [LIVE, &[tags::DELETING_SINCE]].concat();
    for passed_over in [&back[..], &deleting, &[tags::READY_AT]] {
        let aws = with_active(
            NEW,
            &[
                (OLDEST, LIVE),
                (OLD, passed_over),
                (NEW, LIVE),
                // Rolled back from, and newer.
                (NEWEST, LIVE),
            ],
        );
        let output = to_previous(&aws).await;
        assert_eq!(
            output.unwrap().deployment_id.as_str(),
            OLDEST,
            "{passed_over:?}"
        );
    }
}

#[tokio::test]
async fn without_an_active_one_the_newest_is_the_previous_one() {
    let aws = with(&[(OLD, LIVE), (NEW, LIVE)]);
    let output = to_previous(&aws).await.unwrap();
    assert_eq!(output.deployment_id.as_str(), NEW);
    assert_eq!(output.replaced_deployment_id, None);
}

#[tokio::test]
async fn one_that_is_named_may_be_newer_or_rolled_back() {
    let back = [LIVE, &[tags::ROLLED_BACK_AT]].concat();
    let aws = with_active(OLD, &[(OLD, LIVE), (NEW, &back)]);
    let output = restore(&aws, json!({"deploymentId": NEW})).await.unwrap();
    assert_eq!(output.deployment_id.as_str(), NEW);
    assert_eq!(output.replaced_deployment_id, Some(OLD.parse().unwrap()));
}

/// The previous one without a task and without its rules, which a cleanup has deleted.
fn unrouted() -> MemoryAws {
    let aws = with_active(NEW, &[(OLD, LIVE), (NEW, LIVE)]);
    aws.with(|state| {
        state.service(OLD)["runningCount"] = json!(0);
        delete_rules(state);
    });
    aws
}

fn delete_rules(state: &mut State) {
    state
        .rules
        .retain(|rule| !format!("{:?}", rule.actions).contains(&group_arn(OLD)));
}

#[tokio::test]
async fn one_that_lost_its_rules_gets_fresh_tasks_when_it_has_rules_again() {
    let aws = unrouted();
    let to_old = json!({"deploymentId": OLD});
    for _ in 0..2 {
        let output = restore(&aws, to_old.clone()).await.unwrap();
        assert!(output.unrouted && output.restored, "{output:?}");
        assert_eq!(restarts(&aws), 0);
        // Cleanups keep away already.
        assert!(has(&aws, OLD, tags::RESTORING_SINCE));
    }
    aws.with(|state| {
        state.add_rule(100, OLD, memory_aws::own_tags(OLD));
    });
    let output = restore(&aws, to_old.clone()).await.unwrap();
    assert!(!output.unrouted && output.restored, "{output:?}");
    assert_eq!(done(&aws), [RESTART]);
    // The answer was lost, and the step runs again.
    let output = restore(&aws, to_old).await.unwrap();
    assert!(!output.unrouted && output.restored, "{output:?}");
    assert_eq!(restarts(&aws), 0);
    // Visitors of an emergency are not sent to one without tasks unless it is named.
    let error = to_previous(&unrouted()).await.unwrap_err();
    assert_eq!(error.name, ErrorName::NoRollbackTarget);
    assert!(error.message.contains("without tasks and rules"), "{error}");
}

#[tokio::test]
async fn one_whose_rules_are_deleted_at_this_moment_is_reported_as_such() {
    let aws = unrouted();
    aws.with(|state| {
        state.add_rule(100, OLD, memory_aws::own_tags(OLD));
    });
    aws.on("UpdateService")
        .before(|state, _| delete_rules(state));
    let output = to_previous(&aws).await.unwrap();
    assert!(output.unrouted && output.restored, "{output:?}");
}

#[tokio::test]
async fn a_rollback_that_cannot_begin_leaves_no_tag_and_one_that_is_tried_again_keeps_it() {
    for (code, is_kept) in [
        ("AccessDeniedException", false),
        ("ThrottlingException", true),
    ] {
        let aws = draining();
        aws.on("UpdateService").fails(code);
        to_previous(&aws).await.unwrap_err();
        assert_eq!(has(&aws, OLD, tags::RESTORING_SINCE), is_kept, "{code}");
    }
}

#[tokio::test]
async fn the_answer_says_whether_an_earlier_rollback_took_the_target_back() {
    let back = [LIVE, &[tags::ROLLED_BACK_AT]].concat();
    for (marks, was_rolled_back) in [(LIVE, false), (&back[..], true)] {
        let aws = with_active(OLD, &[(OLD, LIVE), (NEW, marks)]);
        let output = restore(&aws, json!({"deploymentId": NEW})).await.unwrap();
        assert_eq!(output.was_rolled_back, was_rolled_back);
    }
}

#[tokio::test]
async fn what_cannot_be_gone_back_to_is_refused_with_the_reason_and_nothing_is_changed() {
    let deleting = [LIVE, &[tags::DELETING_SINCE]].concat();
    for (input, reason) in [
        (json!({"deploymentId": "test-20200101-000000Z"}), "is gone"),
        (json!({"deploymentId": NEWEST}), "being deleted"),
        (json!({"deploymentId": OLDEST}), "never live"),
        (json!({"deploymentId": NEW}), "already active"),
    ] {
        let aws = with_active(
            NEW,
            &[
                (OLDEST, &[tags::READY_AT]),
                (OLD, LIVE),
                (NEW, LIVE),
                (NEWEST, &deleting),
            ],
        );
        for _ in 0..2 {
            let error = restore(&aws, input.clone()).await.unwrap_err();
            assert_eq!(error.name, ErrorName::NoRollbackTarget, "{input}");
            assert!(error.message.contains(reason), "{}", error.message);
            assert!(
                error
                    .message
                    .contains(&format!("a rollback can go to: {OLD}")),
                "{}",
                error.message
            );
            assert!(done(&aws).is_empty(), "{aws:?}");
        }
    }
}

#[tokio::test]
async fn a_first_deployment_has_nothing_to_go_back_to() {
    for aws in [
        with_active(NEW, &[(NEW, LIVE)]),
        with_active(NEW, &[(OLD, &[tags::READY_AT]), (NEW, LIVE)]),
        with(&[]),
    ] {
        let error = to_previous(&aws).await.unwrap_err();
        assert_eq!(error.name, ErrorName::NoRollbackTarget);
        assert!(error.message.contains("to go back to"), "{}", error.message);
        assert!(done(&aws).is_empty(), "{aws:?}");
    }
}

#[tokio::test]
async fn one_whose_service_is_gone_or_not_ours_is_refused_before_it_is_marked() {
    for gone in [true, false] {
        let aws = with_active(NEW, &[(OLD, LIVE), (NEW, LIVE)]);
        aws.with(|state| {
            if gone {
                drop(state.services.remove(0))
            } else {
                state.service(OLD)["tags"] = json!([])
            }
        });
        let error = to_previous(&aws).await.unwrap_err();
        assert_eq!(error.name, ErrorName::NoRollbackTarget);
        assert!(error.message.contains("service"), "{}", error.message);
        assert_eq!(error.message.matches(OLD).count(), 1, "{}", error.message);
        assert!(done(&aws).is_empty(), "{aws:?}");
    }
}

#[tokio::test]
async fn wrong_input_is_refused_with_the_fields_name() {
    for (input, says) in [
        (json!({"deployment": OLD}), "deployment"),
        (json!({"deploymentId": 7}), "deploymentId"),
        (json!({"deploymentId": "latest"}), "latest"),
        (json!({"deploymentId": "prod-20251027-122112Z"}), "prod"),
        (json!([OLD]), "invalid input"),
    ] {
        let aws = draining();
        let error = restore(&aws, input.clone()).await.unwrap_err();
        assert_eq!(error.name, ErrorName::InvalidInput, "{input}");
        assert!(error.message.contains(says), "{}", error.message);
        assert!(done(&aws).is_empty(), "{aws:?}");
    }
}

#[test]
fn the_answer_is_as_documented() {
    let output = Output {
        deployment_id: OLD.parse().unwrap(),
        target_group_arn: group_arn(OLD),
        desired_count: 2,
        restored: true,
        unrouted: false,
        pinned: false,
        was_rolled_back: true,
        replaced_deployment_id: None,
        replaced: vec![NEW.parse().unwrap()],
        evict: true,
        from: None,
        left_pinned: Vec::new(),
        restoring_since: Some("2025-10-27T12:30:00Z".into()),
        reason: "why".into(),
    };
    assert_eq!(
        serde_json::to_value(&output).unwrap(),
        json!({
            "deploymentId": OLD, "targetGroupArn": group_arn(OLD), "desiredCount": 2,
            "restored": true, "unrouted": false, "pinned": false, "wasRolledBack": true, "replacedDeploymentId": null,
            "replaced": [NEW], "evict": true, "from": null, "leftPinned": [],
            "restoringSince": "2025-10-27T12:30:00Z", "reason": "why"
        })
    );
}

#[tokio::test]
async fn the_heaviest_deployment_of_the_default_action_is_the_active_one() {
    let aws = with(&[(OLD, LIVE), (NEW, LIVE), (NEWEST, LIVE)]);
    aws.with(|state| {
        state.listeners[0].default_actions = vec![forward(&[(NEW, 100), (NEWEST, 0)])];
    });
    let output = to_previous(&aws).await.unwrap();
    assert_eq!(output.deployment_id.as_str(), OLD);
    assert_eq!(output.replaced_deployment_id, Some(NEW.parse().unwrap()));
}

#[tokio::test]
async fn a_rollback_is_refused_while_a_maintenance_page_is_shown() {
    let aws = with(&[(OLD, LIVE), (NEW, LIVE)]);
    let page = memory_aws::fixed_response("503", "We are back at noon.");
    aws.with(|state| state.listeners[0].default_actions = vec![page]);
    for input in [json!({}), json!({"deploymentId": OLD})] {
        let error = restore(&aws, input).await.unwrap_err();
        assert_eq!(error.name, ErrorName::DefaultActionNotOurs);
        assert!(error.message.contains("modify-listener"), "{error}");
        assert!(aws.changes().is_empty());
    }
}

#[tokio::test]
async fn a_rollback_forward_replaces_only_what_is_newer_and_was_not_taken_back_before() {
    let back = [LIVE, &[tags::ROLLED_BACK_AT]].concat();
    let aws = with_active(OLD, &[(OLD, LIVE), (NEW, &back), (NEWEST, &back)]);
    let output = restore(&aws, json!({"deploymentId": NEW})).await.unwrap();
    assert_eq!(output.replaced_deployment_id, Some(OLD.parse().unwrap()));
    assert!(output.replaced.is_empty(), "{output:?}");
}

#[tokio::test]
async fn a_rollback_is_refused_beside_an_action_type_that_no_switch_could_keep() {
    let aws = with(&[(OLD, LIVE), (NEW, LIVE)]);
    aws.with(|state| {
        state.activate(NEW);
        state.put_before(json!({"Type": "check-passport", "Order": "1"}));
    });
    let error = restore(&aws, json!({})).await.unwrap_err();
    assert_eq!(error.name, ErrorName::Configuration);
    assert!(error.message.contains("check-passport"), "{error}");
    assert!(aws.changes().is_empty());
}

#[tokio::test]
async fn fresh_tasks_get_the_time_of_grace_of_their_own_settings() {
    let aws = with_active(NEWEST, &[(OLD, LIVE), (NEWEST, LIVE)]);
    aws.with(|state| {
        state.tag(OLD, tags::DRAINING_SINCE, "2025-10-27T12:20:00Z");
        state.tag(OLD, tags::GRACE_SECONDS, "90");
    });
    restore(&aws, json!({"deploymentId": OLD})).await.unwrap();
    let call = aws.calls_to("UpdateService").pop().unwrap();
    assert_eq!(call["healthCheckGracePeriodSeconds"], 90);
}

#[tokio::test]
async fn of_two_rollbacks_to_one_target_each_has_its_own_tag_and_removes_no_other() {
    let aws = draining();
    let first = restore_by(&aws, "first", json!({})).await.unwrap();
    let second = restore_by(&aws, "second", json!({})).await.unwrap();
    assert_ne!(first.restoring_since, second.restoring_since);
    // What the first one has started may have been asked to drain before the second one began.
    assert_eq!(restarts(&aws), 1);
    let tags = aws.with(|state| state.group(OLD).tags.clone());
    assert_eq!(
        tags.get(tags::RESTORING_SINCE),
        second.restoring_since.as_ref()
    );

    // The first one fails when the second one has begun.
    aws.on("UpdateService").once().before(|state, _| {
        state.tag(OLD, tags::RESTORING_SINCE, "2025-10-27T12:30:00Z by second");
    });
    aws.on("UpdateService").fails("AccessDeniedException");
    restore_by(&aws, "first", json!({})).await.unwrap_err();
    assert!(has(&aws, OLD, tags::RESTORING_SINCE));
    restore_by(&aws, "third", json!({})).await.unwrap_err();
    assert!(!has(&aws, OLD, tags::RESTORING_SINCE));
}

#[tokio::test]
async fn an_execution_of_any_name_can_roll_back() {
    let aws = draining();
    let output = restore_by(&aws, "zurück (bitte!)", json!({}))
        .await
        .unwrap();
    assert_eq!(
        output.restoring_since.as_deref(),
        Some("2025-10-27T12:30:00Z by zurück__bitte__")
    );
    restore_by(&aws, "zurück (bitte!)", json!({}))
        .await
        .unwrap();
    assert_eq!(restarts(&aws), 0);
}

#[tokio::test]
async fn one_that_lacks_a_rule_is_pinned_again_before_traffic_goes_to_it() {
    let aws = with_active(NEW, &[(OLD, LIVE), (NEW, LIVE)]);
    assert!(to_previous(&aws).await.unwrap().pinned);
    // Two cookie rules do not pin those who come with the header.
    let header = aws.with(|state| {
        let cookie = state.rules[1].conditions.clone();
        std::mem::replace(&mut state.rules[0].conditions, cookie)
    });
    let output = restore(&aws, json!({"deploymentId": OLD})).await.unwrap();
    assert_eq!((output.pinned, output.restored), (false, false));
    aws.with(|state| state.rules[0].conditions = header);
    assert!(to_previous(&aws).await.unwrap().pinned);
    // An earlier rollback waited for its tasks in vain, and one rule of the two does not do.
    aws.with(|state| {
        state.rules[0].conditions =
            json!([{"Field": "source-ip", "SourceIpConfig": {"Values": ["192.0.2.0/32"]}}]);
    });
    let output = restore(&aws, json!({"deploymentId": OLD})).await.unwrap();
    assert_eq!((output.pinned, output.restored), (false, false));
}

#[tokio::test]
async fn one_that_an_earlier_rollback_waited_for_in_vain_is_no_previous_one() {
    let aws = with_active(NEW, &[(OLDEST, LIVE), (OLD, LIVE), (NEW, LIVE)]);
    aws.with(|state| {
        for rule in &mut state.rules {
            if rule.tags[tags::DEPLOYMENT_ID] == OLD {
                rule.conditions =
                    json!([{"Field": "source-ip", "SourceIpConfig": {"Values": ["192.0.2.0/32"]}}]);
            }
        }
    });
    assert_eq!(
        to_previous(&aws).await.unwrap().deployment_id.as_str(),
        OLDEST
    );
    let output = restore(&aws, json!({"deploymentId": OLD})).await.unwrap();
    assert_eq!(output.deployment_id.as_str(), OLD);
}

#[tokio::test]
async fn the_tag_of_a_rollback_that_began_since_is_no_proof_for_this_one() {
    let aws = draining();
    aws.on("AddTags").once().after(|state, _| {
        state.tag(OLD, tags::RESTORING_SINCE, "2025-10-27T12:30:00Z by second");
    });
    let output = restore_by(&aws, "first", json!({})).await.unwrap();
    assert_eq!(output.restoring_since, None);

    let aws = draining();
    aws.on("AddTags").once().after(|state, _| {
        state.tag(OLD, tags::RESTORING_SINCE, "2025-10-27T12:30:00Z by second");
        state.tag(OLD, tags::DELETING_SINCE, "2025-10-27T12:30:00Z");
    });
    restore_by(&aws, "first", json!({})).await.unwrap_err();
    assert!(has(&aws, OLD, tags::RESTORING_SINCE));
}

#[tokio::test]
async fn visitors_go_along_unless_the_input_says_otherwise() {
    for (input, evict) in [
        (json!({}), true),
        (json!({"evict": true}), true),
        (json!({"evict": false}), false),
        (json!({"deploymentId": OLD, "evict": false}), false),
    ] {
        let aws = with_active(NEW, &[(OLD, LIVE), (NEW, LIVE)]);
        assert_eq!(restore(&aws, input).await.unwrap().evict, evict);
    }
    let aws = with_active(NEW, &[(OLD, LIVE), (NEW, LIVE)]);
    let error = restore(&aws, json!({"evict": "no"})).await.unwrap_err();
    assert_eq!(error.name, ErrorName::InvalidInput);
    assert!(error.message.contains("`evict`"), "{error}");
}

/// A rollback to OLD has taken the others back, and left their visitors.
fn without_eviction() -> MemoryAws {
    let marks = [LIVE, &[tags::ROLLED_BACK_AT]].concat();
    with_active(
        OLD,
        &[
            (OLDEST, &marks),
            (OLD, LIVE),
            (NEW, &marks),
            (NEWEST, &marks),
        ],
    )
}

#[tokio::test]
async fn a_rollback_to_what_is_active_takes_the_visitors_along_that_an_earlier_one_left() {
    let aws = without_eviction();
    let output = restore(&aws, json!({"deploymentId": OLD})).await.unwrap();
    let left: Vec<_> = output
        .left_pinned
        .iter()
        .map(|it| it.deployment_id.as_str())
        .collect();
    assert_eq!(left, [NEW, NEWEST]);
    let marks = output
        .left_pinned
        .iter()
        .map(|it| it.rolled_back_at.as_str());
    assert!(marks.eq(["2025-10-27T12:25:00Z"; 2]));
    assert_eq!(
        (output.deployment_id.as_str(), output.desired_count),
        (OLD, 3)
    );
    assert_eq!(output.replaced, []);
    for id in [NEW, NEWEST] {
        assert!(output.reason.contains(id), "{output:?}");
    }
    assert_eq!(aws.changes(), [""; 0]);
    let value = serde_json::to_value(&output).unwrap();
    let left = json!({"deploymentId": NEW, "rolledBackAt": "2025-10-27T12:25:00Z"});
    assert_eq!(value["leftPinned"][0], left);
}

#[tokio::test]
async fn a_rollback_to_what_is_active_is_refused_if_no_visitor_is_left_or_they_may_stay() {
    type Change = fn(&mut State);
    let everybody_went: Change = |state| {
        let is_pin =
            |rule: &memory_aws::Rule| rule.tags != own_tags(NEW) && rule.tags != own_tags(NEWEST);
        state.rules.retain(is_pin);
    };
    let changes: [(Change, Value); 5] = [
        (|_| {}, json!({"deploymentId": OLD, "evict": false})),
        (everybody_went, json!({"deploymentId": OLD})),
        (
            |state| {
                for id in [NEW, NEWEST] {
                    state.tag(id, tags::DELETING_SINCE, "2025-10-27T12:25:00Z");
                }
            },
            json!({"deploymentId": OLD}),
        ),
        (
            |state| {
                for id in [NEW, NEWEST] {
                    state.group(id).tags.remove(tags::LIVE_SINCE);
                }
            },
            json!({"deploymentId": OLD}),
        ),
        (
            |state| {
                for id in [NEW, NEWEST] {
                    state.group(id).tags.remove(tags::ROLLED_BACK_AT);
                }
            },
            json!({"deploymentId": OLD}),
        ),
    ];
    for (change, input) in changes {
        let aws = without_eviction();
        aws.with(change);
        let error = restore(&aws, input).await.unwrap_err();
        assert_eq!(error.name, ErrorName::NoRollbackTarget);
        assert!(error.message.contains("already active"), "{error}");
    }
}

#[tokio::test]
async fn one_whose_eviction_is_under_way_gets_its_rules_again_before_the_switch() {
    let marks = [LIVE, &[tags::ROLLED_BACK_AT, tags::EVICTED_AT]].concat();
    let aws = with_active(NEW, &[(OLD, &marks), (NEW, LIVE)]);
    let output = restore(&aws, json!({"deploymentId": OLD})).await.unwrap();
    assert!(!output.pinned);
    // The eviction wrote its tag after the rules were read, and before it saw this rollback's.
    let aws = with_active(
        NEW,
        &[
            (OLD, &[LIVE, &[tags::ROLLED_BACK_AT]].concat()),
            (NEW, LIVE),
        ],
    );
    aws.on("AddTags")
        .containing(tags::RESTORING_SINCE)
        .before(|state, _| state.tag(OLD, tags::EVICTED_AT, "2025-10-27T12:30:00Z"));
    let output = restore(&aws, json!({"deploymentId": OLD})).await.unwrap();
    assert!(!output.pinned);
    // It was made live since.
    let aws = with_active(NEW, &[(OLD, &marks), (NEW, LIVE)]);
    aws.with(|state| state.tag(OLD, tags::READY_AT, "2025-10-27T12:29:00Z"));
    let output = restore(&aws, json!({"deploymentId": OLD})).await.unwrap();
    assert!(output.pinned);
}

#[tokio::test]
async fn rules_that_an_eviction_may_be_deleting_are_not_relied_on() {
    let being_evicted = || {
        let marks = [LIVE, &[tags::ROLLED_BACK_AT]].concat();
        let aws = with_active(NEW, &[(OLD, &marks), (NEW, LIVE)]);
        aws.with(|state| state.tag(OLD, tags::EVICTED_AT, "2025-10-27T12:29:59Z"));
        aws
    };
    let to_old = json!({"deploymentId": OLD});
    let in_flight = defaults::SWITCH_IN_FLIGHT.whole_seconds();
    let aws = being_evicted();
    for (later, unrouted) in [(0, true), (in_flight - 1, true), (1, false)] {
        aws.with(|state| state.now += later);
        let output = restore(&aws, to_old.clone()).await.unwrap();
        assert_eq!((output.unrouted, output.pinned), (unrouted, false));
        assert_eq!(output.reason.contains("eviction"), unrouted, "{output:?}");
    }

    // The eviction has ended, or has deleted both: what is there now is this rollback's own.
    type Change = fn(&mut State);
    let changes: [Change; 2] = [
        |state| state.now += defaults::EVICTION_TIME.whole_seconds(),
        |state| {
            let is_of_old = |rule: &memory_aws::Rule| format!("{:?}", rule.actions).contains(OLD);
            state.rules.retain(|rule| !is_of_old(rule));
            state.add_rule(7, OLD, own_tags(OLD));
        },
    ];
    for change in changes {
        let aws = being_evicted();
        aws.with(change);
        let output = restore(&aws, to_old.clone()).await.unwrap();
        assert_eq!((output.unrouted, output.pinned), (false, false));
    }
}

#[tokio::test]
async fn a_rollback_of_one_deployment_leaves_what_is_newer() {
    let aws = with_active(
        NEW,
        &[(OLDEST, LIVE), (OLD, LIVE), (NEW, LIVE), (NEWEST, LIVE)],
    );
    let input = json!({"deploymentId": OLD, "from": NEW});
    let output = restore(&aws, input).await.unwrap();
    let ids =
        |ids: &[&str]| -> Vec<DeploymentId> { ids.iter().map(|id| id.parse().unwrap()).collect() };
    assert_eq!(output.replaced, ids(&[NEW]));
    assert_eq!(output.from, Some(NEW.parse().unwrap()));
    // Nobody has judged what lies between, so it is no place to go back to.
    let input = json!({"deploymentId": OLDEST, "from": NEW});
    let output = restore(&aws, input).await.unwrap();
    assert_eq!(output.replaced, ids(&[OLD, NEW]));
    let all = restore(&aws, json!({"deploymentId": OLD})).await.unwrap();
    assert_eq!((all.replaced, all.from), (ids(&[NEW, NEWEST]), None));
}

#[tokio::test]
async fn a_rollback_of_one_deployment_is_not_needed_once_another_one_is_active() {
    for active in [NEWEST, OLD] {
        let aws = with_active(active, &[(OLD, LIVE), (NEW, LIVE), (NEWEST, LIVE)]);
        let input = json!({"deploymentId": OLD, "from": NEW});
        let error = restore(&aws, input).await.unwrap_err();
        assert_eq!(error.name, ErrorName::RollbackNotNeeded, "{error}");
        assert!(error.message.contains(active), "{error}");
        assert!(aws.changes().is_empty(), "{:?}", aws.changes());
    }
    let other = json!({"from": "prod-20251027-122112Z"});
    let error = restore(&with_active(NEW, &[(NEW, LIVE)]), other)
        .await
        .unwrap_err();
    assert_eq!(error.name, ErrorName::InvalidInput);
    assert!(error.message.contains("`from`"), "{error}");
}

#[tokio::test]
async fn without_a_name_the_newest_that_a_watch_found_well_is_gone_back_to() {
    const PROVEN: &[&str] = &[tags::READY_AT, tags::LIVE_SINCE, tags::PROVEN_AT];
    let target = async |oldest: &'static [&str], old: &'static [&str]| {
        let aws = with_active(
            NEW,
            &[(OLDEST, oldest), (OLD, old), (NEW, LIVE), (NEWEST, PROVEN)],
        );
        to_previous(&aws).await.unwrap().deployment_id.to_string()
    };
    assert_eq!(target(PROVEN, LIVE).await, OLDEST);
    assert_eq!(target(PROVEN, PROVEN).await, OLD);
    assert_eq!(target(LIVE, LIVE).await, OLD);
}
