//! What is explored: a cloud, and the executions in it.

use crate::call::Deployment;
use crate::learned::{Deletion, Invocation, Rollback};
use crate::world::World;

/// What happens after a running function is killed. It dies between two calls, or after its last call
/// and before its own answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Death {
    /// The state machine invokes it again, at most this often.
    Retried(u8),
    /// The state machine does not invoke it again and goes on to the undo.
    GivenUp,
    /// An operator stopped the execution.
    Stopped,
}

/// What an execution does, as in `statemachine/*.asl.json`.
#[derive(Debug, Clone, Copy)]
pub enum Plan {
    /// Switches, and undoes a candidate that did not go live.
    Deploy(Deployment),
    /// Switches and ends, which keeps the number of states small.
    Switch(Deployment),
    /// Rolls back: brings a deployment back, waits for its fresh tasks, if it gets some, and switches.
    RollBack(Deployment),
    /// The same, and takes the visitors of what it has taken back along.
    Evict(Deployment),
    /// Takes the visitors along of what a rollback to this deployment, which has switched, has taken back.
    TakeAlong(Deployment),
    /// Drains a deployment by one sweep.
    Drain(Deployment),
    /// Removes the mark of a rollback: an operator, or time.
    Forget(Deployment),
    /// Deletes a candidate that an execution left behind.
    Undo(Deployment),
    /// Deletes a deployment that was live and has drained.
    CleanUp(Deployment),
    /// Deletes a deployment whose time to drain is over: its tasks stop one after another.
    Expire(Deployment),
    /// An operator invokes the deletion of a deployment that was live.
    DeleteByHand(Deployment),
    /// An operator splits the traffic between the active deployment and this one, if that one is fit to get some.
    Split(Deployment),
}

impl Plan {
    pub(crate) fn deployment(self) -> Deployment {
        match self {
            Plan::Deploy(deployment)
            | Plan::Switch(deployment)
            | Plan::RollBack(deployment)
            | Plan::Evict(deployment)
            | Plan::TakeAlong(deployment)
            | Plan::Drain(deployment)
            | Plan::Forget(deployment)
            | Plan::Undo(deployment)
            | Plan::CleanUp(deployment)
            | Plan::Expire(deployment)
            | Plan::DeleteByHand(deployment)
            | Plan::Split(deployment) => deployment,
        }
    }

    pub(crate) fn deletes(self) -> bool {
        self.deletion().is_some()
    }

    /// How it deletes.
    pub(crate) fn deletion(self) -> Option<Deletion> {
        match self {
            Plan::Deploy(_) | Plan::Undo(_) => Some(Deletion::Candidate),
            Plan::CleanUp(_) => Some(Deletion::Drained),
            Plan::Expire(_) => Some(Deletion::Forced),
            Plan::DeleteByHand(_) => Some(Deletion::ByHand),
            _ => None,
        }
    }

    /// Whether it may change the service other than by deleting it.
    pub(crate) fn updates_the_service(self) -> bool {
        self.rolls_back() || matches!(self, Plan::Drain(_) | Plan::Expire(_))
    }

    pub(crate) fn switches(self) -> bool {
        self.rolls_back() || matches!(self, Plan::Deploy(_) | Plan::Switch(_))
    }

    pub(crate) fn rolls_back(self) -> bool {
        matches!(self, Plan::RollBack(_) | Plan::Evict(_))
    }

    pub(crate) fn evicts(self) -> bool {
        matches!(self, Plan::Evict(_) | Plan::TakeAlong(_))
    }

    /// The invocation for that work, with what a rollback has found.
    pub(crate) fn invocation(self, work: Work, rollback: Option<Rollback>) -> Invocation {
        let deployment = self.deployment();
        match work {
            Work::Restoring { is_late } => Invocation::Restore {
                deployment,
                is_late,
                evicts: self.evicts(),
            },
            Work::Evicting => Invocation::Evict {
                deployment,
                taken_back: rollback.map_or(0, |rollback| rollback.taken_back),
            },
            Work::Draining => Invocation::Drain { deployment },
            Work::Switching => Invocation::Switch {
                deployment,
                rollback,
            },
            Work::TakingBack { marked } => Invocation::TakeBack {
                deployment,
                marked,
                rollback: rollback.expect("a rollback that has begun"),
            },
            Work::Undoing => Invocation::Delete {
                deployment,
                deletion: self.deletion().expect("a plan that deletes"),
            },
        }
    }
}

/// A cloud and the executions to explore in it.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Its name in reports.
    pub name: &'static str,
    /// The cloud at the beginning.
    pub world: World,
    /// The executions.
    pub plans: Vec<Plan>,
    /// The number of the execution whose functions may die, and what happens then.
    pub death: Option<(usize, Death)>,
    /// How many changes may fail: with or without an effect, with an error that is worth a retry or one that is
    /// not.
    pub failures: u8,
    /// How many changes may take effect without an answer, at once or later than the next attempt.
    pub lost: u8,
    /// How many preemptions an order may have, which is how often another execution continues while the
    /// last one could. `None` explores every order. Three executions have too many orders, and their
    /// races need few preemptions.
    pub preemptions: Option<u8>,
    /// Whether an undo waits between two of its calls for the switches in flight, as the five seconds of
    /// the state machine do. A switch needs far less from its read of the tags to its modification.
    pub undo_waits: bool,
}

impl Scenario {
    /// Every order, without deaths and failures.
    pub fn new(name: &'static str, world: World, plans: &[Plan]) -> Scenario {
        Scenario {
            name,
            world,
            plans: plans.to_vec(),
            death: None,
            failures: 0,
            lost: 0,
            preemptions: None,
            undo_waits: true,
        }
    }

    /// How often they may die.
    pub(crate) fn deaths(&self) -> u8 {
        match self.death {
            None => 0,
            Some((_, Death::Retried(times))) => times,
            Some((_, Death::GivenUp | Death::Stopped)) => 1,
        }
    }

    /// The same scenario in which the functions of that execution may die.
    pub fn dying(self, execution: usize, death: Death) -> Scenario {
        Scenario {
            death: Some((execution, death)),
            ..self
        }
    }

    /// The same scenario in the orders with at most that many preemptions.
    pub fn with_preemptions(self, preemptions: u8) -> Scenario {
        Scenario {
            preemptions: Some(preemptions),
            ..self
        }
    }

    /// The same scenario in which that many changes may fail.
    pub fn failing(self, failures: u8) -> Scenario {
        Scenario { failures, ..self }
    }

    /// The same scenario in which the answers to that many changes may be lost.
    pub fn losing(self, lost: u8) -> Scenario {
        Scenario { lost, ..self }
    }
}

/// What a function of an execution does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Work {
    /// Finds the target of a rollback, and starts its fresh tasks.
    Restoring {
        /// Whether its mark is so old that every eviction that has not seen it is over.
        is_late: bool,
    },
    Evicting,
    Draining,
    Switching,
    /// Takes the marks of a failed rollback back.
    TakingBack {
        /// Whether it got as far as the switch.
        marked: bool,
    },
    Undoing,
}
