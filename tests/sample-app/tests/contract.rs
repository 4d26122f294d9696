//! The contract of pulse-deploy with applications, checked with the sample application.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use reqwest::header::HeaderValue;
use reqwest::{Method, Response, StatusCode};
use sample_app::settings::Settings;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

const ID: &str = "test-20251027-122112Z";
const AFFINITY: &str = "X-Pulse-Render-Affinity";
const SECRET: &str = "a secret";

struct Running {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<std::io::Result<()>>,
    http: reqwest::Client,
}

/// Starts the application with the usual variables, and these in addition.
async fn start(variables: &[(&str, &str)]) -> Running {
    let usual = [("DEPLOYMENT_ID", ID), ("DRAIN_SECRET", SECRET)];
    let settings = Settings::read(|name| {
        let mut all = variables.iter().chain(&usual);
        all.find(|(n, _)| *n == name)
            .map(|(_, value)| value.to_string())
    })
    .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // If the whole workspace is built, the client requires a TLS provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (stop, stopped) = oneshot::channel();
    let server = tokio::spawn(sample_app::serve(settings, listener, async {
        let _ = stopped.await;
    }));
    Running {
        address,
        stop: Some(stop),
        server,
        http: reqwest::Client::builder().no_proxy().build().unwrap(),
    }
}

impl Running {
    async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Response {
        let url = format!("http://{}{path}", self.address);
        let mut request = self.http.request(method, url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap()
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Response {
        self.send(Method::GET, path, headers).await
    }

    async fn post(&self, path: &str, headers: &[(&str, &str)]) -> Response {
        self.send(Method::POST, path, headers).await
    }

    async fn status(&self, path: &str) -> StatusCode {
        self.get(path, &[]).await.status()
    }

    async fn drain(&self) -> String {
        let authorization = format!("Bearer {SECRET}");
        let response = self
            .post("/drain", &[("authorization", &authorization)])
            .await;
        assert_eq!(response.status(), 200);
        response.text().await.unwrap()
    }

    /// Sends a drain request with these `Authorization` headers.
    async fn request_drain(&self, authorizations: &[&[u8]]) -> StatusCode {
        let mut request = self.http.post(format!("http://{}/drain", self.address));
        for value in authorizations {
            request = request.header("authorization", HeaderValue::from_bytes(value).unwrap());
        }
        request.send().await.unwrap().status()
    }

    async fn is_draining(&self) -> bool {
        let record = self.get("/drain-record", &[]).await.text().await.unwrap();
        record != r#"{"draining":false}"#
    }

    async fn active_sessions(&self) -> String {
        let page = self.get("/", &[]).await.text().await.unwrap();
        let (_, after) = page.split_once("\"activeSessions\":").unwrap();
        after.chars().take_while(char::is_ascii_digit).collect()
    }
}

/// The cookie that pins a visitor.
fn minted() -> String {
    format!("{AFFINITY}={ID}; Path=/; Secure; HttpOnly; SameSite=Lax")
}

fn cookies(response: &Response) -> Vec<String> {
    let all = response.headers().get_all("set-cookie").iter();
    all.map(|value| value.to_str().unwrap().to_string())
        .collect()
}

#[tokio::test]
async fn the_health_check_is_200() {
    assert_eq!(start(&[]).await.status("/_health").await, 200);
}

#[tokio::test]
async fn a_visitor_without_the_cookie_gets_it() {
    let app = start(&[]).await;
    let minted = minted();
    let first = app.get("/", &[]).await;
    assert_eq!(cookies(&first), std::slice::from_ref(&minted));
    assert!(first.text().await.unwrap().contains(ID));
    let others = app.get("/", &[("cookie", "theme=dark; xX-Pulse=1")]).await;
    assert_eq!(cookies(&others), [minted]);
    let back = format!("theme=dark; {AFFINITY}={ID}");
    let again = app.get("/", &[("cookie", &back)]).await;
    assert_eq!(cookies(&again), Vec::<String>::new());
}

#[tokio::test]
async fn a_visitor_with_the_cookie_of_a_deleted_deployment_gets_a_new_one() {
    let app = start(&[]).await;
    let stale = format!("{AFFINITY}=test-20200101-000000Z");
    let moved = app.get("/", &[("cookie", &stale)]).await;
    assert_eq!(cookies(&moved), [minted()]);
    let by_header = app.get("/", &[("cookie", &stale), (AFFINITY, ID)]).await;
    assert_eq!(cookies(&by_header), Vec::<String>::new());
}

#[tokio::test]
async fn the_header_is_echoed() {
    let app = start(&[]).await;
    let pinned = app.get("/", &[(AFFINITY, ID)]).await;
    assert_eq!(pinned.headers()[AFFINITY], ID);
    let unpinned = app.get("/", &[]).await;
    assert!(!unpinned.headers().contains_key(AFFINITY));
}

#[tokio::test]
async fn only_a_request_with_the_secret_can_drain() {
    let app = start(&[]).await;
    let right = format!("Bearer {SECRET}");
    let right = right.as_bytes();
    // No header, or headers without a single token.
    let malformed: [&[&[u8]]; 12] = [
        &[],
        &[b""],
        &[b"Bearer"],
        // The header of an empty secret, because spaces at the end of a header are ignored.
        &[b"Bearer "],
        &[b"Basic YTpi"],
        &[b"a secret"],
        &[b"Bearera secret"],
        &[b"Bearer\ta secret"],
        &["Bear\u{e9}r a secret".as_bytes()],
        &[right, b"Bearer b secret"],
        &[b"Bearer b secret", right],
        &[right, right],
    ];
    for authorizations in malformed {
        let status = app.request_drain(authorizations).await;
        assert_eq!(status, 401, "{authorizations:?}");
    }
    let wrong: [&[u8]; 13] = [
        b"Bearer a",
        b"Bearer a secre",
        b"Bearer a secret and more",
        b"Bearer a secretx",
        b"Bearer b secret",
        b"Bearer a secreT",
        b"Bearer A SECRET",
        b"Bearer  a secret",
        b"Bearer a%20secret",
        b"Bearer YSBzZWNyZXQ=",
        b"Bearer ?",
        "Bearer \u{e4} secret".as_bytes(),
        b"Bearer \xff\xfe",
    ];
    for authorization in wrong {
        let status = app.request_drain(&[authorization]).await;
        assert_eq!(status, 403, "{}", authorization.escape_ascii());
    }
    assert_eq!(app.status("/drain").await, 405);
    assert!(!app.is_draining().await);
    assert_eq!(app.drain().await, r#"{"status":"ok","activeSessions":0}"#);
    assert!(app.is_draining().await);
    assert_eq!(
        app.drain().await,
        r#"{"status":"already_draining","activeSessions":0}"#
    );
}

#[tokio::test]
async fn a_drain_request_for_another_deployment_is_refused_and_ignored() {
    const DEPLOYMENT: &str = "X-Pulse-Deployment";
    let app = start(&[]).await;
    let secret = ("authorization", format!("Bearer {SECRET}"));
    let authorized = (secret.0, secret.1.as_str());
    for (other, status) in [
        ("test-20251027-122113Z", 409),
        ("TEST-20251027-122112Z", 409),
        ("", 409),
        (ID, 200),
    ] {
        let headers = [authorized, (DEPLOYMENT, other)];
        let response = app.post("/drain", &headers).await;
        assert_eq!(response.status(), status, "{other}");
        assert_eq!(app.is_draining().await, status == 200, "{other}");
    }
    // Only a caller who knows the secret learns which deployment this is.
    let response = app.post("/drain", &[(DEPLOYMENT, "other")]).await;
    assert_eq!(response.status(), 401);
}

#[tokio::test]
async fn without_a_configured_secret_every_drain_request_is_refused() {
    let app = start(&[("DRAIN_SECRET", "")]).await;
    for (authorization, status) in [("Bearer", 401), ("Bearer ", 401), ("Bearer x", 403)] {
        let response = app.request_drain(&[authorization.as_bytes()]).await;
        assert_eq!(response, status, "{authorization}");
    }
    assert!(!app.is_draining().await);
}

#[tokio::test]
async fn while_draining_no_cookie_is_set_and_every_request_is_served() {
    let app = start(&[]).await;
    app.drain().await;
    let response = app.get("/", &[(AFFINITY, ID)]).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()[AFFINITY], ID);
    assert_eq!(cookies(&response), Vec::<String>::new());
    assert_eq!(app.status("/_health").await, 200);
    let record = app.get("/drain-record", &[]).await.text().await.unwrap();
    let host = format!("\"host\":\"{}\"", app.address);
    assert!(record.contains(r#""draining":true"#), "{record}");
    assert!(record.contains(&host), "{record}");
}

#[tokio::test]
async fn a_session_counts_until_it_is_closed_or_idle() {
    let app = start(&[("SESSION_IDLE_SECONDS", "300")]).await;
    let opened = app.post("/session/open", &[]).await;
    let session = cookies(&opened)
        .into_iter()
        .find(|cookie| cookie.starts_with("Sample-Session="))
        .unwrap();
    let session = session.split(';').next().unwrap().to_string();
    let with = [("cookie", session.as_str())];
    assert!(
        cookies(&opened)[0].ends_with("; Path=/; Secure; HttpOnly; SameSite=Lax"),
        "{opened:?}"
    );
    assert_eq!(app.active_sessions().await, "1");
    // The same browser does not open a second session.
    let again = app.post("/session/open", &with).await;
    assert!(again.text().await.unwrap().contains("already_open"));
    app.get("/", &with).await;
    assert_eq!(app.active_sessions().await, "1");
    assert_eq!(app.drain().await, r#"{"status":"ok","activeSessions":1}"#);
    app.post("/session/close", &with).await;
    assert_eq!(app.active_sessions().await, "0");

    let app = start(&[("SESSION_IDLE_SECONDS", "0")]).await;
    app.post("/session/open", &[]).await;
    assert_eq!(app.active_sessions().await, "0");
}

#[tokio::test]
async fn a_websocket_counts_while_it_is_open_and_is_closed_when_the_task_stops() {
    let mut app = start(&[]).await;
    let url = format!("ws://{}/ws", app.address);
    let (mut socket, _) = tokio_tungstenite::connect_async(&url).await.unwrap();
    socket.send("hello".into()).await.unwrap();
    let echoed = socket.next().await.unwrap().unwrap();
    assert_eq!(echoed.into_text().unwrap().as_str(), "hello");
    assert_eq!(app.active_sessions().await, "1");
    socket.close(None).await.unwrap();
    while socket.next().await.is_some() {}
    // It is noticed a moment later.
    while app.active_sessions().await != "0" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    let (mut socket, _) = tokio_tungstenite::connect_async(&url).await.unwrap();
    assert_eq!(app.active_sessions().await, "1");
    app.stop.take().unwrap().send(()).unwrap();
    let Some(Ok(Message::Close(Some(close)))) = socket.next().await else {
        panic!("closed without a close message");
    };
    assert_eq!(close.code, CloseCode::Away);
    app.server.await.unwrap().unwrap();
}

/// The idle timeout of the load balancer.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_kept_longer_than_the_load_balancer_keeps_it() {
    let app = start(&[]).await;
    let mut connection = TcpStream::connect(app.address).await.unwrap();
    for _ in 0..3 {
        let request = b"GET /_health HTTP/1.1\r\nHost: a\r\n\r\n";
        connection.write_all(request).await.unwrap();
        let mut answer = [0; 15];
        connection.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
        let mut rest = [0; 1024];
        let length = connection.read(&mut rest).await.unwrap();
        assert!(rest[..length].ends_with(b"\r\n\r\n"));
        tokio::time::advance(2 * IDLE_TIMEOUT).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_open_websocket_is_pinged_more_often_than_the_load_balancer_closes_an_idle_one() {
    let app = start(&[]).await;
    let url = format!("ws://{}/ws", app.address);
    let (mut socket, _) = tokio_tungstenite::connect_async(&url).await.unwrap();
    for _ in 0..3 {
        let last = tokio::time::Instant::now();
        // The clock goes on when all wait.
        let ping = socket.next().await.unwrap().unwrap();
        assert_eq!(ping, Message::Ping("".into()));
        assert!(last.elapsed() < IDLE_TIMEOUT / 2, "{:?}", last.elapsed());
    }
}

#[tokio::test]
async fn each_setting_for_misbehaviour_takes_effect() {
    let app = start(&[("NEVER_HEALTHY", "1")]).await;
    assert_eq!(app.status("/_health").await, 500);

    let app = start(&[("HEALTH_503_WHILE_DRAINING", "1")]).await;
    assert_eq!(app.status("/_health").await, 200);
    app.drain().await;
    assert_eq!(app.status("/_health").await, 503);
    assert_eq!(app.status("/").await, 200);

    let app = start(&[("DRAIN_503", "1")]).await;
    assert_eq!(app.post("/drain", &[]).await.status(), 503);
    assert!(!app.is_draining().await);

    let app = start(&[("NO_DRAIN", "1")]).await;
    assert_eq!(app.post("/drain", &[]).await.status(), 404);
}

#[tokio::test]
async fn a_request_takes_its_time_and_says_how_many_were_in_line() {
    let app = start(&[("CONCURRENT_REQUESTS", "1")]).await;
    let answer = app.get("/", &[]).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["Sample-In-Line"], "0");
    let app = start(&[]).await;
    let answer = app.get("/", &[]).await;
    assert_eq!(answer.headers().get("Sample-In-Line"), None);

    // The health check is answered although every place is taken.
    let limits = [
        ("CONCURRENT_REQUESTS", "1"),
        ("SERVICE_MILLISECONDS", "3600000"),
    ];
    let app = start(&limits).await;
    tokio::select! {
        _ = app.get("/", &[]) => panic!("it was served at once"),
        status = app.status("/_health") => assert_eq!(status, 200),
    }
}
