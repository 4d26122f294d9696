//! Who is using this task: open WebSockets, and sessions that were opened and are not yet over.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

/// The cookie that holds a session's name.
pub const COOKIE: &str = "Sample-Session";

/// All sessions of this task.
#[derive(Debug)]
pub struct Sessions {
    idle: Duration,
    last_seen: Mutex<HashMap<String, Instant>>,
    sockets: Arc<AtomicUsize>,
    opened: AtomicU64,
    /// Keeps the names of two tasks apart.
    started: u128,
}

/// An open WebSocket; no longer counted when dropped.
#[derive(Debug)]
pub struct Socket(Arc<AtomicUsize>);

impl Drop for Socket {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Sessions {
    /// No sessions; each will be over after `idle` without a request.
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

    /// Opens a session; its name.
    pub fn open(&self) -> String {
        let number = self.opened.fetch_add(1, Ordering::SeqCst);
        let name = format!("{:x}-{number}", self.started);
        self.lock().insert(name.clone(), Instant::now());
        name
    }

    /// A request of this session came in. Whether the session is open.
    pub fn seen(&self, name: &str) -> bool {
        let mut last_seen = self.lock();
        match last_seen.get_mut(name) {
            Some(seen) if seen.elapsed() < self.idle => {
                *seen = Instant::now();
                true
            }
            _ => false,
        }
    }

    /// Ends a session.
    pub fn close(&self, name: &str) {
        self.lock().remove(name);
    }

    /// Counts a WebSocket for as long as the answer is kept.
    pub fn socket(&self) -> Socket {
        self.sockets.fetch_add(1, Ordering::SeqCst);
        Socket(self.sockets.clone())
    }

    /// How many WebSockets are open.
    pub fn open_sockets(&self) -> usize {
        self.sockets.load(Ordering::SeqCst)
    }

    /// How many sessions of either kind are active.
    pub fn active(&self) -> usize {
        let mut last_seen = self.lock();
        last_seen.retain(|_, seen| seen.elapsed() < self.idle);
        last_seen.len() + self.open_sockets()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Instant>> {
        self.last_seen.lock().unwrap_or_else(|p| p.into_inner())
    }
}
