//! The limits on an execution: the data of its states, its history, and its errors.

use crate::cloud::{self, end_of_execution, machine, role, states};
use localcloud::LocalCloud;
use serde_json::{Value, json};

/// Starts a local cloud. Returns it with the role of the machines.
async fn start() -> (LocalCloud, String) {
    let cloud = cloud::start().await;
    let role = role(cloud.client(), "machine", "states.amazonaws.com").await;
    (cloud, role)
}

/// Runs a machine with a Map that runs a state, which may go on to the state `Done`, for each of so many items, and
/// catches all errors that can be caught. Returns the finished execution. The output of one that caught an error is the
/// error.
async fn end_of(
    (cloud, role): &(LocalCloud, String),
    name: &str,
    items: u32,
    state: Value,
) -> Value {
    let client = cloud.client();
    let done = json!({"Type": "Pass", "Output": 1, "End": true});
    let definition = json!({
        "QueryLanguage": "JSONata",
        "StartAt": "Each",
        "States": {
            "Each": {
                "Type": "Map",
                "Items": format!("{{% [1..{items}] %}}"),
                "MaxConcurrency": 1,
                "ItemProcessor": {"StartAt": "Only", "States": {"Only": state, "Done": done}},
                "Catch": [{"ErrorEquals": ["States.ALL"], "Next": "Caught"}],
                "End": true
            },
            "Caught": {"Type": "Succeed"}
        }
    });
    let machine = machine(client, name, role, &definition).await;
    let start = json!({"stateMachineArn": machine, "input": "{}"});
    let started = states(client, "StartExecution", start).await;
    end_of_execution(client, &started).await
}

fn outputs(characters: u32, character: char) -> Value {
    let output = format!("{{% $pad('', {characters}, '{character}') %}}");
    json!({"Type": "Pass", "Output": output, "End": true})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_outputs_at_most_256_kib_and_a_larger_output_cannot_be_caught() {
    let cloud = start().await;
    // The quotes and brackets around the text count too.
    let fits = end_of(&cloud, "fits", 1, outputs(262_140, 'x')).await;
    assert_eq!(fits["status"], "SUCCEEDED", "{fits}");
    // Each character counts as two bytes, although its escape sequence has six.
    let fits = end_of(&cloud, "fits-too", 1, outputs(131_070, 'ä')).await;
    assert_eq!(fits["status"], "SUCCEEDED", "{fits}");
    // In a Map, what the next state makes small exceeds the limit too.
    let mut between = outputs(262_143, 'x');
    between["End"] = false.into();
    between["Next"] = "Done".into();
    for (name, state) in [("last", outputs(262_141, 'x')), ("between", between)] {
        let exceeds = end_of(&cloud, name, 1, state).await;
        assert_eq!(exceeds["status"], "FAILED", "{name}");
        assert_eq!(exceeds["error"], "States.DataLimitExceeded");
    }

    let fails = |error: &str| json!({"Type": "Fail", "Error": error, "Cause": "why"});
    let caught = end_of(&cloud, "caught", 1, fails("TransientError")).await;
    assert_eq!(
        error_of(&caught),
        ("TransientError".into(), "why".into()),
        "{caught}"
    );
    let not_caught = end_of(&cloud, "not-caught", 1, fails("States.DataLimitExceeded")).await;
    assert_eq!(not_caught["status"], "FAILED", "{not_caught}");
    cloud.0.stop().await;
}

/// The name and the cause of the error that an execution caught.
fn error_of(execution: &Value) -> (String, String) {
    let output = execution["output"].as_str().unwrap_or("null");
    let error: Value = serde_json::from_str(output).expect("JSON");
    let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
    (text("Error"), text("Cause"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_of_more_than_25_000_events_fails_the_execution_and_cannot_be_caught() {
    let cloud = start().await;
    // An execution has 2 events, a Map 4, and an item 2 and those of its states.
    let passes = json!({"Type": "Pass", "End": true});
    // The attempt, which fails because the function does not exist, has 3 events. Then a Pass state follows.
    let fails = json!({
        "Type": "Task",
        "Resource": "arn:aws:states:::lambda:invoke",
        "Arguments": {"FunctionName": "missing"},
        "Catch": [{"ErrorEquals": ["States.ALL"], "Next": "Done"}],
        "End": true
    });
    for (name, state, events_of_an_item) in
        [("passes", passes, 2 + 2), ("fails", fails, 2 + 2 + 3 + 2)]
    {
        let most = (25_000 - 2 - 4) / events_of_an_item;
        let fits = end_of(&cloud, &format!("{name}-fits"), most, state.clone()).await;
        assert_eq!(fits["status"], "SUCCEEDED", "{fits}");
        let exceeds = end_of(&cloud, &format!("{name}-exceeds"), most + 1, state).await;
        assert_eq!(exceeds["status"], "FAILED", "{name}");
        assert_eq!(exceeds["error"], "States.Runtime");
        assert_eq!(
            exceeds["cause"],
            "The execution reached the maximum number of history events (25000)."
        );
    }
    cloud.0.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_has_256_characters_and_its_cause_32_768_at_most() {
    let cloud = start().await;
    let fails = |error: u32, cause: u32| {
        json!({
            "Type": "Fail",
            "Error": format!("{{% $pad('', {error}, 'e') %}}"),
            "Cause": format!("{{% $pad('', {cause}, 'c') %}}"),
        })
    };
    for (name, given) in [("fits", (256, 32_768)), ("is-cut", (257, 32_769))] {
        let caught = end_of(&cloud, name, 1, fails(given.0, given.1)).await;
        let (error, cause) = error_of(&caught);
        assert_eq!((error.len(), cause.len()), (256, 32_768), "{name}");
    }
    cloud.0.stop().await;
}
