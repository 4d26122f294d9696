//! Points the listener's default action at the newest ready deployment, converging without a lock.
//!
//! The deployment is tagged as ready. Then each round reads the listener, chooses the newest ready
//! deployment, and modifies the default action if it names another one. The last thing that a run sees
//! is always a default action that names its own choice. So of several concurrent runs, the one that
//! modifies last also reads last, and sees every tag that was set before.
//!
//! Before it modifies the listener, a run announces its choice by the ready tag and then looks once more.
//! Whatever drains or deletes the deployment writes its own tag before it reads that one. So of the two at
//! least one sees the other, and a run acts only while its announcement is fresh
//! ([`defaults::SWITCH_IN_FLIGHT`]).

mod draining;
mod policy;
mod repair;
mod rollback;

use std::cmp::Ordering;

use aws_sdk_elasticloadbalancingv2::Client;
use aws_sdk_elasticloadbalancingv2::config::{Config, retry::RetryConfig};
use lifecycle::aws_error::{failed, is_refused};
use lifecycle::routing::{DefaultAction, Routing};
use lifecycle::target_group::{self, TargetGroup};
use lifecycle::{Baseline, Clock, DeploymentId, ErrorName, StepError, actions, defaults, tags};
use serde::{Deserialize, Serialize};
use time::UtcDateTime;

use draining::refuse_if_draining;

/// The deployment to switch to.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Input {
    /// The deployment.
    pub deployment_id: DeploymentId,
    /// The ARN of its target group.
    pub target_group_arn: String,
    /// Whether this is a rollback: what it replaces is tagged as rolled back first, so that nothing
    /// switches forward to it again.
    #[serde(default)]
    pub roll_back: bool,
    /// What the rollback replaces, as it was when the rollback began. Nothing else is tagged, so that a
    /// newer deployment that became ready since then wins. The machine of an earlier version, which may be
    /// running during an update, calls it `leaves`. Without it, what is active or ready and newer now is
    /// replaced.
    #[serde(default, alias = "leaves")]
    pub replaced: Option<Vec<DeploymentId>>,
    /// The deployment that was active when the rollback began.
    #[serde(default)]
    pub replaced_deployment_id: Option<DeploymentId>,
    /// Whether the target of the rollback carried the mark of an earlier one. It gets it again if the rollback fails.
    #[serde(default)]
    pub was_rolled_back: bool,
    /// Whether this is the repair that a cleanup has planned, because new visitors reach nothing. `replaced` is what
    /// was active then. Nothing changes if the repair is not needed any more.
    #[serde(default)]
    pub repair: bool,
    /// Whether the rollback has failed: its marks are taken back, and nothing is switched.
    #[serde(default)]
    pub take_back: bool,
    /// With `take_back`: whether the rollback got as far as the switch, and may have tagged what it would have replaced.
    #[serde(default)]
    pub marked: bool,
    /// The value of [`tags::RESTORING_SINCE`] with which the rollback gave its target fresh tasks. As long as
    /// the target carries it, those tasks were not asked to drain.
    #[serde(default)]
    pub restoring_since: Option<String>,
    /// The deployment that the rollback takes back. Nothing changes if another one is active by now: what a watch
    /// found of one deployment says nothing about the next.
    #[serde(default)]
    pub from: Option<DeploymentId>,
    /// Seconds for which the deployment is watched once it is active.
    #[serde(default)]
    pub watch_seconds: Option<u32>,
}

/// How the switch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// The deployment is active.
    Switched,
    /// A newer deployment is active.
    Superseded,
    /// The deployment has no healthy target at this moment, so the default action was not changed, and a
    /// rollback has left no mark. It may be healthy at the next look.
    Unhealthy,
    /// The deployment was rolled back in the meantime, so it is not made live.
    RolledBack,
    /// The repair is not needed any more: new visitors reach a healthy deployment, or an operator has decided
    /// otherwise. Or the rollback is not, because another deployment is active than the one that it takes back.
    NotNeeded,
    /// The rollback did not happen, and what it would have replaced is not tagged as rolled back any more.
    TakenBack,
}

/// What the default action names after the switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// How the switch ended for the deployment.
    pub outcome: Outcome,
    /// The deployment that is active, read back from the listener.
    pub active_deployment_id: Option<DeploymentId>,
    /// The deployment that was active before, if this run changed that.
    pub previous_deployment_id: Option<DeploymentId>,
    /// What this rollback has taken back. Empty unless it is one and its target is active.
    pub rolled_back: Vec<tags::RolledBack>,
    /// Why, in a sentence.
    pub reason: String,
}

/// How often one run looks at the listener. Each further look means that another deployment became ready
/// or was rolled back in the meantime, or that AWS was slow, so only a process that keeps changing the
/// listener, or an AWS that stays slow, can reach this number.
const MAX_ROUNDS: usize = 10;

/// Tags the deployment as ready and converges the default action.
///
/// # Errors
/// `DeploymentDraining` when the deployment's tasks may have been asked to drain; `ResourceConflict` when a
/// rollback goes to a deployment that is being deleted; `Transient` when no
/// rule names the deployment's target group (a read may be stale) or when the default action does not
/// settle; `DefaultActionNotOurs` for a maintenance page, which stays; else as [`lifecycle::aws_error::CODES`] say.
pub async fn run(
    elb: &Client,
    secrets: &aws_sdk_secretsmanager::Client,
    baseline: &Baseline,
    clock: Clock<'_>,
    input: Input,
) -> Result<Output, StepError> {
    let switch = Switch {
        elb,
        secrets,
        baseline,
        clock,
        input,
    };
    switch.run().await
}

/// The deployment that a run is about to switch to, and when it began to tag it.
struct Announced {
    arn: String,
    at: UtcDateTime,
}

/// A deployment that a run has tagged as live and has not switched to.
struct Marked {
    group: TargetGroup,
    /// What the default action was then.
    before: DefaultAction,
}

struct Switch<'a> {
    elb: &'a Client,
    secrets: &'a aws_sdk_secretsmanager::Client,
    baseline: &'a Baseline,
    clock: Clock<'a>,
    input: Input,
}

impl Switch<'_> {
    async fn run(&self) -> Result<Output, StepError> {
        if self.input.take_back {
            return self.take_marks_back().await;
        }
        if self.input.repair
            && let Some(not_needed) = self.is_repair_needless().await?
        {
            return Ok(not_needed);
        }
        // Before anything is tagged: another run may act on a tag at any time.
        let is_taken_back = self.refuse_draining().await?;
        // An earlier attempt may have modified the listener and not read it back. Without its rules, it has no target that is
        // healthy, and it is not announced any more.
        if is_taken_back && !self.input.roll_back && !self.input.repair {
            return self.converge(&[], None).await;
        }
        if !self
            .has_healthy_target(&self.input.target_group_arn)
            .await?
        {
            return self.unhealthy().await;
        }
        let replaced = match self.input.roll_back {
            true => match self.mark_replaced().await? {
                Ok(replaced) => replaced,
                Err(not_needed) => return Ok(not_needed),
            },
            false => Vec::new(),
        };
        let announced = self.announce(&self.input.target_group_arn).await?;
        self.converge(&replaced, Some(announced)).await
    }

    /// Tags a deployment as ready, which also announces that this run is about to switch to it.
    async fn announce(&self, target_group_arn: &str) -> Result<Announced, StepError> {
        let at = (self.clock)();
        let ready = (tags::READY_AT, at);
        let watch = self.input.watch_seconds.filter(|seconds| *seconds > 0);
        let watch = watch.filter(|_| target_group_arn == self.input.target_group_arn);
        let watch =
            watch.map(|seconds| (tags::WATCH_UNTIL, at + defaults::watch_ends_within(seconds)));
        let marks: Vec<_> = [ready].into_iter().chain(watch).collect();
        target_group::tag_times(self.elb, target_group_arn, &marks).await?;
        Ok(Announced {
            arn: target_group_arn.to_owned(),
            at,
        })
    }

    /// Converges, and takes the tag of a switch back from what this run did not switch to after all, so that a
    /// candidate can be undone.
    async fn converge(
        &self,
        replaced: &[String],
        announced: Option<Announced>,
    ) -> Result<Output, StepError> {
        let mut marked = Vec::new();
        let mut converged = self.settle(replaced, announced, &mut marked).await;
        for marked in &marked {
            let Err(second) = self.remove_live_mark(marked).await else {
                continue;
            };
            // The tag only keeps the deployment longer, so the first outcome decides.
            let said = match &mut converged {
                Ok(output) => &mut output.reason,
                Err(error) => &mut error.message,
            };
            *said += &format!("; {}", second.message);
        }
        converged
    }

    /// Reads, chooses and modifies until the default action names the choice.
    ///
    /// `replaced` are the ARNs of the target groups that this rollback has tagged. `marked` gets those that this run
    /// has tagged as live and has certainly not switched to.
    async fn settle(
        &self,
        replaced: &[String],
        mut announced: Option<Announced>,
        marked: &mut Vec<Marked>,
    ) -> Result<Output, StepError> {
        let mut previous = None;
        let mut kept = None;
        for _ in 0..MAX_ROUNDS {
            let routing = Routing::read(self.elb, self.baseline).await?;
            routing.default_action.refuse_others(self.baseline)?;
            let evicted = self.evicted(&routing).await?;
            let own = match &evicted {
                Some(own) => own,
                None => self.own(&routing)?,
            };
            if let Some(not_needed) = self.is_rollback_needless(&routing) {
                return Ok(not_needed);
            }
            if self.mark_again(&routing, replaced).await?
                || self.take_draining_back(own, routing.is_active(own)).await?
                || self.mark_what_was_given_traffic(&routing).await?
                || self.keep_policy(&routing, &mut kept).await?
            {
                continue;
            }
            let Some(choice) = self.choose(&routing, replaced).await? else {
                refuse_if_draining(own)?;
                return self.unhealthy().await;
            };
            if routing.default_action.names_only(&choice.deployment) {
                let mut output = self.conclude(own, choice, previous).await?;
                if output.outcome == Outcome::Switched {
                    output.rolled_back = rolled_back(&routing, replaced);
                }
                return Ok(output);
            }
            if self.is_older_than_asked_for(own, choice) {
                refuse_if_draining(own)?;
                return self.unhealthy().await;
            }
            // Before this run moves traffic itself, so that it sees whether another one does.
            if let Some(other) = marked.iter().position(|it| it.group.arn != choice.arn) {
                let other = marked.swap_remove(other);
                self.remove_live_mark(&other).await?;
                continue;
            }
            if !self.is_announced(choice, announced.as_ref()) {
                announced = Some(self.announce(&choice.arn).await?);
                continue;
            }
            // Before the switch: wherever this run dies, a deployment that carried traffic is never mistaken
            // for a candidate that may be undone.
            if !choice.has(tags::LIVE_SINCE) {
                self.tag(&choice.arn, tags::LIVE_SINCE).await?;
                marked.push(Marked {
                    group: choice.clone(),
                    before: routing.default_action.clone(),
                });
                if !self.is_announced(choice, announced.as_ref()) {
                    continue;
                }
            }
            previous = routing
                .active()
                .map(|group| group.deployment.clone())
                .or(previous);
            self.switch_to(choice, &routing, marked).await?;
        }
        Err(StepError::new(
            ErrorName::Transient,
            format!(
                "the default action was not settled after {MAX_ROUNDS} looks during the switch to {}; AWS answers \
                 slowly, or something else keeps modifying the listener",
                self.input.deployment_id
            ),
        ))
    }

    /// Whether this run may act on what it read since it announced the choice.
    fn is_announced(&self, choice: &TargetGroup, announced: Option<&Announced>) -> bool {
        let is_fresh = |it: &Announced| (self.clock)() - it.at <= defaults::LOOK_IS_FRESH;
        announced.is_some_and(|it| it.arn == choice.arn && is_fresh(it))
    }

    /// The deployment's own target group, if no rule names it any more because a rollback has taken it back and its
    /// visitors along. This run never chooses it, and still sees to it that the default action names the right one.
    async fn evicted(&self, routing: &Routing) -> Result<Option<TargetGroup>, StepError> {
        let (deployment, arn) = (&self.input.deployment_id, &self.input.target_group_arn);
        if routing.deployment(deployment).is_some() {
            return Ok(None);
        }
        let tags = tags::read_one(self.elb, arn).await?;
        let taken_back = tags.filter(|tags| tags.contains_key(tags::ROLLED_BACK_AT));
        Ok(taken_back.map(|tags| TargetGroup {
            deployment: deployment.clone(),
            arn: arn.clone(),
            tags,
        }))
    }

    /// The deployment's own target group.
    fn own<'r>(&self, routing: &'r Routing) -> Result<&'r TargetGroup, StepError> {
        let id = &self.input.deployment_id;
        routing.deployment(id).ok_or_else(|| {
            StepError::new(
                ErrorName::Transient,
                format!(
                    "no listener rule names the target group of {id} any more; were its rules deleted by hand?"
                ),
            )
        })
    }

    /// The newest deployment that may be active: ready, not replaced or rolled back, neither draining nor being
    /// deleted, with a healthy target. The active one remains a choice without that: a moment of bad health does not
    /// move traffic back to an older version.
    async fn choose<'r>(
        &self,
        routing: &'r Routing,
        replaced: &[String],
    ) -> Result<Option<&'r TargetGroup>, StepError> {
        let idle = routing
            .ready()
            .filter(|group| !routing.is_active(group) && !group.has(tags::DRAINING_SINCE))
            .filter(|group| !self.was_replaced(group));
        let mut eligible: Vec<_> = idle
            .chain(routing.active())
            .filter(|group| !group.has(tags::ROLLED_BACK_AT) && !replaced.contains(&group.arn))
            .collect();
        eligible.sort_by(|one, other| other.deployment.cmp(&one.deployment));
        for group in eligible {
            if routing.is_active(group) || self.has_healthy_target(&group.arn).await? {
                return Ok(Some(group));
            }
        }
        Ok(None)
    }

    /// Whether another deployment has replaced this one, so that traffic goes back to it only if it is asked for.
    /// If what replaced it is older, an operator decides between the two, and the next deployment does not. Not before
    /// every run has ended that may have replaced it by a change that landed late: its retry corrects that.
    fn was_replaced(&self, group: &TargetGroup) -> bool {
        let now = (self.clock)();
        let replaced = tags::seen_at(&group.tags, tags::REPLACED_AT, now);
        let is_settled = |since| now - since >= defaults::SWITCHED_WITHIN;
        group.deployment != self.input.deployment_id && replaced.is_some_and(is_settled)
    }

    /// Whether the choice is older than the target of this rollback, because the target lost its health
    /// on the way. Traffic goes to an older deployment only when another rollback asked for that.
    fn is_older_than_asked_for(&self, own: &TargetGroup, choice: &TargetGroup) -> bool {
        let is_still_the_target = !own.has(tags::ROLLED_BACK_AT);
        self.input.roll_back && is_still_the_target && choice.deployment < own.deployment
    }

    /// Tags as live what an operator gave traffic to by hand, before it is replaced: it may have visitors, and is not
    /// to be taken for a candidate. Returns whether it tagged anything.
    async fn mark_what_was_given_traffic(&self, routing: &Routing) -> Result<bool, StepError> {
        let is_named = |group: &&TargetGroup| routing.default_action.is_named(&group.deployment);
        let mut named = routing.deployments.iter().filter(is_named);
        let unmarked = named.find(|group| {
            !group.has(tags::LIVE_SINCE) && tags::belong_to(&group.tags, &group.deployment)
        });
        let Some(group) = unmarked else {
            return Ok(false);
        };
        self.tag(&group.arn, tags::LIVE_SINCE).await?;
        Ok(true)
    }

    /// Points the default action at the choice. Unless AWS refuses that, `marked` loses the choice: the call may have
    /// taken effect, and as another run may have switched further since, the listener does not show whether it did.
    async fn switch_to(
        &self,
        choice: &TargetGroup,
        routing: &Routing,
        marked: &mut Vec<Marked>,
    ) -> Result<(), StepError> {
        let is_ours = |arn: &str| routing.deployments.iter().any(|group| group.arn == arn);
        let current = &routing.default_action.actions;
        let actions = actions::forwarding_to(&choice.arn, current, is_ours)?;
        let answer = self
            .elb
            .modify_listener()
            .listener_arn(&self.baseline.listener_arn)
            .set_default_actions(Some(actions))
            .customize()
            // One attempt: what was read is too old for another one.
            .config_override(Config::builder().retry_config(RetryConfig::disabled()))
            .send()
            .await;
        if !answer.as_ref().is_err_and(is_refused) {
            marked.retain(|marked| marked.group.arn != choice.arn);
        }
        let attempt = format_args!("point the default action at {}", choice.deployment);
        answer.map(drop).map_err(|error| failed(attempt, error))
    }

    /// Removes the tag of a switch that did not happen, so that the candidate can be undone.
    ///
    /// Another run that had read the tag may have switched to it without setting its own. So the tag stays if the default
    /// action has changed since it was written, and is set again if it changes meanwhile.
    async fn remove_live_mark(&self, marked: &Marked) -> Result<(), StepError> {
        let is_as_before = async || {
            let now = DefaultAction::read(self.elb, self.baseline).await?;
            Ok(now == marked.before)
        };
        if !is_as_before().await? {
            return Ok(());
        }
        let arn = &marked.group.arn;
        target_group::untag(self.elb, arn, &[tags::LIVE_SINCE]).await?;
        match is_as_before().await {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => self.tag(arn, tags::LIVE_SINCE).await,
        }
    }

    pub(crate) async fn is_named(&self, group: &TargetGroup) -> Result<bool, StepError> {
        let default_action = DefaultAction::read(self.elb, self.baseline).await?;
        Ok(default_action.is_named(&group.deployment))
    }

    /// The answer once the default action names the choice.
    async fn conclude(
        &self,
        own: &TargetGroup,
        choice: &TargetGroup,
        previous: Option<DeploymentId>,
    ) -> Result<Output, StepError> {
        // A change that failed in another run may have taken effect after that run had removed its tag.
        // A group that lost our tags is left as it is.
        if !choice.has(tags::LIVE_SINCE) && tags::belong_to(&choice.tags, &choice.deployment) {
            self.tag(&choice.arn, tags::LIVE_SINCE).await?;
        }
        let (id, active) = (&own.deployment, &choice.deployment);
        if active < id {
            refuse_if_draining(own)?;
        }
        let (outcome, reason) = match active.cmp(id) {
            Ordering::Equal => {
                let loose_end = self.tidy(choice).await;
                (Outcome::Switched, format!("{id} is active{loose_end}"))
            }
            Ordering::Greater => (Outcome::Superseded, active.supersedes((self.clock)())),
            Ordering::Less if own.has(tags::ROLLED_BACK_AT) => (
                Outcome::RolledBack,
                format!("{id} was rolled back; {active} stays active"),
            ),
            Ordering::Less => return self.unhealthy().await,
        };
        Ok(Output {
            outcome,
            active_deployment_id: Some(active.clone()),
            previous_deployment_id: previous,
            rolled_back: Vec::new(),
            reason,
        })
    }

    /// The answer when the default action was not changed.
    async fn unhealthy(&self) -> Result<Output, StepError> {
        if self.input.roll_back {
            self.take_marks_back().await?;
        }
        let default_action = DefaultAction::read(self.elb, self.baseline).await?;
        Ok(Output {
            outcome: Outcome::Unhealthy,
            active_deployment_id: default_action.active().cloned(),
            previous_deployment_id: None,
            rolled_back: Vec::new(),
            reason: format!(
                "{} has no healthy target any more; the default action was not changed",
                self.input.deployment_id
            ),
        })
    }

    async fn has_healthy_target(&self, target_group_arn: &str) -> Result<bool, StepError> {
        target_group::has_healthy_target(self.elb, target_group_arn).await
    }

    async fn tag(&self, target_group_arn: &str, key: &str) -> Result<(), StepError> {
        target_group::tag(self.elb, target_group_arn, key, self.clock).await
    }
}

/// Those of the target groups that carry the mark of a rollback.
fn rolled_back(routing: &Routing, replaced: &[String]) -> Vec<tags::RolledBack> {
    let groups = routing.deployments.iter();
    let replaced = groups.filter(|group| replaced.contains(&group.arn));
    let marked = replaced.filter_map(|group| {
        Some(tags::RolledBack {
            deployment_id: group.deployment.clone(),
            rolled_back_at: group.tags.get(tags::ROLLED_BACK_AT)?.clone(),
        })
    });
    marked.collect()
}

#[cfg(test)]
mod tests;
