//! Visitors who stay on the version that they arrived at, with its cookie and an open WebSocket.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::draw::Draw;
use crate::visitors::Pin;
use crate::websocket::{Door, Socket};
use crate::{TestEnvironment, Visitor};

/// How long a visitor does nothing between two requests.
const PAUSE: Duration = Duration::from_secs(1);

/// A visitor who arrives, stays for a while and arrives again, until [`Pinned::leave`].
pub struct Pinned {
    task: JoinHandle<Stays>,
    leave: watch::Sender<bool>,
}

/// What visitors saw.
#[derive(Debug, Default)]
pub struct Stays {
    /// How many times they arrived.
    pub arrivals: usize,
    /// How many requests with their cookie were answered.
    pub answers: usize,
    /// The deployments of WebSockets that were closed, and why.
    pub closed: Vec<(String, String)>,
    /// What must not happen to visitors.
    pub noticed: Vec<String>,
}

impl Pinned {
    /// A visitor arrives.
    ///
    /// # Errors
    /// As [`Visitor::of`].
    pub fn arrive(env: &TestEnvironment, draw: Draw) -> anyhow::Result<Pinned> {
        let (leave, leaving) = watch::channel(false);
        let browser = Browser {
            visitor: Visitor::of(env)?,
            door: Door::of(env)?,
            leaving,
            stays: Stays::default(),
        };
        let task = tokio::spawn(browser.live(draw));
        Ok(Pinned { task, leave })
    }

    /// The visitor leaves, which ends its session.
    ///
    /// # Errors
    /// When the visitor itself failed.
    pub async fn leave(self) -> anyhow::Result<Stays> {
        self.leave.send_replace(true);
        Ok(self.task.await?)
    }
}

struct Browser {
    visitor: Visitor,
    door: Door,
    leaving: watch::Receiver<bool>,
    stays: Stays,
}

impl Browser {
    async fn live(mut self, mut draw: Draw) -> Stays {
        while !self.leaves().await {
            match self.visitor.visit(&Pin::None).await {
                // A deployment that drains gives no cookie.
                Ok(answer) => match answer.cookie {
                    Some(id) => self.stay(&id, draw.stay()).await,
                    None => continue,
                },
                Err(why) => self.notice(format!("a new visitor got no answer: {why:#}")),
            }
        }
        self.stays
    }

    /// Waits until the next request. Returns whether the visitor leaves instead.
    async fn leaves(&mut self) -> bool {
        let leaving = self.leaving.wait_for(|leaving| *leaving);
        timeout(PAUSE, leaving).await.is_ok()
    }

    async fn stay(&mut self, id: &str, length: Duration) {
        let begun = Instant::now();
        self.stays.arrivals += 1;
        let mut socket = self.open(id).await;
        while begun.elapsed() < length && !self.leaves().await {
            match self.visitor.visit(&Pin::Cookie(id.to_owned())).await {
                Ok(answer) if answer.deployment == id => self.stays.answers += 1,
                Ok(answer) => {
                    let by = answer.deployment;
                    self.notice(format!("a visitor of {id} was moved to {by}"));
                    break;
                }
                Err(why) => self.notice(format!("a visitor of {id} got no answer: {why:#}")),
            }
            let talked = match &mut socket {
                Some(open) => open.talk("still here").await,
                None => Ok(()),
            };
            if let Err(why) = talked {
                self.stays.closed.push((id.to_owned(), format!("{why:#}")));
                socket = None;
            }
            if socket.is_none() {
                socket = self.open(id).await;
            }
        }
        if let Some(open) = socket {
            // It may have been closed since the last word.
            let _ = open.close().await;
        }
    }

    async fn open(&mut self, id: &str) -> Option<Socket> {
        match self.door.open(id).await {
            Ok(socket) => Some(socket),
            Err(why) => {
                self.notice(format!("a visitor of {id} got no WebSocket: {why:#}"));
                None
            }
        }
    }

    fn notice(&mut self, what: String) {
        self.stays.noticed.push(what);
    }
}

impl Stays {
    /// Adds what another visitor saw.
    pub fn merge(&mut self, other: Stays) {
        self.arrivals += other.arrivals;
        self.answers += other.answers;
        self.closed.extend(other.closed);
        self.noticed.extend(other.noticed);
    }

    /// What must not happen: everything noticed, and a WebSocket that was closed although no rollback
    /// replaced the tasks of its deployment, which is `restored` then.
    pub fn wrong(self, restored: &BTreeSet<String>) -> Vec<String> {
        let closed = self.closed.into_iter();
        let closed = closed.filter(|(id, _)| !restored.contains(id));
        let closed = closed.map(|(id, why)| format!("a WebSocket to {id} was closed: {why}"));
        self.noticed.into_iter().chain(closed).collect()
    }
}
