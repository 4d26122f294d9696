//! The deployment's image: its digest, and whether the tasks' processor can run it.

use aws_sdk_ecr::Client;
use aws_sdk_ecr::operation::describe_images::DescribeImagesError;
use aws_sdk_ecr::types::ImageIdentifier;
use lifecycle::aws_error::{failed, found};
use lifecycle::{Baseline, ErrorName, StepError};
use serde::Deserialize;
use settings::Input;

/// The digest of the deployment's image: the one in the input, or the one that the tag points to. The tasks have
/// processors of that architecture, as ECS writes it.
///
/// # Errors
/// `ImageNotFound` when there is no such image; `InvalidInput` when it is built for other platforms only; else as
/// [`lifecycle::aws_error::CODES`] say.
pub async fn find(
    ecr: &Client,
    baseline: &Baseline,
    input: &Input,
    architecture: &str,
) -> Result<String, StepError> {
    let id = &input.deployment_id;
    let requested = input.image_digest.as_ref();
    let (image, shown) = match requested {
        Some(digest) => (
            ImageIdentifier::builder().image_digest(digest).build(),
            format!("{}@{digest}", baseline.repository_uri),
        ),
        None => (
            ImageIdentifier::builder().image_tag(id.as_str()).build(),
            format!("{}:{id}", baseline.repository_uri),
        ),
    };
    let request = ecr
        .describe_images()
        .repository_name(&baseline.repository_name)
        .image_ids(image);
    let answer = found(
        format_args!("find image {shown}"),
        request.send().await,
        DescribeImagesError::is_image_not_found_exception,
    )?;
    let digest = answer
        .and_then(|answer| answer.image_details)
        .and_then(|details| details.into_iter().next())
        .and_then(|detail| detail.image_digest)
        .ok_or_else(|| {
            StepError::new(
                ErrorName::ImageNotFound,
                format!(
                    "there is no image {shown}; push it under a new deployment id, correct the deployment id, or push it and \
                     start {id}-2 by hand, because a push does not start an execution whose name was used"
                ),
            )
        })?;
    refuse_other_platforms(ecr, baseline, architecture, &digest, &shown).await?;
    Ok(digest)
}

/// The part of an image index that is read:
/// <https://github.com/opencontainers/image-spec/blob/main/image-index.md>.
#[derive(Deserialize)]
struct Index {
    manifests: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    platform: Option<Platform>,
}

#[derive(Deserialize, PartialEq, Eq)]
struct Platform {
    os: String,
    architecture: String,
}

/// Refuses an index that names platforms, but not the one of the tasks: such an image cannot be pulled.
///
/// A manifest of a single image does not name its platform. What cannot be read is not taken for wrong.
async fn refuse_other_platforms(
    ecr: &Client,
    baseline: &Baseline,
    architecture: &str,
    digest: &str,
    shown: &str,
) -> Result<(), StepError> {
    let answer = ecr
        .batch_get_image()
        .repository_name(&baseline.repository_name)
        .image_ids(ImageIdentifier::builder().image_digest(digest).build())
        .send()
        .await
        .map_err(|error| failed(format_args!("read the manifest of image {shown}"), error))?;
    let manifest = answer.images().first().and_then(|it| it.image_manifest());
    let Some(index) = manifest.and_then(|text| serde_json::from_str::<Index>(text).ok()) else {
        return Ok(());
    };
    let wanted = Platform {
        os: "linux".into(),
        architecture: match architecture {
            "ARM64" => "arm64".into(),
            _ => "amd64".into(),
        },
    };
    let mut others = Vec::new();
    for entry in index.manifests {
        match entry.platform {
            Some(platform) if platform == wanted => return Ok(()),
            // buildx describes an attestation as an image of the platform unknown/unknown.
            Some(platform) if platform.os == "unknown" => {}
            Some(platform) => others.push(format!("{}/{}", platform.os, platform.architecture)),
            None => return Ok(()),
        }
    }
    if others.is_empty() {
        return Ok(());
    }
    let wanted = format!("{}/{}", wanted.os, wanted.architecture);
    Err(StepError::new(
        ErrorName::InvalidInput,
        format!(
            "image {shown} is built for {}, and the tasks run {wanted}; build it with --platform {wanted} and push it \
             under a new deployment id",
            others.join(" and ")
        ),
    ))
}
