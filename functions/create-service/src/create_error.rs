//! What CreateService means by an `InvalidParameterException`: the message decides, because the code is the
//! same for everything.

use aws_sdk_ecs::config::http::HttpResponse;
use aws_sdk_ecs::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ecs::operation::create_service::CreateServiceError;

/// An error that the step handles in its own way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CreateError {
    /// The same call succeeds a little later.
    Passing,
    /// There is a service of that name.
    NameTaken,
}

/// Parts of messages of `InvalidParameterException`, as reported by users of the API; AWS does not
/// document them.
const TEXTS: [(&str, CreateError); 3] = [
    // The listener rule was made a moment ago and is not in force everywhere:
    // https://github.com/hashicorp/terraform-provider-aws/issues/32908
    (
        "does not have an associated load balancer",
        CreateError::Passing,
    ),
    // A service of that name was deleted and its tasks still stop.
    ("is still draining", CreateError::Passing),
    // A service of that name exists and differs:
    // https://github.com/hashicorp/terraform-provider-aws/issues/2283
    ("was not idempotent", CreateError::NameTaken),
];

impl CreateError {
    /// Reads an error of CreateService.
    pub(crate) fn of(error: &SdkError<CreateServiceError, HttpResponse>) -> Option<Self> {
        if !error.as_service_error()?.is_invalid_parameter_exception() {
            return None;
        }
        let message = error.message()?.to_lowercase();
        TEXTS
            .iter()
            .find(|(text, _)| message.contains(text))
            .map(|(_, create_error)| *create_error)
    }
}
