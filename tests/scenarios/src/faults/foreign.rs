//! Resources that do not belong to the environment, on the same listener and in the same cluster.

use aws_sdk_ecs::types::{Compatibility, ContainerDefinition, NetworkMode, ServiceField};

use crate::blueprint::{forward, header};
use crate::{Blueprint, TestEnvironment};

/// The name of all foreign resources.
const NAME: &str = "foreign";

/// A foreign rule, target group and service.
#[derive(Debug, Clone)]
pub struct Foreign {
    /// The rule's ARN.
    pub rule: String,
    /// The ARN of the target group, which has no targets.
    pub group: String,
}

impl Foreign {
    /// Creates them. The service runs in the network of the deployment `like`.
    ///
    /// # Errors
    /// When AWS refuses one of them.
    pub async fn make(env: &TestEnvironment, like: &str) -> anyhow::Result<Foreign> {
        let blueprint = Blueprint::of(env, like).await?;
        let group = blueprint.target_group(env, NAME, &[]).await?;
        let condition = header("X-Foreign", "yes");
        let rule = blueprint.rule(env, 45_000, condition, forward(&group), &[]);
        let rule = rule.await?;
        Self::make_service(env, &blueprint).await?;
        Ok(Foreign { rule, group })
    }

    async fn make_service(env: &TestEnvironment, blueprint: &Blueprint) -> anyhow::Result<()> {
        let container = ContainerDefinition::builder()
            .name("app")
            .image("foreign/image");
        env.ecs
            .register_task_definition()
            .family(NAME)
            .container_definitions(container.build())
            .cpu("256")
            .memory("512")
            .network_mode(NetworkMode::Awsvpc)
            .requires_compatibilities(Compatibility::Fargate)
            .send()
            .await?;
        blueprint.service(env, NAME, (NAME, 0), None, &[]).await
    }

    /// Describes their current state, in a text to compare with another one.
    ///
    /// # Errors
    /// When AWS does not answer. A resource that does not exist is not an error; the text says so.
    pub async fn described(&self, env: &TestEnvironment) -> anyhow::Result<String> {
        let listener = env.listener_arn().await?;
        let rules = env
            .elb
            .describe_rules()
            .listener_arn(listener)
            .page_size(400)
            .send()
            .await?;
        let rule = rules
            .rules()
            .iter()
            .find(|rule| rule.rule_arn() == Some(&self.rule));
        let groups = env
            .elb
            .describe_target_groups()
            .page_size(400)
            .send()
            .await?;
        let group = groups
            .target_groups()
            .iter()
            .find(|group| group.target_group_arn() == Some(&self.group));
        let mut tags = String::new();
        if rule.is_some() && group.is_some() {
            let answer = env
                .elb
                .describe_tags()
                .resource_arns(&self.rule)
                .resource_arns(&self.group)
                .send()
                .await?;
            tags = format!("{:?}", answer.tag_descriptions());
        }
        let services = env
            .ecs
            .describe_services()
            .cluster(&env.name)
            .services(NAME)
            .include(ServiceField::Tags)
            .send()
            .await?;
        let service = services.services().first().map(|service| {
            (
                service.status().map(str::to_owned),
                service.desired_count(),
                service.task_definition().map(str::to_owned),
                service.tags().to_vec(),
            )
        });
        Ok(format!("{rule:?} {group:?} {tags} {service:?}"))
    }
}
