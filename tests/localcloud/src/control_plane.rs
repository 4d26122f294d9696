//! Keeps the load balancer's data plane and the targets' health checks at MiniStack's newest state.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::Notify, task::JoinHandle};

use crate::{
    gateway::elbv2::snapshot::Snapshot,
    load_balancer::{LoadBalancer, state::ControlPlane, targets::Targets},
    ministack::{ApiError, Client},
    time_scale::TimeScale,
};

/// How often MiniStack's state is read when nothing is known to have changed it. CloudFormation
/// changes it from within.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Seconds, at AWS's speed, that a change takes to reach the data plane.
///
/// AWS gives no figure; load balancers apply changes in batches of about ten seconds:
/// <https://github.com/kubernetes-sigs/aws-load-balancer-controller/issues/4039>.
const DATA_PLANE_DELAY_SECONDS: f64 = 10.0;

/// Reads the control plane and hands it on.
#[derive(Clone)]
pub struct ControlPlaneFeed(Arc<Inner>);

struct Inner {
    client: Client,
    targets: Targets,
    newest: Mutex<Arc<ControlPlane>>,
    /// What MiniStack answered last, and what that says.
    last_read: Mutex<(Bytes, Arc<Snapshot>)>,
    /// The state that the targets follow; held while it is read, so that an older state never
    /// replaces a newer one.
    followed: tokio::sync::Mutex<Arc<Snapshot>>,
    changed: Notify,
    soon: Notify,
}

impl ControlPlaneFeed {
    /// A feed that has read nothing yet.
    pub fn new(client: Client, targets: Targets) -> Self {
        Self(Arc::new(Inner {
            client,
            targets,
            newest: Mutex::default(),
            last_read: Mutex::default(),
            followed: tokio::sync::Mutex::default(),
            changed: Notify::new(),
            soon: Notify::new(),
        }))
    }

    /// Reads MiniStack's state now.
    ///
    /// # Errors
    /// When MiniStack does not answer.
    pub async fn snapshot(&self) -> Result<Arc<Snapshot>, ApiError> {
        let answer = self.0.client.load_balancing().await?;
        let last_read = self.0.last_read.lock();
        let mut last_read = last_read.unwrap_or_else(PoisonError::into_inner);
        // Mostly nothing has changed, and of a thousand rules there is much to parse.
        if last_read.0 != answer {
            let snapshot = Arc::new(Snapshot::of(&answer)?);
            *last_read = (answer, snapshot);
        }
        Ok(last_read.1.clone())
    }

    /// Reads MiniStack's state now; the targets' health checks follow it at once.
    ///
    /// # Errors
    /// When MiniStack does not answer.
    pub async fn refresh(&self) -> Result<(), ApiError> {
        let mut followed = self.0.followed.lock().await;
        let snapshot = self.snapshot().await?;
        if Arc::ptr_eq(&snapshot, &followed) {
            return Ok(());
        }
        let control_plane = Arc::new(snapshot.control_plane());
        let mut newest = self.0.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if **newest != *control_plane {
            *newest = control_plane.clone();
            self.0.targets.attach(control_plane);
            self.0.changed.notify_one();
        }
        *followed = snapshot;
        Ok(())
    }

    /// Has the state read without waiting for it.
    pub fn refresh_soon(&self) {
        self.0.soon.notify_one();
    }

    /// Follows MiniStack's state and applies it to the data plane, until the task is aborted.
    pub fn follow(
        &self,
        load_balancer: Arc<LoadBalancer>,
        time_scale: TimeScale,
    ) -> JoinHandle<()> {
        let feed = self.clone();
        tokio::spawn(async move {
            tokio::join!(feed.poll(), feed.apply(load_balancer, time_scale));
        })
    }

    async fn poll(&self) {
        loop {
            // MiniStack being away for a moment is no reason to stop following it.
            let _ = self.refresh().await;
            let _ = tokio::time::timeout(POLL_INTERVAL, self.0.soon.notified()).await;
        }
    }

    /// Applies changes in batches: the first change starts the delay, and what is the newest state
    /// at its end goes into force.
    async fn apply(&self, load_balancer: Arc<LoadBalancer>, time_scale: TimeScale) {
        loop {
            self.0.changed.notified().await;
            tokio::time::sleep(time_scale.seconds(DATA_PLANE_DELAY_SECONDS)).await;
            let newest = self
                .0
                .newest
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            load_balancer.apply(newest);
        }
    }
}
