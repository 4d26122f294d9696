//! The target group of a deployment, whose tags carry the deployment's state.

use aws_sdk_elasticloadbalancingv2::Client;
use aws_sdk_elasticloadbalancingv2::operation::describe_target_groups::DescribeTargetGroupsError;
use aws_sdk_elasticloadbalancingv2::operation::describe_target_health::DescribeTargetHealthError;
use aws_sdk_elasticloadbalancingv2::types::{
    Tag, TargetHealth, TargetHealthDescription, TargetHealthStateEnum,
};
use time::UtcDateTime;

use crate::aws_error::{failed, found};
use crate::tags::{self, Tags};
use crate::{Clock, DeploymentId, Environment, StepError};

/// A target group that carries its deployment's tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetGroup {
    /// The deployment that it is named after.
    pub deployment: DeploymentId,
    /// `arn:aws:elasticloadbalancing:…:targetgroup/<name>/<hash>`.
    pub arn: String,
    /// All its tags, the deployment's state among them.
    pub tags: Tags,
}

impl TargetGroup {
    /// Whether it carries that tag, with any value.
    pub fn has(&self, key: &str) -> bool {
        self.tags.contains_key(key)
    }
}

/// What exists under a deployment's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// There is no target group of that name.
    Nothing,
    /// A target group that carries the deployment's tags.
    Ours(TargetGroup),
    /// A target group without the deployment's tags, which is neither changed nor deleted.
    NotOurs {
        /// Its ARN.
        arn: String,
    },
}

/// Looks up the target group that is named after the deployment, with its tags.
pub async fn look_up(elb: &Client, deployment: &DeploymentId) -> Result<Found, StepError> {
    let request = elb.describe_target_groups().names(deployment.as_str());
    let answer = found(
        format_args!("look up target group {deployment}"),
        request.send().await,
        DescribeTargetGroupsError::is_target_group_not_found_exception,
    )?;
    let groups = answer.and_then(|answer| answer.target_groups);
    let Some(arn) = groups
        .into_iter()
        .flatten()
        .find_map(|group| group.target_group_arn)
    else {
        return Ok(Found::Nothing);
    };
    // No answer at all means that it was deleted between the two calls.
    let Some(tags) = tags::read_one(elb, &arn).await? else {
        return Ok(Found::Nothing);
    };
    Ok(if tags::belong_to(&tags, deployment) {
        let deployment = deployment.clone();
        Found::Ours(TargetGroup {
            deployment,
            arn,
            tags,
        })
    } else {
        Found::NotOurs { arn }
    })
}

/// The deployment's target group with its tags. `None` when there is none, or when the group of that
/// name does not carry the deployment's tags.
pub async fn find(
    elb: &Client,
    deployment: &DeploymentId,
) -> Result<Option<TargetGroup>, StepError> {
    Ok(match look_up(elb, deployment).await? {
        Found::Ours(group) => Some(group),
        Found::Nothing | Found::NotOurs { .. } => None,
    })
}

/// The target groups among these ARNs that carry the tags of a deployment of the environment.
///
/// The names are checked first, because that costs nothing: tags are read only for groups that may belong
/// to the environment.
pub async fn of_environment<'a>(
    elb: &Client,
    environment: &Environment,
    arns: impl IntoIterator<Item = &'a str>,
) -> Result<Vec<TargetGroup>, StepError> {
    let mut candidates: Vec<String> = arns
        .into_iter()
        .filter(|arn| deployment_from_name(arn, environment).is_some())
        .map(str::to_owned)
        .collect();
    candidates.sort();
    candidates.dedup();
    let mut tags = tags::read(elb, &candidates).await?;
    Ok(candidates
        .into_iter()
        .filter_map(|arn| {
            let tags = tags.remove(&arn)?;
            let deployment = deployment_from_name(&arn, environment)?;
            tags::belong_to(&tags, &deployment).then_some(TargetGroup {
                deployment,
                arn,
                tags,
            })
        })
        .collect())
}

/// Sets a tag to the time of this call.
pub async fn tag(elb: &Client, arn: &str, key: &str, clock: Clock<'_>) -> Result<(), StepError> {
    set_tag(elb, arn, key, &tags::timestamp(clock())).await
}

/// Sets tags to times, by one call.
pub async fn tag_times(
    elb: &Client,
    arn: &str,
    times: &[(&str, UtcDateTime)],
) -> Result<(), StepError> {
    let tags: Vec<_> = times
        .iter()
        .map(|(key, time)| (*key, tags::timestamp(*time)))
        .collect();
    set_tags(elb, arn, &tags).await
}

/// Sets a tag to a value.
pub async fn set_tag(elb: &Client, arn: &str, key: &str, value: &str) -> Result<(), StepError> {
    set_tags(elb, arn, &[(key, value.to_owned())]).await
}

async fn set_tags(elb: &Client, arn: &str, tags: &[(&str, String)]) -> Result<(), StepError> {
    let tag = |(key, value): &(&str, String)| Tag::builder().key(*key).value(value).build();
    let request = elb.add_tags().resource_arns(arn);
    let request = request.set_tags(Some(tags.iter().map(tag).collect()));
    request.send().await.map(drop).map_err(|error| {
        let keys: Vec<_> = tags.iter().map(|(key, _)| *key).collect();
        let keys = keys.join(" and ");
        failed(format_args!("tag target group {arn} with {keys}"), error)
    })
}

/// Removes tags. A tag that is not there is not an error.
pub async fn untag(elb: &Client, arn: &str, keys: &[&str]) -> Result<(), StepError> {
    elb.remove_tags()
        .resource_arns(arn)
        .set_tag_keys(Some(keys.iter().map(|key| key.to_string()).collect()))
        .send()
        .await
        .map(drop)
        .map_err(|error| {
            let keys = keys.join(", ");
            failed(format_args!("remove {keys} from target group {arn}"), error)
        })
}

/// Sets a tag to the time of this call, unless the group was deleted since it was read.
pub async fn tag_unless_gone(
    elb: &Client,
    arn: &str,
    key: &str,
    clock: Clock<'_>,
) -> Result<(), StepError> {
    unless_gone(elb, arn, tag(elb, arn, key, clock).await).await
}

/// Removes tags, unless the group was deleted since it was read.
pub async fn untag_unless_gone(elb: &Client, arn: &str, keys: &[&str]) -> Result<(), StepError> {
    unless_gone(elb, arn, untag(elb, arn, keys).await).await
}

/// The outcome of a change of a target group's tags, which needs none once the group is deleted: its tags are
/// gone with it, and AWS denies a change that is allowed for groups with our tags only.
pub async fn unless_gone(
    elb: &Client,
    arn: &str,
    changed: Result<(), StepError>,
) -> Result<(), StepError> {
    match changed {
        Err(_) if matches!(tags::read_one(elb, arn).await, Ok(None)) => Ok(()),
        changed => changed,
    }
}

/// Every target with its health, or `None` when the group does not exist.
pub async fn targets(
    elb: &Client,
    arn: &str,
) -> Result<Option<Vec<TargetHealthDescription>>, StepError> {
    // Not paginated: https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_DescribeTargetHealth.html
    let answer = found(
        format_args!("read the target health of {arn}"),
        elb.describe_target_health()
            .target_group_arn(arn)
            .send()
            .await,
        DescribeTargetHealthError::is_target_group_not_found_exception,
    )?;
    Ok(answer.map(|answer| answer.target_health_descriptions.unwrap_or_default()))
}

/// The health of every target, or `None` when the group does not exist.
pub async fn health(elb: &Client, arn: &str) -> Result<Option<Vec<TargetHealth>>, StepError> {
    Ok(targets(elb, arn).await?.map(|targets| {
        targets
            .into_iter()
            .filter_map(|it| it.target_health)
            .collect()
    }))
}

/// How many of these targets are healthy.
pub fn healthy(targets: &[TargetHealth]) -> usize {
    let is_healthy =
        |target: &&TargetHealth| target.state() == Some(&TargetHealthStateEnum::Healthy);
    targets.iter().filter(is_healthy).count()
}

/// Whether any target of the group is healthy. A group that does not exist has none.
///
/// # Errors
/// As [`crate::aws_error::CODES`] say.
pub async fn has_healthy_target(elb: &Client, arn: &str) -> Result<bool, StepError> {
    let targets = health(elb, arn).await?.unwrap_or_default();
    Ok(healthy(&targets) > 0)
}

/// The name in a target group's ARN: `…:targetgroup/<name>/<hash>`.
pub fn name(arn: &str) -> Option<&str> {
    arn.rsplit_once(":targetgroup/")?.1.split('/').next()
}

/// What CloudWatch and Application Auto Scaling call a target group: `targetgroup/<name>/<hash>`.
pub fn dimension(arn: &str) -> &str {
    arn.rsplit(':').next().unwrap_or_default()
}

/// What they call a load balancer: `app/<name>/<hash>`.
pub fn dimension_of_load_balancer(arn: &str) -> &str {
    arn.split(":loadbalancer/").nth(1).unwrap_or_default()
}

/// The deployment of the environment that a target group is named after, whatever its tags say.
///
/// Enough to say what is active, because an operator may have removed the tags. Never enough to change
/// or delete the group.
pub fn deployment_from_name(arn: &str, environment: &Environment) -> Option<DeploymentId> {
    let id: DeploymentId = name(arn)?.parse().ok()?;
    (id.environment() == environment).then_some(id)
}

#[cfg(test)]
mod tests;
