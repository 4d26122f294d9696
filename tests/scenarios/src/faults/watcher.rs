//! Watches the default action throughout a run.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use lifecycle::tags::DELETING_SINCE;
use localcloud::gateway::elbv2::snapshot::Snapshot;
use localcloud::load_balancer::state::Action;
use localcloud::load_balancer::targets::Targets;
use localcloud::ministack::Client;
use tokio::task::JoinHandle;

use super::invariants::Watched;
use crate::TestEnvironment;

/// Time between two checks.
const INTERVAL: Duration = Duration::from_millis(100);

/// Checks the default action until it is dropped.
pub struct Watcher {
    watched: Arc<Mutex<Watched>>,
    task: JoinHandle<()>,
}

impl Watcher {
    /// Starts to watch. It reads past the gateway, so that faults do not hit it and its calls are not
    /// recorded.
    pub fn of(env: &TestEnvironment, listener: String) -> Watcher {
        let watched = Arc::new(Mutex::new(Watched::default()));
        let (client, targets) = (env.cloud.client().clone(), env.cloud.targets().clone());
        let seen = Arc::clone(&watched);
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(INTERVAL);
            loop {
                ticks.tick().await;
                let Some(wrong) = check(&client, &targets, &listener).await else {
                    continue;
                };
                let mut seen = seen.lock().expect("no panic while watching");
                seen.checks += 1;
                seen.wrong.extend(wrong);
            }
        });
        Watcher { watched, task }
    }

    /// Stops watching; returns the observations.
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

/// What is wrong with the default action: it names a group that has no healthy target, is being deleted
/// or does not exist. `None` when the state cannot be read.
async fn check(client: &Client, targets: &Targets, listener: &str) -> Option<Vec<String>> {
    let state = Snapshot::read(client).await.ok()?;
    let control_plane = state.control_plane();
    let mut listeners = control_plane.listeners.into_iter();
    let listener = listeners.find(|l| l.arn == listener)?;
    let mut wrong = Vec::new();
    for action in listener.default_actions {
        let groups = match action {
            Action::Forward(groups) => groups,
            other => {
                wrong.push(format!("the default is {other:?}"));
                continue;
            }
        };
        for arn in groups.into_iter().map(|group| group.arn) {
            let health = targets.health(&arn);
            if !health.iter().any(|target| target.state == "healthy") {
                wrong.push(format!("{arn} is the default and has {health:?}"));
            }
            match state.target_group(&arn) {
                Some(group) if group.tags.contains_key(DELETING_SINCE) => {
                    wrong.push(format!("{arn} is the default and is being deleted"));
                }
                Some(_) => {}
                None => wrong.push(format!("{arn} is the default and does not exist")),
            }
        }
    }
    Some(wrong)
}
