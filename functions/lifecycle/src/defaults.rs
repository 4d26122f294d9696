//! Every default in one place, with its reason.

use std::time::Duration;

/// Tasks of a deployment: one per availability zone of the baseline.
pub const DESIRED_COUNT: u32 = 2;
/// The maximum number of tasks of a deployment: Elastic Load Balancing's quota of targets per target group.
/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-limits.html>.
pub const MAX_TASKS: u32 = 1000;
/// Fargate CPU units: the smallest size there is.
pub const CPU: u32 = 256;
/// Memory in MiB: the least that Fargate offers with [`CPU`].
pub const MEMORY: u32 = 512;
/// The port that the application listens on and the security groups admit.
pub const PORT: u16 = 8000;
/// The name of the one container of a task.
pub const CONTAINER: &str = "app";

/// Environment variables that the task definition or the platform sets; a deployment's own
/// environment must not name them.
pub const RESERVED_VARIABLES: [&str; 4] = ["DEPLOYMENT_ID", "DRAIN_SECRET", "HOST", "PORT"];

/// The most that the wait for healthy tasks may take. The deploy machine has a day, which
/// leaves time for the undo.
pub const MAX_WAIT_SECONDS: u32 = 3600;

/// How long after RunTask ECS shows the task to everybody, with a margin.
pub const RELEASE_IS_SHOWN_WITHIN: time::Duration = time::Duration::minutes(2);

/// Seconds that a release may take, unless the settings say otherwise.
pub const RELEASE_TIMEOUT_SECONDS: u32 = 600;
/// How long after its time a release has stopped, unless nobody has asked ECS to stop it: the stop timeout, a poll of
/// the state machine with its retries, and some minutes.
pub const RELEASE_STOPS_WITHIN: time::Duration = time::Duration::minutes(10);
/// How long AWS shows a task that has stopped, "about an hour", less some minutes.
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DescribeTasks.html>
pub const STOPPED_TASKS_ARE_SHOWN: time::Duration = time::Duration::minutes(45);

/// Seconds for which a deployment is watched after the switch, unless the settings say otherwise: what a rollback for a
/// crash or for lost health needs, and short enough that a pipeline waits for it.
pub const WATCH_SECONDS: u32 = 120;
/// The most seconds of a watch. The deploy machine has a day, which other waits need as well.
pub const MAX_WATCH_SECONDS: u32 = 3600;
/// The least seconds of a watch that judges failed requests: the minutes of CloudWatch are complete two to three minutes
/// late.
pub const MIN_WATCH_SECONDS_WITH_ERRORS: u32 = 300;
/// How long after the switch a watch of so many seconds has ended, unless a rollback goes on: its own time, and some
/// minutes for the steps before it and for tries when AWS is slow.
pub fn watch_ends_within(seconds: u32) -> time::Duration {
    time::Duration::seconds(i64::from(seconds)) + time::Duration::minutes(5)
}
/// How many requests a version has to have answered before the share of those that failed says anything.
pub const FAILED_REQUESTS_AT_LEAST: u32 = 20;
/// How long after its end a minute of CloudWatch is complete. AWS promises nothing; load balancers' metrics are read with
/// two minutes by others, <https://github.com/Netflix/atlas/pull/1300>.
pub const METRICS_COMPLETE_AFTER_SECONDS: u32 = 180;
/// How many crashes of a version after the switch mean that it is bad: half of its tasks, and two at least, because a
/// single one may be chance.
pub fn crashes_mean_breach(desired_count: u32) -> usize {
    desired_count.div_ceil(2).clamp(2, 200) as usize
}
/// The status of the right answer to a smoke test, unless the settings say otherwise.
pub const SMOKE_STATUS: u32 = 200;
/// The time that one task has to answer a smoke test.
pub const SMOKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a run of smoke tests asks tasks before it gives up. Its function has 50 s, of which it reads rules and tasks
/// first.
pub const SMOKE_TESTS_END_AFTER: Duration = Duration::from_secs(30);
/// Seconds that an approval may take, unless the settings say otherwise.
pub const APPROVAL_TIMEOUT_SECONDS: u32 = 3600;
/// The most seconds that an approval may take: half a day, so that what is pushed in the evening can be approved in the
/// morning. The deploy machine has a day.
pub const MAX_APPROVAL_SECONDS: u32 = 43_200;

/// The path of the load balancer's health check.
pub const HEALTH_CHECK_PATH: &str = "/_health";
/// Seconds between two health checks of a target.
pub const HEALTH_CHECK_INTERVAL_SECONDS: i32 = 30;
/// Seconds after which a health check has failed. It is set because AWS's pages disagree on the default.
pub const HEALTH_CHECK_TIMEOUT_SECONDS: i32 = 5;
/// Passes after which an unhealthy target is healthy again.
pub const HEALTHY_THRESHOLD: i32 = 2;
/// Seconds that a candidate has to become healthy.
pub const HEALTH_TIMEOUT_SECONDS: u32 = 600;
/// Failures after which a target is unhealthy.
pub const UNHEALTHY_THRESHOLD: i32 = 3;
/// Seconds during which ECS does not stop a new task for failing its health checks, at least. If a candidate
/// has more time to become healthy, so have its tasks, or a slow application would never finish its start.
pub const HEALTH_CHECK_GRACE_PERIOD_SECONDS: u32 = 120;
/// The grace period of a service whose deployment has this time to become healthy, both in seconds.
pub fn grace_seconds(health_timeout: u32) -> u32 {
    health_timeout.max(HEALTH_CHECK_GRACE_PERIOD_SECONDS)
}
/// Seconds that requests in flight have to finish when a target is deregistered. A target without
/// connections is released at once, so this costs time only where it is needed.
pub const DEREGISTRATION_DELAY_SECONDS: u32 = 60;
/// Seconds between SIGTERM and SIGKILL; Fargate allows 120 at most.
pub const STOP_TIMEOUT_SECONDS: i32 = 60;

/// The buffer for log lines while CloudWatch Logs is slow. Lines that do not fit are dropped, so that logging
/// never blocks a request.
pub const LOG_BUFFER: &str = "25m";

/// Up to here, the priorities of listener rules are the operator's.
pub const OPERATORS_RULES_UP_TO: u32 = 98;
/// How many rules that stand behind those of the deployments are named. The data of a state has 256 KiB at most.
pub const MAX_WARNINGS: usize = 10;
/// Listener rules by header are numbered from here.
pub const HEADER_RULES_FROM: u32 = 100;
/// Listener rules by cookie are numbered from here, so that any header beats any cookie.
pub const COOKIE_RULES_FROM: u32 = 20_100;
/// The name of the header, and of the cookie, by which a request is pinned to a deployment.
pub const AFFINITY: &str = "X-Pulse-Render-Affinity";

/// How many failed tasks of a rollout mean that the next one will fail as well: half of the desired ones, within
/// the bounds of the circuit breaker of ECS. All tasks of a small service start in the same second, so that a
/// single cause can stop two of them.
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-circuit-breaker.html>.
pub fn failed_tasks_mean_failure(desired_count: u32) -> usize {
    desired_count.div_ceil(2).clamp(3, 200) as usize
}
/// Seconds within which AWS shows what was made a moment ago. A part that is not shown for longer is not there.
pub const SHOWN_WITHIN_SECONDS: u64 = 60;
/// The time within which ECS has stopped the tasks that a rollout replaces, unless they are protected: the
/// deregistration delay, the stop timeout, and a minute for ECS itself.
pub const REPLACED_TASKS_STOP_WITHIN: time::Duration =
    time::Duration::seconds(DEREGISTRATION_DELAY_SECONDS as i64 + STOP_TIMEOUT_SECONDS as i64 + 60);
/// How many of a failed container's last log lines are shown.
pub const LOG_LINES: i32 = 10;

/// Previous deployments that are kept warm: one is what an instant rollback needs.
pub const KEEP_PREVIOUS: u32 = 1;
/// Seconds from the start of draining after which a deployment is deleted even if it has sessions: a day,
/// so that a tab that stays open overnight is not cut off.
pub const DRAIN_DEADLINE_SECONDS: u32 = 86_400;
/// Seconds after a switch or a rollback before anything is drained: the load balancer applies rule changes
/// in batches, so new visitors reach the replaced deployment for some seconds more. Also how long a cleanup
/// keeps what was just created, because Step Functions lists executions late.
pub const SETTLE_SECONDS: u32 = 60;
/// The listener's answer before the first deployment, with status 503 (`infra/baseline.yaml`).
pub const NOTHING_DEPLOYED: &str = "Nothing is deployed here yet.";
/// How long a deletion by force waits for one task to stop before it lets all others stop together. A task needs
/// [`DEREGISTRATION_DELAY_SECONDS`] and [`STOP_TIMEOUT_SECONDS`]; one that is protected from scale-in never stops, and
/// ECS may not act on a lower count once the rules are gone.
pub const TASK_STOPS_WITHIN: time::Duration = time::Duration::minutes(10);
/// A switch that has looked at the listener and the tags longer ago than this looks again before it modifies
/// the listener. The look takes a fraction of a second, unless AWS is slow.
pub const LOOK_IS_FRESH: time::Duration = time::Duration::seconds(5);
/// How long after the time in a tag a switch that has not seen the tag may still modify the listener:
/// [`CALL_TIMEOUT`] until the tag was written, [`LOOK_IS_FRESH`] until the switch acts on its look, and
/// [`ATTEMPT_TIMEOUT`] for its one attempt to modify the listener. The rest is for clocks that differ. An eviction deletes a
/// rule likewise.
pub const SWITCH_IN_FLIGHT: time::Duration = time::Duration::seconds(30);
/// How long after the time in the ready tag a switch may still modify the listener: [`LOOK_IS_FRESH`] until it
/// acts on its look, and [`ATTEMPT_TIMEOUT`] for its one attempt. The rest is for clocks that differ.
pub const SWITCH_ANNOUNCED: time::Duration = time::Duration::seconds(15);
/// How long after the time in its tag an eviction may still delete a rule: its function is stopped after 30 s. The rest is
/// for clocks that differ.
pub const EVICTION_TIME: time::Duration = time::Duration::minutes(1);
/// A step that switches has ended this long after its first attempt began, or it was stopped: thirteen tries of a minute
/// at most, with the times between them, of which few use all of their time.
pub const SWITCHED_WITHIN: time::Duration = time::Duration::minutes(15);
/// How long a sweep takes at most from its tag of draining to its last look before it asks the tasks: the timeout of the
/// function.
pub const SWEEP_TIME: time::Duration = time::Duration::minutes(1);
/// How long a rollback's target is neither drained nor deleted: longer than a rollback takes, unless AWS fails
/// again and again. One that takes longer does not switch to what was drained since.
pub const RESTORE_TIME: time::Duration = time::Duration::hours(2);
/// How far ahead of a function's time a tag may be that another function wrote. Clocks differ by a fraction
/// of a second, but the plan of a cleanup has the time at which it began to read.
pub const CLOCK_TOLERANCE: time::Duration = time::Duration::minutes(5);
/// Sweeps closer together than this count as one. A step that is run again because its answer was lost must
/// not count its own sweep twice, and a session that reconnects is gone for some seconds.
pub const SWEEPS_APART: time::Duration = time::Duration::seconds(10);
/// The time that one task has to answer `POST /drain`. It only counts its sessions.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// How many tasks are asked at once: a function may have 1,024 open files, and sockets are files.
/// <https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>
pub const TASKS_ASKED_AT_ONCE: usize = 250;
/// How many tasks the answer of a sweep lists. The data of a state has 256 KiB at most, and a thousand tasks
/// would exceed that.
pub const MAX_REPORTED_TASKS: usize = 100;
/// The grace period of a service that drains, in seconds: the most that ECS accepts, so that a task
/// which answers 503 is not replaced by a fresh one that does not drain.
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_UpdateService.html>
pub const DRAINING_GRACE_PERIOD_SECONDS: i32 = i32::MAX;

/// The maximum number of deployments in a plan. Each takes up to a kilobyte of the 256 KiB that the data of a
/// state may have. A load balancer routes to 100 target groups, so only large numbers of parts that were
/// left behind wait for the next run.
pub const MAX_PLANNED: usize = 200;

/// How far in the future the time in a deployment id may lie, to allow for a clock that runs fast. A later
/// id would remain the newest, and no other deployment could go live until that time.
pub const CLOCK_SKEW: time::Duration = time::Duration::HOUR;

/// A step is stopped this long before Lambda's timeout would kill the function, so that the state machine
/// gets a `TransientError` with the reason, and the process stays for the next try.
pub const STOP_BEFORE_TIMEOUT: Duration = Duration::from_secs(1);
/// A call without an answer is tried again after this time. It is shorter than the functions' timeouts, so
/// that the function can report which call hung.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
/// The time for all attempts of one call.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// How often a function tries a call before the step fails and the state machine runs it again.
pub const CALL_ATTEMPTS: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollout_fails_after_half_of_its_tasks_within_the_bounds_of_ecs() {
        for (desired, failed) in [(1, 3), (6, 3), (7, 4), (100, 50), (400, 200), (1000, 200)] {
            assert_eq!(failed_tasks_mean_failure(desired), failed, "{desired}");
        }
    }

    #[test]
    fn a_replaced_task_has_time_to_finish_and_to_stop() {
        let longest = i64::from(DEREGISTRATION_DELAY_SECONDS) + i64::from(STOP_TIMEOUT_SECONDS);
        let stopped = REPLACED_TASKS_STOP_WITHIN.whole_seconds();
        assert!(longest < stopped && stopped < 2 * longest, "{stopped}");
    }

    #[test]
    fn a_deletion_waits_longer_than_a_switch_can_act_on_what_it_read() {
        let most = CALL_TIMEOUT + ATTEMPT_TIMEOUT + LOOK_IS_FRESH;
        assert!(SWITCH_IN_FLIGHT >= most + crate::tags::PRECISION);
    }

    #[test]
    fn a_drain_respects_an_announcement_for_as_long_as_the_switch_can_act_on_it() {
        let most = ATTEMPT_TIMEOUT + LOOK_IS_FRESH;
        assert!(SWITCH_ANNOUNCED >= most + crate::tags::PRECISION);
    }
}
