use super::*;
use memory_aws::{MemoryAws, State};
use serde_json::{Value, json};

const OLD: &str = "test-20251027-122112Z";
const NEW: &str = "test-20251027-122113Z";
const BY_CPU: &str = "max=10 cpuPercent=60";

/// An active deployment that asked for 2 tasks and runs 2, and an older one.
fn with(change: impl FnOnce(&mut State)) -> MemoryAws {
    let aws = MemoryAws::default();
    aws.with(|state| {
        for id in [OLD, NEW] {
            state.deploy(id, &[tags::LIVE_SINCE]);
            state.tag(id, tags::WANTED_COUNT, "2");
            state.tag(id, tags::SCALING, BY_CPU);
        }
        state.activate(NEW);
        change(state);
    });
    aws
}

async fn call(aws: &MemoryAws, input: Value) -> Result<Output, StepError> {
    let clients = Clients::new(&aws.config());
    let input = serde_json::from_value(input).unwrap();
    run(&clients, &Baseline::for_tests(), &|| aws.time(), input).await
}

async fn register(aws: &MemoryAws) -> Result<Output, StepError> {
    call(aws, json!({"deploymentId": NEW, "fromALaterVersion": 1})).await
}

/// What a cleanup asks for.
async fn repair(aws: &MemoryAws) -> Result<Output, StepError> {
    call(aws, json!({"onlyIfMissing": true})).await
}

async fn end(aws: &MemoryAws) -> Result<Output, StepError> {
    call(aws, json!({"deploymentId": OLD, "deregister": true})).await
}

/// The bounds of what is registered, by deployment.
fn bounds(aws: &MemoryAws, id: &str) -> Option<(Value, Value)> {
    aws.with(|state| {
        let target = state.scalable_targets.get(&format!("service/test/{id}"))?;
        Some((target["MinCapacity"].clone(), target["MaxCapacity"].clone()))
    })
}

#[tokio::test]
async fn the_active_one_follows_its_load_from_what_it_asked_for_to_its_most() {
    let aws = with(|_| ());
    for _ in 0..2 {
        let output = register(&aws).await.unwrap();
        assert_eq!(output.verdict, Verdict::Registered);
        assert!(output.reason.contains("between 2 and 10"), "{output:?}");
        assert_eq!(bounds(&aws, NEW), Some((json!(2), json!(10))));
    }
}

#[tokio::test]
async fn a_registration_takes_no_task_away() {
    for (running, most) in [(6, 10), (12, 12)] {
        let aws = with(|state| state.service(NEW)["desiredCount"] = json!(running));
        register(&aws).await.unwrap();
        assert_eq!(bounds(&aws, NEW), Some((json!(2), json!(most))));
        assert_eq!(
            aws.with(|state| state.service(NEW)["desiredCount"].clone()),
            running
        );
    }
}

#[tokio::test]
async fn the_most_is_not_less_than_what_a_rollback_chose() {
    for (chosen, most) in [(12, 12), (3, 10)] {
        let aws = with(|_| ());
        let input = json!({"deploymentId": NEW, "desiredCount": chosen});
        call(&aws, input).await.unwrap();
        assert_eq!(bounds(&aws, NEW), Some((json!(2), json!(most))));
    }
}

#[tokio::test]
async fn what_asked_for_more_than_its_most_is_not_registered_with_bounds_that_aws_refuses() {
    let aws = with(|state| state.tag(NEW, tags::WANTED_COUNT, "20"));
    register(&aws).await.unwrap();
    assert_eq!(bounds(&aws, NEW), Some((json!(10), json!(10))));
}

#[tokio::test]
async fn without_scaling_in_its_settings_or_without_being_active_nothing_is_registered() {
    for change in [
        |state: &mut State| drop(state.group(NEW).tags.remove(tags::SCALING)),
        |state: &mut State| state.activate(OLD),
        |state: &mut State| state.listeners[0].default_actions.clear(),
        |state: &mut State| state.services.clear(),
        |state: &mut State| state.group(NEW).tags.clear(),
    ] {
        let aws = with(change);
        let output = register(&aws).await.unwrap();
        assert_eq!(output.verdict, Verdict::Kept, "{output:?}");
        assert!(aws.changes().is_empty(), "{aws:?}");
    }
}

#[tokio::test]
async fn a_tag_that_an_operator_changed_is_an_error_that_names_it() {
    let aws = with(|state| state.tag(NEW, tags::SCALING, "max=many"));
    let error = register(&aws).await.unwrap_err();
    assert_eq!(error.name, ErrorName::Configuration);
    for words in [NEW, tags::SCALING, "max=many"] {
        assert!(error.message.contains(words), "{error}");
    }
    assert!(aws.changes().is_empty(), "{aws:?}");
}

#[tokio::test]
async fn a_cleanup_makes_a_missing_registration_and_leaves_one_that_is_there() {
    let aws = with(|_| ());
    assert_eq!(repair(&aws).await.unwrap().verdict, Verdict::Registered);
    aws.forget_calls();
    assert_eq!(repair(&aws).await.unwrap().verdict, Verdict::Kept);
    assert!(aws.changes().is_empty(), "{aws:?}");
    // The execution died between the two calls.
    aws.with(|state| {
        for target in state.scalable_targets.values_mut() {
            target["policies"] = json!([]);
        }
    });
    assert_eq!(repair(&aws).await.unwrap().verdict, Verdict::Registered);
}

#[tokio::test]
async fn what_is_to_drain_is_not_scaled_any_more() {
    let aws = with(|state| state.activate(OLD));
    let input = json!({"deploymentId": OLD});
    assert_eq!(
        call(&aws, input).await.unwrap().verdict,
        Verdict::Registered
    );
    aws.with(|state| state.activate(NEW));
    for _ in 0..2 {
        assert_eq!(end(&aws).await.unwrap().verdict, Verdict::Deregistered);
        assert_eq!(bounds(&aws, OLD), None);
    }
}

#[tokio::test]
async fn what_is_active_protected_or_being_rolled_back_to_stays_registered() {
    for (change, name) in [
        (
            (|state: &mut State| state.activate(OLD)) as fn(&mut State),
            ErrorName::DeploymentActive,
        ),
        (
            |state| state.tag(OLD, tags::PROTECTED, "yes"),
            ErrorName::DeploymentKept,
        ),
        (
            |state| state.tag(OLD, tags::RESTORING_SINCE, "2025-10-27T12:25:00Z"),
            ErrorName::DeploymentKept,
        ),
    ] {
        let aws = with(change);
        assert_eq!(end(&aws).await.unwrap_err().name, name);
        assert!(aws.changes().is_empty(), "{aws:?}");
    }
}

#[test]
fn the_answer_is_as_documented() {
    let output = Output {
        verdict: Verdict::Deregistered,
        reason: "it drains".to_owned(),
    };
    let answer = json!({"verdict": "deregistered", "reason": "it drains"});
    assert_eq!(serde_json::to_value(output).unwrap(), answer);
}

#[tokio::test]
async fn a_registration_ends_only_by_the_name_of_its_deployment() {
    let aws = with(|_| {});
    let error = call(&aws, json!({"deregister": true})).await.unwrap_err();
    assert_eq!(error.name, ErrorName::InvalidInput);
    assert!(aws.changes().is_empty(), "{aws:?}");
}
