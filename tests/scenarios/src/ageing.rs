//! Lets time pass for deployments, by moving the times in their tags back.

use anyhow::Context;
use aws_sdk_elasticloadbalancingv2::types::Tag;
use lifecycle::DeploymentId;
use lifecycle::defaults::{SWEEPS_APART, SWITCH_ANNOUNCED};
use lifecycle::tags::{PRECISION, READY_AT, timestamp};
use time::format_description::well_known::Rfc3339;
use time::{Duration, UtcDateTime};

use crate::TestEnvironment;

impl TestEnvironment {
    /// Makes the next cleanup a sweep of its own, as if it ran that much later.
    ///
    /// For the functions this is the same as waiting: what they know of the past is in the tags of the target groups,
    /// and all of it moves together, so that the order of events and the times between them stay. Only AWS's own
    /// times, of the creation of resources and of executions, remain. Nothing may run in the meantime that has read
    /// the tags already.
    ///
    /// # Errors
    /// When the load balancer does not answer.
    pub async fn age_sweeps(&self) -> anyhow::Result<()> {
        let apart = SWEEPS_APART + PRECISION;
        self.move_tags_back(|_, at| at - apart).await
    }

    /// Moves the announcements of switches back by the time for which a drain gives way to them. On AWS, a switch
    /// settles for longer than that; with [`BY_HAND`](crate::machines::BY_HAND), nothing settles.
    ///
    /// # Errors
    /// When the load balancer does not answer.
    pub async fn age_switches(&self) -> anyhow::Result<()> {
        let now = UtcDateTime::now();
        self.move_tags_back(|key, at| {
            let is_announced = key == READY_AT && now - at < SWITCH_ANNOUNCED;
            let by = if is_announced {
                SWITCH_ANNOUNCED
            } else {
                Duration::ZERO
            };
            at - by
        })
        .await
    }

    /// Replaces the times in the tags of all deployments by `earlier` ones.
    async fn move_tags_back(
        &self,
        earlier: impl Fn(&str, UtcDateTime) -> UtcDateTime,
    ) -> anyhow::Result<()> {
        let groups = self.elb.describe_target_groups().into_paginator().items();
        let groups = groups.send().try_collect().await?;
        let ours = groups.iter().filter(|group| {
            let id = group.target_group_name().unwrap_or_default().parse();
            id.is_ok_and(|id: DeploymentId| id.environment().as_str() == self.name)
        });
        for group in ours {
            let arn = group.target_group_arn().context("no ARN")?;
            let described = self.elb.describe_tags().resource_arns(arn).send().await?;
            let moved: Vec<Tag> = described
                .tag_descriptions()
                .iter()
                .flat_map(|description| description.tags())
                .filter_map(|tag| {
                    let (key, value) = (tag.key()?, tag.value()?);
                    let at = UtcDateTime::parse(value, &Rfc3339).ok()?;
                    let earlier = timestamp(earlier(key, at));
                    (earlier != value).then(|| Tag::builder().key(key).value(earlier).build())
                })
                .collect();
            if !moved.is_empty() {
                let add = self.elb.add_tags().resource_arns(arn);
                add.set_tags(Some(moved)).send().await?;
            }
        }
        Ok(())
    }
}
