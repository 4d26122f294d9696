//! What a start of the active deployment asks for, compared with what runs.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ecs::types::{ContainerDefinition, Service, TaskDefinition};
use lifecycle::{Baseline, ErrorName, StepError, defaults, service, task_definition};

use crate::input::Deployment;

/// Compares every field that the input names with the service of the active deployment, and gives the digest of
/// the image that runs. A start changes nothing of a deployment that is live.
///
/// # Errors
/// `ResourceConflict`, with each difference, or when the deployment has no service.
pub async fn compare(
    ecs: &aws_sdk_ecs::Client,
    baseline: &Baseline,
    deployment: &Deployment,
) -> Result<String, StepError> {
    let id = &deployment.deployment_id;
    let gone = || {
        let message = format!(
            "{id} is active, but its service or its task definition is gone; deploy its image under a new deployment id"
        );
        StepError::new(ErrorName::ResourceConflict, message)
    };
    let service = service::find(ecs, baseline, id).await?.ok_or_else(gone)?;
    let revision = service.task_definition().ok_or_else(gone)?;
    let described = task_definition::describe(ecs, revision).await?;
    let (definition, _) = described.ok_or_else(gone)?;
    let container = definition
        .container_definitions()
        .iter()
        .find(|it| it.name() == Some(defaults::CONTAINER))
        .ok_or_else(gone)?;
    let digest = container
        .image()
        .and_then(|image| image.split_once('@'))
        .map_or("", |(_, digest)| digest);
    let differences = differences(deployment, &service, &definition, container, digest);
    if differences.is_empty() {
        return Ok(digest.to_owned());
    }
    Err(StepError::new(
        ErrorName::ResourceConflict,
        format!(
            "{id} is active and stays as it is: {}; deploy under a new deployment id",
            differences.join(", ")
        ),
    ))
}

fn differences(
    deployment: &Deployment,
    service: &Service,
    definition: &TaskDefinition,
    container: &ContainerDefinition,
    digest: &str,
) -> Vec<String> {
    let named = &deployment.named;
    let mut differences = Vec::new();
    let mut compare = |field: &str, asked: Option<String>, running: &str| match asked {
        Some(asked) if asked != running => {
            differences.push(format!("`{field}` is {running}, not {asked}"))
        }
        _ => {}
    };
    let number = |is_named: bool, number: u32| is_named.then(|| number.to_string());
    compare("imageDigest", named.image_digest.clone(), digest);
    compare(
        "desiredCount",
        number(named.desired_count, deployment.desired_count),
        &service.desired_count().to_string(),
    );
    compare(
        "cpu",
        number(named.cpu, deployment.cpu),
        definition.cpu().unwrap_or_default(),
    );
    compare(
        "memory",
        number(named.memory, deployment.memory),
        definition.memory().unwrap_or_default(),
    );
    if named.environment {
        let running = container.environment().iter().filter_map(|pair| {
            let name = pair.name()?;
            let is_own = !defaults::RESERVED_VARIABLES.contains(&name);
            is_own.then(|| (name, pair.value().unwrap_or_default()))
        });
        let asked = deployment.environment.iter();
        let asked = asked.map(|(name, value)| (name.as_str(), value.as_str()));
        let running: BTreeMap<_, _> = running.collect();
        let asked: BTreeMap<_, _> = asked.collect();
        // Names alone: a value may be long, or not meant to be read.
        let names: BTreeSet<_> = running
            .keys()
            .chain(asked.keys())
            .filter(|name| running.get(**name) != asked.get(**name))
            .copied()
            .collect();
        if !names.is_empty() {
            let names: Vec<_> = names.into_iter().collect();
            differences.push(format!("`environment` differs in {}", names.join(", ")));
        }
    }
    differences
}
