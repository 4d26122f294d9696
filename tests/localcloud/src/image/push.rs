//! Pushes a packed image.

use anyhow::Context;
use http::HeaderValue;
use oci_client::Reference;
use oci_client::manifest::{OCI_IMAGE_MEDIA_TYPE, OciImageManifest};
use oci_client::secrets::RegistryAuth;

use super::{PackedImage, client};

/// Pushes an image as `repository:tag` to the registry at `registry` (host and port, plain HTTP).
/// Blobs that the registry already has are not uploaded. Returns the digest of the manifest.
///
/// # Errors
/// If the registry refuses a request or cannot be reached.
pub async fn push(
    registry: &str,
    repository: &str,
    tag: &str,
    image: &PackedImage,
) -> anyhow::Result<String> {
    let client = client();
    let reference = Reference::with_tag(registry.into(), repository.into(), tag.into());
    client
        .store_auth_if_needed(registry, &RegistryAuth::Anonymous)
        .await;
    let manifest: OciImageManifest = serde_json::from_slice(&image.manifest)?;
    let blobs = [
        (&manifest.config.digest, &image.config),
        (&manifest.layers[0].digest, &image.layer),
    ];
    for (digest, bytes) in blobs {
        let exists = client.blob_exists(&reference, digest).await;
        if exists.with_context(|| format!("checking for {digest} of {reference}"))? {
            continue;
        }
        client
            .push_blob(&reference, bytes.clone(), digest)
            .await
            .with_context(|| format!("pushing {digest} of {reference}"))?;
    }
    let media_type = HeaderValue::from_static(OCI_IMAGE_MEDIA_TYPE);
    client
        .push_manifest_raw(&reference, image.manifest.clone(), media_type)
        .await
        .with_context(|| format!("pushing the manifest of {reference}"))?;
    Ok(image.digest().to_string())
}
