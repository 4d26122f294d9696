//! What a deployment's task definition looks like, and whether a revision matches it.

use std::collections::BTreeMap;

use aws_sdk_ecs::types::{ContainerDefinition, TaskDefinition};
use lifecycle::tags::Tags;
use lifecycle::{Baseline, ErrorName, StepError, defaults, raw_task_definition, tags};
use lifecycle::{task_definition, task_definition::revision_of};
use serde_json::{Value, json};

use crate::Input;

/// The application reads its deployment's id from this variable.
const DEPLOYMENT_ID: &str = "DEPLOYMENT_ID";
/// The application reads the port to listen on from this variable.
const PORT: &str = "PORT";
/// The application reads what authorises `POST /drain` from this variable.
const DRAIN_SECRET: &str = "DRAIN_SECRET";

/// Refuses variables that the deployment sets itself.
pub(crate) fn refuse_reserved(input: &Input) -> Result<(), StepError> {
    for (field, variables) in [
        ("environment", &input.environment),
        ("secrets", &input.secrets),
    ] {
        let mut reserved = defaults::RESERVED_VARIABLES.iter();
        if let Some(name) = reserved.find(|name| variables.contains_key(**name)) {
            return Err(StepError::new(
                ErrorName::InvalidInput,
                format!("field `{field}.{name}`: this variable is set by the pipeline"),
            ));
        }
    }
    Ok(())
}

/// The request that registers the task definition: a copy of the base, as AWS describes it, or a task of one container.
pub(crate) fn wanted(
    baseline: &Baseline,
    input: &Input,
    base: Option<Value>,
) -> Result<Value, StepError> {
    let tags = tags(input, base.as_ref());
    let mut wanted = raw_task_definition::copy(base.unwrap_or_else(alone));
    wanted["family"] = task_definition::family(baseline).into();
    wanted["requiresCompatibilities"] = json!(["FARGATE"]);
    wanted["networkMode"] = "awsvpc".into();
    for (member, size) in [("cpu", input.cpu), ("memory", input.memory)] {
        if let Some(size) = size {
            wanted[member] = size.to_string().into();
        }
    }
    let platform = json!({
        "operatingSystemFamily": "LINUX", "cpuArchitecture": baseline.cpu_architecture,
    });
    for (member, default) in [
        ("runtimePlatform", platform),
        ("executionRoleArn", json!(baseline.execution_role_arn)),
        ("taskRoleArn", json!(baseline.task_role_arn)),
    ] {
        if wanted[member].is_null() {
            wanted[member] = default;
        }
    }
    wanted["tags"] = tags;
    let containers = wanted["containerDefinitions"].as_array_mut();
    let mut containers = containers.into_iter().flatten();
    match containers.find(|it| it["name"] == defaults::CONTAINER) {
        Some(app) => complete(app, baseline, input),
        None => {
            let message = format!(
                "field `base`: it has no container `{}`",
                defaults::CONTAINER
            );
            return Err(StepError::new(ErrorName::InvalidInput, message));
        }
    }
    Ok(wanted)
}

/// A task of the application alone.
fn alone() -> Value {
    json!({"containerDefinitions": [{
        "name": defaults::CONTAINER, "essential": true, "stopTimeout": defaults::STOP_TIMEOUT_SECONDS,
    }]})
}

/// Gives the container its image and what the deployment says. Everything else stays.
fn complete(app: &mut Value, baseline: &Baseline, input: &Input) {
    let (own_secret, id) = (&baseline.drain_secret_arn, input.deployment_id.as_str());
    let environment = {
        let port = defaults::PORT.to_string();
        let first = [(DEPLOYMENT_ID, id), (PORT, port.as_str())];
        merged(app, "environment", "value", &first, &input.environment)
    };
    let secrets = {
        let first = [(DRAIN_SECRET, own_secret.as_str())];
        merged(app, "secrets", "valueFrom", &first, &input.secrets)
    };
    app["image"] = format!("{}@{}", baseline.repository_uri, input.image_digest).into();
    app["portMappings"] = json!([{"containerPort": defaults::PORT, "protocol": "tcp"}]);
    app["environment"] = environment;
    app["secrets"] = secrets;
    for (member, words) in [
        ("command", &input.command),
        ("entryPoint", &input.entry_point),
    ] {
        if let Some(words) = words {
            app[member] = json!(words);
        }
    }
    app["logConfiguration"] = json!({
        "logDriver": "awslogs",
        "options": {
            "awslogs-group": baseline.log_group,
            "awslogs-region": baseline.region,
            "awslogs-stream-prefix": id,
            "mode": "non-blocking",
            "max-buffer-size": defaults::LOG_BUFFER,
        },
    });
}

/// A list of variables: those of the deployment itself, then by name those of the base, in their place those of the
/// input.
fn merged(
    app: &Value,
    list: &str,
    value: &str,
    first: &[(&str, &str)],
    own: &BTreeMap<String, String>,
) -> Value {
    let mut all: BTreeMap<&str, Value> = BTreeMap::new();
    for entry in raw_task_definition::own_entries(app, list) {
        all.insert(entry["name"].as_str().unwrap_or_default(), entry.clone());
    }
    let entry = |name: &str, text: &str| json!({"name": name, value: text});
    for (name, text) in own {
        all.insert(name, entry(name, text));
    }
    let first = first.iter().map(|(name, text)| entry(name, text));
    first.chain(all.into_values()).collect()
}

/// The tags of the deployment, the version of the settings that it is made with, and what it is a copy of.
fn tags(input: &Input, base: Option<&Value>) -> Value {
    let mut all = Vec::from(tags::for_deployment(&input.deployment_id));
    if let Some(version) = input.settings_version {
        all.push((tags::SETTINGS_VERSION, version.to_string()));
    }
    if let Some(arn) = base.and_then(|base| base["taskDefinitionArn"].as_str()) {
        all.push((tags::COPY_OF, revision_of(arn).to_owned()));
    }
    let all = all.into_iter();
    all.map(|(key, value)| json!({"key": key, "value": value}))
        .collect()
}

/// Whether a revision of the deployment has the image, sizes, variables and commands that are wanted, and is a copy of
/// the same revision.
///
/// Roles, log group and the drain secret are not compared: they change only with the stacks, and a deployment
/// keeps those it was started with.
pub(crate) fn is_same(found: &TaskDefinition, of_it: &Tags, wanted: &Value) -> bool {
    let is_app = |it: &&ContainerDefinition| it.name() == Some(defaults::CONTAINER);
    let containers = wanted["containerDefinitions"].as_array();
    let app = containers
        .into_iter()
        .flatten()
        .find(|it| it["name"] == defaults::CONTAINER);
    let (Some(app), Some(container)) = (app, found.container_definitions().iter().find(is_app))
    else {
        return false;
    };
    let copied = wanted["tags"].as_array().into_iter().flatten();
    let copied = copied.filter(|tag| tag["key"] == tags::COPY_OF);
    found.cpu() == wanted["cpu"].as_str()
        && found.memory() == wanted["memory"].as_str()
        && container.image() == app["image"].as_str()
        && variables(container) == named(app, "environment", "value")
        && secrets(container) == named(app, "secrets", "valueFrom")
        && container.command() == words(&app["command"])
        && container.entry_point() == words(&app["entryPoint"])
        && of_it.get(tags::COPY_OF).map(String::as_str)
            == copied.filter_map(|tag| tag["value"].as_str()).next()
}

fn words(list: &Value) -> Vec<&str> {
    let words = list.as_array().into_iter().flatten();
    words.filter_map(Value::as_str).collect()
}

fn named<'a>(app: &'a Value, list: &str, value: &str) -> BTreeMap<&'a str, &'a str> {
    let entries = app[list].as_array().into_iter().flatten();
    let entries = entries.filter(|it| it["name"] != DRAIN_SECRET);
    entries
        .map(|it| {
            (
                it["name"].as_str().unwrap_or_default(),
                it[value].as_str().unwrap_or_default(),
            )
        })
        .collect()
}

fn variables(container: &ContainerDefinition) -> BTreeMap<&str, &str> {
    container
        .environment()
        .iter()
        .map(|pair| {
            (
                pair.name().unwrap_or_default(),
                pair.value().unwrap_or_default(),
            )
        })
        .collect()
}

fn secrets(container: &ContainerDefinition) -> BTreeMap<&str, &str> {
    container
        .secrets()
        .iter()
        .filter(|secret| secret.name() != DRAIN_SECRET)
        .map(|secret| (secret.name(), secret.value_from()))
        .collect()
}
