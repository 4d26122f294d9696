//! Creates the target group of a deployment.

use aws_sdk_elasticloadbalancingv2::Client;
use aws_sdk_elasticloadbalancingv2::operation::create_target_group::builders::CreateTargetGroupFluentBuilder;
use aws_sdk_elasticloadbalancingv2::types::{
    Matcher, ProtocolEnum, Rule, Tag, TargetGroup, TargetGroupAttribute, TargetTypeEnum,
};
use lifecycle::aws_error::{created_arn, failed};
use lifecycle::scaling::Scaling;
use lifecycle::target_group::{self, Found};
use lifecycle::{
    Baseline, DeploymentId, ErrorName, Origin, StepError, defaults, executions, routing, tags,
};
use serde::{Deserialize, Serialize};

/// The deployment that needs a target group.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Input {
    /// The deployment.
    pub deployment_id: DeploymentId,
    /// The ARN of the execution that needs it. A machine of an earlier version does not send it.
    #[serde(default)]
    pub execution: Option<String>,
    /// The path that the load balancer asks.
    #[serde(default = "default_path")]
    pub health_check_path: String,
    /// Seconds that ECS leaves its tasks alone when they fail their health checks. A tag keeps what is unusual.
    #[serde(default)]
    pub grace_seconds: Option<u32>,
    /// How many tasks the settings or the input ask for. A tag keeps it. A machine of an earlier version does not send it.
    #[serde(default)]
    pub wanted_count: Option<u32>,
    /// How the number of tasks follows the load. A tag keeps it.
    #[serde(default)]
    pub scaling: Option<Scaling>,
    /// Seconds for which a visitor stays on the same task; none means that each request goes to any task.
    #[serde(default)]
    pub stickiness: Option<u32>,
}

fn default_path() -> String {
    defaults::HEALTH_CHECK_PATH.to_owned()
}

/// The target group, created or adopted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// The ARN of the target group.
    pub target_group_arn: String,
    /// Whether this run created it.
    pub outcome: Origin,
}

/// Adopts the deployment's target group when there is one, and makes it as the input says, else creates it.
///
/// # Errors
/// `ResourceConflict` when the name is taken by a group that is not ours, `Transient` while an earlier group is
/// being deleted, else as [`lifecycle::aws_error::CODES`] say.
pub async fn run(elb: &Client, baseline: &Baseline, input: Input) -> Result<Output, StepError> {
    let deployment = &input.deployment_id;
    let (outcome, arn) = adopt_or_create(elb, baseline, &input).await?;
    if let Some(execution) = &input.execution {
        let tag = format!("{}{}", tags::EXECUTION, executions::name(execution));
        target_group::set_tag(elb, &arn, &tag, execution).await?;
        // An undo tags the group before it reads this tag, so at least one of the two sees the other.
        if adopt(target_group::look_up(elb, deployment).await?, deployment)?.is_none() {
            return Err(being_deleted(deployment));
        }
    }
    if outcome == Origin::Adopted {
        correct(elb, baseline, &arn, &input).await?;
    }
    // Also on a group that was found: the run that created it may have died before this call.
    set_attributes(elb, &arn, input.stickiness).await?;
    Ok(Output {
        target_group_arn: arn,
        outcome,
    })
}

/// Makes a group that was found as the input says: the run that created it may have had another input.
async fn correct(
    elb: &Client,
    baseline: &Baseline,
    arn: &str,
    input: &Input,
) -> Result<(), StepError> {
    correct_path(elb, arn, &input.health_check_path).await?;
    if input.wanted_count.is_none() {
        return Ok(());
    }
    for (key, value) in input_tags(baseline, input) {
        match value {
            Some(value) => target_group::set_tag(elb, arn, key, &value).await?,
            None => target_group::untag(elb, arn, &[key]).await?,
        }
    }
    Ok(())
}

/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_ModifyTargetGroup.html>
async fn correct_path(elb: &Client, arn: &str, path: &str) -> Result<(), StepError> {
    let answer = elb.describe_target_groups().target_group_arns(arn).send();
    let answer = answer
        .await
        .map_err(|error| failed(format_args!("read the health check of {arn}"), error))?;
    let is_right = |group: &TargetGroup| group.health_check_path() == Some(path);
    if answer.target_groups().iter().any(is_right) {
        return Ok(());
    }
    let request = elb.modify_target_group().target_group_arn(arn);
    request
        .health_check_path(path)
        .send()
        .await
        .map(drop)
        .map_err(|error| failed(format_args!("set the health check path of {arn}"), error))
}

/// The tags that keep what the input says, without a value where it says nothing unusual.
fn input_tags(baseline: &Baseline, input: &Input) -> [(&'static str, Option<String>); 3] {
    let usual = baseline.health_check_grace_seconds();
    let unusual = input.grace_seconds.filter(|seconds| *seconds != usual);
    [
        (tags::GRACE_SECONDS, unusual.map(|it| it.to_string())),
        (
            tags::WANTED_COUNT,
            input.wanted_count.map(|it| it.to_string()),
        ),
        (tags::SCALING, input.scaling.as_ref().map(Scaling::to_tag)),
    ]
}

async fn adopt_or_create(
    elb: &Client,
    baseline: &Baseline,
    input: &Input,
) -> Result<(Origin, String), StepError> {
    let deployment = &input.deployment_id;
    if let Some(arn) = adopt(target_group::look_up(elb, deployment).await?, deployment)? {
        return Ok((Origin::Adopted, arn));
    }
    let attempt = format!("create target group {deployment}");
    let error = match create(elb, baseline, input).send().await {
        Ok(answer) => {
            let group = answer
                .target_groups
                .and_then(|groups| groups.into_iter().next());
            let arn = created_arn(&attempt, group.and_then(|group| group.target_group_arn))?;
            return Ok((Origin::Created, arn));
        }
        Err(error) => error,
    };
    let is_taken = error
        .as_service_error()
        .is_some_and(|error| error.is_duplicate_target_group_name_exception());
    let mut error = failed(&attempt, error);
    if is_taken {
        // Another run was faster, perhaps one of this step.
        if let Some(arn) = adopt(target_group::look_up(elb, deployment).await?, deployment)? {
            return Ok((Origin::Adopted, arn));
        }
        // The name was taken a moment ago but is free now. The next attempt finds either.
        error.name = ErrorName::Transient;
    }
    Err(error)
}

fn create(elb: &Client, baseline: &Baseline, input: &Input) -> CreateTargetGroupFluentBuilder {
    let deployment = &input.deployment_id;
    let mut tags = tags::to_elb(deployment);
    for (key, value) in input_tags(baseline, input) {
        tags.extend(value.map(|value| Tag::builder().key(key).value(value).build()));
    }
    elb.create_target_group()
        .name(deployment.as_str())
        // Fargate tasks are registered by their own address.
        .target_type(TargetTypeEnum::Ip)
        .protocol(ProtocolEnum::Http)
        .port(defaults::PORT.into())
        .vpc_id(&baseline.vpc_id)
        .health_check_enabled(true)
        .health_check_protocol(ProtocolEnum::Http)
        .health_check_path(&input.health_check_path)
        .health_check_interval_seconds(defaults::HEALTH_CHECK_INTERVAL_SECONDS)
        .health_check_timeout_seconds(defaults::HEALTH_CHECK_TIMEOUT_SECONDS)
        .healthy_threshold_count(defaults::HEALTHY_THRESHOLD)
        .unhealthy_threshold_count(defaults::UNHEALTHY_THRESHOLD)
        .matcher(Matcher::builder().http_code("200").build())
        .set_tags(Some(tags))
}

/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/edit-target-group-attributes.html>
async fn set_attributes(elb: &Client, arn: &str, stickiness: Option<u32>) -> Result<(), StepError> {
    let attribute = |key: &str, value: String| {
        let attribute = TargetGroupAttribute::builder().key(key);
        attribute.value(value).build()
    };
    let delay = defaults::DEREGISTRATION_DELAY_SECONDS.to_string();
    let mut attributes = vec![
        attribute("deregistration_delay.timeout_seconds", delay),
        attribute("stickiness.enabled", stickiness.is_some().to_string()),
    ];
    if let Some(seconds) = stickiness {
        attributes.extend([
            attribute("stickiness.type", "lb_cookie".to_owned()),
            attribute("stickiness.lb_cookie.duration_seconds", seconds.to_string()),
        ]);
    }
    elb.modify_target_group_attributes()
        .target_group_arn(arn)
        .set_attributes(Some(attributes))
        .send()
        .await
        .map_err(|error| failed(format_args!("set the attributes of {arn}"), error))?;
    Ok(())
}

/// The ARN of the group to adopt, or `None` when there is no group of that name.
fn adopt(found: Found, deployment: &DeploymentId) -> Result<Option<String>, StepError> {
    match found {
        Found::Nothing => Ok(None),
        // If it were adopted, no switch would choose it. Left alone, it is soon deleted.
        Found::Ours(group) if group.has(tags::DELETING_SINCE) => Err(being_deleted(deployment)),
        Found::Ours(group) => Ok(Some(group.arn)),
        Found::NotOurs { arn } => Err(StepError::new(
            ErrorName::ResourceConflict,
            format!(
                "the target group {arn} has the name of deployment {deployment} but not its tags; \
                 delete it, or push the image under another deployment id"
            ),
        )),
    }
}

fn being_deleted(deployment: &DeploymentId) -> StepError {
    StepError::new(
        ErrorName::Transient,
        format!(
            "the target group of {deployment} is still being deleted; start again when it is gone"
        ),
    )
}

/// Deletes the deployment's target group, if there is one. Its rules must be gone.
///
/// # Errors
/// `ResourceConflict` when a rule or the default action of the listener still names it, `Transient` when
/// none does but AWS still reports it in use, else as [`lifecycle::aws_error::CODES`] say.
pub async fn undo(
    elb: &Client,
    baseline: &Baseline,
    deployment: &DeploymentId,
) -> Result<(), StepError> {
    let Some(group) = target_group::find(elb, deployment).await? else {
        return Ok(());
    };
    let answer = elb
        .delete_target_group()
        .target_group_arn(&group.arn)
        .send()
        .await;
    let Err(error) = answer else { return Ok(()) };
    let is_in_use = error
        .as_service_error()
        .is_some_and(|error| error.is_resource_in_use_exception());
    if is_in_use {
        return Err(in_use(elb, baseline, &group.arn).await?);
    }
    // If another run has deleted it since it was looked up, AWS does not know it any more. If a call
    // whose answer was lost has deleted it, it has no tags any more, and the role, which may delete
    // only by tag, is denied the SDK's next attempt.
    match target_group::find(elb, deployment).await? {
        None => Ok(()),
        Some(_) => Err(failed(format_args!("delete {}", group.arn), error)),
    }
}

/// The error that lists what still names the group.
async fn in_use(elb: &Client, baseline: &Baseline, arn: &str) -> Result<StepError, StepError> {
    let listener_arn = &baseline.listener_arn;
    let users: Vec<String> = routing::rules(elb, listener_arn)
        .await?
        .iter()
        .filter(|rule| {
            routing::forwarded_to(rule.actions())
                .iter()
                .any(|named| named == arn)
        })
        .map(|rule| describe(rule, listener_arn))
        .collect();
    Ok(if users.is_empty() {
        StepError::new(
            ErrorName::Transient,
            format!(
                "could not delete {arn}: AWS reports it in use, but nothing on {listener_arn} names it any \
                 more; if this lasts, check whether another listener does"
            ),
        )
    } else {
        StepError::new(
            ErrorName::ResourceConflict,
            format!(
                "could not delete {arn}: it is in use by {}; delete those rules, or switch traffic away from \
                 it, first",
                users.join(" and ")
            ),
        )
    })
}

fn describe(rule: &Rule, listener_arn: &str) -> String {
    if rule.is_default() == Some(true) {
        format!("the default action of {listener_arn}")
    } else {
        let arn = rule.rule_arn().unwrap_or_default();
        format!(
            "rule {arn} (priority {})",
            rule.priority().unwrap_or_default()
        )
    }
}

#[cfg(test)]
mod tests;
