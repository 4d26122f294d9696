//! The time, read at the moment at which it is needed.

use time::UtcDateTime;

/// Gives the time at each call; in production, [`UtcDateTime::now`].
///
/// An invocation may last almost a minute. A mark with the time of its start would seem older than it is,
/// and what waits for the mark to age would wait too short. So every write reads the time for itself.
pub type Clock<'a> = &'a dyn Fn() -> UtcDateTime;
