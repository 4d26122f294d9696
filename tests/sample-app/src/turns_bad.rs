//! An application that is well when it starts, and turns bad when a file appears.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::App;

/// How often it looks for the file.
const LOOK: Duration = Duration::from_millis(50);
/// One of so many requests fails.
const ONE_IN: usize = 3;

/// What a task does when it has turned bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bad {
    /// It ends with exit code 3.
    Crashes,
    /// It answers health checks with 500.
    IsUnhealthy,
    /// It answers a third of its visitors with 500.
    Fails,
}

impl FromStr for Bad {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "crash" => Ok(Bad::Crashes),
            "unhealthy" => Ok(Bad::IsUnhealthy),
            "fail" => Ok(Bad::Fails),
            _ => Err("must be crash, unhealthy or fail"),
        }
    }
}

/// When a task turns bad, and what it does then.
#[derive(Debug, Clone)]
pub struct TurnsBad {
    /// The file.
    pub when: PathBuf,
    /// What it does.
    pub into: Bad,
}

impl TurnsBad {
    /// Whether it has turned into that.
    pub(crate) fn is(&self, bad: Bad) -> bool {
        self.into == bad && self.when.exists()
    }

    /// Returns when it has to crash, and never if it does not crash.
    pub async fn crash(&self) {
        while !self.is(Bad::Crashes) {
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// Middleware. Fails some requests once it has turned bad.
pub(crate) async fn fail(State(app): State<App>, request: Request, next: Next) -> Response {
    static SERVED: AtomicUsize = AtomicUsize::new(0);
    let turns_bad = app.settings.behaviour.turns_bad.as_ref();
    let is_failing = turns_bad.is_some_and(|it| it.is(Bad::Fails));
    if is_failing
        && SERVED
            .fetch_add(1, Ordering::Relaxed)
            .is_multiple_of(ONE_IN)
    {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    next.run(request).await
}
