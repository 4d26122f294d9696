//! A task that was asked to drain drains for as long as it runs, so what drains is not made live. Only a
//! rollback that has given it fresh tasks takes its draining back.

use lifecycle::target_group::{self, TargetGroup};
use lifecycle::{StepError, defaults, guard, tags};

use crate::Switch;

/// Refuses a deployment whose tasks may have been asked to drain.
pub(crate) fn refuse_if_draining(own: &TargetGroup) -> Result<(), StepError> {
    guard::refuse_draining(&own.deployment, &own.tags)
}

impl Switch<'_> {
    /// Refuses the deployment before anything is tagged. One that is gone is found out later. Returns whether a rollback
    /// has taken it back.
    pub(crate) async fn refuse_draining(&self) -> Result<bool, StepError> {
        let arn = &self.input.target_group_arn;
        let Some(tags) = tags::read_one(self.elb, arn).await? else {
            return Ok(false);
        };
        let own = TargetGroup {
            deployment: self.input.deployment_id.clone(),
            arn: arn.clone(),
            tags,
        };
        let is_taken_back = own.has(tags::ROLLED_BACK_AT);
        if self.has_fresh_tasks(&own) {
            return Ok(is_taken_back);
        }
        let refusal = refuse_if_draining(&own);
        // An earlier attempt has switched, and a drain has given way to it.
        if refusal.is_err() && self.is_named(&own).await? {
            return Ok(is_taken_back);
        }
        refusal.map(|()| is_taken_back).map_err(|mut error| {
            // Two rollbacks to one deployment: the later one has the tag.
            if self.input.roll_back && tags::is_being_restored(&own.tags, (self.clock)()) {
                error.message +=
                    "; another rollback to it has begun since, and gives it fresh tasks";
            }
            error
        })
    }

    /// Removes the tags of draining from the target of a rollback that has fresh tasks, before it is active. Returns
    /// whether it did.
    pub(crate) async fn take_draining_back(
        &self,
        own: &TargetGroup,
        is_active: bool,
    ) -> Result<bool, StepError> {
        let is_due = !is_active && own.has(tags::DRAINING_SINCE) && self.has_fresh_tasks(own);
        if is_due {
            let marks = [tags::DRAINING_SINCE, tags::IDLE_SINCE];
            target_group::untag(self.elb, &own.arn, &marks).await?;
        }
        Ok(is_due)
    }

    /// Whether the tag of this rollback has kept the deployment from being drained since the rollback looked
    /// whether it drains, and will do so until this run has switched.
    fn has_fresh_tasks(&self, own: &TargetGroup) -> bool {
        let at_the_end = (self.clock)().saturating_add(defaults::SWITCH_IN_FLIGHT);
        let restoring = own.tags.get(tags::RESTORING_SINCE);
        self.input.roll_back
            && restoring.is_some()
            && restoring == self.input.restoring_since.as_ref()
            && tags::is_being_restored(&own.tags, at_the_end)
    }

    /// Removes what has done its work, now that the default action protects the deployment: the tag of a
    /// rollback, and those of a drain that gave way to this switch or whose tasks the rollback has replaced.
    ///
    /// Traffic is where it should be, so a failure here does not fail the switch. It is returned as text to
    /// append to the reason.
    pub(crate) async fn tidy(&self, active: &TargetGroup) -> String {
        let restoring = self.input.roll_back.then_some(tags::RESTORING_SINCE);
        let gave_way = guard::gave_way(&active.tags) || self.has_fresh_tasks(active);
        let draining = [tags::DRAINING_SINCE, tags::IDLE_SINCE];
        let marks: Vec<_> = restoring
            .into_iter()
            .chain(draining.into_iter().filter(|_| gave_way))
            // Its rules are there again, and visitors may be pinned to it.
            .chain([tags::EVICTED_AT])
            .filter(|mark| active.has(mark))
            .collect();
        if marks.is_empty() {
            return String::new();
        }
        match target_group::untag(self.elb, &active.arn, &marks).await {
            Ok(()) => String::new(),
            Err(error) => format!("; however, {}", error.message),
        }
    }
}
