//! Looks whether deployments were frozen while this one was made.
//!
//! It comes right before the switch marks the deployment as ready, because another run may switch to one that is.

use lifecycle::{Baseline, DeploymentId, StepError};
use serde::{Deserialize, Serialize};
use settings::parameter;

/// The deployment that is about to be switched to.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Input {
    /// The deployment.
    pub deployment_id: DeploymentId,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Output {
    /// That nothing holds the deployment up, in a sentence.
    pub reason: String,
}

/// Reads the environment's settings once more.
///
/// # Errors
/// `Frozen`, with the reason that the settings give; `InvalidSettings` when it cannot be read whether they freeze
/// deployments; else as [`lifecycle::aws_error::CODES`] say.
pub async fn run(
    ssm: &aws_sdk_ssm::Client,
    baseline: &Baseline,
    input: Input,
) -> Result<Output, StepError> {
    match parameter::read_freeze(ssm, baseline).await? {
        Some(freeze) => Err(freeze.refuses(&input.deployment_id)),
        None => Ok(Output {
            reason: format!("deployments of {} are not frozen", baseline.environment),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lifecycle::ErrorName;
    use memory_aws::MemoryAws;
    use serde_json::json;

    async fn check(aws: &MemoryAws) -> Result<Output, StepError> {
        let ssm = aws_sdk_ssm::Client::new(&aws.config());
        let input = Input {
            deployment_id: "test-20251027-122112Z".parse().expect("an id"),
        };
        run(&ssm, &Baseline::for_tests(), input).await
    }

    fn with_settings(text: &str) -> MemoryAws {
        let name = "/pulse/test/settings";
        let parameter = json!({"Name": name, "Type": "String", "Value": text, "Version": 7});
        let aws = MemoryAws::default();
        aws.with(|state| state.parameters.insert(name.to_owned(), parameter));
        aws
    }

    #[tokio::test]
    async fn a_deployment_is_held_to_a_freeze_that_began_since() {
        let error = check(&with_settings(r#"{"frozen": "the sale runs"}"#))
            .await
            .unwrap_err();
        assert_eq!(error.name, ErrorName::Frozen);
        for words in ["test-20251027-122112Z", "version 7", "the sale runs"] {
            assert!(error.message.contains(words), "{error}");
        }
    }

    #[tokio::test]
    async fn without_a_freeze_it_goes_on_whatever_else_later_settings_say() {
        let wrong = with_settings(r#"{"cpu": 1}"#);
        for aws in [MemoryAws::default(), with_settings("{}"), wrong] {
            assert!(check(&aws).await.is_ok());
            assert_eq!(
                aws.calls_to("GetParameter"),
                [json!({"Name": "/pulse/test/settings"})]
            );
        }
    }

    #[tokio::test]
    async fn settings_that_cannot_be_read_say_nothing_of_a_freeze() {
        for text in [r#"{"frozen": true}"#, "{"] {
            let error = check(&with_settings(text)).await.unwrap_err();
            assert_eq!(error.name, ErrorName::InvalidSettings);
        }
        let aws = with_settings("{}");
        aws.on("GetParameter").fails("ThrottlingException");
        let error = check(&aws).await.unwrap_err();
        assert_eq!(error.name, ErrorName::Transient);
    }
}
