//! The deployment circuit breaker: the number of failed tasks at which a deployment fails.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-circuit-breaker.html>

use serde::Deserialize;

/// `deploymentCircuitBreaker` of a service's deployment configuration.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CircuitBreaker {
    /// Whether failures can fail the deployment.
    pub enable: bool,
    /// Whether a failure restores the last completed deployment, which is not supported here.
    pub rollback: bool,
}

/// The number of failed tasks at which a deployment is FAILED. `None` if the breaker is off.
pub fn threshold(breaker: &CircuitBreaker, desired_count: u32) -> Option<u32> {
    let half = desired_count.div_ceil(2);
    breaker.enable.then(|| half.clamp(3, 200))
}

/// `rolloutStateReason` of a deployment that the breaker failed.
pub const FAILED_REASON: &str = "ECS deployment circuit breaker: tasks failed to start.";

#[cfg(test)]
mod tests {
    use super::*;

    fn on() -> CircuitBreaker {
        CircuitBreaker {
            enable: true,
            ..CircuitBreaker::default()
        }
    }

    #[test]
    fn the_threshold_is_half_the_desired_count_within_3_and_200() {
        for (desired, expected) in [(1, 3), (2, 3), (25, 13), (400, 200), (800, 200)] {
            assert_eq!(threshold(&on(), desired), Some(expected), "{desired}");
        }
    }

    #[test]
    fn a_breaker_that_is_off_never_fails_a_deployment() {
        assert_eq!(threshold(&CircuitBreaker::default(), 2), None);
    }
}
