//! Listeners, rules and target groups: the state of the control plane as the data plane needs it.

use std::collections::BTreeMap;

/// Everything that routing and health checks depend on, read in one call.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ControlPlane {
    /// All listeners of all load balancers.
    pub listeners: Vec<Listener>,
    /// All target groups, by ARN.
    pub target_groups: BTreeMap<String, TargetGroup>,
}

/// A listener of a load balancer, with its rules.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Listener {
    /// The listener's ARN.
    pub arn: String,
    pub(crate) load_balancer_arn: String,
    /// The port it would have on AWS: 80 or 443.
    pub port: u16,
    pub(crate) protocol: String,
    /// The rules without the default rule, by ascending priority.
    pub(crate) rules: Vec<Rule>,
    /// The actions of the default rule, in their order; the last one is the routing action.
    pub default_actions: Vec<Action>,
}

/// A listener rule other than the default rule.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rule {
    pub(crate) arn: String,
    /// 1 to 50000; the lowest that matches wins.
    pub(crate) priority: u32,
    /// All of them must hold.
    pub(crate) conditions: Vec<Condition>,
    pub(crate) actions: Vec<Action>,
}

/// A condition of a rule. Any one of its values satisfies it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Condition {
    /// `http-header`: case-insensitive values with `*` and `?`.
    HttpHeader { name: String, values: Vec<String> },
    /// `path-pattern`: case-sensitive, with `*` and `?`.
    PathPattern(Vec<String>),
    /// A kind that the data plane does not know; such a rule never matches.
    Other(String),
}

/// An action of a rule or of a listener's default.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// `authenticate-oidc`, `authenticate-cognito` or `jwt-validation`: what comes after it is for those who are known.
    Authenticate,
    /// `forward` to target groups by weight.
    Forward(Vec<WeightedTargetGroup>),
    /// `redirect`; parts that are absent are those of the request.
    Redirect {
        /// `#{protocol}` or a literal.
        protocol: Option<String>,
        /// `#{port}` or a literal.
        port: Option<String>,
        /// `#{host}` or a literal.
        host: Option<String>,
        /// `/#{path}` or a literal.
        path: Option<String>,
        /// `#{query}` or a literal.
        query: Option<String>,
        /// 301 or 302.
        status: u16,
    },
    /// `fixed-response`.
    FixedResponse {
        /// The HTTP status code.
        status: u16,
        /// The content type of the body.
        content_type: String,
        /// The body.
        body: String,
    },
}

/// One entry of a forward action.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightedTargetGroup {
    /// The target group's ARN.
    pub arn: String,
    /// 0 to 999; 1 when an action names one group without a weight.
    pub weight: u32,
}

/// The settings of a target group.
#[derive(Debug, Clone, PartialEq)]
pub struct TargetGroup {
    pub(crate) arn: String,
    pub(crate) name: String,
    /// The port of targets that name none.
    pub(crate) port: u16,
    pub(crate) health_check_path: String,
    pub(crate) interval_seconds: u32,
    /// Seconds after which a check counts as failed.
    pub(crate) timeout_seconds: u32,
    /// Consecutive passes after which an unhealthy target is healthy.
    pub(crate) healthy_threshold: u32,
    /// Consecutive failures after which a target is unhealthy.
    pub(crate) unhealthy_threshold: u32,
    /// Status codes that pass, in AWS's grammar: `200`, `200,202`, `200-299`.
    pub(crate) matcher: String,
    pub(crate) deregistration_delay_seconds: u32,
}

impl ControlPlane {
    /// The ARNs of the load balancers that have listeners, in the order of these.
    pub fn load_balancers(&self) -> Vec<&str> {
        let mut arns = Vec::new();
        for listener in &self.listeners {
            let arn = listener.load_balancer_arn.as_str();
            if !arns.contains(&arn) {
                arns.push(arn);
            }
        }
        arns
    }

    /// What the data plane of one load balancer needs: its listeners. Routing does not depend on the settings of target
    /// groups.
    pub fn of_load_balancer(&self, arn: &str) -> ControlPlane {
        let listeners = self.listeners.iter();
        ControlPlane {
            listeners: listeners
                .filter(|listener| listener.load_balancer_arn == arn)
                .cloned()
                .collect(),
            ..ControlPlane::default()
        }
    }

    /// The ARNs of the target groups that a rule or a default action names. Only their targets are
    /// checked.
    pub(crate) fn target_groups_in_use(&self) -> std::collections::BTreeSet<&str> {
        fn named(actions: &[Action]) -> impl Iterator<Item = &str> {
            actions.iter().flat_map(|action| match action {
                Action::Forward(groups) => groups.iter().map(|group| group.arn.as_str()).collect(),
                _ => Vec::new(),
            })
        }
        self.listeners
            .iter()
            .flat_map(|listener| {
                named(&listener.default_actions)
                    .chain(listener.rules.iter().flat_map(|rule| named(&rule.actions)))
                    .collect::<Vec<_>>()
            })
            .collect()
    }
}
