use std::sync::{Arc, Mutex};

use super::*;
use aws_sdk_elasticloadbalancingv2::error::ErrorMetadata;
use aws_sdk_elasticloadbalancingv2::operation::create_target_group::{
    CreateTargetGroupError, CreateTargetGroupInput, CreateTargetGroupOutput,
};
use aws_sdk_elasticloadbalancingv2::operation::delete_target_group::{
    DeleteTargetGroupError, DeleteTargetGroupOutput,
};
use aws_sdk_elasticloadbalancingv2::operation::describe_rules::DescribeRulesOutput;
use aws_sdk_elasticloadbalancingv2::operation::describe_tags::{
    DescribeTagsError, DescribeTagsOutput,
};
use aws_sdk_elasticloadbalancingv2::operation::describe_target_groups::{
    DescribeTargetGroupsError, DescribeTargetGroupsOutput,
};
use aws_sdk_elasticloadbalancingv2::operation::modify_target_group_attributes::ModifyTargetGroupAttributesOutput;
use aws_sdk_elasticloadbalancingv2::types::Tag;
use aws_sdk_elasticloadbalancingv2::types::{Action, ActionTypeEnum, TagDescription, TargetGroup};
use aws_smithy_mocks::{MockResponse, Rule as Mock, RuleMode, mock, mock_client};
use serde_json::json;

const ARN: &str = "arn:aws:elasticloadbalancing:us-east-1:1:targetgroup/test-20251027-122112Z/abc";

/// The one target group that this account has, or none.
#[derive(Clone, Default)]
struct Elb {
    group: Arc<Mutex<Option<Vec<Tag>>>>,
    created: Arc<Mutex<Vec<CreateTargetGroupInput>>>,
    /// Deregistration delays that were set.
    delays: Arc<Mutex<Vec<String>>>,
}

impl Elb {
    fn with(tags: &[(&str, &str)]) -> Self {
        let elb = Elb::default();
        elb.put(tags);
        elb
    }

    fn put(&self, tags: &[(&str, &str)]) {
        let tags = tags
            .iter()
            .map(|(key, value)| Tag::builder().key(*key).value(*value).build())
            .collect();
        *self.group.lock().unwrap() = Some(tags);
    }

    fn describes(&self) -> Mock {
        let group = Arc::clone(&self.group);
        mock!(Client::describe_target_groups)
            .match_requests(|request| request.names() == ["test-20251027-122112Z"])
            .then_compute_response(move |_| match &*group.lock().unwrap() {
                Some(_) => MockResponse::Output(
                    DescribeTargetGroupsOutput::builder()
                        .target_groups(TargetGroup::builder().target_group_arn(ARN).build())
                        .build(),
                ),
                None => MockResponse::Error(DescribeTargetGroupsError::generic(answer(
                    "TargetGroupNotFound",
                ))),
            })
    }

    fn reads_tags(&self) -> Mock {
        let group = Arc::clone(&self.group);
        mock!(Client::describe_tags).then_compute_response(move |_| match &*group.lock().unwrap() {
            Some(tags) => MockResponse::Output(
                DescribeTagsOutput::builder()
                    .tag_descriptions(
                        TagDescription::builder()
                            .resource_arn(ARN)
                            .set_tags(Some(tags.clone()))
                            .build(),
                    )
                    .build(),
            ),
            None => MockResponse::Error(DescribeTagsError::generic(answer("TargetGroupNotFound"))),
        })
    }

    fn creates(&self) -> Mock {
        let elb = self.clone();
        mock!(Client::create_target_group).then_compute_output(move |request| {
            *elb.group.lock().unwrap() = Some(request.tags().to_vec());
            elb.created.lock().unwrap().push(request.clone());
            CreateTargetGroupOutput::builder()
                .target_groups(TargetGroup::builder().target_group_arn(ARN).build())
                .build()
        })
    }

    fn sets_attributes(&self) -> Mock {
        let delays = Arc::clone(&self.delays);
        mock!(Client::modify_target_group_attributes)
            .match_requests(|request| request.target_group_arn() == Some(ARN))
            .then_compute_output(move |request| {
                for attribute in request.attributes() {
                    assert_eq!(
                        attribute.key(),
                        Some("deregistration_delay.timeout_seconds")
                    );
                    let value = attribute.value().unwrap().to_owned();
                    delays.lock().unwrap().push(value);
                }
                ModifyTargetGroupAttributesOutput::builder().build()
            })
    }

    fn deletes(&self) -> Mock {
        let group = Arc::clone(&self.group);
        mock!(Client::delete_target_group)
            .match_requests(|request| request.target_group_arn() == Some(ARN))
            .then_compute_output(move |_| {
                group.lock().unwrap().take().expect("there is one");
                DeleteTargetGroupOutput::builder().build()
            })
    }

    /// A client that this account answers, after the given rules.
    fn client(&self, first: &[&Mock]) -> Client {
        let own = [
            self.describes(),
            self.reads_tags(),
            self.creates(),
            self.sets_attributes(),
            self.deletes(),
        ];
        let rules: Vec<&Mock> = first.iter().copied().chain(&own).collect();
        mock_client!(aws_sdk_elasticloadbalancingv2, RuleMode::MatchAny, rules)
    }

    fn exists(&self) -> bool {
        self.group.lock().unwrap().is_some()
    }

    fn creations(&self) -> usize {
        self.created.lock().unwrap().len()
    }
}

const OURS: [(&str, &str); 2] = [
    ("pulse:deployment-id", "test-20251027-122112Z"),
    ("pulse:environment", "test"),
];

fn answer(code: &str) -> ErrorMetadata {
    ErrorMetadata::builder().code(code).message("why").build()
}

fn id() -> DeploymentId {
    "test-20251027-122112Z".parse().unwrap()
}

async fn ran(client: &Client) -> Result<Output, StepError> {
    let input = json!({"deploymentId": "test-20251027-122112Z", "fromALaterVersion": 1});
    let input = serde_json::from_value(input).unwrap();
    run(client, &Settings::for_tests(), input).await
}

async fn undone(client: &Client) -> Result<bool, StepError> {
    undo(client, &Settings::for_tests(), &id()).await
}

#[tokio::test]
async fn a_missing_target_group_is_created_as_the_design_says() {
    let elb = Elb::default();
    let output = ran(&elb.client(&[])).await.unwrap();
    assert_eq!(output.target_group_arn, ARN);
    let created = elb.created.lock().unwrap();
    let [request] = created.as_slice() else {
        panic!("one call")
    };
    assert_eq!(request.name(), Some("test-20251027-122112Z"));
    assert_eq!(request.target_type(), Some(&TargetTypeEnum::Ip));
    assert_eq!(request.protocol(), Some(&ProtocolEnum::Http));
    assert_eq!(request.port(), Some(8000));
    assert_eq!(request.vpc_id(), Some("vpc-1"));
    assert_eq!(request.health_check_protocol(), Some(&ProtocolEnum::Http));
    assert_eq!(request.health_check_path(), Some("/_health"));
    assert_eq!(request.health_check_interval_seconds(), Some(30));
    assert_eq!(request.health_check_timeout_seconds(), Some(5));
    assert_eq!(request.healthy_threshold_count(), Some(2));
    assert_eq!(request.unhealthy_threshold_count(), Some(3));
    assert_eq!(request.matcher().unwrap().http_code(), Some("200"));
    let tags: Vec<_> = request
        .tags()
        .iter()
        .map(|tag| (tag.key().unwrap(), tag.value().unwrap()))
        .collect();
    assert_eq!(tags, OURS);
    assert_eq!(*elb.delays.lock().unwrap(), ["60"]);
}

#[tokio::test]
async fn run_twice_it_creates_once() {
    let elb = Elb::default();
    let client = elb.client(&[]);
    let first = ran(&client).await.unwrap();
    assert_eq!(ran(&client).await.unwrap(), first);
    assert_eq!(elb.creations(), 1);
}

#[tokio::test]
async fn a_target_group_that_already_exists_with_our_tag_is_adopted() {
    let elb = Elb::with(&OURS);
    let output = ran(&elb.client(&[])).await.unwrap();
    assert_eq!(output.target_group_arn, ARN);
    assert_eq!(elb.creations(), 0);
    // The run that made it may have died before it set the attributes.
    assert_eq!(*elb.delays.lock().unwrap(), ["60"]);
}

#[tokio::test]
async fn a_target_group_that_is_being_deleted_is_not_adopted() {
    let mut tags = OURS.to_vec();
    tags.push((tags::DELETING_SINCE, "2025-10-27T12:25:00Z"));
    let error = ran(&Elb::with(&tags).client(&[])).await.unwrap_err();
    assert_eq!(error.name, ErrorName::Transient);
}

#[tokio::test]
async fn a_target_group_of_that_name_without_our_tags_is_refused_and_left_alone() {
    for tags in [
        &[] as &[(&str, &str)],
        &[("pulse:deployment-id", "test-20251027-122112Z")],
        &[
            ("pulse:deployment-id", "test-20251027-122112Z"),
            ("pulse:environment", "prod"),
        ],
    ] {
        let elb = Elb::with(tags);
        let error = ran(&elb.client(&[])).await.unwrap_err();
        assert_eq!(error.name, ErrorName::ResourceConflict);
        assert!(error.message.contains(ARN), "{error}");
        assert!(error.message.contains("delete it"), "{error}");
        assert_eq!(elb.creations(), 0);
        assert!(elb.delays.lock().unwrap().is_empty());
    }
}

/// CreateTargetGroup says that the name is taken; `meanwhile` is what another run did before.
fn loses_the_race(elb: &Elb, meanwhile: fn(&Elb)) -> Mock {
    let elb = elb.clone();
    mock!(Client::create_target_group).then_compute_response(move |_| {
        meanwhile(&elb);
        MockResponse::Error(CreateTargetGroupError::generic(answer(
            "DuplicateTargetGroupName",
        )))
    })
}

#[tokio::test]
async fn a_race_lost_to_another_run_of_the_step_ends_with_its_target_group() {
    let elb = Elb::default();
    let lost = loses_the_race(&elb, |elb| elb.put(&OURS));
    let output = ran(&elb.client(&[&lost])).await.unwrap();
    assert_eq!(output.target_group_arn, ARN);
    assert_eq!(*elb.delays.lock().unwrap(), ["60"]);
}

#[tokio::test]
async fn a_race_lost_to_somebody_else_is_a_conflict() {
    let elb = Elb::default();
    let lost = loses_the_race(&elb, |elb| elb.put(&[("team", "other")]));
    let error = ran(&elb.client(&[&lost])).await.unwrap_err();
    assert_eq!(error.name, ErrorName::ResourceConflict);
    assert_eq!(lost.num_calls(), 1);
}

#[tokio::test]
async fn a_name_that_is_taken_and_not_to_be_found_is_tried_again_later() {
    let elb = Elb::default();
    let lost = loses_the_race(&elb, |_| ());
    let error = ran(&elb.client(&[&lost])).await.unwrap_err();
    assert_eq!(error.name, ErrorName::Transient);
    assert_eq!(lost.num_calls(), 1);
}

#[tokio::test]
async fn no_room_for_another_target_group_says_so() {
    let full = mock!(Client::create_target_group)
        .then_error(|| CreateTargetGroupError::generic(answer("TooManyTargetGroups")));
    let error = ran(&Elb::default().client(&[&full])).await.unwrap_err();
    assert_eq!(error.name, ErrorName::QuotaExceeded);
    assert!(error.message.contains("test-20251027-122112Z"), "{error}");
}

#[tokio::test]
async fn a_creation_whose_answer_was_lost_is_adopted_by_the_next_run() {
    let elb = Elb::default();
    let account = elb.clone();
    let lost = mock!(Client::create_target_group).then_compute_response(move |_| {
        account.put(&OURS);
        MockResponse::Error(CreateTargetGroupError::generic(answer("InternalFailure")))
    });
    let client = elb.client(&[&lost]);
    assert_eq!(ran(&client).await.unwrap_err().name, ErrorName::Transient);
    assert_eq!(ran(&client).await.unwrap().target_group_arn, ARN);
}

#[tokio::test]
async fn find_gives_ours_with_all_its_tags_and_nothing_else() {
    let mut tags = OURS.to_vec();
    tags.push((tags::READY_AT, "2025-10-27T12:25:00Z"));
    let found = find(&Elb::with(&tags).client(&[]), &id()).await.unwrap();
    let found = found.unwrap();
    assert_eq!((found.arn.as_str(), &found.deployment), (ARN, &id()));
    assert_eq!(found.tags[tags::READY_AT], "2025-10-27T12:25:00Z");

    let client = Elb::default().client(&[]);
    assert_eq!(find(&client, &id()).await.unwrap(), None);
    let client = Elb::with(&[("team", "other")]).client(&[]);
    assert_eq!(find(&client, &id()).await.unwrap(), None);
}

#[tokio::test]
async fn a_target_group_deleted_between_look_up_and_tags_is_not_there() {
    let listed = Elb::with(&OURS).describes();
    let elb = Elb::default();
    assert_eq!(find(&elb.client(&[&listed]), &id()).await.unwrap(), None);
}

#[tokio::test]
async fn undo_twice_deletes_once() {
    let elb = Elb::with(&OURS);
    let client = elb.client(&[]);
    assert!(undone(&client).await.unwrap());
    assert!(!elb.exists());
    assert!(!undone(&client).await.unwrap());
}

#[tokio::test]
async fn undo_of_what_is_not_ours_touches_nothing() {
    let elb = Elb::with(&[("team", "other")]);
    let deletes = elb.deletes();
    assert!(!undone(&elb.client(&[&deletes])).await.unwrap());
    assert_eq!(deletes.num_calls(), 0);
    assert!(elb.exists());
}

#[tokio::test]
async fn undo_takes_a_target_group_that_another_run_deleted_for_done() {
    let gone = mock!(Client::delete_target_group)
        .then_error(|| DeleteTargetGroupError::generic(answer("TargetGroupNotFound")));
    assert!(!undone(&Elb::with(&OURS).client(&[&gone])).await.unwrap());
    assert_eq!(gone.num_calls(), 1);
}

/// The group is in use; the listener has these rules, one a page.
fn in_use_by(rules: Vec<Rule>) -> (Mock, Mock) {
    let refuses = mock!(Client::delete_target_group)
        .then_error(|| DeleteTargetGroupError::generic(answer("ResourceInUse")));
    let lists = mock!(Client::describe_rules)
        .match_requests(|request| {
            request.listener_arn() == Some(Settings::for_tests().listener_arn.as_str())
        })
        .then_compute_output(move |request| {
            let page: usize = request.marker().map_or(0, |marker| marker.parse().unwrap());
            DescribeRulesOutput::builder()
                .set_rules(Some(rules.iter().skip(page).take(1).cloned().collect()))
                .set_next_marker((page + 1 < rules.len()).then(|| (page + 1).to_string()))
                .build()
        });
    (refuses, lists)
}

fn rule(arn: &str, priority: &str, target_group: &str) -> Rule {
    Rule::builder()
        .rule_arn(arn)
        .priority(priority)
        .is_default(priority == "default")
        .actions(
            Action::builder()
                .r#type(ActionTypeEnum::Forward)
                .target_group_arn(target_group)
                .build(),
        )
        .build()
}

#[tokio::test]
async fn a_target_group_in_use_is_kept_and_the_error_says_who_names_it() {
    let (refuses, lists) = in_use_by(vec![
        rule("rule-1", "100", "another"),
        rule("rule-2", "20100", ARN),
        rule("rule-3", "default", ARN),
    ]);
    let elb = Elb::with(&OURS);
    let error = undone(&elb.client(&[&refuses, &lists])).await.unwrap_err();
    assert_eq!(error.name, ErrorName::ResourceConflict);
    let users = "in use by rule rule-2 (priority 20100) and the default action of arn:aws:";
    assert!(error.message.contains(users), "{error}");
    assert!(!error.message.contains("rule-1"), "{error}");
    assert!(elb.exists());
}

#[tokio::test]
async fn a_target_group_that_nothing_names_any_more_is_deleted_a_little_later() {
    let (refuses, lists) = in_use_by(vec![rule("rule-1", "100", "another")]);
    let elb = Elb::with(&OURS);
    let error = undone(&elb.client(&[&refuses, &lists])).await.unwrap_err();
    assert_eq!(error.name, ErrorName::Transient);
    assert!(error.message.contains(ARN), "{error}");
}

#[tokio::test]
async fn a_deletion_whose_answer_was_lost_is_no_failure_though_the_next_attempt_is_denied() {
    let elb = Elb::with(&OURS);
    let group = Arc::clone(&elb.group);
    let lost = mock!(Client::delete_target_group).then_compute_response(move |_| {
        group.lock().unwrap().take();
        MockResponse::Error(DeleteTargetGroupError::generic(answer("AccessDenied")))
    });
    assert!(undone(&elb.client(&[&lost])).await.unwrap());
    let denied = mock!(Client::delete_target_group)
        .then_error(|| DeleteTargetGroupError::generic(answer("AccessDenied")));
    let error = undone(&Elb::with(&OURS).client(&[&denied]))
        .await
        .unwrap_err();
    assert_eq!(error.name, ErrorName::AccessDenied);
}
