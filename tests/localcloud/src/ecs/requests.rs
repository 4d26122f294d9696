//! The JSON of the requests that are answered here. The members have the names of the API reference.
//!
//! Members that the local cloud does not support are refused, not ignored. Otherwise a caller that
//! depends on one would work differently here and on AWS.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::answer::Refusal;
use super::rules::circuit_breaker::CircuitBreaker;

/// Decodes a request.
///
/// # Errors
/// `SerializationException` for a value of the wrong type, `InvalidParameterException` for a
/// missing or unknown member, or for a value that an enumeration does not have.
pub fn read<T: DeserializeOwned>(body: &Value) -> Result<T, Refusal> {
    // Clients may send unused members as null, which AWS treats as absent.
    let body = match body {
        Value::Object(members) => Value::Object(
            members
                .iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
        ),
        Value::Null => Value::Object(serde_json::Map::new()),
        other => other.clone(),
    };
    serde_path_to_error::deserialize(body).map_err(|error| {
        let text = error.to_string();
        if text.contains("invalid type") || text.contains("invalid value") {
            Refusal::new("SerializationException", text)
        } else {
            Refusal::invalid_parameter(text)
        }
    })
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tag {
    /// Up to 128 characters.
    pub key: String,
    /// Up to 256 characters, or empty.
    #[serde(default)]
    pub value: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateService {
    pub cluster: Option<String>,
    pub service_name: String,
    pub task_definition: Option<String>,
    pub availability_zone_rebalancing: Option<Switch>,
    #[serde(default)]
    pub load_balancers: Vec<LoadBalancer>,
    pub desired_count: Option<i64>,
    pub client_token: Option<String>,
    pub launch_type: Option<LaunchType>,
    pub platform_version: Option<String>,
    #[serde(default)]
    pub deployment_configuration: DeploymentConfiguration,
    pub network_configuration: Option<NetworkConfiguration>,
    pub health_check_grace_period_seconds: Option<i64>,
    #[serde(default)]
    pub tags: Vec<Tag>,
    #[serde(default, rename = "enableECSManagedTags")]
    pub enable_ecs_managed_tags: bool,
    #[serde(default)]
    pub propagate_tags: PropagateTags,
    #[serde(default)]
    pub enable_execute_command: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpdateService {
    pub cluster: Option<String>,
    pub service: String,
    pub desired_count: Option<i64>,
    #[serde(default)]
    pub force_new_deployment: bool,
    pub health_check_grace_period_seconds: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeleteService {
    pub cluster: Option<String>,
    pub service: String,
    #[serde(default)]
    pub force: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DescribeServices {
    pub cluster: Option<String>,
    #[serde(default)]
    pub services: Vec<String>,
    #[serde(default)]
    pub include: Vec<Include>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListServices {
    pub cluster: Option<String>,
    pub next_token: Option<String>,
    pub max_results: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListTasks {
    pub cluster: Option<String>,
    pub next_token: Option<String>,
    pub max_results: Option<i64>,
    pub service_name: Option<String>,
    pub desired_status: Option<DesiredStatus>,
    pub family: Option<String>,
    pub started_by: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RunTask {
    pub cluster: Option<String>,
    pub task_definition: String,
    pub count: Option<usize>,
    pub client_token: Option<String>,
    pub started_by: Option<String>,
    pub group: Option<String>,
    pub launch_type: Option<LaunchType>,
    pub platform_version: Option<String>,
    pub network_configuration: Option<NetworkConfiguration>,
    #[serde(default)]
    pub overrides: TaskOverride,
    #[serde(default)]
    pub tags: Vec<Tag>,
    #[serde(default)]
    pub propagate_tags: PropagateTags,
    #[serde(default, rename = "enableECSManagedTags")]
    pub enable_ecs_managed_tags: bool,
}

/// What RunTask changes in a task definition.
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_TaskOverride.html>
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TaskOverride {
    #[serde(default)]
    pub container_overrides: Vec<ContainerOverride>,
}

impl TaskOverride {
    /// What it changes in the container with this name.
    pub fn of(&self, container: &str) -> Option<&ContainerOverride> {
        self.container_overrides
            .iter()
            .find(|one| one.name == container)
    }
}

/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ContainerOverride.html>
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerOverride {
    pub name: String,
    /// Replaces the command of the task definition and of the image. The entry point stays in front of it.
    #[serde(default)]
    pub command: Vec<String>,
    /// Is added to the environment of the task definition.
    #[serde(default)]
    pub environment: Vec<Variable>,
}

/// An environment variable.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variable {
    pub name: String,
    #[serde(default)]
    pub value: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StopTask {
    pub cluster: Option<String>,
    pub task: String,
    pub reason: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DescribeTasks {
    pub cluster: Option<String>,
    #[serde(default)]
    pub tasks: Vec<String>,
    #[serde(default)]
    pub include: Vec<Include>,
}

/// An entry of a service's `loadBalancers`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LoadBalancer {
    pub target_group_arn: String,
    pub container_name: String,
    pub container_port: u16,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeploymentConfiguration {
    #[serde(default)]
    pub deployment_circuit_breaker: CircuitBreaker,
    pub maximum_percent: Option<u32>,
    pub minimum_healthy_percent: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkConfiguration {
    pub awsvpc_configuration: AwsvpcConfiguration,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AwsvpcConfiguration {
    pub subnets: Vec<String>,
    #[serde(default)]
    pub security_groups: Vec<String>,
    pub assign_public_ip: Option<Switch>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Switch {
    Enabled,
    Disabled,
}

impl Switch {
    pub fn as_str(self) -> &'static str {
        match self {
            Switch::Enabled => "ENABLED",
            Switch::Disabled => "DISABLED",
        }
    }
}

/// The only launch type that is supported here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum LaunchType {
    Fargate,
}

/// The source of the tags of tasks.
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_CreateService.html>
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PropagateTags {
    TaskDefinition,
    Service,
    #[default]
    None,
}

impl PropagateTags {
    pub fn as_str(self) -> &'static str {
        match self {
            PropagateTags::TaskDefinition => "TASK_DEFINITION",
            PropagateTags::Service => "SERVICE",
            PropagateTags::None => "NONE",
        }
    }
}

/// Optional parts of the answer of a Describe call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Include {
    Tags,
}

/// The filter of `ListTasks`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DesiredStatus {
    Running,
    Stopped,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_unknown_member_and_a_wrong_enumeration_value_are_invalid_parameters() {
        let unknown = read::<ListServices>(&json!({"clustre": "test"})).unwrap_err();
        assert_eq!(unknown.code, "InvalidParameterException");
        assert!(unknown.message.contains("clustre"), "{}", unknown.message);
        let wrong = read::<ListTasks>(&json!({"desiredStatus": "ACTIVE"})).unwrap_err();
        assert_eq!(wrong.code, "InvalidParameterException");
        assert!(wrong.message.contains("desiredStatus"), "{}", wrong.message);
    }

    #[test]
    fn text_in_place_of_a_number_is_a_serialization_error() {
        let wrong = read::<ListServices>(&json!({"maxResults": "ten"})).unwrap_err();
        assert_eq!(wrong.code, "SerializationException");
    }

    #[test]
    fn a_member_that_is_null_is_absent() {
        let request = read::<ListServices>(&json!({"cluster": null, "nextToken": null})).unwrap();
        assert_eq!(request.cluster, None);
    }
}
