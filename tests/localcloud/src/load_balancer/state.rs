//! What MiniStack says of load balancers, listeners, rules and target groups: the control plane's
//! state as the data plane needs it.

use std::collections::BTreeMap;

/// Everything that routing and health checking depend on, read in one go.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ControlPlane {
    /// All listeners of all load balancers.
    pub listeners: Vec<Listener>,
    /// All target groups, by ARN.
    pub target_groups: BTreeMap<String, TargetGroup>,
}

/// A listener with its rules.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Listener {
    /// The listener's ARN.
    pub arn: String,
    /// The ARN of the load balancer it belongs to.
    pub load_balancer_arn: String,
    /// The port it would have on AWS: 80 or 443.
    pub port: u16,
    /// `HTTP` or `HTTPS`.
    pub protocol: String,
    /// Its rules without the default rule, by ascending priority.
    pub rules: Vec<Rule>,
    /// The actions of its default rule.
    pub default_actions: Vec<Action>,
}

/// A listener rule.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rule {
    /// The rule's ARN.
    pub arn: String,
    /// 1 to 50000; lower is matched first.
    pub priority: u32,
    /// All of them must hold.
    pub conditions: Vec<Condition>,
    /// What is done with a request that matches.
    pub actions: Vec<Action>,
}

/// A condition of a rule; any one of its values satisfies it.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    /// `http-header`: case-insensitive values with `*` and `?`.
    HttpHeader {
        /// The header's name, in any case.
        name: String,
        /// The accepted patterns.
        values: Vec<String>,
    },
    /// `path-pattern`: case-sensitive, with `*` and `?`.
    PathPattern(Vec<String>),
    /// A kind that the data plane does not know; such a rule never matches.
    Other(String),
}

/// An action of a rule or of a listener's default.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// `forward` to target groups by weight.
    Forward(Vec<WeightedTargetGroup>),
    /// `redirect`; absent parts are the request's own.
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

/// A target group's settings.
#[derive(Debug, Clone, PartialEq)]
pub struct TargetGroup {
    /// The target group's ARN.
    pub arn: String,
    /// Its name.
    pub name: String,
    /// The port of targets that name none.
    pub port: u16,
    /// The path that health checks ask for.
    pub health_check_path: String,
    /// Seconds between two checks of a target.
    pub interval_seconds: u32,
    /// Seconds after which a check counts as failed.
    pub timeout_seconds: u32,
    /// Consecutive passes after which an unhealthy target is healthy.
    pub healthy_threshold: u32,
    /// Consecutive failures after which a target is unhealthy.
    pub unhealthy_threshold: u32,
    /// Status codes that pass, in AWS's grammar: `200`, `200,202`, `200-299`.
    pub matcher: String,
    /// `deregistration_delay.timeout_seconds`.
    pub deregistration_delay_seconds: u32,
}

impl ControlPlane {
    /// The ARNs of the target groups that some rule or default action names: those whose targets
    /// are checked at all.
    pub fn target_groups_in_use(&self) -> std::collections::BTreeSet<&str> {
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
