//! Deletes the rules of a deployment that serves no visitors and is kept.

use lifecycle::guard::Intent;
use lifecycle::routing::DefaultAction;
use lifecycle::{ErrorName, StepError, service, target_group};

use crate::{Delete, Output, Verdict};

impl Delete<'_> {
    /// Deletes the rules, if the deployment still has neither a target nor a running task.
    ///
    /// # Errors
    /// `DeploymentActive` when the default action names it; `DeploymentKept` when a rollback to it is under
    /// way, an operator protects it, or it serves again; else as [`lifecycle::aws_error::CODES`] say.
    pub(crate) async fn unroute(&self) -> Result<Output, StepError> {
        let (id, elb) = (self.id, &self.clients.elb);
        let Some(group) = target_group::find(elb, id).await? else {
            return Ok(unrouted(format!("{id} has no target group with its tags")));
        };
        let service = service::find(&self.clients.ecs, self.baseline, id).await?;
        let running = service.map_or(0, |service| service.running_count());
        let targets = target_group::health(elb, &group.arn).await?;
        let registered = targets.unwrap_or_default().len();
        if running > 0 || registered > 0 {
            let message = format!(
                "{id} keeps its rules: {running} of its tasks run and it has {registered} targets"
            );
            return Err(StepError::new(ErrorName::DeploymentKept, message));
        }
        Intent::Delete.refuse_restored(id, &group.tags, self.now())?;
        Intent::Delete.refuse_protected(id, &group.tags)?;
        let default_action = DefaultAction::read(elb, self.baseline).await?;
        Intent::Delete.refuse_named(id, &default_action)?;
        let rules = create_listener_rule::undo(elb, self.baseline, id).await?;
        Ok(unrouted(format!(
            "{id} is kept without its rules; this call deleted {rules}"
        )))
    }
}

fn unrouted(reason: String) -> Output {
    Output {
        verdict: Verdict::Unrouted,
        reason,
    }
}
