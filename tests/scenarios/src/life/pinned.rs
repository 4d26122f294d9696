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
    /// The deployments whose visitors another one answered, and that one.
    pub moved: Vec<(String, String)>,
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
                    self.stays.moved.push((id.to_owned(), answer.deployment));
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
        self.moved.extend(other.moved);
        self.closed.extend(other.closed);
        self.noticed.extend(other.noticed);
    }

    /// What must not happen: everything noticed, a visitor who was moved although no rollback has `evicted` the deployment,
    /// and a WebSocket that was closed although none did that or replaced the tasks of its deployment, which is `restored`
    /// then.
    pub fn wrong(self, restored: &BTreeSet<String>, evicted: &BTreeSet<String>) -> Vec<String> {
        let closed = self.closed.into_iter();
        let closed = closed.filter(|(id, _)| !restored.contains(id) && !evicted.contains(id));
        let closed = closed.map(|(id, why)| format!("a WebSocket to {id} was closed: {why}"));
        let moved = self.moved.into_iter();
        let moved = moved.filter(|(id, _)| !evicted.contains(id));
        let moved = moved.map(|(id, by)| format!("a visitor of {id} was moved to {by}"));
        self.noticed
            .into_iter()
            .chain(moved)
            .chain(closed)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_was_evicted_is_moved_and_only_their_sockets_and_those_of_fresh_tasks_are_closed() {
        let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect();
        let stays = || Stays {
            moved: ["bad", "good"]
                .map(|id| (id.to_owned(), "active".to_owned()))
                .into(),
            closed: ["bad", "good", "fresh"]
                .map(|id| (id.to_owned(), "closed".to_owned()))
                .into(),
            ..Stays::default()
        };
        let wrong = stays().wrong(&ids(&["fresh"]), &ids(&["bad"]));
        let expected = [
            "a visitor of good was moved to active",
            "a WebSocket to good was closed: closed",
        ];
        assert_eq!(wrong, expected);
        let all = ids(&["bad", "good"]);
        assert_eq!(stays().wrong(&ids(&["fresh"]), &all), [""; 0]);
    }
}
