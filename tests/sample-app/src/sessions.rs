//! The active sessions of this task: open WebSockets, and opened sessions that have not ended.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// The cookie with the name of the session.
pub const COOKIE: &str = "Sample-Session";

/// All sessions of this task.
#[derive(Debug)]
pub struct Sessions {
    idle: Duration,
    last_seen: Mutex<HashMap<String, Instant>>,
    sockets: Arc<AtomicUsize>,
    opened: AtomicU64,
    /// The start of the task, which makes the session names of two tasks different.
    started: u128,
}

/// An open WebSocket. It counts as active until this is dropped.
#[derive(Debug)]
pub struct Socket(Arc<AtomicUsize>);

impl Drop for Socket {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Sessions {
    /// Starts without sessions. Each session ends after `idle` without a request.
    pub fn new(idle: Duration) -> Self {
        let started = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Sessions {
            idle,
            last_seen: Mutex::default(),
            sockets: Arc::default(),
            opened: AtomicU64::new(0),
            started: started.unwrap_or_default().as_nanos(),
        }
    }

    /// Opens a session and returns its name.
    pub fn open(&self) -> String {
        let number = self.opened.fetch_add(1, Ordering::SeqCst);
        let name = format!("{:x}-{number}", self.started);
        self.lock().insert(name.clone(), Instant::now());
        name
    }

    /// Records a request of a session. Returns whether the session is open.
    pub fn touch(&self, name: &str) -> bool {
        let mut last_seen = self.lock();
        match last_seen.get_mut(name) {
            Some(seen) if seen.elapsed() < self.idle => {
                *seen = Instant::now();
                true
            }
            _ => false,
        }
    }

    pub fn close(&self, name: &str) {
        self.lock().remove(name);
    }

    /// Counts a WebSocket until the returned value is dropped.
    pub fn socket(&self) -> Socket {
        self.sockets.fetch_add(1, Ordering::SeqCst);
        Socket(self.sockets.clone())
    }

    pub fn open_sockets(&self) -> usize {
        self.sockets.load(Ordering::SeqCst)
    }

    /// The number of active sessions of both kinds.
    pub fn active(&self) -> usize {
        let mut last_seen = self.lock();
        last_seen.retain(|_, seen| seen.elapsed() < self.idle);
        last_seen.len() + self.open_sockets()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Instant>> {
        self.last_seen.lock().unwrap_or_else(|p| p.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_session_counts_until_it_has_been_idle_for_its_time() {
        let sessions = Sessions::new(Duration::from_secs(300));
        let name = sessions.open();
        for _ in 0..4 {
            tokio::time::advance(Duration::from_secs(299)).await;
            assert_eq!(sessions.active(), 1);
            assert!(sessions.touch(&name));
        }
        tokio::time::advance(Duration::from_secs(300)).await;
        assert!(!sessions.touch(&name));
        assert_eq!(sessions.active(), 0);
    }
}
