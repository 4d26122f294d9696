//! A function's log: one line for each invocation. `docs/logs.md` describes its fields.

use std::time::Duration;

use lambda_runtime::Context;
use serde_json::{Map, Value};
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::{MakeWriter, SubscriberBuilder};
use tracing_subscriber::layer::SubscriberExt as _;

use crate::printable::printable;
use crate::{DeploymentId, StepError};

/// The maximum number of characters of a decision in words. That of a plan has a sentence for every
/// deployment.
/// CloudWatch Logs takes a line of 256 KiB.
const MAX_WORDS: usize = 50_000;

/// Starts logging to standard output, in the format of the function's logging configuration.
/// <https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-logformat.html>
pub fn install() {
    let format = std::env::var("AWS_LAMBDA_LOG_FORMAT").unwrap_or_default();
    let subscriber = subscriber(format.eq_ignore_ascii_case("json"), std::io::stdout);
    // It fails when there is one already, which then logs in its place.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// Levels are fixed. Below them, the runtime and the SDK write whole payloads, in which the variables of
/// an application may be secret; above them, Lambda filters lines in JSON by the function's configuration.
fn subscriber<Writer>(json: bool, writer: Writer) -> Box<dyn Subscriber + Send + Sync>
where
    Writer: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let levels = Targets::new()
        .with_default(LevelFilter::WARN)
        .with_target("lifecycle", LevelFilter::INFO)
        // The runtime's own line about an error of a handler, which `invocation` logs.
        .with_target("lambda_runtime::layers::panic", LevelFilter::OFF);
    let lines = SubscriberBuilder::default()
        .with_ansi(false)
        .with_target(false)
        .with_writer(writer);
    if json {
        let lines = lines.json().flatten_event(true).with_current_span(false);
        Box::new(lines.with_span_list(false).finish().with(levels))
    } else {
        Box::new(lines.finish().with(levels))
    }
}

/// The deployment that a payload or an output is about.
pub fn deployment(value: &Value) -> Option<DeploymentId> {
    // The first step of the deploy machine gets the execution's input in a field of its own.
    let id = value["deploymentId"].as_str();
    id.or(value["input"]["deploymentId"].as_str())?.parse().ok()
}

/// Logs how an invocation ended. `deployment` is the one that the payload names, if it names one.
pub fn invocation(
    context: &Context,
    deployment_asked_for: Option<DeploymentId>,
    took: Duration,
    answer: &Result<Value, StepError>,
) {
    let of_output = || answer.as_ref().ok().and_then(deployment);
    let deployment = deployment_asked_for.or_else(of_output);
    let deployment = deployment.as_ref().map(DeploymentId::as_str);
    let environment = std::env::var("PULSE_ENVIRONMENT").unwrap_or_default();
    let step = step(&context.env_config.function_name, &environment);
    let duration = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    let request = context.request_id.as_str();
    match answer {
        Ok(output) => tracing::info!(
            step,
            deploymentId = deployment,
            outcome = outcome(output),
            durationMs = duration,
            requestId = request,
            "{}",
            printable(&words(output), MAX_WORDS)
        ),
        Err(error) => tracing::error!(
            step,
            deploymentId = deployment,
            outcome = "failed",
            error = error.name.as_str(),
            durationMs = duration,
            requestId = request,
            "{error}"
        ),
    }
}

/// The step of a function that is named `{environment}-{step}`.
fn step<'a>(function: &'a str, environment: &str) -> &'a str {
    let step = function.strip_prefix(environment);
    step.and_then(|it| it.strip_prefix('-')).unwrap_or(function)
}

/// What the step decided; a step that decides nothing has done its work.
fn outcome(output: &Value) -> &str {
    let decided = output["verdict"].as_str();
    decided.or(output["outcome"].as_str()).unwrap_or("done")
}

/// The decision in words: the output's reason, or of a plan each deployment's, or what was made.
fn words(output: &Value) -> String {
    if let Some(reason) = output["reason"].as_str() {
        return reason.to_owned();
    }
    let fields = output.as_object().into_iter().flat_map(Map::values);
    let planned = fields
        .filter_map(Value::as_array)
        .flatten()
        .filter_map(|it| {
            let (id, reason) = (it["deploymentId"].as_str()?, it["reason"].as_str()?);
            Some(format!("{} {id}: {reason}", it["action"].as_str()?))
        });
    let words = planned.collect::<Vec<_>>().join("; ");
    if words.is_empty() {
        arns(output).join(", ")
    } else {
        words
    }
}

fn arns(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) if text.starts_with("arn:") => vec![text],
        Value::Array(items) => items.iter().flat_map(arns).collect(),
        Value::Object(fields) => fields.values().flat_map(arns).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorName;
    use crate::serve::{invoke, keep_panic_messages};
    use lambda_runtime::LambdaEvent;
    use serde_json::json;
    use std::io::Write;
    use std::pin::Pin;
    use std::sync::{Arc, Mutex};
    use time::{UtcDateTime, format_description::well_known::Rfc3339};

    const ID: &str = "test-20251027-122112Z";

    /// What was logged.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// Invokes a step that gives that answer, and returns all that is logged.
    async fn logged(
        json: bool,
        payload: &str,
        answer: impl Fn() -> Result<Value, StepError>,
    ) -> String {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = subscriber(json, move || writer.clone());
        let _guard = tracing::subscriber::set_default(subscriber);
        keep_panic_messages();
        let config = lambda_runtime::Config {
            function_name: "create-service".into(),
            ..Default::default()
        };
        let mut context = Context::default();
        context.deadline = 4_102_444_800_000;
        context.request_id = "r-1".into();
        context.env_config = Arc::new(config);
        let payload = serde_json::from_str(payload).unwrap();
        let step = |_| -> Pin<Box<dyn Future<Output = _>>> { Box::pin(async { answer() }) };
        let _ = invoke(&step, LambdaEvent::new(payload, context)).await;
        String::from_utf8(log.0.lock().unwrap().clone()).unwrap()
    }

    /// The one line, without the fields that every line has.
    async fn line(payload: Value, answer: impl Fn() -> Result<Value, StepError>) -> Value {
        let log = logged(true, &payload.to_string(), answer).await;
        assert_eq!(log.lines().count(), 1, "{log}");
        let mut line: Value = serde_json::from_str(&log).expect("JSON");
        let fields = line.as_object_mut().unwrap();
        let timestamp = fields.remove("timestamp").expect("a time");
        UtcDateTime::parse(timestamp.as_str().unwrap(), &Rfc3339).expect("RFC 3339");
        assert!(fields.remove("durationMs").expect("a duration").is_u64());
        assert_eq!(fields.remove("requestId").unwrap(), "r-1");
        assert_eq!(fields.remove("step").unwrap(), "create-service");
        line
    }

    #[tokio::test]
    async fn a_success_is_one_line_with_the_decision_in_words() {
        let payload = json!({"deploymentId": ID, "environment": {"KEY": "secret"}});
        let reason = "0 of 2 targets are healthy";
        let output = || Ok(json!({"verdict": "waiting", "healthy": 0, "reason": reason}));
        assert_eq!(
            line(payload, output).await,
            json!({"level": "INFO", "message": reason, "deploymentId": ID, "outcome": "waiting"})
        );
    }

    #[tokio::test]
    async fn a_deployment_that_the_payload_does_not_name_is_that_of_the_output() {
        let output = || Ok(json!({"outcome": "started", "deploymentId": ID, "reason": "pushed"}));
        assert_eq!(line(json!({}), output).await["deploymentId"], ID);
        let hostile = json!({"deploymentId": "\u{1b}[2J"});
        assert_eq!(
            line(hostile, || Ok(json!({}))).await,
            json!({"level": "INFO", "message": "", "outcome": "done"})
        );
    }

    #[tokio::test]
    async fn an_output_without_a_reason_is_described_by_what_it_names() {
        let rules = || Ok(json!({"headerRule": {"arn": "arn:h"}, "cookieRule": {"arn": "arn:c"}}));
        assert_eq!(line(json!({}), rules).await["message"], "arn:h, arn:c");
        let made = || Ok(json!({"outcome": "created", "arns": ["arn:a", "arn:b"], "name": "c"}));
        assert_eq!(line(json!({}), made).await["message"], "arn:a, arn:b");
        let plan = || {
            let active = json!({"deploymentId": "b", "action": "keep", "reason": "it is active"});
            let old = json!({"deploymentId": "a", "action": "drain", "reason": "it was replaced"});
            Ok(json!({"dryRun": false, "deployments": [active, old]}))
        };
        let words = "keep b: it is active; drain a: it was replaced";
        assert_eq!(line(json!({}), plan).await["message"], words);
    }

    #[tokio::test]
    async fn a_failure_is_one_line_that_begins_with_the_name_of_the_error() {
        let refused = || {
            Err(StepError::new(
                ErrorName::QuotaExceeded,
                "no room\nfor rules",
            ))
        };
        assert_eq!(
            line(json!({"deploymentId": ID}), refused).await,
            json!({
                "level": "ERROR", "message": format!(r"QuotaExceededError: {ID}: no room\nfor rules"),
                "deploymentId": ID, "outcome": "failed", "error": "QuotaExceededError"
            })
        );
        let message = line(json!([]), refused).await["message"].to_string();
        assert!(
            message.starts_with("\"InvalidInputError: invalid input"),
            "{message}"
        );
    }

    #[tokio::test]
    async fn a_panic_is_one_line_too() {
        let line = line(json!({"deploymentId": ID}), || panic!("no such tag")).await;
        let message = line["message"].as_str().unwrap();
        let start = format!("UnexpectedError: {ID}: the function panicked: no such tag at ");
        assert!(message.starts_with(&start), "{message}");
        assert_eq!(line["deploymentId"], ID);
    }

    #[tokio::test]
    async fn a_function_that_is_configured_for_text_logs_text() {
        let log = logged(false, "{}", || Ok(json!({"reason": "it is active"}))).await;
        assert_eq!(log.lines().count(), 1, "{log}");
        let text = " INFO it is active step=\"create-service\" outcome=\"done\"";
        assert!(log.contains(text), "{log}");
    }

    #[test]
    fn a_step_is_named_without_its_environment() {
        assert_eq!(step("test-eu-create-service", "test-eu"), "create-service");
        assert_eq!(
            step("tester-create-service", "test"),
            "tester-create-service"
        );
    }
}
