//! What a deployment's container looks like, and whether a revision matches the input.

use std::collections::BTreeMap;

use aws_sdk_ecs::types::{
    ContainerDefinition, CpuArchitecture, KeyValuePair, LogConfiguration, LogDriver, OsFamily,
    PortMapping, RuntimePlatform, Secret, Tag, TaskDefinition, TransportProtocol,
};
use lifecycle::{Baseline, ErrorName, StepError, defaults, tags};

use crate::Input;

/// The application reads its deployment's id from this variable.
const DEPLOYMENT_ID: &str = "DEPLOYMENT_ID";
/// The application reads the port to listen on from this variable.
const PORT: &str = "PORT";
/// The application reads what authorises `POST /drain` from this variable.
const DRAIN_SECRET: &str = "DRAIN_SECRET";

/// The operating system and processor that the image is built for.
pub(crate) fn platform(baseline: &Baseline) -> RuntimePlatform {
    RuntimePlatform::builder()
        .operating_system_family(OsFamily::Linux)
        .cpu_architecture(CpuArchitecture::from(baseline.cpu_architecture.as_str()))
        .build()
}

/// The one container of a task.
pub(crate) fn container(
    baseline: &Baseline,
    input: &Input,
) -> Result<ContainerDefinition, StepError> {
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
    let mut from_elsewhere = vec![secret(DRAIN_SECRET, &baseline.drain_secret_arn)?];
    for (name, value_from) in &input.secrets {
        from_elsewhere.push(secret(name, value_from)?);
    }
    let own = [
        (DEPLOYMENT_ID.to_owned(), input.deployment_id.to_string()),
        (PORT.to_owned(), defaults::PORT.to_string()),
    ];
    let environment = own
        .into_iter()
        .chain(input.environment.clone())
        .map(|(name, value)| KeyValuePair::builder().name(name).value(value).build())
        .collect();
    Ok(ContainerDefinition::builder()
        .name(defaults::CONTAINER)
        .image(format!(
            "{}@{}",
            baseline.repository_uri, input.image_digest
        ))
        .essential(true)
        .port_mappings(
            PortMapping::builder()
                .container_port(defaults::PORT.into())
                .protocol(TransportProtocol::Tcp)
                .build(),
        )
        .set_environment(Some(environment))
        .set_secrets(Some(from_elsewhere))
        .set_command(input.command.clone())
        .set_entry_point(input.entry_point.clone())
        .log_configuration(
            LogConfiguration::builder()
                .log_driver(LogDriver::Awslogs)
                .options("awslogs-group", &baseline.log_group)
                .options("awslogs-region", &baseline.region)
                .options("awslogs-stream-prefix", input.deployment_id.as_str())
                .options("mode", "non-blocking")
                .options("max-buffer-size", defaults::LOG_BUFFER)
                .build()
                .map_err(incomplete)?,
        )
        .stop_timeout(defaults::STOP_TIMEOUT_SECONDS)
        .build())
}

fn secret(name: &str, value_from: &str) -> Result<Secret, StepError> {
    let secret = Secret::builder().name(name).value_from(value_from);
    secret.build().map_err(incomplete)
}

fn incomplete(error: aws_sdk_ecs::error::BuildError) -> StepError {
    StepError::new(
        ErrorName::Unexpected,
        format!("could not describe the container: {error}"),
    )
}

/// The tags of the deployment, and the version of the settings that it is made with.
pub(crate) fn tags(input: &Input) -> Vec<Tag> {
    let mut all = tags::to_ecs(&input.deployment_id);
    if let Some(version) = input.settings_version {
        let tag = Tag::builder().key(tags::SETTINGS_VERSION);
        all.push(tag.value(version.to_string()).build());
    }
    all
}

/// Whether a revision of the deployment has the image, sizes, variables and commands that the input says.
///
/// Roles, log group and the drain secret are not compared: they change only with the stacks, and a deployment
/// keeps those it was started with.
pub(crate) fn is_same(found: &TaskDefinition, input: &Input, wanted: &ContainerDefinition) -> bool {
    let [container] = found.container_definitions() else {
        return false;
    };
    found.cpu() == Some(&input.cpu.to_string())
        && found.memory() == Some(&input.memory.to_string())
        && container.name() == wanted.name()
        && container.image() == wanted.image()
        && variables(container) == variables(wanted)
        && secrets(container) == secrets(wanted)
        && container.command() == wanted.command()
        && container.entry_point() == wanted.entry_point()
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
