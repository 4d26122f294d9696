//! Publishes what the load balancers count to CloudWatch, which is in MiniStack.

use std::time::{Duration, SystemTime};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::{task::JoinHandle, time::sleep};

use crate::{
    load_balancer::metrics::{Datapoint, Metrics},
    ministack::Client,
};

/// How often it looks for minutes to publish, and how soon it tries again after a failure.
const INTERVAL: Duration = Duration::from_millis(500);

/// How long after the end of a minute its metrics can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicationDelay(pub Duration);

impl Default for PublicationDelay {
    /// AWS documents no time, and is observed to take two to three minutes. Here it is shorter so that tests wait for
    /// minutes, which the time scale does not change, and not much longer.
    fn default() -> Self {
        Self(Duration::from_secs(20))
    }
}

/// Publishes each minute after the delay, until the task is aborted.
pub fn publish(client: Client, metrics: Metrics, delay: PublicationDelay) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            let datapoints = metrics.take(SystemTime::now(), delay.0);
            // In one call, so that nobody reads a part of a minute.
            while !datapoints.is_empty() && !put(&client, &datapoints).await {
                sleep(INTERVAL).await;
            }
            sleep(INTERVAL).await;
        }
    })
}

/// Whether MiniStack has taken the datapoints.
async fn put(client: &Client, datapoints: &[Datapoint]) -> bool {
    let mut parameters = vec![
        ("Action".to_owned(), "PutMetricData".to_owned()),
        ("Namespace".to_owned(), "AWS/ApplicationELB".to_owned()),
    ];
    for (number, datapoint) in (1..).zip(datapoints) {
        let mut member = |name: &str, value: String| {
            parameters.push((format!("MetricData.member.{number}.{name}"), value));
        };
        let metric = &datapoint.metric;
        let timestamp = i64::try_from(datapoint.timestamp).unwrap_or_default();
        let timestamp = OffsetDateTime::from_unix_timestamp(timestamp)
            .unwrap_or(OffsetDateTime::UNIX_EPOCH)
            .format(&Rfc3339);
        member("MetricName", metric.name.to_owned());
        member("Timestamp", timestamp.unwrap_or_default());
        member("Unit", "Count".to_owned());
        member("Dimensions.member.1.Name", "LoadBalancer".to_owned());
        member("Dimensions.member.1.Value", metric.load_balancer.clone());
        if let Some(group) = &metric.target_group {
            member("Dimensions.member.2.Name", "TargetGroup".to_owned());
            member("Dimensions.member.2.Value", group.clone());
        }
        // "The most useful statistic is Sum. Note that Minimum, Maximum, and Average all return 1."
        let count = datapoint.count.to_string();
        for (statistic, value) in [
            ("SampleCount", count.as_str()),
            ("Sum", &count),
            ("Minimum", "1"),
            ("Maximum", "1"),
        ] {
            member(&format!("StatisticValues.{statistic}"), value.to_owned());
        }
    }
    let parameters: Vec<_> = parameters
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let accepted = client.query("monitoring", "2010-08-01", &parameters).await;
    if let Err(error) = &accepted {
        tracing::warn!("could not publish metrics: {error}");
    }
    accepted.is_ok()
}
