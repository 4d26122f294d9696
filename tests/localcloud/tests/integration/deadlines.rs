//! The clock of a state machine counts its scaled waits in full.

use std::time::Instant;

use crate::cloud::{end_of_execution, states};
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
        "StartAt": "Begin",
        "States": {
            "Begin": {"Type": "Pass", "Assign": {"began": "{% $millis() %}"}, "Next": "Wait"},
            "Wait": {"Type": "Wait", "Seconds": 60, "Next": "End"},
            "End": {"Type": "Succeed", "Output": "{% $millis() - $began %}"}
        }
    });
    let create = json!({
        "name": "waits",
        "roleArn": "arn:aws:iam::000000000000:role/machine",
        "definition": definition.to_string(),
    });
    let created = states(client, "CreateStateMachine", create).await;
    let start = json!({"stateMachineArn": created["stateMachineArn"], "input": "{}"});
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
