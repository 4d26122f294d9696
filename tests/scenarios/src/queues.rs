//! Queues that receive the environment's events, and its failures from their topic.

use anyhow::Context;
use serde_json::{Value, json};

use crate::TestEnvironment;

/// Creates a queue that receives every event of the environment; returns its URL.
///
/// # Errors
/// When the queue or the rule cannot be created.
pub async fn subscribe(env: &TestEnvironment) -> anyhow::Result<String> {
    let client = env.cloud.client();
    let (url, arn) = queue(env, "events", "events.amazonaws.com").await?;
    let pattern = json!({"source": ["pulse.deploy"], "detail": {"environment": ["test"]}});
    client
        .json(
            "events",
            "AWSEvents.PutRule",
            json!({"Name": "events", "EventPattern": pattern.to_string()}),
        )
        .await?;
    client
        .json(
            "events",
            "AWSEvents.PutTargets",
            json!({"Rule": "events", "Targets": [{"Id": "events", "Arn": arn}]}),
        )
        .await?;
    Ok(url)
}

/// Creates a queue that receives every failure from the environment's topic; returns its URL.
///
/// # Errors
/// When the queue or the subscription cannot be created.
pub async fn subscribe_to_failures(env: &TestEnvironment) -> anyhow::Result<String> {
    let (url, arn) = queue(env, "failures", "sns.amazonaws.com").await?;
    let topic = "arn:aws:sns:us-east-1:000000000000:test-pulse-failures";
    let subscription = [
        ("Action", "Subscribe"),
        ("TopicArn", topic),
        ("Protocol", "sqs"),
        ("Endpoint", &arn),
    ];
    env.cloud
        .client()
        .query("sns", "2010-03-31", &subscription)
        .await?;
    Ok(url)
}

/// Creates a queue that a service may send to; returns its URL and ARN.
async fn queue(
    env: &TestEnvironment,
    name: &str,
    sender: &str,
) -> anyhow::Result<(String, String)> {
    let arn = format!("arn:aws:sqs:us-east-1:000000000000:{name}");
    let policy = json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Effect": "Allow",
            "Principal": {"Service": sender},
            "Action": "sqs:SendMessage",
            "Resource": arn,
        }],
    });
    let made = env
        .cloud
        .client()
        .json(
            "sqs",
            "AmazonSQS.CreateQueue",
            json!({"QueueName": name, "Attributes": {"Policy": policy.to_string()}}),
        )
        .await?;
    let url = made["QueueUrl"].as_str().context("no queue")?.to_owned();
    Ok((url, arn))
}

/// How many messages a queue holds.
///
/// # Errors
/// When SQS does not answer.
pub async fn messages(env: &TestEnvironment, queue: &str) -> anyhow::Result<usize> {
    let attributes = env
        .cloud
        .client()
        .json(
            "sqs",
            "AmazonSQS.GetQueueAttributes",
            json!({"QueueUrl": queue, "AttributeNames": ["ApproximateNumberOfMessages"]}),
        )
        .await?;
    let number = attributes["Attributes"]["ApproximateNumberOfMessages"].as_str();
    Ok(number.unwrap_or("0").parse()?)
}

/// Takes all messages of a queue and parses their bodies as JSON.
///
/// # Errors
/// As [`take`], and when a body is not JSON.
pub async fn receive(env: &TestEnvironment, queue: &str) -> anyhow::Result<Vec<Value>> {
    let messages = take(env, queue).await?;
    let bodies = messages.iter().map(|message| {
        let body = message["Body"].as_str().context("no body")?;
        Ok(serde_json::from_str(body)?)
    });
    bodies.collect()
}

/// Takes all messages of a queue, with all their attributes.
///
/// # Errors
/// When the queue cannot be read.
pub async fn take(env: &TestEnvironment, queue: &str) -> anyhow::Result<Vec<Value>> {
    let request = json!({
        "QueueUrl": queue,
        "MaxNumberOfMessages": 10,
        "MessageAttributeNames": ["All"],
        "MessageSystemAttributeNames": ["All"],
    });
    let mut taken = Vec::new();
    loop {
        let client = env.cloud.client();
        let received = client
            .json("sqs", "AmazonSQS.ReceiveMessage", request.clone())
            .await?;
        match received["Messages"].as_array() {
            Some(batch) if !batch.is_empty() => taken.extend(batch.iter().cloned()),
            Some(_) | None => return Ok(taken),
        }
    }
}

/// The URL of the environment's dead-letter queue.
///
/// # Errors
/// When the queue does not exist.
pub async fn dead_letters(env: &TestEnvironment) -> anyhow::Result<String> {
    let name = format!("{}-dead-letters", env.name);
    let request = json!({"QueueName": name});
    let client = env.cloud.client();
    let found = client.json("sqs", "AmazonSQS.GetQueueUrl", request).await?;
    Ok(found["QueueUrl"].as_str().context("no queue")?.to_owned())
}
