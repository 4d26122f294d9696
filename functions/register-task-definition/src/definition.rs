//! What a deployment's container looks like, and whether a revision matches the input.

use std::collections::BTreeMap;

use aws_sdk_ecs::types::{
    ContainerDefinition, CpuArchitecture, KeyValuePair, LogConfiguration, LogDriver, OsFamily,
    PortMapping, RuntimePlatform, Secret, TaskDefinition, TransportProtocol,
};
use lifecycle::{Baseline, ErrorName, StepError, defaults};

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
    if let Some(name) = defaults::RESERVED_VARIABLES
        .iter()
        .find(|name| input.environment.contains_key(**name))
    {
        return Err(StepError::new(
            ErrorName::InvalidInput,
            format!("field `environment.{name}`: this variable is set by the pipeline"),
        ));
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
        .secrets(
            Secret::builder()
                .name(DRAIN_SECRET)
                .value_from(&baseline.drain_secret_arn)
                .build()
                .map_err(incomplete)?,
        )
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

fn incomplete(error: aws_sdk_ecs::error::BuildError) -> StepError {
    StepError::new(
        ErrorName::Unexpected,
        format!("could not describe the container: {error}"),
    )
}

/// Whether a revision of the deployment has the image, sizes and variables that the input says.
///
/// Roles, log group and secret are not compared: they change only with the stacks, and a deployment
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
