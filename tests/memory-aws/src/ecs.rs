//! Elastic Container Service: <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/>.

use serde_json::{Value, json};

use crate::Error;
use crate::state::{State, number, service_arn, texts};
use crate::wire::text;

type Answer = Result<Value, Error>;

/// The answer, if the operation is one of this service.
pub(crate) fn answer(state: &mut State, operation: &str, params: &Value) -> Option<Answer> {
    let known = match operation {
        "DescribeServices" => describe_services,
        "ListServices" => list_services,
        "CreateService" => create_service,
        "UpdateService" => update_service,
        "DeleteService" => delete_service,
        "ListTasks" => list_tasks,
        "DescribeTasks" => describe_tasks,
        "RunTask" => run_task,
        "StopTask" => stop_task,
        "TagResource" => tag_resource,
        "RegisterTaskDefinition" => register_task_definition,
        "ListTaskDefinitions" => list_task_definitions,
        "DescribeTaskDefinition" => describe_task_definition,
        "DeregisterTaskDefinition" => deregister_task_definition,
        _ => return None,
    };
    let is_known_cluster = operation.ends_with("TaskDefinition")
        || operation.ends_with("TaskDefinitions")
        || operation == "TagResource"
        || params["cluster"] == "test";
    Some(if is_known_cluster {
        known(state, params)
    } else {
        Err(Error::new("ClusterNotFoundException", "Cluster not found."))
    })
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new("InvalidParameterException", message)
}

fn client(message: &str) -> Error {
    Error::new("ClientException", message)
}

/// What the caller sees of a resource: its tags only when it asks for them.
fn shown(resource: &Value, params: &Value) -> Value {
    let mut shown = resource.clone();
    if !texts(&params["include"]).contains(&"TAGS") {
        shown["tags"] = Value::Null;
    }
    shown
}

fn is_service(service: &Value, name: &str) -> bool {
    service["serviceName"] == name || service["serviceArn"] == name
}

fn active_service<'a>(state: &'a mut State, name: &str) -> Result<&'a mut Value, Error> {
    let found = state.services.iter_mut().find(|it| is_service(it, name));
    match found {
        None => Err(Error::new("ServiceNotFoundException", "Service not found.")),
        Some(service) if service["status"] == "ACTIVE" => Ok(service),
        Some(_) => Err(Error::new(
            "ServiceNotActiveException",
            "Service was not ACTIVE.",
        )),
    }
}

fn describe_services(state: &mut State, params: &Value) -> Answer {
    let names = texts(&params["services"]);
    if names.len() > 10 {
        return Err(invalid("Services cannot have more than 10 elements."));
    }
    let (mut services, mut failures) = (Vec::new(), Vec::new());
    for name in names {
        match state.services.iter().find(|it| is_service(it, name)) {
            Some(service) => services.push(shown(service, params)),
            None => failures.push(json!({"arn": service_arn(name), "reason": "MISSING"})),
        }
    }
    Ok(json!({"services": services, "failures": failures}))
}

fn list_services(state: &mut State, params: &Value) -> Answer {
    let listed = state
        .services
        .iter()
        .filter(|it| it["status"] != "INACTIVE");
    state.page(params, "serviceArns", (10, 100), listed, |it: &Value| {
        it["serviceArn"].clone()
    })
}

fn create_service(state: &mut State, params: &Value) -> Answer {
    let name = text(&params["serviceName"]);
    let existing = state.services.iter().find(|it| is_service(it, name));
    match existing.map_or("", |service| text(&service["status"])) {
        "ACTIVE" => return Err(invalid("Creation of service was not idempotent.")),
        "DRAINING" => return Err(invalid("Unable to Start a service that is still Draining.")),
        _ => state.services.retain(|it| !is_service(it, name)),
    }
    check_load_balancers(state, &params["loadBalancers"])?;
    let now = state.now;
    let service = state.add_service(name, Default::default());
    for (field, value) in params.as_object().into_iter().flatten() {
        service[field] = value.clone();
    }
    service["runningCount"] = json!(0);
    service["createdAt"] = json!(now);
    service["deployments"] = json!([rollout("ecs-svc/1", now)]);
    Ok(json!({"service": service}))
}

/// Refuses target groups that no rule and no default action names.
fn check_load_balancers(state: &State, load_balancers: &Value) -> Result<(), Error> {
    for balancer in load_balancers.as_array().into_iter().flatten() {
        let arn = text(&balancer["targetGroupArn"]);
        if !state.is_in_use(arn) {
            return Err(invalid(format!(
                "The target group with targetGroupArn {arn} does not have an associated load balancer."
            )));
        }
    }
    Ok(())
}

fn rollout(id: &str, now: i64) -> Value {
    json!({"id": id, "status": "PRIMARY", "rolloutState": "IN_PROGRESS", "createdAt": now})
}

fn update_service(state: &mut State, params: &Value) -> Answer {
    let now = state.now;
    if params["forceNewDeployment"] == true {
        let balancers = active_service(state, text(&params["service"]))?["loadBalancers"].clone();
        check_load_balancers(state, &balancers)?;
    }
    let service = active_service(state, text(&params["service"]))?;
    for field in [
        "desiredCount",
        "healthCheckGracePeriodSeconds",
        "taskDefinition",
    ] {
        if !params[field].is_null() {
            service[field] = params[field].clone();
        }
    }
    if params["forceNewDeployment"] == true {
        let rollouts = service["deployments"].as_array_mut().expect("a list");
        for earlier in rollouts.iter_mut() {
            earlier["status"] = "ACTIVE".into();
        }
        let id = format!("ecs-svc/{}", rollouts.len() + 1);
        rollouts.insert(0, rollout(&id, now));
    }
    Ok(json!({"service": service}))
}

fn delete_service(state: &mut State, params: &Value) -> Answer {
    let service = active_service(state, text(&params["service"]))?;
    if params["force"] != true && number(&service["desiredCount"]) > 0 {
        return Err(invalid(
            "The service cannot be stopped while it is scaled above 0.",
        ));
    }
    service["desiredCount"] = json!(0);
    service["status"] = match number(&service["runningCount"]) {
        0 => "INACTIVE".into(),
        _ => "DRAINING".into(),
    };
    Ok(json!({"service": service}))
}

fn list_tasks(state: &mut State, params: &Value) -> Answer {
    let desired = params["desiredStatus"].as_str().unwrap_or("RUNNING");
    let group = match params["serviceName"].as_str() {
        Some(name) if !state.services.iter().any(|it| is_service(it, name)) => {
            return Err(Error::new("ServiceNotFoundException", "Service not found."));
        }
        Some(name) => format!("service:{name}"),
        None => format!("family:{}", text(&params["family"])),
    };
    let tasks = state.tasks.iter();
    let tasks = tasks.filter(|it| it["group"] == group.as_str() && it["desiredStatus"] == desired);
    state.page(params, "taskArns", (100, 100), tasks, |it| {
        it["taskArn"].clone()
    })
}

/// Starts a task, or answers as before if the client token and all else is the same.
fn run_task(state: &mut State, params: &Value) -> Answer {
    let token = text(&params["clientToken"]);
    if let Some((first, arn)) = state.run_requests.get(token) {
        let tasks = state.tasks.iter().filter(|it| it["taskArn"] == *arn);
        if first == params {
            return Ok(json!({"tasks": tasks.collect::<Vec<_>>(), "failures": []}));
        }
        return Err(Error::new("ConflictException", "the token is in use"));
    }
    let definition = find_definition(state, params).filter(|it| it["status"] == "ACTIVE");
    let Some(definition) = definition.cloned() else {
        return Err(client("TaskDefinition is inactive"));
    };
    if let Some(reason) = state.run_failures.pop() {
        return Ok(json!({"tasks": [], "failures": [{"reason": reason}]}));
    }
    let (now, number) = (state.now, state.tasks.len() + 1);
    let arn = format!("arn:aws:ecs:us-east-1:1:task/test/t{number}");
    let containers = definition["containerDefinitions"].as_array();
    let containers = containers.into_iter().flatten();
    let task = json!({
        "taskArn": arn,
        "taskDefinitionArn": definition["taskDefinitionArn"],
        "group": format!("family:{}", text(&definition["family"])),
        "startedBy": params["startedBy"],
        "tags": params["tags"],
        "lastStatus": "PROVISIONING",
        "desiredStatus": "RUNNING",
        "createdAt": now,
        "containers": containers.map(|it| json!({"name": it["name"]})).collect::<Vec<_>>(),
    });
    state.tasks.push(task.clone());
    let request = (params.clone(), arn);
    state.run_requests.insert(token.to_owned(), request);
    Ok(json!({"tasks": [task], "failures": []}))
}

fn stop_task(state: &mut State, params: &Value) -> Answer {
    let arn = &params["task"];
    let Some(task) = state.tasks.iter_mut().find(|it| it["taskArn"] == *arn) else {
        return Err(invalid("The referenced task was not found."));
    };
    task["desiredStatus"] = "STOPPED".into();
    task["stopCode"] = "UserInitiated".into();
    task["stoppedReason"] = params["reason"].clone();
    Ok(json!({"task": task}))
}

/// Of task definitions only.
fn tag_resource(state: &mut State, params: &Value) -> Answer {
    let arn = &params["resourceArn"];
    let mut definitions = state.task_definitions.iter_mut();
    let Some(definition) = definitions.find(|it| it["taskDefinitionArn"] == *arn) else {
        return Err(invalid("The specified resource is not valid."));
    };
    let tags = definition["tags"].as_array_mut().expect("a list");
    for new in params["tags"].as_array().into_iter().flatten() {
        tags.retain(|tag| tag["key"] != new["key"]);
        tags.push(new.clone());
    }
    Ok(json!({}))
}

fn describe_tasks(state: &mut State, params: &Value) -> Answer {
    let asked = texts(&params["tasks"]);
    if !(1..=100).contains(&asked.len()) {
        return Err(invalid("Tasks must have 1 to 100 elements."));
    }
    let tasks = state.tasks.iter();
    let tasks: Vec<_> = tasks
        .filter(|it| asked.contains(&text(&it["taskArn"])))
        .collect();
    Ok(json!({"tasks": tasks}))
}

fn register_task_definition(state: &mut State, params: &Value) -> Answer {
    let arn = state.add_task_definition(Default::default());
    let definition = state.task_definitions.last_mut().expect("one");
    for (field, value) in params.as_object().into_iter().flatten() {
        definition[field] = value.clone();
    }
    definition["taskDefinitionArn"] = arn.into();
    Ok(json!({"taskDefinition": definition}))
}

fn list_task_definitions(state: &mut State, params: &Value) -> Answer {
    let definitions = state.task_definitions.iter();
    let mut all: Vec<Value> = definitions
        .filter(|it| it["status"] == *params.get("status").unwrap_or(&json!("ACTIVE")))
        // Not only the family itself: every one whose name begins so.
        .filter(|it| text(&it["family"]).starts_with(text(&params["familyPrefix"])))
        .map(|it| it["taskDefinitionArn"].clone())
        .collect();
    if params["sort"] == "DESC" {
        all.reverse();
    }
    state.page(params, "taskDefinitionArns", (100, 100), all, |arn| arn)
}

fn find_definition<'a>(state: &'a mut State, params: &Value) -> Option<&'a mut Value> {
    let name = &params["taskDefinition"];
    // The name of a family means its newest active revision.
    let is_it = |it: &&mut Value| {
        it["taskDefinitionArn"] == *name || it["family"] == *name && it["status"] == "ACTIVE"
    };
    state.task_definitions.iter_mut().rev().find(is_it)
}

fn describe_task_definition(state: &mut State, params: &Value) -> Answer {
    let Some(definition) = find_definition(state, params) else {
        return Err(client("Unable to describe task definition."));
    };
    let tags = shown(definition, params)["tags"].clone();
    Ok(json!({"taskDefinition": definition, "tags": tags}))
}

fn deregister_task_definition(state: &mut State, params: &Value) -> Answer {
    match find_definition(state, params) {
        Some(definition) if definition["status"] == "ACTIVE" => {
            definition["status"] = "INACTIVE".into();
            Ok(json!({"taskDefinition": definition}))
        }
        Some(_) => Err(client("The specified task definition is inactive.")),
        None => Err(client("The specified task definition does not exist.")),
    }
}
