//! Watches the default action all through a run.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use localcloud::front_door::elbv2::snapshot::Snapshot;
use localcloud::load_balancer::state::Action;
use localcloud::load_balancer::targets::Targets;
use localcloud::ministack::Client;
use tokio::task::JoinHandle;

use super::invariants::Watched;
use crate::Stage;

/// Time between two looks.
const INTERVAL: Duration = Duration::from_millis(100);

/// A watcher; it ends when it is dropped.
pub struct Watcher {
    watched: Arc<Mutex<Watched>>,
    task: JoinHandle<()>,
}

impl Watcher {
    /// Begins to watch.
    ///
    /// It looks past the front door, so that it neither meets the faults nor counts as a call.
    pub fn of(stage: &Stage, listener: String) -> Watcher {
        let watched = Arc::new(Mutex::new(Watched::default()));
        let (client, targets) = (stage.cloud.client().clone(), stage.cloud.targets().clone());
        let seen = Arc::clone(&watched);
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(INTERVAL);
            loop {
                ticks.tick().await;
                let Some(unhealthy) = look(&client, &targets, &listener).await else {
                    continue;
                };
                let mut seen = seen.lock().expect("no panic while watching");
                seen.looks += 1;
                seen.unhealthy.extend(unhealthy);
            }
        });
        Watcher { watched, task }
    }

    /// Stops watching and gives what was seen.
    pub fn stop(self) -> Watched {
        let seen = self.watched.lock().expect("no panic while watching");
        seen.clone()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The groups without a healthy target that the default action names; `None` when the state could
/// not be read.
async fn look(client: &Client, targets: &Targets, listener: &str) -> Option<Vec<String>> {
    let state = Snapshot::read(client).await.ok()?.control_plane();
    let listener = state.listeners.into_iter().find(|l| l.arn == listener)?;
    let mut unhealthy = Vec::new();
    for action in listener.default_actions {
        match action {
            Action::Forward(groups) => unhealthy.extend(
                groups
                    .into_iter()
                    .map(|group| (targets.health(&group.arn), group.arn))
                    .filter(|(health, _)| !health.iter().any(|target| target.state == "healthy"))
                    .map(|(health, arn)| format!("{arn} is the default and has {health:?}")),
            ),
            other => unhealthy.push(format!("the default is {other:?}")),
        }
    }
    Some(unhealthy)
}
