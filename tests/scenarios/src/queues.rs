//! Queues that hear what the environment tells: its events, and its failures by their topic.

use anyhow::Context;
use serde_json::{Value, json};

use crate::TestEnvironment;

/// A queue that every event of the environment is sent to.
///
/// # Errors
/// When the rule cannot be made.
pub async fn subscribe(env: &TestEnvironment) -> anyhow::Result<String> {
    let client = env.cloud.client();
    let (url, arn) = queue(env, "heard", "events.amazonaws.com").await?;
    let pattern = json!({"source": ["pulse.deploy"], "detail": {"environment": ["test"]}});
    client
        .json(
            "events",
            "AWSEvents.PutRule",
            json!({"Name": "heard", "EventPattern": pattern.to_string()}),
        )
        .await?;
    client
        .json(
            "events",
            "AWSEvents.PutTargets",
            json!({"Rule": "heard", "Targets": [{"Id": "heard", "Arn": arn}]}),
        )
        .await?;
    Ok(url)
}

/// A queue that hears of every failure, by the environment's topic.
///
/// # Errors
/// When the subscription cannot be made.
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

/// A queue that a service may send to: its URL and ARN.
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

/// How many messages a queue has.
///
/// # Errors
/// When the queue cannot be asked.
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

/// Takes all messages of a queue, which are JSON.
///
/// # Errors
/// As [`take`], and when a message is no JSON.
pub async fn receive(env: &TestEnvironment, queue: &str) -> anyhow::Result<Vec<Value>> {
    let messages = take(env, queue).await?;
    let bodies = messages.iter().map(|message| {
        let body = message["Body"].as_str().context("no body")?;
        Ok(serde_json::from_str(body)?)
    });
    bodies.collect()
}

/// Takes all messages of a queue with everything that SQS says of them.
///
/// # Errors
/// When the queue cannot be read.
pub async fn take(env: &TestEnvironment, queue: &str) -> anyhow::Result<Vec<Value>> {
    let ask = json!({
        "QueueUrl": queue,
        "MaxNumberOfMessages": 10,
        "MessageAttributeNames": ["All"],
        "MessageSystemAttributeNames": ["All"],
    });
    let mut taken = Vec::new();
    loop {
        let client = env.cloud.client();
        let received = client
            .json("sqs", "AmazonSQS.ReceiveMessage", ask.clone())
            .await?;
        match received["Messages"].as_array() {
            Some(batch) if !batch.is_empty() => taken.extend(batch.iter().cloned()),
            Some(_) | None => return Ok(taken),
        }
    }
}

/// The queue of what could not be delivered: its URL.
///
/// # Errors
/// When there is none.
pub async fn dead_letters(env: &TestEnvironment) -> anyhow::Result<String> {
    let name = format!("{}-dead-letters", env.name);
    let ask = json!({"QueueName": name});
    let client = env.cloud.client();
    let found = client.json("sqs", "AmazonSQS.GetQueueUrl", ask).await?;
    Ok(found["QueueUrl"].as_str().context("no queue")?.to_owned())
}
