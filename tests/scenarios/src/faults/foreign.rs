//! Resources that do not belong to the environment, on the same listener and in the same cluster.

use anyhow::Context;
use aws_sdk_ecs::types::{
    Compatibility, ContainerDefinition, LaunchType, NetworkMode, ServiceField,
};
use aws_sdk_elasticloadbalancingv2::types::{
    Action, ActionTypeEnum, HttpHeaderConditionConfig, ProtocolEnum, RuleCondition, TargetTypeEnum,
};

use crate::TestEnvironment;

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
        let ours = env.elb.describe_target_groups().names(like).send().await?;
        let vpc = ours.target_groups().first().and_then(|g| g.vpc_id());
        let created = env
            .elb
            .create_target_group()
            .name(NAME)
            .target_type(TargetTypeEnum::Ip)
            .protocol(ProtocolEnum::Http)
            .port(8000)
            .set_vpc_id(vpc.map(str::to_owned))
            .send()
            .await?;
        let group = created.target_groups().first();
        let group = group
            .and_then(|g| g.target_group_arn())
            .context("no group")?;
        let header = HttpHeaderConditionConfig::builder()
            .http_header_name("X-Foreign")
            .values("yes");
        let condition = RuleCondition::builder()
            .field("http-header")
            .http_header_config(header.build());
        let forward = Action::builder()
            .r#type(ActionTypeEnum::Forward)
            .target_group_arn(group);
        let rule = env
            .elb
            .create_rule()
            .listener_arn(env.listener_arn().await?)
            .priority(45_000)
            .conditions(condition.build())
            .actions(forward.build())
            .send()
            .await?;
        let rule = rule.rules().first().and_then(|rule| rule.rule_arn());
        Self::make_service(env, like).await?;
        Ok(Foreign {
            rule: rule.context("no rule")?.to_owned(),
            group: group.to_owned(),
        })
    }

    async fn make_service(env: &TestEnvironment, like: &str) -> anyhow::Result<()> {
        let ours = env.service(like).await?;
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
        env.ecs
            .create_service()
            .cluster(&env.name)
            .service_name(NAME)
            .task_definition(NAME)
            .desired_count(0)
            .launch_type(LaunchType::Fargate)
            .set_network_configuration(ours.network_configuration)
            .send()
            .await?;
        Ok(())
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
