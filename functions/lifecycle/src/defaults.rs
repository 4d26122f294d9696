//! Every default in one place, with its reason.

use std::time::Duration;

/// Tasks of a deployment: one per availability zone of the baseline.
pub const DESIRED_COUNT: u32 = 2;
/// The most tasks of a deployment, which are ELB's targets per target group:
/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-limits.html>.
pub const MAX_TASKS: u32 = 1000;
/// Fargate CPU units: the smallest size there is.
pub const CPU: u32 = 256;
/// Memory in MiB: the least that goes with [`CPU`].
pub const MEMORY: u32 = 512;
/// The port that the application listens on and the security groups admit.
pub const PORT: u16 = 8000;
/// The name of the one container of a task.
pub const CONTAINER: &str = "app";

/// Environment variables that the task definition or the platform sets; a deployment's own
/// environment must not name them.
pub const RESERVED_VARIABLES: [&str; 4] = ["DEPLOYMENT_ID", "DRAIN_SECRET", "HOST", "PORT"];

/// What the load balancer asks for to see whether a task is healthy.
pub const HEALTH_CHECK_PATH: &str = "/_health";
/// Seconds between two health checks of a target.
pub const HEALTH_CHECK_INTERVAL_SECONDS: i32 = 30;
/// Seconds after which a check counts as failed; AWS's own pages disagree on the default, so it is set.
pub const HEALTH_CHECK_TIMEOUT_SECONDS: i32 = 5;
/// Passes after which an unhealthy target is healthy again.
pub const HEALTHY_THRESHOLD: i32 = 2;
/// Failures after which a target is unhealthy.
pub const UNHEALTHY_THRESHOLD: i32 = 3;
/// Seconds during which ECS does not stop a new task for failing health checks: an application may
/// take that long to start.
pub const HEALTH_CHECK_GRACE_PERIOD_SECONDS: i32 = 120;
/// Seconds that requests in flight get to finish when a target is deregistered. A target without
/// connections is released at once, so this costs time only where it is needed.
pub const DEREGISTRATION_DELAY_SECONDS: u32 = 60;
/// Seconds between SIGTERM and SIGKILL; Fargate allows 120 at most.
pub const STOP_TIMEOUT_SECONDS: i32 = 60;

/// Log lines held back while CloudWatch Logs is slow to take them; beyond that lines are dropped, so
/// that logging never blocks a request.
pub const LOG_BUFFER: &str = "25m";

/// Listener rules by header are numbered from here.
pub const HEADER_RULES_FROM: u32 = 100;
/// Listener rules by cookie are numbered from here, so that any header beats any cookie.
pub const COOKIE_RULES_FROM: u32 = 20_100;
/// The header, and the cookie of the same name, by which a request is pinned to a deployment.
pub const AFFINITY: &str = "X-Pulse-Render-Affinity";

/// How many stopped tasks of a candidate mean that the next one will stop as well. One may be bad
/// luck with a host; two are the image or its configuration.
pub const FAILED_TASKS_MEAN_FAILURE: usize = 2;
/// How many of a failed container's last log lines are shown.
pub const LOG_LINES: i32 = 10;

/// Previous deployments that are kept warm: one is what an instant rollback needs.
pub const KEEP_PREVIOUS: u32 = 1;
/// Seconds from the start of draining after which a deployment is deleted although somebody is on
/// it: a day, so that a tab left open overnight is not cut off.
pub const DRAIN_DEADLINE_SECONDS: u32 = 86_400;
/// Seconds after a switch or a rollback before anything is drained: the load balancer applies rule
/// changes in batches, so new visitors reach the deployment that was left for some seconds more. Also
/// how long cleanup leaves alone what was just made, since Step Functions lists executions late.
pub const SETTLE_SECONDS: u32 = 60;
/// What the listener answers, with status 503, before the first deployment (`infra/baseline.yaml`).
pub const NOTHING_DEPLOYED: &str = "Nothing is deployed here yet.";
/// How long the deletion of a candidate that is ready waits for switches that read its tags before they
/// said so. A switch goes on within a second; this allows for calls of it that are tried again.
pub const SWITCH_IN_FLIGHT: time::Duration = time::Duration::seconds(10);
/// How long a deployment that is rolled back to is neither drained nor deleted: as long as the
/// rollback machine may run.
pub const RESTORE_TIME: time::Duration = time::Duration::hours(2);
/// How far the clocks of two functions may differ. Lambda's hosts keep theirs within a fraction of a
/// second.
pub const CLOCK_TOLERANCE: time::Duration = time::Duration::minutes(1);
/// Sweeps closer together than this count as one. A step that is run again because its answer was
/// lost must not count its own sweep twice, and a session that reconnects is away for some seconds.
pub const SWEEPS_APART: time::Duration = time::Duration::seconds(10);
/// The time one task has to answer `POST /drain`; it only counts its sessions.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// How many tasks are asked at once: a function may have 1,024 files open, and sockets are files.
/// <https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>
pub const TASKS_ASKED_AT_ONCE: usize = 250;
/// How many tasks the answer of a sweep tells of one by one. A state machine takes 256 KiB as the
/// data of a state, and a thousand tasks would be more.
pub const MAX_REPORTED_TASKS: usize = 100;
/// The grace period of a service that drains, in seconds: the most that ECS takes, so that a task
/// which answers 503 is not replaced by a fresh one that does not drain.
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_UpdateService.html>
pub const DRAINING_GRACE_PERIOD_SECONDS: i32 = i32::MAX;

/// The most deployments that one cleanup plans for. Each takes up to a kilobyte of the 256 KiB that a
/// state machine takes as the data of a state. A load balancer routes to 100 target groups, so only
/// what was left behind, in large numbers, ever waits for the next run.
pub const MAX_PLANNED: usize = 200;

/// A deployment's id may lie this far in the future, for a clock that runs fast. Beyond that it would
/// stay the newest, and nothing else could go live until then.
pub const CLOCK_SKEW: time::Duration = time::Duration::hours(24);

/// A step is stopped this long before Lambda's timeout would kill the function, so that the state
/// machine is told `TransientError` and why, and the process stays for the next try.
pub const STOP_BEFORE_TIMEOUT: Duration = Duration::from_secs(1);
/// A call that has no answer after this time is tried again. Shorter than the functions' timeouts,
/// so that the function, not Lambda, says what hung.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
/// All attempts of one call together.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// Attempts of one call inside a function; beyond that the state machine retries the step.
pub const CALL_ATTEMPTS: u32 = 3;
