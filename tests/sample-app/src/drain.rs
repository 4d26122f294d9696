//! `POST /drain`. Afterwards this task pins no new clients, and reports its active sessions.

use std::net::SocketAddr;
use std::sync::Mutex;

use axum::Json;
use axum::extract::{ConnectInfo, State};
use axum::http::header::{AUTHORIZATION, HOST, HeaderName, USER_AGENT};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use subtle::ConstantTimeEq;
use time::UtcDateTime;
use time::format_description::well_known::Rfc3339;

use crate::App;

/// The deployment that is asked to drain, if the request names one.
const DEPLOYMENT: HeaderName = HeaderName::from_static("x-pulse-deployment");

/// Whether this task is draining, and the request that began it.
#[derive(Debug, Default)]
pub struct Drain(Mutex<Option<Record>>);

#[derive(Debug, Clone)]
struct Record {
    at: UtcDateTime,
    peer: SocketAddr,
    host: String,
    user_agent: String,
}

impl Drain {
    /// Whether draining has begun. It ends only with the task.
    pub fn is_draining(&self) -> bool {
        self.lock().is_some()
    }

    /// When draining began, the client that requested it, and its `Host` header. That is the address of the
    /// task if the request came directly, and the name of the load balancer if it came through that.
    pub fn record(&self) -> Value {
        match &*self.lock() {
            None => json!({"draining": false}),
            Some(record) => json!({
                "draining": true,
                "at": record.at.format(&Rfc3339).unwrap_or_default(),
                "peer": record.peer.to_string(),
                "host": record.host,
                "userAgent": record.user_agent,
            }),
        }
    }

    /// Begins to drain. Returns false if draining had already begun.
    fn begin(&self, record: Record) -> bool {
        let mut draining = self.lock();
        let first = draining.is_none();
        if first {
            *draining = Some(record);
        }
        first
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Record>> {
        self.0.lock().unwrap_or_else(|p| p.into_inner())
    }
}

pub async fn drain(
    State(app): State<App>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
) -> Response {
    let text = |name: HeaderName| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_string()
    };
    if app.settings.behaviour.drain_503 {
        return refused(StatusCode::SERVICE_UNAVAILABLE, "the server is full");
    }
    let Some(token) = bearer(&headers) else {
        return refused(StatusCode::UNAUTHORIZED, "a bearer token is required");
    };
    // If the task has no secret, every token is wrong.
    let known = app.settings.drain_secret.as_deref().map(str::as_bytes);
    if !known.is_some_and(|known| is_secret(known, token)) {
        return refused(StatusCode::FORBIDDEN, "wrong secret");
    }
    // This task has the address of one that has stopped.
    let meant = headers.get(DEPLOYMENT);
    if meant.is_some_and(|meant| *meant != *app.settings.deployment_id) {
        return refused(StatusCode::CONFLICT, "this is another deployment");
    }
    let record = Record {
        at: UtcDateTime::now(),
        peer,
        host: text(HOST),
        user_agent: text(USER_AGENT),
    };
    let first = app.drain.begin(record);
    let sessions = app.sessions.active();
    if first {
        println!("draining: {} {sessions} active", app.drain.record());
    }
    let status = if first { "ok" } else { "already_draining" };
    Json(json!({"status": status, "activeSessions": sessions})).into_response()
}

/// The token of the `Authorization` header. `None` with several headers, because it is undefined which
/// one counts.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    match (all.next(), all.next()) {
        (Some(only), None) => only.as_bytes().strip_prefix(b"Bearer "),
        _ => None,
    }
}

/// Whether a token is the secret. The duration depends only on the lengths, not on the bytes that are equal.
fn is_secret(known: &[u8], token: &[u8]) -> bool {
    known.ct_eq(token).into()
}

fn refused(status: StatusCode, why: &str) -> Response {
    (status, Json(json!({"status": "refused", "reason": why}))).into_response()
}

#[cfg(test)]
mod timing;
