//! Runs the real switch, undo, drain, rollback and eviction of several deployments in every order of their AWS calls.
//!
//! A function is deterministic: its next call follows from the answers that it received. So each
//! function runs once for every sequence of answers that can occur ([`learned`]). The orders are then
//! explored over the results ([`mod@explore`]), and equal states of the cloud and of all runs are explored
//! only once.
//!
//! A call may fail, with or without an effect. Its answer may get lost, so that the SDK makes it again, and it may
//! take effect later than its next attempt. At the end of each order, the next deployment must go live.
//!
//! What the exploration assumes, and why:
//!
//! - Three executions at once are explored only in the orders with few preemptions: there are too many others.
//! - A late change takes effect before an undo acts on its own mark.
//! - A late change of the listener takes effect before its switch, which has failed and is tried again, looks at the
//!   rules and the listener. Until then, the change is announced. A switch makes a single attempt to modify the
//!   listener, the state machine tries it again after five seconds, and the times of `lifecycle::defaults`
//!   (`SWITCH_IN_FLIGHT`, `SWITCH_ANNOUNCED`) leave five seconds as well. AWS promises no limit, and no function can
//!   look after a change that lands later still. That is for the cleanup, which repairs a default action without a
//!   healthy target and reports an older deployment that is active.
//! - A rollback to what is being evicted asks again until every eviction is over that may not have seen its mark. An
//!   eviction acts on a look of five seconds ago at most, by a single attempt, and the rollback waits for half a minute.
//! - After a death, a failure or a late change, the active deployment may lack a rule that an eviction has deleted. Its
//!   visitors reach it by the default action, and the next cleanup makes the rule.
//! - Reads are never stale. `make faults` shows each function stale reads, one at a time.
//! - Targets do not lose their health by themselves. No switch can keep a target healthy after it has looked.
//! - A rollback waits as long as it likes for fresh tasks, so the orders include an execution that is stopped
//!   and redriven after its mark has aged.
//! - Two rollbacks to the same deployment share its mark: the time of this world stands still.
//! - An operator gives traffic only to a deployment that is whole, was live, and neither drains nor is being deleted.
//!
//! What is not explored:
//!
//! - Executions of the same deployment: no undo is asked on behalf of an execution or of a state machine, so none looks
//!   for the execution that has adopted the deployment.
//! - The repair of a default action that names nothing healthy, which is another switch.
//! - The other steps of a deployment. A candidate exists from the beginning, and the rules of a rollback's target are
//!   made again in one step that does not fail.
//! - A rollback whose target loses its health just before the switch does not wait for it, as if its time were up.
//! - The plan of a cleanup: a sweep drains or deletes what the scenario says.

pub mod call;
pub mod explore;
pub mod learned;
mod promises;
pub mod scenario;
mod state;
pub mod world;
