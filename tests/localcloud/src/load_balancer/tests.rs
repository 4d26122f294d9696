//! The load balancer with real sockets, between clients and small targets.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{any, get, post};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::metrics::{Metric, Metrics};
use super::state::{Action, Condition, ControlPlane, Rule};
use super::test_support::{forward_to, group, listener};
use super::{LoadBalancer, Options, Targets};
use crate::time_scale::TimeScale;

const ZONE: &str = "us-east-1a";

/// A target that answers with its name. A test can change its health.
struct Target {
    address: SocketAddr,
    healthy: Arc<AtomicBool>,
    /// Notified when a request for `/held` arrives.
    arrived: Arc<Notify>,
    /// Notify it to let such a request be answered.
    released: Arc<Notify>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Target {
    fn drop(&mut self) {
        self.server.abort();
    }
}

#[derive(Clone)]
struct Named {
    name: &'static str,
    healthy: Arc<AtomicBool>,
    arrived: Arc<Notify>,
    released: Arc<Notify>,
}

async fn target(name: &'static str) -> Target {
    let state = Named {
        name,
        healthy: Arc::new(AtomicBool::new(true)),
        arrived: Arc::default(),
        released: Arc::default(),
    };
    let Named {
        healthy,
        arrived,
        released,
        ..
    } = state.clone();
    let health = |State(named): State<Named>| async move {
        if named.healthy.load(Ordering::SeqCst) {
            StatusCode::OK
        } else {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    };
    let headers = |headers: HeaderMap| async move { format!("{headers:?}") };
    let held = |State(named): State<Named>| async move {
        named.arrived.notify_one();
        named.released.notified().await;
        named.name
    };
    let echo = |socket: WebSocketUpgrade| async {
        socket.on_upgrade(|mut socket| async move {
            while let Some(Ok(message)) = socket.recv().await {
                if matches!(message, Message::Text(_)) && socket.send(message).await.is_err() {
                    return;
                }
            }
        })
    };
    let router = Router::new()
        .route("/_health", get(health))
        .route("/headers", get(headers))
        .route("/held", get(held))
        .route("/echo", post(|body: Bytes| async { body }))
        .route("/ws", any(echo))
        .fallback(|State(named): State<Named>| async move { named.name })
        .with_state(state);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    Target {
        address,
        healthy,
        arrived,
        released,
        server,
    }
}

/// A target that reads a request and answers with these bytes.
async fn raw_target(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = vec![0; 4096];
                let length = stream.read(&mut request).await.unwrap_or(0);
                let is_health_check = request[..length].starts_with(b"GET /_health");
                let healthy = b"HTTP/1.1 200 OK\r\n\r\n".as_slice();
                let answer = if is_health_check { healthy } else { answer };
                let _ = stream.write_all(answer).await;
            });
        }
    });
    address
}

/// A control plane that has the same rules on both ports.
fn plane(rules: Vec<Rule>, default: Action, groups: &[&str]) -> Arc<ControlPlane> {
    Arc::new(ControlPlane {
        listeners: vec![
            listener(80, rules.clone(), vec![default.clone()]),
            listener(443, rules, vec![default]),
        ],
        target_groups: groups
            .iter()
            .map(|arn| (arn.to_string(), group(arn)))
            .collect(),
    })
}

/// A deregistration delay that no test outlasts, in seconds.
const FOREVER: u32 = 100_000_000;

/// A control plane that forwards everything to group `g`, which has this deregistration delay.
fn plane_with_delay(seconds: u32) -> Arc<ControlPlane> {
    let mut plane = Arc::unwrap_or_clone(plane(vec![], forward_to(&[("g", 1)]), &["g"]));
    let group = plane.target_groups.get_mut("g").unwrap();
    group.deregistration_delay_seconds = seconds;
    Arc::new(plane)
}

struct Setup {
    balancer: LoadBalancer,
    targets: Targets,
    metrics: Metrics,
    http: String,
}

impl Setup {
    async fn start(control_plane: Arc<ControlPlane>) -> Setup {
        Self::start_with(control_plane, Options::default()).await
    }

    async fn start_with(control_plane: Arc<ControlPlane>, options: Options) -> Setup {
        // An interval of 30 s passes in 0.3 s.
        let targets = Targets::new(TimeScale(0.01));
        targets.attach(control_plane.clone());
        let metrics = Metrics::default();
        let started = LoadBalancer::start(options, targets.clone(), metrics.clone());
        let balancer = started.await.unwrap();
        balancer.apply(control_plane);
        Setup {
            http: format!("http://127.0.0.1:{}", balancer.http_port()),
            balancer,
            targets,
            metrics,
        }
    }

    fn put(&self, control_plane: Arc<ControlPlane>) {
        self.targets.attach(control_plane.clone());
        self.balancer.apply(control_plane);
    }

    fn register(&self, group: &str, address: SocketAddr) {
        self.targets
            .register(group, address.ip(), address.port(), ZONE);
    }

    fn state(&self, group: &str, address: SocketAddr) -> Option<&'static str> {
        let all = self.targets.health(group);
        let ours = all.iter().find(|t| t.port == address.port());
        ours.map(|target| target.state)
    }

    async fn until(&self, group: &str, address: SocketAddr, state: Option<&'static str>) {
        while self.state(group, address) != state {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn healthy(&self, group: &str, address: SocketAddr) {
        self.register(group, address);
        self.until(group, address, Some("healthy")).await;
    }

    async fn get(&self, path: &str) -> (u16, String) {
        get_url(&client(), &format!("{}{path}", self.http)).await
    }
}

fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        // The tests use plain HTTP, and it takes long to read the machine's certificates.
        .tls_certs_only([])
        .build()
        .unwrap()
}

async fn get_url(client: &reqwest::Client, url: &str) -> (u16, String) {
    let response = client.get(url).send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

#[tokio::test]
async fn requests_go_to_the_targets_of_a_group_in_turn() {
    let (a, b) = (target("a").await, target("b").await);
    let setup = Setup::start(plane(vec![], forward_to(&[("g", 1)]), &["g"])).await;
    setup.healthy("g", a.address).await;
    setup.healthy("g", b.address).await;
    let mut counts = [0, 0];
    for _ in 0..20 {
        match setup.get("/").await {
            (200, name) if name == "a" => counts[0] += 1,
            (200, name) if name == "b" => counts[1] += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(counts, [10, 10]);
}

#[tokio::test]
async fn rules_come_before_the_default_action_which_splits_requests_by_weight() {
    let (a, b) = (target("a").await, target("b").await);
    let pinned = Rule {
        priority: 100,
        conditions: vec![Condition::HttpHeader {
            name: "X-Pulse-Render-Affinity".into(),
            values: vec!["b".into()],
        }],
        actions: vec![forward_to(&[("b", 1)])],
        ..Rule::default()
    };
    let default = forward_to(&[("a", 3), ("b", 1)]);
    let setup = Setup::start(plane(vec![pinned], default, &["a", "b"])).await;
    setup.healthy("a", a.address).await;
    setup.healthy("b", b.address).await;
    let mut to_a = 0;
    for _ in 0..20 {
        to_a += u32::from(setup.get("/").await.1 == "a");
    }
    assert_eq!(to_a, 15);
    for _ in 0..5 {
        let request = client().get(&setup.http);
        let request = request.header("x-pulse-render-affinity", "B");
        assert_eq!(request.send().await.unwrap().text().await.unwrap(), "b");
    }
}

#[tokio::test]
async fn targets_get_the_forwarded_headers_and_not_the_hop_by_hop_headers() {
    let a = target("a").await;
    let setup = Setup::start(plane(vec![], forward_to(&[("g", 1)]), &["g"])).await;
    setup.healthy("g", a.address).await;
    let port = setup.balancer.http_port();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let request = "GET /headers HTTP/1.1\r\nHost: example.com\r\nX-Forwarded-For: 192.0.2.1\r\n\
                   Connection: close, x-hop\r\nX-Hop: 1\r\nX-End: 2\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    for seen in [
        r#""host": "example.com""#,
        r#""x-forwarded-for": "192.0.2.1, 127.0.0.1""#,
        r#""x-forwarded-proto": "http""#,
        &format!(r#""x-forwarded-port": "{port}""#),
        r#""x-end": "2""#,
    ] {
        assert!(answer.contains(seen), "{seen} is not in {answer}");
    }
    assert!(!answer.contains("x-hop"), "{answer}");
}

#[tokio::test]
async fn request_and_response_bodies_are_passed_on() {
    let a = target("a").await;
    let setup = Setup::start(plane(vec![], forward_to(&[("g", 1)]), &["g"])).await;
    setup.healthy("g", a.address).await;
    let body: Vec<u8> = (0..1_500_000u32).map(|n| (n % 251) as u8).collect();
    let url = format!("{}/echo", setup.http);
    let response = client().post(url).body(body.clone()).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.bytes().await.unwrap() == body);
}

#[tokio::test]
async fn https_is_served_with_the_temporary_certificate() {
    let a = target("a").await;
    let setup = Setup::start(plane(vec![], forward_to(&[("g", 1)]), &["g"])).await;
    setup.healthy("g", a.address).await;
    let mut roots = rustls::RootCertStore::empty();
    let pem = setup.balancer.certificate_pem();
    use rustls::pki_types::pem::PemObject;
    roots
        .add(rustls::pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    for name in ["localhost", "127.0.0.1", "test.example.com"] {
        let address = ("127.0.0.1", setup.balancer.https_port());
        let stream = TcpStream::connect(address).await.unwrap();
        let server_name = name.try_into().unwrap();
        let mut stream = connector.connect(server_name, stream).await.unwrap();
        let request = format!("GET /headers HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        // The connection may end without a TLS close_notify, which is an error.
        let _ = stream.read_to_string(&mut answer).await;
        assert!(
            answer.contains(r#""x-forwarded-proto": "https""#),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn a_websocket_stays_open_until_the_deregistration_of_its_target_is_complete() {
    let a = target("a").await;
    let setup = Setup::start(plane_with_delay(FOREVER)).await;
    setup.healthy("g", a.address).await;
    let url = format!("ws://127.0.0.1:{}/ws", setup.balancer.http_port());
    let (mut socket, response) = tokio_tungstenite::connect_async(url).await.unwrap();
    assert_eq!(response.status(), 101);
    async fn echoed(
        socket: &mut tokio_tungstenite::WebSocketStream<
            tokio_tungstenite::MaybeTlsStream<TcpStream>,
        >,
        text: &str,
    ) {
        socket.send(text.into()).await.unwrap();
        let answer = socket.next().await.unwrap().unwrap();
        assert_eq!(answer.into_text().unwrap().as_str(), text);
    }
    for n in 0..20 {
        echoed(&mut socket, &format!("message {n}")).await;
    }
    // Draining does not close the connection.
    let (ip, port) = (a.address.ip(), a.address.port());
    setup.targets.deregister("g", ip, port);
    assert_eq!(setup.get("/").await.0, 503);
    echoed(&mut socket, "while draining").await;
    assert_eq!(setup.state("g", a.address), Some("draining"));
    // The end of the deregistration delay does.
    setup.register("g", a.address);
    setup.put(plane_with_delay(0));
    setup.targets.deregister("g", ip, port);
    assert!(!matches!(socket.next().await, Some(Ok(_))));
    assert_eq!(setup.state("g", a.address), None);
}

#[tokio::test]
async fn a_draining_target_finishes_a_request_in_flight() {
    let (a, b) = (target("a").await, target("b").await);
    let setup = Setup::start(plane_with_delay(FOREVER)).await;
    setup.healthy("g", a.address).await;
    let url = format!("{}/held", setup.http);
    let in_flight = tokio::spawn(async move { get_url(&client(), &url).await });
    a.arrived.notified().await;
    setup
        .targets
        .deregister("g", a.address.ip(), a.address.port());
    setup.healthy("g", b.address).await;
    for _ in 0..10 {
        assert_eq!(setup.get("/").await, (200, "b".to_string()));
    }
    assert_eq!(setup.state("g", a.address), Some("draining"));
    a.released.notify_one();
    assert_eq!(in_flight.await.unwrap(), (200, "a".to_string()));
}

#[tokio::test]
async fn a_request_that_outlasts_the_deregistration_delay_gets_502() {
    let a = target("a").await;
    let setup = Setup::start(plane_with_delay(10)).await;
    setup.healthy("g", a.address).await;
    let url = format!("{}/held", setup.http);
    let in_flight = tokio::spawn(async move { get_url(&client(), &url).await });
    a.arrived.notified().await;
    setup
        .targets
        .deregister("g", a.address.ip(), a.address.port());
    assert_eq!(in_flight.await.unwrap().0, 502);
}

#[tokio::test]
async fn a_group_without_targets_or_with_only_initial_targets_answers_503() {
    let sick = target("sick").await;
    sick.healthy.store(false, Ordering::SeqCst);
    let setup = Setup::start(plane(vec![], forward_to(&[("g", 1)]), &["g"])).await;
    let (status, page) = setup.get("/").await;
    assert_eq!(status, 503);
    assert!(page.contains("<title>503 Service Unavailable</title>"));
    setup.register("g", sick.address);
    assert_eq!(setup.get("/").await.0, 503);
}

#[tokio::test]
async fn a_group_whose_targets_are_all_unhealthy_fails_open() {
    let (a, b) = (target("a").await, target("b").await);
    let setup = Setup::start(plane(vec![], forward_to(&[("g", 1)]), &["g"])).await;
    setup.healthy("g", a.address).await;
    setup.healthy("g", b.address).await;
    b.healthy.store(false, Ordering::SeqCst);
    setup.until("g", b.address, Some("unhealthy")).await;
    let mut names: Vec<String> = Vec::new();
    for _ in 0..6 {
        names.push(setup.get("/").await.1);
    }
    assert!(names.iter().all(|name| name == "a"), "{names:?}");

    a.healthy.store(false, Ordering::SeqCst);
    setup.until("g", a.address, Some("unhealthy")).await;
    let mut names: Vec<String> = Vec::new();
    for _ in 0..6 {
        names.push(setup.get("/").await.1);
    }
    names.sort();
    assert_eq!(names.join(""), "aaabbb");

    let health = setup.targets.health("g");
    assert_eq!(health[0].reason, Some("Target.ResponseCodeMismatch"));
    b.healthy.store(true, Ordering::SeqCst);
    setup.until("g", b.address, Some("healthy")).await;
    assert_eq!(setup.get("/").await.1, "b");
}

#[tokio::test]
async fn a_refused_connection_a_close_and_a_malformed_answer_give_502() {
    let setup = Setup::start(plane(vec![], forward_to(&[("g", 1)]), &["g"])).await;
    for answer in [b"".as_slice(), b"invalid\r\n\r\n", b"HTTP/1.1 200 O"] {
        let address = raw_target(answer).await;
        setup.healthy("g", address).await;
        assert_eq!(setup.get("/").await.0, 502);
        setup.targets.deregister("g", address.ip(), address.port());
    }
    let a = target("a").await;
    setup.healthy("g", a.address).await;
    a.server.abort();
    while TcpStream::connect(a.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert_eq!(setup.get("/").await.0, 502);
}

#[tokio::test]
async fn a_target_that_does_not_answer_before_the_idle_timeout_gives_504() {
    let a = target("a").await;
    let options = Options {
        idle_timeout: Duration::from_millis(300),
        ..Options::default()
    };
    let control_plane = plane(vec![], forward_to(&[("g", 1)]), &["g"]);
    let setup = Setup::start_with(control_plane, options).await;
    setup.healthy("g", a.address).await;
    assert_eq!(setup.get("/held").await.0, 504);
}

#[tokio::test]
async fn requests_are_counted_by_who_answered_them() {
    let setup = Setup::start(plane(vec![], forward_to(&[("g", 1)]), &["g"])).await;
    // No target is registered.
    assert_eq!(setup.get("/").await.0, 503);
    let unavailable = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
    for (answer, status) in [(unavailable.as_slice(), 503), (b"", 502)] {
        let address = raw_target(answer).await;
        setup.healthy("g", address).await;
        assert_eq!(setup.get("/").await.0, status);
        setup.targets.deregister("g", address.ip(), address.port());
    }
    let a = target("a").await;
    setup.healthy("g", a.address).await;
    assert_eq!(setup.get("/").await.0, 200);
    let url = format!("{}/held", setup.http);
    let gives_up = tokio::spawn(async move { client().get(url).send().await });
    a.arrived.notified().await;
    gives_up.abort();
    a.server.abort();
    while TcpStream::connect(a.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert_eq!(setup.get("/").await.0, 502);

    let mut counts = BTreeMap::<_, u64>::new();
    let mut count = || {
        let later = SystemTime::now() + Duration::from_secs(60);
        for datapoint in setup.metrics.take(later, Duration::ZERO) {
            let Metric {
                name,
                load_balancer,
                target_group,
            } = datapoint.metric;
            assert_eq!(load_balancer, "lb");
            *counts.entry((target_group, name)).or_default() += datapoint.count;
        }
        counts.clone()
    };
    // The load balancer may notice later that the client has gone away.
    let group = Some("g".to_owned());
    while count().get(&(group.clone(), "RequestCount")) != Some(&5) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let of_group = [
        ("HTTPCode_Target_5XX_Count", 1),
        ("RequestCount", 5),
        ("TargetConnectionErrorCount", 1),
    ];
    let own = [
        ("HTTPCode_ELB_502_Count", 2),
        ("HTTPCode_ELB_503_Count", 1),
        ("HTTPCode_ELB_5XX_Count", 3),
    ];
    let of = |group: &Option<String>, counts: &[(&'static str, u64)]| -> Vec<_> {
        let with_group = |(name, count): &(&'static str, u64)| ((group.clone(), *name), *count);
        counts.iter().map(with_group).collect()
    };
    let expected = [of(&None, &own), of(&None, &of_group), of(&group, &of_group)].concat();
    assert_eq!(count(), expected.into_iter().collect());
}

#[tokio::test]
async fn redirects_and_fixed_responses_come_from_the_load_balancer() {
    let fixed = Action::FixedResponse {
        status: 503,
        content_type: "text/plain".into(),
        body: "no deployment yet".into(),
    };
    let redirect = Action::Redirect {
        protocol: Some("HTTPS".into()),
        port: Some("443".into()),
        host: None,
        path: None,
        query: None,
        status: 301,
    };
    let control_plane = Arc::new(ControlPlane {
        listeners: vec![
            listener(80, vec![], vec![redirect]),
            listener(443, vec![], vec![fixed]),
        ],
        ..ControlPlane::default()
    });
    let setup = Setup::start(control_plane).await;
    let url = format!("{}/a?b=c", setup.http);
    let response = client().get(url).send().await.unwrap();
    assert_eq!(response.status(), 301);
    assert_eq!(response.headers()["server"], "awselb/2.0");
    let https = setup.balancer.https_port();
    assert_eq!(
        response.headers()["location"],
        format!("https://127.0.0.1:{https}/a?b=c")
    );
}

#[tokio::test]
async fn a_port_without_a_listener_closes_connections_without_an_answer() {
    let setup = Setup::start(Arc::new(ControlPlane::default())).await;
    assert!(client().get(&setup.http).send().await.is_err());
    let fixed = Action::FixedResponse {
        status: 200,
        content_type: "text/plain".into(),
        body: "here".into(),
    };
    setup.put(plane(vec![], fixed, &[]));
    assert_eq!(setup.get("/").await, (200, "here".to_string()));
    let mut stream = TcpStream::connect(("127.0.0.1", setup.balancer.http_port()))
        .await
        .unwrap();
    setup.put(Arc::new(ControlPlane::default()));
    let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await;
    assert_eq!(answer, "");
}

#[tokio::test]
async fn requests_without_a_host_and_trace_are_refused() {
    let setup = Setup::start(plane(vec![], forward_to(&[("g", 1)]), &["g"])).await;
    for (request, status) in [
        ("GET / HTTP/1.1\r\nConnection: close\r\n\r\n", "400 "),
        (
            "TRACE / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            "405 ",
        ),
    ] {
        let mut stream = TcpStream::connect(("127.0.0.1", setup.balancer.http_port()))
            .await
            .unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let answered = answer.strip_prefix("HTTP/1.1 ").unwrap();
        assert!(answered.starts_with(status), "{answer}");
    }
}

/// Default traffic moves between two groups while clients keep sending requests, on reused and on new
/// connections.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_traffic_moves_under_load() {
    let (a, b) = (target("a").await, target("b").await);
    let plane_to = |arn: &str| plane(vec![], forward_to(&[(arn, 1)]), &["a", "b"]);
    let both = plane(vec![], forward_to(&[("a", 1), ("b", 1)]), &["a", "b"]);
    let setup = Setup::start(both).await;
    setup.healthy("a", a.address).await;
    setup.healthy("b", b.address).await;
    setup.put(plane_to("a"));

    let running = Arc::new(AtomicBool::new(true));
    // How many requests each of the two has answered.
    let answered: Arc<[AtomicU32; 2]> = Arc::default();
    let mut clients = Vec::new();
    for kept_alive in [true, true, true, false] {
        let (running, answered, url) = (running.clone(), answered.clone(), setup.http.clone());
        clients.push(tokio::spawn(async move {
            let mut http = client();
            let mut failures = Vec::new();
            while running.load(Ordering::SeqCst) && failures.is_empty() {
                if !kept_alive {
                    http = client();
                }
                match get_url(&http, &url).await {
                    (200, name) if name == "a" => answered[0].fetch_add(1, Ordering::SeqCst),
                    (200, name) if name == "b" => answered[1].fetch_add(1, Ordering::SeqCst),
                    other => {
                        failures.push(other);
                        0
                    }
                };
            }
            failures
        }));
    }
    for (next, now, answers) in [("b", &b, &answered[1]), ("a", &a, &answered[0])].repeat(3) {
        // The other group was not in use. It must be healthy again before traffic moves to it.
        setup.targets.attach(plane(
            vec![],
            forward_to(&[("a", 1), ("b", 1)]),
            &["a", "b"],
        ));
        setup.until(next, now.address, Some("healthy")).await;
        setup.put(plane_to(next));
        let before = answers.load(Ordering::SeqCst);
        while answers.load(Ordering::SeqCst) < before + 40 {
            assert!(!clients.iter().all(tokio::task::JoinHandle::is_finished));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    running.store(false, Ordering::SeqCst);
    for client in clients {
        assert_eq!(client.await.unwrap(), []);
    }
}

fn answers_with(body: &str) -> Arc<ControlPlane> {
    let fixed = Action::FixedResponse {
        status: 200,
        content_type: "text/plain".into(),
        body: body.into(),
    };
    plane(vec![], fixed, &[])
}

#[tokio::test]
async fn while_a_change_spreads_the_nodes_answer_side_by_side_and_a_connection_stays_with_its_own()
{
    let options = Options {
        nodes: 2,
        ..Options::default()
    };
    let setup = Setup::start_with(answers_with("old"), options).await;
    assert!(setup.balancer.nodes_agree());
    let visitors = [client(), client()];
    let all = async || {
        let mut bodies = Vec::new();
        // Each of them keeps its connection.
        for _ in 0..3 {
            for visitor in &visitors {
                bodies.push(get_url(visitor, &setup.http).await.1);
            }
        }
        bodies.join(" ")
    };
    assert_eq!(all().await, "old old old old old old");
    setup.balancer.apply_ahead(answers_with("new"));
    assert!(!setup.balancer.nodes_agree());
    assert_eq!(all().await, "old new old new old new");
    setup.balancer.apply(answers_with("new"));
    assert!(setup.balancer.nodes_agree());
    assert_eq!(all().await, "new new new new new new");
}

#[tokio::test]
async fn a_single_node_applies_a_change_at_the_end() {
    let setup = Setup::start(answers_with("old")).await;
    setup.balancer.apply_ahead(answers_with("new"));
    assert!(setup.balancer.nodes_agree());
    assert_eq!(setup.get("/").await.1, "old");
    setup.balancer.apply(answers_with("new"));
    assert_eq!(setup.get("/").await.1, "new");
}

#[tokio::test]
async fn nodes_with_the_same_rules_share_the_turns_of_the_weights() {
    let (a, b) = (target("a").await, target("b").await);
    let options = Options {
        nodes: 2,
        ..Options::default()
    };
    let control_plane = plane(vec![], forward_to(&[("a", 3), ("b", 1)]), &["a", "b"]);
    let setup = Setup::start_with(control_plane.clone(), options).await;
    setup.healthy("a", a.address).await;
    setup.healthy("b", b.address).await;
    setup.balancer.apply_ahead(answers_with("new"));
    setup.balancer.apply_ahead(control_plane);
    assert!(setup.balancer.nodes_agree());
    let mut to_a = 0;
    for _ in 0..20 {
        to_a += u32::from(setup.get("/").await.1 == "a");
    }
    assert_eq!(to_a, 15);
}
