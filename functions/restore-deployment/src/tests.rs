use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::*;
use aws_sdk_ecs::operation::describe_services::DescribeServicesOutput;
use aws_sdk_ecs::operation::update_service::{UpdateServiceError, UpdateServiceOutput};
use aws_sdk_ecs::primitives::DateTime;
use aws_sdk_elasticloadbalancingv2::operation::add_tags::{AddTagsError, AddTagsOutput};
use aws_sdk_elasticloadbalancingv2::operation::describe_listeners::DescribeListenersOutput;
use aws_sdk_elasticloadbalancingv2::operation::describe_rules::DescribeRulesOutput;
use aws_sdk_elasticloadbalancingv2::operation::describe_tags::DescribeTagsOutput;
use aws_sdk_elasticloadbalancingv2::operation::remove_tags::{RemoveTagsError, RemoveTagsOutput};
use aws_sdk_elasticloadbalancingv2::types::Tag;
use aws_sdk_elasticloadbalancingv2::types::{
    Action, ActionTypeEnum, Listener, Rule, TagDescription,
};
use aws_smithy_mocks::{MockResponse, RuleMode, mock, mock_client};
use serde_json::{Value, json};
use time::Duration;
use time::macros::utc_datetime;

const OLDEST: &str = "test-20251027-122111Z";
const OLD: &str = "test-20251027-122112Z";
const NEW: &str = "test-20251027-122113Z";
const NEWEST: &str = "test-20251027-122114Z";
const NOW: UtcDateTime = utc_datetime!(2025-10-27 12:30:00);

/// Live before, and nothing else.
const LIVE: &[&str] = &[tags::READY_AT, tags::LIVE_SINCE];

type Meanwhile = (&'static str, fn(&mut World));

/// The environment as AWS would keep it, and what was done to it, in order.
struct World {
    active: Option<&'static str>,
    /// Tags of the target groups, by deployment; each is named by a rule.
    groups: BTreeMap<String, BTreeMap<String, String>>,
    services: BTreeMap<String, Service>,
    done: Vec<String>,
    /// What somebody else does right after this was done.
    meanwhile: Option<Meanwhile>,
    /// This is carried out once and its answer lost.
    loses: Option<&'static str>,
    now: UtcDateTime,
}

fn rollout(created: UtcDateTime, status: &str, state: DeploymentRolloutState) -> Deployment {
    Deployment::builder()
        .status(status)
        .rollout_state(state)
        .created_at(DateTime::from_secs(created.unix_timestamp()))
        .build()
}

impl World {
    fn with(deployments: &[(&str, &[&str])]) -> World {
        let mut world = World {
            active: None,
            groups: BTreeMap::new(),
            services: BTreeMap::new(),
            done: Vec::new(),
            meanwhile: None,
            loses: None,
            now: NOW,
        };
        for (id, marks) in deployments {
            let own = tags::for_deployment(&id.parse().unwrap());
            let mut tags: BTreeMap<_, _> = own
                .clone()
                .map(|(key, value)| (key.to_owned(), value))
                .into();
            tags.extend(
                marks
                    .iter()
                    .map(|mark| (mark.to_string(), "2025-10-27T12:25:00Z".to_owned())),
            );
            world.groups.insert(id.to_string(), tags);
            let completed = DeploymentRolloutState::Completed;
            let service = Service::builder()
                .service_name(*id)
                .status("ACTIVE")
                .desired_count(3)
                .health_check_grace_period_seconds(i32::MAX)
                .deployments(rollout(NOW - Duration::days(1), "PRIMARY", completed))
                .set_tags(Some(
                    own.map(|(key, value)| {
                        aws_sdk_ecs::types::Tag::builder()
                            .key(key)
                            .value(value)
                            .build()
                    })
                    .to_vec(),
                ))
                .build();
            world.services.insert(id.to_string(), service);
        }
        world
    }

    fn active(mut self, id: &'static str) -> World {
        self.active = Some(id);
        self
    }

    fn tag(&mut self, id: &str, key: &str, value: &str) {
        let tags = self.groups.get_mut(id).unwrap();
        tags.insert(key.to_owned(), value.to_owned());
    }

    fn has(&self, id: &str, key: &str) -> bool {
        self.groups[id].contains_key(key)
    }

    fn service(&mut self, id: &str) -> &mut Service {
        self.services.get_mut(id).unwrap()
    }

    fn restarts(&self) -> usize {
        self.done
            .iter()
            .filter(|what| what.starts_with("restart"))
            .count()
    }

    /// Notes what was done and lets the others act; true when the answer is lost.
    fn did(&mut self, what: String) -> bool {
        self.done.push(what.clone());
        if let Some((after, act)) = self.meanwhile
            && what == after
        {
            self.meanwhile = None;
            act(self);
        }
        let lost = self.loses == Some(what.as_str());
        if lost {
            self.loses = None;
        }
        lost
    }
}

fn arn(id: &str) -> String {
    format!("arn:aws:elasticloadbalancing:us-east-1:1:targetgroup/{id}/abc")
}

fn id_of(arn: &str) -> String {
    target_group::name(arn).unwrap().to_owned()
}

fn forward(id: &str) -> Action {
    Action::builder()
        .r#type(ActionTypeEnum::Forward)
        .target_group_arn(arn(id))
        .build()
}

fn ecs(world: &Arc<Mutex<World>>) -> aws_sdk_ecs::Client {
    use aws_sdk_ecs::Client;
    let kept = Arc::clone(world);
    let services = mock!(Client::describe_services).then_compute_output(move |request| {
        let service = kept
            .lock()
            .unwrap()
            .services
            .get(&request.services()[0])
            .cloned();
        DescribeServicesOutput::builder()
            .set_services(Some(service.into_iter().collect()))
            .build()
    });
    let kept = Arc::clone(world);
    let updated = mock!(Client::update_service).then_compute_response(move |request| {
        assert_eq!(request.force_new_deployment(), Some(true));
        assert_eq!(request.health_check_grace_period_seconds(), Some(120));
        assert_eq!(request.task_definition(), None);
        let mut world = kept.lock().unwrap();
        let desired = request.desired_count().unwrap();
        let now = world.now;
        let service = world.service(request.service().unwrap());
        service.desired_count = desired;
        let rollouts = service.deployments.get_or_insert_default();
        for earlier in rollouts.iter_mut() {
            earlier.status = Some("ACTIVE".into());
        }
        rollouts.insert(
            0,
            rollout(now, "PRIMARY", DeploymentRolloutState::InProgress),
        );
        match world.did(format!("restart {desired}")) {
            false => MockResponse::Output(UpdateServiceOutput::builder().build()),
            true => MockResponse::Error(UpdateServiceError::generic(
                aws_sdk_ecs::error::ErrorMetadata::builder()
                    .code("ServerException")
                    .build(),
            )),
        }
    });
    mock_client!(aws_sdk_ecs, RuleMode::MatchAny, [&services, &updated])
}

fn elb(world: &Arc<Mutex<World>>) -> aws_sdk_elasticloadbalancingv2::Client {
    use aws_sdk_elasticloadbalancingv2::Client;
    use aws_sdk_elasticloadbalancingv2::error::ErrorMetadata;
    let kept = Arc::clone(world);
    let listeners = mock!(Client::describe_listeners).then_compute_output(move |_| {
        let default = match kept.lock().unwrap().active {
            Some(id) => forward(id),
            None => Action::builder()
                .r#type(ActionTypeEnum::FixedResponse)
                .build(),
        };
        DescribeListenersOutput::builder()
            .listeners(Listener::builder().default_actions(default).build())
            .build()
    });
    let kept = Arc::clone(world);
    let rules = mock!(Client::describe_rules).then_compute_output(move |_| {
        let world = kept.lock().unwrap();
        let rules = world
            .groups
            .keys()
            .map(|id| Rule::builder().actions(forward(id)).build());
        DescribeRulesOutput::builder()
            .set_rules(Some(rules.collect()))
            .build()
    });
    let kept = Arc::clone(world);
    let described = mock!(Client::describe_tags).then_compute_output(move |request| {
        let world = kept.lock().unwrap();
        let descriptions = request.resource_arns().iter().map(|arn| {
            let tags = world.groups[&id_of(arn)]
                .iter()
                .map(|(key, value)| Tag::builder().key(key).value(value).build());
            TagDescription::builder()
                .resource_arn(arn)
                .set_tags(Some(tags.collect()))
                .build()
        });
        DescribeTagsOutput::builder()
            .set_tag_descriptions(Some(descriptions.collect()))
            .build()
    });
    let kept = Arc::clone(world);
    let tagged = mock!(Client::add_tags).then_compute_response(move |request| {
        let mut world = kept.lock().unwrap();
        let (id, tag) = (id_of(&request.resource_arns()[0]), &request.tags()[0]);
        world.tag(&id, tag.key().unwrap(), tag.value().unwrap());
        match world.did(format!("+{}", tag.key().unwrap())) {
            false => MockResponse::Output(AddTagsOutput::builder().build()),
            true => MockResponse::Error(AddTagsError::generic(
                ErrorMetadata::builder().code("InternalFailure").build(),
            )),
        }
    });
    let kept = Arc::clone(world);
    let untagged = mock!(Client::remove_tags).then_compute_response(move |request| {
        let mut world = kept.lock().unwrap();
        let id = id_of(&request.resource_arns()[0]);
        for key in request.tag_keys() {
            world.groups.get_mut(&id).unwrap().remove(key);
        }
        match world.did(format!("-{}", request.tag_keys().join(","))) {
            false => MockResponse::Output(RemoveTagsOutput::builder().build()),
            true => MockResponse::Error(RemoveTagsError::generic(
                ErrorMetadata::builder().code("InternalFailure").build(),
            )),
        }
    });
    mock_client!(
        aws_sdk_elasticloadbalancingv2,
        RuleMode::MatchAny,
        [&listeners, &rules, &described, &tagged, &untagged]
    )
}

/// Calls the step once, with this as the execution's input.
async fn restore(mut world: World, input: Value) -> (Result<Output, StepError>, World) {
    world.done.clear();
    let now = world.now;
    let world = Arc::new(Mutex::new(world));
    let clients = Clients {
        ecs: ecs(&world),
        elb: elb(&world),
    };
    let output = match lifecycle::input::decode(input) {
        Ok(input) => run(&clients, &Settings::for_tests(), now, input).await,
        Err(error) => Err(error),
    };
    drop(clients);
    let world = Arc::into_inner(world).expect("the mocks are gone");
    (output, world.into_inner().unwrap())
}

async fn to_previous(world: World) -> (Result<Output, StepError>, World) {
    restore(world, json!({})).await
}

/// One that drains since 12:25, left for a newer one.
fn draining() -> World {
    let marks = [LIVE, &[tags::DRAINING_SINCE, tags::IDLE_SINCE]].concat();
    World::with(&[(OLD, &marks), (NEW, LIVE)]).active(NEW)
}

#[tokio::test]
async fn a_warm_previous_one_is_ready_as_it_is() {
    let mut world = World::with(&[(OLDEST, LIVE), (OLD, LIVE), (NEW, LIVE)]).active(NEW);
    for _ in 0..2 {
        let (output, end) = to_previous(world).await;
        world = end;
        assert_eq!(
            output.unwrap(),
            Output {
                deployment_id: OLD.parse().unwrap(),
                target_group_arn: arn(OLD),
                desired_count: 3,
                restored: false,
                replaced_deployment_id: Some(NEW.parse().unwrap()),
                replaced: vec![NEW.parse().unwrap()],
            }
        );
        assert_eq!(world.restarts(), 0);
        assert_eq!(
            world.groups[OLD][tags::RESTORING_SINCE],
            "2025-10-27T12:30:00Z"
        );
    }
}

#[tokio::test]
async fn what_an_earlier_rollback_left_marked_is_free_to_be_drained_once_it_is_left() {
    let marked = [LIVE, &[tags::RESTORING_SINCE]].concat();
    let world = World::with(&[(OLDEST, &marked), (OLD, LIVE), (NEW, &marked)]).active(NEW);
    let (output, world) = to_previous(world).await;
    assert_eq!(output.unwrap().deployment_id.as_str(), OLD);
    assert!(!world.has(NEW, tags::RESTORING_SINCE));
    // Whoever is going back to another one may still be on the way.
    assert!(world.has(OLDEST, tags::RESTORING_SINCE));
    assert!(world.has(OLD, tags::RESTORING_SINCE));
}

#[tokio::test]
async fn a_rollback_leaves_what_is_active_and_what_is_ready_and_newer_when_it_begins() {
    let deleting = [LIVE, &[tags::DELETING_SINCE]].concat();
    let world = World::with(&[
        (OLDEST, LIVE),
        (OLD, LIVE),
        (NEW, LIVE),
        (NEWEST, &[tags::READY_AT]),
        ("test-20251027-122115Z", &[]),
        ("test-20251027-122116Z", &deleting),
    ])
    .active(NEW);
    let (output, world) = to_previous(world).await;
    let [new, newest]: [DeploymentId; 2] = [NEW, NEWEST].map(|id| id.parse().unwrap());
    assert_eq!(output.unwrap().replaced, [new.clone(), newest.clone()]);
    // Further back, more is left.
    let (output, _) = restore(world, json!({"deploymentId": OLDEST})).await;
    assert_eq!(
        output.unwrap().replaced,
        [OLD.parse().unwrap(), new, newest]
    );
}

#[tokio::test]
async fn one_that_drains_gets_fresh_tasks_and_the_usual_grace_period() {
    let (output, world) = to_previous(draining()).await;
    let output = output.unwrap();
    assert!(output.restored);
    assert_eq!(output.desired_count, 3);
    assert_eq!(
        world.done,
        [
            "+pulse:restoring-since",
            "restart 3",
            "-pulse:draining-since,pulse:idle-since"
        ]
    );
}

#[tokio::test]
async fn running_it_twice_restarts_once_and_still_says_that_tasks_are_fresh() {
    let (_, world) = to_previous(draining()).await;
    let (output, mut world) = to_previous(world).await;
    assert!(output.unwrap().restored, "the rollout still goes on");
    assert!(world.done.is_empty(), "{:?}", world.done);
    // Once it is over, the tasks are simply warm.
    let completed = rollout(NOW, "PRIMARY", DeploymentRolloutState::Completed);
    world.service(OLD).deployments = Some(vec![completed]);
    let (output, world) = to_previous(world).await;
    assert!(!output.unwrap().restored);
    assert!(world.done.is_empty(), "{:?}", world.done);
}

#[tokio::test]
async fn a_lost_answer_restarts_nothing_twice() {
    for (lost, then) in [
        ("+pulse:restoring-since", 1),
        ("restart 3", 0),
        ("-pulse:draining-since,pulse:idle-since", 0),
    ] {
        let mut world = draining();
        world.loses = Some(lost);
        let (output, mut world) = to_previous(world).await;
        assert_eq!(output.unwrap_err().name, ErrorName::Transient, "{lost}");
        world.now += Duration::seconds(20);
        let (output, world) = to_previous(world).await;
        assert!(output.unwrap().restored, "{lost}");
        assert_eq!(world.restarts(), then, "{lost}: {:?}", world.done);
        assert!(!world.has(OLD, tags::DRAINING_SINCE), "{lost}");
    }
}

#[tokio::test]
async fn fresh_tasks_that_a_dead_rollback_left_to_be_drained_again_are_replaced() {
    let (_, mut world) = to_previous(draining()).await;
    // Hours later its mark has ended, and a sweep has drained what it started.
    world.now += defaults::RESTORE_TIME + Duration::minutes(5);
    world.tag(OLD, tags::DRAINING_SINCE, "2025-10-27T14:31:00Z");
    let completed = rollout(NOW, "PRIMARY", DeploymentRolloutState::Completed);
    world.service(OLD).deployments = Some(vec![completed]);
    let (output, world) = to_previous(world).await;
    assert!(output.unwrap().restored);
    assert_eq!(world.restarts(), 1);
    assert_eq!(
        world.groups[OLD][tags::RESTORING_SINCE],
        "2025-10-27T14:35:00Z"
    );
}

#[tokio::test]
async fn fresh_tasks_that_failed_are_replaced_by_the_next_rollback() {
    let (_, mut world) = to_previous(draining()).await;
    let failed = rollout(NOW, "PRIMARY", DeploymentRolloutState::Failed);
    world.service(OLD).deployments = Some(vec![failed]);
    world.now += Duration::minutes(10);
    let (output, world) = to_previous(world).await;
    assert!(output.unwrap().restored);
    assert_eq!(world.done, ["restart 3"]);
}

#[tokio::test]
async fn one_without_tasks_gets_as_many_as_a_new_deployment() {
    let mut world = World::with(&[(OLD, LIVE), (NEW, LIVE)]).active(NEW);
    world.service(OLD).desired_count = 0;
    let (output, world) = to_previous(world).await;
    let output = output.unwrap();
    assert!(output.restored);
    assert_eq!(output.desired_count, defaults::DESIRED_COUNT);
    assert_eq!(world.done, ["+pulse:restoring-since", "restart 2"]);
    let (output, world) = to_previous(world).await;
    assert!(output.unwrap().restored);
    assert!(world.done.is_empty(), "{:?}", world.done);
}

#[tokio::test]
async fn draining_that_begins_before_the_mark_is_seen() {
    let mut world = World::with(&[(OLD, LIVE), (NEW, LIVE)]).active(NEW);
    world.meanwhile = Some(("+pulse:restoring-since", |world| {
        world.tag(OLD, tags::DRAINING_SINCE, "now");
    }));
    let (output, world) = to_previous(world).await;
    assert!(output.unwrap().restored);
    assert_eq!(world.restarts(), 1);
}

#[tokio::test]
async fn deletion_that_begins_before_the_mark_wins() {
    let mut world = World::with(&[(OLD, LIVE), (NEW, LIVE)]).active(NEW);
    world.meanwhile = Some(("+pulse:restoring-since", |world| {
        world.tag(OLD, tags::DELETING_SINCE, "now");
    }));
    let (output, world) = to_previous(world).await;
    let error = output.unwrap_err();
    assert_eq!(error.name, ErrorName::NoRollbackTarget);
    assert!(error.message.contains("being deleted"), "{}", error.message);
    assert!(!world.has(OLD, tags::RESTORING_SINCE));
    assert_eq!(world.restarts(), 0);
}

#[tokio::test]
async fn the_previous_one_is_the_newest_older_one_that_was_live_and_stays() {
    let back = [LIVE, &[tags::ROLLED_BACK_AT]].concat();
    let deleting = [LIVE, &[tags::DELETING_SINCE]].concat();
    for passed_over in [&back[..], &deleting, &[tags::READY_AT]] {
        let world = World::with(&[
            (OLDEST, LIVE),
            (OLD, passed_over),
            (NEW, LIVE),
            // Rolled back from, and newer.
            (NEWEST, LIVE),
        ])
        .active(NEW);
        let (output, _) = to_previous(world).await;
        assert_eq!(
            output.unwrap().deployment_id.as_str(),
            OLDEST,
            "{passed_over:?}"
        );
    }
}

#[tokio::test]
async fn without_an_active_one_the_newest_is_the_previous_one() {
    let (output, _) = to_previous(World::with(&[(OLD, LIVE), (NEW, LIVE)])).await;
    let output = output.unwrap();
    assert_eq!(output.deployment_id.as_str(), NEW);
    assert_eq!(output.replaced_deployment_id, None);
}

#[tokio::test]
async fn one_that_is_named_may_be_newer_or_rolled_back() {
    let back = [LIVE, &[tags::ROLLED_BACK_AT]].concat();
    let world = World::with(&[(OLD, LIVE), (NEW, &back)]).active(OLD);
    let (output, _) = restore(world, json!({"deploymentId": NEW})).await;
    let output = output.unwrap();
    assert_eq!(output.deployment_id.as_str(), NEW);
    assert_eq!(output.replaced_deployment_id, Some(OLD.parse().unwrap()));
}

#[tokio::test]
async fn what_cannot_be_gone_back_to_is_refused_with_the_reason_and_nothing_is_changed() {
    let deleting = [LIVE, &[tags::DELETING_SINCE]].concat();
    for (input, reason) in [
        (json!({"deploymentId": "test-20200101-000000Z"}), "is gone"),
        (json!({"deploymentId": NEWEST}), "being deleted"),
        (json!({"deploymentId": OLDEST}), "never live"),
        (json!({"deploymentId": NEW}), "active already"),
    ] {
        let mut world = World::with(&[
            (OLDEST, &[tags::READY_AT]),
            (OLD, LIVE),
            (NEW, LIVE),
            (NEWEST, &deleting),
        ])
        .active(NEW);
        for _ in 0..2 {
            let (output, end) = restore(world, input.clone()).await;
            world = end;
            let error = output.unwrap_err();
            assert_eq!(error.name, ErrorName::NoRollbackTarget, "{input}");
            assert!(error.message.contains(reason), "{}", error.message);
            assert!(
                error.message.contains(&format!("gone back to: {OLD}")),
                "{}",
                error.message
            );
            assert!(world.done.is_empty(), "{:?}", world.done);
        }
    }
}

#[tokio::test]
async fn a_first_deployment_has_nothing_to_go_back_to() {
    for world in [
        World::with(&[(NEW, LIVE)]).active(NEW),
        World::with(&[(OLD, &[tags::READY_AT]), (NEW, LIVE)]).active(NEW),
        World::with(&[]),
    ] {
        let (output, world) = to_previous(world).await;
        let error = output.unwrap_err();
        assert_eq!(error.name, ErrorName::NoRollbackTarget);
        assert!(error.message.contains("to go back to"), "{}", error.message);
        assert!(world.done.is_empty());
    }
}

#[tokio::test]
async fn one_whose_service_is_gone_or_not_ours_is_refused_before_it_is_marked() {
    for gone in [true, false] {
        let mut world = World::with(&[(OLD, LIVE), (NEW, LIVE)]).active(NEW);
        match gone {
            true => drop(world.services.remove(OLD)),
            false => world.service(OLD).tags = None,
        }
        let (output, world) = to_previous(world).await;
        let error = output.unwrap_err();
        assert_eq!(error.name, ErrorName::NoRollbackTarget);
        assert!(error.message.contains("service"), "{}", error.message);
        assert!(world.done.is_empty());
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
        let (output, world) = restore(draining(), input.clone()).await;
        let error = output.unwrap_err();
        assert_eq!(error.name, ErrorName::InvalidInput, "{input}");
        assert!(error.message.contains(says), "{}", error.message);
        assert!(world.done.is_empty());
    }
}

#[test]
fn the_answer_is_as_documented() {
    let output = Output {
        deployment_id: OLD.parse().unwrap(),
        target_group_arn: arn(OLD),
        desired_count: 2,
        restored: true,
        replaced_deployment_id: None,
        replaced: vec![NEW.parse().unwrap()],
    };
    assert_eq!(
        serde_json::to_value(&output).unwrap(),
        json!({
            "deploymentId": OLD, "targetGroupArn": arn(OLD), "desiredCount": 2,
            "restored": true, "leftDeploymentId": null, "replaced": [NEW]
        })
    );
}
