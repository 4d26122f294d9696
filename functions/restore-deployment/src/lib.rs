//! Finds the deployment that a rollback goes to and makes it ready to be switched to.
//!
//! A warm deployment is ready as it is. One that drains gets fresh tasks, because an application that
//! drains cannot be asked to stop draining; the tag of draining stays until they have replaced the others and
//! traffic is switched. One without tasks gets tasks. A tag on its target group keeps
//! other runs from draining or deleting it in the meantime. This step writes its tag before it reads
//! theirs, and they write theirs before they read this one, so at least one of two runs gives way.
//!
//! If the step runs again, it starts nothing twice: the time of the tag shows which rollout of the service
//! belongs to this rollback.

mod target;
mod unfinished;

use aws_sdk_ecs::types::{Deployment, DeploymentRolloutState, Service};
use lifecycle::affinity::Affinity;
use lifecycle::aws_error::found;
use lifecycle::executions::{Execution, Started};
use lifecycle::routing::{self, Routing};
use lifecycle::sdk::Clients;
use lifecycle::service::newest_rollout;
use lifecycle::tags::{self, RolledBack, Tags};
use lifecycle::target_group::TargetGroup;
use lifecycle::{
    Baseline, Clock, DeploymentId, ErrorName, StepError, defaults, input, rollback_target, service,
    target_group,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::UtcDateTime;

/// What an execution of the rollback machine may be started with. The machine sends it with the execution itself, see
/// [`Started`].
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Input {
    /// The deployment to go back to. Without it, the previous one.
    pub deployment_id: Option<DeploymentId>,
    /// Whether the visitors of what is taken back go along. Otherwise those who are pinned to it stay until they are
    /// done. They go along by default.
    pub evict: Option<bool>,
    /// The deployment that the rollback takes back, with those between it and the target: nothing changes if another one
    /// is active, and a newer one wins. Without it, whatever is newer than the target.
    pub from: Option<DeploymentId>,
}

/// What traffic is to be switched to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// The deployment to go back to.
    pub deployment_id: DeploymentId,
    /// The ARN of its target group.
    pub target_group_arn: String,
    /// How many tasks it needs.
    pub desired_count: u32,
    /// Whether it gets fresh tasks, which have to become healthy first.
    pub restored: bool,
    /// Whether no rule names it, or may not in a moment because an eviction is under way, so that the machine makes one
    /// and calls again: ECS starts no tasks for a target group that no load balancer uses.
    pub unrouted: bool,
    /// Whether it has both rules that pin visitors to it. Otherwise the machine makes them before it switches.
    pub pinned: bool,
    /// Whether an earlier rollback took it back.
    pub was_rolled_back: bool,
    /// The deployment that is active now.
    pub replaced_deployment_id: Option<DeploymentId>,
    /// All that the rollback replaces, as it is now: what is newer than the target, and active or ready. What
    /// becomes ready later was not meant when the rollback was started, and wins. What an earlier rollback took
    /// back is left out, so that this one does not take that mark back if it fails.
    pub replaced: Vec<DeploymentId>,
    /// Whether the visitors of what the rollback replaces go along.
    pub evict: bool,
    /// The newest deployment that it takes back, if the input names one.
    pub from: Option<DeploymentId>,
    /// What an earlier rollback to it has taken back without the visitors. It is active already, and all that is left to do
    /// is to take them along.
    pub left_pinned: Vec<RolledBack>,
    /// The tag that keeps the target from being drained, by which the switch knows that its tasks were not
    /// asked to drain since.
    pub restoring_since: Option<String>,
    /// What the target needs, in a sentence.
    pub reason: String,
}

/// Chooses the deployment, tags it, and starts fresh tasks where they are needed. If the named one is active, and visitors
/// of what an earlier rollback to it took back are still pinned there, they are all that is left.
///
/// # Errors
/// `InvalidInput` for an id of another environment; `NoRollbackTarget` when there is nothing to go
/// back to or the named deployment cannot be the target: it is gone, is being deleted, was never live or
/// is active; `RollbackNotNeeded` when another deployment is active than the one to take back; `DefaultActionNotOurs`
/// for a maintenance page; else as [`lifecycle::aws_error::CODES`] say.
pub async fn run(
    clients: &Clients,
    baseline: &Baseline,
    clock: Clock<'_>,
    payload: Value,
) -> Result<Output, StepError> {
    let Started { input, execution } = Started::read(payload);
    let input: Input = input::decode(input)?;
    let ids = [
        ("deploymentId", &input.deployment_id),
        ("from", &input.from),
    ];
    let mut given = ids
        .iter()
        .filter_map(|(field, id)| Some((field, id.as_ref()?)));
    if let Some((field, id)) = given.find(|(_, id)| *id.environment() != baseline.environment) {
        return Err(StepError::new(
            ErrorName::InvalidInput,
            format!(
                "invalid input: field `{field}`: {id} is a deployment of environment {}, and this machine serves {}",
                id.environment(),
                baseline.environment
            ),
        ));
    }
    let routing = Routing::read(&clients.elb, baseline).await?;
    routing.default_action.refuse_others(baseline)?;
    // A switch could not keep an action of an unknown type.
    routing.default_action.policy()?;
    refuse_if_not_needed(&routing, &input)?;
    let named = input.deployment_id.as_ref();
    let unrouted = match named {
        Some(id) if routing.deployment(id).is_none() => {
            target_group::find(&clients.elb, id).await?
        }
        _ => None,
    };
    let evict = input.evict.unwrap_or(true);
    if let Some(active) = routing.active().filter(|it| Some(&it.deployment) == named)
        && evict
    {
        let left_pinned = unfinished::left_pinned(&routing);
        if !left_pinned.is_empty() {
            return finish(clients, baseline, active, left_pinned).await;
        }
    }
    let group = target::choose(&routing, unrouted.as_ref(), named)?;
    let restore = Restore {
        clients,
        baseline,
        clock,
        routing: &routing,
        group,
        execution: execution.as_ref().map(Execution::name),
        is_unrouted: unrouted.is_some(),
        evict,
        from: input.from.as_ref(),
    };
    restore
        .run()
        .await
        .map_err(|error| error.with_deployment(&group.deployment))
}

/// Refuses a rollback that takes back one deployment when another one is active: it would take back what replaced it,
/// and that may be its cure.
fn refuse_if_not_needed(routing: &Routing, input: &Input) -> Result<(), StepError> {
    let Some(from) = &input.from else {
        return Ok(());
    };
    match rollback_target::why_not_needed(&routing.default_action, from) {
        Some(why) => {
            let why = format!("{why}; nothing was changed");
            Err(StepError::new(ErrorName::RollbackNotNeeded, why))
        }
        None => Ok(()),
    }
}

/// The answer of a rollback to what is active already, whose visitors are still to be taken along.
async fn finish(
    clients: &Clients,
    baseline: &Baseline,
    active: &TargetGroup,
    left_pinned: Vec<RolledBack>,
) -> Result<Output, StepError> {
    let id = &active.deployment;
    let service = service::find(&clients.ecs, baseline, id).await?;
    let desired_count = service.map_or(0, |service| service.desired_count());
    let left: Vec<_> = left_pinned
        .iter()
        .map(|it| it.deployment_id.as_str())
        .collect();
    let reason = format!(
        "{id} is active already, and only visitors of {} are still to be taken along",
        left.join(", ")
    );
    Ok(Output {
        deployment_id: id.clone(),
        target_group_arn: active.arn.clone(),
        desired_count: u32::try_from(desired_count).unwrap_or_default(),
        restored: false,
        unrouted: false,
        pinned: true,
        was_rolled_back: false,
        replaced_deployment_id: None,
        replaced: Vec::new(),
        evict: true,
        from: None,
        left_pinned,
        restoring_since: None,
        reason,
    })
}

/// The tasks that a rollback goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tasks {
    /// Those that run.
    Warm,
    /// New ones that ECS starts.
    Fresh,
    /// None can start before a rule names the target group.
    Unrouted,
}

struct Restore<'a> {
    clients: &'a Clients,
    baseline: &'a Baseline,
    clock: Clock<'a>,
    routing: &'a Routing,
    /// The target group of the deployment to go back to.
    group: &'a TargetGroup,
    /// The name of the execution that rolls back. Another one to the same target has a tag of its own, so that neither
    /// takes the other's for its own or removes it.
    execution: Option<&'a str>,
    /// Whether no rule forwards to it, because a cleanup found no task of it or an eviction has deleted its rules.
    is_unrouted: bool,
    /// Whether the visitors of what is taken back go along.
    evict: bool,
    /// The newest deployment to take back, if the rollback takes back only what was active when it was started.
    from: Option<&'a DeploymentId>,
}

impl Restore<'_> {
    async fn run(&self) -> Result<Output, StepError> {
        let id = &self.group.deployment;
        let service = service::find(&self.clients.ecs, self.baseline, id)
            .await?
            .ok_or_else(|| self.service_is_gone())?;
        let since = self.tag_as_restoring().await?;
        let restored = self.restore(&service, since).await;
        // Tried again, it needs the tag, and otherwise the tag would keep the deployment for hours.
        if restored
            .as_ref()
            .is_err_and(|error| error.name != ErrorName::Transient)
            && since.is_none()
        {
            // The first error says more.
            let _ = self.release().await;
        }
        restored
    }

    async fn restore(
        &self,
        service: &Service,
        since: Option<UtcDateTime>,
    ) -> Result<Output, StepError> {
        let id = &self.group.deployment;
        let tags = self.tags_after_ours().await?;
        let desired_count = match u32::try_from(service.desired_count()) {
            Ok(0) | Err(_) => tags::wanted_count(&tags).unwrap_or(defaults::DESIRED_COUNT),
            Ok(count) => count,
        };
        let loses_rules = self.may_lose_rules(&tags);
        let tasks = match loses_rules {
            true => Tasks::Unrouted,
            false => {
                self.start_fresh_tasks_if_needed(service, &tags, since, desired_count)
                    .await?
            }
        };
        let restored = tasks != Tasks::Warm;
        let unrouted = tasks == Tasks::Unrouted;
        self.untag_the_active_one().await?;
        let reason = if loses_rules {
            format!("an eviction that has not seen this rollback may be deleting a rule of {id}")
        } else if restored {
            format!("{id} gets fresh tasks")
        } else {
            format!("{id} is warm")
        };
        let mut replaced: Vec<DeploymentId> = self
            .routing
            .replaced_by(id)
            .into_iter()
            .filter(|group| self.routing.is_active(group) || !group.has(tags::ROLLED_BACK_AT))
            // What is newer than the one that is taken back wins.
            .filter(|group| self.from.is_none_or(|from| group.deployment <= *from))
            .map(|group| group.deployment.clone())
            .collect();
        replaced.sort();
        Ok(Output {
            deployment_id: id.clone(),
            target_group_arn: self.group.arn.clone(),
            desired_count,
            restored,
            unrouted,
            // An eviction that sees our tag leaves the rules that it has not deleted.
            pinned: self.is_pinned() && !tags::is_evicted(&tags, (self.clock)()),
            was_rolled_back: self.group.has(tags::ROLLED_BACK_AT),
            replaced_deployment_id: self.routing.default_action.active().cloned(),
            replaced,
            evict: self.evict,
            from: self.from.cloned(),
            left_pinned: Vec::new(),
            // Not that of a rollback which has begun since.
            restoring_since: tags
                .get(tags::RESTORING_SINCE)
                .filter(|_| self.is_own(&tags))
                .cloned(),
            reason,
        })
    }

    /// Whether both rules pin visitors to it. An earlier rollback that failed may have left only the one with which it
    /// waited for tasks.
    fn is_pinned(&self) -> bool {
        Affinity::missing(&self.routing.rules, &self.group.deployment).is_empty()
    }

    fn has_a_pin(&self) -> bool {
        let mut rules = self.routing.rules.iter();
        rules
            .any(|rule| routing::is_pin(rule) && routing::forwards_to(rule, &self.group.deployment))
    }

    /// Whether an eviction may still delete one of its rules, because it has looked before our tag was written. Rules that
    /// are adopted now might be gone after the switch, so the machine makes the one of a deployment that waits, and asks
    /// again a little later.
    fn may_lose_rules(&self, tags: &Tags) -> bool {
        let now = (self.clock)();
        let is_within = |key, most| tags::time(tags, key, now).is_some_and(|at| now - at < most);
        self.has_a_pin()
            && is_within(tags::EVICTED_AT, defaults::EVICTION_TIME)
            && is_within(tags::RESTORING_SINCE, defaults::SWITCH_IN_FLIGHT)
    }

    /// Keeps other runs from draining and deleting the deployment. Returns the time of a tag that an
    /// earlier call for the same rollback wrote.
    ///
    /// A tag past half its time is written again: it must not expire while this rollback goes on. So is that of another
    /// rollback, whose tasks may have been asked to drain before this one began.
    async fn tag_as_restoring(&self) -> Result<Option<UtcDateTime>, StepError> {
        let (tags, now) = (&self.group.tags, (self.clock)());
        let earlier = tags::time(tags, tags::RESTORING_SINCE, now)
            .filter(|since| now - *since < defaults::RESTORE_TIME / 2)
            .filter(|_| self.is_own(tags));
        if earlier.is_none() {
            let (elb, arn) = (&self.clients.elb, &self.group.arn);
            let value = tags::restoring(now, self.execution);
            let tagged = target_group::set_tag(elb, arn, tags::RESTORING_SINCE, &value).await;
            // If it was deleted since it was chosen, the next look says so.
            target_group::unless_gone(elb, arn, tagged).await?;
        }
        Ok(earlier)
    }

    /// Removes the tag, unless another rollback to the deployment has written its own since.
    async fn release(&self) -> Result<(), StepError> {
        match tags::read_one(&self.clients.elb, &self.group.arn).await? {
            Some(tags) if self.is_own(&tags) => self.untag(&[tags::RESTORING_SINCE]).await,
            _ => Ok(()),
        }
    }

    fn is_own(&self, tags: &Tags) -> bool {
        tags::restoring_execution(tags) == self.execution.map(tags::restoring_name)
    }

    /// The tags as they are after ours was written.
    ///
    /// # Errors
    /// `NoRollbackTarget` when the deployment's deletion has begun since it was chosen. Our tag is removed
    /// again, because it would stop the deletion half-way.
    async fn tags_after_ours(&self) -> Result<Tags, StepError> {
        match tags::read_one(&self.clients.elb, &self.group.arn).await? {
            Some(tags) if tags.contains_key(tags::DELETING_SINCE) => {
                self.release().await?;
                Err(self.being_deleted())
            }
            Some(tags) => Ok(tags),
            None => Err(self.being_deleted()),
        }
    }

    /// Starts fresh tasks when the deployment drains, has no tasks, or has a failed rollout, unless an
    /// earlier call for this rollback, at `since`, has started them.
    async fn start_fresh_tasks_if_needed(
        &self,
        service: &Service,
        tags: &Tags,
        since: Option<UtcDateTime>,
        desired_count: u32,
    ) -> Result<Tasks, StepError> {
        if self.is_unrouted {
            return Ok(Tasks::Unrouted);
        }
        // ECS starts no more tasks for a rollout that failed, as one of an earlier rollback may have:
        // https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-circuit-breaker.html
        let has_failed = rollout_state(service) == Some(&DeploymentRolloutState::Failed);
        let is_needed = tags.contains_key(tags::DRAINING_SINCE)
            || service.desired_count() <= 0
            || service.running_count() <= 0
            || has_failed;
        let is_started = since.is_some_and(|since| has_rollout_since(service, since));
        if is_needed && (has_failed || !is_started) {
            return self.start_fresh_tasks(desired_count).await;
        }
        // Those that an earlier call started have to be waited for as well.
        match is_needed || is_rolling(service) {
            true => Ok(Tasks::Fresh),
            false => Ok(Tasks::Warm),
        }
    }

    async fn start_fresh_tasks(&self, desired_count: u32) -> Result<Tasks, StepError> {
        let id = &self.group.deployment;
        let request = self
            .clients
            .ecs
            .update_service()
            .cluster(&self.baseline.cluster)
            .service(id.as_str())
            .force_new_deployment(true)
            // The count came from ECS, where it is an i32.
            .desired_count(i32::try_from(desired_count).unwrap_or(i32::MAX))
            .health_check_grace_period_seconds(tags::grace_seconds(
                &self.group.tags,
                self.baseline,
            ));
        let attempt = format_args!("start fresh tasks of service {id}");
        let answer = request.send().await;
        // A cleanup has deleted its rules since the listener was read.
        if answer.as_ref().is_err_and(service::is_unrouted) {
            return Ok(Tasks::Unrouted);
        }
        match found(attempt, answer, service::is_gone)? {
            Some(_) => Ok(Tasks::Fresh),
            None => Err(self.service_is_gone()),
        }
    }

    /// Removes the tag of an earlier rollback from the active deployment.
    ///
    /// Traffic is on it, so that rollback did its work. If it could not remove its tag, the tag would keep
    /// the deployment from being drained once this rollback has replaced it.
    async fn untag_the_active_one(&self) -> Result<(), StepError> {
        match self
            .routing
            .active()
            .filter(|active| active.has(tags::RESTORING_SINCE))
        {
            Some(active) => {
                target_group::untag(&self.clients.elb, &active.arn, &[tags::RESTORING_SINCE]).await
            }
            None => Ok(()),
        }
    }

    async fn untag(&self, keys: &[&str]) -> Result<(), StepError> {
        target_group::untag_unless_gone(&self.clients.elb, &self.group.arn, keys).await
    }

    fn being_deleted(&self) -> StepError {
        target::refused(
            self.routing,
            Some(&self.group.deployment),
            format!(
                "{} is being deleted; push its image again under a new deployment id",
                self.group.deployment
            ),
        )
    }

    fn service_is_gone(&self) -> StepError {
        target::refused(
            self.routing,
            Some(&self.group.deployment),
            format!(
                "the service of {} is gone or does not carry its tags; push its image again under a new deployment id",
                self.group.deployment
            ),
        )
    }
}

fn rollout_state(service: &Service) -> Option<&DeploymentRolloutState> {
    newest_rollout(service).and_then(Deployment::rollout_state)
}

/// Whether the newest rollout began at that time or later.
fn has_rollout_since(service: &Service, since: UtcDateTime) -> bool {
    newest_rollout(service)
        .and_then(Deployment::created_at)
        .is_some_and(|created| created.secs() >= since.unix_timestamp())
}

/// Whether a rollout is in progress, or old tasks are left of an earlier one.
fn is_rolling(service: &Service) -> bool {
    service.deployments().len() > 1
        || rollout_state(service) == Some(&DeploymentRolloutState::InProgress)
}

#[cfg(test)]
mod tests;
