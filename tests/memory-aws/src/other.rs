//! The few calls to ECR, Step Functions, CloudWatch Logs, Secrets Manager and Parameter Store.

use serde_json::{Value, json};

use crate::Error;
use crate::state::{DEPLOY_MACHINE_ARN, ROLLBACK_MACHINE_ARN, State};
use crate::wire::text;

type Answer = Result<Value, Error>;

/// The answer, if the operation is one of these services.
pub(crate) fn answer(state: &mut State, operation: &str, params: &Value) -> Option<Answer> {
    let known = match operation {
        "DescribeImages" => describe_images,
        "BatchGetImage" => batch_get_image,
        "StartExecution" => start_execution,
        "ListExecutions" => list_executions,
        "DescribeExecution" => describe_execution,
        "GetExecutionHistory" => get_execution_history,
        "SendTaskSuccess" => send_task_success,
        "GetLogEvents" => get_log_events,
        "GetSecretValue" => get_secret_value,
        "GetParameter" => get_parameter,
        _ => return None,
    };
    Some(known(state, params))
}

fn describe_images(state: &mut State, params: &Value) -> Answer {
    if params["repositoryName"] != "test" {
        return Err(Error::new(
            "RepositoryNotFoundException",
            "no such repository",
        ));
    }
    let asked = params["imageIds"].as_array().into_iter().flatten();
    let mut details = Vec::new();
    for id in asked {
        let is_it = |(tag, digest): &&(String, String)| {
            id["imageTag"] == **tag || id["imageDigest"] == **digest
        };
        match state.images.iter().find(is_it) {
            Some((tag, digest)) => details.push(json!({"imageTags": [tag], "imageDigest": digest})),
            None => {
                return Err(Error::new(
                    "ImageNotFoundException",
                    format!("no image {id}"),
                ));
            }
        }
    }
    Ok(json!({"imageDetails": details}))
}

fn batch_get_image(state: &mut State, params: &Value) -> Answer {
    let asked = params["imageIds"].as_array().into_iter().flatten();
    let (mut images, mut failures) = (Vec::new(), Vec::new());
    for id in asked {
        let digest = text(&id["imageDigest"]);
        match state.images.iter().find(|(_, known)| known == digest) {
            Some(_) => images.push(json!({
                "imageId": id,
                "imageManifest": state.manifests.get(digest).map_or("{}", String::as_str),
            })),
            None => failures.push(json!({"imageId": id, "failureCode": "ImageNotFound"})),
        }
    }
    Ok(json!({"images": images, "failures": failures}))
}

fn check_machine(params: &Value) -> Result<(), Error> {
    let machines = [DEPLOY_MACHINE_ARN, ROLLBACK_MACHINE_ARN];
    if machines.iter().any(|arn| params["stateMachineArn"] == *arn) {
        return Ok(());
    }
    Err(Error::new(
        "StateMachineDoesNotExist",
        "no such state machine",
    ))
}

fn start_execution(state: &mut State, params: &Value) -> Answer {
    check_machine(params)?;
    let (name, input) = (text(&params["name"]), text(&params["input"]));
    let machine = text(&params["stateMachineArn"]);
    let is_it = |it: &&Value| it["name"] == name && it["stateMachineArn"] == machine;
    let execution = match state.executions.iter().find(is_it) {
        None => &*state.add_execution_of(machine, name, input),
        // The same call again, as long as the execution runs, is answered alike.
        Some(same) if same["input"] == input && same["status"] == "RUNNING" => same,
        Some(_) => return Err(Error::new("ExecutionAlreadyExists", "the name is in use")),
    };
    Ok(json!({"executionArn": execution["executionArn"], "startDate": execution["startDate"]}))
}

fn list_executions(state: &mut State, params: &Value) -> Answer {
    check_machine(params)?;
    let status = &params["statusFilter"];
    let machine = &params["stateMachineArn"];
    // The newest first.
    let executions = state
        .executions
        .iter()
        .rev()
        .filter(|it| it["stateMachineArn"] == *machine);
    let executions = executions.filter(|it| status.is_null() || it["status"] == *status);
    state.page(params, "executions", (100, 1000), executions, Value::clone)
}

fn describe_execution(state: &mut State, params: &Value) -> Answer {
    let arn = &params["executionArn"];
    let found = state
        .executions
        .iter()
        .find(|it| it["executionArn"] == *arn);
    let missing = || Error::new("ExecutionDoesNotExist", "no such execution");
    found.cloned().ok_or_else(missing)
}

fn get_execution_history(state: &mut State, params: &Value) -> Answer {
    let Some(events) = state.histories.get(text(&params["executionArn"])) else {
        return Err(Error::new("ExecutionDoesNotExist", "no such execution"));
    };
    let mut events = events.clone();
    if params["reverseOrder"] == true {
        events.reverse();
    }
    events.truncate(params["maxResults"].as_u64().unwrap_or(100) as usize);
    Ok(json!({"events": events}))
}

fn send_task_success(state: &mut State, params: &Value) -> Answer {
    match state.task_tokens.remove(text(&params["taskToken"])) {
        true => Ok(json!({})),
        false => Err(Error::new("TaskTimedOut", "nobody waits")),
    }
}

fn get_log_events(state: &mut State, params: &Value) -> Answer {
    let stream = text(&params["logStreamName"]);
    let Some(lines) = state.logs.get(stream) else {
        return Err(Error::new(
            "ResourceNotFoundException",
            "no such log stream",
        ));
    };
    let limit = params["limit"].as_u64().unwrap_or(10_000) as usize;
    let lines = if params["startFromHead"] == true {
        &lines[..limit.min(lines.len())]
    } else {
        &lines[lines.len().saturating_sub(limit)..]
    };
    let events: Vec<_> = lines.iter().map(|line| json!({"message": line})).collect();
    Ok(json!({"events": events}))
}

fn get_secret_value(state: &mut State, params: &Value) -> Answer {
    let versions = match params["VersionStage"].as_str() {
        None | Some("AWSCURRENT") => &state.secrets,
        Some("AWSPREVIOUS") => &state.previous_secrets,
        Some(other) => return Err(Error::new("ResourceNotFoundException", other)),
    };
    match versions.get(text(&params["SecretId"])) {
        Some(secret) => Ok(json!({"SecretString": secret})),
        None => Err(Error::new("ResourceNotFoundException", "no such secret")),
    }
}

fn get_parameter(state: &mut State, params: &Value) -> Answer {
    match state.parameters.get(text(&params["Name"])) {
        Some(parameter) => Ok(json!({"Parameter": parameter})),
        // AWS sends no message with it.
        None => Err(Error::new("ParameterNotFound", "")),
    }
}
