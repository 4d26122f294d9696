//! How a step came by its resource.

use serde::Serialize;

/// Whether a step created its resource in this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Origin {
    /// It did.
    Created,
    /// It found the resource of an earlier run, or of another run at the same time.
    Adopted,
}
