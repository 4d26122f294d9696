use super::*;
use aws_sdk_ecs::Client;
use lifecycle::{Baseline, DeploymentId, ErrorName, StepError};
use memory_aws::{GATEWAY_TIMEOUT, MemoryAws, RetryConfig, revision_arn};
use serde_json::{Value, json};
use std::time::Duration;

const ID: &str = "test-20251027-122112Z";

/// An account that lists two revisions a page.
fn aws() -> MemoryAws {
    let aws = MemoryAws::default();
    aws.with(|state| state.page_size = 2);
    aws
}

/// A client that repeats calls, as that of the function does.
fn ecs(aws: &MemoryAws) -> Client {
    let at_once = RetryConfig::standard().with_initial_backoff(Duration::ZERO);
    Client::new(&aws.config_with(at_once))
}

async fn run_step(aws: &MemoryAws, more: Value) -> Result<String, StepError> {
    let mut input = json!({
        "deploymentId": ID,
        "imageDigest": "sha256:aa",
        "cpu": 256,
        "memory": 512,
        "environment": {"LOG_LEVEL": "debug", "ACCENT": "é"},
        "fromALaterVersion": true,
    });
    for (key, value) in more.as_object().unwrap() {
        input[key] = value.clone();
    }
    let input = serde_json::from_value(input).unwrap();
    let output = run(&ecs(aws), &Baseline::for_tests(), input).await?;
    Ok(output.task_definition_arn)
}

/// The input of another deployment of that second.
fn deployment(second: usize) -> Value {
    json!({"deploymentId": format!("test-20251027-1221{second:02}Z")})
}

async fn try_undo(aws: &MemoryAws) -> Result<usize, StepError> {
    undo(&ecs(aws), &Baseline::for_tests(), &ID.parse().unwrap()).await
}

/// How many revisions of the deployment there are, which are deregistered to count them.
async fn undo_step(aws: &MemoryAws) -> usize {
    try_undo(aws).await.unwrap()
}

fn active(aws: &MemoryAws) -> usize {
    aws.with(|state| state.active_revisions())
}

#[tokio::test]
async fn the_task_definition_is_as_the_design_says() {
    let aws = aws();
    run_step(&aws, json!({})).await.unwrap();
    let baseline = Baseline::for_tests();
    assert_eq!(
        aws.calls_to("RegisterTaskDefinition"),
        [json!({
            "family": "test-app",
            "taskRoleArn": baseline.task_role_arn,
            "executionRoleArn": baseline.execution_role_arn,
            "networkMode": "awsvpc",
            "containerDefinitions": [{
                "name": "app",
                "image": "1.dkr.ecr.us-east-1.amazonaws.com/test@sha256:aa",
                "portMappings": [{"containerPort": 8000, "protocol": "tcp"}],
                "essential": true,
                "environment": [
                    {"name": "DEPLOYMENT_ID", "value": ID},
                    {"name": "PORT", "value": "8000"},
                    {"name": "ACCENT", "value": "é"},
                    {"name": "LOG_LEVEL", "value": "debug"},
                ],
                // Named, and never written out.
                "secrets": [{"name": "DRAIN_SECRET", "valueFrom": baseline.drain_secret_arn}],
                "stopTimeout": 60,
                "logConfiguration": {
                    "logDriver": "awslogs",
                    "options": {
                        "awslogs-group": "/aws/pulse/test/app",
                        "awslogs-region": "us-east-1",
                        "awslogs-stream-prefix": ID,
                        "mode": "non-blocking",
                        "max-buffer-size": "25m",
                    },
                },
            }],
            "requiresCompatibilities": ["FARGATE"],
            "cpu": "256",
            "memory": "512",
            "tags": [
                {"key": "pulse:deployment-id", "value": ID},
                {"key": "pulse:environment", "value": "test"},
            ],
            "runtimePlatform": {"cpuArchitecture": "X86_64", "operatingSystemFamily": "LINUX"},
        })]
    );
}

#[tokio::test]
async fn run_twice_it_registers_once() {
    let aws = aws();
    let first = run_step(&aws, json!({})).await.unwrap();
    assert_eq!(run_step(&aws, json!({})).await.unwrap(), first);
    assert_eq!(aws.count("RegisterTaskDefinition"), 1);
}

#[tokio::test]
async fn another_image_size_or_variable_is_another_revision() {
    let aws = aws();
    for more in [
        json!({}),
        json!({"imageDigest": "sha256:bb"}),
        json!({"cpu": 512, "memory": 1024}),
        json!({"memory": 1024}),
        json!({"environment": {"LOG_LEVEL": "info", "ACCENT": "é"}}),
        json!({"environment": {}}),
    ] {
        let before = active(&aws);
        run_step(&aws, more.clone()).await.unwrap();
        assert_eq!(active(&aws), before + 1, "{more}");
    }
    run_step(&aws, json!({})).await.unwrap();
    assert_eq!(active(&aws), 6, "the first of them is still found");
}

#[tokio::test]
async fn a_revision_without_our_tags_is_not_adopted() {
    let aws = aws();
    run_step(&aws, json!({})).await.unwrap();
    aws.with(|state| state.task_definitions[0]["tags"] = json!([]));
    assert_eq!(run_step(&aws, json!({})).await.unwrap(), revision_arn(2));
}

#[tokio::test]
async fn another_deployments_revision_with_the_same_image_is_not_adopted() {
    let aws = aws();
    run_step(&aws, deployment(11)).await.unwrap();
    run_step(&aws, json!({})).await.unwrap();
    assert_eq!(active(&aws), 2);
}

#[tokio::test]
async fn a_lost_answer_is_not_followed_by_the_same_request_but_by_a_look_up() {
    let aws = aws();
    aws.on("RegisterTaskDefinition")
        .loses_the_answer(GATEWAY_TIMEOUT);
    let error = run_step(&aws, json!({})).await.unwrap_err();
    assert_eq!(error.name, ErrorName::Transient);
    assert!(error.message.contains(ID), "{error}");
    assert_eq!(aws.count("RegisterTaskDefinition"), 1);
    assert_eq!(run_step(&aws, json!({})).await.unwrap(), revision_arn(1));
    assert_eq!(aws.count("RegisterTaskDefinition"), 1);
    assert_eq!(active(&aws), 1);
}

#[tokio::test]
async fn a_read_that_fails_once_is_repeated_at_once() {
    let aws = aws();
    aws.on("ListTaskDefinitions")
        .once()
        .fails("ServerException");
    run_step(&aws, json!({})).await.unwrap();
    assert_eq!(aws.count("ListTaskDefinitions"), 2);
}

#[tokio::test]
async fn revisions_are_found_past_the_first_page() {
    let aws = aws();
    run_step(&aws, json!({})).await.unwrap();
    for second in 13..20 {
        run_step(&aws, deployment(second)).await.unwrap();
    }
    assert_eq!(run_step(&aws, json!({})).await.unwrap(), revision_arn(1));
    assert_eq!(active(&aws), 8);
}

#[tokio::test]
async fn revisions_older_than_the_deployment_can_be_are_not_read() {
    let aws = aws();
    let oldest = ID.parse::<DeploymentId>().unwrap().created() - lifecycle::defaults::CLOCK_SKEW;
    let oldest = oldest.unix_timestamp();
    let register_all_at = |time: i64| {
        aws.with(|state| {
            for definition in &mut state.task_definitions {
                definition["registeredAt"] = json!(time);
            }
        });
    };
    // An id from a clock that runs fast is still found at the very limit…
    run_step(&aws, json!({})).await.unwrap();
    register_all_at(oldest);
    assert_eq!(undo_step(&aws).await, 1);
    // …and beyond it reading stops at the first that is too old.
    run_step(&aws, json!({})).await.unwrap();
    for second in 0..9 {
        run_step(&aws, deployment(second)).await.unwrap();
    }
    register_all_at(oldest - 1);
    aws.forget_calls();
    assert_eq!(undo_step(&aws).await, 0);
    assert_eq!(aws.count("DescribeTaskDefinition"), 1);
}

#[tokio::test]
async fn a_revision_deregistered_or_deleted_while_reading_is_passed_over() {
    let aws = aws();
    run_step(&aws, json!({})).await.unwrap();
    run_step(&aws, json!({"memory": 1024})).await.unwrap();
    aws.on("ListTaskDefinitions").after(|state, _| {
        state.task_definitions[0]["status"] = "INACTIVE".into();
        state.task_definitions.truncate(1);
    });
    assert_eq!(undo_step(&aws).await, 0);
    assert_eq!(aws.count("DeregisterTaskDefinition"), 0);
}

#[tokio::test]
async fn a_size_that_fargate_does_not_have_is_invalid_input_naming_the_fields() {
    let aws = aws();
    aws.on("RegisterTaskDefinition").fails_with(
        "ClientException",
        "No Fargate configuration exists for given values: 256 CPU, 9999 memory.",
    );
    let more = json!({"memory": 9999});
    let error = run_step(&aws, more).await.unwrap_err();
    assert_eq!(error.name, ErrorName::InvalidInput);
    assert!(error.message.contains("`memory` is 9999"), "{error}");
}

#[tokio::test]
async fn a_registration_that_meets_another_of_the_family_is_tried_again() {
    let aws = aws();
    aws.on("RegisterTaskDefinition").fails_with(
        "ClientException",
        "Too many concurrent attempts to create a new revision of the specified family.",
    );
    let error = run_step(&aws, json!({})).await.unwrap_err();
    assert_eq!(error.name, ErrorName::Transient);
}

#[tokio::test]
async fn a_variable_with_a_reserved_name_is_refused_before_any_call() {
    for name in lifecycle::defaults::RESERVED_VARIABLES {
        let aws = aws();
        let more = json!({"environment": {name: "mine"}});
        let error = run_step(&aws, more).await.unwrap_err();
        assert_eq!(error.name, ErrorName::InvalidInput);
        let named = format!("`environment.{name}`");
        assert!(error.message.contains(&named), "{error}");
        assert!(aws.calls().is_empty());
    }
}

#[tokio::test]
async fn undo_deregisters_every_revision_of_the_deployment_and_nothing_else() {
    let aws = aws();
    for more in [
        json!({}),
        deployment(13),
        json!({"memory": 1024}),
        deployment(14),
        json!({"memory": 2048}),
    ] {
        run_step(&aws, more).await.unwrap();
    }
    assert_eq!(undo_step(&aws).await, 3);
    assert_eq!(active(&aws), 2);
    assert_eq!(undo_step(&aws).await, 0);
    assert_eq!(active(&aws), 2);
}

#[tokio::test]
async fn undo_treats_a_revision_that_another_run_deregistered_as_done() {
    for status in [Some("INACTIVE"), Some("DELETE_IN_PROGRESS"), None] {
        let aws = aws();
        run_step(&aws, json!({})).await.unwrap();
        aws.on("DeregisterTaskDefinition")
            .before(move |state, _| match status {
                Some(status) => state.task_definitions[0]["status"] = status.into(),
                None => state.task_definitions.clear(),
            });
        assert_eq!(undo_step(&aws).await, 0);
        assert_eq!(aws.count("DeregisterTaskDefinition"), 1);
    }
}

#[tokio::test]
async fn undo_fails_when_an_active_revision_is_refused() {
    let aws = aws();
    run_step(&aws, json!({})).await.unwrap();
    aws.on("DeregisterTaskDefinition").fails("ClientException");
    let error = try_undo(&aws).await.unwrap_err();
    let begin = "could not deregister";
    assert!(error.message.starts_with(begin), "{error}");
}

#[tokio::test]
async fn secrets_commands_and_the_version_of_the_settings_are_as_the_input_says() {
    let aws = aws();
    let more = json!({
        "secrets": {"KEY": "/pulse/test/KEY"}, "command": ["serve"], "entryPoint": ["/app"],
        "settingsVersion": 7,
    });
    run_step(&aws, more.clone()).await.unwrap();
    let [call] = &aws.calls_to("RegisterTaskDefinition")[..] else {
        panic!("{aws:?}")
    };
    let container = &call["containerDefinitions"][0];
    assert_eq!(
        container["secrets"],
        json!([
            {"name": "DRAIN_SECRET", "valueFrom": Baseline::for_tests().drain_secret_arn},
            {"name": "KEY", "valueFrom": "/pulse/test/KEY"},
        ])
    );
    assert_eq!(container["command"], json!(["serve"]));
    assert_eq!(container["entryPoint"], json!(["/app"]));
    assert_eq!(
        call["tags"][2],
        json!({"key": "pulse:settings-version", "value": "7"})
    );
    // The same again is the same revision, and anything else is another.
    for (other, registered) in [
        (json!({}), 1),
        (json!({"settingsVersion": 8}), 1),
        (json!({"secrets": {}}), 2),
        (json!({"secrets": {"KEY": "/pulse/test/OTHER"}}), 3),
        (json!({"command": null}), 4),
        (json!({"entryPoint": ["/app", "--fast"]}), 5),
    ] {
        let mut input = more.clone();
        for (field, value) in other.as_object().unwrap() {
            input[field] = value.clone();
        }
        run_step(&aws, input).await.unwrap();
        assert_eq!(active(&aws), registered, "{other}");
    }
}

#[tokio::test]
async fn a_secret_under_a_reserved_name_is_refused() {
    let aws = aws();
    let error = run_step(&aws, json!({"secrets": {"DRAIN_SECRET": "/a"}})).await;
    let error = error.unwrap_err();
    assert_eq!(error.name, ErrorName::InvalidInput);
    assert!(error.message.contains("secrets.DRAIN_SECRET"), "{error}");
    assert_eq!(active(&aws), 0);
}

const BASE: &str = "arn:aws:ecs:us-east-1:1:task-definition/test-app:1";

/// An account with a task definition of the team's own, as AWS shows it.
fn with_base() -> MemoryAws {
    let aws = aws();
    aws.with(|state| {
        state.add_task_definition(Default::default());
        let base = state.task_definitions.last_mut().unwrap();
        for (member, value) in json!({
            "family": "web", "revision": 1, "networkMode": "awsvpc", "cpu": "2048", "memory": "4096",
            "ipcMode": "", "pidMode": "", "compatibilities": ["EC2", "FARGATE"], "requiresAttributes": [{}],
            "registeredBy": "arn", "requiresCompatibilities": ["EC2"],
            "taskRoleArn": "arn:aws:iam::1:role/web", "ephemeralStorage": {"sizeInGiB": 40},
            "volumes": [{"name": "data", "s3filesVolumeConfiguration": {"bucket": "b"}}],
            "runtimePlatform": {"cpuArchitecture": "ARM64"},
            "newMember": {"unknown": ["to", "us"]},
            "containerDefinitions": [
                {"name": "proxy", "image": "proxy:1", "newMember": 1},
                {
                    "name": "app", "image": "web:1", "command": ["of", "the", "base"], "stopTimeout": 5,
                    "ulimits": [{"name": "nofile", "softLimit": 1, "hardLimit": 2}],
                    "mountPoints": [{"sourceVolume": "data", "containerPath": "/data"}],
                    "portMappings": [{"containerPort": 3000, "hostPort": 3000}],
                    "environment": [
                        {"name": "PORT", "value": "3000"}, {"name": "REGION", "value": "base"},
                        {"name": "LOG_LEVEL", "value": "base"},
                    ],
                    "secrets": [{"name": "KEY", "valueFrom": "/base", "newMember": 2}],
                    "logConfiguration": {"logDriver": "splunk"},
                },
            ],
        })
        .as_object()
        .unwrap()
        {
            base[member] = value.clone();
        }
    });
    aws
}

fn of_base() -> Value {
    json!({"base": BASE, "cpu": null, "memory": null})
}

#[tokio::test]
async fn a_base_is_copied_whole_and_only_its_application_gets_our_parts() {
    let aws = with_base();
    run_step(&aws, of_base()).await.unwrap();
    let baseline = Baseline::for_tests();
    assert_eq!(
        aws.calls_to("RegisterTaskDefinition"),
        [json!({
            "family": "test-app", "networkMode": "awsvpc", "cpu": "2048", "memory": "4096",
            "requiresCompatibilities": ["FARGATE"],
            "taskRoleArn": "arn:aws:iam::1:role/web", "executionRoleArn": baseline.execution_role_arn,
            "ephemeralStorage": {"sizeInGiB": 40},
            "volumes": [{"name": "data", "s3filesVolumeConfiguration": {"bucket": "b"}}],
            "runtimePlatform": {"cpuArchitecture": "ARM64"},
            "newMember": {"unknown": ["to", "us"]},
            "containerDefinitions": [
                {"name": "proxy", "image": "proxy:1", "newMember": 1},
                {
                    "name": "app", "image": "1.dkr.ecr.us-east-1.amazonaws.com/test@sha256:aa",
                    "command": ["of", "the", "base"], "stopTimeout": 5,
                    "ulimits": [{"name": "nofile", "softLimit": 1, "hardLimit": 2}],
                    "mountPoints": [{"sourceVolume": "data", "containerPath": "/data"}],
                    "portMappings": [{"containerPort": 8000, "protocol": "tcp"}],
                    "environment": [
                        {"name": "DEPLOYMENT_ID", "value": ID},
                        {"name": "PORT", "value": "8000"},
                        {"name": "ACCENT", "value": "é"},
                        {"name": "LOG_LEVEL", "value": "debug"},
                        {"name": "REGION", "value": "base"},
                    ],
                    "secrets": [
                        {"name": "DRAIN_SECRET", "valueFrom": baseline.drain_secret_arn},
                        {"name": "KEY", "valueFrom": "/base", "newMember": 2},
                    ],
                    "logConfiguration": {
                        "logDriver": "awslogs",
                        "options": {
                            "awslogs-group": "/aws/pulse/test/app", "awslogs-region": "us-east-1",
                            "awslogs-stream-prefix": ID, "mode": "non-blocking", "max-buffer-size": "25m",
                        },
                    },
                },
            ],
            "tags": [
                {"key": "pulse:deployment-id", "value": ID},
                {"key": "pulse:environment", "value": "test"},
                {"key": "pulse:copy-of", "value": "test-app:1"},
            ],
        })]
    );
}

#[tokio::test]
async fn a_copy_is_adopted_unless_it_is_of_another_revision_or_says_something_else() {
    let aws = with_base();
    let first = run_step(&aws, of_base()).await.unwrap();
    assert_eq!(run_step(&aws, of_base()).await.unwrap(), first);
    // Whoever deregisters the revision that the first step has found does not change what is deployed.
    aws.with(|state| state.task_definitions[0]["status"] = "INACTIVE".into());
    assert_eq!(run_step(&aws, of_base()).await.unwrap(), first);
    aws.with(|state| {
        let mut other = state.task_definitions[0].clone();
        other["taskDefinitionArn"] = revision_arn(99).into();
        state.task_definitions.push(other);
    });
    for (field, value) in [
        ("base", json!(revision_arn(99))),
        ("memory", json!(8192)),
        ("command", json!(["other"])),
        ("secrets", json!({"KEY": "/other"})),
    ] {
        let before = active(&aws);
        let mut input = of_base();
        input[field] = value;
        run_step(&aws, input).await.unwrap();
        assert_eq!(active(&aws), before + 1, "{field}");
    }
}

#[tokio::test]
async fn a_base_that_was_deleted_is_named() {
    let aws = aws();
    let error = run_step(&aws, of_base()).await.unwrap_err();
    assert_eq!(error.name, ErrorName::Configuration);
    assert!(error.message.contains(BASE), "{error}");
    assert_eq!(aws.count("RegisterTaskDefinition"), 0);
}
