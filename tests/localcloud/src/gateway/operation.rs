//! Finds out which AWS operation a request calls.

use bytes::Bytes;
use http::{Method, request::Parts};

/// The format of a service's requests and errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// `X-Amz-Target` and a JSON body.
    Json,
    /// Form parameters with an `Action`. Answers are XML.
    Query,
    /// Smithy's RPC v2: the operation is in the path. Requests and answers are CBOR.
    Cbor,
    /// The operation is in method and path. Answers are JSON.
    RestJson,
    /// S3: the operation is in method and path. Answers are XML.
    RestXml,
    /// The registry protocol of the OCI distribution specification.
    Registry,
}

/// The operation that a request calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// The service as signatures name it, for example `elasticloadbalancing`.
    pub service: String,
    /// The name of the operation, or method and path where requests do not contain one.
    pub name: String,
    pub protocol: Protocol,
}

impl Operation {
    /// Reads service and operation from the signature's scope, the target header, the path and the body.
    pub fn of(parts: &Parts, body: &Bytes) -> Self {
        let path = parts.uri.path();
        let new = |service: &str, name: String, protocol| Operation {
            service: service.to_owned(),
            name,
            protocol,
        };
        if is_registry_path(path) {
            return new(
                "ecr",
                format!("{} {path}", parts.method),
                Protocol::Registry,
            );
        }
        let service = signed_service(parts).unwrap_or_default();
        if let Some(target) = header(parts, "x-amz-target") {
            let name = target.rsplit('.').next().unwrap_or(target).to_owned();
            return new(service, name, Protocol::Json);
        }
        if header(parts, "smithy-protocol") == Some("rpc-v2-cbor")
            && let Some((_, name)) = path.rsplit_once("/operation/")
        {
            return new(service, name.to_owned(), Protocol::Cbor);
        }
        if let Some(action) =
            Params::of(parts, body).and_then(|p| p.get("Action").map(str::to_owned))
        {
            return new(service, action, Protocol::Query);
        }
        if service == "s3" || service.is_empty() {
            return new("s3", format!("{} {path}", parts.method), Protocol::RestXml);
        }
        let name = match path.strip_prefix("/2015-03-31/functions/") {
            Some(rest) if rest.ends_with("/invocations") && parts.method == Method::POST => {
                "Invoke".to_owned()
            }
            _ => format!("{} {path}", parts.method),
        };
        new(service, name, Protocol::RestJson)
    }

    /// Whether the operation only reads.
    pub fn reads(&self) -> bool {
        ["Describe", "Get", "List", "BatchGet"]
            .iter()
            .any(|prefix| self.name.starts_with(prefix))
    }
}

/// Whether a path belongs to the registry protocol. API Gateway and SES have `/v2/` paths too.
fn is_registry_path(path: &str) -> bool {
    path == "/v2"
        || path == "/v2/"
        || (path.starts_with("/v2/")
            && !path.starts_with("/v2/email/")
            && (path.contains("/blobs/")
                || path.contains("/manifests/")
                || path.ends_with("/tags/list")
                || path == "/v2/_catalog"))
}

fn header<'a>(parts: &'a Parts, name: &str) -> Option<&'a str> {
    parts.headers.get(name)?.to_str().ok()
}

/// The service in the credential scope of a signed header or of a signed query.
fn signed_service(parts: &Parts) -> Option<&str> {
    let scope = match header(parts, "authorization") {
        Some(value) => value.split_once("Credential=")?.1.split(',').next()?,
        None => parts.uri.query()?.split_once("X-Amz-Credential=")?.1,
    };
    scope
        .split('&')
        .next()?
        .split("%2F")
        .flat_map(|part| part.split('/'))
        .nth(3)
}

/// The form parameters of a Query request.
#[derive(Debug, Clone, Default)]
pub struct Params(Vec<(String, String)>);

impl Params {
    /// Reads the parameters from a form body, or else from the query string.
    pub fn of(parts: &Parts, body: &Bytes) -> Option<Self> {
        let form = header(parts, "content-type")
            .is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"));
        let encoded = if form {
            body
        } else {
            parts.uri.query()?.as_bytes()
        };
        Some(Self(form_urlencoded::parse(encoded).into_owned().collect()))
    }

    /// The value of a parameter. `None` if it is missing or empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, value)| key == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }

    /// The values of `prefix.member.1suffix`, `prefix.member.2suffix` and so on.
    pub fn members(&self, prefix: &str, suffix: &str) -> Vec<&str> {
        (1..)
            .map_while(|number| self.get(&format!("{prefix}.member.{number}{suffix}")))
            .collect()
    }

    /// The non-empty values of the parameters whose names satisfy `matches`, in the order of the request.
    pub fn values(&self, matches: impl Fn(&str) -> bool) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .filter(move |(key, value)| matches(key) && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Params {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(pairs: I) -> Self {
        let own = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        Self(pairs.into_iter().map(own).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    const SCOPE: &str = "AWS4-HMAC-SHA256 Credential=test/20251027/us-east-1/SERVICE/aws4_request, SignedHeaders=host, Signature=0";

    fn operation(
        method: &str,
        uri: &str,
        service: &str,
        headers: &[(&str, &str)],
        body: &'static str,
    ) -> Operation {
        let mut request = Request::builder().method(method).uri(uri);
        if !service.is_empty() {
            request = request.header("authorization", SCOPE.replace("SERVICE", service));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        Operation::of(&parts, &Bytes::from_static(body.as_bytes()))
    }

    #[test]
    fn the_operation_is_read_from_every_protocol() {
        let form = [(
            "content-type",
            "application/x-www-form-urlencoded; charset=utf-8",
        )];
        let cbor = [("smithy-protocol", "rpc-v2-cbor")];
        let target = [(
            "x-amz-target",
            "AmazonEC2ContainerServiceV20141113.CreateService",
        )];
        for (found, service, name, protocol) in [
            (
                operation("POST", "/", "ecs", &target, "{}"),
                "ecs",
                "CreateService",
                Protocol::Json,
            ),
            (
                operation(
                    "POST",
                    "/service/GraniteServiceVersion20100801/operation/DescribeAlarms",
                    "monitoring",
                    &cbor,
                    "",
                ),
                "monitoring",
                "DescribeAlarms",
                Protocol::Cbor,
            ),
            (
                operation(
                    "POST",
                    "/",
                    "elasticloadbalancing",
                    &form,
                    "Action=CreateRule&Version=1",
                ),
                "elasticloadbalancing",
                "CreateRule",
                Protocol::Query,
            ),
            (
                operation(
                    "POST",
                    "/2015-03-31/functions/f/invocations",
                    "lambda",
                    &[],
                    "{}",
                ),
                "lambda",
                "Invoke",
                Protocol::RestJson,
            ),
            (
                operation("PUT", "/bucket/key", "s3", &[], ""),
                "s3",
                "PUT /bucket/key",
                Protocol::RestXml,
            ),
            (
                operation("PUT", "/v2/test/manifests/t", "", &[], "{}"),
                "ecr",
                "PUT /v2/test/manifests/t",
                Protocol::Registry,
            ),
            (
                operation("GET", "/v2/apis", "apigateway", &[], ""),
                "apigateway",
                "GET /v2/apis",
                Protocol::RestJson,
            ),
        ] {
            assert_eq!(
                found,
                Operation {
                    service: service.into(),
                    name: name.into(),
                    protocol
                }
            );
        }
    }
}
