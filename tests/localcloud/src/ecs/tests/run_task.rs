//! Tasks that belong to no service.

use super::*;
use crate::ecs::NO_CAPACITY;

fn arn(task: &Value) -> &Value {
    &task["taskArn"]
}

async fn list(ecs: &Ecs, filter: Value) -> Value {
    let mut body = filter;
    body["cluster"] = json!("test");
    ok(ecs, "ListTasks", body).await["taskArns"].take()
}

#[tokio::test]
async fn a_task_runs_to_its_end_with_its_overrides_and_keeps_its_exit_code() {
    let fake = Fake::new();
    let mut app = container("app", "arguments");
    app["command"] = json!(["of", "the", "definition"]);
    app["environment"] = json!([{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]);
    fake.define("arguments", json!({"containerDefinitions": [app]}));
    let ecs = start(&fake);
    let mut request = run_request("arguments:1");
    request["startedBy"] = json!("pulse-1");
    request["tags"] = json!([{"key": "pulse:deployment", "value": "1"}]);
    request["overrides"] = json!({"containerOverrides": [{
        "name": "app",
        "command": ["migrate", "now"],
        "environment": [{"name": "B", "value": "3"}, {"name": "CODE", "value": "7"}],
    }]});
    let started = run(&ecs, request.clone()).await;
    assert_eq!(started["lastStatus"], "PROVISIONING");
    assert_eq!(started["group"], "family:arguments");
    assert_eq!(started["startedBy"], "pulse-1");
    assert_eq!(started["tags"], request["tags"]);
    assert_eq!(
        started["overrides"]["containerOverrides"],
        request["overrides"]["containerOverrides"]
    );
    let ended = ended(&ecs, &started).await;
    assert_eq!(ended["stopCode"], "EssentialContainerExited");
    assert_eq!(ended["stoppedReason"], "Essential container in task exited");
    assert_eq!(ended["containers"][0]["exitCode"], 7);
    assert_eq!(ended["tags"], json!([]), "a stopped task has no tags");
    assert_eq!(
        fake.lines(),
        [(
            stream(&started, "app"),
            "migrate now with 1 and 3".to_owned()
        )]
    );

    let without = run(&ecs, run_request("arguments:1")).await;
    assert_eq!(without.get("startedBy"), None);
    let ended = super::ended(&ecs, &without).await;
    assert_eq!(ended["containers"][0]["exitCode"], 0);
    let line = (
        stream(&without, "app"),
        "of the definition with 1 and 2".to_owned(),
    );
    assert!(fake.lines().contains(&line), "{:?}", fake.lines());
    ecs.shutdown().await;
}

#[tokio::test]
async fn tasks_are_listed_by_family_and_status_or_by_what_started_them() {
    let fake = Fake::new();
    let ecs = start(&fake);
    let mut request = run_request("serve:1");
    request["startedBy"] = json!("pulse-1");
    let running = run(&ecs, request).await;
    let crashed = run(&ecs, run_request("crash:1")).await;
    ended(&ecs, &crashed).await;
    for (filter, expected) in [
        (json!({"startedBy": "pulse-1"}), vec![arn(&running)]),
        (json!({"startedBy": "pulse-2"}), vec![]),
        (json!({"family": "serve"}), vec![arn(&running)]),
        (json!({"family": "crash"}), vec![]),
        (
            json!({"family": "crash", "desiredStatus": "STOPPED"}),
            vec![arn(&crashed)],
        ),
        (
            json!({"family": "serve", "desiredStatus": "STOPPED"}),
            vec![],
        ),
    ] {
        assert_eq!(
            list(&ecs, filter.clone()).await,
            json!(expected),
            "{filter}"
        );
    }
    for other in [
        json!({"family": "serve"}),
        json!({"desiredStatus": "STOPPED"}),
        json!({"serviceName": "app"}),
    ] {
        let mut body = other;
        body["cluster"] = json!("test");
        body["startedBy"] = json!("pulse-1");
        let refused = refused(&ecs, "ListTasks", body).await;
        assert!(
            refused.starts_with("InvalidParameterException"),
            "{refused}"
        );
    }
    ecs.shutdown().await;
}

#[tokio::test]
async fn a_client_token_gives_the_same_task_until_that_is_forgotten() {
    let fake = Fake::new();
    // Stopped tasks are kept for two seconds, and tokens for 43.
    let ecs = start_at(&fake, TimeScale(0.0005));
    let mut request = run_request("serve:1");
    request["clientToken"] = json!("deployment-1");
    let first = run(&ecs, request.clone()).await;
    let again = run(&ecs, request.clone()).await;
    assert_eq!(arn(&again), arn(&first));
    assert_eq!(list(&ecs, json!({})).await, json!([arn(&first)]));

    let mut other = request.clone();
    other["startedBy"] = json!("someone-else");
    let answer = ecs.handle("RunTask", other).await.unwrap();
    assert_eq!(answer.status, 400);
    assert_eq!(answer.body["__type"], "ConflictException");
    assert_eq!(answer.body["resourceIds"], json!([arn(&first)]));
    let mut other = request.clone();
    other["clientToken"] = json!("deployment-2");
    assert_ne!(arn(&run(&ecs, other).await), arn(&first));

    let stop = json!({"cluster": "test", "task": arn(&first)});
    ok(&ecs, "StopTask", stop).await;
    let describe = json!({"cluster": "test", "tasks": [arn(&first)]});
    until(
        || ok(&ecs, "DescribeTasks", describe.clone()),
        |answer| answer["failures"][0]["reason"] == "MISSING",
    )
    .await;
    assert_ne!(arn(&run(&ecs, request).await), arn(&first));
    ecs.shutdown().await;
}

#[tokio::test]
async fn an_injected_failure_starts_no_task_and_hits_one_call() {
    let ecs = start(&Fake::new());
    ecs.fail_next_run_task(NO_CAPACITY);
    let mut request = run_request("serve:1");
    request["clientToken"] = json!("deployment-1");
    let failed = ok(&ecs, "RunTask", request.clone()).await;
    assert_eq!(
        failed,
        json!({"tasks": [], "failures": [{"reason": NO_CAPACITY}]})
    );
    assert_eq!(list(&ecs, json!({})).await, json!([]));
    run(&ecs, request).await;
    ecs.shutdown().await;
}

#[tokio::test]
async fn several_tasks_start_at_once_with_the_tags_of_the_request_first() {
    let ecs = start(&Fake::new());
    let mut request = run_request("serve:1");
    request["count"] = json!(2);
    request["group"] = json!("migrations");
    request["propagateTags"] = json!("TASK_DEFINITION");
    request["enableECSManagedTags"] = json!(true);
    let answer = ok(&ecs, "RunTask", request.clone()).await;
    let tasks = answer["tasks"].as_array().unwrap();
    assert_eq!(tasks.len(), 2);
    assert_ne!(
        tasks[0]["availabilityZone"], tasks[1]["availabilityZone"],
        "they are spread over the zones"
    );
    assert_eq!(tasks[0]["group"], "migrations");
    let managed = json!({"key": "aws:ecs:clusterName", "value": "test"});
    let own = |value: &str| json!({"key": "pulse:environment", "value": value});
    assert_eq!(tasks[0]["tags"], json!([own("of the definition"), managed]));
    request["tags"] = json!([own("of the request")]);
    let task = run(&ecs, request).await;
    assert_eq!(task["tags"], json!([own("of the request"), managed]));
    ecs.shutdown().await;
}

#[tokio::test]
async fn a_stopped_task_gets_sigterm_and_after_the_stop_timeout_sigkill() {
    let fake = Fake::new();
    let ecs = start(&fake);
    for (family, exit_code) in [("serve", 0), ("stubborn", 137)] {
        let before = fake.lines().len();
        let task = run(&ecs, run_request(family)).await;
        printed(&fake, before + 1).await;
        let stop = json!({"cluster": "test", "task": arn(&task), "reason": "rolled back"});
        let stopping = ok(&ecs, "StopTask", stop.clone()).await;
        assert_eq!(stopping["task"]["desiredStatus"], "STOPPED");
        let ended = ended(&ecs, &task).await;
        assert_eq!(ended["stopCode"], "UserInitiated");
        assert_eq!(ended["stoppedReason"], "rolled back");
        assert_eq!(ended["containers"][0]["exitCode"], exit_code);
        // Stopping it again changes nothing.
        let mut again = stop;
        again["reason"] = json!("another reason");
        let again = ok(&ecs, "StopTask", again).await;
        assert_eq!(again["task"]["stoppedReason"], "rolled back");
    }
    assert_eq!(
        refused(&ecs, "StopTask", json!({"cluster": "test", "task": "0123"})).await,
        "InvalidParameterException: The referenced task was not found."
    );
    ecs.shutdown().await;
}

#[tokio::test]
async fn a_task_that_is_stopped_before_it_starts_has_no_exit_code() {
    let ecs = start(&Fake::new());
    ecs.pause_starts(true);
    let task = run(&ecs, run_request("serve:1")).await;
    let stop = json!({"cluster": "test", "task": arn(&task)});
    ok(&ecs, "StopTask", stop).await;
    let ended = ended(&ecs, &task).await;
    assert_eq!(ended["stopCode"], "UserInitiated");
    assert_eq!(ended["containers"][0].get("exitCode"), None);
    ecs.shutdown().await;
}

#[tokio::test]
async fn a_task_of_a_service_that_is_stopped_is_replaced_and_does_not_count_as_failed() {
    let fake = Fake::new();
    let ecs = start(&fake);
    ok(&ecs, "CreateService", request("serve:1")).await;
    steady(&ecs).await;
    let alone = run(&ecs, run_request("serve:1")).await;
    let stopped = tasks(&ecs, "RUNNING").await[0].clone();
    let stop = json!({"cluster": "test", "task": arn(&stopped)});
    ok(&ecs, "StopTask", stop).await;
    assert_eq!(ended(&ecs, &stopped).await["stopCode"], "UserInitiated");
    let service = steady(&ecs).await;
    assert_eq!(service["deployments"][0]["failedTasks"], 0);
    let delete = json!({"cluster": "test", "service": "app", "force": true});
    ok(&ecs, "DeleteService", delete).await;
    until(
        || super::service(&ecs),
        |service| service["status"] == "INACTIVE",
    )
    .await;
    assert_eq!(
        list(&ecs, json!({})).await,
        json!([arn(&alone)]),
        "the task that belongs to no service stays"
    );
    assert_eq!(
        refused(&ecs, "DeleteCluster", json!({"cluster": "test"})).await,
        "ClusterContainsTasksException: The Cluster cannot be deleted while Tasks are active."
    );
    ecs.shutdown().await;
}

#[tokio::test]
async fn run_task_is_refused_with_the_messages_of_ecs() {
    let fake = Fake::new();
    fake.define("inactive", json!({"status": "INACTIVE"}));
    let ecs = start(&fake);
    fn overriding(request: &mut Value, changed: Value) {
        request["overrides"] = json!({"containerOverrides": [changed]});
    }
    type Change = fn(&mut Value);
    let cases: Vec<(Change, &str)> = vec![
        (
            |r| r["cluster"] = json!("nowhere"),
            "ClusterNotFoundException: Cluster not found.",
        ),
        (
            |r| r["taskDefinition"] = json!("unknown:1"),
            "ClientException: TaskDefinition not found.",
        ),
        (
            |r| r["taskDefinition"] = json!("inactive:1"),
            "ClientException: TaskDefinition is inactive",
        ),
        (
            |r| r["networkConfiguration"] = Value::Null,
            "InvalidParameterException: Network Configuration must be provided when networkMode \
             'awsvpc' is specified.",
        ),
        (
            |r| r["networkConfiguration"]["awsvpcConfiguration"]["subnets"] = json!(["subnet-x"]),
            "InvalidParameterException: Error retrieving subnet information for [subnet-x]",
        ),
        (
            |r| overriding(r, json!({"name": "web"})),
            "InvalidParameterException: Override for container named web is not a container in \
             the TaskDefinition.",
        ),
        (
            |r| overriding(r, json!({"name": "app", "image": "other:1"})),
            "InvalidParameterException: ",
        ),
        (
            |r| overriding(r, json!({"name": "app", "command": ["x".repeat(8192)]})),
            "InvalidParameterException: Container Overrides length must be at most 8192",
        ),
        (
            |r| {
                overriding(
                    r,
                    json!({"name": "app", "environment": [{"name": "DRAIN_SECRET", "value": "x"}]}),
                )
            },
            "ClientException: The secret name must be unique and not shared",
        ),
        (
            |r| r["propagateTags"] = json!("SERVICE"),
            "InvalidParameterException: propagateTags",
        ),
        (
            |r| r["tags"] = json!([{"key": "aws:x", "value": ""}]),
            "InvalidParameterException: Tag keys beginning with aws:",
        ),
        (
            |r| r["count"] = json!(0),
            "InvalidParameterException: count",
        ),
        (
            |r| r["count"] = json!(11),
            "InvalidParameterException: count",
        ),
        (
            |r| r["clientToken"] = json!("x".repeat(65)),
            "InvalidParameterException: Client token",
        ),
        (
            |r| r["startedBy"] = json!("a b"),
            "InvalidParameterException: startedBy",
        ),
        (
            |r| r["startedBy"] = json!("x".repeat(129)),
            "InvalidParameterException: startedBy",
        ),
        (
            |r| r["group"] = json!("service:app"),
            "InvalidParameterException: Invalid namespace for group.",
        ),
        (
            |r| r["platformVersion"] = json!("2.0.0"),
            "PlatformUnknownException: ",
        ),
        (
            |r| r["launchType"] = Value::Null,
            "ClientException: The local cloud runs tasks with launchType FARGATE only.",
        ),
        (
            |r| r["volumeConfigurations"] = json!([]),
            "InvalidParameterException: ",
        ),
    ];
    for (change, expected) in cases {
        let mut body = run_request("serve:1");
        change(&mut body);
        let refused = refused(&ecs, "RunTask", body).await;
        assert!(refused.starts_with(expected), "{expected:?}: {refused:?}");
    }
    *fake.trusted.lock().unwrap() = false;
    let refused = refused(&ecs, "RunTask", run_request("serve:1")).await;
    assert!(
        refused.starts_with("ClientException: ECS was unable to assume the role"),
        "{refused}"
    );
    assert_eq!(list(&ecs, json!({})).await, json!([]));
    ecs.shutdown().await;
}
