//! How a deployment is made here, read from one, to make others past the state machines.

use anyhow::Context;
use aws_sdk_ecs::types::{NetworkConfiguration, TaskDefinition};

use crate::TestEnvironment;

/// What a script that makes deployments would have in its variables.
#[derive(Debug, Clone)]
pub struct Blueprint {
    /// How its tasks run.
    pub definition: TaskDefinition,
    /// Where they run.
    pub network: NetworkConfiguration,
    /// The listener that leads to it.
    pub listener: String,
    /// The VPC of its target group.
    pub vpc: String,
}

impl Blueprint {
    /// Reads it from a deployment.
    ///
    /// # Errors
    /// When a part of the deployment is not there.
    pub async fn of(env: &TestEnvironment, id: &str) -> anyhow::Result<Blueprint> {
        let services = env
            .ecs
            .describe_services()
            .cluster(&env.name)
            .services(id)
            .send()
            .await?;
        let service = services.services().first().context("no service")?;
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
