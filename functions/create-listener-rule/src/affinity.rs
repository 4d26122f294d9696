//! How a request says which deployment it belongs to.

use std::fmt;
use std::ops::RangeInclusive;

use aws_sdk_elasticloadbalancingv2::types::{HttpHeaderConditionConfig, Rule, RuleCondition};
use lifecycle::{DeploymentId, defaults};

/// The condition's field for a header of any name:
/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_RuleCondition.html>.
const HTTP_HEADER: &str = "http-header";
/// Priorities end here:
/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_CreateRule.html>.
const LAST_PRIORITY: u32 = 50_000;

/// All conditions of a rule have to match, so each of the two needs a rule of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Affinity {
    /// By the header.
    Header,
    /// By the cookie of the same name.
    Cookie,
}

impl fmt::Display for Affinity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Affinity::Header => "header",
            Affinity::Cookie => "cookie",
        })
    }
}

impl Affinity {
    /// The priorities of the rules of this kind.
    pub(crate) fn priorities(self) -> RangeInclusive<u32> {
        match self {
            Affinity::Header => defaults::HEADER_RULES_FROM..=defaults::COOKIE_RULES_FROM - 1,
            Affinity::Cookie => defaults::COOKIE_RULES_FROM..=LAST_PRIORITY,
        }
    }

    fn header(self) -> &'static str {
        match self {
            Affinity::Header => defaults::AFFINITY,
            Affinity::Cookie => "Cookie",
        }
    }

    /// Ids of one environment have the same length, so none is a part of another.
    fn value(self, deployment: &DeploymentId) -> String {
        match self {
            Affinity::Header => deployment.to_string(),
            Affinity::Cookie => format!("*{}={deployment}*", defaults::AFFINITY),
        }
    }

    /// The condition that matches the deployment's requests.
    pub(crate) fn condition(self, deployment: &DeploymentId) -> RuleCondition {
        RuleCondition::builder()
            .field(HTTP_HEADER)
            .http_header_config(
                HttpHeaderConditionConfig::builder()
                    .http_header_name(self.header())
                    .values(self.value(deployment))
                    .build(),
            )
            .build()
    }

    /// Whether that is the only condition of the rule.
    pub(crate) fn is_condition_of(self, rule: &Rule, deployment: &DeploymentId) -> bool {
        let [condition] = rule.conditions() else {
            return false;
        };
        condition.field() == Some(HTTP_HEADER)
            && condition.http_header_config().is_some_and(|config| {
                config
                    .http_header_name()
                    .is_some_and(|name| name.eq_ignore_ascii_case(self.header()))
                    && config.values() == [self.value(deployment)]
            })
    }
}
