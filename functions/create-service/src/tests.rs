use std::sync::{Arc, Mutex};

use super::*;
use aws_sdk_ecs::error::ErrorMetadata;
use aws_sdk_ecs::operation::create_service::{
    CreateServiceError, CreateServiceInput, CreateServiceOutput,
};
use aws_sdk_ecs::operation::delete_service::{DeleteServiceError, DeleteServiceOutput};
use aws_sdk_ecs::operation::describe_services::{DescribeServicesError, DescribeServicesOutput};
use aws_sdk_ecs::types::Failure;
use aws_sdk_ecs::types::{ServiceField, Tag};
use aws_smithy_mocks::{MockResponse, Rule, RuleMode, mock, mock_client};
use lifecycle::service::find;
use serde_json::json;

const ID: &str = "test-20251027-122112Z";
const ARN: &str = "arn:aws:ecs:us-east-1:1:service/test/test-20251027-122112Z";
const OURS: [(&str, &str); 2] = [("pulse:deployment-id", ID), ("pulse:environment", "test")];

/// The one service that this cluster has, or none.
#[derive(Clone, Default)]
struct Ecs {
    service: Arc<Mutex<Option<Service>>>,
    created: Arc<Mutex<Vec<CreateServiceInput>>>,
}

impl Ecs {
    /// A cluster with a service as this step makes it, but for status and tags.
    fn with(status: &str, tags: &[(&str, &str)]) -> Self {
        let ecs = Ecs::default();
        ecs.put(status, tags);
        ecs
    }

    fn put(&self, status: &str, tags: &[(&str, &str)]) {
        let tags = tags
            .iter()
            .map(|(key, value)| Tag::builder().key(*key).value(*value).build())
            .collect();
        let service = Service::builder()
            .service_arn(ARN)
            .status(status)
            .task_definition("task-definition:1")
            .desired_count(2)
            .load_balancers(
                LoadBalancer::builder()
                    .target_group_arn("target-group")
                    .build(),
            )
            .set_tags(Some(tags))
            .build();
        *self.service.lock().unwrap() = Some(service);
    }

    fn describes(&self) -> Rule {
        let service = Arc::clone(&self.service);
        mock!(Client::describe_services)
            .match_requests(|request| {
                request.cluster() == Some("test")
                    && request.services() == [ID]
                    && request.include() == [ServiceField::Tags]
            })
            .then_compute_output(move |_| match &*service.lock().unwrap() {
                Some(service) => DescribeServicesOutput::builder()
                    .services(service.clone())
                    .build(),
                None => DescribeServicesOutput::builder()
                    .failures(Failure::builder().arn(ARN).reason("MISSING").build())
                    .build(),
            })
    }

    fn creates(&self) -> Rule {
        let ecs = self.clone();
        mock!(Client::create_service).then_compute_output(move |request| {
            ecs.created.lock().unwrap().push(request.clone());
            let service = Service::builder()
                .service_arn(ARN)
                .status("ACTIVE")
                .set_task_definition(request.task_definition.clone())
                .set_desired_count(request.desired_count)
                .set_load_balancers(request.load_balancers.clone())
                .set_tags(request.tags.clone())
                .build();
            *ecs.service.lock().unwrap() = Some(service.clone());
            CreateServiceOutput::builder().service(service).build()
        })
    }

    fn deletes(&self) -> Rule {
        let service = Arc::clone(&self.service);
        mock!(Client::delete_service)
            .match_requests(|request| {
                request.cluster() == Some("test")
                    && request.service() == Some(ID)
                    && request.force() == Some(true)
            })
            .then_compute_output(move |_| {
                let mut service = service.lock().unwrap();
                let service = service.as_mut().expect("there is one");
                service.status = Some("DRAINING".to_owned());
                DeleteServiceOutput::builder()
                    .service(service.clone())
                    .build()
            })
    }

    /// A client that this cluster answers, after the given rules.
    fn client(&self, first: &[&Rule]) -> Client {
        let own = [self.describes(), self.creates(), self.deletes()];
        let rules: Vec<&Rule> = first.iter().copied().chain(&own).collect();
        mock_client!(aws_sdk_ecs, RuleMode::MatchAny, rules)
    }

    fn creations(&self) -> usize {
        self.created.lock().unwrap().len()
    }

    fn status(&self) -> Option<String> {
        self.service.lock().unwrap().as_ref()?.status.clone()
    }

    fn set_status(&self, status: &str) {
        self.service.lock().unwrap().as_mut().unwrap().status = Some(status.to_owned());
    }
}

fn says(code: &str, message: &str) -> ErrorMetadata {
    ErrorMetadata::builder().code(code).message(message).build()
}

async fn ran(client: &Client) -> Result<Output, StepError> {
    ran_with(client, json!({})).await
}

async fn ran_with(client: &Client, more: serde_json::Value) -> Result<Output, StepError> {
    let mut input = json!({
        "deploymentId": ID,
        "taskDefinitionArn": "task-definition:1",
        "targetGroupArn": "target-group",
        "desiredCount": 2,
        "fromALaterVersion": 1,
    });
    for (key, value) in more.as_object().unwrap() {
        input[key] = value.clone();
    }
    let input = serde_json::from_value(input).unwrap();
    run(client, &Settings::for_tests(), input).await
}

async fn undone(client: &Client) -> Undone {
    undo(client, &Settings::for_tests(), &ID.parse().unwrap())
        .await
        .unwrap()
}

#[tokio::test]
async fn a_missing_service_is_created_as_the_design_says() {
    let ecs = Ecs::default();
    let output = ran(&ecs.client(&[])).await.unwrap();
    assert_eq!(output.service_arn, ARN);
    let created = ecs.created.lock().unwrap();
    let [request] = created.as_slice() else {
        panic!("one call")
    };
    assert_eq!(request.cluster(), Some("test"));
    assert_eq!(request.service_name(), Some(ID));
    assert_eq!(request.task_definition(), Some("task-definition:1"));
    assert_eq!(request.desired_count(), Some(2));
    assert_eq!(request.launch_type(), Some(&LaunchType::Fargate));
    assert_eq!(request.platform_version(), Some("LATEST"));
    assert_eq!(request.client_token(), None);
    let vpc = (request.network_configuration())
        .and_then(NetworkConfiguration::awsvpc_configuration)
        .unwrap();
    assert_eq!(vpc.subnets(), ["subnet-1", "subnet-2"]);
    assert_eq!(vpc.security_groups(), ["sg-1"]);
    assert_eq!(vpc.assign_public_ip(), Some(&AssignPublicIp::Disabled));
    let [balancer] = request.load_balancers() else {
        panic!("one load balancer")
    };
    assert_eq!(balancer.target_group_arn(), Some("target-group"));
    assert_eq!(balancer.container_name(), Some("app"));
    assert_eq!(balancer.container_port(), Some(8000));
    let rollout = request.deployment_configuration().unwrap();
    let breaker = rollout.deployment_circuit_breaker().unwrap();
    assert_eq!((breaker.enable(), breaker.rollback()), (true, false));
    assert_eq!(rollout.minimum_healthy_percent(), Some(100));
    assert_eq!(rollout.maximum_percent(), Some(200));
    assert_eq!(
        request.availability_zone_rebalancing(),
        Some(&AvailabilityZoneRebalancing::Disabled)
    );
    assert_eq!(request.health_check_grace_period_seconds(), Some(120));
    assert_eq!(request.propagate_tags(), Some(&PropagateTags::Service));
    assert_eq!(request.enable_ecs_managed_tags(), Some(true));
    assert_eq!(request.enable_execute_command(), Some(false));
    let tags: Vec<_> = request
        .tags()
        .iter()
        .map(|tag| (tag.key().unwrap(), tag.value().unwrap()))
        .collect();
    assert_eq!(tags, OURS);
}

#[tokio::test]
async fn run_twice_it_creates_once() {
    let ecs = Ecs::default();
    let client = ecs.client(&[]);
    let first = ran(&client).await.unwrap();
    assert_eq!(ran(&client).await.unwrap(), first);
    assert_eq!(ecs.creations(), 1);
}

#[tokio::test]
async fn a_service_that_already_exists_with_our_tags_is_adopted() {
    let ecs = Ecs::with("ACTIVE", &OURS);
    assert_eq!(ran(&ecs.client(&[])).await.unwrap().service_arn, ARN);
    assert_eq!(ecs.creations(), 0);
}

#[tokio::test]
async fn a_service_of_that_name_without_our_tags_is_refused() {
    for tags in [&[] as &[(&str, &str)], &OURS[..1], &OURS[1..]] {
        let ecs = Ecs::with("ACTIVE", tags);
        let error = ran(&ecs.client(&[])).await.unwrap_err();
        assert_eq!(error.name, ErrorName::ResourceConflict);
        assert!(error.message.contains(ARN), "{error}");
        assert_eq!(ecs.creations(), 0);
    }
}

#[tokio::test]
async fn a_service_that_runs_something_else_is_neither_changed_nor_taken_for_this_one() {
    for (more, named) in [
        (
            json!({"taskDefinitionArn": "task-definition:2"}),
            "it runs task definition task-definition:1, not task-definition:2",
        ),
        (json!({"desiredCount": 3}), "it runs 2 tasks, not 3"),
        (
            json!({"targetGroupArn": "another"}),
            "it does not register its tasks in another",
        ),
    ] {
        let ecs = Ecs::with("ACTIVE", &OURS);
        let error = ran_with(&ecs.client(&[]), more).await.unwrap_err();
        assert_eq!(error.name, ErrorName::ResourceConflict);
        assert!(error.message.contains(named), "{error}");
        assert!(error.message.contains(ID), "{error}");
        assert_eq!(ecs.creations(), 0);
    }
}

#[tokio::test]
async fn a_service_still_being_deleted_is_waited_for() {
    // Whoever it belongs to: the name is not free.
    for tags in [&[] as &[(&str, &str)], &OURS] {
        let ecs = Ecs::with("DRAINING", tags);
        let error = ran(&ecs.client(&[])).await.unwrap_err();
        assert_eq!(error.name, ErrorName::Transient);
        assert!(error.message.contains("still being deleted"), "{error}");
        assert_eq!(ecs.creations(), 0);
    }
}

#[tokio::test]
async fn the_name_of_a_deleted_service_is_used_again() {
    for tags in [&[] as &[(&str, &str)], &OURS] {
        let ecs = Ecs::with("INACTIVE", tags);
        assert_eq!(ran(&ecs.client(&[])).await.unwrap().service_arn, ARN);
        assert_eq!(ecs.creations(), 1);
    }
}

#[tokio::test]
async fn a_service_that_ecs_has_forgotten_is_missing() {
    let purged = mock!(Client::describe_services).then_error(|| {
        DescribeServicesError::generic(says("ServiceNotFoundException", "Service not found."))
    });
    let ecs = Ecs::default();
    assert_eq!(ran(&ecs.client(&[&purged])).await.unwrap().service_arn, ARN);
    assert_eq!(undone(&ecs.client(&[&purged])).await, Undone::Gone);
}

/// CreateService refuses with this message; `meanwhile` is what happened before.
fn refuses(ecs: &Ecs, message: &'static str, meanwhile: fn(&Ecs)) -> Rule {
    let ecs = ecs.clone();
    mock!(Client::create_service).then_compute_response(move |_| {
        meanwhile(&ecs);
        MockResponse::Error(CreateServiceError::generic(says(
            "InvalidParameterException",
            message,
        )))
    })
}

const NOT_IDEMPOTENT: &str = "Creation of service was not idempotent.";

#[tokio::test]
async fn a_listener_rule_not_yet_in_force_and_a_name_not_yet_free_are_tried_again_later() {
    for message in [
        "The target group with targetGroupArn arn:aws:elasticloadbalancing:us-east-1:1:targetgroup/a/b \
         does not have an associated load balancer.",
        "Unable to Start a service that is still Draining.",
    ] {
        let ecs = Ecs::default();
        let refused = refuses(&ecs, message, |_| ());
        let error = ran(&ecs.client(&[&refused])).await.unwrap_err();
        assert_eq!(error.name, ErrorName::Transient, "{message}");
        assert!(error.message.contains(message), "{error}");
        assert!(error.message.contains(ID), "{error}");
    }
}

#[tokio::test]
async fn any_other_invalid_parameter_is_not_tried_again() {
    // As JSON over HTTP, because the status decides as well.
    let refused = mock!(Client::create_service).then_http_response(|| {
        let body = r#"{"__type":"InvalidParameterException","message":"Invalid platform."}"#;
        let mut response =
            aws_sdk_ecs::config::http::HttpResponse::new(400.try_into().unwrap(), body.into());
        response
            .headers_mut()
            .insert("content-type", "application/x-amz-json-1.1");
        response
    });
    let error = ran(&Ecs::default().client(&[&refused])).await.unwrap_err();
    assert_eq!(error.name, ErrorName::Unexpected);
    assert!(error.message.contains("Invalid platform."), "{error}");
    assert_eq!(refused.num_calls(), 1);
}

#[tokio::test]
async fn a_race_lost_to_another_run_of_the_step_ends_with_its_service() {
    let ecs = Ecs::default();
    let lost = refuses(&ecs, NOT_IDEMPOTENT, |ecs| ecs.put("ACTIVE", &OURS));
    assert_eq!(ran(&ecs.client(&[&lost])).await.unwrap().service_arn, ARN);
}

#[tokio::test]
async fn a_race_lost_to_somebody_else_or_to_other_sizes_is_a_conflict() {
    let ecs = Ecs::default();
    let lost = refuses(&ecs, NOT_IDEMPOTENT, |ecs| ecs.put("ACTIVE", &[]));
    let error = ran(&ecs.client(&[&lost])).await.unwrap_err();
    assert_eq!(error.name, ErrorName::ResourceConflict);

    let ecs = Ecs::default();
    let lost = refuses(&ecs, NOT_IDEMPOTENT, |ecs| ecs.put("ACTIVE", &OURS));
    let error = ran_with(&ecs.client(&[&lost]), json!({"desiredCount": 4}))
        .await
        .unwrap_err();
    assert_eq!(error.name, ErrorName::ResourceConflict);
}

#[tokio::test]
async fn a_name_that_is_taken_and_not_to_be_found_is_tried_again_later() {
    let ecs = Ecs::default();
    let lost = refuses(&ecs, NOT_IDEMPOTENT, |_| ());
    let error = ran(&ecs.client(&[&lost])).await.unwrap_err();
    assert_eq!(error.name, ErrorName::Transient);
    assert_eq!(lost.num_calls(), 1);
}

#[tokio::test]
async fn a_creation_whose_answer_was_lost_is_adopted_by_the_next_run() {
    let ecs = Ecs::default();
    let account = ecs.clone();
    let lost = mock!(Client::create_service).then_compute_response(move |_| {
        account.put("ACTIVE", &OURS);
        MockResponse::Error(CreateServiceError::generic(says("ServerException", "why")))
    });
    let client = ecs.client(&[&lost]);
    assert_eq!(ran(&client).await.unwrap_err().name, ErrorName::Transient);
    assert_eq!(ran(&client).await.unwrap().service_arn, ARN);
}

#[tokio::test]
async fn a_number_of_tasks_beyond_what_ecs_can_hold_names_the_field() {
    let error = ran_with(
        &Ecs::default().client(&[]),
        json!({"desiredCount": u32::MAX}),
    )
    .await
    .unwrap_err();
    assert_eq!(error.name, ErrorName::InvalidInput);
    assert!(error.message.contains("`desiredCount`"), "{error}");
}

#[tokio::test]
async fn find_gives_an_active_service_of_ours_and_nothing_else() {
    let settings = Settings::for_tests();
    let id = ID.parse().unwrap();
    for (ecs, found) in [
        (Ecs::with("ACTIVE", &OURS), true),
        (Ecs::with("ACTIVE", &[]), false),
        (Ecs::with("DRAINING", &OURS), false),
        (Ecs::with("INACTIVE", &OURS), false),
        (Ecs::default(), false),
    ] {
        let service = find(&ecs.client(&[]), &settings, &id).await.unwrap();
        assert_eq!(service.is_some(), found, "{service:?}");
    }
}

#[tokio::test]
async fn undo_deletes_once_and_then_says_how_far_it_is() {
    let ecs = Ecs::with("ACTIVE", &OURS);
    let deletes = ecs.deletes();
    let client = ecs.client(&[&deletes]);
    assert_eq!(undone(&client).await, Undone::Draining);
    assert_eq!(undone(&client).await, Undone::Draining);
    ecs.set_status("INACTIVE");
    assert_eq!(undone(&client).await, Undone::Gone);
    *ecs.service.lock().unwrap() = None;
    assert_eq!(undone(&client).await, Undone::Gone);
    assert_eq!(deletes.num_calls(), 1);
}

#[tokio::test]
async fn undo_of_what_is_not_ours_touches_nothing() {
    let ecs = Ecs::with("ACTIVE", &OURS[..1]);
    let deletes = ecs.deletes();
    assert_eq!(undone(&ecs.client(&[&deletes])).await, Undone::Gone);
    assert_eq!(deletes.num_calls(), 0);
    assert_eq!(ecs.status().as_deref(), Some("ACTIVE"));
}

#[tokio::test]
async fn a_service_without_tasks_is_gone_at_once() {
    let at_once = mock!(Client::delete_service).then_output(|| {
        DeleteServiceOutput::builder()
            .service(Service::builder().status("INACTIVE").build())
            .build()
    });
    let ecs = Ecs::with("ACTIVE", &OURS);
    assert_eq!(undone(&ecs.client(&[&at_once])).await, Undone::Gone);
}

#[tokio::test]
async fn undo_of_a_service_that_another_run_deletes_meanwhile_says_how_far_that_is() {
    for code in ["ServiceNotFoundException", "ServiceNotActiveException"] {
        for (status, left) in [
            ("DRAINING", Undone::Draining),
            ("INACTIVE", Undone::Gone),
            // What is read lags behind; the next look tells.
            ("ACTIVE", Undone::Draining),
        ] {
            let ecs = Ecs::with("ACTIVE", &OURS);
            let cluster = ecs.clone();
            let deleted = mock!(Client::delete_service).then_compute_response(move |_| {
                cluster.set_status(status);
                MockResponse::Error(DeleteServiceError::generic(says(code, "why")))
            });
            let client = ecs.client(&[&deleted]);
            assert_eq!(undone(&client).await, left, "{code} {status}");
            assert_eq!(deleted.num_calls(), 1);
        }
    }
}

#[tokio::test]
async fn a_cluster_that_is_missing_is_a_matter_of_configuration() {
    let no_cluster = mock!(Client::describe_services).then_error(|| {
        DescribeServicesError::generic(says("ClusterNotFoundException", "Cluster not found."))
    });
    let error = ran(&Ecs::default().client(&[&no_cluster]))
        .await
        .unwrap_err();
    assert_eq!(error.name, ErrorName::Configuration);
    assert!(error.message.contains(ID), "{error}");
}
