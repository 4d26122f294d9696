//! How fast the local cloud's clock runs.

use std::time::Duration;

/// The factor by which every AWS duration is shortened: health check intervals, Step Functions
/// waits and retries, deregistration delays, task start-up. 1.0 is AWS's own speed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TimeScale(pub f64);

impl TimeScale {
    /// An AWS duration of `seconds` as it passes here.
    pub fn seconds(self, seconds: f64) -> Duration {
        Duration::from_secs_f64((seconds * self.0).max(0.0))
    }
}

impl Default for TimeScale {
    /// A tenth of AWS's durations: a 30 s health check interval becomes 3 s.
    fn default() -> Self {
        TimeScale(0.1)
    }
}
