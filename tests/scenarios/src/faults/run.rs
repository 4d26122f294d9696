//! What every fault run has: visitors, a watcher, and the injections.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::broken_function::{PANICKING, break_function, restore_function};
use super::first_checks::FirstChecks;
use super::invariants::{AllowedAnswers, End, NEVER_STARTED, Observation};
use super::plan::{self, Case, Point};
use super::watcher::Watcher;
use super::{FaultRunner, Foreign};
use crate::{Execution, TestEnvironment, Traffic};

/// Requests per second during a run.
const TRAFFIC: u32 = 20;

/// A run in progress.
pub struct Run<'a> {
    env: &'a TestEnvironment,
    foreign: &'a Foreign,
    case: &'a Case,
    allowed: Vec<AllowedAnswers>,
    traffic: Traffic,
    watcher: Watcher,
    first_checks: Option<FirstChecks>,
    foreign_before: String,
    before: u64,
}

/// What was recorded while the faults were injected.
pub struct Recorded {
    /// Whether every injection hit a call.
    pub was_hit: bool,
    /// The calls at which a fault can be injected.
    pub points: Vec<Point>,
}

impl<'a> Run<'a> {
    /// Starts visitors with the pins of `allowed`, and the watcher.
    ///
    /// # Errors
    /// When the foreign resources cannot be read.
    pub async fn begin(
        runner: &'a FaultRunner,
        case: &'a Case,
        allowed: Vec<AllowedAnswers>,
    ) -> anyhow::Result<Run<'a>> {
        let (env, foreign) = (&runner.env, &runner.foreign);
        let pins = allowed.iter().map(|(pin, _)| pin.clone()).collect();
        Ok(Run {
            foreign_before: foreign.described(env).await?,
            traffic: Traffic::start(env, TRAFFIC, pins)?,
            watcher: Watcher::of(env, runner.listener.clone()),
            first_checks: None,
            before: env.cloud.calls().newest(),
            env,
            foreign,
            case,
            allowed,
        })
    }

    /// Injects the faults. Earlier calls do not count as calls of the run.
    ///
    /// # Errors
    /// When a function's code cannot be replaced.
    pub async fn inject(&mut self) -> anyhow::Result<()> {
        if let Some(function) = self.case.panicking() {
            break_function(self.env, function, PANICKING).await?;
        }
        self.before = self.env.cloud.calls().newest();
        self.first_checks = Some(FirstChecks::await_all(self.env));
        for rule in self.case.rules(&self.env.name) {
            self.env.cloud.faults().add(rule);
        }
        let named = |(function, error)| (format!("{}-{function}", self.env.name), json!(error));
        let not_ready: Value = self
            .case
            .not_ready()
            .map(named)
            .collect::<Map<_, _>>()
            .into();
        self.env.cloud.client().set_not_ready(&not_ready).await?;
        Ok(())
    }

    /// Removes the faults.
    ///
    /// # Errors
    /// When a function's code cannot be restored.
    pub async fn stop_injecting(&mut self) -> anyhow::Result<Recorded> {
        self.first_checks = None;
        self.env.cloud.faults().clear();
        if let Some(function) = self.case.panicking() {
            restore_function(self.env, function).await?;
        }
        let TestEnvironment { cloud, name, .. } = self.env;
        let points = plan::points(self.case.workflow, name, &cloud.calls().since(self.before));
        let still_to_come = self.env.cloud.client().set_not_ready(&json!({})).await?;
        let was_hit = self.was_hit().await && still_to_come == json!({});
        Ok(Recorded { was_hit, points })
    }

    /// Whether every fault hit a call. Waits for slow calls, which take effect late.
    async fn was_hit(&self) -> bool {
        let injected = self.case.rules(&self.env.name).len();
        let recorded = async || {
            let calls = self.env.cloud.calls().since(self.before);
            Ok(calls.iter().filter(|call| call.fault.is_some()).count() == injected)
        };
        let limit = Duration::from_secs(8);
        self.env.wait_until(limit, recorded).await.is_ok()
    }

    /// How an execution ended, if one started, and what remains of the deployment `doomed`.
    ///
    /// # Errors
    /// When the state cannot be read. An execution that did not end is not an error here.
    pub async fn end(
        &self,
        ended: anyhow::Result<Option<Execution>>,
        doomed: &str,
    ) -> anyhow::Result<End> {
        let active = self.env.active().await?;
        let left = self.env.remaining(doomed).await?;
        Ok(match ended {
            Ok(None) => End {
                ending: NEVER_STARTED.to_owned(),
                active,
                left,
                ..End::default()
            },
            Ok(Some(execution)) => End {
                ending: execution.ending().to_owned(),
                switching: execution.entered("SwitchTraffic").is_some(),
                cause: execution.cause,
                active,
                left,
            },
            Err(why) => End {
                cause: format!("{why:#}"),
                active,
                left,
                ..End::default()
            },
        })
    }

    /// Stops the visitors and the watcher; returns everything that was observed.
    ///
    /// # Errors
    /// When the foreign resources cannot be read.
    pub async fn finish(self, was_hit: bool, result: RunResult) -> anyhow::Result<Observation> {
        let watched = self.watcher.stop();
        let (tally, _) = self.traffic.stop().await?;
        let foreign_after = self.foreign.described(self.env).await?;
        let RunResult {
            before,
            after,
            first,
            due,
            again,
        } = result;
        Ok(Observation {
            case: self.case.clone(),
            was_hit,
            before,
            after,
            allowed: self.allowed,
            watched,
            tally,
            first,
            due,
            again,
            foreign: (self.foreign_before, foreign_after),
            left: Vec::new(),
        })
    }
}

/// The results of the executions of a run. The fields are those of [`Observation`].
pub struct RunResult {
    /// The deployment that was active before the run.
    pub before: String,
    /// The deployment that is active after a run that ends well.
    pub after: String,
    /// The end of the execution with faults.
    pub first: End,
    /// What remains or is still to be done after one cleanup.
    pub due: Vec<String>,
    /// The end of the execution that was started again.
    pub again: End,
}
