//! Looks whether anything holds the deployment back that came up while it was made: deployments were frozen, or an alarm
//! began to ring.
//!
//! It comes right before the switch marks the deployment as ready, because another run may switch to one that is.

use lifecycle::{Baseline, DeploymentId, StepError};
use serde::{Deserialize, Serialize};
use settings::{Watch, object, parameter};

/// The deployment that is about to be switched to.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Input {
    /// The deployment.
    pub deployment_id: DeploymentId,
    /// How it is watched after the switch.
    #[serde(default, deserialize_with = "object::optional")]
    pub watch: Option<Watch>,
    /// The alarms that ring and that it goes on in spite of.
    #[serde(default)]
    pub accepted_alarms: Vec<String>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Output {
    /// That nothing holds the deployment back, in a sentence.
    pub reason: String,
}

/// The clients that the step reads with.
#[derive(Debug, Clone)]
pub struct Clients {
    /// For the alarms.
    pub cloudwatch: aws_sdk_cloudwatch::Client,
    /// For the settings of the environment.
    pub ssm: aws_sdk_ssm::Client,
}

/// Reads once more whether the environment's settings freeze deployments, and the alarms. Alarms that cannot be read, or
/// do not exist any more, hold nothing back: the watch says so later.
///
/// # Errors
/// `Frozen`, with the reason that the settings give; `InvalidSettings` when it cannot be read whether they freeze
/// deployments; `InAlarm` when an alarm rings; else as [`lifecycle::aws_error::CODES`] say.
pub async fn run(
    clients: &Clients,
    baseline: &Baseline,
    input: Input,
) -> Result<Output, StepError> {
    let id = &input.deployment_id;
    if let Some(freeze) = parameter::read_freeze(&clients.ssm, baseline).await? {
        return Err(freeze.refuses(id));
    }
    let watch = input.watch.filter(|watch| watch.seconds > 0);
    let names = watch.map_or_else(Vec::new, |watch| watch.alarms);
    let mut reason = format!("deployments of {} are not frozen", baseline.environment);
    if !names.is_empty() {
        reason += &match monitoring::alarms(&clients.cloudwatch, &names).await {
            Ok(alarms) => {
                alarms.refuse_ringing(id, &input.accepted_alarms)?;
                ", and no further alarm rings".to_owned()
            }
            Err(error) => format!("; the alarms: {}", error.message),
        };
    }
    Ok(Output { reason })
}

#[cfg(test)]
mod tests {
    use super::*;
    use lifecycle::ErrorName;
    use memory_aws::MemoryAws;
    use serde_json::json;

    async fn check(aws: &MemoryAws) -> Result<Output, StepError> {
        check_with(aws, json!({"deploymentId": "test-20251027-122112Z"})).await
    }

    async fn check_with(aws: &MemoryAws, input: serde_json::Value) -> Result<Output, StepError> {
        let config = aws.config();
        let clients = Clients {
            cloudwatch: aws_sdk_cloudwatch::Client::new(&config),
            ssm: aws_sdk_ssm::Client::new(&config),
        };
        let input = serde_json::from_value(input).expect("an input");
        run(&clients, &Baseline::for_tests(), input).await
    }

    async fn check_alarms(aws: &MemoryAws, accepted: &[&str]) -> Result<Output, StepError> {
        let watch =
            json!({"seconds": 120, "alarms": ["errors", "latency"], "onBreach": "rollBack"});
        let id = "test-20251027-122112Z";
        let input = json!({"deploymentId": id, "watch": watch, "acceptedAlarms": accepted});
        check_with(aws, input).await
    }

    #[tokio::test]
    async fn a_deployment_is_held_to_an_alarm_that_began_to_ring_since() {
        let aws = MemoryAws::default();
        aws.with(|state| state.alarms.insert("latency".into(), "ALARM".into()));
        let error = check_alarms(&aws, &[]).await.unwrap_err();
        assert_eq!(error.name, ErrorName::InAlarm);
        for words in ["test-20251027-122112Z", "latency", "despiteAlarms"] {
            assert!(error.message.contains(words), "{error}");
        }
        assert!(!error.message.contains("errors"), "{error}");
        let output = check_alarms(&aws, &["latency"]).await.unwrap();
        assert!(
            output.reason.contains("no further alarm rings"),
            "{output:?}"
        );
    }

    #[tokio::test]
    async fn alarms_that_cannot_be_read_hold_nothing_back() {
        let aws = MemoryAws::default();
        aws.on("DescribeAlarms").fails("AccessDenied");
        let output = check_alarms(&aws, &[]).await.unwrap();
        assert!(output.reason.contains("AccessDenied"), "{output:?}");
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
