//! Whether the alarms that the deployment is watched by exist, and are silent.

use aws_sdk_cloudwatch::Client;
use lifecycle::StepError;
use settings::{Input, Source, Watch};

/// What was found of the alarms.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Those that ring and that the input accepts.
    pub accepted: Vec<String>,
    /// That they could not be read. The deployment goes on, because an outage of CloudWatch must not keep a cure from
    /// going live.
    pub warning: Option<String>,
}

/// Reads the alarms. `settings` is where they come from, if not from the input.
///
/// # Errors
/// `InAlarm` when one rings, unless the input says that it goes on in spite of that; `InvalidInput` or `InvalidSettings`
/// when one does not exist.
pub async fn check(
    cloudwatch: &Client,
    input: &Input,
    settings: &Source,
    watch: &Watch,
) -> Result<Checked, StepError> {
    if watch.alarms.is_empty() || watch.seconds == 0 {
        return Ok(Checked::default());
    }
    let found = match monitoring::alarms(cloudwatch, &watch.alarms).await {
        Ok(found) => found,
        Err(error) => {
            let warning = format!(
                "the alarms of `watch.alarms` may not be watched: {}",
                error.message
            );
            // Whoever starts a cure does not know which of them ring.
            let accepted = match input.despite_alarms {
                true => watch.alarms.clone(),
                false => Vec::new(),
            };
            return Ok(Checked {
                accepted,
                warning: Some(warning),
            });
        }
    };
    if let Some(missing) = found.missing.first() {
        let is_named = input
            .fields
            .watch
            .as_ref()
            .is_some_and(|it| it.alarms.is_some());
        let source = if is_named { &Source::Input } else { settings };
        let why = format!(
            "names `{missing}`, and CloudWatch has no alarm of that name; create it, or leave it out"
        );
        return Err(source.refused("watch.alarms", why));
    }
    if !input.despite_alarms {
        found.refuse_ringing(&input.deployment_id, &[])?;
    }
    Ok(Checked {
        accepted: found.ringing,
        warning: None,
    })
}
