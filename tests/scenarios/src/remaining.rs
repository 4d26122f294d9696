//! What remains of a deployment, in every service that could hold a resource of it.

use anyhow::{Context, ensure};
use aws_sdk_ecs::error::ProvideErrorMetadata;
use aws_sdk_ecs::types::{DesiredStatus, TaskDefinitionField, TaskDefinitionStatus};
use aws_sdk_elasticloadbalancingv2::types::TargetGroup;

use lifecycle::tags::LIVE_SINCE;

use crate::TestEnvironment;

/// The parts of a whole deployment: two rules, target group, service, two tasks and task definition.
pub const PARTS: usize = 7;

impl TestEnvironment {
    /// Whether the deployment was live, even if only for a moment. One that was live is whole, and of one that was not,
    /// nothing is left. This does not depend on what its execution reports.
    ///
    /// # Errors
    /// When it is neither, or a service does not answer.
    pub async fn was_live(&self, id: &str) -> anyhow::Result<bool> {
        let mut parts = self.remaining(id).await?;
        parts.retain(|part| part != "rule default");
        let was_live = !parts.is_empty() && self.tags(id).await?.contains_key(LIVE_SINCE);
        let expected = if was_live { PARTS } else { 0 };
        ensure!(
            parts.len() == expected,
            "{id} was live: {was_live}; it has {parts:?}"
        );
        Ok(was_live)
    }

    /// Describes each resource of the deployment that still exists, one text for each.
    ///
    /// # Errors
    /// When a service does not answer.
    pub async fn remaining(&self, id: &str) -> anyhow::Result<Vec<String>> {
        let mut left = Vec::new();
        let listener = self.listener_arn().await?;
        let mut rules = self
            .elb
            .describe_rules()
            .listener_arn(listener)
            .into_paginator()
            .send();
        while let Some(page) = rules.next().await {
            for rule in page?.rules() {
                if format!("{rule:?}").contains(id) {
                    left.push(format!("rule {}", rule.priority().unwrap_or_default()));
                }
            }
        }
        let mut groups = self.elb.describe_target_groups().into_paginator().send();
        while let Some(page) = groups.next().await {
            let named = |group: &TargetGroup| group.target_group_name() == Some(id);
            if page?.target_groups().iter().any(named) {
                left.push("target group".to_owned());
            }
        }
        let service = self.find_service(id).await?;
        if let Some(service) = service.filter(|it| it.status() != Some("INACTIVE")) {
            left.push(format!("service {}", service.status().unwrap_or_default()));
        }
        let mut tasks = self
            .ecs
            .list_tasks()
            .cluster(&self.name)
            .service_name(id)
            .desired_status(DesiredStatus::Running)
            .into_paginator()
            .items()
            .send();
        while let Some(task) = tasks.next().await {
            match task {
                Ok(arn) => left.push(format!("task {arn}")),
                // A deleted service has no tasks.
                Err(error) if error.code() == Some("ServiceNotFoundException") => break,
                Err(error) => return Err(error.into()),
            }
        }
        let mut releases = self
            .ecs
            .list_tasks()
            .cluster(&self.name)
            .started_by(id)
            .into_paginator()
            .items()
            .send();
        while let Some(task) = releases.next().await {
            left.push(format!("release {}", task?));
        }
        // Of deployments and of releases.
        let mut definitions = self
            .ecs
            .list_task_definitions()
            .family_prefix(format!("{}-", self.name))
            .status(TaskDefinitionStatus::Active)
            .into_paginator()
            .items()
            .send();
        while let Some(arn) = definitions.next().await {
            let arn = arn?;
            let described = self
                .ecs
                .describe_task_definition()
                .task_definition(&arn)
                .include(TaskDefinitionField::Tags)
                .send()
                .await?;
            let definition = described.task_definition.context("no task definition")?;
            if format!("{definition:?}").contains(id) {
                left.push(format!("task definition {arn}"));
            }
        }
        Ok(left)
    }
}
