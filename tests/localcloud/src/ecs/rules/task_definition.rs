//! The checks of RegisterTaskDefinition that MiniStack lacks.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-tasks-services.html>

use serde_json::Value;

use super::{containers, fargate_sizes};
use crate::ecs::answer::Refusal;

/// Checks a RegisterTaskDefinition request for Fargate. For other launch types only the family and what every
/// launch type requires of containers are checked.
///
/// # Errors
/// `ClientException` with the message of ECS.
pub fn check(request: &Value) -> Result<(), Refusal> {
    if let Some(family) = request["family"].as_str() {
        check_family(family)?;
    }
    containers::check(request)?;
    let fargate = request["requiresCompatibilities"]
        .as_array()
        .is_some_and(|kinds| kinds.iter().any(|kind| kind == "FARGATE"));
    if !fargate {
        return Ok(());
    }
    if request["networkMode"] != "awsvpc" {
        return Err(Refusal::client(
            "Fargate only supports network mode ‘awsvpc’.",
        ));
    }
    match (request["cpu"].as_str(), request["memory"].as_str()) {
        (Some(cpu), Some(memory)) => fargate_sizes::check(cpu, memory)?,
        (None, _) => {
            return Err(Refusal::client(
                "Fargate requires that 'cpu' be defined at the task level.",
            ));
        }
        (_, None) => {
            return Err(Refusal::client(
                "Fargate requires that 'memory' be defined at the task level.",
            ));
        }
    }
    let has_execution_role = request["executionRoleArn"]
        .as_str()
        .is_some_and(|arn| !arn.is_empty());
    for container in request["containerDefinitions"]
        .as_array()
        .into_iter()
        .flatten()
    {
        check_container(container, has_execution_role)?;
    }
    containers::check_for_fargate(request)
}

fn check_family(family: &str) -> Result<(), Refusal> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if family.is_empty() || family.len() > 255 || !family.chars().all(allowed) {
        return Err(Refusal::client(
            "Family contains invalid characters. Up to 255 letters (uppercase and lowercase), \
             numbers, hyphens, and underscores are allowed.",
        ));
    }
    Ok(())
}

fn check_container(container: &Value, has_execution_role: bool) -> Result<(), Refusal> {
    let is_set = |list: &Value| list.as_array().is_some_and(|list| !list.is_empty());
    if !has_execution_role {
        if is_set(&container["secrets"]) {
            return Err(Refusal::client(
                "When you are specifying container secrets, you must also specify a value for \
                 'executionRoleArn'.",
            ));
        }
        if container["logConfiguration"]["logDriver"] == "awslogs" {
            return Err(Refusal::client(
                "Fargate requires task definition to have execution role ARN to support log \
                 driver awslogs.",
            ));
        }
        if container["image"]
            .as_str()
            .is_some_and(|image| image.contains(".dkr.ecr."))
        {
            return Err(Refusal::client(
                "Fargate requires task definition to have execution role ARN to support ECR \
                 images.",
            ));
        }
    }
    for mapping in container["portMappings"].as_array().into_iter().flatten() {
        let host = &mapping["hostPort"];
        if !host.is_null() && *host != mapping["containerPort"] {
            return Err(Refusal::client(
                "When networkMode=awsvpc, the host ports and container ports in port mappings \
                 must match.",
            ));
        }
    }
    if let Some(seconds) = container["stopTimeout"].as_i64()
        && !(2..=120).contains(&seconds)
    {
        return Err(Refusal::client(
            "Fargate tasks support a 'stopTimeout' from 2 to 120 seconds.",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn request() -> Value {
        json!({
            "family": "test-app",
            "networkMode": "awsvpc",
            "requiresCompatibilities": ["FARGATE"],
            "cpu": "256",
            "memory": "512",
            "executionRoleArn": "arn:aws:iam::000000000000:role/test-execution",
            "containerDefinitions": [{
                "name": "app",
                "image": "000000000000.dkr.ecr.us-east-1.amazonaws.com/test@sha256:00",
                "portMappings": [{"containerPort": 8000}],
                "secrets": [{"name": "DRAIN_SECRET", "valueFrom": "arn"}],
                "logConfiguration": {"logDriver": "awslogs"},
            }],
        })
    }

    fn message(change: impl Fn(&mut Value)) -> String {
        let mut request = request();
        change(&mut request);
        let refusal = check(&request).unwrap_err();
        assert_eq!(refusal.code, "ClientException");
        refusal.message
    }

    #[test]
    fn a_complete_fargate_task_definition_is_accepted() {
        assert_eq!(check(&request()), Ok(()));
    }

    #[test]
    fn a_size_that_fargate_does_not_offer_is_refused() {
        let message = message(|request| request["memory"] = json!("4096"));
        assert!(message.starts_with("No Fargate configuration exists for given values"));
    }

    #[test]
    fn fargate_requires_awsvpc_cpu_and_memory() {
        assert!(message(|r| r["networkMode"] = json!("bridge")).contains("network mode"));
        assert!(message(|r| r["cpu"] = Value::Null).contains("'cpu'"));
        assert!(message(|r| r["memory"] = Value::Null).contains("'memory'"));
    }

    #[test]
    fn secrets_and_private_images_require_an_execution_role() {
        assert!(message(|r| r["executionRoleArn"] = Value::Null).contains("executionRoleArn"));
        let message = message(|r| {
            r["executionRoleArn"] = Value::Null;
            r["containerDefinitions"][0]["secrets"] = json!([]);
            r["containerDefinitions"][0]["logConfiguration"] = Value::Null;
        });
        assert!(message.contains("ECR images"));
    }

    #[test]
    fn a_family_with_a_dot_is_refused() {
        assert!(message(|r| r["family"] = json!("test.app")).contains("Family"));
    }

    #[test]
    fn the_size_of_task_definitions_for_other_launch_types_is_not_checked() {
        assert_eq!(check(&json!({"family": "batch", "cpu": "1"})), Ok(()));
    }

    #[test]
    fn the_containers_are_checked_as_every_launch_type_and_as_fargate_require() {
        let twice = json!([{"name": "app"}, {"name": "app"}]);
        let other = json!({"family": "batch", "containerDefinitions": twice});
        assert!(check(&other).is_err());
        let message = message(|r| r["containerDefinitions"][0]["privileged"] = json!(true));
        assert!(message.contains("privileged"));
    }
}
