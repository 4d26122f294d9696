//! What must hold whatever call fails.

use std::collections::BTreeSet;
use std::fmt;

use localcloud::front_door::faults::Fault;

use super::plan::Case;
use crate::visitors::{Pin, Tally};

/// What must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// (a) The default action never names a group without a healthy target.
    Routed,
    /// (b) No visitor's request fails, and who is pinned stays on their version.
    Unnoticed,
    /// (c) The execution ends in a documented ending, and what that promises is so.
    Ended,
    /// (d) What is not ours is as it was.
    Foreign,
    /// (e) The same deployment started again goes live, and deleting the one before leaves nothing.
    Converged,
}

/// An invariant that did not hold, and how that was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The invariant.
    pub invariant: Invariant,
    /// What was seen.
    pub evidence: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.invariant, self.evidence)
    }
}

/// How an execution ended and what was there right after.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct End {
    /// The ending; empty if the execution did not end in time.
    pub ending: String,
    /// The cause of a failure.
    pub cause: String,
    /// Whether it got as far as the switch.
    pub switching: bool,
    /// The deployment that the default action names.
    pub active: Option<String>,
    /// What exists of the new deployment.
    pub left: Vec<String>,
}

/// What the watcher of the default action saw.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Watched {
    /// How often it looked.
    pub looks: usize,
    /// Each time that a group without a healthy target was named.
    pub unhealthy: Vec<String>,
}

/// All that was seen of one run.
#[derive(Debug, Clone)]
pub struct Observation {
    /// The fault that was asked for; none in a clean run.
    pub case: Option<Case>,
    /// Whether the fault befell a call; a run may take another way than the recorded one.
    pub befell: bool,
    /// The deployment that was live before.
    pub base: String,
    /// The new deployment.
    pub id: String,
    /// The default action during the run.
    pub watched: Watched,
    /// What visitors met, pinned to the deployment before or not at all.
    pub met: Tally,
    /// The end of the execution with the fault.
    pub first: End,
    /// The end of the last execution that was started again without a fault: the first one, or the
    /// second one after an undo that failed.
    pub again: End,
    /// What is not ours, before and after.
    pub foreign: (String, String),
    /// What was left of the deployment before after it was deleted.
    pub left_of_base: Vec<String>,
}

impl Observation {
    /// Every invariant that did not hold.
    pub fn violations(&self) -> Vec<Violation> {
        let of = |invariant, found: Vec<String>| {
            found.into_iter().map(move |evidence| Violation {
                invariant,
                evidence,
            })
        };
        of(Invariant::Routed, self.unrouted())
            .chain(of(Invariant::Unnoticed, self.noticed()))
            .chain(of(Invariant::Ended, self.badly_ended()))
            .chain(of(Invariant::Foreign, self.foreign_changes()))
            .chain(of(Invariant::Converged, self.diverged()))
            .collect()
    }

    fn unrouted(&self) -> Vec<String> {
        let mut found = self.watched.unhealthy.clone();
        // A watcher that saw nothing proves nothing.
        if self.watched.looks == 0 {
            found.push("nobody watched the default action".to_owned());
        }
        found
    }

    fn noticed(&self) -> Vec<String> {
        let mut found = self.met.failed.clone();
        if self.met.answers() == 0 {
            found.push("no visitor was answered".to_owned());
        }
        for (pin, deployment) in self.met.answered.keys() {
            let wanted = match pin {
                Pin::None => [&self.base, &self.id].contains(&deployment),
                Pin::Header(id) | Pin::Cookie(id) => id == deployment,
            };
            if !wanted {
                found.push(format!("{pin:?} was answered by {deployment}"));
            }
        }
        found
    }

    fn badly_ended(&self) -> Vec<String> {
        let End {
            ending,
            cause,
            switching,
            active,
            left,
        } = &self.first;
        let said = format!("ended as {ending:?} ({cause})");
        let passing = self.case.as_ref().is_none_or(Case::is_passing);
        let denied = self
            .case
            .as_ref()
            .is_some_and(|case| case.fault == Fault::AccessDenied);
        let outdated = self
            .case
            .as_ref()
            .is_some_and(|case| case.undoing && case.fault == Fault::StaleRead);
        let undoing = self.case.as_ref().is_some_and(|case| case.undoing);
        let mut found = Vec::new();
        match ending.as_str() {
            "Succeeded" if undoing => found.push(said),
            "Succeeded" if active.as_ref() != Some(&self.id) => {
                found.push(format!("{said}, but {active:?} is active"));
            }
            "Succeeded" => {}
            // What passes by itself is tried again and costs nobody a deployment.
            "RolledBack" | "Refused" if passing && !undoing => found.push(said),
            "RolledBack" | "Refused" => {
                if active.as_ref() != Some(&self.base) {
                    found.push(format!("{said}, but {active:?} is active"));
                }
                // A list that is old hides a revision from the undo; the next one or a cleanup finds it.
                let hidden = |what: &&String| outdated && what.starts_with("task definition ");
                if left.iter().any(|what| !hidden(&what)) {
                    found.push(format!("{said}, but there is still {left:?}"));
                }
            }
            // Documented for a role that may not do what the switch or the undo needs.
            "RollbackFailed" if denied && (*switching || undoing) => {
                let mut known = BTreeSet::from([&self.base]);
                known.extend(switching.then_some(&self.id));
                if !active.as_ref().is_some_and(|active| known.contains(active)) {
                    found.push(format!("{said}, but {active:?} is active"));
                }
            }
            _ => found.push(said),
        }
        found
    }

    fn foreign_changes(&self) -> Vec<String> {
        let (before, after) = &self.foreign;
        match before == after && !before.is_empty() {
            true => Vec::new(),
            false => vec![format!("before: {before}\nafter: {after}")],
        }
    }

    fn diverged(&self) -> Vec<String> {
        let mut found = Vec::new();
        let End {
            ending,
            cause,
            active,
            ..
        } = &self.again;
        if ending != "Succeeded" || active.as_ref() != Some(&self.id) {
            found.push(format!(
                "started again it ended as {ending:?} ({cause}) with {active:?} active"
            ));
        }
        if !self.left_of_base.is_empty() {
            found.push(format!(
                "deleting the one before left {:?}",
                self.left_of_base
            ));
        }
        found
    }
}
