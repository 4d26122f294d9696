use super::*;
use lifecycle::{Baseline, ErrorName, tags};
use memory_aws::{MemoryAws, State};
use serde_json::json;

const ID: &str = "test-20251027-122112Z";
const OTHER: &str = "test-20251027-122113Z";

/// An active deployment whose rollout has failed at one of two tasks, changed so.
fn failed_with(change: impl FnOnce(&mut State)) -> MemoryAws {
    let aws = MemoryAws::default();
    aws.with(|state| {
        for id in [ID, OTHER] {
            state.deploy(id, &[tags::LIVE_SINCE]);
        }
        state.activate(ID);
        let service = state.service(ID);
        service["runningCount"] = json!(1);
        service["deployments"][0]["rolloutState"] = "FAILED".into();
        change(state);
    });
    aws
}

async fn restart(aws: &MemoryAws) -> Result<Output, StepError> {
    let clients = Clients::new(&aws.config());
    let deployment_id = ID.parse().unwrap();
    let input = Input { deployment_id };
    run(&clients, &Baseline::for_tests(), &|| aws.time(), input).await
}

#[tokio::test]
async fn a_failed_rollout_with_missing_tasks_is_started_again_and_once() {
    let aws = failed_with(|_| ());
    let output = restart(&aws).await.unwrap();
    assert_eq!(output.verdict, Verdict::Restarted);
    assert_eq!(
        output.reason,
        "its rollout had failed and 1 of 2 tasks ran; ECS starts tasks again"
    );
    // The answer was lost, and the step runs again.
    assert_eq!(restart(&aws).await.unwrap().verdict, Verdict::Kept);
    let calls = aws.calls_to("UpdateService");
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0]["forceNewDeployment"], true);
    assert_eq!(calls[0]["desiredCount"], json!(null));
}

/// An active deployment in order, with the grace period of a drain, and with the tags that a drain left.
fn drained(marks: &[(&str, &str)]) -> MemoryAws {
    failed_with(|state| {
        let service = state.service(ID);
        service["runningCount"] = json!(2);
        service["deployments"][0]["rolloutState"] = "COMPLETED".into();
        service["healthCheckGracePeriodSeconds"] = json!(i32::MAX);
        for (key, at) in marks {
            state.tag(ID, key, at);
        }
    })
}

#[tokio::test]
async fn what_was_drained_before_it_was_made_active_gets_fresh_tasks_once() {
    let marks = [
        (tags::DRAINING_SINCE, "2025-10-27T12:20:00Z"),
        (tags::IDLE_SINCE, "2025-10-27T12:25:00Z"),
    ];
    let aws = drained(&marks);
    let output = restart(&aws).await.unwrap();
    assert_eq!(output.verdict, Verdict::Restarted);
    assert!(output.reason.contains("asked to drain"), "{output:?}");
    // Until the fresh tasks have replaced the others, nothing may take it for one that was not drained.
    assert_eq!(restart(&aws).await.unwrap().verdict, Verdict::Kept);
    let [call] = &aws.calls_to("UpdateService")[..] else {
        panic!("{aws:?}")
    };
    assert_eq!(call["forceNewDeployment"], true);
    assert_eq!(call["healthCheckGracePeriodSeconds"], 600);
    let has = |mark: &str| aws.with(|state| state.has_tag(ID, mark));
    assert!(has(tags::DRAINING_SINCE) && has(tags::IDLE_SINCE));

    aws.with(|state| state.service(ID)["deployments"][0]["rolloutState"] = "COMPLETED".into());
    assert_eq!(restart(&aws).await.unwrap().verdict, Verdict::Corrected);
    assert!(!has(tags::DRAINING_SINCE) && !has(tags::IDLE_SINCE));
    assert_eq!(restart(&aws).await.unwrap().verdict, Verdict::Kept);
}

#[tokio::test]
async fn the_tasks_of_a_rollout_of_the_same_second_may_have_been_asked() {
    let asked = time::macros::utc_datetime!(2025-10-27 12:30:00);
    for (after, verdict) in [(0, Verdict::Restarted), (1, Verdict::Corrected)] {
        let aws = drained(&[(tags::DRAINING_SINCE, &tags::timestamp(asked))]);
        let began = asked.unix_timestamp() + after;
        aws.with(|state| state.service(ID)["deployments"][0]["createdAt"] = json!(began));
        assert_eq!(restart(&aws).await.unwrap().verdict, verdict, "{after}");
    }
}

#[tokio::test]
async fn a_mark_of_no_time_in_the_past_starts_one_rollout_and_no_more() {
    for mark in ["by hand", "2099-01-01T00:00:00Z"] {
        let aws = drained(&[(tags::DRAINING_SINCE, mark)]);
        assert_eq!(restart(&aws).await.unwrap().verdict, Verdict::Restarted);
        aws.with(|state| {
            state.service(ID)["deployments"][0]["createdAt"] = json!(state.now + 1);
            state.service(ID)["deployments"][0]["rolloutState"] = "COMPLETED".into();
            state.now += 300;
        });
        assert_eq!(restart(&aws).await.unwrap().verdict, Verdict::Corrected);
        assert_eq!(
            restart(&aws).await.unwrap().verdict,
            Verdict::Kept,
            "{mark}"
        );
        assert_eq!(aws.count("UpdateService"), 1);
    }
}

#[tokio::test]
async fn what_a_drain_left_that_gave_way_is_corrected_without_fresh_tasks() {
    let gave_way = [
        (tags::READY_AT, "2025-10-27T12:30:00Z"),
        (tags::DRAINING_SINCE, "2025-10-27T12:30:05Z"),
    ];
    for marks in [&[][..], &gave_way] {
        let aws = drained(marks);
        assert_eq!(restart(&aws).await.unwrap().verdict, Verdict::Corrected);
        let [call] = &aws.calls_to("UpdateService")[..] else {
            panic!("{aws:?}")
        };
        assert_eq!(call["forceNewDeployment"], json!(null));
        assert_eq!(call["healthCheckGracePeriodSeconds"], 600);
    }
}

#[tokio::test]
async fn what_drains_and_is_not_active_stays_as_it_is() {
    let aws = drained(&[(tags::DRAINING_SINCE, "2025-10-27T12:30:00Z")]);
    aws.with(|state| state.activate(OTHER));
    assert_eq!(restart(&aws).await.unwrap().verdict, Verdict::Kept);
    assert_eq!(aws.changes(), [""; 0]);
}

#[tokio::test]
async fn nothing_changes_unless_the_active_deployment_lacks_tasks_after_a_failure() {
    let changes: [fn(&mut State); 5] = [
        |state| state.activate(OTHER),
        |state| state.service(ID)["runningCount"] = json!(2),
        |state| state.service(ID)["deployments"][0]["rolloutState"] = "IN_PROGRESS".into(),
        |state| state.service(ID)["tags"] = json!([]),
        |state| state.services.clear(),
    ];
    for change in changes {
        let aws = failed_with(change);
        let output = restart(&aws).await.unwrap();
        assert_eq!(output.verdict, Verdict::Kept, "{}", output.reason);
        assert_eq!(aws.changes(), [""; 0]);
    }
}

#[tokio::test]
async fn a_service_that_is_deleted_meanwhile_needs_no_rollout_and_a_refusal_is_reported() {
    for (code, expected) in [
        ("ServiceNotActiveException", Ok(Verdict::Kept)),
        ("AccessDeniedException", Err(ErrorName::AccessDenied)),
        ("ThrottlingException", Err(ErrorName::Transient)),
    ] {
        let aws = failed_with(|_| ());
        aws.on("UpdateService").fails(code);
        let result = restart(&aws).await;
        let result = result.map(|it| it.verdict).map_err(|it| it.name);
        assert_eq!(result, expected, "{code}");
    }
}

#[tokio::test]
async fn fresh_tasks_get_the_time_of_grace_of_their_own_settings() {
    let marks = [
        (tags::DRAINING_SINCE, "2025-10-27T12:20:00Z"),
        (tags::GRACE_SECONDS, "90"),
    ];
    let aws = drained(&marks);
    restart(&aws).await.unwrap();
    let call = aws.calls_to("UpdateService").pop().unwrap();
    assert_eq!(call["healthCheckGracePeriodSeconds"], 90);
}
