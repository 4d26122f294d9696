use super::*;
use lifecycle::Baseline;
use memory_aws::{MemoryAws, group_arn, own_tags};
use serde_json::{Value, json};

const ID: &str = "test-20251027-122112Z";
const ACTIVE: &str = "test-20251027-122113Z";
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
    check_on(&show(shown), json!({})).await
}

/// The same after the machine has waited for so many seconds.
async fn check_after(waited_seconds: u64, aws: &MemoryAws) -> Output {
    check_on(aws, json!({"waitedSeconds": waited_seconds})).await
}

/// The same when the look before found a part missing.
async fn check_again_after(waited_seconds: u64, aws: &MemoryAws) -> Output {
    let input = json!({"waitedSeconds": waited_seconds, "missingBefore": true});
    check_on(aws, input).await
}

fn show(shown: Shown) -> MemoryAws {
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
    aws
}

/// Checks once, with these fields of the input besides the usual ones.
async fn check_on(aws: &MemoryAws, more: Value) -> Output {
    let clients = Clients {
        ecs: aws_sdk_ecs::Client::new(&aws.config()),
        elb: aws_sdk_elasticloadbalancingv2::Client::new(&aws.config()),
        logs: aws_sdk_cloudwatchlogs::Client::new(&aws.config()),
    };
    let mut input = json!({"deploymentId": ID, "targetGroupArn": group_arn(ID), "desiredCount": 2});
    for (key, value) in more.as_object().unwrap() {
        input[key] = value.clone();
    }
    run(
        &clients,
        &Baseline::for_tests(),
        &|| aws.time(),
        serde_json::from_value(input).unwrap(),
    )
    .await
    .unwrap()
}

/// A service with these rollouts: id, status, rollout state.
fn rolling(rollouts: &[(&str, &str, &str)]) -> Value {
    let rollouts = rollouts
        .iter()
        .map(|(id, status, state)| json!({"id": id, "status": status, "rolloutState": state}));
    json!({"runningCount": 4, "deployments": rollouts.collect::<Vec<_>>()})
}

/// A service whose first rollout has come so far.
fn in_state(state: &str) -> Value {
    rolling(&[(ROLLOUT, "PRIMARY", state)])
}

fn healthy_at(address: &str) -> Value {
    json!({"State": "healthy", "Id": address})
}

fn crash() -> Value {
    stopped(
        "EssentialContainerExited",
        "Essential container in task exited",
        Some(3),
    )
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
async fn as_many_healthy_as_desired_is_healthy_when_ecs_has_completed_the_rollout() {
    for (state, verdict) in [
        ("IN_PROGRESS", Verdict::Waiting),
        ("COMPLETED", Verdict::Healthy),
    ] {
        let output = check(Shown {
            targets: vec![target("healthy"); 2],
            service: Some(in_state(state)),
            ..Shown::default()
        })
        .await;
        assert_eq!(
            (output.verdict, output.healthy, output.needed),
            (verdict, 2, 2),
            "{}",
            output.reason
        );
    }
}

#[tokio::test]
async fn a_third_of_starts_that_fail_is_not_healthy_because_two_targets_are_for_a_moment() {
    let output = check(Shown {
        targets: vec![target("healthy"); 2],
        service: Some(in_state("IN_PROGRESS")),
        stopped: vec![crash()],
        ..Shown::default()
    })
    .await;
    assert_eq!(output.verdict, Verdict::Waiting);
    assert!(output.reason.contains("IN_PROGRESS"), "{}", output.reason);
}

#[tokio::test]
async fn tasks_that_have_run_for_long_count_although_ecs_does_not_complete_the_rollout() {
    for (age, verdict) in [(179, Verdict::Waiting), (180, Verdict::Healthy)] {
        let aws = show(Shown {
            targets: ["10.0.0.1", "10.0.0.2"].map(healthy_at).to_vec(),
            service: Some(in_state("IN_PROGRESS")),
            ..Shown::default()
        });
        aws.with(|state| {
            let started = state.now - age;
            for address in ["10.0.0.1", "10.0.0.2"] {
                state.add_task(ID, address)["startedAt"] = started.into();
            }
        });
        let output = check_on(&aws, json!({})).await;
        assert_eq!(output.verdict, verdict, "{age}: {}", output.reason);
    }
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

/// A group that the load balancer does not use.
fn not_in_use() -> MemoryAws {
    show(Shown {
        targets: vec![json!({"State": "unused", "Reason": "Target.NotInUse"})],
        service: Some(active()),
        ..Shown::default()
    })
}

#[tokio::test]
async fn a_target_group_that_no_rule_names_fails_when_a_rule_would_have_been_shown() {
    let aws = not_in_use();
    for output in [
        check_again_after(59, &aws).await,
        check_after(60, &aws).await,
    ] {
        assert_eq!(output.verdict, Verdict::Waiting, "{}", output.reason);
        assert!(output.missing);
    }
    let output = check_again_after(60, &aws).await;
    assert_eq!((output.verdict, output.unrouted), (Verdict::Failed, true));
    assert!(
        output.reason.contains("Target.NotInUse"),
        "{}",
        output.reason
    );
}

#[tokio::test]
async fn a_target_group_that_a_rule_names_is_waited_for_until_the_load_balancer_uses_it() {
    let aws = not_in_use();
    aws.with(|state| {
        state.add_rule(100, ID, own_tags(ID));
    });
    for waited in [0, 599] {
        let output = check_after(waited, &aws).await;
        assert!(!output.missing);
        assert_eq!((output.verdict, output.unrouted), (Verdict::Waiting, false));
        assert!(
            output.reason.contains("although a rule names it"),
            "{}",
            output.reason
        );
    }
}

#[tokio::test]
async fn three_crashed_tasks_fail_with_exit_code_and_log_lines() {
    let output = check(Shown {
        service: Some(active()),
        stopped: vec![crash(); 3],
        log: vec!["starting\n", "no database\n"],
        ..Shown::default()
    })
    .await;
    assert_eq!(output.verdict, Verdict::Failed);
    assert_eq!(
        output.reason,
        "0 of 2 targets are healthy; 3 tasks stopped, the last one: Essential container in task exited (exit code 3); \
         its last log lines: starting | no database"
    );
}

#[tokio::test]
async fn the_number_of_failed_tasks_that_is_a_verdict_grows_with_the_desired_count() {
    for (desired, enough) in [(1, 3), (2, 3), (7, 4), (100, 50), (1000, 200)] {
        for (failed, verdict) in [(enough - 1, Verdict::Waiting), (enough, Verdict::Failed)] {
            let aws = show(Shown {
                service: Some(active()),
                stopped: (0..failed).map(numbered_crash).collect(),
                ..Shown::default()
            });
            let output = check_on(&aws, json!({"desiredCount": desired})).await;
            assert_eq!(output.verdict, verdict, "{failed} of {desired}");
        }
    }
}

/// One of many, each with its own ARN.
fn numbered_crash(number: usize) -> Value {
    let mut task = crash();
    task["taskArn"] = format!("arn:aws:ecs:us-east-1:1:task/test/t{number}").into();
    task
}

#[tokio::test]
async fn crashes_after_the_rollout_are_not_a_verdict() {
    let output = check(Shown {
        targets: vec![target("healthy"), target("initial")],
        service: Some(in_state("COMPLETED")),
        stopped: vec![crash(); 3],
        ..Shown::default()
    })
    .await;
    assert_eq!(output.verdict, Verdict::Waiting, "{}", output.reason);
}

#[tokio::test]
async fn a_log_line_is_shown_without_what_moves_the_cursor() {
    let output = check(Shown {
        service: Some(active()),
        stopped: vec![crash(); 3],
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
async fn two_crashed_tasks_may_be_bad_luck() {
    let output = check(Shown {
        service: Some(active()),
        stopped: vec![crash(); 2],
        ..Shown::default()
    })
    .await;
    assert_eq!(output.verdict, Verdict::Waiting);
    assert!(output.reason.contains("exit code 3"), "{}", output.reason);
}

#[tokio::test]
async fn an_image_that_cannot_be_pulled_fails_without_a_look_at_the_log() {
    let reason =
        "CannotPullContainerError: pull image manifest has been retried 5 time(s): not found";
    let task = stopped("TaskFailedToStart", reason, None);
    let output = check(Shown {
        service: Some(active()),
        stopped: vec![task; 3],
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
async fn troubles_of_aws_and_stops_by_hand_do_not_count_and_are_reported() {
    let not_started = [
        "Capacity is unavailable at this time. Please try again later or in a different availability zone",
        "Timeout waiting for network interface provisioning to complete.",
        "Unexpected EC2 error while attempting to Create Network Interface in subnet 'subnet-1': InternalError",
        "CannotPullContainerError: pull image manifest has been retried 5 time(s): failed to resolve ref \
         1.dkr.ecr.us-east-1.amazonaws.com/test@sha256:7f: failed to do request: Head \"https://1.dkr.ecr\": dial tcp \
         10.0.0.1:443: i/o timeout",
        "ResourceInitializationError: unable to pull secrets or registry auth: execution resource retrieval failed: \
         unable to retrieve secret from asm: service call has been retried 5 time(s): RequestCanceled: request \
         context canceled caused by: context deadline exceeded",
        "ResourceInitializationError: failed to download env files: net/http: TLS handshake timeout",
    ];
    let not_started = not_started.map(|reason| stopped("TaskFailedToStart", reason, None));
    let by_hand = stopped("UserInitiated", "Task stopped by user", Some(143));
    for task in not_started.into_iter().chain([by_hand]) {
        let output = check(Shown {
            service: Some(active()),
            stopped: vec![task.clone(); 10],
            ..Shown::default()
        })
        .await;
        assert_eq!(output.verdict, Verdict::Waiting, "{}", output.reason);
        let reason = task["stoppedReason"].as_str().unwrap();
        assert!(output.reason.contains(reason), "{}", output.reason);
    }
}

#[tokio::test]
async fn a_trouble_of_aws_is_also_read_from_the_reason_of_the_container() {
    let mut task = stopped("TaskFailedToStart", "Task failed to start", None);
    task["containers"][0]["reason"] = "CannotPullContainerError: dial tcp: i/o timeout".into();
    let output = check(Shown {
        service: Some(active()),
        stopped: vec![task; 10],
        ..Shown::default()
    })
    .await;
    assert_eq!(output.verdict, Verdict::Waiting, "{}", output.reason);
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
        stopped: vec![failed; 3],
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
async fn a_part_that_is_not_there_fails_when_aws_would_have_shown_it() {
    let deleted = |status| {
        show(Shown {
            service: Some(json!({"status": status})),
            ..Shown::default()
        })
    };
    // A service that was made again may be shown as the deleted one for a moment.
    for aws in [
        MemoryAws::default(),
        show(Shown::default()),
        deleted("DRAINING"),
        deleted("INACTIVE"),
    ] {
        // One answer after that time may still be an old one.
        for output in [
            check_again_after(59, &aws).await,
            check_after(60, &aws).await,
        ] {
            assert_eq!(output.verdict, Verdict::Waiting);
            assert!(
                output.missing && output.reason.ends_with("(yet)"),
                "{output:?}"
            );
        }
        let output = check_again_after(60, &aws).await;
        assert_eq!(output.verdict, Verdict::Failed, "{}", output.reason);
    }
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
        stopped: vec![crash; 3],
        ..Shown::default()
    })
    .await;
    assert_eq!(output.verdict, Verdict::Waiting, "{}", output.reason);
}

/// A deployment that gets fresh tasks, of which those at 10.0.1.1 and 10.0.1.2 have been running for five
/// minutes, while one old task is left: it is protected.
fn protected() -> MemoryAws {
    let aws = show(Shown {
        targets: ["10.0.0.1", "10.0.1.1", "10.0.1.2"]
            .map(healthy_at)
            .to_vec(),
        service: Some(rolling(&[
            ("ecs-svc/2", "PRIMARY", "IN_PROGRESS"),
            (ROLLOUT, "ACTIVE", "COMPLETED"),
        ])),
        ..Shown::default()
    });
    aws.with(|state| {
        let now = state.now;
        state.add_task(ID, "10.0.0.1")["startedAt"] = (now - 86_400).into();
        for address in ["10.0.1.1", "10.0.1.2"] {
            let task = state.add_task(ID, address);
            task["startedBy"] = "ecs-svc/2".into();
            task["startedAt"] = (now - 300).into();
        }
    });
    aws
}

#[tokio::test]
async fn an_old_task_that_never_stops_does_not_keep_fresh_ones_from_being_healthy() {
    let output = check_on(&protected(), json!({})).await;
    assert_eq!(output.verdict, Verdict::Healthy, "{}", output.reason);
}

#[tokio::test]
async fn healthy_old_tasks_do_not_count_as_fresh_ones() {
    let old = (ROLLOUT, "ACTIVE", "COMPLETED");
    for rollouts in [
        vec![("ecs-svc/2", "PRIMARY", "IN_PROGRESS"), old],
        vec![("ecs-svc/2", "PRIMARY", "IN_PROGRESS")],
        // Completed, but the old tasks still stop and still answer.
        vec![("ecs-svc/2", "PRIMARY", "COMPLETED"), old],
    ] {
        let aws = show(Shown {
            targets: ["10.0.0.1", "10.0.0.2"].map(healthy_at).to_vec(),
            service: Some(rolling(&rollouts)),
            ..Shown::default()
        });
        aws.with(|state| {
            let long_ago = state.now - 86_400;
            for address in ["10.0.0.1", "10.0.0.2"] {
                state.add_task(ID, address)["startedAt"] = long_ago.into();
            }
        });
        let output = check_on(&aws, json!({})).await;
        assert_eq!(output.verdict, Verdict::Waiting, "{rollouts:?}");
        assert!(output.reason.contains("rollout"), "{}", output.reason);
    }
    // One of two fresh tasks fails its health checks.
    let aws = protected();
    aws.with(|state| state.group(ID).health[2]["State"] = "unhealthy".into());
    let output = check_on(&aws, json!({})).await;
    assert_eq!(output.verdict, Verdict::Waiting, "{}", output.reason);
}

#[tokio::test]
async fn fresh_tasks_are_healthy_when_nothing_old_is_left() {
    let service = rolling(&[("ecs-svc/2", "PRIMARY", "COMPLETED")]);
    for (healthy, verdict) in [(2, Verdict::Healthy), (1, Verdict::Waiting)] {
        let output = check(Shown {
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
    for (rollout, verdict) in [(ROLLOUT, Verdict::Waiting), ("ecs-svc/2", Verdict::Failed)] {
        let mut failed = stopped(
            "ServiceSchedulerInitiated",
            "Task failed ELB health checks in (target-group arn)",
            Some(143),
        );
        failed["startedBy"] = rollout.into();
        let output = check(Shown {
            service: Some(rolling(&[
                ("ecs-svc/2", "PRIMARY", "IN_PROGRESS"),
                (ROLLOUT, "ACTIVE", "FAILED"),
            ])),
            stopped: vec![failed; 3],
            ..Shown::default()
        })
        .await;
        assert_eq!(output.verdict, verdict, "{}", output.reason);
    }
}

/// A warm deployment of ten tasks, so many of which are healthy, and the active one with as many healthy
/// targets as given, or none.
async fn check_warm(healthy: usize, active_healthy: Option<usize>) -> Output {
    let aws = show(Shown {
        targets: vec![target("healthy"); healthy],
        service: Some(in_state("COMPLETED")),
        ..Shown::default()
    });
    if let Some(active_healthy) = active_healthy {
        aws.with(|state| {
            let group = state.add_target_group(ACTIVE, own_tags(ACTIVE));
            group.health = vec![target("healthy"); active_healthy];
            group.health.push(target("unhealthy"));
            state.activate(ACTIVE);
        });
    }
    check_on(&aws, json!({"desiredCount": 10, "warm": true})).await
}

#[tokio::test]
async fn a_warm_deployment_needs_as_many_as_the_active_one_has_or_three_quarters_of_its_own() {
    for (active, needed) in [
        (Some(10), 8),
        (Some(20), 8),
        (Some(8), 8),
        (Some(3), 3),
        (Some(1), 1),
        (Some(0), 1),
        // The default action names no deployment.
        (None, 1),
    ] {
        for (healthy, verdict) in [
            (needed - 1, Verdict::Waiting),
            (needed, Verdict::Healthy),
            (9, Verdict::Healthy),
        ] {
            let output = check_warm(healthy, active).await;
            assert_eq!(output.verdict, verdict, "{active:?}: {}", output.reason);
            assert_eq!(output.needed, needed);
        }
    }
}

#[tokio::test]
async fn a_stopped_task_says_what_its_container_says_once_and_whether_it_logged() {
    let ended = |detail: &str| {
        let mut task = stopped(
            "EssentialContainerExited",
            "Essential container in task exited",
            Some(137),
        );
        task["containers"][0]["reason"] = detail.into();
        task
    };
    let failed = json!({
        "status": "ACTIVE",
        "deployments": [{"id": ROLLOUT, "status": "PRIMARY", "rolloutState": "FAILED"}],
    });
    for (detail, shown) in [
        (
            "OutOfMemoryError: killed",
            "exited (exit code 137, OutOfMemoryError: killed)",
        ),
        (
            "Essential container in task exited",
            "exited (exit code 137)",
        ),
    ] {
        let output = check(Shown {
            service: Some(failed.clone()),
            stopped: vec![ended(detail)],
            ..Shown::default()
        })
        .await;
        let reason = output.reason;
        let whole =
            format!("; a task stopped: Essential container in task {shown}; it logged nothing");
        assert!(reason.ends_with(&whole), "{reason}");
    }
}

#[tokio::test]
async fn healthy_targets_that_wait_for_a_rollout_say_how_far_it_is() {
    let rollout =
        |id: &str, status: &str| json!({"id": id, "status": status, "rolloutState": "IN_PROGRESS"});
    let output = check(Shown {
        targets: vec![json!({"State": "healthy"}); 2],
        service: Some(json!({
            "status": "ACTIVE",
            "deployments": [rollout(ROLLOUT, "PRIMARY"), rollout("ecs-svc/0", "ACTIVE")],
        })),
        ..Shown::default()
    })
    .await;
    let shown = "the newest rollout is IN_PROGRESS, 1 earlier rollouts are left";
    assert!(output.reason.contains(shown), "{}", output.reason);
}
