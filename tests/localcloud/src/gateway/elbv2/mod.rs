//! The rules of ELBv2. MiniStack keeps the state. The rules that it does not check are checked here,
//! and targets are kept here.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Mutex;

mod account_limits;
mod action_order;
mod client_secrets;
mod conditions;
#[cfg(test)]
pub(super) mod examples;
mod forward_actions;
mod pages;
mod priority;
mod quotas;
mod request;
pub mod snapshot;
mod tag_batches;
mod tags;
mod target_group_in_use;
mod target_group_name;
mod target_health;
mod unknown_arns;

use super::{
    Incoming,
    answer::{Answer, AwsError},
    forward::Forward,
    operation::{Params, Protocol},
};
use crate::{control_plane::ControlPlaneFeed, load_balancer::targets::Targets, ministack::Client};
use pages::Page;

/// Answers calls of ELBv2.
pub(crate) struct Elbv2 {
    client: Client,
    targets: Targets,
    feed: ControlPlaneFeed,
    rules_per_load_balancer: AtomicUsize,
    /// Held while a call that changes state is checked and carried out, so that no other one runs
    /// between the two.
    changing: Mutex<()>,
}

impl Elbv2 {
    /// Starts with the default quotas of AWS.
    pub fn new(client: Client, targets: Targets, feed: ControlPlaneFeed) -> Self {
        Self {
            client,
            targets,
            feed,
            rules_per_load_balancer: quotas::RULES_PER_LOAD_BALANCER.into(),
            changing: Mutex::new(()),
        }
    }

    /// Sets the quota of rules per load balancer, which AWS raises on request.
    pub fn set_rules_per_load_balancer(&self, quota: usize) {
        self.rules_per_load_balancer.store(quota, Ordering::Relaxed);
    }

    fn rules_per_load_balancer(&self) -> usize {
        self.rules_per_load_balancer.load(Ordering::Relaxed)
    }

    /// Makes the feed read the state again soon. Called after calls that may change it in other ways
    /// than by ELBv2.
    pub fn refresh_soon(&self) {
        self.feed.refresh_soon();
    }

    /// Answers a call: checks the permission, then the rules of this module, then passes it on to
    /// MiniStack.
    pub async fn answer(&self, forward: &Forward, incoming: &Incoming) -> Answer {
        if let Err(refusal) = forward.authorise(incoming).await {
            return refusal;
        }
        let reads = incoming.operation.reads();
        let _changing = if reads {
            None
        } else {
            Some(self.changing.lock().await)
        };
        // On a slow machine callers give up and call again. If their first calls kept their places in the
        // queue, it would grow until no caller lives to see an answer.
        if !reads && incoming.waiting.is_over() {
            return AwsError::new("ServiceUnavailable", "the caller has gone")
                .with_status(503)
                .answer(Protocol::Query);
        }
        let answer = match self.decide(forward, incoming).await {
            Ok(answer) => answer,
            Err(error) => error.answer(Protocol::Query),
        };
        // Health checks and the next read must see the change at once. If this read fails, the regular
        // one catches up.
        if !reads && answer.status().is_success() {
            let _ = self.feed.refresh().await;
        }
        answer
    }

    async fn decide(&self, forward: &Forward, incoming: &Incoming) -> Result<Answer, AwsError> {
        let operation = incoming.operation.name.as_str();
        let params = Params::of(&incoming.parts, &incoming.body).unwrap_or_default();
        let state =
            self.feed.snapshot().await.map_err(|error| {
                AwsError::new("ServiceUnavailable", error.message).with_status(503)
            })?;
        unknown_arns::check(operation, &params, &state)?;
        tags::check(&params, &state)?;
        forward_actions::check(&params)?;
        action_order::check(&params)?;
        match operation {
            "CreateRule" => {
                conditions::check(&params)?;
                client_secrets::check(&params, &state)?;
                priority::check(&params, &state)?;
                quotas::of_rules(&params, &state, self.rules_per_load_balancer())?;
                quotas::of_target_groups(&params, &state)?;
            }
            "ModifyRule" | "ModifyListener" | "CreateListener" => {
                conditions::check(&params)?;
                client_secrets::check(&params, &state)?;
                quotas::of_target_groups(&params, &state)?;
            }
            "CreateTargetGroup" => {
                target_group_name::check(&params)?;
                if let Some(group) = target_group_name::existing(&params, &state)? {
                    return self.as_if_created(&group.target_group_arn).await;
                }
            }
            "DeleteTargetGroup" => target_group_in_use::refuse_deletion(&params, &state)?,
            "DescribeAccountLimits" => {
                return Ok(account_limits::answer(self.rules_per_load_balancer()));
            }
            "DescribeTags" => tag_batches::check(&params)?,
            "RegisterTargets" | "DeregisterTargets" | "DescribeTargetHealth" => {
                return target_health::answer(operation, &params, &state, &self.targets);
            }
            _ => {}
        }
        let Some(list) = pages::list_of(operation) else {
            return Ok(forward.forward(incoming).await);
        };
        let page = Page::of(&params)?;
        let answer = forward.forward(incoming).await;
        Ok(if answer.status().is_success() {
            replace_body(answer, |xml| page.cut(xml, list))
        } else {
            answer
        })
    }

    /// The answer to the creation of a target group that exists with the same settings.
    async fn as_if_created(&self, arn: &str) -> Result<Answer, AwsError> {
        let params = [
            ("Action", "DescribeTargetGroups"),
            ("TargetGroupArns.member.1", arn),
        ];
        let xml = self
            .client
            .query("elasticloadbalancing", "2015-12-01", &params)
            .await
            .map_err(|error| AwsError::new("ServiceUnavailable", error.message).with_status(503))?;
        let xml = xml.replace("DescribeTargetGroups", "CreateTargetGroup");
        Ok(super::answer::with_body(200, "text/xml", xml))
    }
}

fn replace_body(answer: Answer, change: impl FnOnce(&str) -> String) -> Answer {
    let (mut parts, body) = answer.into_parts();
    parts.headers.remove("content-length");
    let body = change(&String::from_utf8_lossy(&body));
    Answer::from_parts(parts, body.into())
}
