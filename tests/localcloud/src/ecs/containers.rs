//! The containers of a task, as processes that start and stop in the order of their dependencies.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use super::dependencies::{self, Dependency, Phase, Readiness};
use super::logs::{self, Destination};
use super::model::TaskStatus;
use super::process::{CommandLine, Control, Process};
use super::shared::{ContainerProcess, Shared};
use crate::image::Folder;

/// The limit on the time until the last lines of a container are in the log group.
const LOGS_TIMEOUT: Duration = Duration::from_secs(5);

/// The exit code of a container that can never start, which is that of one that SIGTERM ends.
const NEVER_STARTED: i32 = 143;

/// A container that is ready to start.
pub struct Prepared {
    pub name: String,
    pub command: CommandLine,
    pub essential: bool,
    pub dependencies: Vec<Dependency>,
    pub stop_signal: String,
    /// The seconds on AWS between the stop signal and SIGKILL.
    pub stop_timeout: f64,
    pub logs: Option<Destination>,
    /// The image stays on the disk until the process has ended.
    pub folder: Option<Arc<Folder>>,
}

/// The containers of one task.
pub struct Containers {
    task_arn: String,
    task_id: String,
    all: Vec<Container>,
    sender: mpsc::Sender<(usize, i32)>,
    exits: mpsc::Receiver<(usize, i32)>,
}

struct Container {
    prepared: Prepared,
    phase: Phase,
    /// Absent until it has started.
    control: Option<Control>,
}

impl Containers {
    pub fn new(task_arn: &str, task_id: &str, prepared: Vec<Prepared>) -> Self {
        let (sender, exits) = mpsc::channel(prepared.len().max(1));
        let new = |prepared| Container {
            prepared,
            phase: Phase::Waiting,
            control: None,
        };
        Containers {
            task_arn: task_arn.to_owned(),
            task_id: task_id.to_owned(),
            all: prepared.into_iter().map(new).collect(),
            sender,
            exits,
        }
    }

    /// Starts the containers, each when its dependencies allow it. Returns when all have started, or when the
    /// task is over before.
    ///
    /// # Errors
    /// The `stoppedReason` of the task, if a process cannot be started.
    pub async fn start(&mut self, shared: &Shared) -> Result<(), String> {
        loop {
            self.start_ready(shared)?;
            let waiting = self.all.iter().any(|one| one.phase == Phase::Waiting);
            if self.is_over() || !waiting {
                return Ok(());
            }
            self.next_exit(shared).await;
        }
    }

    /// Starts what can start now. A container that starts may allow the start of others.
    fn start_ready(&mut self, shared: &Shared) -> Result<(), String> {
        let mut changed = true;
        while changed {
            changed = false;
            for index in 0..self.all.len() {
                let Container {
                    prepared, phase, ..
                } = &self.all[index];
                if *phase != Phase::Waiting {
                    continue;
                }
                match dependencies::readiness(&prepared.dependencies, |name| self.phase_of(name)) {
                    Readiness::Waiting => continue,
                    Readiness::Ready => self.start_one(shared, index)?,
                    Readiness::Never(dependency) => {
                        let reason = dependencies::reason(&dependency, &prepared.name);
                        self.give_up(shared, index, reason);
                    }
                }
                changed = true;
            }
        }
        Ok(())
    }

    fn phase_of(&self, name: &str) -> Phase {
        self.all
            .iter()
            .find(|one| one.prepared.name == name)
            .map_or(Phase::Impossible, |one| one.phase)
    }

    fn start_one(&mut self, shared: &Shared, index: usize) -> Result<(), String> {
        let prepared = &mut self.all[index].prepared;
        let mut processes = shared.processes();
        if processes.closing {
            return Err(cannot_start("the local cloud is shutting down"));
        }
        let (mut process, stdout, stderr) =
            Process::start(&prepared.command).map_err(|error| cannot_start(&error.to_string()))?;
        let control = process.control();
        let of_task = processes.controls.entry(self.task_id.clone()).or_default();
        of_task.push(ContainerProcess {
            container: prepared.name.clone(),
            control: control.clone(),
        });
        drop(processes);
        let backends = Arc::clone(&shared.backends);
        let logs = logs::collect(backends, prepared.logs.take(), stdout, stderr);
        let name = prepared.name.clone();
        let folder = prepared.folder.take();
        let sender = self.sender.clone();
        tokio::spawn(async move {
            let code = process.wait().await;
            drop(folder);
            // The output must be in the log group before the exit is visible, so that a caller that
            // sees the exit can read the output.
            let _ = timeout(LOGS_TIMEOUT, logs).await;
            let _ = sender.send((index, code)).await;
        });
        self.all[index].phase = Phase::Running;
        self.all[index].control = Some(control);
        shared.change(&self.task_arn, |task| {
            task.status = task.status.max(TaskStatus::Activating);
            let runtime_id = format!("{}-{index:010}", task.id);
            for one in task.containers.iter_mut().filter(|one| one.name == name) {
                one.status = "RUNNING";
                one.runtime_id = Some(runtime_id.clone());
            }
        });
        Ok(())
    }

    /// Leaves a container stopped that can never start.
    fn give_up(&mut self, shared: &Shared, index: usize, reason: String) {
        let container = &mut self.all[index];
        container.phase = Phase::Impossible;
        let name = &container.prepared.name;
        shared.change(&self.task_arn, |task| {
            for one in task.containers.iter_mut().filter(|one| one.name == *name) {
                one.status = "STOPPED";
                one.exit_code = Some(NEVER_STARTED);
                one.reason = Some(reason.clone());
            }
        });
    }

    /// Whether an essential container has ended, or all have.
    fn is_over(&self) -> bool {
        let ended = |one: &Container| matches!(one.phase, Phase::Exited(_) | Phase::Impossible);
        let essential = |one: &Container| one.prepared.essential && ended(one);
        self.all.iter().any(essential) || self.all.iter().all(ended)
    }

    /// Returns when an essential container or the last container has ended.
    pub async fn over(&mut self, shared: &Shared) {
        while !self.is_over() {
            self.next_exit(shared).await;
        }
    }

    /// Returns when no container runs.
    pub async fn all_exits(&mut self, shared: &Shared) {
        while self.all.iter().any(|one| one.phase == Phase::Running) {
            self.next_exit(shared).await;
        }
    }

    /// Waits for the end of a container, and records it.
    async fn next_exit(&mut self, shared: &Shared) {
        let Some((index, code)) = self.exits.recv().await else {
            return;
        };
        let container = &mut self.all[index];
        container.phase = Phase::Exited(code);
        let name = &container.prepared.name;
        if let Some(processes) = shared.processes().controls.get_mut(&self.task_id) {
            processes.retain(|process| process.container != *name);
        }
        shared.change(&self.task_arn, |task| {
            for one in task.containers.iter_mut().filter(|one| one.name == *name) {
                one.status = "STOPPED";
                one.exit_code = Some(code);
            }
        });
    }

    /// Sends the stop signal, and SIGKILL to the containers that still run after `stopTimeout`. A container
    /// stops after those that depend on it.
    /// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ContainerDefinition.html>
    pub async fn stop(&mut self, shared: &Shared) {
        loop {
            let stopping = self.first_to_stop();
            if stopping.is_empty() {
                return;
            }
            let mut stop_timeout = 0.0_f64;
            for index in &stopping {
                let Container {
                    prepared, control, ..
                } = &self.all[*index];
                stop_timeout = stop_timeout.max(prepared.stop_timeout);
                if let Some(control) = control {
                    control.signal(&prepared.stop_signal).await;
                }
            }
            let stop_timeout = shared.seconds(stop_timeout);
            let exits = self.exits_of(shared, &stopping);
            if timeout(stop_timeout, exits).await.is_ok() {
                continue;
            }
            for index in &stopping {
                if let Some(control) = &self.all[*index].control {
                    control.signal("KILL").await;
                }
            }
            self.exits_of(shared, &stopping).await;
        }
    }

    /// The containers that run and on which no other one that runs depends.
    fn first_to_stop(&self) -> Vec<usize> {
        let runs = |one: &&Container| one.phase == Phase::Running;
        let is_needed = |name: &str| {
            let others = self.all.iter().filter(runs);
            others
                .flat_map(|one| &one.prepared.dependencies)
                .any(|dependency| dependency.container == name)
        };
        (0..self.all.len())
            .filter(|index| runs(&&self.all[*index]))
            .filter(|index| !is_needed(&self.all[*index].prepared.name))
            .collect()
    }

    async fn exits_of(&mut self, shared: &Shared, which: &[usize]) {
        while which
            .iter()
            .any(|index| self.all[*index].phase == Phase::Running)
        {
            self.next_exit(shared).await;
        }
    }
}

/// The message of Fargate for a container that its runtime could not start.
pub fn cannot_start(why: &str) -> String {
    format!(
        "CannotStartContainerError: ResourceInitializationError: failed to create new container \
         runtime task: failed to create shim task: OCI runtime create failed: runc create failed: \
         unable to start container process: {why}: unknown"
    )
}
