//! An image was pushed: start its deployment, once.

use aws_lambda_events::event::eventbridge::EventBridgeEvent;
use aws_sdk_sfn::Client;
use aws_sdk_sfn::error::ProvideErrorMetadata;
use lifecycle::aws_error::failed;
use lifecycle::{DeploymentId, Environment, StepError, input};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What the function knows of its environment, read once at start.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The environment that this function serves.
    pub environment: Environment,
    /// The repository whose pushes start deployments.
    pub repository_name: String,
    /// The deploy state machine.
    pub state_machine_arn: String,
}

impl Settings {
    /// Reads the settings through `variable`, which gives the value of an environment variable.
    ///
    /// # Errors
    /// `Configuration`, naming the variable that is missing or wrong.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, StepError> {
        let required = |name: &str| lifecycle::settings::required(&variable, name);
        Ok(Settings {
            environment: lifecycle::settings::environment(&variable)?,
            repository_name: required("REPOSITORY_NAME")?,
            state_machine_arn: required("STATE_MACHINE_ARN")?,
        })
    }
}

/// The detail of an "ECR Image Action" event.
///
/// <https://docs.aws.amazon.com/AmazonECR/latest/userguide/ecr-eventbridge.html>. Parts of a
/// multi-architecture push come with an empty tag or none.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
struct ImageAction {
    action_type: String,
    result: String,
    repository_name: String,
    #[serde(default)]
    image_digest: Option<String>,
    #[serde(default)]
    image_tag: Option<String>,
}

/// What became of the event.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "outcome")]
pub enum Output {
    /// An execution was started.
    Started {
        /// The execution's name.
        #[serde(rename = "deploymentId")]
        deployment_id: DeploymentId,
    },
    /// The deployment has an execution already; the event came again.
    AlreadyStarted {
        /// The execution's name.
        #[serde(rename = "deploymentId")]
        deployment_id: DeploymentId,
    },
    /// The event asks for nothing.
    Ignored {
        /// Why not.
        reason: String,
    },
}

/// Starts the deploy machine for a pushed image, with the deployment id as the execution's name, so
/// that a redelivered event starts nothing twice.
///
/// # Errors
/// `InvalidInput` when the payload is no ECR event, else as AWS answers StartExecution.
pub async fn run(sfn: &Client, settings: &Settings, event: Value) -> Result<Output, StepError> {
    let event: EventBridgeEvent<ImageAction> = input::decode(event)?;
    let (deployment_id, digest) = match asked_for(settings, event.detail) {
        Ok(asked) => asked,
        Err(reason) => return Ok(Output::Ignored { reason }),
    };
    // Only what is the same in every delivery of the event may be in the input: another input under
    // the same name would be refused even while the first execution runs.
    let mut input = json!({"deploymentId": deployment_id});
    if let Some(digest) = digest {
        input["imageDigest"] = digest.into();
    }
    let started = sfn
        .start_execution()
        .state_machine_arn(&settings.state_machine_arn)
        .name(deployment_id.as_str())
        .input(input.to_string())
        .send()
        .await;
    match started {
        Ok(_) => Ok(Output::Started { deployment_id }),
        Err(error) if error.code() == Some("ExecutionAlreadyExists") => {
            Ok(Output::AlreadyStarted { deployment_id })
        }
        Err(error) => Err(failed(
            format_args!("start the deployment of {deployment_id}"),
            error,
        )),
    }
}

/// The deployment that the event asks for, or why it asks for none.
fn asked_for(
    settings: &Settings,
    action: ImageAction,
) -> Result<(DeploymentId, Option<String>), String> {
    if action.action_type != "PUSH" {
        return Err(format!("the action is {}, not PUSH", action.action_type));
    }
    if action.result != "SUCCESS" {
        return Err(format!("the push ended with {}", action.result));
    }
    if action.repository_name != settings.repository_name {
        return Err(format!(
            "the repository {} is not {}",
            action.repository_name, settings.repository_name
        ));
    }
    let tag = action
        .image_tag
        .filter(|tag| !tag.is_empty())
        .ok_or("the image has no tag: part of a multi-architecture push")?;
    let deployment_id: DeploymentId = tag.parse()?;
    if *deployment_id.environment() != settings.environment {
        return Err(format!(
            "{deployment_id} is a deployment of {}, not of {}",
            deployment_id.environment(),
            settings.environment
        ));
    }
    Ok((deployment_id, action.image_digest))
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Output::Started { deployment_id } => {
                write!(f, "started the deployment of {deployment_id}")
            }
            Output::AlreadyStarted { deployment_id } => {
                write!(f, "{deployment_id} has an execution already")
            }
            Output::Ignored { reason } => write!(f, "ignored the event: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_sfn::operation::start_execution::{StartExecutionError, StartExecutionOutput};
    use aws_sdk_sfn::primitives::DateTime;
    use aws_sdk_sfn::types::error::{ExecutionAlreadyExists, StateMachineDoesNotExist};
    use aws_smithy_mocks::{RuleMode, mock, mock_client};
    use lifecycle::ErrorName;

    const DIGEST: &str = "sha256:7f5b2640fe6fb4f46592dfd3410c4a79dac4f89e4782432e0378abcd12345678";

    fn settings() -> Settings {
        Settings {
            environment: "test".parse().unwrap(),
            repository_name: "test".into(),
            state_machine_arn: "arn:aws:states:us-east-1:1:stateMachine:test-deploy".into(),
        }
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
        let mut event = push("test-20251027-122112Z".into());
        event["detail"][field] = value.into();
        event
    }

    #[tokio::test]
    async fn a_push_starts_an_execution_named_by_the_deployment() {
        let start = mock!(Client::start_execution)
            .match_requests(|request| {
                request.name() == Some("test-20251027-122112Z")
                    && request.input()
                        == Some(&format!(
                            r#"{{"deploymentId":"test-20251027-122112Z","imageDigest":"{DIGEST}"}}"#
                        ))
            })
            .then_output(|| {
                StartExecutionOutput::builder()
                    .execution_arn("arn")
                    .start_date(DateTime::from_secs(0))
                    .build()
                    .unwrap()
            });
        let sfn = mock_client!(aws_sdk_sfn, RuleMode::MatchAny, [&start]);
        let output = run(&sfn, &settings(), push("test-20251027-122112Z".into()))
            .await
            .unwrap();
        assert_eq!(
            output.to_string(),
            "started the deployment of test-20251027-122112Z"
        );
        assert_eq!(start.num_calls(), 1);
    }

    #[tokio::test]
    async fn a_redelivered_event_starts_nothing_twice() {
        let start = mock!(Client::start_execution).then_error(|| {
            StartExecutionError::ExecutionAlreadyExists(
                ExecutionAlreadyExists::builder()
                    .meta(meta("ExecutionAlreadyExists"))
                    .build(),
            )
        });
        let sfn = mock_client!(aws_sdk_sfn, RuleMode::MatchAny, [&start]);
        let output = run(&sfn, &settings(), push("test-20251027-122112Z".into()))
            .await
            .unwrap();
        assert!(matches!(output, Output::AlreadyStarted { .. }));
    }

    #[tokio::test]
    async fn a_failed_start_is_an_error_so_that_the_event_is_delivered_again() {
        let start = mock!(Client::start_execution).then_error(|| {
            StartExecutionError::StateMachineDoesNotExist(
                StateMachineDoesNotExist::builder()
                    .meta(meta("StateMachineDoesNotExist"))
                    .build(),
            )
        });
        let sfn = mock_client!(aws_sdk_sfn, RuleMode::MatchAny, [&start]);
        let error = run(&sfn, &settings(), push("test-20251027-122112Z".into()))
            .await
            .unwrap_err();
        assert_eq!(error.name, ErrorName::Configuration);
    }

    #[tokio::test]
    async fn events_that_ask_for_nothing_are_ignored_with_the_reason() {
        let sfn = mock_client!(aws_sdk_sfn, RuleMode::MatchAny, []);
        for (event, reason) in [
            (with_detail("action-type", "DELETE"), "not PUSH"),
            (with_detail("result", "FAILURE"), "ended with FAILURE"),
            (with_detail("repository-name", "other"), "repository other"),
            (push("".into()), "no tag"),
            (push(Value::Null), "no tag"),
            (push("latest".into()), "not a deployment id"),
            (push("prod-20251027-122112Z".into()), "a deployment of prod"),
            (push("test-20250230-122112Z".into()), "does not exist"),
        ] {
            match run(&sfn, &settings(), event).await.unwrap() {
                Output::Ignored { reason: said } => assert!(said.contains(reason), "{said}"),
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_event_is_refused() {
        let sfn = mock_client!(aws_sdk_sfn, RuleMode::MatchAny, []);
        for payload in [json!({}), json!([]), json!({"detail": {"action-type": 5}})] {
            let error = run(&sfn, &settings(), payload).await.unwrap_err();
            assert_eq!(error.name, ErrorName::InvalidInput);
        }
    }

    fn meta(code: &str) -> aws_sdk_sfn::error::ErrorMetadata {
        aws_sdk_sfn::error::ErrorMetadata::builder()
            .code(code)
            .build()
    }
}
