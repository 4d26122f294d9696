//! Which fault befalls which call.

use std::collections::HashMap;
use std::fmt;

use localcloud::front_door::calls::Call;
use localcloud::front_door::faults::{Fault, FaultRule};

/// Longer than the functions wait for one attempt (`lifecycle::defaults::ATTEMPT_TIMEOUT`, 5 s of
/// the machine's clock): the first attempt is given up and takes effect after the second.
const TOO_SLOW_MILLISECONDS: u64 = 6_000;

/// A call that a clean deployment makes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point {
    /// The service as signatures name it.
    pub service: String,
    /// The operation.
    pub operation: String,
    /// Which of its calls since the deployment began, counted from 1.
    pub nth: u32,
}

/// One run of the sweep: one fault at one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// The call.
    pub point: Point,
    /// What goes wrong with it.
    pub fault: Fault,
    /// Whether the deployment is one that has to be undone, because its role may not create the
    /// service; the call is then one of the undo.
    pub undoing: bool,
}

impl Point {
    /// Whether the call only reads.
    pub fn reads(&self) -> bool {
        let reading = ["Describe", "List", "Get", "BatchGet"];
        reading.iter().any(|verb| self.operation.starts_with(verb))
    }
}

impl Case {
    /// The fault that has a deployment undone once its rules and target group are there.
    pub fn undo() -> Case {
        Case {
            point: Point {
                service: "ecs".to_owned(),
                operation: "CreateService".to_owned(),
                nth: 1,
            },
            fault: Fault::AccessDenied,
            undoing: false,
        }
    }

    /// The rules that bring the faults about, added when nothing of the run has been called.
    pub fn rules(&self) -> Vec<FaultRule> {
        let undo = self.undoing.then(|| Case::undo().rule());
        undo.into_iter().chain([self.rule()]).collect()
    }

    fn rule(&self) -> FaultRule {
        let Point {
            service,
            operation,
            nth,
        } = &self.point;
        FaultRule::next(service, operation, self.fault).at(*nth)
    }

    /// Whether the fault passes by itself, so that trying again must do.
    pub fn is_passing(&self) -> bool {
        !matches!(self.fault, Fault::AccessDenied | Fault::StaleRead)
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Point {
            service,
            operation,
            nth,
        } = &self.point;
        let when = if self.undoing { "undo: " } else { "" };
        let what = name_of(self.fault);
        write!(f, "{when}{service}:{operation} #{nth} {what}")
    }
}

/// The fault in a word or two.
pub fn name_of(fault: Fault) -> &'static str {
    match fault {
        Fault::Throttled => "throttled",
        Fault::InternalError => "500",
        Fault::Unavailable => "503",
        Fault::AccessDenied => "access denied",
        Fault::ConnectionReset => "connection reset",
        Fault::AnswerLost => "answer lost",
        Fault::Slow { .. } => "too slow",
        Fault::StaleRead => "stale read",
    }
}

/// Every kind of fault.
pub const FAULTS: [Fault; 8] = [
    Fault::Throttled,
    Fault::InternalError,
    Fault::Unavailable,
    Fault::ConnectionReset,
    Fault::AnswerLost,
    Fault::Slow {
        milliseconds: TOO_SLOW_MILLISECONDS,
    },
    Fault::StaleRead,
    Fault::AccessDenied,
];

/// The calls of functions among those recorded, in order; the n-th counts every caller, as fault
/// rules do.
pub fn points(calls: &[Call]) -> Vec<Point> {
    let mut seen: HashMap<(&str, &str), u32> = HashMap::new();
    let mut points = Vec::new();
    for call in calls {
        let nth = seen.entry((&call.service, &call.operation)).or_default();
        *nth += 1;
        // A call that a fault befell may have no caller, because nobody got to look at it.
        if call.caller.contains("assumed-role") || call.fault.is_some() {
            points.push(Point {
                service: call.service.clone(),
                operation: call.operation.clone(),
                nth: *nth,
            });
        }
    }
    points
}

/// The calls after that of [`Case::undo`], in whose run the others were recorded.
pub fn after_the_failure(points: &[Point]) -> &[Point] {
    let failed = points.iter().position(|point| *point == Case::undo().point);
    failed.map_or(&[], |at| &points[at + 1..])
}

/// Every fault at every call; stale answers only where something is read.
pub fn cases(points: &[Point], undoing: bool) -> Vec<Case> {
    let mut cases = Vec::new();
    for point in points {
        for fault in FAULTS {
            if fault != Fault::StaleRead || point.reads() {
                let point = point.clone();
                cases.push(Case {
                    point,
                    fault,
                    undoing,
                });
            }
        }
    }
    cases
}

/// As many cases as asked for, drawn without repetition, from each kind of fault as many as from any
/// other while there are some; the same seed draws the same ones in the same order.
pub fn sample(mut cases: Vec<Case>, seed: u64, number: usize) -> Vec<Case> {
    // In an order of their own: two concurrent calls may be recorded either way round.
    cases.sort_by_cached_key(|case| (case.undoing, case.point.clone(), name_of(case.fault)));
    cases.dedup();
    fastrand::Rng::with_seed(seed).shuffle(&mut cases);
    let mut drawn: HashMap<_, usize> = HashMap::new();
    cases.sort_by_cached_key(|case| {
        let of_its_kind = drawn.entry(name_of(case.fault)).or_default();
        *of_its_kind += 1;
        *of_its_kind
    });
    cases.truncate(number);
    cases
}
