//! A state of the cloud with all executions, and the steps between two states.

use crate::call::{Call, Deployment};
use crate::learned::{Ending, Point, Rollback};
use crate::scenario::Work;
use crate::world::World;

/// The progress of an execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Stage {
    /// A function runs.
    Runs(Work, Point),
    /// The rollback makes the rules of its target again, in one step. Its fresh tasks are started already, or are still
    /// to be started.
    MakingRules {
        are_started: bool,
    },
    /// Until the evictions of these executions, as bits, that may not have seen the rollback to its target are over.
    WaitingForEvictions(u8),
    /// Until no switch to what is to be evicted is in flight.
    WaitingToEvict,
    /// Until the fresh tasks are healthy and the others have stopped.
    WaitingForTasks,
    /// The sweep has decided to ask these generations of tasks, as bits.
    Asking(u8),
    /// An operator, or time, removes the mark of a rollback.
    Forgetting,
    /// An operator splits the traffic.
    Splitting,
    /// Between two calls of the undo, until these executions, as bits, can no longer act on what they
    /// have read.
    Waiting(u8),
    Ended(Ending),
    Stopped,
}

impl Stage {
    /// Where a running function is.
    pub(crate) fn point(self) -> Option<Point> {
        match self {
            Stage::Runs(_, point) => Some(point),
            _ => None,
        }
    }

    pub(crate) fn switches(self) -> bool {
        matches!(self, Stage::Runs(Work::Switching, _))
    }

    /// Whether the execution goes on without a call.
    pub(crate) fn proceeds(self) -> bool {
        matches!(
            self,
            Stage::MakingRules { .. }
                | Stage::WaitingForEvictions(_)
                | Stage::WaitingToEvict
                | Stage::WaitingForTasks
                | Stage::Asking(_)
                | Stage::Forgetting
                | Stage::Splitting
        )
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Execution {
    pub(crate) stage: Stage,
    /// What its rollback has found.
    pub(crate) rollback: Option<Rollback>,
    /// The deployment that its switch has announced.
    pub(crate) announced: Option<Deployment>,
    /// The generations of tasks that its drain has listed.
    pub(crate) listed: u8,
    /// What its eviction has reported as evicted, as bits.
    pub(crate) evicted: u8,
    /// How its last switch ended.
    pub(crate) switch: Option<Ending>,
    /// Whether AWS has refused or not answered the last change of the listener by its last switch, or the mark that has
    /// to precede it.
    pub(crate) is_denied: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) world: World,
    pub(crate) executions: Vec<Execution>,
    pub(crate) deaths: u8,
    pub(crate) failures: u8,
    pub(crate) lost: u8,
    /// A change whose caller does not wait for it any more, and that will take effect.
    pub(crate) late: Option<(usize, Call)>,
    /// The execution that has set the default action.
    pub(crate) set_by: Option<usize>,
    /// The deployments that were ever named by the default action, as bits.
    pub(crate) named: u8,
    /// The execution that continued last, and how many preemptions are left. Both are unused when every
    /// order is explored.
    pub(crate) last: usize,
    pub(crate) preemptions: u8,
}

impl State {
    /// The deployment that a late change of the listener by this execution will name.
    pub(crate) fn switches_late_to(&self, execution: usize) -> Option<Deployment> {
        match self.late {
            Some((by, Call::ModifyListener(deployment))) if by == execution => Some(deployment),
            _ => None,
        }
    }
}

/// What an execution does next.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    pub(crate) execution: usize,
    pub(crate) kind: Kind,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Call,
    /// Goes on without a call.
    Proceeds,
    AnswerLost,
    FailsBefore(&'static str),
    FailsAfter,
    Dies,
    /// The change takes effect, its answer is lost, and the SDK makes the next attempt.
    Repeats,
    /// The same, but the change takes effect later. A switch makes no other attempt to modify the listener, and fails.
    IsLate,
    /// The late change takes effect.
    Lands,
}
