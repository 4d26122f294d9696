//! Calls to MiniStack with signed requests.

use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4,
};
use aws_smithy_runtime_api::client::identity::Identity;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;

/// The region of the local cloud.
pub const REGION: &str = "us-east-1";

/// Calls MiniStack as the root user of the account.
#[derive(Clone)]
pub struct Client {
    http: HttpClient<HttpConnector, Full<Bytes>>,
    authority: String,
}

/// An error that a service returned, or a call without an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiError {
    /// The HTTP status. 0 if there was no answer.
    pub status: u16,
    /// The code without its namespace, for example `ResourceNotFoundException`. `NoAnswer` if there was
    /// no answer.
    pub code: String,
    /// The message of the service, or the reason why there was no answer.
    pub message: String,
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} ({})", self.code, self.message, self.status)
    }
}

impl std::error::Error for ApiError {}

impl ApiError {
    fn no_answer(message: impl std::fmt::Display) -> Self {
        ApiError {
            status: 0,
            code: "NoAnswer".into(),
            message: message.to_string(),
        }
    }

    /// Reads code and message from a JSON or an XML error.
    pub(crate) fn from_answer(response: &Response<Bytes>) -> Self {
        let text = String::from_utf8_lossy(response.body());
        let (code, message) = match serde_json::from_str::<Value>(&text) {
            Ok(json) => {
                let field = |names: &[&str]| {
                    names
                        .iter()
                        .find_map(|name| json[name].as_str())
                        .unwrap_or_default()
                        .to_owned()
                };
                let code = response
                    .headers()
                    .get("x-amzn-errortype")
                    .and_then(|code| code.to_str().ok())
                    .map_or_else(|| field(&["__type", "code"]), str::to_owned);
                (code, field(&["message", "Message", "errorMessage"]))
            }
            Err(_) => {
                let field = |name| element(&text, name).unwrap_or_default();
                (field("Code"), field("Message"))
            }
        };
        ApiError {
            status: response.status().as_u16(),
            code: code
                .rsplit('#')
                .next()
                .unwrap_or_default()
                .split(':')
                .next()
                .unwrap_or_default()
                .to_owned(),
            message,
        }
    }
}

/// The text of the first element with this name.
pub(crate) fn element(xml: &str, name: &str) -> Option<String> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    Some(quick_xml::escape::unescape(text).map_or_else(|_| text.to_owned(), |t| t.into_owned()))
}

impl Client {
    /// A client for the MiniStack at `authority` (`host:port`).
    pub fn new(authority: String) -> Self {
        Self {
            http: HttpClient::builder(TokioExecutor::new()).build_http(),
            authority,
        }
    }

    /// Calls an operation of a JSON service. `target` is the value of `X-Amz-Target`.
    ///
    /// # Errors
    /// The error of the service, or status 0 if there is no answer.
    pub async fn json(&self, service: &str, target: &str, body: Value) -> Result<Value, ApiError> {
        let version = match service {
            "sqs" | "states" => "1.0",
            _ => "1.1",
        };
        let request = self
            .request(Method::POST, "/")
            .header("content-type", format!("application/x-amz-json-{version}"))
            .header("x-amz-target", target)
            .body(Bytes::from(body.to_string()));
        let answer = self.signed(service, request).await?;
        if answer.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&answer).map_err(ApiError::no_answer)
    }

    /// Calls an operation of a Query service. The answer is XML.
    ///
    /// # Errors
    /// The error of the service, or status 0 if there is no answer.
    pub async fn query(
        &self,
        service: &str,
        version: &str,
        params: &[(&str, &str)],
    ) -> Result<String, ApiError> {
        let body = form_urlencoded::Serializer::new(String::new())
            .append_pair("Version", version)
            .extend_pairs(params)
            .finish();
        let request = self
            .request(Method::POST, "/")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Bytes::from(body));
        let answer = self.signed(service, request).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// Calls an operation of a REST service, for example Lambda's Invoke.
    ///
    /// # Errors
    /// The error of the service, or status 0 if there is no answer.
    pub async fn rest(
        &self,
        service: &str,
        method: Method,
        path_and_query: &str,
        body: Bytes,
    ) -> Result<Bytes, ApiError> {
        self.rest_with_headers(service, method, path_and_query, &[], body)
            .await
    }

    /// The same as [`Client::rest`], with headers, for example Lambda's `X-Amz-Invocation-Type`.
    pub(crate) async fn rest_with_headers(
        &self,
        service: &str,
        method: Method,
        path_and_query: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Bytes, ApiError> {
        let mut request = self.request(method, path_and_query);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.signed(service, request.body(body)).await
    }

    /// Sends a request unchanged.
    pub(crate) async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, ApiError> {
        let response = self
            .http
            .request(request.map(Full::new))
            .await
            .map_err(ApiError::no_answer)?;
        let (parts, body) = response.into_parts();
        let body = body
            .collect()
            .await
            .map_err(ApiError::no_answer)?
            .to_bytes();
        Ok(Response::from_parts(parts, body))
    }

    /// A request without credentials, as a registry client sends it.
    pub(crate) async fn unsigned(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Bytes, ApiError> {
        let request = self.request(method, path).body(body);
        accept(self.send(request.map_err(ApiError::no_answer)?).await?)
    }

    /// `host:port` of MiniStack.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    fn request(&self, method: Method, path_and_query: &str) -> http::request::Builder {
        Request::builder()
            .method(method)
            .uri(format!("http://{}{path_and_query}", self.authority))
            .header("host", &self.authority)
    }

    async fn signed(
        &self,
        service: &str,
        request: http::Result<Request<Bytes>>,
    ) -> Result<Bytes, ApiError> {
        let mut request = request.map_err(ApiError::no_answer)?;
        sign_as_root(service, &mut request).map_err(ApiError::no_answer)?;
        accept(self.send(request).await?)
    }
}

fn accept(response: Response<Bytes>) -> Result<Bytes, ApiError> {
    if response.status().is_success() {
        Ok(response.into_body())
    } else {
        Err(ApiError::from_answer(&response))
    }
}

/// Signs a request with the key and secret `test`, which MiniStack accepts for the root user.
pub(crate) fn sign_as_root(service: &str, request: &mut Request<Bytes>) -> anyhow::Result<()> {
    let identity: Identity = Credentials::new("test", "test", None, None, "localcloud").into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(REGION)
        .name(service)
        .time(SystemTime::now())
        .settings(SigningSettings::default())
        .build()?
        .into();
    let uri = request.uri().to_string();
    let headers: Vec<(String, String)> = request
        .headers()
        .iter()
        .map(|(name, value)| Ok((name.to_string(), value.to_str()?.to_owned())))
        .collect::<Result<_, http::header::ToStrError>>()?;
    let signable = SignableRequest::new(
        request.method().as_str(),
        &uri,
        headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str())),
        SignableBody::Bytes(request.body()),
    )?;
    let (instructions, _) = sign(signable, &params)?.into_parts();
    instructions.apply_to_request_http1x(request);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_in(body: &'static str, error_type: Option<&str>) -> ApiError {
        let mut response = Response::builder().status(400);
        if let Some(code) = error_type {
            response = response.header("x-amzn-errortype", code);
        }
        ApiError::from_answer(&response.body(Bytes::from(body)).unwrap())
    }

    #[test]
    fn the_code_of_an_error_is_read_from_every_protocol() {
        let json = error_in(
            r#"{"__type":"com.amazonaws.ecs#ClientException","message":"no"}"#,
            None,
        );
        assert_eq!(
            (json.code.as_str(), json.message.as_str()),
            ("ClientException", "no")
        );
        let rest = error_in(
            r#"{"Message":"not found"}"#,
            Some("ResourceNotFoundException:http://x"),
        );
        assert_eq!(
            (rest.code.as_str(), rest.message.as_str()),
            ("ResourceNotFoundException", "not found")
        );
        let xml = error_in(
            "<ErrorResponse><Error><Code>PriorityInUse</Code><Message>a &amp; b</Message></Error></ErrorResponse>",
            None,
        );
        assert_eq!(
            (xml.code.as_str(), xml.message.as_str()),
            ("PriorityInUse", "a & b")
        );
    }
}
