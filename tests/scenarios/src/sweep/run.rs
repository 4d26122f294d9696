//! What every run of the sweep has around it: visitors, a watcher, and the trouble.

use std::time::Duration;

use super::broken_function::{PANICKING, break_function, mend_function};
use super::first_looks::FirstLooks;
use super::invariants::{End, NEVER_STARTED, Observation, Welcome};
use super::plan::{self, Case, Point};
use super::watcher::Watcher;
use super::{Foreign, Sweep};
use crate::{Execution, Stage, Steady};

/// Requests per second during a run.
const TRAFFIC: u32 = 20;

/// A run that is under way.
pub struct Run<'a> {
    stage: &'a Stage,
    foreign: &'a Foreign,
    case: &'a Case,
    welcome: Vec<Welcome>,
    traffic: Steady,
    watcher: Watcher,
    first_looks: Option<FirstLooks>,
    foreign_before: String,
    before: u64,
}

/// What a run was like from the outside.
pub struct Seen {
    /// Whether all that was to go wrong did.
    pub befell: bool,
    /// The calls that can fail in such a run.
    pub points: Vec<Point>,
}

impl<'a> Run<'a> {
    /// Lets visitors come, who may be answered as `welcome` says, and watches.
    ///
    /// # Errors
    /// When the state before cannot be read.
    pub async fn begin(
        sweep: &'a Sweep,
        case: &'a Case,
        welcome: Vec<Welcome>,
    ) -> anyhow::Result<Run<'a>> {
        let (stage, foreign) = (&sweep.stage, &sweep.foreign);
        let pins = welcome.iter().map(|(pin, _)| pin.clone()).collect();
        Ok(Run {
            foreign_before: foreign.described(stage).await?,
            traffic: Steady::traffic(stage, TRAFFIC, pins)?,
            watcher: Watcher::of(stage, sweep.listener.clone()),
            first_looks: None,
            before: stage.cloud.calls().newest(),
            stage,
            foreign,
            case,
            welcome,
        })
    }

    /// From now on things go wrong; what was called until now does not count.
    ///
    /// # Errors
    /// When a function cannot be exchanged.
    pub async fn trouble(&mut self) -> anyhow::Result<()> {
        if let Some(function) = self.case.panicking() {
            break_function(self.stage, function, PANICKING).await?;
        }
        self.before = self.stage.cloud.calls().newest();
        self.first_looks = Some(FirstLooks::hold(self.stage));
        for rule in self.case.rules(&self.stage.environment) {
            self.stage.cloud.faults().add(rule);
        }
        Ok(())
    }

    /// From now on nothing goes wrong any more.
    ///
    /// # Errors
    /// When a function cannot be mended.
    pub async fn over(&mut self) -> anyhow::Result<Seen> {
        self.first_looks = None;
        self.stage.cloud.faults().clear();
        if let Some(function) = self.case.panicking() {
            mend_function(self.stage, function).await?;
        }
        let Stage {
            cloud, environment, ..
        } = self.stage;
        let points = plan::points(
            self.case.workflow,
            environment,
            &cloud.calls().since(self.before),
        );
        let befell = self.befell().await;
        Ok(Seen { befell, points })
    }

    /// Whether every fault befell a call; a slow call is waited for, since it takes effect late.
    async fn befell(&self) -> bool {
        let asked_for = self.case.rules(&self.stage.environment).len();
        let recorded = async || {
            let calls = self.stage.cloud.calls().since(self.before);
            Ok(calls.iter().filter(|call| call.fault.is_some()).count() == asked_for)
        };
        let limit = Duration::from_secs(8);
        self.stage.within(limit, recorded).await.is_ok()
    }

    /// How an execution ended, if one began, and what is there of `doomed` now.
    ///
    /// # Errors
    /// When that cannot be read; that the execution did not end is for the invariants to judge.
    pub async fn end(
        &self,
        ended: anyhow::Result<Option<Execution>>,
        doomed: &str,
    ) -> anyhow::Result<End> {
        let active = self.stage.active().await?;
        let left = self.stage.leftovers(doomed).await?;
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

    /// Sends the visitors home and tells what was seen, by them and of the executions.
    ///
    /// # Errors
    /// When the state after cannot be read.
    pub async fn finish(self, befell: bool, story: Story) -> anyhow::Result<Observation> {
        let watched = self.watcher.stop();
        let (met, _) = self.traffic.stop().await?;
        let foreign_after = self.foreign.described(self.stage).await?;
        let Story {
            before,
            after,
            first,
            due,
            again,
        } = story;
        Ok(Observation {
            case: self.case.clone(),
            befell,
            before,
            after,
            welcome: self.welcome,
            watched,
            met,
            first,
            due,
            again,
            foreign: (self.foreign_before, foreign_after),
            left: Vec::new(),
        })
    }
}

/// What the executions of a run came to; the fields are those of [`Observation`].
pub struct Story {
    /// Active before.
    pub before: String,
    /// Active after, if all is well.
    pub after: String,
    /// The end of the execution in which something went wrong.
    pub first: End,
    /// What one cleanup left to do.
    pub due: Vec<String>,
    /// The end of the one that was started again.
    pub again: End,
}
