//! Everything that the plan is made from, read in one pass.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ecs::primitives::DateTime;
use aws_sdk_ecs::types::{DeploymentRolloutState, ServiceField, TaskDefinitionStatus};
use aws_sdk_elasticloadbalancingv2::Client;
use aws_sdk_elasticloadbalancingv2::types::{Rule, TargetHealth, TargetHealthStateEnum};
use lifecycle::affinity::Affinity;
use lifecycle::aws_error::failed;
use lifecycle::routing::{self, DefaultAction};
use lifecycle::tags::{self, Tags};
use lifecycle::{DeploymentId, StepError, service, target_group, task_definition};
use time::UtcDateTime;

use crate::executions::{self, Executions};
use crate::{Clients, Config};

/// Everything that the plan is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// What the default action does.
    pub default_action: DefaultActionKind,
    /// The deployments that the default action names, as [`DefaultAction::named`] orders them.
    pub named: Vec<DeploymentId>,
    /// Whether the default action changed while the rest was read. If so, some facts date from before the
    /// change and some from after it.
    pub moved: bool,
    /// Every deployment of the environment of which something carries our tags, and those that the
    /// default action names; newest first.
    pub deployments: Vec<Deployment>,
    /// By what no rule pins visitors to the active deployment.
    pub unpinned: Vec<Affinity>,
    /// What the deploy machine is doing.
    pub executions: Executions,
}

/// What the listener's default action does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultActionKind {
    /// It forwards to a target group that exists.
    Forward,
    /// It forwards to nothing that exists.
    ForwardToNothing,
    /// The fixed answer of the baseline stack: no deployment was ever active, or the one that was is lost.
    NothingDeployed,
    /// Something else, which an operator put there for a reason.
    Other,
}

/// One deployment as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    /// Its id.
    pub id: DeploymentId,
    /// The target group of its name.
    pub target_group: TargetGroup,
    /// The service with its name and tags, if there is one.
    pub service: Option<Service>,
    /// Whether there is an active task definition: one with its tags, or the one that its service runs.
    pub has_task_definition: bool,
    /// Whether any part of it carries [`tags::PROTECTED`].
    pub is_protected: bool,
    /// When the newest of its parts was created: the service or the task definition.
    pub made_at: Option<UtcDateTime>,
    /// Its targets, where they were read.
    pub targets: Option<Targets>,
    /// Whether the rule is left with which a rollback waited for its tasks.
    pub waits: bool,
}

impl Deployment {
    /// Whether any part of it carries its tags.
    pub fn is_ours(&self) -> bool {
        matches!(self.target_group, TargetGroup::Ours { .. })
            || self.service.is_some()
            || self.has_task_definition
    }

    /// Its tags, if its target group is ours.
    pub fn marks(&self) -> Option<&Tags> {
        match &self.target_group {
            TargetGroup::Ours { tags, .. } => Some(tags),
            _ => None,
        }
    }

    /// Whether it may have visitors. Draining begins only after a deployment was live, so the tag of
    /// draining shows that even if an operator removed the other one.
    pub fn was_live(&self) -> bool {
        let marks = self.marks();
        marks.is_some_and(|marks| {
            marks.contains_key(tags::LIVE_SINCE) || marks.contains_key(tags::DRAINING_SINCE)
        })
    }

    /// Whether traffic may go back to it without a person's decision: it was live, is reachable, was not
    /// rolled back, and does not end.
    pub fn may_take_over(&self) -> bool {
        let TargetGroup::Ours { tags, in_use, .. } = &self.target_group else {
            return false;
        };
        let has = |mark| tags.contains_key(mark);
        *in_use
            && has(tags::LIVE_SINCE)
            && has(tags::READY_AT)
            && !has(tags::ROLLED_BACK_AT)
            && !has(tags::DRAINING_SINCE)
            && !has(tags::DELETING_SINCE)
    }

    /// Whether its targets were read and none is healthy.
    pub fn has_no_healthy_target(&self) -> bool {
        self.targets.is_some_and(|targets| targets.healthy == 0)
    }

    /// Whether it serves no visitors at this moment. A load balancer sends requests to unhealthy targets when it
    /// has no others, so only the active deployment is judged by its health; another one by whether it has a
    /// target or a running task at all.
    pub fn is_down(&self, is_active: bool) -> bool {
        if is_active {
            self.has_no_healthy_target()
        } else {
            self.has_no_running_task() && self.targets.is_some_and(|it| it.registered == 0)
        }
    }

    /// Whether it may lose its rules if it has no targets.
    fn may_be_empty(&self) -> bool {
        let TargetGroup::Ours { tags, in_use, .. } = &self.target_group else {
            return false;
        };
        let ends =
            tags.contains_key(tags::DRAINING_SINCE) || tags.contains_key(tags::DELETING_SINCE);
        (*in_use || self.waits)
            && self.was_live()
            && !ends
            && !self.is_protected
            && self.has_no_running_task()
    }

    fn has_no_running_task(&self) -> bool {
        self.service.is_none_or(|service| service.running <= 0)
    }
}

/// What ECS says of a deployment's service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Service {
    /// The tasks that run.
    pub running: i32,
    /// The tasks that should run.
    pub wanted: i32,
    /// Whether its newest rollout has failed, after which ECS starts no task any more.
    pub has_failed: bool,
    /// Whether ECS does not replace unhealthy tasks, as for a deployment that drains.
    pub keeps_unhealthy: bool,
}

/// The targets of a deployment's target group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Targets {
    /// Those that are not being deregistered.
    pub registered: usize,
    /// Those that are healthy.
    pub healthy: usize,
}

/// The target group of a deployment's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetGroup {
    /// There is no target group of that name.
    Absent,
    /// It carries the deployment's tags.
    Ours {
        /// Its ARN.
        arn: String,
        /// All its tags, the deployment's state among them.
        tags: Tags,
        /// Whether a rule or the default action forwards to it.
        in_use: bool,
    },
    /// It does not carry the deployment's tags.
    NotOurs {
        /// Its ARN.
        arn: String,
    },
}

/// DescribeTargetGroups returns at most 400 at once:
/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_DescribeTargetGroups.html>.
const TARGET_GROUPS_PER_PAGE: i32 = 400;
/// ListServices returns at most 100 at once (10 by default):
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ListServices.html>.
const SERVICES_PER_PAGE: i32 = 100;
/// DescribeServices takes at most 10:
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DescribeServices.html>.
const SERVICES_PER_CALL: usize = 10;
/// ListTaskDefinitions returns at most 100 at once:
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ListTaskDefinitions.html>.
const TASK_DEFINITIONS_PER_PAGE: i32 = 100;

/// Reads the facts.
///
/// The number of calls, with every division rounded up and every list at least one page:
///
/// ```text
///   2                            DescribeListeners, first and last
/// + rules of the listener / 400  DescribeRules
/// + target groups / 400          DescribeTargetGroups, all of the region
/// + ours / 20                    DescribeTags, of the target groups with a name of ours
/// + services / 100               ListServices, all of the cluster
/// + ours / 10                    DescribeServices, of the services with a name of ours
/// + revisions / 100              ListTaskDefinitions, active ones of the family
/// + unused revisions             DescribeTaskDefinition, each that no described service runs
/// + 1                            DescribeTargetHealth, of the active deployment
/// + without a running task       DescribeTargetHealth, each that is kept warm
/// + executions / 1000            ListExecutions, running ones of the deploy machine
/// + other names                  DescribeExecution, each that is not named by a deployment id
/// ```
///
/// For N deployments that need nothing, each with its two rules, and nothing else in the region and the
/// cluster, that is 4 + ⌈(2N + 1) / 400⌉ + ⌈N / 400⌉ + ⌈N / 20⌉ + ⌈N / 10⌉ + 2 ⌈N / 100⌉: 10 calls for
/// 10, 13 for 30 and 17 for 60. While no deployment is active, or the active one has no healthy target,
/// the health of each deployment that may take over is read too.
pub async fn read(clients: &Clients, config: &Config) -> Result<Facts, StepError> {
    let (elb, baseline) = (&clients.elb, &config.baseline);
    let default_before = DefaultAction::read(elb, baseline).await?;
    // No visitor comes by the rule with which a rollback waits for tasks.
    let (waiting, others): (Vec<_>, Vec<_>) = routing::rules(elb, &baseline.listener_arn)
        .await?
        .into_iter()
        .partition(routing::is_waiting);
    let unpinned = unpinned(&default_before, &others);
    let named_by = |rules: Vec<Rule>| -> BTreeSet<String> {
        let named = rules
            .iter()
            .flat_map(|rule| routing::forwarded_to(rule.actions()));
        named.collect()
    };
    let (waiting, in_rules) = (named_by(waiting), named_by(others));
    let groups = target_groups(clients).await?;
    let mut found = Found::default();
    found
        .add_target_groups(clients, config, &groups, (&in_rules, &waiting))
        .await?;
    let used = found.add_services(clients, config).await?;
    found.add_task_definitions(clients, config, &used).await?;
    found.add_targets(elb, default_before.active()).await?;
    // After the resources: an execution that created any of them is still running, or has ended, or is too
    // young to be listed, which the plan allows for.
    let executions = executions::running(&clients.sfn, &config.state_machine_arn).await?;
    // Last of all, and compared with the first read: tags are set before the default action is modified,
    // so if it did not change, the tags show every switch there was.
    let default_now = DefaultAction::read(elb, baseline).await?;
    let named: Vec<DeploymentId> = default_now.named().cloned().collect();
    for id in &named {
        found.deployment(id);
    }
    Ok(Facts {
        default_action: classify(&default_now, &groups),
        moved: default_before != default_now,
        deployments: found
            .deployments
            .into_values()
            .rev()
            // A target group that is not ours does not matter, unless traffic goes there or parts of ours
            // lack it.
            .filter(|it| it.is_ours() || named.contains(&it.id))
            .collect(),
        named,
        unpinned,
        executions,
    })
}

/// By what no rule pins visitors to the active deployment.
fn unpinned(default_action: &DefaultAction, rules: &[Rule]) -> Vec<Affinity> {
    let active = default_action.active();
    active.map_or_else(Vec::new, |id| Affinity::missing(rules, id))
}

fn classify(default_action: &DefaultAction, existing: &[String]) -> DefaultActionKind {
    let forwards = routing::forwarded_to(&default_action.actions);
    if forwards.iter().any(|arn| existing.contains(arn)) {
        DefaultActionKind::Forward
    } else if !forwards.is_empty() {
        DefaultActionKind::ForwardToNothing
    } else if default_action.is_nothing_deployed() {
        DefaultActionKind::NothingDeployed
    } else {
        DefaultActionKind::Other
    }
}

/// The ARNs of all target groups of the region. A deployment's may be in no rule, so none is left out.
async fn target_groups(clients: &Clients) -> Result<Vec<String>, StepError> {
    let groups = clients
        .elb
        .describe_target_groups()
        .page_size(TARGET_GROUPS_PER_PAGE)
        .into_paginator()
        .items();
    let groups = groups.send().try_collect().await;
    let groups = groups.map_err(|error| failed("list the target groups", error))?;
    Ok(groups
        .into_iter()
        .filter_map(|group| group.target_group_arn)
        .collect())
}

/// The deployments found so far.
#[derive(Default)]
struct Found {
    deployments: BTreeMap<DeploymentId, Deployment>,
}

impl Found {
    fn deployment(&mut self, id: &DeploymentId) -> &mut Deployment {
        self.deployments
            .entry(id.clone())
            .or_insert_with(|| Deployment {
                id: id.clone(),
                target_group: TargetGroup::Absent,
                service: None,
                has_task_definition: false,
                is_protected: false,
                made_at: None,
                targets: None,
                waits: false,
            })
    }

    /// A part with its deployment's tags.
    fn part(&mut self, id: &DeploymentId, tags: &Tags) -> &mut Deployment {
        let deployment = self.deployment(id);
        deployment.is_protected |= tags.contains_key(tags::PROTECTED);
        deployment
    }

    /// Notes when a part was created, if AWS reports it.
    fn made(&mut self, id: &DeploymentId, at: Option<&DateTime>) {
        let at = at.and_then(|at| UtcDateTime::from_unix_timestamp(at.secs()).ok());
        let deployment = self.deployment(id);
        deployment.made_at = deployment.made_at.max(at);
    }

    async fn add_target_groups(
        &mut self,
        clients: &Clients,
        config: &Config,
        groups: &[String],
        (in_rules, waiting): (&BTreeSet<String>, &BTreeSet<String>),
    ) -> Result<(), StepError> {
        let environment = &config.baseline.environment;
        let named: Vec<(DeploymentId, String)> = groups
            .iter()
            .filter_map(|arn| {
                Some((
                    target_group::deployment_from_name(arn, environment)?,
                    arn.clone(),
                ))
            })
            .collect();
        let arns: Vec<String> = named.iter().map(|(_, arn)| arn.clone()).collect();
        let mut tags = tags::read(&clients.elb, &arns).await?;
        for (id, arn) in named {
            // It was deleted after it was listed.
            let Some(tags) = tags.remove(&arn) else {
                continue;
            };
            if tags::belong_to(&tags, &id) {
                let in_use = in_rules.contains(&arn);
                let deployment = self.part(&id, &tags);
                deployment.waits = waiting.contains(&arn);
                deployment.target_group = TargetGroup::Ours { arn, tags, in_use };
            } else {
                self.deployment(&id).target_group = TargetGroup::NotOurs { arn };
            }
        }
        Ok(())
    }

    /// Adds the services. Returns the ARNs of the task definitions that they run.
    async fn add_services(
        &mut self,
        clients: &Clients,
        config: &Config,
    ) -> Result<BTreeSet<String>, StepError> {
        let environment = &config.baseline.environment;
        let names = service_names(clients, config).await?;
        let mut used = BTreeSet::new();
        for batch in names.chunks(SERVICES_PER_CALL) {
            let answer = clients
                .ecs
                .describe_services()
                .cluster(&config.baseline.cluster)
                .set_services(Some(batch.to_vec()))
                .include(ServiceField::Tags)
                .send()
                .await
                .map_err(|error| {
                    failed(
                        format_args!("read the services {}", batch.join(", ")),
                        error,
                    )
                })?;
            for service in answer.services() {
                let rollouts = service.deployments().iter();
                used.extend(
                    rollouts
                        .filter_map(|rollout| rollout.task_definition())
                        .chain(service.task_definition())
                        .map(str::to_owned),
                );
                let tags = tags::from_ecs(service.tags());
                let named_by_its_tags = tags::deployment(&tags, environment)
                    .filter(|id| service.service_name() == Some(id.as_str()));
                // It may have been deleted after it was listed; an inactive service is gone.
                if let (Some(id), true) = (named_by_its_tags, service.status() != Some("INACTIVE"))
                {
                    let deployment = self.part(&id, &tags);
                    let rollout = service::newest_rollout(service);
                    deployment.service = Some(Service {
                        running: service.running_count(),
                        wanted: service.desired_count(),
                        has_failed: rollout.and_then(|it| it.rollout_state())
                            == Some(&DeploymentRolloutState::Failed),
                        keeps_unhealthy: service::keeps_unhealthy(service),
                    });
                    deployment.has_task_definition |= service.task_definition().is_some();
                    self.made(&id, service.created_at());
                }
            }
        }
        Ok(used)
    }

    /// Adds the task definitions that no service runs. The others belong to their services.
    async fn add_task_definitions(
        &mut self,
        clients: &Clients,
        config: &Config,
        used: &BTreeSet<String>,
    ) -> Result<(), StepError> {
        let environment = &config.baseline.environment;
        let family = task_definition::family(&config.baseline);
        for arn in task_definitions(clients, &family).await? {
            if used.contains(&arn) {
                continue;
            }
            // Nothing if it was deleted after it was listed.
            let Some((definition, tags)) = task_definition::describe(&clients.ecs, &arn).await?
            else {
                continue;
            };
            if let Some(id) = tags::deployment(&tags, environment)
                && task_definition::is_active(&definition)
            {
                self.part(&id, &tags).has_task_definition = true;
                self.made(&id, definition.registered_at());
            }
        }
        Ok(())
    }

    fn has_target_group(&self, id: &DeploymentId) -> bool {
        let group = self.deployments.get(id).map(|it| &it.target_group);
        group.is_some_and(|group| *group != TargetGroup::Absent)
    }

    /// Adds the targets where the plan depends on them: of the active deployment, of kept ones without a
    /// running task, and, while no deployment is active or the active one has no healthy target, of those that may
    /// take over.
    async fn add_targets(
        &mut self,
        elb: &Client,
        active: Option<&DeploymentId>,
    ) -> Result<(), StepError> {
        let mut is_down = active.is_none_or(|active| !self.has_target_group(active));
        for deployment in self.deployments.values_mut() {
            let is_active = active == Some(&deployment.id);
            if is_active || deployment.may_be_empty() {
                deployment.read_targets(elb).await?;
                is_down |= is_active && deployment.has_no_healthy_target();
            }
        }
        let others = self.deployments.values_mut();
        for deployment in others.filter(|it| is_down && it.targets.is_none() && it.may_take_over())
        {
            deployment.read_targets(elb).await?;
        }
        Ok(())
    }
}

impl Deployment {
    async fn read_targets(&mut self, elb: &Client) -> Result<(), StepError> {
        let TargetGroup::Ours { arn, .. } = &self.target_group else {
            return Ok(());
        };
        let targets = target_group::health(elb, arn).await?;
        let leaves = |it: &&TargetHealth| it.state() == Some(&TargetHealthStateEnum::Draining);
        self.targets = targets.map(|targets| Targets {
            registered: targets.len() - targets.iter().filter(leaves).count(),
            healthy: target_group::healthy(&targets),
        });
        Ok(())
    }
}

/// The names of the cluster's services that are named after deployments of the environment.
async fn service_names(clients: &Clients, config: &Config) -> Result<Vec<String>, StepError> {
    let cluster = &config.baseline.cluster;
    let arns = clients
        .ecs
        .list_services()
        .cluster(cluster)
        .max_results(SERVICES_PER_PAGE)
        .into_paginator()
        .items();
    let arns = arns.send().try_collect().await;
    let attempt = format_args!("list the services of cluster {cluster}");
    let arns = arns.map_err(|error| failed(attempt, error))?;
    let names = arns.iter().filter_map(|arn| arn.rsplit('/').next());
    let is_ours = |name: &&str| {
        let id: Result<DeploymentId, _> = name.parse();
        id.is_ok_and(|id| *id.environment() == config.baseline.environment)
    };
    Ok(names.filter(is_ours).map(str::to_owned).collect())
}

/// The ARNs of the family's active revisions.
async fn task_definitions(clients: &Clients, family: &str) -> Result<Vec<String>, StepError> {
    let arns = clients
        .ecs
        .list_task_definitions()
        .family_prefix(family)
        .status(TaskDefinitionStatus::Active)
        .max_results(TASK_DEFINITIONS_PER_PAGE)
        .into_paginator()
        .items();
    let arns = arns.send().try_collect().await;
    arns.map_err(|error| failed(format_args!("list the task definitions of {family}"), error))
}

#[cfg(test)]
mod tests;
