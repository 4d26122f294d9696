use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::*;
use aws_sdk_elasticloadbalancingv2::error::ErrorMetadata;
use aws_sdk_elasticloadbalancingv2::operation::create_rule::{
    CreateRuleError, CreateRuleInput, CreateRuleOutput,
};
use aws_sdk_elasticloadbalancingv2::operation::delete_rule::{DeleteRuleError, DeleteRuleOutput};
use aws_sdk_elasticloadbalancingv2::operation::describe_rules::DescribeRulesOutput;
use aws_sdk_elasticloadbalancingv2::operation::describe_tags::{
    DescribeTagsError, DescribeTagsOutput,
};
use aws_sdk_elasticloadbalancingv2::types::TagDescription;
use aws_sdk_elasticloadbalancingv2::types::{Action, ActionTypeEnum, Tag};
use aws_smithy_mocks::{MockResponse, Rule as Mock, RuleMode, mock, mock_client};
use serde_json::json;

/// The rules of the listener, listed a few a page.
#[derive(Clone, Default)]
struct Elb {
    rules: Arc<Mutex<Vec<Tagged>>>,
    made: Arc<AtomicUsize>,
}

type Tagged = (Rule, Vec<Tag>);

const PAGE: usize = 3;

impl Elb {
    fn add(&self, request: &CreateRuleInput) -> Rule {
        let number = self.made.fetch_add(1, Ordering::SeqCst) + 1;
        let rule = Rule::builder()
            .rule_arn(format!("rule-{number}"))
            .priority(request.priority().unwrap().to_string())
            .is_default(false)
            .set_conditions(request.conditions.clone())
            .set_actions(request.actions.clone())
            .build();
        let tags = request.tags().to_vec();
        self.rules.lock().unwrap().push((rule.clone(), tags));
        rule
    }

    /// A rule of another service or deployment.
    fn add_other(&self, priority: u32) {
        let request = request(Affinity::Header, "test-20250101-000000Z", priority, &[]);
        self.add(&request);
    }

    fn priorities(&self) -> Vec<u32> {
        let rules = self.rules.lock().unwrap();
        let mut all: Vec<u32> = rules
            .iter()
            .filter_map(|(r, _)| ListenerRule::of(r).map(|it| it.priority))
            .collect();
        all.sort();
        all
    }

    fn lists(&self) -> Mock {
        let rules = Arc::clone(&self.rules);
        mock!(Client::describe_rules)
            .match_requests(|request| {
                request.listener_arn() == Some(Settings::for_tests().listener_arn.as_str())
            })
            .then_compute_output(move |request| {
                let from: usize = request.marker().map_or(0, |marker| marker.parse().unwrap());
                let default = Rule::builder()
                    .rule_arn("default-rule")
                    .priority("default")
                    .is_default(true)
                    .actions(forward(&group("test-20251027-122112Z")))
                    .build();
                let all: Vec<Rule> = std::iter::once(default)
                    .chain(rules.lock().unwrap().iter().map(|(rule, _)| rule.clone()))
                    .collect();
                DescribeRulesOutput::builder()
                    .set_next_marker((from + PAGE < all.len()).then(|| (from + PAGE).to_string()))
                    .set_rules(Some(all.into_iter().skip(from).take(PAGE).collect()))
                    .build()
            })
    }

    fn reads_tags(&self) -> Mock {
        let rules = Arc::clone(&self.rules);
        mock!(Client::describe_tags).then_compute_response(move |request| {
            let rules = rules.lock().unwrap();
            let mut answer = DescribeTagsOutput::builder();
            assert!((1..=20).contains(&request.resource_arns().len()));
            for arn in request.resource_arns() {
                let Some((_, tags)) = rules.iter().find(|(r, _)| r.rule_arn() == Some(arn)) else {
                    return MockResponse::Error(DescribeTagsError::generic(says("RuleNotFound")));
                };
                answer = answer.tag_descriptions(
                    TagDescription::builder()
                        .resource_arn(arn)
                        .set_tags(Some(tags.clone()))
                        .build(),
                );
            }
            MockResponse::Output(answer.build())
        })
    }

    fn creates(&self) -> Mock {
        let elb = self.clone();
        mock!(Client::create_rule).then_compute_response(move |request| {
            if elb
                .priorities()
                .contains(&(request.priority().unwrap() as u32))
            {
                return MockResponse::Error(CreateRuleError::generic(says("PriorityInUse")));
            }
            MockResponse::Output(CreateRuleOutput::builder().rules(elb.add(request)).build())
        })
    }

    fn deletes(&self) -> Mock {
        let rules = Arc::clone(&self.rules);
        mock!(Client::delete_rule).then_compute_response(move |request| {
            let mut rules = rules.lock().unwrap();
            let Some(index) = rules
                .iter()
                .position(|(rule, _)| rule.rule_arn() == request.rule_arn())
            else {
                return MockResponse::Error(DeleteRuleError::generic(says("RuleNotFound")));
            };
            rules.remove(index);
            MockResponse::Output(DeleteRuleOutput::builder().build())
        })
    }

    /// A client that this listener answers, after the given rules.
    fn client(&self, first: &[&Mock]) -> Client {
        let own = [
            self.lists(),
            self.reads_tags(),
            self.creates(),
            self.deletes(),
        ];
        let rules: Vec<&Mock> = first.iter().copied().chain(&own).collect();
        mock_client!(aws_sdk_elasticloadbalancingv2, RuleMode::MatchAny, rules)
    }
}

fn says(code: &str) -> ErrorMetadata {
    ErrorMetadata::builder().code(code).message("why").build()
}

fn group(id: &str) -> String {
    format!("arn:aws:elasticloadbalancing:us-east-1:1:targetgroup/{id}/abc")
}

fn forward(target_group: &str) -> Action {
    Action::builder()
        .r#type(ActionTypeEnum::Forward)
        .target_group_arn(target_group)
        .build()
}

fn request(affinity: Affinity, id: &str, priority: u32, tags: &[(&str, &str)]) -> CreateRuleInput {
    let tags = tags
        .iter()
        .map(|(key, value)| Tag::builder().key(*key).value(*value).build())
        .collect();
    CreateRuleInput::builder()
        .priority(priority as i32)
        .conditions(affinity.condition(&id.parse().unwrap()))
        .actions(forward(&group(id)))
        .set_tags(Some(tags))
        .build()
        .unwrap()
}

const ID: &str = "test-20251027-122112Z";
const OURS: [(&str, &str); 2] = [("pulse:deployment-id", ID), ("pulse:environment", "test")];

async fn ran(client: &Client) -> Result<Output, StepError> {
    ran_for(client, ID).await
}

async fn ran_for(client: &Client, id: &str) -> Result<Output, StepError> {
    let input = json!({"deploymentId": id, "targetGroupArn": group(id), "fromALaterVersion": 1});
    let input = serde_json::from_value(input).unwrap();
    run(client, &Settings::for_tests(), input).await
}

async fn undone(client: &Client) -> usize {
    undo(client, &Settings::for_tests(), &ID.parse().unwrap())
        .await
        .unwrap()
}

#[tokio::test]
async fn both_rules_are_created_as_the_design_says() {
    let elb = Elb::default();
    let output = ran(&elb.client(&[])).await.unwrap();
    assert_eq!(
        serde_json::to_value(&output).unwrap(),
        json!({
            "headerRule": {"arn": "rule-1", "priority": 100},
            "cookieRule": {"arn": "rule-2", "priority": 20100}
        })
    );
    let rules = elb.rules.lock().unwrap();
    let told: Vec<_> = rules
        .iter()
        .map(|(rule, tags)| {
            let [condition] = rule.conditions() else {
                panic!("one condition")
            };
            assert_eq!(condition.field(), Some("http-header"));
            let header = condition.http_header_config().unwrap();
            let [action] = rule.actions() else {
                panic!("one action")
            };
            assert_eq!(action.target_group_arn(), Some(group(ID).as_str()));
            let tags: Vec<_> = tags
                .iter()
                .map(|tag| (tag.key().unwrap(), tag.value().unwrap()))
                .collect();
            assert_eq!(tags, OURS);
            (header.http_header_name().unwrap(), header.values())
        })
        .collect();
    assert_eq!(
        told,
        [
            ("X-Pulse-Render-Affinity", &[ID.to_owned()] as &[String]),
            ("Cookie", &[format!("*X-Pulse-Render-Affinity={ID}*")]),
        ]
    );
}

#[tokio::test]
async fn run_twice_it_creates_once() {
    let elb = Elb::default();
    let client = elb.client(&[]);
    let first = ran(&client).await.unwrap();
    assert_eq!(ran(&client).await.unwrap(), first);
    assert_eq!(elb.priorities(), [100, 20100]);
}

#[tokio::test]
async fn a_run_that_died_between_the_two_rules_is_completed() {
    let elb = Elb::default();
    elb.add(&request(Affinity::Header, ID, 117, &OURS));
    let output = ran(&elb.client(&[])).await.unwrap();
    assert_eq!(
        (output.header_rule.priority, output.cookie_rule.priority),
        (117, 20100)
    );
    assert_eq!(elb.priorities(), [117, 20100]);
}

#[tokio::test]
async fn a_rule_with_our_tags_on_a_later_page_is_adopted() {
    let elb = Elb::default();
    for priority in 100..110 {
        elb.add_other(priority);
    }
    elb.add(&request(Affinity::Header, ID, 150, &OURS));
    elb.add(&request(Affinity::Cookie, ID, 20150, &OURS));
    let output = ran(&elb.client(&[])).await.unwrap();
    assert_eq!(
        (output.header_rule.priority, output.cookie_rule.priority),
        (150, 20150)
    );
    assert_eq!(elb.priorities().len(), 12);
}

#[tokio::test]
async fn a_rule_of_the_same_condition_without_our_tags_is_not_adopted() {
    let elb = Elb::default();
    elb.add(&request(Affinity::Header, ID, 100, &[]));
    elb.add(&request(Affinity::Cookie, ID, 20100, &OURS[..1]));
    let output = ran(&elb.client(&[])).await.unwrap();
    assert_eq!(
        (output.header_rule.priority, output.cookie_rule.priority),
        (101, 20101)
    );
}

#[tokio::test]
async fn a_rule_that_adds_a_condition_or_forwards_elsewhere_is_not_adopted() {
    let elb = Elb::default();
    let mut narrower = request(Affinity::Header, ID, 100, &OURS);
    narrower
        .conditions
        .as_mut()
        .unwrap()
        .push(Affinity::Cookie.condition(&ID.parse().unwrap()));
    elb.add(&narrower);
    let mut elsewhere = request(Affinity::Cookie, ID, 20100, &OURS);
    elsewhere.actions = Some(vec![forward("another")]);
    elb.add(&elsewhere);
    let output = ran(&elb.client(&[])).await.unwrap();
    assert_eq!(
        (output.header_rule.priority, output.cookie_rule.priority),
        (101, 20101)
    );
}

#[tokio::test]
async fn the_lowest_free_priority_is_used_and_gaps_are_filled() {
    let elb = Elb::default();
    for priority in [1, 100, 101, 103, 20100, 20102, 50000] {
        elb.add_other(priority);
    }
    let client = elb.client(&[]);
    let output = ran(&client).await.unwrap();
    assert_eq!(
        (output.header_rule.priority, output.cookie_rule.priority),
        (102, 20101)
    );
    let output = ran_for(&client, "test-20251027-122113Z").await.unwrap();
    assert_eq!(
        (output.header_rule.priority, output.cookie_rule.priority),
        (104, 20103)
    );
}

/// CreateRule does `meanwhile`, as somebody who is faster, before it answers.
fn races(elb: &Elb, meanwhile: impl Fn(&Elb, &CreateRuleInput) + Send + Sync + 'static) -> Mock {
    let elb = elb.clone();
    mock!(Client::create_rule).then_compute_response(move |request| {
        meanwhile(&elb, request);
        if elb
            .priorities()
            .contains(&(request.priority().unwrap() as u32))
        {
            return MockResponse::Error(CreateRuleError::generic(says("PriorityInUse")));
        }
        MockResponse::Output(CreateRuleOutput::builder().rules(elb.add(request)).build())
    })
}

#[tokio::test]
async fn a_priority_lost_to_another_deployment_is_replaced_by_the_next_free_one() {
    let elb = Elb::default();
    let raced = races(&elb, |elb, request| {
        let wanted = request.priority().unwrap() as u32;
        if [100, 101, 20100].contains(&wanted) && !elb.priorities().contains(&wanted) {
            elb.add_other(wanted);
        }
    });
    let output = ran(&elb.client(&[&raced])).await.unwrap();
    assert_eq!(
        (output.header_rule.priority, output.cookie_rule.priority),
        (102, 20101)
    );
    assert_eq!(raced.num_calls(), 5);
}

#[tokio::test]
async fn a_priority_in_use_by_our_own_rule_of_a_lost_answer_is_adopted() {
    let elb = Elb::default();
    let raced = races(&elb, |elb, request| {
        elb.add(request);
    });
    let output = ran(&elb.client(&[&raced])).await.unwrap();
    assert_eq!(
        (output.header_rule.priority, output.cookie_rule.priority),
        (100, 20100)
    );
    assert_eq!(elb.priorities(), [100, 20100]);
    assert_eq!(raced.num_calls(), 2);
}

#[tokio::test]
async fn a_list_of_rules_that_lags_behind_does_not_make_it_try_the_same_priority_again() {
    let elb = Elb::default();
    let lagging = Elb::default().lists();
    for priority in 100..105 {
        elb.add_other(priority);
    }
    let creates = elb.creates();
    let output = ran(&elb.client(&[&lagging, &creates])).await.unwrap();
    assert_eq!(output.header_rule.priority, 105);
    assert_eq!(creates.num_calls(), 5 + 1 + 1);
}

#[tokio::test]
async fn a_race_that_is_always_lost_ends_and_is_tried_again_later() {
    let elb = Elb::default();
    let raced = races(&elb, |elb, request| {
        elb.add_other(request.priority().unwrap() as u32);
    });
    let error = ran(&elb.client(&[&raced])).await.unwrap_err();
    assert_eq!(error.name, ErrorName::Transient);
    assert_eq!(raced.num_calls(), MAX_ATTEMPTS);
    assert!(error.message.contains(ID), "{error}");
}

#[tokio::test]
async fn a_full_listener_says_so() {
    let full =
        mock!(Client::create_rule).then_error(|| CreateRuleError::generic(says("TooManyRules")));
    let error = ran(&Elb::default().client(&[&full])).await.unwrap_err();
    assert_eq!(error.name, ErrorName::QuotaExceeded);
    assert_eq!(full.num_calls(), 1);
    assert!(error.message.contains(ID), "{error}");
}

#[tokio::test]
async fn of_those_that_came_for_the_last_room_the_newest_waits_for_the_others_to_give_way() {
    let (older, newer) = ("test-20251027-122111Z", "test-20251027-122113Z");
    for (others, name) in [
        (vec![older], ErrorName::Transient),
        (vec![newer], ErrorName::QuotaExceeded),
        (vec![older, newer], ErrorName::QuotaExceeded),
        // With both of its rules it is past this step and gives nothing back.
        (vec![older, older], ErrorName::QuotaExceeded),
        (
            vec!["prod-20251027-122111Z", "somebody-elses"],
            ErrorName::QuotaExceeded,
        ),
    ] {
        let elb = Elb::default();
        // This one's own rule and those of the others are there already.
        elb.add(&request(Affinity::Header, ID, 100, &OURS));
        for (number, other) in others.iter().enumerate() {
            let mut rule = request(Affinity::Header, older, 101 + number as u32, &[]);
            rule.actions = Some(vec![forward(&group(other))]);
            elb.add(&rule);
        }
        let full = mock!(Client::create_rule)
            .then_error(|| CreateRuleError::generic(says("TooManyRules")));
        let error = ran(&elb.client(&[&full])).await.unwrap_err();
        assert_eq!(error.name, name, "{others:?}: {error}");
        assert_eq!(full.num_calls(), 1);
        assert!(error.message.contains("clean up older"), "{error}");
    }
}

#[test]
fn a_header_rule_never_takes_a_cookie_rules_priority() {
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
    let elb = Elb::default();
    for priority in 100..104 {
        elb.add_other(priority);
    }
    let client = elb.client(&[]);
    ran(&client).await.unwrap();
    ran_for(&client, "test-20251027-122113Z").await.unwrap();
    // Made twice, by two runs at once.
    elb.add(&request(Affinity::Header, ID, 130, &OURS));
    // Ours by name but not by tags.
    elb.add(&request(Affinity::Header, ID, 131, &[]));
    assert_eq!(undone(&client).await, 3);
    assert_eq!(elb.priorities(), [100, 101, 102, 103, 105, 131, 20101]);
    assert_eq!(undone(&client).await, 0);
    assert_eq!(elb.priorities().len(), 7);
}

#[tokio::test]
async fn undo_never_asks_to_delete_the_default_rule() {
    // The default action of these tests forwards to the deployment, and here all carries its tags.
    let all_ours = mock!(Client::describe_tags).then_compute_output(|request| {
        let described = request.resource_arns().iter().map(|arn| {
            OURS.iter()
                .fold(
                    TagDescription::builder().resource_arn(arn),
                    |built, (key, value)| {
                        built.tags(Tag::builder().key(*key).value(*value).build())
                    },
                )
                .build()
        });
        DescribeTagsOutput::builder()
            .set_tag_descriptions(Some(described.collect()))
            .build()
    });
    let elb = Elb::default();
    let deletes = elb.deletes();
    assert_eq!(undone(&elb.client(&[&all_ours, &deletes])).await, 0);
    assert_eq!(deletes.num_calls(), 0);
}

#[tokio::test]
async fn undo_takes_rules_that_another_run_deletes_meanwhile_for_done() {
    let elb = Elb::default();
    let listed = elb.lists();
    ran(&elb.client(&[])).await.unwrap();
    // Gone after they were listed…
    let stale = Elb::default();
    for entry in elb.rules.lock().unwrap().iter() {
        stale.rules.lock().unwrap().push(entry.clone());
    }
    stale.rules.lock().unwrap().remove(0);
    assert_eq!(undone(&stale.client(&[&listed])).await, 1);
    // …and after their tags were read.
    let gone =
        mock!(Client::delete_rule).then_error(|| DeleteRuleError::generic(says("RuleNotFound")));
    assert_eq!(undone(&elb.client(&[&gone])).await, 0);
    assert_eq!(gone.num_calls(), 2);
}

#[tokio::test]
async fn a_deletion_whose_answer_was_lost_is_no_failure_though_the_next_attempt_is_denied() {
    let elb = Elb::default();
    ran(&elb.client(&[])).await.unwrap();
    let rules = Arc::clone(&elb.rules);
    let lost = mock!(Client::delete_rule).then_compute_response(move |request| {
        let mut rules = rules.lock().unwrap();
        rules.retain(|(rule, _)| rule.rule_arn() != request.rule_arn());
        MockResponse::Error(DeleteRuleError::generic(says("AccessDenied")))
    });
    assert_eq!(undone(&elb.client(&[&lost])).await, 2);
    assert!(elb.priorities().is_empty());
}

#[tokio::test]
async fn a_deletion_that_is_denied_is_said_to_be() {
    let elb = Elb::default();
    ran(&elb.client(&[])).await.unwrap();
    let denied =
        mock!(Client::delete_rule).then_error(|| DeleteRuleError::generic(says("AccessDenied")));
    let id = "test-20251027-122112Z".parse().unwrap();
    let client = elb.client(&[&denied]);
    let error = undo(&client, &Settings::for_tests(), &id)
        .await
        .unwrap_err();
    assert_eq!(error.name, ErrorName::AccessDenied);
}
