//! Serving a step as a Lambda function.

use std::future::Future;
use std::sync::Arc;

use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde::{Serialize, de::DeserializeOwned};

use crate::{ErrorName, StepError, input::Payload};

/// Runs the Lambda loop: decodes each payload, calls `step`, logs a failure once.
///
/// A panic comes back as `UnexpectedError` with its message, because the state machine could not
/// tell a dead process from a passing fault.
///
/// # Errors
/// Whatever ends the loop itself, such as a runtime API that does not answer.
pub async fn serve<Input, Output, Step, Answer>(step: Step) -> Result<(), Error>
where
    Input: DeserializeOwned + Send + 'static,
    Output: Serialize + Send + 'static,
    Step: Fn(Input) -> Answer + Send + Sync + 'static,
    Answer: Future<Output = Result<Output, StepError>> + Send + 'static,
{
    lambda_runtime::tracing::init_default_subscriber();
    let step = Arc::new(step);
    lambda_runtime::run(service_fn(move |event: LambdaEvent<Payload>| {
        let step = Arc::clone(&step);
        async move {
            let answer = async {
                let input = event.payload.decode()?;
                match tokio::spawn(async move { step(input).await }).await {
                    Ok(answer) => answer,
                    Err(crash) => Err(StepError::new(
                        ErrorName::Unexpected,
                        format!("the function panicked: {}", panic_message(crash)),
                    )),
                }
            };
            answer.await.inspect_err(|error| {
                tracing::error!(error = error.name.as_str(), "{}", error.message);
            })
        }
    }))
    .await
}

fn panic_message(crash: tokio::task::JoinError) -> String {
    let Ok(payload) = crash.try_into_panic() else {
        return "the task was cancelled".to_owned();
    };
    payload
        .downcast_ref::<&str>()
        .map(|text| text.to_string())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}
