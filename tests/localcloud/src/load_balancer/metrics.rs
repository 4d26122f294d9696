//! Counts requests for CloudWatch, by minute.
//!
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-cloudwatch-metrics.html>

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The counts of all load balancers. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Metrics(Arc<Mutex<BTreeMap<u64, Counts>>>);

/// The counts of a minute. What did not happen is not in it.
type Counts = BTreeMap<Metric, u64>;

/// A metric of a load balancer, or of one of its target groups.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Metric {
    /// The name in the namespace `AWS/ApplicationELB`.
    pub name: &'static str,
    /// The dimension `LoadBalancer`, `app/<name>/<id>`.
    pub load_balancer: String,
    /// The dimension `TargetGroup`, `targetgroup/<name>/<id>`. Absent for the load balancer as a whole.
    pub target_group: Option<String>,
}

/// What happened in a minute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datapoint {
    /// What is counted.
    pub metric: Metric,
    /// The beginning of the minute, in seconds since 1970 in UTC.
    pub timestamp: u64,
    /// At least 1.
    pub count: u64,
}

/// A request, which is counted when this is dropped, also if its client goes away before it is answered.
pub struct Counted {
    metrics: Metrics,
    load_balancer: String,
    target_group: Option<String>,
    /// Who answered the request.
    pub answered: Answered,
}

/// Who answered a request.
#[derive(Debug, Clone, Copy, Default)]
pub enum Answered {
    /// The client did not wait for the answer.
    #[default]
    Nobody,
    /// The target, with this status.
    ByTarget(u16),
    /// The load balancer itself, with this status.
    ByLoadBalancer(u16),
    /// The load balancer, with this status, because it could not connect to the target.
    WithoutConnection(u16),
}

impl Metrics {
    /// A request to a load balancer, given by its ARN. The ARN of the target group is given if a target was chosen.
    pub fn request(&self, load_balancer_arn: &str, target_group_arn: Option<&str>) -> Counted {
        let resource = |arn: &str| arn.rsplit(':').next().unwrap_or_default().to_owned();
        let load_balancer = resource(load_balancer_arn);
        Counted {
            metrics: self.clone(),
            load_balancer: match load_balancer.strip_prefix("loadbalancer/") {
                Some(dimension) => dimension.to_owned(),
                None => load_balancer,
            },
            target_group: target_group_arn.map(resource),
            answered: Answered::Nobody,
        }
    }

    /// Takes out the counts of the minutes that ended at least so long before `now`.
    pub fn take(&self, now: SystemTime, delay: Duration) -> Vec<Datapoint> {
        let mut minutes = self.minutes();
        let current = minute(now.checked_sub(delay).unwrap_or(UNIX_EPOCH));
        let later = minutes.split_off(&current);
        let ended = std::mem::replace(&mut *minutes, later);
        let datapoints = |(minute, counts): (u64, Counts)| {
            counts.into_iter().map(move |(metric, count)| Datapoint {
                metric,
                timestamp: minute * 60,
                count,
            })
        };
        ended.into_iter().flat_map(datapoints).collect()
    }

    fn count(&self, now: SystemTime, request: &Counted) {
        let mut minutes = self.minutes();
        let counts = minutes.entry(minute(now)).or_default();
        let mut count = |name, target_group: Option<&String>| {
            let metric = Metric {
                name,
                load_balancer: request.load_balancer.clone(),
                target_group: target_group.cloned(),
            };
            *counts.entry(metric).or_default() += 1;
        };
        let group = request.target_group.as_ref();
        if group.is_some() {
            count("RequestCount", None);
            count("RequestCount", group);
        }
        let own = match request.answered {
            Answered::Nobody => return,
            Answered::ByTarget(status) => {
                if status >= 500 {
                    count("HTTPCode_Target_5XX_Count", None);
                    count("HTTPCode_Target_5XX_Count", group);
                }
                return;
            }
            Answered::ByLoadBalancer(status) => status,
            Answered::WithoutConnection(status) => {
                count("TargetConnectionErrorCount", None);
                count("TargetConnectionErrorCount", group);
                status
            }
        };
        // AWS counts these for no target group.
        if own >= 500 {
            count("HTTPCode_ELB_5XX_Count", None);
        }
        match own {
            500 => count("HTTPCode_ELB_500_Count", None),
            502 => count("HTTPCode_ELB_502_Count", None),
            503 => count("HTTPCode_ELB_503_Count", None),
            504 => count("HTTPCode_ELB_504_Count", None),
            _ => {}
        }
    }

    fn minutes(&self) -> MutexGuard<'_, BTreeMap<u64, Counts>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.metrics.count(SystemTime::now(), self);
    }
}

/// The number of the minute since 1970.
fn minute(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs() / 60
}

#[cfg(test)]
mod tests {
    use super::*;

    const BALANCER: &str =
        "arn:aws:elasticloadbalancing:us-east-1:000000000000:loadbalancer/app/test-alb/1a";
    const GROUP: &str = "arn:aws:elasticloadbalancing:us-east-1:000000000000:targetgroup/test-a/2b";

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// Counts a request that ends at this second. What the drop counts is in the present.
    fn count(metrics: &Metrics, seconds: u64, group: Option<&str>, answered: Answered) {
        let mut request = Metrics::default().request(BALANCER, group);
        request.answered = answered;
        metrics.count(at(seconds), &request);
    }

    /// The names and counts of the datapoints of the load balancer, or of its group.
    fn counts(datapoints: &[Datapoint], of_group: bool) -> Vec<(&'static str, u64)> {
        datapoints
            .iter()
            .filter(|datapoint| {
                let Metric {
                    load_balancer,
                    target_group,
                    ..
                } = &datapoint.metric;
                assert_eq!(load_balancer, "app/test-alb/1a");
                assert!(matches!(
                    target_group.as_deref(),
                    None | Some("targetgroup/test-a/2b")
                ));
                target_group.is_some() == of_group
            })
            .map(|datapoint| (datapoint.metric.name, datapoint.count))
            .collect()
    }

    #[test]
    fn what_the_load_balancer_answers_itself_counts_for_no_group() {
        let metrics = Metrics::default();
        let group = Some(GROUP);
        for answered in [
            Answered::Nobody,
            Answered::ByTarget(200),
            Answered::ByTarget(404),
            Answered::ByTarget(500),
            Answered::ByTarget(599),
            Answered::ByLoadBalancer(400),
            Answered::ByLoadBalancer(502),
            Answered::ByLoadBalancer(504),
            Answered::WithoutConnection(502),
        ] {
            count(&metrics, 60, group, answered);
        }
        count(&metrics, 60, None, Answered::ByLoadBalancer(503));
        count(&metrics, 60, None, Answered::ByLoadBalancer(301));
        let all = metrics.take(at(120), Duration::ZERO);
        let of_group = [
            ("HTTPCode_Target_5XX_Count", 2),
            ("RequestCount", 9),
            ("TargetConnectionErrorCount", 1),
        ];
        assert_eq!(counts(&all, true), of_group);
        let own = [
            ("HTTPCode_ELB_502_Count", 2),
            ("HTTPCode_ELB_503_Count", 1),
            ("HTTPCode_ELB_504_Count", 1),
            ("HTTPCode_ELB_5XX_Count", 4),
        ];
        assert_eq!(counts(&all, false), [&own[..], &of_group].concat());
    }

    #[test]
    fn a_minute_is_taken_once_when_its_delay_is_over() {
        let metrics = Metrics::default();
        for second in [60, 119, 120] {
            count(&metrics, second, Some(GROUP), Answered::ByTarget(200));
        }
        let delay = Duration::from_secs(20);
        assert_eq!(metrics.take(at(139), delay), []);
        let first = metrics.take(at(140), delay);
        assert_eq!(counts(&first, true), [("RequestCount", 2)]);
        assert!(first.iter().all(|datapoint| datapoint.timestamp == 60));
        assert_eq!(metrics.take(at(199), delay), []);
        let second = metrics.take(at(200), delay);
        assert_eq!(counts(&second, true), [("RequestCount", 1)]);
        assert!(second.iter().all(|datapoint| datapoint.timestamp == 120));
    }
}
