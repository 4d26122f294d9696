//! The state of alarms that the settings name.

use aws_sdk_cloudwatch::Client;
use aws_sdk_cloudwatch::primitives::DateTime;
use aws_sdk_cloudwatch::types::{AlarmType, StateValue};
use lifecycle::aws_error::failed;
use lifecycle::{DeploymentId, ErrorName, StepError};
use time::UtcDateTime;

/// The most names that DescribeAlarms takes:
/// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_DescribeAlarms.html>.
const NAMES_PER_CALL: usize = 100;

/// What is to be said of the named alarms. Those that are `OK`, or for which there is not enough data, are not listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Alarms {
    /// Those in the state `ALARM`, in the order of their names.
    pub ringing: Vec<String>,
    /// Since when each of them has been in it, in the same order, as far as CloudWatch says.
    since: Vec<Option<UtcDateTime>>,
    /// Those that do not exist, in the order in which they were named.
    pub missing: Vec<String>,
}

impl Alarms {
    /// Refuses to make the deployment live while an alarm rings, other than those that its input accepts.
    ///
    /// # Errors
    /// `InAlarm`, with the names.
    pub fn refuse_ringing(
        &self,
        deployment: &DeploymentId,
        accepted: &[String],
    ) -> Result<(), StepError> {
        let ringing = self.ringing_besides(accepted);
        if ringing.is_empty() {
            return Ok(());
        }
        Err(StepError::new(
            ErrorName::InAlarm,
            format!(
                "{deployment} does not go live while it would be watched by alarms that ring already: {}; wait until they \
                 are OK, or, if this deployment is the cure, start it with \"despiteAlarms\": true",
                ringing.join(", ")
            ),
        ))
    }

    /// Those that began to ring at that time or later, and those that rang before. One of which CloudWatch does not say
    /// when counts as one that began later.
    pub fn ringing_since(
        &self,
        time: UtcDateTime,
    ) -> (impl Iterator<Item = &String>, impl Iterator<Item = &String>) {
        let is_since = move |since: &Option<UtcDateTime>| since.is_none_or(|since| since >= time);
        let ringing = || self.ringing.iter().zip(&self.since);
        let later = ringing().filter(move |(_, since)| is_since(since));
        let before = ringing().filter(move |(_, since)| !is_since(since));
        (later.map(|(name, _)| name), before.map(|(name, _)| name))
    }

    /// Those that ring, but for these.
    pub fn ringing_besides(&self, accepted: &[String]) -> Vec<String> {
        let ringing = self.ringing.iter();
        ringing
            .filter(|name| !accepted.contains(name))
            .cloned()
            .collect()
    }
}

/// Reads the state of these alarms, metric alarms and composite ones.
///
/// # Errors
/// As [`lifecycle::aws_error::CODES`] say.
pub async fn alarms(cloudwatch: &Client, names: &[String]) -> Result<Alarms, StepError> {
    let mut found: Vec<(String, Option<StateValue>, Option<DateTime>)> = Vec::new();
    for batch in names.chunks(NAMES_PER_CALL) {
        let request = cloudwatch
            .describe_alarms()
            .set_alarm_names(Some(batch.to_vec()))
            // Without them, only metric alarms are listed.
            .alarm_types(AlarmType::MetricAlarm)
            .alarm_types(AlarmType::CompositeAlarm)
            .max_records(NAMES_PER_CALL as i32);
        let mut pages = request.into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| failed("read the alarms", error))?;
            let metric = page.metric_alarms.unwrap_or_default().into_iter();
            let metric = metric.map(|alarm| {
                (
                    alarm.alarm_name,
                    alarm.state_value,
                    alarm.state_transitioned_timestamp,
                )
            });
            let composite = page.composite_alarms.unwrap_or_default().into_iter();
            let composite = composite.map(|alarm| {
                (
                    alarm.alarm_name,
                    alarm.state_value,
                    alarm.state_transitioned_timestamp,
                )
            });
            let named = metric.chain(composite);
            found.extend(named.filter_map(|(name, state, since)| Some((name?, state, since))));
        }
    }
    found.sort_by(|one, other| one.0.cmp(&other.0));
    let ringing = found
        .iter()
        .filter(|(_, state, _)| *state == Some(StateValue::Alarm));
    let at = |since: DateTime| UtcDateTime::from_unix_timestamp(since.secs()).ok();
    let (ringing, since) = ringing
        .map(|(name, _, since)| (name.clone(), since.and_then(at)))
        .unzip();
    let is_missing = |name: &&String| !found.iter().any(|(found, ..)| found == *name);
    Ok(Alarms {
        ringing,
        since,
        missing: names.iter().filter(is_missing).cloned().collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use memory_aws::MemoryAws;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    async fn read(aws: &MemoryAws, asked: &[&str]) -> Result<Alarms, StepError> {
        alarms(&Client::new(&aws.config()), &names(asked)).await
    }

    fn with(alarms: &[(&str, &str)]) -> MemoryAws {
        let aws = MemoryAws::default();
        aws.with(|state| {
            for (name, value) in alarms {
                state.alarms.insert((*name).to_owned(), (*value).to_owned());
            }
        });
        aws
    }

    #[tokio::test]
    async fn those_that_ring_and_those_that_do_not_exist_are_listed() {
        let aws = with(&[
            ("latency", "ALARM"),
            ("errors", "OK"),
            ("queue", "INSUFFICIENT_DATA"),
            ("composite/all", "ALARM"),
            ("another", "ALARM"),
        ]);
        let asked = ["latency", "errors", "queue", "gone", "composite/all"];
        let alarms = read(&aws, &asked).await.unwrap();
        assert_eq!(alarms.ringing, ["composite/all", "latency"]);
        assert_eq!(alarms.missing, ["gone"]);
    }

    #[tokio::test]
    async fn more_than_one_call_takes_are_asked_for_in_several_ones() {
        let all: Vec<String> = (0..150).map(|number| format!("alarm-{number}")).collect();
        let aws = MemoryAws::default();
        aws.with(|state| {
            let alarms = all.iter().map(|name| (name.clone(), "ALARM".to_owned()));
            state.alarms.extend(alarms);
        });
        let found = alarms(&Client::new(&aws.config()), &all).await.unwrap();
        assert_eq!((found.ringing.len(), found.missing.len()), (150, 0));
        assert_eq!(aws.count("DescribeAlarms"), 2);
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_an_error_and_not_an_absent_alarm() {
        for (code, name) in [
            ("ThrottlingException", ErrorName::Transient),
            ("AccessDenied", ErrorName::AccessDenied),
        ] {
            let aws = with(&[("errors", "OK")]);
            aws.on("DescribeAlarms").fails(code);
            assert_eq!(read(&aws, &["errors"]).await.unwrap_err().name, name);
        }
    }
}
