//! Which share of requests failed, by what the load balancer has published.
//!
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-cloudwatch-metrics.html>

use aws_sdk_cloudwatch::Client;
use aws_sdk_cloudwatch::primitives::DateTime;
use aws_sdk_cloudwatch::types::{
    Dimension, Metric, MetricDataQuery, MetricDataResult, MetricStat, StatusCode,
};
use lifecycle::aws_error::failed;
use lifecycle::{ErrorName, StepError, defaults, target_group};
use time::{Duration, UtcDateTime};

const NAMESPACE: &str = "AWS/ApplicationELB";
/// Elastic Load Balancing publishes once a minute.
const PERIOD: Duration = Duration::MINUTE;
/// How much time before the switch the load balancer's own errors are compared with.
const BEFORE: Duration = Duration::minutes(10);

/// Whole minutes since a switch, as far as CloudWatch has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    from: UtcDateTime,
    to: UtcDateTime,
    /// When the minute of the switch began: what is before it is none of the version's doing.
    switched: UtcDateTime,
}

impl Window {
    /// The minutes that began after the switch and are complete at the time `now`, if there is one.
    pub fn since(switched: UtcDateTime, now: UtcDateTime) -> Option<Self> {
        let minute = |time: UtcDateTime| {
            let seconds = time.unix_timestamp();
            UtcDateTime::from_unix_timestamp(seconds - seconds.rem_euclid(60)).ok()
        };
        let complete = Duration::seconds(defaults::METRICS_COMPLETE_AFTER_SECONDS.into());
        let from = minute(switched + PERIOD - Duration::SECOND)?;
        let to = minute(now - complete)?;
        let switched = minute(switched)?;
        (from < to).then_some(Window { from, to, switched })
    }

    /// How many minutes it has.
    pub fn minutes(&self) -> i64 {
        (self.to - self.from).whole_minutes()
    }
}

/// Requests, and how many of them failed.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Requests {
    /// How many there were.
    pub all: f64,
    /// How many of them failed.
    pub failed: f64,
}

impl Requests {
    /// The per cent of them that failed: 0 without any request.
    pub fn failed_percent(&self) -> f64 {
        match self.all > 0.0 {
            true => 100.0 * self.failed / self.all,
            false => 0.0,
        }
    }

    /// Whether so many failed that it is not chance: more than this share of at least so many, and more than twice the
    /// share of what they are compared with. Fewer than that say nothing, so they are compared with nothing.
    pub fn are_worse(&self, percent: u32, at_least: u32, than: &Requests) -> bool {
        let failed = self.failed_percent();
        self.all >= f64::from(at_least)
            && failed > f64::from(percent)
            && (than.all < f64::from(at_least) || failed > 2.0 * than.failed_percent())
    }
}

/// What failed in a window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Failures {
    /// Requests of the version: answers with 5xx, and connections that it did not accept.
    pub own: Requests,
    /// The same of the version that it replaced, in the same minutes.
    pub previous: Requests,
    /// All requests to the load balancer, and what it answered itself because a version did not answer, or not in time.
    pub load_balancer: Requests,
    /// The same in the ten minutes before the switch.
    pub load_balancer_before: Requests,
}

/// What is counted, by the ids of the queries.
const OF_A_GROUP: [(&str, &str, bool); 3] = [
    ("requests", "RequestCount", false),
    ("answers", "HTTPCode_Target_5XX_Count", true),
    ("connections", "TargetConnectionErrorCount", true),
];
const OF_THE_LOAD_BALANCER: [(&str, &str, bool); 3] = [
    ("requests", "RequestCount", false),
    ("bad", "HTTPCode_ELB_502_Count", true),
    ("late", "HTTPCode_ELB_504_Count", true),
];

/// Reads what failed of the version of a target group, of the one that it replaced, and of the load balancer as a whole.
///
/// # Errors
/// `Transient` when CloudWatch has only a part of it; else as [`lifecycle::aws_error::CODES`] say.
pub async fn failures(
    cloudwatch: &Client,
    load_balancer_arn: &str,
    target_group_arn: &str,
    previous_arn: Option<&str>,
    window: Window,
) -> Result<Failures, StepError> {
    let load_balancer = target_group::dimension_of_load_balancer(load_balancer_arn);
    let group = |arn: &str| {
        let group = ("TargetGroup", target_group::dimension(arn).to_owned());
        vec![group, ("LoadBalancer", load_balancer.to_owned())]
    };
    let mut sources = vec![("own", OF_A_GROUP, group(target_group_arn))];
    sources.extend(previous_arn.map(|arn| ("previous", OF_A_GROUP, group(arn))));
    let dimensions = vec![("LoadBalancer", load_balancer.to_owned())];
    sources.push(("all", OF_THE_LOAD_BALANCER, dimensions));
    let queries = sources.iter().flat_map(|(source, metrics, dimensions)| {
        metrics.map(|(id, name, _)| query(&format!("{source}_{id}"), name, dimensions))
    });
    let at = |time: UtcDateTime| DateTime::from_secs(time.unix_timestamp());
    let request = cloudwatch
        .get_metric_data()
        .set_metric_data_queries(Some(queries.collect()))
        .start_time(at(window.switched - BEFORE))
        .end_time(at(window.to));
    let mut pages = request.into_paginator().send();
    let mut results: Vec<MetricDataResult> = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| failed("read the metrics of the load balancer", error))?;
        results.extend(page.metric_data_results.unwrap_or_default());
    }
    refuse_incomplete(&results)?;
    let of = |source: &str, metrics: [(&str, &str, bool); 3], is_in: &dyn Fn(i64) -> bool| {
        let sum = |id: &str| sum_of(&results, &format!("{source}_{id}"), is_in);
        let mut requests = Requests::default();
        for (id, _, is_failure) in metrics {
            let count = if is_failure {
                &mut requests.failed
            } else {
                &mut requests.all
            };
            *count += sum(id);
        }
        requests
    };
    let from = window.from.unix_timestamp();
    let is_since = |second: i64| second >= from;
    let switched = window.switched.unix_timestamp();
    let is_before = |second: i64| second < switched;
    Ok(Failures {
        own: of("own", OF_A_GROUP, &is_since),
        previous: of("previous", OF_A_GROUP, &is_since),
        load_balancer: of("all", OF_THE_LOAD_BALANCER, &is_since),
        load_balancer_before: of("all", OF_THE_LOAD_BALANCER, &is_before),
    })
}

fn query(id: &str, metric: &str, dimensions: &[(&str, String)]) -> MetricDataQuery {
    let dimension =
        |(name, value): &(&str, String)| Dimension::builder().name(*name).value(value).build();
    let metric = Metric::builder()
        .namespace(NAMESPACE)
        .metric_name(metric)
        .set_dimensions(Some(dimensions.iter().map(dimension).collect()));
    let period = i32::try_from(PERIOD.whole_seconds()).unwrap_or(60);
    let statistic = MetricStat::builder()
        .metric(metric.build())
        .period(period)
        .stat("Sum");
    MetricDataQuery::builder()
        .id(id)
        .metric_stat(statistic.build())
        .build()
}

/// A part of a metric is no evidence.
fn refuse_incomplete(results: &[MetricDataResult]) -> Result<(), StepError> {
    let is_complete =
        |result: &&MetricDataResult| result.status_code() == Some(&StatusCode::Complete);
    let Some(incomplete) = results.iter().find(|result| !is_complete(result)) else {
        return Ok(());
    };
    let status = incomplete
        .status_code()
        .map_or("no status", StatusCode::as_str);
    Err(StepError::new(
        ErrorName::Transient,
        format!("could not read the metrics of the load balancer: CloudWatch answers {status}"),
    ))
}

/// The sum of a query's values at the chosen minutes. A metric that has not been published has no values.
fn sum_of(results: &[MetricDataResult], id: &str, is_in: &dyn Fn(i64) -> bool) -> f64 {
    let results = results.iter().filter(|result| result.id() == Some(id));
    let points = results.flat_map(|result| result.timestamps().iter().zip(result.values()));
    points
        .filter(|(time, _)| is_in(time.secs()))
        .map(|(_, value)| value)
        .sum()
}

#[cfg(test)]
mod tests;
