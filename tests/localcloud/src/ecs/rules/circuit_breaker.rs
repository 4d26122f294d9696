//! The deployment circuit breaker: how many failed tasks fail a deployment.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-circuit-breaker.html>

use serde::Deserialize;

/// `deploymentCircuitBreaker` of a service's deployment configuration.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CircuitBreaker {
    /// Whether failures are counted against the threshold at all.
    pub enable: bool,
    /// Whether the last completed deployment comes back after a failure.
    pub rollback: bool,
    /// Whether a healthy task sets the count of failures back to 0 (default true).
    pub reset_on_healthy_task: Option<bool>,
    /// How the threshold is calculated; half the desired count within 3 and 200 when absent.
    pub threshold_configuration: Option<Threshold>,
}

/// `thresholdConfiguration` of a circuit breaker.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Threshold {
    /// `BOUNDED_PERCENT`, `UNBOUNDED_PERCENT` or `COUNT`.
    #[serde(rename = "type")]
    pub kind: ThresholdKind,
    /// Percent of the desired count, or a number of tasks.
    pub value: u32,
}

/// How a threshold's value is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ThresholdKind {
    /// Percent of the desired count, at least 3 and at most 200.
    BoundedPercent,
    /// Percent of the desired count.
    UnboundedPercent,
    /// A number of tasks.
    Count,
}

/// The number of failed tasks at which a deployment is FAILED; `None` when the breaker is off.
pub fn threshold(breaker: &CircuitBreaker, desired_count: u32) -> Option<u32> {
    if !breaker.enable {
        return None;
    }
    let percent_of = |percent: u32| (percent * desired_count).div_ceil(100);
    Some(match &breaker.threshold_configuration {
        None => percent_of(50).clamp(3, 200),
        Some(Threshold { kind, value }) => match kind {
            ThresholdKind::BoundedPercent => percent_of(*value).clamp(3, 200),
            ThresholdKind::UnboundedPercent => percent_of(*value).max(1),
            ThresholdKind::Count => *value,
        },
    })
}

/// What `rolloutStateReason` says of a deployment that the breaker failed.
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

    #[test]
    fn a_count_is_taken_as_it_is_and_an_unbounded_percentage_is_not_clamped() {
        let with = |kind, value| CircuitBreaker {
            threshold_configuration: Some(Threshold { kind, value }),
            ..on()
        };
        assert_eq!(threshold(&with(ThresholdKind::Count, 5), 10), Some(5));
        assert_eq!(
            threshold(&with(ThresholdKind::UnboundedPercent, 50), 800),
            Some(400)
        );
    }
}
