//! The environment's settings, as Parameter Store has them.

use aws_sdk_ssm::Client;
use aws_sdk_ssm::operation::get_parameter::GetParameterError;
use aws_sdk_ssm::types::ParameterType;
use lifecycle::aws_error::found;
use lifecycle::{Baseline, StepError};

use crate::{Document, Freeze, Source, parameter_name};

/// The settings, or `None` when the parameter does not exist.
///
/// # Errors
/// `InvalidSettings` when they are wrong, else as [`lifecycle::aws_error::CODES`] say.
pub async fn read(ssm: &Client, baseline: &Baseline) -> Result<Option<Document>, StepError> {
    let Some((version, text)) = text(ssm, baseline).await? else {
        return Ok(None);
    };
    Document::read(&baseline.environment, Some(version), &text).map(Some)
}

/// Whether the settings freeze deployments now.
///
/// # Errors
/// `InvalidSettings` when that cannot be read, else as [`lifecycle::aws_error::CODES`] say.
pub async fn read_freeze(ssm: &Client, baseline: &Baseline) -> Result<Option<Freeze>, StepError> {
    let Some((version, text)) = text(ssm, baseline).await? else {
        return Ok(None);
    };
    Document::read_freeze(&baseline.environment, Some(version), &text)
}

/// The parameter's version and its text.
async fn text(ssm: &Client, baseline: &Baseline) -> Result<Option<(i64, String)>, StepError> {
    let name = parameter_name(&baseline.environment);
    let answer = found(
        format_args!("read the parameter {name}"),
        ssm.get_parameter().name(&name).send().await,
        GetParameterError::is_parameter_not_found,
    )?;
    let Some(parameter) = answer.and_then(|answer| answer.parameter) else {
        return Ok(None);
    };
    let version = parameter.version();
    if parameter.r#type() != Some(&ParameterType::String) {
        let source = Source::settings(&baseline.environment, Some(version));
        return Err(source.error(
            "the parameter must be of type String; settings name secrets and do not contain them",
        ));
    }
    Ok(Some((version, parameter.value.unwrap_or_default())))
}
