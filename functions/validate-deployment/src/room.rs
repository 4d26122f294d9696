//! Whether the load balancer has room for one more deployment.

use std::collections::BTreeSet;

use aws_sdk_elasticloadbalancingv2::Client;
use aws_sdk_elasticloadbalancingv2::types::Rule;
use lifecycle::aws_error::failed;
use lifecycle::{DeploymentId, ErrorName, Settings, StepError, listener};

/// What the load balancer holds, as far as its quotas count it.
#[derive(Debug, Default)]
pub struct Usage {
    /// Rules of all its listeners, default rules excluded.
    rules: usize,
    /// Distinct target groups that its rules and default actions name.
    target_groups: BTreeSet<String>,
    /// Rules that forward to this deployment's target group already.
    own_rules: usize,
}

/// Counts what the load balancer holds, over all its listeners.
///
/// # Errors
/// As AWS answers the reads.
pub async fn usage(
    elb: &Client,
    settings: &Settings,
    deployment: &DeploymentId,
) -> Result<Usage, StepError> {
    let mut usage = Usage::default();
    let mut marker = None;
    loop {
        let page = elb
            .describe_listeners()
            .load_balancer_arn(&settings.load_balancer_arn)
            .set_marker(marker)
            .send()
            .await
            .map_err(|error| {
                failed(
                    format_args!("list the listeners of {}", settings.load_balancer_arn),
                    error,
                )
            })?;
        for listener_arn in page
            .listeners()
            .iter()
            .filter_map(|listener| listener.listener_arn())
        {
            for rule in listener::rules(elb, listener_arn).await? {
                usage.count(&rule, deployment);
            }
        }
        marker = page.next_marker.filter(|marker| !marker.is_empty());
        if marker.is_none() {
            return Ok(usage);
        }
    }
}

impl Usage {
    fn count(&mut self, rule: &Rule, deployment: &DeploymentId) {
        let groups: Vec<String> = listener::forwards(rule.actions())
            .into_iter()
            .filter_map(|group| group.target_group_arn)
            .collect();
        let is_default = rule.is_default().unwrap_or_default();
        if !is_default {
            self.rules += 1;
            let own = |arn: &String| listener::target_group_name(arn) == Some(deployment.as_str());
            self.own_rules += usize::from(groups.iter().any(own));
        }
        self.target_groups.extend(groups);
    }

    /// The ARN of the deployment's own target group, if a rule names it.
    pub fn own_target_group(&self, deployment: &DeploymentId) -> Option<&String> {
        self.target_groups
            .iter()
            .find(|arn| listener::target_group_name(arn) == Some(deployment.as_str()))
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
    let mut marker = None;
    loop {
        let page = elb
            .describe_account_limits()
            .set_marker(marker)
            .send()
            .await
            .map_err(|error| failed("read the account's load balancing limits", error))?;
        for limit in page.limits() {
            let Some(max) = limit.max().and_then(|max| max.parse().ok()) else {
                continue;
            };
            match limit.name() {
                Some("rules-per-application-load-balancer") => rules = max,
                Some("target-groups-per-application-load-balancer") => target_groups = max,
                _ => {}
            }
        }
        marker = page.next_marker.filter(|marker| !marker.is_empty());
        if marker.is_none() {
            return Ok((rules, target_groups));
        }
    }
}
