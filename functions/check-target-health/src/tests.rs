use super::*;
use lifecycle::Settings;
use memory_aws::{MemoryAws, group_arn, own_tags};
use serde_json::{Value, json};

const ID: &str = "test-20251027-122112Z";
/// The one rollout of a service that was created and never updated.
const ROLLOUT: &str = "ecs-svc/1";

/// What AWS shows of the deployment.
#[derive(Default, Clone)]
struct Shown {
    targets: Vec<Value>,
    service: Option<Value>,
    stopped: Vec<Value>,
    log: Vec<&'static str>,
}

async fn check(shown: Shown) -> Output {
    check_tasks(shown, false).await
}

async fn check_fresh_tasks(shown: Shown) -> Output {
    check_tasks(shown, true).await
}

async fn check_tasks(shown: Shown, fresh_tasks: bool) -> Output {
    let aws = MemoryAws::default();
    aws.with(|state| {
        state.add_target_group(ID, own_tags(ID)).health = shown.targets;
        if let Some(fields) = shown.service {
            let service = state.add_service(ID, own_tags(ID));
            service["deployments"] = json!([]);
            for (field, value) in fields.as_object().unwrap() {
                service[field] = value.clone();
            }
        }
        state.tasks = shown.stopped;
        let log = shown.log.into_iter().map(str::to_owned).collect();
        state.logs.insert(format!("{ID}/app/t1"), log);
    });
    check_on(&aws, fresh_tasks).await
}

async fn check_on(aws: &MemoryAws, fresh_tasks: bool) -> Output {
    let clients = Clients {
        ecs: aws_sdk_ecs::Client::new(&aws.config()),
        elb: aws_sdk_elasticloadbalancingv2::Client::new(&aws.config()),
        logs: aws_sdk_cloudwatchlogs::Client::new(&aws.config()),
    };
    let input = Input {
        deployment_id: ID.parse().unwrap(),
        target_group_arn: group_arn(ID),
        desired_count: 2,
        fresh_tasks,
    };
    run(&clients, &Settings::for_tests(), input).await.unwrap()
}

/// A service with these rollouts: id, status, rollout state.
fn rolling(rollouts: &[(&str, &str, &str)]) -> Value {
    let rollouts = rollouts
        .iter()
        .map(|(id, status, state)| json!({"id": id, "status": status, "rolloutState": state}));
    json!({"runningCount": 4, "deployments": rollouts.collect::<Vec<_>>()})
}

fn target(state: &str) -> Value {
    json!({"State": state})
}

fn active() -> Value {
    json!({
        "deployments": [{"id": ROLLOUT, "status": "PRIMARY"}],
        "runningCount": 1,
        "pendingCount": 1,
    })
}

fn stopped(code: &str, reason: &str, exit_code: Option<i32>) -> Value {
    json!({
        "taskArn": "arn:aws:ecs:us-east-1:1:task/test/t1",
        "group": format!("service:{ID}"),
        "desiredStatus": "STOPPED",
        "startedBy": ROLLOUT,
        "stopCode": code,
        "stoppedReason": reason,
        "containers": [{"name": "app", "exitCode": exit_code}],
    })
}

#[tokio::test]
async fn as_many_healthy_as_desired_is_healthy() {
    let output = check(Shown {
        targets: vec![target("healthy"); 2],
        ..Shown::default()
    })
    .await;
    assert_eq!(
        (output.verdict, output.healthy, output.desired),
        (Verdict::Healthy, 2, 2)
    );
}

#[tokio::test]
async fn an_empty_target_group_is_not_healthy() {
    let output = check(Shown {
        service: Some(active()),
        ..Shown::default()
    })
    .await;
    assert_eq!(output.verdict, Verdict::Waiting);
    assert_eq!(
        output.reason,
        "0 of 2 targets are healthy; tasks: 1 running, 1 pending"
    );
}

#[tokio::test]
async fn one_healthy_of_two_waits() {
    let targets = vec![target("healthy"), target("initial")];
    let output = check(Shown {
        targets,
        service: Some(active()),
        ..Shown::default()
    })
    .await;
    assert_eq!(output.verdict, Verdict::Waiting);
}

#[tokio::test]
async fn a_target_group_that_is_not_named_by_a_rule_fails_at_once() {
    let unused = json!({"State": "unused", "Reason": "Target.NotInUse"});
    let output = check(Shown {
        targets: vec![unused],
        service: Some(active()),
        ..Shown::default()
    })
    .await;
    assert_eq!(output.verdict, Verdict::Failed);
    assert!(
        output.reason.contains("Target.NotInUse"),
        "{}",
        output.reason
    );
}

#[tokio::test]
async fn two_crashed_tasks_fail_with_exit_code_and_log_lines() {
    let crash = stopped(
        "EssentialContainerExited",
        "Essential container in task exited",
        Some(3),
    );
    let output = check(Shown {
        service: Some(active()),
        stopped: vec![crash.clone(), crash],
        log: vec!["starting\n", "no database\n"],
        ..Shown::default()
    })
    .await;
    assert_eq!(output.verdict, Verdict::Failed);
    assert_eq!(
        output.reason,
        "0 of 2 targets are healthy; 2 tasks stopped, the last one: Essential container in task exited (exit code 3); \
         its last log lines: starting | no database"
    );
}

#[tokio::test]
async fn a_log_line_is_shown_without_what_moves_the_cursor() {
    let crash = stopped(
        "EssentialContainerExited",
        "Essential container in task exited",
        Some(3),
    );
    let output = check(Shown {
        service: Some(active()),
        stopped: vec![crash.clone(), crash],
        log: vec!["\u{1b}[31mERROR\tno\u{0} \u{202e}database\r\n"],
        ..Shown::default()
    })
    .await;
    assert!(
        output
            .reason
            .ends_with(r"its last log lines: \u{1b}[31mERROR no\0 \u{202e}database"),
        "{}",
        output.reason
    );
}

#[tokio::test]
async fn one_crashed_task_may_be_bad_luck() {
    let crash = stopped(
        "EssentialContainerExited",
        "Essential container in task exited",
        Some(1),
    );
    let output = check(Shown {
        service: Some(active()),
        stopped: vec![crash],
        ..Shown::default()
    })
    .await;
    assert_eq!(output.verdict, Verdict::Waiting);
    assert!(output.reason.contains("exit code 1"), "{}", output.reason);
}

#[tokio::test]
async fn an_image_that_cannot_be_pulled_fails_without_a_look_at_the_log() {
    let reason =
        "CannotPullContainerError: pull image manifest has been retried 5 time(s): not found";
    let task = stopped("TaskFailedToStart", reason, None);
    let output = check(Shown {
        service: Some(active()),
        stopped: vec![task.clone(), task],
        ..Shown::default()
    })
    .await;
    assert_eq!(output.verdict, Verdict::Failed);
    assert!(
        output.reason.contains(reason) && !output.reason.contains("log"),
        "{}",
        output.reason
    );
}

#[tokio::test]
async fn tasks_that_lacked_capacity_or_were_stopped_by_hand_do_not_count() {
    let capacity = stopped(
        "TaskFailedToStart",
        "Capacity is unavailable at this time",
        None,
    );
    let by_hand = stopped("UserInitiated", "Task stopped by user", Some(143));
    let output = check(Shown {
        service: Some(active()),
        stopped: vec![capacity.clone(), capacity, by_hand.clone(), by_hand],
        ..Shown::default()
    })
    .await;
    assert_eq!(output.verdict, Verdict::Waiting);
}

#[tokio::test]
async fn the_answers_of_replaced_tasks_to_health_checks_are_read_from_the_events() {
    let service = json!({
        "deployments": [{"id": ROLLOUT, "status": "PRIMARY"}],
        "events": [
            {"message": "(service test-20251027-122112Z) has stopped 1 running tasks: (task t1)."},
            {"message": "(service test-20251027-122112Z) (port 8000) is unhealthy in (target-group \
                arn) due to (reason Health checks failed with these codes: [500])."},
        ],
    });
    let failed = stopped(
        "ServiceSchedulerInitiated",
        "Task failed ELB health checks in (target-group arn)",
        None,
    );
    let output = check(Shown {
        targets: vec![target("initial")],
        service: Some(service),
        stopped: vec![failed.clone(), failed],
        ..Shown::default()
    })
    .await;
    assert_eq!(output.verdict, Verdict::Failed);
    assert!(
        output.reason.ends_with(
            "; targets failed GET /_health (Health checks failed with these codes: [500])"
        ),
        "{}",
        output.reason
    );
}

#[tokio::test]
async fn a_failure_of_the_circuit_breaker_is_final() {
    let service = json!({"deployments": [{
        "id": ROLLOUT,
        "status": "PRIMARY",
        "rolloutState": "FAILED",
        "rolloutStateReason": "ECS deployment circuit breaker: tasks failed to start.",
    }]});
    let targets = vec![json!({
        "State": "unhealthy",
        "Reason": "Target.ResponseCodeMismatch",
        "Description": "Health checks failed with these codes: [500]",
    })];
    let output = check(Shown {
        targets,
        service: Some(service),
        ..Shown::default()
    })
    .await;
    assert_eq!(output.verdict, Verdict::Failed);
    assert!(
        output.reason.contains("circuit breaker") && output.reason.contains("[500]"),
        "{}",
        output.reason
    );
}

#[tokio::test]
async fn a_task_that_ecs_cannot_place_is_reported_while_waiting() {
    let message = "(service x) was unable to place a task. Reason: vCPU limit";
    let service = json!({"events": [{"message": message}]});
    let output = check(Shown {
        service: Some(service),
        ..Shown::default()
    })
    .await;
    assert_eq!(output.verdict, Verdict::Waiting);
    assert!(output.reason.contains("vCPU limit"), "{}", output.reason);
}

#[tokio::test]
async fn a_service_that_is_deleted_fails() {
    for status in ["DRAINING", "INACTIVE"] {
        let output = check(Shown {
            service: Some(json!({"status": status})),
            ..Shown::default()
        })
        .await;
        assert_eq!(output.verdict, Verdict::Failed);
    }
}

#[tokio::test]
async fn a_service_that_ecs_does_not_show_yet_is_waited_for() {
    let output = check(Shown::default()).await;
    assert_eq!(output.verdict, Verdict::Waiting);
    assert!(output.reason.contains("does not show"), "{}", output.reason);
}

#[tokio::test]
async fn tasks_of_an_earlier_service_of_this_name_do_not_count() {
    let mut crash = stopped(
        "EssentialContainerExited",
        "Essential container in task exited",
        Some(137),
    );
    crash["startedBy"] = "ecs-svc/0".into();
    let output = check(Shown {
        service: Some(active()),
        stopped: vec![crash.clone(), crash],
        ..Shown::default()
    })
    .await;
    assert_eq!(output.verdict, Verdict::Waiting, "{}", output.reason);
}

#[tokio::test]
async fn a_target_group_that_is_gone_fails() {
    let output = check_on(&MemoryAws::default(), false).await;
    assert_eq!(output.verdict, Verdict::Failed);
}

#[tokio::test]
async fn healthy_old_tasks_do_not_count_as_fresh_ones() {
    let old = ("ecs-svc/1", "ACTIVE", "COMPLETED");
    for rollouts in [
        vec![("ecs-svc/2", "PRIMARY", "IN_PROGRESS"), old],
        vec![("ecs-svc/2", "PRIMARY", "IN_PROGRESS")],
        // Completed, but the old tasks still stop and still answer.
        vec![("ecs-svc/2", "PRIMARY", "COMPLETED"), old],
    ] {
        let output = check_fresh_tasks(Shown {
            targets: vec![target("healthy"); 4],
            service: Some(rolling(&rollouts)),
            ..Shown::default()
        })
        .await;
        assert_eq!(output.verdict, Verdict::Waiting, "{rollouts:?}");
        assert!(output.reason.contains("rollout"), "{}", output.reason);
    }
}

#[tokio::test]
async fn fresh_tasks_are_healthy_when_nothing_old_is_left() {
    let service = rolling(&[("ecs-svc/2", "PRIMARY", "COMPLETED")]);
    for (healthy, verdict) in [(2, Verdict::Healthy), (1, Verdict::Waiting)] {
        let output = check_fresh_tasks(Shown {
            targets: vec![target("healthy"); healthy],
            service: Some(service.clone()),
            ..Shown::default()
        })
        .await;
        assert_eq!(output.verdict, verdict, "{}", output.reason);
    }
}

#[tokio::test]
async fn only_failures_of_fresh_tasks_fail_a_rollout_of_fresh_tasks() {
    for (rollout, verdict) in [
        ("ecs-svc/1", Verdict::Waiting),
        ("ecs-svc/2", Verdict::Failed),
    ] {
        let mut failed = stopped(
            "ServiceSchedulerInitiated",
            "Task failed ELB health checks in (target-group arn)",
            Some(143),
        );
        failed["startedBy"] = rollout.into();
        let output = check_fresh_tasks(Shown {
            service: Some(rolling(&[
                ("ecs-svc/2", "PRIMARY", "IN_PROGRESS"),
                ("ecs-svc/1", "ACTIVE", "FAILED"),
            ])),
            stopped: vec![failed.clone(), failed],
            ..Shown::default()
        })
        .await;
        assert_eq!(output.verdict, verdict, "{}", output.reason);
    }
}
