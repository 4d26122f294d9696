//! Pins a client to this deployment with the cookie that the rules of the load balancer match.

use axum::extract::{Request, State};
use axum::http::header::{COOKIE, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;

use crate::App;

/// The name of the cookie and of the header.
pub const NAME: &str = "X-Pulse-Render-Affinity";

/// The attributes of every cookie: it ends with the browser session, goes over HTTPS only, is hidden from scripts,
/// and is not sent with requests that other sites make.
pub const ATTRIBUTES: &str = "Path=/; Secure; HttpOnly; SameSite=Lax";

/// Middleware for the requests of visitors. It sets the cookie if the client has none, so that the client
/// stays with this deployment until its browser is closed, and it echoes the header.
///
/// A request with the cookie of another deployment arrives here only if that deployment was deleted. The
/// cookie is replaced, because otherwise the next switch would move the client during its session. If the
/// request has the header, it arrives because of the header, and its cookie may still be valid.
///
/// While draining, no cookie is set, so that no client is pinned to a deployment that is about to end.
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
        let value = format!("{NAME}={}; {ATTRIBUTES}", app.settings.deployment_id);
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().append(SET_COOKIE, value);
        }
    }
    response
}

/// The value of the first cookie with this name.
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(n, value)| (n == name).then_some(value))
}
