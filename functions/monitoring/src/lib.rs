//! What CloudWatch says: which alarms ring, and which share of a version's requests failed. Apart, because few functions
//! need its client.

mod alarms;
mod failures;

pub use alarms::{Alarms, alarms};
pub use failures::{Failures, Requests, Window, failures};
