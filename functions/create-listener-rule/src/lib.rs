//! Pins requests to a deployment by header and by cookie, and so attaches its target group to the
//! listener, which has to come before the service.

mod affinity;

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_elasticloadbalancingv2::Client;
use aws_sdk_elasticloadbalancingv2::types::{Action, ActionTypeEnum, Rule, Tag};
use lifecycle::aws_error::{code, failed};
use lifecycle::{DeploymentId, ErrorName, Settings, StepError, listener, tags};
use serde::{Deserialize, Serialize};

use affinity::Affinity;

/// How many priorities may be lost to others before the step gives up and the state machine tries
/// again later. Somebody wins each of them, so fewer deployments at once than this all get theirs.
const ATTEMPTS: usize = 20;

/// What the step needs to know.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Input {
    /// The deployment.
    pub deployment_id: DeploymentId,
    /// Its target group.
    pub target_group_arn: String,
}

/// What the step made or found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// The rule for requests with the header.
    pub header_rule: ListenerRule,
    /// The rule for requests with the cookie.
    pub cookie_rule: ListenerRule,
}

/// A rule of the listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerRule {
    /// Its ARN.
    pub arn: String,
    /// Its place in the order of rules; the lowest number is looked at first.
    pub priority: u32,
}

/// Adopts the deployment's two rules where they are there, else creates them on the lowest free
/// priorities.
///
/// # Errors
/// `QuotaExceeded` when the load balancer has no room for another rule, `Transient` when an older
/// deployment is about to give some back or every priority that it tried went to another, else as [`lifecycle::aws_error::CODES`] say.
pub async fn run(elb: &Client, settings: &Settings, input: Input) -> Result<Output, StepError> {
    let step = async {
        let mut rules = listener::rules(elb, &settings.listener_arn).await?;
        Ok(Output {
            header_rule: adopt_or_create(elb, settings, &input, Affinity::Header, &mut rules)
                .await?,
            cookie_rule: adopt_or_create(elb, settings, &input, Affinity::Cookie, &mut rules)
                .await?,
        })
    };
    step.await
        .map_err(|error: StepError| error.of(&input.deployment_id))
}

/// `rules` are those of the listener, as read last.
async fn adopt_or_create(
    elb: &Client,
    settings: &Settings,
    input: &Input,
    affinity: Affinity,
    rules: &mut Vec<Rule>,
) -> Result<ListenerRule, StepError> {
    let deployment = &input.deployment_id;
    // Those that AWS has refused, should the list of rules lag behind.
    let mut refused = BTreeSet::new();
    for _ in 0..ATTEMPTS {
        if let Some(rule) = existing(elb, input, affinity, rules).await? {
            return Ok(rule);
        }
        let Some(priority) = lowest_free(affinity, rules, &refused) else {
            return Err(StepError::new(
                ErrorName::QuotaExceeded,
                format!(
                    "no priority from {:?} is free on {} for the {affinity} rule of {deployment}; \
                     clean up older deployments",
                    affinity.priorities(),
                    settings.listener_arn
                ),
            ));
        };
        let answer = elb
            .create_rule()
            .listener_arn(&settings.listener_arn)
            .priority(priority as i32)
            .conditions(affinity.condition(deployment))
            .actions(
                Action::builder()
                    .r#type(ActionTypeEnum::Forward)
                    .target_group_arn(&input.target_group_arn)
                    .build(),
            )
            .set_tags(Some(
                tags::of(deployment)
                    .map(|(key, value)| Tag::builder().key(key).value(value).build())
                    .to_vec(),
            ))
            .send()
            .await;
        let attempt =
            format!("create the {affinity} rule of {deployment} with priority {priority}");
        match answer {
            Ok(answer) => {
                return answer
                    .rules
                    .and_then(|rules| rules.into_iter().next()?.rule_arn)
                    .map(|arn| ListenerRule { arn, priority })
                    .ok_or_else(|| {
                        StepError::new(
                            ErrorName::Transient,
                            format!("could not {attempt}: the answer holds no ARN"),
                        )
                    });
            }
            // Another deployment was faster. Or it is our own rule, made by a call whose answer was
            // lost: CreateRule is not documented as idempotent, and the SDK repeats such a call.
            Err(error) if code(&error) == Some("PriorityInUse") => {
                refused.insert(priority);
                *rules = listener::rules(elb, &settings.listener_arn).await?;
            }
            Err(error) if code(&error) == Some("TooManyRules") => {
                *rules = listener::rules(elb, &settings.listener_arn).await?;
                return Err(out_of_room(deployment, rules, failed(attempt, error)));
            }
            Err(error) => return Err(failed(attempt, error)),
        }
    }
    Err(StepError::new(
        ErrorName::Transient,
        format!(
            "{ATTEMPTS} priorities in a row were taken by others before the {affinity} rule of \
             {deployment} could have one"
        ),
    ))
}

/// The failure of a deployment for which there is no room.
///
/// Of several that came for the last room and got a rule each, none would go live if all gave up.
/// The newest tries again, and by then the others have given way: they fail and are undone.
fn out_of_room(deployment: &DeploymentId, rules: &[Rule], mut error: StepError) -> StepError {
    let mut rules_of: BTreeMap<DeploymentId, usize> = BTreeMap::new();
    for rule in rules {
        let groups: BTreeSet<DeploymentId> = listener::forwards(rule.actions())
            .iter()
            .filter_map(|group| {
                listener::named_like_ours(group.target_group_arn()?, deployment.environment())
            })
            .collect();
        for id in groups {
            *rules_of.entry(id).or_default() += 1;
        }
    }
    let newest_other = rules_of
        .iter()
        .filter(|(id, rules)| **rules == 1 && *id != deployment)
        .map(|(id, _)| id)
        .max();
    if let Some(other) = newest_other
        && other < deployment
    {
        error.name = ErrorName::Transient;
        error.message += &format!("; {other} is older, has no room either and gives way");
    }
    error
}

/// The rule that a run before this one made: same condition, same target group, our tags.
async fn existing(
    elb: &Client,
    input: &Input,
    affinity: Affinity,
    rules: &[Rule],
) -> Result<Option<ListenerRule>, StepError> {
    let mut candidates: Vec<ListenerRule> = rules
        .iter()
        .filter(|rule| {
            affinity.is_condition_of(rule, &input.deployment_id)
                && listener::forwards(rule.actions())
                    .iter()
                    .any(|group| group.target_group_arn() == Some(&input.target_group_arn))
        })
        .filter_map(named)
        .collect();
    // Two runs at once may have made one each; all later ones shall agree on which to name.
    candidates.sort_by_key(|rule| rule.priority);
    let ours = only_ours(elb, &input.deployment_id, candidates).await?;
    Ok(ours.into_iter().next())
}

fn lowest_free(affinity: Affinity, rules: &[Rule], refused: &BTreeSet<u32>) -> Option<u32> {
    let taken: BTreeSet<u32> = rules.iter().filter_map(priority).collect();
    affinity
        .priorities()
        .find(|priority| !taken.contains(priority) && !refused.contains(priority))
}

/// The rule's priority; the default rule has none.
fn priority(rule: &Rule) -> Option<u32> {
    rule.priority()?.parse().ok()
}

/// The rule by its ARN and priority; nothing for the default rule, which is never ours to change.
fn named(rule: &Rule) -> Option<ListenerRule> {
    Some(ListenerRule {
        arn: rule.rule_arn.clone()?,
        priority: priority(rule)?,
    })
}

/// The rules of the deployment: on the listener, forwarding to a target group of its name, and with
/// its tags.
///
/// # Errors
/// As [`lifecycle::aws_error::CODES`] say.
pub async fn find(
    elb: &Client,
    settings: &Settings,
    deployment: &DeploymentId,
) -> Result<Vec<ListenerRule>, StepError> {
    let candidates: Vec<ListenerRule> = listener::rules(elb, &settings.listener_arn)
        .await?
        .iter()
        .filter(|rule| {
            listener::forwards(rule.actions()).iter().any(|group| {
                group
                    .target_group_arn()
                    .and_then(listener::target_group_name)
                    == Some(deployment.as_str())
            })
        })
        .filter_map(named)
        .collect();
    only_ours(elb, deployment, candidates).await
}

/// Those of the rules that carry the deployment's tags, in the same order.
async fn only_ours(
    elb: &Client,
    deployment: &DeploymentId,
    mut rules: Vec<ListenerRule>,
) -> Result<Vec<ListenerRule>, StepError> {
    let arns: Vec<String> = rules.iter().map(|rule| rule.arn.clone()).collect();
    let tags = listener::tags(elb, &arns).await?;
    rules.retain(|rule| {
        tags.get(&rule.arn)
            .is_some_and(|tags| tags::belong_to(tags, deployment))
    });
    Ok(rules)
}

/// Deletes every rule of the deployment and says how many those were.
///
/// # Errors
/// As [`lifecycle::aws_error::CODES`] say; a rule that is gone already is none.
pub async fn undo(
    elb: &Client,
    settings: &Settings,
    deployment: &DeploymentId,
) -> Result<usize, StepError> {
    let delete_all = async {
        let mut deleted = 0;
        for rule in find(elb, settings, deployment).await? {
            match elb.delete_rule().rule_arn(&rule.arn).send().await {
                Ok(_) => deleted += 1,
                Err(error) if code(&error) == Some("RuleNotFound") => (),
                // Deleted by a call whose answer was lost, a rule has no tags any more, and then the
                // role, which may delete by tag only, is denied the SDK's next attempt.
                Err(error) => {
                    let left = find(elb, settings, deployment).await?;
                    if left.iter().any(|still| still.arn == rule.arn) {
                        return Err(failed(format_args!("delete rule {}", rule.arn), error));
                    }
                    deleted += 1;
                }
            }
        }
        Ok(deleted)
    };
    delete_all
        .await
        .map_err(|error: StepError| error.of(deployment))
}

#[cfg(test)]
mod tests;
