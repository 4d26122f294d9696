use super::*;
use aws_sdk_elasticloadbalancingv2::Client;
use lifecycle::{Baseline, ErrorName, StepError};
use memory_aws::{
    MemoryAws, State, Tags, authenticate_cognito, authenticate_oidc, group_arn, own_tags, rule_arn,
    tags as pairs, validate_jwt,
};
use serde_json::{Value, json};

const ID: &str = "test-20251027-122112Z";
const OLDER: &str = "test-20251027-122111Z";
const NEWER: &str = "test-20251027-122113Z";
const UNRELATED: &str = "test-20250101-000000Z";

/// A listener that forwards to this deployment, with target groups and no rules; lists hold three
/// entries a page.
fn aws() -> MemoryAws {
    let aws = MemoryAws::default();
    aws.with(|state| {
        state.page_size = 3;
        for id in [ID, OLDER, NEWER, UNRELATED] {
            state.add_target_group(id, own_tags(id));
        }
        state.activate(ID);
    });
    aws
}

fn by_header(id: &str) -> Value {
    json!([{
        "Field": "http-header",
        "HttpHeaderConfig": {"HttpHeaderName": "X-Pulse-Render-Affinity", "Values": [id]},
    }])
}

fn by_cookie(id: &str) -> Value {
    let value = format!("*X-Pulse-Render-Affinity={id}*");
    json!([{
        "Field": "http-header",
        "HttpHeaderConfig": {"HttpHeaderName": "Cookie", "Values": [value]},
    }])
}

/// Adds a rule as this step makes it, but for the tags.
fn add(state: &mut State, priority: u32, tags: Tags) {
    state.add_rule(priority, ID, tags).conditions = match priority {
        ..20_100 => by_header(ID),
        _ => by_cookie(ID),
    };
}

/// Adds rules of another deployment.
fn add_others(state: &mut State, priorities: impl IntoIterator<Item = u32>) {
    for priority in priorities {
        state.add_rule(priority, UNRELATED, pairs([]));
    }
}

async fn run_step(aws: &MemoryAws) -> Result<Output, StepError> {
    run_step_for(aws, ID).await
}

fn priorities(output: &Output) -> (u32, u32) {
    let priority = |rule: &Option<ListenerRule>| rule.as_ref().expect("a rule").priority;
    (priority(&output.header_rule), priority(&output.cookie_rule))
}

async fn run_step_for(aws: &MemoryAws, id: &str) -> Result<Output, StepError> {
    run_with(aws, id, json!({"fromALaterVersion": 1})).await
}

/// The step that only attaches the target group.
async fn wait_step(aws: &MemoryAws) -> Result<Output, StepError> {
    run_with(aws, ID, json!({"waiting": true})).await
}

async fn run_with(aws: &MemoryAws, id: &str, more: Value) -> Result<Output, StepError> {
    let mut input = json!({"deploymentId": id, "targetGroupArn": group_arn(id)});
    for (key, value) in more.as_object().unwrap() {
        input[key] = value.clone();
    }
    let input = serde_json::from_value(input).unwrap();
    let secrets = aws_sdk_secretsmanager::Client::new(&aws.config());
    let elb = Client::new(&aws.config());
    let clock = || aws.time();
    run(&elb, &secrets, &Baseline::for_tests(), &clock, input).await
}

/// The priorities of the header rule and of the cookie rule.
async fn run_for_priorities(aws: &MemoryAws) -> (u32, u32) {
    let output = run_step(aws).await.unwrap();
    priorities(&output)
}

async fn try_undo(aws: &MemoryAws) -> Result<usize, StepError> {
    let elb = Client::new(&aws.config());
    undo(&elb, &Baseline::for_tests(), &ID.parse().unwrap()).await
}

async fn undo_step(aws: &MemoryAws) -> usize {
    try_undo(aws).await.unwrap()
}

#[tokio::test]
async fn both_rules_are_created_as_the_design_says() {
    let aws = aws();
    let output = run_step(&aws).await.unwrap();
    assert_eq!(
        serde_json::to_value(&output).unwrap(),
        json!({
            "headerRule": {"arn": rule_arn("rule-1"), "priority": 100},
            "cookieRule": {"arn": rule_arn("rule-2"), "priority": 20100},
            "waitingRule": null,
            "outcome": "created"
        })
    );
    let rules = aws.with(|state| state.rules.clone());
    assert_eq!(rules[0].conditions, by_header(ID));
    assert_eq!(rules[1].conditions, by_cookie(ID));
    for rule in rules {
        assert_eq!(rule.actions, [memory_aws::forward(&[(ID, 1)])]);
        assert_eq!(rule.tags, own_tags(ID));
    }
}

#[tokio::test]
async fn run_twice_it_creates_once() {
    let aws = aws();
    let first = run_step(&aws).await.unwrap();
    assert_eq!(first.outcome, Origin::Created);
    let second = run_step(&aws).await.unwrap();
    let outcome = Origin::Adopted;
    assert_eq!(second, Output { outcome, ..first });
    assert_eq!(aws.with(|state| state.priorities()), [100, 20100]);
}

#[tokio::test]
async fn a_run_that_died_between_the_two_rules_is_completed() {
    let aws = aws();
    aws.with(|state| add(state, 117, own_tags(ID)));
    assert_eq!(run_for_priorities(&aws).await, (117, 20100));
    assert_eq!(aws.with(|state| state.priorities()), [117, 20100]);
}

#[tokio::test]
async fn a_rule_with_our_tags_on_a_later_page_is_adopted() {
    let aws = aws();
    aws.with(|state| {
        add_others(state, 100..110);
        add(state, 150, own_tags(ID));
        add(state, 20150, own_tags(ID));
    });
    assert_eq!(run_for_priorities(&aws).await, (150, 20150));
    assert_eq!(aws.with(|state| state.priorities()).len(), 12);
}

#[tokio::test]
async fn a_rule_of_the_same_condition_without_our_tags_is_not_adopted() {
    let aws = aws();
    aws.with(|state| {
        add(state, 100, pairs([]));
        add(state, 20100, pairs([("pulse:deployment-id", ID)]));
    });
    assert_eq!(run_for_priorities(&aws).await, (101, 20101));
}

#[tokio::test]
async fn a_rule_that_adds_a_condition_or_forwards_elsewhere_is_not_adopted() {
    let aws = aws();
    aws.with(|state| {
        let both = [by_header(ID)[0].clone(), by_cookie(ID)[0].clone()];
        state.add_rule(100, ID, own_tags(ID)).conditions = both.into_iter().collect();
        state.add_rule(20100, UNRELATED, own_tags(ID)).conditions = by_cookie(ID);
    });
    assert_eq!(run_for_priorities(&aws).await, (101, 20101));
}

#[tokio::test]
async fn the_lowest_free_priority_is_used_and_gaps_are_filled() {
    let aws = aws();
    aws.with(|state| add_others(state, [1, 100, 101, 103, 20100, 20102, 50000]));
    assert_eq!(run_for_priorities(&aws).await, (102, 20101));
    let output = run_step_for(&aws, NEWER).await.unwrap();
    let priorities = priorities(&output);
    assert_eq!(priorities, (104, 20103));
}

/// The priority that a CreateRule asks for.
fn wanted(call: &memory_aws::Call) -> u32 {
    call.params["Priority"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_priority_lost_to_another_deployment_is_replaced_by_the_next_free_one() {
    let aws = aws();
    aws.on("CreateRule").before(|state, call| {
        if [100, 101, 20100].contains(&wanted(call)) {
            add_others(state, [wanted(call)]);
        }
    });
    assert_eq!(run_for_priorities(&aws).await, (102, 20101));
    assert_eq!(aws.count("CreateRule"), 5);
}

#[tokio::test]
async fn a_priority_in_use_by_our_own_rule_of_a_lost_answer_is_adopted() {
    let aws = aws();
    aws.on("CreateRule")
        .before(|state, call| add(state, wanted(call), own_tags(ID)));
    assert_eq!(run_for_priorities(&aws).await, (100, 20100));
    assert_eq!(aws.with(|state| state.priorities()), [100, 20100]);
    assert_eq!(aws.count("CreateRule"), 2);
}

#[tokio::test]
async fn a_list_of_rules_that_lags_behind_does_not_make_it_try_the_same_priority_again() {
    let aws = aws();
    aws.on("DescribeRules")
        .shows(aws.with(|state| state.clone()));
    aws.with(|state| add_others(state, 100..105));
    assert_eq!(run_for_priorities(&aws).await, (105, 20100));
    assert_eq!(aws.count("CreateRule"), 5 + 1 + 1);
}

#[tokio::test]
async fn a_race_that_is_always_lost_ends_and_is_tried_again_later() {
    let aws = aws();
    aws.on("CreateRule")
        .before(|state, call| add_others(state, [wanted(call)]));
    let error = run_step(&aws).await.unwrap_err();
    assert_eq!(error.name, ErrorName::Transient);
    assert_eq!(aws.count("CreateRule"), 20);
    assert!(error.message.contains(ID), "{error}");
}

#[tokio::test]
async fn a_full_listener_is_reported_as_a_quota() {
    let aws = aws();
    aws.with(|state| add_others(state, 1..=100));
    let error = run_step(&aws).await.unwrap_err();
    assert_eq!(error.name, ErrorName::QuotaExceeded);
    assert_eq!(aws.count("CreateRule"), 1);
    assert!(error.message.contains(ID), "{error}");
}

#[tokio::test]
async fn of_those_that_compete_for_the_last_rules_the_newest_waits_for_the_others_to_give_way() {
    for (others, name) in [
        (vec![OLDER], ErrorName::Transient),
        (vec![NEWER], ErrorName::QuotaExceeded),
        (vec![OLDER, NEWER], ErrorName::QuotaExceeded),
        // A deployment with both of its rules is past this step and gives nothing back.
        (vec![OLDER, OLDER], ErrorName::QuotaExceeded),
        (
            vec!["prod-20251027-122111Z", "unrelated"],
            ErrorName::QuotaExceeded,
        ),
    ] {
        let aws = aws();
        aws.with(|state| {
            add(state, 100, own_tags(ID));
            for (priority, other) in (101..).zip(&others) {
                state.add_rule(priority, other, pairs([])).conditions = by_header(OLDER);
            }
        });
        aws.on("CreateRule").fails("TooManyRules");
        let error = run_step(&aws).await.unwrap_err();
        assert_eq!(error.name, name, "{others:?}: {error}");
        assert_eq!(aws.count("CreateRule"), 1);
        assert!(error.message.contains("clean up older"), "{error}");
    }
}

#[test]
fn a_header_rule_never_takes_the_priority_of_a_cookie_rule() {
    let taken = |range: std::ops::RangeInclusive<u32>| -> Vec<Rule> {
        range
            .map(|p| Rule::builder().priority(p.to_string()).build())
            .collect()
    };
    let none = BTreeSet::new();
    let rules = taken(100..=20_098);
    assert_eq!(lowest_free(Affinity::Header, &rules, &none), Some(20_099));
    let rules = taken(100..=20_099);
    assert_eq!(lowest_free(Affinity::Header, &rules, &none), None);
    assert_eq!(lowest_free(Affinity::Cookie, &rules, &none), Some(20_100));
    let rules = taken(20_100..=50_000);
    assert_eq!(lowest_free(Affinity::Cookie, &rules, &none), None);
}

#[tokio::test]
async fn undo_deletes_all_rules_of_the_deployment_and_nothing_else() {
    let aws = aws();
    aws.with(|state| add_others(state, 100..104));
    run_step(&aws).await.unwrap();
    run_step_for(&aws, NEWER).await.unwrap();
    aws.with(|state| {
        // As two runs at once make it.
        add(state, 130, own_tags(ID));
        // Ours by the name of the target group, but not by tags.
        add(state, 131, pairs([]));
    });
    assert_eq!(undo_step(&aws).await, 3);
    let left = [100, 101, 102, 103, 105, 131, 20101];
    assert_eq!(aws.with(|state| state.priorities()), left);
    assert_eq!(undo_step(&aws).await, 0);
    assert_eq!(aws.with(|state| state.priorities()), left);
}

#[tokio::test]
async fn undo_never_deletes_the_default_rule() {
    let aws = aws();
    // The default action forwards to the deployment, and here even that rule carries its tags.
    aws.with(|state| {
        state.page_size = 400;
        let rule = state.add_rule(100, "elsewhere", own_tags(ID));
        rule.arn = rule_arn("default");
    });
    assert_eq!(undo_step(&aws).await, 0);
    assert_eq!(aws.count("DeleteRule"), 0);
}

#[tokio::test]
async fn undo_treats_rules_that_another_run_deletes_meanwhile_as_done() {
    // Gone after they were listed…
    let one = aws();
    run_step(&one).await.unwrap();
    one.on("DescribeTags")
        .once()
        .before(|state, _| drop(state.rules.remove(0)));
    assert_eq!(undo_step(&one).await, 1);

    // …and after their tags were read.
    let all = aws();
    run_step(&all).await.unwrap();
    all.on("DeleteRule").before(|state, _| state.rules.clear());
    assert_eq!(undo_step(&all).await, 0);
    assert_eq!(all.count("DeleteRule"), 2);
}

#[tokio::test]
async fn a_deletion_whose_answer_was_lost_succeeds_though_the_next_attempt_is_denied() {
    let aws = aws();
    run_step(&aws).await.unwrap();
    aws.on("DeleteRule").loses_the_answer("AccessDenied");
    assert_eq!(undo_step(&aws).await, 2);
    assert!(aws.with(|state| state.rules.is_empty()));
}

#[tokio::test]
async fn a_deletion_that_is_denied_is_reported_as_denied() {
    let aws = aws();
    run_step(&aws).await.unwrap();
    aws.on("DeleteRule").fails("AccessDenied");
    let error = try_undo(&aws).await.unwrap_err();
    assert_eq!(error.name, ErrorName::AccessDenied);
}

const CLIENT_SECRET: &str = "test/oidc-client-secret";

/// What each rule does before it forwards, and the number of its actions.
fn before_the_forward(aws: &MemoryAws) -> Vec<(Value, usize)> {
    let actions = aws.with(|state| state.rules.clone()).into_iter();
    let actions = actions.map(|rule| (rule.actions[0].clone(), rule.actions.len()));
    actions.collect()
}

#[tokio::test]
async fn what_the_default_action_does_before_it_forwards_the_rules_do_too() {
    for action in [
        authenticate_oidc("client"),
        authenticate_cognito("arn:aws:cognito-idp:us-east-1:1:userpool/us-east-1_a"),
        validate_jwt("https://login.example.com"),
    ] {
        let aws = aws();
        aws.with(|state| {
            state.put_before(action.clone());
            state
                .secrets
                .insert(CLIENT_SECRET.into(), "secret of client".into());
        });
        run_step(&aws).await.unwrap();
        assert_eq!(before_the_forward(&aws), [(action.clone(), 2), (action, 2)]);
    }
}

#[tokio::test]
async fn without_the_secret_of_the_oidc_client_no_rule_is_made() {
    let aws = aws();
    aws.with(|state| state.put_before(authenticate_oidc("client")));
    let error = run_step(&aws).await.unwrap_err();
    assert_eq!(error.name, ErrorName::Configuration);
    assert!(error.message.contains(CLIENT_SECRET), "{error}");
    assert!(aws.changes().is_empty());
}

#[tokio::test]
async fn beside_an_action_type_that_is_unknown_no_rule_is_made() {
    let aws = aws();
    aws.with(|state| state.put_before(json!({"Type": "check-passport", "Order": "1"})));
    let error = run_step(&aws).await.unwrap_err();
    assert_eq!(error.name, ErrorName::Configuration);
    assert!(error.message.contains("check-passport"), "{error}");
    assert!(aws.changes().is_empty());
}

#[tokio::test]
async fn rules_of_an_earlier_run_get_what_the_default_action_does_since_then() {
    let aws = aws();
    run_step(&aws).await.unwrap();
    run_step_for(&aws, NEWER).await.unwrap();
    let jwt = validate_jwt("https://login.example.com");
    aws.with(|state| state.put_before(jwt.clone()));
    aws.forget_calls();
    assert_eq!(run_step(&aws).await.unwrap().outcome, Origin::Adopted);
    assert_eq!(aws.changes(), ["ModifyRule rule-1", "ModifyRule rule-2"]);
    assert_eq!(before_the_forward(&aws)[..2], [(jwt.clone(), 2), (jwt, 2)]);
}

#[tokio::test]
async fn rules_that_are_as_they_should_be_need_no_secret() {
    let aws = aws();
    aws.with(|state| {
        state.put_before(authenticate_oidc("client"));
        state
            .secrets
            .insert(CLIENT_SECRET.into(), "secret of client".into());
    });
    run_step(&aws).await.unwrap();
    aws.with(|state| state.secrets.clear());
    assert_eq!(run_step(&aws).await.unwrap().outcome, Origin::Adopted);
}

#[tokio::test]
async fn while_a_maintenance_page_is_up_no_rule_is_made_or_loses_its_login() {
    let aws = aws();
    aws.with(|state| {
        add(state, 100, own_tags(ID));
        state.rules[0]
            .actions
            .insert(0, authenticate_cognito("pool"));
        let page = memory_aws::fixed_response("503", "We are back at noon.");
        state.listeners[0].default_actions = vec![page];
    });
    let error = run_step(&aws).await.unwrap_err();
    assert_eq!(error.name, ErrorName::DefaultActionNotOurs);
    assert_eq!(aws.changes(), Vec::<String>::new());
}

#[tokio::test]
async fn a_deployment_that_waits_for_its_tasks_has_a_rule_that_no_request_matches() {
    let aws = aws();
    for origin in [Origin::Created, Origin::Adopted] {
        let output = wait_step(&aws).await.unwrap();
        assert_eq!(output.outcome, origin);
        assert_eq!(output.waiting_rule.unwrap().priority, 100);
        assert_eq!((output.header_rule, output.cookie_rule), (None, None));
    }
    let conditions = aws.with(|state| state.rules[0].conditions.clone());
    let no_request =
        json!([{"Field": "source-ip", "SourceIpConfig": {"Values": ["192.0.2.0/32"]}}]);
    assert_eq!(conditions, no_request);
    assert_eq!(aws.with(|state| state.rules.len()), 1);

    // Its tasks are there: the rules that pin take its place, and at no moment it needs a third one.
    aws.forget_calls();
    assert_eq!(priorities(&run_step(&aws).await.unwrap()), (101, 20_100));
    let changes = aws.changes().into_iter();
    let kinds: Vec<_> = changes
        .map(|it| it.split(' ').next().unwrap().to_owned())
        .collect();
    assert_eq!(kinds, ["CreateRule", "DeleteRule", "CreateRule"]);
    assert_eq!(priorities(&run_step(&aws).await.unwrap()), (101, 20_100));
    assert_eq!(aws.with(|state| state.rules.len()), 2);
}

#[tokio::test]
async fn a_waiting_rule_that_another_run_deletes_or_whose_deletion_lost_its_answer_is_done() {
    for prepare in [
        (|aws: &MemoryAws| {
            aws.on("DeleteRule").once().before(|state, _| {
                state.rules.retain(|rule| rule.priority != 100);
            })
        }) as fn(&MemoryAws),
        |aws| {
            aws.on("DeleteRule")
                .once()
                .loses_the_answer("InternalFailure")
        },
    ] {
        let aws = aws();
        wait_step(&aws).await.unwrap();
        prepare(&aws);
        assert_eq!(priorities(&run_step(&aws).await.unwrap()), (101, 20_100));
        assert_eq!(aws.with(|state| state.rules.len()), 2);
    }
}

#[tokio::test]
async fn a_rule_that_cannot_be_created_is_named_and_no_quota_is_blamed() {
    for (waiting, kind) in [(false, "header"), (true, "waiting")] {
        let aws = aws();
        // One that lacks a rule, as those do that compete for the last ones.
        aws.with(|state| state.add_rule(101, OLDER, pairs([])).conditions = by_header(OLDER));
        aws.on("CreateRule").fails("AccessDenied");
        let error = run_with(&aws, ID, json!({"waiting": waiting}))
            .await
            .unwrap_err();
        assert_eq!(error.name, ErrorName::AccessDenied);
        let attempt = format!("create the {kind} rule of {ID} with priority 100");
        assert!(error.message.contains(&attempt), "{error}");
    }
    let aws = aws();
    aws.on("CreateRule")
        .containing("Cookie")
        .fails("AccessDenied");
    let error = run_step(&aws).await.unwrap_err();
    let attempt = format!("create the cookie rule of {ID} with priority 20100");
    assert!(error.message.contains(&attempt), "{error}");
}

#[tokio::test]
async fn a_rule_with_the_pin_of_another_deployment_is_not_adopted() {
    let aws = aws();
    aws.with(|state| state.add_rule(100, ID, own_tags(ID)).conditions = by_header(OLDER));
    assert_eq!(priorities(&run_step(&aws).await.unwrap()), (101, 20_100));
}

/// The step of a cleanup that makes missing rules of the active deployment again.
async fn make_again(aws: &MemoryAws) -> Result<Output, StepError> {
    run_with(aws, ID, json!({"onlyIfActive": true})).await
}

/// A rollback switches away from the deployment, and evicts it or not.
fn rolls_back(state: &mut State, evicts: bool) {
    state.activate(OLDER);
    let mark = "2025-10-27T12:29:00Z";
    state.tag(ID, tags::ROLLED_BACK_AT, mark);
    if evicts {
        state.tag(ID, tags::EVICTED_AT, mark);
        state.rules.retain(|rule| rule.tags != own_tags(ID));
    }
}

#[tokio::test]
async fn a_missing_rule_of_the_active_deployment_is_made_again() {
    for left in [100, 20_100] {
        let aws = aws();
        aws.with(|state| add(state, left, own_tags(ID)));
        assert_eq!(make_again(&aws).await.unwrap().outcome, Origin::Created);
        assert_eq!(aws.with(|state| state.priorities()), [100, 20_100]);
        assert_eq!(make_again(&aws).await.unwrap().outcome, Origin::Adopted);
    }
}

#[tokio::test]
async fn what_is_not_active_any_more_gets_no_rule_of_a_cleanup() {
    for evicts in [true, false] {
        let aws = aws();
        aws.with(|state| {
            add(state, 100, own_tags(ID));
            rolls_back(state, evicts);
        });
        let error = make_again(&aws).await.unwrap_err();
        assert_eq!(error.name, ErrorName::DeploymentKept);
        assert!(error.message.contains(ID), "{error}");
        assert_eq!(aws.changes(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn rules_that_come_too_late_for_an_eviction_are_deleted_again() {
    // The rollback evicts before this step makes the first rule, and between the two.
    for nth in [1, 2] {
        let aws = aws();
        aws.on("CreateRule")
            .nth(nth)
            .before(|state, _| rolls_back(state, true));
        let error = make_again(&aws).await.unwrap_err();
        assert_eq!(error.name, ErrorName::DeploymentKept);
        assert_eq!(aws.count("CreateRule"), 2);
        assert_eq!(aws.with(|state| state.priorities()), [0; 0]);
    }
    // Those of an attempt that died then, too.
    let aws = aws();
    aws.with(|state| {
        rolls_back(state, true);
        add(state, 100, own_tags(ID));
    });
    make_again(&aws).await.unwrap_err();
    assert_eq!(aws.changes(), ["DeleteRule rule-1"]);
}

#[tokio::test]
async fn rules_of_what_is_not_evicted_or_is_being_rolled_back_to_stay() {
    for (evicts, is_restored) in [(false, false), (true, true)] {
        let aws = aws();
        aws.on("CreateRule").nth(2).after(move |state, _| {
            rolls_back(state, evicts);
            if is_restored {
                // A rollback to it has made them again.
                state.tag(ID, tags::RESTORING_SINCE, "2025-10-27T12:30:00Z");
                add(state, 110, own_tags(ID));
            }
        });
        let error = make_again(&aws).await.unwrap_err();
        assert_eq!(error.name, ErrorName::DeploymentKept);
        assert_eq!(aws.count("DeleteRule"), 0);
    }
}
