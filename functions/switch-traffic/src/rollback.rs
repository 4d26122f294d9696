//! What a rollback does in addition to the switch: it tags what it replaces.

use lifecycle::routing::{DefaultAction, Routing};
use lifecycle::target_group::{self, TargetGroup};
use lifecycle::{DeploymentId, ErrorName, StepError, defaults, rollback_target, tags};

use crate::{Outcome, Output, Switch};

impl Switch<'_> {
    /// Tags what the rollback replaces as rolled back: what is newer, and active or ready, unless the input does
    /// not list it. Returns the ARNs of their target groups, or the answer if the rollback is not needed any more.
    ///
    /// Whatever other runs switch in the meantime, traffic stays where it was or goes to the target,
    /// because the target's own tag is removed first and the active deployment is tagged last.
    ///
    /// # Errors
    /// Before anything is tagged: `ResourceConflict` when the target is being deleted, `DefaultActionNotOurs` when an
    /// operator has put up a maintenance page since the rollback began, `Transient` when no rule names it.
    pub(crate) async fn mark_replaced(&self) -> Result<Result<Vec<String>, Output>, StepError> {
        let target = &self.input.deployment_id;
        let routing = Routing::read(self.elb, self.baseline).await?;
        routing.default_action.refuse_others(self.baseline)?;
        if let Some(not_needed) = self.is_rollback_needless(&routing) {
            return Ok(Err(not_needed));
        }
        let own = self.own(&routing)?;
        // If an earlier attempt has switched, the deletion gives way to that.
        if own.has(tags::DELETING_SINCE) && !routing.is_active(own) {
            return Err(StepError::new(
                ErrorName::ResourceConflict,
                format!("{target} is being deleted and cannot be rolled back to"),
            ));
        }
        self.keep_policy(&routing, &mut None).await?;
        if own.has(tags::ROLLED_BACK_AT) {
            self.unmark(own).await?;
        }
        let mut replaced = routing.replaced_by(target);
        if let Some(listed) = &self.input.replaced {
            replaced.retain(|group| listed.contains(&group.deployment));
        }
        for group in &replaced {
            self.mark_as_rolled_back(group).await?;
        }
        let replaced = replaced.into_iter().map(|group| group.arn.clone());
        Ok(Ok(replaced.collect()))
    }

    /// The answer if the rollback takes back one deployment and another one is active by now.
    ///
    /// If an earlier look found the deployment active and marked it, it keeps the mark: it was found to be bad, and what
    /// replaced it is newer or an operator's choice.
    pub(crate) fn is_rollback_needless(&self, routing: &Routing) -> Option<Output> {
        let from = self.input.from.as_ref()?;
        let active = routing.default_action.active();
        // An earlier attempt has switched, and this one reads it back.
        if active == Some(&self.input.deployment_id) {
            return None;
        }
        let reason = rollback_target::why_not_needed(&routing.default_action, from)?;
        Some(Output {
            outcome: Outcome::NotNeeded,
            active_deployment_id: active.cloned(),
            previous_deployment_id: None,
            rolled_back: Vec::new(),
            reason,
        })
    }

    /// Tags what the rollback replaces again, where the tag has been removed since. Returns whether it
    /// tagged anything.
    ///
    /// A concurrent rollback to one of them removes its tag. If the switch of this rollback is the one that
    /// lasts, no other run may switch there again.
    pub(crate) async fn mark_again(
        &self,
        routing: &Routing,
        replaced: &[String],
    ) -> Result<bool, StepError> {
        let mut marked = false;
        for group in routing
            .deployments
            .iter()
            .filter(|group| replaced.contains(&group.arn))
        {
            marked |= self.mark_as_rolled_back(group).await?;
        }
        Ok(marked)
    }

    /// Removes the tag with which this rollback kept its target from being drained and deleted. It is over, and
    /// otherwise the tag would keep the deployment for hours.
    async fn release_target(&self, routing: &Routing) -> Result<(), StepError> {
        let Some(since) = &self.input.restoring_since else {
            return Ok(());
        };
        if !self.input.take_back {
            return Ok(());
        }
        let arn = &self.input.target_group_arn;
        let tags = match routing.deployment(&self.input.deployment_id) {
            Some(own) => Some(own.tags.clone()),
            // A deletion that gave way to the rollback may have deleted its rules before.
            None => tags::read_one(self.elb, arn).await?,
        };
        if tags.is_none_or(|tags| tags.get(tags::RESTORING_SINCE) != Some(since)) {
            return Ok(());
        }
        target_group::untag_unless_gone(self.elb, arn, &[tags::RESTORING_SINCE]).await
    }

    async fn mark_target_again(&self, routing: &Routing) -> Result<(), StepError> {
        match routing.deployment(&self.input.deployment_id) {
            Some(own) if self.input.was_rolled_back => {
                self.mark_as_rolled_back(own).await.map(drop)
            }
            _ => Ok(()),
        }
    }

    /// Takes that mark back from a target that has gone live by another rollback to it.
    async fn untag_live_target(&self, routing: &Routing) -> Result<(), StepError> {
        match routing.deployment(&self.input.deployment_id) {
            Some(own) if self.input.was_rolled_back && self.is_named(own).await? => {
                self.unmark(own).await
            }
            _ => Ok(()),
        }
    }

    /// Tags a deployment as rolled back, unless it has the tag. Returns whether it did.
    ///
    /// A tag past half its time is written again: an earlier rollback that was stopped may have left it on the active
    /// deployment, and a cleanup that removes it must not remove this one's.
    async fn mark_as_rolled_back(&self, group: &TargetGroup) -> Result<bool, StepError> {
        let now = (self.clock)();
        let marked = tags::time(&group.tags, tags::ROLLED_BACK_AT, now);
        let is_fresh = marked.is_some_and(|at| now - at < defaults::SWITCHED_WITHIN / 2);
        // A group without our tags is left as it is. This run does not choose it either way.
        let is_ours = tags::belong_to(&group.tags, &group.deployment);
        if is_fresh || !is_ours {
            return Ok(false);
        }
        self.mark(group).await?;
        Ok(true)
    }

    /// Tags a deployment as rolled back. One that was deleted since it was read needs no tag.
    async fn mark(&self, group: &TargetGroup) -> Result<(), StepError> {
        let (arn, key) = (&group.arn, tags::ROLLED_BACK_AT);
        target_group::tag_unless_gone(self.elb, arn, key, self.clock).await
    }

    async fn unmark(&self, group: &TargetGroup) -> Result<(), StepError> {
        target_group::untag_unless_gone(self.elb, &group.arn, &[tags::ROLLED_BACK_AT]).await
    }

    /// Removes the marks of a rollback that did not happen, and lets its target go. Otherwise the active deployment
    /// would be refused and passed over as one that was taken back, and the next switch would move traffic to an older
    /// one.
    ///
    /// If traffic has moved, to the target or to one that is not marked, the marks stay. What was to be replaced and is
    /// newer than the active one was replaced after all and gets its mark again, if the rollback got as far as the
    /// switch: an earlier call may have died after it took the mark back, and another rollback may have relied on it. If
    /// the target is marked itself, another rollback has taken it back, and the marks are that one's. A target that carried
    /// the mark of an earlier rollback and is not active gets it again, or the next switch would choose what was taken back.
    pub(crate) async fn take_marks_back(&self) -> Result<Output, StepError> {
        let routing = Routing::read(self.elb, self.baseline).await?;
        let active = routing.default_action.active();
        let listed = self.input.replaced.as_deref().unwrap_or_default();
        let marked: Vec<_> = routing
            .deployments
            .iter()
            .filter(|group| listed.contains(&group.deployment) && group.has(tags::ROLLED_BACK_AT))
            .collect();
        let is_taken_back = routing
            .deployment(&self.input.deployment_id)
            .is_some_and(|own| own.has(tags::ROLLED_BACK_AT));
        // Nothing active is an operator's doing, such as a maintenance page, and no switch.
        let has_moved = active.is_some()
            && active != self.input.replaced_deployment_id.as_ref()
            && !marked.iter().any(|group| routing.is_active(group));
        let may_have_marked = !self.input.take_back || self.input.marked;
        if has_moved && !is_taken_back && may_have_marked && !self.input.repair {
            let is_replaced = |group: &&TargetGroup| {
                listed.contains(&group.deployment)
                    && active.is_some_and(|it| *it < group.deployment)
            };
            let replaced: Vec<_> = routing.deployments.iter().filter(is_replaced).collect();
            for group in &replaced {
                self.mark_as_rolled_back(group).await?;
            }
            if active != Some(&self.input.deployment_id) {
                self.mark_target_again(&routing).await?;
            }
            // Another rollback may have brought one of them back in the meantime, without its mark.
            for group in replaced {
                if self.is_named(group).await? {
                    self.unmark(group).await?;
                }
            }
            self.untag_live_target(&routing).await?;
        }
        if !has_moved && !is_taken_back {
            for group in &marked {
                self.unmark(group).await?;
            }
            // After the others: a retry that finds the target marked leaves theirs.
            self.mark_target_again(&routing).await?;
            // Another rollback that had read a mark may have switched in the meantime without setting its own. A switch
            // to one of them needs no mark.
            let now = DefaultAction::read(self.elb, self.baseline).await;
            let is_unmarked = |now: Option<&DeploymentId>| {
                marked.iter().any(|group| Some(&group.deployment) == now)
            };
            if !now.is_ok_and(|now| now.active() == active || is_unmarked(now.active())) {
                for group in &marked {
                    self.mark(group).await?;
                }
                self.untag_live_target(&routing).await?;
            }
        }
        self.release_target(&routing).await?;
        let id = &self.input.deployment_id;
        let (outcome, reason) = match active {
            Some(active) if active == id => (Outcome::Switched, format!("{id} is active")),
            Some(active) => (Outcome::TakenBack, format!("{active} stays active")),
            None => (Outcome::TakenBack, "no deployment is active".to_owned()),
        };
        Ok(Output {
            outcome,
            active_deployment_id: active.cloned(),
            previous_deployment_id: None,
            rolled_back: Vec::new(),
            reason,
        })
    }
}
