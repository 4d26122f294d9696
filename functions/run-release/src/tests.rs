use super::*;
use aws_sdk_ecs::Client;
use lifecycle::ErrorName;
use memory_aws::{GATEWAY_TIMEOUT, MemoryAws, State, own_tags, revision_arn};
use serde_json::{Value, json};

const OLD: &str = "test-20251027-122111Z";
const ID: &str = "test-20251027-122112Z";
const NEW: &str = "test-20251027-122113Z";

/// An account with the task definitions of three deployments, of which the second has revision 2, and which lists
/// two entries a page.
fn aws() -> MemoryAws {
    let aws = MemoryAws::default();
    aws.with(|state| {
        state.page_size = 2;
        for id in [OLD, ID, NEW] {
            state.add_task_definition(own_tags(id));
            let definition = state.task_definitions.last_mut().unwrap();
            definition["networkMode"] = "awsvpc".into();
            definition["newMember"] = json!({"unknown": "to us"});
            definition["containerDefinitions"] = json!([
                {"name": "proxy", "image": "proxy:1", "portMappings": [{"containerPort": 9000}]},
                {
                    "name": "app", "image": "app@sha256:aa", "entryPoint": ["/entry"], "command": ["serve"],
                    "portMappings": [{"containerPort": 8000}],
                },
            ]);
        }
    });
    aws
}

fn definition_of(id: &str) -> String {
    let ids = [OLD, ID, NEW];
    revision_arn(ids.iter().position(|it| *it == id).unwrap() + 1)
}

async fn step_of(aws: &MemoryAws, id: &str) -> Result<Output, StepError> {
    step_with(aws, id, 7200).await
}

/// The step when the execution has so many seconds left for the release.
async fn step_with(aws: &MemoryAws, id: &str, remaining: i64) -> Result<Output, StepError> {
    step_saying(aws, id, json!({"remainingSeconds": remaining})).await
}

/// The step with these fields in place of the usual ones.
async fn step_saying(aws: &MemoryAws, id: &str, more: Value) -> Result<Output, StepError> {
    let config = aws.config();
    let clients = Clients {
        ecs: Client::new(&config),
        elb: aws_sdk_elasticloadbalancingv2::Client::new(&config),
        logs: aws_sdk_cloudwatchlogs::Client::new(&config),
    };
    let mut input = json!({
        "deploymentId": id, "taskDefinitionArn": definition_of(id), "command": ["migrate", "--all"],
        "timeoutSeconds": 600, "remainingSeconds": 7200, "fromALaterVersion": true,
    });
    for (field, value) in more.as_object().unwrap() {
        input[field] = value.clone();
    }
    let clock = || aws.time();
    let input = serde_json::from_value(input).unwrap();
    run(&clients, &Baseline::for_tests(), &clock, input).await
}

async fn step(aws: &MemoryAws) -> Result<Output, StepError> {
    step_of(aws, ID).await
}

async fn verdict_of(aws: &MemoryAws, id: &str) -> Verdict {
    step_of(aws, id).await.unwrap().verdict
}

fn pass(aws: &MemoryAws, seconds: i64) {
    aws.with(|state| state.now += seconds);
}

/// AWS does not show tasks for longer than an hour, and forgets their tokens.
fn forget(state: &mut State) {
    state.tasks.clear();
    state.run_requests.clear();
    state.now += 2 * 3600;
}

#[tokio::test]
async fn it_runs_the_command_in_a_copy_of_the_deployments_definition_without_ports() {
    let aws = aws();
    assert_eq!(step(&aws).await.unwrap().verdict, Verdict::Running);
    assert_eq!(
        aws.calls_to("RegisterTaskDefinition"),
        [json!({
            "family": "test-release", "networkMode": "awsvpc", "newMember": {"unknown": "to us"},
            "containerDefinitions": [
                {"name": "proxy", "image": "proxy:1", "essential": false},
                {
                    "name": "app", "image": "app@sha256:aa", "entryPoint": ["/entry"], "command": ["migrate", "--all"],
                    "essential": true,
                },
            ],
            "tags": [
                {"key": "pulse:deployment-id", "value": ID},
                {"key": "pulse:environment", "value": "test"},
                {"key": "pulse:copy-of", "value": "test-app:2"},
            ],
        })]
    );
    assert_eq!(
        aws.calls_to("RunTask"),
        [json!({
            "cluster": "test", "taskDefinition": revision_arn(4), "clientToken": "release-after-none",
            "launchType": "FARGATE", "count": 1, "startedBy": ID,
            "networkConfiguration": {"awsvpcConfiguration": {
                "subnets": ["subnet-1", "subnet-2"], "securityGroups": ["sg-1"], "assignPublicIp": "DISABLED",
            }},
            "tags": [
                {"key": "pulse:deployment-id", "value": ID},
                {"key": "pulse:environment", "value": "test"},
            ],
        })]
    );
}

#[tokio::test]
async fn it_runs_once_and_is_watched_until_it_ends() {
    let aws = aws();
    for _ in 0..3 {
        assert_eq!(verdict_of(&aws, ID).await, Verdict::Running);
        pass(&aws, 10);
    }
    aws.with(|state| _ = state.end_task(0));
    for _ in 0..2 {
        assert_eq!(verdict_of(&aws, ID).await, Verdict::Succeeded);
    }
    assert_eq!(aws.count("RunTask"), 1);
    assert_eq!(aws.count("RegisterTaskDefinition"), 1);
}

#[tokio::test]
async fn an_end_with_code_zero_is_recorded_so_that_it_never_runs_again() {
    let aws = aws();
    step(&aws).await.unwrap();
    aws.with(|state| _ = state.end_task(0));
    assert_eq!(verdict_of(&aws, ID).await, Verdict::Succeeded);
    aws.with(forget);
    let output = step(&aws).await.unwrap();
    assert_eq!(output.verdict, Verdict::Succeeded, "{output:?}");
    assert_eq!(aws.count("RunTask"), 1);
}

#[tokio::test]
async fn an_end_that_is_not_recorded_is_not_reported() {
    let aws = aws();
    step(&aws).await.unwrap();
    aws.with(|state| _ = state.end_task(0));
    aws.on("TagResource").once().fails("ServerException");
    assert_eq!(step(&aws).await.unwrap_err().name, ErrorName::Transient);
    assert_eq!(verdict_of(&aws, ID).await, Verdict::Succeeded);
}

#[tokio::test]
async fn one_that_aws_has_forgotten_without_a_record_is_not_run_again_and_not_taken_for_a_success()
{
    let aws = aws();
    step(&aws).await.unwrap();
    aws.with(forget);
    let output = step(&aws).await.unwrap();
    assert_eq!(output.verdict, Verdict::Failed);
    assert!(output.reason.contains("is not known whether"), "{output:?}");
    assert_eq!(aws.count("RunTask"), 1);
}

#[tokio::test]
async fn a_step_that_dies_anywhere_starts_nothing_twice() {
    for operation in ["RegisterTaskDefinition", "TagResource", "RunTask"] {
        let aws = aws();
        aws.on(operation).once().loses_the_answer(GATEWAY_TIMEOUT);
        let error = step(&aws).await.unwrap_err();
        assert_eq!(error.name, ErrorName::Transient, "{operation}");
        assert_eq!(verdict_of(&aws, ID).await, Verdict::Running);
        aws.with(|state| {
            assert_eq!(state.tasks.len(), 1, "{operation}");
            assert_eq!(state.active_revisions(), 4, "{operation}");
        });
    }
}

#[tokio::test]
async fn a_task_that_the_list_does_not_show_yet_is_not_started_again() {
    let aws = aws();
    let before = aws.with(|state| state.clone());
    step(&aws).await.unwrap();
    aws.on("ListTasks").shows(before);
    assert_eq!(verdict_of(&aws, ID).await, Verdict::Running);
    assert_eq!(aws.count("RunTask"), 2);
    aws.with(|state| assert_eq!(state.tasks.len(), 1));
}

#[tokio::test]
async fn another_exit_code_fails_with_the_last_log_lines() {
    let aws = aws();
    step(&aws).await.unwrap();
    aws.with(|state| {
        state.end_task(1);
        let lines = vec!["relation exists".to_owned(), "giving up".to_owned()];
        state.logs.insert(format!("{ID}/app/t1"), lines);
    });
    let output = step(&aws).await.unwrap();
    assert_eq!(output.verdict, Verdict::Failed);
    for words in ["exit code 1", "relation exists | giving up"] {
        assert!(output.reason.contains(words), "{output:?}");
    }
}

#[tokio::test]
async fn what_ended_without_an_exit_code_of_the_application_failed() {
    let aws = aws();
    step(&aws).await.unwrap();
    aws.with(|state| {
        let task = state.end_task(0);
        task["containers"] = json!([
            {"name": "proxy", "exitCode": 0}, {"name": "app", "reason": "CannotPullContainerError"},
        ]);
    });
    let output = step(&aws).await.unwrap();
    assert_eq!(output.verdict, Verdict::Failed);
    assert!(output.reason.contains("CannotPull"), "{output:?}");
}

#[tokio::test]
async fn one_that_is_out_of_time_is_stopped_and_failed_even_if_it_ends_with_code_zero() {
    let aws = aws();
    step(&aws).await.unwrap();
    pass(&aws, 599);
    step(&aws).await.unwrap();
    assert_eq!(aws.count("StopTask"), 0);
    pass(&aws, 1);
    for _ in 0..2 {
        assert_eq!(verdict_of(&aws, ID).await, Verdict::Running);
    }
    assert_eq!(aws.count("StopTask"), 1);
    aws.with(|state| _ = state.end_task(0));
    let output = step(&aws).await.unwrap();
    assert_eq!(output.verdict, Verdict::Failed);
    assert!(output.reason.contains("it had 600 s"), "{output:?}");
}

#[tokio::test]
async fn two_never_run_at_once_and_each_runs_after_the_other() {
    let aws = aws();
    assert_eq!(verdict_of(&aws, ID).await, Verdict::Running);
    let output = step_of(&aws, NEW).await.unwrap();
    assert_eq!(output.verdict, Verdict::Waiting);
    assert!(output.reason.contains(ID), "{output:?}");
    // One that is stopping still runs.
    aws.with(|state| state.tasks[0]["desiredStatus"] = "STOPPED".into());
    assert_eq!(verdict_of(&aws, NEW).await, Verdict::Waiting);
    aws.with(|state| _ = state.end_task(1));
    assert_eq!(verdict_of(&aws, NEW).await, Verdict::Running);
    let token = aws.calls_to("RunTask")[1]["clientToken"].clone();
    assert_eq!(token, "release-after-t1");
}

#[tokio::test]
async fn one_that_nobody_has_stopped_in_time_is_stopped_by_the_next() {
    for (seconds, tagged, stops) in [(4199, true, 0), (4200, true, 1), (4200, false, 0)] {
        let aws = aws();
        step(&aws).await.unwrap();
        aws.with(|state| {
            state.now += seconds;
            if !tagged {
                state.tasks[0]["tags"] = json!([]);
            }
        });
        for _ in 0..2 {
            assert_eq!(verdict_of(&aws, NEW).await, Verdict::Waiting);
        }
        assert_eq!(aws.count("StopTask"), stops, "{seconds} {tagged}");
    }
}

#[tokio::test]
async fn of_two_that_see_nothing_running_one_starts() {
    let aws = aws();
    let before = aws.with(|state| state.clone());
    assert_eq!(verdict_of(&aws, ID).await, Verdict::Running);
    aws.on("ListTasks").nth(1).shows(before.clone());
    aws.on("ListTasks").nth(2).shows(before);
    let output = step_of(&aws, NEW).await.unwrap();
    assert_eq!(output.verdict, Verdict::Waiting, "{output:?}");
    aws.with(|state| assert_eq!(state.tasks.len(), 1));
    // That it was refused says that nothing was started, however long it has to wait.
    pass(&aws, 3600);
    aws.with(|state| _ = state.end_task(0));
    assert_eq!(verdict_of(&aws, NEW).await, Verdict::Running);
}

#[tokio::test]
async fn an_older_one_does_not_start_once_a_newer_one_has() {
    for ends in [None, Some(0), Some(1)] {
        let aws = aws();
        step_of(&aws, NEW).await.unwrap();
        aws.with(|state| state.tasks[0]["startedAt"] = state.now.into());
        if let Some(code) = ends {
            aws.with(|state| _ = state.end_task(code));
            step_of(&aws, NEW).await.unwrap();
        }
        let output = step(&aws).await.unwrap();
        assert_eq!(output.verdict, Verdict::Superseded, "{ends:?}");
        assert!(output.reason.contains(NEW), "{output:?}");
        if ends == Some(0) {
            aws.with(forget);
            assert_eq!(verdict_of(&aws, ID).await, Verdict::Superseded);
        }
        assert_eq!(aws.count("RunTask"), 1);
    }
}

#[tokio::test]
async fn one_that_has_begun_is_seen_to_its_end_although_a_newer_one_began() {
    let aws = aws();
    step(&aws).await.unwrap();
    aws.with(|state| _ = state.end_task(0));
    step_of(&aws, NEW).await.unwrap();
    assert_eq!(verdict_of(&aws, ID).await, Verdict::Succeeded);
}

#[tokio::test]
async fn a_newer_one_whose_task_never_ran_does_not_count_as_begun() {
    let aws = aws();
    step_of(&aws, NEW).await.unwrap();
    aws.with(|state| {
        let task = state.end_task(0);
        task["startedAt"] = Value::Null;
        task["containers"] = json!([{"name": "app", "reason": "CannotPullContainerError"}]);
    });
    assert_eq!(verdict_of(&aws, ID).await, Verdict::Running);
}

#[tokio::test]
async fn no_room_on_fargate_is_tried_again() {
    for (reason, name) in [
        (
            "Capacity is unavailable at this time. Please try again later",
            ErrorName::Transient,
        ),
        (
            "You've reached the limit on the number of vCPUs you can run concurrently",
            ErrorName::Transient,
        ),
        ("ATTRIBUTE", ErrorName::Unexpected),
    ] {
        let aws = aws();
        aws.with(|state| state.run_failures.push(reason.to_owned()));
        let error = step(&aws).await.unwrap_err();
        assert_eq!(error.name, name);
        assert!(error.message.contains(reason), "{error}");
        pass(&aws, 2 * 3600);
        assert_eq!(verdict_of(&aws, ID).await, Verdict::Running);
    }
}

#[tokio::test]
async fn a_deployment_without_its_task_definition_is_named() {
    let aws = aws();
    aws.with(|state| state.task_definitions.clear());
    let error = step(&aws).await.unwrap_err();
    assert_eq!(error.name, ErrorName::ResourceConflict);
    assert!(error.message.contains(ID), "{error}");
}

async fn undo_step(aws: &MemoryAws) -> Undone {
    let ecs = Client::new(&aws.config());
    let id = ID.parse().unwrap();
    undo(&ecs, &Baseline::for_tests(), &id).await.unwrap()
}

#[tokio::test]
async fn undo_stops_what_runs_and_then_deregisters_its_definition_and_no_other() {
    let aws = aws();
    assert_eq!(undo_step(&aws).await, Undone::Gone(0));
    step(&aws).await.unwrap();
    for _ in 0..2 {
        assert_eq!(undo_step(&aws).await, Undone::Stopping);
    }
    assert_eq!(aws.count("StopTask"), 1);
    aws.with(|state| _ = state.end_task(143));
    assert_eq!(verdict_of(&aws, NEW).await, Verdict::Running);
    assert_eq!(undo_step(&aws).await, Undone::Gone(1));
    assert_eq!(undo_step(&aws).await, Undone::Gone(0));
    aws.with(|state| {
        assert_eq!(state.tasks[1]["desiredStatus"], "RUNNING");
        assert_eq!(state.active_revisions(), 4);
    });
}

#[tokio::test]
async fn undo_treats_a_task_that_is_gone_as_stopped() {
    let aws = aws();
    step(&aws).await.unwrap();
    aws.on("StopTask").before(|state, _| state.tasks.clear());
    assert_eq!(undo_step(&aws).await, Undone::Stopping);
    assert_eq!(undo_step(&aws).await, Undone::Gone(1));
}

#[tokio::test]
async fn a_release_of_an_undone_deployment_that_is_started_again_runs_again() {
    let aws = aws();
    step(&aws).await.unwrap();
    aws.with(|state| _ = state.end_task(0));
    step(&aws).await.unwrap();
    undo_step(&aws).await;
    assert_eq!(verdict_of(&aws, ID).await, Verdict::Running);
    assert_eq!(aws.count("RunTask"), 2);
}

#[tokio::test]
async fn while_a_newer_one_has_not_begun_an_older_one_waits_for_it() {
    let aws = aws();
    step_of(&aws, NEW).await.unwrap();
    // It may never run, as without a secret.
    assert_eq!(verdict_of(&aws, ID).await, Verdict::Waiting);
    // It ran, although AWS shows no start of it.
    aws.with(|state| {
        let task = state.end_task(1);
        task["startedAt"] = Value::Null;
    });
    assert_eq!(verdict_of(&aws, ID).await, Verdict::Superseded);
}

#[tokio::test]
async fn one_does_not_begin_when_a_newer_deployment_is_active() {
    for (active, verdict) in [
        (NEW, Verdict::Superseded),
        (ID, Verdict::Running),
        (OLD, Verdict::Running),
    ] {
        let aws = aws();
        aws.with(|state| {
            state.add_target_group(active, own_tags(active));
            state.activate(active);
        });
        assert_eq!(verdict_of(&aws, ID).await, verdict, "{active}");
    }
}

#[tokio::test]
async fn one_does_not_begin_without_the_time_that_it_may_take_and_one_that_runs_goes_on() {
    let aws = aws();
    let output = step_with(&aws, ID, 599).await.unwrap();
    assert_eq!(output.verdict, Verdict::Failed);
    assert!(output.reason.contains("no time left"), "{output:?}");
    assert_eq!(aws.count("RunTask"), 0);
    assert_eq!(
        step_with(&aws, ID, 600).await.unwrap().verdict,
        Verdict::Running
    );
    assert_eq!(
        step_with(&aws, ID, 1).await.unwrap().verdict,
        Verdict::Running
    );
}

#[tokio::test]
async fn one_whose_deployment_was_undone_does_not_begin() {
    let aws = aws();
    aws.with(|state| state.task_definitions[1]["status"] = "INACTIVE".into());
    let error = step(&aws).await.unwrap_err();
    assert_eq!(error.name, ErrorName::ResourceConflict);
    assert_eq!(aws.count("RunTask"), 0);
}

#[tokio::test]
async fn one_that_was_interrupted_failed_even_if_it_ends_with_code_zero() {
    for code in [
        "TerminationNotice",
        "InfrastructureHealth",
        "ServiceSchedulerInitiated",
    ] {
        let aws = aws();
        step(&aws).await.unwrap();
        aws.with(|state| state.end_task(0)["stopCode"] = code.into());
        assert_eq!(verdict_of(&aws, ID).await, Verdict::Failed, "{code}");
    }
}

#[tokio::test]
async fn that_nothing_was_started_is_noted_by_a_later_call_if_the_first_could_not() {
    let aws = aws();
    let before = aws.with(|state| state.clone());
    assert_eq!(verdict_of(&aws, ID).await, Verdict::Running);
    aws.on("ListTasks").nth(1).shows(before.clone());
    aws.on("ListTasks").nth(2).shows(before);
    aws.on("TagResource")
        .containing("refused")
        .once()
        .fails("ServerException");
    step_of(&aws, NEW).await.unwrap_err();
    pass(&aws, 130);
    assert_eq!(verdict_of(&aws, NEW).await, Verdict::Waiting);
    pass(&aws, 3600);
    aws.with(|state| _ = state.end_task(0));
    assert_eq!(verdict_of(&aws, NEW).await, Verdict::Running);
}

/// A release of `first` and one of `second` that have both started a task, the second one a second later: AWS forgot the
/// task of an earlier release between their looks, and the second one's look shows no task yet.
///
/// `blind` is how many looks show the second one nothing. A look is two lists.
async fn both_start(aws: &MemoryAws, first: &str, second: &str, blind: usize) -> Output {
    let none = aws.with(|state| state.clone());
    step_of(aws, OLD).await.unwrap();
    aws.with(|state| _ = state.end_task(0));
    assert_eq!(verdict_of(aws, OLD).await, Verdict::Succeeded);
    aws.with(|state| {
        state.now += 3600;
        state.run_requests.clear();
    });
    assert_eq!(verdict_of(aws, first).await, Verdict::Running);
    pass(aws, 1);
    for list in 1..=2 * blind {
        aws.on("ListTasks").nth(list).shows(none.clone());
    }
    let output = step_of(aws, second).await.unwrap();
    let tokens: Vec<_> = aws.calls_to("RunTask");
    let tokens: Vec<_> = tokens.iter().map(|call| &call["clientToken"]).collect();
    assert_eq!(
        tokens,
        [
            "release-after-none",
            "release-after-t1",
            "release-after-none"
        ]
    );
    output
}

/// The desired states of the tasks of those two.
fn wanted(aws: &MemoryAws) -> [String; 2] {
    let task = |state: &mut State, index: usize| state.tasks[index]["desiredStatus"].to_string();
    aws.with(|state| [task(state, 1), task(state, 2)].map(|it| it.trim_matches('"').to_owned()))
}

#[tokio::test]
async fn of_two_that_both_started_a_task_the_later_withdraws_and_begins_when_the_other_has_ended() {
    // However late the second one sees the first.
    for blind in 1..=2 {
        let aws = aws();
        let mut output = both_start(&aws, ID, NEW, blind).await;
        for _ in 1..blind {
            assert_eq!(output.verdict, Verdict::Running, "{output:?}");
            output = step_of(&aws, NEW).await.unwrap();
        }
        assert_eq!(output.verdict, Verdict::Waiting, "{output:?}");
        assert!(output.reason.contains(ID), "{output:?}");
        assert_eq!(wanted(&aws), ["RUNNING", "STOPPED"]);
        // While its task stops, and while the other one runs.
        assert_eq!(verdict_of(&aws, NEW).await, Verdict::Waiting);
        assert_eq!(verdict_of(&aws, ID).await, Verdict::Running);
        aws.with(|state| _ = state.end_task_at(2, None));
        assert_eq!(verdict_of(&aws, NEW).await, Verdict::Waiting);
        assert_eq!(verdict_of(&aws, ID).await, Verdict::Running);
        assert_eq!(aws.count("StopTask"), 1);
        assert_eq!(aws.count("RunTask"), 3);

        aws.with(|state| _ = state.end_task_at(1, Some(0)));
        assert_eq!(verdict_of(&aws, ID).await, Verdict::Succeeded);
        assert_eq!(verdict_of(&aws, NEW).await, Verdict::Running);
        assert_eq!(aws.count("RunTask"), 4);
        aws.with(|state| _ = state.end_task(0));
        assert_eq!(verdict_of(&aws, NEW).await, Verdict::Succeeded);
        assert_eq!(aws.count("StopTask"), 1);
    }
}

#[tokio::test]
async fn an_older_one_that_withdrew_for_a_newer_one_is_superseded_once_that_has_run() {
    let aws = aws();
    let output = both_start(&aws, NEW, ID, 1).await;
    assert_eq!(output.verdict, Verdict::Waiting, "{output:?}");
    aws.with(|state| _ = state.end_task_at(2, None));
    assert_eq!(verdict_of(&aws, ID).await, Verdict::Waiting);
    aws.with(|state| state.tasks[1]["startedAt"] = state.now.into());
    assert_eq!(verdict_of(&aws, ID).await, Verdict::Superseded);
}

#[tokio::test]
async fn of_two_that_were_started_at_the_same_moment_both_choose_the_same() {
    let aws = aws();
    both_start(&aws, ID, NEW, 2).await;
    aws.with(|state| state.tasks[2]["createdAt"] = state.tasks[1]["createdAt"].clone());
    for _ in 0..2 {
        assert_eq!(verdict_of(&aws, ID).await, Verdict::Running);
        assert_eq!(verdict_of(&aws, NEW).await, Verdict::Waiting);
    }
    assert_eq!(wanted(&aws), ["RUNNING", "STOPPED"]);
}

#[tokio::test]
async fn one_that_runs_is_never_withdrawn_and_goes_before_one_that_does_not() {
    // The later one runs, and the earlier one still waits for its image.
    for field in ["startedAt", "lastStatus"] {
        let aws = aws();
        both_start(&aws, NEW, ID, 2).await;
        aws.with(|state| {
            state.tasks[2][field] = match field {
                "startedAt" => state.now.into(),
                _ => "RUNNING".into(),
            };
        });
        for _ in 0..2 {
            assert_eq!(verdict_of(&aws, ID).await, Verdict::Running);
            assert_eq!(verdict_of(&aws, NEW).await, Verdict::Waiting);
        }
        assert_eq!(wanted(&aws), ["STOPPED", "RUNNING"], "{field}");
    }
    // Both run: neither is interrupted.
    let aws = aws();
    both_start(&aws, ID, NEW, 2).await;
    aws.with(|state| {
        for task in &mut state.tasks[1..] {
            task["lastStatus"] = "RUNNING".into();
        }
    });
    assert_eq!(verdict_of(&aws, ID).await, Verdict::Running);
    assert_eq!(verdict_of(&aws, NEW).await, Verdict::Running);
    assert_eq!(wanted(&aws), ["RUNNING", "RUNNING"]);
}

#[tokio::test]
async fn a_withdrawal_that_dies_anywhere_ends_in_one_task() {
    for dies in ["ListTasks", "DescribeTasks", "StopTask"] {
        for takes_effect in [false, true] {
            let aws = aws();
            // Its task is started, and the next call is the one that withdraws.
            both_start(&aws, ID, NEW, 2).await;
            match takes_effect {
                true => aws.on(dies).once().loses_the_answer(GATEWAY_TIMEOUT),
                false => aws.on(dies).once().fails("ServerException"),
            }
            let error = step_of(&aws, NEW).await.unwrap_err();
            assert_eq!(error.name, ErrorName::Transient, "{dies}");
            assert_eq!(verdict_of(&aws, NEW).await, Verdict::Waiting, "{dies}");
            assert_eq!(wanted(&aws), ["RUNNING", "STOPPED"], "{dies}");
            aws.with(|state| _ = state.end_task_at(2, None));
            assert_eq!(verdict_of(&aws, NEW).await, Verdict::Waiting, "{dies}");
            assert_eq!(aws.count("RunTask"), 3, "{dies}");
        }
    }
}

#[tokio::test]
async fn one_that_ran_before_it_could_withdraw_failed() {
    let aws = aws();
    both_start(&aws, ID, NEW, 1).await;
    aws.with(|state| _ = state.end_task_at(2, Some(0)));
    for _ in 0..2 {
        let output = step_of(&aws, NEW).await.unwrap();
        assert_eq!(output.verdict, Verdict::Failed, "{output:?}");
        assert!(output.reason.contains("began first"), "{output:?}");
    }
    assert_eq!(aws.count("RunTask"), 3);
}

#[tokio::test]
async fn one_that_a_person_stopped_before_it_ran_has_not_withdrawn() {
    let aws = aws();
    step(&aws).await.unwrap();
    aws.with(|state| {
        let task = state.end_task_at(0, None);
        task["stopCode"] = "UserInitiated".into();
        task["stoppedReason"] = "by hand".into();
    });
    assert_eq!(verdict_of(&aws, ID).await, Verdict::Failed);
    assert_eq!(aws.count("RunTask"), 1);
}

#[tokio::test]
async fn one_that_withdrew_begins_however_long_it_has_waited() {
    let aws = aws();
    both_start(&aws, ID, NEW, 1).await;
    aws.with(|state| _ = state.end_task_at(2, None));
    pass(&aws, 130);
    assert_eq!(verdict_of(&aws, NEW).await, Verdict::Waiting);
    pass(&aws, 3600);
    aws.with(|state| {
        state.end_task_at(1, Some(0));
        // AWS shows the one that withdrew no more.
        state.tasks.remove(2);
    });
    assert_eq!(verdict_of(&aws, NEW).await, Verdict::Running);
}

#[tokio::test]
async fn one_that_withdraws_has_done_nothing_only_when_its_task_has_ended() {
    let aws = aws();
    both_start(&aws, ID, NEW, 1).await;
    pass(&aws, 130);
    let refused = || {
        let tagged = aws.calls_to("TagResource").into_iter();
        tagged
            .filter(|call| call.to_string().contains("refused"))
            .count()
    };
    // It may still run.
    assert_eq!(verdict_of(&aws, NEW).await, Verdict::Waiting);
    assert_eq!(refused(), 0);
    aws.with(|state| _ = state.end_task_at(2, None));
    assert_eq!(verdict_of(&aws, NEW).await, Verdict::Waiting);
    assert_eq!(refused(), 1);
}

#[tokio::test]
async fn that_nothing_was_started_is_noted_only_while_aws_would_show_the_task() {
    for (seconds, is_noted) in [(119, false), (120, true), (2699, true), (2700, false)] {
        let aws = aws();
        aws.on("RunTask").once().fails("ServerException");
        step(&aws).await.unwrap_err();
        assert_eq!(verdict_of(&aws, NEW).await, Verdict::Running);
        pass(&aws, seconds);
        assert_eq!(verdict_of(&aws, ID).await, Verdict::Waiting);
        let noted = aws.calls_to("TagResource").pop().unwrap();
        let noted = noted["tags"][0]["value"] == "refused";
        assert_eq!(noted, is_noted, "{seconds}");
    }
}

#[tokio::test]
async fn another_command_or_revision_of_the_deployment_is_another_release() {
    for more in [
        json!({"command": ["migrate", "--one"]}),
        json!({"taskDefinitionArn": revision_arn(1)}),
    ] {
        let aws = aws();
        step(&aws).await.unwrap();
        aws.with(|state| _ = state.end_task(0));
        assert_eq!(verdict_of(&aws, ID).await, Verdict::Succeeded);
        let output = step_saying(&aws, ID, more.clone()).await.unwrap();
        assert_eq!(output.verdict, Verdict::Running, "{more}");
        assert_eq!(aws.count("RunTask"), 2, "{more}");
    }
}
