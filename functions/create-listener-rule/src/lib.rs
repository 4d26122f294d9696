//! Pins requests to a deployment by header and by cookie. This attaches its target group to the listener,
//! which has to happen before the service is created.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_elasticloadbalancingv2::Client;
use aws_sdk_elasticloadbalancingv2::operation::create_rule::builders::CreateRuleFluentBuilder;
use aws_sdk_elasticloadbalancingv2::types::Rule;
use lifecycle::affinity::Affinity;
use lifecycle::aws_error::{created_arn, failed};
use lifecycle::policy::{self, Policy};
use lifecycle::routing::{self, DefaultAction, ListenerRule};
use lifecycle::{
    Baseline, Clock, DeploymentId, ErrorName, Origin, StepError, actions, tags, target_group,
};
use serde::{Deserialize, Serialize};

/// How many priorities may be lost to other deployments before the step gives up and the state machine
/// tries again later. Each is lost to a deployment that gets its rule, so up to this many deployments at
/// once all get theirs.
const MAX_ATTEMPTS: usize = 20;

/// The deployment that needs rules.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Input {
    /// The deployment.
    pub deployment_id: DeploymentId,
    /// The ARN of its target group.
    pub target_group_arn: String,
    /// Only attach the target group to the load balancer, by a rule that matches no request. The deployment has no tasks,
    /// and until it has, those who are pinned to it keep reaching the active one.
    #[serde(default)]
    pub waiting: bool,
    /// Make them only while the default action names the deployment as the active one. A cleanup makes rules that are
    /// missing, and a rollback that has begun since its plan may evict the deployment.
    #[serde(default)]
    pub only_if_active: bool,
}

/// The rules, created or adopted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// The rule for requests with the header, unless the deployment waits for its tasks.
    pub header_rule: Option<ListenerRule>,
    /// The rule for requests with the cookie, unless it waits.
    pub cookie_rule: Option<ListenerRule>,
    /// The rule that matches no request, if it waits.
    pub waiting_rule: Option<ListenerRule>,
    /// Whether this run created any of them.
    pub outcome: Origin,
}

/// Adopts the deployment's two rules where they exist, else creates them with the lowest free priorities.
/// What the default action does before it routes, they do too. The rule with which it waited for its tasks is deleted.
///
/// # Errors
/// `DefaultActionNotOurs` while a maintenance page is up, `Configuration` when a new rule cannot do what the default action does before it routes,
/// `QuotaExceeded` when the load balancer has no room for another rule, `Transient` when an older
/// deployment is about to give some back or every priority that it tried went to another deployment, `DeploymentKept`
/// when it is to be active and is not, else as [`lifecycle::aws_error::CODES`] say.
pub async fn run(
    elb: &Client,
    secrets: &aws_sdk_secretsmanager::Client,
    baseline: &Baseline,
    clock: Clock<'_>,
    input: Input,
) -> Result<Output, StepError> {
    let rules = routing::rules(elb, &baseline.listener_arn).await?;
    // What an operator has put there since, such as a maintenance page, may lack the login that the rules keep.
    if let Some(default) = default_action(&rules, baseline) {
        default.refuse_others(baseline)?;
    }
    if !input.only_if_active {
        return make(elb, secrets, baseline, input, rules).await;
    }
    if !is_active(&rules, baseline, &input) {
        return Err(give_way(elb, baseline, clock, &input).await?);
    }
    let output = make(elb, secrets, baseline, input.clone(), rules).await?;
    // An eviction reads the rules after the switch. So it deletes those that were made by then, and this look, which comes
    // after the rules were made, sees the switch that came before the others.
    let rules = routing::rules(elb, &baseline.listener_arn).await?;
    match is_active(&rules, baseline, &input) {
        true => Ok(output),
        false => Err(give_way(elb, baseline, clock, &input).await?),
    }
}

/// What the listener does by default, which its default rule says as well.
fn default_action(rules: &[Rule], baseline: &Baseline) -> Option<DefaultAction> {
    let default = rules.iter().find(|rule| rule.is_default() == Some(true))?;
    let actions = default.actions().to_vec();
    Some(DefaultAction::new(actions, &baseline.environment))
}

fn is_active(rules: &[Rule], baseline: &Baseline, input: &Input) -> bool {
    default_action(rules, baseline)
        .is_some_and(|default| default.active() == Some(&input.deployment_id))
}

/// Deletes the rules of a deployment that is not active any more, if it was evicted: this step, or an attempt that died, may
/// have made them too late for the eviction. Returns the error that says so.
async fn give_way(
    elb: &Client,
    baseline: &Baseline,
    clock: Clock<'_>,
    input: &Input,
) -> Result<StepError, StepError> {
    let (id, now) = (&input.deployment_id, clock());
    let tags = tags::read_one(elb, &input.target_group_arn).await?;
    let was_evicted = |tags| tags::is_evicted(tags, now) && !tags::is_being_restored(tags, now);
    if tags.as_ref().is_some_and(was_evicted) {
        undo(elb, baseline, id).await?;
    }
    let why = format!("{id} gets no rules: it is not active any more");
    Ok(StepError::new(ErrorName::DeploymentKept, why))
}

/// Adopts or creates the rules. `rules` are those of the listener.
async fn make(
    elb: &Client,
    secrets: &aws_sdk_secretsmanager::Client,
    baseline: &Baseline,
    input: Input,
    mut rules: Vec<Rule>,
) -> Result<Output, StepError> {
    let policy = Policy::of_default_rule(&rules)?;
    let earlier = rules
        .iter()
        .filter(|rule| routing::forwards_to(rule, &input.deployment_id));
    policy::apply(elb, secrets, baseline, &policy, earlier).await?;
    let new = NewRule {
        elb,
        secrets,
        baseline,
        input,
        policy,
    };
    if new.input.waiting {
        let (outcome, rule) = new.adopt_or_create(Affinity::Waiting, &mut rules).await?;
        return Ok(Output {
            header_rule: None,
            cookie_rule: None,
            waiting_rule: Some(rule),
            outcome,
        });
    }
    let (header, header_rule) = new.adopt_or_create(Affinity::Header, &mut rules).await?;
    // Before the next one, so that the deployment needs no room for a third rule.
    new.delete_waiting(&rules).await?;
    let (cookie, cookie_rule) = new.adopt_or_create(Affinity::Cookie, &mut rules).await?;
    Ok(Output {
        header_rule: Some(header_rule),
        cookie_rule: Some(cookie_rule),
        waiting_rule: None,
        outcome: if header == cookie {
            header
        } else {
            Origin::Created
        },
    })
}

/// What every attempt at a rule needs.
struct NewRule<'a> {
    elb: &'a Client,
    secrets: &'a aws_sdk_secretsmanager::Client,
    baseline: &'a Baseline,
    input: Input,
    policy: Policy,
}

impl NewRule<'_> {
    /// Adopts or creates one rule. `rules` are those of the listener, as read last.
    async fn adopt_or_create(
        &self,
        affinity: Affinity,
        rules: &mut Vec<Rule>,
    ) -> Result<(Origin, ListenerRule), StepError> {
        let deployment = &self.input.deployment_id;
        // Priorities that AWS has refused, in case the list of rules is stale.
        let mut refused = BTreeSet::new();
        for _ in 0..MAX_ATTEMPTS {
            if let Some(rule) = existing(self.elb, &self.input, affinity, rules).await? {
                return Ok((Origin::Adopted, rule));
            }
            let priority = lowest_free(affinity, rules, &refused)
                .ok_or_else(|| no_free_priority(self.baseline, affinity, deployment))?;
            let attempt =
                format!("create the {affinity} rule of {deployment} with priority {priority}");
            let error = match self.create(affinity, priority).await?.send().await {
                Ok(answer) => {
                    let rule = answer.rules.and_then(|rules| rules.into_iter().next());
                    let arn = created_arn(&attempt, rule.and_then(|rule| rule.rule_arn))?;
                    return Ok((Origin::Created, ListenerRule { arn, priority }));
                }
                Err(error) => error,
            };
            match error.as_service_error() {
                // Another deployment was faster. Or it is our own rule, made by a call whose answer was
                // lost: CreateRule is not documented as idempotent, and the SDK repeats such a call.
                Some(why) if why.is_priority_in_use_exception() => {
                    refused.insert(priority);
                    *rules = routing::rules(self.elb, &self.baseline.listener_arn).await?;
                }
                Some(why) if why.is_too_many_rules_exception() => {
                    *rules = routing::rules(self.elb, &self.baseline.listener_arn).await?;
                    return Err(quota_exceeded(deployment, rules, failed(attempt, error)));
                }
                _ => return Err(failed(attempt, error)),
            }
        }
        Err(StepError::new(
            ErrorName::Transient,
            format!(
                "other deployments took {MAX_ATTEMPTS} priorities in a row before the {affinity} rule of {deployment} \
                 could have one"
            ),
        ))
    }

    /// Deletes the rule with which the deployment waited for its tasks, if there is one.
    async fn delete_waiting(&self, rules: &[Rule]) -> Result<(), StepError> {
        let waiting = existing(self.elb, &self.input, Affinity::Waiting, rules).await?;
        if let Some(rule) = waiting {
            routing::delete_rule(self.elb, self.baseline, &self.input.deployment_id, &rule).await?;
        }
        Ok(())
    }

    async fn create(
        &self,
        affinity: Affinity,
        priority: u32,
    ) -> Result<CreateRuleFluentBuilder, StepError> {
        let secret = policy::client_secret(self.secrets, self.baseline, &self.policy).await?;
        let before = self.policy.with_secret(secret.as_ref());
        let actions = actions::of_new_rule(before, &self.input.target_group_arn);
        let create = self.elb.create_rule();
        Ok(create
            .listener_arn(&self.baseline.listener_arn)
            .priority(priority as i32)
            .conditions(affinity.condition(&self.input.deployment_id))
            .set_actions(Some(actions))
            .set_tags(Some(tags::to_elb(&self.input.deployment_id))))
    }
}

fn no_free_priority(
    baseline: &Baseline,
    affinity: Affinity,
    deployment: &DeploymentId,
) -> StepError {
    StepError::new(
        ErrorName::QuotaExceeded,
        format!(
            "no priority from {:?} is free on {} for the {affinity} rule of {deployment}; clean up older \
             deployments",
            affinity.priorities(),
            baseline.listener_arn
        ),
    )
}

/// The error of a deployment for which the load balancer has no rule left.
///
/// When several deployments compete for the last two rules and get one each, none would go live if all
/// gave up. The newest tries again. By then the others have failed and are undone.
fn quota_exceeded(deployment: &DeploymentId, rules: &[Rule], mut error: StepError) -> StepError {
    let mut rules_of: BTreeMap<DeploymentId, usize> = BTreeMap::new();
    for rule in rules.iter().filter(|rule| !routing::is_waiting(rule)) {
        let named: BTreeSet<DeploymentId> = routing::forwarded_to(rule.actions())
            .iter()
            .filter_map(|arn| target_group::deployment_from_name(arn, deployment.environment()))
            .collect();
        for id in named {
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
        error.message += &format!(
            "; the older {other} lacks a rule too and gives way, so this step tries again"
        );
    }
    error
}

/// The rule that an earlier run made: the same condition, the same target group, our tags.
async fn existing(
    elb: &Client,
    input: &Input,
    affinity: Affinity,
    rules: &[Rule],
) -> Result<Option<ListenerRule>, StepError> {
    let candidates = rules.iter().filter(|rule| {
        affinity.is_condition_of(rule, &input.deployment_id)
            && routing::forwarded_to(rule.actions()).contains(&input.target_group_arn)
    });
    // Two concurrent runs may have created one each. All later runs must name the same one.
    let ours = routing::with_tags_of(elb, &input.deployment_id, candidates).await?;
    Ok(ours.into_iter().min_by_key(|rule| rule.priority))
}

fn lowest_free(affinity: Affinity, rules: &[Rule], refused: &BTreeSet<u32>) -> Option<u32> {
    let taken: BTreeSet<u32> = rules.iter().filter_map(routing::priority).collect();
    affinity
        .priorities()
        .find(|priority| !taken.contains(priority) && !refused.contains(priority))
}

/// Deletes every rule of the deployment. Returns how many there were.
///
/// # Errors
/// As [`lifecycle::aws_error::CODES`] say. A rule that is gone already is not an error.
pub async fn undo(
    elb: &Client,
    baseline: &Baseline,
    deployment: &DeploymentId,
) -> Result<usize, StepError> {
    let mut deleted = 0;
    for rule in routing::rules_of(elb, baseline, deployment).await? {
        deleted += usize::from(routing::delete_rule(elb, baseline, deployment, &rule).await?);
    }
    Ok(deleted)
}

#[cfg(test)]
mod tests;
