//! Follows the requests of the load balancer and changes the desired counts of services.

use std::collections::BTreeMap;

use tokio::task::JoinHandle;

use super::{Autoscaling, tracking::PERIOD_SECONDS};
use crate::{load_balancer::targets::Targets, time_scale::TimeScale};

/// The number of requests that each target group has had, by its ARN.
type Counts = BTreeMap<String, u64>;

impl Autoscaling {
    /// Evaluates all policies once a minute, scaled, until the task is aborted.
    pub fn follow(&self, targets: Targets, time_scale: TimeScale) -> JoinHandle<()> {
        let autoscaling = self.clone();
        tokio::spawn(async move {
            let mut before = targets.requests();
            loop {
                tokio::time::sleep(time_scale.seconds(PERIOD_SECONDS)).await;
                let now = targets.requests();
                autoscaling.after_a_minute(&before, &now);
                before = now;
            }
        })
    }

    /// Evaluates all policies once, with the counts at the beginning and at the end of the minute.
    fn after_a_minute(&self, before: &Counts, now: &Counts) {
        let count = |counts: &Counts, group: &str| counts.get(group).copied().unwrap_or_default();
        let requests = |group: &str| count(now, group).saturating_sub(count(before, group));
        let resources = self.state().resources();
        for resource in resources {
            let service = resource.service_arn();
            let Some(scaling) = self.0.ecs.scaling_of(&service) else {
                continue;
            };
            let new = self.state().after_a_minute(
                &resource,
                scaling.desired_count,
                scaling.rolling_out,
                &requests,
            );
            if let Some(new) = new {
                tracing::info!(service, from = scaling.desired_count, to = new, "scaled");
                self.0.ecs.set_desired_count(&service, new);
            }
        }
    }
}
