//! Holds an AWS call up, so that something else happens before it takes effect.

use std::time::Duration;

use anyhow::Context;
use localcloud::front_door::faults::{Fault, FaultRule};

use crate::Stage;

/// Shorter than the time that a function gives one attempt of a call (`lifecycle::defaults`), so that
/// the call is held and not made again.
pub const HOLD: Duration = Duration::from_millis(4500);
/// Longer than that: the function gives the attempt up and makes the call again, and what the first
/// attempt reads is thrown away. Several of them in a row hold a function the longest.
pub const HOLD_ATTEMPT: Duration = Duration::from_millis(6000);

impl Stage {
    /// Holds the n-th call of that operation from now on for so long.
    pub fn hold(&self, service: &str, operation: &str, nth: u32, time: Duration) -> FaultRule {
        let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let rule = FaultRule::next(service, operation, Fault::Slow { milliseconds }).at(nth);
        self.cloud.faults().add(rule.clone());
        rule
    }

    /// Waits until that call has come; it is still held then, unless this machine is very slow.
    ///
    /// # Errors
    /// When it does not come within a minute.
    pub async fn holds(&self, rule: &FaultRule) -> anyhow::Result<()> {
        self.within(Duration::from_secs(60), async || {
            let faults = self.cloud.faults().all();
            Ok(faults
                .iter()
                .any(|(held, seen)| held == rule && *seen >= rule.nth))
        })
        .await
        .with_context(|| format!("no such call came: {rule:?}"))
    }
}
