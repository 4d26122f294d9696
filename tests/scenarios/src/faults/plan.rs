//! What goes wrong in which run.

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use localcloud::gateway::calls::Call;
use localcloud::gateway::faults::{Fault, FaultRule};

/// Longer than the functions wait for one attempt (`lifecycle::defaults::ATTEMPT_TIMEOUT`, 5 s of
/// the machine's clock): the first attempt is given up and takes effect after the second.
const TOO_SLOW_MILLISECONDS: u64 = 6_000;

/// What is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Workflow {
    /// A deployment that is started by hand and goes live.
    Deploy,
    /// A deployment that has to be undone, because its role may not create the service.
    Undo,
    /// A deployment that a push event starts.
    Push,
    /// A rollback to a deployment that is warm.
    Rollback,
    /// A rollback to a deployment that drains and gets fresh tasks.
    Restore,
    /// A cleanup that begins to drain one deployment and deletes another.
    Cleanup,
}

/// A call that a run makes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point {
    /// The function that makes it, without the environment's name.
    pub function: String,
    /// The service as signatures name it.
    pub service: String,
    /// The operation.
    pub operation: String,
    /// Which of the function's calls of that operation in the run, counted from 1.
    pub nth: u32,
}

/// One thing that goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Injection {
    /// A call fails, or its caller is killed.
    Call(Point, Fault),
    /// The function, named without the environment, panics whenever it is invoked.
    Panic(String),
    /// The push event is delivered twice.
    EventTwice,
    /// The push event is lost.
    EventNever,
}

/// One run of the runner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// What is run.
    pub workflow: Workflow,
    /// What goes wrong: nothing in a clean run, two things in a pair.
    pub injections: Vec<Injection>,
}

impl Workflow {
    /// Every workflow.
    pub const ALL: [Workflow; 6] = [
        Workflow::Deploy,
        Workflow::Undo,
        Workflow::Push,
        Workflow::Rollback,
        Workflow::Restore,
        Workflow::Cleanup,
    ];

    /// The functions whose calls fail in it. What a deployment does after a push and before an undo
    /// is told by [`Workflow::Deploy`].
    pub fn functions(self) -> &'static [&'static str] {
        match self {
            Workflow::Deploy => &[
                "validate-deployment",
                "register-task-definition",
                "create-target-group",
                "create-listener-rule",
                "create-service",
                "check-target-health",
                "switch-traffic",
            ],
            Workflow::Undo => &["delete-deployment"],
            Workflow::Push => &["start-deployment"],
            Workflow::Rollback | Workflow::Restore => &[
                "restore-deployment",
                "check-target-health",
                "switch-traffic",
            ],
            Workflow::Cleanup => &["find-deployments", "drain-deployment", "delete-deployment"],
        }
    }

    /// Whether it is a deployment, however it is started and however it ends.
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

    /// The fault at this call, in an environment.
    fn rule(&self, environment: &str, fault: Fault) -> FaultRule {
        FaultRule::next(&self.service, &self.operation, fault)
            .of(&format!("{environment}-{}", self.function))
            .at(self.nth)
    }
}

impl Injection {
    /// Whether it passes by itself, so that trying again must do.
    fn passes(&self) -> bool {
        match self {
            Injection::Call(_, fault) => !matches!(fault, Fault::AccessDenied | Fault::StaleRead),
            Injection::EventTwice => true,
            Injection::Panic(_) | Injection::EventNever => false,
        }
    }

    /// Its kind in a word or two.
    pub fn kind(&self) -> &'static str {
        match self {
            Injection::Call(_, fault) => name_of(*fault),
            Injection::Panic(_) => "panic",
            Injection::EventTwice => "event twice",
            Injection::EventNever => "event lost",
        }
    }
}

impl Case {
    /// A run in which nothing goes wrong.
    pub fn clean(workflow: Workflow) -> Case {
        let injections = Vec::new();
        Case {
            workflow,
            injections,
        }
    }

    /// The rules that bring the faults about, added when nothing of the run has been called.
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

    /// Whether all that goes wrong passes by itself.
    pub fn is_passing(&self) -> bool {
        self.injections.iter().all(Injection::passes)
    }

    /// Whether one of the faults is that one.
    pub fn has(&self, fault: Fault) -> bool {
        self.injections
            .iter()
            .any(|injection| matches!(injection, Injection::Call(_, f) if *f == fault))
    }

    /// Whether something goes on going wrong in a function, so that it cannot do its work: a missing
    /// permission or a panic.
    pub fn has_broken_function(&self) -> bool {
        self.has(Fault::AccessDenied) || self.panicking().is_some()
    }

    /// What goes wrong in a word or two.
    pub fn kind(&self) -> &'static str {
        match &self.injections[..] {
            [] => "nothing",
            [one] => one.kind(),
            _ => "two at once",
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

/// The fault in a word or two.
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

/// Functions that are asked again until what they wait for is there; how often depends on the time.
const POLLED: [&str; 2] = ["check-target-health", "delete-deployment"];

/// How many reads of a polled function are points: the first check, and one that can be answered as
/// the check before. [`super::first_checks`] makes sure that there are so many.
pub const CHECKS: u32 = 2;

/// The calls of the workflow's functions among those recorded, each once, in an order of their own:
/// the same for every recording of the same workflow.
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

/// Everything that can go wrong once in the workflow: every fault at every call, stale answers only
/// where something is read, a panic of every function, and what can become of an event.
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
    }
    let case = |injection| Case {
        workflow,
        injections: vec![injection],
    };
    injections.into_iter().map(case).collect()
}

/// As many cases as asked for, drawn without repetition, from each kind of fault as many as from any
/// other while there are some; the same seed draws the same ones in the same order.
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

/// As many pairs of faults at two calls of one workflow as asked for, drawn with the seed.
pub fn pairs(cases: &[Case], seed: u64, number: usize) -> Vec<Case> {
    let mut random = fastrand::Rng::with_seed(seed);
    let calls: Vec<_> = cases.iter().filter_map(call).collect();
    let mut pairs = Vec::new();
    // Few draws are refused; the bound is for workflows with one call only.
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

/// The workflow, the call and the fault of a case of one fault.
fn call(case: &Case) -> Option<(Workflow, &Point, &Injection)> {
    match &case.injections[..] {
        [injection @ Injection::Call(point, _)] => Some((case.workflow, point, injection)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
