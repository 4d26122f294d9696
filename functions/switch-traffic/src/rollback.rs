//! What a rollback does in addition to the switch: it tags what it replaces.

use lifecycle::routing::Routing;
use lifecycle::target_group::{self, TargetGroup};
use lifecycle::{ErrorName, StepError, tags};

use crate::Switch;

impl Switch<'_> {
    /// Tags what the rollback replaces as rolled back: the active deployment, and every one that is
    /// ready and newer, unless the input does not list it. Returns the ARNs of their target groups.
    ///
    /// Whatever other runs switch in the meantime, traffic stays where it was or goes to the target,
    /// because the target's own tag is removed first and the active deployment is tagged last.
    ///
    /// # Errors
    /// `ResourceConflict`, before anything is tagged, when the target is being deleted; `Transient` when
    /// no rule names it.
    pub(crate) async fn mark_replaced(&self) -> Result<Vec<String>, StepError> {
        let target = &self.input.deployment_id;
        let routing = Routing::read(self.elb, self.settings).await?;
        let own = self.own(&routing)?;
        if own.has(tags::DELETING_SINCE) {
            return Err(StepError::new(
                ErrorName::ResourceConflict,
                format!("{target} is being deleted and cannot be rolled back to"),
            ));
        }
        self.keep_policy(&routing, &mut None).await?;
        if own.has(tags::ROLLED_BACK_AT) {
            target_group::untag(self.elb, &own.arn, &[tags::ROLLED_BACK_AT]).await?;
        }
        let mut replaced = routing.replaced_by(target);
        if let Some(listed) = &self.input.replaced {
            replaced.retain(|group| listed.contains(&group.deployment));
        }
        for group in &replaced {
            self.mark_as_rolled_back(group).await?;
        }
        Ok(replaced
            .into_iter()
            .map(|group| group.arn.clone())
            .collect())
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

    /// Tags a deployment as rolled back, unless it has the tag. Returns whether it did.
    async fn mark_as_rolled_back(&self, group: &TargetGroup) -> Result<bool, StepError> {
        // A group without our tags is left as it is. This run does not choose it either way.
        let is_ours = tags::belong_to(&group.tags, &group.deployment);
        if group.has(tags::ROLLED_BACK_AT) || !is_ours {
            return Ok(false);
        }
        self.tag(&group.arn, tags::ROLLED_BACK_AT).await?;
        Ok(true)
    }
}
