//! Rules that ECS enforces, each in its own module.

pub mod circuit_breaker;
pub mod containers;
pub mod fargate_sizes;
pub mod restart_throttle;
pub mod service_creation;
pub mod task_definition;
