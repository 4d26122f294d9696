//! The function that calls. The launcher of MiniStack gives each execution environment of a function
//! credentials of its own, as Lambda does, with a session token that names both.

use http::{Method, request::Parts};

use crate::ministack::{ApiError, Client};

/// The beginning of such a token. The name of the function, the number of the environment and a secret
/// follow, separated by slashes.
const PREFIX: &str = "localcloud/";

/// An execution environment of a function: one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    pub function: String,
    number: u16,
}

impl Environment {
    /// The environment that signed the request. `None` if another caller did.
    pub fn of(parts: &Parts) -> Option<Self> {
        let token = parts.headers.get("x-amz-security-token")?.to_str().ok()?;
        let mut names = token.strip_prefix(PREFIX)?.split('/');
        Some(Self {
            function: names.next()?.to_owned(),
            number: names.next()?.parse().ok()?,
        })
    }
}

impl Client {
    /// Kills the process of an environment with SIGKILL, as Lambda does when a function runs out of
    /// memory.
    pub(super) async fn kill(&self, environment: &Environment) -> Result<(), ApiError> {
        let path = format!("/_localcloud/kill/{}", environment.number);
        let body = bytes::Bytes::new();
        self.unsigned(Method::POST, &path, body).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(token: &str) -> Option<Environment> {
        let request = http::Request::new(());
        let (mut parts, ()) = request.into_parts();
        let token = token.parse().unwrap();
        parts.headers.insert("x-amz-security-token", token);
        Environment::of(&parts)
    }

    #[test]
    fn a_call_names_its_function_and_environment_by_the_session_token() {
        let expected = Environment {
            function: "test-create-service".to_owned(),
            number: 40123,
        };
        assert_eq!(
            caller("localcloud/test-create-service/40123/5ec4e7"),
            Some(expected)
        );
        assert_eq!(caller("IQoJb3JpZ2luX2VjEHoaCXVzLWVhc3QtMSJ"), None);
        assert_eq!(caller("localcloud/test-create-service"), None);
    }
}
