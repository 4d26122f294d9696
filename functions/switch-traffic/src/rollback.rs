//! What a rollback does beside the switch: it takes back what it leaves and gives its target free.

use lifecycle::listener::DeploymentTargetGroup;
use lifecycle::{DeploymentId, ErrorName, StepError, tags};

use crate::{Seen, Switch};

impl Switch<'_> {
    /// Marks what the rollback to `target` leaves as rolled back: the active deployment, and every
    /// one that is ready and newer, unless it is not among those that it `leaves`. Gives their target
    /// groups.
    ///
    /// Whatever is switched by another run meanwhile, traffic is only ever on what it was on or on
    /// the target: the target's own mark goes first, the active deployment is marked last.
    ///
    /// # Errors
    /// `ResourceConflict`, before anything is marked, when the target is being deleted; `Transient` when
    /// no rule names it.
    pub(crate) async fn roll_back(
        &self,
        target: &DeploymentId,
        leaves: Option<&[DeploymentId]>,
    ) -> Result<Vec<String>, StepError> {
        let seen = self.look().await?;
        let own = seen.deployment(target)?;
        if own.tags.contains_key(tags::DELETING_SINCE) {
            return Err(StepError::new(
                ErrorName::ResourceConflict,
                format!("{target} is being deleted and cannot be rolled back to"),
            ));
        }
        if own.tags.contains_key(tags::ROLLED_BACK_AT) {
            self.unmark(&own.arn, &[tags::ROLLED_BACK_AT]).await?;
        }
        let active = seen.active().map(|group| &group.arn);
        let is_active = |group: &DeploymentTargetGroup| Some(&group.arn) == active;
        let mut left: Vec<_> = seen
            .deployments
            .iter()
            .filter(|group| group.deployment != *target)
            .filter(|group| leaves.is_none_or(|leaves| leaves.contains(&group.deployment)))
            .filter(|group| {
                is_active(group)
                    || (group.deployment > *target
                        && group.tags.contains_key(tags::READY_AT)
                        && !group.tags.contains_key(tags::DELETING_SINCE))
            })
            .collect();
        left.sort_by_key(|group| is_active(group));
        for group in &left {
            self.mark_as_left(group).await?;
        }
        Ok(left.into_iter().map(|group| group.arn.clone()).collect())
    }

    /// Marks what the rollback leaves once more, where somebody has removed the mark since: a rollback to
    /// one of them at the same time gives it free for itself, and if it is this one's switch that stays,
    /// no other may go there again. Says whether there was such a one.
    pub(crate) async fn leave_again(
        &self,
        seen: &Seen,
        left: &[String],
    ) -> Result<bool, StepError> {
        let mut again = false;
        for group in seen.deployments.iter().filter(|it| left.contains(&it.arn)) {
            again |= self.mark_as_left(group).await?;
        }
        Ok(again)
    }

    /// Marks a deployment as rolled back, unless it is. Says whether it did.
    async fn mark_as_left(&self, group: &DeploymentTargetGroup) -> Result<bool, StepError> {
        let marked = group.tags.contains_key(tags::ROLLED_BACK_AT);
        // Without our tags it is left as it is; that we leave it is enough for this run.
        if marked || !tags::belong_to(&group.tags, &group.deployment) {
            return Ok(false);
        }
        self.mark(&group.arn, tags::ROLLED_BACK_AT).await?;
        Ok(true)
    }

    /// Removes the mark under which the target was neither drained nor deleted, now that the
    /// listener says so. What a drain that gave way to the rollback wrote goes with it.
    ///
    /// Traffic is where it should be, so a failure is no failure of the rollback: the mark ends by
    /// itself. It is told in the answer, as a sentence to add.
    pub(crate) async fn finish_restoring(&self, target: &DeploymentTargetGroup) -> String {
        let marks: &[&str] = match tags::is_being_restored(&target.tags, self.now) {
            true => &[
                tags::RESTORING_SINCE,
                tags::DRAINING_SINCE,
                tags::IDLE_SINCE,
            ],
            false => &[tags::RESTORING_SINCE],
        };
        let marks: Vec<_> = marks
            .iter()
            .copied()
            .filter(|mark| target.tags.contains_key(*mark))
            .collect();
        if marks.is_empty() {
            return String::new();
        }
        match self.unmark(&target.arn, &marks).await {
            Ok(()) => String::new(),
            Err(error) => format!(", but {}", error.message),
        }
    }
}
