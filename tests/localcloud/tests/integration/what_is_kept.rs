//! What the local cloud forgets, so that it can run for days.

use std::time::Duration;

use localcloud::ministack::Client;
use serde_json::{Value, json};

use crate::cloud::{self, end_of_execution, states};

/// How many histories the launcher keeps.
const HISTORIES: usize = 200;

async fn history(client: &Client, execution: &Value) -> Vec<Value> {
    let which = json!({"executionArn": execution["executionArn"]});
    let answer = states(client, "GetExecutionHistory", which).await;
    answer["events"].as_array().expect("events").clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_histories_are_kept_and_an_older_execution_can_still_be_described() {
    let cloud = cloud::start().await;
    let client = cloud.client();
    let trust = json!({"Statement": [{
        "Effect": "Allow",
        "Principal": {"Service": "states.amazonaws.com"},
        "Action": "sts:AssumeRole",
    }]});
    let create_role = [
        ("Action", "CreateRole"),
        ("RoleName", "machine"),
        ("AssumeRolePolicyDocument", &trust.to_string()),
    ];
    let created = client.query("iam", "2010-05-08", &create_role);
    created.await.expect("created");
    let definition = json!({
        "QueryLanguage": "JSONata",
        "StartAt": "Only",
        "States": {"Only": {"Type": "Succeed"}}
    });
    let create = json!({
        "name": "short",
        "roleArn": "arn:aws:iam::000000000000:role/machine",
        "definition": definition.to_string(),
    });
    let machine = states(client, "CreateStateMachine", create).await;
    let mut executions = Vec::new();
    for number in 0..=HISTORIES {
        let start = json!({
            "stateMachineArn": machine["stateMachineArn"],
            "name": number.to_string(),
            "input": "{}",
        });
        let started = states(client, "StartExecution", start).await;
        end_of_execution(client, &started).await;
        executions.push(started);
    }
    while !history(client, &executions[0]).await.is_empty() {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for newer in &executions[1..] {
        assert!(!history(client, newer).await.is_empty(), "{newer}");
    }
    let which = json!({"executionArn": executions[0]["executionArn"]});
    let described = states(client, "DescribeExecution", which).await;
    assert_eq!(described["status"], "SUCCEEDED");
    cloud.stop().await;
}
