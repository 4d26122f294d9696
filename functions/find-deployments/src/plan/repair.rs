//! What is due when new visitors reach nothing.

use super::{Action, Due, MissingRules, Planner, Repair, due, keep};
use crate::facts::{DefaultActionKind, Deployment, Service, TargetGroup, Targets};
use lifecycle::printable::printable;
use lifecycle::tags::seen_at;
use lifecycle::{DeploymentId, defaults, guard, tags};
use time::UtcDateTime;

impl Planner<'_> {
    pub(super) fn active_deployment(&self) -> Option<&Deployment> {
        let mut all = self.facts.deployments.iter();
        all.find(|it| self.active == Some(&it.id))
    }

    /// Whether the active deployment has no healthy target at this moment.
    pub(super) fn is_active_down(&self) -> bool {
        let active = self.active_deployment();
        active.is_some_and(Deployment::has_no_healthy_target)
    }

    /// Since when sweeps in a row have found that the deployment serves no visitors, if it serves no visitors now and
    /// did not at an earlier sweep.
    pub(super) fn down_since(&self, deployment: &Deployment) -> Option<UtcDateTime> {
        let is_down = deployment.is_down(self.active == Some(&deployment.id));
        let marks = deployment.marks().filter(|_| is_down)?;
        let since = seen_at(marks, tags::DOWN_SINCE, self.now)?;
        self.is_another_sweep(since).then_some(since)
    }

    /// The active deployment, if sweeps in a row have found no healthy target of it, and since when.
    pub(super) fn down_active(&self) -> Option<(&DeploymentId, UtcDateTime)> {
        let active = self.active_deployment()?;
        Some((&active.id, self.down_since(active)?))
    }

    /// What is due for the active deployment.
    pub(super) fn active_one(&self, deployment: &Deployment) -> Due {
        let (Some(service), Some(marks)) = (deployment.service, deployment.marks()) else {
            return keep("new visitors come here");
        };
        let Service {
            running, wanted, ..
        } = service;
        let why = if self.policy.remove_everything {
            None
        } else if marks.contains_key(tags::DRAINING_SINCE) && !guard::gave_way(marks) {
            Some("its tasks were asked to drain before it was made active".to_owned())
        } else if service.has_failed && running < wanted {
            Some(format!(
                "its rollout has failed and {running} of {wanted} tasks run, so ECS starts no more"
            ))
        } else if service.keeps_unhealthy {
            Some("a drain that gave way left its unhealthy tasks without replacement".to_owned())
        } else {
            None
        };
        match why {
            Some(why) => due(Action::Restart, why),
            None => keep("new visitors come here"),
        }
    }

    /// How many of the tasks that the active deployment should have are not healthy targets.
    pub(super) fn unhealthy_targets(&self) -> usize {
        let Some(active) = self.active_deployment() else {
            return usize::from(self.is_default_action_lost() && self.was_any_live());
        };
        let Some(targets) = active.targets else {
            return 0;
        };
        let wanted = active.service.map_or(0, |service| service.wanted);
        // Without a service, or with none wanted, one is missing.
        let wanted = usize::try_from(wanted).unwrap_or(0).max(1);
        wanted.saturating_sub(targets.healthy)
    }

    /// The newest deployment that may take over and is not passed over.
    fn next_in_line(&self) -> Option<&Deployment> {
        let down = self.down_active().map(|(active, _)| active);
        let mut all = self.facts.deployments.iter();
        all.find(|it| {
            it.may_take_over() && Some(&it.id) != down && self.unhealthy_since(it).is_none()
        })
    }

    /// Since when sweeps in a row have found no healthy target of a deployment that may take over.
    fn unhealthy_since(&self, deployment: &Deployment) -> Option<UtcDateTime> {
        let marks = deployment
            .marks()
            .filter(|_| deployment.has_no_healthy_target())?;
        let since = seen_at(marks, tags::UNHEALTHY_SINCE, self.now)?;
        self.is_another_sweep(since).then_some(since)
    }

    fn is_another_sweep(&self, since: UtcDateTime) -> bool {
        self.now - since >= self.policy.settle.max(defaults::SWEEPS_APART)
    }

    /// The newest deployment that may carry traffic, when the default action has lost its own, or names one
    /// that has had no healthy target for two sweeps. Not while the newest one is without a healthy target for the
    /// first sweep: traffic goes to an older version only if the second finds none either.
    pub(super) fn repair(&self) -> Option<Repair> {
        if self.facts.moved || self.policy.remove_everything {
            return None;
        }
        let down = self.down_active();
        if !self.is_default_action_lost() && down.is_none() {
            return None;
        }
        let is_healthy = |it: &&Deployment| it.targets.is_some_and(|targets| targets.healthy > 0);
        let chosen = self.next_in_line().filter(is_healthy)?;
        let TargetGroup::Ours { arn, .. } = &chosen.target_group else {
            return None;
        };
        Some(Repair {
            deployment_id: chosen.id.clone(),
            target_group_arn: arn.clone(),
            roll_back: down.is_some(),
            replaced: down.into_iter().map(|(active, _)| active.clone()).collect(),
            reason: match down {
                Some((active, since)) => format!(
                    "{active} has had no healthy target since {}",
                    tags::timestamp(since)
                ),
                None => "the default action named no deployment".to_owned(),
            },
        })
    }

    /// The rules that pin visitors to the active deployment, if an operator or an eviction that landed late has deleted
    /// one.
    pub(super) fn missing_rules(&self) -> Option<MissingRules> {
        let by = &self.facts.unpinned;
        if by.is_empty() || self.facts.moved || self.policy.remove_everything {
            return None;
        }
        let active = self.active_deployment()?;
        let TargetGroup::Ours { arn, .. } = &active.target_group else {
            return None;
        };
        let by: Vec<_> = by.iter().map(|by| format!("by {by}")).collect();
        Some(MissingRules {
            deployment_id: active.id.clone(),
            target_group_arn: arn.clone(),
            reason: format!(
                "no rule pins visitors to {} {}, so the next switch would move them",
                active.id,
                by.join(" or ")
            ),
        })
    }

    /// What a person has to know when new visitors reach nothing.
    pub(super) fn lost(&self, repair: Option<&Repair>) -> Option<String> {
        if self.facts.moved || self.policy.remove_everything {
            return None;
        }
        // Read only without a repair.
        let nothing_else = match self.next_in_line() {
            Some(next) => format!(
                "{} is the newest that can take over and has no healthy target at this moment; if the next sweep finds none \
                 either, the next one takes over; roll back by its id to the one that you want now",
                next.id
            ),
            None => "no deployment that was live can take over: each is unhealthy, draining, rolled back or without rules; roll \
                  back to one of them by its id, or push an image"
                .to_owned(),
        };
        let Some((active, since)) = self.down_active() else {
            let is_lost = self.is_default_action_lost() && self.was_any_live() && repair.is_none();
            return is_lost
                .then(|| format!("the default action names no deployment, and {nothing_else}"));
        };
        let targets = self.active_deployment().and_then(|it| it.targets);
        let Targets {
            registered,
            healthy,
        } = targets?;
        let then = match repair {
            Some(repair) => format!("new visitors go to {}", repair.deployment_id),
            None => nothing_else,
        };
        Some(printable(
            &format!(
                "{active}: it is active and has had no healthy target since {} ({healthy} of {registered} targets are \
                 healthy now); {then}",
                tags::timestamp(since)
            ),
            super::MAX_REASON,
        ))
    }

    /// Whether new visitors reach nothing.
    pub(super) fn is_down(&self) -> bool {
        self.down_active().is_some() || self.is_default_action_lost() && self.was_any_live()
    }

    /// Whether the active deployment carries the tag of scaling.
    pub(super) fn is_scaled(&self) -> bool {
        let active = self.facts.deployments.iter();
        active
            .filter(|it| self.active == Some(&it.id))
            .filter_map(Deployment::marks)
            .any(|marks| marks.contains_key(tags::SCALING))
    }

    fn was_any_live(&self) -> bool {
        self.facts.deployments.iter().any(Deployment::was_live)
    }

    fn is_default_action_lost(&self) -> bool {
        matches!(
            self.facts.default_action,
            DefaultActionKind::NothingDeployed | DefaultActionKind::ForwardToNothing
        )
    }
}
