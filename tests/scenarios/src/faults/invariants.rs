//! What must hold whatever call fails.

use std::fmt;

use localcloud::gateway::faults::Fault;

use super::plan::{Case, Workflow};
use crate::visitors::{Pin, Tally};

/// What must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// (a) The default action never names a group without a healthy target, nor one that is being
    /// deleted.
    Routed,
    /// (b) No visitor's request fails, and who is pinned stays on their version.
    Unnoticed,
    /// (c) The execution ends in a documented ending, and what that promises is so.
    Ended,
    /// (d) What is not ours is as it was.
    Foreign,
    /// (e) One cleanup leaves nothing more to do, and the same thing run again gets there.
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
    /// The ending; empty if the execution did not end in time, [`NEVER_STARTED`] if none began.
    pub ending: String,
    /// The cause of a failure.
    pub cause: String,
    /// Whether it got as far as the switch.
    pub switching: bool,
    /// The deployment that the default action names.
    pub active: Option<String>,
    /// What exists of what should be gone then: of a new deployment that did not go live, or of one
    /// that was to be deleted.
    pub left: Vec<String>,
}

/// The ending of what no execution was started for.
pub const NEVER_STARTED: &str = "never started";

/// What the watcher of the default action saw.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Watched {
    /// How often it looked.
    pub checks: usize,
    /// Each time that something was wrong.
    pub wrong: Vec<String>,
}

/// A way to ask for a page, and the deployments that may answer it.
pub type AllowedAnswers = (Pin, Vec<String>);

/// All that was seen of one run.
#[derive(Debug, Clone)]
pub struct Observation {
    /// What was run and what was to go wrong.
    pub case: Case,
    /// Whether every injection hit a call; a run may take another way than the recorded one.
    pub was_hit: bool,
    /// The deployment that was active before.
    pub before: String,
    /// The deployment that is active when the run ends well.
    pub after: String,
    /// Who may be answered by whom.
    pub allowed: Vec<AllowedAnswers>,
    /// The default action during the run.
    pub watched: Watched,
    /// What visitors met.
    pub tally: Tally,
    /// The end of the execution in which something went wrong.
    pub first: End,
    /// What is left over or still due after one cleanup.
    pub due: Vec<String>,
    /// The end of the execution that was started again with nothing going wrong.
    pub again: End,
    /// What is not ours, before and after.
    pub foreign: (String, String),
    /// What was left of deployments that were deleted when the run was over.
    pub left: Vec<String>,
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
        let mut found = self.watched.wrong.clone();
        // A watcher that saw nothing proves nothing.
        if self.watched.checks == 0 {
            found.push("nobody watched the default action".to_owned());
        }
        found
    }

    fn noticed(&self) -> Vec<String> {
        let mut found = self.tally.failed.clone();
        if self.tally.answers() == 0 {
            found.push("no visitor was answered".to_owned());
        }
        for (pin, deployment) in self.tally.answered.keys() {
            let allowed = self.allowed.iter().find(|(asked, _)| asked == pin);
            if !allowed.is_some_and(|(_, by)| by.contains(deployment)) {
                found.push(format!("{pin:?} was answered by {deployment}"));
            }
        }
        found
    }

    fn badly_ended(&self) -> Vec<String> {
        let End { ending, cause, .. } = &self.first;
        let said = format!("ended as {ending:?} ({cause})");
        let found = match self.case.workflow {
            Workflow::Deploy | Workflow::Undo | Workflow::Push => self.badly_deployed(),
            Workflow::Rollback | Workflow::Restore => self.badly_rolled_back(),
            Workflow::Cleanup => self.badly_cleaned_up(),
        };
        let found = found.into_iter();
        found.map(|what| format!("{said}, but {what}")).collect()
    }

    /// What an ending of a deployment says and is not so.
    fn badly_deployed(&self) -> Vec<String> {
        let End {
            ending,
            switching,
            left,
            ..
        } = &self.first;
        let undoing = self.case.workflow == Workflow::Undo;
        let passing = self.case.is_passing();
        match ending.as_str() {
            "Succeeded" if !undoing => self.active_is(&[&self.after]),
            // What passes by itself is tried again and costs nobody a deployment.
            "Failed" | "Refused" if undoing || !passing => {
                let mut found = self.active_is(&[&self.before]);
                // A list that is old hides a revision from the undo; the next cleanup finds it.
                let outdated = undoing && self.case.has(Fault::StaleRead);
                let hidden = |what: &&String| outdated && what.starts_with("task definition ");
                if left.iter().any(|what| !hidden(&what)) {
                    found.push(format!("there is still {left:?}"));
                }
                found
            }
            // Documented for functions that cannot do what the switch or the undo needs.
            "UndoFailed" if self.case.has_broken_function() && (*switching || undoing) => {
                match switching {
                    true => self.active_is(&[&self.before, &self.after]),
                    false => self.active_is(&[&self.before]),
                }
            }
            NEVER_STARTED if !passing => {
                let mut found = self.active_is(&[&self.before]);
                found.extend((!left.is_empty()).then(|| format!("there is {left:?}")));
                found
            }
            _ => vec!["it has to end otherwise".to_owned()],
        }
    }

    /// What an ending of a rollback says and is not so.
    fn badly_rolled_back(&self) -> Vec<String> {
        let End {
            ending, switching, ..
        } = &self.first;
        let passing = self.case.is_passing();
        match ending.as_str() {
            "Succeeded" => self.active_is(&[&self.after]),
            "Refused" if !passing => self.active_is(&[&self.before]),
            "RollbackFailed" if !passing => match switching {
                true => self.active_is(&[&self.before, &self.after]),
                false => self.active_is(&[&self.before]),
            },
            _ => vec!["it has to end otherwise".to_owned()],
        }
    }

    /// What an ending of a cleanup says and is not so.
    fn badly_cleaned_up(&self) -> Vec<String> {
        let End { ending, left, .. } = &self.first;
        let passing = self.case.is_passing();
        let mut found = self.active_is(&[&self.before]);
        match ending.as_str() {
            "CleanedUp" if !left.is_empty() && passing => {
                found.push(format!("there is still {left:?}"));
            }
            "CleanedUp" => {}
            "CleanupFailed" if !passing => {}
            _ => found.push("it has to end otherwise".to_owned()),
        }
        found
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
        let well = match self.case.workflow {
            Workflow::Deploy | Workflow::Undo | Workflow::Push => ending == "Succeeded",
            // What is active already is nothing to go back to.
            Workflow::Rollback | Workflow::Restore => ending == "Succeeded" || ending == "Refused",
            Workflow::Cleanup => ending == "CleanedUp",
        };
        if !well || active.as_ref() != Some(&self.after) {
            found.push(format!(
                "run again it ended as {ending:?} ({cause}) with {active:?} active"
            ));
        }
        if !self.due.is_empty() {
            found.push(format!("after one cleanup there is {:?}", self.due));
        }
        if !self.left.is_empty() {
            found.push(format!("deleting what is over left {:?}", self.left));
        }
        found
    }
}

#[cfg(test)]
mod tests;
