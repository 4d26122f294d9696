//! The local cloud: AWS as far as pulse-deploy depends on it, on one machine.

mod aws_cli;
pub mod control_plane;
pub mod ecs;
pub mod front_door;
pub mod image;
pub mod load_balancer;
pub mod local_cloud;
pub mod ministack;
pub mod pace;

pub use local_cloud::{LocalCloud, Options};
