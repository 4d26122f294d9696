//! Delays or holds AWS calls, so that something else happens before they take effect.

use std::time::Duration;

use anyhow::Context;
use localcloud::gateway::faults::{Fault, FaultRule};

use crate::TestEnvironment;

/// Shorter than the time that a function allows for one attempt of a call (`lifecycle::defaults`), so
/// that the call is late and is not retried.
pub const DELAY: Duration = Duration::from_millis(4500);
/// Longer than that time: the function abandons the attempt and retries, and the answer to the first
/// attempt is lost. Several of these in a row delay a function the longest.
pub const DELAY_PAST_TIMEOUT: Duration = Duration::from_millis(6000);

impl TestEnvironment {
    /// Delays the `nth` call of the operation by `time`. Calls are counted from now, starting at 1.
    pub fn delay_call(
        &self,
        service: &str,
        operation: &str,
        nth: u32,
        time: Duration,
    ) -> FaultRule {
        let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let rule = FaultRule::next(service, operation, Fault::Slow { milliseconds }).at(nth);
        self.cloud.faults().add(rule.clone());
        rule
    }

    /// Holds every call of the operation by a step, until [`TestEnvironment::let_go`]. A call that was held never
    /// takes effect. The step gives it up after a while and is repeated, for more than a minute in all.
    pub fn hold_calls(&self, step: &str, service: &str, operation: &str) -> FaultRule {
        let never = Fault::Slow {
            milliseconds: 3_600_000,
        };
        let rule = FaultRule::next(service, operation, never).forever();
        let rule = rule.of(&format!("{}-{step}", self.name));
        self.cloud.faults().add(rule.clone());
        rule
    }

    /// Holds no further call by this rule.
    pub fn let_go(&self, held: &FaultRule) {
        self.cloud.faults().remove(held);
    }

    /// Waits until the delayed or held call arrives. A delayed one has not taken effect by then, unless the machine
    /// is very slow.
    ///
    /// # Errors
    /// When it does not arrive within a minute.
    pub async fn call_arrived(&self, rule: &FaultRule) -> anyhow::Result<()> {
        self.wait_until(Duration::from_secs(60), async || {
            let faults = self.cloud.faults().all();
            Ok(faults
                .iter()
                .any(|(delayed, seen)| delayed == rule && *seen >= rule.nth))
        })
        .await
        .with_context(|| format!("the delayed call never arrived: {rule:?}"))
    }
}
