//! Where the listener sends requests: its default action, its rules, and the deployments that they name.
//!
//! Active is what the default action names at this moment, so nothing is cached here.

use std::cmp::Reverse;

use aws_sdk_elasticloadbalancingv2::Client;
use aws_sdk_elasticloadbalancingv2::types::{
    Action, ActionTypeEnum, FixedResponseActionConfig, ForwardActionConfig, Rule, RuleCondition,
    TargetGroupTuple,
};

use crate::aws_error::failed;
use crate::policy::Policy;
use crate::target_group::{self, TargetGroup};
use crate::{Baseline, DeploymentId, Environment, ErrorName, StepError, defaults, tags};

/// DescribeRules gives at most 400 at once:
/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_DescribeRules.html>.
const RULES_PER_PAGE: i32 = 400;

/// The listener's default action as it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct DefaultAction {
    /// The actions, as Elastic Load Balancing describes them.
    pub actions: Vec<Action>,
    /// The ARNs of the target groups that are named after deployments of the environment, see
    /// [`DefaultAction::named`].
    named: Vec<(DeploymentId, String)>,
}

impl DefaultAction {
    /// Reads the default action.
    ///
    /// # Errors
    /// `Configuration` when the listener does not exist, else as [`crate::aws_error::CODES`] say.
    pub async fn read(elb: &Client, baseline: &Baseline) -> Result<Self, StepError> {
        let arn = &baseline.listener_arn;
        let answer = elb.describe_listeners().listener_arns(arn).send().await;
        let listener = answer
            .map_err(|error| failed(format_args!("read listener {arn}"), error))?
            .listeners
            .and_then(|listeners| listeners.into_iter().next())
            .ok_or_else(|| {
                StepError::new(
                    ErrorName::Configuration,
                    format!("listener {arn} does not exist"),
                )
            })?;
        let actions = listener.default_actions.unwrap_or_default();
        Ok(DefaultAction::new(actions, &baseline.environment))
    }

    /// The default action that consists of these actions.
    pub fn new(actions: Vec<Action>, environment: &Environment) -> Self {
        let mut named: Vec<_> = forwards(&actions)
            .into_iter()
            .filter_map(|group| {
                let arn = group.target_group_arn?;
                let id = target_group::deployment_from_name(&arn, environment)?;
                Some((Reverse(group.weight), Reverse(id), arn))
            })
            .collect();
        named.sort();
        let named = named
            .into_iter()
            .map(|(_, Reverse(id), arn)| (id, arn))
            .collect();
        DefaultAction { actions, named }
    }

    /// The deployments that it names, whatever their tags: the heaviest first, and the newest first among
    /// equals.
    ///
    /// Judged by name, because an operator may have removed the tags, which does not move the traffic.
    pub fn named(&self) -> impl Iterator<Item = &DeploymentId> {
        self.named.iter().map(|(id, _)| id)
    }

    /// The active deployment: the heaviest that is named, and among equals the newest.
    pub fn active(&self) -> Option<&DeploymentId> {
        self.named().next()
    }

    /// The ARN of the target group of the active deployment.
    pub fn active_target_group(&self) -> Option<&str> {
        self.named.first().map(|(_, arn)| arn.as_str())
    }

    /// Whether it names the deployment, with any weight.
    pub fn is_named(&self, deployment: &DeploymentId) -> bool {
        self.named().any(|named| named == deployment)
    }

    /// Whether the deployment is the only one of the environment that it names.
    pub fn names_only(&self, deployment: &DeploymentId) -> bool {
        let mut named = self.named();
        named.next() == Some(deployment) && named.next().is_none()
    }

    /// Refuses what an operator put there, such as a maintenance page: anything but the fixed answer of the
    /// baseline stack and a forward to a deployment of the environment, whether it exists or is gone.
    ///
    /// # Errors
    /// `DefaultActionNotOurs`, with the command that puts the fixed answer back.
    pub fn refuse_others(&self, baseline: &Baseline) -> Result<(), StepError> {
        if self.active().is_some() || self.is_nothing_deployed() {
            return Ok(());
        }
        let found: Vec<&str> = self
            .actions
            .iter()
            .filter_map(|action| action.r#type().map(ActionTypeEnum::as_str))
            .collect();
        Err(StepError::new(
            ErrorName::DefaultActionNotOurs,
            format!(
                "the default action of {listener} ({}) was set by an operator, and is left as it is; to deploy again, put \
                 the fixed 503 back, and the next cleanup makes the newest live deployment active: aws elbv2 \
                 modify-listener --listener-arn {listener} --default-actions \
                 'Type=fixed-response,FixedResponseConfig={{StatusCode=503,ContentType=text/plain,MessageBody=\"{}\"}}' (with the actions that are to stand before it, such as a login)",
                found.join(", "),
                defaults::NOTHING_DEPLOYED,
                listener = baseline.listener_arn,
            ),
        ))
    }

    /// What it does before it routes.
    ///
    /// # Errors
    /// As for [`Policy::of`].
    pub fn policy(&self) -> Result<Policy, StepError> {
        Policy::of("the default action", &self.actions)
    }

    /// Whether it is the fixed answer of the baseline stack: no deployment is active, or the one that was
    /// is lost.
    pub fn is_nothing_deployed(&self) -> bool {
        let is_the_answer = |answer: &FixedResponseActionConfig| {
            answer.status_code() == Some("503")
                && answer.message_body() == Some(defaults::NOTHING_DEPLOYED)
        };
        self.actions.iter().any(|action| {
            action.r#type() == Some(&ActionTypeEnum::FixedResponse)
                && action.fixed_response_config().is_some_and(is_the_answer)
        })
    }
}

/// The listener with the deployments that it names.
#[derive(Debug, Clone)]
pub struct Routing {
    /// Its default action.
    pub default_action: DefaultAction,
    /// The target groups that a rule or the default action names: with the deployment's tags, or without
    /// any tags when only the default action names them.
    pub deployments: Vec<TargetGroup>,
    /// All rules, the default rule among them.
    pub rules: Vec<Rule>,
}

impl Routing {
    /// Reads the rules, then the tags of the target groups that they name, then the default action.
    ///
    /// `docs/adr/0002-newest-wins-without-a-lock.md` says why the switch converges with this order.
    pub async fn read(elb: &Client, baseline: &Baseline) -> Result<Self, StepError> {
        let rules = rules(elb, &baseline.listener_arn).await?;
        let arns: Vec<String> = rules
            .iter()
            .flat_map(|rule| forwarded_to(rule.actions()))
            .collect();
        let arns = arns.iter().map(String::as_str);
        let mut deployments =
            target_group::of_environment(elb, &baseline.environment, arns).await?;
        let default_action = DefaultAction::read(elb, baseline).await?;
        for (deployment, arn) in &default_action.named {
            if !deployments.iter().any(|group| group.arn == *arn) {
                deployments.push(TargetGroup {
                    deployment: deployment.clone(),
                    arn: arn.clone(),
                    tags: Default::default(),
                });
            }
        }
        Ok(Routing {
            default_action,
            deployments,
            rules,
        })
    }

    /// The target group of that deployment, if a rule or the default action names it.
    pub fn deployment(&self, id: &DeploymentId) -> Option<&TargetGroup> {
        self.deployments
            .iter()
            .find(|group| group.deployment == *id)
    }

    /// The target group of the active deployment, see [`DefaultAction::active`].
    pub fn active(&self) -> Option<&TargetGroup> {
        self.deployment(self.default_action.active()?)
    }

    /// Whether this is the active deployment.
    pub fn is_active(&self, group: &TargetGroup) -> bool {
        self.default_action.active() == Some(&group.deployment)
    }

    /// What a rollback to `target` replaces: what is newer, and active or ready. The active one comes last,
    /// because it is tagged last. An older one needs no tag: no switch prefers it.
    pub fn replaced_by(&self, target: &DeploymentId) -> Vec<&TargetGroup> {
        let newer = self.ready().filter(|group| group.deployment > *target);
        newer
            .filter(|group| !self.is_active(group))
            .chain(self.active().filter(|active| active.deployment > *target))
            .collect()
    }

    /// Every deployment that the default action could be pointed at: ready, and not being deleted.
    pub fn ready(&self) -> impl Iterator<Item = &TargetGroup> {
        self.deployments
            .iter()
            .filter(|group| group.has(tags::READY_AT) && !group.has(tags::DELETING_SINCE))
    }
}

/// All rules of a listener, the default rule among them.
pub async fn rules(elb: &Client, listener_arn: &str) -> Result<Vec<Rule>, StepError> {
    let rules = elb
        .describe_rules()
        .listener_arn(listener_arn)
        .page_size(RULES_PER_PAGE)
        .into_paginator()
        .items();
    let rules = rules.send().try_collect().await;
    rules.map_err(|error| {
        failed(
            format_args!("list the rules of listener {listener_arn}"),
            error,
        )
    })
}

/// A rule of the listener that an operator or another run can find again.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ListenerRule {
    /// `arn:aws:elasticloadbalancing:…:listener-rule/…`.
    pub arn: String,
    /// 1 to 50000. The lowest number is evaluated first.
    pub priority: u32,
}

impl ListenerRule {
    /// The ARN and priority of a rule. `None` for the default rule, which has no priority.
    pub fn of(rule: &Rule) -> Option<Self> {
        Some(ListenerRule {
            arn: rule.rule_arn.clone()?,
            priority: priority(rule)?,
        })
    }
}

/// The rule's priority. `None` for the default rule.
pub fn priority(rule: &Rule) -> Option<u32> {
    rule.priority()?.parse().ok()
}

/// The only source address of a waiting rule, from which no request comes: it is kept for documentation,
/// <https://www.rfc-editor.org/rfc/rfc5737>.
pub const NO_ADDRESS: &str = "192.0.2.0/32";

/// Whether the rule is a waiting one: it matches no request, and only attaches a target group to the load balancer, so
/// that ECS starts tasks for it and the load balancer checks their health.
pub fn is_waiting(rule: &Rule) -> bool {
    let values = |condition: &RuleCondition| {
        condition
            .source_ip_config()
            .is_some_and(|config| config.values() == [NO_ADDRESS])
    };
    matches!(rule.conditions(), [condition] if values(condition))
}

/// Whether the rule matches by headers alone, as those do that pin visitors to a deployment.
pub fn is_pin(rule: &Rule) -> bool {
    let conditions = rule.conditions();
    !conditions.is_empty()
        && conditions
            .iter()
            .all(|it| it.http_header_config().is_some())
}

/// Whether the rule forwards to the target group that is named after the deployment.
pub fn forwards_to(rule: &Rule, deployment: &DeploymentId) -> bool {
    forwarded_to(rule.actions())
        .iter()
        .any(|arn| target_group::name(arn) == Some(deployment.as_str()))
}

/// The rules of the deployment: on the listener, forwarding to its target group, and with its tags.
pub async fn rules_of(
    elb: &Client,
    baseline: &Baseline,
    deployment: &DeploymentId,
) -> Result<Vec<ListenerRule>, StepError> {
    let rules = rules(elb, &baseline.listener_arn).await?;
    let candidates = rules.iter().filter(|rule| forwards_to(rule, deployment));
    with_tags_of(elb, deployment, candidates).await
}

/// Deletes a rule of the deployment. Returns whether it was there.
///
/// # Errors
/// As [`crate::aws_error::CODES`] say. A rule that is gone already is not an error.
pub async fn delete_rule(
    elb: &Client,
    baseline: &Baseline,
    deployment: &DeploymentId,
    rule: &ListenerRule,
) -> Result<bool, StepError> {
    let Err(error) = elb.delete_rule().rule_arn(&rule.arn).send().await else {
        return Ok(true);
    };
    if error
        .as_service_error()
        .is_some_and(|error| error.is_rule_not_found_exception())
    {
        return Ok(false);
    }
    // If a call whose answer was lost has deleted the rule, it has no tags any more, and the role,
    // which may delete only by tag, is denied the SDK's next attempt.
    let left = rules_of(elb, baseline, deployment).await?;
    match left.iter().any(|still| still.arn == rule.arn) {
        true => Err(failed(format_args!("delete rule {}", rule.arn), error)),
        false => Ok(true),
    }
}

/// The ARNs of the load balancer's listeners.
pub async fn listeners(elb: &Client, baseline: &Baseline) -> Result<Vec<String>, StepError> {
    let listeners = elb
        .describe_listeners()
        .load_balancer_arn(&baseline.load_balancer_arn)
        .into_paginator()
        .items();
    let attempt = format_args!("list the listeners of {}", baseline.load_balancer_arn);
    let listeners = listeners.send().try_collect().await;
    let listeners = listeners.map_err(|error| failed(attempt, error))?;
    Ok(listeners
        .into_iter()
        .filter_map(|listener| listener.listener_arn)
        .collect())
}

/// What forwards to the target group on any listener of the load balancer and is not its deployment's: rules without
/// its tags, and the default actions of other listeners. Each in words.
pub async fn used_by_others(
    elb: &Client,
    baseline: &Baseline,
    group: &TargetGroup,
) -> Result<Vec<String>, StepError> {
    let mut others = Vec::new();
    for listener in listeners(elb, baseline).await? {
        let rules = rules(elb, &listener).await?;
        let forwarding = rules
            .iter()
            .filter(|rule| forwarded_to(rule.actions()).contains(&group.arn));
        let (default, forwarding): (Vec<_>, Vec<_>) =
            forwarding.partition(|rule| rule.is_default() == Some(true));
        if !default.is_empty() && listener != baseline.listener_arn {
            others.push(format!("the default action of listener {listener}"));
        }
        let rules: Vec<_> = forwarding
            .into_iter()
            .filter_map(ListenerRule::of)
            .collect();
        let arns: Vec<String> = rules.iter().map(|rule| rule.arn.clone()).collect();
        let tags = tags::read(elb, &arns).await?;
        // A rule without a description was deleted after it was listed.
        let is_others = |rule: &&ListenerRule| {
            tags.get(&rule.arn)
                .is_some_and(|tags| !tags::belong_to(tags, &group.deployment))
        };
        let described = rules
            .iter()
            .filter(is_others)
            .map(|rule| format!("rule {} with priority {}", rule.arn, rule.priority));
        others.extend(described);
    }
    Ok(others)
}

/// Those of the rules that carry the deployment's tags, in the same order, without the default rule.
pub async fn with_tags_of<'a>(
    elb: &Client,
    deployment: &DeploymentId,
    rules: impl Iterator<Item = &'a Rule>,
) -> Result<Vec<ListenerRule>, StepError> {
    let mut rules: Vec<_> = rules.filter_map(ListenerRule::of).collect();
    let arns: Vec<String> = rules.iter().map(|rule| rule.arn.clone()).collect();
    let tags = tags::read(elb, &arns).await?;
    rules.retain(|rule| {
        tags.get(&rule.arn)
            .is_some_and(|tags| tags::belong_to(tags, deployment))
    });
    Ok(rules)
}

/// The target groups that these actions forward to, each with a weight (1 where none is given).
pub fn forwards(actions: &[Action]) -> Vec<TargetGroupTuple> {
    let of_action = |action: &Action| -> Vec<TargetGroupTuple> {
        let groups = action
            .forward_config()
            .map(ForwardActionConfig::target_groups);
        match groups {
            Some(groups) if !groups.is_empty() => groups
                .iter()
                .cloned()
                .map(|mut group| {
                    group.weight.get_or_insert(1);
                    group
                })
                .collect(),
            _ => action
                .target_group_arn()
                .map(|arn| {
                    TargetGroupTuple::builder()
                        .target_group_arn(arn)
                        .weight(1)
                        .build()
                })
                .into_iter()
                .collect(),
        }
    };
    actions
        .iter()
        .filter(|action| action.r#type() == Some(&ActionTypeEnum::Forward))
        .flat_map(of_action)
        .collect()
}

/// The ARNs of the target groups that these actions forward to.
pub fn forwarded_to(actions: &[Action]) -> Vec<String> {
    forwards(actions)
        .into_iter()
        .filter_map(|group| group.target_group_arn)
        .collect()
}

#[cfg(test)]
mod tests;
