//! The cases of the fault runs: which faults are injected into which workflow.

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use localcloud::gateway::calls::Call;
use localcloud::gateway::faults::{Fault, FaultRule};

/// Longer than the functions wait for one attempt (`lifecycle::defaults::ATTEMPT_TIMEOUT`, 5 s of
/// real time): the first attempt is abandoned, and takes effect after the second.
const TOO_SLOW_MILLISECONDS: u64 = 6_000;

/// What a run executes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Workflow {
    /// A deployment that is started by hand and goes live.
    Deploy,
    /// A deployment that is undone, because its role may not create the service.
    Undo,
    /// A deployment that a push event starts.
    Push,
    /// A rollback to a warm deployment.
    Rollback,
    /// A rollback to a warm deployment that takes the visitors of the other one along.
    Evict,
    /// A rollback to a draining deployment, which gets fresh tasks.
    Restore,
    /// A cleanup that starts to drain one deployment and deletes another one.
    Cleanup,
}

/// A call that a run makes, at which a fault can be injected.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point {
    /// The function that makes the call, without the environment's name.
    pub function: String,
    /// The service, as request signatures name it.
    pub service: String,
    /// The operation, such as `CreateRule`.
    pub operation: String,
    /// The number of the call among the function's calls of the operation, counted from 1.
    pub nth: u32,
}

/// One fault in a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Injection {
    /// A call fails, or the function that makes it is killed.
    Call(Point, Fault),
    /// Every invocation of the function panics. The name is without the environment.
    Panic(String),
    /// Lambda refuses the first call of the function with this error, because the function is not ready.
    NotReady(String, &'static str),
    /// The push event is delivered twice.
    EventTwice,
    /// The push event is lost.
    EventNever,
}

/// A workflow with faults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// What the run executes.
    pub workflow: Workflow,
    /// The faults: none in a clean run, two in a pair.
    pub injections: Vec<Injection>,
}

impl Workflow {
    /// Every workflow.
    pub const ALL: [Workflow; 7] = [
        Workflow::Deploy,
        Workflow::Undo,
        Workflow::Push,
        Workflow::Rollback,
        Workflow::Evict,
        Workflow::Restore,
        Workflow::Cleanup,
    ];

    /// The functions whose calls fail in the workflow. Of a push and an undo, [`Workflow::Deploy`] covers
    /// the other functions, and of an eviction [`Workflow::Rollback`].
    pub fn functions(self) -> &'static [&'static str] {
        match self {
            Workflow::Deploy => &[
                "validate-deployment",
                "register-task-definition",
                "run-release",
                "create-target-group",
                "create-listener-rule",
                "choose-count",
                "create-service",
                "check-target-health",
                "smoke-test",
                "check-gate",
                "switch-traffic",
                "end-approvals",
                "register-scaling",
                "watch-deployment",
            ],
            Workflow::Undo => &["delete-deployment"],
            Workflow::Push => &["start-deployment"],
            Workflow::Rollback | Workflow::Restore => &[
                "restore-deployment",
                "check-target-health",
                "choose-count",
                "switch-traffic",
                "register-scaling",
            ],
            Workflow::Evict => &["evict-visitors"],
            Workflow::Cleanup => &[
                "find-deployments",
                "create-listener-rule",
                "register-scaling",
                "drain-deployment",
                "delete-deployment",
            ],
        }
    }

    /// Whether the workflow is a deployment.
    pub fn deploys(self) -> bool {
        matches!(self, Workflow::Deploy | Workflow::Undo | Workflow::Push)
    }
}

impl Point {
    /// Whether the call only reads.
    pub fn reads(&self) -> bool {
        let reading = ["Describe", "List", "Get", "BatchGet"];
        reading.iter().any(|verb| self.operation.starts_with(verb))
    }

    /// The rule that injects the fault at this call in the environment.
    fn rule(&self, environment: &str, fault: Fault) -> FaultRule {
        FaultRule::next(&self.service, &self.operation, fault)
            .of(&format!("{environment}-{}", self.function))
            .at(self.nth)
    }
}

impl Injection {
    /// Whether the fault is transient, so that a retry must succeed.
    fn is_transient(&self) -> bool {
        match self {
            Injection::Call(_, fault) => !matches!(fault, Fault::AccessDenied | Fault::StaleRead),
            Injection::NotReady(..) | Injection::EventTwice => true,
            Injection::Panic(_) | Injection::EventNever => false,
        }
    }

    /// The kind of fault, in a word or two.
    pub fn kind(&self) -> &'static str {
        match self {
            Injection::Call(_, fault) => name_of(*fault),
            Injection::Panic(_) => "panic",
            Injection::NotReady(..) => "not ready",
            Injection::EventTwice => "event twice",
            Injection::EventNever => "event lost",
        }
    }
}

impl Case {
    /// A run without faults.
    pub fn clean(workflow: Workflow) -> Case {
        let injections = Vec::new();
        Case {
            workflow,
            injections,
        }
    }

    /// The rules that inject the faults. They must be added before the first call of the run.
    pub fn rules(&self, environment: &str) -> Vec<FaultRule> {
        let mut rules = Vec::new();
        if self.workflow == Workflow::Undo {
            rules.push(FaultRule::next("ecs", "CreateService", Fault::AccessDenied));
        }
        rules.extend(
            self.injections
                .iter()
                .filter_map(|injection| match injection {
                    Injection::Call(point, fault) => Some(point.rule(environment, *fault)),
                    _ => None,
                }),
        );
        rules
    }

    /// The function that panics, if one does.
    pub fn panicking(&self) -> Option<&str> {
        self.injections
            .iter()
            .find_map(|injection| match injection {
                Injection::Panic(function) => Some(function.as_str()),
                _ => None,
            })
    }

    /// The functions that are not ready at first, each with Lambda's error.
    pub fn not_ready(&self) -> impl Iterator<Item = (&str, &'static str)> {
        self.injections
            .iter()
            .filter_map(|injection| match injection {
                Injection::NotReady(function, error) => Some((function.as_str(), *error)),
                _ => None,
            })
    }

    /// Whether all faults are transient.
    pub fn is_transient(&self) -> bool {
        self.injections.iter().all(Injection::is_transient)
    }

    /// Whether a call has this fault.
    pub fn has(&self, fault: Fault) -> bool {
        self.injections
            .iter()
            .any(|injection| matches!(injection, Injection::Call(_, f) if *f == fault))
    }

    /// Whether a function cannot do its work at all, because of a missing permission or a panic.
    pub fn has_broken_function(&self) -> bool {
        self.has(Fault::AccessDenied) || self.panicking().is_some()
    }

    /// The kinds of its faults, in a word or two.
    pub fn kind(&self) -> &'static str {
        match &self.injections[..] {
            [] => "nothing",
            [one] => one.kind(),
            _ => "several at once",
        }
    }
}

impl fmt::Display for Workflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Workflow::Deploy => "deploy",
            Workflow::Undo => "undo",
            Workflow::Push => "push",
            Workflow::Rollback => "rollback",
            Workflow::Evict => "evict",
            Workflow::Restore => "restore",
            Workflow::Cleanup => "cleanup",
        })
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Point {
            function,
            service,
            operation,
            nth,
        } = self;
        write!(f, "{function} {service}:{operation} #{nth}")
    }
}

impl fmt::Display for Injection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Injection::Call(point, fault) => write!(f, "{point} {}", name_of(*fault)),
            Injection::Panic(function) => write!(f, "{function} panic"),
            Injection::NotReady(function, error) => write!(f, "{function} {error}"),
            Injection::EventTwice | Injection::EventNever => f.write_str(self.kind()),
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let injections: Vec<_> = self.injections.iter().map(Injection::to_string).collect();
        write!(f, "{}: {}", self.workflow, injections.join(" and "))
    }
}

/// The name of the fault, in a word or two.
fn name_of(fault: Fault) -> &'static str {
    match fault {
        Fault::Throttled => "throttled",
        Fault::InternalError => "500",
        Fault::Unavailable => "503",
        Fault::AccessDenied => "access denied",
        Fault::ConnectionReset => "connection reset",
        Fault::AnswerLost => "answer lost",
        Fault::KilledBeforeCall => "killed before",
        Fault::KilledAfterCall => "killed after",
        Fault::Slow { .. } => "too slow",
        Fault::StaleRead => "stale read",
    }
}

/// Every kind of fault.
pub const FAULTS: [Fault; 10] = [
    Fault::Throttled,
    Fault::InternalError,
    Fault::Unavailable,
    Fault::ConnectionReset,
    Fault::AnswerLost,
    Fault::KilledBeforeCall,
    Fault::KilledAfterCall,
    Fault::Slow {
        milliseconds: TOO_SLOW_MILLISECONDS,
    },
    Fault::StaleRead,
    Fault::AccessDenied,
];

/// Lambda's errors about a function that it has to make ready first.
pub const NOT_READY: [&str; 6] = [
    "ResourceNotReadyException",
    "ResourceConflictException",
    "CodeArtifactUserPendingException",
    "ENINotReadyException",
    "EC2ThrottledException",
    "EC2UnexpectedException",
];

/// Functions that the machines poll. The number of polls depends on time.
const POLLED: [&str; 3] = ["check-target-health", "delete-deployment", "run-release"];

/// How many reads of a polled function are points: the first one, and one that can get a stale answer.
/// [`super::first_checks`] makes sure that there are as many.
pub const CHECKS: u32 = 2;

/// The points among the recorded calls, sorted. They are the same for every recording of the same
/// workflow.
pub fn points(workflow: Workflow, environment: &str, calls: &[Call]) -> Vec<Point> {
    let mut seen: HashMap<(&str, &str, &str), u32> = HashMap::new();
    let mut points = BTreeSet::new();
    for call in calls {
        let name = call.function.as_deref().unwrap_or_default();
        let Some(function) = name
            .strip_prefix(environment)
            .and_then(|name| name.strip_prefix('-'))
            .filter(|name| workflow.functions().contains(name))
        else {
            continue;
        };
        let nth = seen
            .entry((function, &call.service, &call.operation))
            .or_default();
        *nth += 1;
        let point = Point {
            function: function.to_owned(),
            service: call.service.clone(),
            operation: call.operation.clone(),
            nth: *nth,
        };
        if !(POLLED.contains(&function) && point.reads() && *nth > CHECKS) {
            points.insert(point);
        }
    }
    points.into_iter().collect()
}

/// Every case with one fault: every fault at every call, with stale answers only to reads, a panic and
/// every refusal of every function, and for a push an event that is delivered twice or never.
pub fn cases(workflow: Workflow, points: &[Point]) -> Vec<Case> {
    let mut injections = Vec::new();
    for point in points {
        for fault in FAULTS {
            if fault != Fault::StaleRead || point.reads() {
                injections.push(Injection::Call(point.clone(), fault));
            }
        }
    }
    let panics = |function: &&str| Injection::Panic((*function).to_owned());
    injections.extend(workflow.functions().iter().map(panics));
    if workflow == Workflow::Push {
        injections.extend([Injection::EventTwice, Injection::EventNever]);
    } else {
        for function in workflow.functions() {
            let refused = |error| Injection::NotReady((*function).to_owned(), error);
            injections.extend(NOT_READY.map(refused));
        }
    }
    let case = |injection| Case {
        workflow,
        injections: vec![injection],
    };
    injections.into_iter().map(case).collect()
}

/// Draws up to `number` cases without repetition, and as evenly as possible from all kinds of fault. The
/// same seed draws the same cases in the same order.
pub fn sample(mut cases: Vec<Case>, seed: u64, number: usize) -> Vec<Case> {
    fastrand::Rng::with_seed(seed).shuffle(&mut cases);
    let mut drawn: HashMap<_, usize> = HashMap::new();
    cases.sort_by_cached_key(|case| {
        let of_its_kind = drawn.entry((case.workflow, case.kind())).or_default();
        *of_its_kind += 1;
        *of_its_kind
    });
    cases.truncate(number);
    cases
}

/// Draws up to `number` pairs of faults at two calls of one workflow. The same seed draws the same pairs.
pub fn pairs(cases: &[Case], seed: u64, number: usize) -> Vec<Case> {
    let mut random = fastrand::Rng::with_seed(seed);
    let calls: Vec<_> = cases.iter().filter_map(call).collect();
    let mut pairs = Vec::new();
    // Few draws do not make a pair. The bound is for workflows with one call only.
    for _ in 0..number.saturating_mul(20) {
        if pairs.len() == number {
            break;
        }
        let (Some(one), Some(other)) = (random.choice(&calls), random.choice(&calls)) else {
            break;
        };
        if one.0 == other.0 && one.1 != other.1 {
            pairs.push(Case {
                workflow: one.0,
                injections: vec![one.2.clone(), other.2.clone()],
            });
        }
    }
    pairs
}

/// The workflow, the call and the fault of a case with one fault at a call.
fn call(case: &Case) -> Option<(Workflow, &Point, &Injection)> {
    match &case.injections[..] {
        [injection @ Injection::Call(point, _)] => Some((case.workflow, point, injection)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
