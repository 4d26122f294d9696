//! Deletes a deployment: the undo of every step, composed, in the order in which nobody is cut off.
//!
//! One call does what can be done now and says whether anything is left; the state machine calls
//! again until nothing is. The listener is read again right before each destructive part.

mod one_by_one;

use aws_sdk_elasticloadbalancingv2::types::Tag;
use create_service::Undone;
use lifecycle::aws_error::failed;
use lifecycle::listener::DeploymentTargetGroup;
use lifecycle::{DeploymentId, ErrorName, StepError, defaults, listener, settings, tags};
use serde::{Deserialize, Serialize};
use time::{Duration, UtcDateTime};

/// What is to be deleted.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Input {
    /// The deployment.
    pub deployment_id: DeploymentId,
    /// Refuse a deployment that was ever live: for undoing a candidate, which nobody can be on.
    #[serde(default)]
    pub only_if_never_live: bool,
    /// Refuse a deployment that does not drain: a rollback may have brought it back since it was planned.
    #[serde(default)]
    pub only_if_draining: bool,
    /// People may still be on it: stop its tasks one after another, each when the one before has
    /// stopped, so that not all of them reconnect to the active deployment at once.
    #[serde(default)]
    pub force: bool,
}

/// Whether anything is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// Nothing of the deployment is left.
    Deleted,
    /// Something needs time; call again.
    Deleting,
}

/// What was done in this call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// Whether anything is left.
    pub verdict: Verdict,
    /// What we wait for, or what was deleted.
    pub reason: String,
}

/// The clients that the step works with.
#[derive(Debug, Clone)]
pub struct Clients {
    /// Services and task definitions.
    pub ecs: aws_sdk_ecs::Client,
    /// Rules and target groups.
    pub elb: aws_sdk_elasticloadbalancingv2::Client,
}

/// What the function knows of its environment, read once at start.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The baseline's resources.
    pub baseline: lifecycle::Settings,
    /// How long the load balancer may go on routing by rules that are deleted.
    pub settle: Duration,
}

impl Settings {
    /// Reads the settings through `variable`, which gives the value of an environment variable.
    ///
    /// # Errors
    /// `Configuration`, naming the first variable that is missing or wrong.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, StepError> {
        let settle = settings::number(&variable, "SETTLE_SECONDS", defaults::SETTLE_SECONDS)?;
        Ok(Settings {
            baseline: lifecycle::Settings::read(&variable)?,
            settle: Duration::seconds(i64::from(settle)),
        })
    }
}

/// Deletes what can be deleted now.
///
/// # Errors
/// `DeploymentActive` when the default action names the deployment, a rollback to it is under way, or a
/// person protects it; `DeploymentWasLive` when it was live and only candidates are to be deleted, or does
/// not drain and only what drains is; else as AWS answers.
pub async fn run(
    clients: &Clients,
    settings: &Settings,
    now: UtcDateTime,
    input: Input,
) -> Result<Output, StepError> {
    let id = input.deployment_id.clone();
    let delete = Delete {
        clients,
        settings: &settings.baseline,
        settle: settings.settle,
        now,
        id: &id,
    };
    delete.run(&input).await.map_err(|error| error.of(&id))
}

struct Delete<'a> {
    clients: &'a Clients,
    settings: &'a lifecycle::Settings,
    settle: Duration,
    now: UtcDateTime,
    id: &'a DeploymentId,
}

impl Delete<'_> {
    async fn run(&self, input: &Input) -> Result<Output, StepError> {
        let Clients { ecs, elb } = self.clients;
        let group = create_target_group::find(elb, self.id).await?;
        self.refuse_if_active(group.as_ref()).await?;
        if let Some(group) = &group {
            self.refuse_if_restored(group).await?;
            if let (true, Some(since)) =
                (input.only_if_never_live, group.tags.get(tags::LIVE_SINCE))
            {
                // Whoever drains it later must not take this for a deletion that has begun.
                if group.tags.contains_key(tags::DELETING_SINCE) {
                    self.take_mark_back(&group.arn).await?;
                }
                return Err(StepError::new(
                    ErrorName::DeploymentWasLive,
                    format!(
                        "{} has been live since {since}; people may be on it, so it is not undone but drained",
                        self.id
                    ),
                ));
            }
            self.refuse_unless_draining(group, input)?;
            self.refuse_if_protected(group, input)?;
            if self.may_be_switched_to(group).await? {
                return Ok(
                    self.deleting("switches in flight to see that it is being deleted".to_owned())
                );
            }
        }

        self.refuse_if_active(group.as_ref()).await?;
        let rules = create_listener_rule::undo(elb, self.settings, self.id).await?;
        let was_live = group
            .as_ref()
            .filter(|group| group.tags.contains_key(tags::LIVE_SINCE));
        if let Some(group) = was_live
            && !self.is_forgotten(group, rules).await?
        {
            return Ok(self.deleting("the load balancer to forget its rules".to_owned()));
        }

        self.refuse_if_active(group.as_ref()).await?;
        if input.force
            && was_live.is_some()
            && let Some(what) = one_by_one::stop_next(ecs, self.settings, self.id).await?
        {
            return Ok(self.deleting(what));
        }
        if create_service::undo(ecs, self.settings, self.id).await? == Undone::Draining {
            return Ok(self.deleting("ECS to stop the tasks".to_owned()));
        }

        match create_target_group::undo(elb, self.settings, self.id).await {
            Ok(_) => {}
            // An old list may have hidden the rules that still lead to it.
            Err(error) if error.name == ErrorName::ResourceConflict => {
                return match create_listener_rule::undo(elb, self.settings, self.id).await? {
                    0 => Err(error),
                    _ => Ok(self.deleting("the listener to let go of the target group".to_owned())),
                };
            }
            Err(error) => return Err(error),
        }
        let revisions = register_task_definition::undo(ecs, self.settings, self.id).await?;
        Ok(Output {
            verdict: Verdict::Deleted,
            reason: format!(
                "nothing is left of {}; {revisions} task definitions were deregistered last",
                self.id
            ),
        })
    }

    fn deleting(&self, what: String) -> Output {
        Output {
            verdict: Verdict::Deleting,
            reason: format!("waiting for {what}"),
        }
    }

    /// The guard: the listener is the truth, whatever tags or callers say.
    ///
    /// Takes our mark back when it refuses, or later switches would pass a live deployment over.
    async fn refuse_if_active(
        &self,
        group: Option<&DeploymentTargetGroup>,
    ) -> Result<(), StepError> {
        let elb = &self.clients.elb;
        let listener = listener::read(elb, &self.settings.listener_arn).await?;
        let named = listener::forwards(listener.default_actions())
            .iter()
            .filter_map(|group| {
                group
                    .target_group_arn()
                    .and_then(listener::target_group_name)
            })
            .any(|name| name == self.id.as_str());
        if !named {
            return Ok(());
        }
        if let Some(group) = group {
            self.take_mark_back(&group.arn).await?;
        }
        Err(StepError::new(
            ErrorName::DeploymentActive,
            format!(
                "{} carries the default traffic and is not deleted; switch to another deployment first",
                self.id
            ),
        ))
    }

    /// The guard for a deployment that is about to be active again.
    ///
    /// A rollback that saw our mark has given way and removed its own, so whoever meets the
    /// rollback's mark here takes ours back, or the switch would pass the deployment over.
    async fn refuse_if_restored(&self, group: &DeploymentTargetGroup) -> Result<(), StepError> {
        if !tags::is_being_restored(&group.tags, self.now) {
            return Ok(());
        }
        if group.tags.contains_key(tags::DELETING_SINCE) {
            self.take_mark_back(&group.arn).await?;
        }
        Err(StepError::new(
            ErrorName::DeploymentActive,
            format!(
                "{} is being rolled back to and is not deleted; if no rollback runs any more, remove its tag {}",
                self.id,
                tags::RESTORING_SINCE
            ),
        ))
    }

    /// The guard for what was brought back by a rollback and left again since the plan was made: people
    /// came to it, and nobody has told its tasks to drain.
    fn refuse_unless_draining(
        &self,
        group: &DeploymentTargetGroup,
        input: &Input,
    ) -> Result<(), StepError> {
        let has = |mark| group.tags.contains_key(mark);
        if !input.only_if_draining || has(tags::DRAINING_SINCE) || has(tags::DELETING_SINCE) {
            return Ok(());
        }
        Err(StepError::new(
            ErrorName::DeploymentWasLive,
            format!(
                "{} was draining when its deletion was planned and is no longer; people may be on it, so it is not \
                 deleted but drained",
                self.id
            ),
        ))
    }

    /// The guard for what somebody protected since the plan was made. A candidate is undone all the same:
    /// its execution has ended, and it was never live.
    fn refuse_if_protected(
        &self,
        group: &DeploymentTargetGroup,
        input: &Input,
    ) -> Result<(), StepError> {
        let has = |mark| group.tags.contains_key(mark);
        if input.only_if_never_live || !has(tags::PROTECTED) || has(tags::DELETING_SINCE) {
            return Ok(());
        }
        Err(StepError::new(
            ErrorName::DeploymentActive,
            format!(
                "{} is protected and is not deleted; remove its tag {} first",
                self.id,
                tags::PROTECTED
            ),
        ))
    }

    /// Whether a switch that read the tags before they said that it is being deleted may still act on
    /// them; it has done so by the next call, and then the listener says it. Marks it if it is not yet.
    ///
    /// One that was live is not what a switch goes forward to, and its tasks outlive its rules anyway;
    /// one call's time does. For a candidate the time counts, since the call that marked it may not have
    /// lived to tell.
    async fn may_be_switched_to(&self, group: &DeploymentTargetGroup) -> Result<bool, StepError> {
        let has = |mark| group.tags.contains_key(mark);
        if !has(tags::DELETING_SINCE) {
            self.mark(&group.arn, tags::DELETING_SINCE).await?;
            return Ok(has(tags::READY_AT));
        }
        let since = tags::time(&group.tags, tags::DELETING_SINCE);
        let is_fresh = since.is_some_and(|since| self.now - since < defaults::SWITCH_IN_FLIGHT);
        Ok(is_fresh && has(tags::READY_AT) && !has(tags::LIVE_SINCE))
    }

    /// Whether the load balancer has had the time to forget the rules, of which that many were just
    /// deleted: it goes on routing by them for some seconds, and the tasks must outlive that.
    ///
    /// The time counts from when a call first found no rule left and said so on the target group, since
    /// the call that deleted them may not have lived to tell.
    async fn is_forgotten(
        &self,
        group: &DeploymentTargetGroup,
        rules: usize,
    ) -> Result<bool, StepError> {
        match tags::time(&group.tags, tags::UNROUTED_SINCE) {
            Some(since) if rules == 0 => Ok(self.now - since >= self.settle + tags::PRECISION),
            _ => {
                self.mark(&group.arn, tags::UNROUTED_SINCE).await?;
                Ok(false)
            }
        }
    }

    async fn take_mark_back(&self, target_group_arn: &str) -> Result<(), StepError> {
        self.clients
            .elb
            .remove_tags()
            .resource_arns(target_group_arn)
            .tag_keys(tags::DELETING_SINCE)
            .tag_keys(tags::UNROUTED_SINCE)
            .send()
            .await
            .map(drop)
            .map_err(|error| failed(format_args!("untag target group {target_group_arn}"), error))
    }

    async fn mark(&self, target_group_arn: &str, key: &str) -> Result<(), StepError> {
        self.clients
            .elb
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
            .map_err(|error| failed(format_args!("tag target group {target_group_arn}"), error))
    }
}

#[cfg(test)]
mod tests;
