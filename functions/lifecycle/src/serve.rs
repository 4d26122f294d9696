//! Serving a step as a Lambda function.

mod log;

use std::cell::Cell;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::time::{Duration, Instant, SystemTime};

use futures_util::FutureExt as _;
use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::input::{self, Payload};
use crate::{DeploymentId, ErrorName, StepError, defaults};

/// A step from payload to answer, without its types.
type Step<'a> = dyn Fn(Value) -> Pin<Box<dyn Future<Output = Result<Value, StepError>> + 'a>> + 'a;

/// Runs the Lambda loop: decodes each payload, calls `step`, and logs one line about it.
///
/// A panic is reported as `UnexpectedError` with its message, because the state machine could not
/// distinguish a dead process from a passing fault.
///
/// # Errors
/// An error that ends the loop itself, such as a runtime API that does not answer.
pub async fn serve<Input, Output>(
    step: impl AsyncFn(Input) -> Result<Output, StepError>,
) -> Result<(), Error>
where
    Input: DeserializeOwned,
    Output: Serialize,
{
    let step = &step;
    run_loop(&move |payload| {
        Box::pin(async move {
            let output = step(input::decode(payload)?).await?;
            serde_json::to_value(output)
                .map_err(|why| StepError::new(ErrorName::Unexpected, why.to_string()))
        })
    })
    .await
}

/// The loop itself, the same for every step and boxed, so that it is compiled once, in this crate.
fn run_loop<'a>(step: &'a Step<'a>) -> Pin<Box<dyn Future<Output = Result<(), Error>> + 'a>> {
    Box::pin(async move {
        log::install();
        keep_panic_messages();
        lambda_runtime::run(service_fn(|event| invoke(step, event))).await
    })
}

async fn invoke(step: &Step<'_>, event: LambdaEvent<Payload>) -> Result<Value, StepError> {
    let start = Instant::now();
    let payload = event.payload.decode::<Value>();
    let deployment = payload.as_ref().ok().and_then(log::deployment);
    let time = time_until(event.context.deadline());
    let answer = within(time, async { step(payload?).await }).await;
    let answer = answer.map_err(|error| name_deployment(error, deployment.as_ref()));
    log::invocation(&event.context, deployment, start.elapsed(), &answer);
    answer
}

/// Names the deployment of the payload in the error. An error about the payload itself names the field.
fn name_deployment(error: StepError, deployment: Option<&DeploymentId>) -> StepError {
    match deployment {
        Some(id) if error.name != ErrorName::InvalidInput => error.with_deployment(id),
        _ => error,
    }
}

/// The time that a step has when Lambda kills the function at `deadline`.
fn time_until(deadline: SystemTime) -> Duration {
    deadline
        .duration_since(SystemTime::now())
        .unwrap_or_default()
        .saturating_sub(defaults::STOP_BEFORE_TIMEOUT)
}

/// Runs a step to its end, or stops it at its current wait when its time is over.
///
/// Stopping is as safe as a death between two calls: the next attempt looks up first, then continues.
async fn within<Output>(
    time: Duration,
    step: impl Future<Output = Result<Output, StepError>>,
) -> Result<Output, StepError> {
    let step = PANIC.scope(Cell::default(), async {
        let answer = AssertUnwindSafe(step).catch_unwind().await;
        answer.unwrap_or_else(|_| {
            let panic = PANIC.with(Cell::take).unwrap_or_default();
            Err(StepError::new(
                ErrorName::Unexpected,
                format!("the function panicked: {panic}"),
            ))
        })
    });
    match tokio::time::timeout(time, step).await {
        Ok(answer) => answer,
        Err(_) => Err(StepError::new(
            ErrorName::Transient,
            format!(
                "the step had not finished after {:.0} s and was stopped before Lambda's timeout; its calls to AWS \
                 were slow or throttled",
                time.as_secs_f64()
            ),
        )),
    }
}

tokio::task_local! {
    /// The message and place of a panic in the step that runs.
    static PANIC: Cell<Option<String>>;
}

/// Keeps the message of a step's panic for the log line of its invocation, instead of printing it.
fn keep_panic_messages() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let message = panic.payload_as_str().unwrap_or("no message");
        let place = panic.location().map(|it| format!(" at {it}"));
        let text = message.to_owned() + &place.unwrap_or_default();
        if PANIC.try_with(|it| it.set(Some(text))).is_err() {
            default(panic);
        }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_step_in_time_is_answered_as_it_says() {
        assert_eq!(within(LONG, async { Ok(7) }).await, Ok(7));
        let refusal = StepError::new(ErrorName::QuotaExceeded, "no room");
        let refused = refusal.clone();
        let answer = within::<()>(LONG, async { Err(refused) }).await;
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
        let error = within(Duration::from_millis(10), never).await.unwrap_err();
        assert_eq!(error.name, ErrorName::Transient);
        assert!(error.message.contains("before Lambda's timeout"), "{error}");
        assert!(stopped.load(Ordering::SeqCst));
    }

    #[tokio::test]
    async fn a_panic_is_reported_with_its_message_and_place() {
        keep_panic_messages();
        for panic in ["no such tag", "no such rule"] {
            let error = within::<()>(LONG, async { panic!("{panic}") }).await;
            let error = error.unwrap_err();
            assert_eq!(error.name, ErrorName::Unexpected);
            assert!(error.message.contains(panic), "{error}");
            assert!(error.message.contains("serve.rs:"), "{error}");
        }
    }

    #[test]
    fn an_error_names_the_deployment_unless_it_is_about_the_payload() {
        let id = "test-20251027-122112Z".parse().unwrap();
        let named = |name| name_deployment(StepError::new(name, "no room"), Some(&id)).message;
        assert_eq!(named(ErrorName::InvalidInput), "no room");
        assert_eq!(
            named(ErrorName::QuotaExceeded),
            "test-20251027-122112Z: no room"
        );
    }

    #[test]
    fn a_step_is_stopped_a_second_before_lambda_kills_the_function() {
        let now = SystemTime::now();
        let time = time_until(now + Duration::from_secs(50));
        assert!(time <= Duration::from_secs(49) && time > Duration::from_secs(40));
        assert_eq!(time_until(now), Duration::ZERO);
    }
}
