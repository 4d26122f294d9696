//! What the scenarios stand on: a local cloud with an environment deployed to it by the same script
//! as on AWS, clients for it, and visitors who count every failed request.

pub mod blueprint;
pub mod delay;
pub mod execution;
pub mod faults;
pub mod machines;
pub mod observers;
pub mod queues;
pub mod remaining;
pub mod roles;
pub mod test_environment;
pub mod traces;
pub mod visitors;
pub mod websocket;

pub use blueprint::Blueprint;
pub use execution::Execution;
pub use observers::Observers;
pub use test_environment::TestEnvironment;
pub use visitors::{Traffic, Visitor};
