//! RunTask: tasks that belong to no service.
//! <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_RunTask.html>

use std::sync::Arc;

use serde_json::{Value, json};

use super::answer::Refusal;
use super::execution_role::cannot_assume;
use super::model::{RunRequest, State, Subnet, Task, TaskDefinition, Timestamp};
use super::names::ClusterName;
use super::requests::{LaunchType, PropagateTags, RunTask, Tag, TaskOverride, read};
use super::rules::service_creation::task_definition_runs_on_fargate;
use super::services::{check_client_token, check_network, check_tags, cluster, task_definition};
use super::shared::Shared;
use super::{task_life, wire};

/// The reason of the failure when Fargate has no room for a task, which clients see from time to time.
pub const NO_CAPACITY: &str = "Capacity is unavailable at this time. Please try again later or in a \
                               different availability zone";

/// Cluster and client token of a request.
type Token = (String, String);

/// Starts tasks, and answers with those of the first request if the client token repeats.
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/ECS_Idempotency.html>
pub async fn run(shared: &Arc<Shared>, body: &Value) -> Result<Value, Refusal> {
    let request: RunTask = read(body)?;
    check_request(&request, body)?;
    let cluster = cluster(shared, request.cluster.as_deref()).await?;
    let token: Option<Token> = request
        .client_token
        .as_ref()
        .map(|token| (cluster.arn(), token.clone()));
    if let Some(answer) = first_answer(&shared.state(), token.as_ref(), body)? {
        return Ok(answer);
    }
    let definition = task_definition(shared, &request.task_definition).await?;
    task_definition_runs_on_fargate(&definition.body, request.network_configuration.is_some())?;
    check_overrides(&request.overrides, &definition)?;
    let network = request
        .network_configuration
        .as_ref()
        .ok_or_else(|| Refusal::invalid_parameter("Network Configuration must be provided."))?;
    let subnets = check_network(shared, network).await?;
    check_roles(shared, &definition.body).await?;
    if let Some(reason) = shared.run_failures().pop_front() {
        return Ok(json!({"tasks": [], "failures": [{"reason": reason}]}));
    }
    let (answer, started) = {
        let mut state = shared.state();
        // Checked again, because a concurrent call with the same token may have started tasks meanwhile.
        if let Some(answer) = first_answer(&state, token.as_ref(), body)? {
            return Ok(answer);
        }
        let started = start(&mut state, &request, &cluster, &definition, &subnets);
        if let Some(token) = token {
            let request = RunRequest {
                request: body.clone(),
                tasks: started.clone(),
                made_at: Timestamp::now(),
            };
            state.run_requests.insert(token, request);
        }
        (answer(&state, &started), started)
    };
    for task in started {
        tokio::spawn(task_life::live(Arc::clone(shared), task));
    }
    Ok(answer)
}

fn check_request(request: &RunTask, body: &Value) -> Result<(), Refusal> {
    if request.launch_type != Some(LaunchType::Fargate) {
        // Without a launch type AWS uses EC2, which has no instances here.
        return Err(Refusal::client(
            "The local cloud runs tasks with launchType FARGATE only.",
        ));
    }
    check_client_token(request.client_token.as_deref(), 64)?;
    check_tags(&request.tags)?;
    if !(1..=10).contains(&request.count.unwrap_or(1)) {
        return Err(Refusal::invalid_parameter(
            "count must be between 1 and 10.",
        ));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-/_".contains(c);
    if let Some(text) = &request.started_by
        && (text.is_empty() || text.len() > 128 || !text.chars().all(allowed))
    {
        return Err(Refusal::invalid_parameter(
            "startedBy can have up to 128 letters, numbers, hyphens, forward slashes, and underscores.",
        ));
    }
    let group = request.group.as_deref().unwrap_or_default();
    if group.starts_with("service:") {
        return Err(Refusal::invalid_parameter("Invalid namespace for group."));
    }
    if request.propagate_tags == PropagateTags::Service {
        return Err(Refusal::invalid_parameter(
            "propagateTags can be TASK_DEFINITION for RunTask, not SERVICE.",
        ));
    }
    if let Some(version) = &request.platform_version
        && !["LATEST", "1.4.0"].contains(&version.as_str())
    {
        return Err(Refusal::new(
            "PlatformUnknownException",
            "The specified platform version does not exist.",
        ));
    }
    let overrides = &body["overrides"];
    if !overrides.is_null() && overrides.to_string().len() > 8192 {
        return Err(Refusal::invalid_parameter(
            "Container Overrides length must be at most 8192",
        ));
    }
    Ok(())
}

fn check_overrides(overrides: &TaskOverride, definition: &TaskDefinition) -> Result<(), Refusal> {
    for changed in &overrides.container_overrides {
        let name = &changed.name;
        let container = definition
            .containers()
            .find(|container| container["name"] == name.as_str())
            .ok_or_else(|| {
                Refusal::invalid_parameter(format!(
                    "Override for container named {name} is not a container in the TaskDefinition."
                ))
            })?;
        let secrets = container["secrets"].as_array().into_iter().flatten();
        for secret in secrets {
            let is_it = |variable: &str| secret["name"] == variable;
            if changed.environment.iter().any(|one| is_it(&one.name)) {
                return Err(Refusal::client(
                    "The secret name must be unique and not shared with any new or existing \
                     environment variables set on the container",
                ));
            }
        }
    }
    Ok(())
}

/// ECS must be able to assume the roles of the task before there is one.
async fn check_roles(shared: &Shared, definition: &Value) -> Result<(), Refusal> {
    for member in ["executionRoleArn", "taskRoleArn"] {
        let role = definition[member].as_str().unwrap_or_default();
        if !role.is_empty() && !matches!(shared.backends.tasks_may_assume(role).await, Ok(true)) {
            return Err(Refusal::client(cannot_assume(role)));
        }
    }
    Ok(())
}

/// The answer to the request that used the token first. `None` if there was none.
fn first_answer(
    state: &State,
    token: Option<&Token>,
    body: &Value,
) -> Result<Option<Value>, Refusal> {
    let Some(first) = token.and_then(|token| state.run_requests.get(token)) else {
        return Ok(None);
    };
    if first.request == *body {
        return Ok(Some(answer(state, &first.tasks)));
    }
    Err(Refusal {
        resource_ids: first.tasks.clone(),
        ..Refusal::new(
            "ConflictException",
            "The provided clientToken is already in use with a different RunTask request.",
        )
    })
}

fn answer(state: &State, tasks: &[String]) -> Value {
    let tasks = tasks.iter().filter_map(|arn| state.tasks.get(arn));
    let tasks: Vec<Value> = tasks.map(|task| wire::task(task, true)).collect();
    json!({"tasks": tasks, "failures": []})
}

/// Adds the tasks to the state. Returns their ARNs.
fn start(
    state: &mut State,
    request: &RunTask,
    cluster: &ClusterName,
    definition: &Arc<TaskDefinition>,
    subnets: &[Subnet],
) -> Vec<String> {
    let mut started = Vec::new();
    for _ in 0..request.count.unwrap_or(1) {
        let tasks_in = |subnet: &Subnet| {
            let here = |task: &&Task| task.wanted() && task.subnet == subnet.id;
            state.tasks.values().filter(here).count()
        };
        let Some(subnet) = subnets.iter().min_by_key(|subnet| tasks_in(subnet)) else {
            break;
        };
        let mut task = Task::standalone(cluster.clone(), Arc::clone(definition), subnet);
        if let Some(group) = &request.group {
            task.group.clone_from(group);
        }
        task.started_by.clone_from(&request.started_by);
        task.overrides.clone_from(&request.overrides);
        task.tags = tags(request, cluster, definition);
        started.push(task.arn());
        state.tasks.insert(task.arn(), task);
    }
    started
}

/// The tags of a task. Those of the request come before those of the task definition.
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs-using-tags.html>
fn tags(request: &RunTask, cluster: &ClusterName, definition: &TaskDefinition) -> Vec<Tag> {
    let mut tags = request.tags.clone();
    if request.propagate_tags == PropagateTags::TaskDefinition {
        for tag in &definition.tags {
            if tags.iter().all(|other| other.key != tag.key) {
                tags.push(tag.clone());
            }
        }
    }
    if request.enable_ecs_managed_tags {
        tags.push(Tag {
            key: "aws:ecs:clusterName".to_owned(),
            value: cluster.name.clone(),
        });
    }
    tags
}
