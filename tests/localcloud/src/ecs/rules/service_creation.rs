//! The checks of CreateService.
//! <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_CreateService.html>
//!
//! The messages are those of ECS. They come from reports of users, because the reference does not
//! document them.

use serde_json::Value;

use crate::ecs::answer::Refusal;
use crate::ecs::backends::TargetGroupUse;
use crate::ecs::model::{Service, ServiceStatus};
use crate::ecs::requests::LoadBalancer;

/// A target group must exist, and a listener or rule must name it. Without a load balancer it has no
/// health checks.
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-load-balancing.html>
pub fn target_group_is_attached(arn: &str, group: TargetGroupUse) -> Result<(), Refusal> {
    match group {
        TargetGroupUse::Attached => Ok(()),
        TargetGroupUse::Missing => Err(Refusal::invalid_parameter(format!(
            "The target group {arn} does not exist."
        ))),
        TargetGroupUse::Unattached => Err(Refusal::invalid_parameter(format!(
            "The target group with targetGroupArn {arn} does not have an associated load balancer."
        ))),
    }
}

/// The container and the port that a load balancer entry names must be in the task definition.
pub fn container_is_in_task_definition(
    load_balancer: &LoadBalancer,
    task_definition: &Value,
) -> Result<(), Refusal> {
    let name = &load_balancer.container_name;
    let port = load_balancer.container_port;
    let container = task_definition["containerDefinitions"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|container| container["name"] == name.as_str())
        .ok_or_else(|| {
            Refusal::invalid_parameter(format!(
                "The container {name} does not exist in the task definition."
            ))
        })?;
    let defined = container["portMappings"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|mapping| mapping["containerPort"] == port);
    if defined {
        Ok(())
    } else {
        Err(Refusal::invalid_parameter(format!(
            "The container {name} did not have a container port {port} defined."
        )))
    }
}

/// A task definition must be ACTIVE and compatible with Fargate, which requires a network configuration.
pub fn task_definition_runs_on_fargate(
    task_definition: &Value,
    has_network_configuration: bool,
) -> Result<(), Refusal> {
    if task_definition["status"] != "ACTIVE" {
        return Err(Refusal::client("TaskDefinition is inactive"));
    }
    let compatible = task_definition["compatibilities"]
        .as_array()
        .is_some_and(|kinds| kinds.iter().any(|kind| kind == "FARGATE"));
    if !compatible {
        return Err(Refusal::invalid_parameter(
            "Task definition does not support launch_type FARGATE.",
        ));
    }
    if !has_network_configuration {
        return Err(Refusal::invalid_parameter(
            "Network Configuration must be provided when networkMode 'awsvpc' is specified.",
        ));
    }
    Ok(())
}

/// The result of a check of a service name.
#[derive(Debug, PartialEq)]
pub enum Name {
    /// No service has this name, except perhaps an INACTIVE one.
    Free,
    /// The request repeats the one that created the service, which is the answer.
    SameRequest,
}

/// Refuses the name of an ACTIVE or DRAINING service, unless the request repeats the one that created
/// the service, with the same `clientToken`. AWS does not document whether ECS accepts an identical
/// request without a token. It is refused here, so that no caller depends on it.
pub fn name_is_free(existing: Option<&Service>, request: &Value) -> Result<Name, Refusal> {
    let Some(existing) = existing else {
        return Ok(Name::Free);
    };
    match existing.status {
        ServiceStatus::Inactive => Ok(Name::Free),
        ServiceStatus::Draining => Err(Refusal::invalid_parameter(
            "Unable to Start a service that is still Draining.",
        )),
        ServiceStatus::Active => {
            let repeated = request["clientToken"].is_string() && existing.request == *request;
            if repeated {
                Ok(Name::SameRequest)
            } else {
                Err(Refusal::invalid_parameter(
                    "Creation of service was not idempotent.",
                ))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn message(result: Result<impl std::fmt::Debug, Refusal>) -> String {
        let refusal = result.unwrap_err();
        assert_eq!(refusal.code, "InvalidParameterException");
        refusal.message
    }

    #[test]
    fn a_target_group_that_no_rule_names_is_refused() {
        assert_eq!(
            message(target_group_is_attached(
                "arn:tg",
                TargetGroupUse::Unattached
            )),
            "The target group with targetGroupArn arn:tg does not have an associated load balancer."
        );
        assert_eq!(
            message(target_group_is_attached("arn:tg", TargetGroupUse::Missing)),
            "The target group arn:tg does not exist."
        );
        assert!(target_group_is_attached("arn:tg", TargetGroupUse::Attached).is_ok());
    }

    #[test]
    fn the_container_and_its_port_must_be_in_the_task_definition() {
        let task_definition = json!({
            "containerDefinitions": [{"name": "app", "portMappings": [{"containerPort": 8000}]}]
        });
        let entry = |name: &str, port| LoadBalancer {
            target_group_arn: "arn:tg".into(),
            container_name: name.into(),
            container_port: port,
        };
        let check = |entry| container_is_in_task_definition(&entry, &task_definition);
        assert!(check(entry("app", 8000)).is_ok());
        assert_eq!(
            message(check(entry("web", 8000))),
            "The container web does not exist in the task definition."
        );
        assert_eq!(
            message(check(entry("app", 80))),
            "The container app did not have a container port 80 defined."
        );
    }

    #[test]
    fn a_name_in_use_is_refused_unless_the_request_is_repeated() {
        let request = json!({"serviceName": "a", "clientToken": "one", "desiredCount": 2});
        let mut existing = Service::for_tests("a");
        existing.request = request.clone();
        assert_eq!(name_is_free(None, &request), Ok(Name::Free));
        assert_eq!(
            name_is_free(Some(&existing), &request),
            Ok(Name::SameRequest)
        );
        for other in [
            json!({"serviceName": "a", "clientToken": "two", "desiredCount": 2}),
            json!({"serviceName": "a", "clientToken": "one", "desiredCount": 3}),
            json!({"serviceName": "a", "desiredCount": 2}),
        ] {
            assert_eq!(
                message(name_is_free(Some(&existing), &other)),
                "Creation of service was not idempotent."
            );
        }
    }

    #[test]
    fn the_name_of_a_draining_service_is_refused_and_that_of_an_inactive_one_is_free() {
        let mut existing = Service::for_tests("a");
        existing.status = ServiceStatus::Draining;
        assert_eq!(
            message(name_is_free(Some(&existing), &json!({}))),
            "Unable to Start a service that is still Draining."
        );
        existing.status = ServiceStatus::Inactive;
        assert_eq!(name_is_free(Some(&existing), &json!({})), Ok(Name::Free));
    }

    #[test]
    fn an_inactive_task_definition_is_refused() {
        let task_definition = json!({"status": "INACTIVE", "compatibilities": ["FARGATE"]});
        let refusal = task_definition_runs_on_fargate(&task_definition, true).unwrap_err();
        assert_eq!(refusal.code, "ClientException");
        assert_eq!(refusal.message, "TaskDefinition is inactive");
    }
}
