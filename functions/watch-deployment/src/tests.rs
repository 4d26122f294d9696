use super::*;
use lifecycle::{ErrorName, executions};
use memory_aws::{MemoryAws, NOW, ROLLBACK_MACHINE_ARN, State, group_arn};
use serde_json::{Value, json};

const OLD: &str = "test-20251027-122112Z";
const BAD: &str = "test-20251027-122113Z";
const CURE: &str = "test-20251027-122114Z";
const LIVE: &[&str] = &[tags::READY_AT, tags::LIVE_SINCE];

/// A deployment that is active, an older one that a watch has found well, and one between them that was not judged.
fn with(change: impl FnOnce(&mut State)) -> MemoryAws {
    let aws = MemoryAws::default();
    aws.with(|state| {
        state.deploy(OLD, &[tags::READY_AT, tags::LIVE_SINCE, tags::PROVEN_AT]);
        state.deploy(BAD, LIVE);
        state.activate(BAD);
        change(state);
    });
    aws
}

/// Looks once, `seconds` after the switch, with these fields in place of the usual ones.
async fn look_with(aws: &MemoryAws, seconds: u32, more: Value) -> Result<Output, StepError> {
    let sdk = aws.config();
    let clients = Clients {
        cloudwatch: aws_sdk_cloudwatch::Client::new(&sdk),
        ecs: aws_sdk_ecs::Client::new(&sdk),
        elb: aws_sdk_elasticloadbalancingv2::Client::new(&sdk),
        logs: aws_sdk_cloudwatchlogs::Client::new(&sdk),
        sfn: aws_sdk_sfn::Client::new(&sdk),
    };
    let config = Config {
        baseline: Baseline::for_tests(),
        rollback_machine_arn: ROLLBACK_MACHINE_ARN.to_owned(),
    };
    let mut input = json!({
        "deploymentId": BAD, "targetGroupArn": group_arn(BAD), "previousDeploymentId": OLD, "desiredCount": 2,
        "watch": {"seconds": 120, "onBreach": "rollBack"}, "watchedSeconds": seconds, "ofALaterVersion": 1,
    });
    for (field, value) in more.as_object().expect("an object") {
        input[field] = value.clone();
    }
    let input = serde_json::from_value(input).expect("an input");
    run(&clients, &config, &|| aws.time(), input).await
}

async fn look(aws: &MemoryAws, seconds: u32) -> Output {
    look_with(aws, seconds, json!({})).await.expect("an output")
}

/// What was started, as name and input.
fn rollbacks(aws: &MemoryAws) -> Vec<(String, Value)> {
    let started = aws.calls_to("StartExecution").into_iter();
    let started = started.map(|call| {
        assert_eq!(call["stateMachineArn"], ROLLBACK_MACHINE_ARN);
        let text = |field: &str| call[field].as_str().unwrap_or_default().to_owned();
        let input = serde_json::from_str(&text("input")).expect("JSON");
        (text("name"), input)
    });
    started.collect()
}

/// A task that ended so many seconds before now.
fn crash(state: &mut State, seconds_ago: i64) {
    let ended = state.now - seconds_ago;
    let task = state.add_task(BAD, "10.0.0.1");
    task["createdAt"] = (ended - 60).into();
    task["containers"] = json!([{"name": "app"}]);
    state.end_task(1);
}

#[tokio::test]
async fn one_that_is_well_is_looked_at_closely_first_and_is_proven_when_its_time_is_over() {
    for (seconds, verdict, next) in [
        (0, Verdict::Watching, LOOK_CLOSELY),
        (119, Verdict::Watching, LOOK_CLOSELY),
        (120, Verdict::Proven, LOOK_CLOSELY),
    ] {
        let aws = with(|_| ());
        let output = look(&aws, seconds).await;
        assert_eq!(
            (output.verdict, output.next_look_seconds),
            (verdict, next),
            "{seconds}"
        );
        let is_proven = aws.with(|state| state.has_tag(BAD, tags::PROVEN_AT));
        assert_eq!(is_proven, verdict == Verdict::Proven, "{seconds}");
        assert!(output.not_watched.is_empty());
    }
    let aws = with(|_| ());
    let long = json!({"watch": {"seconds": 600, "onBreach": "rollBack"}});
    let output = look_with(&aws, 120, long).await.unwrap();
    assert_eq!(
        (output.verdict, output.next_look_seconds),
        (Verdict::Watching, LOOK_ON)
    );
}

#[tokio::test]
async fn one_that_is_not_to_be_watched_is_proven_at_once() {
    let aws = with(|state| state.fail_health_checks(BAD));
    let watch = json!({"watch": {"seconds": 0, "onBreach": "rollBack"}});
    let output = look_with(&aws, 0, watch).await.unwrap();
    assert_eq!(output.verdict, Verdict::Proven);
    assert!(aws.with(|state| state.has_tag(BAD, tags::PROVEN_AT)));
}

#[tokio::test]
async fn two_crashes_since_the_switch_have_it_rolled_back_once() {
    let aws = with(|state| {
        crash(state, 10);
        crash(state, 5);
        state
            .logs
            .insert(format!("{BAD}/app/t2"), vec!["no database".into()]);
    });
    for _ in 0..2 {
        let output = look(&aws, 20).await;
        assert_eq!(output.verdict, Verdict::RollingBack, "{output:?}");
        for words in [
            "was live for 20 s",
            "2 tasks stopped",
            "exit code 1",
            "no database",
            OLD,
        ] {
            assert!(output.reason.contains(words), "{output:?}");
        }
        let arn = output.rollback.expect("one").execution_arn;
        assert_eq!(
            arn,
            executions::arn(ROLLBACK_MACHINE_ARN, &format!("watch-{BAD}"))
        );
    }
    let input = json!({"deploymentId": OLD, "from": BAD});
    let started = (format!("watch-{BAD}"), input);
    assert_eq!(rollbacks(&aws), [started.clone(), started]);
    assert_eq!(aws.with(|state| state.executions.len()), 1);
}

#[tokio::test]
async fn a_rollback_that_was_started_and_has_ended_is_followed() {
    let aws = with(|state| {
        crash(state, 10);
        crash(state, 5);
        let name = format!("watch-{BAD}");
        state.add_execution_of(ROLLBACK_MACHINE_ARN, &name, "{}")["status"] = "SUCCEEDED".into();
    });
    let output = look(&aws, 20).await;
    assert_eq!(output.verdict, Verdict::RollingBack);
    let rollback = json!({"rollback": output.rollback});
    let output = look_with(&aws, 25, rollback).await.unwrap();
    assert_eq!(
        output.verdict,
        Verdict::Unhealthy,
        "it is still active: {output:?}"
    );
}

#[tokio::test]
async fn one_crash_earlier_ones_and_what_says_nothing_of_the_image_are_no_breach() {
    let aws = with(|state| {
        crash(state, 5);
        // Before the switch.
        crash(state, 21);
        crash(state, 30);
        // An operator stopped it.
        crash(state, 5);
        let last = state.tasks.last_mut().expect("one");
        last["stopCode"] = "UserInitiated".into();
        last["stoppedReason"] = "by hand".into();
    });
    assert_eq!(look(&aws, 20).await.verdict, Verdict::Watching);
}

#[tokio::test]
async fn of_many_tasks_half_have_to_crash() {
    for (crashes, verdict) in [(4, Verdict::Watching), (5, Verdict::RollingBack)] {
        let aws = with(|state| (0..crashes).for_each(|_| crash(state, 5)));
        let output = look_with(&aws, 20, json!({"desiredCount": 10}))
            .await
            .unwrap();
        assert_eq!(output.verdict, verdict, "{crashes}");
    }
}

#[tokio::test]
async fn lost_health_needs_a_second_look_and_a_healthy_one_to_go_back_to() {
    let aws = with(|state| state.fail_health_checks(BAD));
    // Also when its time is over.
    for seconds in [20, 130] {
        let output = look(&aws, seconds).await;
        assert_eq!(
            (output.verdict, output.next_look_seconds),
            (Verdict::Watching, LOOK_AGAIN)
        );
        assert!(output.unhealthy);
    }
    let again = json!({"unhealthyBefore": true});
    let output = look_with(&aws, 25, again.clone()).await.unwrap();
    assert_eq!(output.verdict, Verdict::RollingBack);
    assert!(
        output.reason.contains("none of its 2 targets is healthy"),
        "{output:?}"
    );

    let aws = with(|state| {
        state.fail_health_checks(BAD);
        state.fail_health_checks(OLD);
    });
    let output = look_with(&aws, 25, again.clone()).await.unwrap();
    assert_eq!(output.verdict, Verdict::Unhealthy);
    assert!(
        output.reason.contains("has no healthy target either"),
        "{output:?}"
    );
    assert!(rollbacks(&aws).is_empty());

    let aws = with(|_| ());
    let output = look_with(&aws, 25, again).await.unwrap();
    assert_eq!(output.verdict, Verdict::Watching, "it is healthy again");
    assert!(!output.unhealthy);
}

#[tokio::test]
async fn an_alarm_that_rings_is_a_breach_unless_it_rang_before() {
    let watch = json!({"seconds": 120, "alarms": ["errors", "latency"], "onBreach": "rollBack"});
    let aws = with(|state| {
        state
            .alarms
            .insert("errors".into(), "INSUFFICIENT_DATA".into());
        state.alarms.insert("latency".into(), "ALARM".into());
    });
    let output = look_with(&aws, 20, json!({"watch": watch})).await.unwrap();
    assert_eq!(output.verdict, Verdict::RollingBack);
    assert!(output.reason.contains("in ALARM: latency"), "{output:?}");

    let accepted = json!({"watch": watch, "acceptedAlarms": ["latency"]});
    let output = look_with(&aws, 20, accepted).await.unwrap();
    assert_eq!(output.verdict, Verdict::Watching);
    assert_eq!(
        output.not_watched,
        ["the alarm latency rang before the deployment was made"]
    );
}

#[tokio::test]
async fn what_cloudwatch_does_not_say_is_reported_and_proves_nothing_wrong() {
    let watch = json!({
        "seconds": 300, "alarms": ["errors"], "errors": {"percent": 5, "atLeast": 20}, "onBreach": "rollBack",
    });
    let aws = with(|_| ());
    let output = look_with(&aws, 300, json!({"watch": watch})).await.unwrap();
    assert_eq!(output.verdict, Verdict::Proven);
    assert_eq!(
        output.not_watched,
        ["the alarm errors does not exist any more"]
    );
    for code in ["ThrottlingException", "AccessDenied"] {
        let aws = with(|_| ());
        aws.on("DescribeAlarms").fails(code);
        aws.on("GetMetricData").fails(code);
        let output = look_with(&aws, 300, json!({"watch": watch})).await.unwrap();
        assert_eq!(output.verdict, Verdict::Proven);
        let [alarms, failures] = output.not_watched.as_slice() else {
            panic!("{output:?}");
        };
        assert!(alarms.starts_with("alarms: could not read the alarms") && alarms.contains(code));
        assert!(failures.starts_with("failed requests: could not read") && failures.contains(code));
    }
}

/// The sums of a metric in the two minutes after the switch, and in another one that is not over or was before.
fn publish(state: &mut State, metric: &str, dimensions: &str, since: f64, other: (i64, f64)) {
    let minute = NOW - NOW.rem_euclid(60);
    let points = vec![
        (minute - 300, since),
        (minute - 240, 0.0),
        (minute + other.0, other.1),
    ];
    state
        .metrics
        .insert(format!("{metric} {dimensions}"), points);
}

fn of_group(id: &str) -> String {
    format!("app/test-alb/1 {}", target_group::dimension(&group_arn(id)))
}

#[tokio::test]
async fn a_share_of_failed_requests_is_a_breach_if_it_is_twice_that_of_the_one_before() {
    let watch =
        json!({"seconds": 600, "errors": {"percent": 5, "atLeast": 20}, "onBreach": "rollBack"});
    let bad = |failed: f64, all: f64, other: f64| {
        with(move |state| {
            publish(state, "RequestCount", &of_group(BAD), all, (-360, 1_000.0));
            publish(
                state,
                "HTTPCode_Target_5XX_Count",
                &of_group(BAD),
                failed - 1.0,
                (-60, 9.0),
            );
            publish(
                state,
                "TargetConnectionErrorCount",
                &of_group(BAD),
                1.0,
                (-60, 9.0),
            );
            publish(state, "RequestCount", &of_group(OLD), 100.0, (-60, 9.0));
            publish(
                state,
                "HTTPCode_Target_5XX_Count",
                &of_group(OLD),
                other,
                (-60, 9.0),
            );
        })
    };
    for (failed, all, other, verdict) in [
        (127.0, 412.0, 0.2, Verdict::RollingBack),
        (5.0, 100.0, 0.0, Verdict::Watching),
        (6.0, 100.0, 0.0, Verdict::RollingBack),
        // As bad as the one before.
        (30.0, 100.0, 15.0, Verdict::Watching),
        (31.0, 100.0, 15.0, Verdict::RollingBack),
        // Too few to say anything.
        (19.0, 19.0, 0.0, Verdict::Watching),
        (20.0, 20.0, 0.0, Verdict::RollingBack),
    ] {
        let aws = bad(failed, all, other);
        // The switch was 320 s ago, 20 s before a minute began.
        let output = look_with(&aws, 320, json!({"watch": watch})).await.unwrap();
        assert_eq!(
            output.verdict, verdict,
            "{failed} {all} {other}: {output:?}"
        );
    }
    let output = look_with(&bad(127.0, 412.0, 0.2), 320, json!({"watch": watch}))
        .await
        .unwrap();
    let words =
        "30.8 % of 412 requests failed in 2 min (allowed are 5 %); of test-20251027-122112Z 0.2 %";
    assert!(output.reason.contains(words), "{output:?}");
    // Without a minute that is complete, nothing is judged.
    let early = look_with(&bad(99.0, 100.0, 0.0), 239, json!({"watch": watch}))
        .await
        .unwrap();
    assert_eq!(early.verdict, Verdict::Watching);
}

#[tokio::test]
async fn a_version_that_does_not_answer_shows_in_what_the_load_balancer_answers() {
    let watch =
        json!({"seconds": 600, "errors": {"percent": 5, "atLeast": 20}, "onBreach": "rollBack"});
    let late = |failed: f64, before: f64| {
        with(move |state| {
            publish(
                state,
                "RequestCount",
                "app/test-alb/1",
                100.0,
                (-420, 100.0),
            );
            publish(
                state,
                "HTTPCode_ELB_504_Count",
                "app/test-alb/1",
                failed,
                (-420, before),
            );
        })
    };
    for (failed, before, verdict) in [
        (10.0, 0.0, Verdict::RollingBack),
        (10.0, 5.0, Verdict::Watching),
        (4.0, 0.0, Verdict::Watching),
    ] {
        let output = look_with(&late(failed, before), 320, json!({"watch": watch}))
            .await
            .unwrap();
        assert_eq!(output.verdict, verdict, "{failed} {before}: {output:?}");
    }
}

#[tokio::test]
async fn a_part_of_a_metric_is_no_evidence() {
    let watch =
        json!({"seconds": 600, "errors": {"percent": 5, "atLeast": 20}, "onBreach": "rollBack"});
    let aws = with(|state| state.metric_status = "PartialData".into());
    let output = look_with(&aws, 320, json!({"watch": watch})).await.unwrap();
    assert_eq!(output.verdict, Verdict::Watching);
    assert!(output.not_watched[0].contains("PartialData"), "{output:?}");
}

#[tokio::test]
async fn with_tell_traffic_stays() {
    let aws = with(|state| {
        crash(state, 5);
        crash(state, 5);
    });
    let tell = json!({"watch": {"seconds": 120, "onBreach": "tell"}});
    let output = look_with(&aws, 20, tell).await.unwrap();
    assert_eq!(output.verdict, Verdict::Reported);
    assert!(rollbacks(&aws).is_empty());
}

#[tokio::test]
async fn without_one_to_go_back_to_it_stays_live_and_says_so() {
    let aws = MemoryAws::default();
    aws.with(|state| {
        state.deploy(BAD, LIVE);
        state.activate(BAD);
        crash(state, 5);
        crash(state, 5);
    });
    let output = look(&aws, 20).await;
    assert_eq!(output.verdict, Verdict::Unhealthy);
    assert!(
        output
            .reason
            .contains("there is no deployment to go back to"),
        "{output:?}"
    );
}

#[tokio::test]
async fn a_newer_one_ends_the_watch_and_is_not_taken_back() {
    let aws = with(|state| {
        state.deploy(CURE, LIVE);
        state.activate(CURE);
        crash(state, 5);
        crash(state, 5);
    });
    let output = look(&aws, 20).await;
    assert_eq!(output.verdict, Verdict::Over);
    assert!(output.reason.contains(CURE), "{output:?}");
    assert!(rollbacks(&aws).is_empty() && !aws.with(|state| state.has_tag(BAD, tags::PROVEN_AT)));
    // It is switched to between the look and the rollback.
    let aws = with(|state| {
        state.deploy(CURE, LIVE);
        crash(state, 5);
        crash(state, 5);
    });
    aws.on("DescribeTargetHealth")
        .after(|state, _| state.activate(CURE));
    let aws_after = look(&aws, 20).await;
    assert!(
        matches!(aws_after.verdict, Verdict::Over | Verdict::RollingBack),
        "{aws_after:?}"
    );
}

#[tokio::test]
async fn what_another_rollback_took_back_is_not_rolled_back_again() {
    let aws = with(|state| {
        state.tag(BAD, tags::ROLLED_BACK_AT, "2025-10-27T12:29:50Z");
        crash(state, 5);
        crash(state, 5);
    });
    // Marked, and traffic has not moved yet.
    for seconds in [20, 120] {
        let output = look(&aws, seconds).await;
        assert_eq!(output.verdict, Verdict::Watching, "{output:?}");
    }
    assert!(rollbacks(&aws).is_empty());
    aws.with(|state| state.activate(OLD));
    let output = look(&aws, 20).await;
    assert_eq!(output.verdict, Verdict::RolledBack);
    assert!(
        output.reason.contains("another rollback took it back"),
        "{output:?}"
    );
    assert!(rollbacks(&aws).is_empty());
}

#[tokio::test]
async fn the_mark_of_a_rollback_that_has_died_does_not_end_the_watch() {
    let aws = with(|state| {
        state.tag(BAD, tags::ROLLED_BACK_AT, "2025-10-27T12:14:00Z");
        crash(state, 5);
        crash(state, 5);
    });
    assert_eq!(look(&aws, 20).await.verdict, Verdict::RollingBack);
}

#[tokio::test]
async fn a_breach_is_reported_although_its_rollback_cannot_be_started() {
    let crashed = || {
        with(|state| {
            crash(state, 5);
            crash(state, 5);
        })
    };
    for (code, verdict) in [
        ("AccessDeniedException", Verdict::Unhealthy),
        ("StateMachineDoesNotExist", Verdict::Unhealthy),
        // Tried again at the next look.
        ("ThrottlingException", Verdict::Watching),
    ] {
        let aws = crashed();
        aws.on("StartExecution").fails(code);
        let output = look(&aws, 20).await;
        assert_eq!(output.verdict, verdict, "{output:?}");
        for words in ["2 tasks stopped", "could not be started", code] {
            assert!(output.reason.contains(words), "{output:?}");
        }
    }
}

#[tokio::test]
async fn crashes_are_left_for_a_version_that_needs_fresh_tasks_and_lost_health_is_not() {
    let aws = with(|state| {
        state.fail_health_checks(BAD);
        state.fail_health_checks(OLD);
        crash(state, 5);
        crash(state, 5);
    });
    let output = look_with(&aws, 25, json!({"unhealthyBefore": true}))
        .await
        .unwrap();
    assert_eq!(output.verdict, Verdict::RollingBack, "{output:?}");
}

#[tokio::test]
async fn an_alarm_that_rang_before_the_switch_is_not_charged_to_the_version() {
    let watch = json!({"seconds": 120, "alarms": ["errors"], "onBreach": "rollBack"});
    // The switch was 20 s ago.
    for (ago, verdict) in [(21, Verdict::Watching), (20, Verdict::RollingBack)] {
        let aws = with(|state| {
            state
                .alarms
                .insert("errors".into(), format!("ALARM since {}", NOW - ago));
        });
        let output = look_with(&aws, 20, json!({"watch": watch})).await.unwrap();
        assert_eq!(output.verdict, verdict, "{output:?}");
        let said = output
            .not_watched
            .iter()
            .any(|it| it.contains("rang before the switch"));
        assert_eq!(said, verdict == Verdict::Watching, "{output:?}");
    }
}

#[tokio::test]
async fn without_the_answer_of_the_switch_it_is_compared_with_what_it_would_go_back_to() {
    let watch =
        json!({"seconds": 600, "errors": {"percent": 5, "atLeast": 20}, "onBreach": "rollBack"});
    let aws = with(|state| {
        for id in [BAD, OLD] {
            publish(state, "RequestCount", &of_group(id), 100.0, (-60, 9.0));
            publish(
                state,
                "HTTPCode_Target_5XX_Count",
                &of_group(id),
                30.0,
                (-60, 9.0),
            );
        }
    });
    let lost = json!({"watch": watch, "previousDeploymentId": null});
    let output = look_with(&aws, 320, lost).await.unwrap();
    assert_eq!(
        output.verdict,
        Verdict::Watching,
        "both are equally bad: {output:?}"
    );
}

#[tokio::test]
async fn one_that_was_taken_back_and_deleted_since_was_taken_back() {
    let name = format!("watch-{BAD}");
    let aws = with(|state| {
        let execution = state.add_execution_of(ROLLBACK_MACHINE_ARN, &name, "{}");
        execution["status"] = "SUCCEEDED".into();
        state.activate(OLD);
        state.target_groups.retain(|group| group.name != BAD);
        state
            .rules
            .retain(|rule| !rule.tags.values().any(|value| value == BAD));
    });
    let arn = executions::arn(ROLLBACK_MACHINE_ARN, &name);
    let follow = json!({"rollback": {"executionArn": arn, "breach": "it crashed"}});
    let output = look_with(&aws, 40, follow).await.unwrap();
    assert_eq!(output.verdict, Verdict::RolledBack, "{output:?}");
}

#[tokio::test]
async fn a_rollback_under_way_is_followed_to_its_end() {
    let name = format!("watch-{BAD}");
    let follow = json!({"rollback": {
        "executionArn": executions::arn(ROLLBACK_MACHINE_ARN, &name), "breach": "it was live for 20 s; it crashed",
    }});
    let ended = |status: &'static str, change: fn(&mut State)| {
        let name = name.clone();
        with(move |state| {
            let execution = state.add_execution_of(ROLLBACK_MACHINE_ARN, &name, "{}");
            execution["status"] = status.into();
            if status == "FAILED" {
                execution["cause"] = "no healthy target".into();
            }
            change(state);
        })
    };
    let taken_back = |state: &mut State| {
        state.tag(BAD, tags::ROLLED_BACK_AT, "2025-10-27T12:29:50Z");
        state.activate(OLD);
    };
    let replaced = |state: &mut State| {
        state.deploy(CURE, LIVE);
        state.activate(CURE);
    };
    let unchanged = |_: &mut State| ();
    for (status, change, verdict, words) in [
        (
            "RUNNING",
            unchanged as fn(&mut State),
            Verdict::RollingBack,
            "its rollback runs",
        ),
        (
            "SUCCEEDED",
            taken_back,
            Verdict::RolledBack,
            "test-20251027-122112Z is live again",
        ),
        ("FAILED", taken_back, Verdict::RolledBack, "is live again"),
        ("SUCCEEDED", replaced, Verdict::Over, CURE),
        (
            "FAILED",
            unchanged,
            Verdict::Unhealthy,
            "its rollback failed: no healthy target",
        ),
        (
            "TIMED_OUT",
            unchanged,
            Verdict::Unhealthy,
            "ended as TIMED_OUT",
        ),
    ] {
        let aws = ended(status, change);
        let output = look_with(&aws, 40, follow.clone()).await.unwrap();
        assert_eq!(output.verdict, verdict, "{status}");
        for words in ["it was live for 20 s; it crashed", words] {
            assert!(output.reason.contains(words), "{output:?}");
        }
        assert_eq!(output.rollback.is_some(), verdict == Verdict::RollingBack);
    }
}

#[tokio::test]
async fn what_is_active_and_how_its_tasks_are_has_to_be_known() {
    for operation in [
        "DescribeListeners",
        "DescribeTags",
        "ListTasks",
        "DescribeTargetHealth",
    ] {
        let aws = with(|_| ());
        aws.on(operation).fails("Throttling");
        let error = look_with(&aws, 20, json!({})).await.unwrap_err();
        assert_eq!(error.name, ErrorName::Transient, "{operation}");
        assert!(
            error.message.contains(BAD) || operation != "ListTasks",
            "{error}"
        );
    }
}
