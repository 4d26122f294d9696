use super::*;
use lifecycle::{ErrorName, tags};
use memory_aws::{MemoryAws, NOW, State, fixed_response};
use serde_json::json;

/// What the rollback goes to.
const GOOD: &str = "test-20251027-122111Z";
/// What it takes back.
const BAD: &str = "test-20251027-122112Z";
const WORSE: &str = "test-20251027-122113Z";
/// When the rollback marked them.
const MARK: &str = "2025-10-27T12:29:00Z";

/// The rollback has switched.
fn rolled_back() -> MemoryAws {
    let aws = MemoryAws::default();
    aws.with(|state| {
        for id in [GOOD, BAD, WORSE] {
            state.deploy(id, &[tags::READY_AT, tags::LIVE_SINCE]);
            state.tag(id, tags::READY_AT, "2025-10-27T12:00:00Z");
        }
        for id in [BAD, WORSE] {
            state.tag(id, tags::ROLLED_BACK_AT, MARK);
        }
        state.activate(GOOD);
    });
    aws
}

async fn evict(aws: &MemoryAws, ids: &[&str]) -> Result<Output, StepError> {
    aws.forget_calls();
    let elb = Client::new(&aws.config());
    let rolled_back: Vec<_> = ids
        .iter()
        .map(|id| json!({"deploymentId": id, "rolledBackAt": MARK}))
        .collect();
    let input = serde_json::from_value(json!({"rolledBack": rolled_back})).unwrap();
    run(&elb, &Baseline::for_tests(), &|| aws.time(), input).await
}

/// How many rules forward to a deployment.
fn rules(aws: &MemoryAws, id: &str) -> usize {
    aws.with(|state| {
        let rules = state.rules.iter();
        rules
            .filter(|rule| format!("{:?}", rule.actions).contains(id))
            .count()
    })
}

#[tokio::test]
async fn what_was_taken_back_loses_its_rules_and_nothing_else() {
    let aws = rolled_back();
    for deletes in [2, 0] {
        let output = evict(&aws, &[BAD]).await.unwrap();
        assert_eq!(output.evicted, [BAD.parse().unwrap()]);
        assert_eq!(output.kept, [""; 0]);
        let changes = aws.changes();
        // The tag is there before the first rule goes.
        assert_eq!(changes[0], format!("AddTags {BAD} pulse:evicted-at"));
        assert_eq!(aws.count("DeleteRule"), deletes, "{changes:?}");
        assert_eq!(changes.len(), 1 + deletes, "{changes:?}");
    }
    assert_eq!([GOOD, BAD, WORSE].map(|id| rules(&aws, id)), [2, 0, 2]);
    aws.with(|state| assert_eq!(state.service(BAD)["desiredCount"], json!(2)));
    let now = aws.time();
    aws.with(|state| {
        let tags = |id: &str, state: &mut State| state.group(id).tags.clone().into_iter().collect();
        assert!(tags::is_evicted(&tags(BAD, state), now));
        assert!(!tags::is_evicted(&tags(WORSE, state), now));
        // A switch to it ends that.
        state.tag(BAD, tags::READY_AT, "2025-10-27T12:31:00Z");
        let later = now + time::Duration::minutes(2);
        assert!(!tags::is_evicted(&tags(BAD, state), later));
    });
}

#[tokio::test]
async fn what_is_wanted_or_was_not_taken_back_by_this_rollback_keeps_its_visitors() {
    type Change = fn(&mut State);
    let changes: [(Change, &str); 6] = [
        (|state| state.activate(BAD), "default action"),
        (
            |state| state.listeners[0].default_actions = vec![fixed_response("503", "noon")],
            "no deployment is active",
        ),
        (
            |state| state.tag(BAD, tags::PROTECTED, "yes"),
            tags::PROTECTED,
        ),
        (
            |state| {
                let since = lifecycle::tags::timestamp(
                    time::UtcDateTime::from_unix_timestamp(NOW).unwrap(),
                );
                state.tag(BAD, tags::RESTORING_SINCE, &since);
            },
            tags::RESTORING_SINCE,
        ),
        (
            |state| state.tag(BAD, tags::ROLLED_BACK_AT, "2025-10-27T12:29:30Z"),
            "mark",
        ),
        (
            |state| drop(state.group(BAD).tags.remove(tags::ROLLED_BACK_AT)),
            "mark",
        ),
    ];
    for (change, words) in changes {
        // Before the eviction, and between its two deletions.
        let aws = rolled_back();
        aws.with(change);
        let output = evict(&aws, &[BAD, WORSE]).await.unwrap();
        assert!(!output.evicted.contains(&BAD.parse().unwrap()), "{words}");
        assert!(
            output.kept[0].starts_with(&format!("{BAD} is not evicted: ")),
            "{output:?}"
        );
        assert!(output.kept[0].contains(words), "{output:?}");
        assert_eq!(rules(&aws, BAD), 2, "{words}");

        let aws = rolled_back();
        aws.on("DeleteRule")
            .once()
            .after(move |state, _| change(state));
        let output = evict(&aws, &[BAD]).await.unwrap();
        assert_eq!(output.evicted, [], "{words}");
        assert_eq!(rules(&aws, BAD), 1, "{words}");
    }
}

#[tokio::test]
async fn one_that_is_protected_does_not_keep_the_others() {
    let aws = rolled_back();
    aws.with(|state| state.tag(BAD, tags::PROTECTED, "yes"));
    let output = evict(&aws, &[BAD, WORSE]).await.unwrap();
    assert_eq!(output.evicted, [WORSE.parse().unwrap()]);
    assert_eq!(output.kept.len(), 1);
    assert_eq!([BAD, WORSE].map(|id| rules(&aws, id)), [2, 0]);
}

#[tokio::test]
async fn one_that_fails_does_not_keep_the_others_and_is_tried_again() {
    let aws = rolled_back();
    aws.on("AddTags").once().fails("ThrottlingException");
    let error = evict(&aws, &[BAD, WORSE]).await.unwrap_err();
    assert_eq!(error.name, ErrorName::Transient);
    assert!(error.message.contains(BAD), "{error}");
    assert_eq!([BAD, WORSE].map(|id| rules(&aws, id)), [2, 0]);
    let output = evict(&aws, &[BAD, WORSE]).await.unwrap();
    assert_eq!(output.evicted.len(), 2);
    assert_eq!([BAD, WORSE].map(|id| rules(&aws, id)), [0, 0]);
}

#[tokio::test]
async fn a_deletion_whose_answer_is_lost_is_found_done() {
    let aws = rolled_back();
    aws.on("DeleteRule")
        .once()
        .loses_the_answer("InternalFailure");
    let output = evict(&aws, &[BAD]).await.unwrap();
    assert_eq!(output.evicted.len(), 1);
    assert_eq!(rules(&aws, BAD), 0);
}

#[tokio::test]
async fn one_that_is_gone_has_no_visitors() {
    let aws = rolled_back();
    aws.with(|state| {
        state.rules.clear();
        state.target_groups.retain(|group| group.name != BAD);
    });
    let output = evict(&aws, &[BAD]).await.unwrap();
    assert_eq!(output.evicted, [BAD.parse().unwrap()]);
    assert_eq!(aws.changes(), [""; 0]);
}

#[tokio::test]
async fn rules_without_its_tags_stay() {
    let aws = rolled_back();
    aws.with(|state| _ = state.add_rule(7, BAD, memory_aws::tags([])));
    evict(&aws, &[BAD]).await.unwrap();
    assert_eq!(rules(&aws, BAD), 1);
}

#[tokio::test]
async fn rules_stay_while_a_switch_that_did_not_see_the_rollback_may_be_in_flight() {
    let announced = defaults::SWITCH_ANNOUNCED.whole_seconds();
    for (ago, is_evicted) in [(0, false), (announced - 1, false), (announced, true)] {
        let aws = rolled_back();
        let at = aws.time() - time::Duration::seconds(ago);
        aws.with(|state| state.tag(BAD, tags::READY_AT, &tags::timestamp(at)));
        let ended = evict(&aws, &[BAD]).await;
        assert_eq!(ended.is_ok(), is_evicted, "{ago}: {ended:?}");
        assert_eq!(rules(&aws, BAD), if is_evicted { 0 } else { 2 }, "{ago}");
        // If every try comes too early, a cleanup takes the visitors along.
        assert!(aws.with(|state| state.has_tag(BAD, tags::EVICTED_AT)));
        if let Err(error) = ended {
            assert_eq!(error.name, ErrorName::Transient);
            assert!(error.message.contains(BAD), "{error}");
        }
    }
}

#[tokio::test]
async fn a_candidate_that_was_taken_back_is_left_to_its_execution() {
    let aws = rolled_back();
    aws.with(|state| drop(state.group(BAD).tags.remove(tags::LIVE_SINCE)));
    let output = evict(&aws, &[BAD, WORSE]).await.unwrap();
    assert_eq!(output.evicted, [WORSE.parse().unwrap()]);
    assert!(output.kept[0].contains("never live"), "{output:?}");
    assert_eq!(rules(&aws, BAD), 2);
    assert!(!aws.with(|state| state.has_tag(BAD, tags::EVICTED_AT)));
}

#[tokio::test]
async fn a_rule_is_deleted_soon_after_a_look_and_by_one_attempt() {
    let aws = rolled_back();
    let late = defaults::LOOK_IS_FRESH.whole_seconds() + 1;
    // The second look, which is the one before the first deletion.
    aws.on("DescribeListeners")
        .nth(2)
        .after(move |state, _| state.now += late);
    let error = evict(&aws, &[BAD]).await.unwrap_err();
    assert_eq!(error.name, ErrorName::Transient);
    assert_eq!(aws.count("DeleteRule"), 0);

    let aws = rolled_back();
    aws.on("DeleteRule").fails("ThrottlingException");
    let retries = memory_aws::RetryConfig::standard()
        .with_max_attempts(3)
        .with_initial_backoff(std::time::Duration::from_millis(1));
    let elb = Client::new(&aws.config_with(retries));
    let rolled_back = json!({"rolledBack": [{"deploymentId": BAD, "rolledBackAt": MARK}]});
    let input = serde_json::from_value(rolled_back).unwrap();
    let ended = run(&elb, &Baseline::for_tests(), &|| aws.time(), input).await;
    assert_eq!(ended.unwrap_err().name, ErrorName::Transient);
    assert_eq!(aws.count("DeleteRule"), 1);
}
