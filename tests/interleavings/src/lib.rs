//! Runs the real switch and the real undo of several deployments in every order of their AWS calls.
//!
//! A function is deterministic: what it does next follows from the answers that it got. So each is
//! run once per sequence of answers that can occur ([`learned`]), and the orders are then explored
//! over those ([`explore`]), with equal states of the cloud and of all runs met only once.
//!
//! What it does not show: three executions at once are explored only in the orders that leave one
//! that could go on for another a few times; a call takes effect while it is waited for, never later;
//! reads are never stale; targets do not lose their health by themselves; and an undo waits longer
//! between two of its calls than a switch needs from reading the tags to modifying the listener.

pub mod call;
pub mod explore;
pub mod learned;
pub mod world;
