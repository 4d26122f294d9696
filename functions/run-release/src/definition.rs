//! The task definition of a release: that of the deployment, with another command and without ports.

use aws_sdk_ecs::types::{ContainerDefinition, TaskDefinition};
use lifecycle::tags::{self, Tags};
use lifecycle::task_definition::{self, revision_of};
use lifecycle::{Baseline, defaults, raw_task_definition};
use serde_json::{Value, json};

use crate::Input;

/// The request that registers it. `deployed` is the revision of the deployment, as AWS describes it.
pub(crate) fn wanted(baseline: &Baseline, input: &Input, deployed: Value) -> Value {
    let mut wanted = raw_task_definition::copy(deployed);
    wanted["family"] = task_definition::release_family(baseline).into();
    let containers = wanted["containerDefinitions"].as_array_mut();
    for container in containers.into_iter().flatten() {
        if let Some(members) = container.as_object_mut() {
            members.shift_remove("portMappings");
        }
        // Its end ends the task, and nothing else does: one that another container's end interrupts could end well.
        let is_app = container["name"] == defaults::CONTAINER;
        container["essential"] = is_app.into();
        if is_app {
            container["command"] = json!(input.command);
        }
    }
    let copied = revision_of(&input.task_definition_arn).to_owned();
    let tags = Vec::from(tags::for_deployment(&input.deployment_id)).into_iter();
    wanted["tags"] = tags
        .chain([(tags::COPY_OF, copied)])
        .map(|(key, value)| json!({"key": key, "value": value}))
        .collect();
    wanted
}

/// Whether a revision of the family is that of this release.
pub(crate) fn is_same(found: &TaskDefinition, of_it: &Tags, input: &Input) -> bool {
    let is_app = |it: &&ContainerDefinition| it.name() == Some(defaults::CONTAINER);
    let app = found.container_definitions().iter().find(is_app);
    let copied = of_it.get(tags::COPY_OF).map(String::as_str);
    tags::belong_to(of_it, &input.deployment_id)
        && copied == Some(revision_of(&input.task_definition_arn))
        && app.is_some_and(|app| app.command() == input.command)
}
