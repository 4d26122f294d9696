//! The inputs of the steps, from operators in the console and from the state machines.

use lifecycle::{Baseline, StepError};
use serde::de::DeserializeOwned;
use settings::{Deployment, Input, fargate};
use time::UtcDateTime;
use time::macros::utc_datetime;

use crate::{messages, payload};

/// The time at which the inputs arrive.
pub const NOW: UtcDateTime = utc_datetime!(2025-10-27 13:00:00);

/// Decodes the input of a step as the step does, without its calls of AWS.
pub type Decode = fn(&[u8]) -> Result<(), StepError>;

/// All steps that have their own input, with the function that decodes it.
pub const STEPS: [(&str, Decode); 20] = [
    ("check-gate", decode::<check_gate::Input>),
    ("check-target-health", decode::<check_target_health::Input>),
    ("choose-count", decode::<choose_count::Input>),
    (
        "create-listener-rule",
        decode::<create_listener_rule::Input>,
    ),
    ("create-service", decode::<create_service::Input>),
    ("create-target-group", decode::<create_target_group::Input>),
    ("delete-deployment", decode::<delete_deployment::Input>),
    ("drain-deployment", decode::<drain_deployment::Input>),
    ("end-approvals", decode::<end_approvals::Input>),
    ("evict-visitors", decode::<evict_visitors::Input>),
    ("find-deployments", decode::<find_deployments::Input>),
    ("register-scaling", decode::<register_scaling::Input>),
    (
        "register-task-definition",
        decode::<register_task_definition::Input>,
    ),
    ("restart-rollout", decode::<restart_rollout::Input>),
    ("restore-deployment", decode::<restore_deployment::Input>),
    ("run-release", decode::<run_release::Input>),
    ("smoke-test", decode::<smoke_test::Input>),
    ("switch-traffic", decode::<switch_traffic::Input>),
    ("watch-deployment", decode::<watch_deployment::Input>),
    ("validate-deployment", |body| validated(body).map(drop)),
];

fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<(), StepError> {
    payload::decode::<T>(body).map(drop)
}

/// The input that the first step of the deploy machine reads, and the deployment that it makes of it without settings.
///
/// # Errors
/// `InvalidInput`, with the message of the step.
pub fn validated(body: &[u8]) -> Result<(Input, Deployment), StepError> {
    let baseline = Baseline::for_tests();
    let input = Input::read(payload::decode(body)?, &baseline, NOW)?;
    let deployment = Deployment::of(input.clone(), None, None, settings::Defaults::of(&baseline))?;
    Ok((input, deployment))
}

/// Every input is accepted or refused. What the first step of the deploy machine accepts can be
/// deployed.
pub fn check(body: &[u8]) {
    for (_, decode) in STEPS {
        if let Err(error) = decode(body) {
            messages::assert_input_refused(&error);
        }
    }
    if let Ok((input, deployment)) = validated(body) {
        assert_deployable(&input, &deployment);
    }
    if let Ok(text) = std::str::from_utf8(body)
        && let Some(id) = lifecycle::executions::asked_for(text)
    {
        assert!(text.len() >= id.as_str().len());
    }
}

/// The first step of the deploy machine accepts this input.
///
/// # Panics
/// If the step refuses it, unless the id is in the future.
pub fn assert_accepted_by_deploy(body: &[u8]) {
    match validated(body) {
        Ok((input, deployment)) => assert_deployable(&input, &deployment),
        Err(error) => assert!(error.message.contains("in the future"), "{error}"),
    }
}

fn assert_deployable(input: &Input, deployment: &Deployment) {
    let id = &deployment.deployment_id;
    assert_eq!(id.environment(), &Baseline::for_tests().environment);
    assert!(id.created() <= NOW + lifecycle::defaults::CLOCK_SKEW);
    assert!((1..=1000).contains(&deployment.desired_count));
    match (deployment.cpu, deployment.memory) {
        (Some(cpu), Some(memory)) => assert_eq!(fargate::check(cpu, memory), Ok(())),
        _ => assert!(input.fields.base.is_some()),
    }
    let digest = input.image_digest.as_deref();
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
