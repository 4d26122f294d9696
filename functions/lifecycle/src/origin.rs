//! Whether a step created or adopted its resource.

use serde::Serialize;

/// Whether a step created its resource in this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Origin {
    /// The step created it.
    Created,
    /// The step found the resource of an earlier or a concurrent run.
    Adopted,
}
