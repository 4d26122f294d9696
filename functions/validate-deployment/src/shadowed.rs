//! An operator's rules that stand behind those of the deployments.

use aws_sdk_elasticloadbalancingv2::types::Rule;
use lifecycle::{Environment, defaults, routing, target_group};

/// A warning about a rule that a visitor who is pinned to a deployment never reaches, if it is one.
///
/// The priorities below [`defaults::HEADER_RULES_FROM`] are the operator's.
pub fn warning(rule: &Rule, environment: &Environment) -> Option<String> {
    let priority = routing::priority(rule)?;
    if priority < defaults::HEADER_RULES_FROM || is_a_deployments(rule, environment) {
        return None;
    }
    Some(format!(
        "rule {} (priority {priority}) is not reached by requests with the header or cookie {}, because the rules of the \
         deployments come first; give it a priority from 1 to {}",
        rule.rule_arn().unwrap_or_default(),
        defaults::AFFINITY,
        defaults::OPERATORS_RULES_UP_TO,
    ))
}

/// Whether it looks like a rule of a deployment: it forwards to one, by a header alone, or waits for its tasks.
fn is_a_deployments(rule: &Rule, environment: &Environment) -> bool {
    let forwards = routing::forwarded_to(rule.actions())
        .iter()
        .any(|arn| target_group::deployment_from_name(arn, environment).is_some());
    let by_header = rule
        .conditions()
        .iter()
        .all(|condition| condition.field() == Some("http-header"));
    forwards && (by_header || routing::is_waiting(rule))
}
