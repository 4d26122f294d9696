//! The limits on the conditions of a rule.
//!
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/rule-condition-types.html>
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-limits.html>

use crate::gateway::{answer::AwsError, operation::Params};

/// The limit on condition values per rule.
const VALUES: usize = 5;
/// The limit on wildcards per rule. Some old accounts have 6.
const WILDCARDS: usize = 5;
/// The limit on the length of a header's name, in characters.
const HEADER_NAME: usize = 40;
/// The limit on the length of a value, in characters.
const VALUE: usize = 128;

/// Refuses conditions that exceed a limit.
///
/// # Errors
/// `ValidationError`.
pub fn check(params: &Params) -> Result<(), AwsError> {
    let refused = |message: String| Err(AwsError::new("ValidationError", message));
    let in_condition =
        |name: &str, part: &str| name.starts_with("Conditions.member.") && name.contains(part);
    let values: Vec<&str> = params
        .values(|name| in_condition(name, "Values.member."))
        .collect();
    let wildcards: usize = values
        .iter()
        .map(|value| value.matches(['*', '?']).count())
        .sum();
    if values.len() > VALUES {
        return refused(format!("A rule can only have '{VALUES}' condition values"));
    }
    if wildcards > WILDCARDS {
        return refused(format!(
            "A rule can only have '{WILDCARDS}' condition wildcards"
        ));
    }
    if let Some(value) = values.iter().find(|value| value.chars().count() > VALUE) {
        return refused(format!(
            "Condition value '{value}' cannot be longer than '{VALUE}' characters"
        ));
    }
    let mut names = params.values(|name| in_condition(name, ".HttpHeaderName"));
    match names.find(|name| name.chars().count() > HEADER_NAME) {
        Some(name) => refused(format!(
            "Header name '{name}' cannot be longer than '{HEADER_NAME}' characters"
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUE_NAME: &str = "Conditions.member.1.HttpHeaderConfig.Values.member.";

    fn check_values(values: &[&str]) -> bool {
        let names: Vec<String> = (1..=values.len())
            .map(|n| format!("{VALUE_NAME}{n}"))
            .collect();
        let pairs = names
            .iter()
            .zip(values)
            .map(|(name, value)| (name.as_str(), *value));
        check(&pairs.collect()).is_ok()
    }

    #[test]
    fn a_rule_has_five_values_and_five_wildcards_at_most() {
        assert!(check_values(&["a", "b", "c", "d", "e"]));
        assert!(!check_values(&["a", "b", "c", "d", "e", "f"]));
        assert!(check_values(&["*a*b*", "??"]));
        assert!(!check_values(&["*a*b*", "???"]));
        assert!(!check_values(&[&"a".repeat(129)]));
    }

    #[test]
    fn a_header_name_has_40_characters_at_most() {
        let name = "Conditions.member.1.HttpHeaderConfig.HttpHeaderName";
        let check =
            |length: usize| check(&[(name, "a".repeat(length).as_str())].into_iter().collect());
        assert_eq!(check(40), Ok(()));
        assert_eq!(check(41).unwrap_err().code, "ValidationError");
    }
}
