//! Passes requests on to MiniStack.

use http::{HeaderValue, Uri, header::HeaderName, request::Parts};

use super::{
    Incoming,
    answer::{Answer, AwsError},
};
use crate::ministack::Client;

/// Makes MiniStack authenticate and authorise a request without running it. The answer is 204.
const AUTHORISE_ONLY: HeaderName = HeaderName::from_static("x-localcloud-authorise-only");
/// The tags of resources that only the gateway knows, for `aws:ResourceTag` conditions.
const RESOURCE_TAGS: HeaderName = HeaderName::from_static("x-localcloud-resource-tags");
/// The header of MiniStack's answers that contains the ARN of the caller.
const CALLER: HeaderName = HeaderName::from_static("x-localcloud-caller");

/// Headers that concern a single connection. They are not passed on.
const HOP_BY_HOP: [&str; 5] = [
    "connection",
    "keep-alive",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// Passes requests on to one MiniStack.
#[derive(Clone)]
pub struct Forward {
    pub(super) client: Client,
}

impl Forward {
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Passes the request on unchanged, with its `Host` header, because the signature covers it.
    pub async fn forward(&self, incoming: &Incoming) -> Answer {
        self.send(incoming, &[]).await
    }

    /// Asks MiniStack whether the caller may make this call.
    ///
    /// # Errors
    /// MiniStack's answer, if the caller may not make this call.
    pub async fn authorise(&self, incoming: &Incoming) -> Result<(), Answer> {
        self.authorise_with_tags(incoming, "{}").await
    }

    /// As [`Forward::authorise`], for a call on resources that MiniStack does not know; `tags` is a
    /// JSON object of tag objects by ARN.
    ///
    /// # Errors
    /// MiniStack's answer, if the caller may not make this call.
    pub async fn authorise_with_tags(&self, incoming: &Incoming, tags: &str) -> Result<(), Answer> {
        let tags = HeaderValue::from_str(tags).unwrap_or(HeaderValue::from_static("{}"));
        let headers = [
            (AUTHORISE_ONLY, HeaderValue::from_static("1")),
            (RESOURCE_TAGS, tags),
        ];
        let answer = self.send(incoming, &headers).await;
        match answer.status() {
            http::StatusCode::NO_CONTENT => {
                incoming.set_caller(&answer);
                Ok(())
            }
            _ => Err(answer),
        }
    }

    async fn send(&self, incoming: &Incoming, extra: &[(HeaderName, HeaderValue)]) -> Answer {
        let mut request = http::Request::new(incoming.body.clone());
        *request.method_mut() = incoming.parts.method.clone();
        *request.uri_mut() = self.uri(&incoming.parts);
        let headers = request.headers_mut();
        headers.extend(
            incoming
                .parts
                .headers
                .iter()
                .filter(|(name, _)| !not_passed_on(name))
                .map(|(name, value)| (name.clone(), value.clone())),
        );
        headers.extend(extra.iter().cloned());
        match self.client.send(request).await {
            Ok(mut answer) => {
                incoming.set_caller(&answer);
                let headers = answer.headers_mut();
                headers.remove(CALLER);
                HOP_BY_HOP.iter().for_each(|name| {
                    headers.remove(*name);
                });
                answer
            }
            Err(error) => AwsError::new("ServiceUnavailable", error.message)
                .with_status(503)
                .answer(incoming.operation.protocol),
        }
    }

    fn uri(&self, parts: &Parts) -> Uri {
        let path_and_query = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        format!("http://{}{path_and_query}", self.client.authority())
            .parse()
            .unwrap_or_default()
    }
}

/// Whether a header concerns the connection, or is one that only the gateway may set.
fn not_passed_on(name: &HeaderName) -> bool {
    HOP_BY_HOP.contains(&name.as_str()) || name.as_str().starts_with("x-localcloud-")
}

impl Incoming {
    fn set_caller(&self, answer: &Answer) {
        if let Some(arn) = answer
            .headers()
            .get(CALLER)
            .and_then(|arn| arn.to_str().ok())
        {
            let _ = self.caller.set(arn.to_owned());
        }
    }
}
