//! How long the scheduler waits after tasks that stopped before they ran.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-throttle-logic.html>

/// Seconds on AWS to wait after `failures` consecutive tasks went from PENDING to STOPPED without
/// running. AWS documents that the delay grows up to 27 minutes, but not how. Here it begins with the
/// fourth failure and doubles each time.
pub fn delay_seconds(failures: u32) -> f64 {
    const FREE_FAILURES: u32 = 3;
    const MAX_DELAY: f64 = 27.0 * 60.0;
    if failures <= FREE_FAILURES {
        0.0
    } else {
        let doublings = (failures - FREE_FAILURES - 1).min(10);
        (10.0 * f64::from(1u32 << doublings)).min(MAX_DELAY)
    }
}

/// The event that ECS adds when it delays a start.
pub fn event(service: &str) -> String {
    format!("(service {service}) is unable to consistently start tasks successfully.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failures_cause_no_delay_and_later_ones_increasing_delays() {
        assert_eq!(delay_seconds(0), 0.0);
        assert_eq!(delay_seconds(3), 0.0);
        assert_eq!(delay_seconds(4), 10.0);
        assert_eq!(delay_seconds(5), 20.0);
        assert!(delay_seconds(6) > delay_seconds(5));
    }

    #[test]
    fn the_delay_never_exceeds_27_minutes() {
        assert_eq!(delay_seconds(u32::MAX), 27.0 * 60.0);
    }
}
