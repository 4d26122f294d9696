//! How a deployment is made, read from an existing one, to make others without the state machines.

use anyhow::Context;
use aws_sdk_ecs::types::{NetworkConfiguration, TaskDefinition};

use crate::TestEnvironment;

/// What a script that makes deployments would keep in its variables.
#[derive(Debug, Clone)]
pub struct Blueprint {
    /// The task definition of the deployment.
    pub definition: TaskDefinition,
    /// The subnets and security groups of its tasks.
    pub network: NetworkConfiguration,
    /// The ARN of the HTTPS listener.
    pub listener: String,
    /// The id of the VPC of its target group.
    pub vpc: String,
}

impl Blueprint {
    /// Reads the blueprint of a deployment.
    ///
    /// # Errors
    /// When a part of the deployment is missing.
    pub async fn of(env: &TestEnvironment, id: &str) -> anyhow::Result<Blueprint> {
        let service = env.service(id).await?;
        let definition = env
            .ecs
            .describe_task_definition()
            .task_definition(service.task_definition().context("no task definition")?)
            .send()
            .await?;
        let groups = env.elb.describe_target_groups().names(id).send().await?;
        let vpc = groups
            .target_groups()
            .first()
            .and_then(|group| group.vpc_id());
        Ok(Blueprint {
            definition: definition.task_definition.context("no task definition")?,
            network: service
                .network_configuration()
                .context("no network configuration")?
                .clone(),
            listener: env.listener_arn().await?,
            vpc: vpc.context("no VPC")?.to_owned(),
        })
    }
}
