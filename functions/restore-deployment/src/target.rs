//! Which deployment a rollback goes to.

use lifecycle::listener::{self, DeploymentTargetGroup};
use lifecycle::{DeploymentId, ErrorName, Settings, StepError, tags};

/// The listener's deployments as they are now.
#[derive(Debug)]
pub struct Seen {
    /// What the default action names, by name: the heaviest, if several.
    pub active: Option<DeploymentId>,
    /// Those that a rule names and that carry our tags.
    pub deployments: Vec<DeploymentTargetGroup>,
}

/// Reads the rules, then the default action.
///
/// # Errors
/// As [`lifecycle::aws_error::CODES`] say.
pub async fn look(
    elb: &aws_sdk_elasticloadbalancingv2::Client,
    settings: &Settings,
) -> Result<Seen, StepError> {
    let rules = listener::rules(elb, &settings.listener_arn).await?;
    let forwards: Vec<_> = rules
        .iter()
        .flat_map(|rule| listener::forwards(rule.actions()))
        .collect();
    let deployments = listener::deployments(
        elb,
        &settings.environment,
        forwards.iter().filter_map(|group| group.target_group_arn()),
    )
    .await?;
    let listener = listener::read(elb, &settings.listener_arn).await?;
    let mut named = listener::forwards(listener.default_actions());
    named.sort_by_key(|group| std::cmp::Reverse(group.weight()));
    let active = named
        .iter()
        .filter_map(|group| group.target_group_arn())
        .find_map(|arn| listener::named_like_ours(arn, &settings.environment));
    Ok(Seen {
        active,
        deployments,
    })
}

impl Seen {
    /// The deployment to go back to: the one named, or the newest that was left for the active one.
    ///
    /// # Errors
    /// `NoRollbackTarget`, with the reason and with what could be gone back to instead.
    pub fn choose(
        &self,
        named: Option<&DeploymentId>,
    ) -> Result<&DeploymentTargetGroup, StepError> {
        let Some(id) = named else {
            return self.newest().ok_or_else(|| {
                self.refused(match &self.active {
                    Some(active) => format!(
                        "there is no deployment older than {active} to go back to that was live and not rolled back"
                    ),
                    None => "there is no deployment to go back to".to_owned(),
                })
            });
        };
        if self.active.as_ref() == Some(id) {
            return Err(self.refused(format!("{id} is active already")));
        }
        let Some(group) = self
            .deployments
            .iter()
            .find(|group| group.deployment == *id)
        else {
            return Err(self.refused(format!(
                "{id} is gone: no listener rule names a target group of it; push its image again under a new deployment id"
            )));
        };
        if group.tags.contains_key(tags::DELETING_SINCE) {
            return Err(self.refused(format!(
                "{id} is being deleted; push its image again under a new deployment id"
            )));
        }
        if !group.tags.contains_key(tags::LIVE_SINCE) {
            return Err(self.refused(format!("{id} was never live")));
        }
        Ok(group)
    }

    fn newest(&self) -> Option<&DeploymentTargetGroup> {
        self.choices()
            .filter(|group| !group.tags.contains_key(tags::ROLLED_BACK_AT))
            .filter(|group| {
                self.active
                    .as_ref()
                    .is_none_or(|active| group.deployment < *active)
            })
            .max_by(|one, other| one.deployment.cmp(&other.deployment))
    }

    /// Everything that a rollback may name.
    fn choices(&self) -> impl Iterator<Item = &DeploymentTargetGroup> {
        self.deployments.iter().filter(|group| {
            Some(&group.deployment) != self.active.as_ref()
                && group.tags.contains_key(tags::LIVE_SINCE)
                && !group.tags.contains_key(tags::DELETING_SINCE)
        })
    }

    /// What a rollback to that deployment leaves: the active one, and what is ready and newer.
    pub fn left_for(&self, target: &DeploymentId) -> Vec<DeploymentId> {
        let ready = self.deployments.iter().filter(|group| {
            group.deployment > *target
                && group.tags.contains_key(tags::READY_AT)
                && !group.tags.contains_key(tags::DELETING_SINCE)
        });
        let mut left: Vec<_> = self
            .active
            .iter()
            .chain(ready.map(|group| &group.deployment))
            .cloned()
            .collect();
        left.sort();
        left.dedup();
        left
    }

    /// The refusal, with the deployments that can be named instead.
    pub fn refused(&self, why: String) -> StepError {
        let mut choices: Vec<_> = self.choices().map(|group| &group.deployment).collect();
        choices.sort();
        choices.reverse();
        let choices: Vec<_> = choices.into_iter().map(DeploymentId::as_str).collect();
        let advice = match choices.as_slice() {
            [] => "no deployment is left that was live before".to_owned(),
            choices => format!("what can be gone back to: {}", choices.join(", ")),
        };
        StepError::new(ErrorName::NoRollbackTarget, format!("{why}; {advice}"))
    }
}
