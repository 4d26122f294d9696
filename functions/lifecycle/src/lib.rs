//! What every lifecycle step shares: the vocabulary, the names and tags on AWS, the errors that the
//! state machines match, and how a step is served as a Lambda function.
//!
//! A step's crate holds `run` (look up, adopt what carries our tag, else create) and, where it makes
//! something, `undo`. Waiting is not done here: it belongs to the state machines.

pub mod aws_error;
pub mod defaults;
pub mod deployment_id;
pub mod error;
mod image_digest;
pub mod input;
pub mod listener;
pub mod printable;
pub mod sdk;
pub mod serve;
pub mod settings;
pub mod tags;
pub mod tasks;

pub use deployment_id::{DeploymentId, Environment};
pub use error::{ErrorName, StepError};
pub use image_digest::is_image_digest;
pub use settings::Settings;
