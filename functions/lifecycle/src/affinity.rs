//! How a request says which deployment it belongs to, and the rule that matches none.

use std::fmt;
use std::ops::RangeInclusive;

use crate::routing::{self, NO_ADDRESS};
use crate::{DeploymentId, defaults};
use aws_sdk_elasticloadbalancingv2::types::{
    HttpHeaderConditionConfig, Rule, RuleCondition, SourceIpConditionConfig,
};

/// The fields of conditions, for a header of any name and for the address that a request comes from:
/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_RuleCondition.html>.
const HTTP_HEADER: &str = "http-header";
const SOURCE_IP: &str = "source-ip";
/// Priorities end here:
/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_CreateRule.html>.
const LAST_PRIORITY: u32 = 50_000;

/// All conditions of a rule have to match, so each of the two needs a rule of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Affinity {
    /// By the header.
    Header,
    /// By the cookie of the same name.
    Cookie,
    /// No request belongs to it yet, see [`routing::is_waiting`].
    Waiting,
}

impl fmt::Display for Affinity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Affinity::Header => "header",
            Affinity::Cookie => "cookie",
            Affinity::Waiting => "waiting",
        })
    }
}

impl Affinity {
    /// Those by which visitors are pinned to a deployment. A deployment that serves visitors has a rule of each.
    pub const PINS: [Affinity; 2] = [Affinity::Header, Affinity::Cookie];

    /// By what no rule of the deployment's pins visitors to it.
    pub fn missing(rules: &[Rule], deployment: &DeploymentId) -> Vec<Affinity> {
        let pins = |by: Affinity, rule: &Rule| {
            by.is_condition_of(rule, deployment) && routing::forwards_to(rule, deployment)
        };
        let is_missing = |by: &Affinity| !rules.iter().any(|rule| pins(*by, rule));
        Affinity::PINS.into_iter().filter(is_missing).collect()
    }

    /// The priorities of the rules of this kind.
    pub fn priorities(self) -> RangeInclusive<u32> {
        match self {
            Affinity::Header | Affinity::Waiting => {
                defaults::HEADER_RULES_FROM..=defaults::COOKIE_RULES_FROM - 1
            }
            Affinity::Cookie => defaults::COOKIE_RULES_FROM..=LAST_PRIORITY,
        }
    }

    /// The header and its value that match the deployment's requests. Ids of one environment have the same length, so
    /// none is a part of another.
    fn header(self, deployment: &DeploymentId) -> Option<(&'static str, String)> {
        match self {
            Affinity::Header => Some((defaults::AFFINITY, deployment.to_string())),
            Affinity::Cookie => Some(("Cookie", format!("*{}={deployment}*", defaults::AFFINITY))),
            Affinity::Waiting => None,
        }
    }

    /// The condition that matches the deployment's requests, or none.
    pub fn condition(self, deployment: &DeploymentId) -> RuleCondition {
        let condition = RuleCondition::builder();
        let condition = match self.header(deployment) {
            Some((name, value)) => condition.field(HTTP_HEADER).http_header_config(
                HttpHeaderConditionConfig::builder()
                    .http_header_name(name)
                    .values(value)
                    .build(),
            ),
            None => condition.field(SOURCE_IP).source_ip_config(
                SourceIpConditionConfig::builder()
                    .values(NO_ADDRESS)
                    .build(),
            ),
        };
        condition.build()
    }

    /// Whether that is the only condition of the rule.
    pub fn is_condition_of(self, rule: &Rule, deployment: &DeploymentId) -> bool {
        let Some((header, value)) = self.header(deployment) else {
            return routing::is_waiting(rule);
        };
        let [condition] = rule.conditions() else {
            return false;
        };
        condition.field() == Some(HTTP_HEADER)
            && condition.http_header_config().is_some_and(|config| {
                config
                    .http_header_name()
                    .is_some_and(|name| name.eq_ignore_ascii_case(header))
                    && config.values() == [value]
            })
    }
}
