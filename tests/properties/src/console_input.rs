//! What the steps are given: by people in the console, and by the state machines.

use lifecycle::{Settings, StepError};
use serde::de::DeserializeOwned;
use time::UtcDateTime;
use time::macros::utc_datetime;
use validate_deployment::{Deployment, fargate};

use crate::{messages, payload};

/// When the input comes.
pub const NOW: UtcDateTime = utc_datetime!(2025-10-27 13:00:00);

/// Takes a step's input as the step does, without its calls of AWS.
pub type Take = fn(&[u8]) -> Result<(), StepError>;

/// Every step that is given an input of its own, by its name.
pub const STEPS: [(&str, Take); 11] = [
    ("check-target-health", take::<check_target_health::Input>),
    ("create-listener-rule", take::<create_listener_rule::Input>),
    ("create-service", take::<create_service::Input>),
    ("create-target-group", take::<create_target_group::Input>),
    ("delete-deployment", take::<delete_deployment::Input>),
    ("drain-deployment", take::<drain_deployment::Input>),
    ("find-deployments", take::<find_deployments::Input>),
    (
        "register-task-definition",
        take::<register_task_definition::Input>,
    ),
    ("restore-deployment", take::<restore_deployment::Input>),
    ("switch-traffic", take::<switch_traffic::Input>),
    ("validate-deployment", |body| validated(body).map(drop)),
];

fn take<T: DeserializeOwned>(body: &[u8]) -> Result<(), StepError> {
    payload::arrive::<T>(body).map(drop)
}

/// What the deploy machine's first step makes of an input.
///
/// # Errors
/// `InvalidInput`, as that step says it.
pub fn validated(body: &[u8]) -> Result<Deployment, StepError> {
    payload::arrive::<validate_deployment::Input>(body)?.check(&Settings::for_tests(), NOW)
}

/// An input is taken or refused; what the deploy machine's first step takes can be deployed.
///
/// # Panics
/// When it is not so.
pub fn check(body: &[u8]) {
    for (_, take) in STEPS {
        if let Err(error) = take(body) {
            messages::refuses_the_input(&error);
        }
    }
    if let Ok(deployment) = validated(body) {
        can_be_deployed(&deployment);
    }
    if let Ok(text) = std::str::from_utf8(body)
        && let Some(id) = find_deployments::executions::asked_for(text)
    {
        assert!(text.len() >= id.as_str().len());
    }
}

/// The deploy machine's first step takes it.
///
/// # Panics
/// When it is not so, unless the id lies in the future.
pub fn is_an_input_of_deploy(body: &[u8]) {
    match validated(body) {
        Ok(deployment) => can_be_deployed(&deployment),
        Err(error) => assert!(error.message.contains("in the future"), "{error}"),
    }
}

fn can_be_deployed(deployment: &Deployment) {
    let id = &deployment.deployment_id;
    assert_eq!(id.environment(), &Settings::for_tests().environment);
    assert!(id.created() <= NOW + lifecycle::defaults::CLOCK_SKEW);
    assert!((1..=1000).contains(&deployment.desired_count));
    assert_eq!(fargate::check(deployment.cpu, deployment.memory), Ok(()));
    let digest = deployment.requested_digest.as_deref();
    assert!(digest.is_none_or(|digest| digest.len() == 71 && digest.is_ascii()));
    let mut bytes = 0;
    for (name, value) in &deployment.environment {
        assert!(!name.is_empty() && !name.as_bytes()[0].is_ascii_digit());
        assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'));
        assert!(!lifecycle::defaults::RESERVED_VARIABLES.contains(&name.as_str()));
        assert!(!value.contains('\0'), "{name}");
        bytes += name.len() + value.len();
    }
    assert!(bytes <= 32 * 1024, "{bytes}");
}
