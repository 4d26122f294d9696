//! What there is: everything that the plan is made from, read in one pass.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use aws_sdk_ecs::primitives::DateTime;
use aws_sdk_ecs::types::{ServiceField, TaskDefinitionField, TaskDefinitionStatus};
use aws_sdk_elasticloadbalancingv2::types::{Action, ActionTypeEnum};
use lifecycle::aws_error::{code, failed};
use lifecycle::tags::{self, Tags};
use lifecycle::{DeploymentId, StepError, defaults, listener};
use time::UtcDateTime;

use crate::{Clients, Settings, executions};

/// Everything that the plan is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// What the default action does.
    pub default_action: DefaultAction,
    /// The deployments that the default action names, by name and whatever their tags, heaviest
    /// first. Somebody may have removed the tags; the traffic is there all the same.
    pub named: Vec<DeploymentId>,
    /// Whether the default action changed while the rest was read, so that some of it is of before
    /// and some of after.
    pub moved: bool,
    /// Every deployment of the environment of which something carries our tags, and those that the
    /// default action names; newest first.
    pub deployments: Vec<Deployment>,
    /// What the deploy machine is doing.
    pub executions: Executions,
}

/// What the listener's default action does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultAction {
    /// It forwards to a target group that exists.
    Forward,
    /// It forwards to nothing that exists.
    ForwardToNothing,
    /// The fixed answer of the baseline stack: nothing was ever switched to, or what was is lost.
    NothingDeployed,
    /// Something that is none of ours, put there by a person for a reason.
    Other,
}

/// One deployment as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    /// Its id.
    pub id: DeploymentId,
    /// The target group of its name.
    pub target_group: TargetGroup,
    /// There is a service with its name and tags.
    pub has_service: bool,
    /// There is an active task definition: one with its tags, or the one that its service runs.
    pub has_task_definition: bool,
    /// Any part of it carries [`tags::PROTECTED`].
    pub is_protected: bool,
    /// When the newest of its parts was made that says so: service and task definition.
    pub made_at: Option<UtcDateTime>,
}

impl Deployment {
    /// Whether any part of it carries its tags.
    pub fn is_ours(&self) -> bool {
        matches!(self.target_group, TargetGroup::Ours { .. })
            || self.has_service
            || self.has_task_definition
    }
}

/// The target group of a deployment's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetGroup {
    /// There is none.
    Absent,
    /// It carries the deployment's tags.
    Ours {
        /// Its ARN.
        arn: String,
        /// All its tags, the state among them.
        tags: Tags,
        /// A rule or the default action forwards to it.
        in_use: bool,
    },
    /// It does not carry the deployment's tags.
    NotOurs {
        /// Its ARN.
        arn: String,
    },
}

/// The running executions of the deploy machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Executions {
    /// The deployments that they are for.
    pub running: BTreeSet<DeploymentId>,
    /// The names of those that did not say which deployment they are for.
    pub unknown: Vec<String>,
}

/// The most that DescribeTargetGroups gives at once:
/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_DescribeTargetGroups.html>.
const TARGET_GROUPS_PER_PAGE: i32 = 400;
/// The most that ListServices gives at once (10 unless asked):
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ListServices.html>.
const SERVICES_PER_PAGE: i32 = 100;
/// The most that DescribeServices takes:
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DescribeServices.html>.
const SERVICES_PER_CALL: usize = 10;
/// The most that ListTaskDefinitions gives at once:
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
/// + ours / 20                    DescribeTags, of the target groups named like ours
/// + services / 100               ListServices, all of the cluster
/// + ours / 10                    DescribeServices, of the services named like ours
/// + revisions / 100              ListTaskDefinitions, active ones of the family
/// + unused revisions             DescribeTaskDefinition, each that no described service runs
/// + executions / 1000            ListExecutions, running ones of the deploy machine
/// + named otherwise              DescribeExecution, each that is not named by a deployment id
/// ```
///
/// For N deployments that need nothing, each with its two rules, and nothing else in region and
/// cluster, that is 3 + ⌈(2N + 1) / 400⌉ + ⌈N / 400⌉ + ⌈N / 20⌉ + ⌈N / 10⌉ + 2 ⌈N / 100⌉: 9 calls for
/// 10, 12 for 30 and 16 for 60.
///
/// # Errors
/// As [`lifecycle::aws_error::CODES`] say.
pub async fn read(clients: &Clients, settings: &Settings) -> Result<Facts, StepError> {
    let default_before = default_actions(clients, settings).await?;
    let in_rules: BTreeSet<String> = listener::rules(&clients.elb, &settings.baseline.listener_arn)
        .await?
        .iter()
        .flat_map(|rule| forwarded_to(rule.actions()))
        .collect();
    let groups = target_groups(clients).await?;
    let mut found = Found::default();
    found
        .add_target_groups(clients, settings, &groups, &in_rules)
        .await?;
    let used = found.add_services(clients, settings).await?;
    found.add_task_definitions(clients, settings, &used).await?;
    // After the resources: an execution that made any of them is running still, or has ended, or is too
    // young to be listed, which the plan allows for.
    let executions = executions::running(&clients.sfn, &settings.state_machine_arn).await?;
    // Last of all, and compared with the first look: marks are set before the default action is
    // modified, so when it did not move, the tags tell of every switch there was.
    let default_now = default_actions(clients, settings).await?;
    let named = named(&default_now, settings);
    for id in &named {
        found.deployment(id);
    }
    Ok(Facts {
        default_action: what_it_does(&default_now, &groups),
        moved: default_before != default_now,
        deployments: found
            .deployments
            .into_values()
            .rev()
            // A target group of somebody else's is none of our business, unless traffic goes there
            // or parts of ours lack it.
            .filter(|it| it.is_ours() || named.contains(&it.id))
            .collect(),
        named,
        executions,
    })
}

async fn default_actions(clients: &Clients, settings: &Settings) -> Result<Vec<Action>, StepError> {
    let listener = listener::read(&clients.elb, &settings.baseline.listener_arn).await?;
    Ok(listener.default_actions.unwrap_or_default())
}

fn forwarded_to(actions: &[Action]) -> Vec<String> {
    listener::forwards(actions)
        .into_iter()
        .filter_map(|group| group.target_group_arn)
        .collect()
}

/// The deployments that these actions forward to, heaviest first.
fn named(actions: &[Action], settings: &Settings) -> Vec<DeploymentId> {
    let mut forwards = listener::forwards(actions);
    forwards.sort_by_key(|group| std::cmp::Reverse(group.weight()));
    forwards
        .iter()
        .filter_map(|group| {
            listener::named_like_ours(group.target_group_arn()?, &settings.baseline.environment)
        })
        .collect()
}

fn what_it_does(actions: &[Action], existing: &[String]) -> DefaultAction {
    let forwards = forwarded_to(actions);
    if forwards.iter().any(|arn| existing.contains(arn)) {
        return DefaultAction::Forward;
    }
    if !forwards.is_empty() {
        return DefaultAction::ForwardToNothing;
    }
    let is_the_templates = |action: &Action| {
        action.r#type() == Some(&ActionTypeEnum::FixedResponse)
            && action.fixed_response_config().is_some_and(|answer| {
                answer.status_code() == Some("503")
                    && answer.message_body() == Some(defaults::NOTHING_DEPLOYED)
            })
    };
    if actions.iter().any(is_the_templates) {
        DefaultAction::NothingDeployed
    } else {
        DefaultAction::Other
    }
}

/// The ARNs of all target groups of the region. A deployment's may be in no rule, so none is left out.
async fn target_groups(clients: &Clients) -> Result<Vec<String>, StepError> {
    let mut found = Vec::new();
    let mut marker = None;
    loop {
        let page = clients
            .elb
            .describe_target_groups()
            .page_size(TARGET_GROUPS_PER_PAGE)
            .set_marker(marker)
            .send()
            .await
            .map_err(|error| failed("list the target groups", error))?;
        found.extend(
            page.target_groups
                .unwrap_or_default()
                .into_iter()
                .filter_map(|group| group.target_group_arn),
        );
        marker = page.next_marker.filter(|marker| !marker.is_empty());
        if marker.is_none() {
            return Ok(found);
        }
    }
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
                has_service: false,
                has_task_definition: false,
                is_protected: false,
                made_at: None,
            })
    }

    /// A part with its deployment's tags.
    fn part(&mut self, id: &DeploymentId, tags: &Tags) -> &mut Deployment {
        let deployment = self.deployment(id);
        deployment.is_protected |= tags.contains_key(tags::PROTECTED);
        deployment
    }

    /// A part that says when it was made, or does not.
    fn made(&mut self, id: &DeploymentId, at: Option<&DateTime>) {
        let at = at.and_then(|at| UtcDateTime::from_unix_timestamp(at.secs()).ok());
        let deployment = self.deployment(id);
        deployment.made_at = deployment.made_at.max(at);
    }

    async fn add_target_groups(
        &mut self,
        clients: &Clients,
        settings: &Settings,
        groups: &[String],
        in_rules: &BTreeSet<String>,
    ) -> Result<(), StepError> {
        let named_like_ours: Vec<(DeploymentId, String)> = groups
            .iter()
            .filter_map(|arn| {
                let id = listener::named_like_ours(arn, &settings.baseline.environment)?;
                Some((id, arn.clone()))
            })
            .collect();
        let arns: Vec<String> = named_like_ours.iter().map(|(_, arn)| arn.clone()).collect();
        let mut tags: HashMap<String, Tags> = listener::tags(&clients.elb, &arns).await?;
        for (id, arn) in named_like_ours {
            // Gone since it was listed.
            let Some(tags) = tags.remove(&arn) else {
                continue;
            };
            if tags::belong_to(&tags, &id) {
                let in_use = in_rules.contains(&arn);
                let deployment = self.part(&id, &tags);
                deployment.target_group = TargetGroup::Ours { arn, tags, in_use };
            } else {
                self.deployment(&id).target_group = TargetGroup::NotOurs { arn };
            }
        }
        Ok(())
    }

    /// Adds the services and gives the task definitions that they run.
    async fn add_services(
        &mut self,
        clients: &Clients,
        settings: &Settings,
    ) -> Result<BTreeSet<String>, StepError> {
        let environment = &settings.baseline.environment;
        let names = service_names(clients, settings).await?;
        let mut used = BTreeSet::new();
        for batch in names.chunks(SERVICES_PER_CALL) {
            let answer = clients
                .ecs
                .describe_services()
                .cluster(&settings.baseline.cluster)
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
                let tags = ecs_tags(service.tags());
                let named_by_its_tags = tags::deployment(&tags, environment)
                    .filter(|id| service.service_name() == Some(id.as_str()));
                // Described after it was listed; an inactive one is gone.
                if let (Some(id), true) = (named_by_its_tags, service.status() != Some("INACTIVE"))
                {
                    let deployment = self.part(&id, &tags);
                    deployment.has_service = true;
                    deployment.has_task_definition |= service.task_definition().is_some();
                    self.made(&id, service.created_at());
                }
            }
        }
        Ok(used)
    }

    /// Adds the task definitions that no service runs; those that one runs go with it.
    async fn add_task_definitions(
        &mut self,
        clients: &Clients,
        settings: &Settings,
        used: &BTreeSet<String>,
    ) -> Result<(), StepError> {
        let family = register_task_definition::family(&settings.baseline);
        for arn in task_definitions(clients, &family).await? {
            if used.contains(&arn) {
                continue;
            }
            let answer = clients
                .ecs
                .describe_task_definition()
                .task_definition(&arn)
                .include(TaskDefinitionField::Tags)
                .send()
                .await;
            let answer = match answer {
                Ok(answer) => answer,
                // Gone since it was listed: nothing else can be wrong with an ARN that AWS gave.
                Err(error) if code(&error) == Some("ClientException") => continue,
                Err(error) => {
                    return Err(failed(format_args!("read task definition {arn}"), error));
                }
            };
            let is_active = answer
                .task_definition()
                .is_some_and(|it| it.status() == Some(&TaskDefinitionStatus::Active));
            let tags = ecs_tags(answer.tags());
            if let (true, Some(id)) = (
                is_active,
                tags::deployment(&tags, &settings.baseline.environment),
            ) {
                self.part(&id, &tags).has_task_definition = true;
                let definition = answer.task_definition();
                self.made(&id, definition.and_then(|it| it.registered_at()));
            }
        }
        Ok(())
    }
}

/// The names of the cluster's services that are named like ours.
async fn service_names(clients: &Clients, settings: &Settings) -> Result<Vec<String>, StepError> {
    let cluster = &settings.baseline.cluster;
    let mut found = Vec::new();
    let mut token = None;
    loop {
        let page = clients
            .ecs
            .list_services()
            .cluster(cluster)
            .max_results(SERVICES_PER_PAGE)
            .set_next_token(token)
            .send()
            .await
            .map_err(|error| {
                failed(
                    format_args!("list the services of cluster {cluster}"),
                    error,
                )
            })?;
        let names = page
            .service_arns()
            .iter()
            .filter_map(|arn| arn.rsplit('/').next());
        found.extend(
            names
                .filter(|name| {
                    name.parse().is_ok_and(|id: DeploymentId| {
                        *id.environment() == settings.baseline.environment
                    })
                })
                .map(str::to_owned),
        );
        token = page.next_token.filter(|token| !token.is_empty());
        if token.is_none() {
            return Ok(found);
        }
    }
}

/// The ARNs of the family's active revisions.
async fn task_definitions(clients: &Clients, family: &str) -> Result<Vec<String>, StepError> {
    let mut found = Vec::new();
    let mut token = None;
    loop {
        let page = clients
            .ecs
            .list_task_definitions()
            .family_prefix(family)
            .status(TaskDefinitionStatus::Active)
            .max_results(TASK_DEFINITIONS_PER_PAGE)
            .set_next_token(token)
            .send()
            .await
            .map_err(|error| {
                failed(format_args!("list the task definitions of {family}"), error)
            })?;
        found.extend(page.task_definition_arns.unwrap_or_default());
        token = page.next_token.filter(|token| !token.is_empty());
        if token.is_none() {
            return Ok(found);
        }
    }
}

fn ecs_tags(tags: &[aws_sdk_ecs::types::Tag]) -> Tags {
    tags.iter()
        .filter_map(|tag| Some((tag.key()?.to_owned(), tag.value()?.to_owned())))
        .collect()
}

#[cfg(test)]
mod tests;
