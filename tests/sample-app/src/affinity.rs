//! Pinning a client to this deployment: the cookie that the load balancer's rules look for.

use axum::extract::{Request, State};
use axum::http::header::{COOKIE, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;

use crate::App;

/// The name of both the cookie and the header.
pub const NAME: &str = "X-Pulse-Render-Affinity";

/// Middleware for what visitors ask for: gives a client without the cookie one, so that it stays
/// with this deployment until its browser is closed, and echoes the header.
///
/// A cookie of another deployment only comes here when that one is gone, and then it pins to nothing:
/// it is replaced, or the next switch would move the client in mid-session. With the header the client
/// is here by the header alone, and its cookie may be good for the deployment it names.
///
/// Not while draining: who is new then, or came by a pin to a deployment that is gone, must not be
/// bound to one that is about to go.
pub async fn pin(State(app): State<App>, request: Request, next: Next) -> Response {
    let header = request.headers().get(NAME).cloned();
    let pinned = match cookie(request.headers(), NAME) {
        Some(id) => id == app.settings.deployment_id || header.is_some(),
        None => false,
    };
    let mut response = next.run(request).await;
    if let Some(header) = header {
        response.headers_mut().insert(NAME, header);
    }
    if !pinned && !app.drain.is_draining() {
        let value = format!("{NAME}={}; Path=/", app.settings.deployment_id);
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().append(SET_COOKIE, value);
        }
    }
    response
}

/// The value of a cookie.
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(n, value)| (n == name).then_some(value))
}
