//! Application Auto Scaling of ECS services: <https://docs.aws.amazon.com/autoscaling/application/APIReference/>.

use serde_json::{Value, json};

use crate::Error;
use crate::state::{State, number, texts};
use crate::wire::text;

type Answer = Result<Value, Error>;

/// The answer, if the operation is one of this service.
pub(crate) fn answer(state: &mut State, operation: &str, params: &Value) -> Option<Answer> {
    let known = match operation {
        "RegisterScalableTarget" => register,
        "DeregisterScalableTarget" => deregister,
        "PutScalingPolicy" => put_policy,
        "DescribeScalableTargets" => describe_targets,
        "DescribeScalingPolicies" => describe_policies,
        _ => return None,
    };
    if params["ServiceNamespace"] != "ecs" {
        let message = "the only namespace is that of ECS";
        return Some(Err(Error::new("ValidationException", message)));
    }
    Some(known(state, params))
}

fn missing() -> Error {
    let message = "No scalable target registered for service namespace: ecs";
    Error::new("ObjectNotFoundException", message)
}

/// Moves the number of tasks into the bounds, also for a target that is registered already.
fn register(state: &mut State, params: &Value) -> Answer {
    let resource = text(&params["ResourceId"]);
    let name = resource.rsplit('/').next().unwrap_or_default();
    let service = state
        .services
        .iter_mut()
        .find(|it| it["serviceName"] == name && it["status"] == "ACTIVE");
    let Some(service) = service else {
        let message = format!("ECS service doesn't exist: {resource}");
        return Err(Error::new("ValidationException", message));
    };
    let (least, most) = (
        number(&params["MinCapacity"]),
        number(&params["MaxCapacity"]),
    );
    let within = number(&service["desiredCount"]).clamp(least, most);
    service["desiredCount"] = json!(within);
    let target = state.scalable_targets.entry(resource.to_owned());
    let target = target.or_insert_with(|| json!({"policies": []}));
    target["MinCapacity"] = json!(least);
    target["MaxCapacity"] = json!(most);
    Ok(json!({}))
}

fn deregister(state: &mut State, params: &Value) -> Answer {
    let target = state.scalable_targets.remove(text(&params["ResourceId"]));
    target.map(|_| json!({})).ok_or_else(missing)
}

fn put_policy(state: &mut State, params: &Value) -> Answer {
    let target = state.scalable_targets.get_mut(text(&params["ResourceId"]));
    target.ok_or_else(missing)?["policies"] = json!([{
        "PolicyARN": "arn:policy",
        "PolicyName": params["PolicyName"],
        "ServiceNamespace": "ecs",
        "ResourceId": params["ResourceId"],
        "ScalableDimension": params["ScalableDimension"],
        "PolicyType": params["PolicyType"],
        "CreationTime": state.now,
    }]);
    Ok(json!({"PolicyARN": "arn:policy", "Alarms": []}))
}

fn describe_targets(state: &mut State, params: &Value) -> Answer {
    let asked = texts(&params["ResourceIds"]).into_iter();
    let found = asked.filter_map(|resource| {
        let target = state.scalable_targets.get(resource)?;
        Some(json!({
            "ServiceNamespace": "ecs",
            "ResourceId": resource,
            "ScalableDimension": "ecs:service:DesiredCount",
            "MinCapacity": target["MinCapacity"],
            "MaxCapacity": target["MaxCapacity"],
            "RoleARN": "arn:role",
            "CreationTime": state.now,
        }))
    });
    Ok(json!({"ScalableTargets": found.collect::<Value>()}))
}

fn describe_policies(state: &mut State, params: &Value) -> Answer {
    let target = state.scalable_targets.get(text(&params["ResourceId"]));
    let policies = target.map_or_else(|| json!([]), |target| target["policies"].clone());
    Ok(json!({"ScalingPolicies": policies}))
}
