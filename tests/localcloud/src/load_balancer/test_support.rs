//! Control planes for the tests of this module.

use super::state::{Action, ControlPlane, Listener, Rule, TargetGroup, WeightedTargetGroup};

/// A target group with the settings that pulse-deploy gives its own.
pub fn group(arn: &str) -> TargetGroup {
    TargetGroup {
        arn: arn.to_string(),
        name: "a".to_string(),
        port: 8000,
        health_check_path: "/_health".to_string(),
        interval_seconds: 30,
        timeout_seconds: 5,
        healthy_threshold: 2,
        unhealthy_threshold: 3,
        matcher: "200".to_string(),
        deregistration_delay_seconds: 60,
    }
}

/// A forward action to groups, given as ARN and weight.
pub fn forward_to(groups: &[(&str, u32)]) -> Action {
    let weighted = |(arn, weight): &(&str, u32)| WeightedTargetGroup {
        arn: arn.to_string(),
        weight: *weight,
    };
    Action::Forward(groups.iter().map(weighted).collect())
}

/// A control plane with one listener, on port 80, that has these default actions.
pub fn control_plane(default_actions: Vec<Action>, groups: &[&str]) -> ControlPlane {
    let named = |arn: &&str| (arn.to_string(), group(arn));
    ControlPlane {
        listeners: vec![listener(80, vec![], default_actions)],
        target_groups: groups.iter().map(named).collect(),
    }
}

/// A listener of the load balancer `arn:lb`.
pub fn listener(port: u16, rules: Vec<Rule>, default_actions: Vec<Action>) -> Listener {
    Listener {
        arn: format!("arn:listener/{port}"),
        load_balancer_arn: "arn:lb".to_string(),
        port,
        protocol: if port == 443 { "HTTPS" } else { "HTTP" }.to_string(),
        rules,
        default_actions,
    }
}
