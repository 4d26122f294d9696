//! Answers and errors in the format of each protocol.

use bytes::Bytes;
use http::{HeaderValue, Response};
use quick_xml::escape::escape;
use serde_json::json;

use super::operation::Protocol;

pub type Answer = Response<Bytes>;

/// An error as an AWS service returns it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwsError {
    pub status: u16,
    /// The code, for example `PriorityInUse`.
    pub code: &'static str,
    pub message: String,
}

impl AwsError {
    /// An error with status 400, as most errors have.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status: 400,
            code,
            message: message.into(),
        }
    }

    pub fn with_status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    /// The error in the format of a protocol.
    pub fn answer(&self, protocol: Protocol) -> Answer {
        let (code, message) = (self.code, escape(self.message.as_str()));
        let (content_type, body) = match protocol {
            Protocol::Json => (
                "application/x-amz-json-1.1",
                json!({"__type": code, "message": self.message})
                    .to_string()
                    .into(),
            ),
            Protocol::Cbor => (
                "application/cbor",
                Bytes::from(cbor_map(&[("__type", code), ("message", &self.message)])),
            ),
            Protocol::RestJson => (
                "application/json",
                json!({"message": self.message}).to_string().into(),
            ),
            Protocol::Registry => (
                "application/json",
                json!({"errors": [{"code": code, "message": self.message}]})
                    .to_string()
                    .into(),
            ),
            Protocol::Query => {
                let kind = self.kind();
                let error = format!(
                    "<Error><Type>{kind}</Type><Code>{code}</Code><Message>{message}</Message></Error>"
                );
                (
                    "text/xml",
                    format!(
                        "<ErrorResponse>{error}<RequestId>{REQUEST_ID}</RequestId></ErrorResponse>"
                    )
                    .into(),
                )
            }
            Protocol::RestXml => (
                "application/xml",
                format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>").into(),
            ),
        };
        let mut answer = with_body(self.status, content_type, body);
        let headers = answer.headers_mut();
        match protocol {
            Protocol::RestJson => {
                headers.insert("x-amzn-errortype", HeaderValue::from_static(code));
            }
            Protocol::Cbor => {
                headers.insert("smithy-protocol", HeaderValue::from_static("rpc-v2-cbor"));
                // The code that the service had under its Query protocol, which SDKs prefer:
                // https://smithy.io/2.0/aws/protocols/aws-query-protocol.html#aws-protocols-awsquerycompatible-trait
                let query_error = HeaderValue::from_str(&format!("{code};{}", self.kind()));
                if let Ok(query_error) = query_error {
                    headers.insert("x-amzn-query-error", query_error);
                }
            }
            _ => {}
        }
        answer
    }

    /// Whose fault it is.
    fn kind(&self) -> &'static str {
        if self.status < 500 {
            "Sender"
        } else {
            "Receiver"
        }
    }
}

/// A map of texts in CBOR.
fn cbor_map(members: &[(&str, &str)]) -> Vec<u8> {
    let mut encoder = minicbor::Encoder::new(Vec::new());
    encoder.map(members.len() as u64).expect(IN_MEMORY);
    for (name, value) in members {
        encoder.str(name).expect(IN_MEMORY);
        encoder.str(value).expect(IN_MEMORY);
    }
    encoder.into_writer()
}

const IN_MEMORY: &str = "a vector takes all that is written";

/// The request id of the answers that do not come from MiniStack.
const REQUEST_ID: &str = "00000000-0000-4000-8000-000000000000";

/// The answer of a Query operation; `result` is the inner XML of its result element.
pub fn query_answer(action: &str, result: &str) -> Answer {
    with_body(
        200,
        "text/xml",
        format!(
            "<{action}Response xmlns=\"http://elasticloadbalancing.amazonaws.com/doc/2015-12-01/\">\
             <{action}Result>{result}</{action}Result>\
             <ResponseMetadata><RequestId>{REQUEST_ID}</RequestId></ResponseMetadata></{action}Response>"
        ),
    )
}

pub fn json_answer(status: u16, body: &serde_json::Value) -> Answer {
    with_body(status, "application/x-amz-json-1.1", body.to_string())
}

/// An answer with a status and a body.
pub fn with_body(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(body.into());
    *answer.status_mut() = http::StatusCode::from_u16(status).unwrap_or_default();
    let headers = answer.headers_mut();
    headers.insert("content-type", HeaderValue::from_static(content_type));
    headers.insert("x-amzn-requestid", HeaderValue::from_static(REQUEST_ID));
    answer
}
