//! The clock of a state machine counts its scaled waits in full.

use std::time::Instant;

use crate::cloud::{end_of_execution, machine, role, states};
use localcloud::{LocalCloud, Options, time_scale::TimeScale};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_takes_its_full_time_on_the_clock_of_its_state_machine() {
    let options = Options {
        time_scale: TimeScale(0.02),
        ..Options::default()
    };
    let cloud = LocalCloud::start(options).await.expect("it starts");
    let client = cloud.client();
    let definition = json!({
        "QueryLanguage": "JSONata",
        "StartAt": "Begin",
        "States": {
            "Begin": {"Type": "Pass", "Assign": {"began": "{% $millis() %}"}, "Next": "Wait"},
            "Wait": {"Type": "Wait", "Seconds": 60, "Next": "End"},
            "End": {"Type": "Succeed", "Output": "{% $millis() - $began %}"}
        }
    });
    let role = role(client, "machine", "states.amazonaws.com").await;
    let machine = machine(client, "waits", &role, &definition).await;
    let start = json!({"stateMachineArn": machine, "input": "{}"});
    let clock = Instant::now();
    let started = states(client, "StartExecution", start).await;
    let ended = end_of_execution(client, &started).await;
    let output = ended["output"].as_str().expect("an output");
    let passed: f64 = output.parse().expect("a number of milliseconds");
    let longest = 60_000.0 + clock.elapsed().as_secs_f64() * 1000.0;
    assert!(
        (60_000.0..=longest).contains(&passed),
        "{passed} ms, at most {longest} ms"
    );
    cloud.stop().await;
}
