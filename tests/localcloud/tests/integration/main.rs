//! The local cloud as a whole, called as AWS is.
//!
//! One binary, so that it is linked once and tests of different files run side by side.

mod authorisation;
mod aws_cli;
mod calls_and_faults;
mod cloud;
mod data_limit;
mod deadlines;
mod foreground;
mod load_balancing;
mod push_events;
mod schedules;
