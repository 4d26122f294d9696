//! The label that names the target group of a request count.
//!
//! "The format of the resource label is app/my-alb/778d41231b141a0f/targetgroup/my-alb-target-group/943f017f100becff",
//! the final portions of both ARNs.
//! <https://docs.aws.amazon.com/autoscaling/application/APIReference/API_PredefinedMetricSpecification.html>

use super::requests::validation;
use crate::gateway::{answer::AwsError, elbv2::snapshot::Snapshot};

/// The ARN of the target group in a label.
///
/// # Errors
/// `ValidationException` if the label has another form, or no listener or rule of that load balancer names the group.
/// AWS documents that the group must be attached, but not its message.
pub fn target_group<'a>(label: &str, state: &'a Snapshot) -> Result<&'a str, AwsError> {
    let invalid = || validation(format!("Invalid resource label: {label}"));
    let (load_balancer, group) = label.split_once("/targetgroup/").ok_or_else(invalid)?;
    if load_balancer.split('/').count() != 3 || !load_balancer.starts_with("app/") {
        return Err(invalid());
    }
    let balancer = format!(":loadbalancer/{load_balancer}");
    let group = format!(":targetgroup/{group}");
    state
        .listeners
        .iter()
        .map(|listener| listener.load_balancer_arn.as_str())
        .filter(|arn| arn.ends_with(&balancer))
        .flat_map(|arn| state.rules_of(arn))
        .flat_map(|rule| rule.target_groups())
        .find(|arn| arn.ends_with(&group))
        .ok_or_else(|| {
            validation(format!(
                "Target group in resource label {label} is not attached to the load balancer"
            ))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::elbv2::examples::{default_rule, group, rule, state};

    fn two_load_balancers() -> Snapshot {
        let mut state = state([
            default_rule(1, "old"),
            rule(1, "10", "new"),
            default_rule(2, "other"),
        ]);
        for (number, listener) in (1..).zip(&mut state.listeners) {
            let prefix = "arn:aws:elasticloadbalancing:us-east-1:000000000000:loadbalancer";
            listener.load_balancer_arn = format!("{prefix}/app/lb{number}/1");
        }
        state
    }

    #[test]
    fn a_label_names_a_group_of_a_listener_or_rule_of_its_load_balancer() {
        let state = two_load_balancers();
        let found = |label| target_group(label, &state).map(str::to_owned);
        assert_eq!(found("app/lb1/1/targetgroup/old/1"), Ok(group("old")));
        assert_eq!(found("app/lb1/1/targetgroup/new/1"), Ok(group("new")));
        assert_eq!(found("app/lb2/1/targetgroup/other/1"), Ok(group("other")));
        for label in [
            "app/lb2/1/targetgroup/new/1",
            "app/lb1/1/targetgroup/missing/1",
            "app/lb1/1/targetgroup/ew/1",
            "lb1/1/targetgroup/new/1",
            "net/lb1/1/targetgroup/new/1",
            "/targetgroup/new/1",
            "app/lb1/1",
        ] {
            let error = target_group(label, &state).expect_err(label);
            assert_eq!(error.code, "ValidationException", "{label}");
        }
    }
}
