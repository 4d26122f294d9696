//! The complete local cloud, called as AWS is.
//!
//! A single binary, which is linked once and runs the tests of all files in parallel.

mod authorisation;
mod autoscaling;
mod aws_cli;
mod calls_and_faults;
mod cloud;
mod cloudwatch;
mod deadlines;
mod execution_limits;
mod foreground;
mod functions;
mod load_balancing;
mod networks;
mod parameters;
mod push_events;
mod schedules;
mod scripted_functions;
mod service;
mod task_definitions;
mod task_tokens;
mod what_is_kept;
