//! The JSON of services and tasks in the answers of the Describe calls.
//! <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Service.html>
//! <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Task.html>

use serde_json::{Map, Value, json};

use super::model::{Container, Deployment, Service, State, Task, TaskStatus, Timestamp};
use super::requests::{DeploymentConfiguration, NetworkConfiguration, Switch, Tag};

/// The platform version of `LATEST`.
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/platform-linux-fargate.html>
const PLATFORM_VERSION: &str = "1.4.0";

/// `[{"key": …, "value": …}]`.
pub fn tags(tags: &[Tag]) -> Value {
    tags.iter()
        .map(|tag| json!({"key": tag.key, "value": tag.value}))
        .collect()
}

/// A service, with its tags if the request includes them.
pub fn service(service: &Service, state: &State, with_tags: bool) -> Value {
    let arn = service.arn();
    let tasks: Vec<&Task> = state.tasks_of(&arn).collect();
    let deployments: Vec<Value> = service
        .deployments
        .iter()
        .enumerate()
        .map(|(index, one)| deployment(service, one, index == 0, &tasks))
        .collect();
    let mut body = json!({
        "serviceArn": arn,
        "serviceName": service.name,
        "clusterArn": service.cluster.arn(),
        "loadBalancers": load_balancers(service),
        "serviceRegistries": [],
        "status": service.status.as_str(),
        "desiredCount": service.desired_count,
        "runningCount": count(&tasks, is_running),
        "pendingCount": count(&tasks, is_pending),
        "launchType": "FARGATE",
        "platformVersion": service.platform_version,
        "platformFamily": "Linux",
        "taskDefinition": service.primary().task_definition.arn,
        "deploymentConfiguration": deployment_configuration(&service.deployment_configuration),
        "deployments": deployments,
        "roleArn": service_role(service),
        "events": service.events.iter().map(|event| json!({
            "id": event.id,
            "createdAt": event.created_at.0,
            "message": event.message,
        })).collect::<Vec<_>>(),
        "createdAt": service.created_at.0,
        "placementConstraints": [],
        "placementStrategy": [],
        "networkConfiguration": network(&service.network),
        "healthCheckGracePeriodSeconds": service.grace_seconds,
        "schedulingStrategy": "REPLICA",
        "deploymentController": {"type": "ECS"},
        "enableECSManagedTags": service.enable_ecs_managed_tags,
        "propagateTags": service.propagate_tags.as_str(),
        "enableExecuteCommand": service.enable_execute_command,
        "availabilityZoneRebalancing": service.availability_zone_rebalancing.as_str(),
    });
    if with_tags {
        body["tags"] = tags(&service.tags);
    }
    body
}

fn is_running(task: &Task) -> bool {
    task.status == TaskStatus::Running
}

fn is_pending(task: &Task) -> bool {
    task.status < TaskStatus::Running && task.wanted()
}

fn count(tasks: &[&Task], which: impl Fn(&Task) -> bool) -> usize {
    tasks.iter().filter(|task| which(task)).count()
}

fn deployment(service: &Service, one: &Deployment, primary: bool, tasks: &[&Task]) -> Value {
    let of_this = |task: &Task| task.deployment_id() == one.id;
    json!({
        "id": one.id,
        "status": if primary { "PRIMARY" } else { "ACTIVE" },
        "taskDefinition": one.task_definition.arn,
        "desiredCount": if primary { service.desired_count } else { 0 },
        "pendingCount": count(tasks, |task| of_this(task) && is_pending(task)),
        "runningCount": count(tasks, |task| of_this(task) && is_running(task)),
        "failedTasks": one.failed_tasks,
        "createdAt": one.created_at.0,
        "updatedAt": one.updated_at.0,
        "launchType": "FARGATE",
        "platformVersion": PLATFORM_VERSION,
        "platformFamily": "Linux",
        "networkConfiguration": network(&service.network),
        "rolloutState": one.rollout.as_str(),
        "rolloutStateReason": one.rollout_reason,
    })
}

fn load_balancers(service: &Service) -> Value {
    service
        .load_balancers
        .iter()
        .map(|entry| {
            json!({
                "targetGroupArn": entry.target_group_arn,
                "containerName": entry.container_name,
                "containerPort": entry.container_port,
            })
        })
        .collect()
}

fn network(network: &NetworkConfiguration) -> Value {
    let vpc = &network.awsvpc_configuration;
    json!({"awsvpcConfiguration": {
        "subnets": vpc.subnets,
        "securityGroups": vpc.security_groups,
        "assignPublicIp": vpc.assign_public_ip.unwrap_or(Switch::Disabled).as_str(),
    }})
}

fn deployment_configuration(configuration: &DeploymentConfiguration) -> Value {
    let breaker = &configuration.deployment_circuit_breaker;
    json!({
        "deploymentCircuitBreaker": {"enable": breaker.enable, "rollback": breaker.rollback},
        "maximumPercent": configuration.maximum_percent.unwrap_or(200),
        "minimumHealthyPercent": configuration.minimum_healthy_percent.unwrap_or(100),
        "strategy": "ROLLING",
        "bakeTimeInMinutes": 0,
    })
}

fn service_role(service: &Service) -> String {
    let account = super::names::account_of(&service.cluster.arn_prefix);
    format!("arn:aws:iam::{account}:role/aws-service-role/ecs.amazonaws.com/AWSServiceRoleForECS")
}

/// A task, with its tags if the request includes them.
pub fn task(task: &Task, with_tags: bool) -> Value {
    let mut body = Map::new();
    let mut put = |name: &str, value: Value| {
        if !value.is_null() {
            body.insert(name.to_owned(), value);
        }
    };
    let definition = &task.task_definition.body;
    put("attachments", json!([attachment(task)]));
    put(
        "attributes",
        json!([{"name": "ecs.cpu-architecture", "value": architecture(definition)}]),
    );
    put("availabilityZone", json!(task.zone));
    put("clusterArn", json!(task.cluster.arn()));
    if task.times.connectivity_at.is_some() {
        put("connectivity", json!("CONNECTED"));
    }
    put(
        "containers",
        task.containers
            .iter()
            .map(|one| container(task, one))
            .collect(),
    );
    put("cpu", definition["cpu"].clone());
    put("memory", definition["memory"].clone());
    put(
        "desiredStatus",
        json!(if task.wanted() { "RUNNING" } else { "STOPPED" }),
    );
    put("enableExecuteCommand", json!(false));
    put("group", json!(task.group));
    put("healthStatus", json!("UNKNOWN"));
    put("lastStatus", json!(task.status.as_str()));
    put("launchType", json!("FARGATE"));
    put(
        "overrides",
        json!({
            "containerOverrides": task.containers.iter()
                .map(|one| container_override(task, one))
                .collect::<Vec<_>>(),
            "inferenceAcceleratorOverrides": [],
        }),
    );
    put("platformVersion", json!(PLATFORM_VERSION));
    put("platformFamily", json!("Linux"));
    put("startedBy", json!(task.started_by));
    put("taskArn", json!(task.arn()));
    put("taskDefinitionArn", json!(task.task_definition.arn));
    put("version", json!(task.version));
    put("ephemeralStorage", json!({"sizeInGiB": 20}));
    put("fargateEphemeralStorage", json!({"sizeInGiB": 20}));
    if let Some(stop) = &task.stop {
        put("stopCode", json!(stop.code.as_str()));
        put("stoppedReason", json!(stop.reason));
    }
    let times = &task.times;
    for (name, time) in [
        ("createdAt", times.created_at),
        ("connectivityAt", times.connectivity_at),
        ("pullStartedAt", times.pull_started_at),
        ("pullStoppedAt", times.pull_stopped_at),
        ("startedAt", times.started_at),
        ("stoppingAt", times.stopping_at),
        ("executionStoppedAt", times.execution_stopped_at),
        ("stoppedAt", times.stopped_at),
    ] {
        if let Some(Timestamp(seconds)) = time {
            put(name, json!(seconds));
        }
    }
    put(
        "tags",
        if with_tags {
            tags(&task.tags)
        } else {
            json!([])
        },
    );
    Value::Object(body)
}

/// What RunTask changes in a container, of which ECS names all.
fn container_override(task: &Task, container: &Container) -> Value {
    let mut body = json!({"name": container.name});
    if let Some(changed) = task.overrides.of(&container.name) {
        if !changed.command.is_empty() {
            body["command"] = json!(changed.command);
        }
        if !changed.environment.is_empty() {
            let pairs = changed.environment.iter();
            body["environment"] = pairs
                .map(|pair| json!({"name": pair.name, "value": pair.value}))
                .collect();
        }
    }
    body
}

fn architecture(definition: &Value) -> &'static str {
    match definition["runtimePlatform"]["cpuArchitecture"].as_str() {
        Some("ARM64") => "arm64",
        _ => "x86_64",
    }
}

/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Attachment.html>
fn attachment(task: &Task) -> Value {
    let status = match task.status {
        TaskStatus::Stopped => "DELETED",
        TaskStatus::Deprovisioning => "DETACHING",
        TaskStatus::Provisioning => "PRECREATED",
        _ => "ATTACHED",
    };
    let mut details = vec![json!({"name": "subnetId", "value": task.subnet})];
    if let Some(address) = task.address {
        let octets = address.octets();
        let [a, b, c, d] = octets;
        for (name, value) in [
            (
                "networkInterfaceId",
                format!(
                    "eni-{}",
                    task.attachment_id.replace('-', "").get(..17).unwrap_or("0")
                ),
            ),
            (
                "macAddress",
                format!("0a:58:{a:02x}:{b:02x}:{c:02x}:{d:02x}"),
            ),
            ("privateDnsName", format!("ip-{a}-{b}-{c}-{d}.ec2.internal")),
            ("privateIPv4Address", address.to_string()),
        ] {
            details.push(json!({"name": name, "value": value}));
        }
    }
    json!({
        "id": task.attachment_id,
        "type": "ElasticNetworkInterface",
        "status": status,
        "details": details,
    })
}

fn container(task: &Task, one: &Container) -> Value {
    let interfaces = task
        .address
        .map(|address| {
            json!({
                "attachmentId": task.attachment_id,
                "privateIpv4Address": address.to_string(),
            })
        })
        .into_iter()
        .collect::<Vec<_>>();
    let mut body = json!({
        "containerArn": format!(
            "{}:container/{}/{}/{}",
            task.cluster.arn_prefix, task.cluster.name, task.id, one.id
        ),
        "taskArn": task.arn(),
        "name": one.name,
        "image": one.image,
        "lastStatus": one.status,
        "networkBindings": [],
        "networkInterfaces": interfaces,
        "healthStatus": "UNKNOWN",
        "cpu": one.cpu,
    });
    if let Some(digest) = &one.image_digest {
        body["imageDigest"] = json!(digest);
    }
    if let Some(runtime_id) = &one.runtime_id {
        body["runtimeId"] = json!(runtime_id);
    }
    if let Some(exit_code) = one.exit_code {
        body["exitCode"] = json!(exit_code);
    }
    if let Some(reason) = &one.reason {
        body["reason"] = json!(reason);
    }
    if let Some(memory) = &one.memory {
        body["memory"] = json!(memory);
    }
    body
}
