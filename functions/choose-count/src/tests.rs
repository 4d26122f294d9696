use super::*;
use memory_aws::{MemoryAws, State};
use serde_json::{Value, json};

const OLD: &str = "test-20251027-122112Z";
const NEW: &str = "test-20251027-122113Z";

/// An active deployment that asked for 2 tasks, and another one with a service of 2.
fn aws() -> MemoryAws {
    with(|_| ())
}

fn with(change: impl FnOnce(&mut State)) -> MemoryAws {
    let aws = MemoryAws::default();
    aws.with(|state| {
        for id in [OLD, NEW] {
            state.deploy(id, &[]);
            state.tag(id, tags::WANTED_COUNT, "2");
        }
        state.activate(OLD);
        change(state);
    });
    aws
}

fn scaled(count: u32) -> MemoryAws {
    with(|state| state.service(OLD)["desiredCount"] = json!(count))
}

async fn choose(aws: &MemoryAws, more: Value) -> Result<Output, StepError> {
    let mut input = json!({"deploymentId": NEW, "desiredCount": 2, "fromALaterVersion": 1});
    for (key, value) in more.as_object().unwrap() {
        input[key] = value.clone();
    }
    let clients = Clients::new(&aws.config());
    let input = serde_json::from_value(input).unwrap();
    run(&clients, &Baseline::for_tests(), input).await
}

/// Of the deployment whose service is not created yet.
async fn choose_at_first(aws: &MemoryAws, more: Value) -> Output {
    aws.with(|state| state.services.retain(|it| it["serviceName"] != NEW));
    choose(aws, more).await.unwrap()
}

fn count_of(aws: &MemoryAws, id: &str) -> Value {
    aws.with(|state| state.service(id)["desiredCount"].clone())
}

#[tokio::test]
async fn what_the_active_one_was_scaled_to_enters_and_the_reason_says_so() {
    let aws = scaled(6);
    let output = choose_at_first(&aws, json!({})).await;
    assert_eq!(output.desired_count, 6);
    assert_eq!(
        output.reason,
        format!("6 tasks, because {OLD}, which it replaces, has 6")
    );
    assert!(aws.changes().is_empty(), "{aws:?}");
}

#[tokio::test]
async fn what_the_active_one_asked_for_itself_does_not_enter() {
    // Its settings said 4, and now they say 2.
    let aws = scaled(4);
    aws.with(|state| state.tag(OLD, tags::WANTED_COUNT, "4"));
    let output = choose_at_first(&aws, json!({})).await;
    assert_eq!((output.verdict, output.desired_count), (Verdict::Enough, 2));
    assert!(
        output.reason.contains("was not scaled beyond the 4"),
        "{output:?}"
    );
    // Scaled to 5, all five are needed.
    let aws = scaled(5);
    aws.with(|state| state.tag(OLD, tags::WANTED_COUNT, "4"));
    assert_eq!(choose_at_first(&aws, json!({})).await.desired_count, 5);
}

#[tokio::test]
async fn an_active_one_that_was_scaled_down_or_less_makes_nothing_smaller() {
    for count in [0, 1, 3] {
        let aws = scaled(count);
        let output = choose_at_first(&aws, json!({"desiredCount": 4})).await;
        assert_eq!((output.verdict, output.desired_count), (Verdict::Enough, 4));
    }
    for count in [3, 4] {
        let output = choose_at_first(&scaled(count), json!({"desiredCount": 4})).await;
        let reason = format!("4 tasks, and {OLD}, which it replaces, has {count}");
        assert_eq!(output.reason, reason);
    }
}

#[tokio::test]
async fn one_task_is_called_so() {
    let output = choose_at_first(&scaled(1), json!({"desiredCount": 1})).await;
    assert!(output.reason.starts_with("1 task, "), "{output:?}");
}

#[tokio::test]
async fn what_a_rollback_gave_the_active_one_counts_only_beyond_what_it_asked_for() {
    for raised in ["3", "4"] {
        let aws = scaled(4);
        aws.with(|state| {
            state.tag(OLD, tags::WANTED_COUNT, "4");
            state.tag(OLD, tags::RAISED_COUNT, raised);
        });
        let output = choose_at_first(&aws, json!({})).await;
        assert_eq!((output.verdict, output.desired_count), (Verdict::Enough, 2));
        let why = "was not scaled beyond the 4 that it asked for";
        assert!(output.reason.contains(why), "{output:?}");
    }
}

#[tokio::test]
async fn of_an_active_one_of_an_earlier_version_every_task_counts() {
    for unreadable in ["", "many", "-1", "0", "1001"] {
        let aws = scaled(4);
        aws.with(|state| state.tag(OLD, tags::WANTED_COUNT, unreadable));
        assert_eq!(choose_at_first(&aws, json!({})).await.desired_count, 4);
    }
    let aws = scaled(4);
    aws.with(|state| state.group(OLD).tags.remove(tags::WANTED_COUNT));
    assert_eq!(choose_at_first(&aws, json!({})).await.desired_count, 4);
}

#[tokio::test]
async fn a_number_in_the_input_switches_parity_off_and_the_reason_says_so() {
    let aws = scaled(6);
    let output = choose_at_first(&aws, json!({"parity": false, "desiredCount": 3})).await;
    assert_eq!((output.verdict, output.desired_count), (Verdict::Enough, 3));
    assert!(
        output.reason.contains("as the input of the execution says"),
        "{output:?}"
    );
}

#[tokio::test]
async fn without_an_active_one_or_its_service_it_gets_what_it_asks_for() {
    let none = with(|state| state.listeners[0].default_actions.clear());
    let itself = with(|state| state.activate(NEW));
    let gone = with(|state| state.services.clear());
    let of_others = with(|state| state.service(OLD)["tags"] = json!([]));
    for aws in [none, itself, gone, of_others] {
        let output = choose_at_first(&aws, json!({})).await;
        assert_eq!((output.verdict, output.desired_count), (Verdict::Enough, 2));
    }
}

#[tokio::test]
async fn right_before_the_switch_a_candidate_follows_what_was_scaled_meanwhile() {
    let aws = scaled(6);
    let output = choose(&aws, json!({})).await.unwrap();
    assert_eq!((output.verdict, output.desired_count), (Verdict::Raised, 6));
    assert_eq!(
        aws.changes(),
        [format!("UpdateService {NEW} desiredCount=6")]
    );
    // Its answer was lost: the machine still knows of 2, and waits for the others.
    let output = choose(&aws, json!({})).await.unwrap();
    assert_eq!((output.verdict, output.desired_count), (Verdict::Raised, 6));
    assert_eq!(aws.count("UpdateService"), 1);
    // At the next look it has them.
    let output = choose(&aws, json!({"desiredCount": 6})).await.unwrap();
    assert_eq!(output.verdict, Verdict::Enough);
    // The active one is scaled in again, and nothing is taken away.
    aws.with(|state| state.service(OLD)["desiredCount"] = json!(3));
    let output = choose(&aws, json!({"desiredCount": 6})).await.unwrap();
    assert_eq!((output.verdict, output.desired_count), (Verdict::Enough, 6));
    assert_eq!(aws.count("UpdateService"), 1);
}

#[tokio::test]
async fn a_candidate_that_has_more_than_it_needs_keeps_them() {
    let aws = scaled(6);
    aws.with(|state| state.service(NEW)["desiredCount"] = json!(8));
    let output = choose(&aws, json!({})).await.unwrap();
    assert_eq!((output.verdict, output.desired_count), (Verdict::Raised, 6));
    assert!(aws.changes().is_empty(), "{aws:?}");
}

#[tokio::test]
async fn a_service_that_a_dead_execution_left_too_small_is_raised_and_one_of_others_is_not() {
    let aws = aws();
    let output = choose(&aws, json!({"desiredCount": 4})).await.unwrap();
    assert_eq!((output.verdict, output.desired_count), (Verdict::Raised, 4));
    assert_eq!(count_of(&aws, NEW), 4);

    let aws = with(|state| state.service(NEW)["tags"] = json!([]));
    choose(&aws, json!({"desiredCount": 4})).await.unwrap();
    assert!(aws.changes().is_empty(), "{aws:?}");
}

/// A rollback from the newer to the older one.
async fn roll_back(aws: &MemoryAws, more: Value) -> Result<Output, StepError> {
    let mut input = json!({"deploymentId": OLD, "rollBack": true, "replacedDeploymentId": NEW});
    for (key, value) in more.as_object().unwrap() {
        input[key] = value.clone();
    }
    choose(aws, input).await
}

fn live_with(count: u32, healthy: usize) -> MemoryAws {
    with(|state| {
        state.activate(NEW);
        state.service(NEW)["desiredCount"] = json!(count);
        state.tag(NEW, tags::WANTED_COUNT, &count.to_string());
        state.group(NEW).health = vec![json!({"State": "healthy"}); healthy];
    })
}

#[tokio::test]
async fn a_rollback_raises_its_target_to_all_that_it_replaces() {
    let aws = live_with(6, 6);
    let output = roll_back(&aws, json!({})).await.unwrap();
    assert_eq!((output.verdict, output.desired_count), (Verdict::Raised, 6));
    assert_eq!(
        aws.changes(),
        [
            format!("AddTags {OLD} pulse:raised-count"),
            format!("DeregisterScalableTarget {OLD}"),
            format!("UpdateService {OLD} desiredCount=6"),
        ]
    );
    let output = roll_back(&aws, json!({})).await.unwrap();
    assert_eq!(output.verdict, Verdict::Raised, "an answer was lost");
    assert_eq!(aws.count("UpdateService"), 1);
}

#[tokio::test]
async fn a_rollback_to_something_larger_or_from_nothing_changes_nothing() {
    let smaller = live_with(1, 1);
    let output = roll_back(&smaller, json!({})).await.unwrap();
    assert_eq!((output.verdict, output.desired_count), (Verdict::Enough, 2));
    let nothing = live_with(6, 6);
    let output = roll_back(&nothing, json!({"replacedDeploymentId": null})).await;
    assert_eq!(output.unwrap().verdict, Verdict::Enough);
    for aws in [smaller, nothing] {
        assert!(aws.changes().is_empty(), "{aws:?}");
    }
}

/// The tag that says how many tasks a rollback gave because of settings.
fn raised_tag(aws: &MemoryAws, id: &str) -> Option<String> {
    aws.with(|state| state.group(id).tags.get(tags::RAISED_COUNT).cloned())
}

/// The older one is kept warm between its own bounds.
fn register_old(aws: &MemoryAws) {
    aws.with(|state| {
        let bounds = json!({"MinCapacity": 2, "MaxCapacity": 4});
        let resource = format!("service/test/{OLD}");
        state.scalable_targets.insert(resource, bounds);
    });
}

fn is_registered(aws: &MemoryAws) -> bool {
    aws.with(|state| !state.scalable_targets.is_empty())
}

#[tokio::test]
async fn a_rollback_takes_its_target_from_the_scaler_before_it_raises_it() {
    let aws = live_with(6, 6);
    register_old(&aws);
    aws.on("UpdateService").before(|state, _| {
        assert!(state.scalable_targets.is_empty(), "{state:?}");
    });
    roll_back(&aws, json!({})).await.unwrap();
    assert_eq!(count_of(&aws, OLD), 6);
    assert!(!is_registered(&aws));

    // Another execution registers it in this moment.
    let aws = live_with(6, 6);
    register_old(&aws);
    aws.on("DeregisterScalableTarget").after(|state, _| {
        let resource = format!("service/test/{OLD}");
        state.scalable_targets.insert(resource, json!({}));
    });
    let error = roll_back(&aws, json!({})).await.unwrap_err();
    assert_eq!(error.name, ErrorName::Transient);
    assert_eq!(count_of(&aws, OLD), 2);
}

#[tokio::test]
async fn what_gets_no_more_tasks_or_is_deployed_stays_registered() {
    // As large as what it replaces; rescued before it is raised.
    for aws in [live_with(2, 2), live_with(6, 1)] {
        register_old(&aws);
        roll_back(&aws, json!({})).await.unwrap();
        assert!(is_registered(&aws), "{aws:?}");
    }
    let aws = scaled(6);
    register_old(&aws);
    choose(&aws, json!({})).await.unwrap();
    assert!(is_registered(&aws), "{aws:?}");
    assert_eq!(aws.count("DeregisterScalableTarget"), 0);
}

const NEXT: &str = "test-20251027-122114Z";

/// What replaces the older one after a rollback to it.
async fn replace_old(aws: &MemoryAws) -> Output {
    aws.with(|state| state.activate(OLD));
    choose(aws, json!({"deploymentId": NEXT})).await.unwrap()
}

#[tokio::test]
async fn what_a_rollback_gave_because_of_other_settings_does_not_enter() {
    let aws = live_with(6, 6);
    // Its answer is lost, or it dies: the tag is there before the tasks.
    aws.on("UpdateService").once().fails("ServerException");
    roll_back(&aws, json!({})).await.unwrap_err();
    assert_eq!(raised_tag(&aws, OLD).as_deref(), Some("6"));
    roll_back(&aws, json!({})).await.unwrap();
    assert_eq!(count_of(&aws, OLD), 6);
    let output = replace_old(&aws).await;
    assert_eq!(output.desired_count, 2);
    let reason = "was not scaled beyond the 6 that a rollback gave it";
    assert!(output.reason.contains(reason), "{output:?}");
    // Scaled further by hand.
    aws.with(|state| state.service(OLD)["desiredCount"] = json!(7));
    assert_eq!(replace_old(&aws).await.desired_count, 7);
}

#[tokio::test]
async fn what_the_replaced_one_was_scaled_to_still_counts_after_a_rollback() {
    let aws = live_with(6, 6);
    aws.with(|state| state.tag(NEW, tags::WANTED_COUNT, "3"));
    roll_back(&aws, json!({})).await.unwrap();
    assert_eq!(raised_tag(&aws, OLD).as_deref(), Some("3"));
    assert_eq!(replace_old(&aws).await.desired_count, 6);

    // Scaled below what it asked for.
    let aws = live_with(6, 6);
    aws.with(|state| state.tag(NEW, tags::WANTED_COUNT, "9"));
    roll_back(&aws, json!({})).await.unwrap();
    assert_eq!(raised_tag(&aws, OLD).as_deref(), Some("6"));

    // Not known of what it replaced.
    let aws = live_with(6, 6);
    aws.with(|state| state.group(NEW).tags.remove(tags::WANTED_COUNT));
    roll_back(&aws, json!({})).await.unwrap();
    assert_eq!(raised_tag(&aws, OLD), None);
    assert_eq!(replace_old(&aws).await.desired_count, 6);
}

#[tokio::test]
async fn what_one_rollback_gave_is_noted_by_the_next() {
    let aws = live_with(6, 6);
    aws.with(|state| {
        state.tag(NEW, tags::WANTED_COUNT, "2");
        state.tag(NEW, tags::RAISED_COUNT, "6");
    });
    roll_back(&aws, json!({})).await.unwrap();
    assert_eq!(replace_old(&aws).await.desired_count, 2);
}

#[tokio::test]
async fn of_what_follows_its_load_every_task_beyond_its_own_counts() {
    let aws = live_with(6, 6);
    roll_back(&aws, json!({})).await.unwrap();
    aws.with(|state| {
        state.tag(OLD, tags::SCALING, "max=10 cpuPercent=60");
        state.service(OLD)["desiredCount"] = json!(5);
    });
    assert_eq!(replace_old(&aws).await.desired_count, 5);
}

#[tokio::test]
async fn a_rescue_switches_first_and_raises_afterwards() {
    for (healthy, verdict) in [
        (0, Verdict::Later),
        (1, Verdict::Later),
        (2, Verdict::Raised),
    ] {
        let aws = live_with(6, healthy);
        let output = roll_back(&aws, json!({})).await.unwrap();
        assert_eq!((output.verdict, output.desired_count), (verdict, 6));
        let is_later = verdict == Verdict::Later;
        assert_eq!(
            output.reason.contains("after the switch"),
            is_later,
            "{output:?}"
        );
        assert_eq!(aws.changes().is_empty(), is_later, "{aws:?}");

        aws.with(|state| state.activate(OLD));
        roll_back(&aws, json!({"switched": true})).await.unwrap();
        assert_eq!(count_of(&aws, OLD), 6);
    }
    // Its target group is gone, as its service may be.
    let aws = live_with(6, 6);
    aws.with(|state| state.target_groups.retain(|it| it.name != NEW));
    assert_eq!(
        roll_back(&aws, json!({})).await.unwrap().verdict,
        Verdict::Later
    );
}

#[tokio::test]
async fn a_repair_raises_what_it_switched_to_and_knows_no_number_of_its_own() {
    // The replaced one should have 6, and none of them is healthy; or its service was deleted by hand.
    for (replaced, count) in [(6, 6), (0, 2)] {
        let aws = live_with(replaced, 0);
        aws.with(|state| state.activate(OLD));
        let repair = json!({"desiredCount": 1, "switched": true});
        roll_back(&aws, repair).await.unwrap();
        assert_eq!(count_of(&aws, OLD), count);
    }
}

#[tokio::test]
async fn a_target_that_lost_its_service_is_a_conflict() {
    let lost: [fn(&mut State, &memory_aws::Call); 2] = [
        |state, _| state.service(OLD)["status"] = "INACTIVE".into(),
        |state, _| state.services.retain(|it| it["serviceName"] != OLD),
    ];
    for lose in lost {
        let aws = live_with(6, 6);
        aws.on("UpdateService").before(lose);
        let error = roll_back(&aws, json!({})).await.unwrap_err();
        assert_eq!(error.name, ErrorName::ResourceConflict);
        assert!(error.message.contains(OLD), "{error}");
    }
    let aws = live_with(6, 6);
    aws.with(|state| state.services.retain(|it| it["serviceName"] != OLD));
    let error = roll_back(&aws, json!({})).await.unwrap_err();
    assert_eq!(error.name, ErrorName::ResourceConflict);
}

#[test]
fn the_answer_is_as_documented() {
    let output = Output {
        verdict: Verdict::Later,
        desired_count: 6,
        reason: "six".to_owned(),
    };
    let answer = json!({"verdict": "later", "desiredCount": 6, "reason": "six"});
    assert_eq!(serde_json::to_value(output).unwrap(), answer);
}
