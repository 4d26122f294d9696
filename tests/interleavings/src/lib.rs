//! Runs the real switch, undo, drain and rollback of several deployments in every order of their AWS calls.
//!
//! A function is deterministic: its next call follows from the answers that it received. So each
//! function runs once for every sequence of answers that can occur ([`learned`]). The orders are then
//! explored over the results ([`explore`]), and equal states of the cloud and of all runs are explored
//! only once.
//!
//! The exploration has limits:
//!
//! - It explores three executions at once only in the orders with few preemptions.
//! - A call takes effect while its caller waits for it, never later.
//! - Reads are never stale.
//! - Targets do not lose their health by themselves.
//! - An undo waits longer between two of its calls than a switch needs from its read of the tags to its
//!   modification of the listener. The announcement of a switch is fresh until the switch has ended.
//! - A rollback waits as long as it likes for fresh tasks, so the orders include an execution that is stopped
//!   and redriven after its mark has aged.
//! - No two rollbacks bring the same deployment back at different times.

pub mod call;
pub mod explore;
pub mod learned;
pub mod world;
