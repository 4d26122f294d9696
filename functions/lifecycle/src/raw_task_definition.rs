//! Task definitions as JSON, for copies: the SDK's types lose the members that are newer than they are.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_ecs::Client;
use aws_sdk_ecs::config::Config;
use aws_sdk_ecs::config::retry::RetryConfig;
use aws_sdk_ecs::error::ProvideErrorMetadata;
use aws_sdk_ecs::operation::describe_task_definition::DescribeTaskDefinitionError;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::AfterDeserializationInterceptorContextRef;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::ConfigBag;
use serde_json::Value;

use crate::aws_error::{created_arn, failed, found};
use crate::{ErrorName, StepError, defaults};

/// What AWS adds to a task definition when it shows it, and does not take back:
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_TaskDefinition.html>.
const READ_ONLY: [&str; 9] = [
    "taskDefinitionArn",
    "revision",
    "status",
    "requiresAttributes",
    "compatibilities",
    "registeredAt",
    "registeredBy",
    "deregisteredAt",
    "deleteRequestedAt",
];
/// What may be shown as empty, and is refused as such.
const NOT_EMPTY: [&str; 2] = ["ipcMode", "pidMode"];

/// The body of the last answer, as it came.
#[derive(Debug, Clone, Default)]
struct KeptBody(Arc<Mutex<Vec<u8>>>);

impl Intercept for KeptBody {
    fn name(&self) -> &'static str {
        "KeptBody"
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let body = context.response().body().bytes().unwrap_or_default();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = body.to_vec();
        Ok(())
    }
}

/// A revision by its ARN, or the newest active one of a family, as AWS shows it. `None` when there is none.
///
/// # Errors
/// As [`crate::aws_error::CODES`] say.
pub async fn read(ecs: &Client, name: &str) -> Result<Option<Value>, StepError> {
    let body = KeptBody::default();
    let answer = ecs
        .describe_task_definition()
        .task_definition(name)
        .customize()
        .interceptor(body.clone())
        .send()
        .await;
    let attempt = format!("read task definition {name}");
    let is_gone = DescribeTaskDefinitionError::is_client_exception;
    if found(&attempt, answer, is_gone)?.is_none() {
        return Ok(None);
    }
    let body = body.0.lock().unwrap_or_else(PoisonError::into_inner);
    let mut answer: Value = serde_json::from_slice(&body).map_err(|why| {
        let message = format!("could not {attempt}: the answer cannot be read as JSON: {why}");
        StepError::new(ErrorName::Unexpected, message)
    })?;
    Ok(Some(answer["taskDefinition"].take()))
}

/// What can be registered again of a task definition that AWS has shown.
pub fn copy(mut described: Value) -> Value {
    if let Some(members) = described.as_object_mut() {
        members.retain(|name, value| {
            let is_empty = NOT_EMPTY.contains(&name.as_str()) && value == "";
            !READ_ONLY.contains(&name.as_str()) && !is_empty
        });
    }
    described
}

/// Registers a revision and gives its ARN.
///
/// # Errors
/// `Transient` when another revision of the family is registered at the same moment, else as
/// [`crate::aws_error::CODES`] say.
pub async fn register(
    ecs: &Client,
    attempt: &str,
    definition: &Value,
) -> Result<String, StepError> {
    let body = definition.to_string();
    let answer = ecs
        .register_task_definition()
        .customize()
        .mutate_request(move |request| {
            let length = body.len().to_string();
            request.headers_mut().insert("content-length", length);
            *request.body_mut() = SdkBody::from(body.clone());
        })
        // The call is not idempotent: the same request again after a lost answer registers a second
        // revision. The state machine retries the whole step, which looks up first.
        .config_override(Config::builder().retry_config(RetryConfig::disabled()))
        .send()
        .await;
    let answer = answer.map_err(|error| {
        let message = error.message().unwrap_or_default();
        // Deployments share the family, and two may register at the same moment.
        let is_concurrent = message.contains("Too many concurrent attempts");
        let mut error = failed(attempt, error);
        if is_concurrent {
            error.name = ErrorName::Transient;
        }
        error
    })?;
    let arn = answer
        .task_definition
        .and_then(|definition| definition.task_definition_arn);
    created_arn(attempt, arn)
}

/// The entries of a list of variables or secrets in a container that are not set by the deployment
/// itself.
pub fn own_entries<'a>(container: &'a Value, list: &str) -> impl Iterator<Item = &'a Value> {
    let entries = container[list].as_array().into_iter().flatten();
    entries.filter(|entry| {
        let name = entry["name"].as_str().unwrap_or_default();
        !defaults::RESERVED_VARIABLES.contains(&name)
    })
}

/// The names of [`own_entries`].
pub fn names<'a>(container: &'a Value, list: &str) -> BTreeSet<&'a str> {
    own_entries(container, list)
        .filter_map(|entry| entry["name"].as_str())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_copy_has_all_that_was_shown_but_what_aws_does_not_take_back() {
        let described = json!({
            "family": "web", "pidMode": "task", "ipcMode": "", "newMember": "", "revision": 3, "status": "ACTIVE",
        });
        let copied = json!({"family": "web", "pidMode": "task", "newMember": ""});
        assert_eq!(copy(described), copied);
    }
}
