//! What the scenarios need: a local cloud with an environment that the same script deploys to it as
//! to AWS, clients for it, and visitors who count every failed request.

pub mod ageing;
pub mod blueprint;
pub mod delay;
pub mod execution;
pub mod faults;
pub mod life;
pub mod machines;
pub mod observers;
pub mod queues;
pub mod remaining;
pub mod roles;
pub mod settings;
pub mod test_environment;
pub mod traces;
pub mod visitors;
pub mod websocket;

pub use blueprint::Blueprint;
pub use execution::Execution;
pub use observers::Observers;
pub use test_environment::TestEnvironment;
pub use visitors::{Traffic, Visitor};
