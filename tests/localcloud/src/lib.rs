//! The local cloud: the parts of AWS that pulse-deploy depends on, on one machine.

mod aws_cli;
pub mod cloudwatch;
mod control_plane;
pub mod ecs;
pub mod gateway;
pub mod image;
pub mod load_balancer;
mod local_cloud;
pub mod ministack;
pub mod scripted_function;
pub mod time_scale;

pub use local_cloud::{LocalCloud, Options};
