//! Keeps the data planes of the load balancers and the health checks up to date with MiniStack.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::Notify,
    task::JoinHandle,
    time::{Instant, timeout_at},
};

use crate::{
    gateway::elbv2::snapshot::Snapshot,
    load_balancer::{fleet::LoadBalancers, state::ControlPlane, targets::Targets},
    ministack::{ApiError, Client},
    time_scale::TimeScale,
};

/// How often MiniStack's state is read without a call that changes it. CloudFormation changes it inside
/// of MiniStack.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Seconds on AWS until a change reaches all nodes of the data plane.
///
/// AWS does not document the time. Load balancers apply changes in batches of about ten seconds:
/// <https://github.com/kubernetes-sigs/aws-load-balancer-controller/issues/4039>.
const DATA_PLANE_DELAY_SECONDS: f64 = 10.0;

/// Reads the control plane and passes it on.
#[derive(Clone)]
pub struct ControlPlaneFeed(Arc<Inner>);

struct Inner {
    client: Client,
    targets: Targets,
    newest: Mutex<Arc<ControlPlane>>,
    /// The last answer of MiniStack, and the snapshot that was parsed from it.
    last_read: Mutex<(Bytes, Arc<Snapshot>)>,
    /// The state that the targets have. Locked during a read, so that an older state never replaces a
    /// newer one.
    applied: tokio::sync::Mutex<Arc<Snapshot>>,
    changed: Notify,
    soon: Notify,
}

impl ControlPlaneFeed {
    pub fn new(client: Client, targets: Targets) -> Self {
        Self(Arc::new(Inner {
            client,
            targets,
            newest: Mutex::default(),
            last_read: Mutex::default(),
            applied: tokio::sync::Mutex::default(),
            changed: Notify::new(),
            soon: Notify::new(),
        }))
    }

    /// Reads MiniStack's state now.
    ///
    /// # Errors
    /// If MiniStack does not answer.
    pub async fn snapshot(&self) -> Result<Arc<Snapshot>, ApiError> {
        let answer = self.0.client.load_balancing().await?;
        let last_read = self.0.last_read.lock();
        let mut last_read = last_read.unwrap_or_else(PoisonError::into_inner);
        // Most reads find no change, and a thousand rules take long to parse.
        if last_read.0 != answer {
            let snapshot = Arc::new(Snapshot::of(&answer)?);
            *last_read = (answer, snapshot);
        }
        Ok(last_read.1.clone())
    }

    /// Reads MiniStack's state now and applies it to the health checks.
    ///
    /// # Errors
    /// If MiniStack does not answer.
    pub async fn refresh(&self) -> Result<(), ApiError> {
        let mut applied = self.0.applied.lock().await;
        let snapshot = self.snapshot().await?;
        if Arc::ptr_eq(&snapshot, &applied) {
            return Ok(());
        }
        let control_plane = Arc::new(snapshot.control_plane());
        let mut newest = self.0.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if **newest != *control_plane {
            *newest = control_plane.clone();
            self.0.targets.attach(control_plane);
            self.0.changed.notify_one();
        }
        *applied = snapshot;
        Ok(())
    }

    /// Requests a read without waiting for it.
    pub fn refresh_soon(&self) {
        self.0.soon.notify_one();
    }

    /// Reads MiniStack's state and applies it to the data planes, until the task is aborted.
    pub fn follow(
        &self,
        load_balancers: Arc<LoadBalancers>,
        time_scale: TimeScale,
    ) -> JoinHandle<()> {
        let feed = self.clone();
        tokio::spawn(async move {
            tokio::join!(feed.poll(), feed.apply(load_balancers, time_scale));
        })
    }

    async fn poll(&self) {
        loop {
            // If a read fails, the next one may succeed.
            let _ = self.refresh().await;
            let _ = tokio::time::timeout(POLL_INTERVAL, self.0.soon.notified()).await;
        }
    }

    /// Applies changes in batches. The first change starts the delay, and at its end the newest state is
    /// applied to the first node. Other nodes are ahead: they apply each change at once. Meanwhile the old and the
    /// new routing answer side by side.
    async fn apply(&self, load_balancers: Arc<LoadBalancers>, time_scale: TimeScale) {
        loop {
            self.0.changed.notified().await;
            let end = Instant::now() + time_scale.seconds(DATA_PLANE_DELAY_SECONDS);
            loop {
                load_balancers.apply_ahead(&self.newest()).await;
                if timeout_at(end, self.0.changed.notified()).await.is_err() {
                    break;
                }
            }
            load_balancers.apply(&self.newest()).await;
        }
    }

    /// The state that was read last.
    pub fn newest(&self) -> Arc<ControlPlane> {
        let newest = self.0.newest.lock();
        newest.unwrap_or_else(PoisonError::into_inner).clone()
    }
}
