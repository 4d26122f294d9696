//! The life of one task, from PROVISIONING to STOPPED.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-lifecycle-explanation.html>

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::watch;
use tokio::time::timeout;

use super::containers::{Containers, Prepared, cannot_start};
use super::dependencies;
use super::execution_role::{ExecutionRole, cannot_assume};
use super::logs::Destination;
use super::model::{StopCode, TaskDefinition, TaskStatus, Timestamp};
use super::names::{ClusterName, last_part};
use super::process::CommandLine;
use super::references;
use super::requests::TaskOverride;
use super::shared::Shared;

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

/// The properties of a task that do not change.
struct Facts {
    arn: String,
    id: String,
    cluster: ClusterName,
    /// The service that it belongs to.
    service: Option<OfService>,
    definition: Arc<TaskDefinition>,
    overrides: TaskOverride,
    zone: String,
    /// The ARNs and ports of the target groups.
    targets: Vec<(String, u16)>,
}

struct OfService {
    arn: String,
    name: String,
    deployment_id: String,
}

impl Facts {
    fn read(shared: &Shared, task_arn: &str) -> Option<(Self, watch::Receiver<bool>)> {
        let state = shared.state();
        let task = state.tasks.get(task_arn)?;
        let service = task.service_arn.as_ref();
        let targets = service
            .and_then(|arn| state.services.get(arn))
            .into_iter()
            .flat_map(|service| service.target_groups())
            .map(|(group, port)| (group.to_owned(), port))
            .collect();
        let facts = Facts {
            arn: task_arn.to_owned(),
            id: task.id.clone(),
            cluster: task.cluster.clone(),
            service: service.map(|arn| OfService {
                arn: arn.clone(),
                name: last_part(arn).to_owned(),
                deployment_id: task.deployment_id().to_owned(),
            }),
            definition: Arc::clone(&task.task_definition),
            overrides: task.overrides.clone(),
            zone: task.zone.clone(),
            targets,
        };
        Some((facts, task.stop_signal.subscribe()))
    }

    /// Adds an event to the service of the task, if it belongs to one.
    fn event(&self, shared: &Shared, message: impl FnOnce(&OfService) -> String) {
        if let Some(service) = &self.service {
            shared.event(&service.arn, message(service));
        }
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
        Some(Ok((ip, prepared))) => {
            let containers = Containers::new(&facts.arn, &facts.id, prepared);
            run(&shared, &facts, ip, containers, &mut stop).await;
        }
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
    let ports: Vec<u16> = facts.definition.containers().flat_map(ports).collect();
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
    for container in facts.definition.containers() {
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
            facts.event(shared, |OfService { name, .. }| {
                format!("(service {name}) failed to launch a task with (error {reason}).")
            });
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
    let region_account = references::region_and_account(&facts.cluster);
    let mut secrets = BTreeMap::new();
    if let Some(role) = role {
        role.registry_credentials().await?;
        secrets = role.secrets(container, &region_account).await?;
        let repository = references::repository_arn(reference, &facts.cluster);
        role.may_pull(reference, &repository).await?;
    }
    let image = shared.backends.image(reference).await?;
    let mut logs = Destination::for_container(container, &facts.id);
    if let (Some(role), Some(destination)) = (role, &logs)
        && !role.log_stream(destination, &region_account).await?
    {
        logs = None;
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
    let changed = facts.overrides.of(name);
    for variable in changed.iter().flat_map(|changed| &changed.environment) {
        environment.insert(variable.name.clone(), variable.value.clone());
    }
    environment.extend(secrets);
    // A container has its own network. A process here has only its own loopback address.
    environment.insert("HOST".to_owned(), address.to_string());
    let entrypoint = texts(&container["entryPoint"]).unwrap_or_else(|| image.entrypoint.clone());
    let command = changed.map(|changed| changed.command.clone());
    let command = match command
        .filter(|command| !command.is_empty())
        .or_else(|| texts(&container["command"]))
    {
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
        dependencies: dependencies::of(container),
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

/// Why the containers of a task do not run on.
enum End {
    /// A process could not be started, for this reason.
    CannotStart(String),
    /// An essential container, or the last one, has ended.
    Exited,
    StopRequested,
}

/// ACTIVATING, RUNNING, DEACTIVATING and STOPPING.
async fn run(
    shared: &Shared,
    facts: &Facts,
    ip: IpAddr,
    mut containers: Containers,
    stop: &mut watch::Receiver<bool>,
) {
    let mut registered = false;
    let end = tokio::select! {
        end = run_on(shared, facts, ip, &mut containers, &mut registered) => end,
        () = stop_requested(stop) => End::StopRequested,
    };
    let exited = matches!(end, End::Exited);
    match end {
        End::CannotStart(reason) => fail_to_start(shared, facts, reason),
        End::Exited => {
            shared.change(&facts.arn, |task| {
                task.request_stop(
                    StopCode::EssentialContainerExited,
                    "Essential container in task exited",
                );
            });
        }
        End::StopRequested => {}
    }
    if registered && !facts.targets.is_empty() {
        deregister(shared, facts, ip);
        if !exited {
            // Only a task that still runs can serve the connections that drain.
            tokio::select! {
                () = drained(shared, facts, ip) => {}
                () = containers.all_exits(shared) => {}
            }
        }
    }
    shared.change(&facts.arn, |task| task.status = TaskStatus::Stopping);
    containers.stop(shared).await;
    shared.processes().controls.remove(&facts.id);
}

/// ACTIVATING and RUNNING, until the task ends by itself. `registered` becomes true with the state RUNNING.
async fn run_on(
    shared: &Shared,
    facts: &Facts,
    ip: IpAddr,
    containers: &mut Containers,
    registered: &mut bool,
) -> End {
    if let Err(reason) = containers.start(shared).await {
        return End::CannotStart(reason);
    }
    tokio::select! {
        () = containers.over(shared) => return End::Exited,
        () = shared.pause(steps::ACTIVATING) => {}
    }
    register(shared, facts, ip);
    *registered = true;
    containers.over(shared).await;
    End::Exited
}

/// Registers the targets of the task, which is RUNNING then.
fn register(shared: &Shared, facts: &Facts, ip: IpAddr) {
    for (group, port) in &facts.targets {
        shared.backends.register(group, ip, *port, &facts.zone);
        facts.event(shared, |OfService { name, .. }| {
            format!("(service {name}) registered 1 targets in (target-group {group})")
        });
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
    facts.event(shared, |service| {
        let OfService {
            name,
            deployment_id,
            ..
        } = service;
        format!(
            "(service {name}, taskSet {deployment_id}) has begun draining connections on 1 tasks."
        )
    });
    for (group, port) in &facts.targets {
        shared.backends.deregister(group, ip, *port);
        facts.event(shared, |OfService { name, .. }| {
            format!("(service {name}) deregistered 1 targets in (target-group {group})")
        });
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
        // A stopped task has no tags.
        // <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs-using-tags.html>
        task.tags.clear();
        task.address
    });
    if let Some(address) = address.flatten() {
        shared.network.release(address);
    }
}
