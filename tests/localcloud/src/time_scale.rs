//! The speed of the local cloud, relative to AWS.

use std::time::Duration;

/// The factor for every duration of AWS: health check intervals, waits and retries of Step Functions,
/// deregistration delays, the start of tasks. 1.0 is the speed of AWS.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TimeScale(pub f64);

impl TimeScale {
    /// The local duration of `seconds` on AWS.
    pub fn seconds(self, seconds: f64) -> Duration {
        Duration::from_secs_f64((seconds * self.0).max(0.0))
    }
}

impl Default for TimeScale {
    /// A tenth: a health check interval of 30 s becomes 3 s.
    fn default() -> Self {
        TimeScale(0.1)
    }
}
