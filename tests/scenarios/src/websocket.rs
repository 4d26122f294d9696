//! Visitors who stay on a version: with an open WebSocket, or with a session that a cookie names.

use std::sync::Arc;

use anyhow::{Context, ensure};
use futures_util::{SinkExt, StreamExt};
use reqwest::header::{COOKIE, SET_COOKIE};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::visitors::{AFFINITY, Visitor};
use crate::{Execution, TestEnvironment};

/// Where WebSockets go through the load balancer.
pub struct Door {
    tls: TlsConnector,
    port: u16,
}

/// An open WebSocket through the load balancer.
pub struct Socket(WebSocketStream<TlsStream<TcpStream>>);

impl Door {
    /// The HTTPS listener of the environment.
    ///
    /// # Errors
    /// When its certificate cannot be read.
    pub fn of(env: &TestEnvironment) -> anyhow::Result<Door> {
        let balancer = &env.load_balancer;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(
            balancer.certificate_pem().as_bytes(),
        )?)?;
        let config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Door {
            tls: TlsConnector::from(Arc::new(config)),
            port: balancer.https_port(),
        })
    }

    /// Opens a WebSocket to the deployment, as a browser with its cookie does.
    ///
    /// # Errors
    /// When the connection is refused.
    pub async fn open(&self, id: &str) -> anyhow::Result<Socket> {
        let port = self.port;
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let tls = self
            .tls
            .connect(ServerName::try_from("127.0.0.1")?, stream)
            .await?;
        let mut request = format!("wss://127.0.0.1:{port}/ws").into_client_request()?;
        let cookie = format!("theme=dark; {AFFINITY}={id}");
        request.headers_mut().insert("cookie", cookie.parse()?);
        let (socket, _) = tokio_tungstenite::client_async(request, tls).await?;
        Ok(Socket(socket))
    }
}

impl Socket {
    /// As [`Door::open`].
    ///
    /// # Errors
    /// As [`Door::of`] and [`Door::open`].
    pub async fn open(env: &TestEnvironment, id: &str) -> anyhow::Result<Socket> {
        Door::of(env)?.open(id).await
    }

    /// Sends a text and waits for its echo.
    ///
    /// # Errors
    /// When the socket is closed, or the echo differs.
    pub async fn talk(&mut self, words: &str) -> anyhow::Result<()> {
        self.0.send(Message::text(words)).await?;
        loop {
            match self.0.next().await.context("closed")?? {
                Message::Text(echo) => {
                    ensure!(echo.as_str() == words, "the echo is `{echo}`");
                    return Ok(());
                }
                Message::Close(frame) => anyhow::bail!("closed: {frame:?}"),
                _ => {}
            }
        }
    }

    /// Closes the WebSocket.
    ///
    /// # Errors
    /// When it is already closed.
    pub async fn close(mut self) -> anyhow::Result<()> {
        self.0.close(None).await?;
        // The application counts it until the other side is closed too.
        while self.0.next().await.is_some_and(|message| message.is_ok()) {}
        Ok(())
    }
}

/// A client with a session that a cookie names.
pub struct Session {
    visitor: Visitor,
    cookies: String,
}

impl Session {
    /// Opens a session on the deployment.
    ///
    /// # Errors
    /// When the application does not open one.
    pub async fn open(env: &TestEnvironment, deployed: &Execution) -> anyhow::Result<Session> {
        let visitor = Visitor::of(env)?;
        let pin = format!("{AFFINITY}={}", deployed.name);
        let answer = visitor
            .http
            .post(format!("{}/session/open", visitor.url))
            .header(COOKIE, &pin)
            .send()
            .await?
            .error_for_status()?;
        let session = answer
            .headers()
            .get_all(SET_COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok()?.split(';').next())
            .find(|cookie| cookie.starts_with("Sample-Session="))
            .context("no session was opened")?;
        Ok(Session {
            cookies: format!("{pin}; {session}"),
            visitor,
        })
    }

    /// Requests the front page; returns the deployment that answers.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn visit(&self) -> anyhow::Result<String> {
        let answer = self
            .visitor
            .http
            .get(&self.visitor.url)
            .header(COOKIE, &self.cookies)
            .send()
            .await?
            .error_for_status()?;
        let body: serde_json::Value = serde_json::from_str(&answer.text().await?)?;
        Ok(body["deploymentId"].as_str().unwrap_or_default().to_owned())
    }

    /// Closes the session on every task, because any of them may have opened it.
    ///
    /// # Errors
    /// When a request fails.
    pub async fn close(self) -> anyhow::Result<()> {
        // The load balancer goes round the two tasks, and other requests come in between.
        for _ in 0..16 {
            self.visitor
                .http
                .post(format!("{}/session/close", self.visitor.url))
                .header(COOKIE, &self.cookies)
                .send()
                .await?
                .error_for_status()?;
        }
        Ok(())
    }
}
