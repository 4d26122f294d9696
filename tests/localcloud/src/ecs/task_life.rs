//! The life of one task, from PROVISIONING to STOPPED.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-lifecycle-explanation.html>

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::execution_role::{ExecutionRole, cannot_assume};
use super::logs::{self, Destination};
use super::model::{StopCode, TaskDefinition, TaskStatus, Timestamp};
use super::names::ClusterName;
use super::process::{CommandLine, Control, Process};
use super::references;
use super::shared::Shared;
use crate::image::Folder;

/// The durations of a task's steps, in seconds on AWS. AWS takes longer (about 30 s from PROVISIONING to
/// RUNNING), but guarantees no durations, so that no caller may depend on them.
mod steps {
    /// The creation of the network interface.
    pub const PROVISIONING: f64 = 4.0;
    /// The time before the image is pulled.
    pub const PENDING: f64 = 2.0;
    /// The time between the start of the containers and RUNNING.
    pub const ACTIVATING: f64 = 3.0;
    /// The deletion of the network interface.
    pub const DEPROVISIONING: f64 = 3.0;
    /// The interval of the checks of a draining target.
    pub const DRAINING_POLL: f64 = 1.0;
    /// The maximum deregistration delay.
    pub const MAX_DRAINING: f64 = 3600.0;
    /// The default `stopTimeout` of a container.
    pub const STOP_TIMEOUT: f64 = 30.0;
}

/// The limit on the time until the last lines of a container are in the log group.
const LOGS_TIMEOUT: Duration = Duration::from_secs(5);

/// The properties of a task that do not change.
struct Facts {
    arn: String,
    id: String,
    cluster: ClusterName,
    service_arn: String,
    service_name: String,
    deployment_id: String,
    definition: Arc<TaskDefinition>,
    zone: String,
    /// The ARNs and ports of the target groups.
    targets: Vec<(String, u16)>,
}

impl Facts {
    fn read(shared: &Shared, task_arn: &str) -> Option<(Self, watch::Receiver<bool>)> {
        let state = shared.state();
        let task = state.tasks.get(task_arn)?;
        let targets = state
            .services
            .get(&task.service_arn)
            .into_iter()
            .flat_map(|service| service.target_groups())
            .map(|(group, port)| (group.to_owned(), port))
            .collect();
        let facts = Facts {
            arn: task_arn.to_owned(),
            id: task.id.clone(),
            cluster: task.cluster.clone(),
            service_arn: task.service_arn.clone(),
            service_name: task.service_name().to_owned(),
            deployment_id: task.deployment_id.clone(),
            definition: Arc::clone(&task.task_definition),
            zone: task.zone.clone(),
            targets,
        };
        Some((facts, task.stop_signal.subscribe()))
    }

    fn containers(&self) -> impl Iterator<Item = &Value> {
        self.definition.body["containerDefinitions"]
            .as_array()
            .into_iter()
            .flatten()
    }
}

/// Runs a task from PROVISIONING on. Returns when it is STOPPED.
pub async fn live(shared: Arc<Shared>, task_arn: String) {
    let Some((facts, mut stop)) = Facts::read(&shared, &task_arn) else {
        return;
    };
    let prepared = tokio::select! {
        biased;
        () = stop_requested(&mut stop) => None,
        prepared = prepare(&shared, &facts) => Some(prepared),
    };
    match prepared {
        None => {}
        Some(Err(reason)) => fail_to_start(&shared, &facts, reason),
        Some(Ok((ip, lines))) => match Running::start(&shared, &facts, lines) {
            Err(reason) => fail_to_start(&shared, &facts, reason),
            Ok(running) => run(&shared, &facts, ip, running, &mut stop).await,
        },
    }
    deprovision(&shared, &facts).await;
}

async fn stop_requested(stop: &mut watch::Receiver<bool>) {
    // An error means that the task was removed, which ends it as well.
    let _ = stop.wait_for(|stopped| *stopped).await;
}

fn fail_to_start(shared: &Shared, facts: &Facts, reason: String) {
    shared.change(&facts.arn, |task| {
        for container in &mut task.containers {
            container.reason.get_or_insert_with(|| reason.clone());
        }
        task.request_stop(StopCode::TaskFailedToStart, reason);
    });
}

/// A container that is ready to start.
struct Prepared {
    name: String,
    command: CommandLine,
    essential: bool,
    stop_signal: String,
    stop_timeout: f64,
    logs: Option<Destination>,
    folder: Option<Arc<Folder>>,
}

/// PROVISIONING and PENDING: address, role, secrets, images, log streams.
async fn prepare(shared: &Shared, facts: &Facts) -> Result<(IpAddr, Vec<Prepared>), String> {
    let role_arn = facts.definition.body["executionRoleArn"]
        .as_str()
        .filter(|arn| !arn.is_empty());
    let role = role_arn.map(|arn| ExecutionRole {
        backends: shared.backends.as_ref(),
        arn,
        task_id: &facts.id,
    });
    shared.pause(steps::PROVISIONING).await;
    assume_roles(shared, facts, role.as_ref()).await?;
    let ports: Vec<u16> = facts.containers().flat_map(ports).collect();
    let address = shared
        .network
        .allocate(&ports)
        .ok_or("ResourceInitializationError: failed to create network interface")?;
    shared.change(&facts.arn, |task| {
        task.address = Some(address);
        task.status = TaskStatus::Pending;
        task.times.connectivity_at = Some(Timestamp::now());
        task.times.pull_started_at = Some(Timestamp::now());
    });
    shared.pause(steps::PENDING).await;
    // An error is impossible, because `shared` owns the sender.
    let mut paused = shared.starts_paused.subscribe();
    let _ = paused.wait_for(|paused| !paused).await;
    let mut prepared = Vec::new();
    for container in facts.containers() {
        let container = prepare_container(shared, facts, role.as_ref(), container, &address);
        prepared.push(container.await?);
    }
    shared.change(&facts.arn, |task| {
        task.times.pull_stopped_at = Some(Timestamp::now());
    });
    Ok((IpAddr::V4(address), prepared))
}

/// Checks that ECS can assume the roles of the task. On AWS there is no task if it cannot, but only the
/// event. Here there is a task too, with the same reason.
async fn assume_roles(
    shared: &Shared,
    facts: &Facts,
    role: Option<&ExecutionRole<'_>>,
) -> Result<(), String> {
    let mut failure = match role {
        Some(role) => role.assume().await.err(),
        None => None,
    };
    if let Some(task_role) = facts.definition.body["taskRoleArn"]
        .as_str()
        .filter(|arn| !arn.is_empty())
        && failure.is_none()
        && !matches!(shared.backends.tasks_may_assume(task_role).await, Ok(true))
    {
        failure = Some(cannot_assume(task_role));
    }
    match failure {
        None => Ok(()),
        Some(reason) => {
            let service = &facts.service_name;
            shared.event(
                &facts.service_arn,
                format!("(service {service}) failed to launch a task with (error {reason})."),
            );
            Err(reason)
        }
    }
}

fn ports(container: &Value) -> impl Iterator<Item = u16> {
    container["portMappings"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|mapping| u16::try_from(mapping["containerPort"].as_u64()?).ok())
}

async fn prepare_container(
    shared: &Shared,
    facts: &Facts,
    role: Option<&ExecutionRole<'_>>,
    container: &Value,
    address: &std::net::Ipv4Addr,
) -> Result<Prepared, String> {
    let name = container["name"].as_str().unwrap_or_default();
    let reference = container["image"].as_str().unwrap_or_default();
    let mut secrets = BTreeMap::new();
    if let Some(role) = role {
        role.registry_credentials().await?;
        secrets = role.secrets(container).await?;
        let repository = references::repository_arn(reference, &facts.cluster);
        role.may_pull(reference, &repository).await?;
    }
    let image = shared.backends.image(reference).await?;
    let mut logs = Destination::for_container(container, &facts.id);
    if let (Some(role), Some(destination)) = (role, &logs) {
        let region_account = references::region_and_account(&facts.cluster);
        if !role.log_stream(destination, &region_account).await? {
            logs = None;
        }
    }
    let mut environment: BTreeMap<String, String> = image
        .environment
        .iter()
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    for pair in container["environment"].as_array().into_iter().flatten() {
        if let (Some(name), Some(value)) = (pair["name"].as_str(), pair["value"].as_str()) {
            environment.insert(name.to_owned(), value.to_owned());
        }
    }
    environment.extend(secrets);
    // A container has its own network. A process here has only its own loopback address.
    environment.insert("HOST".to_owned(), address.to_string());
    let entrypoint = texts(&container["entryPoint"]).unwrap_or_else(|| image.entrypoint.clone());
    let command = match texts(&container["command"]) {
        Some(command) => command,
        // As with `docker run --entrypoint`, an entrypoint replaces the command of the image too.
        None if texts(&container["entryPoint"]).is_some() => Vec::new(),
        None => image.command.clone(),
    };
    let working_dir = container["workingDirectory"]
        .as_str()
        .or(image.working_dir.as_deref());
    let argv = [entrypoint, command].concat();
    let line = CommandLine::resolve(&image.root, working_dir, &argv, environment)
        .map_err(|why| cannot_start(&why))?;
    shared.change(&facts.arn, |task| {
        for one in task.containers.iter_mut().filter(|one| one.name == name) {
            one.image_digest = Some(image.digest.clone());
        }
    });
    Ok(Prepared {
        name: name.to_owned(),
        command: line,
        essential: container["essential"].as_bool().unwrap_or(true),
        stop_signal: image
            .stop_signal
            .as_deref()
            .map_or("TERM", |name| name.strip_prefix("SIG").unwrap_or(name))
            .to_owned(),
        stop_timeout: container["stopTimeout"]
            .as_f64()
            .unwrap_or(steps::STOP_TIMEOUT),
        logs,
        folder: image.folder,
    })
}

fn texts(list: &Value) -> Option<Vec<String>> {
    let list: Vec<String> = list
        .as_array()?
        .iter()
        .filter_map(|text| text.as_str().map(str::to_owned))
        .collect();
    (!list.is_empty()).then_some(list)
}

/// The message of Fargate for a container that its runtime could not start.
fn cannot_start(why: &str) -> String {
    format!(
        "CannotStartContainerError: ResourceInitializationError: failed to create new container \
         runtime task: failed to create shim task: OCI runtime create failed: runc create failed: \
         unable to start container process: {why}: unknown"
    )
}

/// The processes of a task.
struct Running {
    containers: Vec<RunningContainer>,
    exits: mpsc::Receiver<(usize, i32)>,
}

struct RunningContainer {
    name: String,
    essential: bool,
    stop_signal: String,
    stop_timeout: f64,
    control: Control,
    exited: bool,
    /// The image stays on the disk while the process may run.
    _folder: Option<Arc<Folder>>,
}

impl Running {
    fn start(shared: &Arc<Shared>, facts: &Facts, all: Vec<Prepared>) -> Result<Self, String> {
        let (sender, exits) = mpsc::channel(all.len().max(1));
        let mut containers = Vec::new();
        let mut processes = shared.processes();
        if processes.closing {
            return Err(cannot_start("the local cloud is shutting down"));
        }
        for (index, prepared) in all.into_iter().enumerate() {
            let (mut process, stdout, stderr) = Process::start(&prepared.command)
                .map_err(|error| cannot_start(&error.to_string()))?;
            let control = process.control();
            let backends = Arc::clone(&shared.backends);
            let logs = logs::collect(backends, prepared.logs, stdout, stderr);
            let sender = sender.clone();
            tokio::spawn(async move {
                let code = process.wait().await;
                // The output must be in the log group before the exit is visible, so that a caller that
                // sees the exit can read the output.
                let _ = timeout(LOGS_TIMEOUT, logs).await;
                let _ = sender.send((index, code)).await;
            });
            containers.push(RunningContainer {
                name: prepared.name,
                essential: prepared.essential,
                stop_signal: prepared.stop_signal,
                stop_timeout: prepared.stop_timeout,
                control,
                exited: false,
                _folder: prepared.folder,
            });
        }
        let controls = containers.iter().map(|one| one.control.clone()).collect();
        processes.controls.insert(facts.id.clone(), controls);
        drop(processes);
        shared.change(&facts.arn, |task| {
            task.status = TaskStatus::Activating;
            for (index, container) in task.containers.iter_mut().enumerate() {
                container.status = "RUNNING";
                container.runtime_id = Some(format!("{}-{index:010}", task.id));
            }
        });
        Ok(Running { containers, exits })
    }

    /// Returns when an essential container or the last container has ended.
    async fn essential_exit(&mut self, shared: &Shared, facts: &Facts) {
        while let Some((index, code)) = self.exits.recv().await {
            self.record_exit(shared, facts, index, code);
            let all_exited = self.containers.iter().all(|one| one.exited);
            if self.containers[index].essential || all_exited {
                return;
            }
        }
    }

    /// Returns when all containers have ended.
    async fn all_exits(&mut self, shared: &Shared, facts: &Facts) {
        while self.containers.iter().any(|one| !one.exited) {
            let Some((index, code)) = self.exits.recv().await else {
                return;
            };
            self.record_exit(shared, facts, index, code);
        }
    }

    fn record_exit(&mut self, shared: &Shared, facts: &Facts, index: usize, code: i32) {
        let container = &mut self.containers[index];
        container.exited = true;
        let name = &container.name;
        shared.change(&facts.arn, |task| {
            for one in task.containers.iter_mut().filter(|one| one.name == *name) {
                one.status = "STOPPED";
                one.exit_code = Some(code);
            }
        });
    }

    /// STOPPING: sends the stop signal, and SIGKILL to the containers that still run after `stopTimeout`.
    async fn stop(&mut self, shared: &Shared, facts: &Facts) {
        let mut stop_timeout = 0.0_f64;
        for container in self.containers.iter().filter(|one| !one.exited) {
            container.control.signal(&container.stop_signal).await;
            stop_timeout = stop_timeout.max(container.stop_timeout);
        }
        let stop_timeout = shared.seconds(stop_timeout);
        if timeout(stop_timeout, self.all_exits(shared, facts))
            .await
            .is_err()
        {
            for container in &self.containers {
                container.control.signal("KILL").await;
            }
            self.all_exits(shared, facts).await;
        }
    }
}

/// ACTIVATING, RUNNING, DEACTIVATING and STOPPING.
async fn run(
    shared: &Shared,
    facts: &Facts,
    ip: IpAddr,
    mut running: Running,
    stop: &mut watch::Receiver<bool>,
) {
    let mut registered = false;
    let exited = tokio::select! {
        () = running.essential_exit(shared, facts) => true,
        () = stop_requested(stop) => false,
        () = shared.pause(steps::ACTIVATING) => {
            register(shared, facts, ip);
            registered = true;
            tokio::select! {
                () = running.essential_exit(shared, facts) => true,
                () = stop_requested(stop) => false,
            }
        }
    };
    if exited {
        shared.change(&facts.arn, |task| {
            task.request_stop(
                StopCode::EssentialContainerExited,
                "Essential container in task exited",
            );
        });
    }
    if registered && !facts.targets.is_empty() {
        deregister(shared, facts, ip);
        if !exited {
            // Only a task that still runs can serve the connections that drain.
            tokio::select! {
                () = drained(shared, facts, ip) => {}
                () = running.all_exits(shared, facts) => {}
            }
        }
    }
    shared.change(&facts.arn, |task| task.status = TaskStatus::Stopping);
    running.stop(shared, facts).await;
    shared.processes().controls.remove(&facts.id);
}

/// Registers the targets of the task, which is RUNNING then.
fn register(shared: &Shared, facts: &Facts, ip: IpAddr) {
    for (group, port) in &facts.targets {
        shared.backends.register(group, ip, *port, &facts.zone);
        let service = &facts.service_name;
        shared.event(
            &facts.service_arn,
            format!("(service {service}) registered 1 targets in (target-group {group})"),
        );
    }
    shared.change(&facts.arn, |task| {
        task.status = TaskStatus::Running;
        task.times.started_at = Some(Timestamp::now());
        task.running_since = Some(Instant::now());
    });
}

/// Deregisters the targets of the task, which is DEACTIVATING then.
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/load-balancer-connection-draining.html>
fn deregister(shared: &Shared, facts: &Facts, ip: IpAddr) {
    let service = &facts.service_name;
    shared.event(
        &facts.service_arn,
        format!(
            "(service {service}, taskSet {}) has begun draining connections on 1 tasks.",
            facts.deployment_id
        ),
    );
    for (group, port) in &facts.targets {
        shared.backends.deregister(group, ip, *port);
        shared.event(
            &facts.service_arn,
            format!("(service {service}) deregistered 1 targets in (target-group {group})"),
        );
    }
    shared.change(&facts.arn, |task| task.status = TaskStatus::Deactivating);
}

/// Returns when the load balancer has removed all targets of the task.
async fn drained(shared: &Shared, facts: &Facts, ip: IpAddr) {
    let is_registered = || {
        facts.targets.iter().any(|(group, port)| {
            shared
                .backends
                .health(group)
                .iter()
                .any(|target| target.ip == ip && target.port == *port)
        })
    };
    let poll = async {
        while is_registered() {
            let pause = shared.seconds(steps::DRAINING_POLL);
            tokio::time::sleep(pause.max(Duration::from_millis(20))).await;
        }
    };
    let _ = timeout(shared.seconds(steps::MAX_DRAINING), poll).await;
}

/// DEPROVISIONING and STOPPED.
async fn deprovision(shared: &Shared, facts: &Facts) {
    shared.change(&facts.arn, |task| {
        task.status = TaskStatus::Deprovisioning;
        task.times.execution_stopped_at = Some(Timestamp::now());
        for container in &mut task.containers {
            container.status = "STOPPED";
        }
    });
    shared.pause(steps::DEPROVISIONING).await;
    let address = shared.change(&facts.arn, |task| {
        task.status = TaskStatus::Stopped;
        task.times.stopped_at = Some(Timestamp::now());
        task.address
    });
    if let Some(address) = address.flatten() {
        shared.network.release(address);
    }
}
