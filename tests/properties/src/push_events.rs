//! Events of ECR, as EventBridge sends them to `start-deployment`.

use start_deployment::{Asked, Config};

use crate::{console_input, messages, payload};

/// The settings of the function.
pub fn config() -> Config {
    Config {
        environment: "test".parse().expect("a name"),
        repository_name: "test".to_owned(),
        state_machine_arn: "arn:aws:states:us-east-1:1:stateMachine:test-deploy".to_owned(),
    }
}

/// Whether the event starts a deployment.
pub fn starts_a_deployment(body: &[u8]) -> bool {
    let asked = payload::decode(body).and_then(|event| start_deployment::read(&config(), event));
    matches!(asked, Ok(Asked::For(_)))
}

/// An event starts an execution whose input the deploy machine accepts, starts nothing, or is refused.
pub fn check(body: &[u8]) {
    let config = config();
    match payload::decode(body).and_then(|event| start_deployment::read(&config, event)) {
        Ok(Asked::For(execution)) => {
            assert_eq!(execution.deployment_id.environment(), &config.environment);
            let input = serde_json::to_vec(&execution).expect("JSON");
            // A key, an id, another key and a digest.
            assert!(input.len() < 200, "{execution:?}");
            console_input::assert_accepted_by_deploy(&input);
        }
        Ok(Asked::Nothing { reason }) => messages::assert_printable(&reason),
        Err(error) => messages::assert_input_refused(&error),
    }
}
