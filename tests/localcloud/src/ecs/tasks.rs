//! ListTasks, DescribeTasks, StopTask and the protection of tasks.

use serde_json::{Value, json};

use super::answer::Refusal;
use super::model::{StopCode, Task, Timestamp};
use super::names::{ClusterName, last_part};
use super::paging::page;
use super::requests::{
    DescribeTasks, DesiredStatus, GetTaskProtection, Include, LaunchType, ListTasks, StopTask,
    UpdateTaskProtection, read,
};
use super::services::cluster;
use super::shared::Shared;
use super::wire;

/// The default page of ListTasks.
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ListTasks.html>
const TASKS_PER_PAGE: usize = 100;

/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ListTasks.html>
pub async fn list(shared: &Shared, body: &Value) -> Result<Value, Refusal> {
    let request: ListTasks = read(body)?;
    let cluster = cluster(shared, request.cluster.as_deref()).await?;
    let arns = {
        let state = shared.state();
        let service = request
            .service_name
            .as_deref()
            .map(|name| cluster.service_reference(name));
        if let Some(service) = &service
            && !state.services.contains_key(service)
        {
            return Err(Refusal::no_service());
        }
        state
            .tasks
            .values()
            .filter(|task| task.cluster == cluster && is_listed(task, &request))
            .filter(|task| service.as_ref().is_none_or(|arn| task.service_arn == *arn))
            .map(Task::arn)
            .collect()
    };
    let page = page(
        arns,
        request.max_results,
        TASKS_PER_PAGE,
        request.next_token.as_deref(),
    )?;
    let mut answer = json!({"taskArns": page.items});
    if let Some(token) = page.next_token {
        answer["nextToken"] = json!(token);
    }
    Ok(answer)
}

fn is_listed(task: &Task, request: &ListTasks) -> bool {
    let status = match request.desired_status.unwrap_or(DesiredStatus::Running) {
        DesiredStatus::Running => task.wanted(),
        DesiredStatus::Stopped => !task.wanted(),
        DesiredStatus::Pending => false,
    };
    let family = task.task_definition.body["family"].as_str();
    status
        && request
            .launch_type
            .is_none_or(|kind| kind == LaunchType::Fargate)
        && (request.family.is_none() || request.family.as_deref() == family)
        && request
            .started_by
            .as_ref()
            .is_none_or(|by| task.deployment_id == *by)
}

/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DescribeTasks.html>
pub async fn describe(shared: &Shared, body: &Value) -> Result<Value, Refusal> {
    let request: DescribeTasks = read(body)?;
    if request.tasks.is_empty() {
        return Err(Refusal::invalid_parameter("Tasks cannot be empty."));
    }
    if request.tasks.len() > 100 {
        return Err(Refusal::invalid_parameter(
            "tasks can have at most 100 items.",
        ));
    }
    let cluster = cluster(shared, request.cluster.as_deref()).await?;
    let with_tags = request.include.contains(&Include::Tags);
    let state = shared.state();
    let (mut tasks, mut failures) = (Vec::new(), Vec::new());
    for reference in &request.tasks {
        let arn = cluster.task_reference(reference);
        match state.tasks.get(&arn).filter(|task| task.cluster == cluster) {
            Some(task) => tasks.push(wire::task(task, with_tags)),
            None => failures.push(json!({"arn": arn, "reason": "MISSING"})),
        }
    }
    Ok(json!({"tasks": tasks, "failures": failures}))
}

/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_StopTask.html>
pub async fn stop(shared: &Shared, body: &Value) -> Result<Value, Refusal> {
    let request: StopTask = read(body)?;
    let cluster = cluster(shared, request.cluster.as_deref()).await?;
    let arn = cluster.task_reference(&request.task);
    let reason = request
        .reason
        .unwrap_or_else(|| "Task stopped by user".to_owned());
    let answer = shared.change(&arn, |task| {
        task.request_stop(StopCode::UserInitiated, reason);
        wire::task(task, true)
    });
    answer
        .map(|task| json!({"task": task}))
        .ok_or_else(|| Refusal::invalid_parameter("The referenced task was not found."))
}

/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_UpdateTaskProtection.html>
pub async fn update_protection(shared: &Shared, body: &Value) -> Result<Value, Refusal> {
    const DEFAULT_MINUTES: i64 = 120;
    let request: UpdateTaskProtection = read(body)?;
    check_count(&request.tasks, 10)?;
    let minutes = request.expires_in_minutes.unwrap_or(DEFAULT_MINUTES);
    if !(1..=2880).contains(&minutes) {
        return Err(Refusal::invalid_parameter(
            "expiresInMinutes must be between 1 and 2880.",
        ));
    }
    let cluster = cluster(shared, Some(&request.cluster)).await?;
    // At most 2880, which a float holds exactly.
    let protected_for = shared.seconds(minutes as f64 * 60.0).as_secs_f64();
    let until = request
        .protection_enabled
        .then(|| Timestamp(Timestamp::now().0 + protected_for));
    Ok(protections(shared, &cluster, &request.tasks, |task| {
        task.protected_until = until;
    }))
}

/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_GetTaskProtection.html>
pub async fn get_protection(shared: &Shared, body: &Value) -> Result<Value, Refusal> {
    let request: GetTaskProtection = read(body)?;
    check_count(&request.tasks, 100)?;
    let cluster = cluster(shared, Some(&request.cluster)).await?;
    Ok(protections(shared, &cluster, &request.tasks, |_| {}))
}

fn check_count(tasks: &[String], most: usize) -> Result<(), Refusal> {
    if tasks.is_empty() {
        return Err(Refusal::invalid_parameter("Tasks cannot be empty."));
    }
    if tasks.len() > most {
        return Err(Refusal::invalid_parameter(format!(
            "tasks can have at most {most} items."
        )));
    }
    Ok(())
}

/// Failure reasons are those of
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/api_failures_messages.html>.
fn protections(
    shared: &Shared,
    cluster: &ClusterName,
    references: &[String],
    change: impl Fn(&mut Task),
) -> Value {
    let now = Timestamp::now();
    let mut state = shared.state();
    let (mut protected, mut failures) = (Vec::new(), Vec::new());
    for reference in references {
        let arn = cluster.task_reference(reference);
        let Some(task) = state.tasks.get_mut(&arn) else {
            failures.push(json!({"arn": arn, "reason": "MISSING"}));
            continue;
        };
        if !task.wanted() {
            failures.push(json!({
                "arn": arn,
                "reason": "TASK_NOT_VALID",
                "detail": format!("The task {} is not running.", last_part(&arn)),
            }));
            continue;
        }
        change(task);
        let enabled = task.is_protected(now);
        let mut one = json!({"taskArn": arn, "protectionEnabled": enabled});
        if let Some(Timestamp(until)) = task.protected_until.filter(|_| enabled) {
            one["expirationDate"] = json!(until);
        }
        protected.push(one);
    }
    json!({"protectedTasks": protected, "failures": failures})
}
