//! What a deployment runs with: the fields that an environment's settings and an execution's input may have, how
//! they are checked and how the two are merged.

mod base;
mod check;
mod deployment;
mod document;
pub mod fargate;
mod fields;
mod freeze;
mod function;
mod input;
pub mod object;
pub mod parameter;
#[cfg(feature = "schema")]
pub mod schema;
mod secret;
mod source;

pub use deployment::{
    Approve, Defaults, Deployment, FailedShare, Health, Release, Smoke, Watch, base_of,
};
pub use document::{Document, parameter_name};
pub use fields::{
    ApproveFields, ErrorFields, Fields, HealthFields, OnBreach, ReleaseFields, SmokeFields,
    WatchFields,
};
pub use freeze::Freeze;
pub use input::Input;
pub use source::Source;
