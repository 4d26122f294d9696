//! The service scheduler, which keeps the desired number of tasks of each service running.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs_services.html>

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backends::Health;
use super::model::{
    Deployment, RolloutState, Service, ServiceStatus, State, StopCode, TargetState, Task,
    TaskStatus, Timestamp,
};
use super::rules::{circuit_breaker, restart_throttle};
use super::shared::Shared;
use super::task_life;
use crate::time_scale::TimeScale;

/// Seconds on AWS between two reconciliations.
const RECONCILE_INTERVAL: f64 = 1.0;

/// How many seconds on AWS stopped tasks are kept: "Currently, stopped tasks appear in the returned results
/// for at least one hour."
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DescribeTasks.html>
const STOPPED_TASKS_ARE_KEPT: f64 = 3600.0;

/// How many seconds on AWS the client token of a RunTask request is valid at most. It is forgotten with the last
/// of the tasks, which is an hour after that task has stopped.
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/ECS_Idempotency.html>
const CLIENT_TOKENS_ARE_KEPT: f64 = 24.0 * 3600.0;

/// Reconciles all services until it is aborted.
pub async fn run(shared: Arc<Shared>, time_scale: TimeScale) {
    loop {
        let pause = time_scale
            .seconds(RECONCILE_INTERVAL)
            .max(Duration::from_millis(20));
        let _ = tokio::time::timeout(pause, shared.wake.notified()).await;
        let services: Vec<String> = {
            let state = shared.state();
            let services = state.services.values();
            // INACTIVE services can still be described, but need no reconciliation.
            let live = services.filter(|service| service.status != ServiceStatus::Inactive);
            live.map(Service::arn).collect()
        };
        for arn in services {
            for task_arn in reconcile_service(&shared, &arn, time_scale) {
                tokio::spawn(task_life::live(Arc::clone(&shared), task_arn));
            }
        }
        forget(&mut shared.state(), time_scale, Timestamp::now());
        shared.rounds.send_modify(|rounds| *rounds += 1);
    }
}

fn reconcile_service(shared: &Shared, service_arn: &str, time_scale: TimeScale) -> Vec<String> {
    let mut state = shared.state();
    let health = |group: &str| shared.backends.health(group);
    reconcile(&mut state, service_arn, &health, time_scale, Instant::now())
}

/// Reconciles a service once: records health and failures, and starts and stops tasks. Returns the ARNs
/// of the new tasks.
pub fn reconcile(
    state: &mut State,
    service_arn: &str,
    health: &dyn Fn(&str) -> Vec<Health>,
    time_scale: TimeScale,
    now: Instant,
) -> Vec<String> {
    // Removed for now, so that the service and its tasks can be changed together.
    let Some(mut service) = state.services.remove(service_arn) else {
        return Vec::new();
    };
    let mut started = Vec::new();
    {
        let mut tasks: Vec<&mut Task> = state
            .tasks
            .values_mut()
            .filter(|task| task.is_of(service_arn))
            .collect();
        record_health(&mut service, &mut tasks, health, time_scale, now);
        record_failures(&mut service, &mut tasks, time_scale, now);
        match service.status {
            ServiceStatus::Inactive => {}
            ServiceStatus::Draining => drain(&mut service, &mut tasks),
            ServiceStatus::Active => {
                apply_circuit_breaker(&mut service);
                started = start(&mut service, &tasks, now);
                scale_in(&mut service, &mut tasks);
                replace_old(&mut service, &mut tasks);
                complete(&mut service, &tasks);
            }
        }
    }
    let arns = started.iter().map(Task::arn).collect();
    for task in started {
        state.tasks.insert(task.arn(), task);
    }
    state.services.insert(service_arn.to_owned(), service);
    arns
}

/// Records the health of the tasks, and stops those that are unhealthy after the grace period.
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/troubleshoot-service-load-balancers.html>
fn record_health(
    service: &mut Service,
    tasks: &mut [&mut Task],
    health: &dyn Fn(&str) -> Vec<Health>,
    time_scale: TimeScale,
    now: Instant,
) {
    let targets: Vec<(String, u16)> = service
        .target_groups()
        .map(|(group, port)| (group.to_owned(), port))
        .collect();
    let reports: Vec<(String, u16, Vec<Health>)> = targets
        .into_iter()
        .map(|(group, port)| {
            let report = health(&group);
            (group, port, report)
        })
        .collect();
    let grace = time_scale.seconds(f64::from(service.grace_seconds));
    for task in tasks
        .iter_mut()
        .filter(|task| task.wanted() && task.status == TaskStatus::Running)
    {
        let (state, group) = target_state(task, &reports);
        task.target = state;
        match task.target.clone() {
            TargetState::Unknown => {}
            TargetState::Healthy => {
                if !task.was_healthy {
                    task.was_healthy = true;
                    if let Some(deployment) = deployment_of(service, task) {
                        deployment.failed_tasks = 0;
                    }
                }
            }
            TargetState::Unhealthy(reason) => {
                let in_grace_period = task.running_since.is_some_and(|since| now < since + grace);
                if in_grace_period {
                    continue;
                }
                let port = reports.first().map_or(0, |(_, port, _)| *port);
                let name = service.name.clone();
                service.event(format!(
                    "(service {name}) (port {port}) is unhealthy in (target-group {group}) due to \
                     (reason {reason})."
                ));
                service.event(format!(
                    "(service {name}) has stopped 1 running tasks: (task {}).",
                    task.id
                ));
                task.request_stop(
                    StopCode::ServiceSchedulerInitiated,
                    format!("Task failed ELB health checks in (target-group {group})"),
                );
                if let Some(deployment) = deployment_of(service, task) {
                    deployment.failed_tasks += 1;
                }
                task.accounted = true;
            }
        }
    }
    // The throttle ends when a task runs.
    for task in tasks
        .iter()
        .filter(|task| task.status == TaskStatus::Running)
    {
        if let Some(deployment) = deployment_of(service, task) {
            deployment.start_failures = 0;
            deployment.not_before = None;
        }
    }
}

/// The worst state of a task in its target groups, and the group that reports it.
fn target_state(task: &Task, reports: &[(String, u16, Vec<Health>)]) -> (TargetState, String) {
    let mut result = (TargetState::Healthy, String::new());
    for (group, port, report) in reports {
        let target = report
            .iter()
            .find(|target| Some(target.ip) == task.ip() && target.port == *port);
        match target.map(|target| target.state.as_str()) {
            Some("healthy") => {}
            Some("unhealthy") => {
                let reason = target
                    .and_then(|target| target.description.clone())
                    .unwrap_or_else(|| "Health checks failed".to_owned());
                return (TargetState::Unhealthy(reason), group.clone());
            }
            _ => result = (TargetState::Unknown, group.clone()),
        }
    }
    result
}

fn deployment_of<'a>(service: &'a mut Service, task: &Task) -> Option<&'a mut Deployment> {
    service
        .deployments
        .iter_mut()
        .find(|deployment| deployment.id == task.deployment_id())
}

/// Counts tasks that ended by themselves before their target was healthy or before they ran.
fn record_failures(
    service: &mut Service,
    tasks: &mut [&mut Task],
    time_scale: TimeScale,
    now: Instant,
) {
    let name = service.name.clone();
    let mut throttled = false;
    for task in tasks.iter_mut().filter(|task| !task.accounted) {
        let Some(stop) = &task.stop else { continue };
        let by_itself = matches!(
            stop.code,
            StopCode::TaskFailedToStart | StopCode::EssentialContainerExited
        );
        task.accounted = true;
        let Some(deployment) = deployment_of(service, task) else {
            continue;
        };
        if !by_itself {
            continue;
        }
        if !task.was_healthy {
            deployment.failed_tasks += 1;
        }
        if task.times.started_at.is_none() {
            deployment.start_failures += 1;
            let delay = restart_throttle::delay_seconds(deployment.start_failures);
            if delay > 0.0 {
                deployment.not_before = Some(now + time_scale.seconds(delay));
                throttled = true;
            }
        }
    }
    if throttled {
        service.event(restart_throttle::event(&name));
    }
}

/// Stops all tasks of a deleted service. "After all tasks have transitioned to either STOPPING or
/// STOPPED status, the service status moves from DRAINING to INACTIVE."
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DeleteService.html>
fn drain(service: &mut Service, tasks: &mut [&mut Task]) {
    let wanted = tasks.iter_mut().filter(|task| task.wanted());
    stop_tasks(service, wanted.map(|task| &mut **task).collect());
    if tasks.iter().all(|task| task.status >= TaskStatus::Stopping) {
        service.status = ServiceStatus::Inactive;
        service.inactive_since = Some(Timestamp::now());
    }
}

/// Fails the PRIMARY deployment if the threshold of the circuit breaker is reached.
fn apply_circuit_breaker(service: &mut Service) {
    let breaker = service
        .deployment_configuration
        .deployment_circuit_breaker
        .clone();
    let Some(threshold) = circuit_breaker::threshold(&breaker, service.desired_count) else {
        return;
    };
    let primary = service.primary_mut();
    if primary.rollout != RolloutState::InProgress || primary.failed_tasks < threshold {
        return;
    }
    primary.roll(
        RolloutState::Failed,
        circuit_breaker::FAILED_REASON.to_owned(),
    );
    let (name, id) = (service.name.clone(), service.primary().id.clone());
    service.event(format!(
        "(service {name}) (deployment {id}) deployment failed: tasks failed to start."
    ));
}

/// Starts the missing tasks of the PRIMARY deployment, as far as `maximumPercent` allows.
fn start(service: &mut Service, tasks: &[&mut Task], now: Instant) -> Vec<Task> {
    let primary = service.primary();
    let throttled = primary.not_before.is_some_and(|time| now < time);
    if primary.rollout == RolloutState::Failed || throttled {
        return Vec::new();
    }
    let wanted = |task: &&&mut Task| task.wanted();
    let all = tasks.iter().filter(wanted).count();
    let of_primary = tasks
        .iter()
        .filter(wanted)
        .filter(|task| task.deployment_id() == primary.id)
        .count();
    let desired = service.desired_count as usize;
    let maximum_percent = service.deployment_configuration.maximum_percent;
    let maximum = (desired * maximum_percent.unwrap_or(200) as usize / 100).max(desired.min(1));
    let missing = desired
        .saturating_sub(of_primary)
        .min(maximum.saturating_sub(all));
    let mut started: Vec<Task> = Vec::new();
    for _ in 0..missing {
        // Tasks are spread over the zones, as on Fargate.
        let subnet = service
            .subnets
            .iter()
            .min_by_key(|subnet| {
                let is_here = |task: &Task| task.wanted() && task.subnet == subnet.id;
                tasks.iter().filter(|task| is_here(task)).count()
                    + started.iter().filter(|task| is_here(task)).count()
            })
            .cloned();
        let Some(subnet) = subnet else { break };
        started.push(Task::new(service, service.primary(), &subnet));
    }
    if !started.is_empty() {
        let (name, list) = (service.name.clone(), ids(started.iter()));
        service.event(format!(
            "(service {name}) has started {} tasks: {list}.",
            started.len()
        ));
    }
    started
}

/// `(task a) (task b)`.
fn ids<'a>(tasks: impl Iterator<Item = &'a Task>) -> String {
    tasks
        .map(|task| format!("(task {})", task.id))
        .collect::<Vec<_>>()
        .join(" ")
}

fn stop_tasks(service: &mut Service, mut tasks: Vec<&mut Task>) {
    for (running, word) in [(true, "running"), (false, "pending")] {
        let list: Vec<&Task> = tasks
            .iter()
            .map(|task| &**task)
            .filter(|task| (task.status == TaskStatus::Running) == running)
            .collect();
        if !list.is_empty() {
            let (name, count) = (service.name.clone(), list.len());
            let list = ids(list.into_iter());
            service.event(format!(
                "(service {name}) has stopped {count} {word} tasks: {list}."
            ));
        }
    }
    for task in &mut tasks {
        let reason = format!(
            "Scaling activity initiated by (deployment {})",
            task.deployment_id()
        );
        task.request_stop(StopCode::ServiceSchedulerInitiated, reason);
    }
}

/// Stops surplus tasks of the PRIMARY deployment, beginning with those that do not run yet.
fn scale_in(service: &mut Service, tasks: &mut [&mut Task]) {
    let primary = service.primary().id.clone();
    let mut of_primary: Vec<&mut Task> = tasks
        .iter_mut()
        .map(|task| &mut **task)
        .filter(|task| task.wanted() && task.deployment_id() == primary)
        .collect();
    let surplus = of_primary
        .len()
        .saturating_sub(service.desired_count as usize);
    of_primary.sort_by_key(|task| (task.status, task.id.clone()));
    of_primary.truncate(surplus);
    stop_tasks(service, of_primary);
}

/// Stops tasks of earlier deployments as far as `minimumHealthyPercent` allows.
fn replace_old(service: &mut Service, tasks: &mut [&mut Task]) {
    let primary = service.primary().id.clone();
    let behind_load_balancer = service.target_groups().next().is_some();
    let is_healthy = |task: &Task| {
        task.wanted()
            && task.status == TaskStatus::Running
            && (!behind_load_balancer || task.target == TargetState::Healthy)
    };
    let healthy = tasks.iter().filter(|task| is_healthy(task)).count();
    let minimum_percent = service.deployment_configuration.minimum_healthy_percent;
    let minimum =
        (service.desired_count as usize * minimum_percent.unwrap_or(100) as usize).div_ceil(100);
    let mut may_stop = healthy.saturating_sub(minimum);
    let mut stopping = Vec::new();
    for task in tasks.iter_mut() {
        if !task.wanted() || task.deployment_id() == primary {
            continue;
        }
        if is_healthy(task) {
            if may_stop == 0 {
                continue;
            }
            may_stop -= 1;
        }
        stopping.push(&mut **task);
    }
    stop_tasks(service, stopping);
}

/// Completes the deployment and adds the events for it, if all tasks are in their desired state.
fn complete(service: &mut Service, tasks: &[&mut Task]) {
    let primary = service.primary().id.clone();
    let behind_load_balancer = service.target_groups().next().is_some();
    let wanted = tasks.iter().filter(|task| task.wanted());
    let is_good = |task: &Task| {
        task.deployment_id() == primary
            && task.status == TaskStatus::Running
            && (!behind_load_balancer || task.target == TargetState::Healthy)
    };
    let (good, other) = wanted.fold((0, 0), |(good, other), task| {
        if is_good(task) {
            (good + 1, other)
        } else {
            (good, other + 1)
        }
    });
    let still_there = |id: &str| {
        tasks
            .iter()
            .any(|task| task.deployment_id() == id && task.status != TaskStatus::Stopped)
    };
    service
        .deployments
        .retain(|one| one.id == primary || still_there(&one.id));
    let name = service.name.clone();
    if good != service.desired_count as usize || other > 0 {
        service.steady = false;
        return;
    }
    if service.primary().rollout == RolloutState::InProgress {
        let deployment = service.primary_mut();
        deployment.failed_tasks = 0;
        let reason = format!("ECS deployment {primary} completed.");
        deployment.roll(RolloutState::Completed, reason);
        service.event(format!(
            "(service {name}) (deployment {primary}) deployment completed."
        ));
    }
    if !service.steady && service.primary().rollout == RolloutState::Completed {
        service.steady = true;
        service.event(format!("(service {name}) has reached a steady state."));
    }
}

/// Removes stopped tasks, and then INACTIVE services and client tokens, after their time: "in the future, INACTIVE services may be
/// cleaned up and purged from Amazon ECS record keeping".
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DeleteService.html>
fn forget(state: &mut State, time_scale: TimeScale, now: Timestamp) {
    let is_over = |since: Option<Timestamp>, seconds: f64| {
        let kept = time_scale.seconds(seconds).as_secs_f64();
        since.is_some_and(|since| now.0 - since.0 >= kept)
    };
    let State {
        services,
        tasks,
        run_requests,
    } = state;
    tasks.retain(|_, task| {
        task.status != TaskStatus::Stopped
            || !is_over(task.times.stopped_at, STOPPED_TASKS_ARE_KEPT)
    });
    services.retain(|arn, service| {
        !is_over(service.inactive_since, STOPPED_TASKS_ARE_KEPT)
            || tasks.values().any(|task| task.is_of(arn))
    });
    run_requests.retain(|_, request| {
        !is_over(Some(request.made_at), CLIENT_TOKENS_ARE_KEPT)
            && request.tasks.iter().any(|task| tasks.contains_key(task))
    });
}
