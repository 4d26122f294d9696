//! Delivers an event to the targets of the rules that match it, as EventBridge does on AWS.
//! `PutEvents` cannot be used, because it refuses events of AWS services.
//!
//! <https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-rule-retry-policy.html>
//! <https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-rule-dlq.html>

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use super::event::PushEvent;
use crate::ministack::{ApiError, Client};

/// The limit on retries, even if the policy of the target allows more. AWS spreads 185 over a day.
const MAX_RETRIES: u64 = 5;

/// The pause before the first retry. Each further pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// How a delivery to one target ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The target accepted the event.
    Delivered,
    /// The delivery failed with this error, and the event went to the dead-letter queue.
    DeadLettered(String),
    /// The delivery failed with this error, and the event is lost.
    Lost(String),
}

/// The events of pushes and the outcomes of their deliveries. Clones share them.
#[derive(Clone)]
pub struct Events(Arc<Inner>);

struct Inner {
    client: Client,
    suppressed: AtomicBool,
    emitted: Mutex<Vec<PushEvent>>,
    deliveries: Mutex<Vec<Outcome>>,
}

impl Events {
    pub(super) fn new(client: Client) -> Self {
        Self(Arc::new(Inner {
            client,
            suppressed: AtomicBool::new(false),
            emitted: Mutex::default(),
            deliveries: Mutex::default(),
        }))
    }

    /// Stops (`true`) or resumes (`false`) the delivery of events. Events of pushes that happen
    /// meanwhile are still listed by [`Events::emitted`], so that a test can deliver them itself.
    pub fn suppress(&self, suppressed: bool) {
        self.0.suppressed.store(suppressed, Ordering::Relaxed);
    }

    /// The events of all pushes so far, oldest first, including suppressed ones.
    pub fn emitted(&self) -> Vec<PushEvent> {
        let emitted = self.0.emitted.lock();
        emitted.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The outcomes of all deliveries to a target so far, oldest first.
    pub fn deliveries(&self) -> Vec<Outcome> {
        let deliveries = self.0.deliveries.lock();
        deliveries.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Records the event of a push and delivers it in the background.
    pub(super) fn emit(&self, event: PushEvent) {
        let mut emitted = self
            .0
            .emitted
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        emitted.push(event.clone());
        drop(emitted);
        if self.0.suppressed.load(Ordering::Relaxed) {
            return;
        }
        let events = self.clone();
        tokio::spawn(async move {
            if let Err(error) = events.deliver(&event).await {
                tracing::warn!(%error, tag = event.tag, "the event of a push was not delivered");
            }
        });
    }

    /// Delivers an event now, even if events are suppressed or it was delivered before. Returns the
    /// outcome for each target of each rule that matches.
    ///
    /// # Errors
    /// When the rules or their targets cannot be read.
    pub async fn deliver(&self, event: &PushEvent) -> Result<Vec<Outcome>, ApiError> {
        let event = event.to_json();
        let mut done = Vec::new();
        for rule in self.matching_rules(&event).await? {
            let name = rule["Name"].as_str().unwrap_or_default();
            let targets = self
                .events("ListTargetsByRule", json!({ "Rule": name }))
                .await?;
            for target in targets["Targets"].as_array().into_iter().flatten() {
                done.push(self.deliver_to(&rule, target, &event).await);
            }
        }
        let mut deliveries = self
            .0
            .deliveries
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        deliveries.extend(done.iter().cloned());
        Ok(done)
    }

    async fn matching_rules(&self, event: &Value) -> Result<Vec<Value>, ApiError> {
        let mut matching = Vec::new();
        let mut page = json!({});
        loop {
            let rules = self.events("ListRules", page).await?;
            for rule in rules["Rules"].as_array().into_iter().flatten() {
                let Some(pattern) = rule["EventPattern"].as_str() else {
                    continue;
                };
                if rule["State"] != "ENABLED" {
                    continue;
                }
                let test = json!({ "EventPattern": pattern, "Event": event.to_string() });
                if self.events("TestEventPattern", test).await?["Result"] == true {
                    matching.push(rule.clone());
                }
            }
            match rules["NextToken"].as_str() {
                Some(token) => page = json!({ "NextToken": token }),
                None => return Ok(matching),
            }
        }
    }

    async fn deliver_to(&self, rule: &Value, target: &Value, event: &Value) -> Outcome {
        let input = event.to_string();
        let retries = target["RetryPolicy"]["MaximumRetryAttempts"]
            .as_u64()
            .map_or(MAX_RETRIES, |retries| retries.min(MAX_RETRIES));
        let mut pause = FIRST_PAUSE;
        let mut attempt = 0;
        let error = loop {
            let error = match self.invoke(rule, target, &input).await {
                Ok(()) => return Outcome::Delivered,
                Err(error) => error,
            };
            let transient = error.status == 0 || error.status == 429 || error.status >= 500;
            if !transient || attempt >= retries {
                break error;
            }
            attempt += 1;
            tokio::time::sleep(pause).await;
            pause *= 2;
        };
        match target["DeadLetterConfig"]["Arn"].as_str() {
            None => Outcome::Lost(error.to_string()),
            Some(queue) => match self.dead_letter(queue, rule, target, event, &error).await {
                Ok(()) => Outcome::DeadLettered(error.to_string()),
                Err(also) => Outcome::Lost(format!("{error}; the dead-letter queue: {also}")),
            },
        }
    }

    async fn invoke(&self, rule: &Value, target: &Value, input: &str) -> Result<(), ApiError> {
        let arn = target["Arn"].as_str().unwrap_or_default();
        match arn.split(':').nth(2) {
            Some("lambda") => {
                self.check_permission(rule, "lambda:InvokeFunction", arn)
                    .await?;
                let path = format!(
                    "/2015-03-31/functions/{}/invocations",
                    arn.replace(':', "%3A")
                );
                let headers = [("x-amz-invocation-type", "Event")];
                let body = Bytes::from(input.to_owned());
                let client = &self.0.client;
                client
                    .rest_with_headers("lambda", Method::POST, &path, &headers, body)
                    .await?;
            }
            Some("sqs") => self.send_message(rule, arn, input, json!({})).await?,
            _ => {
                return Err(ApiError {
                    status: 400,
                    code: "UnsupportedTarget".into(),
                    message: format!("the local cloud cannot deliver to {arn}"),
                });
            }
        }
        Ok(())
    }

    async fn check_permission(
        &self,
        rule: &Value,
        action: &str,
        resource: &str,
    ) -> Result<(), ApiError> {
        let rule = rule["Arn"].as_str().unwrap_or_default();
        if self.0.client.lets_rule(rule, action, resource).await? {
            return Ok(());
        }
        Err(ApiError {
            status: 403,
            code: "NO_PERMISSIONS".into(),
            message: format!("{resource} has no permission that lets {rule} do {action}"),
        })
    }

    async fn dead_letter(
        &self,
        queue: &str,
        rule: &Value,
        target: &Value,
        event: &Value,
        error: &ApiError,
    ) -> Result<(), ApiError> {
        let text = |value: &str| json!({ "DataType": "String", "StringValue": value });
        let attributes = json!({
            "RULE_ARN": text(rule["Arn"].as_str().unwrap_or_default()),
            "TARGET_ARN": text(target["Arn"].as_str().unwrap_or_default()),
            "ERROR_CODE": text(&error.code),
            "ERROR_MESSAGE": text(&error.message),
        });
        self.send_message(rule, queue, &event.to_string(), attributes)
            .await
    }

    async fn send_message(
        &self,
        rule: &Value,
        queue: &str,
        body: &str,
        attributes: Value,
    ) -> Result<(), ApiError> {
        self.check_permission(rule, "sqs:SendMessage", queue)
            .await?;
        let name = queue.rsplit(':').next().unwrap_or_default();
        let sqs = |operation: &'static str, body| async move {
            self.0
                .client
                .json("sqs", &format!("AmazonSQS.{operation}"), body)
                .await
        };
        let url = sqs("GetQueueUrl", json!({ "QueueName": name })).await?;
        let message = json!({
            "QueueUrl": url["QueueUrl"],
            "MessageBody": body,
            "MessageAttributes": attributes,
        });
        sqs("SendMessage", message).await.map(|_| ())
    }

    async fn events(&self, operation: &str, body: Value) -> Result<Value, ApiError> {
        self.0
            .client
            .json("events", &format!("AWSEvents.{operation}"), body)
            .await
    }
}
