//! The limit on the data of states in an execution.

use crate::cloud::{self, states};
use std::time::Duration;

use localcloud::ministack::Client;
use serde_json::{Value, json};

/// Runs a machine with a Map of one state, which catches all errors that can be caught. Returns the
/// finished execution.
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

fn outputs(characters: u32, character: char) -> Value {
    let output = format!("{{% $pad('', {characters}, '{character}') %}}");
    json!({"Type": "Pass", "Output": output, "End": true})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_outputs_at_most_256_kib_and_a_larger_output_cannot_be_caught() {
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
    // The quotes and brackets around the text count too.
    let fits = end_of(client, "fits", outputs(262_140, 'x')).await;
    assert_eq!(fits["status"], "SUCCEEDED", "{fits}");
    // Each character counts as two bytes, although its escape sequence has six.
    let fits = end_of(client, "fits-too", outputs(131_070, 'ä')).await;
    assert_eq!(fits["status"], "SUCCEEDED", "{fits}");
    let exceeds = end_of(client, "exceeds", outputs(262_141, 'x')).await;
    assert_eq!(exceeds["status"], "FAILED");
    assert_eq!(exceeds["error"], "States.DataLimitExceeded");

    let fails = |error: &str| json!({"Type": "Fail", "Error": error, "Cause": "why"});
    let caught = end_of(client, "caught", fails("TransientError")).await;
    assert_eq!(caught["output"], "\"caught\"", "{caught}");
    let not_caught = end_of(client, "not-caught", fails("States.DataLimitExceeded")).await;
    assert_eq!(not_caught["status"], "FAILED", "{not_caught}");
    cloud.stop().await;
}
