//! What an execution's states may hold, as AWS limits it.

use crate::cloud;
use std::time::Duration;

use localcloud::ministack::Client;
use serde_json::{Value, json};

async fn states(client: &Client, operation: &str, body: Value) -> Value {
    let target = format!("AWSStepFunctions.{operation}");
    let answer = client.json("states", &target, body).await;
    answer.unwrap_or_else(|error| panic!("{operation}: {error}"))
}

/// The end of an execution of a machine whose one Map runs this state, and which catches all that
/// can be caught.
async fn end_of(client: &Client, name: &str, state: Value) -> Value {
    let definition = json!({
        "QueryLanguage": "JSONata",
        "StartAt": "Each",
        "States": {
            "Each": {
                "Type": "Map",
                "Items": [1],
                "ItemProcessor": {"StartAt": "Only", "States": {"Only": state}},
                "Catch": [{"ErrorEquals": ["States.ALL"], "Next": "Caught"}],
                "End": true
            },
            "Caught": {"Type": "Succeed", "Output": "caught"}
        }
    });
    let create = json!({
        "name": name,
        "roleArn": "arn:aws:iam::000000000000:role/machine",
        "definition": definition.to_string(),
    });
    let created = states(client, "CreateStateMachine", create).await;
    let start = json!({"stateMachineArn": created["stateMachineArn"], "input": "{}"});
    let started = states(client, "StartExecution", start).await;
    loop {
        let which = json!({"executionArn": started["executionArn"]});
        let execution = states(client, "DescribeExecution", which).await;
        if execution["status"] != "RUNNING" {
            return execution;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn gives(characters: u32, character: char) -> Value {
    let output = format!("{{% $pad('', {characters}, '{character}') %}}");
    json!({"Type": "Pass", "Output": output, "End": true})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_gives_256_kib_at_most_and_nothing_catches_what_is_more() {
    let cloud = cloud::start().await;
    let client = cloud.client();
    let trust = json!({"Statement": [{
        "Effect": "Allow",
        "Principal": {"Service": "states.amazonaws.com"},
        "Action": "sts:AssumeRole",
    }]});
    let make_role = [
        ("Action", "CreateRole"),
        ("RoleName", "machine"),
        ("AssumeRolePolicyDocument", &trust.to_string()),
    ];
    let made = client.query("iam", "2010-05-08", &make_role).await;
    made.expect("created");
    // With the quotes and the brackets around it.
    let fits = end_of(client, "fits", gives(262_140, 'x')).await;
    assert_eq!(fits["status"], "SUCCEEDED", "{fits}");
    // Two bytes each, although they are written with six.
    let fits = end_of(client, "fits-too", gives(131_070, 'ä')).await;
    assert_eq!(fits["status"], "SUCCEEDED", "{fits}");
    let bursts = end_of(client, "bursts", gives(262_141, 'x')).await;
    assert_eq!(bursts["status"], "FAILED");
    assert_eq!(bursts["error"], "States.DataLimitExceeded");

    let fails = |error: &str| json!({"Type": "Fail", "Error": error, "Cause": "why"});
    let caught = end_of(client, "caught", fails("TransientError")).await;
    assert_eq!(caught["output"], "\"caught\"", "{caught}");
    let not_caught = end_of(client, "not-caught", fails("States.DataLimitExceeded")).await;
    assert_eq!(not_caught["status"], "FAILED", "{not_caught}");
    cloud.stop().await;
}
