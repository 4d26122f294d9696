//! The JSON of the requests that are answered here. Members that the local cloud does not support are refused, not
//! ignored.
//!
//! <https://docs.aws.amazon.com/autoscaling/application/APIReference/API_Operations.html>

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{gateway::answer::AwsError, ministack::REGION};

/// The only namespace and dimension of the local cloud.
pub const NAMESPACE: &str = "ecs";
pub const DIMENSION: &str = "ecs:service:DesiredCount";

/// An ECS service as a scalable target names it: `service/<cluster>/<service>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ResourceId(String);

impl ResourceId {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let is_name = |part: Option<&str>| part.is_some_and(|name| !name.is_empty());
        let whole = parts.next() == Some("service")
            && is_name(parts.next())
            && is_name(parts.next())
            && parts.next().is_none();
        whole.then(|| Self(text.to_owned()))
    }

    /// The scalable target of a service, by the service's ARN.
    pub fn of_service(arn: &str) -> Option<Self> {
        Self::parse(arn.splitn(6, ':').nth(5)?)
    }

    pub fn service_arn(&self) -> String {
        format!("arn:aws:ecs:{REGION}:000000000000:{}", self.0)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A request, of which the members are taken one after the other.
pub struct Request(Map<String, Value>);

impl Request {
    pub fn of(body: &[u8]) -> Result<Self, AwsError> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(mut members)) => {
                // Clients may send unused members as null, which AWS treats as absent.
                members.retain(|_, value| !value.is_null());
                Ok(Self(members))
            }
            _ => Err(serialization("the body is not a JSON object")),
        }
    }

    /// Takes the members that name a scalable target.
    pub fn resource(&mut self) -> Result<ResourceId, AwsError> {
        let resource = self.scope()?.ok_or_else(|| missing("resourceId"))?;
        Ok(resource)
    }

    /// Takes the members that say which scalable targets a read concerns. Without a resource, all.
    pub fn scope(&mut self) -> Result<Option<ResourceId>, AwsError> {
        let namespace = self.text("ServiceNamespace")?;
        let resource = self.text("ResourceId")?;
        let dimension = self.text("ScalableDimension")?;
        let namespace = namespace.ok_or_else(|| missing("serviceNamespace"))?;
        if namespace != NAMESPACE || dimension.as_deref().is_some_and(|it| it != DIMENSION) {
            return Err(unsupported());
        }
        let Some(resource) = resource else {
            return Ok(None);
        };
        if dimension.is_none() {
            return Err(missing("scalableDimension"));
        }
        let resource = ResourceId::parse(&resource).ok_or_else(unsupported)?;
        Ok(Some(resource))
    }

    /// Decodes the members that are left.
    pub fn rest<T: DeserializeOwned>(self) -> Result<T, AwsError> {
        serde_path_to_error::deserialize(Value::Object(self.0)).map_err(|error| {
            let text = error.to_string();
            if text.contains("invalid type") {
                serialization(&text)
            } else {
                validation(text)
            }
        })
    }

    fn text(&mut self, name: &str) -> Result<Option<String>, AwsError> {
        match self.0.remove(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(serialization(&format!("{name} is not a string"))),
        }
    }
}

pub fn validation(message: impl Into<String>) -> AwsError {
    AwsError::new("ValidationException", message)
}

fn serialization(message: &str) -> AwsError {
    AwsError::new("SerializationException", message)
}

fn unsupported() -> AwsError {
    validation("Unsupported service namespace, resource type or scalable dimension")
}

pub fn missing(member: &str) -> AwsError {
    validation(format!(
        "1 validation error detected: Value null at '{member}' failed to satisfy constraint: Member must not be null"
    ))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Register {
    pub min_capacity: Option<i32>,
    pub max_capacity: Option<i32>,
    /// ECS has a service-linked role, which is used whatever a caller gives here.
    #[serde(rename = "RoleARN")]
    pub _role: Option<String>,
    #[serde(default)]
    pub suspended_state: Suspensions,
    pub tags: Option<BTreeMap<String, String>>,
}

/// The members of a SuspendedState that a request has.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Suspensions {
    pub dynamic_scaling_in_suspended: Option<bool>,
    pub dynamic_scaling_out_suspended: Option<bool>,
    pub scheduled_scaling_suspended: Option<bool>,
}

/// A request without members but those that name the target.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct PutPolicy {
    pub policy_name: String,
    pub policy_type: Option<String>,
    pub target_tracking_scaling_policy_configuration: Option<TargetTracking>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct TargetTracking {
    pub target_value: f64,
    pub predefined_metric_specification: PredefinedMetric,
    pub scale_out_cooldown: Option<u32>,
    pub scale_in_cooldown: Option<u32>,
    #[serde(default)]
    pub disable_scale_in: bool,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct PredefinedMetric {
    pub predefined_metric_type: MetricType,
    pub resource_label: Option<String>,
}

/// The metrics that the local cloud accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum MetricType {
    #[serde(rename = "ECSServiceAverageCPUUtilization")]
    CpuUtilization,
    #[serde(rename = "ALBRequestCountPerTarget")]
    RequestsPerTarget,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DeletePolicy {
    pub policy_name: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DescribeTargets {
    #[serde(default)]
    pub resource_ids: Vec<String>,
    pub max_results: Option<i64>,
    pub next_token: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DescribePolicies {
    #[serde(default)]
    pub policy_names: Vec<String>,
    pub max_results: Option<i64>,
    pub next_token: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn resource(body: Value) -> Result<ResourceId, &'static str> {
        let mut request = Request::of(body.to_string().as_bytes()).expect("an object");
        request.resource().map_err(|error| error.code)
    }

    #[test]
    fn a_scalable_target_is_the_desired_count_of_an_ecs_service() {
        let named = |namespace, id, dimension| {
            resource(json!({
                "ServiceNamespace": namespace, "ResourceId": id, "ScalableDimension": dimension,
            }))
        };
        let found = named("ecs", "service/test/app", DIMENSION).expect("valid");
        assert_eq!(
            found.service_arn(),
            "arn:aws:ecs:us-east-1:000000000000:service/test/app"
        );
        assert_eq!(ResourceId::of_service(&found.service_arn()), Some(found));
        for (namespace, id, dimension) in [
            ("ec2", "service/test/app", DIMENSION),
            (
                "ecs",
                "service/test/app",
                "ec2:spot-fleet-request:TargetCapacity",
            ),
            ("ecs", "service/app", DIMENSION),
            ("ecs", "service/test/app/more", DIMENSION),
            // What the ARN of a cluster makes of it.
            (
                "ecs",
                "service/arn:aws:ecs:us-east-1:000000000000:cluster/test/app",
                DIMENSION,
            ),
        ] {
            assert_eq!(
                named(namespace, id, dimension),
                Err("ValidationException"),
                "{id}"
            );
        }
    }

    #[test]
    fn a_target_needs_all_three_members_and_a_read_only_the_namespace() {
        let dimension_only = json!({"ServiceNamespace": "ecs", "ScalableDimension": DIMENSION});
        assert_eq!(resource(dimension_only), Err("ValidationException"));
        let no_dimension = json!({"ServiceNamespace": "ecs", "ResourceId": "service/test/app"});
        assert_eq!(resource(no_dimension), Err("ValidationException"));
        let mut read =
            Request::of(br#"{"ServiceNamespace": "ecs", "ResourceId": null}"#).expect("an object");
        assert_eq!(read.scope().expect("valid"), None);
    }

    #[test]
    fn a_member_that_is_not_supported_is_refused() {
        let request = Request::of(br#"{"MinCapacity": 1, "Unknown": 2}"#).expect("an object");
        assert_eq!(
            request.rest::<Register>().expect_err("refused").code,
            "ValidationException"
        );
        let request = Request::of(br#"{"MinCapacity": "1"}"#).expect("an object");
        assert_eq!(
            request.rest::<Register>().expect_err("refused").code,
            "SerializationException"
        );
    }
}
