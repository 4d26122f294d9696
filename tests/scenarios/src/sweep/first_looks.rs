//! Sees to it that targets are looked at as often as the plan counts on, however fast tasks start on
//! this machine.

use std::time::Duration;

use tokio::task::JoinHandle;

use super::plan::LOOKS;
use crate::Stage;

/// Time between two looks at the calls.
const INTERVAL: Duration = Duration::from_millis(50);

/// Tasks stay PENDING until `check-target-health` has found them so as often as its looks are points,
/// or until this is dropped.
pub struct FirstLooks {
    ecs: localcloud::ecs::Ecs,
    waiting: JoinHandle<()>,
}

impl FirstLooks {
    /// Holds the tasks that start from now on.
    pub fn hold(stage: &Stage) -> FirstLooks {
        let (ecs, calls) = (stage.cloud.ecs().clone(), stage.cloud.calls().clone());
        let function = format!("{}-check-target-health", stage.environment);
        let before = calls.newest();
        ecs.hold_starts(true);
        let held = ecs.clone();
        let waiting = tokio::spawn(async move {
            // The last call of a look at tasks that do not run yet.
            let looks = || {
                let calls = calls.since(before).into_iter();
                let listed = calls.filter(|call| call.operation == "ListTasks");
                listed
                    .filter(|call| call.function.as_ref() == Some(&function))
                    .count()
            };
            while looks() < LOOKS as usize {
                tokio::time::sleep(INTERVAL).await;
            }
            held.hold_starts(false);
        });
        FirstLooks { ecs, waiting }
    }
}

impl Drop for FirstLooks {
    fn drop(&mut self) {
        self.waiting.abort();
        self.ecs.hold_starts(false);
    }
}
