//! A small application that keeps pulse-deploy's contract: it reports its health, pins its visitors to
//! its own version with a cookie, and can be drained. README.md documents its endpoints, and the
//! environment variables that make it misbehave.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Path, Request, State};
use axum::http::header::SET_COOKIE;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

mod affinity;
mod capacity;
mod drain;
pub mod release;
mod sessions;
pub mod settings;
pub mod turns_bad;

use capacity::Capacity;
use drain::Drain;
use sessions::Sessions;
use settings::Settings;
use turns_bad::Bad;

/// How long WebSockets may take to close at shutdown, and requests in flight to finish. It is shorter
/// than the 30 s after which ECS kills the process.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(20);

/// How often an open WebSocket is pinged: twice within the 60 s after which the load balancer closes a connection
/// that carries no bytes.
const PING_INTERVAL: Duration = Duration::from_secs(25);

/// The application's state, shared by all requests.
#[derive(Clone)]
pub(crate) struct App {
    settings: Arc<Settings>,
    sessions: Arc<Sessions>,
    drain: Arc<Drain>,
    capacity: Arc<Capacity>,
    /// The address that this task listens on.
    address: Arc<str>,
    /// True when the process must end.
    stopping: watch::Receiver<bool>,
}

/// Serves on `listener` until `stop` is ready. Then finishes the requests in flight, closes WebSockets
/// and returns, after 20 s in any case.
///
/// # Errors
/// If the listener fails.
pub async fn serve(
    settings: Settings,
    listener: TcpListener,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let (stopping, receiver) = watch::channel(false);
    let app = App {
        sessions: Arc::new(Sessions::new(settings.session_idle)),
        drain: Arc::default(),
        capacity: Arc::new(Capacity::new(&settings)),
        address: listener.local_addr()?.to_string().into(),
        settings: Arc::new(settings),
        stopping: receiver.clone(),
    };
    let sessions = app.sessions.clone();
    let service = router(app).into_make_service_with_connect_info::<SocketAddr>();
    let stop = async move {
        stop.await;
        let _ = stopping.send(true);
    };
    let mut stopping = receiver;
    let timeout = async move {
        stop_requested(&mut stopping).await;
        tokio::time::sleep(SHUTDOWN_TIMEOUT).await;
    };
    let serving = axum::serve(listener, service).with_graceful_shutdown(stop);
    let gracefully = async {
        serving.await?;
        while sessions.open_sockets() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    };
    tokio::select! {
        served = gracefully => served,
        () = timeout => Ok(()),
    }
}

fn router(app: App) -> Router {
    let visitors = Router::new()
        .route("/", get(front_page))
        .route("/slow/{milliseconds}", get(slow_page))
        .route("/ws", any(websocket))
        .route("/session/open", post(open_session))
        .route("/session/close", post(close_session))
        .layer(middleware::from_fn_with_state(app.clone(), turns_bad::fail))
        .layer(middleware::from_fn_with_state(app.clone(), capacity::limit))
        .layer(middleware::from_fn_with_state(app.clone(), affinity::pin))
        .layer(middleware::from_fn_with_state(app.clone(), keep_session));
    let mut router = visitors
        .route("/_health", get(health))
        .route("/drain-record", get(drain_record));
    if !app.settings.behaviour.no_drain {
        router = router.route("/drain", post(drain::drain));
    }
    router.with_state(app)
}

async fn front_page(State(app): State<App>) -> Json<Value> {
    Json(json!({
        "deploymentId": app.settings.deployment_id,
        "task": &*app.address,
        "activeSessions": app.sessions.active(),
        "draining": app.drain.is_draining(),
    }))
}

/// The front page after a delay, which keeps the request in flight for at most 30 s.
async fn slow_page(State(app): State<App>, Path(milliseconds): Path<u64>) -> Json<Value> {
    tokio::time::sleep(Duration::from_millis(milliseconds.min(30_000))).await;
    front_page(State(app)).await
}

async fn health(State(app): State<App>) -> StatusCode {
    let behaviour = &app.settings.behaviour;
    let turns_bad = behaviour.turns_bad.as_ref();
    if behaviour.never_healthy || turns_bad.is_some_and(|it| it.is(Bad::IsUnhealthy)) {
        StatusCode::INTERNAL_SERVER_ERROR
    } else if behaviour.health_503_while_draining && app.drain.is_draining() {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::OK
    }
}

async fn drain_record(State(app): State<App>) -> Json<Value> {
    Json(app.drain.record())
}

/// Middleware. Every request of a client keeps its session from becoming idle.
async fn keep_session(State(app): State<App>, request: Request, next: Next) -> Response {
    if let Some(name) = affinity::cookie(request.headers(), sessions::COOKIE) {
        app.sessions.touch(name);
    }
    next.run(request).await
}

async fn open_session(State(app): State<App>, headers: HeaderMap) -> Response {
    let known = affinity::cookie(&headers, sessions::COOKIE);
    if known.is_some_and(|name| app.sessions.touch(name)) {
        return Json(json!({"status": "already_open"})).into_response();
    }
    let (name, session) = (sessions::COOKIE, app.sessions.open());
    let cookie = format!("{name}={session}; {}", affinity::ATTRIBUTES);
    ([(SET_COOKIE, cookie)], Json(json!({"status": "open"}))).into_response()
}

async fn close_session(State(app): State<App>, headers: HeaderMap) -> Json<Value> {
    if let Some(name) = affinity::cookie(&headers, sessions::COOKIE) {
        app.sessions.close(name);
    }
    Json(json!({"status": "closed"}))
}

async fn websocket(State(app): State<App>, upgrade: WebSocketUpgrade) -> Response {
    // Counted from the response on, so that a drain request before the first message sees it.
    let counted = app.sessions.socket();
    upgrade.on_upgrade(async move |socket| {
        echo(socket, app.stopping).await;
        drop(counted);
    })
}

/// Returns when the process must end.
async fn stop_requested(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// Returns every message to the client, until the client closes or the process must end.
async fn echo(mut socket: WebSocket, mut stopping: watch::Receiver<bool>) {
    let first = tokio::time::Instant::now() + PING_INTERVAL;
    let mut ping = tokio::time::interval_at(first, PING_INTERVAL);
    loop {
        let message = tokio::select! {
            message = socket.recv() => message,
            _ = ping.tick() => {
                if socket.send(Message::Ping(Bytes::new())).await.is_err() {
                    return;
                }
                continue;
            }
            () = stop_requested(&mut stopping) => {
                let close = Message::Close(Some(CloseFrame {
                    code: close_code::AWAY,
                    reason: "the task is stopping".into(),
                }));
                let _ = socket.send(close).await;
                return;
            }
        };
        match message {
            Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => {
                if socket.send(message).await.is_err() {
                    return;
                }
            }
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return,
        }
    }
}
