//! Keeps the rules of all deployments equal to the default action in what they do before they route.

use lifecycle::StepError;
use lifecycle::policy::{self, Policy};
use lifecycle::routing::Routing;

use crate::Switch;

impl Switch<'_> {
    /// Gives the default action's policy to the rules that have another one. Returns whether it changed
    /// any, so that the listener is read again.
    ///
    /// `kept` is the policy that this run has given to the rules. They are not changed twice for the same
    /// one: if AWS showed a rule's actions in another form than the listener's, that would never end.
    ///
    /// # Errors
    /// As for [`policy::apply`]; the default action is not changed then.
    pub(crate) async fn keep_policy(
        &self,
        routing: &Routing,
        kept: &mut Option<Policy>,
    ) -> Result<bool, StepError> {
        let policy = routing.default_action.policy()?;
        if kept.as_ref() == Some(&policy) {
            return Ok(false);
        }
        let rules = routing.rules.iter();
        let changed = policy::apply(self.elb, self.secrets, self.settings, &policy, rules);
        let changed = changed.await?;
        *kept = Some(policy);
        Ok(changed > 0)
    }
}
