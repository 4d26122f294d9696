//! Several actions have an order, and the last one routes.
//!
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_Action.html>

use std::collections::BTreeMap;

use crate::gateway::{answer::AwsError, operation::Params};

/// The actions that route. Each rule and each default action has exactly one.
const ROUTING: [&str; 3] = ["forward", "redirect", "fixed-response"];

/// Refuses several actions of which one has no order or the order of another, and those whose last one does not route.
///
/// # Errors
/// `InvalidLoadBalancerAction`.
pub fn check(params: &Params) -> Result<(), AwsError> {
    let refused = |message: &str| Err(AwsError::new("InvalidLoadBalancerAction", message));
    for list in ["Actions", "DefaultActions"] {
        // A list has ten actions at most.
        let fields = |name: &str| -> Vec<Option<&str>> {
            (1..=10)
                .map(|number| params.get(&format!("{list}.member.{number}.{name}")))
                .collect()
        };
        let types: Vec<&str> = fields("Type").into_iter().flatten().collect();
        if types.len() < 2 {
            continue;
        }
        let orders = fields("Order").into_iter().take(types.len());
        let orders: Option<Vec<u32>> = orders.map(|order| order?.parse().ok()).collect();
        let Some(orders) = orders else {
            return refused("You must specify the order of each action");
        };
        let by_order: BTreeMap<u32, &str> = orders.into_iter().zip(types.iter().copied()).collect();
        if by_order.len() < types.len() {
            return refused("Two actions have the same order");
        }
        let routes = |(_, kind): (&u32, &&str)| ROUTING.contains(kind);
        if by_order.iter().filter(|it| routes((it.0, it.1))).count() != 1
            || !by_order.last_key_value().is_some_and(routes)
        {
            return refused("Exactly one action must route, and it must be the last one");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_accepted(actions: &[(&str, Option<&str>)]) -> bool {
        let mut params = Vec::new();
        for (number, (kind, order)) in (1..).zip(actions) {
            params.push((format!("Actions.member.{number}.Type"), *kind));
            params.extend(order.map(|order| (format!("Actions.member.{number}.Order"), order)));
        }
        let params = params.iter().map(|(name, value)| (name.as_str(), *value));
        check(&params.collect()).is_ok()
    }

    #[test]
    fn the_routing_action_comes_last() {
        let (login, forward) = ("authenticate-oidc", "forward");
        for (actions, accepted) in [
            (&[(forward, None)][..], true),
            (&[(login, Some("1")), (forward, Some("2"))], true),
            (&[(forward, Some("2")), (login, Some("1"))], true),
            (&[(login, None), (forward, None)], false),
            (&[(login, Some("1")), (forward, None)], false),
            (&[(login, Some("1")), (forward, Some("1"))], false),
            (&[(login, Some("2")), (forward, Some("1"))], false),
            (&[(forward, Some("1")), ("redirect", Some("2"))], false),
            (&[(login, Some("1")), ("jwt-validation", Some("2"))], false),
        ] {
            assert_eq!(is_accepted(actions), accepted, "{actions:?}");
        }
    }
}
