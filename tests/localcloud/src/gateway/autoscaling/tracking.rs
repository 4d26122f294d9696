//! What target tracking does to the desired count of a service, once a minute.
//!
//! <https://docs.aws.amazon.com/autoscaling/application/userguide/application-auto-scaling-target-tracking.html>
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-auto-scaling.html>

use std::ops::RangeInclusive;

/// Seconds between two evaluations: a load balancer reports its metrics once a minute.
pub const PERIOD_SECONDS: f64 = 60.0;

/// The number of tasks that a policy's metric asks for in a minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// The metric has no data. The policy scales nothing out, and no other one scales in.
    Unknown,
    Tasks(u32),
}

impl Demand {
    /// The demand of a target group's requests. "If there are no requests flowing through the load balancer or no data
    /// for a metric, the metric is not reported":
    /// <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-cloudwatch-metrics.html>
    pub fn of_requests(requests: u64, target_value: f64) -> Self {
        if requests == 0 {
            return Demand::Unknown;
        }
        let tasks = (requests as f64 / target_value).ceil();
        Demand::Tasks(tasks.min(f64::from(u32::MAX)) as u32)
    }
}

/// A policy in a minute.
#[derive(Debug, Clone, Copy)]
pub struct Wish {
    pub demand: Demand,
    pub disable_scale_in: bool,
    pub scale_in_cooldown_seconds: u32,
}

/// A service in a minute.
#[derive(Debug, Clone)]
pub struct Minute {
    pub desired: u32,
    /// From the minimum to the maximum capacity.
    pub bounds: RangeInclusive<u32>,
    /// Whether an ECS deployment runs: "Application Auto Scaling turns off scale-in processes while Amazon ECS
    /// deployments are in progress. However, scale-out processes continue to occur".
    pub rolling_out: bool,
    pub out_suspended: bool,
    pub in_suspended: bool,
    pub wishes: Vec<Wish>,
}

/// For how many minutes in a row fewer tasks would have been enough.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LowMinutes(u32);

impl LowMinutes {
    /// The new desired count, if it changes. A service scales out as soon as one policy wants it, and to all that it
    /// wants. It scales in only if all policies want it, by one task after each cooldown.
    pub fn after(&mut self, minute: &Minute) -> Option<u32> {
        let (minimum, maximum) = (*minute.bounds.start(), *minute.bounds.end());
        let demands = minute.wishes.iter().filter_map(|wish| match wish.demand {
            Demand::Tasks(tasks) => Some(tasks),
            Demand::Unknown => None,
        });
        let most = demands.max().unwrap_or_default();
        if most > minute.desired {
            *self = Self::default();
            let more = most.clamp(minimum, maximum);
            return (more > minute.desired && !minute.out_suspended).then_some(more);
        }
        let fewer_are_enough = minute
            .wishes
            .iter()
            .filter(|wish| !wish.disable_scale_in)
            .all(|wish| matches!(wish.demand, Demand::Tasks(tasks) if tasks < minute.desired));
        let cooldown = minute
            .wishes
            .iter()
            .filter(|wish| !wish.disable_scale_in)
            .map(|wish| wish.scale_in_cooldown_seconds)
            .max();
        let Some(cooldown) = cooldown.filter(|_| {
            fewer_are_enough
                && minute.desired > minimum
                && !minute.rolling_out
                && !minute.in_suspended
        }) else {
            *self = Self::default();
            return None;
        };
        self.0 += 1;
        if f64::from(self.0) * PERIOD_SECONDS < f64::from(cooldown) {
            return None;
        }
        *self = Self::default();
        Some((minute.desired - 1).clamp(minimum, maximum))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(demand: Demand) -> Wish {
        Wish {
            demand,
            disable_scale_in: false,
            scale_in_cooldown_seconds: 300,
        }
    }

    /// A service with two to six tasks, of which it has four.
    fn minute(demands: &[Demand]) -> Minute {
        Minute {
            desired: 4,
            bounds: 2..=6,
            rolling_out: false,
            out_suspended: false,
            in_suspended: false,
            wishes: demands.iter().copied().map(wish).collect(),
        }
    }

    /// The new counts of a number of equal minutes.
    fn counts(minute: &Minute, number: usize) -> Vec<Option<u32>> {
        let mut low = LowMinutes::default();
        (0..number).map(|_| low.after(minute)).collect()
    }

    #[test]
    fn requests_ask_for_enough_tasks_and_no_requests_are_no_data() {
        assert_eq!(Demand::of_requests(0, 100.0), Demand::Unknown);
        assert_eq!(Demand::of_requests(1, 100.0), Demand::Tasks(1));
        assert_eq!(Demand::of_requests(400, 100.0), Demand::Tasks(4));
        assert_eq!(Demand::of_requests(401, 100.0), Demand::Tasks(5));
        assert_eq!(Demand::of_requests(u64::MAX, 0.1), Demand::Tasks(u32::MAX));
    }

    #[test]
    fn it_scales_out_at_once_and_to_the_maximum_at_most() {
        assert_eq!(counts(&minute(&[Demand::Tasks(5)]), 1), [Some(5)]);
        assert_eq!(counts(&minute(&[Demand::Tasks(99)]), 1), [Some(6)]);
        let at_maximum = Minute {
            desired: 6,
            ..minute(&[Demand::Tasks(99)])
        };
        assert_eq!(counts(&at_maximum, 2), [None, None]);
    }

    #[test]
    fn it_scales_in_by_one_task_after_each_cooldown_and_to_the_minimum_at_most() {
        let minute = minute(&[Demand::Tasks(1)]);
        let step = [None, None, None, None, Some(3)];
        assert_eq!(counts(&minute, 10), [step, step].concat());
        let at_minimum = Minute {
            desired: 2,
            ..minute
        };
        assert_eq!(counts(&at_minimum, 10), [None; 10]);
    }

    #[test]
    fn outside_of_the_bounds_it_moves_to_the_nearer_one() {
        let below = Minute {
            desired: 0,
            ..minute(&[Demand::Tasks(1)])
        };
        assert_eq!(counts(&below, 1), [Some(2)]);
        let above = Minute {
            desired: 9,
            ..minute(&[Demand::Tasks(1)])
        };
        assert_eq!(counts(&above, 5)[4], Some(6));
    }

    #[test]
    fn each_minute_of_more_load_or_without_data_starts_the_cooldown_again() {
        for interruption in [Demand::Tasks(4), Demand::Tasks(5), Demand::Unknown] {
            let mut low = LowMinutes::default();
            for _ in 0..4 {
                assert_eq!(low.after(&minute(&[Demand::Tasks(1)])), None);
            }
            low.after(&minute(&[interruption]));
            for _ in 0..4 {
                assert_eq!(low.after(&minute(&[Demand::Tasks(1)])), None);
            }
            assert_eq!(low.after(&minute(&[Demand::Tasks(1)])), Some(3));
        }
    }

    #[test]
    fn without_data_nothing_scales() {
        assert_eq!(counts(&minute(&[Demand::Unknown]), 10), [None; 10]);
        assert_eq!(counts(&minute(&[]), 10), [None; 10]);
    }

    #[test]
    fn one_policy_is_enough_to_scale_out_and_all_are_needed_to_scale_in() {
        let (few, many) = (Demand::Tasks(1), Demand::Tasks(5));
        assert_eq!(counts(&minute(&[few, many]), 1), [Some(5)]);
        assert_eq!(counts(&minute(&[Demand::Unknown, many]), 1), [Some(5)]);
        assert_eq!(counts(&minute(&[few, Demand::Tasks(4)]), 10), [None; 10]);
        assert_eq!(counts(&minute(&[few, Demand::Unknown]), 10), [None; 10]);
        assert_eq!(counts(&minute(&[few, few]), 5)[4], Some(3));
    }

    #[test]
    fn a_policy_that_may_not_scale_in_neither_does_nor_hinders_others() {
        let without_scale_in = |demand| Wish {
            disable_scale_in: true,
            ..wish(demand)
        };
        let mut alone = minute(&[]);
        alone.wishes = vec![without_scale_in(Demand::Tasks(1))];
        assert_eq!(counts(&alone, 10), [None; 10]);
        let mut together = minute(&[Demand::Tasks(1)]);
        together.wishes.push(without_scale_in(Demand::Unknown));
        assert_eq!(counts(&together, 5)[4], Some(3));
    }

    #[test]
    fn a_deployment_of_the_service_stops_only_scaling_in() {
        let rolling_out = |demand| Minute {
            rolling_out: true,
            ..minute(&[demand])
        };
        assert_eq!(counts(&rolling_out(Demand::Tasks(1)), 10), [None; 10]);
        assert_eq!(counts(&rolling_out(Demand::Tasks(5)), 1), [Some(5)]);
    }

    #[test]
    fn each_direction_can_be_suspended() {
        let more = Minute {
            out_suspended: true,
            ..minute(&[Demand::Tasks(5)])
        };
        assert_eq!(counts(&more, 2), [None, None]);
        let fewer = Minute {
            in_suspended: true,
            ..minute(&[Demand::Tasks(1)])
        };
        assert_eq!(counts(&fewer, 10), [None; 10]);
        let other_way = Minute {
            out_suspended: true,
            ..minute(&[Demand::Tasks(1)])
        };
        assert_eq!(counts(&other_way, 5)[4], Some(3));
    }
}
