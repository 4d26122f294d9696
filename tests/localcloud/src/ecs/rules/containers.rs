//! The checks of RegisterTaskDefinition on the containers and volumes of a task, which MiniStack lacks.
//! <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ContainerDefinition.html>
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-tasks-services.html>
//!
//! The messages come from reports of users, because the reference does not document them. Where there is no
//! report, the message is our own, so no caller may depend on its words.

use std::collections::BTreeSet;

use serde_json::Value;

use super::fargate_sizes;
use crate::ecs::answer::Refusal;
use crate::ecs::dependencies;

/// The log drivers of Fargate.
const LOG_DRIVERS: [&str; 3] = ["awslogs", "splunk", "awsfirelens"];

/// Checks what every launch type requires.
///
/// # Errors
/// `ClientException`.
pub fn check(request: &Value) -> Result<(), Refusal> {
    let containers = list(&request["containerDefinitions"]);
    unique_names(containers)?;
    some_essential(containers)?;
    dependencies_can_be_met(containers)?;
    for container in containers {
        volumes_exist(container, &request["volumes"])?;
        variables_are_unique(container)?;
        restart_period(container)?;
    }
    Ok(())
}

/// Checks what Fargate requires beyond that.
///
/// # Errors
/// `ClientException`.
pub fn check_for_fargate(request: &Value) -> Result<(), Refusal> {
    if !list(&request["placementConstraints"]).is_empty() {
        return Err(not_supported("placementConstraints"));
    }
    for volume in list(&request["volumes"]) {
        if !volume["dockerVolumeConfiguration"].is_null() {
            return Err(not_supported("dockerVolumeConfiguration"));
        }
        if !volume["host"]["sourcePath"].is_null() {
            return Err(not_supported("sourcePath"));
        }
    }
    if let Some(size) = request["ephemeralStorage"]["sizeInGiB"].as_i64()
        && !(21..=200).contains(&size)
    {
        return Err(Refusal::client(
            "The minimum supported value of ephemeralStorage.sizeInGiB is 21 and the maximum \
             supported value is 200.",
        ));
    }
    let containers = list(&request["containerDefinitions"]);
    for container in containers {
        if container["privileged"] == true {
            return Err(not_supported("privileged"));
        }
        let driver = &container["logConfiguration"]["logDriver"];
        if !driver.is_null() && !LOG_DRIVERS.iter().any(|known| driver == known) {
            return Err(Refusal::client(format!(
                "Fargate only supports the log drivers {}.",
                LOG_DRIVERS.join(", ")
            )));
        }
    }
    containers_fit(request, containers)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn name(container: &Value) -> &str {
    container["name"].as_str().unwrap_or_default()
}

fn not_supported(member: &str) -> Refusal {
    Refusal::client(format!(
        "Fargate compatible task definitions do not support {member}"
    ))
}

/// <https://github.com/Shippable/support/issues/2946>
fn unique_names(containers: &[Value]) -> Result<(), Refusal> {
    let names: BTreeSet<&str> = containers.iter().map(name).collect();
    if names.len() < containers.len() {
        return Err(Refusal::client(
            "Container names must be unique within a Task Definition.",
        ));
    }
    Ok(())
}

/// <https://github.com/eagletmt/hako/pull/68>
fn some_essential(containers: &[Value]) -> Result<(), Refusal> {
    if !containers.is_empty() && containers.iter().all(|one| one["essential"] == false) {
        return Err(Refusal::client(
            "Task definition doesn't have any essential container.",
        ));
    }
    Ok(())
}

/// <https://github.com/eagletmt/hako/pull/99>, <https://github.com/boto/boto3/issues/2436>
fn dependencies_can_be_met(containers: &[Value]) -> Result<(), Refusal> {
    for entry in containers.iter().flat_map(|one| list(&one["dependsOn"])) {
        let wanted = entry["containerName"].as_str().unwrap_or_default();
        let other = containers.iter().find(|one| name(one) == wanted);
        let other = other.ok_or_else(|| {
            Refusal::client(format!(
                "Cannot depend on container + '{wanted}' because it does not exist"
            ))
        })?;
        match entry["condition"].as_str() {
            Some("START") => {}
            Some("COMPLETE" | "SUCCESS") if other["essential"] == false => {}
            Some("COMPLETE" | "SUCCESS") => {
                return Err(Refusal::client(
                    "A dependency container with SUCCESS or COMPLETE condition cannot be an \
                     essential container",
                ));
            }
            Some("HEALTHY") if other["healthCheck"].is_object() => {}
            Some("HEALTHY") => {
                return Err(Refusal::client(
                    "A dependency container with HEALTHY condition must have a health check \
                     configured",
                ));
            }
            _ => {
                return Err(Refusal::client(
                    "The condition of a container dependency must be START, COMPLETE, SUCCESS or \
                     HEALTHY",
                ));
            }
        }
    }
    let dependencies: Vec<_> = containers
        .iter()
        .map(|one| (name(one), dependencies::of(one)))
        .collect();
    if dependencies::have_cycle(&dependencies) {
        return Err(Refusal::client(
            "Container dependencies should not have a cycle",
        ));
    }
    Ok(())
}

fn volumes_exist(container: &Value, volumes: &Value) -> Result<(), Refusal> {
    for mount in list(&container["mountPoints"]) {
        let wanted = &mount["sourceVolume"];
        if !list(volumes).iter().any(|volume| volume["name"] == *wanted) {
            let wanted = wanted.as_str().unwrap_or_default();
            return Err(Refusal::client(format!("Unknown volume '{wanted}'.")));
        }
    }
    Ok(())
}

fn variables_are_unique(container: &Value) -> Result<(), Refusal> {
    let mut names = BTreeSet::new();
    for variable in list(&container["environment"]) {
        if !names.insert(name(variable)) {
            return Err(Refusal::client(format!(
                "The environment variable {} is set twice.",
                name(variable)
            )));
        }
    }
    for secret in list(&container["secrets"]) {
        if !names.insert(name(secret)) {
            return Err(Refusal::client(
                "The secret name must be unique and not shared with any new or existing \
                 environment variables set on the container",
            ));
        }
    }
    Ok(())
}

/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/container-restart-policy.html>
fn restart_period(container: &Value) -> Result<(), Refusal> {
    match container["restartPolicy"]["restartAttemptPeriod"].as_i64() {
        Some(seconds) if !(60..=1800).contains(&seconds) => Err(Refusal::client(
            "restartAttemptPeriod must be between 60 and 1800 seconds.",
        )),
        _ => Ok(()),
    }
}

/// "The total amount of memory reserved for all containers within a task must be lower than the task memory
/// value", and so for CPU.
fn containers_fit(request: &Value, containers: &[Value]) -> Result<(), Refusal> {
    let Some((cpu, memory)) = fargate_sizes::units_and_mib(
        request["cpu"].as_str().unwrap_or_default(),
        request["memory"].as_str().unwrap_or_default(),
    ) else {
        return Ok(());
    };
    let above = |container: &&Value| container["memory"].as_i64() > Some(i64::from(memory));
    if let Some(container) = containers.iter().find(above) {
        let name = name(container);
        return Err(Refusal::client(format!(
            "Invalid setting for container '{name}'. Its memory is above that of the task, {memory}."
        )));
    }
    let total = |members: [&str; 2]| -> i64 {
        let of = |one: &Value| members.iter().find_map(|member| one[*member].as_i64());
        containers.iter().filter_map(of).sum()
    };
    if total(["memoryReservation", "memory"]) > i64::from(memory) {
        return Err(Refusal::client(format!(
            "The memory of all containers together is above that of the task, {memory}."
        )));
    }
    if total(["cpu", "cpu"]) > i64::from(cpu) {
        return Err(Refusal::client(format!(
            "The CPU of all containers together is above that of the task, {cpu}."
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A task of an application, a sidecar and a container that prepares them.
    fn request() -> Value {
        json!({
            "cpu": "256",
            "memory": "0.5 GB",
            "volumes": [{"name": "shared"}, {"name": "files", "efsVolumeConfiguration": {}}],
            "ephemeralStorage": {"sizeInGiB": 21},
            "containerDefinitions": [
                {
                    "name": "app",
                    "image": "app:1",
                    "dependsOn": [
                        {"containerName": "prepare", "condition": "SUCCESS"},
                        {"containerName": "sidecar", "condition": "HEALTHY"},
                    ],
                    "environment": [{"name": "A", "value": "1"}],
                    "secrets": [{"name": "B", "valueFrom": "/b"}],
                    "mountPoints": [{"sourceVolume": "shared", "containerPath": "/data"}],
                    "restartPolicy": {"enabled": true, "restartAttemptPeriod": 60},
                    "memory": 256,
                },
                {
                    "name": "sidecar",
                    "image": "sidecar:1",
                    "healthCheck": {"command": ["CMD", "/check"]},
                    "logConfiguration": {"logDriver": "awsfirelens"},
                    "memory": 256,
                    "cpu": 256,
                },
                {"name": "prepare", "image": "prepare:1", "essential": false},
            ],
            "newMember": {"unknown": ["to", "us"]},
        })
    }

    fn both(request: &Value) -> Result<(), Refusal> {
        check(request)?;
        check_for_fargate(request)
    }

    #[test]
    fn a_task_with_a_sidecar_and_unknown_members_is_accepted() {
        assert_eq!(both(&request()), Ok(()));
        assert_eq!(both(&json!({"family": "empty"})), Ok(()));
    }

    #[test]
    fn each_mistake_is_refused_with_its_message() {
        type Change = fn(&mut Value);
        fn container(request: &mut Value, index: usize) -> &mut Value {
            &mut request["containerDefinitions"][index]
        }
        let cases: Vec<(&str, Change)> = vec![
            ("names must be unique", |r| {
                container(r, 1)["name"] = json!("app");
            }),
            ("doesn't have any essential container", |r| {
                for index in 0..3 {
                    container(r, index)["essential"] = json!(false);
                }
            }),
            ("Cannot depend on container + 'other'", |r| {
                container(r, 0)["dependsOn"][0]["containerName"] = json!("other");
            }),
            ("should not have a cycle", |r| {
                container(r, 2)["dependsOn"] =
                    json!([{"containerName": "app", "condition": "START"}]);
            }),
            ("cannot be an essential container", |r| {
                container(r, 2)["essential"] = json!(true);
            }),
            ("cannot be an essential container", |r| {
                container(r, 0)["dependsOn"][1]["condition"] = json!("COMPLETE");
            }),
            ("must have a health check", |r| {
                container(r, 1)["healthCheck"] = Value::Null;
            }),
            ("The condition of a container dependency", |r| {
                container(r, 0)["dependsOn"][0]["condition"] = json!("DONE");
            }),
            ("Unknown volume 'other'.", |r| {
                container(r, 0)["mountPoints"][0]["sourceVolume"] = json!("other");
            }),
            ("A is set twice", |r| {
                container(r, 0)["environment"] = json!([{"name": "A"}, {"name": "A"}]);
            }),
            ("The secret name must be unique", |r| {
                container(r, 0)["secrets"][0]["name"] = json!("A");
            }),
            ("The secret name must be unique", |r| {
                container(r, 0)["secrets"] = json!([{"name": "B"}, {"name": "B"}]);
            }),
            ("restartAttemptPeriod", |r| {
                container(r, 0)["restartPolicy"]["restartAttemptPeriod"] = json!(59);
            }),
            ("restartAttemptPeriod", |r| {
                container(r, 0)["restartPolicy"]["restartAttemptPeriod"] = json!(1801);
            }),
            ("do not support privileged", |r| {
                container(r, 0)["privileged"] = json!(true);
            }),
            ("do not support placementConstraints", |r| {
                r["placementConstraints"] = json!([{"type": "memberOf"}]);
            }),
            ("do not support dockerVolumeConfiguration", |r| {
                r["volumes"][0]["dockerVolumeConfiguration"] = json!({});
            }),
            ("do not support sourcePath", |r| {
                r["volumes"][0]["host"] = json!({"sourcePath": "/"});
            }),
            ("ephemeralStorage", |r| {
                r["ephemeralStorage"]["sizeInGiB"] = json!(20);
            }),
            ("ephemeralStorage", |r| {
                r["ephemeralStorage"]["sizeInGiB"] = json!(201);
            }),
            ("log drivers awslogs, splunk, awsfirelens", |r| {
                container(r, 1)["logConfiguration"]["logDriver"] = json!("json-file");
            }),
            ("Its memory is above that of the task, 512", |r| {
                container(r, 0)["memory"] = json!(513);
            }),
            ("The memory of all containers", |r| {
                container(r, 0)["memory"] = json!(257);
            }),
            ("The CPU of all containers", |r| {
                container(r, 0)["cpu"] = json!(1);
            }),
        ];
        for (part, change) in cases {
            let mut request = request();
            change(&mut request);
            let refusal = both(&request).expect_err(part);
            assert_eq!(refusal.code, "ClientException");
            let message = refusal.message;
            assert!(message.contains(part), "{part:?} is not in {message:?}");
        }
    }

    #[test]
    fn what_only_fargate_refuses_is_accepted_for_other_launch_types() {
        let mut request = request();
        request["containerDefinitions"][0]["privileged"] = json!(true);
        assert_eq!(check(&request), Ok(()));
    }
}
