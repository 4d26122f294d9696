//! The first step: checks that the input is valid, the image exists, the deployment is still wanted, and the
//! load balancer has room. Changes nothing.

pub mod fargate;
pub mod input;
pub mod quota;

use aws_sdk_ecr::types::ImageIdentifier;
use lifecycle::aws_error::failed;
use lifecycle::routing::DefaultAction;
use lifecycle::{DeploymentId, ErrorName, Settings, StepError, tags, target_group};
use serde::Serialize;
use time::UtcDateTime;

pub use input::{Deployment, Input};

/// Whether the deployment continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// It continues.
    Proceed,
    /// It is already active, so nothing is to be done.
    AlreadyActive,
    /// A newer deployment is active; nothing was created.
    Superseded,
}

/// The deployment with everything the next steps need.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// Whether it continues.
    pub verdict: Verdict,
    /// Why, in a sentence.
    pub reason: String,
    /// The digest of the image, `sha256:…`.
    pub image_digest: String,
    /// The id, sizes and environment variables.
    #[serde(flatten)]
    pub deployment: Deployment,
}

/// Checks the input, pins the image and compares the deployment with what is active.
///
/// # Errors
/// `InvalidInput`, `ImageNotFound`, `DeploymentRolledBack`, `QuotaExceeded`, or as
/// [`lifecycle::aws_error::CODES`] say.
pub async fn run(
    ecr: &aws_sdk_ecr::Client,
    elb: &aws_sdk_elasticloadbalancingv2::Client,
    settings: &Settings,
    now: UtcDateTime,
    input: Input,
) -> Result<Output, StepError> {
    let deployment = input.check(settings, now)?;
    let image_digest = find_image(ecr, settings, &deployment).await?;
    let (verdict, reason) = check_the_listener(elb, settings, &deployment.deployment_id).await?;
    Ok(Output {
        verdict,
        reason,
        image_digest,
        deployment,
    })
}

/// The digest of the deployment's image: the one in the input, or the one that the tag points to.
async fn find_image(
    ecr: &aws_sdk_ecr::Client,
    settings: &Settings,
    deployment: &Deployment,
) -> Result<String, StepError> {
    let id = &deployment.deployment_id;
    let image = match &deployment.requested_digest {
        Some(digest) => ImageIdentifier::builder().image_digest(digest).build(),
        None => ImageIdentifier::builder().image_tag(id.as_str()).build(),
    };
    let shown = match &deployment.requested_digest {
        Some(digest) => format!("{}@{digest}", settings.repository_uri),
        None => format!("{}:{id}", settings.repository_uri),
    };
    let found = ecr
        .describe_images()
        .repository_name(&settings.repository_name)
        .image_ids(image)
        .send()
        .await
        .map_err(|error| failed(format_args!("find image {shown}"), error))?;
    found
        .image_details
        .and_then(|details| details.into_iter().next())
        .and_then(|detail| detail.image_digest)
        .ok_or_else(|| {
            StepError::new(
                ErrorName::ImageNotFound,
                format!("there is no image {shown}; push the image, or correct the deployment id"),
            )
        })
}

/// Checks the deployment against what is active, and whether the load balancer has room for it.
async fn check_the_listener(
    elb: &aws_sdk_elasticloadbalancingv2::Client,
    settings: &Settings,
    id: &DeploymentId,
) -> Result<(Verdict, String), StepError> {
    let usage = quota::usage(elb, settings, id).await?;
    // Before the tags: a rollback tags what it replaces before it switches, so that the tag is seen whenever
    // the switch is.
    let default_action = DefaultAction::read(elb, settings).await?;
    refuse_if_rolled_back(elb, &usage, id).await?;
    let reason = match default_action.active() {
        Some(active) if active == id => {
            return Ok((Verdict::AlreadyActive, format!("{id} is already active")));
        }
        Some(active) if active > id => {
            return Ok((Verdict::Superseded, format!("{active} is newer and active")));
        }
        Some(active) => format!("{active} is active and older"),
        None => "no deployment is active".to_owned(),
    };
    quota::check(elb, &usage, id).await?;
    Ok((Verdict::Proceed, reason))
}

async fn refuse_if_rolled_back(
    elb: &aws_sdk_elasticloadbalancingv2::Client,
    usage: &quota::Usage,
    id: &DeploymentId,
) -> Result<(), StepError> {
    let own = usage.own_target_group(id).map(String::as_str);
    let own = target_group::of_environment(elb, id.environment(), own).await?;
    match own
        .first()
        .and_then(|group| group.tags.get(tags::ROLLED_BACK_AT))
    {
        Some(when) => Err(StepError::new(
            ErrorName::DeploymentRolledBack,
            format!(
                "{id} was rolled back at {when}, so only a rollback can make it live again; push the image under a new \
                 deployment id, or start the rollback machine with {id}"
            ),
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
