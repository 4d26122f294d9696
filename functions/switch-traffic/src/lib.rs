//! Points the listener's default action at the newest ready deployment, converging without a lock.
//!
//! Mark the deployment ready; then: read the listener, choose the newest ready deployment, and if the
//! default action names another, modify it and begin again. The last thing a run sees is always a
//! default action that names its own choice, so whichever of several concurrent runs modifies last
//! also looks last, and sees every mark that was set before.

mod default_action;
mod rollback;

use aws_sdk_elasticloadbalancingv2::Client;
use aws_sdk_elasticloadbalancingv2::types::{Tag, TargetHealthStateEnum};
use lifecycle::aws_error::{code, failed};
use lifecycle::listener::{self, DeploymentTargetGroup};
use lifecycle::{DeploymentId, ErrorName, Settings, StepError, tags};
use serde::{Deserialize, Serialize};
use time::UtcDateTime;

/// What is to go live.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Input {
    /// The deployment.
    pub deployment_id: DeploymentId,
    /// Its target group.
    pub target_group_arn: String,
    /// Roll back to it: what the rollback leaves is marked as rolled back first, so that nothing
    /// switches forward to it again.
    #[serde(default)]
    pub roll_back: bool,
    /// What the rollback leaves, as it was when it began; nothing else is marked, so that a newer
    /// deployment that got ready since wins. Without it, from a machine that does not say it yet, what
    /// is active or ready and newer now.
    #[serde(default)]
    pub leaves: Option<Vec<DeploymentId>>,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// The deployment is active.
    Switched,
    /// A newer deployment is active.
    Superseded,
    /// The deployment has no healthy target; the default action was left as it was.
    Unhealthy,
}

/// What the default action says now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// How it ended for the deployment.
    pub outcome: Outcome,
    /// The deployment that is active, read back from the listener.
    pub active_deployment_id: Option<DeploymentId>,
    /// The deployment that was active before, if this run changed it.
    pub previous_deployment_id: Option<DeploymentId>,
    /// Why, in a sentence.
    pub reason: String,
}

/// How often the choice may change under one run. Each change means that another deployment got
/// ready or was taken back meanwhile, so this is only ever reached by something that fights us.
const MOST_ROUNDS: usize = 10;

/// Marks the deployment ready and converges the default action.
///
/// # Errors
/// `Transient` when no rule names the deployment's target group (a read may be stale) or when the
/// default action does not settle; else as AWS answers.
pub async fn run(
    elb: &Client,
    settings: &Settings,
    now: UtcDateTime,
    input: Input,
) -> Result<Output, StepError> {
    let id = input.deployment_id.clone();
    let switch = Switch { elb, settings, now };
    switch.run(input).await.map_err(|error| error.of(&id))
}

struct Switch<'a> {
    elb: &'a Client,
    settings: &'a Settings,
    now: UtcDateTime,
}

impl Switch<'_> {
    async fn run(&self, input: Input) -> Result<Output, StepError> {
        let id = input.deployment_id;
        // Not ready without a healthy target: a mark may be acted on by another run at any time.
        if !self.has_healthy_target(&input.target_group_arn).await? {
            return self.unhealthy(&id).await;
        }
        let left = match input.roll_back {
            true => self.roll_back(&id, input.leaves.as_deref()).await?,
            false => Vec::new(),
        };
        self.mark(&input.target_group_arn, tags::READY_AT).await?;
        let mut previous = None;
        for _ in 0..MOST_ROUNDS {
            let seen = self.look().await?;
            let own = seen.deployment(&id)?;
            if self.leave_again(&seen, &left).await? {
                continue;
            }
            let Some(choice) = self.choose(&seen, &left).await? else {
                return self.unhealthy(&id).await;
            };
            if seen.names_only(choice) {
                let active = choice.deployment.clone();
                // A modification that failed here may have taken effect there, after its mark was
                // taken back.
                // What lost our tags is left as it is.
                if !choice.tags.contains_key(tags::LIVE_SINCE)
                    && tags::belong_to(&choice.tags, &choice.deployment)
                {
                    self.mark(&choice.arn, tags::LIVE_SINCE).await?;
                }
                let outcome = match () {
                    () if active == id => Outcome::Switched,
                    () if active > id => Outcome::Superseded,
                    () => Outcome::Unhealthy,
                };
                let loose_end = match (input.roll_back, outcome) {
                    (true, Outcome::Switched) => self.finish_restoring(choice).await,
                    _ => String::new(),
                };
                return Ok(Output {
                    outcome,
                    reason: match outcome {
                        Outcome::Switched => format!("{id} is active{loose_end}"),
                        Outcome::Unhealthy if own.tags.contains_key(tags::ROLLED_BACK_AT) => {
                            format!("{id} was rolled back; {active} stays active")
                        }
                        Outcome::Superseded => format!("{active} is newer and active"),
                        Outcome::Unhealthy => format!(
                            "{id} is not ready or has no healthy target; {active} stays active"
                        ),
                    },
                    active_deployment_id: Some(active),
                    previous_deployment_id: previous,
                });
            }
            // What a rollback is for may lose its health on the way. Nobody asked for an older one, unless
            // another rollback did.
            let is_wanted = !own.tags.contains_key(tags::ROLLED_BACK_AT);
            if input.roll_back && is_wanted && choice.deployment < id {
                return self.unhealthy(&id).await;
            }
            previous = seen
                .active()
                .map(|group| group.deployment.clone())
                .or(previous);
            // Before the switch, so that a deployment that carried traffic is never taken for a
            // candidate that may be undone, whenever this run dies.
            let first_time = !choice.tags.contains_key(tags::LIVE_SINCE);
            if first_time {
                self.mark(&choice.arn, tags::LIVE_SINCE).await?;
            }
            if let Err(error) = self.modify(&seen, choice).await {
                // Without AWS's refusal it may have taken effect all the same, and another run may have
                // switched on since, so that the listener does not tell.
                if first_time && error.name != ErrorName::Transient {
                    self.take_back_live_mark(choice).await;
                }
                return Err(error);
            }
        }
        Err(StepError::new(
            ErrorName::Transient,
            format!(
                "the default action changed {MOST_ROUNDS} times while {id} was switched to; is something else modifying the listener?"
            ),
        ))
    }

    /// Takes the mark of a switch back that did not happen, so that the candidate can be undone. The
    /// switch's own failure is what is reported; a mark that stays only keeps the deployment longer.
    async fn take_back_live_mark(&self, choice: &DeploymentTargetGroup) {
        if let Err(error) = self.try_to_take_back_live_mark(choice).await {
            lambda_runtime::tracing::warn!("{error}");
        }
    }

    async fn try_to_take_back_live_mark(
        &self,
        choice: &DeploymentTargetGroup,
    ) -> Result<(), StepError> {
        if self.names(choice).await? {
            return Ok(());
        }
        self.unmark(&choice.arn, &[tags::LIVE_SINCE]).await?;
        // Another run that had read the mark may have switched meanwhile and set none of its own.
        match self.names(choice).await {
            Ok(false) => Ok(()),
            Ok(true) | Err(_) => self.mark(&choice.arn, tags::LIVE_SINCE).await,
        }
    }

    /// Whether the default action names that target group at this moment.
    async fn names(&self, group: &DeploymentTargetGroup) -> Result<bool, StepError> {
        let listener = listener::read(self.elb, &self.settings.listener_arn).await?;
        Ok(listener::forwards(listener.default_actions())
            .iter()
            .any(|forward| forward.target_group_arn() == Some(&group.arn)))
    }

    /// The listener's default action and all deployments that its rules and default action name.
    async fn look(&self) -> Result<Seen, StepError> {
        // The default action is read after the tags: a mark set before somebody's switch is then
        // seen whenever the switch is.
        let rules = listener::rules(self.elb, &self.settings.listener_arn).await?;
        let forwards: Vec<_> = rules
            .iter()
            .flat_map(|rule| listener::forwards(rule.actions()))
            .collect();
        let mut deployments = listener::deployments(
            self.elb,
            &self.settings.environment,
            forwards.iter().filter_map(|group| group.target_group_arn()),
        )
        .await?;
        let listener = listener::read(self.elb, &self.settings.listener_arn).await?;
        let default_actions = listener.default_actions.unwrap_or_default();
        // What is active counts by its name even if its rules or tags were removed by hand.
        for arn in listener::forwards(&default_actions)
            .into_iter()
            .filter_map(|group| group.target_group_arn)
        {
            let known = deployments.iter().any(|group| group.arn == arn);
            if let (false, Some(deployment)) = (
                known,
                listener::named_like_ours(&arn, &self.settings.environment),
            ) {
                deployments.push(DeploymentTargetGroup {
                    deployment,
                    arn,
                    tags: Default::default(),
                });
            }
        }
        Ok(Seen {
            default_actions,
            deployments,
        })
    }

    /// The newest deployment that may be active: ready, not rolled back, not being deleted, with a
    /// healthy target. The one that is active stays a choice while it lasts: a moment of bad health
    /// moves nobody back to an older version.
    ///
    /// `left` are the target groups that a rollback leaves, whatever their tags say.
    async fn choose<'s>(
        &self,
        seen: &'s Seen,
        left: &[String],
    ) -> Result<Option<&'s DeploymentTargetGroup>, StepError> {
        let active = seen.active().map(|group| &group.arn);
        let mut eligible: Vec<_> = seen
            .deployments
            .iter()
            .filter(|group| {
                !group.tags.contains_key(tags::ROLLED_BACK_AT) && !left.contains(&group.arn)
            })
            .filter(|group| {
                Some(&group.arn) == active
                    || (group.tags.contains_key(tags::READY_AT)
                        && !group.tags.contains_key(tags::DELETING_SINCE))
            })
            .collect();
        eligible.sort_by(|a, b| b.deployment.cmp(&a.deployment));
        for group in eligible {
            if Some(&group.arn) == active || self.has_healthy_target(&group.arn).await? {
                return Ok(Some(group));
            }
        }
        Ok(None)
    }

    async fn has_healthy_target(&self, target_group_arn: &str) -> Result<bool, StepError> {
        match self
            .elb
            .describe_target_health()
            .target_group_arn(target_group_arn)
            .send()
            .await
        {
            Ok(answer) => Ok(answer
                .target_health_descriptions()
                .iter()
                .filter_map(|description| description.target_health())
                .any(|health| health.state() == Some(&TargetHealthStateEnum::Healthy))),
            Err(error) if code(&error) == Some("TargetGroupNotFound") => Ok(false),
            Err(error) => Err(failed(
                format_args!("read the target health of {target_group_arn}"),
                error,
            )),
        }
    }

    async fn mark(&self, target_group_arn: &str, key: &str) -> Result<(), StepError> {
        self.elb
            .add_tags()
            .resource_arns(target_group_arn)
            .tags(
                Tag::builder()
                    .key(key)
                    .value(tags::timestamp(self.now))
                    .build(),
            )
            .send()
            .await
            .map(drop)
            .map_err(|error| {
                failed(
                    format_args!("tag target group {target_group_arn} with {key}"),
                    error,
                )
            })
    }

    async fn unmark(&self, target_group_arn: &str, keys: &[&str]) -> Result<(), StepError> {
        self.elb
            .remove_tags()
            .resource_arns(target_group_arn)
            .set_tag_keys(Some(keys.iter().map(|key| key.to_string()).collect()))
            .send()
            .await
            .map(drop)
            .map_err(|error| {
                failed(
                    format_args!(
                        "remove {} from target group {target_group_arn}",
                        keys.join(", ")
                    ),
                    error,
                )
            })
    }

    async fn modify(&self, seen: &Seen, choice: &DeploymentTargetGroup) -> Result<(), StepError> {
        let ours = |arn: &str| seen.deployments.iter().any(|group| group.arn == arn);
        let actions = default_action::pointing_at(&choice.arn, &seen.default_actions, ours);
        self.elb
            .modify_listener()
            .listener_arn(&self.settings.listener_arn)
            .set_default_actions(Some(actions))
            .send()
            .await
            .map(drop)
            .map_err(|error| {
                failed(
                    format_args!("point the default action at {}", choice.deployment),
                    error,
                )
            })
    }

    async fn unhealthy(&self, id: &DeploymentId) -> Result<Output, StepError> {
        let seen = self.look().await?;
        Ok(Output {
            outcome: Outcome::Unhealthy,
            active_deployment_id: seen.active().map(|group| group.deployment.clone()),
            previous_deployment_id: None,
            reason: format!(
                "{id} has no healthy target any more; the default action was left as it was"
            ),
        })
    }
}

/// The listener as one round saw it.
struct Seen {
    default_actions: Vec<aws_sdk_elasticloadbalancingv2::types::Action>,
    deployments: Vec<DeploymentTargetGroup>,
}

impl Seen {
    /// The deployments that the default action names, heaviest first.
    fn named(&self) -> Vec<&DeploymentTargetGroup> {
        let mut forwards = listener::forwards(&self.default_actions);
        forwards.sort_by_key(|group| std::cmp::Reverse(group.weight()));
        forwards
            .iter()
            .filter_map(|forward| {
                self.deployments
                    .iter()
                    .find(|group| Some(group.arn.as_str()) == forward.target_group_arn())
            })
            .collect()
    }

    fn active(&self) -> Option<&DeploymentTargetGroup> {
        self.named().first().copied()
    }

    /// The deployment of that id.
    ///
    /// # Errors
    /// `Transient` when nothing names its target group: what was read may be older than the rules.
    fn deployment(&self, id: &DeploymentId) -> Result<&DeploymentTargetGroup, StepError> {
        self.deployments
            .iter()
            .find(|group| group.deployment == *id)
            .ok_or_else(|| {
                StepError::new(
                    ErrorName::Transient,
                    format!(
                        "no listener rule names the target group of {id} any more; were its rules deleted by hand?"
                    ),
                )
            })
    }

    fn names_only(&self, choice: &DeploymentTargetGroup) -> bool {
        matches!(self.named()[..], [only] if only.arn == choice.arn)
    }
}

#[cfg(test)]
mod tests;
