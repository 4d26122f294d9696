//! TagResource, UntagResource and ListTagsForResource for services and tasks.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs-using-tags.html>

use serde_json::{Value, json};

use super::answer::Refusal;
use super::model::State;
use super::requests::{Tag, TagResource, UntagResource, read};
use super::services::check_tags;
use super::shared::Shared;
use super::wire;

/// Whether a request is about a service or a task; tags of the rest are MiniStack's.
pub fn is_ours(body: &Value) -> bool {
    body["resourceArn"]
        .as_str()
        .is_some_and(|arn| arn.contains(":service/") || arn.contains(":task/"))
}

/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_TagResource.html>
pub fn tag(shared: &Shared, body: &Value) -> Result<Value, Refusal> {
    let request: TagResource = read(body)?;
    let mut state = shared.state();
    let tags = tags_of(&mut state, &request.resource_arn)?;
    let mut result = tags.clone();
    for tag in request.tags {
        match result.iter_mut().find(|have| have.key == tag.key) {
            Some(have) => have.value = tag.value,
            None => result.push(tag),
        }
    }
    let own: Vec<Tag> = result
        .iter()
        .filter(|tag| !tag.key.starts_with("aws:ecs:"))
        .cloned()
        .collect();
    check_tags(&own)?;
    *tags = result;
    Ok(json!({}))
}

/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_UntagResource.html>
pub fn untag(shared: &Shared, body: &Value) -> Result<Value, Refusal> {
    let request: UntagResource = read(body)?;
    let mut state = shared.state();
    tags_of(&mut state, &request.resource_arn)?.retain(|tag| !request.tag_keys.contains(&tag.key));
    Ok(json!({}))
}

/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ListTagsForResource.html>
pub fn list(shared: &Shared, body: &Value) -> Result<Value, Refusal> {
    let arn = body["resourceArn"].as_str().unwrap_or_default();
    let mut state = shared.state();
    let tags = tags_of(&mut state, arn)?;
    Ok(json!({"tags": wire::tags(tags)}))
}

fn tags_of<'a>(state: &'a mut State, arn: &str) -> Result<&'a mut Vec<Tag>, Refusal> {
    if let Some(service) = state.services.get_mut(arn) {
        return Ok(&mut service.tags);
    }
    match state.tasks.get_mut(arn) {
        Some(task) => Ok(&mut task.tags),
        None => Err(Refusal::invalid_parameter(
            "The specified resource was not found.",
        )),
    }
}
