//! Everybody who would notice: new visitors, people on a version, and a watcher of the default action.

use std::collections::BTreeSet;

use anyhow::ensure;

use crate::faults::watcher::Watcher;
use crate::visitors::Pin;
use crate::{TestEnvironment, Traffic};

/// Requests per second.
const TRAFFIC: u32 = 30;

/// Visitors and the watcher, from the beginning of something to its end.
pub struct Observers {
    traffic: Traffic,
    watcher: Watcher,
    kept: BTreeSet<String>,
}

impl Observers {
    /// New visitors, and people who are on each of these deployments by header and by cookie.
    ///
    /// # Errors
    /// When there is no listener.
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

    /// From now on, people are on this deployment too; it may be deleted, and then they are answered
    /// by the active one.
    pub fn also_on(&self, id: &str) {
        self.traffic.also(Pin::Cookie(id.to_owned()));
    }

    /// Ends it. Gives how many requests were answered.
    ///
    /// # Errors
    /// When a request failed, somebody who is on a deployment met another one, or the default action
    /// named a target group without a healthy target; or when nobody was there to see it.
    pub async fn finish(self) -> anyhow::Result<usize> {
        let watched = self.watcher.stop();
        let (tally, _) = self.traffic.stop().await?;
        ensure!(
            tally.failed.is_empty(),
            "visitors failed: {:#?}",
            tally.failed
        );
        ensure!(
            watched.wrong.is_empty(),
            "the default action led nowhere: {:#?}",
            watched.wrong
        );
        ensure!(watched.checks > 0, "nobody watched the default action");
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
