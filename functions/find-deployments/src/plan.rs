//! What should happen to each deployment. Pure: the same facts, policy and time give the same plan.

mod repair;
mod settling;

use std::collections::BTreeSet;

use lifecycle::printable::{first_of, printable};
use lifecycle::tags::{self, Tags, switched_to_at};
use lifecycle::{DeploymentId, defaults};
use serde::Serialize;
use time::{Duration, UtcDateTime};

use crate::facts::{DefaultActionKind, Deployment, Facts, TargetGroup};

/// What the operator has configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// How many previous deployments stay warm.
    pub keep_previous: usize,
    /// From the start of draining to deleting the deployment even if it has visitors.
    pub drain_deadline: Duration,
    /// From a switch or a rollback to the first draining; and from the creation of a part to when its
    /// execution must be listed, if it is running.
    pub settle: Duration,
    /// Delete every deployment, because the environment is being removed.
    pub remove_everything: bool,
}

/// Every deployment of the environment and what is due.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// The deployment that new visitors reach, if it is one of ours.
    pub active_deployment_id: Option<DeploymentId>,
    /// The deployment to point the default action at, because new visitors reach nothing.
    pub repair: Option<Repair>,
    /// The active deployment, if rules that pin visitors to it are missing and are made again.
    pub missing_rules: Option<MissingRules>,
    /// What a person has to decide or correct, in sentences that begin with a deployment. The cleanup fails
    /// with them, after it has done what is due.
    pub problems: Vec<String>,
    /// How many of the tasks that the active deployment should have are not healthy targets.
    pub unhealthy_targets: usize,
    /// Whether new visitors reach nothing, or did at this sweep and the one before.
    pub is_down: bool,
    /// Whether the settings of the active deployment let its number of tasks follow its load, so that a registration
    /// that is missing is made.
    pub is_scaled: bool,
    /// All deployments, newest first, at most [`defaults::MAX_PLANNED`].
    pub deployments: Vec<Planned>,
    /// How many more there are, which are left to later runs.
    pub left_out: usize,
}

/// A deployment to point the default action at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Repair {
    /// The deployment.
    pub deployment_id: DeploymentId,
    /// Its target group.
    pub target_group_arn: String,
    /// Whether the repair takes back an active deployment that serves no visitors.
    pub roll_back: bool,
    /// That deployment.
    pub replaced: Vec<DeploymentId>,
    /// Why, in a sentence.
    pub reason: String,
}

/// Rules of the active deployment that are missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MissingRules {
    /// The active deployment.
    pub deployment_id: DeploymentId,
    /// Its target group.
    pub target_group_arn: String,
    /// Which ones, in a sentence.
    pub reason: String,
}

/// One deployment, its state and what is due.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Planned {
    /// The deployment.
    pub deployment_id: DeploymentId,
    /// Where in its life it is.
    pub state: State,
    /// What is due.
    pub action: Action,
    /// Why, in a sentence.
    pub reason: String,
    /// Delete it even if it has visitors, stopping its tasks one after another.
    pub force: bool,
    /// The target group of its name, if there is one.
    pub target_group_arn: Option<String>,
}

/// Where in its life a deployment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// Never switched to.
    Candidate,
    /// Named by the default action.
    Active,
    /// Was active, still warm.
    Previous,
    /// Takes no new sessions.
    Draining,
    /// It has no visitors any more, or its time was up; its deletion has begun.
    Deleting,
    /// Taken back by a rollback.
    RolledBack,
    /// Taken back by a rollback that took its visitors along.
    Evicted,
    /// Parts without a target group.
    Orphaned,
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// Nothing.
    Keep,
    /// Drain it, or check how far the draining is.
    Drain,
    /// Delete its rules, so that visitors who are pinned to it reach the active deployment.
    Unroute,
    /// Start its rollout again: it has failed, or its tasks were asked to drain before it was made active.
    Restart,
    /// Delete it.
    Delete,
}

/// Decides what is due for each deployment at the time `now`.
pub fn plan(facts: &Facts, policy: &Policy, now: UtcDateTime) -> Plan {
    let planner = Planner::new(facts, policy, now);
    let repair = planner.repair();
    let mut problems: Vec<String> = planner.lost(repair.as_ref()).into_iter().collect();
    let all = facts
        .deployments
        .iter()
        .map(|deployment| {
            let due = planner.due(deployment);
            problems.extend(due.problem);
            Planned {
                deployment_id: deployment.id.clone(),
                state: planner.state(deployment),
                action: due.action,
                reason: due.reason,
                force: due.force,
                target_group_arn: match &deployment.target_group {
                    TargetGroup::Ours { arn, .. } | TargetGroup::NotOurs { arn } => {
                        Some(arn.clone())
                    }
                    TargetGroup::Absent => None,
                },
            }
        })
        .collect();
    let (deployments, left_out) = as_many_as_one_run_takes(all);
    Plan {
        active_deployment_id: planner.active.cloned(),
        missing_rules: planner.missing_rules(),
        repair,
        problems,
        unhealthy_targets: planner.unhealthy_targets(),
        is_down: planner.is_down(),
        is_scaled: planner.is_scaled(),
        deployments,
        left_out,
    }
}

/// The deployments that one run lists, newest first, and how many it leaves to the next.
///
/// Deployments that may have visitors are preferred to leftover parts, so that parts that cannot be deleted
/// at all do not block the others. Otherwise the oldest are preferred.
fn as_many_as_one_run_takes(mut all: Vec<Planned>) -> (Vec<Planned>, usize) {
    let left_out = all.len().saturating_sub(defaults::MAX_PLANNED);
    if left_out > 0 {
        all.sort_by_key(|it| {
            let waits = it.state == State::Orphaned;
            let is_idle = it.action == Action::Keep && it.state != State::Active;
            (waits, is_idle, it.deployment_id.clone())
        });
        all.truncate(defaults::MAX_PLANNED);
        all.sort_by(|one, other| other.deployment_id.cmp(&one.deployment_id));
    }
    (all, left_out)
}

struct Due {
    action: Action,
    reason: String,
    force: bool,
    problem: Option<String>,
}

/// The maximum number of characters of a reason. It contains tags and names of executions, which operators
/// write, and the reasons of all deployments have to fit into one state's output.
const MAX_REASON: usize = 500;

fn due(action: Action, reason: impl Into<String>) -> Due {
    Due {
        action,
        reason: printable(&reason.into(), MAX_REASON),
        force: false,
        problem: None,
    }
}

fn keep(reason: impl Into<String>) -> Due {
    due(Action::Keep, reason)
}

fn drain(reason: impl Into<String>) -> Due {
    due(Action::Drain, reason)
}

fn delete(reason: impl Into<String>) -> Due {
    due(Action::Delete, reason)
}

fn force(due: Due) -> Due {
    Due { force: true, ..due }
}

struct Planner<'a> {
    facts: &'a Facts,
    policy: &'a Policy,
    now: UtcDateTime,
    active: Option<&'a DeploymentId>,
    /// The previous deployments that stay ready for an instant rollback.
    warm: BTreeSet<&'a DeploymentId>,
}

impl<'a> Planner<'a> {
    fn new(facts: &'a Facts, policy: &'a Policy, now: UtcDateTime) -> Self {
        let active = facts
            .named
            .first()
            .filter(|_| facts.default_action == DefaultActionKind::Forward);
        let mut planner = Planner {
            facts,
            policy,
            now,
            active,
            warm: BTreeSet::new(),
        };
        planner.warm = planner.kept_warm();
        planner
    }

    /// The newest of those that may be rolled back to at once. Those without a task for two sweeps among them are
    /// kept as well, and take no place of one that is warm.
    fn kept_warm(&self) -> BTreeSet<&'a DeploymentId> {
        let ends = |marks: &Tags| {
            [
                tags::ROLLED_BACK_AT,
                tags::DRAINING_SINCE,
                tags::DELETING_SINCE,
            ]
            .iter()
            .any(|mark| marks.contains_key(*mark))
        };
        let candidates = self
            .facts
            .deployments
            .iter()
            .filter(|it| self.active.is_some_and(|active| it.id < *active))
            .filter(|it| !self.facts.named.contains(&it.id))
            .filter(|it| it.was_live() && !it.marks().is_some_and(ends));
        let candidates: Vec<_> = candidates.collect();
        let mut places = self.policy.keep_previous;
        let mut kept = BTreeSet::new();
        for deployment in &candidates {
            if places == 0 {
                break;
            }
            kept.insert(&deployment.id);
            places -= usize::from(!self.is_empty(deployment));
        }
        // What a rollback goes back to while nobody knows whether the active one is well.
        if self.is_active_on_trial() {
            let is_proven = |it: &&&Deployment| {
                it.marks()
                    .is_some_and(|marks| marks.contains_key(tags::PROVEN_AT))
            };
            let mut with_tasks = candidates.iter().filter(|it| !self.is_empty(it));
            let proven = with_tasks.clone().find(is_proven).or(with_tasks.next());
            kept.extend(proven.map(|it| &it.id));
        }
        kept
    }

    /// Whether the active one is still watched, and was not found well yet.
    fn is_active_on_trial(&self) -> bool {
        let is_active = |it: &&Deployment| Some(&it.id) == self.active;
        let active = self.facts.deployments.iter().find(is_active);
        let marks = active.and_then(Deployment::marks);
        marks.is_some_and(|marks| tags::is_on_trial(marks, self.now))
    }

    /// Whether a rollback to it has to start its tasks, because two sweeps have found none.
    fn is_empty(&self, deployment: &Deployment) -> bool {
        let TargetGroup::Ours { in_use, .. } = deployment.target_group else {
            return false;
        };
        !in_use || self.down_since(deployment).is_some()
    }

    fn state(&self, deployment: &Deployment) -> State {
        if self.carries_traffic(deployment) {
            return State::Active;
        }
        let Some(marks) = deployment.marks() else {
            return State::Orphaned;
        };
        let has = |mark| marks.contains_key(mark);
        if !deployment.was_live() {
            State::Candidate
        } else if has(tags::DRAINING_SINCE) && self.deletes_since(marks).is_some() {
            State::Deleting
        } else if has(tags::DRAINING_SINCE) {
            State::Draining
        } else if tags::is_evicted(marks, self.now) {
            State::Evicted
        } else if has(tags::ROLLED_BACK_AT) {
            State::RolledBack
        } else {
            State::Previous
        }
    }

    fn carries_traffic(&self, deployment: &Deployment) -> bool {
        self.active.is_some() && self.facts.named.contains(&deployment.id)
    }

    fn due(&self, deployment: &Deployment) -> Due {
        let id = &deployment.id;
        if self.facts.named.contains(id) {
            return keep(match self.active {
                Some(active) if active == id => return self.active_one(deployment),
                Some(_) => "the default action sends a share of the new visitors here",
                None => "the default action names it, but its target group is gone",
            });
        }
        if deployment.is_protected {
            return keep(format!("it carries the tag {}", tags::PROTECTED));
        }
        match &deployment.target_group {
            TargetGroup::NotOurs { arn } => keep(format!(
                "the target group {arn} has its name but not its tags, so it is not touched; put the tags {} and {} \
                 back if it is this deployment's, else delete or rename it",
                tags::DEPLOYMENT_ID,
                tags::ENVIRONMENT
            )),
            _ if self.policy.remove_everything => {
                force(delete("every deployment of the environment is removed"))
            }
            TargetGroup::Absent => self.unless_in_progress(deployment, || {
                delete(format!(
                    "{} without a target group, and no execution is working on it",
                    parts(deployment)
                ))
            }),
            TargetGroup::Ours { tags, .. } if deployment.was_live() => {
                self.replaced(deployment, tags)
            }
            TargetGroup::Ours { tags, .. } => self.unless_in_progress(deployment, || {
                let moved = self.facts.moved && !tags.contains_key(tags::DELETING_SINCE);
                if moved {
                    return keep(MOVED);
                }
                delete("it was never live, and no execution is working on it")
            }),
        }
    }

    /// When its deletion began, unless traffic was switched to it since.
    fn deletes_since<'m>(&self, marks: &'m Tags) -> Option<&'m String> {
        let began = tags::time(marks, tags::DELETING_SINCE, self.now);
        let is_over = began.is_some_and(|began| Some(began) < switched_to_at(marks, self.now));
        marks.get(tags::DELETING_SINCE).filter(|_| !is_over)
    }

    /// What is due for a deployment that was live and is not active.
    fn replaced(&self, deployment: &Deployment, marks: &Tags) -> Due {
        if self.active.is_none() {
            return keep(
                "no active deployment is known, so nothing that was live is drained or deleted",
            );
        }
        // Before its other tags: the rollback may have begun after they were written, and until traffic is
        // switched, only this tag shows that the deployment is wanted.
        if tags::is_being_restored(marks, self.now) {
            return keep("a rollback is bringing it back");
        }
        let unsettled = self.unsettled(marks);
        if tags::is_evicted(marks, self.now) {
            let why = "a rollback took its visitors along";
            return match unsettled {
                Some(unsettled) => keep(format!("{why}; not deleted yet: {unsettled}")),
                None => force(delete(why)),
            };
        }
        let deadline = self.deadline(marks);
        // Not at the sweep that first finds it replaced.
        let is_late = self.replaced_at(marks).is_some()
            && deadline.is_some_and(|deadline| self.now >= deadline);
        if let Some(since) = self.deletes_since(marks) {
            let is_forced = is_late && unsettled.is_none();
            let runs = deployment
                .service
                .is_some_and(|service| service.running > 0);
            return self.unless_in_progress(deployment, || {
                // Nobody has looked since the run that began it ended, and a visitor may have come back before its
                // rules were gone.
                if !is_forced && runs && marks.contains_key(tags::DRAINING_SINCE) {
                    return drain(format!(
                        "its deletion began at {since}, and goes on if its tasks still have no session"
                    ));
                }
                Due {
                    force: is_forced,
                    ..delete(format!("its deletion began at {since}"))
                }
            });
        }
        if let Some(since) = marks.get(tags::DRAINING_SINCE) {
            return match (deadline, unsettled) {
                (Some(deadline), None) if is_late => force(delete(format!(
                    "its drain deadline was {}",
                    tags::timestamp(deadline)
                ))),
                (Some(_), Some(unsettled)) if is_late => drain(format!(
                    "draining since {since}; its drain deadline is over, but it is not deleted yet: {unsettled}"
                )),
                (Some(deadline), _) => drain(format!(
                    "draining since {since}; it is deleted when two sweeps in a row find no session, and at {} at the latest",
                    tags::timestamp(deadline)
                )),
                (None, _) => drain(format!(
                    "draining; it is deleted when two sweeps in a row find no session. Its tag {} is `{since}`, which is not \
                     a time in the past, so it has no deadline",
                    tags::DRAINING_SINCE
                )),
            };
        }
        let was_rolled_back = marks.contains_key(tags::ROLLED_BACK_AT);
        let unroute = self.unroute_if_empty(deployment);
        if !was_rolled_back && self.active.is_some_and(|active| *active < deployment.id) {
            return self.newer_than_active(deployment, unroute, unsettled);
        }
        if let Some(unroute) = unroute {
            return unroute;
        }
        if self.warm.contains(&deployment.id) {
            return match self.is_empty(deployment) {
                true => keep(
                    "kept without tasks and rules; a rollback to it starts and makes them again",
                ),
                false => keep("kept warm for an instant rollback"),
            };
        }
        let why = match marks.get(tags::ROLLED_BACK_AT) {
            Some(at) => format!("it was rolled back at {at}"),
            None => match self.policy.keep_previous {
                0 => "no previous deployment is kept warm".to_owned(),
                1 => "only the newest previous deployment is kept warm".to_owned(),
                most => format!("only the newest {most} previous deployments are kept warm"),
            },
        };
        match unsettled {
            Some(unsettled) => keep(format!("{why}; not drained yet: {unsettled}")),
            None => drain(why),
        }
    }

    /// What is due for a deployment that reported success, is newer than the active one and was not rolled
    /// back. Only a person knows which of the two is wanted.
    fn newer_than_active(
        &self,
        deployment: &Deployment,
        unroute: Option<Due>,
        unsettled: Option<String>,
    ) -> Due {
        let (id, active) = (&deployment.id, self.active.map_or("", DeploymentId::as_str));
        let kept = unroute.unwrap_or_else(|| {
            keep(format!(
                "it was live and is newer than {active}, which is active, and no rollback took it back"
            ))
        });
        // A switch that is about to move traffic to it has written the tag already.
        let is_in_flight = deployment
            .marks()
            .and_then(|marks| tags::time(marks, tags::LIVE_SINCE, self.now))
            .is_some_and(|since| self.now - since < defaults::SWITCH_IN_FLIGHT);
        // Of several, an operator decides about the newest.
        let is_newest = self.facts.deployments.iter().all(|it| {
            let has = |mark| it.marks().is_some_and(|marks| marks.contains_key(mark));
            it.id <= *id || !it.was_live() || has(tags::ROLLED_BACK_AT) || has(tags::DRAINING_SINCE)
        });
        let is_settled = unsettled.is_none() && !is_in_flight && is_newest;
        let problem = format!(
            "{id}: it was live, or its switch ended without an answer; it is newer than {active}, which is active, and no \
             rollback took it back; start the rollback machine with {id} to make it live, or tag its target group with {} to \
             give it up",
            tags::ROLLED_BACK_AT
        );
        Due {
            problem: is_settled.then_some(problem),
            ..kept
        }
    }

    /// Deletes the rules of a deployment, in every state, when two sweeps have found neither a task nor a target.
    fn unroute_if_empty(&self, deployment: &Deployment) -> Option<Due> {
        let in_use = matches!(
            deployment.target_group,
            TargetGroup::Ours { in_use: true, .. }
        );
        let since = self.down_since(deployment)?;
        if !(in_use || deployment.waits) || self.facts.moved || self.down_active().is_some() {
            return None;
        }
        Some(due(
            Action::Unroute,
            format!(
                "no task of it has run since {}, so its visitors go to the active deployment",
                tags::timestamp(since)
            ),
        ))
    }

    /// What is due, unless the deploy machine is working on the deployment.
    fn unless_in_progress(&self, deployment: &Deployment, due: impl FnOnce() -> Due) -> Due {
        let executions = &self.facts.executions;
        if executions.running.contains(&deployment.id) {
            return keep("an execution is working on it");
        }
        if !executions.unknown.is_empty() {
            return keep(format!(
                "it is not known whether an execution is working on it: the input of {} could not be read",
                first_of(executions.unknown.iter().map(String::as_str), 3)
            ));
        }
        // ListExecutions may not show an execution yet that has begun to create resources:
        // https://docs.aws.amazon.com/step-functions/latest/apireference/API_ListExecutions.html
        if let Some(made) = deployment.made_at
            && self.now - made < self.policy.settle
        {
            return keep(format!(
                "a part of it was created at {}, and its execution may not be listed yet",
                tags::timestamp(made)
            ));
        }
        due()
    }
}

const MOVED: &str = "the default action changed while this was read; the next sweep decides";

fn parts(deployment: &Deployment) -> &'static str {
    match (deployment.service.is_some(), deployment.has_task_definition) {
        (true, true) => "a service and a task definition were left",
        (true, false) => "a service was left",
        (false, _) => "a task definition was left",
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
