use std::sync::{Arc, Mutex};

use super::*;
use aws_sdk_ecs::error::ErrorMetadata;
use aws_sdk_ecs::operation::deregister_task_definition::{
    DeregisterTaskDefinitionError, DeregisterTaskDefinitionOutput,
};
use aws_sdk_ecs::operation::describe_task_definition::{
    DescribeTaskDefinitionError, DescribeTaskDefinitionOutput,
};
use aws_sdk_ecs::operation::list_task_definitions::ListTaskDefinitionsOutput;
use aws_sdk_ecs::operation::register_task_definition::{
    RegisterTaskDefinitionError, RegisterTaskDefinitionInput, RegisterTaskDefinitionOutput,
};
use aws_sdk_ecs::types::{CpuArchitecture, LogDriver, OsFamily};
use aws_sdk_ecs::types::{Tag, TaskDefinitionField};
use aws_smithy_mocks::{MockResponse, Rule, RuleMode, mock, mock_client};
use serde_json::json;

/// The revisions that this account has, oldest first, listed two a page.
#[derive(Clone, Default)]
struct Ecs(Arc<Mutex<Vec<Revision>>>);

type Revision = (TaskDefinition, Vec<Tag>);

const PAGE: usize = 2;

impl Ecs {
    fn add(&self, request: &RegisterTaskDefinitionInput, registered_at: i64) -> TaskDefinition {
        let mut revisions = self.0.lock().unwrap();
        let family = request.family().unwrap();
        let revision = revisions.len() + 1;
        let definition = TaskDefinition::builder()
            .task_definition_arn(format!(
                "arn:aws:ecs:us-east-1:1:task-definition/{family}:{revision}"
            ))
            .family(family)
            .status(TaskDefinitionStatus::Active)
            .set_cpu(request.cpu.clone())
            .set_memory(request.memory.clone())
            .set_container_definitions(request.container_definitions.clone())
            .registered_at(aws_sdk_ecs::primitives::DateTime::from_secs(registered_at))
            .build();
        revisions.push((definition.clone(), request.tags().to_vec()));
        definition
    }

    fn active(&self) -> usize {
        let revisions = self.0.lock().unwrap();
        revisions
            .iter()
            .filter(|(definition, _)| definition.status() == Some(&TaskDefinitionStatus::Active))
            .count()
    }

    fn lists(&self) -> Rule {
        let ecs = self.clone();
        mock!(Client::list_task_definitions)
            .match_requests(|request| {
                request.family_prefix() == Some("test-app")
                    && request.status() == Some(&TaskDefinitionStatus::Active)
                    && request.sort() == Some(&SortOrder::Desc)
            })
            .then_compute_output(move |request| {
                let from: usize = request.next_token().map_or(0, |t| t.parse().unwrap());
                let arns: Vec<String> = (ecs.0.lock().unwrap().iter().rev())
                    .filter(|(d, _)| d.status() == Some(&TaskDefinitionStatus::Active))
                    .filter_map(|(d, _)| d.task_definition_arn.clone())
                    .collect();
                let more = (from + PAGE < arns.len()).then(|| (from + PAGE).to_string());
                ListTaskDefinitionsOutput::builder()
                    .set_task_definition_arns(Some(
                        arns.into_iter().skip(from).take(PAGE).collect(),
                    ))
                    .set_next_token(more)
                    .build()
            })
    }

    fn describes(&self) -> Rule {
        let ecs = self.clone();
        mock!(Client::describe_task_definition)
            .match_requests(|request| request.include() == [TaskDefinitionField::Tags])
            .then_compute_response(move |request| {
                let revisions = ecs.0.lock().unwrap();
                let found = revisions
                    .iter()
                    .find(|(d, _)| d.task_definition_arn() == request.task_definition());
                match found {
                    Some((definition, tags)) => MockResponse::Output(
                        DescribeTaskDefinitionOutput::builder()
                            .task_definition(definition.clone())
                            .set_tags(Some(tags.clone()))
                            .build(),
                    ),
                    None => MockResponse::Error(DescribeTaskDefinitionError::generic(client(
                        "Unable to describe task definition.",
                    ))),
                }
            })
    }

    fn registers(&self) -> Rule {
        let ecs = self.clone();
        mock!(Client::register_task_definition).then_compute_output(move |request| {
            RegisterTaskDefinitionOutput::builder()
                .task_definition(ecs.add(request, now()))
                .build()
        })
    }

    fn deregisters(&self) -> Rule {
        let ecs = self.clone();
        mock!(Client::deregister_task_definition).then_compute_response(move |request| {
            let mut revisions = ecs.0.lock().unwrap();
            let found = revisions
                .iter_mut()
                .find(|(d, _)| d.task_definition_arn() == request.task_definition());
            match found {
                Some((definition, _)) => {
                    definition.status = Some(TaskDefinitionStatus::Inactive);
                    MockResponse::Output(DeregisterTaskDefinitionOutput::builder().build())
                }
                None => MockResponse::Error(DeregisterTaskDefinitionError::generic(client(
                    "The specified task definition does not exist.",
                ))),
            }
        })
    }

    /// A client that this account answers, after the given rules.
    fn client(&self, first: &[&Rule]) -> Client {
        let own = [
            self.lists(),
            self.describes(),
            self.registers(),
            self.deregisters(),
        ];
        let rules: Vec<&Rule> = first.iter().copied().chain(&own).collect();
        mock_client!(aws_sdk_ecs, RuleMode::MatchAny, rules)
    }
}

fn client(message: &str) -> ErrorMetadata {
    ErrorMetadata::builder()
        .code("ClientException")
        .message(message)
        .build()
}

fn settings() -> Settings {
    Settings::for_tests()
}

fn id() -> DeploymentId {
    "test-20251027-122112Z".parse().unwrap()
}

/// Some time after the deployment's id.
fn now() -> i64 {
    id().created().unix_timestamp() + 60
}

fn input(more: serde_json::Value) -> Input {
    let mut whole = json!({
        "deploymentId": "test-20251027-122112Z",
        "imageDigest": "sha256:aa",
        "cpu": 256,
        "memory": 512,
        "environment": {"LOG_LEVEL": "debug", "ACCENT": "é"},
        "fromALaterVersion": true,
    });
    for (key, value) in more.as_object().unwrap() {
        whole[key] = value.clone();
    }
    serde_json::from_value(whole).unwrap()
}

async fn registered_by(more: serde_json::Value) -> RegisterTaskDefinitionInput {
    let seen = Arc::new(Mutex::new(None));
    let sees = Arc::clone(&seen);
    let register = mock!(Client::register_task_definition).then_compute_output(move |request| {
        *sees.lock().unwrap() = Some(request.clone());
        RegisterTaskDefinitionOutput::builder()
            .task_definition(TaskDefinition::builder().task_definition_arn("a").build())
            .build()
    });
    let ecs = Ecs::default().client(&[&register]);
    run(&ecs, &settings(), input(more)).await.unwrap();
    seen.lock().unwrap().take().unwrap()
}

#[tokio::test]
async fn the_task_definition_is_as_the_design_says() {
    let request = registered_by(json!({})).await;
    let settings = settings();
    assert_eq!(request.family(), Some("test-app"));
    assert_eq!(request.requires_compatibilities(), [Compatibility::Fargate]);
    assert_eq!(request.network_mode(), Some(&NetworkMode::Awsvpc));
    assert_eq!(
        (request.cpu(), request.memory()),
        (Some("256"), Some("512"))
    );
    assert_eq!(
        request.execution_role_arn(),
        Some(settings.execution_role_arn.as_str())
    );
    assert_eq!(
        request.task_role_arn(),
        Some(settings.task_role_arn.as_str())
    );
    let platform = request.runtime_platform().unwrap();
    assert_eq!(platform.cpu_architecture(), Some(&CpuArchitecture::X8664));
    assert_eq!(platform.operating_system_family(), Some(&OsFamily::Linux));
    let tags: Vec<_> = request
        .tags()
        .iter()
        .map(|tag| (tag.key().unwrap(), tag.value().unwrap()))
        .collect();
    assert_eq!(
        tags,
        [
            ("pulse:deployment-id", "test-20251027-122112Z"),
            ("pulse:environment", "test")
        ]
    );

    let [container] = request.container_definitions() else {
        panic!("one container")
    };
    assert_eq!(container.name(), Some("app"));
    assert_eq!(
        container.image(),
        Some("1.dkr.ecr.us-east-1.amazonaws.com/test@sha256:aa")
    );
    assert_eq!(container.essential(), Some(true));
    assert_eq!(container.port_mappings()[0].container_port(), Some(8000));
    assert_eq!(container.stop_timeout(), Some(60));
    let variables: Vec<_> = container
        .environment()
        .iter()
        .map(|pair| (pair.name().unwrap(), pair.value().unwrap()))
        .collect();
    assert_eq!(
        variables,
        [
            ("DEPLOYMENT_ID", "test-20251027-122112Z"),
            ("PORT", "8000"),
            ("ACCENT", "é"),
            ("LOG_LEVEL", "debug")
        ]
    );
    let logs = container.log_configuration().unwrap();
    assert_eq!(logs.log_driver(), &LogDriver::Awslogs);
    let options = logs.options().unwrap();
    assert_eq!(options["awslogs-group"], "/aws/pulse/test/app");
    assert_eq!(options["awslogs-region"], "us-east-1");
    assert_eq!(options["awslogs-stream-prefix"], "test-20251027-122112Z");
    assert_eq!(options["mode"], "non-blocking");
    assert_eq!(options["max-buffer-size"], "25m");
}

#[tokio::test]
async fn the_drain_secret_is_named_and_never_written_out() {
    let request = registered_by(json!({})).await;
    let container = &request.container_definitions()[0];
    let secret = &container.secrets()[0];
    assert_eq!(secret.name(), "DRAIN_SECRET");
    assert_eq!(secret.value_from(), settings().drain_secret_arn);
    assert!(
        container
            .environment()
            .iter()
            .all(|pair| pair.name() != Some("DRAIN_SECRET"))
    );
}

#[tokio::test]
async fn run_twice_it_registers_once() {
    let account = Ecs::default();
    let registers = account.registers();
    let ecs = account.client(&[&registers]);
    let first = run(&ecs, &settings(), input(json!({}))).await.unwrap();
    let second = run(&ecs, &settings(), input(json!({}))).await.unwrap();
    assert_eq!(first, second);
    assert_eq!(registers.num_calls(), 1);
}

#[tokio::test]
async fn another_image_size_or_variable_is_another_revision() {
    let account = Ecs::default();
    let ecs = account.client(&[]);
    for more in [
        json!({}),
        json!({"imageDigest": "sha256:bb"}),
        json!({"cpu": 512, "memory": 1024}),
        json!({"memory": 1024}),
        json!({"environment": {"LOG_LEVEL": "info", "ACCENT": "é"}}),
        json!({"environment": {}}),
    ] {
        let before = account.active();
        run(&ecs, &settings(), input(more.clone())).await.unwrap();
        assert_eq!(account.active(), before + 1, "{more}");
    }
    run(&ecs, &settings(), input(json!({}))).await.unwrap();
    assert_eq!(account.active(), 6, "the first of them is still found");
}

#[tokio::test]
async fn a_revision_without_our_tags_is_not_adopted() {
    let account = Ecs::default();
    let ecs = account.client(&[]);
    run(&ecs, &settings(), input(json!({}))).await.unwrap();
    account.0.lock().unwrap()[0].1.clear();
    let output = run(&ecs, &settings(), input(json!({}))).await.unwrap();
    assert!(output.task_definition_arn.ends_with("/test-app:2"));
}

#[tokio::test]
async fn another_deployments_revision_with_the_same_image_is_not_adopted() {
    let account = Ecs::default();
    let ecs = account.client(&[]);
    run(
        &ecs,
        &settings(),
        input(json!({"deploymentId": "test-20251027-122111Z"})),
    )
    .await
    .unwrap();
    run(&ecs, &settings(), input(json!({}))).await.unwrap();
    assert_eq!(account.active(), 2);
}

#[tokio::test]
async fn a_lost_answer_is_not_followed_by_the_same_request_but_by_a_look() {
    let account = Ecs::default();
    let made_by = account.clone();
    // The revision is made; the answer is a gateway's 504.
    let lost = mock!(Client::register_task_definition).then_compute_response(move |request| {
        made_by.add(request, now());
        MockResponse::Http(aws_sdk_ecs::config::http::HttpResponse::new(
            504.try_into().unwrap(),
            "".into(),
        ))
    });
    let ecs = account.client(&[&lost]);
    let error = run(&ecs, &settings(), input(json!({}))).await.unwrap_err();
    assert_eq!(error.name, ErrorName::Transient);
    assert!(
        error.message.contains("test-20251027-122112Z"),
        "{}",
        error.message
    );
    assert_eq!(lost.num_calls(), 1);
    let output = run(&ecs, &settings(), input(json!({}))).await.unwrap();
    assert!(output.task_definition_arn.ends_with("/test-app:1"));
    assert_eq!((lost.num_calls(), account.active()), (1, 1));
}

#[tokio::test]
async fn revisions_are_found_past_the_first_page() {
    let account = Ecs::default();
    let ecs = account.client(&[]);
    run(&ecs, &settings(), input(json!({}))).await.unwrap();
    for second in 13..20 {
        let other = json!({"deploymentId": format!("test-20251027-1221{second}Z")});
        run(&ecs, &settings(), input(other)).await.unwrap();
    }
    let output = run(&ecs, &settings(), input(json!({}))).await.unwrap();
    assert!(output.task_definition_arn.ends_with("/test-app:1"));
    assert_eq!(account.active(), 8);
}

#[tokio::test]
async fn revisions_older_than_the_deployment_can_be_are_not_read() {
    let account = Ecs::default();
    let describes = account.describes();
    let ecs = account.client(&[&describes]);
    run(&ecs, &settings(), input(json!({}))).await.unwrap();
    let set_age = |index: usize, registered: i64| {
        account.0.lock().unwrap()[index].0.registered_at =
            Some(aws_sdk_ecs::primitives::DateTime::from_secs(registered));
    };
    let oldest = (id().created() - defaults::CLOCK_SKEW).unix_timestamp();
    // An id from a clock that runs fast is still found at the very limit…
    set_age(0, oldest);
    assert_eq!(registered(&ecs, &settings(), &id()).await.unwrap().len(), 1);
    // …and beyond it reading stops at the first that is too old.
    for second in 0..9 {
        let other = json!({"deploymentId": format!("test-20251027-12210{second}Z")});
        run(&ecs, &settings(), input(other)).await.unwrap();
    }
    for index in 0..10 {
        set_age(index, oldest - 1);
    }
    let before = describes.num_calls();
    assert!(
        registered(&ecs, &settings(), &id())
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(describes.num_calls(), before + 1);
}

#[tokio::test]
async fn a_revision_deregistered_while_reading_is_passed_over() {
    let account = Ecs::default();
    let ecs = account.client(&[]);
    run(&ecs, &settings(), input(json!({}))).await.unwrap();
    let listed = account.lists();
    let listing = mock!(Client::list_task_definitions).then_output(|| {
        ListTaskDefinitionsOutput::builder()
            .task_definition_arns("arn:aws:ecs:us-east-1:1:task-definition/test-app:1")
            .task_definition_arns("arn:aws:ecs:us-east-1:1:task-definition/test-app:9")
            .build()
    });
    account.0.lock().unwrap()[0].0.status = Some(TaskDefinitionStatus::Inactive);
    let ecs = account.client(&[&listing, &listed]);
    assert!(
        registered(&ecs, &settings(), &id())
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn a_size_that_fargate_does_not_have_is_invalid_input_naming_the_fields() {
    let refuses = mock!(Client::register_task_definition).then_error(|| {
        RegisterTaskDefinitionError::generic(client(
            "No Fargate configuration exists for given values: 256 CPU, 9999 memory.",
        ))
    });
    let ecs = Ecs::default().client(&[&refuses]);
    let error = run(&ecs, &settings(), input(json!({"memory": 9999})))
        .await
        .unwrap_err();
    assert_eq!(error.name, ErrorName::InvalidInput);
    assert!(error.message.contains("`memory` is 9999"), "{error}");
}

#[tokio::test]
async fn a_registration_that_meets_another_of_the_family_is_tried_again() {
    let refuses = mock!(Client::register_task_definition).then_error(|| {
        RegisterTaskDefinitionError::generic(client(
            "Too many concurrent attempts to create a new revision of the specified family.",
        ))
    });
    let ecs = Ecs::default().client(&[&refuses]);
    let error = run(&ecs, &settings(), input(json!({}))).await.unwrap_err();
    assert_eq!(error.name, ErrorName::Transient);
}

#[tokio::test]
async fn a_variable_with_a_reserved_name_is_refused_before_any_call() {
    for name in lifecycle::defaults::RESERVED_VARIABLES {
        let lists = Ecs::default().lists();
        let ecs = Ecs::default().client(&[&lists]);
        let more = json!({"environment": {name: "mine"}});
        let error = run(&ecs, &settings(), input(more)).await.unwrap_err();
        assert_eq!(error.name, ErrorName::InvalidInput);
        assert!(
            error.message.contains(&format!("`environment.{name}`")),
            "{error}"
        );
        assert_eq!(lists.num_calls(), 0);
    }
}

#[tokio::test]
async fn undo_deregisters_every_revision_of_the_deployment_and_nothing_else() {
    let account = Ecs::default();
    let ecs = account.client(&[]);
    for more in [
        json!({}),
        json!({"deploymentId": "test-20251027-122113Z"}),
        json!({"memory": 1024}),
        json!({"deploymentId": "test-20251027-122114Z"}),
        json!({"memory": 2048}),
    ] {
        run(&ecs, &settings(), input(more)).await.unwrap();
    }
    assert_eq!(undo(&ecs, &settings(), &id()).await.unwrap(), 3);
    assert_eq!(account.active(), 2);
    assert_eq!(undo(&ecs, &settings(), &id()).await.unwrap(), 0);
    assert_eq!(account.active(), 2);
}

#[tokio::test]
async fn undo_takes_a_revision_that_another_run_deregistered_for_done() {
    for status in [
        Some(TaskDefinitionStatus::Inactive),
        Some(TaskDefinitionStatus::DeleteInProgress),
        None,
    ] {
        let account = Ecs::default();
        let racing = account.clone();
        let lost_race =
            mock!(Client::deregister_task_definition).then_compute_response(move |_| {
                let mut revisions = racing.0.lock().unwrap();
                match &status {
                    Some(status) => revisions[0].0.status = Some(status.clone()),
                    None => revisions.clear(),
                }
                MockResponse::Error(DeregisterTaskDefinitionError::generic(client("inactive")))
            });
        let ecs = account.client(&[&lost_race]);
        run(&ecs, &settings(), input(json!({}))).await.unwrap();
        assert_eq!(undo(&ecs, &settings(), &id()).await.unwrap(), 0);
        assert_eq!(lost_race.num_calls(), 1);
    }
}

#[tokio::test]
async fn undo_fails_when_an_active_revision_is_refused() {
    let account = Ecs::default();
    let refuses = mock!(Client::deregister_task_definition)
        .then_error(|| DeregisterTaskDefinitionError::generic(client("no")));
    let ecs = account.client(&[&refuses]);
    run(&ecs, &settings(), input(json!({}))).await.unwrap();
    let error = undo(&ecs, &settings(), &id()).await.unwrap_err();
    assert!(
        error
            .message
            .starts_with("test-20251027-122112Z: could not deregister"),
        "{error}"
    );
}
