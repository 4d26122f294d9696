//! Whether EventBridge may invoke a function for a rule.
//!
//! <https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-use-resource-based.html#eb-lambda-permissions>

use serde_json::Value;
use wildmatch::WildMatch;

/// Whether a function's policy lets `events.amazonaws.com` invoke the function for a rule.
pub fn lets_rule_invoke(policy: &Value, rule_arn: &str) -> bool {
    let statements = policy["Statement"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    statements.iter().any(|statement| {
        statement["Effect"] == "Allow"
            && one_or_more(&statement["Principal"]["Service"]).contains(&"events.amazonaws.com")
            && one_or_more(&statement["Action"])
                .iter()
                .any(|action| ["lambda:InvokeFunction", "lambda:*", "*"].contains(action))
            && source_matches(&statement["Condition"], rule_arn)
    })
}

fn source_matches(condition: &Value, rule_arn: &str) -> bool {
    let Some(operators) = condition.as_object() else {
        return true;
    };
    operators
        .values()
        .filter_map(Value::as_object)
        .flatten()
        .all(|(key, patterns)| {
            !key.eq_ignore_ascii_case("aws:SourceArn")
                || one_or_more(patterns)
                    .iter()
                    .any(|pattern| WildMatch::new(pattern).matches(rule_arn))
        })
}

fn one_or_more(value: &Value) -> Vec<&str> {
    match value {
        Value::Array(values) => values.iter().filter_map(Value::as_str).collect(),
        value => value.as_str().into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_function_without_a_permission_for_the_rule_cannot_be_invoked() {
        let policy = |arn: &str| {
            json!({"Statement": [{
                "Effect": "Allow",
                "Principal": {"Service": "events.amazonaws.com"},
                "Action": "lambda:InvokeFunction",
                "Condition": {"ArnLike": {"AWS:SourceArn": arn}},
            }]})
        };
        assert!(lets_rule_invoke(&policy("arn:rule/a"), "arn:rule/a"));
        assert!(lets_rule_invoke(&policy("arn:rule/*"), "arn:rule/a"));
        assert!(!lets_rule_invoke(&policy("arn:rule/b"), "arn:rule/a"));
        assert!(!lets_rule_invoke(&json!({}), "arn:rule/a"));
    }
}
