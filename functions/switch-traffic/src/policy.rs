//! Keeps the rules of all deployments equal to the default action in what they do before they route.

use lifecycle::policy::{self, Policy};
use lifecycle::routing::Routing;
use lifecycle::{ErrorName, StepError};

use crate::Switch;

impl Switch<'_> {
    /// Gives the default action's policy to the rules that have another one. Returns whether it changed
    /// any, so that the listener is read again.
    ///
    /// `kept` is the policy that this run has given to the rules. They are not changed twice for the same
    /// one: if AWS showed a rule's actions in another form than the listener's, that would never end.
    ///
    /// # Errors
    /// As for [`policy::apply`], and `Configuration` when the application would be open by mistake; the default action
    /// is not changed then.
    pub(crate) async fn keep_policy(
        &self,
        routing: &Routing,
        kept: &mut Option<Policy>,
    ) -> Result<bool, StepError> {
        let policy = routing.default_action.policy()?;
        if kept.as_ref() == Some(&policy) {
            return Ok(false);
        }
        if policy.is_empty() && routing.default_action.is_nothing_deployed() {
            self.refuse_to_open(routing, &policy).await?;
        }
        let rules = routing.rules.iter();
        let changed = policy::apply(self.elb, self.secrets, self.baseline, &policy, rules);
        let changed = changed.await?;
        *kept = Some(policy);
        Ok(changed > 0)
    }

    /// Refuses to take the login from the rules because an operator has put the fixed answer back without it: after a
    /// maintenance, that is more likely forgotten than meant, and the application would be open.
    async fn refuse_to_open(&self, routing: &Routing, none: &Policy) -> Result<(), StepError> {
        let guarded =
            policy::differing(self.elb, self.baseline, none, routing.rules.iter()).await?;
        let Some(rule) = guarded.first() else {
            return Ok(());
        };
        let listener = &self.baseline.listener_arn;
        let rule = rule.rule_arn().unwrap_or_default();
        Err(StepError::new(
            ErrorName::Configuration,
            format!(
                "the default action of {listener} is the fixed 503 alone, and rules of deployments, such as {rule}, do \
                 something before they route, such as a login; put the same actions before the fixed 503, or, if there is \
                 to be no login any more, remove them from those rules first"
            ),
        ))
    }
}
