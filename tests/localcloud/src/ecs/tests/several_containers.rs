//! Tasks with more than one container.

use super::*;

/// Starts a task of these containers.
async fn run_pair(fake: &Arc<Fake>, containers: &[Value]) -> (Ecs, Value) {
    fake.define("pair", json!({"containerDefinitions": containers}));
    let ecs = start(fake);
    let task = run(&ecs, run_request("pair:1")).await;
    (ecs, task)
}

fn depends_on(mut container: Value, other: &str, condition: &str) -> Value {
    container["dependsOn"] = json!([{"containerName": other, "condition": condition}]);
    container
}

fn not_essential(mut container: Value) -> Value {
    container["essential"] = json!(false);
    container
}

async fn describe(ecs: &Ecs, task: &Value) -> Value {
    let body = json!({"cluster": "test", "tasks": [task["taskArn"]]});
    ok(ecs, "DescribeTasks", body).await["tasks"][0].take()
}

/// A container of a described task.
fn one<'a>(task: &'a Value, name: &str) -> &'a Value {
    let containers = task["containers"].as_array().unwrap();
    containers.iter().find(|one| one["name"] == name).unwrap()
}

async fn running(ecs: &Ecs, task: &Value) -> Value {
    until(
        || describe(ecs, task),
        |task| task["lastStatus"] == "RUNNING",
    )
    .await
}

/// The position of the first line of a container that contains a text.
fn line(fake: &Fake, task: &Value, container: &str, part: &str) -> Option<usize> {
    let stream = stream(task, container);
    fake.lines()
        .iter()
        .position(|(of, line)| *of == stream && line.contains(part))
}

#[tokio::test]
async fn a_sidecar_is_a_process_on_the_same_address_with_a_stream_of_its_own() {
    let fake = Fake::new();
    let containers = [container("app", "serve"), container("sidecar", "sidecar")];
    let (ecs, task) = run_pair(&fake, &containers).await;
    let described = running(&ecs, &task).await;
    let names: BTreeSet<String> = ecs
        .processes()
        .into_iter()
        .map(|process| process.container)
        .collect();
    assert_eq!(names, BTreeSet::from(["app", "sidecar"].map(str::to_owned)));
    printed(&fake, 2).await;
    let interface = &described["containers"][0]["networkInterfaces"][0];
    let address = interface["privateIpv4Address"].as_str().unwrap();
    for (container, text) in [("app", "on "), ("sidecar", "beside ")] {
        let found = line(&fake, &task, container, &format!("{text}{address}"));
        assert!(found.is_some(), "{:?}", fake.lines());
    }
    let id = ecs.processes()[0].task_id.clone();
    assert!(!ecs.kill_container(&id, "another").await);
    assert!(ecs.kill_container(&id, "sidecar").await);
    let ended = ended(&ecs, &task).await;
    assert_eq!(ended["stopCode"], "EssentialContainerExited");
    assert_eq!(one(&ended, "sidecar")["exitCode"], 137);
    assert_eq!(one(&ended, "app")["exitCode"], 0, "SIGTERM ends it");
    ecs.shutdown().await;
}

#[tokio::test]
async fn a_container_that_is_not_essential_may_end() {
    let fake = Fake::new();
    let containers = [
        container("app", "serve"),
        not_essential(container("crash", "crash")),
    ];
    let (ecs, task) = run_pair(&fake, &containers).await;
    until(
        || describe(&ecs, &task),
        |task| one(task, "crash")["exitCode"] == 3,
    )
    .await;
    let described = running(&ecs, &task).await;
    assert_eq!(one(&described, "crash")["lastStatus"], "STOPPED");
    assert_eq!(one(&described, "app")["lastStatus"], "RUNNING");
    assert_eq!(ecs.processes().len(), 1);
    ecs.shutdown().await;
}

#[tokio::test]
async fn a_container_starts_when_the_one_that_it_waits_for_has_ended() {
    for (condition, first) in [
        ("SUCCESS", "late-success"),
        ("COMPLETE", "late-success"),
        ("COMPLETE", "late-crash"),
    ] {
        let fake = Fake::new();
        let containers = [
            depends_on(container("app", "serve"), "first", condition),
            not_essential(container("first", first)),
        ];
        let (ecs, task) = run_pair(&fake, &containers).await;
        running(&ecs, &task).await;
        printed(&fake, 2).await;
        let first = line(&fake, &task, "first", "done");
        let app = line(&fake, &task, "app", "on ");
        assert!(first.is_some() && first < app, "{:?}", fake.lines());
        ecs.shutdown().await;
    }
}

#[tokio::test]
async fn a_container_never_starts_when_the_one_that_it_waits_for_fails() {
    let fake = Fake::new();
    let containers = [
        depends_on(container("app", "serve"), "first", "SUCCESS"),
        not_essential(container("first", "crash")),
    ];
    let (ecs, task) = run_pair(&fake, &containers).await;
    let ended = ended(&ecs, &task).await;
    assert_eq!(ended["stopCode"], "EssentialContainerExited");
    assert_eq!(one(&ended, "first")["exitCode"], 3);
    let app = one(&ended, "app");
    assert_eq!(app["exitCode"], 143);
    let reason = app["reason"].as_str().unwrap();
    assert!(reason.contains("[first] for target [app]"), "{reason}");
    assert_eq!(line(&fake, &task, "app", ""), None, "{:?}", fake.lines());
    ecs.shutdown().await;
}

#[tokio::test]
async fn a_container_stops_after_those_that_depend_on_it() {
    let fake = Fake::new();
    let containers = [
        container("sidecar", "sidecar"),
        depends_on(container("app", "slow-to-stop"), "sidecar", "START"),
    ];
    let (ecs, task) = run_pair(&fake, &containers).await;
    running(&ecs, &task).await;
    printed(&fake, 2).await;
    let stop = json!({"cluster": "test", "task": task["taskArn"]});
    ok(&ecs, "StopTask", stop).await;
    ended(&ecs, &task).await;
    let app = line(&fake, &task, "app", "stopping");
    let sidecar = line(&fake, &task, "sidecar", "stopping");
    assert!(app.is_some() && app < sidecar, "{:?}", fake.lines());
    ecs.shutdown().await;
}

#[tokio::test]
async fn a_container_that_cannot_start_ends_those_that_run_already() {
    let fake = Fake::new();
    let mut broken = depends_on(container("app", "serve"), "sidecar", "START");
    broken["workingDirectory"] = json!("/missing");
    let containers = [container("sidecar", "sidecar"), broken];
    let (ecs, task) = run_pair(&fake, &containers).await;
    let ended = ended(&ecs, &task).await;
    assert_eq!(ended["stopCode"], "TaskFailedToStart");
    let reason = ended["stoppedReason"].as_str().unwrap();
    assert!(
        reason.starts_with("CannotStartContainerError: "),
        "{reason}"
    );
    assert_eq!(ecs.processes(), []);
    ecs.shutdown().await;
}
