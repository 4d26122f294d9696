//! What operations, the scheduler and tasks share.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::backends::Backends;
use super::model::{Service, State, Task};
use super::network::LoopbackNetwork;
use super::process::Control;
use crate::time_scale::TimeScale;

/// A container that runs.
#[derive(Debug, Clone)]
pub struct ContainerProcess {
    /// The name of the container.
    pub container: String,
    pub control: Control,
}

#[derive(Default)]
pub struct Processes {
    /// By the id of the task.
    pub controls: HashMap<String, Vec<ContainerProcess>>,
    /// Set during the shutdown. No process may start then.
    pub closing: bool,
}

/// The state and everything that acts on it.
pub struct Shared {
    state: Mutex<State>,
    processes: Mutex<Processes>,
    /// Wakes the scheduler.
    pub wake: Notify,
    /// How often the scheduler has reconciled all services.
    pub rounds: watch::Sender<u64>,
    /// Whether new tasks stay in PENDING.
    pub starts_paused: watch::Sender<bool>,
    /// The failures of the next calls of RunTask, one for each call.
    run_failures: Mutex<VecDeque<String>>,
    pub backends: Arc<dyn Backends>,
    pub network: LoopbackNetwork,
    time_scale: TimeScale,
}

impl Shared {
    pub fn new(
        backends: Arc<dyn Backends>,
        network: LoopbackNetwork,
        time_scale: TimeScale,
    ) -> Self {
        Shared {
            state: Mutex::default(),
            processes: Mutex::default(),
            wake: Notify::new(),
            rounds: watch::Sender::new(0),
            starts_paused: watch::Sender::new(false),
            run_failures: Mutex::default(),
            backends,
            network,
            time_scale,
        }
    }

    /// Locks the state. The guard must not be kept across an `await`.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes a task, increments its version and wakes the scheduler. `None` if it does not exist.
    pub fn change<R>(&self, task_arn: &str, change: impl FnOnce(&mut Task) -> R) -> Option<R> {
        let result = self.state().tasks.get_mut(task_arn).map(|task| {
            task.version += 1;
            change(task)
        });
        self.wake.notify_one();
        result
    }

    pub fn event(&self, service_arn: &str, message: String) {
        if let Some(service) = self.state().services.get_mut(service_arn) {
            Service::event(service, message);
        }
    }

    pub fn processes(&self) -> MutexGuard<'_, Processes> {
        self.processes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub fn run_failures(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.run_failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The local duration of `seconds` on AWS.
    pub fn seconds(&self, seconds: f64) -> Duration {
        self.time_scale.seconds(seconds)
    }

    /// Waits for the local duration of `seconds` on AWS.
    pub async fn pause(&self, seconds: f64) {
        tokio::time::sleep(self.seconds(seconds)).await;
    }
}
