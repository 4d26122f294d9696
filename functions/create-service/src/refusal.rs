//! What CreateService means when it refuses: the same code for everything, so the text decides.

use aws_sdk_ecs::config::http::HttpResponse;
use aws_sdk_ecs::error::{ProvideErrorMetadata, SdkError};

/// A refusal that the step answers in its own way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The same call succeeds a little later.
    Passing,
    /// There is a service of that name.
    NameTaken,
}

/// Parts of messages of `InvalidParameterException`, as reported by users of the API; AWS does not
/// document them.
const TEXTS: [(&str, Refusal); 3] = [
    // The listener rule was made a moment ago and is not in force everywhere:
    // https://github.com/hashicorp/terraform-provider-aws/issues/32908
    (
        "does not have an associated load balancer",
        Refusal::Passing,
    ),
    // A service of that name was deleted and its tasks still stop.
    ("is still draining", Refusal::Passing),
    // A service of that name exists and differs:
    // https://github.com/hashicorp/terraform-provider-aws/issues/2283
    ("was not idempotent", Refusal::NameTaken),
];

impl Refusal {
    /// Reads an error of CreateService.
    pub(crate) fn of<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Option<Self> {
        if error.code() != Some("InvalidParameterException") {
            return None;
        }
        let message = error.message()?.to_lowercase();
        TEXTS
            .iter()
            .find(|(text, _)| message.contains(text))
            .map(|(_, refusal)| *refusal)
    }
}
