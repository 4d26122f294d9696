//! Services and tasks from the view of a caller, with real processes and fake backends.

mod run_task;
mod secrets;
mod several_containers;

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use super::answer::Refusal;
use super::backends::{Backends, CallError, Health, Image, TargetGroupUse};
use super::model::TaskDefinition;
use super::names::ClusterName;
use super::secrets::SecretReference;
use super::{Ecs, LoopbackNetwork};
use crate::gateway::ecs::tags_of_named_resources;
use crate::time_scale::TimeScale;

const GROUP: &str = "arn:aws:elasticloadbalancing:us-east-1:000000000000:targetgroup/app/0123";
const ROLE: &str = "arn:aws:iam::000000000000:role/test-execution";
const SECRET: &str = "arn:aws:secretsmanager:us-east-1:000000000000:secret:test/drain-Ab12Cd";

/// The images are scripts. The family of a task definition is the name of its script.
const SCRIPTS: &[(&str, &str)] = &[
    (
        "serve",
        "#!/bin/sh\ntrap 'echo stopping; exit 0' TERM\necho \"on $HOST with $DRAIN_SECRET\"\n\
         while :; do sleep 0.02; done\n",
    ),
    (
        "stubborn",
        "#!/bin/sh\ntrap '' TERM\necho ready\nwhile :; do sleep 0.02; done\n",
    ),
    ("crash", "#!/bin/sh\necho 'no database' >&2\nexit 3\n"),
    ("late-crash", "#!/bin/sh\nsleep 0.2\necho done\nexit 4\n"),
    ("late-success", "#!/bin/sh\nsleep 0.5\necho done\n"),
    (
        "sidecar",
        "#!/bin/sh\ntrap 'echo stopping; exit 0' TERM\necho \"beside $HOST\"\n\
         while :; do sleep 0.02; done\n",
    ),
    (
        "slow-to-stop",
        "#!/bin/sh\ntrap 'sleep 0.5; echo stopping; exit 0' TERM\necho ready\n\
         while :; do sleep 0.02; done\n",
    ),
    (
        "arguments",
        "#!/bin/sh\necho \"$* with $A and $B\"\nexit \"${CODE:-0}\"\n",
    ),
    ("variables", "#!/bin/sh\necho \"A is $A and B is $B\"\n"),
];

/// The rest of the cloud. Each test sets its state.
struct Fake {
    images: tempfile::TempDir,
    group: Mutex<TargetGroupUse>,
    denied: Mutex<BTreeSet<String>>,
    trusted: Mutex<bool>,
    /// The state of all registered targets.
    health: Mutex<&'static str>,
    targets: Mutex<HashMap<(IpAddr, u16), bool>>,
    logs: Mutex<Vec<(String, String)>>,
    /// What tests change in a task definition, by its family.
    definitions: Mutex<HashMap<String, Value>>,
    parameters: Mutex<HashMap<String, String>>,
    secret: Mutex<String>,
}

impl Fake {
    fn new() -> Arc<Self> {
        let images = tempfile::tempdir().unwrap();
        for (name, script) in SCRIPTS {
            write_script(&images.path().join(name), script);
        }
        Arc::new(Fake {
            images,
            group: Mutex::new(TargetGroupUse::Attached),
            denied: Mutex::default(),
            trusted: Mutex::new(true),
            health: Mutex::new("healthy"),
            targets: Mutex::default(),
            logs: Mutex::default(),
            definitions: Mutex::default(),
            parameters: Mutex::default(),
            secret: Mutex::new("a secret".to_owned()),
        })
    }

    fn deny(&self, action: &str) {
        self.denied.lock().unwrap().insert(action.to_owned());
    }

    /// Changes members of the task definition of a family.
    fn define(&self, family: &str, members: Value) {
        let mut definitions = self.definitions.lock().unwrap();
        definitions.insert(family.to_owned(), members);
    }

    /// Denies an action on one resource only.
    fn deny_on(&self, action: &str, resource: &str) {
        self.deny(&format!("{action} {resource}"));
    }

    fn parameter(&self, name: &str, value: &str) {
        let mut parameters = self.parameters.lock().unwrap();
        parameters.insert(name.to_owned(), value.to_owned());
    }

    fn lines(&self) -> Vec<(String, String)> {
        self.logs.lock().unwrap().clone()
    }

    fn targets(&self) -> usize {
        self.targets.lock().unwrap().len()
    }
}

fn write_script(path: &Path, script: &str) {
    std::fs::write(path, script).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn ready<'a, T: Send + 'a>(value: T) -> BoxFuture<'a, T> {
    async move { value }.boxed()
}

impl Backends for Fake {
    fn cluster<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<ClusterName, Refusal>> {
        let arn = "arn:aws:ecs:us-east-1:000000000000:cluster/test";
        ready(match name {
            "test" => ClusterName::from_arn(arn).ok_or_else(Refusal::no_cluster),
            _ => Err(Refusal::no_cluster()),
        })
    }

    fn task_definition<'a>(
        &'a self,
        reference: &'a str,
    ) -> BoxFuture<'a, Result<Option<TaskDefinition>, Refusal>> {
        let name = reference.rsplit('/').next().unwrap_or(reference);
        let image = name.split(':').next().unwrap_or(name);
        // Only the stubborn one is killed, however long the others take.
        let stop_timeout = if image == "stubborn" { 30 } else { 1_000_000 };
        let mut definition = TaskDefinition {
            arn: format!("arn:aws:ecs:us-east-1:000000000000:task-definition/{name}"),
            tags: vec![super::requests::Tag {
                key: "pulse:environment".to_owned(),
                value: "of the definition".to_owned(),
            }],
            body: json!({
                "family": image,
                "status": "ACTIVE",
                "compatibilities": ["EC2", "FARGATE"],
                "cpu": "256",
                "memory": "512",
                "executionRoleArn": ROLE,
                "containerDefinitions": [{
                    "name": "app",
                    "image": format!("000000000000.dkr.ecr.us-east-1.amazonaws.com/{image}@sha256:1"),
                    "portMappings": [{"containerPort": 8000}],
                    "stopTimeout": stop_timeout,
                    "environment": [{"name": "DEPLOYMENT_ID", "value": "one"}],
                    "secrets": [{"name": "DRAIN_SECRET", "valueFrom": SECRET}],
                    "logConfiguration": {"logDriver": "awslogs", "options": {
                        "awslogs-group": "/app", "awslogs-stream-prefix": "app",
                    }},
                }],
            }),
        };
        let changes = self.definitions.lock().unwrap();
        let changes = changes.get(image).and_then(Value::as_object);
        for (member, value) in changes.into_iter().flatten() {
            definition.body[member] = value.clone();
        }
        ready(Ok((image != "unknown").then_some(definition)))
    }

    fn target_group<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<TargetGroupUse, Refusal>> {
        ready(Ok(self.group.lock().unwrap().clone()))
    }

    fn subnet_zone<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<String>, Refusal>> {
        ready(Ok(match id {
            "subnet-a" => Some("us-east-1a".to_owned()),
            "subnet-b" => Some("us-east-1b".to_owned()),
            _ => None,
        }))
    }

    fn has_security_group<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<bool, Refusal>> {
        ready(Ok(id == "sg-1"))
    }

    fn tasks_may_assume<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<bool, CallError>> {
        ready(Ok(*self.trusted.lock().unwrap()))
    }

    fn role_allows<'a>(
        &'a self,
        _: &'a str,
        action: &'a str,
        resource: &'a str,
    ) -> BoxFuture<'a, Result<bool, CallError>> {
        let denied = self.denied.lock().unwrap();
        let on_resource = denied.contains(&format!("{action} {resource}"));
        ready(Ok(!on_resource && !denied.contains(action)))
    }

    fn secret<'a>(&'a self, _: &'a SecretReference) -> BoxFuture<'a, Result<String, CallError>> {
        ready(Ok(self.secret.lock().unwrap().clone()))
    }

    fn parameters<'a>(
        &'a self,
        names: &'a [String],
    ) -> BoxFuture<'a, Result<HashMap<String, String>, CallError>> {
        assert!(names.len() <= 10, "AWS refuses more names in a call");
        let all = self.parameters.lock().unwrap();
        let value = |name: &String| Some((name.clone(), all.get(name)?.clone()));
        ready(Ok(names.iter().filter_map(value).collect()))
    }

    fn create_log_stream<'a>(
        &'a self,
        _: &'a str,
        _: &'a str,
    ) -> BoxFuture<'a, Result<(), CallError>> {
        ready(Ok(()))
    }

    fn put_log_events<'a>(
        &'a self,
        _: &'a str,
        stream: &'a str,
        lines: Vec<(u64, String)>,
    ) -> BoxFuture<'a, Result<(), CallError>> {
        let lines = lines.into_iter().map(|(_, line)| (stream.to_owned(), line));
        self.logs.lock().unwrap().extend(lines);
        ready(Ok(()))
    }

    fn image<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<Image, String>> {
        let name = super::references::repository(reference).to_owned();
        let exists = self.images.path().join(&name).exists();
        ready(if exists {
            Ok(Image {
                root: self.images.path().to_owned(),
                entrypoint: vec![format!("/{name}")],
                command: Vec::new(),
                environment: Vec::new(),
                working_dir: None,
                digest: "sha256:1".to_owned(),
                stop_signal: None,
                folder: None,
            })
        } else {
            Err(format!(
                "CannotPullContainerError: pull image manifest has been retried 5 time(s): failed \
                 to resolve ref {reference}: {reference}: not found"
            ))
        })
    }

    fn register(&self, _: &str, ip: IpAddr, port: u16, _: &str) {
        self.targets.lock().unwrap().insert((ip, port), false);
    }

    fn deregister(&self, _: &str, ip: IpAddr, port: u16) {
        self.targets.lock().unwrap().remove(&(ip, port));
    }

    fn health(&self, _: &str) -> Vec<Health> {
        let state = *self.health.lock().unwrap();
        self.targets
            .lock()
            .unwrap()
            .keys()
            .map(|(ip, port)| Health {
                ip: *ip,
                port: *port,
                state: state.to_owned(),
                description: (state == "unhealthy")
                    .then(|| "Health checks failed with these codes: [500]".to_owned()),
            })
            .collect()
    }
}

fn start(fake: &Arc<Fake>) -> Ecs {
    start_at(fake, TimeScale(0.01))
}

fn start_at(fake: &Arc<Fake>, time_scale: TimeScale) -> Ecs {
    let backends: Arc<dyn Backends> = fake.clone();
    Ecs::with_backends(backends, time_scale, LoopbackNetwork::claim().unwrap())
}

fn request(task_definition: &str) -> Value {
    json!({
        "cluster": "test",
        "serviceName": "app",
        "taskDefinition": task_definition,
        "desiredCount": 2,
        "launchType": "FARGATE",
        "loadBalancers": [
            {"targetGroupArn": GROUP, "containerName": "app", "containerPort": 8000}
        ],
        "networkConfiguration": {"awsvpcConfiguration": {
            "subnets": ["subnet-a", "subnet-b"], "securityGroups": ["sg-1"],
        }},
        "deploymentConfiguration": {
            "deploymentCircuitBreaker": {"enable": true, "rollback": false}
        },
        "tags": [{"key": "pulse:environment", "value": "test"}],
        "propagateTags": "SERVICE",
        "clientToken": "token",
    })
}

/// A RunTask request.
fn run_request(task_definition: &str) -> Value {
    json!({
        "cluster": "test",
        "taskDefinition": task_definition,
        "launchType": "FARGATE",
        "networkConfiguration": {"awsvpcConfiguration": {
            "subnets": ["subnet-a", "subnet-b"], "securityGroups": ["sg-1"],
        }},
    })
}

/// Makes a RunTask request. Returns the first task.
async fn run(ecs: &Ecs, request: Value) -> Value {
    ok(ecs, "RunTask", request).await["tasks"][0].take()
}

/// Waits until a task is STOPPED, and describes it.
async fn ended(ecs: &Ecs, task: &Value) -> Value {
    let body = json!({"cluster": "test", "tasks": [task["taskArn"]], "include": ["TAGS"]});
    let described = until(
        || ok(ecs, "DescribeTasks", body.clone()),
        |answer| answer["tasks"][0]["lastStatus"] == "STOPPED",
    );
    described.await["tasks"][0].take()
}

/// The definition of a container of an image.
fn container(name: &str, image: &str) -> Value {
    json!({
        "name": name,
        "image": format!("000000000000.dkr.ecr.us-east-1.amazonaws.com/{image}@sha256:1"),
        "stopTimeout": 1_000_000,
        "logConfiguration": {"logDriver": "awslogs", "options": {
            "awslogs-group": "/app", "awslogs-stream-prefix": "app",
        }},
    })
}

/// The log stream of a container of a task.
fn stream(task: &Value, container: &str) -> String {
    let arn = task["taskArn"].as_str().unwrap();
    format!("app/{container}/{}", super::names::last_part(arn))
}

async fn call(ecs: &Ecs, operation: &str, body: Value) -> Result<Value, (String, String)> {
    let answer = ecs
        .handle(operation, body)
        .await
        .expect("the local cloud answers it");
    if answer.status == 200 {
        return Ok(answer.body);
    }
    let text = |key: &str| answer.body[key].as_str().unwrap_or_default().to_owned();
    Err((text("__type"), text("message")))
}

async fn ok(ecs: &Ecs, operation: &str, body: Value) -> Value {
    call(ecs, operation, body)
        .await
        .unwrap_or_else(|error| panic!("{operation}: {error:?}"))
}

async fn refused(ecs: &Ecs, operation: &str, body: Value) -> String {
    let (code, message) = call(ecs, operation, body).await.unwrap_err();
    format!("{code}: {message}")
}

async fn service(ecs: &Ecs) -> Value {
    let body = json!({"cluster": "test", "services": ["app"], "include": ["TAGS"]});
    ok(ecs, "DescribeServices", body).await["services"][0].clone()
}

async fn tasks(ecs: &Ecs, desired_status: &str) -> Vec<Value> {
    let body = json!({"cluster": "test", "serviceName": "app", "desiredStatus": desired_status});
    let arns = ok(ecs, "ListTasks", body).await["taskArns"].clone();
    if arns.as_array().is_none_or(Vec::is_empty) {
        return Vec::new();
    }
    let body = json!({"cluster": "test", "tasks": arns, "include": ["TAGS"]});
    let tasks = ok(ecs, "DescribeTasks", body).await["tasks"].clone();
    tasks.as_array().cloned().unwrap_or_default()
}

/// Polls until the answer is as expected.
async fn until<T, F: Future<Output = T>>(
    mut poll: impl FnMut() -> F,
    is_expected: impl Fn(&T) -> bool,
) -> T {
    loop {
        let answer = poll().await;
        if is_expected(&answer) {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// In so many rounds, the scheduler does whatever it would do.
const ROUNDS: u64 = 15;

/// Waits until so many lines are in the logs. A task that has printed one handles signals as its script says.
async fn printed(fake: &Fake, lines: usize) {
    until(|| async { fake.lines().len() }, |count| *count >= lines).await;
}

async fn steady(ecs: &Ecs) -> Value {
    until(
        || service(ecs),
        |service| {
            service["deployments"][0]["rolloutState"] == "COMPLETED" && service["runningCount"] == 2
        },
    )
    .await
}

fn messages(service: &Value) -> Vec<String> {
    let events = service["events"].as_array().cloned().unwrap_or_default();
    let message = |event: &Value| event["message"].as_str().unwrap_or_default().to_owned();
    events.iter().rev().map(message).collect()
}

fn position(messages: &[String], part: &str) -> usize {
    messages
        .iter()
        .position(|message| message.contains(part))
        .unwrap_or_else(|| panic!("no event contains {part:?}: {messages:#?}"))
}

#[tokio::test]
async fn a_service_starts_its_tasks_registers_them_and_reaches_a_steady_state() {
    let fake = Fake::new();
    let ecs = start(&fake);
    let created = ok(&ecs, "CreateService", request("serve:1")).await;
    assert_eq!(created["service"]["status"], "ACTIVE");
    assert_eq!(
        created["service"]["deployments"][0]["rolloutState"],
        "IN_PROGRESS"
    );
    let service = steady(&ecs).await;
    assert_eq!(service["pendingCount"], 0);
    assert_eq!(service["tags"][0]["key"], "pulse:environment");
    assert_eq!(fake.targets(), 2);
    assert_eq!(ecs.processes().len(), 2);
    let messages = messages(&service);
    let started = position(&messages, "(service app) has started 2 tasks: (task ");
    let registered = position(
        &messages,
        "(service app) registered 1 targets in (target-group ",
    );
    let done = position(&messages, "(service app) has reached a steady state.");
    assert!(started < registered && registered < done, "{messages:#?}");

    let tasks = tasks(&ecs, "RUNNING").await;
    let zones: BTreeSet<_> = tasks
        .iter()
        .map(|t| t["availabilityZone"].to_string())
        .collect();
    assert_eq!(zones.len(), 2, "spread over both zones");
    for task in tasks {
        assert_eq!(task["lastStatus"], "RUNNING");
        assert_eq!(task["group"], "service:app");
        assert_eq!(task["startedBy"], service["deployments"][0]["id"]);
        assert_eq!(task["tags"][0]["value"], "test");
        let container = &task["containers"][0];
        assert_eq!(container["imageDigest"], "sha256:1");
        assert!(container["runtimeId"].is_string());
        let address = container["networkInterfaces"][0]["privateIpv4Address"].clone();
        let details = task["attachments"][0]["details"].as_array().unwrap();
        let detail = details
            .iter()
            .find(|one| one["name"] == "privateIPv4Address")
            .unwrap();
        assert_eq!(detail["value"], address);
        let id = task["taskArn"]
            .as_str()
            .unwrap()
            .rsplit('/')
            .next()
            .unwrap()
            .to_owned();
        let line = format!("on {} with a secret", address.as_str().unwrap());
        let stream = format!("app/app/{id}");
        until(
            || async { fake.lines() },
            |lines| lines.contains(&(stream.clone(), line.clone())),
        )
        .await;
    }
    ecs.shutdown().await;
    assert_eq!(ecs.processes(), []);
}

#[tokio::test]
async fn a_call_is_authorised_by_the_tags_of_the_services_or_tasks_that_it_names() {
    let ecs = start(&Fake::new());
    ok(&ecs, "CreateService", request("serve:1")).await;
    steady(&ecs).await;
    let running = tasks(&ecs, "RUNNING").await;
    let task = running[0]["taskArn"].as_str().unwrap();
    let service = "arn:aws:ecs:us-east-1:000000000000:service/test/app";
    let cluster = "arn:aws:ecs:us-east-1:000000000000:cluster/test";
    let id = super::names::last_part(task);
    for (operation, body, tagged) in [
        ("UpdateService", json!({"service": "app"}), Some(service)),
        ("UpdateService", json!({"service": service}), Some(service)),
        ("DeleteService", json!({"service": "app"}), Some(service)),
        ("DeleteService", json!({"service": "missing"}), None),
        ("CreateService", json!({"serviceName": "app"}), None),
        (
            "DescribeServices",
            json!({"services": ["missing", "app"]}),
            Some(service),
        ),
        ("DescribeTasks", json!({"tasks": [id]}), Some(task)),
        ("DescribeTasks", json!({"tasks": [task]}), Some(task)),
        ("DescribeTasks", json!({"tasks": ["app"]}), None),
    ] {
        for cluster in ["test", cluster] {
            let mut body = body.clone();
            body["cluster"] = json!(cluster);
            let tags = tags_of_named_resources(&ecs, operation, &body);
            let expected = match tagged {
                Some(arn) => json!({arn: {"pulse:environment": "test"}}),
                None => json!({}),
            };
            assert_eq!(tags, expected, "{operation} {body}");
        }
    }
    ecs.shutdown().await;
}

#[tokio::test]
async fn a_deleted_service_is_draining_is_not_listed_and_becomes_inactive() {
    let fake = Fake::new();
    let ecs = start(&fake);
    ok(&ecs, "CreateService", request("serve:1")).await;
    steady(&ecs).await;
    printed(&fake, 2).await;
    let delete = |force: bool| json!({"cluster": "test", "service": "app", "force": force});
    assert_eq!(
        refused(&ecs, "DeleteService", delete(false)).await,
        "InvalidParameterException: The service cannot be stopped while it is scaled above 0."
    );
    let deleted = ok(&ecs, "DeleteService", delete(true)).await;
    assert_eq!(deleted["service"]["status"], "DRAINING");
    let listed = ok(&ecs, "ListServices", json!({"cluster": "test"})).await;
    assert_eq!(listed["serviceArns"], json!([]));
    assert_eq!(
        refused(&ecs, "CreateService", request("serve:1")).await,
        "InvalidParameterException: Unable to Start a service that is still Draining."
    );
    assert_eq!(
        refused(
            &ecs,
            "UpdateService",
            json!({"cluster": "test", "service": "app"})
        )
        .await,
        "ServiceNotActiveException: Service was not ACTIVE."
    );
    until(|| service(&ecs), |service| service["status"] == "INACTIVE").await;
    let stopped = until(
        || tasks(&ecs, "STOPPED"),
        |tasks| tasks.len() == 2 && tasks.iter().all(|task| task["lastStatus"] == "STOPPED"),
    )
    .await;
    for task in stopped {
        assert_eq!(task["stopCode"], "ServiceSchedulerInitiated");
        assert_eq!(task["containers"][0]["exitCode"], 0, "SIGTERM ends it");
        assert_eq!(task["attachments"][0]["status"], "DELETED");
    }
    assert_eq!(fake.targets(), 0);
    assert_eq!(ecs.processes(), []);
    ok(&ecs, "CreateService", request("serve:1")).await;
    ecs.shutdown().await;
}

#[tokio::test]
async fn a_task_that_exits_is_stopped_with_its_exit_code_and_replaced() {
    let fake = Fake::new();
    let ecs = start(&fake);
    ok(&ecs, "CreateService", request("serve:1")).await;
    steady(&ecs).await;
    let killed = ecs.processes()[0].task_id.clone();
    assert!(ecs.kill(&killed).await);
    let stopped = until(
        || tasks(&ecs, "STOPPED"),
        |tasks| tasks.len() == 1 && tasks[0]["lastStatus"] == "STOPPED",
    )
    .await;
    assert!(stopped[0]["taskArn"].as_str().unwrap().ends_with(&killed));
    assert_eq!(stopped[0]["stopCode"], "EssentialContainerExited");
    assert_eq!(
        stopped[0]["stoppedReason"],
        "Essential container in task exited"
    );
    assert_eq!(stopped[0]["containers"][0]["exitCode"], 137);
    let replaced = until(|| service(&ecs), |s| s["runningCount"] == 2).await;
    assert_eq!(replaced["deployments"][0]["rolloutState"], "COMPLETED");
    assert_eq!(replaced["deployments"][0]["failedTasks"], 0);
    ecs.shutdown().await;
}

#[tokio::test]
async fn three_crashes_fail_the_deployment_and_no_further_task_starts() {
    let fake = Fake::new();
    // A task that is slow to crash is not healthy before.
    *fake.health.lock().unwrap() = "initial";
    let ecs = start(&fake);
    ok(&ecs, "CreateService", request("crash:1")).await;
    let failed = until(
        || service(&ecs),
        |service| service["deployments"][0]["rolloutState"] == "FAILED",
    )
    .await;
    let deployment = &failed["deployments"][0];
    assert_eq!(
        deployment["rolloutStateReason"],
        "ECS deployment circuit breaker: tasks failed to start."
    );
    assert!(deployment["failedTasks"].as_u64().unwrap() >= 3);
    position(
        &messages(&failed),
        "deployment failed: tasks failed to start.",
    );
    let count = || async { tasks(&ecs, "STOPPED").await.len() };
    until(|| tasks(&ecs, "RUNNING"), Vec::is_empty).await;
    let before = count().await;
    ecs.after_rounds(ROUNDS).await;
    assert_eq!(count().await, before, "a FAILED deployment starts no task");
    let stopped = tasks(&ecs, "STOPPED").await;
    assert_eq!(stopped[0]["stopCode"], "EssentialContainerExited");
    assert_eq!(stopped[0]["containers"][0]["exitCode"], 3);
    assert!(fake.lines().iter().any(|(_, line)| line == "no database"));
    assert_eq!(
        fake.targets(),
        0,
        "a crash-looping container leaves no target"
    );
    ecs.shutdown().await;
}

#[tokio::test]
async fn crashes_of_running_tasks_count_until_a_task_is_healthy() {
    let fake = Fake::new();
    *fake.health.lock().unwrap() = "initial";
    let ecs = start(&fake);
    ok(&ecs, "CreateService", request("late-crash:1")).await;
    until(
        || service(&ecs),
        |service| service["deployments"][0]["rolloutState"] == "FAILED",
    )
    .await;
    ecs.shutdown().await;
}

#[tokio::test]
async fn an_image_that_does_not_exist_fails_the_task_before_it_starts() {
    let fake = Fake::new();
    let ecs = start(&fake);
    ok(&ecs, "CreateService", request("missing:1")).await;
    let stopped = until(
        || tasks(&ecs, "STOPPED"),
        |tasks| tasks.iter().any(|task| task["lastStatus"] == "STOPPED"),
    )
    .await;
    assert_eq!(stopped[0]["stopCode"], "TaskFailedToStart");
    let reason = stopped[0]["stoppedReason"].as_str().unwrap();
    assert!(reason.starts_with("CannotPullContainerError: "), "{reason}");
    assert_eq!(stopped[0]["containers"][0]["exitCode"], Value::Null);
    ecs.shutdown().await;
}

#[tokio::test]
async fn tasks_whose_start_is_paused_stay_pending_and_run_afterwards() {
    let fake = Fake::new();
    let ecs = start(&fake);
    ecs.pause_starts(true);
    ok(&ecs, "CreateService", request("serve:1")).await;
    until(|| service(&ecs), |service| service["pendingCount"] == 2).await;
    ecs.after_rounds(ROUNDS).await;
    assert_eq!(service(&ecs).await["pendingCount"], 2);
    ecs.pause_starts(false);
    steady(&ecs).await;
    ecs.shutdown().await;
}

#[tokio::test]
async fn the_stopped_reason_names_each_permission_that_the_execution_role_lacks() {
    for (action, start_of_reason) in [
        (
            "secretsmanager:GetSecretValue",
            "ResourceInitializationError: unable to pull secrets or registry auth: execution \
             resource retrieval failed: unable to retrieve secret from asm",
        ),
        (
            "ecr:GetAuthorizationToken",
            "ResourceInitializationError: unable to pull secrets or registry auth: execution \
             resource retrieval failed: unable to retrieve ecr registry auth",
        ),
        ("ecr:BatchGetImage", "CannotPullContainerError: "),
        ("ecr:GetDownloadUrlForLayer", "CannotPullContainerError: "),
        (
            "logs:CreateLogStream",
            "ResourceInitializationError: failed to validate logger args",
        ),
    ] {
        let fake = Fake::new();
        fake.deny(action);
        let ecs = start(&fake);
        ok(&ecs, "CreateService", request("serve:1")).await;
        let stopped = until(|| tasks(&ecs, "STOPPED"), |tasks| !tasks.is_empty()).await;
        let reason = stopped[0]["stoppedReason"].as_str().unwrap();
        assert!(reason.starts_with(start_of_reason), "{reason}");
        assert_eq!(stopped[0]["stopCode"], "TaskFailedToStart");
        ecs.shutdown().await;
    }
}

#[tokio::test]
async fn without_permission_to_put_log_events_the_task_runs_and_its_lines_are_lost() {
    let fake = Fake::new();
    fake.deny("logs:PutLogEvents");
    let ecs = start(&fake);
    ok(&ecs, "CreateService", request("serve:1")).await;
    steady(&ecs).await;
    ecs.shutdown().await;
    assert_eq!(fake.lines(), []);
}

#[tokio::test]
async fn with_a_role_that_ecs_cannot_assume_no_process_starts_and_an_event_gives_the_reason() {
    let fake = Fake::new();
    *fake.trusted.lock().unwrap() = false;
    let ecs = start(&fake);
    ok(&ecs, "CreateService", request("serve:1")).await;
    until(
        || service(&ecs),
        |service| {
            let part = "failed to launch a task with (error ECS was unable to assume the role";
            messages(service)
                .iter()
                .any(|message| message.contains(part))
        },
    )
    .await;
    assert_eq!(ecs.processes(), []);
    ecs.shutdown().await;
}

#[tokio::test]
async fn a_task_that_stays_unhealthy_past_the_grace_period_is_replaced() {
    let fake = Fake::new();
    let ecs = start(&fake);
    let mut create = request("serve:1");
    create["healthCheckGracePeriodSeconds"] = json!(i32::MAX);
    ok(&ecs, "CreateService", create).await;
    steady(&ecs).await;
    *fake.health.lock().unwrap() = "unhealthy";
    ecs.after_rounds(ROUNDS).await;
    assert_eq!(
        tasks(&ecs, "STOPPED").await.len(),
        0,
        "the grace period has not ended"
    );
    let update = json!({"cluster": "test", "service": "app", "healthCheckGracePeriodSeconds": 0});
    ok(&ecs, "UpdateService", update).await;
    let stopped = until(|| tasks(&ecs, "STOPPED"), |tasks| tasks.len() >= 2).await;
    *fake.health.lock().unwrap() = "healthy";
    assert_eq!(
        stopped[0]["stoppedReason"],
        format!("Task failed ELB health checks in (target-group {GROUP})")
    );
    assert_eq!(stopped[0]["stopCode"], "ServiceSchedulerInitiated");
    let service = steady(&ecs).await;
    position(
        &messages(&service),
        "is unhealthy in (target-group arn:aws:elasticloadbalancing:us-east-1:000000000000:\
         targetgroup/app/0123) due to (reason Health checks failed with these codes: [500]).",
    );
    ecs.shutdown().await;
}

#[tokio::test]
async fn a_process_that_ignores_sigterm_is_killed_after_the_stop_timeout() {
    let fake = Fake::new();
    let ecs = start(&fake);
    ok(&ecs, "CreateService", request("stubborn:1")).await;
    steady(&ecs).await;
    printed(&fake, 2).await;
    let scale = json!({"cluster": "test", "service": "app", "desiredCount": 1});
    ok(&ecs, "UpdateService", scale).await;
    let stopped = until(
        || tasks(&ecs, "STOPPED"),
        |tasks| tasks.iter().any(|task| task["lastStatus"] == "STOPPED"),
    )
    .await;
    assert_eq!(stopped[0]["containers"][0]["exitCode"], 137);
    assert_eq!(stopped[0]["stopCode"], "ServiceSchedulerInitiated");
    ecs.shutdown().await;
}

#[tokio::test]
async fn a_forced_deployment_needs_a_target_group_that_a_load_balancer_uses() {
    let fake = Fake::new();
    let ecs = start(&fake);
    ok(&ecs, "CreateService", request("serve:1")).await;
    *fake.group.lock().unwrap() = TargetGroupUse::Unattached;
    let update = json!({"cluster": "test", "service": "app", "forceNewDeployment": true});
    assert_eq!(
        refused(&ecs, "UpdateService", update).await,
        format!(
            "InvalidParameterException: The target group with targetGroupArn {GROUP} does not \
             have an associated load balancer."
        )
    );
    assert_eq!(
        service(&ecs).await["deployments"].as_array().unwrap().len(),
        1
    );
    let scale = json!({"cluster": "test", "service": "app", "desiredCount": 1});
    ok(&ecs, "UpdateService", scale).await;
    ecs.shutdown().await;
}

#[tokio::test]
async fn a_forced_deployment_starts_its_tasks_before_it_stops_the_old_ones() {
    let fake = Fake::new();
    let ecs = start(&fake);
    ok(&ecs, "CreateService", request("serve:1")).await;
    steady(&ecs).await;
    let before = tasks(&ecs, "RUNNING").await;
    let update = json!({"cluster": "test", "service": "app", "forceNewDeployment": true});
    let updated = ok(&ecs, "UpdateService", update).await;
    assert_eq!(
        updated["service"]["deployments"].as_array().unwrap().len(),
        2
    );
    let mut fewest = u64::MAX;
    let done = loop {
        let service = service(&ecs).await;
        fewest = fewest.min(service["runningCount"].as_u64().unwrap_or(0));
        let deployments = service["deployments"].as_array().unwrap();
        if deployments.len() == 1 && deployments[0]["rolloutState"] == "COMPLETED" {
            break service;
        }
        ecs.after_rounds(1).await;
    };
    assert!(fewest >= 2, "only {fewest} tasks ran at some point");
    assert_eq!(done["runningCount"], 2);
    for task in tasks(&ecs, "RUNNING").await {
        let is_same = |old: &Value| old["taskArn"] == task["taskArn"];
        assert!(!before.iter().any(is_same), "{task} is an old one");
    }
    ecs.shutdown().await;
}

#[tokio::test]
async fn create_service_is_refused_with_the_messages_of_ecs() {
    let fake = Fake::new();
    let ecs = start(&fake);
    type Change = fn(&mut Value);
    let cases: Vec<(&str, Change, String)> = vec![
        (
            "cluster",
            |r| r["cluster"] = json!("nowhere"),
            "ClusterNotFoundException: Cluster not found.".into(),
        ),
        (
            "task definition",
            |r| r["taskDefinition"] = json!("unknown:1"),
            "ClientException: TaskDefinition not found.".into(),
        ),
        (
            "container",
            |r| r["loadBalancers"][0]["containerName"] = json!("web"),
            "InvalidParameterException: The container web does not exist in the task definition."
                .into(),
        ),
        (
            "port",
            |r| r["loadBalancers"][0]["containerPort"] = json!(80),
            "InvalidParameterException: The container app did not have a container port 80 \
             defined."
                .into(),
        ),
        (
            "subnet",
            |r| {
                r["networkConfiguration"]["awsvpcConfiguration"]["subnets"] = json!(["subnet-x"]);
            },
            "InvalidParameterException: Error retrieving subnet information for [subnet-x]: The \
             subnet ID 'subnet-x' does not exist (ErrorCode: InvalidSubnetID.NotFound)"
                .into(),
        ),
        (
            "grace period without load balancer",
            |r| {
                r["loadBalancers"] = json!([]);
                r["healthCheckGracePeriodSeconds"] = json!(60);
            },
            "InvalidParameterException: Health check grace period is only valid for services \
             configured to use load balancers"
                .into(),
        ),
    ];
    for (what, change, expected) in cases {
        let mut body = request("serve:1");
        change(&mut body);
        assert_eq!(
            refused(&ecs, "CreateService", body).await,
            expected,
            "{what}"
        );
    }
    *fake.group.lock().unwrap() = TargetGroupUse::Unattached;
    assert_eq!(
        refused(&ecs, "CreateService", request("serve:1")).await,
        format!(
            "InvalidParameterException: The target group with targetGroupArn {GROUP} does not \
             have an associated load balancer."
        )
    );
    ecs.shutdown().await;
}

#[tokio::test]
async fn a_repeated_request_creates_no_second_service_and_a_different_one_is_refused() {
    let fake = Fake::new();
    let ecs = start(&fake);
    let first = ok(&ecs, "CreateService", request("serve:1")).await;
    let second = ok(&ecs, "CreateService", request("serve:1")).await;
    assert_eq!(
        first["service"]["deployments"][0]["id"],
        second["service"]["deployments"][0]["id"]
    );
    let mut other = request("serve:1");
    other["desiredCount"] = json!(3);
    assert_eq!(
        refused(&ecs, "CreateService", other).await,
        "InvalidParameterException: Creation of service was not idempotent."
    );
    ecs.shutdown().await;
}

#[tokio::test]
async fn lists_are_paged_and_descriptions_are_limited() {
    let fake = Fake::new();
    let ecs = start(&fake);
    for number in 0..11 {
        let mut body = request("serve:1");
        body["serviceName"] = json!(format!("app-{number}"));
        body["desiredCount"] = json!(0);
        ok(&ecs, "CreateService", body).await;
    }
    let first = ok(&ecs, "ListServices", json!({"cluster": "test"})).await;
    assert_eq!(first["serviceArns"].as_array().unwrap().len(), 10);
    let next = json!({"cluster": "test", "nextToken": first["nextToken"]});
    let second = ok(&ecs, "ListServices", next).await;
    assert_eq!(second["serviceArns"].as_array().unwrap().len(), 1);
    let eleven: Vec<String> = (0..11).map(|number| format!("app-{number}")).collect();
    assert_eq!(
        refused(
            &ecs,
            "DescribeServices",
            json!({"cluster": "test", "services": eleven})
        )
        .await,
        "InvalidParameterException: service names can have at most 10 items."
    );
    let missing = json!({"cluster": "test", "services": ["app-0", "missing"]});
    let answer = ok(&ecs, "DescribeServices", missing).await;
    assert_eq!(answer["services"].as_array().unwrap().len(), 1);
    assert_eq!(
        answer["failures"],
        json!([{
            "arn": "arn:aws:ecs:us-east-1:000000000000:service/test/missing",
            "reason": "MISSING",
        }])
    );
    let unknown = json!({"cluster": "test", "tasks": ["0123"]});
    let answer = ok(&ecs, "DescribeTasks", unknown).await;
    assert_eq!(answer["failures"][0]["reason"], "MISSING");
    let many: Vec<String> = (0..101).map(|number| number.to_string()).collect();
    let answer = call(
        &ecs,
        "DescribeTasks",
        json!({"cluster": "test", "tasks": many}),
    )
    .await;
    assert!(answer.is_err());
    ecs.shutdown().await;
}

#[tokio::test]
async fn ministack_keeps_clusters_and_task_definitions_but_a_cluster_in_use_cannot_be_deleted() {
    let fake = Fake::new();
    let ecs = start(&fake);
    ok(&ecs, "CreateService", request("serve:1")).await;
    assert_eq!(ecs.handle("DescribeClusters", json!({})).await, None);
    assert_eq!(
        ecs.handle("RegisterTaskDefinition", json!({"family": "a"}))
            .await,
        None
    );
    assert_eq!(
        refused(&ecs, "DeleteCluster", json!({"cluster": "test"})).await,
        "ClusterContainsServicesException: The Cluster cannot be deleted while Services are \
         active."
    );
    ecs.shutdown().await;
}

/// Asserts that a service is missing for every call.
async fn is_not_found(ecs: &Ecs, name: &str) {
    for (operation, member) in [
        ("UpdateService", "service"),
        ("DeleteService", "service"),
        ("ListTasks", "serviceName"),
    ] {
        assert_eq!(
            refused(ecs, operation, json!({"cluster": "test", member: name})).await,
            "ServiceNotFoundException: Service not found.",
            "{operation}"
        );
    }
    let describe = json!({"cluster": "test", "services": [name]});
    let described = ok(ecs, "DescribeServices", describe).await;
    assert_eq!(described["failures"][0]["reason"], "MISSING");
}

#[tokio::test]
async fn a_service_that_never_existed_is_not_found() {
    let ecs = start(&Fake::new());
    is_not_found(&ecs, "app").await;
    ecs.shutdown().await;
}

#[tokio::test]
async fn a_deleted_service_with_or_without_tasks_is_forgotten_after_some_time() {
    for desired_count in [2, 0] {
        let fake = Fake::new();
        let ecs = start_at(&fake, TimeScale(0.0001));
        let mut create = request("serve:1");
        create["desiredCount"] = json!(desired_count);
        ok(&ecs, "CreateService", create).await;
        until(
            || service(&ecs),
            |service| service["runningCount"] == desired_count,
        )
        .await;
        let stopping = tasks(&ecs, "RUNNING").await;
        let delete = json!({"cluster": "test", "service": "app", "force": true});
        ok(&ecs, "DeleteService", delete).await;
        until(|| service(&ecs), Value::is_null).await;
        is_not_found(&ecs, "app").await;
        if desired_count > 0 {
            let arns: Vec<&Value> = stopping.iter().map(|task| &task["taskArn"]).collect();
            let described = json!({"cluster": "test", "tasks": arns});
            let described = ok(&ecs, "DescribeTasks", described).await;
            assert_eq!(described["tasks"], json!([]));
            assert_eq!(described["failures"].as_array().unwrap().len(), 2);
        }
        ecs.shutdown().await;
    }
}
