//! Pulls an image and unpacks it into a folder that all tasks of the image share.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use oci_client::Reference;
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::manifest::OciImageManifest;
use oci_client::secrets::RegistryAuth;
use oci_spec::image::ImageConfiguration;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;

use super::{Folder, client, unpack};

/// An image that is unpacked on this machine's disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnpackedImage {
    /// The folder that is the image's `/`. Every pull of the image gives the same folder.
    pub root: PathBuf,
    /// `ENTRYPOINT`. Empty if the image has none.
    pub entrypoint: Vec<String>,
    /// `CMD`. Empty if the image has none.
    pub cmd: Vec<String>,
    /// `ENV`, each as `NAME=value`.
    pub env: Vec<String>,
    /// `WORKDIR`, a path in the image.
    pub working_dir: Option<String>,
    /// `STOPSIGNAL`. Absent for SIGTERM.
    pub stop_signal: Option<String>,
    /// The digest of the manifest. For a multi-architecture image, the digest of its index.
    pub digest: String,
}

/// A pulled image. It is on the disk until the last one of the same image is dropped.
#[derive(Debug)]
pub struct Pulled {
    image: UnpackedImage,
    /// Keeps the image on the disk.
    pub folder: Arc<Folder>,
}

impl Deref for Pulled {
    type Target = UnpackedImage;

    fn deref(&self) -> &UnpackedImage {
        &self.image
    }
}

/// The reason why an image could not be pulled. `Display` gives the text that ECS reports as the
/// `stoppedReason` of the task.
///
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task_cannot_pull_image.html>
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullError {
    image: String,
    cause: Cause,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Cause {
    NotFound,
    NoPlatform,
    Unreachable(String),
    Other(String),
}

impl PullError {
    /// The same error with the image reference of the task definition.
    pub fn of(self, image: &str) -> Self {
        PullError {
            image: image.to_string(),
            ..self
        }
    }
}

impl std::fmt::Display for PullError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let image = &self.image;
        write!(formatter, "CannotPullContainerError: ")?;
        match &self.cause {
            Cause::NotFound => write!(
                formatter,
                "pull image manifest has been retried 5 time(s): failed to resolve ref {image}: \
                 {image}: not found"
            ),
            Cause::NoPlatform => write!(
                formatter,
                "pull image manifest has been retried 5 time(s): image Manifest does not contain \
                 descriptor matching platform 'linux/amd64'"
            ),
            Cause::Unreachable(why) => write!(
                formatter,
                "pull image manifest has been retried 5 time(s): failed to resolve ref {image}: \
                 failed to do request: {why}"
            ),
            Cause::Other(why) => write!(
                formatter,
                "ref pull has been retried 5 time(s): failed to copy {image}: {why}"
            ),
        }
    }
}

impl std::error::Error for PullError {}

impl From<OciDistributionError> for Cause {
    fn from(error: OciDistributionError) -> Self {
        let missing = [
            OciErrorCode::ManifestUnknown,
            OciErrorCode::NameUnknown,
            OciErrorCode::NotFound,
        ];
        match &error {
            OciDistributionError::RegistryError { envelope, .. }
                if envelope.errors.iter().any(|e| missing.contains(&e.code)) =>
            {
                Cause::NotFound
            }
            OciDistributionError::ServerError { code: 404, .. } => Cause::NotFound,
            OciDistributionError::ImageManifestNotFoundError(_) => Cause::NoPlatform,
            OciDistributionError::RequestError(error) if error.is_connect() => {
                Cause::Unreachable(format!("{:#}", anyhow::Error::msg(error.to_string())))
            }
            _ => Cause::Other(error.to_string()),
        }
    }
}

impl From<anyhow::Error> for Cause {
    fn from(error: anyhow::Error) -> Self {
        Cause::Other(format!("{error:#}"))
    }
}

/// Pulls `reference` (`repository:tag` or `repository@sha256:…`) from the registry at `registry`
/// (host and port, plain HTTP) and unpacks it below `into`, unless it is already there.
///
/// Concurrent calls for the same image unpack it once.
///
/// # Errors
/// If the image does not exist, has no linux/amd64 variant, or cannot be fetched or unpacked.
pub async fn pull(registry: &str, reference: &str, into: &Path) -> Result<Pulled, PullError> {
    let image = format!("{registry}/{reference}");
    let pulled = pull_into(&image, into).await;
    pulled.map_err(|cause| PullError { image, cause })
}

async fn pull_into(image: &str, into: &Path) -> Result<Pulled, Cause> {
    let reference: Reference = image
        .parse()
        .map_err(|error| Cause::Other(format!("invalid reference format: {error}")))?;
    let client = client();
    let (manifest, digest, index) = client
        .pull_image_manifest_and_list_digest(&reference, &RegistryAuth::Anonymous)
        .await?;
    let folder = Folder::of(into.join(digest.replace(':', "-")));
    let alone = folder.unpacking.lock().await;
    let path = folder.path();
    let mut image = match read(path).await {
        Some(image) => image,
        None => unpack_into(&client, &reference, &manifest, &digest, path).await?,
    };
    drop(alone);
    image.digest = index.unwrap_or(digest);
    Ok(Pulled { image, folder })
}

/// Reads what `unpack_into` wrote. `None` if the image was not unpacked yet.
async fn read(folder: &Path) -> Option<UnpackedImage> {
    let text = tokio::fs::read(folder.join("image.json")).await.ok()?;
    serde_json::from_slice(&text).ok()
}

async fn unpack_into(
    client: &oci_client::Client,
    reference: &Reference,
    manifest: &OciImageManifest,
    digest: &str,
    folder: &Path,
) -> Result<UnpackedImage, Cause> {
    let parent = folder.parent().context("an image folder has a parent")?;
    tokio::fs::create_dir_all(parent)
        .await
        .with_context(|| format!("making {}", parent.display()))?;
    // The image is unpacked into a temporary folder and moved when it is complete, so that an
    // interrupted pull leaves nothing that looks like an image.
    let staging = tempfile::TempDir::new_in(parent).context("making a folder to unpack in")?;

    let mut config = Vec::new();
    client
        .pull_blob(reference, &manifest.config, &mut config)
        .await?;
    let config: ImageConfiguration = serde_json::from_slice(&config)
        .context("the image's configuration is not one of a container image")?;
    let root = staging.path().join("rootfs");
    tokio::fs::create_dir(&root).await.context("making /")?;
    for layer in &manifest.layers {
        if !layer.media_type.contains(".tar") {
            let what = &layer.media_type;
            return Err(Cause::Other(format!("no processor for media-type: {what}")));
        }
        let path = staging.path().join("layer");
        let mut file = tokio::fs::File::create(&path)
            .await
            .context("making a layer file")?;
        client.pull_blob(reference, layer, &mut file).await?;
        file.flush().await.context("writing a layer")?;
        let (root, digest) = (root.clone(), layer.digest.clone());
        tokio::task::spawn_blocking(move || unpack::layer(&path, &root))
            .await
            .context("unpacking a layer")?
            .with_context(|| format!("failed to extract layer {digest}"))?;
    }
    let _ = tokio::fs::remove_file(staging.path().join("layer")).await;

    let settings = config.config().clone().unwrap_or_default();
    let unpacked = UnpackedImage {
        root: folder.join("rootfs"),
        entrypoint: settings.entrypoint().clone().unwrap_or_default(),
        cmd: settings.cmd().clone().unwrap_or_default(),
        env: settings.env().clone().unwrap_or_default(),
        working_dir: settings.working_dir().clone().filter(|d| !d.is_empty()),
        stop_signal: settings.stop_signal().clone().filter(|s| !s.is_empty()),
        digest: digest.to_string(),
    };
    let text = serde_json::to_vec(&unpacked).context("describing the image")?;
    tokio::fs::write(staging.path().join("image.json"), text)
        .await
        .context("describing the image")?;
    let staging = staging.keep();
    if let Err(error) = tokio::fs::rename(&staging, folder).await {
        let _ = tokio::fs::remove_dir_all(&staging).await;
        // Another process was faster. What it unpacked has the same digest.
        return match read(folder).await {
            Some(unpacked) => Ok(unpacked),
            None => Err(anyhow::Error::new(error)
                .context(format!("moving the image to {}", folder.display()))
                .into()),
        };
    }
    Ok(unpacked)
}
