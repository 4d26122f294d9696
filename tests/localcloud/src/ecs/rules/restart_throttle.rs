//! How long the scheduler waits before it tries again after tasks that never ran.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-throttle-logic.html>

/// Seconds (AWS's) to wait after `failures` tasks in a row went from PENDING to STOPPED without
/// running. AWS documents that the delay grows up to 27 minutes, not by how much; here it starts
/// with the fourth failure and doubles.
pub fn delay_seconds(failures: u32) -> f64 {
    const FREE_FAILURES: u32 = 3;
    const LONGEST: f64 = 27.0 * 60.0;
    if failures <= FREE_FAILURES {
        0.0
    } else {
        let doublings = (failures - FREE_FAILURES - 1).min(10);
        (10.0 * f64::from(1u32 << doublings)).min(LONGEST)
    }
}

/// The event that ECS adds when it starts to slow down.
pub fn event(service: &str) -> String {
    format!("(service {service}) is unable to consistently start tasks successfully.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failures_are_retried_at_once_and_later_ones_ever_more_slowly() {
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
