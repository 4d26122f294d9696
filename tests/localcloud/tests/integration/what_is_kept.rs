//! What the local cloud forgets, so that it can run for days.

use std::time::Duration;

use localcloud::ministack::Client;
use serde_json::{Value, json};

use crate::cloud::{self, end_of_execution, machine, role, states};

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
    let definition = json!({
        "QueryLanguage": "JSONata",
        "StartAt": "Only",
        "States": {"Only": {"Type": "Succeed"}}
    });
    let role = role(client, "machine", "states.amazonaws.com").await;
    let machine = machine(client, "short", &role, &definition).await;
    let mut executions = Vec::new();
    for number in 0..=HISTORIES {
        let start = json!({
            "stateMachineArn": machine,
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
