//! Creates the target group of a deployment.

use aws_sdk_elasticloadbalancingv2::Client;
use aws_sdk_elasticloadbalancingv2::types::{
    Matcher, ProtocolEnum, Rule, Tag, TargetGroupAttribute, TargetTypeEnum,
};
use lifecycle::aws_error::{code, failed};
use lifecycle::listener::{self, DeploymentTargetGroup};
use lifecycle::{DeploymentId, ErrorName, Settings, StepError, defaults, tags};
use serde::{Deserialize, Serialize};

/// What the step needs to know.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Input {
    /// The deployment.
    pub deployment_id: DeploymentId,
}

/// What the step made or found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// The target group.
    pub target_group_arn: String,
}

/// Adopts the deployment's target group when there is one, else creates it.
///
/// # Errors
/// `ResourceConflict` when the name is taken by a group that is not ours, else as
/// [`lifecycle::aws_error::CODES`] say.
pub async fn run(elb: &Client, settings: &Settings, input: Input) -> Result<Output, StepError> {
    let deployment = &input.deployment_id;
    let step = async {
        let arn = adopt_or_create(elb, settings, deployment).await?;
        // Also on a group that was found: the run that created it may have died before this call.
        set_deregistration_delay(elb, &arn).await?;
        Ok(Output {
            target_group_arn: arn,
        })
    };
    step.await.map_err(|error: StepError| error.of(deployment))
}

async fn adopt_or_create(
    elb: &Client,
    settings: &Settings,
    deployment: &DeploymentId,
) -> Result<String, StepError> {
    if let Some(arn) = adopt(look_up(elb, deployment).await?, deployment)? {
        return Ok(arn);
    }
    let attempt = format!("create target group {deployment}");
    let answer = elb
        .create_target_group()
        .name(deployment.as_str())
        // Fargate tasks are registered by their own address.
        .target_type(TargetTypeEnum::Ip)
        .protocol(ProtocolEnum::Http)
        .port(defaults::PORT.into())
        .vpc_id(&settings.vpc_id)
        .health_check_enabled(true)
        .health_check_protocol(ProtocolEnum::Http)
        .health_check_path(defaults::HEALTH_CHECK_PATH)
        .health_check_interval_seconds(defaults::HEALTH_CHECK_INTERVAL_SECONDS)
        .health_check_timeout_seconds(defaults::HEALTH_CHECK_TIMEOUT_SECONDS)
        .healthy_threshold_count(defaults::HEALTHY_THRESHOLD)
        .unhealthy_threshold_count(defaults::UNHEALTHY_THRESHOLD)
        .matcher(Matcher::builder().http_code("200").build())
        .set_tags(Some(
            tags::of(deployment)
                .map(|(key, value)| Tag::builder().key(key).value(value).build())
                .to_vec(),
        ))
        .send()
        .await;
    match answer {
        Ok(answer) => answer
            .target_groups
            .and_then(|groups| groups.into_iter().next()?.target_group_arn)
            .ok_or_else(|| {
                StepError::new(
                    ErrorName::Transient,
                    format!("could not {attempt}: the answer holds no ARN"),
                )
            }),
        // Somebody was faster, perhaps another run of this step.
        Err(error) if code(&error) == Some("DuplicateTargetGroupName") => {
            adopt(look_up(elb, deployment).await?, deployment)?.ok_or_else(|| {
                let mut error = failed(&attempt, error);
                // Taken a moment ago and not there now: the next attempt sees one or the other.
                error.name = ErrorName::Transient;
                error
            })
        }
        Err(error) => Err(failed(&attempt, error)),
    }
}

async fn set_deregistration_delay(elb: &Client, arn: &str) -> Result<(), StepError> {
    elb.modify_target_group_attributes()
        .target_group_arn(arn)
        .attributes(
            TargetGroupAttribute::builder()
                .key("deregistration_delay.timeout_seconds")
                .value(defaults::DEREGISTRATION_DELAY_SECONDS.to_string())
                .build(),
        )
        .send()
        .await
        .map_err(|error| failed(format_args!("set the attributes of {arn}"), error))?;
    Ok(())
}

/// What stands under a deployment's name.
enum Found {
    Nothing,
    Ours(DeploymentTargetGroup),
    NotOurs { arn: String },
}

/// The ARN of the group to adopt, or nothing when there is none.
fn adopt(found: Found, deployment: &DeploymentId) -> Result<Option<String>, StepError> {
    match found {
        Found::Nothing => Ok(None),
        // Adopted, it would never be switched to; left alone, it is gone soon.
        Found::Ours(group) if group.tags.contains_key(tags::DELETING_SINCE) => Err(StepError::new(
            ErrorName::Transient,
            format!(
                "the target group of {deployment} is still being deleted; start again when it is gone"
            ),
        )),
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

async fn look_up(elb: &Client, deployment: &DeploymentId) -> Result<Found, StepError> {
    let answer = elb
        .describe_target_groups()
        .names(deployment.as_str())
        .send()
        .await;
    let groups = match answer {
        Ok(answer) => answer.target_groups.unwrap_or_default(),
        Err(error) if code(&error) == Some("TargetGroupNotFound") => return Ok(Found::Nothing),
        Err(error) => {
            return Err(failed(
                format_args!("look up target group {deployment}"),
                error,
            ));
        }
    };
    let Some(arn) = groups
        .into_iter()
        .next()
        .and_then(|group| group.target_group_arn)
    else {
        return Ok(Found::Nothing);
    };
    // No tags at all means that it was deleted between the two calls.
    let Some(tags) = listener::tags(elb, std::slice::from_ref(&arn))
        .await?
        .remove(&arn)
    else {
        return Ok(Found::Nothing);
    };
    Ok(if tags::belong_to(&tags, deployment) {
        Found::Ours(DeploymentTargetGroup {
            deployment: deployment.clone(),
            arn,
            tags,
        })
    } else {
        Found::NotOurs { arn }
    })
}

/// The deployment's target group with its tags. `None` when there is none, or when what has its name
/// does not carry its tags.
///
/// # Errors
/// As [`lifecycle::aws_error::CODES`] say.
pub async fn find(
    elb: &Client,
    deployment: &DeploymentId,
) -> Result<Option<DeploymentTargetGroup>, StepError> {
    Ok(match look_up(elb, deployment).await? {
        Found::Ours(group) => Some(group),
        Found::Nothing | Found::NotOurs { .. } => None,
    })
}

/// Deletes the deployment's target group and says whether there was one. Its rules must be gone.
///
/// # Errors
/// `ResourceConflict` when a rule or the default action of the listener still names it, `Transient`
/// when none does and AWS says so all the same, else as [`lifecycle::aws_error::CODES`] say.
pub async fn undo(
    elb: &Client,
    settings: &Settings,
    deployment: &DeploymentId,
) -> Result<bool, StepError> {
    let delete = async {
        let Some(group) = find(elb, deployment).await? else {
            return Ok(false);
        };
        let answer = elb
            .delete_target_group()
            .target_group_arn(&group.arn)
            .send()
            .await;
        match answer {
            Ok(_) => Ok(true),
            // Deleted by another run since the look-up.
            Err(error) if code(&error) == Some("TargetGroupNotFound") => Ok(false),
            Err(error) if code(&error) == Some("ResourceInUse") => {
                Err(in_use(elb, settings, &group.arn).await?)
            }
            // Deleted by a call whose answer was lost, it has no tags any more, and then the role, which
            // may delete by tag only, is denied the SDK's next attempt.
            Err(error) => match find(elb, deployment).await? {
                None => Ok(true),
                Some(_) => Err(failed(format_args!("delete {}", group.arn), error)),
            },
        }
    };
    delete
        .await
        .map_err(|error: StepError| error.of(deployment))
}

/// The error that says who still names the group.
async fn in_use(elb: &Client, settings: &Settings, arn: &str) -> Result<StepError, StepError> {
    let listener_arn = &settings.listener_arn;
    let users: Vec<String> = listener::rules(elb, listener_arn)
        .await?
        .iter()
        .filter(|rule| {
            listener::forwards(rule.actions())
                .iter()
                .any(|group| group.target_group_arn() == Some(arn))
        })
        .map(|rule| in_words(rule, listener_arn))
        .collect();
    Ok(if users.is_empty() {
        StepError::new(
            ErrorName::Transient,
            format!(
                "could not delete {arn}: it is said to be in use, but nothing on {listener_arn} names \
                 it any more; should this last, look for another listener that does"
            ),
        )
    } else {
        StepError::new(
            ErrorName::ResourceConflict,
            format!(
                "could not delete {arn}: it is in use by {}; delete those rules, or switch traffic \
                 away from it, first",
                users.join(" and ")
            ),
        )
    })
}

fn in_words(rule: &Rule, listener_arn: &str) -> String {
    if rule.is_default() == Some(true) {
        format!("the default action of {listener_arn}")
    } else {
        format!(
            "rule {} (priority {})",
            rule.rule_arn().unwrap_or_default(),
            rule.priority().unwrap_or_default()
        )
    }
}

#[cfg(test)]
mod tests;
