//! The data plane of a load balancer. It handles real requests on two local ports as an Application
//! Load Balancer does, by its listeners, rules and target groups in the control plane.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use anyhow::Context;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

pub mod fleet;
mod health_checks;
mod idle;
pub mod metrics;
mod proxy;
mod routing;
pub mod state;
pub mod targets;
#[cfg(test)]
mod test_support;
#[cfg(test)]
mod tests;
pub mod threads;
mod tls;
mod tunnel;

use metrics::Metrics;
use proxy::{ConnectionInfo, Proxy};
use routing::{Ports, Routes};
use state::ControlPlane;
pub use targets::{TargetHealth, Targets};

/// The default idle timeout of an Application Load Balancer. The time scale does not change it,
/// because it limits the work of real processes.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// The settings of the load balancer.
#[derive(Debug, Clone)]
pub struct Options {
    /// The local port for the listeners of port 80; 0 takes a free one.
    pub http_port: u16,
    /// The local port for the listeners of port 443; 0 takes a free one.
    pub https_port: u16,
    /// How long a connection may be idle before it is closed.
    pub idle_timeout: Duration,
    /// The number of nodes. Each connection belongs to one of them, in turn.
    pub nodes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            http_port: 0,
            https_port: 0,
            idle_timeout: IDLE_TIMEOUT,
            nodes: 1,
        }
    }
}

/// A running load balancer. Dropping it closes all its connections.
pub struct LoadBalancer {
    ports: Ports,
    certificate_pem: String,
    in_force: Arc<InForce>,
    acceptors: Vec<JoinHandle<()>>,
    /// Upgraded connections end when this is dropped.
    _open: watch::Sender<()>,
}

/// The control plane that each node uses, with its routes.
struct InForce(RwLock<Vec<(Arc<ControlPlane>, Arc<Routes>)>>);

impl InForce {
    fn new(nodes: usize) -> Self {
        InForce(RwLock::new(vec![Default::default(); nodes]))
    }

    fn routes(&self, node: usize) -> Arc<Routes> {
        let nodes = self.0.read().unwrap_or_else(|p| p.into_inner());
        nodes[node].1.clone()
    }

    /// Uses a control plane from the node with this number on. Nodes with the same one share its routes, and with
    /// them the turns of the weights.
    fn apply(&self, control_plane: Arc<ControlPlane>, first: usize) {
        let mut nodes = self.0.write().unwrap_or_else(|p| p.into_inner());
        let known = nodes.iter().find(|(used, _)| *used == control_plane);
        let new = known.cloned().unwrap_or_else(|| {
            let routes = Arc::new(Routes::new(&control_plane));
            (control_plane, routes)
        });
        nodes
            .iter_mut()
            .skip(first)
            .for_each(|node| *node = new.clone());
    }
}

/// One of the two local ports.
struct Frontend {
    listener: TcpListener,
    listener_port: u16,
    port: u16,
    tls: Option<TlsAcceptor>,
}

impl LoadBalancer {
    /// Starts a load balancer on 127.0.0.1, which counts its requests in `metrics`. Until [`LoadBalancer::apply`] gives it listeners, it closes
    /// every connection.
    ///
    /// # Errors
    /// If a port is in use.
    pub async fn start(
        options: Options,
        targets: Targets,
        metrics: Metrics,
    ) -> anyhow::Result<Self> {
        let (http, http_port) = bind(options.http_port).await?;
        let (https, https_port) = bind(options.https_port).await?;
        let ports = Ports {
            http: http_port,
            https: https_port,
        };
        let tls = tls::self_signed()?;
        let (open, receiver) = watch::channel(());
        let proxy = Proxy::new(targets, metrics, ports, options.idle_timeout, receiver);
        let proxy = Arc::new(proxy);
        let in_force = Arc::new(InForce::new(options.nodes));
        let frontends = [
            Frontend {
                listener: http,
                listener_port: 80,
                port: http_port,
                tls: None,
            },
            Frontend {
                listener: https,
                listener_port: 443,
                port: https_port,
                tls: Some(tls.acceptor),
            },
        ];
        let acceptors = frontends
            .into_iter()
            .map(|frontend| {
                tokio::spawn(frontend.accept(proxy.clone(), in_force.clone(), options.nodes))
            })
            .collect();
        Ok(LoadBalancer {
            ports,
            certificate_pem: tls.certificate_pem,
            in_force,
            acceptors,
            _open: open,
        })
    }

    /// Uses a new control plane for all further requests.
    pub fn apply(&self, control_plane: Arc<ControlPlane>) {
        self.in_force.apply(control_plane, 0);
    }

    /// Uses a new control plane for the further requests to all nodes but the first one, which follows later.
    pub fn apply_ahead(&self, control_plane: Arc<ControlPlane>) {
        self.in_force.apply(control_plane, 1);
    }

    /// Whether all nodes use the same control plane.
    pub fn nodes_agree(&self) -> bool {
        let nodes = self.in_force.0.read().unwrap_or_else(|p| p.into_inner());
        nodes
            .windows(2)
            .all(|pair| Arc::ptr_eq(&pair[0].1, &pair[1].1))
    }

    /// The certificate of the HTTPS listener in PEM format, for clients that must trust it.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The local port for the listeners of port 80.
    pub fn http_port(&self) -> u16 {
        self.ports.http
    }

    /// The local port for the listeners of port 443.
    pub fn https_port(&self) -> u16 {
        self.ports.https
    }
}

impl Drop for LoadBalancer {
    fn drop(&mut self) {
        for acceptor in &self.acceptors {
            acceptor.abort();
        }
    }
}

async fn bind(port: u16) -> anyhow::Result<(TcpListener, u16)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .with_context(|| format!("listening on 127.0.0.1:{port}"))?;
    let port = listener.local_addr()?.port();
    Ok((listener, port))
}

impl Frontend {
    async fn accept(self, proxy: Arc<Proxy>, in_force: Arc<InForce>, nodes: usize) {
        // Connections end with this task, which ends with the load balancer.
        let mut connections = JoinSet::new();
        let mut in_turn = (0..nodes).cycle();
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                Some(_) = connections.join_next() => continue,
            };
            let (stream, client) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Most likely the process has no file descriptors left until connections end.
                    tracing::warn!(%error, "could not accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let node = in_turn.next().unwrap_or_default();
            if !in_force.routes(node).listens_on(self.listener_port) {
                continue;
            }
            let _ = stream.set_nodelay(true);
            let connection_info = self.connection_info(client);
            let proxy = proxy.clone();
            let in_force = in_force.clone();
            let routes = move || in_force.routes(node);
            match self.tls.clone() {
                None => {
                    connections.spawn(serve(stream, connection_info, proxy, routes));
                }
                Some(tls) => {
                    connections.spawn(async move {
                        match tls.accept(stream).await {
                            Ok(stream) => serve(stream, connection_info, proxy, routes).await,
                            Err(error) => tracing::debug!(%error, "TLS handshake failed"),
                        }
                    });
                }
            }
        }
    }

    fn connection_info(&self, client: SocketAddr) -> ConnectionInfo {
        ConnectionInfo {
            listener_port: self.listener_port,
            port: self.port,
            scheme: if self.tls.is_some() { "https" } else { "http" },
            client: client.ip(),
        }
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    connection_info: ConnectionInfo,
    proxy: Arc<Proxy>,
    routes: impl Fn() -> Arc<Routes>,
) {
    let service = service_fn(|request| {
        let proxy = proxy.clone();
        let routes = routes();
        async move { proxy.handle(routes, connection_info, request).await }
    });
    let connection = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Err(error) = connection.await {
        tracing::debug!(%error, "connection ended early");
    }
}
