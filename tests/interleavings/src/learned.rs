//! What a function does after each sequence of answers, learned by running the real code once for each.

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use delete_deployment::Verdict;
use lifecycle::defaults::SWITCH_IN_FLIGHT;
use lifecycle::sdk::Clients;
use lifecycle::{DeploymentId, Settings, StepError, tags};
use memory_aws::RetryConfig;
use switch_traffic::Outcome;
use time::Duration;

use crate::call::{Answer, Call, Deployment, NOW, RESTORED_AT, group_arn, id, name};

/// One invocation of a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Invocation {
    /// `switch-traffic`.
    Switch {
        /// The deployment to switch to.
        deployment: Deployment,
        /// The deployments that it replaces, as bits, if it is a rollback.
        roll_back: Option<u8>,
        /// Whether the rollback has marked its target with `pulse:restoring-since`.
        restored: bool,
    },
    /// `switch-traffic`, which takes the marks of a failed rollback back.
    TakeBack {
        /// The target of the rollback.
        deployment: Deployment,
        /// What it would have replaced, as bits.
        replaced: u8,
        /// What was active when it began.
        active: Option<Deployment>,
    },
    /// `restore-deployment`.
    Restore {
        /// The deployment to bring back.
        deployment: Deployment,
    },
    /// `drain-deployment`.
    Drain {
        /// The deployment to drain.
        deployment: Deployment,
    },
    /// `delete-deployment`.
    Delete {
        /// The deployment to delete.
        deployment: Deployment,
        /// Whether it is the undo of a candidate.
        only_if_never_live: bool,
    },
}

/// How a function ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "named after the outcomes of the functions")]
pub enum Ending {
    Switched,
    Superseded,
    Unhealthy,
    TakenBack,
    Deleted,
    Deleting,
    /// The sweep has asked the tasks to drain.
    Asked,
    /// There was no task to ask.
    Drained,
    /// The target of a rollback can be switched to, or can once its fresh tasks are healthy.
    Restored {
        fresh: bool,
        replaced: u8,
    },
    /// With an error of that name.
    Failed(&'static str),
}

impl From<StepError> for Ending {
    fn from(error: StepError) -> Ending {
        Ending::Failed(error.name.as_str())
    }
}

/// Starts a function.
pub type Code = Box<dyn Fn(Invocation, Clients) -> Run>;
/// A running function.
pub type Run = Pin<Box<dyn Future<Output = Ending>>>;

/// The functions as they are shipped.
pub fn shipped() -> Code {
    Box::new(|invocation, clients| Box::pin(run(invocation, clients)))
}

async fn run(invocation: Invocation, clients: Clients) -> Ending {
    let settings = Settings::for_tests();
    match invocation {
        Invocation::Switch {
            deployment,
            roll_back,
            restored,
        } => {
            let input = switch_traffic::Input {
                roll_back: roll_back.is_some(),
                replaced: roll_back.map(ids),
                restoring_since: restored.then(|| tags::timestamp(RESTORED_AT)),
                ..to_switch(deployment)
            };
            switch(&clients, input).await
        }
        Invocation::TakeBack {
            deployment,
            replaced,
            active,
        } => {
            let input = switch_traffic::Input {
                roll_back: true,
                take_back: true,
                replaced: Some(ids(replaced)),
                replaced_deployment_id: active.map(id),
                ..to_switch(deployment)
            };
            switch(&clients, input).await
        }
        Invocation::Restore { deployment } => {
            let input = restore_deployment::Input {
                deployment_id: Some(id(deployment)),
            };
            match restore_deployment::run(&clients, &settings, &|| RESTORED_AT, input).await {
                Ok(output) => Ending::Restored {
                    fresh: output.restored,
                    replaced: bits(&output.replaced),
                },
                Err(error) => error.into(),
            }
        }
        Invocation::Drain { deployment } => {
            let input = drain_deployment::Input {
                deployment_id: id(deployment),
                target_group_arn: group_arn(&name(deployment)),
            };
            let clients = drain_deployment::Clients {
                ecs: clients.ecs,
                elb: clients.elb,
                secrets: clients.secrets,
                http: drain_deployment::drain_request::client(),
            };
            match drain_deployment::run(&clients, &settings, &|| NOW, input).await {
                Ok(output) => match output.verdict {
                    drain_deployment::Verdict::Draining => Ending::Asked,
                    _ => Ending::Drained,
                },
                Err(error) => error.into(),
            }
        }
        Invocation::Delete {
            deployment,
            only_if_never_live,
        } => {
            let input = delete_deployment::Input {
                deployment_id: id(deployment),
                only_if_never_live,
                execution: None,
                state_machine: None,
                only_if_draining: false,
                only_rules: false,
                force: false,
            };
            // The time of this world stands still at `NOW`, so a deletion that finds its own mark would
            // wait for ever for the switches in flight. The exploration does this wait instead.
            let now = NOW + SWITCH_IN_FLIGHT;
            let settings = delete_deployment::Settings {
                baseline: settings,
                settle: Duration::ZERO,
            };
            match delete_deployment::run(&clients, &settings, &|| now, input).await {
                Ok(output) => match output.verdict {
                    Verdict::Deleted => Ending::Deleted,
                    Verdict::Deleting | Verdict::Unrouted => Ending::Deleting,
                },
                Err(error) => error.into(),
            }
        }
    }
}

fn to_switch(deployment: Deployment) -> switch_traffic::Input {
    switch_traffic::Input {
        deployment_id: id(deployment),
        target_group_arn: group_arn(&name(deployment)),
        roll_back: false,
        replaced: None,
        replaced_deployment_id: None,
        take_back: false,
        restoring_since: None,
        was_rolled_back: false,
        repair: false,
    }
}

async fn switch(clients: &Clients, input: switch_traffic::Input) -> Ending {
    let settings = Settings::for_tests();
    match switch_traffic::run(&clients.elb, &clients.secrets, &settings, &|| NOW, input).await {
        Ok(output) => match output.outcome {
            Outcome::Switched => Ending::Switched,
            Outcome::Superseded => Ending::Superseded,
            Outcome::Unhealthy | Outcome::RolledBack => Ending::Unhealthy,
            Outcome::TakenBack => Ending::TakenBack,
            Outcome::NotNeeded => unreachable!("no repair is explored"),
        },
        Err(error) => error.into(),
    }
}

/// The ids of these deployments, given as bits.
fn ids(deployments: u8) -> Vec<DeploymentId> {
    let numbers = (0..8).filter(|number| deployments & (1 << number) != 0);
    numbers.map(id).collect()
}

/// The deployments with these ids, as bits.
fn bits(deployments: &[DeploymentId]) -> u8 {
    let numbers = (0..8).filter(|number| deployments.contains(&id(*number)));
    numbers.map(|number| 1 << number).sum()
}

/// What a function does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// It makes this call.
    Calls(Call),
    /// It has ended.
    Ends(Ending),
}

/// A point in the run of a function: the invocation, and every answer that it received so far.
pub type Point = usize;

struct Known {
    next: Next,
    before: Option<(Point, Answer)>,
    invocation: Invocation,
    after: HashMap<Answer, Point>,
    /// The run itself, until it receives an answer: it can continue with only one.
    suspended: Option<Suspended>,
    acts_on_tags: bool,
    met_a_failure: bool,
}

/// All points that were reached so far, by number.
pub struct Learned {
    code: Code,
    known: Vec<Known>,
    beginnings: HashMap<Invocation, Point>,
    /// How many calls the code has made for that.
    pub calls: usize,
}

impl Learned {
    /// Knows nothing of that code yet.
    pub fn new(code: Code) -> Learned {
        Learned {
            code,
            known: Vec::new(),
            beginnings: HashMap::new(),
            calls: 0,
        }
    }

    /// The number of points that were reached.
    pub fn points(&self) -> usize {
        self.known.len()
    }

    /// What the function does at that point.
    pub fn next(&self, point: Point) -> &Next {
        &self.known[point].next
    }

    /// Whether the run has read tags and not modified the listener since: it may switch by them.
    pub fn acts_on_tags(&self, point: Point) -> bool {
        self.known[point].acts_on_tags
    }

    /// Whether AWS has answered the run with a failure.
    pub fn met_a_failure(&self, point: Point) -> bool {
        self.known[point].met_a_failure
    }

    /// The point at which an invocation begins.
    pub fn begin(&mut self, invocation: Invocation) -> Point {
        if let Some(point) = self.beginnings.get(&invocation) {
            return *point;
        }
        let (suspended, next) = self.start(invocation);
        let point = self.remember(Known {
            next,
            before: None,
            invocation,
            after: HashMap::new(),
            suspended: Some(suspended),
            acts_on_tags: false,
            met_a_failure: false,
        });
        self.beginnings.insert(invocation, point);
        point
    }

    /// The point after this answer.
    pub fn after(&mut self, point: Point, answer: &Answer) -> Point {
        if let Some(after) = self.known[point].after.get(answer) {
            return *after;
        }
        let mut suspended = match self.known[point].suspended.take() {
            Some(suspended) => suspended,
            None => self.replay(point),
        };
        let Next::Calls(call) = self.known[point].next.clone() else {
            panic!("a run that has ended receives an answer");
        };
        let next = suspended.resume(&call, answer);
        self.calls += 1;
        let known = &self.known[point];
        let acts_on_tags = match call {
            Call::DescribeTags(_) => true,
            Call::ModifyListener(_) => false,
            _ => known.acts_on_tags,
        };
        let (invocation, met) = (known.invocation, known.met_a_failure);
        let after = self.remember(Known {
            next,
            before: Some((point, answer.clone())),
            invocation,
            after: HashMap::new(),
            suspended: Some(suspended),
            acts_on_tags,
            met_a_failure: met
                || matches!(answer, Answer::Error("InternalFailure" | "AccessDenied")),
        });
        self.known[point].after.insert(answer.clone(), after);
        after
    }

    fn remember(&mut self, known: Known) -> Point {
        self.known.push(known);
        self.known.len() - 1
    }

    fn start(&self, invocation: Invocation) -> (Suspended, Next) {
        let wire = Wire::default();
        let mut suspended = Suspended {
            run: (self.code)(invocation, wire.clients()),
            wire,
        };
        let next = suspended.poll();
        (suspended, next)
    }

    /// Runs the function up to that point once more.
    fn replay(&mut self, point: Point) -> Suspended {
        let mut path = Vec::new();
        let mut at = point;
        while let Some((before, answer)) = self.known[at].before.clone() {
            path.push((before, answer));
            at = before;
        }
        let (mut suspended, mut next) = self.start(self.known[point].invocation);
        for (before, answer) in path.into_iter().rev() {
            assert_eq!(next, self.known[before].next, "the code is deterministic");
            let Next::Calls(call) = next else {
                panic!("a run that has ended continues");
            };
            next = suspended.resume(&call, &answer);
            self.calls += 1;
        }
        suspended
    }
}

/// A run that waits for an answer.
struct Suspended {
    run: Run,
    wire: Wire,
}

impl Suspended {
    fn resume(&mut self, call: &Call, answer: &Answer) -> Next {
        self.wire.with(|held| {
            let sent = held.call.take().expect("a call");
            held.answer = Some(sent.write(&answer.shape(call)));
        });
        self.poll()
    }

    fn poll(&mut self) -> Next {
        loop {
            let woken = Arc::new(Woken::default());
            let waker = Waker::from(Arc::clone(&woken));
            if let Poll::Ready(ending) = self.run.as_mut().poll(&mut Context::from_waker(&waker)) {
                return Next::Ends(ending);
            }
            if let Some(call) = self.wire.with(|held| held.call.as_ref().map(Call::read)) {
                return Next::Calls(call);
            }
            // The SDK's paginators yield to themselves between two pages.
            let is_woken = woken.0.load(Ordering::Relaxed);
            assert!(is_woken, "functions only wait for calls");
        }
    }
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The connection between a run and the cloud.
#[derive(Clone, Default)]
struct Wire(Arc<Mutex<Held>>);

#[derive(Default)]
struct Held {
    call: Option<memory_aws::Call>,
    answer: Option<HttpResponse>,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wire")
    }
}

impl Wire {
    fn with<T>(&self, f: impl FnOnce(&mut Held) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn clients(&self) -> Clients {
        // Retries wait for a random time, so a run with them could not be replayed.
        let config = memory_aws::config(self.clone(), RetryConfig::disabled());
        Clients::new(&config)
    }
}

impl HttpConnector for Wire {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let wire = self.clone();
        wire.with(|held| held.call = Some(memory_aws::Call::read(&request)));
        HttpConnectorFuture::new(std::future::poll_fn(move |_| {
            match wire.with(|held| held.answer.take()) {
                None => Poll::Pending,
                Some(answer) => Poll::Ready(Ok(answer)),
            }
        }))
    }
}
