//! All load balancers of the account, each with a data plane of its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{Mutex, MutexGuard};

use super::metrics::Metrics;
use super::state::ControlPlane;
use super::{LoadBalancer, Options, Targets};

/// The data planes of the load balancers that have listeners.
pub struct LoadBalancers {
    options: Options,
    targets: Targets,
    metrics: Metrics,
    /// The threads on which they run.
    threads: Handle,
    /// It has the ports of the options and runs from the start. The first load balancer gets it.
    first: Arc<LoadBalancer>,
    /// By the ARN of the load balancer.
    running: Mutex<Running>,
}

type Running = BTreeMap<String, Arc<LoadBalancer>>;

impl LoadBalancers {
    /// Starts the first data plane. The others take free ports.
    ///
    /// # Errors
    /// If a port is in use.
    pub async fn start(
        options: Options,
        targets: Targets,
        metrics: Metrics,
        threads: Handle,
    ) -> anyhow::Result<Self> {
        let first = start(&options, &targets, &metrics, &threads).await?;
        let first = Arc::new(first);
        Ok(Self {
            options: Options {
                http_port: 0,
                https_port: 0,
                ..options
            },
            targets,
            metrics,
            threads,
            first,
            running: Mutex::default(),
        })
    }

    /// The data plane with the ports of the options.
    pub fn first(&self) -> &Arc<LoadBalancer> {
        &self.first
    }

    /// The data plane of the load balancer with this name. `None` if there is none with a listener.
    pub async fn named(
        &self,
        name: &str,
        control_plane: &ControlPlane,
    ) -> Option<Arc<LoadBalancer>> {
        let running = self.with_new_ones(control_plane).await;
        let mut named = running
            .iter()
            .filter(|(arn, _)| arn.split('/').nth(2) == Some(name));
        named.next().map(|(_, balancer)| balancer.clone())
    }

    /// Uses a new control plane for all further requests. Data planes of load balancers without listeners end.
    pub async fn apply(&self, control_plane: &ControlPlane) {
        let mut running = self.with_new_ones(control_plane).await;
        for (arn, balancer) in running.iter() {
            balancer.apply(Arc::new(control_plane.of_load_balancer(arn)));
        }
        let left = control_plane.load_balancers();
        running.retain(|arn, _| left.contains(&arn.as_str()));
    }

    /// Uses a new control plane for the further requests to all nodes but the first ones, which follow later.
    pub async fn apply_ahead(&self, control_plane: &ControlPlane) {
        let running = self.with_new_ones(control_plane).await;
        for (arn, balancer) in running.iter() {
            balancer.apply_ahead(Arc::new(control_plane.of_load_balancer(arn)));
        }
    }

    /// All data planes, after starting those of new load balancers.
    async fn with_new_ones(&self, control_plane: &ControlPlane) -> MutexGuard<'_, Running> {
        let mut running = self.running.lock().await;
        for arn in control_plane.load_balancers() {
            if running.contains_key(arn) {
                continue;
            }
            let taken = running.values().any(|it| Arc::ptr_eq(it, &self.first));
            let balancer = if taken {
                match start(&self.options, &self.targets, &self.metrics, &self.threads).await {
                    Ok(balancer) => Arc::new(balancer),
                    Err(error) => {
                        tracing::warn!(arn, "no data plane: {error:#}");
                        continue;
                    }
                }
            } else {
                self.first.clone()
            };
            running.insert(arn.to_owned(), balancer);
        }
        running
    }
}

/// Starts a data plane on these threads.
async fn start(
    options: &Options,
    targets: &Targets,
    metrics: &Metrics,
    threads: &Handle,
) -> anyhow::Result<LoadBalancer> {
    let started = LoadBalancer::start(options.clone(), targets.clone(), metrics.clone());
    threads.spawn(started).await?
}

#[cfg(test)]
mod tests {
    use super::super::state::{Action, Listener};
    use super::super::test_support::listener;
    use super::*;
    use crate::time_scale::TimeScale;

    async fn load_balancers() -> LoadBalancers {
        let targets = Targets::new(TimeScale(1.0));
        let metrics = Metrics::default();
        LoadBalancers::start(Options::default(), targets, metrics, Handle::current())
            .await
            .expect("started")
    }

    /// A listener on port 80 of the load balancer with this name, which answers with the name.
    fn listener_of(name: &str) -> Listener {
        let action = Action::FixedResponse {
            status: 200,
            content_type: "text/plain".into(),
            body: name.into(),
        };
        Listener {
            load_balancer_arn: arn(name),
            ..listener(80, vec![], vec![action])
        }
    }

    fn arn(name: &str) -> String {
        format!("arn:aws:elasticloadbalancing:us-east-1:000000000000:loadbalancer/app/{name}/1")
    }

    fn control_plane(names: &[&str]) -> ControlPlane {
        ControlPlane {
            listeners: names.iter().map(|name| listener_of(name)).collect(),
            ..ControlPlane::default()
        }
    }

    /// What a request to a local port is answered. `None` if the connection is closed or refused.
    async fn answer(port: u16) -> Option<String> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .pool_max_idle_per_host(0)
            .build()
            .expect("a client");
        let answer = client.get(format!("http://127.0.0.1:{port}/")).send().await;
        answer.ok()?.text().await.ok()
    }

    #[tokio::test]
    async fn each_load_balancer_answers_on_ports_of_its_own_and_the_first_on_the_given_ones() {
        let all = load_balancers().await;
        let both = control_plane(&["test-alb", "prod-alb"]);
        all.apply(&both).await;
        let port = async |name| {
            let named = all.named(name, &both).await;
            named.map(|balancer| balancer.http_port())
        };
        let (test, prod) = (port("test-alb").await, port("prod-alb").await);
        assert_eq!(test, Some(all.first().http_port()));
        assert_eq!(answer(test.unwrap()).await.as_deref(), Some("test-alb"));
        assert_eq!(answer(prod.unwrap()).await.as_deref(), Some("prod-alb"));
        assert_eq!(port("alb").await, None);
    }

    #[tokio::test]
    async fn a_load_balancer_keeps_its_ports_when_the_first_one_goes_and_the_next_new_one_gets_those()
     {
        let all = load_balancers().await;
        let both = control_plane(&["test-alb", "prod-alb"]);
        all.apply(&both).await;
        let prod = all.named("prod-alb", &both).await.unwrap().http_port();
        let without_first = control_plane(&["prod-alb"]);
        all.apply(&without_first).await;
        assert_eq!(answer(prod).await.as_deref(), Some("prod-alb"));
        let first = all.first().http_port();
        assert_eq!(answer(first).await, None);
        all.apply(&control_plane(&["prod-alb", "new-alb"])).await;
        assert_eq!(answer(prod).await.as_deref(), Some("prod-alb"));
        assert_eq!(answer(first).await.as_deref(), Some("new-alb"));
        // The ports of the second one are free once it is gone.
        all.apply(&control_plane(&["new-alb"])).await;
        assert_eq!(answer(prod).await, None);
    }

    #[tokio::test]
    async fn a_change_of_one_load_balancer_leaves_the_turns_of_another_alone() {
        let all = load_balancers().await;
        let before = control_plane(&["test-alb", "prod-alb"]);
        all.apply(&before).await;
        let prod = all.named("prod-alb", &before).await.unwrap();
        let routes = prod.in_force.routes(0);
        let mut after = before.clone();
        after.listeners[0].default_actions.clear();
        all.apply(&after).await;
        assert!(Arc::ptr_eq(&routes, &prod.in_force.routes(0)));
    }
}
