//! A priority is a number from 1 to 50000 that no other rule of the listener has.
//!
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_CreateRule.html>

use super::snapshot::Snapshot;
use crate::gateway::{answer::AwsError, operation::Params};

/// Refuses a new rule whose priority is out of range or in use.
///
/// # Errors
/// `ValidationError` or `PriorityInUse`.
pub fn check(params: &Params, state: &Snapshot) -> Result<(), AwsError> {
    let listener = params.get("ListenerArn").unwrap_or_default();
    let priority = number(params.get("Priority").unwrap_or_default())?;
    let in_use = state
        .rules
        .iter()
        .any(|rule| rule.listener_arn == listener && rule.priority.parse() == Ok(priority));
    if in_use {
        return Err(AwsError::new(
            "PriorityInUse",
            format!("Priority '{priority}' is currently in use"),
        ));
    }
    Ok(())
}

fn number(priority: &str) -> Result<u32, AwsError> {
    priority
        .parse()
        .ok()
        .filter(|priority| (1..=50_000).contains(priority))
        .ok_or_else(|| {
            AwsError::new(
                "ValidationError",
                format!("Priority '{priority}' must be a number between 1 and 50000"),
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::elbv2::examples::{listener, rule, state};

    #[test]
    fn a_priority_in_use_on_the_same_listener_is_refused() {
        let state = state([rule(1, "100", "a"), rule(2, "101", "b")]);
        let create = |number, priority| {
            let listener = listener(number);
            check(
                &[("ListenerArn", listener.as_str()), ("Priority", priority)]
                    .into_iter()
                    .collect(),
                &state,
            )
            .map_err(|error| error.code)
        };
        assert_eq!(create(1, "100"), Err("PriorityInUse"));
        assert_eq!(
            create(1, "101"),
            Ok(()),
            "only a rule of another listener has it"
        );
        assert_eq!(create(1, "0"), Err("ValidationError"));
        assert_eq!(create(1, "50001"), Err("ValidationError"));
        assert_eq!(create(1, "50000"), Ok(()));
    }
}
