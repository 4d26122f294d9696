//! An application in a task, as a server on a loopback address of its own.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::{AUTHORIZATION, LOCATION};
use axum::response::IntoResponse;
use lifecycle::defaults;
use tokio::sync::Barrier;

/// One request as the application received it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub host: String,
    pub authorization: String,
    pub deployment: String,
}

#[derive(Clone)]
enum Behaviour {
    /// Keeps the contract, with so many sessions.
    Sessions(u64),
    /// Answers 403 to every secret but this one, and has no sessions.
    Expects(String),
    Says(u16, String),
    Redirects(u16, String),
    Hangs,
    /// Answers when all of these have been asked, and has no sessions.
    Meets(Arc<Barrier>),
}

pub struct Application {
    address: String,
    behaviour: Arc<Mutex<Behaviour>>,
    asked: Arc<Mutex<Vec<Asked>>>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Application {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// An address at which nothing listens.
pub fn unused_address() -> String {
    memory_aws::socket_of_a_task(defaults::PORT).0.to_string()
}

impl Application {
    pub async fn with(sessions: u64) -> Application {
        Application::start(Behaviour::Sessions(sessions))
    }

    pub async fn expecting(secret: &str) -> Application {
        Application::start(Behaviour::Expects(secret.to_owned()))
    }

    pub async fn answering(status: u16, body: &str) -> Application {
        Application::start(Behaviour::Says(status, body.to_owned()))
    }

    pub async fn redirecting(status: u16, location: &str) -> Application {
        Application::start(Behaviour::Redirects(status, location.to_owned()))
    }

    /// So many applications, none of which answers before all have been asked.
    pub async fn meeting(number: usize) -> Vec<Application> {
        let all = Arc::new(Barrier::new(number));
        let one = |_| Application::start(Behaviour::Meets(Arc::clone(&all)));
        (0..number).map(one).collect()
    }

    pub async fn hanging() -> Application {
        Application::start(Behaviour::Hangs)
    }

    fn start(behaviour: Behaviour) -> Application {
        let (address, socket) = memory_aws::socket_of_a_task(defaults::PORT);
        socket.set_nonblocking(true).unwrap();
        let socket = tokio::net::TcpListener::from_std(socket).unwrap();
        let behaviour = Arc::new(Mutex::new(behaviour));
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (does, notes) = (Arc::clone(&behaviour), Arc::clone(&asked));
        let router = Router::new().fallback(move |request: Request| {
            let authorization = request.headers().get(AUTHORIZATION).cloned();
            let again = note(&notes, &request);
            let does = does.lock().unwrap().clone();
            async move {
                match does {
                    Behaviour::Sessions(sessions) => {
                        let status = if again { "already_draining" } else { "ok" };
                        let body = format!(
                            r#"{{"status": "{status}", "activeSessions": {sessions}, "more": 1}}"#
                        );
                        body.into_response()
                    }
                    Behaviour::Expects(secret) => {
                        let right = format!("Bearer {secret}");
                        if authorization.is_some_and(|given| given == right) {
                            r#"{"status": "ok", "activeSessions": 0}"#.into_response()
                        } else {
                            StatusCode::FORBIDDEN.into_response()
                        }
                    }
                    Behaviour::Says(status, body) => {
                        (StatusCode::from_u16(status).unwrap(), body).into_response()
                    }
                    Behaviour::Redirects(status, location) => (
                        StatusCode::from_u16(status).unwrap(),
                        [(LOCATION, location)],
                    )
                        .into_response(),
                    Behaviour::Hangs => std::future::pending().await,
                    Behaviour::Meets(all) => {
                        all.wait().await;
                        r#"{"status": "ok", "activeSessions": 0}"#.into_response()
                    }
                }
            }
        });
        let server = tokio::spawn(async move {
            axum::serve(socket, router).await.unwrap();
        });
        Application {
            address: address.to_string(),
            behaviour,
            asked,
            server,
        }
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// Reports so many sessions from now on.
    pub fn says(&self, sessions: u64) {
        *self.behaviour.lock().unwrap() = Behaviour::Sessions(sessions);
    }
}

/// Records the request; returns whether there was one before.
fn note(asked: &Mutex<Vec<Asked>>, request: &Request) -> bool {
    let header = |name: &str| {
        let value = request.headers().get(name);
        value
            .map(|value| value.to_str().unwrap().to_owned())
            .unwrap_or_default()
    };
    let mut asked = asked.lock().unwrap();
    asked.push(Asked {
        method: request.method().to_string(),
        path: request.uri().to_string(),
        host: header("host"),
        authorization: header("authorization"),
        deployment: header("x-pulse-deployment"),
    });
    asked.len() > 1
}
