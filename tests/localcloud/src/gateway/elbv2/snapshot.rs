//! The state of ELBv2, read in one call.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::{
    load_balancer::state::{self, ControlPlane},
    ministack::{ApiError, Client},
};

/// All listeners, rules and target groups, as MiniStack names their fields.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    pub(crate) listeners: Vec<Listener>,
    /// Rules, the listeners' default rules included.
    pub(crate) rules: Vec<Rule>,
    pub(crate) target_groups: Vec<TargetGroup>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Listener {
    pub(crate) listener_arn: String,
    pub(crate) load_balancer_arn: String,
    pub(crate) port: u16,
    /// `HTTP` or `HTTPS`.
    pub(crate) protocol: String,
    pub(crate) default_actions: Vec<Action>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Rule {
    pub(crate) rule_arn: String,
    pub(crate) listener_arn: String,
    /// A number, or `default`.
    pub(crate) priority: String,
    #[serde(default)]
    pub(crate) conditions: Vec<Condition>,
    pub(crate) actions: Vec<Action>,
    pub(crate) is_default: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Condition {
    /// `http-header`, `path-pattern`, …
    pub(crate) field: String,
    /// The values, except for `http-header`.
    #[serde(default)]
    pub(crate) values: Vec<String>,
    #[serde(default)]
    pub(crate) http_header_config: Option<HttpHeaderConfig>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct HttpHeaderConfig {
    pub(crate) http_header_name: String,
    pub(crate) values: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Action {
    /// `forward`, `redirect`, `fixed-response`, …
    pub(crate) r#type: String,
    #[serde(default)]
    pub(crate) forward_config: Option<ForwardConfig>,
    #[serde(default)]
    pub(crate) redirect_config: Option<RedirectConfig>,
    #[serde(default)]
    pub(crate) fixed_response_config: Option<FixedResponseConfig>,
    #[serde(default)]
    pub(crate) authenticate_oidc_config: Option<AuthenticateOidcConfig>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct AuthenticateOidcConfig {
    pub(crate) client_secret: Option<String>,
    /// MiniStack keeps this in place of the secret, which it loses.
    pub(crate) use_existing_client_secret: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ForwardConfig {
    pub(crate) target_groups: Vec<ForwardTarget>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ForwardTarget {
    pub(crate) target_group_arn: String,
    /// 0 to 999.
    pub(crate) weight: u32,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct RedirectConfig {
    protocol: Option<String>,
    port: Option<String>,
    host: Option<String>,
    path: Option<String>,
    query: Option<String>,
    status_code: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct FixedResponseConfig {
    status_code: String,
    #[serde(default)]
    content_type: Option<String>,
    #[serde(default)]
    message_body: Option<String>,
}

/// A target group, with the settings that the local cloud acts on or compares.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TargetGroup {
    pub(crate) target_group_arn: String,
    pub(crate) target_group_name: String,
    pub(crate) protocol: String,
    /// The port of targets that name none.
    pub(crate) port: u16,
    pub(crate) vpc_id: String,
    pub(crate) target_type: String,
    pub(crate) health_check_protocol: String,
    /// `traffic-port` or a number.
    pub(crate) health_check_port: String,
    pub(crate) health_check_path: String,
    pub(crate) health_check_interval_seconds: u32,
    /// Seconds after which a check has failed.
    pub(crate) health_check_timeout_seconds: u32,
    pub(crate) healthy_threshold_count: u32,
    pub(crate) unhealthy_threshold_count: u32,
    pub(crate) matcher: Matcher,
    /// Attributes such as `deregistration_delay.timeout_seconds`.
    #[serde(default)]
    pub(crate) attributes: BTreeMap<String, String>,
    #[serde(default)]
    /// Values by key.
    pub tags: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Matcher {
    /// `200`, `200,202` or `200-299`.
    pub(crate) http_code: String,
}

impl Snapshot {
    /// Reads the state from MiniStack.
    ///
    /// # Errors
    /// When MiniStack does not answer.
    pub async fn read(client: &Client) -> Result<Self, ApiError> {
        Self::of(&client.load_balancing().await?)
    }

    pub(crate) fn of(answer: &[u8]) -> Result<Self, ApiError> {
        serde_json::from_slice(answer).map_err(|error| ApiError {
            status: 200,
            code: "UnreadableState".into(),
            message: error.to_string(),
        })
    }

    pub(crate) fn listener(&self, arn: &str) -> Option<&Listener> {
        self.listeners
            .iter()
            .find(|listener| listener.listener_arn == arn)
    }

    pub(crate) fn rule(&self, arn: &str) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.rule_arn == arn)
    }

    /// The target group with that ARN.
    pub fn target_group(&self, arn: &str) -> Option<&TargetGroup> {
        self.target_groups
            .iter()
            .find(|group| group.target_group_arn == arn)
    }

    /// The ARN of the load balancer that a rule belongs to.
    pub(crate) fn load_balancer_of(&self, rule: &Rule) -> Option<&str> {
        self.listener(&rule.listener_arn)
            .map(|listener| listener.load_balancer_arn.as_str())
    }

    /// All rules of a load balancer's listeners, the default rules included.
    pub(crate) fn rules_of<'a>(
        &'a self,
        load_balancer_arn: &'a str,
    ) -> impl Iterator<Item = &'a Rule> {
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
    pub(crate) fn target_groups(&self) -> BTreeSet<&str> {
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
            // The default rule has no number. The data plane reads the listener's default actions.
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
    /// The action for the data plane.
    fn data_plane(&self) -> Option<state::Action> {
        match self.r#type.as_str() {
            "authenticate-oidc" | "authenticate-cognito" | "jwt-validation" => {
                Some(state::Action::Authenticate)
            }
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
