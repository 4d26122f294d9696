//! What a deployment runs with: the fields that an environment's settings and an execution's input may have, how
//! they are checked and how the two are merged.

mod base;
mod check;
mod deployment;
mod document;
pub mod fargate;
mod fields;
mod freeze;
mod input;
pub mod object;
pub mod parameter;
#[cfg(feature = "schema")]
pub mod schema;
mod secret;
mod source;

pub use deployment::{Defaults, Deployment, FailedShare, Health, Release, Watch, base_of};
pub use document::{Document, parameter_name};
pub use fields::{ErrorFields, Fields, HealthFields, OnBreach, ReleaseFields, WatchFields};
pub use freeze::Freeze;
pub use input::Input;
pub use source::Source;
