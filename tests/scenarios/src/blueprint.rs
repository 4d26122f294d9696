//! How a deployment is made, read from an existing one, to make others without the state machines.

use anyhow::Context;
use aws_sdk_ecs::types::{LaunchType, LoadBalancer, NetworkConfiguration, TaskDefinition};
use aws_sdk_elasticloadbalancingv2::types::{
    Action, ActionTypeEnum, HttpHeaderConditionConfig, ProtocolEnum, RuleCondition, TargetTypeEnum,
};

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

    /// Registers a revision of the task definition in another family; returns its ARN.
    ///
    /// # Errors
    /// When ECS refuses it.
    pub async fn register(
        &self,
        env: &TestEnvironment,
        family: &str,
        tags: Tags<'_>,
    ) -> anyhow::Result<String> {
        let definition = &self.definition;
        let registered = env
            .ecs
            .register_task_definition()
            .family(family)
            .set_container_definitions(definition.container_definitions.clone())
            .set_requires_compatibilities(definition.requires_compatibilities.clone())
            .set_network_mode(definition.network_mode.clone())
            .set_cpu(definition.cpu.clone())
            .set_memory(definition.memory.clone())
            .set_execution_role_arn(definition.execution_role_arn.clone())
            .set_tags(ecs_tags(tags))
            .send()
            .await?;
        let registered = registered.task_definition;
        registered
            .and_then(|definition| definition.task_definition_arn)
            .context("no task definition was registered")
    }

    /// Creates a target group; returns its ARN.
    ///
    /// # Errors
    /// When Elastic Load Balancing refuses it.
    pub async fn target_group(
        &self,
        env: &TestEnvironment,
        name: &str,
        tags: Tags<'_>,
    ) -> anyhow::Result<String> {
        let created = env
            .elb
            .create_target_group()
            .name(name)
            .protocol(ProtocolEnum::Http)
            .port(8000)
            .vpc_id(&self.vpc)
            .target_type(TargetTypeEnum::Ip)
            .health_check_path("/_health")
            .set_tags(elb_tags(tags))
            .send()
            .await?;
        let group = created.target_groups.unwrap_or_default().pop();
        group
            .and_then(|group| group.target_group_arn)
            .context("no target group was created")
    }

    /// Creates a rule; returns its ARN.
    ///
    /// # Errors
    /// When Elastic Load Balancing refuses it.
    pub async fn rule(
        &self,
        env: &TestEnvironment,
        priority: i32,
        condition: RuleCondition,
        action: Action,
        tags: Tags<'_>,
    ) -> anyhow::Result<String> {
        let created = env
            .elb
            .create_rule()
            .listener_arn(&self.listener)
            .priority(priority)
            .conditions(condition)
            .actions(action)
            .set_tags(elb_tags(tags))
            .send()
            .await?;
        let rule = created.rules.unwrap_or_default().pop();
        rule.and_then(|rule| rule.rule_arn)
            .context("no rule was created")
    }

    /// Creates a service with `tasks` tasks, which are targets of `group` if there is one.
    ///
    /// # Errors
    /// When ECS refuses it.
    pub async fn service(
        &self,
        env: &TestEnvironment,
        name: &str,
        (definition, tasks): (&str, i32),
        group: Option<&str>,
        tags: Tags<'_>,
    ) -> anyhow::Result<()> {
        let balanced = group.map(|group| {
            let balancer = LoadBalancer::builder()
                .target_group_arn(group)
                .container_name("app")
                .container_port(8000);
            vec![balancer.build()]
        });
        env.ecs
            .create_service()
            .cluster(&env.name)
            .service_name(name)
            .task_definition(definition)
            .desired_count(tasks)
            .launch_type(LaunchType::Fargate)
            .set_load_balancers(balanced)
            .network_configuration(self.network.clone())
            .set_tags(ecs_tags(tags))
            .send()
            .await?;
        Ok(())
    }
}

/// Tags by key and value.
pub type Tags<'a> = &'a [(&'a str, &'a str)];

/// The condition that a header has this value, which may contain wildcards.
pub fn header(name: &str, value: &str) -> RuleCondition {
    let config = HttpHeaderConditionConfig::builder()
        .http_header_name(name)
        .values(value);
    RuleCondition::builder()
        .field("http-header")
        .http_header_config(config.build())
        .build()
}

/// The action that forwards to a target group.
pub fn forward(group: &str) -> Action {
    Action::builder()
        .r#type(ActionTypeEnum::Forward)
        .target_group_arn(group)
        .build()
}

fn elb_tags(tags: Tags) -> Option<Vec<aws_sdk_elasticloadbalancingv2::types::Tag>> {
    use aws_sdk_elasticloadbalancingv2::types::Tag;
    let tags = tags.iter();
    let tags = tags.map(|(key, value)| Tag::builder().key(*key).value(*value).build());
    Some(tags.collect()).filter(|tags: &Vec<_>| !tags.is_empty())
}

fn ecs_tags(tags: Tags) -> Option<Vec<aws_sdk_ecs::types::Tag>> {
    use aws_sdk_ecs::types::Tag;
    let tags = tags.iter();
    let tags = tags.map(|(key, value)| Tag::builder().key(*key).value(*value).build());
    Some(tags.collect()).filter(|tags: &Vec<_>| !tags.is_empty())
}
