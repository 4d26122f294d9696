//! The requests that are answered here, as their JSON comes in.
//!
//! Members that ECS knows but the local cloud does not act on are refused rather than ignored: a
//! caller that depends on one would otherwise see it work here and fail on AWS.

#![allow(missing_docs)] // The members are those of the API reference, under the same names.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::answer::Refusal;
use super::rules::circuit_breaker::CircuitBreaker;

/// Reads a request.
///
/// # Errors
/// `SerializationException` for a value of the wrong type, `InvalidParameterException` for a
/// missing or unknown member or a value that is none of an enumeration's.
pub fn read<T: DeserializeOwned>(body: &Value) -> Result<T, Refusal> {
    // Clients may send members they do not use as null; AWS takes that as absent.
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

/// A tag of a resource.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tag {
    /// Up to 128 characters.
    pub key: String,
    /// Up to 256 characters; may be empty.
    #[serde(default)]
    pub value: String,
}

/// `CreateService`.
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
    pub scheduling_strategy: Option<SchedulingStrategy>,
    #[expect(dead_code, reason = "only its type is checked, by reading it")]
    pub deployment_controller: Option<DeploymentController>,
    #[serde(default)]
    pub tags: Vec<Tag>,
    #[serde(default, rename = "enableECSManagedTags")]
    pub enable_ecs_managed_tags: bool,
    #[serde(default)]
    pub propagate_tags: PropagateTags,
    #[serde(default)]
    pub enable_execute_command: bool,
}

/// `UpdateService`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpdateService {
    pub cluster: Option<String>,
    pub service: String,
    pub desired_count: Option<i64>,
    pub task_definition: Option<String>,
    pub deployment_configuration: Option<DeploymentConfiguration>,
    pub availability_zone_rebalancing: Option<Switch>,
    pub network_configuration: Option<NetworkConfiguration>,
    #[serde(default)]
    pub force_new_deployment: bool,
    pub health_check_grace_period_seconds: Option<i64>,
    pub enable_execute_command: Option<bool>,
    #[serde(rename = "enableECSManagedTags")]
    pub enable_ecs_managed_tags: Option<bool>,
    pub propagate_tags: Option<PropagateTags>,
}

/// `DeleteService`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeleteService {
    pub cluster: Option<String>,
    pub service: String,
    #[serde(default)]
    pub force: bool,
}

/// `DescribeServices`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DescribeServices {
    pub cluster: Option<String>,
    #[serde(default)]
    pub services: Vec<String>,
    #[serde(default)]
    pub include: Vec<Include>,
}

/// `ListServices`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListServices {
    pub cluster: Option<String>,
    pub next_token: Option<String>,
    pub max_results: Option<i64>,
    pub launch_type: Option<LaunchType>,
    pub scheduling_strategy: Option<SchedulingStrategy>,
}

/// `ListTasks`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListTasks {
    pub cluster: Option<String>,
    pub family: Option<String>,
    pub next_token: Option<String>,
    pub max_results: Option<i64>,
    pub started_by: Option<String>,
    pub service_name: Option<String>,
    pub desired_status: Option<DesiredStatus>,
    pub launch_type: Option<LaunchType>,
}

/// `DescribeTasks`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DescribeTasks {
    pub cluster: Option<String>,
    #[serde(default)]
    pub tasks: Vec<String>,
    #[serde(default)]
    pub include: Vec<Include>,
}

/// `StopTask`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StopTask {
    pub cluster: Option<String>,
    pub task: String,
    pub reason: Option<String>,
}

/// `UpdateTaskProtection`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpdateTaskProtection {
    pub cluster: String,
    pub tasks: Vec<String>,
    pub protection_enabled: bool,
    pub expires_in_minutes: Option<i64>,
}

/// `GetTaskProtection`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GetTaskProtection {
    pub cluster: String,
    #[serde(default)]
    pub tasks: Vec<String>,
}

/// `TagResource`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TagResource {
    pub resource_arn: String,
    pub tags: Vec<Tag>,
}

/// `UntagResource`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UntagResource {
    pub resource_arn: String,
    pub tag_keys: Vec<String>,
}

/// An entry of a service's `loadBalancers`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LoadBalancer {
    pub target_group_arn: Option<String>,
    /// Classic load balancers only, which Fargate cannot use.
    pub load_balancer_name: Option<String>,
    pub container_name: String,
    pub container_port: u16,
}

/// `deploymentConfiguration`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeploymentConfiguration {
    #[serde(default)]
    pub deployment_circuit_breaker: CircuitBreaker,
    pub maximum_percent: Option<u32>,
    pub minimum_healthy_percent: Option<u32>,
    /// The other strategies keep two revisions at a time; the local cloud has none of them.
    pub strategy: Option<Strategy>,
    #[serde(default)]
    pub bake_time_in_minutes: u32,
}

/// `networkConfiguration`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkConfiguration {
    pub awsvpc_configuration: AwsvpcConfiguration,
}

/// `awsvpcConfiguration`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AwsvpcConfiguration {
    pub subnets: Vec<String>,
    #[serde(default)]
    pub security_groups: Vec<String>,
    pub assign_public_ip: Option<Switch>,
}

/// `deploymentController`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeploymentController {
    #[serde(rename = "type")]
    pub kind: DeploymentControllerType,
}

/// `ENABLED` or `DISABLED`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Switch {
    Enabled,
    Disabled,
}

impl Switch {
    /// The value as it stands in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Switch::Enabled => "ENABLED",
            Switch::Disabled => "DISABLED",
        }
    }
}

/// Only Fargate runs here; the others can be named in filters, and match nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum LaunchType {
    Ec2,
    Fargate,
    External,
    ManagedInstances,
}

/// `REPLICA`, or `DAEMON`, which Fargate does not support.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SchedulingStrategy {
    Replica,
    Daemon,
}

/// The one deployment controller that works here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DeploymentControllerType {
    Ecs,
}

/// The one deployment strategy that works here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Strategy {
    Rolling,
}

/// Whose tags a task gets.
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
    /// The value as it stands in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            PropagateTags::TaskDefinition => "TASK_DEFINITION",
            PropagateTags::Service => "SERVICE",
            PropagateTags::None => "NONE",
        }
    }
}

/// What a Describe call adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Include {
    Tags,
}

/// The filter of `ListTasks`; no task ever has the desired status PENDING.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DesiredStatus {
    Running,
    Pending,
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
    fn text_for_a_number_is_a_serialization_error() {
        let wrong = read::<ListServices>(&json!({"maxResults": "ten"})).unwrap_err();
        assert_eq!(wrong.code, "SerializationException");
    }

    #[test]
    fn a_member_that_is_null_is_absent() {
        let request = read::<ListServices>(&json!({"cluster": null, "launchType": null})).unwrap();
        assert_eq!(request.cluster, None);
    }
}
