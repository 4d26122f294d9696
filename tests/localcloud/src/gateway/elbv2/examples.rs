//! Small states for the unit tests of the rules.

use super::snapshot::{
    Action, ForwardConfig, ForwardTarget, Listener, Matcher, Rule, Snapshot, TargetGroup,
};

const PREFIX: &str = "arn:aws:elasticloadbalancing:us-east-1:000000000000";

/// The ARN of a listener. The listener and its load balancer share the number.
pub fn listener(number: u32) -> String {
    format!("{PREFIX}:listener/app/lb{number}/1/{number}")
}

pub fn group(name: &str) -> String {
    format!("{PREFIX}:targetgroup/{name}/1")
}

/// A rule of a listener that forwards to a group.
pub fn rule(listener_number: u32, priority: &str, group_name: &str) -> Rule {
    let target = ForwardTarget {
        target_group_arn: group(group_name),
        weight: 1,
    };
    Rule {
        rule_arn: format!(
            "{PREFIX}:listener-rule/app/lb{listener_number}/1/{listener_number}/{priority}"
        ),
        listener_arn: listener(listener_number),
        priority: priority.to_owned(),
        conditions: Vec::new(),
        actions: vec![Action {
            r#type: "forward".into(),
            forward_config: Some(ForwardConfig {
                target_groups: vec![target],
            }),
            redirect_config: None,
            fixed_response_config: None,
            authenticate_oidc_config: None,
        }],
        is_default: priority == "default",
    }
}

pub fn default_rule(listener_number: u32, group_name: &str) -> Rule {
    rule(listener_number, "default", group_name)
}

/// A state with these rules, their listeners and their target groups.
pub fn state(rules: impl IntoIterator<Item = Rule>) -> Snapshot {
    let mut state = Snapshot {
        rules: rules.into_iter().collect(),
        ..Snapshot::default()
    };
    for rule in &state.rules {
        let arn = &rule.listener_arn;
        if !state
            .listeners
            .iter()
            .any(|listener| listener.listener_arn == *arn)
        {
            state.listeners.push(Listener {
                listener_arn: arn.clone(),
                load_balancer_arn: arn.replace(":listener/", ":loadbalancer/"),
                port: 80,
                protocol: "HTTP".into(),
                default_actions: rule.actions.clone(),
            });
        }
        for arn in rule.target_groups() {
            if !state
                .target_groups
                .iter()
                .any(|group| group.target_group_arn == arn)
            {
                state.target_groups.push(target_group(arn));
            }
        }
    }
    state
}

fn target_group(arn: &str) -> TargetGroup {
    TargetGroup {
        target_group_arn: arn.to_owned(),
        target_group_name: arn.rsplit('/').nth(1).unwrap_or_default().to_owned(),
        protocol: "HTTP".into(),
        port: 8000,
        vpc_id: "vpc-1".into(),
        target_type: "ip".into(),
        health_check_protocol: "HTTP".into(),
        health_check_port: "traffic-port".into(),
        health_check_path: "/_health".into(),
        health_check_interval_seconds: 30,
        health_check_timeout_seconds: 5,
        healthy_threshold_count: 5,
        unhealthy_threshold_count: 2,
        matcher: Matcher {
            http_code: "200".into(),
        },
        attributes: Default::default(),
        tags: Default::default(),
    }
}
