use super::*;
use aws_sdk_elasticloadbalancingv2::Client;
use lifecycle::{Baseline, ErrorName, StepError, tags};
use memory_aws::{
    MemoryAws, RetryConfig, State, authenticate_oidc, forward, group_arn, own_tags, validate_jwt,
};
use serde_json::{Value, json};

const OLDEST: &str = "test-20251027-122111Z";
const OLD: &str = "test-20251027-122112Z";
const NEW: &str = "test-20251027-122113Z";
const NEWEST: &str = "test-20251027-122114Z";

/// Ready and live before.
const LIVE: &[&str] = &[tags::READY_AT, tags::LIVE_SINCE];
const READY: &[&str] = &[tags::READY_AT];

/// Healthy deployments with these tags, of which none is active.
fn with(deployments: &[(&str, &[&str])]) -> MemoryAws {
    let aws = MemoryAws::default();
    aws.with(|state| {
        for (id, marks) in deployments {
            state.deploy(id, marks);
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

async fn switch(aws: &MemoryAws, id: &str) -> Result<Output, StepError> {
    call(aws, id, json!({})).await
}

async fn roll_back(aws: &MemoryAws, id: &str) -> Result<Output, StepError> {
    call(aws, id, json!({"rollBack": true})).await
}

async fn roll_back_from(aws: &MemoryAws, replaced: &[&str], id: &str) -> Result<Output, StepError> {
    call(aws, id, json!({"rollBack": true, "replaced": replaced})).await
}

/// Calls the step once; the calls before are forgotten.
async fn call(aws: &MemoryAws, id: &str, more: Value) -> Result<Output, StepError> {
    aws.forget_calls();
    let mut input = json!({"deploymentId": id, "targetGroupArn": group_arn(id)});
    for (key, value) in more.as_object().unwrap() {
        input[key] = value.clone();
    }
    let input = serde_json::from_value(input).unwrap();
    run(
        &Client::new(&aws.config()),
        &aws_sdk_secretsmanager::Client::new(&aws.config()),
        &Baseline::for_tests(),
        &|| aws.time(),
        input,
    )
    .await
}

/// What the default action was changed to, in order.
fn switches(aws: &MemoryAws) -> Vec<String> {
    let changes = aws.changes().into_iter();
    let switches = changes.filter_map(|it| it.strip_prefix("ModifyListener ").map(str::to_owned));
    switches.collect()
}

/// How the tags of target groups were changed, in order.
fn marks(aws: &MemoryAws) -> Vec<String> {
    let mut changes = aws.changes();
    changes.retain(|it| !it.starts_with("ModifyListener"));
    changes
}

fn active(aws: &MemoryAws) -> Vec<String> {
    aws.with(|state| state.active())
}

fn has(aws: &MemoryAws, id: &str, mark: &str) -> bool {
    aws.with(|state| state.has_tag(id, mark))
}

#[tokio::test]
async fn the_first_deployment_replaces_the_fixed_response() {
    let aws = with(&[(NEW, &[])]);
    let output = switch(&aws, NEW).await.unwrap();
    assert_eq!(output.outcome, Outcome::Switched);
    assert_eq!(output.previous_deployment_id, None);
    assert_eq!(active(&aws), [NEW]);
    let tags = aws.with(|state| state.group(NEW).tags.clone());
    assert_eq!(tags[tags::READY_AT], "2025-10-27T12:30:00Z");
    assert_eq!(tags[tags::LIVE_SINCE], "2025-10-27T12:30:00Z");
}

#[tokio::test]
async fn the_newer_deployment_takes_over_and_the_previous_one_is_named() {
    let aws = with_active(OLD, &[(OLD, READY), (NEW, &[])]);
    let output = switch(&aws, NEW).await.unwrap();
    assert_eq!(output.outcome, Outcome::Switched);
    assert_eq!(output.previous_deployment_id, Some(OLD.parse().unwrap()));
    assert_eq!(switches(&aws), [NEW]);
}

#[tokio::test]
async fn switching_twice_modifies_once() {
    let aws = with(&[(NEW, &[])]);
    switch(&aws, NEW).await.unwrap();
    let output = switch(&aws, NEW).await.unwrap();
    assert_eq!(output.outcome, Outcome::Switched);
    assert!(switches(&aws).is_empty());
}

#[tokio::test]
async fn an_older_candidate_is_superseded_and_moves_nothing() {
    let aws = with_active(NEW, &[(OLD, &[]), (NEW, READY)]);
    let output = switch(&aws, OLD).await.unwrap();
    assert_eq!(output.outcome, Outcome::Superseded);
    assert!(switches(&aws).is_empty());
    assert!(!has(&aws, OLD, tags::LIVE_SINCE));
}

#[tokio::test]
async fn a_newer_one_that_is_ready_but_not_yet_switched_goes_first() {
    let aws = with(&[(OLD, &[]), (NEW, READY)]);
    let output = switch(&aws, OLD).await.unwrap();
    assert_eq!(output.outcome, Outcome::Superseded);
    assert_eq!(switches(&aws), [NEW]);
    assert!(has(&aws, NEW, tags::LIVE_SINCE));
}

#[tokio::test]
async fn a_stale_modification_is_noticed_and_put_right() {
    // Between our read and our modification the newest got ready and was switched to.
    let aws = with(&[(NEW, &[]), (NEWEST, &[])]);
    aws.on("ModifyListener")
        .once()
        .after(|state, _| state.tag(NEWEST, tags::READY_AT, "2025-10-27T12:30:00Z"));
    let output = switch(&aws, NEW).await.unwrap();
    assert_eq!(output.outcome, Outcome::Superseded);
    assert_eq!(switches(&aws), [NEW, NEWEST]);
}

#[tokio::test]
async fn a_modification_that_was_overwritten_is_made_again() {
    let aws = with_active(OLD, &[(OLD, READY), (NEW, &[])]);
    aws.on("ModifyListener")
        .once()
        .after(|state, _| state.activate(OLD));
    let output = switch(&aws, NEW).await.unwrap();
    assert_eq!(output.outcome, Outcome::Switched);
    assert_eq!(switches(&aws), [NEW, NEW]);
}

#[tokio::test]
async fn a_program_that_always_overwrites_the_switch_causes_an_error_and_not_an_endless_loop() {
    let aws = with_active(OLD, &[(OLD, LIVE), (NEW, &[])]);
    aws.on("ModifyListener")
        .after(|state, _| state.activate(OLD));
    let error = switch(&aws, NEW).await.unwrap_err();
    assert_eq!(error.name, ErrorName::Transient);
    assert_eq!(switches(&aws).len(), 10);
}

#[tokio::test]
async fn rolled_back_or_deleted_deployments_are_not_switched_to() {
    for mark in [tags::ROLLED_BACK_AT, tags::DELETING_SINCE] {
        let aws = with(&[(NEW, &[]), (NEWEST, &[tags::READY_AT, mark])]);
        let output = switch(&aws, NEW).await.unwrap();
        assert_eq!(output.outcome, Outcome::Switched, "{mark}");
        assert_eq!(switches(&aws), [NEW]);
    }
}

#[tokio::test]
async fn a_candidate_without_a_healthy_target_gets_no_mark_and_moves_nothing() {
    let aws = with_active(OLD, &[(OLD, READY), (NEW, &[])]);
    aws.with(|state| state.fail_health_checks(NEW));
    let output = switch(&aws, NEW).await.unwrap();
    assert_eq!(output.outcome, Outcome::Unhealthy);
    assert_eq!(output.active_deployment_id, Some(OLD.parse().unwrap()));
    assert!(!has(&aws, NEW, tags::READY_AT));
    assert!(switches(&aws).is_empty());
}

#[tokio::test]
async fn a_newer_ready_one_that_lost_its_health_is_passed_over() {
    let aws = with(&[(NEW, &[]), (NEWEST, READY)]);
    aws.with(|state| state.fail_health_checks(NEWEST));
    let output = switch(&aws, NEW).await.unwrap();
    assert_eq!(output.outcome, Outcome::Switched);
    assert_eq!(active(&aws), [NEW]);
}

#[tokio::test]
async fn the_active_newer_one_keeps_traffic_through_a_moment_of_bad_health() {
    let aws = with_active(NEWEST, &[(NEW, &[]), (NEWEST, READY)]);
    aws.with(|state| state.fail_health_checks(NEWEST));
    let output = switch(&aws, NEW).await.unwrap();
    assert_eq!(output.outcome, Outcome::Superseded);
    assert!(switches(&aws).is_empty());
}

#[tokio::test]
async fn the_active_newer_one_stays_active_even_without_its_tags() {
    let aws = with_active(NEWEST, &[(NEW, &[]), (NEWEST, &[])]);
    aws.with(|state| state.group(NEWEST).tags.clear());
    let output = switch(&aws, NEW).await.unwrap();
    assert_eq!(output.outcome, Outcome::Superseded);
    assert!(switches(&aws).is_empty());
    assert!(aws.with(|state| state.group(NEWEST).tags.is_empty()));
}

#[tokio::test]
async fn a_switch_that_failed_leaves_a_candidate_that_can_be_undone() {
    let aws = with_active(OLD, &[(OLD, READY), (NEW, &[])]);
    aws.on("ModifyListener").fails("AccessDenied");
    let error = switch(&aws, NEW).await.unwrap_err();
    assert_eq!(error.name, ErrorName::AccessDenied);
    assert!(!has(&aws, NEW, tags::LIVE_SINCE));
}

#[tokio::test]
async fn a_switch_that_was_throttled_or_never_sent_leaves_a_candidate_that_can_be_undone() {
    let aws = with_active(OLD, &[(OLD, LIVE), (NEW, &[])]);
    aws.on("ModifyListener").fails("Throttling");
    let error = switch(&aws, NEW).await.unwrap_err();
    assert_eq!(error.name, ErrorName::Transient);
    assert!(!has(&aws, NEW, tags::LIVE_SINCE));

    // NEWEST was chosen, and is taken back before it could be switched to.
    let aws = with_active(OLD, &[(OLD, LIVE), (NEW, LIVE), (NEWEST, READY)]);
    aws.on("AddTags")
        .containing(tags::LIVE_SINCE)
        .once()
        .after(|state, _| {
            state.now += 40;
            state.tag(NEWEST, tags::ROLLED_BACK_AT, MARKED);
        });
    let output = switch(&aws, NEW).await.unwrap();
    assert_eq!(output.outcome, Outcome::Switched);
    assert_eq!(switches(&aws), [NEW]);
    assert!(!has(&aws, NEWEST, tags::LIVE_SINCE));
    assert!(has(&aws, NEW, tags::LIVE_SINCE));
}

#[tokio::test]
async fn a_switch_that_may_have_taken_effect_keeps_its_mark_even_if_another_one_is_active_now() {
    let aws = with_active(OLD, &[(OLD, READY), (NEW, &[])]);
    aws.on("ModifyListener")
        .after(|state, _| state.activate(OLD));
    aws.on("ModifyListener").loses_the_answer("InternalFailure");
    let error = switch(&aws, NEW).await.unwrap_err();
    assert_eq!(error.name, ErrorName::Transient);
    assert!(has(&aws, NEW, tags::LIVE_SINCE));
}

#[tokio::test]
async fn a_switch_that_took_effect_before_it_failed_is_still_known_to_be_live() {
    let aws = with_active(OLD, &[(OLD, READY), (NEW, &[])]);
    aws.on("ModifyListener").loses_the_answer("AccessDenied");
    let error = switch(&aws, NEW).await.unwrap_err();
    assert_eq!(error.name, ErrorName::AccessDenied);
    assert!(has(&aws, NEW, tags::LIVE_SINCE));
}

#[tokio::test]
async fn an_active_deployment_without_the_mark_gets_it() {
    let aws = with_active(NEW, &[(NEW, READY)]);
    let output = switch(&aws, NEW).await.unwrap();
    assert_eq!(output.outcome, Outcome::Switched);
    assert!(has(&aws, NEW, tags::LIVE_SINCE));
}

#[tokio::test]
async fn rules_that_are_missing_are_read_again_later() {
    let aws = with_active(OLD, &[(OLD, READY), (NEW, &[])]);
    aws.with(|state| state.group(NEW).tags.clear());
    let error = switch(&aws, NEW).await.unwrap_err();
    assert_eq!(error.name, ErrorName::Transient);
    assert!(switches(&aws).is_empty());
}

#[tokio::test]
async fn a_rollback_marks_what_it_replaces_and_all_that_is_newer_and_ready() {
    let aws = with_active(NEW, &[(OLD, LIVE), (NEW, LIVE), (NEWEST, READY)]);
    let output = roll_back(&aws, OLD).await.unwrap();
    assert_eq!(output.outcome, Outcome::Switched);
    assert_eq!(output.previous_deployment_id, Some(NEW.parse().unwrap()));
    assert_eq!(active(&aws), [OLD]);
    for replaced in [NEW, NEWEST] {
        let tags = aws.with(|state| state.group(replaced).tags.clone());
        assert_eq!(tags[tags::ROLLED_BACK_AT], "2025-10-27T12:30:00Z");
    }
    assert!(!has(&aws, OLD, tags::ROLLED_BACK_AT));
}

#[tokio::test]
async fn the_active_one_is_marked_last_and_the_targets_own_mark_goes_first() {
    let back = [tags::READY_AT, tags::LIVE_SINCE, tags::ROLLED_BACK_AT];
    let aws = with_active(NEW, &[(OLD, &back), (NEW, LIVE), (NEWEST, READY)]);
    let output = roll_back(&aws, OLD).await.unwrap();
    assert_eq!(output.outcome, Outcome::Switched);
    assert_eq!(
        marks(&aws),
        [
            format!("RemoveTags {OLD} {}", tags::ROLLED_BACK_AT),
            format!("AddTags {NEWEST} {}", tags::ROLLED_BACK_AT),
            format!("AddTags {NEW} {}", tags::ROLLED_BACK_AT),
            format!("AddTags {OLD} {}", tags::READY_AT),
        ]
    );
}

#[tokio::test]
async fn rolling_back_twice_marks_and_modifies_once() {
    let aws = with_active(NEW, &[(OLD, LIVE), (NEW, LIVE)]);
    let first = roll_back(&aws, OLD).await.unwrap();
    assert_eq!(first.outcome, Outcome::Switched);
    // As after an answer that was lost.
    let second = roll_back(&aws, OLD).await.unwrap();
    assert_eq!(second.outcome, Outcome::Switched);
    assert!(switches(&aws).is_empty());
    assert_eq!(marks(&aws), [format!("AddTags {OLD} {}", tags::READY_AT)]);
}

/// A rollback takes it back and its visitors along: no rule leads to it any more, and its targets are not checked.
fn is_evicted(state: &mut State, id: &str) {
    for mark in [tags::ROLLED_BACK_AT, tags::EVICTED_AT] {
        state.tag(id, mark, "2025-10-27T12:30:00Z");
    }
    state.rules.retain(|rule| rule.tags != own_tags(id));
    state.group(id).health = vec![json!({"State": "unused"})];
}

#[tokio::test]
async fn the_run_of_what_was_evicted_still_corrects_the_default_action() {
    // An attempt of it that died has pointed the default action at what the rollback has taken back as well.
    let aws = with_active(OLD, &[(OLDEST, LIVE), (OLD, LIVE), (NEW, LIVE)]);
    aws.with(|state| {
        state.tag(OLD, tags::ROLLED_BACK_AT, "2025-10-27T12:30:00Z");
        is_evicted(state, NEW);
    });
    let output = switch(&aws, NEW).await.unwrap();
    assert_eq!(output.outcome, Outcome::RolledBack);
    assert_eq!(active(&aws), [OLDEST]);
    // It is not announced again, as it would be before a switch to it.
    assert_eq!(marks(&aws), [format!("AddTags {OLDEST} pulse:ready-at")]);

    // The eviction comes between its looks.
    let aws = with_active(OLD, &[(OLD, LIVE), (NEW, &[])]);
    aws.on("DescribeRules")
        .nth(2)
        .before(|state, _| is_evicted(state, NEW));
    let output = switch(&aws, NEW).await.unwrap();
    assert_eq!(output.outcome, Outcome::RolledBack);
    assert_eq!(active(&aws), [OLD]);
}

#[tokio::test]
async fn rules_that_are_gone_without_a_rollback_are_reported() {
    let aws = with_active(OLD, &[(OLD, LIVE), (NEW, &[])]);
    aws.with(|state| state.rules.retain(|rule| rule.tags != own_tags(NEW)));
    let error = switch(&aws, NEW).await.unwrap_err();
    assert_eq!(error.name, ErrorName::Transient);
    assert!(error.message.contains(NEW), "{error}");
}

#[tokio::test]
async fn nothing_switches_forward_again_to_a_deployment_that_was_rolled_back() {
    let aws = with_active(NEW, &[(OLD, LIVE), (NEW, LIVE)]);
    roll_back(&aws, OLD).await.unwrap();
    let output = switch(&aws, NEW).await.unwrap();
    assert_eq!(output.outcome, Outcome::RolledBack);
    assert!(output.reason.contains("rolled back"), "{}", output.reason);
    assert_eq!(active(&aws), [OLD]);
}

#[tokio::test]
async fn rolling_forward_again_leaves_the_older_one_unmarked() {
    let back = [tags::READY_AT, tags::LIVE_SINCE, tags::ROLLED_BACK_AT];
    for replaced in [json!(null), json!([])] {
        let aws = with_active(OLD, &[(OLD, LIVE), (NEW, &back)]);
        let rollback = json!({"rollBack": true, "replaced": replaced});
        let output = call(&aws, NEW, rollback).await.unwrap();
        assert_eq!(output.outcome, Outcome::Switched);
        assert_eq!(active(&aws), [NEW]);
        assert!(!has(&aws, OLD, tags::ROLLED_BACK_AT));
        assert!(!has(&aws, NEW, tags::ROLLED_BACK_AT));
    }
}

const BACK: &[&str] = &[tags::READY_AT, tags::LIVE_SINCE, tags::ROLLED_BACK_AT];

/// Takes the marks of a rollback from NEW to OLD back.
async fn take_back(aws: &MemoryAws) -> Result<Output, StepError> {
    let failed = json!({
        "rollBack": true, "takeBack": true, "replaced": [NEW, NEWEST], "replacedDeploymentId": NEW,
        "marked": true,
    });
    call(aws, OLD, failed).await
}

#[tokio::test]
async fn a_rollback_that_did_not_happen_leaves_no_mark() {
    let aws = with_active(NEW, &[(OLD, LIVE), (NEW, LIVE), (NEWEST, READY)]);
    aws.on("ModifyListener").fails("AccessDenied");
    let rollback =
        json!({"rollBack": true, "replaced": [NEW, NEWEST], "replacedDeploymentId": NEW});
    call(&aws, OLD, rollback).await.unwrap_err();
    assert!(has(&aws, NEW, tags::ROLLED_BACK_AT));
    for _ in 0..2 {
        let output = take_back(&aws).await.unwrap();
        assert_eq!(output.outcome, Outcome::TakenBack);
        assert_eq!(output.active_deployment_id, Some(NEW.parse().unwrap()));
        for replaced in [NEW, NEWEST] {
            assert!(!has(&aws, replaced, tags::ROLLED_BACK_AT), "{replaced}");
        }
        assert_eq!(active(&aws), [NEW]);
    }
}

#[tokio::test]
async fn a_mark_of_an_earlier_rollback_stays() {
    let aws = with_active(
        NEW,
        &[(OLD, LIVE), (NEW, BACK), ("test-20251027-122115Z", BACK)],
    );
    take_back(&aws).await.unwrap();
    assert!(has(&aws, "test-20251027-122115Z", tags::ROLLED_BACK_AT));
    assert!(!has(&aws, NEW, tags::ROLLED_BACK_AT));
}

#[tokio::test]
async fn one_that_is_deleted_meanwhile_needs_no_mark() {
    let ends = |state: &mut State| state.target_groups.retain(|group| group.name != NEWEST);
    let aws = with_active(NEW, &[(OLD, LIVE), (NEW, BACK), (NEWEST, BACK)]);
    aws.on("RemoveTags")
        .once()
        .before(move |state, _| ends(state));
    take_back(&aws).await.unwrap();
    assert!(!has(&aws, NEW, tags::ROLLED_BACK_AT));

    let aws = with_active(NEW, &[(OLD, LIVE), (NEW, LIVE), (NEWEST, READY)]);
    aws.on("AddTags").once().before(move |state, _| ends(state));
    let output = roll_back(&aws, OLD).await.unwrap();
    assert_eq!(output.outcome, Outcome::Switched);
    assert_eq!(active(&aws), [OLD]);
}

#[tokio::test]
async fn marks_stay_if_another_rollback_has_taken_the_target_back() {
    // From NEW, which is older, forward to NEWER, as another rollback takes both it and NEWEST back.
    let newer = "test-20251027-122114Z";
    let newest = "test-20251027-122115Z";
    let aws = with_active(NEW, &[(NEW, LIVE), (newer, BACK), (newest, BACK)]);
    let failed = json!({
        "rollBack": true, "takeBack": true, "replaced": [newest], "replacedDeploymentId": NEW,
        "wasRolledBack": true,
    });
    let output = call(&aws, newer, failed).await.unwrap();
    assert_eq!(output.outcome, Outcome::TakenBack);
    assert!(aws.changes().is_empty(), "{aws:?}");
}

#[tokio::test]
async fn one_that_went_live_although_it_was_marked_loses_the_mark_of_a_rollback_that_failed() {
    let aws = with_active(NEWEST, &[(OLD, LIVE), (NEW, LIVE), (NEWEST, BACK)]);
    let output = take_back(&aws).await.unwrap();
    assert_eq!(output.outcome, Outcome::TakenBack);
    assert!(!has(&aws, NEWEST, tags::ROLLED_BACK_AT));
    assert_eq!(active(&aws), [NEWEST]);

    // It goes live right after its mark was taken back.
    let aws = with_active(NEW, &[(OLD, LIVE), (NEW, LIVE), (NEWEST, BACK)]);
    aws.on("RemoveTags")
        .after(|state, _| state.activate(NEWEST));
    take_back(&aws).await.unwrap();
    assert!(!has(&aws, NEWEST, tags::ROLLED_BACK_AT));
}

#[tokio::test]
async fn marks_stay_if_traffic_has_moved_after_all() {
    for (moved_to, outcome) in [(OLD, Outcome::Switched), (NEWEST, Outcome::TakenBack)] {
        let aws = with_active(moved_to, &[(OLD, LIVE), (NEW, BACK), (NEWEST, LIVE)]);
        assert_eq!(take_back(&aws).await.unwrap().outcome, outcome);
        assert!(has(&aws, NEW, tags::ROLLED_BACK_AT), "{moved_to}");
        // An earlier call was killed when it had taken the mark back and not yet seen that traffic had moved.
        assert_eq!(has(&aws, NEWEST, tags::ROLLED_BACK_AT), moved_to == OLD);

        // Between the look and the change.
        let aws = with_active(NEW, &[(OLD, LIVE), (NEW, BACK), (NEWEST, LIVE)]);
        aws.on("RemoveTags")
            .before(move |state, _| state.activate(moved_to));
        take_back(&aws).await.unwrap();
        assert!(has(&aws, NEW, tags::ROLLED_BACK_AT), "{moved_to}");
    }
}

#[tokio::test]
async fn a_target_that_was_taken_back_before_is_no_choice_after_its_rollback_lost() {
    // To NEW, which an earlier rollback took back, while NEWEST went live.
    let aws = with_active(NEWEST, &[(OLD, LIVE), (NEW, LIVE), (NEWEST, LIVE)]);
    let lost = json!({
        "rollBack": true, "takeBack": true, "replaced": [], "replacedDeploymentId": OLD, "wasRolledBack": true,
        "marked": true,
    });
    let output = call(&aws, NEW, lost.clone()).await.unwrap();
    assert_eq!(output.outcome, Outcome::TakenBack);
    assert!(has(&aws, NEW, tags::ROLLED_BACK_AT));
    // Not if it is active.
    let aws = with_active(NEW, &[(OLD, LIVE), (NEW, LIVE), (NEWEST, LIVE)]);
    call(&aws, NEW, lost).await.unwrap();
    assert!(!has(&aws, NEW, tags::ROLLED_BACK_AT));
}

#[tokio::test]
async fn a_rollback_that_never_reached_its_switch_marks_nothing_when_an_operator_moves_traffic() {
    // From NEWEST to OLD; while it waited for tasks, an operator gave traffic to NEW.
    let aws = with_active(NEW, &[(OLD, LIVE), (NEW, LIVE), (NEWEST, LIVE)]);
    let failed = json!({
        "rollBack": true, "takeBack": true, "replaced": [NEWEST], "replacedDeploymentId": NEWEST,
    });
    let output = call(&aws, OLD, failed).await.unwrap();
    assert_eq!(output.outcome, Outcome::TakenBack);
    assert!(!has(&aws, NEWEST, tags::ROLLED_BACK_AT));
}

#[tokio::test]
async fn a_mark_that_is_set_again_is_taken_from_what_another_rollback_brings_back_meanwhile() {
    let aws = with_active(OLD, &[(OLD, LIVE), (NEW, LIVE), (NEWEST, LIVE)]);
    aws.on("AddTags")
        .containing(NEWEST)
        .once()
        .before(|state, _| state.activate(NEWEST));
    let failed = json!({
        "rollBack": true, "takeBack": true, "replaced": [NEWEST], "replacedDeploymentId": NEWEST, "marked": true,
    });
    call(&aws, NEW, failed.clone()).await.unwrap();
    assert!(!has(&aws, NEWEST, tags::ROLLED_BACK_AT));

    // The target itself, which carried the mark of an earlier rollback.
    let aws = with_active(OLD, &[(OLD, LIVE), (NEW, LIVE), (NEWEST, BACK)]);
    aws.on("AddTags")
        .containing(NEW)
        .once()
        .before(|state, _| state.activate(NEW));
    let failed = json!({
        "rollBack": true, "takeBack": true, "replaced": [], "replacedDeploymentId": NEWEST, "marked": true,
        "wasRolledBack": true,
    });
    call(&aws, NEW, failed).await.unwrap();
    assert!(!has(&aws, NEW, tags::ROLLED_BACK_AT));
}

#[tokio::test]
async fn a_live_tag_that_another_run_relied_on_stays_whatever_is_active_by_then() {
    for (operation, others) in [
        // Once it is set, and while it is removed: NEW goes live by another run and is replaced.
        ("AddTags", &[NEW, OLDEST][..]),
        ("RemoveTags", &[NEW, OLDEST]),
        ("RemoveTags", &[NEW]),
    ] {
        let aws = with_active(OLD, &[(OLDEST, LIVE), (OLD, LIVE), (NEW, &[])]);
        aws.on(operation)
            .containing(tags::LIVE_SINCE)
            .once()
            .after(move |state, _| {
                for other in others {
                    state.activate(other);
                }
            });
        aws.on("ModifyListener").fails("Throttling");
        switch(&aws, NEW).await.unwrap_err();
        assert!(has(&aws, NEW, tags::LIVE_SINCE), "{operation} {others:?}");
    }
}

#[tokio::test]
async fn what_an_operator_gave_traffic_to_is_known_to_be_live_when_it_is_replaced() {
    let aws = with_active(OLD, &[(OLD, &[]), (NEW, &[])]);
    let output = switch(&aws, NEW).await.unwrap();
    assert_eq!(output.outcome, Outcome::Switched);
    assert!(has(&aws, OLD, tags::LIVE_SINCE));
    let (marked, switched) = (
        format!("AddTags {OLD} {}", tags::LIVE_SINCE),
        format!("ModifyListener {NEW}"),
    );
    let changes = aws.changes();
    let at = |change: &String| changes.iter().position(|it| it == change);
    assert!(
        at(&marked).is_some() && at(&marked) < at(&switched),
        "{changes:?}"
    );
}

#[tokio::test]
async fn a_candidate_that_gets_ready_after_the_marks_wins_over_a_rollback() {
    let aws = with_active(NEW, &[(OLD, LIVE), (NEW, LIVE), (NEWEST, &[])]);
    aws.on("ModifyListener")
        .once()
        .after(|state, _| state.tag(NEWEST, tags::READY_AT, "2025-10-27T12:30:00Z"));
    let output = roll_back(&aws, OLD).await.unwrap();
    assert_eq!(output.outcome, Outcome::Superseded);
    assert_eq!(active(&aws), [NEWEST]);
}

#[tokio::test]
async fn one_that_went_live_since_the_rollback_began_stays_and_the_rollback_reports_it() {
    let aws = with_active(NEWEST, &[(OLD, LIVE), (NEW, LIVE), (NEWEST, LIVE)]);
    let output = roll_back_from(&aws, &[NEW], OLD).await.unwrap();
    assert_eq!(output.outcome, Outcome::Superseded);
    assert_eq!(output.reason, format!("{NEWEST} is newer and active"));
    assert!(switches(&aws).is_empty());
    assert!(!has(&aws, NEWEST, tags::ROLLED_BACK_AT));
    // The one that was meant is taken back all the same.
    assert!(has(&aws, NEW, tags::ROLLED_BACK_AT));
}

#[tokio::test]
async fn one_that_got_ready_since_the_rollback_began_goes_live_instead() {
    // A machine of an earlier version, which runs during an update, sends the other name.
    for field in ["replaced", "leaves"] {
        let aws = with_active(NEW, &[(OLD, LIVE), (NEW, LIVE), (NEWEST, READY)]);
        let rollback = json!({"rollBack": true, field: [NEW]});
        let output = call(&aws, OLD, rollback).await.unwrap();
        assert_eq!(output.outcome, Outcome::Superseded, "{field}");
        assert_eq!(active(&aws), [NEWEST], "{field}");
        assert!(has(&aws, NEW, tags::ROLLED_BACK_AT), "{field}");
    }
}

#[tokio::test]
async fn one_whose_mark_another_rollback_removes_meanwhile_is_marked_again() {
    let aws = with_active(NEWEST, &[(OLD, LIVE), (NEW, LIVE), (NEWEST, LIVE)]);
    aws.on("ModifyListener").once().after(|state, _| {
        state.group(NEW).tags.remove(tags::ROLLED_BACK_AT);
    });
    let output = roll_back(&aws, OLD).await.unwrap();
    assert_eq!(output.outcome, Outcome::Switched);
    assert_eq!(active(&aws), [OLD]);
    for replaced in [NEW, NEWEST] {
        assert!(has(&aws, replaced, tags::ROLLED_BACK_AT));
    }
}

#[tokio::test]
async fn one_that_was_ready_when_the_rollback_began_is_replaced_with_the_active_one() {
    let aws = with_active(NEWEST, &[(OLD, LIVE), (NEW, LIVE), (NEWEST, LIVE)]);
    let output = roll_back_from(&aws, &[NEW, NEWEST], OLD).await.unwrap();
    assert_eq!(output.outcome, Outcome::Switched);
    assert_eq!(active(&aws), [OLD]);
}

#[tokio::test]
async fn a_rollback_whose_target_loses_its_health_does_not_go_to_an_older_one() {
    let aws = with_active(NEWEST, &[(OLD, LIVE), (NEW, LIVE), (NEWEST, LIVE)]);
    aws.on("DescribeTargetHealth")
        .containing(NEW)
        .once()
        .after(|state, _| state.fail_health_checks(NEW));
    let rollback = json!({"rollBack": true, "replaced": [NEWEST], "replacedDeploymentId": NEWEST});
    let output = call(&aws, NEW, rollback).await.unwrap();
    assert_eq!(output.outcome, Outcome::Unhealthy);
    assert!(output.reason.contains("was not changed"), "{output:?}");
    // The machine waits for its health again, and the active one is as it was meanwhile.
    assert!(!has(&aws, NEWEST, tags::ROLLED_BACK_AT));
    assert_eq!(active(&aws), [NEWEST]);
    assert!(switches(&aws).is_empty());
}

#[tokio::test]
async fn a_target_that_cannot_be_switched_to_leaves_all_marks_as_they_were() {
    let deleting = [tags::READY_AT, tags::LIVE_SINCE, tags::DELETING_SINCE];
    let aws = with_active(NEW, &[(OLD, &deleting), (NEW, LIVE)]);
    let error = roll_back(&aws, OLD).await.unwrap_err();
    assert_eq!(error.name, ErrorName::ResourceConflict);
    assert!(aws.changes().is_empty(), "{aws:?}");

    let aws = with_active(NEW, &[(OLD, LIVE), (NEW, LIVE)]);
    aws.with(|state| state.fail_health_checks(OLD));
    let output = roll_back(&aws, OLD).await.unwrap();
    assert_eq!(output.outcome, Outcome::Unhealthy);
    assert!(aws.changes().is_empty(), "{aws:?}");

    // Its target group is there, and no rule names it.
    let aws = with_active(NEW, &[(OLD, LIVE), (NEW, LIVE)]);
    aws.with(|state| drop(state.rules.drain(..2)));
    let error = roll_back(&aws, OLD).await.unwrap_err();
    assert_eq!(error.name, ErrorName::Transient);
    assert!(aws.changes().is_empty(), "{aws:?}");
}

#[tokio::test]
async fn an_active_one_whose_tags_were_removed_is_left_untouched() {
    let aws = with_active(NEW, &[(OLD, LIVE), (NEW, &[])]);
    aws.with(|state| state.group(NEW).tags.clear());
    let output = roll_back(&aws, OLD).await.unwrap();
    assert_eq!(output.outcome, Outcome::Switched);
    assert_eq!(active(&aws), [OLD]);
    assert!(aws.with(|state| state.group(NEW).tags.is_empty()));
}

/// The value of the marks that a test sets, and of the mark of a rollback that gave fresh tasks.
const MARKED: &str = "2025-10-27T12:25:00Z";

/// Rolls back to `id`, which that rollback has given fresh tasks.
async fn roll_back_to_fresh(aws: &MemoryAws, id: &str) -> Result<Output, StepError> {
    let rollback = json!({"rollBack": true, "restoringSince": MARKED});
    call(aws, id, rollback).await
}

const DRAINING: &[&str] = &[tags::READY_AT, tags::LIVE_SINCE, tags::DRAINING_SINCE];
const RESTORED: &[&str] = &[
    tags::READY_AT,
    tags::LIVE_SINCE,
    tags::DRAINING_SINCE,
    tags::IDLE_SINCE,
    tags::RESTORING_SINCE,
];

#[tokio::test]
async fn a_rollback_takes_the_draining_of_fresh_tasks_back_before_it_switches() {
    let aws = with_active(NEW, &[(OLD, RESTORED), (NEW, LIVE)]);
    let output = roll_back_to_fresh(&aws, OLD).await.unwrap();
    assert_eq!(output.outcome, Outcome::Switched);
    let changes = aws.changes();
    let untag = format!(
        "RemoveTags {OLD} {} {}",
        tags::DRAINING_SINCE,
        tags::IDLE_SINCE
    );
    let place = |change: &str| changes.iter().position(|it| it == change).unwrap();
    assert!(place(&untag) < place(&format!("ModifyListener {OLD}")));
    for mark in &RESTORED[2..] {
        assert!(!has(&aws, OLD, mark), "{mark}");
    }
}

#[tokio::test]
async fn what_drains_is_not_switched_to_and_nothing_is_tagged() {
    // Started again after an attempt that tagged it as live and did not switch; without and with a rollback.
    for (marks, rollback) in [
        (DRAINING, json!({})),
        (DRAINING, json!({"rollBack": true})),
        (
            DRAINING,
            json!({"rollBack": true, "restoringSince": MARKED}),
        ),
        // The tag is another rollback's.
        (RESTORED, json!({"rollBack": true})),
        (
            RESTORED,
            json!({"rollBack": true, "restoringSince": "2025-10-27T12:00:00Z"}),
        ),
    ] {
        let aws = with_active(OLD, &[(OLD, LIVE), (NEW, marks)]);
        let error = call(&aws, NEW, rollback.clone()).await.unwrap_err();
        assert_eq!(error.name, ErrorName::DeploymentDraining, "{rollback}");
        assert!(error.message.contains(NEW), "{error}");
        assert!(aws.changes().is_empty(), "{rollback}: {aws:?}");
    }
}

#[tokio::test]
async fn a_rollback_that_is_redriven_after_its_mark_has_aged_is_refused() {
    let aws = with_active(NEW, &[(OLD, RESTORED), (NEW, LIVE)]);
    aws.with(|state| state.now += 7200 - 300);
    let error = roll_back_to_fresh(&aws, OLD).await.unwrap_err();
    assert_eq!(error.name, ErrorName::DeploymentDraining);
    assert!(aws.changes().is_empty(), "{aws:?}");
}

#[tokio::test]
async fn a_newer_one_that_drains_is_passed_over() {
    let aws = with_active(OLD, &[(OLD, LIVE), (NEW, &[]), (NEWEST, DRAINING)]);
    let output = switch(&aws, NEW).await.unwrap();
    assert_eq!(output.outcome, Outcome::Switched);
    assert_eq!(switches(&aws), [NEW]);
}

#[tokio::test]
async fn a_drain_that_begins_during_the_switch_is_seen_before_the_listener_changes() {
    // Right after the announcement: of the switch and the drain, at least one sees the other.
    for rollback in [json!({}), json!({"rollBack": true})] {
        let aws = with_active(OLD, &[(OLD, LIVE), (NEW, LIVE)]);
        aws.on("AddTags")
            .containing(tags::READY_AT)
            .once()
            .after(|state, _| state.tag(NEW, tags::DRAINING_SINCE, "2025-10-27T12:30:00Z"));
        let error = call(&aws, NEW, rollback).await.unwrap_err();
        assert_eq!(error.name, ErrorName::DeploymentDraining);
        assert!(switches(&aws).is_empty());
    }
}

#[tokio::test]
async fn another_deployment_is_announced_before_it_is_switched_to() {
    let aws = with_active(OLD, &[(OLD, LIVE), (NEW, &[]), (NEWEST, LIVE)]);
    aws.on("AddTags")
        .containing(NEWEST)
        .once()
        .after(|state, _| state.tag(NEWEST, tags::DRAINING_SINCE, "2025-10-27T12:30:00Z"));
    let output = switch(&aws, NEW).await.unwrap();
    assert_eq!(output.outcome, Outcome::Switched);
    assert_eq!(switches(&aws), [NEW]);
}

#[tokio::test]
async fn an_active_one_loses_the_mark_of_a_drain_that_gave_way() {
    let aws = with_active(NEW, &[(OLD, LIVE), (NEW, LIVE)]);
    aws.on("ModifyListener").once().after(|state, _| {
        state.tag(OLD, tags::DRAINING_SINCE, "2025-10-27T12:30:00Z");
    });
    let output = roll_back(&aws, OLD).await.unwrap();
    assert_eq!(output.outcome, Outcome::Switched);
    assert!(!has(&aws, OLD, tags::DRAINING_SINCE));
    // And when only an earlier attempt has switched.
    aws.with(|state| state.tag(OLD, tags::DRAINING_SINCE, "2025-10-27T12:30:01Z"));
    let output = switch(&aws, OLD).await.unwrap();
    assert_eq!(output.outcome, Outcome::Switched);
    assert!(!has(&aws, OLD, tags::DRAINING_SINCE));
}

#[tokio::test]
async fn an_active_one_whose_tasks_were_asked_keeps_the_mark() {
    let aws = with_active(NEW, &[(NEW, DRAINING)]);
    aws.with(|state| state.tag(NEW, tags::READY_AT, "2025-10-27T12:00:00Z"));
    // As if an operator had pointed the listener at it, long after.
    aws.on("AddTags").before(|state, _| {
        state.tag(NEW, tags::DRAINING_SINCE, "2025-10-27T12:31:00Z");
    });
    switch(&aws, NEW).await.unwrap();
    assert!(has(&aws, NEW, tags::DRAINING_SINCE));
}

#[tokio::test]
async fn a_mark_that_cannot_be_removed_is_reported_and_does_not_fail_the_rollback() {
    let marks = [LIVE, &[tags::RESTORING_SINCE]].concat();
    let aws = with_active(NEW, &[(OLD, &marks), (NEW, LIVE)]);
    aws.on("RemoveTags").fails("AccessDenied");
    let output = roll_back(&aws, OLD).await.unwrap();
    assert_eq!(output.outcome, Outcome::Switched);
    assert!(output.reason.contains(tags::RESTORING_SINCE), "{output:?}");
}

#[tokio::test]
async fn a_drain_that_gives_way_after_the_switch_does_not_fail_the_rollback() {
    let marks = [LIVE, &[tags::RESTORING_SINCE]].concat();
    for is_denied in [false, true] {
        let aws = with_active(NEW, &[(OLD, &marks), (NEW, LIVE)]);
        aws.with(|state| state.tag(OLD, tags::RESTORING_SINCE, MARKED));
        aws.on("ModifyListener").once().after(|state, _| {
            state.tag(OLD, tags::DRAINING_SINCE, "2025-10-27T12:30:00Z");
        });
        if is_denied {
            aws.on("RemoveTags").fails("AccessDenied");
        }
        let output = roll_back_to_fresh(&aws, OLD).await.unwrap();
        assert_eq!(output.outcome, Outcome::Switched);
        assert_eq!(has(&aws, OLD, tags::DRAINING_SINCE), is_denied);
    }
}

#[tokio::test]
async fn a_candidate_that_the_default_action_names_with_weight_zero_is_not_active() {
    let aws = with(&[(OLD, LIVE), (NEW, &[])]);
    aws.with(|state| {
        state.listeners[0].default_actions = vec![forward(&[(OLD, 100), (NEW, 0)])];
    });
    let output = switch(&aws, NEW).await.unwrap();
    assert_eq!(output.outcome, Outcome::Switched);
    assert_eq!(output.previous_deployment_id, Some(OLD.parse().unwrap()));
    assert_eq!(switches(&aws), [NEW]);
}

#[tokio::test]
async fn a_mark_has_the_time_at_which_it_was_written() {
    let aws = with_active(OLD, &[(OLD, LIVE), (NEW, &[])]);
    aws.on("DescribeTargetHealth")
        .once()
        .after(|state, _| state.now += 40);
    switch(&aws, NEW).await.unwrap();
    for mark in [tags::READY_AT, tags::LIVE_SINCE] {
        let marked = aws.with(|state| state.group(NEW).tags[mark].clone());
        assert_eq!(marked, "2025-10-27T12:30:40Z", "{mark}");
    }
}

#[tokio::test]
async fn a_switch_that_stalled_looks_again_and_sees_what_was_deleted_meanwhile() {
    for operation in ["DescribeTargetHealth", "AddTags"] {
        let aws = with_active(OLD, &[(OLD, LIVE), (NEW, &[]), (NEWEST, READY)]);
        aws.on(operation)
            .containing(NEWEST)
            .once()
            .after(|state, _| {
                state.now += 40;
                state.tag(NEWEST, tags::DELETING_SINCE, "2025-10-27T12:30:01Z");
            });
        let output = switch(&aws, NEW).await.unwrap();
        assert_eq!(output.outcome, Outcome::Switched, "{operation}");
        assert_eq!(switches(&aws), [NEW], "{operation}");
    }
}

#[tokio::test]
async fn a_switch_that_aws_refused_after_a_stall_leaves_a_candidate_that_can_be_undone() {
    let aws = with_active(OLD, &[(OLD, LIVE), (NEW, &[])]);
    aws.on("AddTags")
        .containing(tags::LIVE_SINCE)
        .once()
        .after(|state, _| state.now += 40);
    aws.on("ModifyListener").fails("AccessDenied");
    switch(&aws, NEW).await.unwrap_err();
    assert!(!has(&aws, NEW, tags::LIVE_SINCE));
}

#[tokio::test]
async fn an_aws_that_stays_slow_changes_nothing_and_is_tried_again() {
    let aws = with_active(OLD, &[(OLD, LIVE), (NEW, &[])]);
    aws.on("DescribeRules").after(|state, _| state.now += 6);
    let error = switch(&aws, NEW).await.unwrap_err();
    assert_eq!(error.name, ErrorName::Transient);
    assert!(switches(&aws).is_empty());
}

#[tokio::test]
async fn the_listener_is_modified_by_one_attempt_for_each_look() {
    let aws = with_active(OLD, &[(OLD, LIVE), (NEW, LIVE)]);
    aws.on("ModifyListener").fails("Throttling");
    let retries = RetryConfig::standard().with_initial_backoff(Default::default());
    let input = json!({"deploymentId": NEW, "targetGroupArn": group_arn(NEW)});
    let error = run(
        &Client::new(&aws.config_with(retries)),
        &aws_sdk_secretsmanager::Client::new(&aws.config()),
        &Baseline::for_tests(),
        &|| aws.time(),
        serde_json::from_value(input).unwrap(),
    )
    .await
    .unwrap_err();
    assert_eq!(error.name, ErrorName::Transient);
    assert_eq!(switches(&aws), [NEW]);
}

#[tokio::test]
async fn a_maintenance_page_that_an_operator_set_during_the_deployment_stays() {
    let page = memory_aws::fixed_response("503", "We are back at noon.");
    let aws = with_active(OLD, &[(OLD, LIVE), (NEW, &[])]);
    aws.with(|state| state.listeners[0].default_actions = vec![page.clone()]);
    aws.with(|state| state.tag(OLD, tags::ROLLED_BACK_AT, MARKED));
    for error in [
        switch(&aws, NEW).await,
        roll_back_from(&aws, &[NEW], OLD).await,
    ] {
        assert_eq!(error.unwrap_err().name, ErrorName::DefaultActionNotOurs);
        // No mark, and no rule loses what the page lacks.
        assert_eq!(aws.changes(), Vec::<String>::new());
        assert!(switches(&aws).is_empty());
        aws.with(|state| {
            assert_eq!(
                state.listeners[0].default_actions,
                std::slice::from_ref(&page)
            )
        });
    }
    assert!(!has(&aws, NEW, tags::LIVE_SINCE));
}

#[tokio::test]
async fn a_deployment_from_the_future_that_wins_is_named_loudly() {
    let future = "test-20251027-130000Z";
    let aws = with_active(future, &[(NEW, &[]), (future, LIVE)]);
    let output = switch(&aws, NEW).await.unwrap();
    assert_eq!(output.outcome, Outcome::Superseded);
    assert!(
        output.reason.starts_with("WARNING: test-20251027-130000Z"),
        "{output:?}"
    );
}

const CLIENT_SECRET: &str = "test/oidc-client-secret";

/// An environment with two deployments whose default action authenticates, and whose rules do not.
fn with_policy(action: Value) -> MemoryAws {
    let aws = with_active(OLD, &[(OLD, LIVE), (NEW, &[])]);
    aws.with(|state| state.put_before(action));
    aws
}

/// What the rules do first, by priority.
fn first_actions(aws: &MemoryAws) -> Vec<String> {
    let rules = aws.with(|state| state.rules.clone()).into_iter();
    let first = rules.map(|rule| rule.actions[0]["Type"].as_str().unwrap().to_owned());
    first.collect()
}

#[tokio::test]
async fn the_rules_of_all_deployments_do_what_the_default_action_does_before_traffic_moves() {
    let aws = with_policy(validate_jwt("https://login.example.com"));
    let output = switch(&aws, NEW).await.unwrap();
    assert_eq!(output.outcome, Outcome::Switched);
    assert_eq!(
        aws.changes()
            .into_iter()
            .rev()
            .take(6)
            .rev()
            .collect::<Vec<_>>(),
        [
            "ModifyRule rule-1".to_owned(),
            "ModifyRule rule-3".to_owned(),
            "ModifyRule rule-2".to_owned(),
            "ModifyRule rule-4".to_owned(),
            format!("AddTags {NEW} {}", tags::LIVE_SINCE),
            format!("ModifyListener {NEW}"),
        ]
    );
    let policy = validate_jwt("https://login.example.com");
    aws.with(|state| {
        let rules = state.rules.iter().map(|rule| &rule.actions);
        for actions in rules.chain([&state.listeners[0].default_actions]) {
            assert_eq!((&actions[0], actions.len()), (&policy, 2));
        }
    });
    // Twice is as once.
    switch(&aws, NEW).await.unwrap();
    assert_eq!((aws.count("ModifyRule"), switches(&aws).len()), (0, 0));
}

#[tokio::test]
async fn only_rules_that_differ_and_are_ours_are_changed() {
    let aws = with_policy(validate_jwt("https://login.example.com"));
    switch(&aws, NEW).await.unwrap();
    aws.with(|state| {
        state.add_rule(1, "an-operators", Default::default());
        state.add_rule(2, OLD, Default::default());
        // It has the policy of before.
        state.rules[1].actions = vec![forward(&[(OLD, 1)])];
    });
    switch(&aws, NEW).await.unwrap();
    assert_eq!(
        aws.changes(),
        [
            format!("AddTags {NEW} {}", tags::READY_AT),
            "ModifyRule rule-2".into()
        ]
    );
    assert_eq!(first_actions(&aws)[4..], ["forward", "forward"]);
}

#[tokio::test]
async fn rules_lose_what_the_default_action_no_longer_does() {
    let aws = with_policy(validate_jwt("https://login.example.com"));
    switch(&aws, NEW).await.unwrap();
    aws.with(|state| state.activate(NEW));
    switch(&aws, NEW).await.unwrap();
    assert_eq!(first_actions(&aws), ["forward"; 4]);
}

#[tokio::test]
async fn rules_get_the_secret_of_the_oidc_client_and_the_listener_keeps_its_own() {
    let aws = with_policy(authenticate_oidc("client"));
    aws.with(|state| {
        state
            .secrets
            .insert(CLIENT_SECRET.into(), "in the rules".into());
    });
    switch(&aws, NEW).await.unwrap();
    let secret = |actions: &[Value]| actions[0]["AuthenticateOidcConfig"]["ClientSecret"].clone();
    aws.with(|state| {
        for rule in &state.rules {
            assert_eq!(secret(&rule.actions), "in the rules");
        }
        let default_actions = &state.listeners[0].default_actions;
        assert_eq!(secret(default_actions), "secret of client");
    });
}

#[tokio::test]
async fn without_the_secret_of_the_oidc_client_no_traffic_moves_and_no_rollback_marks_anything() {
    let aws = with_policy(authenticate_oidc("client"));
    let error = switch(&aws, NEW).await.unwrap_err();
    assert_eq!(error.name, ErrorName::Configuration);
    assert!(error.message.contains(CLIENT_SECRET), "{error}");
    assert_eq!((aws.count("ModifyRule"), switches(&aws).len()), (0, 0));

    let aws = with_policy(authenticate_oidc("client"));
    aws.with(|state| state.deploy(NEWEST, LIVE));
    let error = roll_back(&aws, NEW).await.unwrap_err();
    assert_eq!(error.name, ErrorName::Configuration);
    assert!(aws.changes().is_empty());
}

#[tokio::test]
async fn an_action_type_that_is_unknown_stays_and_no_traffic_moves() {
    let aws = with_policy(json!({"Type": "check-passport", "Order": "1"}));
    let error = switch(&aws, NEW).await.unwrap_err();
    assert_eq!(error.name, ErrorName::Configuration);
    assert!(error.message.contains("check-passport"), "{error}");
    assert!(switches(&aws).is_empty());
}

#[tokio::test]
async fn a_rule_that_goes_meanwhile_does_not_stop_the_switch() {
    let aws = with_policy(validate_jwt("https://login.example.com"));
    aws.on("ModifyRule")
        .once()
        .before(|state, _| drop(state.rules.remove(0)));
    let output = switch(&aws, NEW).await.unwrap();
    assert_eq!(output.outcome, Outcome::Switched);
    // Its tags go with it, so the role is denied the call.
    let aws = with_policy(validate_jwt("https://login.example.com"));
    aws.on("ModifyRule").once().loses_the_answer("AccessDenied");
    aws.on("ModifyRule")
        .once()
        .after(|state, _| drop(state.rules.remove(0)));
    let output = switch(&aws, NEW).await.unwrap();
    assert_eq!(output.outcome, Outcome::Switched);
}

#[tokio::test]
async fn rules_that_aws_shows_as_they_were_are_changed_once() {
    let aws = with_policy(validate_jwt("https://login.example.com"));
    aws.on("DescribeRules")
        .shows(aws.with(|state| state.clone()));
    let output = switch(&aws, NEW).await.unwrap();
    assert_eq!(output.outcome, Outcome::Switched);
    assert_eq!(aws.count("ModifyRule"), 4);
}

/// A repair of the default action that forwards to a group without a healthy target, as it was planned.
async fn repair(aws: &MemoryAws, id: &str, replaced: &[&str]) -> Result<Output, StepError> {
    let planned = json!({
        "repair": true, "rollBack": !replaced.is_empty(), "replaced": replaced,
        "replacedDeploymentId": replaced.first(),
    });
    call(aws, id, planned).await
}

/// NEWEST is active without a healthy target; the two older ones were live.
fn down() -> MemoryAws {
    let aws = with_active(NEWEST, &[(OLD, LIVE), (NEW, LIVE), (NEWEST, LIVE)]);
    aws.with(|state| state.fail_health_checks(NEWEST));
    aws
}

#[tokio::test]
async fn a_repair_takes_the_active_one_back() {
    let aws = down();
    let output = repair(&aws, NEW, &[NEWEST]).await.unwrap();
    assert_eq!(output.outcome, Outcome::Switched);
    assert_eq!(active(&aws), [NEW]);
    assert!(has(&aws, NEWEST, tags::ROLLED_BACK_AT));
}

#[tokio::test]
async fn a_repair_that_is_not_needed_any_more_changes_nothing() {
    type Change = fn(&mut memory_aws::State);
    let changes: [(Change, &str); 4] = [
        // An operator has rolled back to an older one, because the chosen one is bad as well.
        (
            |state| {
                state.tag(NEW, tags::ROLLED_BACK_AT, "2025-10-27T12:29:00Z");
                state.activate(OLD);
            },
            "was rolled back",
        ),
        (|state| state.activate(OLD), "was made active"),
        (
            |state| state.group(NEWEST).health = vec![json!({"State": "healthy"})],
            "active and healthy",
        ),
        (
            |state| state.tag(NEW, tags::ROLLED_BACK_AT, "2025-10-27T12:29:00Z"),
            "was rolled back",
        ),
    ];
    for (change, why) in changes {
        let aws = down();
        aws.with(change);
        let output = repair(&aws, NEW, &[NEWEST]).await.unwrap();
        assert_eq!(output.outcome, Outcome::NotNeeded);
        assert!(output.reason.contains(why), "{output:?}");
        assert!(aws.changes().is_empty(), "{aws:?}");
    }
    // One of a lost default action.
    let aws = with(&[(OLD, LIVE), (NEW, LIVE)]);
    aws.with(|state| state.activate(OLD));
    let output = repair(&aws, NEW, &[]).await.unwrap();
    assert_eq!(output.outcome, Outcome::NotNeeded);
    aws.with(|state| state.activate("test-20251027-120000Z"));
    let output = repair(&aws, NEW, &[]).await.unwrap();
    assert_eq!(output.outcome, Outcome::Switched);
}

#[tokio::test]
async fn what_an_older_one_replaced_gets_traffic_only_when_it_is_asked_for() {
    let aws = with_active(OLD, &[(OLD, LIVE), (NEW, &[]), (NEWEST, LIVE)]);
    // Switched to at 12:25, and replaced since.
    aws.with(|state| {
        state.now += 600;
        state.tag(NEWEST, tags::REPLACED_AT, "2025-10-27T12:25:00Z");
    });
    let output = switch(&aws, NEW).await.unwrap();
    assert_eq!(output.outcome, Outcome::Switched, "{output:?}");
    assert_eq!(active(&aws), [NEW]);
    let output = roll_back_from(&aws, &[], NEWEST).await.unwrap();
    assert_eq!(output.outcome, Outcome::Switched);
    assert_eq!(active(&aws), [NEWEST]);
}

#[tokio::test]
async fn what_was_replaced_by_a_change_that_landed_late_is_switched_to_again() {
    // The change of the older run landed after the newer one had concluded, and a sweep has noted that.
    let aws = with_active(NEW, &[(NEW, READY), (NEWEST, LIVE)]);
    aws.with(|state| state.tag(NEWEST, tags::REPLACED_AT, "2025-10-27T12:29:00Z"));
    let output = switch(&aws, NEW).await.unwrap();
    assert_eq!(output.outcome, Outcome::Superseded, "{output:?}");
    assert_eq!(active(&aws), [NEWEST]);
}

#[tokio::test]
async fn a_repair_whose_answer_was_lost_is_read_back() {
    // A newer one became ready in between, and its switch was overwritten.
    let aws = down();
    let newest = "test-20251027-122115Z";
    aws.with(|state| state.deploy(newest, LIVE));
    aws.with(|state| state.activate(NEW));
    let output = repair(&aws, NEW, &[NEWEST]).await.unwrap();
    assert_eq!(output.outcome, Outcome::Superseded, "{output:?}");
    assert_eq!(active(&aws), [newest]);
}

#[tokio::test]
async fn a_repair_that_is_not_needed_any_more_takes_its_marks_back() {
    let aws = down();
    aws.on("DescribeRules").nth(3).fails("Throttling");
    repair(&aws, NEW, &[NEWEST]).await.unwrap_err();
    assert!(has(&aws, NEWEST, tags::ROLLED_BACK_AT));
    aws.with(|state| state.group(NEWEST).health = vec![json!({"State": "healthy"})]);
    let output = repair(&aws, NEW, &[NEWEST]).await.unwrap();
    assert_eq!(output.outcome, Outcome::NotNeeded);
    assert!(!has(&aws, NEWEST, tags::ROLLED_BACK_AT));
    assert_eq!(active(&aws), [NEWEST]);
}

#[tokio::test]
async fn a_rollback_writes_a_mark_again_that_an_earlier_one_left() {
    let aws = with_active(NEW, &[(OLD, LIVE), (NEW, BACK)]);
    aws.with(|state| state.now += 600);
    roll_back(&aws, OLD).await.unwrap();
    let tags = aws.with(|state| state.group(NEW).tags.clone());
    assert_eq!(tags[tags::ROLLED_BACK_AT], "2025-10-27T12:40:00Z");
}

#[tokio::test]
async fn a_target_that_another_rollback_made_live_keeps_no_mark() {
    let aws = with_active(OLD, &[(OLD, LIVE), (NEW, LIVE)]);
    // Between the mark and the second look.
    aws.on("AddTags")
        .once()
        .after(|state, _| state.activate(NEW));
    let failed = json!({
        "rollBack": true, "takeBack": true, "replaced": [], "replacedDeploymentId": OLD, "wasRolledBack": true,
    });
    call(&aws, NEW, failed).await.unwrap();
    assert!(!has(&aws, NEW, tags::ROLLED_BACK_AT));
}

#[tokio::test]
async fn a_rollback_that_fails_gives_its_target_the_mark_of_an_earlier_one_again() {
    let aws = with_active(OLD, &[(OLD, LIVE), (NEW, BACK)]);
    aws.on("ModifyListener").fails("AccessDenied");
    let rollback = json!({
        "rollBack": true, "replaced": [], "replacedDeploymentId": OLD, "wasRolledBack": true,
    });
    call(&aws, NEW, rollback.clone()).await.unwrap_err();
    assert!(!has(&aws, NEW, tags::ROLLED_BACK_AT));
    let mut take_back = rollback;
    take_back["takeBack"] = true.into();
    for _ in 0..2 {
        let output = call(&aws, NEW, take_back.clone()).await.unwrap();
        assert_eq!(output.outcome, Outcome::TakenBack);
        assert!(has(&aws, NEW, tags::ROLLED_BACK_AT));
    }
    // Traffic has moved after all.
    let aws = with_active(NEW, &[(OLD, LIVE), (NEW, LIVE)]);
    call(&aws, NEW, take_back).await.unwrap();
    assert!(!has(&aws, NEW, tags::ROLLED_BACK_AT));
}

#[tokio::test]
async fn rules_keep_their_login_when_the_fixed_answer_comes_back_without_it() {
    let aws = with_policy(validate_jwt("https://login.example.com"));
    switch(&aws, NEW).await.unwrap();
    let nothing = memory_aws::fixed_response("503", lifecycle::defaults::NOTHING_DEPLOYED);
    aws.with(|state| state.listeners[0].default_actions = vec![nothing]);
    let error = switch(&aws, NEW).await.unwrap_err();
    assert_eq!(error.name, ErrorName::Configuration);
    assert!(error.message.contains("login"), "{error}");
    assert_eq!(first_actions(&aws), ["jwt-validation"; 4]);
    assert!(switches(&aws).is_empty());
    // With a login before it, even another one, everything goes on.
    let login = validate_jwt("https://another-login.example.com");
    aws.with(|state| state.put_before(login.clone()));
    let output = switch(&aws, NEW).await.unwrap();
    assert_eq!(output.outcome, Outcome::Switched);
    assert_eq!(active(&aws), [NEW]);
    assert!(aws.with(|state| state.rules.iter().all(|rule| rule.actions[0] == login)));
}

#[tokio::test]
async fn a_rollback_that_is_over_keeps_its_target_no_longer() {
    let since = "2025-10-27T12:25:00Z";
    let restoring = [LIVE, &[tags::RESTORING_SINCE]].concat();
    for (active_now, tag, is_kept) in [
        (NEW, since, false),
        (NEWEST, since, false),
        // Of another rollback to it.
        (NEW, "2025-10-27T12:26:00Z", true),
    ] {
        let aws = with_active(
            active_now,
            &[(OLD, &restoring), (NEW, BACK), (NEWEST, LIVE)],
        );
        aws.with(|state| state.tag(OLD, tags::RESTORING_SINCE, tag));
        let over = json!({
            "rollBack": true, "takeBack": true, "replaced": [NEW], "replacedDeploymentId": NEW,
            "restoringSince": since,
        });
        call(&aws, OLD, over.clone()).await.unwrap();
        assert_eq!(
            has(&aws, OLD, tags::RESTORING_SINCE),
            is_kept,
            "{active_now} {tag}"
        );
        // The deletion that gave way to the rollback had deleted its rules.
        aws.with(|state| {
            state.tag(OLD, tags::RESTORING_SINCE, tag);
            state.rules.drain(..2);
        });
        call(&aws, OLD, over).await.unwrap();
        assert_eq!(has(&aws, OLD, tags::RESTORING_SINCE), is_kept);
    }
}

#[tokio::test]
async fn a_rollback_that_met_a_maintenance_page_takes_its_marks_back() {
    let aws = with_active(NEW, &[(OLD, LIVE), (NEW, LIVE)]);
    aws.with(|state| {
        state.tag(NEW, tags::ROLLED_BACK_AT, MARKED);
        let page = memory_aws::fixed_response("503", "We are back at noon.");
        state.listeners[0].default_actions = vec![page];
    });
    let take_back = json!({
        "rollBack": true, "takeBack": true, "replaced": [NEW], "replacedDeploymentId": NEW,
    });
    let output = call(&aws, OLD, take_back).await.unwrap();
    assert_eq!(output.outcome, Outcome::TakenBack);
    assert!(!has(&aws, NEW, tags::ROLLED_BACK_AT));
}

#[tokio::test]
async fn a_deployment_that_loses_its_health_before_the_switch_may_be_healthy_again_later() {
    let aws = with_active(OLD, &[(OLD, LIVE), (NEW, &[])]);
    aws.on("DescribeTargetHealth")
        .containing(NEW)
        .once()
        .after(|state, _| state.fail_health_checks(NEW));
    let output = switch(&aws, NEW).await.unwrap();
    assert_eq!(output.outcome, Outcome::Unhealthy);
    assert_eq!(active(&aws), [OLD]);
}

#[tokio::test]
async fn a_target_group_of_others_keeps_its_share_of_the_new_visitors() {
    let aws = with_active(OLD, &[(OLD, LIVE), (NEW, &[])]);
    aws.with(|state| {
        state.add_target_group("legacy", memory_aws::tags([]));
        state.listeners[0].default_actions = vec![forward(&[(OLD, 80), ("legacy", 20)])];
    });
    switch(&aws, NEW).await.unwrap();
    let actions = aws.with(|state| state.listeners[0].default_actions.clone());
    assert_eq!(
        actions,
        [forward(&[(NEW, 80), ("legacy", 20)])],
        "only the deployment's share moves"
    );
}

#[tokio::test]
async fn a_refusal_of_what_drains_speaks_of_another_rollback_only_if_there_is_one() {
    let words = "another rollback to it has begun";
    for (restoring, roll_back, speaks) in [
        (true, true, true),
        (true, false, false),
        (false, true, false),
    ] {
        let aws = with_active(NEW, &[(OLD, DRAINING), (NEW, LIVE)]);
        if restoring {
            aws.with(|state| {
                state.tag(OLD, tags::RESTORING_SINCE, "2025-10-27T12:29:00Z by other")
            });
        }
        let own = json!({"rollBack": roll_back, "restoringSince": "2025-10-27T12:28:00Z by own"});
        let error = call(&aws, OLD, own).await.unwrap_err();
        assert_eq!(error.name, ErrorName::DeploymentDraining);
        assert_eq!(error.message.contains(words), speaks, "{error}");
    }
}

#[tokio::test]
async fn what_is_read_before_rules_or_marks_change_is_read_again() {
    // A rule gets the login of the default action, and meanwhile the deployment is being deleted.
    let aws = with_policy(validate_jwt("https://login.example.com"));
    aws.on("ModifyRule")
        .once()
        .after(|state, _| state.tag(NEW, tags::DELETING_SINCE, MARKED));
    let output = switch(&aws, NEW).await.unwrap();
    assert_eq!(output.outcome, Outcome::Unhealthy);
    assert!(switches(&aws).is_empty());

    // A mark is set again, and meanwhile traffic goes to another one.
    let aws = with_active(NEWEST, &[(OLD, LIVE), (NEW, LIVE), (NEWEST, LIVE)]);
    aws.on("ModifyListener").once().after(|state, _| {
        state.group(NEW).tags.remove(tags::ROLLED_BACK_AT);
    });
    aws.on("AddTags")
        .containing(tags::ROLLED_BACK_AT)
        .after(|state, _| {
            if state.active() == [OLD] {
                state.activate(NEWEST);
            }
        });
    let output = roll_back(&aws, OLD).await.unwrap();
    assert_eq!(output.outcome, Outcome::Switched);
    assert_eq!(active(&aws), [OLD]);
    assert_eq!(switches(&aws), [OLD, OLD]);
}

#[tokio::test]
async fn a_mark_that_is_half_over_is_written_again() {
    let half = defaults::SWITCHED_WITHIN.whole_seconds() / 2;
    for (age, is_written) in [(half, true), (half - 1, false)] {
        let aws = with_active(NEWEST, &[(OLD, LIVE), (NEW, LIVE), (NEWEST, LIVE)]);
        let at = aws.time() - time::Duration::seconds(age);
        aws.with(|state| state.tag(NEW, tags::ROLLED_BACK_AT, &tags::timestamp(at)));
        roll_back(&aws, OLD).await.unwrap();
        let written = format!("AddTags {NEW} {}", tags::ROLLED_BACK_AT);
        assert_eq!(aws.changes().contains(&written), is_written, "{age}");
    }
}

/// What the watch of a deployment starts.
async fn take_one_back(aws: &MemoryAws, from: &str, id: &str) -> Result<Output, StepError> {
    let from =
        json!({"rollBack": true, "replaced": [from], "replacedDeploymentId": from, "from": from});
    call(aws, id, from).await
}

#[tokio::test]
async fn a_rollback_of_one_deployment_takes_back_that_one() {
    let aws = with_active(NEW, &[(OLD, LIVE), (NEW, LIVE)]);
    for _ in 0..2 {
        let output = take_one_back(&aws, NEW, OLD).await.unwrap();
        assert_eq!(output.outcome, Outcome::Switched);
        assert_eq!(active(&aws), [OLD]);
        assert!(has(&aws, NEW, tags::ROLLED_BACK_AT));
    }
}

#[tokio::test]
async fn a_rollback_of_one_deployment_does_not_go_to_one_that_lies_between() {
    let aws = with_active(NEWEST, &[(OLD, LIVE), (NEW, LIVE), (NEWEST, LIVE)]);
    let input = json!({
        "rollBack": true, "replaced": [NEW, NEWEST], "replacedDeploymentId": NEWEST, "from": NEWEST,
    });
    let output = call(&aws, OLD, input).await.unwrap();
    assert_eq!(output.outcome, Outcome::Switched);
    assert_eq!(active(&aws), [OLD]);
    let taken_back: Vec<_> = output
        .rolled_back
        .iter()
        .map(|it| it.deployment_id.as_str())
        .collect();
    assert_eq!(taken_back, [NEW, NEWEST]);
}

#[tokio::test]
async fn a_rollback_of_one_deployment_changes_nothing_once_another_one_is_active() {
    for active_one in [NEWEST, OLDEST] {
        let all = [(OLDEST, LIVE), (OLD, LIVE), (NEW, LIVE), (NEWEST, LIVE)];
        let aws = with_active(active_one, &all);
        let output = take_one_back(&aws, NEW, OLD).await.unwrap();
        assert_eq!(output.outcome, Outcome::NotNeeded);
        assert!(output.reason.contains(active_one), "{output:?}");
        assert!(aws.changes().is_empty(), "{:?}", aws.changes());
    }
}

#[tokio::test]
async fn a_switch_between_the_mark_and_the_change_of_the_listener_wins_over_the_rollback_of_one() {
    let aws = with_active(NEW, &[(OLD, LIVE), (NEW, LIVE), (NEWEST, LIVE)]);
    aws.on("AddTags")
        .containing(tags::ROLLED_BACK_AT)
        .after(|state, _| state.activate(NEWEST));
    let output = take_one_back(&aws, NEW, OLD).await.unwrap();
    assert_eq!(output.outcome, Outcome::NotNeeded);
    assert_eq!(active(&aws), [NEWEST]);
    assert!(switches(&aws).is_empty());
}

#[tokio::test]
async fn a_newer_one_that_is_ready_wins_over_the_rollback_of_one() {
    let aws = with_active(NEW, &[(OLD, LIVE), (NEW, LIVE), (NEWEST, READY)]);
    let output = take_one_back(&aws, NEW, OLD).await.unwrap();
    assert_eq!(output.outcome, Outcome::NotNeeded);
    assert_eq!(active(&aws), [NEWEST]);
    assert!(!has(&aws, NEWEST, tags::ROLLED_BACK_AT));
}

#[tokio::test]
async fn that_it_is_watched_stands_on_it_before_it_is_active() {
    let aws = with(&[(NEW, &[])]);
    call(&aws, NEW, json!({"watchSeconds": 120})).await.unwrap();
    let changes = aws.changes();
    let of = |part: &str| changes.iter().position(|it| it.contains(part));
    let watched = of(tags::WATCH_UNTIL).expect("a tag");
    assert!(
        changes[watched].contains(tags::READY_AT),
        "by the same call: {changes:?}"
    );
    assert!(Some(watched) < of("ModifyListener"), "{changes:?}");
    let until = aws.with(|state| state.group(NEW).tags[tags::WATCH_UNTIL].clone());
    assert_eq!(until, "2025-10-27T12:37:00Z");
    for more in [json!({}), json!({"watchSeconds": 0})] {
        let aws = with(&[(NEW, &[])]);
        call(&aws, NEW, more).await.unwrap();
        assert!(!has(&aws, NEW, tags::WATCH_UNTIL));
    }
}
