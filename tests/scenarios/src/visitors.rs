//! Visitors: clients that send requests through the load balancer as browsers do, and count failures.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Context, ensure};
use reqwest::header::{COOKIE, HeaderMap, SET_COOKIE};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};

use crate::TestEnvironment;

/// The header and the cookie that pin a request to a deployment.
pub const AFFINITY: &str = "X-Pulse-Render-Affinity";

/// The header in which the sample application says how many requests were in line.
const IN_LINE: &str = "Sample-In-Line";

/// How long a visitor waits for an answer: the idle timeout of the load balancer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// How a request names the deployment that it is pinned to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pin {
    /// It names none: a new visitor.
    None,
    /// By the header.
    Header(String),
    /// By the cookie that an earlier answer set.
    Cookie(String),
    /// By a header, although an earlier answer set a cookie.
    HeaderOverCookie {
        /// The deployment in the header.
        header: String,
        /// The deployment in the cookie.
        cookie: String,
    },
}

/// An HTTP client with connections of its own.
#[derive(Debug, Clone)]
pub struct Visitor {
    pub(crate) http: reqwest::Client,
    pub(crate) url: String,
}

/// The answer to a request.
#[derive(Debug)]
pub struct Answer {
    /// The deployment that answered.
    pub deployment: String,
    /// The deployment in the cookie that the answer set, if it set one.
    pub cookie: Option<String>,
    /// How many requests were in line at the task, if its capacity is limited; 0 if this one was served at once.
    pub in_line: Option<usize>,
}

impl Visitor {
    /// A client that trusts the load balancer's throw-away certificate.
    ///
    /// # Errors
    /// When the certificate cannot be read.
    pub fn of(env: &TestEnvironment) -> anyhow::Result<Visitor> {
        let certificate =
            reqwest::Certificate::from_pem(env.load_balancer.certificate_pem().as_bytes())?;
        let http = reqwest::Client::builder()
            .tls_certs_only([certificate])
            .redirect(reqwest::redirect::Policy::none())
            .timeout(REQUEST_TIMEOUT)
            .build()?;
        Ok(Visitor {
            http,
            url: env.url(),
        })
    }

    /// Requests the front page.
    ///
    /// # Errors
    /// When there is no answer, or its status is an error.
    pub async fn visit(&self, pin: &Pin) -> anyhow::Result<Answer> {
        let (header, cookie) = match pin {
            Pin::None => (None, None),
            Pin::Header(id) => (Some(id), None),
            Pin::Cookie(id) => (None, Some(id)),
            Pin::HeaderOverCookie { header, cookie } => (Some(header), Some(cookie)),
        };
        let mut headers = HeaderMap::new();
        if let Some(id) = header {
            headers.insert(AFFINITY, id.parse()?);
        }
        if let Some(id) = cookie {
            headers.insert(COOKIE, format!("theme=dark; {AFFINITY}={id}").parse()?);
        }
        let answer = self
            .http
            .get(&self.url)
            .headers(headers)
            .send()
            .await?
            .error_for_status()?;
        let cookie = answer
            .headers()
            .get(SET_COOKIE)
            .map(|value| value.to_str())
            .transpose()?
            .map(|value| {
                let value = value.split(';').next().unwrap_or_default();
                value.trim_start_matches(&format!("{AFFINITY}=")).to_owned()
            });
        let in_line = answer.headers().get(IN_LINE);
        let in_line = in_line
            .map(|value| anyhow::Ok(value.to_str()?.parse()?))
            .transpose()?;
        let body: serde_json::Value = serde_json::from_str(&answer.text().await?)?;
        let deployment = body["deploymentId"]
            .as_str()
            .context("an answer without a deployment id")?
            .to_owned();
        Ok(Answer {
            deployment,
            cookie,
            in_line,
        })
    }
}

/// The results of steady traffic.
#[derive(Debug, Default, Clone)]
pub struct Tally {
    /// The number of requests sent.
    pub sent: usize,
    /// The number of answers, by pin and answering deployment.
    pub answered: BTreeMap<(Pin, String), usize>,
    /// The answers of each phase. A request belongs to the phase in which it was sent.
    pub phases: Vec<Phase>,
    /// Every failure, with the seconds since the start.
    pub failed: Vec<String>,
}

/// The answers to the requests that were sent in a phase of steady traffic.
#[derive(Debug, Default, Clone)]
pub struct Phase {
    /// Their number, by pin and answering deployment.
    pub answered: BTreeMap<(Pin, String), usize>,
    /// How many of the requests waited in line at their task, because it was full.
    pub waited: usize,
    /// How long each took since it was due, in no order. A request that is sent late, because too many are in flight,
    /// takes longer.
    pub took: Vec<Duration>,
}

impl Phase {
    /// The time within which so many of a hundred requests were answered. Zero without answers.
    pub fn percentile(&self, percent: usize) -> Duration {
        let mut took = self.took.clone();
        took.sort();
        let rank = (took.len() * percent).div_ceil(100);
        took.get(rank.saturating_sub(1))
            .copied()
            .unwrap_or_default()
    }

    /// The share of the requests that waited in line, in percent, or 100 without answers.
    pub fn waited_percent(&self) -> usize {
        (100 * self.waited)
            .checked_div(self.took.len())
            .unwrap_or(100)
    }
}

impl Tally {
    /// The deployments that answered requests with this pin in the phases `first` to `last`, counted
    /// from 0.
    pub fn answered_by(&self, pin: &Pin, first: usize, last: usize) -> BTreeSet<&str> {
        let phases = self.phases.iter().take(last + 1).skip(first);
        phases
            .flat_map(|phase| phase.answered.keys())
            .filter(|(sent, _)| sent == pin)
            .map(|(_, deployment)| deployment.as_str())
            .collect()
    }

    /// How many requests were answered.
    pub fn answers(&self) -> usize {
        self.answered.values().sum()
    }
}

/// How many clients send the steady traffic.
const CLIENTS: usize = 8;

/// How many requests may be in flight at once. A machine that cannot keep up sends fewer, and those are
/// answered.
const MAX_IN_FLIGHT: usize = 4 * CLIENTS;

/// Steady traffic in the background.
pub struct Traffic {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

/// What the sender and the owner of steady traffic share.
struct Shared {
    visitors: Vec<Visitor>,
    in_flight: usize,
    pins: Mutex<Vec<Pin>>,
    tally: Mutex<Tally>,
    stop: Notify,
    started: Instant,
}

impl Traffic {
    /// Sends `per_second` requests each second, with each of `pins` in turn, until it is stopped.
    ///
    /// # Errors
    /// As [`Visitor::of`].
    pub fn start(
        env: &TestEnvironment,
        per_second: u32,
        pins: Vec<Pin>,
    ) -> anyhow::Result<Traffic> {
        Self::with_in_flight(env, per_second, pins, MAX_IN_FLIGHT)
    }

    /// The same, with so many requests in flight at most.
    ///
    /// # Errors
    /// As [`Visitor::of`].
    pub fn with_in_flight(
        env: &TestEnvironment,
        per_second: u32,
        pins: Vec<Pin>,
        in_flight: usize,
    ) -> anyhow::Result<Traffic> {
        let visitors: anyhow::Result<_> = (0..CLIENTS).map(|_| Visitor::of(env)).collect();
        let shared = Arc::new(Shared {
            visitors: visitors?,
            in_flight,
            pins: Mutex::new(pins),
            tally: Mutex::new(Tally {
                phases: vec![Phase::default()],
                ..Tally::default()
            }),
            stop: Notify::new(),
            started: Instant::now(),
        });
        let task = tokio::spawn(Arc::clone(&shared).send(per_second));
        Ok(Traffic { shared, task })
    }

    /// Adds a pin to those of the requests.
    pub fn also(&self, pin: Pin) {
        lock(&self.shared.pins).push(pin);
    }

    /// Starts a new phase of the tally.
    pub fn next_phase(&self) {
        lock(&self.shared.tally).phases.push(Phase::default());
    }

    /// Waits until as many requests of this phase as that are answered for each pin.
    ///
    /// # Errors
    /// When any request fails.
    pub async fn each_is_answered(&self, times: usize) -> anyhow::Result<()> {
        loop {
            let tally = lock(&self.shared.tally).clone();
            ensure!(
                tally.failed.is_empty(),
                "requests failed: {:#?}",
                tally.failed
            );
            let phase = tally.phases.last().context("no phase")?;
            let answers = |pin: &Pin| -> usize {
                let of_it = phase.answered.iter().filter(|((sent, _), _)| sent == pin);
                of_it.map(|(_, count)| count).sum()
            };
            let pins = lock(&self.shared.pins).clone();
            if pins.iter().all(|pin| answers(pin) >= times) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Stops sending and waits for the last answer. Returns the tally, and the average number of requests
    /// per second until that answer.
    ///
    /// # Errors
    /// When the sender itself failed.
    pub async fn stop(self) -> anyhow::Result<(Tally, f64)> {
        self.shared.stop.notify_one();
        self.task.await?;
        let tally = lock(&self.shared.tally).clone();
        let rate = tally.sent as f64 / self.shared.started.elapsed().as_secs_f64();
        Ok((tally, rate))
    }
}

impl Shared {
    async fn send(self: Arc<Self>, per_second: u32) {
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / per_second);
        // Late ticks are caught up on, so that the rate holds over the whole run.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut requests = JoinSet::new();
        for number in 0.. {
            let due = tokio::select! {
                _ = self.stop.notified() => break,
                due = ticks.tick() => due,
            };
            if requests.len() >= self.in_flight {
                requests.join_next().await;
            }
            let pin = {
                let pins = lock(&self.pins);
                pins[number % pins.len()].clone()
            };
            let phase = {
                let mut tally = lock(&self.tally);
                tally.sent += 1;
                tally.phases.len() - 1
            };
            requests.spawn(Arc::clone(&self).visit(number, pin, phase, due));
            while requests.try_join_next().is_some() {}
        }
        while requests.join_next().await.is_some() {}
    }

    async fn visit(self: Arc<Self>, number: usize, pin: Pin, phase: usize, due: Instant) {
        let answer = self.visitors[number % self.visitors.len()]
            .visit(&pin)
            .await;
        let mut tally = lock(&self.tally);
        match answer {
            Ok(Answer {
                deployment,
                in_line,
                ..
            }) => {
                let key = (pin, deployment);
                let phase = &mut tally.phases[phase];
                *phase.answered.entry(key.clone()).or_default() += 1;
                phase.waited += usize::from(in_line.is_some_and(|number| number > 0));
                phase.took.push(due.elapsed());
                *tally.answered.entry(key).or_default() += 1;
            }
            Err(why) => {
                let second = self.started.elapsed().as_secs_f64();
                tally
                    .failed
                    .push(format!("{second:.1} s: {pin:?}: {why:#}"));
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic while counting")
}
