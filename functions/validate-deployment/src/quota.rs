//! Whether the load balancer's quotas leave room for one more deployment.

use std::collections::BTreeSet;

use aws_sdk_elasticloadbalancingv2::Client;
use aws_sdk_elasticloadbalancingv2::types::Rule;
use lifecycle::aws_error::failed;
use lifecycle::{Baseline, DeploymentId, ErrorName, StepError, defaults, routing, target_group};

use crate::shadowed;

/// What the load balancer has, as its quotas count it.
#[derive(Debug, Default)]
pub struct Usage {
    /// Rules of all its listeners, default rules excluded, with those that a rollback is about to make.
    rules: usize,
    /// Distinct target groups that its rules and default actions name.
    target_groups: BTreeSet<String>,
    /// Rules that forward to this deployment's target group already.
    own_rules: usize,
    /// What is wrong with rules of the operator, each in a sentence; at most [`defaults::MAX_WARNINGS`].
    pub warnings: Vec<String>,
}

/// Counts what the load balancer has, over all its listeners.
pub async fn usage(
    elb: &Client,
    baseline: &Baseline,
    deployment: &DeploymentId,
) -> Result<Usage, StepError> {
    let mut usage = Usage::default();
    for arn in routing::listeners(elb, baseline).await? {
        for rule in routing::rules(elb, &arn).await? {
            usage.count(&rule, deployment);
            if arn == baseline.listener_arn && usage.warnings.len() < defaults::MAX_WARNINGS {
                let warning = shadowed::warning(&rule, &baseline.environment);
                usage.warnings.extend(warning);
            }
        }
    }
    Ok(usage)
}

impl Usage {
    fn count(&mut self, rule: &Rule, deployment: &DeploymentId) {
        if rule.is_default() != Some(true) {
            // One that waits for its tasks needs two.
            self.rules += 1 + usize::from(routing::is_waiting(rule));
            self.own_rules += usize::from(routing::forwards_to(rule, deployment));
        }
        self.target_groups
            .extend(routing::forwarded_to(rule.actions()));
    }

    /// The ARN of the deployment's own target group, if a rule names it.
    pub fn own_target_group(&self, deployment: &DeploymentId) -> Option<&String> {
        self.target_groups
            .iter()
            .find(|arn| target_group::name(arn) == Some(deployment.as_str()))
    }
}

/// Checks the usage against the account's limits before anything is created.
///
/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-limits.html>
///
/// # Errors
/// `QuotaExceeded`, with the numbers and what to do.
pub async fn check(
    elb: &Client,
    usage: &Usage,
    deployment: &DeploymentId,
) -> Result<(), StepError> {
    let (rules, target_groups) = limits(elb).await?;
    // One rule by header, one by cookie; those that exist from an earlier run are adopted.
    let more_rules = 2usize.saturating_sub(usage.own_rules);
    let more_groups = usize::from(usage.own_target_group(deployment).is_none());
    for (what, used, more, limit, advice) in [
        (
            "rules",
            usage.rules,
            more_rules,
            rules,
            "run the cleanup machine, or raise the quota \"Rules per Application Load Balancer\"",
        ),
        (
            "target groups",
            usage.target_groups.len(),
            more_groups,
            target_groups,
            "run the cleanup machine; this quota cannot be raised",
        ),
    ] {
        if used + more > limit {
            return Err(StepError::new(
                ErrorName::QuotaExceeded,
                format!(
                    "{deployment} needs {more} more {what}, and the load balancer has {used} of {limit}: {advice}"
                ),
            ));
        }
    }
    Ok(())
}

/// Rules and target groups per Application Load Balancer, as this account has them.
async fn limits(elb: &Client) -> Result<(usize, usize), StepError> {
    let (mut rules, mut target_groups) = (100, 100);
    let limits = elb.describe_account_limits().into_paginator().items();
    let limits = limits.send().try_collect().await;
    for limit in
        limits.map_err(|error| failed("read the account's load balancing limits", error))?
    {
        let Some(max) = limit.max().and_then(|max| max.parse().ok()) else {
            continue;
        };
        match limit.name() {
            Some("rules-per-application-load-balancer") => rules = max,
            Some("target-groups-per-application-load-balancer") => target_groups = max,
            _ => {}
        }
    }
    Ok((rules, target_groups))
}
