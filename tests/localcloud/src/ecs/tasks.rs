//! ListTasks and DescribeTasks.

use serde_json::{Value, json};

use super::answer::Refusal;
use super::model::Task;
use super::paging::page;
use super::requests::{DescribeTasks, DesiredStatus, Include, ListTasks, read};
use super::services::cluster;
use super::shared::Shared;
use super::wire;

/// The default page size of ListTasks.
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ListTasks.html>
const TASKS_PER_PAGE: usize = 100;

/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ListTasks.html>
pub async fn list(shared: &Shared, body: &Value) -> Result<Value, Refusal> {
    let request: ListTasks = read(body)?;
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
