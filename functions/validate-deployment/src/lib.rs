//! The first step: is the input right, is there such an image, is the deployment still wanted, and
//! is there room? Changes nothing.

pub mod fargate;
pub mod input;
pub mod room;

use aws_sdk_ecr::types::ImageIdentifier;
use lifecycle::aws_error::failed;
use lifecycle::{DeploymentId, ErrorName, Settings, StepError, listener, tags};
use serde::Serialize;
use time::UtcDateTime;

pub use input::{Deployment, Input};

/// Whether the deployment goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// It goes on.
    Proceed,
    /// It is live already; there is nothing to do.
    AlreadyActive,
    /// A newer deployment is active; nothing was made.
    Superseded,
}

/// The deployment with everything the next steps need.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// Whether it goes on.
    pub verdict: Verdict,
    /// Why, in a sentence.
    pub reason: String,
    /// The image, pinned.
    pub image_digest: String,
    /// Id, sizes and environment.
    #[serde(flatten)]
    pub deployment: Deployment,
}

/// Checks the input, pins the image and looks at what is active.
///
/// # Errors
/// `InvalidInput`, `ImageNotFound`, `DeploymentRolledBack`, `QuotaExceeded`, or as AWS answers.
pub async fn run(
    ecr: &aws_sdk_ecr::Client,
    elb: &aws_sdk_elasticloadbalancingv2::Client,
    settings: &Settings,
    now: UtcDateTime,
    input: Input,
) -> Result<Output, StepError> {
    let deployment = input.check(settings, now)?;
    let id = deployment.deployment_id.clone();
    check(ecr, elb, settings, deployment)
        .await
        .map_err(|error| error.of(&id))
}

async fn check(
    ecr: &aws_sdk_ecr::Client,
    elb: &aws_sdk_elasticloadbalancingv2::Client,
    settings: &Settings,
    deployment: Deployment,
) -> Result<Output, StepError> {
    let image_digest = find_image(ecr, settings, &deployment).await?;
    let (verdict, reason) = look_at_the_listener(elb, settings, &deployment.deployment_id).await?;
    Ok(Output {
        verdict,
        reason,
        image_digest,
        deployment,
    })
}

/// The digest of the deployment's image: the one asked for, or what the tag points to.
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
                format!("there is no image {shown}"),
            )
        })
}

async fn look_at_the_listener(
    elb: &aws_sdk_elasticloadbalancingv2::Client,
    settings: &Settings,
    id: &DeploymentId,
) -> Result<(Verdict, String), StepError> {
    let usage = room::usage(elb, settings, id).await?;
    let default = listener::forwards(
        listener::read(elb, &settings.listener_arn)
            .await?
            .default_actions(),
    );
    let own = listener::deployments(
        elb,
        &settings.environment,
        usage.own_target_group(id).map(String::as_str),
    )
    .await?;
    if let Some(when) = own
        .first()
        .and_then(|group| group.tags.get(tags::ROLLED_BACK_AT))
    {
        return Err(StepError::new(
            ErrorName::DeploymentRolledBack,
            format!(
                "{id} was rolled back at {when} and is not switched to again; push the image under a new deployment id, \
                 or start the rollback machine with {id} if that is what you want"
            ),
        ));
    }
    let active = default
        .iter()
        .filter_map(|group| {
            listener::named_like_ours(group.target_group_arn()?, &settings.environment)
        })
        .max();
    match active {
        Some(active) if active == *id => {
            Ok((Verdict::AlreadyActive, format!("{id} is active already")))
        }
        Some(active) if active > *id => {
            Ok((Verdict::Superseded, format!("{active} is newer and active")))
        }
        other => {
            room::check(elb, &usage, id).await?;
            let reason = match other {
                Some(active) => format!("{active} is active and older"),
                None => "no deployment is active".to_owned(),
            };
            Ok((Verdict::Proceed, reason))
        }
    }
}

#[cfg(test)]
mod tests;
