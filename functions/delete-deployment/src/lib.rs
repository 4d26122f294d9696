//! Deletes a deployment: the undo of every step, in an order that cuts off no visitor.
//!
//! One call does what can be done now and reports whether anything is left. The state machine calls again
//! until nothing is. The listener is read again right before each destructive part.

mod scale_down;
mod unroute;

use create_service::Undone;
use lifecycle::guard::Intent;
use lifecycle::routing::{self, DefaultAction};
use lifecycle::sdk;
use lifecycle::tags::{self, Tags};
use lifecycle::target_group::{self, TargetGroup};
use lifecycle::{Clock, DeploymentId, ErrorName, StepError, defaults, executions, variables};
use scale_down::Next;
use serde::{Deserialize, Serialize};
use time::{Duration, UtcDateTime};

/// The deployment to delete, and what refuses it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Input {
    /// The deployment.
    pub deployment_id: DeploymentId,
    /// Refuse a deployment that was ever live: for the undo of a candidate, which has no visitors.
    #[serde(default)]
    pub only_if_never_live: bool,
    /// The ARN of the execution of the deploy machine that undoes its own deployment. What another running
    /// execution of the deployment uses is left to that one.
    #[serde(default)]
    pub execution: Option<String>,
    /// The ARN of the deploy machine, for a cleanup. What was never live is kept if an execution of it has begun to
    /// work on the deployment since the plan was made.
    #[serde(default)]
    pub state_machine: Option<String>,
    /// Refuse a deployment that does not drain: a rollback may have brought it back since the plan was made.
    #[serde(default)]
    pub only_if_draining: bool,
    /// Refuse a deployment whose visitors were not taken along by a rollback: another rollback may have made it live and
    /// replaced it since the plan was made.
    #[serde(default)]
    pub only_if_evicted: bool,
    /// Delete only its rules: it serves no visitors and is kept, and visitors who are pinned to it then reach the
    /// active deployment.
    #[serde(default)]
    pub only_rules: bool,
    /// Visitors may still be on it: stop its tasks one after another, each when the one before has
    /// stopped, so that the visitors do not all reconnect to the active deployment at once.
    #[serde(default)]
    pub force: bool,
}

/// The clients that the step works with.
#[derive(Debug, Clone)]
pub struct Clients {
    /// For what is deleted, and what is active.
    pub shared: sdk::Clients,
    /// For the scaler, which would bring back the tasks that are stopped.
    pub autoscaling: aws_sdk_applicationautoscaling::Client,
}

/// Whether anything is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// Nothing of the deployment is left.
    Deleted,
    /// Something needs time; call again.
    Deleting,
    /// Its rules are deleted, and everything else is kept.
    Unrouted,
}

/// What this call did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// Whether anything is left.
    pub verdict: Verdict,
    /// What the deletion waits for, or what was deleted.
    pub reason: String,
}

/// What the function knows of its environment, read once at start.
#[derive(Debug, Clone)]
pub struct Config {
    /// The baseline's resources.
    pub baseline: lifecycle::Baseline,
    /// How long the load balancer may keep routing by rules after they are deleted.
    pub settle: Duration,
}

impl Config {
    /// Reads it through `variable`, which gives the value of an environment variable.
    ///
    /// # Errors
    /// `Configuration`, naming the first variable that is missing or wrong.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, StepError> {
        Ok(Config {
            baseline: lifecycle::Baseline::read(&variable)?,
            settle: variables::seconds(&variable, "SETTLE_SECONDS", defaults::SETTLE_SECONDS)?,
        })
    }
}

/// Deletes what can be deleted now.
///
/// # Errors
/// `DeploymentActive` when the default action names the deployment; `DeploymentKept` when a rollback to it
/// is under way, an operator protects it, or another execution uses the candidate to be undone; `DeploymentWasLive` when it was live and only candidates are
/// to be deleted, or when it does not drain and only what drains is to be deleted; else as
/// [`lifecycle::aws_error::CODES`] say.
pub async fn run(
    clients: &Clients,
    config: &Config,
    clock: Clock<'_>,
    input: Input,
) -> Result<Output, StepError> {
    let delete = Delete {
        clients: &clients.shared,
        autoscaling: &clients.autoscaling,
        baseline: &config.baseline,
        settle: config.settle,
        clock,
        id: &input.deployment_id,
    };
    if input.only_rules {
        return delete.unroute().await;
    }
    delete.run(&input).await
}

struct Delete<'a> {
    clients: &'a sdk::Clients,
    autoscaling: &'a aws_sdk_applicationautoscaling::Client,
    baseline: &'a lifecycle::Baseline,
    settle: Duration,
    clock: Clock<'a>,
    id: &'a DeploymentId,
}

impl Delete<'_> {
    async fn run(&self, input: &Input) -> Result<Output, StepError> {
        let group = target_group::find(&self.clients.elb, self.id).await?;
        self.refuse_if_used(group.as_ref(), input).await?;
        if let Some(group) = &group {
            self.refuse_if_kept(group, input).await?;
            self.refuse_if_others_forward(group).await?;
            let is_first = self.begin(group).await?;
            // A switch or an execution that uses the deployment writes its own tag before it reads ours.
            let Some(tags) = tags::read_one(&self.clients.elb, &group.arn).await? else {
                return Ok(waiting_for("another run to delete the rest"));
            };
            self.refuse_if_adopted(group, &tags, input).await?;
            if self.may_be_switched_to(&tags, is_first) {
                return Ok(waiting_for(
                    "switches in flight to see that it is being deleted",
                ));
            }
        } else {
            self.refuse_if_named(None).await?;
        }
        if let Some(waiting) = self.delete_rules(group.as_ref()).await? {
            return Ok(waiting);
        }
        if let Some(waiting) = self.delete_service(group.as_ref(), input).await? {
            return Ok(waiting);
        }
        self.delete_the_rest().await
    }

    /// Deletes the rules. Returns what to wait for before the tasks may be stopped.
    async fn delete_rules(&self, group: Option<&TargetGroup>) -> Result<Option<Output>, StepError> {
        self.refuse_if_named(group).await?;
        let deleted = create_listener_rule::undo(&self.clients.elb, self.baseline, self.id).await?;
        match was_live(group) {
            Some(group) if !self.are_rules_forgotten(group, deleted).await? => Ok(Some(
                waiting_for("the load balancer to stop routing by its rules"),
            )),
            _ => Ok(None),
        }
    }

    /// Deletes the service, after it was taken from the scaler and its tasks have been stopped one by one if visitors
    /// may be on them.
    /// Returns what to wait for.
    async fn delete_service(
        &self,
        group: Option<&TargetGroup>,
        input: &Input,
    ) -> Result<Option<Output>, StepError> {
        self.refuse_if_named(group).await?;
        let ecs = &self.clients.ecs;
        autoscaling::take_off(self.autoscaling, ecs, self.baseline, self.id).await?;
        if input.force
            && let Some(group) = was_live(group)
            && let Some(what) = self.stop_next_task(group).await?
        {
            return Ok(Some(waiting_for(&what)));
        }
        Ok(
            match create_service::undo(ecs, self.baseline, self.id).await? {
                Undone::Draining => Some(waiting_for("ECS to stop the tasks")),
                Undone::Gone => None,
            },
        )
    }

    /// Stops the release, and deletes the target group and the task definitions. That of the deployment itself comes
    /// last: a cleanup finds by it what is left.
    async fn delete_the_rest(&self) -> Result<Output, StepError> {
        let sdk::Clients { ecs, elb, .. } = self.clients;
        let of_release = match run_release::undo(ecs, self.baseline, self.id).await? {
            run_release::Undone::Stopping => return Ok(waiting_for("its release to stop")),
            run_release::Undone::Gone(revisions) => revisions,
        };
        match create_target_group::undo(elb, self.baseline, self.id).await {
            Ok(_) => {}
            // A stale list may have hidden the rules that still forward to it.
            Err(error) if error.name == ErrorName::ResourceConflict => {
                return match create_listener_rule::undo(elb, self.baseline, self.id).await? {
                    0 => Err(error),
                    _ => Ok(waiting_for("the listener to release the target group")),
                };
            }
            Err(error) => return Err(error),
        }
        let revisions =
            register_task_definition::undo(ecs, self.baseline, self.id).await? + of_release;
        Ok(Output {
            verdict: Verdict::Deleted,
            reason: format!(
                "nothing is left of {}; the last call deregistered its task definitions ({revisions})",
                self.id
            ),
        })
    }

    /// Refuses a deployment to which a rule forwards that is not its own: the rule's visitors would lose their
    /// tasks, and the target group could not be deleted.
    async fn refuse_if_others_forward(&self, group: &TargetGroup) -> Result<(), StepError> {
        let others = routing::used_by_others(&self.clients.elb, self.baseline, group).await?;
        let Some(other) = others.first() else {
            return Ok(());
        };
        Err(StepError::new(
            ErrorName::ResourceConflict,
            format!(
                "{} is not deleted: {other} forwards to its target group and is not the deployment's own; let it forward \
                 elsewhere, or delete it",
                self.id
            ),
        ))
    }

    /// Refuses a deployment that has to stay as it is, and takes back a deletion that an earlier call
    /// began.
    async fn refuse_if_kept(&self, group: &TargetGroup, input: &Input) -> Result<(), StepError> {
        self.refuse_if_named(Some(group)).await?;
        let refusal = Intent::Delete
            .refuse_restored(self.id, &group.tags, self.now())
            .and_then(|()| self.refuse_if_was_live(group, input))
            .and_then(|()| self.refuse_unless_draining(group, input))
            .and_then(|()| self.refuse_unless_evicted(group, input));
        if let Err(refusal) = refusal {
            // A rollback that saw our tag has given way and removed its own. As long as our tag stays, no
            // switch chooses the deployment, and a drain assumes that its deletion has begun.
            if group.has(tags::DELETING_SINCE) {
                self.untag(&group.arn).await?;
            }
            return Err(refusal);
        }
        if group.has(tags::DELETING_SINCE) {
            return Ok(());
        }
        // A candidate is undone even if it is protected: it has failed, and it was never live.
        if input.only_if_never_live {
            return Ok(());
        }
        Intent::Delete.refuse_protected(self.id, &group.tags)
    }

    /// Refuses to delete what was never live and another running execution has created or adopted. The list of
    /// executions shows one that has no target group yet, and the tags show an undo one that is not listed yet.
    async fn refuse_if_used(
        &self,
        group: Option<&TargetGroup>,
        input: &Input,
    ) -> Result<(), StepError> {
        if was_live(group).is_some() && !input.only_if_never_live {
            return Ok(());
        }
        // What an earlier call has begun.
        let begun = group.filter(|group| group.has(tags::DELETING_SINCE));
        if let Some(group) = group
            && input.only_if_never_live
        {
            self.refuse_user(&group.tags, input, begun).await?;
        }
        let own = input.execution.as_deref();
        let machine = own
            .map(executions::state_machine_arn)
            .or_else(|| input.state_machine.clone());
        let Some(machine) = machine else {
            return Ok(());
        };
        let running = executions::running_for(&self.clients.sfn, &machine, self.id).await?;
        let mut others = running.iter().filter(|it| Some(it.execution_arn()) != own);
        match others.next() {
            Some(other) => self.leave_to(&other.execution_arn, begun).await,
            None => Ok(()),
        }
    }

    /// Refuses as [`Delete::refuse_if_used`], by the tags that `group` has after ours was written. An execution that
    /// adopts the group writes its tag before it reads ours, so at least one of the two sees the other.
    async fn refuse_if_adopted(
        &self,
        group: &TargetGroup,
        tags: &Tags,
        input: &Input,
    ) -> Result<(), StepError> {
        if !input.only_if_never_live || group.has(tags::DELETING_SINCE) {
            return Ok(());
        }
        self.refuse_user(tags, input, Some(group)).await
    }

    async fn refuse_user(
        &self,
        tags: &Tags,
        input: &Input,
        begun: Option<&TargetGroup>,
    ) -> Result<(), StepError> {
        let own = input.execution.as_deref();
        match executions::other_user(&self.clients.sfn, tags, own).await? {
            Some(other) => self.leave_to(&other, begun).await,
            None => Ok(()),
        }
    }

    /// Takes back an undo that has begun, and refuses to go on with it.
    async fn leave_to(&self, other: &str, begun: Option<&TargetGroup>) -> Result<(), StepError> {
        if let Some(group) = begun {
            self.untag(&group.arn).await?;
        }
        Err(StepError::new(
            ErrorName::DeploymentKept,
            format!(
                "{} is not deleted: another execution works on it, and undoes it if it fails: {other}",
                self.id
            ),
        ))
    }

    /// Refuses a deployment that the default action names, and takes back a deletion that an earlier
    /// call began. Otherwise no later switch would choose the deployment, although it is live.
    async fn refuse_if_named(&self, group: Option<&TargetGroup>) -> Result<(), StepError> {
        let default_action = DefaultAction::read(&self.clients.elb, self.baseline).await?;
        let refusal = Intent::Delete.refuse_named(self.id, &default_action);
        if let (Err(_), Some(group)) = (&refusal, group) {
            self.untag(&group.arn).await?;
        }
        refusal
    }

    fn refuse_if_was_live(&self, group: &TargetGroup, input: &Input) -> Result<(), StepError> {
        match group.tags.get(tags::LIVE_SINCE) {
            Some(since) if input.only_if_never_live => Err(StepError::new(
                ErrorName::DeploymentWasLive,
                format!(
                    "{} went live at {since}; visitors may be on it, so it is drained instead of undone",
                    self.id
                ),
            )),
            _ => Ok(()),
        }
    }

    /// Refuses what a rollback brought back and another one replaced since the plan was made: it has new
    /// visitors, and its tasks have not been asked to drain. The tag of a deletion alone proves nothing about what was
    /// live: it may be left from a deletion that gave way to a switch.
    fn refuse_unless_draining(&self, group: &TargetGroup, input: &Input) -> Result<(), StepError> {
        let is_begun = group.has(tags::DELETING_SINCE) && !group.has(tags::LIVE_SINCE);
        if !input.only_if_draining || group.has(tags::DRAINING_SINCE) || is_begun {
            return Ok(());
        }
        Err(StepError::new(
            ErrorName::DeploymentWasLive,
            format!(
                "{} was draining when its deletion was planned and is not draining now; visitors may be on it, so \
                 it is drained instead of deleted",
                self.id
            ),
        ))
    }

    /// Refuses what was made live since the plan was made: it has new visitors, and its tasks have not been asked to
    /// drain.
    fn refuse_unless_evicted(&self, group: &TargetGroup, input: &Input) -> Result<(), StepError> {
        if !input.only_if_evicted || tags::is_evicted(&group.tags, self.now()) {
            return Ok(());
        }
        Err(StepError::new(
            ErrorName::DeploymentWasLive,
            format!(
                "the visitors of {} had been taken along when its deletion was planned, and it was live again since; \
                 visitors may be on it, so it is drained instead of deleted",
                self.id
            ),
        ))
    }

    /// Tags the deployment as being deleted, unless it has the tag. Returns whether this call wrote it.
    async fn begin(&self, group: &TargetGroup) -> Result<bool, StepError> {
        let is_first = !group.has(tags::DELETING_SINCE);
        if is_first {
            self.tag(&group.arn, tags::DELETING_SINCE).await?;
        }
        Ok(is_first)
    }

    /// Whether a switch that read the tags before ours was written may still act on them.
    ///
    /// Such a switch has acted by the next call, and then the listener shows it. A deployment that was
    /// live is not one that a switch chooses as newer, and its tasks outlive its rules anyway, so the time
    /// of one call is enough. For a candidate the time is measured, because the call that tagged it may have
    /// died.
    fn may_be_switched_to(&self, tags: &Tags, is_first: bool) -> bool {
        let now = self.now();
        let since = tags::time(tags, tags::DELETING_SINCE, now);
        let is_fresh = since.is_some_and(|since| now - since < defaults::SWITCH_IN_FLIGHT);
        let is_candidate = !tags.contains_key(tags::LIVE_SINCE);
        tags.contains_key(tags::READY_AT) && (is_first || is_fresh && is_candidate)
    }

    /// Whether the load balancer has stopped routing by the rules, `deleted` of which this call deleted.
    /// It keeps routing by them for some seconds, and the tasks must outlive that.
    ///
    /// The time counts from the first call that found no rule and recorded that in a tag, because the call
    /// that deleted the rules may have died.
    async fn are_rules_forgotten(
        &self,
        group: &TargetGroup,
        deleted: usize,
    ) -> Result<bool, StepError> {
        let now = self.now();
        match tags::time(&group.tags, tags::UNROUTED_SINCE, now) {
            Some(since) if deleted == 0 => Ok(now - since >= self.settle + tags::PRECISION),
            _ => {
                self.tag(&group.arn, tags::UNROUTED_SINCE).await?;
                Ok(false)
            }
        }
    }

    /// Lets ECS stop the next task of a deployment whose rules are gone. Returns what to wait for, or `None` when
    /// the service has no tasks or the last one has not stopped in time.
    async fn stop_next_task(&self, group: &TargetGroup) -> Result<Option<String>, StepError> {
        let ecs = &self.clients.ecs;
        match scale_down::next(ecs, self.baseline, self.id).await? {
            Next::Nothing => Ok(None),
            Next::Waits(what) => {
                let now = self.now();
                let marks = [tags::UNROUTED_SINCE, tags::STOPPING_SINCE];
                let since = marks.map(|mark| tags::time(&group.tags, mark, now));
                let since = since.into_iter().max().flatten();
                let is_late = |since| now - since >= self.settle + defaults::TASK_STOPS_WITHIN;
                Ok(Some(what).filter(|_| !since.is_some_and(is_late)))
            }
            Next::Stops(left) => {
                self.tag(&group.arn, tags::STOPPING_SINCE).await?;
                scale_down::lower(ecs, self.baseline, self.id, left).await
            }
        }
    }

    fn now(&self) -> UtcDateTime {
        (self.clock)()
    }

    async fn untag(&self, target_group_arn: &str) -> Result<(), StepError> {
        let (elb, keys) = (
            &self.clients.elb,
            [tags::DELETING_SINCE, tags::UNROUTED_SINCE],
        );
        target_group::untag_unless_gone(elb, target_group_arn, &keys).await
    }

    async fn tag(&self, target_group_arn: &str, key: &str) -> Result<(), StepError> {
        let elb = &self.clients.elb;
        target_group::tag_unless_gone(elb, target_group_arn, key, self.clock).await
    }
}

/// The target group, if the deployment was live.
fn was_live(group: Option<&TargetGroup>) -> Option<&TargetGroup> {
    group.filter(|group| group.has(tags::LIVE_SINCE))
}

fn waiting_for(what: &str) -> Output {
    Output {
        verdict: Verdict::Deleting,
        reason: format!("waiting for {what}"),
    }
}

#[cfg(test)]
mod tests;
