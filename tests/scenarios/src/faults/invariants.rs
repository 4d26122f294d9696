//! The invariants: what must hold in every run, with any fault.

use std::fmt;

use localcloud::gateway::faults::Fault;

use super::plan::{Case, Workflow};
use crate::visitors::{Pin, Tally};

/// One of the invariants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// (a) The default action never names a target group without a healthy target, nor one that is
    /// being deleted.
    Routed,
    /// (b) No request fails, and pinned visitors stay on their version.
    Unnoticed,
    /// (c) The execution ends in a documented ending, and what this ending says is true.
    Ended,
    /// (d) Foreign resources do not change.
    Foreign,
    /// (e) One cleanup leaves nothing more to do, and running the same workflow again succeeds.
    Converged,
}

/// An invariant that did not hold, with the evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which invariant did not hold.
    pub invariant: Invariant,
    /// A sentence with what was observed.
    pub evidence: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.invariant, self.evidence)
    }
}

/// How an execution ended, and the state right after.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct End {
    /// The ending. Empty if the execution did not end in time, [`NEVER_STARTED`] if none started.
    pub ending: String,
    /// The cause with which it failed, or empty text.
    pub cause: String,
    /// Whether it entered the switch.
    pub switching: bool,
    /// The deployment that the default action names.
    pub active: Option<String>,
    /// What remains of the deployment that should not exist now: a new one that did not go live, or one
    /// that was to be deleted.
    pub left: Vec<String>,
}

/// The ending when no execution started.
pub const NEVER_STARTED: &str = "never started";

const UNEXPECTED: &str = "this ending is not expected";

/// The observations of the watcher of the default action.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Watched {
    /// How many times it checked.
    pub checks: usize,
    /// Everything that it found wrong.
    pub wrong: Vec<String>,
}

/// A pin, and the deployments that may answer requests with it.
pub type AllowedAnswers = (Pin, Vec<String>);

/// Everything that was observed of one run.
#[derive(Debug, Clone)]
pub struct Observation {
    /// The workflow and its injections.
    pub case: Case,
    /// Whether every injection hit a call. A run may take another path than the recorded one.
    pub was_hit: bool,
    /// The deployment that was active before the run.
    pub before: String,
    /// The deployment that is active after a run that ends well.
    pub after: String,
    /// Which deployments may answer which visitors.
    pub allowed: Vec<AllowedAnswers>,
    /// The checks of the default action during the run.
    pub watched: Watched,
    /// The visitors' requests and answers.
    pub tally: Tally,
    /// The end of the execution with faults.
    pub first: End,
    /// What remains or is still to be done after one cleanup.
    pub due: Vec<String>,
    /// The end of the execution that was started again without faults.
    pub again: End,
    /// The foreign resources before and after.
    pub foreign: (String, String),
    /// What remains of the deployments that were deleted after the run.
    pub left: Vec<String>,
}

impl Observation {
    /// Every violation of an invariant.
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
        let mut found = self.watched.wrong.clone();
        // A watcher that checked nothing proves nothing.
        if self.watched.checks == 0 {
            found.push("the default action was never checked".to_owned());
        }
        found
    }

    fn noticed(&self) -> Vec<String> {
        let mut found = self.tally.failed.clone();
        if self.tally.answers() == 0 {
            found.push("no visitor was answered".to_owned());
        }
        for (pin, deployment) in self.tally.answered.keys() {
            let allowed = self.allowed.iter().find(|(sent, _)| sent == pin);
            if !allowed.is_some_and(|(_, by)| by.contains(deployment)) {
                found.push(format!("{pin:?} was answered by {deployment}"));
            }
        }
        found
    }

    fn badly_ended(&self) -> Vec<String> {
        let End { ending, cause, .. } = &self.first;
        let found = match self.case.workflow {
            Workflow::Deploy | Workflow::Undo | Workflow::Push => self.badly_deployed(),
            Workflow::Rollback | Workflow::Evict | Workflow::Restore => self.badly_rolled_back(),
            Workflow::Cleanup => self.badly_cleaned_up(),
        };
        let found = found.into_iter();
        found
            .map(|what| format!("ended as {ending:?} ({cause}), but {what}"))
            .collect()
    }

    /// What is not true although the ending of the deployment says it.
    fn badly_deployed(&self) -> Vec<String> {
        let End {
            ending,
            switching,
            left,
            ..
        } = &self.first;
        let undoing = self.case.workflow == Workflow::Undo;
        let transient = self.case.is_transient();
        match ending.as_str() {
            "Succeeded" if !undoing => self.active_is(&[&self.after]),
            // Transient faults are retried, and fail no deployment.
            "Failed" | "Refused" if undoing || !transient => {
                let mut found = self.active_is(&[&self.before]);
                // A stale list hides a revision from the undo. The next cleanup finds it.
                let outdated = undoing && self.case.has(Fault::StaleRead);
                let hidden = |what: &&String| outdated && what.starts_with("task definition ");
                if left.iter().any(|what| !hidden(&what)) {
                    found.push(format!("{left:?} remain"));
                }
                found
            }
            // Documented for functions that cannot do the switch or the undo.
            "UndoFailed" if self.case.has_broken_function() && (*switching || undoing) => {
                self.active_is_either(*switching)
            }
            NEVER_STARTED if !transient => {
                let mut found = self.active_is(&[&self.before]);
                found.extend((!left.is_empty()).then(|| format!("{left:?} exist")));
                found
            }
            _ => vec![UNEXPECTED.to_owned()],
        }
    }

    /// What is not true although the ending of the rollback says it.
    fn badly_rolled_back(&self) -> Vec<String> {
        let End {
            ending,
            switching,
            left,
            ..
        } = &self.first;
        let transient = self.case.is_transient();
        let evicts = self.case.workflow == Workflow::Evict;
        match ending.as_str() {
            "Succeeded" => {
                let mut found = self.active_is(&[&self.after]);
                if evicts && transient && !left.is_empty() {
                    found.push(format!(
                        "{left:?} still pin visitors to what was taken back"
                    ));
                }
                found
            }
            "Refused" if !transient => self.active_is(&[&self.before]),
            "RollbackFailed" if !transient => self.active_is_either(*switching),
            _ => vec![UNEXPECTED.to_owned()],
        }
    }

    /// What is not true although the ending of the cleanup says it.
    fn badly_cleaned_up(&self) -> Vec<String> {
        let End { ending, left, .. } = &self.first;
        let transient = self.case.is_transient();
        let mut found = self.active_is(&[&self.before]);
        match ending.as_str() {
            "CleanedUp" if !left.is_empty() && transient => {
                found.push(format!("{left:?} remain"));
            }
            "CleanedUp" => {}
            "CleanupFailed" if !transient => {}
            _ => found.push(UNEXPECTED.to_owned()),
        }
        found
    }

    /// The deployment before is active, or possibly the one after if the execution entered the switch.
    fn active_is_either(&self, switching: bool) -> Vec<String> {
        if switching {
            self.active_is(&[&self.before, &self.after])
        } else {
            self.active_is(&[&self.before])
        }
    }

    fn active_is(&self, wanted: &[&String]) -> Vec<String> {
        let active = &self.first.active;
        match active {
            Some(active) if wanted.contains(&active) => Vec::new(),
            _ => vec![format!("{active:?} is active")],
        }
    }

    fn foreign_changes(&self) -> Vec<String> {
        let (before, after) = &self.foreign;
        if before == after && !before.is_empty() {
            Vec::new()
        } else {
            vec![format!("before: {before}\nafter: {after}")]
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
        let well = match self.case.workflow {
            Workflow::Deploy | Workflow::Undo | Workflow::Push => ending == "Succeeded",
            // A rollback to the active deployment is refused.
            Workflow::Rollback | Workflow::Evict | Workflow::Restore => {
                ending == "Succeeded" || ending == "Refused"
            }
            Workflow::Cleanup => ending == "CleanedUp",
        };
        if !well || active.as_ref() != Some(&self.after) {
            found.push(format!(
                "the second run ended as {ending:?} ({cause}) with {active:?} active"
            ));
        }
        if self.case.workflow == Workflow::Evict && !self.again.left.is_empty() {
            let left = &self.again.left;
            found.push(format!("after the second run, {left:?} still pin visitors"));
        }
        if !self.due.is_empty() {
            found.push(format!("after one cleanup, {:?} is still due", self.due));
        }
        if !self.left.is_empty() {
            found.push(format!("the deletion after the run left {:?}", self.left));
        }
        found
    }
}

#[cfg(test)]
mod tests;
