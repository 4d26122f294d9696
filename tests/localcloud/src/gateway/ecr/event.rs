//! The event of a push.
//!
//! <https://docs.aws.amazon.com/AmazonECR/latest/userguide/ecr-eventbridge.html>

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};

use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::ministack::REGION;

/// The account id of the local cloud.
pub(super) const ACCOUNT: &str = "000000000000";

/// The push of one manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushEvent {
    /// The name of the repository, without the registry.
    pub repository: String,
    /// The digest of the manifest, `sha256:…`.
    pub digest: String,
    /// The tag. Empty for a manifest that was pushed by its digest, as the parts of an index are.
    pub tag: String,
    /// The media type of the manifest, from the request's `Content-Type`.
    pub manifest_media_type: String,
    /// The media type of what the manifest describes. Absent for an index.
    pub artifact_media_type: Option<String>,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl PushEvent {
    /// The event in the form that EventBridge delivers. Each call gives it a new id and the current time.
    pub fn to_json(&self) -> Value {
        let number = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let now = OffsetDateTime::from(SystemTime::now())
            .replace_nanosecond(0)
            .ok()
            .and_then(|now| now.format(&Rfc3339).ok())
            .unwrap_or_default();
        let mut detail = json!({
            "result": "SUCCESS",
            "repository-name": self.repository,
            "image-digest": self.digest,
            "action-type": "PUSH",
            "image-tag": self.tag,
            "manifest-media-type": self.manifest_media_type,
        });
        if let Some(artifact) = &self.artifact_media_type {
            detail["artifact-media-type"] = json!(artifact);
        }
        json!({
            "version": "0",
            "id": format!("00000000-0000-4000-8000-{number:012x}"),
            "detail-type": "ECR Image Action",
            "source": "aws.ecr",
            "account": ACCOUNT,
            "time": now,
            "region": REGION,
            "resources": [],
            "detail": detail,
        })
    }
}
