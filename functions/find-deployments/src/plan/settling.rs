//! When a deployment was replaced, and whether the load balancer has forgotten that it was active.

use super::{MOVED, Planner};
use crate::facts::Deployment;
use lifecycle::tags::{self, Tags, seen_at, switched_to_at};
use time::UtcDateTime;

impl Planner<'_> {
    /// When a sweep first found that a deployment with these tags had been replaced. `None` if this sweep is
    /// the first.
    pub(super) fn replaced_at(&self, marks: &Tags) -> Option<UtcDateTime> {
        seen_at(marks, tags::REPLACED_AT, self.now)
    }

    /// When a deployment that drains is deleted even if it has visitors: counted from the later of the start
    /// of draining and its replacement. `None` if the start of draining is not a time.
    pub(super) fn deadline(&self, marks: &Tags) -> Option<UtcDateTime> {
        let draining = tags::time(marks, tags::DRAINING_SINCE, self.now)?;
        let replaced = self.replaced_at(marks).unwrap_or(self.now);
        Some(
            draining
                .max(replaced)
                .saturating_add(self.policy.drain_deadline),
        )
    }

    /// Why the deployment with these tags does not begin to drain and is not deleted by force yet, if so.
    ///
    /// The load balancer applies rule changes late, so new visitors reach the replaced deployment for some
    /// seconds.
    pub(super) fn unsettled(&self, marks: &Tags) -> Option<String> {
        if self.facts.moved {
            return Some(MOVED.to_owned());
        }
        if self.is_active_down() {
            return Some("the active deployment has no healthy target".to_owned());
        }
        let settle = self.policy.settle;
        let replaced = self.replaced_at(marks);
        if replaced.is_some_and(|replaced| self.now - replaced >= settle) {
            return None;
        }
        // The first sweeps after its replacement: the tags of the switch may be older than that.
        let last = match replaced {
            _ if self.is_replacement_explained(marks) => self.last_switch()?,
            replaced => replaced.unwrap_or(self.now),
        };
        (self.now - last < settle).then(|| {
            format!(
                "the switch at {} settles until {}",
                tags::timestamp(last),
                tags::timestamp(last.saturating_add(settle))
            )
        })
    }

    /// Whether the tags show the switch or the rollback that replaced a deployment with these tags. They do
    /// not if an operator modified the listener.
    fn is_replacement_explained(&self, marks: &Tags) -> bool {
        let switched_to = switched_to_at(marks, self.now);
        let active = self.active_deployment().and_then(Deployment::marks);
        let to_active = active.and_then(|marks| switched_to_at(marks, self.now));
        let rolled_back = tags::time(marks, tags::ROLLED_BACK_AT, self.now);
        switched_to <= to_active.max(rolled_back)
    }

    /// The last switch or rollback of any deployment that the tags show.
    fn last_switch(&self) -> Option<UtcDateTime> {
        let marks = self.facts.deployments.iter().filter_map(Deployment::marks);
        marks
            .flat_map(|marks| {
                let rolled_back = tags::time(marks, tags::ROLLED_BACK_AT, self.now);
                [switched_to_at(marks, self.now), rolled_back]
            })
            .flatten()
            .max()
    }
}
