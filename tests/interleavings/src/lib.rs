//! Runs the real switch, undo, drain and rollback of several deployments in every order of their AWS calls.
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
//! - A late change takes effect before an undo acts on its own mark, and a late change of the listener before the
//!   switch is tried again and while its announcement is fresh. A switch makes a single attempt to modify the listener,
//!   the state machine tries it again after five seconds, and the times of `lifecycle::defaults` (`SWITCH_IN_FLIGHT`,
//!   `SWITCH_ANNOUNCED`) leave five seconds as well. AWS promises no limit. What lands later than that is for the
//!   cleanup, which repairs a default action without a healthy target and reports an older deployment that is active.
//! - Reads are never stale. `make faults` shows each function stale reads, one at a time.
//! - Targets do not lose their health by themselves. No switch can keep a target healthy after it has looked.
//! - A rollback waits as long as it likes for fresh tasks, so the orders include an execution that is stopped
//!   and redriven after its mark has aged.
//! - No two rollbacks bring the same deployment back at different times: the time of this world stands still.
//! - An operator gives traffic only to a deployment that is whole, was live, and neither drains nor is being deleted.

pub mod call;
pub mod explore;
pub mod learned;
mod promises;
pub mod scenario;
mod state;
pub mod world;
