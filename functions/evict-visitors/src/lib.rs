//! Takes the visitors along when a rollback takes a deployment back: deletes the rules that pin them to it, so that
//! their next request reaches the active deployment, whose cookie they get.
//!
//! The deployment keeps its tasks. Connections that are open stay until a cleanup stops the tasks one after another.
//!
//! The tag of the eviction is written before the first rule is deleted, and a rollback to the deployment writes its
//! own tag before it reads this one. So of the two at least one sees the other. An eviction that has not seen the other
//! deletes at most one rule after that, soon ([`defaults::LOOK_IS_FRESH`]) and by one attempt, and the rollback makes the
//! rules again when that has ended.
//!
//! No rule is deleted while a switch to the deployment may be in flight. One that lands late finds the mark of the rollback
//! and switches back. But until then new visitors would reach a target group without rules, whose targets the load
//! balancer has stopped checking.

use aws_sdk_elasticloadbalancingv2::Client;
use aws_sdk_elasticloadbalancingv2::config::retry::RetryConfig;
use lifecycle::guard::Intent;
use lifecycle::routing::{self, DefaultAction};
use lifecycle::tags::{self, RolledBack, Tags};
use lifecycle::target_group::{self, TargetGroup};
use lifecycle::{Baseline, Clock, DeploymentId, ErrorName, StepError, defaults};
use serde::{Deserialize, Serialize};

/// What a rollback has taken back.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Input {
    /// The deployments, with the marks of the rollback.
    pub rolled_back: Vec<RolledBack>,
}

/// What became of their visitors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// The deployments that no rule pins visitors to any more.
    pub evicted: Vec<DeploymentId>,
    /// Why the others keep their visitors, a sentence for each.
    pub kept: Vec<String>,
}

/// Deletes the rules of what the rollback has taken back. One that fails does not keep the others.
///
/// # Errors
/// `Transient` while a switch to one of them may be in flight, else as [`lifecycle::aws_error::CODES`] say; of the first
/// deployment that failed.
pub async fn run(
    elb: &Client,
    baseline: &Baseline,
    clock: Clock<'_>,
    input: Input,
) -> Result<Output, StepError> {
    let mut output = Output {
        evicted: Vec::new(),
        kept: Vec::new(),
    };
    let mut failure = None;
    for rolled_back in input.rolled_back {
        let eviction = Eviction {
            elb,
            baseline,
            clock,
            rolled_back: &rolled_back,
        };
        let id = &rolled_back.deployment_id;
        match eviction.run().await {
            Ok(()) => output.evicted.push(id.clone()),
            Err(error) if is_refusal(&error) => output.kept.push(error.message),
            Err(error) => failure = failure.or(Some(error.with_deployment(id))),
        }
    }
    match failure {
        Some(error) => Err(error),
        None => Ok(output),
    }
}

fn is_refusal(error: &StepError) -> bool {
    let refusals = [ErrorName::DeploymentActive, ErrorName::DeploymentKept];
    refusals.contains(&error.name)
}

struct Eviction<'a> {
    elb: &'a Client,
    baseline: &'a Baseline,
    clock: Clock<'a>,
    rolled_back: &'a RolledBack,
}

impl Eviction<'_> {
    async fn run(&self) -> Result<(), StepError> {
        let id = &self.rolled_back.deployment_id;
        let Some(group) = target_group::find(self.elb, id).await? else {
            return Ok(());
        };
        if self.tags_if_due(&group).await?.is_none() {
            return Ok(());
        }
        let (arn, key) = (&group.arn, tags::EVICTED_AT);
        target_group::tag_unless_gone(self.elb, arn, key, self.clock).await?;
        // What was read is too old for another attempt.
        let client = self.elb;
        let one_attempt = client.config().to_builder();
        let one_attempt = one_attempt.retry_config(RetryConfig::disabled()).build();
        let elb = Client::from_conf(one_attempt);
        for rule in routing::rules_of(self.elb, self.baseline, id).await? {
            let looked_at = (self.clock)();
            let Some(tags) = self.tags_if_due(&group).await? else {
                return Ok(());
            };
            self.wait_for_switches(&tags)?;
            if (self.clock)() - looked_at > defaults::LOOK_IS_FRESH {
                let why = format!("AWS answers slowly, so {id} keeps its rules until the next try");
                return Err(StepError::new(ErrorName::Transient, why));
            }
            routing::delete_rule(&elb, self.baseline, id, &rule).await?;
        }
        Ok(())
    }

    /// Waits until every switch has ended that may have read the tags before the rollback marked the deployment. The
    /// state machine tries again, and by then the default action shows it.
    fn wait_for_switches(&self, tags: &Tags) -> Result<(), StepError> {
        let now = (self.clock)();
        let announced = tags::time(tags, tags::READY_AT, now);
        match announced.filter(|at| now - *at < defaults::SWITCH_ANNOUNCED) {
            None => Ok(()),
            Some(at) => Err(StepError::new(
                ErrorName::Transient,
                format!(
                    "{} keeps its rules for some seconds, because a switch to it began at {} and may be in flight",
                    self.rolled_back.deployment_id,
                    tags::timestamp(at)
                ),
            )),
        }
    }

    /// The tags of the deployment if it is still there to be evicted, as it is now.
    ///
    /// # Errors
    /// `DeploymentActive` or `DeploymentKept` when it is named by the default action, is being rolled back to, is
    /// protected, was never live, or does not carry the mark of this rollback any more; or when no deployment is active.
    async fn tags_if_due(&self, group: &TargetGroup) -> Result<Option<Tags>, StepError> {
        let RolledBack {
            deployment_id: id,
            rolled_back_at,
        } = self.rolled_back;
        let Some(tags) = tags::read_one(self.elb, &group.arn).await? else {
            return Ok(None);
        };
        let default_action = DefaultAction::read(self.elb, self.baseline).await?;
        if default_action.active().is_none() {
            let why = format!(
                "{id} is not evicted: no deployment is active that its visitors could reach"
            );
            return Err(StepError::new(ErrorName::DeploymentKept, why));
        }
        Intent::Evict.refuse_named(id, &default_action)?;
        Intent::Evict.refuse_restored(id, &tags, (self.clock)())?;
        Intent::Evict.refuse_protected(id, &tags)?;
        if tags.get(tags::ROLLED_BACK_AT) != Some(rolled_back_at) {
            return Err(StepError::new(
                ErrorName::DeploymentKept,
                format!(
                    "{id} is not evicted: it does not carry the mark {rolled_back_at} of this rollback any more, so \
                     another one has decided about it since"
                ),
            ));
        }
        if !tags.contains_key(tags::LIVE_SINCE) {
            let why = format!(
                "{id} is not evicted: it was never live, so it has no visitors, and its own execution undoes it"
            );
            return Err(StepError::new(ErrorName::DeploymentKept, why));
        }
        Ok(Some(tags))
    }
}

#[cfg(test)]
mod tests;
