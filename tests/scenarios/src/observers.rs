//! Everything that notices a disturbance: new visitors, pinned visitors, and a watcher of the default action.

use std::collections::BTreeSet;

use anyhow::ensure;

use crate::faults::watcher::Watcher;
use crate::visitors::Pin;
use crate::{TestEnvironment, Traffic};

/// Requests per second.
const TRAFFIC: u32 = 30;

/// Visitors and the watcher. They observe until [`Observers::finish`].
pub struct Observers {
    traffic: Traffic,
    watcher: Watcher,
    kept: BTreeSet<String>,
}

impl Observers {
    /// Starts with new visitors, and with visitors who are pinned to each of `kept` by header and by cookie.
    ///
    /// # Errors
    /// When the listener does not exist.
    pub async fn on(env: &TestEnvironment, kept: &[&str]) -> anyhow::Result<Observers> {
        let observers = Observers {
            traffic: Traffic::start(env, TRAFFIC, vec![Pin::None])?,
            watcher: Watcher::of(env, env.listener_arn().await?),
            kept: kept.iter().map(|id| (*id).to_owned()).collect(),
        };
        for id in &observers.kept {
            observers.traffic.also(Pin::Header(id.clone()));
            observers.traffic.also(Pin::Cookie(id.clone()));
        }
        Ok(observers)
    }

    /// Adds visitors who are pinned to a deployment that may be deleted. The active one answers them then.
    pub fn also_on(&self, id: &str) {
        self.traffic.also(Pin::Cookie(id.to_owned()));
    }

    /// Stops observing; returns how many requests were answered.
    ///
    /// # Errors
    /// When a request failed, another deployment answered a pinned visitor, or the default action named
    /// a target group without a healthy target. Also when nothing was observed at all.
    pub async fn finish(self) -> anyhow::Result<usize> {
        let watched = self.watcher.stop();
        let (tally, _) = self.traffic.stop().await?;
        ensure!(
            tally.failed.is_empty(),
            "requests failed: {:#?}",
            tally.failed
        );
        ensure!(
            watched.wrong.is_empty(),
            "the default action led nowhere: {:#?}",
            watched.wrong
        );
        ensure!(watched.checks > 0, "the default action was never checked");
        ensure!(tally.answers() > 0, "no visitor was answered");
        for id in &self.kept {
            for pin in [Pin::Header(id.clone()), Pin::Cookie(id.clone())] {
                let answering = tally.answered_by(&pin, 0, 0);
                ensure!(
                    answering == BTreeSet::from([id.as_str()]),
                    "{pin:?} was answered by {answering:?}"
                );
            }
        }
        Ok(tally.answers())
    }
}
