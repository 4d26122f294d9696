//! Serving a step as a Lambda function.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{ErrorName, StepError, defaults, input::Payload};

/// A step from payload to answer.
type Step = Box<dyn Fn(Payload) -> Boxed<Result<Value, StepError>> + Send + Sync>;

/// What a step does, whatever step it is.
type Boxed<Answer> = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// Runs the Lambda loop: decodes each payload, calls `step`, logs a failure once.
///
/// A panic comes back as `UnexpectedError` with its message, because the state machine could not
/// tell a dead process from a passing fault.
///
/// # Errors
/// Whatever ends the loop itself, such as a runtime API that does not answer.
pub async fn serve<Input, Output, Run, Answer>(step: Run) -> Result<(), Error>
where
    Input: DeserializeOwned + Send + 'static,
    Output: Serialize + Send + 'static,
    Run: Fn(Input) -> Answer + Send + Sync + 'static,
    Answer: Future<Output = Result<Output, StepError>> + Send + 'static,
{
    let step = Arc::new(step);
    run_loop(Box::new(move |payload| {
        let step = Arc::clone(&step);
        Box::pin(async move {
            let output = step(payload.decode()?).await?;
            serde_json::to_value(output)
                .map_err(|why| StepError::new(ErrorName::Unexpected, why.to_string()))
        })
    }))
    .await
}

/// The loop itself, the same for every step and boxed, so that it is compiled here once and not into
/// each function anew.
fn run_loop(step: Step) -> Pin<Box<dyn Future<Output = Result<(), Error>>>> {
    Box::pin(async move {
        lambda_runtime::tracing::init_default_subscriber();
        lambda_runtime::run(service_fn(move |event: LambdaEvent<Payload>| {
            let answer = within(time_until(event.context.deadline()), step(event.payload));
            async move {
                answer.await.inspect_err(|error| {
                    tracing::error!(error = error.name.as_str(), "{}", error.message);
                })
            }
        }))
        .await
    })
}

/// The time that a step has when Lambda kills the function at `deadline`.
fn time_until(deadline: SystemTime) -> Duration {
    deadline
        .duration_since(SystemTime::now())
        .unwrap_or_default()
        .saturating_sub(defaults::STOP_BEFORE_TIMEOUT)
}

/// Runs a step to its end, or stops it where it waits when its time is over.
///
/// Stopping is as safe as a death between two calls: the next try looks first and goes on.
async fn within<Output: Send + 'static>(
    time: Duration,
    step: Boxed<Result<Output, StepError>>,
) -> Result<Output, StepError> {
    let mut step = tokio::spawn(step);
    match tokio::time::timeout(time, &mut step).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(crash)) => Err(StepError::new(
            ErrorName::Unexpected,
            format!("the function panicked: {}", panic_message(crash)),
        )),
        Err(_) => {
            step.abort();
            // Nothing of it may go on in the next invocation.
            let _ = step.await;
            Err(StepError::new(
                ErrorName::Transient,
                format!(
                    "the step was not done after {:.0} s and was stopped before Lambda's timeout; its calls to AWS \
                     were slow or throttled",
                    time.as_secs_f64()
                ),
            ))
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_step_in_time_is_answered_as_it_says() {
        let answer = within(LONG, Box::pin(async { Ok(7) })).await;
        assert_eq!(answer, Ok(7));
        let refusal = StepError::new(ErrorName::QuotaExceeded, "no room");
        let refused = refusal.clone();
        let answer = within::<()>(LONG, Box::pin(async move { Err(refused) })).await;
        assert_eq!(answer, Err(refusal));
    }

    #[tokio::test]
    async fn a_step_that_takes_too_long_is_stopped_for_good_and_tried_again() {
        struct Stopped(Arc<AtomicBool>);
        impl Drop for Stopped {
            fn drop(&mut self) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        let stopped = Arc::new(AtomicBool::new(false));
        let guard = Stopped(Arc::clone(&stopped));
        let never = async move {
            let _guard = guard;
            std::future::pending::<Result<(), StepError>>().await
        };
        let error = within(Duration::from_millis(10), Box::pin(never))
            .await
            .unwrap_err();
        assert_eq!(error.name, ErrorName::Transient);
        assert!(error.message.contains("before Lambda's timeout"), "{error}");
        assert!(stopped.load(Ordering::SeqCst));
    }

    #[tokio::test]
    async fn a_panic_is_told_with_its_message() {
        let error = within::<()>(LONG, Box::pin(async { panic!("no such tag") })).await;
        let error = error.unwrap_err();
        assert_eq!(error.name, ErrorName::Unexpected);
        assert!(error.message.contains("no such tag"), "{error}");
    }

    #[test]
    fn a_step_is_stopped_a_second_before_lambda_kills_the_function() {
        let now = SystemTime::now();
        let time = time_until(now + Duration::from_secs(50));
        assert!(time <= Duration::from_secs(49) && time > Duration::from_secs(40));
        assert_eq!(time_until(now), Duration::ZERO);
    }
}
