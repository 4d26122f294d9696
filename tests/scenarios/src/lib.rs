//! What the scenarios stand on: a local cloud with an environment deployed to it by the same script
//! as on AWS, clients for it, and visitors who count every failed request.

pub mod blueprint;
pub mod crowd;
pub mod execution;
pub mod hold;
pub mod leftovers;
pub mod machines;
pub mod queues;
pub mod roles;
pub mod stage;
pub mod sweep;
pub mod traces;
pub mod visitors;
pub mod websocket;

pub use blueprint::Blueprint;
pub use crowd::Crowd;
pub use execution::Execution;
pub use stage::Stage;
pub use visitors::{Steady, Visitor};
