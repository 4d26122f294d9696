//! ECS: services and tasks are the local cloud's own, the rest is MiniStack's.

use serde_json::{Map, Value, json};

use super::{
    Incoming,
    answer::{Answer, AwsError, json_answer},
    forward::Forward,
    operation::Protocol,
};
use crate::{ecs::Ecs, ministack::REGION};

/// Answers a call of a caller that MiniStack allows it to.
pub async fn answer(ecs: &Ecs, forward: &Forward, incoming: &Incoming) -> Answer {
    let operation = incoming.operation.name.as_str();
    let Ok(body) = serde_json::from_slice::<Value>(&incoming.body) else {
        return AwsError::new("SerializationException", "the body is not JSON")
            .answer(Protocol::Json);
    };
    let tags = tags_of_named_resource(ecs, operation, &body).await;
    if let Err(refusal) = forward
        .authorise_with_tags(incoming, &tags.to_string())
        .await
    {
        return refusal;
    }
    match ecs.handle(operation, body).await {
        Some(answer) => json_answer(answer.status, &answer.body),
        None => forward.forward(incoming).await,
    }
}

/// The tags of the service or task that a call is about, for `aws:ResourceTag` conditions:
/// an object of tags by ARN.
async fn tags_of_named_resource(ecs: &Ecs, operation: &str, body: &Value) -> Value {
    let arns = match operation {
        "UpdateService" | "DeleteService" => vec![arn("service", body, &body["service"])],
        "DescribeServices" => named("service", body, &body["services"]),
        "StopTask" => vec![arn("task", body, &body["task"])],
        "DescribeTasks" | "UpdateTaskProtection" | "GetTaskProtection" => {
            named("task", body, &body["tasks"])
        }
        "TagResource" | "UntagResource" => {
            vec![body["resourceArn"].as_str().unwrap_or_default().to_owned()]
        }
        _ => Vec::new(),
    };
    let mut tags = Map::new();
    for arn in arns {
        let list = json!({ "resourceArn": arn });
        if let Some(answer) = ecs.handle("ListTagsForResource", list).await
            && answer.status == 200
        {
            let pairs = answer.body["tags"].as_array().into_iter().flatten();
            let pairs = pairs
                .filter_map(|tag| Some((tag["key"].as_str()?.to_owned(), tag["value"].clone())));
            tags.insert(arn, Value::Object(pairs.collect()));
        }
    }
    Value::Object(tags)
}

fn named(kind: &str, body: &Value, names: &Value) -> Vec<String> {
    let names = names.as_array().into_iter().flatten();
    names.map(|name| arn(kind, body, name)).collect()
}

/// The ARN of a service or task that a call names in short or in full.
fn arn(kind: &str, body: &Value, name: &Value) -> String {
    let name = name.as_str().unwrap_or_default();
    if name.starts_with("arn:") {
        return name.to_owned();
    }
    let cluster = body["cluster"].as_str().unwrap_or("default");
    let cluster = cluster.rsplit('/').next().unwrap_or(cluster);
    format!("arn:aws:ecs:{REGION}:000000000000:{kind}/{cluster}/{name}")
}
