//! Reading the listener: what is active, which rules there are, whose target groups they name.
//!
//! "Active" is what the default action says at this moment, so nothing here is cached.

use std::collections::HashMap;

use aws_sdk_elasticloadbalancingv2::Client;
use aws_sdk_elasticloadbalancingv2::types::{
    Action, ActionTypeEnum, ForwardActionConfig, Listener, Rule, TargetGroupTuple,
};

use crate::aws_error::{code, failed};
use crate::tags::{self, Tags};
use crate::{DeploymentId, Environment, ErrorName, StepError};

/// DescribeTags takes at most 20 resources:
/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_DescribeTags.html>.
const TAGS_PER_CALL: usize = 20;

/// The most that DescribeRules gives at once:
/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_DescribeRules.html>.
const RULES_PER_PAGE: i32 = 400;

/// A target group of a deployment, found through the listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeploymentTargetGroup {
    /// The deployment it belongs to.
    pub deployment: DeploymentId,
    /// Its ARN.
    pub arn: String,
    /// All its tags.
    pub tags: Tags,
}

/// The listener as it is now.
///
/// # Errors
/// `Configuration` when there is no such listener, else as [`crate::aws_error::CODES`] say.
pub async fn read(elb: &Client, listener_arn: &str) -> Result<Listener, StepError> {
    elb.describe_listeners()
        .listener_arns(listener_arn)
        .send()
        .await
        .map_err(|error| failed(format_args!("read listener {listener_arn}"), error))?
        .listeners
        .and_then(|listeners| listeners.into_iter().next())
        .ok_or_else(|| {
            StepError::new(
                ErrorName::Configuration,
                format!("there is no listener {listener_arn}"),
            )
        })
}

/// The target groups that these actions forward to, with their weights (1 where none is given).
pub fn forwards(actions: &[Action]) -> Vec<TargetGroupTuple> {
    actions
        .iter()
        .filter(|action| action.r#type() == Some(&ActionTypeEnum::Forward))
        .flat_map(|action| {
            match action
                .forward_config()
                .map(ForwardActionConfig::target_groups)
            {
                Some(groups) if !groups.is_empty() => groups.to_vec(),
                _ => action
                    .target_group_arn()
                    .map(|arn| {
                        TargetGroupTuple::builder()
                            .target_group_arn(arn)
                            .weight(1)
                            .build()
                    })
                    .into_iter()
                    .collect(),
            }
        })
        .collect()
}

/// All rules of a listener, the default rule among them.
///
/// # Errors
/// As [`crate::aws_error::CODES`] say.
pub async fn rules(elb: &Client, listener_arn: &str) -> Result<Vec<Rule>, StepError> {
    let mut rules = Vec::new();
    let mut marker = None;
    loop {
        let page = elb
            .describe_rules()
            .listener_arn(listener_arn)
            .page_size(RULES_PER_PAGE)
            .set_marker(marker)
            .send()
            .await
            .map_err(|error| {
                failed(
                    format_args!("list the rules of listener {listener_arn}"),
                    error,
                )
            })?;
        rules.extend(page.rules.unwrap_or_default());
        marker = page.next_marker.filter(|marker| !marker.is_empty());
        if marker.is_none() {
            return Ok(rules);
        }
    }
}

/// The tags of these load balancing resources, by ARN. What is gone meanwhile is left out.
///
/// # Errors
/// As [`crate::aws_error::CODES`] say.
pub async fn tags(elb: &Client, arns: &[String]) -> Result<HashMap<String, Tags>, StepError> {
    let mut found = HashMap::new();
    for batch in arns.chunks(TAGS_PER_CALL) {
        if let Some(descriptions) = describe_tags(elb, batch).await? {
            found.extend(descriptions);
            continue;
        }
        // One that another run has deleted since it was listed fails the call for all of them.
        for arn in batch {
            found.extend(
                describe_tags(elb, std::slice::from_ref(arn))
                    .await?
                    .unwrap_or_default(),
            );
        }
    }
    Ok(found)
}

/// The tags of up to [`TAGS_PER_CALL`] resources, or `None` when one of them does not exist.
async fn describe_tags(
    elb: &Client,
    arns: &[String],
) -> Result<Option<HashMap<String, Tags>>, StepError> {
    let answer = elb
        .describe_tags()
        .set_resource_arns(Some(arns.to_vec()))
        .send()
        .await;
    let descriptions = match answer {
        Ok(answer) => answer.tag_descriptions.unwrap_or_default(),
        Err(error) if matches!(code(&error), Some("RuleNotFound" | "TargetGroupNotFound")) => {
            return Ok(None);
        }
        Err(error) => {
            return Err(failed(
                format_args!("read the tags of {}", arns.join(", ")),
                error,
            ));
        }
    };
    Ok(Some(
        descriptions
            .into_iter()
            .map(|description| {
                let tags = description
                    .tags()
                    .iter()
                    .map(|tag| {
                        (
                            tag.key().unwrap_or_default().to_owned(),
                            tag.value().unwrap_or_default().to_owned(),
                        )
                    })
                    .collect();
                (description.resource_arn.unwrap_or_default(), tags)
            })
            .collect(),
    ))
}

/// The deployments of the environment among these target groups, told by name and tags.
///
/// The name is looked at first: it costs nothing, and tags are only asked for what may be ours.
///
/// # Errors
/// As [`tags`].
pub async fn deployments<'a>(
    elb: &Client,
    environment: &Environment,
    target_group_arns: impl IntoIterator<Item = &'a str>,
) -> Result<Vec<DeploymentTargetGroup>, StepError> {
    let mut candidates: Vec<String> = target_group_arns
        .into_iter()
        .filter(|arn| named_like_ours(arn, environment).is_some())
        .map(str::to_owned)
        .collect();
    candidates.sort();
    candidates.dedup();
    let mut tags = tags(elb, &candidates).await?;
    Ok(candidates
        .into_iter()
        .filter_map(|arn| {
            let tags = tags.remove(&arn)?;
            let deployment = tags::deployment(&tags, environment)?;
            Some(DeploymentTargetGroup {
                deployment,
                arn,
                tags,
            })
        })
        .collect())
}

/// The deployment of the environment that a target group is named after, whatever its tags say.
///
/// Enough to tell what is active, for somebody may have removed the tags; never enough to change or
/// delete the group.
pub fn named_like_ours(arn: &str, environment: &Environment) -> Option<DeploymentId> {
    let id: DeploymentId = target_group_name(arn)?.parse().ok()?;
    (id.environment() == environment).then_some(id)
}

/// The name in a target group's ARN: `…:targetgroup/<name>/<hash>`.
pub fn target_group_name(arn: &str) -> Option<&str> {
    arn.rsplit_once(":targetgroup/")?.1.split('/').next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_elasticloadbalancingv2::error::ErrorMetadata;
    use aws_sdk_elasticloadbalancingv2::operation::describe_rules::DescribeRulesOutput;
    use aws_sdk_elasticloadbalancingv2::operation::describe_tags::{
        DescribeTagsError, DescribeTagsOutput,
    };
    use aws_sdk_elasticloadbalancingv2::types::{Tag, TagDescription};
    use aws_smithy_mocks::{MockResponse, RuleMode, mock, mock_client};

    fn arn(name: &str) -> String {
        format!("arn:aws:elasticloadbalancing:us-east-1:1:targetgroup/{name}/abc")
    }

    #[test]
    fn the_name_is_read_from_the_arn() {
        assert_eq!(target_group_name(&arn("test-1")), Some("test-1"));
        assert_eq!(target_group_name("arn:aws:s3:::bucket"), None);
    }

    #[test]
    fn a_forward_without_weights_counts_as_weight_one() {
        let action = Action::builder()
            .r#type(ActionTypeEnum::Forward)
            .target_group_arn("a")
            .build();
        let groups = forwards(&[action]);
        assert_eq!(
            (groups[0].target_group_arn(), groups[0].weight()),
            (Some("a"), Some(1))
        );
    }

    #[tokio::test]
    async fn rules_are_read_past_the_first_page() {
        let page = |marker: Option<&str>, arn: &str| {
            DescribeRulesOutput::builder()
                .rules(Rule::builder().rule_arn(arn).build())
                .set_next_marker(marker.map(str::to_owned))
                .build()
        };
        let first = mock!(Client::describe_rules)
            .match_requests(|request| request.marker().is_none())
            .then_output(move || page(Some("more"), "one"));
        let second = mock!(Client::describe_rules)
            .match_requests(|request| request.marker() == Some("more"))
            .then_output(move || page(None, "two"));
        let elb = mock_client!(
            aws_sdk_elasticloadbalancingv2,
            RuleMode::MatchAny,
            [&first, &second]
        );
        let arns: Vec<_> = rules(&elb, "listener")
            .await
            .unwrap()
            .into_iter()
            .filter_map(|r| r.rule_arn)
            .collect();
        assert_eq!(arns, ["one", "two"]);
    }

    #[tokio::test]
    async fn tags_are_read_by_twenty_and_only_of_what_may_be_ours() {
        let described = mock!(Client::describe_tags)
            .match_requests(|request| request.resource_arns().len() <= 20)
            .then_compute_output(|request| {
                let descriptions = request
                    .resource_arns()
                    .iter()
                    .map(|arn| {
                        let id = target_group_name(arn).unwrap();
                        TagDescription::builder()
                            .resource_arn(arn)
                            .tags(Tag::builder().key(tags::DEPLOYMENT_ID).value(id).build())
                            .tags(Tag::builder().key(tags::ENVIRONMENT).value("test").build())
                            .build()
                    })
                    .collect();
                DescribeTagsOutput::builder()
                    .set_tag_descriptions(Some(descriptions))
                    .build()
            });
        let elb = mock_client!(
            aws_sdk_elasticloadbalancingv2,
            RuleMode::MatchAny,
            [&described]
        );
        let mut arns: Vec<String> = (0..45)
            .map(|second| arn(&format!("test-20251027-1221{second:02}Z")))
            .collect();
        arns.push(arn("somebody-elses"));
        arns.push(arn("prod-20251027-122112Z"));
        let environment = "test".parse().unwrap();
        let found = deployments(&elb, &environment, arns.iter().map(String::as_str))
            .await
            .unwrap();
        assert_eq!(found.len(), 45);
        assert_eq!(described.num_calls(), 3);
    }

    #[tokio::test]
    async fn one_that_is_gone_meanwhile_does_not_hide_the_tags_of_the_others() {
        let described = mock!(Client::describe_tags).then_compute_response(|request| {
            if request.resource_arns().contains(&arn("gone")) {
                return MockResponse::Error(DescribeTagsError::generic(
                    ErrorMetadata::builder().code("TargetGroupNotFound").build(),
                ));
            }
            let descriptions = request
                .resource_arns()
                .iter()
                .map(|arn| TagDescription::builder().resource_arn(arn).build())
                .collect();
            MockResponse::Output(
                DescribeTagsOutput::builder()
                    .set_tag_descriptions(Some(descriptions))
                    .build(),
            )
        });
        let elb = mock_client!(
            aws_sdk_elasticloadbalancingv2,
            RuleMode::MatchAny,
            [&described]
        );
        let found = tags(&elb, &[arn("one"), arn("gone"), arn("two")])
            .await
            .unwrap();
        let mut found: Vec<_> = found.into_keys().collect();
        found.sort();
        assert_eq!(found, [arn("one"), arn("two")]);
    }
}
