use super::*;
use aws_sdk_cloudwatchlogs::operation::get_log_events::GetLogEventsOutput;
use aws_sdk_cloudwatchlogs::types::OutputLogEvent;
use aws_sdk_ecs::operation::describe_services::DescribeServicesOutput;
use aws_sdk_ecs::operation::describe_tasks::DescribeTasksOutput;
use aws_sdk_ecs::operation::list_tasks::ListTasksOutput;
use aws_sdk_ecs::types::builders::DeploymentBuilder;
use aws_sdk_ecs::types::{Container, Deployment, ServiceEvent, Task, TaskStopCode};
use aws_sdk_elasticloadbalancingv2::operation::describe_target_health::{
    DescribeTargetHealthError, DescribeTargetHealthOutput,
};
use aws_sdk_elasticloadbalancingv2::types::TargetHealthDescription;
use aws_sdk_elasticloadbalancingv2::types::error::TargetGroupNotFoundException;
use aws_smithy_mocks::{RuleMode, mock, mock_client};

/// What AWS would say.
#[derive(Default, Clone)]
struct Aws {
    targets: Vec<TargetHealth>,
    service: Option<Service>,
    stopped: Vec<Task>,
    log: Vec<&'static str>,
}

/// The one rollout of a service that was made and never updated.
const ROLLOUT: &str = "ecs-svc/1";

async fn verdict(aws: Aws) -> Output {
    verdict_on(aws, input()).await
}

async fn verdict_on(aws: Aws, input: Input) -> Output {
    let Aws {
        targets,
        service,
        stopped,
        log,
    } = aws;
    let health = mock!(aws_sdk_elasticloadbalancingv2::Client::describe_target_health).then_output(
        move || {
            let descriptions = targets
                .iter()
                .map(|health| {
                    TargetHealthDescription::builder()
                        .target_health(health.clone())
                        .build()
                })
                .collect();
            DescribeTargetHealthOutput::builder()
                .set_target_health_descriptions(Some(descriptions))
                .build()
        },
    );
    let services = mock!(aws_sdk_ecs::Client::describe_services).then_output(move || {
        DescribeServicesOutput::builder()
            .set_services(service.clone().map(|s| vec![s]))
            .build()
    });
    let arns: Vec<_> = stopped
        .iter()
        .filter_map(|task| task.task_arn.clone())
        .collect();
    let list = mock!(aws_sdk_ecs::Client::list_tasks).then_output(move || {
        ListTasksOutput::builder()
            .set_task_arns(Some(arns.clone()))
            .build()
    });
    let tasks = mock!(aws_sdk_ecs::Client::describe_tasks).then_output(move || {
        DescribeTasksOutput::builder()
            .set_tasks(Some(stopped.clone()))
            .build()
    });
    let lines = mock!(aws_sdk_cloudwatchlogs::Client::get_log_events)
        .match_requests(|request| request.log_stream_name() == Some("test-20251027-122112Z/app/t1"))
        .then_output(move || {
            let events = log
                .iter()
                .map(|line| OutputLogEvent::builder().message(*line).build())
                .collect();
            GetLogEventsOutput::builder()
                .set_events(Some(events))
                .build()
        });
    let clients = Clients {
        ecs: mock_client!(aws_sdk_ecs, RuleMode::MatchAny, [&services, &list, &tasks]),
        elb: mock_client!(
            aws_sdk_elasticloadbalancingv2,
            RuleMode::MatchAny,
            [&health]
        ),
        logs: mock_client!(aws_sdk_cloudwatchlogs, RuleMode::MatchAny, [&lines]),
    };
    run(&clients, &Settings::for_tests(), input).await.unwrap()
}

fn input() -> Input {
    Input {
        deployment_id: "test-20251027-122112Z".parse().unwrap(),
        target_group_arn: "arn".into(),
        desired_count: 2,
        fresh_tasks: false,
    }
}

async fn verdict_on_fresh_tasks(aws: Aws) -> Output {
    let input = Input {
        fresh_tasks: true,
        ..input()
    };
    verdict_on(aws, input).await
}

/// A service with these rollouts: id, status, rollout state.
fn rolling(rollouts: &[(&str, &str, DeploymentRolloutState)]) -> Service {
    let rollouts = rollouts.iter().map(|(id, status, state)| {
        Deployment::builder()
            .id(*id)
            .status(*status)
            .rollout_state(state.clone())
            .build()
    });
    Service::builder()
        .status("ACTIVE")
        .running_count(4)
        .set_deployments(Some(rollouts.collect()))
        .build()
}

fn target(state: TargetHealthStateEnum) -> TargetHealth {
    TargetHealth::builder().state(state).build()
}

fn unhealthy(reason: TargetHealthReasonEnum, description: &str) -> TargetHealth {
    TargetHealth::builder()
        .state(TargetHealthStateEnum::Unhealthy)
        .reason(reason)
        .description(description)
        .build()
}

fn only_rollout() -> DeploymentBuilder {
    Deployment::builder().id(ROLLOUT).status("PRIMARY")
}

fn active() -> Service {
    Service::builder()
        .status("ACTIVE")
        .deployments(only_rollout().build())
        .running_count(1)
        .pending_count(1)
        .build()
}

fn stopped(code: TaskStopCode, reason: &str, exit_code: Option<i32>) -> Task {
    Task::builder()
        .task_arn("arn:aws:ecs:us-east-1:1:task/test/t1")
        .started_by(ROLLOUT)
        .stop_code(code)
        .stopped_reason(reason)
        .containers(
            Container::builder()
                .name("app")
                .set_exit_code(exit_code)
                .build(),
        )
        .build()
}

#[tokio::test]
async fn as_many_healthy_as_desired_is_healthy() {
    let output = verdict(Aws {
        targets: vec![target(TargetHealthStateEnum::Healthy); 2],
        ..Aws::default()
    })
    .await;
    assert_eq!(
        (output.verdict, output.healthy, output.desired),
        (Verdict::Healthy, 2, 2)
    );
}

#[tokio::test]
async fn an_empty_target_group_is_not_healthy() {
    let output = verdict(Aws {
        service: Some(active()),
        ..Aws::default()
    })
    .await;
    assert_eq!(output.verdict, Verdict::Waiting);
    assert_eq!(
        output.reason,
        "0 of 2 targets are healthy; 1 tasks run and 1 are pending"
    );
}

#[tokio::test]
async fn one_healthy_of_two_waits() {
    let targets = vec![
        target(TargetHealthStateEnum::Healthy),
        target(TargetHealthStateEnum::Initial),
    ];
    let output = verdict(Aws {
        targets,
        service: Some(active()),
        ..Aws::default()
    })
    .await;
    assert_eq!(output.verdict, Verdict::Waiting);
}

#[tokio::test]
async fn a_target_group_in_no_rule_fails_at_once() {
    let unused = TargetHealth::builder()
        .state(TargetHealthStateEnum::Unused)
        .reason(TargetHealthReasonEnum::NotInUse)
        .build();
    let output = verdict(Aws {
        targets: vec![unused],
        service: Some(active()),
        ..Aws::default()
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
        TaskStopCode::EssentialContainerExited,
        "Essential container in task exited",
        Some(3),
    );
    let output = verdict(Aws {
        service: Some(active()),
        stopped: vec![crash.clone(), crash],
        log: vec!["starting\n", "no database\n"],
        ..Aws::default()
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
        TaskStopCode::EssentialContainerExited,
        "Essential container in task exited",
        Some(3),
    );
    let output = verdict(Aws {
        service: Some(active()),
        stopped: vec![crash.clone(), crash],
        log: vec!["\u{1b}[31mERROR\tno\u{0} \u{202e}database\r\n"],
        ..Aws::default()
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
        TaskStopCode::EssentialContainerExited,
        "Essential container in task exited",
        Some(1),
    );
    let output = verdict(Aws {
        service: Some(active()),
        stopped: vec![crash],
        ..Aws::default()
    })
    .await;
    assert_eq!(output.verdict, Verdict::Waiting);
    assert!(output.reason.contains("exit code 1"), "{}", output.reason);
}

#[tokio::test]
async fn an_image_that_cannot_be_pulled_fails_and_asks_for_no_log() {
    let reason =
        "CannotPullContainerError: pull image manifest has been retried 5 time(s): not found";
    let task = stopped(TaskStopCode::TaskFailedToStart, reason, None);
    let output = verdict(Aws {
        service: Some(active()),
        stopped: vec![task.clone(), task],
        ..Aws::default()
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
        TaskStopCode::TaskFailedToStart,
        "Capacity is unavailable at this time",
        None,
    );
    let by_hand = stopped(
        TaskStopCode::UserInitiated,
        "Task stopped by user",
        Some(143),
    );
    let output = verdict(Aws {
        service: Some(active()),
        stopped: vec![capacity.clone(), capacity, by_hand.clone(), by_hand],
        ..Aws::default()
    })
    .await;
    assert_eq!(output.verdict, Verdict::Waiting);
}

#[tokio::test]
async fn what_replaced_tasks_answered_to_health_checks_is_read_from_the_events() {
    let event = |message: &str| ServiceEvent::builder().message(message).build();
    let service = Service::builder()
        .status("ACTIVE")
        .deployments(only_rollout().build())
        .events(event(
            "(service test-20251027-122112Z) has stopped 1 running tasks: (task t1).",
        ))
        .events(event(
            "(service test-20251027-122112Z) (port 8000) is unhealthy in (target-group arn) due to \
             (reason Health checks failed with these codes: [500]).",
        ))
        .build();
    let failed = stopped(
        TaskStopCode::ServiceSchedulerInitiated,
        "Task failed ELB health checks in (target-group arn)",
        None,
    );
    let output = verdict(Aws {
        targets: vec![target(TargetHealthStateEnum::Initial)],
        service: Some(service),
        stopped: vec![failed.clone(), failed],
        ..Aws::default()
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
async fn the_circuit_breakers_word_is_final() {
    let service = Service::builder()
        .status("ACTIVE")
        .deployments(
            only_rollout()
                .rollout_state(DeploymentRolloutState::Failed)
                .rollout_state_reason("ECS deployment circuit breaker: tasks failed to start.")
                .build(),
        )
        .build();
    let targets = vec![unhealthy(
        TargetHealthReasonEnum::ResponseCodeMismatch,
        "Health checks failed with these codes: [500]",
    )];
    let output = verdict(Aws {
        targets,
        service: Some(service),
        ..Aws::default()
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
async fn what_ecs_cannot_place_is_said_while_waiting() {
    let service = Service::builder()
        .status("ACTIVE")
        .events(
            ServiceEvent::builder()
                .message("(service x) was unable to place a task. Reason: vCPU limit")
                .build(),
        )
        .build();
    let output = verdict(Aws {
        service: Some(service),
        ..Aws::default()
    })
    .await;
    assert_eq!(output.verdict, Verdict::Waiting);
    assert!(output.reason.contains("vCPU limit"), "{}", output.reason);
}

#[tokio::test]
async fn a_service_that_is_deleted_fails() {
    for status in ["DRAINING", "INACTIVE"] {
        let output = verdict(Aws {
            service: Some(Service::builder().status(status).build()),
            ..Aws::default()
        })
        .await;
        assert_eq!(output.verdict, Verdict::Failed);
    }
}

#[tokio::test]
async fn a_service_that_ecs_does_not_show_yet_is_waited_for() {
    let output = verdict(Aws::default()).await;
    assert_eq!(output.verdict, Verdict::Waiting);
    assert!(output.reason.contains("does not show"), "{}", output.reason);
}

#[tokio::test]
async fn tasks_of_an_earlier_service_of_this_name_do_not_count() {
    let mut crash = stopped(
        TaskStopCode::EssentialContainerExited,
        "Essential container in task exited",
        Some(137),
    );
    crash.started_by = Some("ecs-svc/0".into());
    let output = verdict(Aws {
        service: Some(active()),
        stopped: vec![crash.clone(), crash],
        ..Aws::default()
    })
    .await;
    assert_eq!(output.verdict, Verdict::Waiting, "{}", output.reason);
}

#[tokio::test]
async fn a_target_group_that_is_gone_fails() {
    let gone =
        mock!(aws_sdk_elasticloadbalancingv2::Client::describe_target_health).then_error(|| {
            let meta = aws_sdk_elasticloadbalancingv2::error::ErrorMetadata::builder()
                .code("TargetGroupNotFound")
                .build();
            DescribeTargetHealthError::TargetGroupNotFoundException(
                TargetGroupNotFoundException::builder().meta(meta).build(),
            )
        });
    let clients = Clients {
        ecs: mock_client!(aws_sdk_ecs, RuleMode::MatchAny, []),
        elb: mock_client!(aws_sdk_elasticloadbalancingv2, RuleMode::MatchAny, [&gone]),
        logs: mock_client!(aws_sdk_cloudwatchlogs, RuleMode::MatchAny, []),
    };
    let output = run(&clients, &Settings::for_tests(), input())
        .await
        .unwrap();
    assert_eq!(output.verdict, Verdict::Failed);
}

#[tokio::test]
async fn healthy_old_tasks_do_not_pass_for_fresh_ones() {
    let old = ("ecs-svc/1", "ACTIVE", DeploymentRolloutState::Completed);
    for rollouts in [
        vec![
            ("ecs-svc/2", "PRIMARY", DeploymentRolloutState::InProgress),
            old.clone(),
        ],
        vec![("ecs-svc/2", "PRIMARY", DeploymentRolloutState::InProgress)],
        // Completed, but the old tasks still stop and still answer.
        vec![
            ("ecs-svc/2", "PRIMARY", DeploymentRolloutState::Completed),
            old,
        ],
    ] {
        let output = verdict_on_fresh_tasks(Aws {
            targets: vec![target(TargetHealthStateEnum::Healthy); 4],
            service: Some(rolling(&rollouts)),
            ..Aws::default()
        })
        .await;
        assert_eq!(output.verdict, Verdict::Waiting, "{rollouts:?}");
        assert!(output.reason.contains("rollout"), "{}", output.reason);
    }
}

#[tokio::test]
async fn fresh_tasks_are_healthy_when_nothing_old_is_left() {
    let service = rolling(&[("ecs-svc/2", "PRIMARY", DeploymentRolloutState::Completed)]);
    for (healthy, verdict) in [(2, Verdict::Healthy), (1, Verdict::Waiting)] {
        let output = verdict_on_fresh_tasks(Aws {
            targets: vec![target(TargetHealthStateEnum::Healthy); healthy],
            service: Some(service.clone()),
            ..Aws::default()
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
            TaskStopCode::ServiceSchedulerInitiated,
            "Task failed ELB health checks in (target-group arn)",
            Some(143),
        );
        failed.started_by = Some(rollout.to_owned());
        let output = verdict_on_fresh_tasks(Aws {
            service: Some(rolling(&[
                ("ecs-svc/2", "PRIMARY", DeploymentRolloutState::InProgress),
                ("ecs-svc/1", "ACTIVE", DeploymentRolloutState::Failed),
            ])),
            stopped: vec![failed.clone(), failed],
            ..Aws::default()
        })
        .await;
        assert_eq!(output.verdict, verdict, "{}", output.reason);
    }
}
