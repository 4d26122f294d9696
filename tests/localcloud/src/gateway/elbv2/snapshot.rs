//! ELBv2's whole state, read in one go.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::{
    load_balancer::state::{self, ControlPlane},
    ministack::{ApiError, Client},
};

/// All load balancers, listeners, rules and target groups, in MiniStack's words.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// Load balancers.
    pub load_balancers: Vec<LoadBalancer>,
    /// Listeners.
    pub listeners: Vec<Listener>,
    /// Rules, the listeners' default rules included.
    pub rules: Vec<Rule>,
    /// Target groups.
    pub target_groups: Vec<TargetGroup>,
}

/// A load balancer.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct LoadBalancer {
    /// Its ARN.
    pub load_balancer_arn: String,
}

/// A listener.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Listener {
    /// Its ARN.
    pub listener_arn: String,
    /// Its load balancer's ARN.
    pub load_balancer_arn: String,
    /// Its port.
    pub port: u16,
    /// `HTTP` or `HTTPS`.
    pub protocol: String,
    /// Its default actions.
    pub default_actions: Vec<Action>,
}

/// A rule.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Rule {
    /// Its ARN.
    pub rule_arn: String,
    /// Its listener's ARN.
    pub listener_arn: String,
    /// A number, or `default`.
    pub priority: String,
    /// Its conditions.
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// Its actions.
    pub actions: Vec<Action>,
    /// Whether it is its listener's default rule.
    pub is_default: bool,
}

/// A rule's condition.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Condition {
    /// `http-header`, `path-pattern`, …
    pub field: String,
    /// The values, except for `http-header`.
    #[serde(default)]
    pub values: Vec<String>,
    /// Name and values of `http-header`.
    #[serde(default)]
    pub http_header_config: Option<HttpHeaderConfig>,
}

/// Name and values of an `http-header` condition.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct HttpHeaderConfig {
    /// The header's name.
    pub http_header_name: String,
    /// The patterns.
    pub values: Vec<String>,
}

/// An action.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Action {
    /// `forward`, `redirect`, `fixed-response`, …
    pub r#type: String,
    /// Where a `forward` goes.
    #[serde(default)]
    pub forward_config: Option<ForwardConfig>,
    /// The parts of a `redirect`.
    #[serde(default)]
    pub redirect_config: Option<RedirectConfig>,
    /// The parts of a `fixed-response`.
    #[serde(default)]
    pub fixed_response_config: Option<FixedResponseConfig>,
}

/// Where a `forward` goes.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ForwardConfig {
    /// The groups with their weights.
    pub target_groups: Vec<ForwardTarget>,
}

/// A group with its weight.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ForwardTarget {
    /// The group's ARN.
    pub target_group_arn: String,
    /// 0 to 999.
    pub weight: u32,
}

/// The parts of a `redirect`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RedirectConfig {
    protocol: Option<String>,
    port: Option<String>,
    host: Option<String>,
    path: Option<String>,
    query: Option<String>,
    status_code: String,
}

/// The parts of a `fixed-response`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct FixedResponseConfig {
    status_code: String,
    #[serde(default)]
    content_type: Option<String>,
    #[serde(default)]
    message_body: Option<String>,
}

/// A target group.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TargetGroup {
    /// Its ARN.
    pub target_group_arn: String,
    /// Its name.
    pub target_group_name: String,
    /// `HTTP`, …
    pub protocol: String,
    /// The port of targets that name none.
    pub port: u16,
    /// Its VPC.
    pub vpc_id: String,
    /// `ip`, …
    pub target_type: String,
    /// `HTTP`, …
    pub health_check_protocol: String,
    /// `traffic-port` or a number.
    pub health_check_port: String,
    /// The path that health checks ask for.
    pub health_check_path: String,
    /// Seconds between two checks.
    pub health_check_interval_seconds: u32,
    /// Seconds after which a check has failed.
    pub health_check_timeout_seconds: u32,
    /// Passes until an unhealthy target is healthy.
    pub healthy_threshold_count: u32,
    /// Failures until a target is unhealthy.
    pub unhealthy_threshold_count: u32,
    /// The status codes that pass.
    pub matcher: Matcher,
    /// Attributes such as `deregistration_delay.timeout_seconds`.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
    /// Tags.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

/// The status codes that pass a health check.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Matcher {
    /// `200`, `200,202` or `200-299`.
    pub http_code: String,
}

impl Snapshot {
    /// Reads the state.
    ///
    /// # Errors
    /// When MiniStack does not answer.
    pub async fn read(client: &Client) -> Result<Self, ApiError> {
        Self::of(&client.load_balancing().await?)
    }

    /// The state that MiniStack has answered.
    ///
    /// # Errors
    /// When it cannot be parsed.
    pub fn of(answer: &[u8]) -> Result<Self, ApiError> {
        serde_json::from_slice(answer).map_err(|error| ApiError {
            status: 200,
            code: "UnreadableState".into(),
            message: error.to_string(),
        })
    }

    /// The listener with that ARN.
    pub fn listener(&self, arn: &str) -> Option<&Listener> {
        self.listeners
            .iter()
            .find(|listener| listener.listener_arn == arn)
    }

    /// The rule with that ARN.
    pub fn rule(&self, arn: &str) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.rule_arn == arn)
    }

    /// The target group with that ARN.
    pub fn target_group(&self, arn: &str) -> Option<&TargetGroup> {
        self.target_groups
            .iter()
            .find(|group| group.target_group_arn == arn)
    }

    /// The ARN of the load balancer that a rule belongs to.
    pub fn load_balancer_of(&self, rule: &Rule) -> Option<&str> {
        self.listener(&rule.listener_arn)
            .map(|listener| listener.load_balancer_arn.as_str())
    }

    /// All rules of a load balancer's listeners, the default rules included.
    pub fn rules_of<'a>(&'a self, load_balancer_arn: &'a str) -> impl Iterator<Item = &'a Rule> {
        self.rules
            .iter()
            .filter(move |rule| self.load_balancer_of(rule) == Some(load_balancer_arn))
    }

    /// The state as the data plane needs it.
    pub fn control_plane(&self) -> ControlPlane {
        ControlPlane {
            listeners: self
                .listeners
                .iter()
                .map(|l| self.data_plane_listener(l))
                .collect(),
            target_groups: self
                .target_groups
                .iter()
                .map(|group| (group.target_group_arn.clone(), group.data_plane()))
                .collect(),
        }
    }

    fn data_plane_listener(&self, listener: &Listener) -> state::Listener {
        let mut rules: Vec<state::Rule> = self
            .rules
            .iter()
            .filter(|rule| rule.listener_arn == listener.listener_arn)
            .filter_map(Rule::data_plane)
            .collect();
        rules.sort_by_key(|rule| rule.priority);
        state::Listener {
            arn: listener.listener_arn.clone(),
            load_balancer_arn: listener.load_balancer_arn.clone(),
            port: listener.port,
            protocol: listener.protocol.clone(),
            rules,
            default_actions: listener
                .default_actions
                .iter()
                .filter_map(Action::data_plane)
                .collect(),
        }
    }
}

impl Rule {
    /// The ARNs of the target groups that its actions name.
    pub fn target_groups(&self) -> BTreeSet<&str> {
        self.actions
            .iter()
            .filter_map(|action| action.forward_config.as_ref())
            .flat_map(|config| &config.target_groups)
            .map(|group| group.target_group_arn.as_str())
            .collect()
    }

    fn data_plane(&self) -> Option<state::Rule> {
        Some(state::Rule {
            arn: self.rule_arn.clone(),
            // The default rule has no number; the listener's default actions stand for it.
            priority: self.priority.parse().ok()?,
            conditions: self.conditions.iter().map(Condition::data_plane).collect(),
            actions: self.actions.iter().filter_map(Action::data_plane).collect(),
        })
    }
}

impl Condition {
    fn data_plane(&self) -> state::Condition {
        match (self.field.as_str(), &self.http_header_config) {
            ("http-header", Some(config)) => state::Condition::HttpHeader {
                name: config.http_header_name.clone(),
                values: config.values.clone(),
            },
            ("path-pattern", _) => state::Condition::PathPattern(self.values.clone()),
            (field, _) => state::Condition::Other(field.to_owned()),
        }
    }
}

impl Action {
    /// The action for the data plane; actions that only authenticate are left out.
    fn data_plane(&self) -> Option<state::Action> {
        match self.r#type.as_str() {
            "forward" => Some(state::Action::Forward(
                self.forward_config
                    .iter()
                    .flat_map(|config| &config.target_groups)
                    .map(|group| state::WeightedTargetGroup {
                        arn: group.target_group_arn.clone(),
                        weight: group.weight,
                    })
                    .collect(),
            )),
            "redirect" => self
                .redirect_config
                .clone()
                .map(|config| state::Action::Redirect {
                    protocol: config.protocol,
                    port: config.port,
                    host: config.host,
                    path: config.path,
                    query: config.query,
                    status: match config.status_code.as_str() {
                        "HTTP_302" => 302,
                        _ => 301,
                    },
                }),
            "fixed-response" => {
                self.fixed_response_config
                    .clone()
                    .map(|config| state::Action::FixedResponse {
                        status: config.status_code.parse().unwrap_or(503),
                        content_type: config.content_type.unwrap_or_else(|| "text/plain".into()),
                        body: config.message_body.unwrap_or_default(),
                    })
            }
            _ => None,
        }
    }
}

impl TargetGroup {
    fn data_plane(&self) -> state::TargetGroup {
        state::TargetGroup {
            arn: self.target_group_arn.clone(),
            name: self.target_group_name.clone(),
            port: self.port,
            health_check_path: self.health_check_path.clone(),
            interval_seconds: self.health_check_interval_seconds,
            timeout_seconds: self.health_check_timeout_seconds,
            healthy_threshold: self.healthy_threshold_count,
            unhealthy_threshold: self.unhealthy_threshold_count,
            matcher: self.matcher.http_code.clone(),
            deregistration_delay_seconds: self
                .attributes
                .get("deregistration_delay.timeout_seconds")
                .and_then(|seconds| seconds.parse().ok())
                .unwrap_or(300),
        }
    }
}
