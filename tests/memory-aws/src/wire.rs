//! The three protocols of the SDK's clients: AWS Query (ELB), Smithy RPC v2 CBOR (CloudWatch) and AWS JSON (all others).

use std::fmt;

use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;
use serde_json::{Value, json};

use crate::cbor;
use crate::state::{forwarded, name_in, texts};

/// The code with which a test makes a gateway answer with status 504 and no body.
pub const GATEWAY_TIMEOUT: &str = "504";

/// An error of AWS.
#[derive(Debug, Clone)]
pub struct Error {
    /// The code, as in `TargetGroupNotFound`.
    pub code: String,
    /// The message.
    pub message: String,
}

impl Error {
    /// An error of that code.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Error {
            code: code.into(),
            message: message.into(),
        }
    }

    fn status(&self, protocol: Protocol) -> u16 {
        match self.code.as_str() {
            GATEWAY_TIMEOUT => 504,
            "InternalFailure" | "ServerException" | "InternalServiceError" => 500,
            "ServiceUnavailable" | "ServiceUnavailableException" => 503,
            // Only the Query services have other statuses for errors of the client.
            _ if protocol != Protocol::Query => 400,
            "AccessDenied" => 403,
            _ => 400,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Query,
    Json,
    Cbor,
}

/// A call as the SDK has sent it.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// The operation, as in `DescribeRules`.
    pub operation: String,
    /// The parameters as JSON in AWS's own names. Those of AWS Query are all strings.
    pub params: Value,
    protocol: Protocol,
}

impl Call {
    /// Reads a call.
    ///
    /// # Panics
    /// When the body is not what the protocol demands, or has another length than the header says.
    pub fn read(request: &HttpRequest) -> Call {
        let body = request.body().bytes().unwrap_or_default();
        if let Some(length) = request.headers().get("content-length") {
            assert_eq!(length, body.len().to_string(), "the length of the body");
        }
        if let Some(target) = request.headers().get("x-amz-target") {
            return Call {
                operation: target.rsplit('.').next().unwrap_or_default().to_owned(),
                params: serde_json::from_slice(body).expect("a JSON body"),
                protocol: Protocol::Json,
            };
        }
        if let Some((_, operation)) = request.uri().split_once("/operation/") {
            return Call {
                operation: operation.to_owned(),
                params: cbor::read(body),
                protocol: Protocol::Cbor,
            };
        }
        let params = read_query(body);
        Call {
            operation: text(&params["Action"]).to_owned(),
            params,
            protocol: Protocol::Query,
        }
    }

    /// Writes the answer to this call.
    ///
    /// # Panics
    /// Never; statuses are valid.
    pub fn write(&self, answer: &Result<Value, Error>) -> HttpResponse {
        let (status, body) = match answer {
            Err(error) if error.code == GATEWAY_TIMEOUT => (504, Vec::new()),
            Err(error) => (error.status(self.protocol), self.error_body(error)),
            Ok(answer) => (200, self.body(answer)),
        };
        let status = StatusCode::try_from(status).expect("a status");
        let mut response = HttpResponse::new(status, SdkBody::from(body));
        if self.protocol == Protocol::Cbor {
            let headers = response.headers_mut();
            headers.insert("smithy-protocol", "rpc-v2-cbor");
            headers.insert("content-type", "application/cbor");
        }
        response
    }

    fn body(&self, answer: &Value) -> Vec<u8> {
        match self.protocol {
            Protocol::Json => answer.to_string().into_bytes(),
            Protocol::Cbor => cbor::write(answer),
            Protocol::Query => {
                let (name, mut result) = (&self.operation, String::new());
                write_xml(answer, &mut result);
                let body = format!(
                    "<{name}Response><{name}Result>{result}</{name}Result></{name}Response>"
                );
                body.into_bytes()
            }
        }
    }

    /// Whether the call changes something.
    pub(crate) fn is_change(&self) -> bool {
        let mut reads = ["Describe", "List", "Get", "BatchGet"].iter();
        !reads.any(|read| self.operation.starts_with(read))
    }

    fn error_body(&self, error: &Error) -> Vec<u8> {
        let Error { code, message } = error;
        let described = json!({"__type": code, "message": message});
        match self.protocol {
            Protocol::Json => return described.to_string().into_bytes(),
            Protocol::Cbor => return cbor::write(&described),
            Protocol::Query => (),
        }
        let mut xml = String::from("<ErrorResponse>");
        write_xml(
            &json!({"Error": {"Type": "Sender", "Code": code, "Message": message}}),
            &mut xml,
        );
        (xml + "</ErrorResponse>").into_bytes()
    }
}

/// The operation, the resources by name, and the most important parameters, in one line.
impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let params = &self.params;
        let mut words = vec![self.operation.clone()];
        words.extend(texts(&params["ResourceArns"]).into_iter().map(name_in));
        for field in [
            "TargetGroupArn",
            "RuleArn",
            "Name",
            "serviceName",
            "service",
            "taskDefinition",
            "task",
            "resourceArn",
            "ResourceId",
        ] {
            words.extend(params[field].as_str().map(name_in));
        }
        let tags = params["tags"]
            .as_array()
            .filter(|_| self.operation == "TagResource");
        words.extend(
            tags.into_iter()
                .flatten()
                .map(|tag| text(&tag["key"]).to_owned()),
        );
        let tags = params["Tags"].as_array().into_iter().flatten();
        words.extend(tags.map(|tag| text(&tag["Key"]).to_owned()));
        words.extend(texts(&params["TagKeys"]).into_iter().map(str::to_owned));
        words.extend(
            forwarded(&params["DefaultActions"])
                .iter()
                .map(|arn| name_in(arn)),
        );
        if self.operation == "UpdateService" {
            let fields = params.as_object().into_iter().flatten();
            let fields = fields.filter(|(name, _)| *name != "cluster" && *name != "service");
            words.extend(fields.map(|(name, value)| format!("{name}={value}")));
        }
        f.write_str(&words.join(" "))
    }
}

/// The text of a value, or nothing.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// `Actions.member.1.Type=forward` as `{"Actions": [{"Type": "forward"}]}`.
fn read_query(body: &[u8]) -> Value {
    let mut root = json!({});
    for (key, value) in form_urlencoded::parse(body) {
        let mut at = &mut root;
        for part in key.split('.').filter(|part| *part != "member") {
            at = match part.parse::<usize>() {
                // Lists count from 1.
                Ok(number) => {
                    if !at.is_array() {
                        *at = json!([]);
                    }
                    let list = at.as_array_mut().expect("a list");
                    list.resize(list.len().max(number), Value::Null);
                    &mut list[number - 1]
                }
                Err(_) => &mut at[part],
            };
        }
        *at = value.into();
    }
    root
}

fn write_xml(value: &Value, xml: &mut String) {
    let mut element = |name: &str, value: &Value| {
        if !value.is_null() {
            *xml += &format!("<{name}>");
            write_xml(value, xml);
            *xml += &format!("</{name}>");
        }
    };
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| match value {
            // A map's entries stand beside each other.
            Value::Array(entries) if name == "entry" => {
                entries.iter().for_each(|entry| element(name, entry));
            }
            value => element(name, value),
        }),
        Value::Array(members) => members.iter().for_each(|value| element("member", value)),
        Value::String(text) => *xml += &text.replace('&', "&amp;").replace('<', "&lt;"),
        other => *xml += &other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_into_lists_and_objects() {
        let read = read_query(
            b"Action=CreateRule&Actions.member.2.Type=forward&Actions.member.1.Type=a%26b",
        );
        assert_eq!(
            read,
            json!({"Action": "CreateRule", "Actions": [{"Type": "a&b"}, {"Type": "forward"}]})
        );
    }

    #[test]
    fn an_answer_is_written_as_xml_with_members_and_escapes() {
        let mut xml = String::new();
        write_xml(&json!({"A": [{"B": "<&"}], "C": null, "D": 1}), &mut xml);
        assert_eq!(xml, "<A><member><B>&lt;&amp;</B></member></A><D>1</D>");
    }
}
