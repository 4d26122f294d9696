//! ECS services and tasks: a small scheduler whose tasks are real processes. MiniStack keeps clusters
//! and task definitions.

mod answer;
mod aws;
mod backends;
mod containers;
mod dependencies;
mod execution_role;
mod logs;
mod model;
mod names;
mod network;
mod paging;
mod process;
mod references;
mod requests;
mod rules;
mod run_task;
mod scaling;
mod scheduler;
mod secrets;
mod services;
mod shared;
mod task_life;
mod tasks;
#[cfg(test)]
mod tests;
mod wire;
#[cfg(test)]
mod with_ministack;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::task::AbortHandle;

use answer::{EcsAnswer, Refusal};
pub(crate) use network::LoopbackNetwork;
pub use run_task::NO_CAPACITY;

use crate::load_balancer::targets::Targets;
use crate::ministack::Client;
use crate::time_scale::TimeScale;
use backends::Backends;
use model::{ServiceStatus, TaskStatus};
use shared::Shared;

/// How long a shutdown waits until the killed processes have ended.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// A running process of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskProcess {
    /// The id of the task, which is the last part of its ARN.
    pub task_id: String,
    /// The name of the container.
    pub container: String,
    /// The id of the process group of everything that the container started.
    pub process_group: u32,
}

/// The ECS services and tasks of one local cloud. Clones share them.
#[derive(Clone)]
pub struct Ecs {
    shared: Arc<Shared>,
    scheduler: AbortHandle,
}

impl Ecs {
    /// Starts the scheduler on the current Tokio runtime. All images come from `registry_host`
    /// (`host:port`, plain HTTP), regardless of the registry in the task definition. They are unpacked in
    /// `state_dir`.
    pub(crate) fn new(
        client: Client,
        targets: Targets,
        registry_host: String,
        state_dir: PathBuf,
        time_scale: TimeScale,
        network: LoopbackNetwork,
    ) -> Self {
        let aws = aws::Aws::new(client, targets, registry_host, state_dir);
        Self::with_backends(Arc::new(aws), time_scale, network)
    }

    fn with_backends(
        backends: Arc<dyn Backends>,
        time_scale: TimeScale,
        network: LoopbackNetwork,
    ) -> Self {
        let shared = Arc::new(Shared::new(backends, network, time_scale));
        let scheduler =
            tokio::spawn(scheduler::run(Arc::clone(&shared), time_scale)).abort_handle();
        Ecs { shared, scheduler }
    }

    /// Answers an operation (`CreateService`, …) of a caller that has the permission. `None` if MiniStack
    /// must answer it.
    pub(crate) async fn handle(&self, operation: &str, body: Value) -> Option<EcsAnswer> {
        let shared = &self.shared;
        let result = match operation {
            "CreateService" => services::create(shared, &body).await,
            "UpdateService" => services::update(shared, &body).await,
            "DeleteService" => services::delete(shared, &body).await,
            "DescribeServices" => services::describe(shared, &body).await,
            "ListServices" => services::list(shared, &body).await,
            "ListTasks" => tasks::list(shared, &body).await,
            "DescribeTasks" => tasks::describe(shared, &body).await,
            "RunTask" => run_task::run(shared, &body).await,
            "StopTask" => tasks::stop(shared, &body).await,
            "RegisterTaskDefinition" => match rules::task_definition::check(&body) {
                Ok(()) => return None,
                Err(refusal) => Err(refusal),
            },
            "DeleteCluster" => match self.cluster_is_empty(&body).await {
                Ok(()) => return None,
                Err(refusal) => Err(refusal),
            },
            _ => return None,
        };
        Some(match result {
            Ok(body) => EcsAnswer::ok(body),
            Err(refusal) => refusal.into(),
        })
    }

    /// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DeleteCluster.html>
    async fn cluster_is_empty(&self, body: &Value) -> Result<(), Refusal> {
        let cluster = services::cluster(&self.shared, body["cluster"].as_str()).await?;
        let state = self.shared.state();
        let services = state
            .services
            .values()
            .any(|one| one.cluster == cluster && one.status == ServiceStatus::Active);
        if services {
            return Err(Refusal::new(
                "ClusterContainsServicesException",
                "The Cluster cannot be deleted while Services are active.",
            ));
        }
        let tasks = state
            .tasks
            .values()
            .any(|one| one.cluster == cluster && one.status != TaskStatus::Stopped);
        if tasks {
            return Err(Refusal::new(
                "ClusterContainsTasksException",
                "The Cluster cannot be deleted while Tasks are active.",
            ));
        }
        Ok(())
    }

    /// The tags of a service or task as a JSON object. `None` if it does not exist.
    pub(crate) fn tags_of(&self, arn: &str) -> Option<Value> {
        let state = self.shared.state();
        let service = state.services.get(arn).map(|service| &service.tags);
        let tags = service.or_else(|| state.tasks.get(arn).map(|task| &task.tags))?;
        let pairs = tags
            .iter()
            .map(|tag| (tag.key.clone(), tag.value.clone().into()));
        Some(Value::Object(pairs.collect()))
    }

    /// The processes that run now.
    pub fn processes(&self) -> Vec<TaskProcess> {
        self.shared
            .processes()
            .controls
            .iter()
            .flat_map(|(task_id, controls)| {
                controls.iter().map(|process| TaskProcess {
                    task_id: task_id.clone(),
                    container: process.container.clone(),
                    process_group: process.control.group,
                })
            })
            .collect()
    }

    /// With `true`, keeps tasks that start from now on in PENDING, as if their images were slow to pull.
    /// With `false`, lets them continue.
    pub fn pause_starts(&self, paused: bool) {
        self.shared.starts_paused.send_replace(paused);
    }

    /// Waits until the scheduler has reconciled all services so often.
    #[cfg(test)]
    async fn after_rounds(&self, number: u64) {
        let mut rounds = self.shared.rounds.subscribe();
        let last = *rounds.borrow() + number;
        let _ = rounds.wait_for(|round| *round >= last).await;
    }

    /// Kills the processes of a task with SIGKILL, as if they had crashed. Returns whether the task had
    /// processes.
    pub async fn kill(&self, task_id: &str) -> bool {
        self.kill_those(task_id, |_| true).await
    }

    /// Kills the process of one container of a task. Returns whether it had one.
    pub async fn kill_container(&self, task_id: &str, container: &str) -> bool {
        self.kill_those(task_id, |name| name == container).await
    }

    async fn kill_those(&self, task_id: &str, which: impl Fn(&str) -> bool) -> bool {
        let mut killed = self.shared.processes().controls.get(task_id).cloned();
        let killed = killed.get_or_insert_default();
        killed.retain(|process| which(&process.container));
        for process in killed.iter() {
            process.control.signal("KILL").await;
        }
        !killed.is_empty()
    }

    /// The next RunTask answers with this failure and starts no task, e.g. [`NO_CAPACITY`]. Further ones apply to
    /// the calls after it.
    pub fn fail_next_run_task(&self, reason: &str) {
        self.shared.run_failures().push_back(reason.to_owned());
    }

    /// Stops scheduling, kills all processes and waits until they have ended.
    pub(crate) async fn shutdown(&self) {
        self.scheduler.abort();
        let controls: Vec<_> = {
            let mut processes = self.shared.processes();
            processes.closing = true;
            processes.controls.values().flatten().cloned().collect()
        };
        for process in controls {
            process.control.destroy().await;
        }
        let ended = async {
            while !self.shared.processes().controls.is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(SHUTDOWN_TIMEOUT, ended).await.is_err() {
            tracing::warn!("processes of tasks are still running after SIGKILL");
        }
    }
}
