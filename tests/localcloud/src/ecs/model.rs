//! The services, deployments and tasks that the scheduler keeps.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tokio::sync::watch;

use super::names::ClusterName;
use super::requests::{
    DeploymentConfiguration, LoadBalancer, NetworkConfiguration, PropagateTags, Switch, Tag,
    TaskOverride,
};

/// All services and tasks, by ARN.
#[derive(Debug, Default)]
pub struct State {
    /// INACTIVE services stay for an hour, unless their name is used again.
    pub services: BTreeMap<String, Service>,
    /// Stopped tasks stay for an hour.
    pub tasks: BTreeMap<String, Task>,
    /// The RunTask requests with a client token, by cluster and token.
    pub run_requests: BTreeMap<(String, String), RunRequest>,
}

/// A RunTask request that started tasks, to recognise its repetition.
#[derive(Debug, Clone)]
pub struct RunRequest {
    pub request: Value,
    /// The ARNs of the tasks.
    pub tasks: Vec<String>,
    pub made_at: Timestamp,
}

impl State {
    /// The tasks of a service, in no particular order.
    pub fn tasks_of(&self, service_arn: &str) -> impl Iterator<Item = &Task> {
        self.tasks
            .values()
            .filter(move |task| task.is_of(service_arn))
    }
}

/// A time as in the JSON of AWS: seconds since 1970, with milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Timestamp(pub f64);

impl Timestamp {
    pub fn now() -> Self {
        let elapsed = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp((elapsed.as_secs_f64() * 1000.0).round() / 1000.0)
    }
}

/// `status` of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceStatus {
    /// The scheduler keeps its tasks running.
    Active,
    /// Deleted, but it still has tasks to take out of the load balancer.
    Draining,
    /// Deleted. The name may be used again.
    Inactive,
}

impl ServiceStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            ServiceStatus::Active => "ACTIVE",
            ServiceStatus::Draining => "DRAINING",
            ServiceStatus::Inactive => "INACTIVE",
        }
    }
}

#[derive(Debug, Clone)]
pub struct Service {
    pub cluster: ClusterName,
    pub name: String,
    pub status: ServiceStatus,
    /// The CreateService request, to recognise its repetition.
    pub request: Value,
    pub desired_count: u32,
    /// The target groups in which its tasks are registered.
    pub load_balancers: Vec<LoadBalancer>,
    pub network: NetworkConfiguration,
    pub subnets: Vec<Subnet>,
    /// Seconds after the start of a task during which failed health checks do not stop it.
    pub grace_seconds: u32,
    pub deployment_configuration: DeploymentConfiguration,
    /// From the request. The default is enabled.
    pub availability_zone_rebalancing: Switch,
    pub platform_version: String,
    pub propagate_tags: PropagateTags,
    pub enable_ecs_managed_tags: bool,
    pub enable_execute_command: bool,
    pub tags: Vec<Tag>,
    /// The PRIMARY deployment is the first.
    pub deployments: Vec<Deployment>,
    /// The last 100 events, newest first.
    pub events: VecDeque<Event>,
    /// Whether the event "has reached a steady state" was added for the current state.
    pub steady: bool,
    pub created_at: Timestamp,
    /// When it became INACTIVE.
    pub inactive_since: Option<Timestamp>,
}

impl Service {
    pub fn arn(&self) -> String {
        self.cluster.service_arn(&self.name)
    }

    pub fn primary(&self) -> &Deployment {
        &self.deployments[0]
    }

    pub fn primary_mut(&mut self) -> &mut Deployment {
        &mut self.deployments[0]
    }

    /// The scheduler starts or stops tasks of the PRIMARY deployment until there are so many.
    pub fn set_desired_count(&mut self, count: u32) {
        self.desired_count = count;
        self.primary_mut().updated_at = Timestamp::now();
        self.steady = false;
    }

    /// The ARNs of the target groups in which its tasks are registered, with the port.
    pub fn target_groups(&self) -> impl Iterator<Item = (&str, u16)> {
        self.load_balancers
            .iter()
            .map(|entry| (entry.target_group_arn.as_str(), entry.container_port))
    }

    /// Adds an event, unless it repeats the newest one: "duplicate event messages are omitted".
    /// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-event-messages.html>
    pub fn event(&mut self, message: String) {
        const KEPT: usize = 100;
        if self
            .events
            .front()
            .is_some_and(|newest| newest.message == message)
        {
            return;
        }
        tracing::debug!(service = %self.name, "{message}");
        self.events.push_front(Event {
            id: uuid::Uuid::new_v4().to_string(),
            created_at: Timestamp::now(),
            message,
        });
        self.events.truncate(KEPT);
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnet {
    pub id: String,
    pub zone: String,
}

/// An entry of a service's `events`.
#[derive(Debug, Clone)]
pub struct Event {
    pub id: String,
    pub created_at: Timestamp,
    pub message: String,
}

/// A task definition with its tags, as MiniStack keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskDefinition {
    pub arn: String,
    /// `taskDefinition` as DescribeTaskDefinition returns it.
    pub body: Value,
    pub tags: Vec<Tag>,
}

impl TaskDefinition {
    /// The definitions of its containers.
    pub fn containers(&self) -> impl Iterator<Item = &Value> {
        let containers = self.body["containerDefinitions"].as_array();
        containers.into_iter().flatten()
    }
}

/// `rolloutState` of a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RolloutState {
    InProgress,
    Completed,
    /// The circuit breaker stopped it. It starts no more tasks.
    Failed,
}

impl RolloutState {
    pub fn as_str(self) -> &'static str {
        match self {
            RolloutState::InProgress => "IN_PROGRESS",
            RolloutState::Completed => "COMPLETED",
            RolloutState::Failed => "FAILED",
        }
    }
}

/// A deployment of a service. The first one of a service is PRIMARY, the others are ACTIVE.
#[derive(Debug, Clone)]
pub struct Deployment {
    /// `ecs-svc/` and a number.
    pub id: String,
    pub task_definition: Arc<TaskDefinition>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// The number of consecutive failed tasks, for `failedTasks`.
    pub failed_tasks: u32,
    pub rollout: RolloutState,
    pub rollout_reason: String,
    /// The number of consecutive tasks that stopped before they ran, for the restart throttle.
    pub start_failures: u32,
    /// The time at which the throttle allows the next task to start.
    pub not_before: Option<Instant>,
}

impl Deployment {
    pub fn new(task_definition: Arc<TaskDefinition>) -> Self {
        let now = Timestamp::now();
        let id = deployment_id();
        Deployment {
            rollout_reason: format!("ECS deployment {id} in progress."),
            id,
            task_definition,
            created_at: now,
            updated_at: now,
            failed_tasks: 0,
            rollout: RolloutState::InProgress,
            start_failures: 0,
            not_before: None,
        }
    }

    pub fn roll(&mut self, state: RolloutState, reason: String) {
        self.rollout = state;
        self.rollout_reason = reason;
        self.updated_at = Timestamp::now();
    }
}

/// `ecs-svc/` and 19 digits.
fn deployment_id() -> String {
    let number = uuid::Uuid::new_v4().as_u128() % 10_u128.pow(19);
    format!("ecs-svc/{number:019}")
}

/// `lastStatus` of a task. The variants are in the order of the life of a task.
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-lifecycle-explanation.html>
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TaskStatus {
    /// Its network interface is being created.
    Provisioning,
    /// Its secrets and its image are being fetched.
    Pending,
    /// Its containers are starting, and its target is about to be registered.
    Activating,
    Running,
    /// Its target is being deregistered.
    Deactivating,
    /// Its containers got the stop signal.
    Stopping,
    /// Its network interface is being deleted.
    Deprovisioning,
    Stopped,
}

impl TaskStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            TaskStatus::Provisioning => "PROVISIONING",
            TaskStatus::Pending => "PENDING",
            TaskStatus::Activating => "ACTIVATING",
            TaskStatus::Running => "RUNNING",
            TaskStatus::Deactivating => "DEACTIVATING",
            TaskStatus::Stopping => "STOPPING",
            TaskStatus::Deprovisioning => "DEPROVISIONING",
            TaskStatus::Stopped => "STOPPED",
        }
    }
}

/// `stopCode` of a task.
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/stopped-task-error-codes.html>
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopCode {
    /// It stopped before it ran.
    TaskFailedToStart,
    /// An essential container ended.
    EssentialContainerExited,
    /// The scheduler of the service stopped it.
    ServiceSchedulerInitiated,
    /// A call of StopTask stopped it.
    UserInitiated,
}

impl StopCode {
    pub fn as_str(self) -> &'static str {
        match self {
            StopCode::TaskFailedToStart => "TaskFailedToStart",
            StopCode::EssentialContainerExited => "EssentialContainerExited",
            StopCode::ServiceSchedulerInitiated => "ServiceSchedulerInitiated",
            StopCode::UserInitiated => "UserInitiated",
        }
    }
}

/// `stopCode` and `stoppedReason` of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    pub code: StopCode,
    pub reason: String,
}

/// The health of a task's target according to the load balancer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetState {
    /// The target is not registered, or not checked yet.
    Unknown,
    Healthy,
    Unhealthy(String),
}

#[derive(Debug)]
pub struct Task {
    pub cluster: ClusterName,
    /// 32 hexadecimal digits.
    pub id: String,
    /// The service that it belongs to. `None` for one that RunTask started.
    pub service_arn: Option<String>,
    /// `service:<name>`, or the group of the RunTask request.
    pub group: String,
    /// The id of the service's deployment, or the `startedBy` of the RunTask request, if there is one.
    pub started_by: Option<String>,
    /// What the RunTask request changes in the task definition.
    pub overrides: TaskOverride,
    pub task_definition: Arc<TaskDefinition>,
    pub status: TaskStatus,
    /// The reason to stop it. If set, `desiredStatus` is STOPPED.
    pub stop: Option<Stop>,
    /// Notifies the future of the task that `stop` was set.
    pub stop_signal: watch::Sender<bool>,
    pub tags: Vec<Tag>,
    pub subnet: String,
    pub zone: String,
    /// Its private address, which is a loopback address that no other task has.
    pub address: Option<Ipv4Addr>,
    pub containers: Vec<Container>,
    pub target: TargetState,
    pub was_healthy: bool,
    /// Whether the circuit breaker and the throttle have counted its end.
    pub accounted: bool,
    pub version: u64,
    pub attachment_id: String,
    pub times: TaskTimes,
    /// When it became RUNNING, for the grace period.
    pub running_since: Option<Instant>,
}

/// The points in time that DescribeTasks reports.
#[derive(Debug, Clone, Default)]
pub struct TaskTimes {
    pub created_at: Option<Timestamp>,
    pub connectivity_at: Option<Timestamp>,
    pub pull_started_at: Option<Timestamp>,
    pub pull_stopped_at: Option<Timestamp>,
    pub started_at: Option<Timestamp>,
    pub stopping_at: Option<Timestamp>,
    pub execution_stopped_at: Option<Timestamp>,
    pub stopped_at: Option<Timestamp>,
}

impl Task {
    /// A task of a deployment that is about to be provisioned.
    pub fn new(service: &Service, deployment: &Deployment, subnet: &Subnet) -> Self {
        let task_definition = Arc::clone(&deployment.task_definition);
        let mut tags = match service.propagate_tags {
            PropagateTags::None => Vec::new(),
            PropagateTags::Service => service.tags.clone(),
            PropagateTags::TaskDefinition => task_definition.tags.clone(),
        };
        if service.enable_ecs_managed_tags {
            // <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs-using-tags.html>
            for (key, value) in [
                ("aws:ecs:clusterName", &service.cluster.name),
                ("aws:ecs:serviceName", &service.name),
            ] {
                tags.push(Tag {
                    key: key.to_owned(),
                    value: value.clone(),
                });
            }
        }
        Task {
            service_arn: Some(service.arn()),
            group: format!("service:{}", service.name),
            started_by: Some(deployment.id.clone()),
            tags,
            ..Task::standalone(service.cluster.clone(), task_definition, subnet)
        }
    }

    /// A task of no service that is about to be provisioned, without tags and in the default group.
    pub fn standalone(
        cluster: ClusterName,
        task_definition: Arc<TaskDefinition>,
        subnet: &Subnet,
    ) -> Self {
        let family = task_definition.body["family"].as_str().unwrap_or_default();
        Task {
            cluster,
            id: uuid::Uuid::new_v4().simple().to_string(),
            service_arn: None,
            group: format!("family:{family}"),
            started_by: None,
            overrides: TaskOverride::default(),
            containers: task_definition.containers().map(Container::new).collect(),
            task_definition,
            status: TaskStatus::Provisioning,
            stop: None,
            stop_signal: watch::channel(false).0,
            tags: Vec::new(),
            subnet: subnet.id.clone(),
            zone: subnet.zone.clone(),
            address: None,
            target: TargetState::Unknown,
            was_healthy: false,
            accounted: false,
            version: 1,
            attachment_id: uuid::Uuid::new_v4().to_string(),
            times: TaskTimes {
                created_at: Some(Timestamp::now()),
                ..TaskTimes::default()
            },
            running_since: None,
        }
    }

    pub fn arn(&self) -> String {
        self.cluster.task_arn(&self.id)
    }

    /// Whether it belongs to the service with this ARN.
    pub fn is_of(&self, service_arn: &str) -> bool {
        self.service_arn.as_deref() == Some(service_arn)
    }

    /// The deployment of its service that it belongs to.
    pub fn deployment_id(&self) -> &str {
        self.started_by.as_deref().unwrap_or_default()
    }

    pub fn wanted(&self) -> bool {
        self.stop.is_none()
    }

    /// The address that is registered in the target groups.
    pub fn ip(&self) -> Option<IpAddr> {
        self.address.map(IpAddr::V4)
    }

    /// Requests the end of the task. Only the first reason is kept.
    pub fn request_stop(&mut self, code: StopCode, reason: impl Into<String>) {
        if self.stop.is_none() {
            self.stop = Some(Stop {
                code,
                reason: reason.into(),
            });
            self.version += 1;
            self.times.stopping_at = Some(Timestamp::now());
            self.stop_signal.send_replace(true);
        }
    }
}

#[derive(Debug, Clone)]
pub struct Container {
    pub name: String,
    /// The image reference of the task definition.
    pub image: String,
    pub image_digest: Option<String>,
    pub id: String,
    /// `<task id>-<number>`, after its start.
    pub runtime_id: Option<String>,
    /// PENDING, RUNNING or STOPPED.
    pub status: &'static str,
    pub exit_code: Option<i32>,
    pub reason: Option<String>,
    /// The CPU units of the container, or 0.
    pub cpu: String,
    /// The MiB of memory of the container, if set.
    pub memory: Option<String>,
}

impl Container {
    fn new(definition: &Value) -> Self {
        let text = |key: &str| definition[key].as_str().unwrap_or_default().to_owned();
        Container {
            name: text("name"),
            image: text("image"),
            image_digest: None,
            id: uuid::Uuid::new_v4().to_string(),
            runtime_id: None,
            status: "PENDING",
            exit_code: None,
            reason: None,
            cpu: definition["cpu"].as_i64().unwrap_or(0).to_string(),
            memory: definition["memory"].as_i64().map(|mib| mib.to_string()),
        }
    }
}

#[cfg(test)]
impl Service {
    /// A service with one container, on port 8000, and one target group.
    pub fn for_tests(name: &str) -> Self {
        use serde_json::json;
        let task_definition = Arc::new(TaskDefinition {
            arn: "arn:aws:ecs:us-east-1:000000000000:task-definition/test-app:1".into(),
            body: json!({"containerDefinitions": [{"name": "app", "image": "test:1"}]}),
            tags: Vec::new(),
        });
        Service {
            cluster: ClusterName {
                arn_prefix: "arn:aws:ecs:us-east-1:000000000000".into(),
                name: "test".into(),
            },
            name: name.into(),
            status: ServiceStatus::Active,
            request: json!({}),
            desired_count: 2,
            load_balancers: vec![LoadBalancer {
                target_group_arn: "arn:tg".into(),
                container_name: "app".into(),
                container_port: 8000,
            }],
            network: NetworkConfiguration {
                awsvpc_configuration: super::requests::AwsvpcConfiguration {
                    subnets: vec!["subnet-1".into()],
                    security_groups: Vec::new(),
                    assign_public_ip: None,
                },
            },
            subnets: vec![
                Subnet {
                    id: "subnet-1".into(),
                    zone: "us-east-1a".into(),
                },
                Subnet {
                    id: "subnet-2".into(),
                    zone: "us-east-1b".into(),
                },
            ],
            grace_seconds: 0,
            deployment_configuration: DeploymentConfiguration::default(),
            availability_zone_rebalancing: Switch::Enabled,
            platform_version: "LATEST".into(),
            propagate_tags: PropagateTags::None,
            enable_ecs_managed_tags: false,
            enable_execute_command: false,
            tags: Vec::new(),
            deployments: vec![Deployment::new(task_definition)],
            events: VecDeque::new(),
            steady: false,
            created_at: Timestamp::now(),
            inactive_since: None,
        }
    }
}
