//! The sweep: a deployment for every call that can fail and every way in which it can.

pub mod foreign;
pub mod invariants;
pub mod plan;
pub mod watcher;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use http::Method;
use serde_json::{Value, json};

use crate::visitors::Pin;
use crate::{Stage, Steady};
use foreign::Foreign;
use invariants::{End, Observation, Violation};
use plan::{Case, Point};
use watcher::Watcher;

/// Requests per second during a run.
const TRAFFIC: u32 = 20;

/// One environment on which deployments fail in one way after the other.
pub struct Sweep {
    /// Where it takes place.
    pub stage: Stage,
    /// What is not ours.
    pub foreign: Foreign,
    base: String,
    listener: String,
}

impl Sweep {
    /// An environment with a live deployment and somebody else's things beside it.
    ///
    /// # Errors
    /// When the local cloud does not start or the first deployment fails.
    pub async fn prepare() -> anyhow::Result<Sweep> {
        let stage = Stage::set_for_cleanups_by_hand().await?;
        let base = stage.deploy_live(&[]).await?.name;
        Ok(Sweep {
            foreign: Foreign::make(&stage, &base).await?,
            listener: stage.listener_arn().await?,
            base,
            stage,
        })
    }

    /// The calls of a clean deployment, which has to keep every invariant itself.
    ///
    /// # Errors
    /// When it does not, or cannot be run.
    pub async fn record(&mut self) -> anyhow::Result<Vec<Point>> {
        let (observation, points) = self.observe(None, async || Ok(())).await?;
        let violations = observation.violations();
        ensure!(
            violations.is_empty(),
            "a clean deployment does not hold: {violations:?}"
        );
        Ok(points)
    }

    /// The calls that undo a deployment.
    ///
    /// # Errors
    /// As [`Sweep::record`].
    pub async fn record_undo(&mut self) -> anyhow::Result<Vec<Point>> {
        let undo = Case::undo();
        let (observation, points) = self.observe(Some(&undo), async || Ok(())).await?;
        let violations = observation.violations();
        ensure!(
            violations.is_empty() && observation.first.ending == "RolledBack",
            "a plain undo does not hold: {violations:?}"
        );
        let points = plan::after_the_failure(&points);
        ensure!(!points.is_empty(), "the undo made no calls");
        Ok(points.to_vec())
    }

    /// Runs a deployment with one fault.
    ///
    /// # Errors
    /// When the run itself is not possible; a broken invariant is no error here.
    pub async fn run(&mut self, case: &Case) -> anyhow::Result<Observation> {
        Ok(self.observe(Some(case), async || Ok(())).await?.0)
    }

    /// As [`Sweep::run`], while `meanwhile` happens.
    ///
    /// # Errors
    /// As [`Sweep::run`], and those of `meanwhile`.
    pub async fn run_while(
        &mut self,
        case: &Case,
        meanwhile: impl AsyncFnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<Observation> {
        Ok(self.observe(Some(case), meanwhile).await?.0)
    }

    async fn observe(
        &mut self,
        case: Option<&Case>,
        meanwhile: impl AsyncFnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<(Observation, Vec<Point>)> {
        let (stage, base) = (&self.stage, self.base.clone());
        let id = stage.new_id();
        stage.push_unnoticed(&id, &[]).await?;
        let foreign = self.foreign.described(stage).await?;
        // Refreshes what a stale read of the listener answers to the state of this run.
        let active = stage.active().await?;
        ensure!(active.as_ref() == Some(&base), "{base} is not live");
        let pins = vec![
            Pin::None,
            Pin::Header(base.clone()),
            Pin::Cookie(base.clone()),
        ];
        let traffic = Steady::traffic(stage, TRAFFIC, pins)?;
        let watcher = Watcher::of(stage, self.listener.clone());

        let before = stage.cloud.calls().newest();
        for rule in case.map(Case::rules).unwrap_or_default() {
            stage.cloud.faults().add(rule);
        }
        let input = json!({"deploymentId": id}).to_string();
        let (ended, meanwhile) = tokio::join!(stage.start_by_hand(&id, &input), meanwhile());
        meanwhile?;
        stage.cloud.faults().clear();
        let first = self.end(&id, ended).await?;
        let calls = stage.cloud.calls().since(before);
        let befell = self.befell(case, before).await;

        let mut again = self.start_again("again", &id, &input).await?;
        // What a failed undo left is removed first, by the undo of the execution that meets it.
        if first.ending == "RollbackFailed" && again.ending == "RolledBack" && again.left.is_empty()
        {
            again = self.start_again("once-more", &id, &input).await?;
        }
        let live = stage.active().await?.context("nothing is live")?;
        if live == id {
            stage.reaches_visitors(&id).await?;
        }
        let watched = watcher.stop();
        let (met, _) = traffic.stop().await?;
        let foreign = (foreign, self.foreign.described(stage).await?);
        let mut left_of_base = Vec::new();
        if live == id {
            left_of_base = self.delete(&base).await?;
        } else {
            // What did not go live must not stand in the way of the next run.
            self.delete(&id).await?;
        }
        self.base = live;
        let observation = Observation {
            case: case.cloned(),
            befell,
            base,
            id,
            watched,
            met,
            first,
            again,
            foreign,
            left_of_base,
        };
        Ok((observation, plan::points(&calls)))
    }

    async fn start_again(&self, word: &str, id: &str, input: &str) -> anyhow::Result<End> {
        let name = format!("{word}-{id}");
        let ended = self.stage.start_by_hand(&name, input).await;
        self.end(id, ended).await
    }

    async fn end(&self, id: &str, ended: anyhow::Result<crate::Execution>) -> anyhow::Result<End> {
        let stage = &self.stage;
        let (active, left) = (stage.active().await?, stage.leftovers(id).await?);
        Ok(match ended {
            Ok(execution) => End {
                ending: execution.ending().to_owned(),
                switching: execution.entered("SwitchTraffic").is_some(),
                cause: execution.cause,
                active,
                left,
            },
            // That it does not end is what the invariants judge.
            Err(why) => End {
                cause: format!("{why:#}"),
                active,
                left,
                ..End::default()
            },
        })
    }

    /// Whether the fault befell a call; a slow call is waited for, since it takes effect late.
    async fn befell(&self, case: Option<&Case>, before: u64) -> bool {
        let Some(case) = case else {
            return false;
        };
        let asked_for = case.rules().len();
        let recorded = async || {
            let calls = self.stage.cloud.calls().since(before);
            Ok(calls.iter().filter(|call| call.fault.is_some()).count() == asked_for)
        };
        let limit = Duration::from_secs(8);
        self.stage.within(limit, recorded).await.is_ok()
    }

    /// Deletes a deployment by the function that does, and gives what is left of it.
    async fn delete(&self, id: &str) -> anyhow::Result<Vec<String>> {
        let function = format!("{}-delete-deployment", self.stage.environment);
        let path = format!("/2015-03-31/functions/{function}/invocations");
        let payload = json!({"deploymentId": id}).to_string();
        let deleted = self.stage.within(Duration::from_secs(60), async || {
            let client = self.stage.cloud.client();
            let answer = client
                .rest("lambda", Method::POST, &path, payload.clone().into())
                .await?;
            let answer: Value = serde_json::from_slice(&answer)?;
            match answer["verdict"].as_str() {
                Some(verdict) => Ok(verdict == "deleted"),
                None => anyhow::bail!("{answer}"),
            }
        });
        let deleted = deleted.await;
        let mut left = self.stage.leftovers(id).await?;
        left.extend(deleted.err().map(|why| format!("not deleted: {why:#}")));
        Ok(left)
    }

    /// Stops the local cloud.
    pub async fn strike(self) {
        self.stage.strike().await;
    }
}

/// What came of many runs.
#[derive(Debug, Default)]
pub struct Summary {
    /// Runs in which the fault befell its call, by fault and ending.
    pub run: BTreeMap<(&'static str, String), usize>,
    /// Cases whose call was not made in their run.
    pub not_reached: Vec<String>,
    /// Cases in which an invariant did not hold.
    pub violated: Vec<(String, Vec<Violation>)>,
    /// Cases that could not be run to their end.
    pub broken: Vec<String>,
}

impl Summary {
    /// Adds a run; gives one line about it.
    pub fn add(&mut self, case: &Case, observed: anyhow::Result<Observation>) -> String {
        let observation = match observed {
            Ok(observation) => observation,
            Err(why) => {
                let line = format!("{case}: could not be run: {why:#}");
                self.broken.push(line.clone());
                return line;
            }
        };
        let violations = observation.violations();
        let ending = observation.first.ending;
        let line = match (violations.is_empty(), observation.befell) {
            (true, true) => format!("{case}: held, {ending}"),
            (true, false) => format!("{case}: held, but no such call was made, {ending}"),
            (false, _) => format!("{case}: VIOLATED, {ending}\n  {}", lines(&violations)),
        };
        if observation.befell {
            let kind = plan::name_of(case.fault);
            *self.run.entry((kind, ending)).or_default() += 1;
        } else {
            self.not_reached.push(case.to_string());
        }
        if !violations.is_empty() {
            self.violated.push((case.to_string(), violations));
        }
        line
    }

    /// Whether every run was possible and every invariant held.
    pub fn holds(&self) -> bool {
        self.violated.is_empty() && self.broken.is_empty()
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let run: usize = self.run.values().sum();
        writeln!(
            f,
            "{run} faults befell a call; {} cases violated an invariant, {} did not reach their call, {} could not be run",
            self.violated.len(),
            self.not_reached.len(),
            self.broken.len()
        )?;
        for ((fault, ending), number) in &self.run {
            writeln!(f, "  {fault:<17} {ending:<15} {number}")?;
        }
        for (case, violations) in &self.violated {
            writeln!(f, "violated by {case}:\n  {}", lines(violations))?;
        }
        for case in &self.not_reached {
            writeln!(f, "not reached: {case}")?;
        }
        for case in &self.broken {
            writeln!(f, "not run: {case}")?;
        }
        Ok(())
    }
}

fn lines(violations: &[Violation]) -> String {
    let lines: Vec<_> = violations.iter().map(Violation::to_string).collect();
    lines.join("\n  ")
}
