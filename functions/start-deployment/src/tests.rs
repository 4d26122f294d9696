use super::*;
use aws_sdk_sfn::Client;
use lifecycle::{ErrorName, StepError};
use memory_aws::{DEPLOY_MACHINE_ARN, DIGEST, MemoryAws};
use serde_json::{Value, json};

const ID: &str = "test-20251027-122112Z";

fn config() -> Config {
    Config {
        environment: "test".parse().unwrap(),
        repository_name: "test".into(),
        state_machine_arn: DEPLOY_MACHINE_ARN.into(),
    }
}

async fn deliver(aws: &MemoryAws, event: Value) -> Result<Output, StepError> {
    run(&Client::new(&aws.config()), &config(), event).await
}

fn push(tag: Value) -> Value {
    json!({
        "version": "0", "id": "13cde686-328b-6117-af20-0e5566167482",
        "detail-type": "ECR Image Action", "source": "aws.ecr", "account": "123456789012",
        "time": "2019-11-16T01:54:34Z", "region": "us-west-2", "resources": [],
        "detail": {
            "result": "SUCCESS", "repository-name": "test", "image-digest": DIGEST,
            "action-type": "PUSH", "image-tag": tag,
            "manifest-media-type": "application/vnd.oci.image.manifest.v1+json"
        }
    })
}

fn with_detail(field: &str, value: &str) -> Value {
    let mut event = push(ID.into());
    event["detail"][field] = value.into();
    event
}

#[tokio::test]
async fn a_push_starts_an_execution_named_by_the_deployment() {
    let aws = MemoryAws::default();
    let output = deliver(&aws, push(ID.into())).await.unwrap();
    assert_eq!(
        serde_json::to_value(output).unwrap(),
        json!({
            "outcome": "started", "deploymentId": ID,
            "reason": format!("{ID}: its image was pushed")
        })
    );
    assert_eq!(
        aws.calls_to("StartExecution"),
        [json!({
            "stateMachineArn": DEPLOY_MACHINE_ARN,
            "name": ID,
            "input": format!(r#"{{"deploymentId":"{ID}","imageDigest":"{DIGEST}"}}"#),
        })]
    );
}

#[tokio::test]
async fn a_redelivered_event_starts_nothing_twice() {
    let aws = MemoryAws::default();
    deliver(&aws, push(ID.into())).await.unwrap();
    // As long as the execution runs, Step Functions answers alike; after that it refuses the name.
    deliver(&aws, push(ID.into())).await.unwrap();
    aws.with(|state| state.executions[0]["status"] = "SUCCEEDED".into());
    let output = deliver(&aws, push(ID.into())).await.unwrap();
    assert_eq!(output.outcome, Outcome::AlreadyStarted);
    assert_eq!(aws.with(|state| state.executions.len()), 1);
}

#[tokio::test]
async fn an_execution_that_is_not_listed_yet_is_found_by_its_name() {
    let aws = MemoryAws::default();
    aws.on("StartExecution").before(|state, _| {
        state.add_execution(ID, "{}");
    });
    let output = deliver(&aws, push(ID.into())).await.unwrap();
    assert_eq!(output.outcome, Outcome::AlreadyStarted);
    assert_eq!(output.reason, format!("{ID}: it already has an execution"));
}

#[tokio::test]
async fn a_late_event_starts_nothing_when_an_operator_has_started_the_deployment() {
    let input = json!({"deploymentId": ID, "cpu": 512}).to_string();
    for name in ["13cde686-328b-6117-af20-0e5566167482", &format!("{ID}-2")] {
        for status in ["RUNNING", "SUCCEEDED", "FAILED"] {
            let aws = MemoryAws::default();
            aws.with(|state| {
                state.page_size = 1;
                state.add_execution(name, &input)["status"] = status.into();
                state.add_execution("test-20251027-130000Z", "{}");
            });
            let output = deliver(&aws, push(ID.into())).await.unwrap();
            assert_eq!(output.outcome, Outcome::AlreadyStarted);
            assert!(output.reason.contains(name), "{output:?}");
            assert_eq!(aws.count("StartExecution"), 0);
        }
    }
}

#[tokio::test]
async fn executions_from_before_the_push_are_not_read() {
    let aws = MemoryAws::default();
    aws.with(|state| {
        let long_ago = state.now - 86_400;
        state.add_execution("by-hand", "{}")["startDate"] = long_ago.into();
    });
    let output = deliver(&aws, push(ID.into())).await.unwrap();
    assert_eq!(output.outcome, Outcome::Started);
    assert_eq!(aws.count("DescribeExecution"), 0);
}

#[tokio::test]
async fn an_execution_from_the_first_second_in_which_the_id_is_accepted_is_read() {
    let first = ID.parse::<DeploymentId>().unwrap().created() - defaults::CLOCK_SKEW;
    for (before, outcome) in [(0, Outcome::AlreadyStarted), (1, Outcome::Started)] {
        let aws = MemoryAws::default();
        aws.with(|state| {
            let input = json!({"deploymentId": ID}).to_string();
            let start = first.unix_timestamp() - before;
            state.add_execution("by-hand", &input)["startDate"] = start.into();
        });
        let output = deliver(&aws, push(ID.into())).await.unwrap();
        assert_eq!(output.outcome, outcome, "{before}");
    }
}

#[tokio::test]
async fn a_failed_start_is_an_error_so_that_the_event_is_delivered_again() {
    let aws = MemoryAws::default();
    aws.on("StartExecution").fails("StateMachineDoesNotExist");
    let error = deliver(&aws, push(ID.into())).await.unwrap_err();
    assert_eq!(error.name, ErrorName::Configuration);
}

#[tokio::test]
async fn events_that_ask_for_nothing_are_ignored_with_the_reason() {
    let aws = MemoryAws::default();
    for (event, expected) in [
        (with_detail("action-type", "DELETE"), "not PUSH"),
        (with_detail("result", "FAILURE"), "ended with FAILURE"),
        (with_detail("repository-name", "other"), "repository other"),
        (push("".into()), "no tag"),
        (push(Value::Null), "no tag"),
        (push("latest".into()), "not a deployment id"),
        (push("prod-20251027-122112Z".into()), "a deployment of prod"),
        (push("test-20250230-122112Z".into()), "does not exist"),
    ] {
        let output = deliver(&aws, event).await.unwrap();
        assert_eq!(output.outcome, Outcome::Ignored);
        assert!(output.reason.contains(expected), "{output:?}");
    }
    assert!(aws.calls().is_empty());
}

#[tokio::test]
async fn a_payload_that_is_not_an_event_is_refused() {
    let aws = MemoryAws::default();
    for payload in [
        json!({}),
        json!([]),
        json!({"detail": {"action-type": 5}}),
        json!({
            "detail-type": "ECR Image Action", "source": "aws.ecr",
            "detail": ["PUSH", "SUCCESS", "test", DIGEST, ID]
        }),
        with_detail("image-digest", "sha256:7f5b"),
        with_detail("image-digest", &"f".repeat(200_000)),
    ] {
        let error = deliver(&aws, payload).await.unwrap_err();
        assert_eq!(error.name, ErrorName::InvalidInput);
    }
    assert!(aws.calls().is_empty());
}

#[tokio::test]
async fn a_reason_neither_floods_nor_rewrites_a_log() {
    let aws = MemoryAws::default();
    let hostile = "\u{1b}[2J\n".repeat(50_000);
    for field in ["action-type", "result", "repository-name", "image-tag"] {
        let output = deliver(&aws, with_detail(field, &hostile)).await.unwrap();
        assert_eq!(output.outcome, Outcome::Ignored, "{field}");
        assert!(!output.reason.contains(char::is_control), "{output:?}");
        assert!(
            output.reason.len() < 300,
            "{field}: {}",
            output.reason.len()
        );
    }
}
