mod application;
mod elsewhere;
mod leaks;

use super::*;
use application::{Application, Asked, unused_address};
use lifecycle::{Baseline, ErrorName, StepError, defaults, tags};
use memory_aws::{DRAIN_SECRET_ARN, MemoryAws, State, group_arn};
use serde_json::{Value, json};
use time::UtcDateTime;
use time::macros::utc_datetime;

const ID: &str = "test-20251027-122112Z";
const OTHER: &str = "test-20251027-122113Z";
const SECRET: &str = "N0tForLogsOrAnswers";
const NOW: UtcDateTime = utc_datetime!(2025-10-27 12:30:00);
const LATER: UtcDateTime = utc_datetime!(2025-10-27 12:35:00);
/// The call that raises the grace period, so that ECS does not replace tasks that answer 503.
const GRACE: &str = "UpdateService healthCheckGracePeriodSeconds=2147483647";

/// A deployment that was live before, is no longer active, and has tasks at these addresses.
fn with(addresses: &[&str]) -> MemoryAws {
    let aws = MemoryAws::default();
    aws.with(|state| {
        state.deploy(ID, &[tags::LIVE_SINCE]);
        state.add_target_group(OTHER, memory_aws::own_tags(OTHER));
        state.activate(OTHER);
        state.secrets.insert(DRAIN_SECRET_ARN.into(), SECRET.into());
        for address in addresses {
            state.add_task(ID, address);
        }
    });
    aws
}

fn tag(aws: &MemoryAws, key: &str, value: &str) {
    aws.with(|state| state.tag(ID, key, value));
}

/// The value of a tag of the target group.
fn tagged(aws: &MemoryAws, key: &str) -> Option<String> {
    aws.with(|state| state.group(ID).tags.get(key).cloned())
}

/// Makes a task wait for its network interface.
fn provision(task: &mut Value) {
    task["lastStatus"] = "PROVISIONING".into();
    task["attachments"] = json!([]);
}

/// What the last sweep did, other than reading descriptions, without the name of the deployment.
fn done(aws: &MemoryAws) -> Vec<String> {
    let calls = aws.calls().into_iter();
    let calls = calls.filter(|call| !call.operation.starts_with("Describe"));
    calls
        .map(|call| call.to_string().replace(&format!(" {ID}"), ""))
        .collect()
}

fn grace(aws: &MemoryAws) -> Value {
    aws.with(|state| state.service(ID)["healthCheckGracePeriodSeconds"].clone())
}

fn clients(aws: &MemoryAws) -> Clients {
    Clients {
        ecs: aws_sdk_ecs::Client::new(&aws.config()),
        elb: aws_sdk_elasticloadbalancingv2::Client::new(&aws.config()),
        secrets: aws_sdk_secretsmanager::Client::new(&aws.config()),
        http: task_requests::client(),
    }
}

fn input() -> Input {
    Input {
        deployment_id: ID.parse().unwrap(),
        target_group_arn: group_arn(ID),
    }
}

/// Sweeps once; the calls before are forgotten.
async fn sweep_at(now: UtcDateTime, aws: &MemoryAws) -> Result<Output, StepError> {
    aws.forget_calls();
    aws.with(|state| state.now = now.unix_timestamp());
    run(
        &clients(aws),
        &Baseline::for_tests(),
        &|| aws.time(),
        input(),
    )
    .await
}

async fn sweep(aws: &MemoryAws) -> Result<Output, StepError> {
    sweep_at(NOW, aws).await
}

async fn assert_verdict_at(now: UtcDateTime, aws: &MemoryAws, verdict: Verdict) {
    assert_eq!(sweep_at(now, aws).await.unwrap().verdict, verdict);
}

/// The answers with the sessions, by task.
fn answers(output: &Output) -> Vec<(Answer, Option<u64>)> {
    output
        .tasks
        .iter()
        .map(|task| (task.answer, task.active_sessions))
        .collect()
}

#[tokio::test]
async fn every_task_is_asked_at_its_private_address_with_the_secret() {
    let [one, two] = [Application::with(3).await, Application::with(0).await];
    let aws = with(&[one.address(), two.address()]);
    let output = sweep(&aws).await.unwrap();
    assert_eq!(output.verdict, Verdict::Draining);
    assert_eq!(
        answers(&output),
        [(Answer::Ok, Some(3)), (Answer::Ok, Some(0))]
    );
    assert_eq!(output.reason, "3 sessions on 2 tasks");
    assert_eq!(output.tasks[0].address.as_deref(), Some(one.address()));
    for application in [&one, &two] {
        assert_eq!(
            application.asked(),
            [Asked {
                method: "POST".into(),
                path: "/drain".into(),
                host: format!("{}:8000", application.address()),
                authorization: format!("Bearer {SECRET}"),
                deployment: ID.into(),
            }]
        );
    }
    assert_eq!(
        done(&aws),
        [
            "AddTags pulse:draining-since",
            GRACE,
            "ListTasks",
            "GetSecretValue"
        ]
    );
}

#[tokio::test]
async fn draining_again_keeps_the_mark_and_the_grace_period_and_asks_again() {
    let application = Application::with(1).await;
    let aws = with(&[application.address()]);
    sweep(&aws).await.unwrap();
    let output = sweep_at(LATER, &aws).await.unwrap();
    assert_eq!(answers(&output), [(Answer::AlreadyDraining, Some(1))]);
    assert_eq!(done(&aws), ["ListTasks", "GetSecretValue"]);
    assert_eq!(
        tagged(&aws, tags::DRAINING_SINCE).as_deref(),
        Some("2025-10-27T12:30:00Z")
    );
}

#[tokio::test]
async fn a_task_that_was_started_since_is_drained_by_the_next_sweep() {
    let [one, fresh] = [Application::with(1).await, Application::with(0).await];
    let aws = with(&[one.address()]);
    sweep(&aws).await.unwrap();
    aws.with(|state| _ = state.add_task(ID, fresh.address()));
    let output = sweep_at(LATER, &aws).await;
    assert_eq!(
        answers(&output.unwrap()),
        [(Answer::AlreadyDraining, Some(1)), (Answer::Ok, Some(0))]
    );
    assert_eq!(fresh.asked().len(), 1);
}

#[tokio::test]
async fn drained_means_no_session_on_two_sweeps_in_a_row() {
    let application = Application::with(0).await;
    let aws = with(&[application.address()]);
    assert_verdict_at(NOW, &aws, Verdict::Draining).await;
    assert_eq!(
        tagged(&aws, tags::IDLE_SINCE).as_deref(),
        Some("2025-10-27T12:30:00Z")
    );
    // A visitor came back: the wait begins again.
    application.says(2);
    assert_verdict_at(LATER, &aws, Verdict::Draining).await;
    assert_eq!(tagged(&aws, tags::IDLE_SINCE), None);
    application.says(0);
    assert_verdict_at(LATER, &aws, Verdict::Draining).await;
    assert_verdict_at(LATER + defaults::SWEEPS_APART, &aws, Verdict::Drained).await;
    // And again, after that answer was lost.
    assert_verdict_at(LATER + defaults::SWEEPS_APART, &aws, Verdict::Drained).await;
}

#[tokio::test]
async fn a_sweep_that_is_run_again_at_once_counts_once() {
    let application = Application::with(0).await;
    let aws = with(&[application.address()]);
    sweep(&aws).await.unwrap();
    assert_verdict_at(NOW + time::Duration::seconds(2), &aws, Verdict::Draining).await;
    assert_eq!(
        tagged(&aws, tags::IDLE_SINCE).as_deref(),
        Some("2025-10-27T12:30:00Z")
    );
}

#[tokio::test]
async fn a_slow_sweep_that_is_run_again_at_once_counts_once() {
    let application = Application::with(0).await;
    let aws = with(&[application.address()]);
    aws.on("ListTasks").once().after(|state, _| state.now += 20);
    sweep(&aws).await.unwrap();
    assert_eq!(
        tagged(&aws, tags::IDLE_SINCE).as_deref(),
        Some("2025-10-27T12:30:20Z")
    );
    assert_verdict_at(NOW + time::Duration::seconds(22), &aws, Verdict::Draining).await;
}

#[tokio::test]
async fn an_idle_mark_that_no_sweep_can_have_written_is_written_again() {
    let application = Application::with(0).await;
    for mark in [
        "long ago",
        "",
        "2025-02-30T12:00:00Z",
        "2025-10-27T12:35:01Z",
        "9999-12-31T23:59:59Z",
    ] {
        let aws = with(&[application.address()]);
        tag(&aws, tags::IDLE_SINCE, mark);
        let output = sweep(&aws).await;
        assert_eq!(output.unwrap().verdict, Verdict::Draining, "{mark}");
        assert_eq!(
            tagged(&aws, tags::IDLE_SINCE).as_deref(),
            Some("2025-10-27T12:30:00Z")
        );
    }
}

#[tokio::test]
async fn a_task_that_answers_503_may_be_full_and_keeps_the_deployment() {
    let [full, idle] = [
        Application::answering(503, "{}").await,
        Application::with(0).await,
    ];
    let aws = with(&[full.address(), idle.address()]);
    for (now, answer) in [(NOW, Answer::Ok), (LATER, Answer::AlreadyDraining)] {
        let output = sweep_at(now, &aws).await.unwrap();
        assert_eq!(
            answers(&output),
            [(Answer::Unavailable, None), (answer, Some(0))]
        );
        assert_eq!(output.verdict, Verdict::Draining);
        assert!(output.reason.contains("it may be full"), "{output:?}");
    }
    assert_eq!(tagged(&aws, tags::IDLE_SINCE), None);
}

#[tokio::test]
async fn a_task_that_refuses_connections_counts_for_as_long_as_ecs_wants_it_to_run() {
    let idle = Application::with(0).await;
    let aws = with(&[&unused_address(), idle.address()]);
    for now in [NOW, LATER] {
        assert_verdict_at(now, &aws, Verdict::Draining).await;
        assert_eq!(tagged(&aws, tags::IDLE_SINCE), None);
    }
    aws.with(|state| state.tasks[0]["desiredStatus"] = "STOPPED".into());
    assert_verdict_at(LATER, &aws, Verdict::Draining).await;
    assert_verdict_at(LATER + defaults::SWEEPS_APART, &aws, Verdict::Drained).await;
}

#[tokio::test]
async fn an_address_that_another_deployment_has_by_now_says_nothing_of_this_one() {
    let [other, idle] = [
        Application::answering(409, "").await,
        Application::with(0).await,
    ];
    let aws = with(&[other.address(), idle.address()]);
    let output = sweep(&aws).await.unwrap();
    assert_eq!(
        answers(&output),
        [(Answer::OtherDeployment, None), (Answer::Ok, Some(0))]
    );
    assert!(output.reason.contains("task t1: HTTP 409"), "{output:?}");
    assert_verdict_at(LATER, &aws, Verdict::Draining).await;
}

#[tokio::test]
async fn tasks_from_before_a_rotation_are_asked_with_the_previous_secret() {
    let [old, fresh] = [
        Application::expecting("previous").await,
        Application::with(0).await,
    ];
    let aws = with(&[old.address(), fresh.address()]);
    // Without a rotation, there is no version to try.
    let output = sweep(&aws).await.unwrap();
    assert_eq!(answers(&output)[0], (Answer::Unauthorized, None));
    assert_eq!(old.asked().len(), 1);

    let rotate: Change = |state| {
        let previous = (DRAIN_SECRET_ARN.to_owned(), "previous".to_owned());
        state.previous_secrets.extend([previous]);
    };
    aws.with(rotate);
    let output = sweep_at(LATER, &aws).await.unwrap();
    assert_eq!(
        answers(&output),
        [(Answer::Ok, Some(0)), (Answer::AlreadyDraining, Some(0))]
    );
    assert_eq!(old.asked().len(), 3);
    // Only the task that refused the current secret is asked with another one.
    assert_eq!(fresh.asked().len(), 2);
    assert_verdict_at(LATER + defaults::SWEEPS_APART, &aws, Verdict::Drained).await;
}

#[tokio::test]
async fn a_task_that_refuses_both_secrets_is_reported() {
    for status in [401, 403] {
        let application = Application::answering(status, "").await;
        let aws = with(&[application.address()]);
        aws.with(|state| {
            let previous = (DRAIN_SECRET_ARN.to_owned(), "previous".to_owned());
            state.previous_secrets.extend([previous]);
        });
        let output = sweep(&aws).await.unwrap();
        assert_eq!(answers(&output), [(Answer::Unauthorized, None)]);
        assert_eq!(application.asked().len(), 2, "{status}");
        assert!(
            output
                .reason
                .contains("neither the current nor the previous"),
            "{output:?}"
        );
    }
}

#[tokio::test]
async fn a_deployment_without_tasks_on_two_sweeps_is_drained_and_needs_no_secret() {
    for service in ["none", "no tasks", "being deleted"] {
        let aws = with(&[]);
        aws.with(|state| {
            match service {
                "none" => state.services.clear(),
                "being deleted" => {
                    state.add_task(ID, "127.0.0.1");
                    state.service(ID)["status"] = "DRAINING".into();
                }
                _ => state.service(ID)["runningCount"] = json!(0),
            }
            state.secrets.clear();
        });
        for (now, verdict) in [
            (NOW, Verdict::Draining),
            (NOW, Verdict::Draining),
            (LATER, Verdict::Drained),
        ] {
            let output = sweep_at(now, &aws).await.unwrap();
            assert_eq!(output.verdict, verdict, "{service}");
            assert!(output.tasks.is_empty());
        }
    }
}

/// A single task that crashed is not listed until ECS has replaced it.
#[tokio::test]
async fn an_empty_list_of_tasks_is_no_evidence_while_ecs_counts_one() {
    let aws = with(&[]);
    for now in [NOW, LATER] {
        let output = sweep_at(now, &aws).await.unwrap();
        assert_eq!(output.verdict, Verdict::Draining);
        assert!(
            output.reason.contains("ECS counts 2 running tasks"),
            "{}",
            output.reason
        );
    }
    // A visitor who was on the task is on its replacement: the sweep before says nothing any more.
    aws.with(|state| state.service(ID)["runningCount"] = json!(0));
    assert_verdict_at(NOW, &aws, Verdict::Draining).await;
    let replacement = Application::with(1).await;
    aws.with(|state| _ = state.add_task(ID, replacement.address()));
    assert_verdict_at(LATER, &aws, Verdict::Draining).await;
    assert_eq!(tagged(&aws, tags::IDLE_SINCE), None);
}

#[tokio::test]
async fn an_answer_without_the_number_of_sessions_is_reported_and_keeps_the_deployment() {
    for (status, body, answer) in [
        (404, "", Answer::NoDrainEndpoint),
        (405, "", Answer::NoDrainEndpoint),
        (401, "", Answer::Unauthorized),
        (403, "", Answer::Unauthorized),
        (500, "", Answer::Unexpected),
        (302, "", Answer::Unexpected),
        (200, "drained", Answer::Unexpected),
        (200, r#"{"status": "ok"}"#, Answer::Unexpected),
        (200, r#"{"activeSessions": -1}"#, Answer::Unexpected),
        (200, r#"["ok", 0]"#, Answer::Unexpected),
    ] {
        let application = Application::answering(status, body).await;
        let aws = with(&[application.address()]);
        for now in [NOW, LATER] {
            let output = sweep_at(now, &aws).await.unwrap();
            assert_eq!(output.verdict, Verdict::Draining, "{status} {body}");
            assert_eq!(answers(&output), [(answer, None)], "{status} {body}");
            assert!(
                output.reason.contains("task t1:") && output.reason.contains("deadline"),
                "{}",
                output.reason
            );
        }
        assert_eq!(tagged(&aws, tags::IDLE_SINCE), None);
    }
}

#[tokio::test]
async fn the_number_of_sessions_does_not_overflow() {
    let [one, two] = [
        Application::with(u64::MAX).await,
        Application::with(2).await,
    ];
    let aws = with(&[one.address(), two.address()]);
    let output = sweep(&aws).await.unwrap();
    assert_eq!(output.verdict, Verdict::Draining);
    assert_eq!(output.reason, "18446744073709551615 sessions on 2 tasks");
}

#[tokio::test]
async fn an_answer_without_end_is_not_read_to_the_end() {
    let application = Application::answering(200, &"x".repeat(1024 * 1024)).await;
    let aws = with(&[application.address()]);
    let output = sweep(&aws).await;
    assert_eq!(answers(&output.unwrap()), [(Answer::Unreachable, None)]);
}

#[tokio::test]
async fn an_answer_of_16_kib_is_read_and_a_longer_one_is_not() {
    let contract = r#"{"status": "ok", "activeSessions": 0}"#;
    for (length, answer) in [
        (16_384, (Answer::Ok, Some(0))),
        (16_385, (Answer::Unreachable, None)),
    ] {
        let application = Application::answering(200, &format!("{contract:length$}")).await;
        let output = sweep(&with(&[application.address()])).await.unwrap();
        assert_eq!(answers(&output), [answer], "{length}");
    }
}

#[tokio::test]
async fn tasks_are_asked_at_the_same_time_as_many_as_a_function_may() {
    let number = defaults::TASKS_ASKED_AT_ONCE;
    let applications = Application::meeting(number).await;
    let addresses: Vec<_> = applications.iter().map(Application::address).collect();
    let output = sweep(&with(&addresses)).await.unwrap();
    assert_eq!(
        output.reason.split(';').next(),
        Some("no session on 250 tasks")
    );
    assert!(applications.iter().all(|it| it.asked().len() == 1));
}

#[tokio::test]
async fn a_task_that_is_gone_or_hangs_does_not_hold_up_another() {
    let idle = Application::with(0).await;
    let hanging = [Application::hanging().await, Application::hanging().await];
    let unused = unused_address();
    let aws = with(&[
        hanging[0].address(),
        hanging[1].address(),
        &unused,
        idle.address(),
    ]);
    let output = sweep(&aws).await.unwrap();
    assert_eq!(output.verdict, Verdict::Draining);
    assert_eq!(
        answers(&output),
        [
            (Answer::TimedOut, None),
            (Answer::TimedOut, None),
            (Answer::Unreachable, None),
            (Answer::Ok, Some(0))
        ]
    );
    assert!(
        output.tasks[2].detail.contains("refused"),
        "{}",
        output.tasks[2].detail
    );
}

#[tokio::test]
async fn a_task_that_does_not_run_yet_is_left_for_the_next_sweep() {
    let idle = Application::with(0).await;
    let aws = with(&[idle.address()]);
    aws.with(|state| provision(state.add_task(ID, "")));
    let output = sweep(&aws).await.unwrap();
    assert_eq!(output.verdict, Verdict::Draining);
    assert_eq!(output.tasks[1].answer, Answer::Unreachable);
    assert!(output.reason.contains("PROVISIONING"), "{}", output.reason);
}

#[tokio::test]
async fn a_task_with_an_address_is_not_asked_before_it_runs() {
    let application = Application::with(0).await;
    let aws = with(&[application.address()]);
    aws.with(|state| state.tasks[0]["lastStatus"] = "PENDING".into());
    let output = sweep(&aws).await.unwrap();
    assert_eq!(output.verdict, Verdict::Draining);
    assert_eq!(answers(&output), [(Answer::Unreachable, None)]);
    assert!(output.reason.contains("PENDING"), "{}", output.reason);
    assert_eq!(application.asked(), []);
}

#[tokio::test]
async fn tasks_are_asked_past_every_page() {
    let application = Application::with(0).await;
    let addresses = vec![application.address(); 205];
    let aws = with(&addresses);
    let output = sweep(&aws).await.unwrap();
    assert!(
        output.reason.contains("no session on 205 tasks"),
        "{output:?}"
    );
    assert_eq!(application.asked().len(), 205);
}

#[tokio::test]
async fn as_many_tasks_as_fit_are_reported_in_their_order() {
    let application = Application::with(0).await;
    let aws = with(&[application.address(); defaults::MAX_REPORTED_TASKS]);
    aws.with(|state| state.tasks[1..].iter_mut().for_each(provision));
    let output = sweep(&aws).await.unwrap();
    assert_eq!(output.tasks.len(), 100);
    assert!(output.tasks[0].is_idle(), "{:?}", output.tasks[0]);
}

#[tokio::test]
async fn a_thousand_tasks_are_asked_some_at_a_time_and_reported_in_few_bytes() {
    let application = Application::with(0).await;
    let most = 1000;
    let aws = with(&vec![application.address(); most]);
    // The last ones do not run yet, so they report no sessions.
    let waiting = 300;
    aws.with(|state| state.tasks[most - waiting..].iter_mut().for_each(provision));
    let output = sweep(&aws).await.unwrap();
    assert_eq!(application.asked().len(), most - waiting);
    assert_eq!(output.verdict, Verdict::Draining);
    assert_eq!(output.tasks.len(), 100);
    // Those that keep it from being drained come first.
    assert!(output.tasks.iter().all(|task| !task.is_idle()));
    for words in ["0 sessions on 1000 tasks", "and 290 more", "drain deadline"] {
        assert!(output.reason.contains(words), "{}", output.reason);
    }
    let bytes = serde_json::to_string(&output).unwrap().len();
    // A tenth of what Step Functions takes as the data of a state.
    assert!(bytes < 262_144 / 10, "{bytes}");
}

type Change = fn(&mut State);

/// What keeps a deployment from being drained, and how it comes about.
fn reasons_to_keep() -> [(ErrorName, Change); 3] {
    [
        (ErrorName::DeploymentActive, |state| state.activate(ID)),
        (ErrorName::DeploymentKept, |state| {
            state.tag(ID, tags::PROTECTED, "");
        }),
        (ErrorName::DeploymentKept, |state| {
            state.tag(ID, tags::RESTORING_SINCE, &tags::timestamp(NOW));
        }),
    ]
}

#[tokio::test]
async fn a_deployment_that_is_to_stay_is_refused_and_left_as_it_is() {
    for (name, keep) in reasons_to_keep() {
        let application = Application::with(0).await;
        let aws = with(&[application.address()]);
        aws.with(keep);
        for _ in 0..2 {
            let error = sweep(&aws).await.unwrap_err();
            assert_eq!(error.name, name, "{error}");
            assert!(done(&aws).is_empty(), "{aws:?}");
        }
        assert!(application.asked().is_empty(), "{name:?}");
    }
}

#[tokio::test]
async fn a_deployment_that_is_to_stay_since_it_was_marked_is_not_asked_to_drain() {
    for (name, keep) in reasons_to_keep() {
        for after in ["AddTags", "UpdateService", "ListTasks", "GetSecretValue"] {
            let application = Application::with(0).await;
            let aws = with(&[application.address()]);
            aws.on(after).once().after(move |state, _| keep(state));
            let error = sweep(&aws).await.unwrap_err();
            assert_eq!(error.name, name, "{error} {after}");
            assert!(application.asked().is_empty(), "{name:?} {after}");
            // While it is not active, another sweep may have asked its tasks since the mark was written.
            let is_active = name == ErrorName::DeploymentActive;
            assert!(is_active || tagged(&aws, tags::DRAINING_SINCE).is_some());
        }
    }
}

/// What a drain gives way to, and how it comes about. The switch and the rollback announce themselves first.
fn rivals() -> [(ErrorName, Change); 3] {
    [
        (ErrorName::DeploymentActive, |state| {
            state.tag(ID, tags::READY_AT, &tags::timestamp(NOW));
            state.activate(ID);
        }),
        (ErrorName::DeploymentKept, |state| {
            state.tag(ID, tags::READY_AT, &tags::timestamp(NOW));
        }),
        (ErrorName::DeploymentKept, |state| {
            state.tag(ID, tags::RESTORING_SINCE, &tags::timestamp(NOW));
        }),
    ]
}

#[tokio::test]
async fn a_drain_gives_way_to_a_switch_and_a_rollback() {
    for (name, begin) in rivals() {
        for after in ["AddTags", "UpdateService", "ListTasks", "GetSecretValue"] {
            let application = Application::with(0).await;
            let aws = with(&[application.address()]);
            aws.on(after).once().after(move |state, _| begin(state));
            let error = sweep(&aws).await.unwrap_err();
            assert_eq!(error.name, name, "{error} {after}");
            assert!(application.asked().is_empty(), "{name:?} {after}");
            let is_active = name == ErrorName::DeploymentActive;
            assert_eq!(tagged(&aws, tags::DRAINING_SINCE).is_none(), is_active);
            assert_eq!(grace(&aws), 600, "{name:?} {after}");
        }
    }
}

#[tokio::test]
async fn a_drain_that_could_not_finish_giving_way_is_finished_by_the_next_one() {
    for (name, begin) in rivals() {
        for (fails, nth) in [("RemoveTags", 1), ("UpdateService", 2)] {
            let application = Application::with(0).await;
            let aws = with(&[application.address()]);
            aws.on("GetSecretValue").after(move |state, _| begin(state));
            aws.on(fails).nth(nth).fails("ThrottlingException");
            let error = sweep(&aws).await.unwrap_err();
            let is_removed = fails == "RemoveTags" && name != ErrorName::DeploymentActive;
            let first = if is_removed {
                name
            } else {
                ErrorName::Transient
            };
            assert_eq!(error.name, first, "{fails}: {error}");
            let error = sweep(&aws).await.unwrap_err();
            assert_eq!(error.name, name, "{fails}: {error}");
            let is_active = name == ErrorName::DeploymentActive;
            assert_eq!(tagged(&aws, tags::DRAINING_SINCE).is_none(), is_active);
            assert_eq!(grace(&aws), 600, "{name:?} {fails}");
            assert!(application.asked().is_empty());
        }
    }
}

#[tokio::test]
async fn a_switch_that_was_announced_long_ago_keeps_nothing() {
    let application = Application::with(0).await;
    let aws = with(&[application.address()]);
    tag(&aws, tags::READY_AT, "2025-10-27T12:29:45Z");
    assert_verdict_at(NOW, &aws, Verdict::Draining).await;
    assert_eq!(application.asked().len(), 1);
}

#[tokio::test]
async fn a_mark_of_a_drain_that_gave_way_is_written_again_when_tasks_are_asked() {
    let application = Application::with(0).await;
    let aws = with(&[application.address()]);
    tag(&aws, tags::READY_AT, "2025-10-27T12:20:00Z");
    tag(&aws, tags::DRAINING_SINCE, "2025-10-27T12:20:01Z");
    sweep(&aws).await.unwrap();
    let mark = tagged(&aws, tags::DRAINING_SINCE);
    assert_eq!(mark.as_deref(), Some("2025-10-27T12:30:00Z"));
}

#[tokio::test]
async fn a_mark_that_was_written_beside_an_announcement_is_written_again_when_tasks_are_asked_later()
 {
    let application = Application::with(0).await;
    let aws = with(&[application.address()]);
    // A switch is announced right before the mark, and fails. The sweep is slow, and meets nothing at its second look.
    aws.on("AddTags").once().before(|state, _| {
        state.tag(ID, tags::READY_AT, &tags::timestamp(NOW));
    });
    aws.on("ListTasks").once().after(|state, _| state.now += 20);
    sweep(&aws).await.unwrap();
    assert_eq!(application.asked().len(), 1);
    let mark = tagged(&aws, tags::DRAINING_SINCE);
    assert_eq!(mark.as_deref(), Some("2025-10-27T12:30:20Z"));
}

#[tokio::test]
async fn a_live_one_whose_tasks_were_asked_keeps_the_mark_for_the_cleanup_to_see() {
    let application = Application::with(0).await;
    let aws = with(&[application.address()]);
    tag(&aws, tags::READY_AT, "2025-10-27T12:20:00Z");
    tag(&aws, tags::DRAINING_SINCE, "2025-10-27T12:25:00Z");
    aws.with(|state| {
        state.service(ID)["healthCheckGracePeriodSeconds"] = json!(i32::MAX);
        state.activate(ID);
    });
    let error = sweep(&aws).await.unwrap_err();
    assert_eq!(error.name, ErrorName::DeploymentActive);
    assert!(tagged(&aws, tags::DRAINING_SINCE).is_some());
    // ECS replaces unhealthy tasks of what is live.
    assert_eq!(grace(&aws), 600);
}

#[tokio::test]
async fn a_rollback_that_meets_an_older_mark_finds_it_where_it_was() {
    // The rollback has to see it, or it would take drained tasks for fresh ones.
    let application = Application::with(0).await;
    let aws = with(&[application.address()]);
    tag(&aws, tags::DRAINING_SINCE, "2025-10-27T12:00:00Z");
    let (_, roll_back) = reasons_to_keep()[2];
    aws.on("ListTasks").after(move |state, _| roll_back(state));
    let error = sweep(&aws).await.unwrap_err();
    assert_eq!(error.name, ErrorName::DeploymentKept);
    let mark = tagged(&aws, tags::DRAINING_SINCE);
    assert_eq!(mark.as_deref(), Some("2025-10-27T12:00:00Z"));
    // Its tasks may answer 503 by now, and ECS must not replace them one by one.
    assert_eq!(grace(&aws), i32::MAX);
}

#[tokio::test]
async fn a_mark_of_a_rollback_that_died_long_ago_keeps_nothing() {
    let application = Application::with(0).await;
    let aws = with(&[application.address()]);
    tag(&aws, tags::RESTORING_SINCE, "2025-10-27T10:00:00Z");
    assert_verdict_at(NOW, &aws, Verdict::Draining).await;
}

#[tokio::test]
async fn a_lost_answer_changes_nothing_the_second_time() {
    for (operation, mark, code) in [
        ("AddTags", tags::DRAINING_SINCE, "InternalFailure"),
        ("UpdateService", "", "ServerException"),
        ("AddTags", tags::IDLE_SINCE, "InternalFailure"),
    ] {
        let application = Application::with(0).await;
        let aws = with(&[application.address()]);
        let lost = aws.on(operation).containing(mark);
        lost.once().loses_the_answer(code);
        let error = sweep(&aws).await.unwrap_err();
        assert_eq!(error.name, ErrorName::Transient, "{operation} {mark}");
        assert_verdict_at(NOW + time::Duration::seconds(2), &aws, Verdict::Draining).await;
        let again = |it: &String| it.starts_with(operation) && it.contains(mark);
        assert!(!done(&aws).iter().any(again), "{aws:?}");
        for mark in [tags::DRAINING_SINCE, tags::IDLE_SINCE] {
            assert!(tagged(&aws, mark).is_some(), "{operation}: {mark}");
        }
        assert_eq!(grace(&aws), i32::MAX);
    }
}

#[tokio::test]
async fn a_deployment_without_our_tags_is_not_drained() {
    let remove_tag: Change = |state| drop(state.group(ID).tags.remove(tags::DEPLOYMENT_ID));
    let untag_service: Change = |state| state.service(ID)["tags"] = json!([]);
    for change in [remove_tag, untag_service] {
        let application = Application::with(0).await;
        let aws = with(&[application.address()]);
        aws.with(change);
        let error = sweep(&aws).await.unwrap_err();
        assert_eq!(error.name, ErrorName::ResourceConflict);
        assert!(done(&aws).is_empty(), "{aws:?}");
        assert!(application.asked().is_empty());
    }
}

#[tokio::test]
async fn a_deployment_that_another_cleanup_has_deleted_is_gone_and_not_a_failure() {
    let delete: Change = |state| {
        state.rules.clear();
        state.target_groups.retain(|group| group.name != ID);
        state.services.clear();
    };
    for after in ["the plan", "ListTasks", "GetSecretValue"] {
        let application = Application::with(0).await;
        let aws = with(&[application.address()]);
        match after {
            "the plan" => aws.with(delete),
            _ => aws.on(after).after(move |state, _| delete(state)),
        }
        assert_verdict_at(NOW, &aws, Verdict::Gone).await;
        assert!(application.asked().is_empty(), "{after}");
    }

    // With its service still there, it is not gone: an operator has deleted the target group.
    let aws = with(&["127.0.0.1"]);
    aws.with(|state| state.target_groups.clear());
    let error = sweep(&aws).await.unwrap_err();
    assert_eq!(error.name, ErrorName::ResourceConflict);
}

#[tokio::test]
async fn a_secret_that_is_missing_or_unusable_is_a_configuration_error() {
    for secret in [None, Some(""), Some("two\nlines")] {
        let application = Application::with(0).await;
        let aws = with(&[application.address()]);
        aws.with(|state| match secret {
            None => state.secrets.clear(),
            Some(secret) => drop(state.secrets.insert(DRAIN_SECRET_ARN.into(), secret.into())),
        });
        let error = sweep(&aws).await.unwrap_err();
        assert_eq!(error.name, ErrorName::Configuration);
        assert!(!error.message.contains("lines"), "{}", error.message);
        assert!(application.asked().is_empty());
    }
}

#[tokio::test]
async fn a_secret_that_cannot_be_read_now_is_read_again_later() {
    for (code, name) in [
        ("ThrottlingException", ErrorName::Transient),
        ("InternalServiceError", ErrorName::Transient),
        // The secret is scheduled for deletion.
        ("InvalidRequestException", ErrorName::Configuration),
        ("AccessDeniedException", ErrorName::AccessDenied),
    ] {
        let application = Application::expecting("previous").await;
        for version in ["AWSCURRENT", "AWSPREVIOUS"] {
            let aws = with(&[application.address()]);
            aws.on("GetSecretValue").containing(version).fails(code);
            let error = sweep(&aws).await.unwrap_err();
            assert_eq!(error.name, name, "{code} {version}: {error}");
            assert!(error.message.contains("drain secret"), "{error}");
        }
    }
}

#[test]
fn the_answer_is_as_documented() {
    let output = Output {
        verdict: Verdict::Draining,
        reason: "3 sessions on 1 tasks".into(),
        tasks: vec![Report {
            task_id: "t1".into(),
            address: Some("10.0.0.1".into()),
            answer: Answer::AlreadyDraining,
            active_sessions: Some(3),
            detail: "HTTP 200".into(),
        }],
    };
    assert_eq!(
        serde_json::to_value(&output).unwrap(),
        serde_json::json!({
            "verdict": "draining",
            "reason": "3 sessions on 1 tasks",
            "tasks": [{
                "taskId": "t1", "address": "10.0.0.1", "answer": "alreadyDraining",
                "activeSessions": 3, "detail": "HTTP 200"
            }]
        })
    );
}

#[tokio::test]
async fn a_deployment_that_the_default_action_names_with_weight_zero_is_not_drained() {
    let aws = with(&["127.0.0.1"]);
    aws.with(|state| {
        state.listeners[0].default_actions = vec![memory_aws::forward(&[(OTHER, 100), (ID, 0)])];
    });
    let error = sweep(&aws).await.unwrap_err();
    assert_eq!(error.name, ErrorName::DeploymentKept);
    assert!(done(&aws).is_empty(), "{aws:?}");
}

#[tokio::test]
async fn giving_way_brings_back_the_time_of_grace_of_its_own_settings() {
    for (name, begin) in rivals() {
        let application = Application::with(0).await;
        let aws = with(&[application.address()]);
        tag(&aws, tags::GRACE_SECONDS, "90");
        aws.on("UpdateService")
            .once()
            .after(move |state, _| begin(state));
        assert_eq!(sweep(&aws).await.unwrap_err().name, name);
        assert_eq!(grace(&aws), 90, "{name:?}");
    }
}
