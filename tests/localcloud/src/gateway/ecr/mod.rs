//! ECR: the events of pushes, and the answers in which MiniStack differs from AWS.

use http::{Method, StatusCode};
use serde_json::Value;

mod delivery;
mod event;

use super::{
    Incoming,
    answer::{Answer, AwsError},
    forward::Forward,
    operation::Protocol,
};
use crate::ministack::Client;

pub use delivery::{Events, Outcome};
pub use event::PushEvent;

/// The rules of ECR that MiniStack lacks, and the events of pushes.
pub(crate) struct Ecr {
    events: Events,
}

impl Ecr {
    /// Delivers the events of pushes with `client`.
    pub fn new(client: Client) -> Self {
        Self {
            events: Events::new(client),
        }
    }

    pub fn events(&self) -> &Events {
        &self.events
    }

    /// Passes on a registry request. If it pushes a manifest, delivers the event of the push.
    pub async fn registry(&self, forward: &Forward, incoming: &Incoming) -> Answer {
        let Some((repository, reference)) = pushed(incoming) else {
            return forward.forward(incoming).await;
        };
        let before = digest_of(&head(forward, incoming).await);
        let answer = forward.forward(incoming).await;
        if answer.status() != StatusCode::CREATED {
            return answer;
        }
        if let Some(digest) = digest_of(&answer) {
            // If the reference already names this manifest, nothing was pushed. AWS does not document
            // whether it emits an event then; the local cloud does not.
            if before.as_deref() != Some(&digest) {
                let event = PushEvent::of(incoming, repository, reference, &digest);
                self.events.emit(event);
            }
        }
        answer
    }

    /// Answers a call of the ECR API.
    pub async fn answer(&self, forward: &Forward, incoming: &Incoming) -> Answer {
        let answer = forward.forward(incoming).await;
        if incoming.operation.name != "DescribeImages" || !answer.status().is_success() {
            return answer;
        }
        match image_not_found(&incoming.body, answer.body()) {
            Some(error) => error.answer(Protocol::Json),
            None => answer,
        }
    }
}

/// Repository and reference of the manifest that a request pushes, if it pushes one.
fn pushed(incoming: &Incoming) -> Option<(&str, &str)> {
    let path = incoming.parts.uri.path().strip_prefix("/v2/")?;
    (incoming.parts.method == Method::PUT)
        .then(|| path.rsplit_once("/manifests/"))
        .flatten()
}

async fn head(forward: &Forward, incoming: &Incoming) -> Answer {
    let mut parts = incoming.parts.clone();
    parts.method = Method::HEAD;
    parts.headers.remove("content-length");
    forward
        .forward(&Incoming::new(parts, bytes::Bytes::new()))
        .await
}

fn digest_of(answer: &Answer) -> Option<String> {
    let digest = answer.headers().get("docker-content-digest")?;
    Some(digest.to_str().ok()?.to_owned())
}

/// `DescribeImages` fails if an image that it names does not exist.
///
/// <https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_DescribeImages.html>
fn image_not_found(request: &[u8], answer: &[u8]) -> Option<AwsError> {
    let request: Value = serde_json::from_slice(request).ok()?;
    let answer: Value = serde_json::from_slice(answer).ok()?;
    let details = answer["imageDetails"].as_array()?;
    let found = |id: &Value| {
        details.iter().any(|image| {
            let digest = id["imageDigest"].is_null() || id["imageDigest"] == image["imageDigest"];
            let tags = image["imageTags"].as_array();
            let tag =
                id["imageTag"].is_null() || tags.is_some_and(|tags| tags.contains(&id["imageTag"]));
            digest && tag
        })
    };
    let missing = request["imageIds"]
        .as_array()?
        .iter()
        .find(|id| !found(id))?;
    let text = |field: &str| missing[field].as_str().unwrap_or("null").to_owned();
    let repository = request["repositoryName"].as_str().unwrap_or_default();
    let registry = request["registryId"].as_str().unwrap_or("000000000000");
    Some(AwsError::new(
        "ImageNotFoundException",
        format!(
            "The image with imageId {{imageDigest:'{}', imageTag:'{}'}} does not exist within the \
             repository with name '{repository}' in the registry with id '{registry}'",
            text("imageDigest"),
            text("imageTag"),
        ),
    ))
}

impl PushEvent {
    fn of(incoming: &Incoming, repository: &str, reference: &str, digest: &str) -> Self {
        let manifest: Value = serde_json::from_slice(&incoming.body).unwrap_or_default();
        let content_type = incoming
            .parts
            .headers
            .get("content-type")
            .and_then(|kind| kind.to_str().ok())
            .or(manifest["mediaType"].as_str())
            .unwrap_or("application/vnd.oci.image.manifest.v1+json")
            .to_owned();
        let artifact = [&manifest["artifactType"], &manifest["config"]["mediaType"]]
            .into_iter()
            .find_map(Value::as_str);
        PushEvent {
            repository: repository.to_owned(),
            digest: digest.to_owned(),
            // A manifest that is pushed by its digest has no tag.
            tag: if reference.contains(':') {
                String::new()
            } else {
                reference.to_owned()
            },
            manifest_media_type: content_type,
            artifact_media_type: artifact.map(str::to_owned),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http::Request;
    use serde_json::json;

    fn put(reference: &str, manifest: &Value) -> Incoming {
        let (parts, body) = Request::put(format!("/v2/team/app/manifests/{reference}"))
            .body(Bytes::from(manifest.to_string()))
            .unwrap()
            .into_parts();
        Incoming::new(parts, body)
    }

    #[test]
    fn the_event_of_a_tagged_image_has_its_tag_and_media_types() {
        let manifest = json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json"},
        });
        let incoming = put("v1", &manifest);
        let (repository, reference) = pushed(&incoming).unwrap();
        let event = PushEvent::of(&incoming, repository, reference, "sha256:1");
        assert_eq!(
            event,
            PushEvent {
                repository: "team/app".into(),
                digest: "sha256:1".into(),
                tag: "v1".into(),
                manifest_media_type: "application/vnd.oci.image.manifest.v1+json".into(),
                artifact_media_type: Some("application/vnd.oci.image.config.v1+json".into()),
            }
        );
    }

    #[test]
    fn the_event_of_a_part_of_an_index_has_an_empty_tag() {
        let incoming = put("sha256:2", &json!({}));
        let (repository, reference) = pushed(&incoming).unwrap();
        assert_eq!(
            PushEvent::of(&incoming, repository, reference, "sha256:2").tag,
            ""
        );
    }

    #[test]
    fn describing_an_image_that_does_not_exist_fails() {
        let answer =
            json!({"imageDetails": [{"imageDigest": "sha256:1", "imageTags": ["a"]}]}).to_string();
        let describe = |id: Value| {
            let request = json!({"repositoryName": "r", "imageIds": [id]}).to_string();
            image_not_found(request.as_bytes(), answer.as_bytes()).map(|error| error.code)
        };
        assert_eq!(describe(json!({"imageTag": "a"})), None);
        assert_eq!(describe(json!({"imageDigest": "sha256:1"})), None);
        assert_eq!(
            describe(json!({"imageTag": "b"})),
            Some("ImageNotFoundException")
        );
    }
}
