//! What Application Auto Scaling reads and changes of a service.

use super::Ecs;
use super::model::{RolloutState, Service, ServiceStatus};

/// An ACTIVE service, as far as it matters for its scaling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scaling {
    pub desired_count: u32,
    /// Whether a deployment of the service is in progress.
    pub rolling_out: bool,
    /// The ARNs of its target groups.
    pub target_groups: Vec<String>,
}

impl Ecs {
    /// `None` if the service does not exist, or is not ACTIVE.
    pub(crate) fn scaling_of(&self, service_arn: &str) -> Option<Scaling> {
        let state = self.shared.state();
        let service = active(state.services.get(service_arn))?;
        let groups = service.target_groups();
        Some(Scaling {
            desired_count: service.desired_count,
            rolling_out: service
                .deployments
                .iter()
                .any(|deployment| deployment.rollout == RolloutState::InProgress),
            target_groups: groups.map(|(arn, _)| arn.to_owned()).collect(),
        })
    }

    /// Changes the desired count of an ACTIVE service as UpdateService does, without a deployment.
    pub(crate) fn set_desired_count(&self, service_arn: &str, count: u32) {
        let mut state = self.shared.state();
        let service = state.services.get_mut(service_arn);
        if let Some(service) = service.filter(|service| service.status == ServiceStatus::Active) {
            service.set_desired_count(count);
        }
        drop(state);
        self.shared.wake.notify_one();
    }
}

fn active(service: Option<&Service>) -> Option<&Service> {
    service.filter(|service| service.status == ServiceStatus::Active)
}
