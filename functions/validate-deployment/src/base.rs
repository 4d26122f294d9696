//! The task definition that a deployment copies, as it is now: the deployment keeps this revision.

use aws_sdk_ecs::Client;
use lifecycle::{Baseline, StepError, raw_task_definition};
use serde_json::Value;
use settings::{Document, Input, base_of};

/// The newest active revision of the family that the input or the settings name, as AWS describes it. `None` when
/// they name none.
///
/// # Errors
/// `InvalidInput` or `InvalidSettings` when there is no such family, or it is that of the deployments themselves; else
/// as [`lifecycle::aws_error::CODES`] say.
pub async fn read(
    ecs: &Client,
    baseline: &Baseline,
    input: &Input,
    settings: Option<&Document>,
) -> Result<Option<Value>, StepError> {
    let Some((family, source)) = base_of(input, settings, &baseline.environment)? else {
        return Ok(None);
    };
    match raw_task_definition::read(ecs, family).await? {
        Some(definition) => Ok(Some(definition)),
        None => Err(source.refused(
            "base",
            format_args!(
                "the family {family} has no active task definition; register one, or correct the name"
            ),
        )),
    }
}

/// The processor that the tasks have, if the base says so: what the image has to be built for.
pub fn architecture(definition: &Value) -> Option<&str> {
    definition["runtimePlatform"]["cpuArchitecture"].as_str()
}
