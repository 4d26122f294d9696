//! ListTasks, DescribeTasks and StopTask.

use serde_json::{Value, json};

use super::answer::Refusal;
use super::model::{StopCode, Task};
use super::paging::page;
use super::requests::{DescribeTasks, DesiredStatus, Include, ListTasks, StopTask, read};
use super::services::cluster;
use super::shared::Shared;
use super::wire;

/// The default page size of ListTasks.
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ListTasks.html>
const TASKS_PER_PAGE: usize = 100;

/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ListTasks.html>
pub async fn list(shared: &Shared, body: &Value) -> Result<Value, Refusal> {
    let request: ListTasks = read(body)?;
    check_filters(&request)?;
    let cluster = cluster(shared, request.cluster.as_deref()).await?;
    let wanted = request.desired_status.unwrap_or(DesiredStatus::Running) == DesiredStatus::Running;
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
            .filter(|task| task.cluster == cluster && task.wanted() == wanted)
            .filter(|task| service.as_ref().is_none_or(|arn| task.is_of(arn)))
            .filter(|task| {
                let family = request.family.as_deref();
                family.is_none_or(|family| task.task_definition.body["family"] == family)
            })
            .filter(|task| request.started_by.is_none() || task.started_by == request.started_by)
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

/// "When you specify startedBy as the filter, it must be the only filter that you use."
fn check_filters(request: &ListTasks) -> Result<(), Refusal> {
    let others = request.service_name.is_some()
        || request.family.is_some()
        || request.desired_status.is_some();
    if request.started_by.is_some() && others {
        return Err(Refusal::invalid_parameter(
            "startedBy must be the only filter.",
        ));
    }
    Ok(())
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

/// The `stoppedReason` of a task when the caller gives none.
const NO_REASON: &str = "Task stopped by user";

/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_StopTask.html>
pub async fn stop(shared: &Shared, body: &Value) -> Result<Value, Refusal> {
    let request: StopTask = read(body)?;
    let cluster = cluster(shared, request.cluster.as_deref()).await?;
    let arn = cluster.task_reference(&request.task);
    let answer = {
        let mut state = shared.state();
        let task = state
            .tasks
            .get_mut(&arn)
            .filter(|task| task.cluster == cluster)
            .ok_or_else(|| Refusal::invalid_parameter("The referenced task was not found."))?;
        let reason = request.reason.as_deref().unwrap_or(NO_REASON);
        task.request_stop(StopCode::UserInitiated, reason);
        wire::task(task, true)
    };
    shared.wake.notify_one();
    Ok(json!({"task": answer}))
}
