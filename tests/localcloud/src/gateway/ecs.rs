//! ECS: services and tasks are kept by the local cloud, everything else by MiniStack.

use serde_json::Value;

use super::autoscaling::Autoscaling;
use super::{
    Incoming,
    answer::{Answer, AwsError, json_answer},
    forward::Forward,
    operation::Protocol,
};
use crate::{ecs::Ecs, ministack::REGION};

/// Answers a call after MiniStack has authorised it.
pub async fn answer(
    ecs: &Ecs,
    autoscaling: &Autoscaling,
    forward: &Forward,
    incoming: &Incoming,
) -> Answer {
    let operation = incoming.operation.name.as_str();
    let Ok(body) = serde_json::from_slice::<Value>(&incoming.body) else {
        return AwsError::new("SerializationException", "the body is not JSON")
            .answer(Protocol::Json);
    };
    let tags = tags_of_named_resources(ecs, operation, &body);
    if let Err(refusal) = forward
        .authorise_with_tags(incoming, &tags.to_string())
        .await
    {
        return refusal;
    }
    let deleted = (operation == "DeleteService").then(|| arn("service", &body, &body["service"]));
    match ecs.handle(operation, body).await {
        Some(answer) => {
            if let Some(service) = deleted.filter(|_| answer.status == 200) {
                autoscaling.service_deleted(&service);
            }
            json_answer(answer.status, &answer.body)
        }
        None => forward.forward(incoming).await,
    }
}

/// The tags of the services or tasks that a call names, for `aws:ResourceTag` conditions: a JSON
/// object of tag objects by ARN.
pub(crate) fn tags_of_named_resources(ecs: &Ecs, operation: &str, body: &Value) -> Value {
    let arns = match operation {
        "UpdateService" | "DeleteService" => vec![arn("service", body, &body["service"])],
        "DescribeServices" => named("service", body, &body["services"]),
        "DescribeTasks" => named("task", body, &body["tasks"]),
        "StopTask" => vec![arn("task", body, &body["task"])],
        _ => Vec::new(),
    };
    let tagged = arns.into_iter().filter_map(|arn| {
        let tags = ecs.tags_of(&arn)?;
        Some((arn, tags))
    });
    Value::Object(tagged.collect())
}

fn named(kind: &str, body: &Value, names: &Value) -> Vec<String> {
    let names = names.as_array().into_iter().flatten();
    names.map(|name| arn(kind, body, name)).collect()
}

/// The ARN of a service or task that a call names by its short name or by its ARN.
fn arn(kind: &str, body: &Value, name: &Value) -> String {
    let name = name.as_str().unwrap_or_default();
    if name.starts_with("arn:") {
        return name.to_owned();
    }
    let cluster = body["cluster"].as_str().unwrap_or("default");
    let cluster = cluster.rsplit('/').next().unwrap_or(cluster);
    format!("arn:aws:ecs:{REGION}:000000000000:{kind}/{cluster}/{name}")
}
