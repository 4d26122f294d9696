//! What a function does after each sequence of answers, learned by running the real code once for each.

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use delete_deployment::Verdict;
use lifecycle::defaults::SWITCH_IN_FLIGHT;
use lifecycle::sdk::Clients;
use lifecycle::tags::RolledBack;
use lifecycle::{Baseline, DeploymentId, StepError, tags};
use memory_aws::{MemoryAws, RetryConfig};
use switch_traffic::Outcome;
use time::Duration;

use crate::call::{Answer, Call, Deployment, Marks, NOW, RESTORED_AT, group_arn, id, name};

/// One invocation of a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Invocation {
    /// `switch-traffic`.
    Switch {
        /// The deployment to switch to.
        deployment: Deployment,
        /// What it has found, if it is a rollback.
        rollback: Option<Rollback>,
    },
    /// `switch-traffic`, which takes the marks of a failed rollback back.
    TakeBack {
        /// The target of the rollback.
        deployment: Deployment,
        /// Whether the rollback got as far as the switch.
        marked: bool,
        /// What it has found.
        rollback: Rollback,
    },
    /// `restore-deployment`.
    Restore {
        /// The deployment to bring back.
        deployment: Deployment,
        /// Whether it is asked again when its mark is so old that every eviction that has not seen it is over.
        is_late: bool,
        /// Whether visitors go along.
        evicts: bool,
    },
    /// `evict-visitors`.
    Evict {
        /// The target of the rollback.
        deployment: Deployment,
        /// What it has taken back, as bits.
        taken_back: u8,
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
        /// What kind of deletion it is.
        deletion: Deletion,
    },
}

/// What a rollback has found when it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rollback {
    /// What it replaces, as bits.
    pub replaced: u8,
    /// What was active.
    pub active: Option<Deployment>,
    /// Whether an earlier rollback had taken its target back.
    pub was_rolled_back: bool,
    /// Whether its target carries the mark that keeps it for the rollback. The time in it is [`RESTORED_AT`].
    pub is_marked: bool,
    /// What its switch has taken back, as bits.
    pub taken_back: u8,
}

impl Rollback {
    /// One that has switched, and has only visitors left to take along.
    pub(crate) fn that_has_taken_back(taken_back: u8) -> Rollback {
        Rollback {
            replaced: taken_back,
            active: None,
            was_rolled_back: false,
            is_marked: false,
            taken_back,
        }
    }

    /// What the machine knows after another look at the target: all but the mark stays as the rollback found it when
    /// it began.
    pub(crate) fn after(self, again: Rollback) -> Rollback {
        Rollback {
            is_marked: again.is_marked,
            ..self
        }
    }
}

impl Invocation {
    fn deployment(&self) -> Deployment {
        match self {
            Invocation::Switch { deployment, .. }
            | Invocation::TakeBack { deployment, .. }
            | Invocation::Restore { deployment, .. }
            | Invocation::Evict { deployment, .. }
            | Invocation::Drain { deployment }
            | Invocation::Delete { deployment, .. } => *deployment,
        }
    }
}

/// The kinds of deletions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Deletion {
    /// The undo of a candidate.
    Candidate,
    /// A cleanup's, of a deployment that has drained.
    Drained,
    /// A cleanup's, of a deployment that still drains when its time is over.
    Forced,
    /// An operator's.
    ByHand,
}

/// How a function ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "named after the outcomes of the functions")]
pub enum Ending {
    Switched,
    /// Switched, and these, as bits, were taken back.
    SwitchedBack(u8),
    /// No rule leads to these any more, as bits.
    Evicted(u8),
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
        unrouted: bool,
        fresh: bool,
        pinned: bool,
        rollback: Rollback,
    },
    /// The target of a rollback is active, and only visitors of these, as bits, are left to be taken along.
    LeftPinned(u8),
    /// With an error of that name.
    Failed(&'static str),
}

impl From<StepError> for Ending {
    fn from(error: StepError) -> Ending {
        Ending::Failed(error.name.as_str())
    }
}

type Run = Pin<Box<dyn Future<Output = Ending>>>;

/// What code with a defect sees of an answer.
pub type Sees = Rc<dyn Fn(&Call, Answer, Seer) -> Answer>;

/// A defect that is planted in the shipped functions: what they do not see, and what they do not do.
#[derive(Clone)]
pub struct Defect {
    /// The invocations that have it.
    pub of: fn(&Invocation) -> bool,
    /// What the code sees of an answer.
    pub sees: Sees,
    /// The call that it makes in place of this one, which the code takes for made. `None` if it makes none.
    pub makes: fn(&Call, Seer) -> Option<Call>,
    /// What it reports in place of this ending.
    pub ends: fn(Ending, Seer) -> Ending,
}

async fn run(invocation: Invocation, clients: Clients) -> Ending {
    let baseline = Baseline::for_tests();
    match invocation {
        Invocation::Switch {
            deployment,
            rollback,
        } => {
            let input = match rollback {
                Some(rollback) => to_roll_back(deployment, rollback),
                None => to_switch(deployment),
            };
            switch(&clients, input).await
        }
        Invocation::TakeBack {
            deployment,
            marked,
            rollback,
        } => {
            let input = switch_traffic::Input {
                take_back: true,
                marked,
                ..to_roll_back(deployment, rollback)
            };
            match switch(&clients, input).await {
                // The target is active all the same. The machine reports that the rollback has failed.
                Ending::Switched => Ending::TakenBack,
                ending => ending,
            }
        }
        Invocation::Evict { taken_back, .. } => {
            let rolled_back = ids(taken_back).into_iter().map(|deployment_id| RolledBack {
                deployment_id,
                rolled_back_at: tags::timestamp(NOW),
            });
            let input = evict_visitors::Input {
                rolled_back: rolled_back.collect(),
            };
            match evict_visitors::run(&clients.elb, &baseline, &|| NOW, input).await {
                Ok(output) => Ending::Evicted(bits(&output.evicted)),
                Err(error) => error.into(),
            }
        }
        Invocation::Restore {
            deployment,
            is_late,
            evicts,
        } => {
            let now = match is_late {
                true => RESTORED_AT + SWITCH_IN_FLIGHT,
                false => RESTORED_AT,
            };
            // Without the execution's name, which tells the tags of two rollbacks to one deployment apart.
            let input = serde_json::json!({"deploymentId": id(deployment), "evict": evicts});
            match restore_deployment::run(&clients, &baseline, &|| now, input).await {
                Ok(output) if !output.left_pinned.is_empty() => {
                    Ending::LeftPinned(taken_back(&output.left_pinned))
                }
                Ok(output) => Ending::Restored {
                    unrouted: output.unrouted,
                    fresh: output.restored,
                    pinned: output.pinned,
                    rollback: Rollback {
                        replaced: bits(&output.replaced),
                        active: output.replaced_deployment_id.as_ref().map(number),
                        was_rolled_back: output.was_rolled_back,
                        is_marked: is_marked(output.restoring_since.as_deref()),
                        taken_back: 0,
                    },
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
                http: task_requests::client(),
            };
            match drain_deployment::run(&clients, &baseline, &|| NOW, input).await {
                Ok(output) => match output.verdict {
                    drain_deployment::Verdict::Draining => Ending::Asked,
                    _ => Ending::Drained,
                },
                Err(error) => error.into(),
            }
        }
        Invocation::Delete {
            deployment,
            deletion,
        } => {
            let input = delete_deployment::Input {
                deployment_id: id(deployment),
                only_if_never_live: deletion == Deletion::Candidate,
                execution: None,
                state_machine: None,
                only_if_draining: matches!(deletion, Deletion::Drained | Deletion::Forced),
                only_if_evicted: false,
                only_rules: false,
                force: deletion == Deletion::Forced,
            };
            // The time of this world stands still at `NOW`, so a deletion that finds its own mark would
            // wait for ever for the switches in flight. The exploration does this wait instead.
            let now = NOW + SWITCH_IN_FLIGHT;
            let config = delete_deployment::Config {
                baseline,
                settle: Duration::ZERO,
            };
            let clients = delete_deployment::Clients {
                shared: clients,
                // Nothing is registered in this world, so these calls are none of it.
                autoscaling: aws_sdk_applicationautoscaling::Client::new(
                    &MemoryAws::default().config(),
                ),
            };
            match delete_deployment::run(&clients, &config, &|| now, input).await {
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
        marked: false,
        restoring_since: None,
        was_rolled_back: false,
        repair: false,
        from: None,
        watch_seconds: None,
    }
}

/// The input of the states `SwitchTraffic` and `TakeMarksBack` of the rollback machine.
fn to_roll_back(deployment: Deployment, rollback: Rollback) -> switch_traffic::Input {
    let restoring_since = rollback.is_marked.then(|| tags::timestamp(RESTORED_AT));
    switch_traffic::Input {
        roll_back: true,
        replaced: Some(ids(rollback.replaced)),
        replaced_deployment_id: rollback.active.map(id),
        was_rolled_back: rollback.was_rolled_back,
        restoring_since,
        ..to_switch(deployment)
    }
}

/// Whether the target of a rollback carries the mark that keeps it.
fn is_marked(restoring_since: Option<&str>) -> bool {
    let written = tags::timestamp(RESTORED_AT);
    match restoring_since {
        Some(since) => {
            assert_eq!(since, written, "every mark has the same time");
            true
        }
        None => false,
    }
}

async fn switch(clients: &Clients, input: switch_traffic::Input) -> Ending {
    let baseline = Baseline::for_tests();
    match switch_traffic::run(&clients.elb, &clients.secrets, &baseline, &|| NOW, input).await {
        Ok(output) => match output.outcome {
            Outcome::Switched => match taken_back(&output.rolled_back) {
                0 => Ending::Switched,
                taken_back => Ending::SwitchedBack(taken_back),
            },
            Outcome::Superseded => Ending::Superseded,
            Outcome::Unhealthy | Outcome::RolledBack => Ending::Unhealthy,
            Outcome::TakenBack => Ending::TakenBack,
            Outcome::NotNeeded => unreachable!("no repair is explored"),
        },
        Err(error) => error.into(),
    }
}

/// What a rollback has taken back, as bits.
fn taken_back(rolled_back: &[RolledBack]) -> u8 {
    let written = tags::timestamp(NOW);
    let is_written = |it: &RolledBack| it.rolled_back_at == written;
    assert!(
        rolled_back.iter().all(is_written),
        "every mark has the same time"
    );
    rolled_back
        .iter()
        .map(|it| 1 << number(&it.deployment_id))
        .sum()
}

/// The ids of these deployments, given as bits.
fn ids(deployments: u8) -> Vec<DeploymentId> {
    let numbers = (0..8).filter(|number| deployments & (1 << number) != 0);
    numbers.map(id).collect()
}

/// The deployments with these ids, as bits.
fn bits(deployments: &[DeploymentId]) -> u8 {
    deployments.iter().map(|it| 1 << number(it)).sum()
}

/// The deployment with that id.
fn number(deployment: &DeploymentId) -> Deployment {
    (0..8)
        .find(|number| id(*number) == *deployment)
        .expect("one of the deployments")
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
    seer: Seer,
}

/// The run that sees an answer.
#[derive(Debug, Clone, Copy)]
pub struct Seer {
    /// Its deployment.
    pub own: Deployment,
    /// The deployment that it has switched to.
    pub switched: Option<Deployment>,
    /// The marks that it has written.
    pub wrote: Marks,
    /// Whether AWS has answered it with a failure.
    pub met_a_failure: bool,
}

impl Seer {
    /// The same run after the answer to a call.
    fn after(self, call: &Call, answer: &Answer) -> Seer {
        let mut seer = self;
        match (call, answer) {
            (Call::ModifyListener(deployment), Answer::Done) => seer.switched = Some(*deployment),
            (Call::AddTags(_, marks), Answer::Done) => seer.wrote |= marks,
            (_, Answer::Error("InternalFailure" | "AccessDenied")) => seer.met_a_failure = true,
            _ => (),
        }
        seer
    }
}

/// All points that were reached so far, by number.
pub struct Learned {
    defect: Option<Defect>,
    known: Vec<Known>,
    beginnings: HashMap<Invocation, Point>,
    /// How many calls the code has made for that.
    pub calls: usize,
}

impl Learned {
    /// Knows nothing of the shipped code yet, or of that code with a defect.
    pub fn new(defect: Option<Defect>) -> Learned {
        Learned {
            defect,
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

    /// Whether the run has read tags and neither modified the listener nor deleted a rule since: it may do that by them.
    pub fn acts_on_tags(&self, point: Point) -> bool {
        self.known[point].acts_on_tags
    }

    /// The call that the run makes at that point. With a defect, it may be another one or none.
    pub fn made(&self, point: Point, call: &Call) -> Option<Call> {
        match self.defect_at(point) {
            Some(defect) => (defect.makes)(call, self.known[point].seer),
            None => Some(call.clone()),
        }
    }

    fn defect_at(&self, point: Point) -> Option<&Defect> {
        let invocation = &self.known[point].invocation;
        self.defect
            .as_ref()
            .filter(|defect| (defect.of)(invocation))
    }

    /// Whether AWS has answered the run with a failure.
    pub fn met_a_failure(&self, point: Point) -> bool {
        self.known[point].seer.met_a_failure
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
            seer: Seer {
                own: invocation.deployment(),
                switched: None,
                wrote: 0,
                met_a_failure: false,
            },
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
        let next = suspended.resume(&call, &self.seen(point, &call, answer));
        self.calls += 1;
        let known = &self.known[point];
        let seer = known.seer.after(&call, answer);
        let next = match (self.defect_at(point), next) {
            (Some(defect), Next::Ends(ending)) => Next::Ends((defect.ends)(ending, seer)),
            (_, next) => next,
        };
        let acts_on_tags = match call {
            Call::DescribeTags(_) => true,
            Call::ModifyListener(_) | Call::DeleteRule(..) => false,
            _ => known.acts_on_tags,
        };
        let invocation = known.invocation;
        let after = self.remember(Known {
            next,
            before: Some((point, answer.clone())),
            invocation,
            after: HashMap::new(),
            suspended: Some(suspended),
            acts_on_tags,
            seer,
        });
        self.known[point].after.insert(answer.clone(), after);
        after
    }

    /// The answer as the code sees it.
    fn seen(&self, point: Point, call: &Call, answer: &Answer) -> Answer {
        match self.defect_at(point) {
            Some(defect) => (defect.sees)(call, answer.clone(), self.known[point].seer),
            None => answer.clone(),
        }
    }

    fn remember(&mut self, known: Known) -> Point {
        self.known.push(known);
        self.known.len() - 1
    }

    fn start(&self, invocation: Invocation) -> (Suspended, Next) {
        let wire = Wire::default();
        let mut suspended = Suspended {
            run: Box::pin(run(invocation, wire.clients())),
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
            next = suspended.resume(&call, &self.seen(before, &call, &answer));
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
