//! Makes sure that targets are checked as often as the plan expects, however fast tasks start.

use std::time::Duration;

use tokio::task::JoinHandle;

use super::plan::CHECKS;
use crate::TestEnvironment;

/// Time between two reads of the calls.
const INTERVAL: Duration = Duration::from_millis(50);

/// Keeps the tasks of a service PENDING until `check-target-health` has made [`CHECKS`] checks, or until this is dropped.
pub struct FirstChecks {
    ecs: localcloud::ecs::Ecs,
    waiting: JoinHandle<()>,
}

impl FirstChecks {
    /// Pauses the start of tasks from when the service is created, which is after the release, until the checks are made.
    pub fn await_all(env: &TestEnvironment) -> FirstChecks {
        let (ecs, calls) = (env.cloud.ecs().clone(), env.cloud.calls().clone());
        let function = format!("{}-check-target-health", env.name);
        let before = calls.newest();
        let paused = ecs.clone();
        let waiting = tokio::spawn(async move {
            let is_created = || {
                let calls = calls.since(before);
                calls.iter().any(|call| call.operation == "CreateService")
            };
            while !is_created() {
                tokio::time::sleep(INTERVAL).await;
            }
            paused.pause_starts(true);
            // A check of tasks that are not running yet ends with this call.
            let checks = || {
                let calls = calls.since(before).into_iter();
                let listed = calls.filter(|call| call.operation == "ListTasks");
                listed
                    .filter(|call| call.function.as_ref() == Some(&function))
                    .count()
            };
            while checks() < CHECKS as usize {
                tokio::time::sleep(INTERVAL).await;
            }
            paused.pause_starts(false);
        });
        FirstChecks { ecs, waiting }
    }
}

impl Drop for FirstChecks {
    fn drop(&mut self) {
        self.waiting.abort();
        self.ecs.pause_starts(false);
    }
}
