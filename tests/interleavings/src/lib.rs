//! Runs the real switch and the real undo of several deployments in every order of their AWS calls.
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
//!   modification of the listener.

pub mod call;
pub mod explore;
pub mod learned;
pub mod world;
