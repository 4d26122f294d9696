//! Watches the default action throughout a run.

use std::collections::BTreeSet;
use std::mem;
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
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    watched: Watched,
    /// The target groups that the default action names although they carry the tag of a deletion. An undo writes
    /// the tag before it looks whether a switch was in flight, and then it has to take the tag back.
    marked: BTreeSet<String>,
}

impl Seen {
    fn add(&mut self, check: Check) {
        self.watched.checks += 1;
        self.watched.wrong.extend(check.wrong);
        let marked = mem::replace(&mut self.marked, check.marked);
        self.marked.extend(
            marked
                .into_iter()
                .filter(|arn| !check.unmarked.contains(arn)),
        );
    }

    fn watched(&self) -> Watched {
        let mut watched = self.watched.clone();
        let kept = self.marked.iter();
        let kept = kept.map(|arn| format!("{arn} was the default while it was being deleted"));
        watched.wrong.extend(kept);
        watched
    }
}

impl Watcher {
    /// Starts to watch. It reads past the gateway, so that faults do not hit it and its calls are not
    /// recorded.
    pub fn of(env: &TestEnvironment, listener: String) -> Watcher {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (client, targets) = (env.cloud.client().clone(), env.cloud.targets().clone());
        let adds = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(INTERVAL);
            loop {
                ticks.tick().await;
                if let Some(check) = check(&client, &targets, &listener).await {
                    adds.lock().expect("no panic while watching").add(check);
                }
            }
        });
        Watcher { seen, task }
    }

    /// Stops watching; returns the observations.
    pub fn stop(self) -> Watched {
        let seen = self.seen.lock().expect("no panic while watching");
        seen.watched()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One look at the default action.
#[derive(Default)]
struct Check {
    /// What is wrong with it: it names a group that has no healthy target or does not exist.
    wrong: Vec<String>,
    /// The groups that it names and that carry the tag of a deletion.
    marked: BTreeSet<String>,
    /// The other groups that it names.
    unmarked: BTreeSet<String>,
}

/// Looks once. `None` when the state cannot be read.
async fn check(client: &Client, targets: &Targets, listener: &str) -> Option<Check> {
    let state = Snapshot::read(client).await.ok()?;
    let control_plane = state.control_plane();
    let mut listeners = control_plane.listeners.into_iter();
    let listener = listeners.find(|l| l.arn == listener)?;
    let mut check = Check::default();
    for action in listener.default_actions {
        let groups = match action {
            Action::Forward(groups) => groups,
            other => {
                check.wrong.push(format!("the default is {other:?}"));
                continue;
            }
        };
        for arn in groups.into_iter().map(|group| group.arn) {
            let health = targets.health(&arn);
            if !health.iter().any(|target| target.state == "healthy") {
                let wrong = format!("{arn} is the default and has {health:?}");
                check.wrong.push(wrong);
            }
            match state.target_group(&arn) {
                Some(group) if group.tags.contains_key(DELETING_SINCE) => check.marked.insert(arn),
                Some(_) => check.unmarked.insert(arn),
                None => {
                    let wrong = format!("{arn} is the default and does not exist");
                    check.wrong.push(wrong);
                    false
                }
            };
        }
    }
    Some(check)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(marked: &[&str], unmarked: &[&str]) -> Check {
        let set = |arns: &[&str]| arns.iter().map(|arn| (*arn).to_owned()).collect();
        Check {
            wrong: Vec::new(),
            marked: set(marked),
            unmarked: set(unmarked),
        }
    }

    fn wrong(checks: impl IntoIterator<Item = Check>) -> Vec<String> {
        let mut seen = Seen::default();
        checks.into_iter().for_each(|check| seen.add(check));
        seen.watched().wrong
    }

    #[test]
    fn a_default_action_may_be_tagged_until_the_undo_takes_its_tag_back() {
        let before = || check(&["one"], &[]);
        let nothing = Vec::<String>::new();
        assert_eq!(wrong([before(), before(), check(&[], &["one"])]), nothing);
        let stays = ["one was the default while it was being deleted"];
        assert_eq!(wrong([before()]), stays);
        // Traffic has moved on, and the deletion goes on.
        assert_eq!(wrong([before(), check(&[], &["other"])]), stays);
    }
}
