//! What every lifecycle step shares: the vocabulary, the errors that the state machines match, a module
//! for each resource of a deployment, and how a step is served as a Lambda function.
//!
//! A function that calls AWS fails as [`aws_error::CODES`] say; its `# Errors` list what it adds to that.
//!
//! A resource's module looks it up and changes it; it decides nothing. The decisions are in the steps'
//! crates: `run` looks up, adopts what carries our tags, or creates; where a step makes something, `undo`
//! deletes it. Waiting belongs to the state machines.

pub mod actions;
pub mod affinity;
pub mod aws_error;
pub mod baseline;
mod clock;
pub mod defaults;
pub mod deployment_id;
pub mod error;
pub mod executions;
pub mod failed_tasks;
pub mod guard;
mod image_digest;
pub mod input;
mod origin;
pub mod policy;
pub mod printable;
pub mod raw_task_definition;
pub mod rollback_target;
pub mod routing;
pub mod scaling;
pub mod sdk;
pub mod serve;
pub mod service;
pub mod stopped_task;
pub mod tags;
pub mod target_group;
pub mod task_definition;
pub mod tasks;
pub mod variables;

pub use baseline::Baseline;
pub use clock::Clock;
pub use deployment_id::{DeploymentId, Environment};
pub use error::{ErrorName, StepError};
pub use image_digest::is_image_digest;
pub use origin::Origin;
