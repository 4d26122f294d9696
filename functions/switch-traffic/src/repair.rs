//! A repair is planned by a cleanup and done later, so it is checked again before anything is tagged.

use lifecycle::routing::{DefaultAction, Routing};
use lifecycle::{StepError, tags};

use crate::{Outcome, Output, Switch};

impl Switch<'_> {
    /// The answer if the repair is not needed any more: another deployment is active than when it was planned,
    /// the active one is healthy again, or a rollback has taken the chosen one back.
    pub(crate) async fn is_repair_needless(&self) -> Result<Option<Output>, StepError> {
        let routing = Routing::read(self.elb, self.baseline).await?;
        let own = self.own(&routing)?;
        let why = match routing.default_action.active() {
            // An earlier attempt has switched, and this one reads it back.
            Some(active) if *active == own.deployment => return Ok(None),
            _ if own.has(tags::ROLLED_BACK_AT) => {
                format!("{} was rolled back since it was chosen", own.deployment)
            }
            Some(active) if !self.replaces(&routing.default_action) => {
                format!("{active} was made active since the repair was planned")
            }
            Some(active) if self.is_active_healthy(&routing.default_action).await? => {
                format!("{active} is active and healthy")
            }
            _ => return Ok(None),
        };
        // Those of an earlier attempt, which did not get as far as the switch.
        if self.input.roll_back {
            self.take_marks_back().await?;
        }
        Ok(Some(Output {
            outcome: Outcome::NotNeeded,
            active_deployment_id: routing.default_action.active().cloned(),
            previous_deployment_id: None,
            rolled_back: Vec::new(),
            reason: why,
        }))
    }

    /// Whether the plan names what is active as what the repair replaces. A plan for a default action that names
    /// nothing, or a target group that is gone, names nothing.
    fn replaces(&self, default_action: &DefaultAction) -> bool {
        let planned = self.input.replaced.as_deref().unwrap_or_default();
        let active = default_action.active();
        planned.is_empty() || planned.iter().any(|it| Some(it) == active)
    }

    async fn is_active_healthy(&self, default_action: &DefaultAction) -> Result<bool, StepError> {
        match default_action.active_target_group() {
            Some(arn) => self.has_healthy_target(arn).await,
            None => Ok(false),
        }
    }
}
