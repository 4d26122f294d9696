//! Answers and errors of operations, in the AWS JSON 1.1 protocol.

use serde_json::{Value, json};

/// The answer to an ECS operation.
#[derive(Debug, Clone, PartialEq)]
pub struct EcsAnswer {
    /// 200, or an error status with `__type` and `message` in the body.
    pub status: u16,
    pub body: Value,
}

impl EcsAnswer {
    pub(super) fn ok(body: Value) -> Self {
        EcsAnswer { status: 200, body }
    }
}

/// An error as ECS returns it: a code that clients match, and a message for people.
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/CommonErrors.html>
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    pub code: String,
    pub message: String,
    /// The existing resources that the request conflicts with.
    pub resource_ids: Vec<String>,
}

impl Refusal {
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Refusal {
            code: code.into(),
            message: message.into(),
            resource_ids: Vec::new(),
        }
    }

    /// `InvalidParameterException`: a parameter is not valid for this request.
    pub fn invalid_parameter(message: impl Into<String>) -> Self {
        Refusal::new("InvalidParameterException", message)
    }

    /// `ClientException`: the caller may not do this, or the request names something that does not exist.
    pub fn client(message: impl Into<String>) -> Self {
        Refusal::new("ClientException", message)
    }

    pub fn no_cluster() -> Self {
        Refusal::new("ClusterNotFoundException", "Cluster not found.")
    }

    pub fn no_service() -> Self {
        Refusal::new("ServiceNotFoundException", "Service not found.")
    }

    pub fn service_not_active() -> Self {
        Refusal::new("ServiceNotActiveException", "Service was not ACTIVE.")
    }
}

impl From<Refusal> for EcsAnswer {
    fn from(refusal: Refusal) -> Self {
        let status = if refusal.code == "ServerException" {
            500
        } else {
            400
        };
        let mut body = json!({"__type": refusal.code, "message": refusal.message});
        if !refusal.resource_ids.is_empty() {
            body["resourceIds"] = json!(refusal.resource_ids);
        }
        EcsAnswer { status, body }
    }
}
