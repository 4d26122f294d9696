//! The targets of all target groups: which are registered, their health, and which is next.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::health_checks::{self, Health, Outcome, Status};
use super::state::{ControlPlane, TargetGroup};
use crate::time_scale::TimeScale;

/// Seconds on AWS from `RegisterTargets` to the first health check. AWS does not document the time. It
/// must be short, so that a new target does not wait for a whole interval.
const REGISTRATION_SECONDS: f64 = 2.0;

/// The shortest health check timeout that the time scale may cause. A process does not answer faster at
/// a faster time scale, and a busy machine must not make a target unhealthy.
const SHORTEST_TIMEOUT: Duration = Duration::from_secs(1);

/// The default of `deregistration_delay.timeout_seconds`, for a group that the control plane does not
/// know.
const DEFAULT_DEREGISTRATION_DELAY_SECONDS: u32 = 300;

/// A target as `DescribeTargetHealth` reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetHealth {
    /// The private address of the task.
    pub ip: IpAddr,
    /// The port that the target was registered with.
    pub port: u16,
    /// The availability zone, for example `us-east-1a`.
    pub zone: String,
    /// `initial`, `healthy`, `unhealthy`, `unused` or `draining`.
    pub state: &'static str,
    /// The reason code, for example `Target.Timeout`. Absent if healthy.
    pub reason: Option<&'static str>,
    /// The description of the reason. Absent if healthy.
    pub description: Option<String>,
}

/// The target for a request.
#[derive(Debug)]
pub struct Chosen {
    /// The address and port that the target listens on.
    pub address: SocketAddr,
    /// Reports when the deregistration of the target is complete.
    pub deregistered: Deregistered,
}

/// Waits until the deregistration of a target is complete.
#[derive(Debug, Clone)]
pub struct Deregistered(watch::Receiver<()>);

impl Deregistered {
    /// Returns when the deregistration delay has ended and the target is removed.
    pub async fn wait(mut self) {
        while self.0.changed().await.is_ok() {}
    }
}

type Probe = Arc<
    dyn Fn(SocketAddr, String, Duration) -> Pin<Box<dyn Future<Output = Outcome> + Send>>
        + Send
        + Sync,
>;

/// The registry of targets, which also runs their health checks. Clones share one registry. The health
/// checks end when the last clone is dropped.
#[derive(Clone)]
pub struct Targets(Arc<Inner>);

struct Inner {
    /// The runtime of the health checks and timers.
    runtime: Handle,
    time_scale: TimeScale,
    probe: Probe,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    control_plane: Arc<ControlPlane>,
    /// The ARNs of the groups that a rule or a default action names.
    in_use: BTreeSet<String>,
    groups: BTreeMap<String, Group>,
    /// The number of requests for which a target was chosen, by the ARN of the group.
    requests: BTreeMap<String, u64>,
    /// The number of the next target. Timers and checks find their target by its number, so that they
    /// never affect a later target on the same address.
    next_number: u64,
}

#[derive(Default)]
struct Group {
    targets: Vec<Target>,
    turn: usize,
}

struct Target {
    number: u64,
    address: SocketAddr,
    zone: String,
    health: Health,
    draining: bool,
    /// Dropped with the target, which ends the connections to it.
    registered: watch::Sender<()>,
    checker: Option<Task>,
    removal: Option<Task>,
}

/// A background task that ends when this is dropped.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Targets {
    /// An empty registry, whose health checks run on the current Tokio runtime. `time_scale` shortens
    /// intervals, timeouts and deregistration delays.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn new(time_scale: TimeScale) -> Self {
        Self::with_probe(
            time_scale,
            Arc::new(|address, path, timeout| {
                Box::pin(health_checks::check(address, path, timeout))
            }),
        )
    }

    fn with_probe(time_scale: TimeScale, probe: Probe) -> Self {
        Targets(Arc::new(Inner {
            runtime: Handle::current(),
            time_scale,
            probe,
            state: Mutex::default(),
        }))
    }

    /// `RegisterTargets` for one address. A target that is already registered stays unchanged, unless it
    /// is draining: then it starts again as a new target.
    pub fn register(&self, group_arn: &str, ip: IpAddr, port: u16, zone: &str) {
        let mut state = self.state();
        state.next_number += 1;
        let number = state.next_number;
        let address = SocketAddr::new(ip, port);
        let group = state.groups.entry(group_arn.to_string()).or_default();
        match group.targets.iter_mut().find(|t| t.address == address) {
            Some(target) if !target.draining => return,
            Some(target) => {
                // The sender stays, so that requests in flight are not cut.
                target.number = number;
                target.zone = zone.to_string();
                target.health = Health::default();
                target.draining = false;
                target.checker = None;
                target.removal = None;
            }
            None => group.targets.push(Target {
                number,
                address,
                zone: zone.to_string(),
                health: Health::default(),
                draining: false,
                registered: watch::channel(()).0,
                checker: None,
                removal: None,
            }),
        }
        tracing::info!(group_arn, %address, "target registered");
        self.start_or_stop_checks(&mut state);
    }

    /// `DeregisterTargets` for one address. The target gets no further requests. It is removed after the
    /// deregistration delay of the group, or immediately if no load balancer uses the group.
    pub fn deregister(&self, group_arn: &str, ip: IpAddr, port: u16) {
        let mut state = self.state();
        let in_use = state.in_use.contains(group_arn);
        let delay = state
            .control_plane
            .target_groups
            .get(group_arn)
            .map_or(DEFAULT_DEREGISTRATION_DELAY_SECONDS, |group| {
                group.deregistration_delay_seconds
            });
        let address = SocketAddr::new(ip, port);
        let Some(group) = state.groups.get_mut(group_arn) else {
            return;
        };
        let Some(target) = group.targets.iter_mut().find(|t| t.address == address) else {
            return;
        };
        if target.draining {
            return;
        }
        tracing::info!(group_arn, %address, "target deregistered");
        target.draining = true;
        target.checker = None;
        let number = target.number;
        if !in_use {
            state.remove(group_arn, number);
            return;
        }
        let delay = self.0.time_scale.seconds(delay.into());
        let registry = Arc::downgrade(&self.0);
        let arn = group_arn.to_string();
        target.removal = Some(Task(self.0.runtime.spawn(async move {
            tokio::time::sleep(delay).await;
            if let Some(registry) = registry.upgrade() {
                lock(&registry).remove(&arn, number);
            }
        })));
    }

    /// The targets of a group as `DescribeTargetHealth` reports them, in order of registration. Empty
    /// for a group that has no targets or does not exist.
    pub fn health(&self, group_arn: &str) -> Vec<TargetHealth> {
        let state = self.state();
        let in_use = state.in_use.contains(group_arn);
        let Some(group) = state.groups.get(group_arn) else {
            return Vec::new();
        };
        let described = |target: &Target| {
            let (state, reason, description) = target.describe(in_use);
            TargetHealth {
                ip: target.address.ip(),
                port: target.address.port(),
                zone: target.zone.clone(),
                state,
                reason,
                description,
            }
        };
        group.targets.iter().map(described).collect()
    }

    /// Uses a new control plane. Health checks start for the groups that it uses and stop for the others.
    pub fn attach(&self, control_plane: Arc<ControlPlane>) {
        let mut state = self.state();
        let in_use = control_plane.target_groups_in_use();
        state.in_use = in_use.into_iter().map(str::to_owned).collect();
        let groups = &control_plane.target_groups;
        state.requests.retain(|arn, _| groups.contains_key(arn));
        state.control_plane = control_plane;
        self.start_or_stop_checks(&mut state);
    }

    /// The next target of a group for a request, by round robin over the healthy targets, or over all
    /// unhealthy ones if none is healthy ("the load balancer fails open").
    ///
    /// `None` if the group has no such target. AWS documents status 503 for a group without registered
    /// targets, but not what happens if all targets are `initial` or `draining`. Here that is 503 too,
    /// so that a switch to a group that is not healthy yet becomes visible.
    pub fn choose(&self, group_arn: &str) -> Option<Chosen> {
        let mut state = self.state();
        let group = state.groups.get_mut(group_arn)?;
        let with = |wanted: fn(Status) -> bool| -> Vec<usize> {
            let takes = |target: &Target| !target.draining && wanted(target.health.status());
            let all = group.targets.iter().enumerate();
            all.filter(|(_, t)| takes(t)).map(|(i, _)| i).collect()
        };
        let mut candidates = with(|status| status == Status::Healthy);
        if candidates.is_empty() {
            candidates = with(|status| matches!(status, Status::Unhealthy(_)));
        }
        if candidates.is_empty() {
            return None;
        }
        group.turn = group.turn.wrapping_add(1);
        let target = &group.targets[candidates[group.turn % candidates.len()]];
        let chosen = Chosen {
            address: target.address,
            deregistered: Deregistered(target.registered.subscribe()),
        };
        *state.requests.entry(group_arn.to_owned()).or_default() += 1;
        Some(chosen)
    }

    /// How many requests each group has had, by its ARN: "This metric is only incremented for requests where the load
    /// balancer node was able to choose a target."
    /// <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-cloudwatch-metrics.html>
    pub fn requests(&self) -> BTreeMap<String, u64> {
        self.state().requests.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }

    fn start_or_stop_checks(&self, state: &mut State) {
        let State { groups, in_use, .. } = state;
        for (arn, group) in groups {
            let in_use = in_use.contains(arn);
            for target in &mut group.targets {
                if !in_use {
                    target.checker = None;
                } else if target.checker.is_none() && !target.draining {
                    target.health = Health::default();
                    let check = check_until_removed(
                        Arc::downgrade(&self.0),
                        arn.clone(),
                        target.number,
                        target.address,
                    );
                    target.checker = Some(Task(self.0.runtime.spawn(check)));
                }
            }
        }
    }
}

fn lock(inner: &Inner) -> MutexGuard<'_, State> {
    // A panic of another holder does not leave the registry in an invalid state.
    inner
        .state
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl State {
    fn target(&mut self, group_arn: &str, number: u64) -> Option<&mut Target> {
        let group = self.groups.get_mut(group_arn)?;
        group.targets.iter_mut().find(|t| t.number == number)
    }

    fn remove(&mut self, group_arn: &str, number: u64) {
        if let Some(group) = self.groups.get_mut(group_arn) {
            group.targets.retain(|target| target.number != number);
            if group.targets.is_empty() {
                self.groups.remove(group_arn);
            }
        }
    }
}

impl Target {
    fn describe(&self, in_use: bool) -> (&'static str, Option<&'static str>, Option<String>) {
        let because =
            |state, reason, description: &str| (state, Some(reason), Some(description.to_string()));
        if self.draining {
            return because(
                "draining",
                "Target.DeregistrationInProgress",
                "Target deregistration is in progress",
            );
        }
        if !in_use {
            return because(
                "unused",
                "Target.NotInUse",
                "Target group is not configured to receive traffic from the load balancer",
            );
        }
        match self.health.status() {
            Status::Registering => because(
                "initial",
                "Elb.RegistrationInProgress",
                "Target registration is in progress",
            ),
            Status::Checking => because(
                "initial",
                "Elb.InitialHealthChecking",
                "Initial health checks in progress",
            ),
            Status::Healthy => ("healthy", None, None),
            Status::Unhealthy(reason) => because("unhealthy", reason.code(), &reason.description()),
        }
    }
}

/// Checks one target until it is removed.
async fn check_until_removed(registry: Weak<Inner>, arn: String, number: u64, address: SocketAddr) {
    let Some(time_scale) = registry.upgrade().map(|registry| registry.time_scale) else {
        return;
    };
    tokio::time::sleep(time_scale.seconds(REGISTRATION_SECONDS)).await;
    loop {
        let started = Instant::now();
        let Some((probe, settings)) = begin(&registry, &arn, number) else {
            return;
        };
        let timeout = f64::from(settings.timeout_seconds);
        let timeout = time_scale
            .seconds(timeout)
            .max(SHORTEST_TIMEOUT.min(Duration::from_secs_f64(timeout)));
        let outcome = probe(address, settings.health_check_path.clone(), timeout).await;
        let Some(registry) = registry.upgrade() else {
            return;
        };
        if let Some(target) = lock(&registry).target(&arn, number) {
            let before = target.health.status();
            target.health.observe(outcome, &settings);
            let after = target.health.status();
            if before != after {
                tracing::info!(group_arn = arn, %address, ?before, ?after, "target health changed");
            }
        }
        drop(registry);
        // "The time that it takes for the target to respond does not affect the interval".
        tokio::time::sleep_until(started + time_scale.seconds(settings.interval_seconds.into()))
            .await;
    }
}

/// Records that a check begins, and returns the current settings. `None` if the target was removed.
fn begin(registry: &Weak<Inner>, arn: &str, number: u64) -> Option<(Probe, TargetGroup)> {
    let registry = registry.upgrade()?;
    let mut state = lock(&registry);
    let settings = state.control_plane.target_groups.get(arn)?.clone();
    state.target(arn, number)?.health.registered();
    Some((registry.probe.clone(), settings))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::load_balancer::test_support::{control_plane, forward_to};

    const GROUP: &str = "arn:tg/a";

    /// A registry whose n-th check, from 0, has the outcome that `script` gives.
    fn targets(script: impl Fn(u32) -> Outcome + Send + Sync + 'static) -> Targets {
        let count = AtomicU32::new(0);
        let probe: Probe = Arc::new(move |_, _, _| {
            let outcome = script(count.fetch_add(1, Ordering::SeqCst));
            Box::pin(async move { outcome })
        });
        Targets::with_probe(TimeScale(1.0), probe)
    }

    fn in_use() -> Arc<ControlPlane> {
        Arc::new(control_plane(vec![forward_to(&[(GROUP, 1)])], &[GROUP]))
    }

    fn unused() -> Arc<ControlPlane> {
        Arc::new(control_plane(vec![], &[GROUP]))
    }

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([127, 9, 9, last])
    }

    fn states(targets: &Targets) -> Vec<(&'static str, Option<&'static str>)> {
        let all = targets.health(GROUP);
        all.iter().map(|t| (t.state, t.reason)).collect()
    }

    async fn seconds(seconds: f64) {
        tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_target_of_a_group_that_no_rule_names_is_unused_and_not_checked() {
        let targets = targets(|_| panic!("checked"));
        targets.attach(unused());
        targets.register(GROUP, ip(1), 8000, "us-east-1a");
        seconds(600.0).await;
        assert_eq!(states(&targets), [("unused", Some("Target.NotInUse"))]);
        targets.deregister(GROUP, ip(1), 8000);
        assert_eq!(states(&targets), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_target_is_initial_and_becomes_healthy_long_before_an_interval_has_passed() {
        let targets = targets(|_| Outcome::Status(200));
        targets.attach(in_use());
        targets.register(GROUP, ip(1), 8000, "us-east-1a");
        assert_eq!(
            states(&targets),
            [("initial", Some("Elb.RegistrationInProgress"))]
        );
        assert!(targets.choose(GROUP).is_none());
        seconds(5.0).await;
        assert_eq!(states(&targets), [("healthy", None)]);
        assert_eq!(targets.health(GROUP)[0].zone, "us-east-1a");
    }

    #[tokio::test(start_paused = true)]
    async fn checks_begin_when_a_rule_names_the_group() {
        let targets = targets(|_| Outcome::Status(200));
        targets.attach(unused());
        targets.register(GROUP, ip(1), 8000, "us-east-1a");
        seconds(60.0).await;
        targets.attach(in_use());
        assert_eq!(states(&targets)[0].0, "initial");
        seconds(5.0).await;
        assert_eq!(states(&targets)[0].0, "healthy");
        targets.attach(unused());
        assert_eq!(states(&targets)[0].0, "unused");
    }

    #[tokio::test(start_paused = true)]
    async fn a_target_is_checked_once_per_interval_and_changes_at_the_thresholds() {
        // Two failures, a pass, three failures in a row, and then only passes.
        let targets = targets(|check| match check {
            0 | 1 | 3..=5 => Outcome::Status(500),
            _ => Outcome::Status(200),
        });
        targets.attach(in_use());
        targets.register(GROUP, ip(1), 8000, "us-east-1a");
        let at = |t: f64| tokio::time::sleep_until(Instant::now() + Duration::from_secs_f64(t));
        at(REGISTRATION_SECONDS + 1.0).await;
        assert_eq!(
            states(&targets),
            [("initial", Some("Elb.InitialHealthChecking"))]
        );
        let mut seen = Vec::new();
        for _ in 0..7 {
            at(30.0).await;
            seen.push(states(&targets)[0].0);
        }
        assert_eq!(
            seen,
            [
                "initial",   // second failure
                "healthy",   // first pass
                "healthy",   // first failure
                "healthy",   // second
                "unhealthy", // third
                "unhealthy", // first pass
                "healthy",   // second pass
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_deregistered_target_drains_for_the_delay_and_gets_no_new_requests() {
        let targets = targets(|_| Outcome::Status(200));
        targets.attach(in_use());
        targets.register(GROUP, ip(1), 8000, "us-east-1a");
        seconds(5.0).await;
        let chosen = targets.choose(GROUP).expect("healthy");
        targets.deregister(GROUP, ip(1), 8000);
        assert_eq!(
            states(&targets),
            [("draining", Some("Target.DeregistrationInProgress"))]
        );
        assert!(targets.choose(GROUP).is_none());

        let removed = tokio::spawn(chosen.deregistered.wait());
        seconds(59.0).await;
        assert_eq!(states(&targets)[0].0, "draining");
        assert!(!removed.is_finished());
        seconds(2.0).await;
        assert_eq!(states(&targets), []);
        removed.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_draining_target_that_is_registered_again_starts_as_new_and_is_not_removed() {
        let targets = targets(|_| Outcome::Status(200));
        targets.attach(in_use());
        targets.register(GROUP, ip(1), 8000, "us-east-1a");
        seconds(5.0).await;
        targets.deregister(GROUP, ip(1), 8000);
        targets.register(GROUP, ip(1), 8000, "us-east-1a");
        assert_eq!(states(&targets)[0].0, "initial");
        seconds(600.0).await;
        assert_eq!(states(&targets), [("healthy", None)]);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_go_to_healthy_targets_in_turn_and_to_unhealthy_ones_if_none_is_healthy() {
        // Checks of these addresses time out.
        let sick: Arc<Mutex<Vec<IpAddr>>> = Arc::new(Mutex::new(vec![ip(3)]));
        let probe: Probe = {
            let sick = sick.clone();
            Arc::new(move |address, _, _| {
                let sick = sick.lock().unwrap().contains(&address.ip());
                Box::pin(async move {
                    if sick {
                        Outcome::TimedOut
                    } else {
                        Outcome::Status(200)
                    }
                })
            })
        };
        let targets = Targets::with_probe(TimeScale(1.0), probe);
        targets.attach(in_use());
        for last in 1..=3 {
            targets.register(GROUP, ip(last), 8000, "us-east-1a");
        }
        seconds(200.0).await;
        assert_eq!(
            targets.health(GROUP)[2].description.as_deref(),
            Some("Request timed out")
        );
        let served = || -> Vec<u8> {
            let mut served: Vec<_> = (0..12)
                .map(|_| match targets.choose(GROUP).unwrap().address.ip() {
                    IpAddr::V4(ip) => ip.octets()[3],
                    IpAddr::V6(_) => unreachable!(),
                })
                .collect();
            served.sort_unstable();
            served
        };
        assert_eq!(served(), [1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2]);
        sick.lock().unwrap().extend([ip(1), ip(2)]);
        seconds(200.0).await;
        assert_eq!(served(), [1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn checks_end_when_the_registry_is_dropped() {
        let count = Arc::new(AtomicU32::new(0));
        let seen = count.clone();
        let targets = targets(move |_| {
            seen.fetch_add(1, Ordering::SeqCst);
            Outcome::Status(200)
        });
        targets.attach(in_use());
        targets.register(GROUP, ip(1), 8000, "us-east-1a");
        seconds(5.0).await;
        drop(targets);
        let before = count.load(Ordering::SeqCst);
        seconds(600.0).await;
        assert!(before > 0);
        assert_eq!(count.load(Ordering::SeqCst), before);
    }
}
