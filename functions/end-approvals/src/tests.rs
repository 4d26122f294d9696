use super::*;
use memory_aws::{MemoryAws, State};
use serde_json::{Value, json};

const OLDEST: &str = "test-20251027-122111Z";
const OLDER: &str = "test-20251027-122112Z";
const ID: &str = "test-20251027-122113Z";
const NEWER: &str = "test-20251027-122114Z";

/// An account in which an old deployment is active and this one's execution runs.
fn aws() -> MemoryAws {
    let aws = MemoryAws::default();
    aws.with(|state| {
        state.deploy("test-20251027-120000Z", &[]);
        state.activate("test-20251027-120000Z");
        enter(state, ID, &[ASKS]);
    });
    aws
}

/// Adds a running execution that has entered these states, one after another. Where it waits, its token is its name.
fn enter(state: &mut State, name: &str, states: &[&str]) {
    state.add_execution(name, "{}");
    let mut events = Vec::new();
    for entered in states {
        events.push(json!({
            "type": "TaskStateEntered", "stateEnteredEventDetails": {"name": entered},
        }));
        if *entered == WAITS {
            // A try that failed, and one that was sent.
            events.extend(["first", name].map(scheduled));
            events.push(json!({"type": "TaskStarted"}));
            events.push(json!({"type": "TaskSubmitted"}));
            state.task_tokens.insert(name.to_owned());
        }
    }
    for (number, event) in events.iter_mut().enumerate() {
        event["id"] = (number + 1).into();
        event["timestamp"] = 1.into();
    }
    let arn = state.executions.last().unwrap()["executionArn"].clone();
    state
        .histories
        .insert(arn.as_str().unwrap().to_owned(), events);
}

fn scheduled(token: &str) -> Value {
    let mut parameters = json!({"TopicArn": "arn:topic", "Message": "StringValue"});
    parameters["MessageAttributes"]["TaskToken"] =
        json!({"DataType": "String", "StringValue": token});
    json!({"type": "TaskScheduled", "taskScheduledEventDetails": {
        "resourceType": "sns", "resource": "publish.waitForTaskToken", "region": "us-east-1",
        "parameters": parameters.to_string(),
    }})
}

async fn end(aws: &MemoryAws, asks: bool) -> Result<Output, StepError> {
    let clients = Clients {
        elb: aws_sdk_elasticloadbalancingv2::Client::new(&aws.config()),
        sfn: aws_sdk_sfn::Client::new(&aws.config()),
    };
    let arn = aws.with(|state| state.executions[0]["executionArn"].clone());
    let input = json!({"deploymentId": ID, "execution": arn, "asks": asks, "later": 1});
    let input = serde_json::from_value(input).unwrap();
    run(&clients, &Baseline::for_tests(), input).await
}

/// The answers that were sent, by token.
fn answers(aws: &MemoryAws) -> Vec<(String, Value)> {
    let sent = aws.calls_to("SendTaskSuccess").into_iter();
    sent.map(|call| {
        let output = call["output"].as_str().unwrap();
        let token = call["taskToken"].as_str().unwrap().to_owned();
        (token, serde_json::from_str(output).unwrap())
    })
    .collect()
}

fn ended(names: &[&str]) -> Vec<DeploymentId> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

#[tokio::test]
async fn older_deployments_that_wait_are_ended_in_the_name_of_the_newer_one() {
    for asks in [true, false] {
        let aws = aws();
        aws.with(|state| {
            enter(state, OLDEST, &[ASKS, WAITS]);
            enter(state, &format!("{OLDER}-2"), &[ASKS, WAITS]);
            enter(state, NEWER, &["CheckTargetHealth"]);
            enter(state, "typed-by-hand", &[ASKS, WAITS]);
        });
        let output = end(&aws, asks).await.unwrap();
        assert_eq!(output.verdict, Verdict::Proceed);
        assert_eq!(output.ended, ended(&[OLDER, OLDEST]));
        let superseded = json!({"verdict": "superseded", "by": ID});
        let to = |token: &str| (token.to_owned(), superseded.clone());
        assert_eq!(
            answers(&aws),
            [to(&format!("{OLDER}-2")), to(OLDEST)],
            "{asks}"
        );
    }
}

#[tokio::test]
async fn what_does_not_wait_is_left_alone() {
    for states in [
        &["CreateService"][..],
        &[ASKS, WAITS, "IsApproved"],
        &[ASKS, WAITS, "UndoDeployment"],
        &[],
    ] {
        let aws = aws();
        aws.with(|state| enter(state, OLDER, states));
        let output = end(&aws, true).await.unwrap();
        assert_eq!(output.ended, [], "{states:?}");
        assert_eq!(answers(&aws), [], "{states:?}");
    }
}

#[tokio::test]
async fn one_that_was_answered_in_the_same_moment_was_not_ended_here() {
    let aws = aws();
    aws.with(|state| {
        enter(state, OLDER, &[ASKS, WAITS]);
        state.task_tokens.clear();
    });
    let output = end(&aws, true).await.unwrap();
    assert_eq!((output.ended, answers(&aws).len()), (vec![], 1));
    // An execution that has ended has no history any more after some time.
    let aws = self::aws();
    aws.with(|state| {
        enter(state, OLDER, &[ASKS, WAITS]);
        state.histories.clear();
    });
    assert_eq!(end(&aws, true).await.unwrap().ended, []);
}

#[tokio::test]
async fn an_older_one_that_is_about_to_wait_is_looked_at_again_after_the_others_are_ended() {
    for states in [&[ASKS][..], &[ASKS, WAITS]] {
        let aws = aws();
        aws.with(|state| {
            enter(state, OLDEST, &[ASKS, WAITS]);
            enter(state, OLDER, states);
            // It has entered the state of its wait, and its call is not there yet.
            let arn = state.executions.last().unwrap()["executionArn"].to_string();
            let history = state.histories.get_mut(arn.trim_matches('"')).unwrap();
            history.retain(|event| event["type"] == "TaskStateEntered");
        });
        for asks in [true, false] {
            let error = end(&aws, asks).await.unwrap_err();
            assert_eq!(error.name, ErrorName::Transient);
            assert!(error.message.contains(OLDER), "{error}");
        }
        assert_eq!(answers(&aws)[0].0, OLDEST);
    }
}

#[tokio::test]
async fn a_deployment_does_not_ask_while_a_newer_one_is_active_or_asks() {
    for (states, words) in [
        (&[ASKS][..], "waits for its approval"),
        (&[ASKS, WAITS], "waits for its approval"),
    ] {
        let aws = aws();
        aws.with(|state| {
            enter(state, OLDER, &[ASKS, WAITS]);
            enter(state, NEWER, states);
        });
        let output = end(&aws, true).await.unwrap();
        assert_eq!(output.verdict, Verdict::Superseded);
        assert_eq!(output.reason, format!("{NEWER} is newer and {words}"));
        // The newer one ends the older one.
        assert_eq!(answers(&aws), []);
    }
    let aws = aws();
    aws.with(|state| {
        state.deploy(NEWER, &[]);
        state.activate(NEWER);
    });
    let output = end(&aws, true).await.unwrap();
    assert_eq!(output.reason, format!("{NEWER} is newer and active"));
    // After its own switch, it only ends others.
    assert_eq!(end(&aws, false).await.unwrap().verdict, Verdict::Proceed);
}

#[tokio::test]
async fn the_newest_events_are_read_and_what_aws_refuses_is_named() {
    let aws = aws();
    aws.with(|state| enter(state, OLDER, &[ASKS, WAITS]));
    end(&aws, true).await.unwrap();
    let read = aws.calls_to("GetExecutionHistory");
    assert_eq!(read.len(), 1);
    assert_eq!(read[0]["reverseOrder"], true);

    for operation in [
        "DescribeListeners",
        "ListExecutions",
        "GetExecutionHistory",
        "SendTaskSuccess",
    ] {
        let aws = self::aws();
        aws.with(|state| enter(state, OLDER, &[ASKS, WAITS]));
        aws.on(operation).fails("AccessDeniedException");
        let error = end(&aws, true).await.unwrap_err();
        assert_eq!(error.name, ErrorName::AccessDenied, "{operation}");
    }
}
