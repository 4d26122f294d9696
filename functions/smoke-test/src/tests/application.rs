//! An application in a task, as a server on a loopback address of its own.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use lifecycle::defaults;

/// One request as the application received it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub host: String,
    pub proto: String,
}

#[derive(Clone)]
enum Behaviour {
    Says(u16, String),
    Redirects(String),
    /// Begins an answer and never ends it.
    Streams(String),
    /// The same, and says so again and again.
    Floods(String),
    Hangs,
}

pub struct Application {
    address: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Application {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Application {
    pub fn answering(status: u16, body: &str) -> Application {
        Application::start(Behaviour::Says(status, body.to_owned()))
    }

    pub fn redirecting(location: &str) -> Application {
        Application::start(Behaviour::Redirects(location.to_owned()))
    }

    pub fn streaming(begins: &str) -> Application {
        Application::start(Behaviour::Streams(begins.to_owned()))
    }

    pub fn flooding(says: &str) -> Application {
        Application::start(Behaviour::Floods(says.to_owned()))
    }

    pub fn hanging() -> Application {
        Application::start(Behaviour::Hangs)
    }

    fn start(behaviour: Behaviour) -> Application {
        let (address, socket) = memory_aws::socket_of_a_task(defaults::PORT);
        socket.set_nonblocking(true).unwrap();
        let socket = tokio::net::TcpListener::from_std(socket).unwrap();
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let notes = Arc::clone(&asked);
        let router = Router::new().fallback(move |request: Request| {
            notes.lock().unwrap().push(noted(&request));
            answer(behaviour.clone())
        });
        let server = tokio::spawn(async move {
            axum::serve(socket, router).await.unwrap();
        });
        Application {
            address: address.to_string(),
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
}

async fn answer(behaviour: Behaviour) -> Response {
    match behaviour {
        Behaviour::Says(status, body) => {
            (StatusCode::from_u16(status).unwrap(), body).into_response()
        }
        Behaviour::Redirects(location) => {
            (StatusCode::FOUND, [(LOCATION, location)]).into_response()
        }
        Behaviour::Streams(begins) => {
            let begun = stream::once(async { Ok::<_, std::io::Error>(begins) });
            Body::from_stream(begun.chain(stream::pending())).into_response()
        }
        Behaviour::Floods(says) => {
            let again = stream::repeat_with(move || Ok::<_, std::io::Error>(says.clone()));
            Body::from_stream(again).into_response()
        }
        Behaviour::Hangs => std::future::pending().await,
    }
}

fn noted(request: &Request) -> Asked {
    let header = |name: &str| {
        let value = request.headers().get(name);
        value.map_or(String::new(), |it| it.to_str().unwrap().to_owned())
    };
    Asked {
        method: request.method().to_string(),
        path: request.uri().to_string(),
        host: header("host"),
        proto: header("x-forwarded-proto"),
    }
}
