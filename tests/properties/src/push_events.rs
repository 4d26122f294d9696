//! Events of ECR, as EventBridge hands them to `start-deployment`.

use start_deployment::{Asked, Settings};

use crate::{console_input, messages, payload};

/// What the function knows of its environment.
pub fn settings() -> Settings {
    Settings {
        environment: "test".parse().expect("a name"),
        repository_name: "test".to_owned(),
        state_machine_arn: "arn:aws:states:us-east-1:1:stateMachine:test-deploy".to_owned(),
    }
}

/// An event asks for an execution that the deploy machine can take, for nothing, or is refused.
///
/// # Panics
/// When it is not so.
pub fn check(body: &[u8]) {
    let settings = settings();
    match payload::arrive(body).and_then(|event| start_deployment::read(&settings, event)) {
        Ok(Asked::For(execution)) => {
            assert_eq!(execution.deployment_id.environment(), &settings.environment);
            let input = serde_json::to_vec(&execution).expect("JSON");
            // A key, an id, another key and a digest.
            assert!(input.len() < 200, "{execution:?}");
            console_input::is_an_input_of_deploy(&input);
        }
        Ok(Asked::Nothing { reason }) => messages::can_be_shown(&reason),
        Err(error) => messages::refuses_the_input(&error),
    }
}
