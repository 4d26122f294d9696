//! What must hold of everything that is read from outside, whatever comes: no panic; either a value
//! that keeps its promises or a refusal by one of our error names; and a message that can be shown.
//!
//! Each module has the properties of one parser as plain assertions over bytes or text. Three callers
//! try to break them: `tests/examples.rs` with the cases that are known to hurt, `tests/hostile.rs`
//! with generated ones, and `src/bin/fuzz.rs` with what a fuzzer finds (`make fuzz`). What it found is
//! kept in `seeds/`, and tried again by every test run.

pub mod console_input;
pub mod deployment_ids;
pub mod drain_answers;
pub mod messages;
pub mod payload;
pub mod push_events;
pub mod tags;

/// All properties of all parsers, for the same bytes.
///
/// # Panics
/// When one does not hold.
pub fn check(bytes: &[u8]) {
    push_events::check(bytes);
    console_input::check(bytes);
    drain_answers::check(bytes);
    let text = String::from_utf8_lossy(bytes);
    deployment_ids::check(&text);
    tags::check(&text);
    messages::check(&text);
}
