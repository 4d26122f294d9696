//! The tasks of a deployment's service, and those that run by themselves.

use aws_sdk_ecs::Client;
use aws_sdk_ecs::operation::list_tasks::ListTasksError;
use aws_sdk_ecs::operation::list_tasks::builders::ListTasksFluentBuilder;
use aws_sdk_ecs::types::{
    AssignPublicIp, AwsVpcConfiguration, DesiredStatus, NetworkConfiguration, Task, TaskField,
};

use crate::aws_error::{failed, found};
use crate::{Baseline, DeploymentId, ErrorName, StepError};

/// The tasks of the deployment's service with that desired status, past every page. ECS lists stopped tasks for at
/// least an hour; tasks that are stopping are among them.
///
/// A service that was deleted has no tasks. A task that expired after it was listed is left out.
pub async fn list(
    ecs: &Client,
    baseline: &Baseline,
    deployment: &DeploymentId,
    desired: DesiredStatus,
) -> Result<Vec<Task>, StepError> {
    let what = format!("the {} tasks of {deployment}", desired.as_str());
    let request = ecs.list_tasks().service_name(deployment.as_str());
    listed(ecs, baseline, &what, request.desired_status(desired)).await
}

/// The same for all tasks of a family, running or not, each with its tags. AWS removes those of a task that has stopped.
pub async fn of_family(
    ecs: &Client,
    baseline: &Baseline,
    family: &str,
) -> Result<Vec<Task>, StepError> {
    let mut tasks: Vec<Task> = Vec::new();
    // Running ones first: one that stops between the two is in both, and not in none.
    for desired in [DesiredStatus::Running, DesiredStatus::Stopped] {
        let what = format!("the {} tasks of the family {family}", desired.as_str());
        let request = ecs.list_tasks().family(family).desired_status(desired);
        let later = listed(ecs, baseline, &what, request).await?;
        let is_later = |task: &Task| later.iter().any(|it| it.task_arn() == task.task_arn());
        tasks.retain(|task| !is_later(task));
        tasks.extend(later);
    }
    Ok(tasks)
}

async fn listed(
    ecs: &Client,
    baseline: &Baseline,
    what: &str,
    request: ListTasksFluentBuilder,
) -> Result<Vec<Task>, StepError> {
    // A page holds 100 at most, which is also what DescribeTasks takes:
    // https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ListTasks.html
    let mut pages = request.cluster(&baseline.cluster).into_paginator().send();
    let mut tasks = Vec::new();
    while let Some(page) = pages.next().await {
        let is_gone = ListTasksError::is_service_not_found_exception;
        let page = found(format_args!("list {what}"), page, is_gone)?;
        let arns = page.and_then(|page| page.task_arns).unwrap_or_default();
        if arns.is_empty() {
            continue;
        }
        let described = ecs
            .describe_tasks()
            .cluster(&baseline.cluster)
            .set_tasks(Some(arns))
            .include(TaskField::Tags)
            .send()
            .await
            .map_err(|error| failed(format_args!("read {what}"), error))?;
        tasks.extend(described.tasks.unwrap_or_default());
    }
    Ok(tasks)
}

/// Where tasks run: in the private subnets, without public addresses.
///
/// # Errors
/// `Configuration` when the baseline does not say it.
pub fn network(baseline: &Baseline) -> Result<NetworkConfiguration, StepError> {
    let vpc = AwsVpcConfiguration::builder()
        .set_subnets(Some(baseline.private_subnets.clone()))
        .security_groups(&baseline.service_security_group)
        .assign_public_ip(AssignPublicIp::Disabled)
        .build()
        .map_err(|error| {
            StepError::new(
                ErrorName::Configuration,
                format!("could not describe the network: {error}"),
            )
        })?;
    Ok(NetworkConfiguration::builder()
        .awsvpc_configuration(vpc)
        .build())
}

/// The private IPv4 address of a task, once it has one. ECS shows it among the details of the attachment:
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Attachment.html>.
pub fn private_address(task: &Task) -> Option<&str> {
    task.attachments()
        .iter()
        .filter(|attachment| attachment.r#type() == Some("ElasticNetworkInterface"))
        .flat_map(|attachment| attachment.details())
        .find(|detail| detail.name() == Some("privateIPv4Address"))
        .and_then(|detail| detail.value())
}

#[cfg(test)]
mod tests {
    use super::*;
    use memory_aws::MemoryAws;

    #[tokio::test]
    async fn of_a_family_every_task_is_listed_once_and_as_it_was_seen_last() {
        let aws = MemoryAws::default();
        aws.with(|state| {
            for last_status in ["STOPPED", "RUNNING", "RUNNING"] {
                let task = state.add_task("any", "10.0.0.1");
                task["group"] = "family:test-release".into();
                task["lastStatus"] = last_status.into();
                task["desiredStatus"] = last_status.into();
            }
        });
        // The last one stops after the running ones were listed.
        aws.on("DescribeTasks").once().after(|state, _| {
            state.tasks[2]["lastStatus"] = "STOPPED".into();
            state.tasks[2]["desiredStatus"] = "STOPPED".into();
        });
        let ecs = Client::new(&aws.config());
        let tasks = of_family(&ecs, &Baseline::for_tests(), "test-release").await;
        let mut seen: Vec<_> = tasks
            .unwrap()
            .iter()
            .map(|task| {
                let id = task.task_arn().unwrap().rsplit('/').next().unwrap();
                format!("{id} {}", task.last_status().unwrap())
            })
            .collect();
        seen.sort();
        assert_eq!(seen, ["t1 STOPPED", "t2 RUNNING", "t3 STOPPED"]);
    }
}
