//! Schedules and rules need permission for their targets, from a role or from the policy of the target.
//! Refused deliveries go to the dead-letter queue.

use std::time::Duration;

use crate::cloud::end_of_execution;
use http::Method;
use localcloud::{LocalCloud, Options, ministack::Client, time_scale::TimeScale};
use serde_json::{Value, json};

const ACCOUNT: &str = "000000000000";
const ROLE: &str = "arn:aws:iam::000000000000:role/starter";
const QUEUE: &str = "arn:aws:sqs:us-east-1:000000000000:dead-letters";

/// A local cloud in which a minute takes 1.2 s.
async fn fast_cloud() -> LocalCloud {
    let options = Options {
        time_scale: TimeScale(0.02),
        ..Options::default()
    };
    LocalCloud::start(options)
        .await
        .expect("the local cloud starts")
}

async fn json(client: &Client, service: &str, target: &str, body: Value) -> Value {
    let answer = client.json(service, target, body).await;
    answer.unwrap_or_else(|error| panic!("{target}: {error}"))
}

async fn iam(client: &Client, parameters: &[(&str, &str)]) {
    let answer = client.query("iam", "2010-05-08", parameters).await;
    answer.unwrap_or_else(|error| panic!("{parameters:?}: {error}"));
}

/// Creates a role that a service may assume for this account.
async fn role(client: &Client, name: &str, service: &str) {
    let trust = json!({"Statement": [{
        "Effect": "Allow",
        "Principal": {"Service": service},
        "Action": "sts:AssumeRole",
        "Condition": {"StringEquals": {"aws:SourceAccount": ACCOUNT}},
    }]});
    let create = [
        ("Action", "CreateRole"),
        ("RoleName", name),
        ("AssumeRolePolicyDocument", &trust.to_string()),
    ];
    iam(client, &create).await;
}

/// Sets the permissions of a role to these actions on these resources.
async fn allow(client: &Client, role: &str, permissions: &[(&str, &str)]) {
    let statements: Vec<_> = permissions
        .iter()
        .map(|(action, arn)| json!({"Effect": "Allow", "Action": action, "Resource": arn}))
        .collect();
    let policy = json!({"Version": "2012-10-17", "Statement": statements}).to_string();
    let put = [
        ("Action", "PutRolePolicy"),
        ("RoleName", role),
        ("PolicyName", "permissions"),
        ("PolicyDocument", &policy),
    ];
    iam(client, &put).await;
}

/// Creates a state machine with one state and the role `machine`. Returns its ARN.
async fn machine(client: &Client, state: Value) -> String {
    role(client, "machine", "states.amazonaws.com").await;
    let definition =
        json!({"QueryLanguage": "JSONata", "StartAt": "Only", "States": {"Only": state}});
    let create = json!({
        "name": "machine",
        "roleArn": format!("arn:aws:iam::{ACCOUNT}:role/machine"),
        "definition": definition.to_string(),
    });
    let created = json(
        client,
        "states",
        "AWSStepFunctions.CreateStateMachine",
        create,
    )
    .await;
    created["stateMachineArn"]
        .as_str()
        .expect("an ARN")
        .to_owned()
}

async fn executions(client: &Client, machine: &str) -> Vec<Value> {
    let list = json!({ "stateMachineArn": machine });
    let listed = json(client, "states", "AWSStepFunctions.ListExecutions", list).await;
    listed["executions"].as_array().cloned().unwrap_or_default()
}

async fn queue(client: &Client) -> String {
    queue_named(client, "dead-letters").await
}

async fn queue_named(client: &Client, name: &str) -> String {
    let create = json!({"QueueName": name});
    let created = json(client, "sqs", "AmazonSQS.CreateQueue", create).await;
    created["QueueUrl"].as_str().expect("a URL").to_owned()
}

async fn messages(client: &Client, url: &str) -> usize {
    let receive = json!({"QueueUrl": url, "MaxNumberOfMessages": 10, "VisibilityTimeout": 0});
    let received = json(client, "sqs", "AmazonSQS.ReceiveMessage", receive).await;
    received["Messages"].as_array().map_or(0, Vec::len)
}

/// Creates a schedule that starts the machine every minute, which is every 1.2 s here.
async fn schedule(client: &Client, machine: &str) {
    schedule_as(client, "often", ROLE, machine).await;
}

/// Creates a schedule with that name and role, which runs as often, for a target.
async fn schedule_as(client: &Client, name: &str, role: &str, target: &str) {
    let schedule = json!({
        "ScheduleExpression": "rate(1 minute)",
        "FlexibleTimeWindow": {"Mode": "OFF"},
        "Target": {
            "Arn": target,
            "RoleArn": role,
            "Input": "{}",
            "DeadLetterConfig": {"Arn": QUEUE},
        },
    });
    let body = schedule.to_string().into();
    let created = client
        .rest(
            "scheduler",
            Method::POST,
            &format!("/schedules/{name}"),
            body,
        )
        .await;
    created.expect("created");
}

fn pass() -> Value {
    json!({"Type": "Pass", "End": true})
}

/// Waits until the schedule has run at least twice. Returns the number of executions and of dead letters.
async fn after_some_runs(client: &Client, machine: &str, queue: &str) -> (usize, usize) {
    loop {
        let counts = (
            executions(client, machine).await.len(),
            messages(client, queue).await,
        );
        if counts.0 + counts.1 >= 2 {
            return counts;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_whose_role_has_permission_starts_a_machine_at_the_time_scale() {
    let cloud = fast_cloud().await;
    let client = cloud.client();
    let queue = queue(client).await;
    let machine = machine(client, pass()).await;
    role(client, "starter", "scheduler.amazonaws.com").await;
    allow(client, "starter", &[("states:StartExecution", &machine)]).await;
    schedule(client, &machine).await;
    let (started, dead) = after_some_runs(client, &machine, &queue).await;
    assert!(started >= 2 && dead == 0, "{started} started, {dead} dead");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_whose_role_lacks_permission_sends_dead_letters() {
    let cloud = fast_cloud().await;
    let client = cloud.client();
    let queue = queue(client).await;
    let machine = machine(client, pass()).await;
    let another = format!("{machine}-with-another-name");
    let permissions = [
        ("states:StartExecution", another.as_str()),
        ("sqs:SendMessage", QUEUE),
    ];
    role(client, "starter", "scheduler.amazonaws.com").await;
    allow(client, "starter", &permissions).await;
    schedule(client, &machine).await;
    let (started, dead) = after_some_runs(client, &machine, &queue).await;
    assert!(started == 0 && dead >= 2, "{started} started, {dead} dead");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_cannot_assume_a_role_that_trusts_another_service() {
    let cloud = fast_cloud().await;
    let client = cloud.client();
    let queue = queue(client).await;
    let machine = machine(client, pass()).await;
    let permissions = [
        ("states:StartExecution", machine.as_str()),
        ("sqs:SendMessage", QUEUE),
    ];
    role(client, "starter", "events.amazonaws.com").await;
    allow(client, "starter", &permissions).await;
    schedule(client, &machine).await;
    // Another one that runs as often shows that its time has come more than once.
    let ticks = queue_named(client, "ticks").await;
    let to_ticks = QUEUE.replace("dead-letters", "ticks");
    role(client, "ticker", "scheduler.amazonaws.com").await;
    allow(client, "ticker", &[("sqs:SendMessage", &to_ticks)]).await;
    schedule_as(
        client,
        "ticks",
        &ROLE.replace("starter", "ticker"),
        &to_ticks,
    )
    .await;
    while messages(client, &ticks).await < 3 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // It cannot send dead letters with this role either, so the start is lost.
    assert_eq!(executions(client, &machine).await.len(), 0);
    assert_eq!(messages(client, &queue).await, 0);
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_publishes_events_only_if_its_role_has_permission() {
    let cloud = fast_cloud().await;
    let client = cloud.client();
    let publish = json!({
        "Type": "Task",
        "Resource": "arn:aws:states:::events:putEvents",
        "Arguments": {"Entries": [{"Source": "pulse.deploy", "DetailType": "Test", "Detail": {}}]},
        "End": true,
    });
    let machine = machine(client, publish).await;
    for (bus, ends) in [("other", "FAILED"), ("default", "SUCCEEDED")] {
        let bus = format!("arn:aws:events:us-east-1:{ACCOUNT}:event-bus/{bus}");
        allow(client, "machine", &[("events:PutEvents", &bus)]).await;
        let start = json!({"stateMachineArn": machine, "input": "{}"});
        let started = json(client, "states", "AWSStepFunctions.StartExecution", start).await;
        let ended = end_of_execution(client, &started).await;
        assert_eq!(ended["status"], ends, "{bus}");
    }
    cloud.stop().await;
}

/// <https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-use-resource-based.html#eb-sns-permissions>
#[tokio::test(flavor = "multi_thread")]
async fn the_policy_of_a_topic_allows_eventbridge_only_without_a_condition() {
    let cloud = fast_cloud().await;
    let client = cloud.client();
    let queue = queue(client).await;
    let policy = |service: &str, action: &str, resource: &str, condition: Value| {
        json!({"Statement": [{
            "Effect": "Allow",
            "Principal": {"Service": service},
            "Action": action,
            "Resource": resource,
            "Condition": condition,
        }]})
        .to_string()
    };
    let queue_policy = policy("sns.amazonaws.com", "sqs:SendMessage", QUEUE, json!({}));
    let set = json!({"QueueUrl": queue, "Attributes": {"Policy": queue_policy}});
    json(client, "sqs", "AmazonSQS.SetQueueAttributes", set).await;
    let sns = |parameters: Vec<(&'static str, String)>| async move {
        let parameters: Vec<_> = parameters
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let answer = client.query("sns", "2010-03-31", &parameters).await;
        answer.unwrap_or_else(|error| panic!("{parameters:?}: {error}"));
    };
    let topic = format!("arn:aws:sns:us-east-1:{ACCOUNT}:failures");
    sns(vec![
        ("Action", "CreateTopic".into()),
        ("Name", "failures".into()),
    ])
    .await;
    sns(vec![
        ("Action", "Subscribe".into()),
        ("TopicArn", topic.clone()),
        ("Protocol", "sqs".into()),
        ("Endpoint", QUEUE.into()),
    ])
    .await;
    let rule = json!({"Name": "failures", "EventPattern": "{\"source\": [\"pulse.deploy\"]}"});
    json(client, "events", "AWSEvents.PutRule", rule).await;
    let targets = json!({"Rule": "failures", "Targets": [{"Id": "topic", "Arn": topic}]});
    json(client, "events", "AWSEvents.PutTargets", targets).await;
    let source = json!({"ArnEquals": {"aws:SourceArn": format!("arn:aws:events:us-east-1:{ACCOUNT}:rule/failures")}});
    for condition in [source, json!({})] {
        sns(vec![
            ("Action", "SetTopicAttributes".into()),
            ("TopicArn", topic.clone()),
            ("AttributeName", "Policy".into()),
            (
                "AttributeValue",
                policy("events.amazonaws.com", "sns:Publish", &topic, condition),
            ),
        ])
        .await;
        let event =
            json!({"Entries": [{"Source": "pulse.deploy", "DetailType": "Test", "Detail": "{}"}]});
        json(client, "events", "AWSEvents.PutEvents", event).await;
    }
    // The first event would have come before the second one.
    while messages(client, &queue).await == 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(messages(client, &queue).await, 1);
    cloud.stop().await;
}
