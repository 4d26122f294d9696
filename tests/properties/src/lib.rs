//! The properties of everything that reads input from outside. For any input there is no panic, the result
//! is a valid value or one of the documented errors, and its message is printable.
//!
//! Each module has the properties of one parser, as assertions over bytes or text, which panic if they do
//! not hold. They are checked with known edge cases in `tests/examples.rs`, with generated cases in
//! `tests/hostile.rs`, and with the cases of a fuzzer in `src/bin/fuzz.rs` (`make fuzz`). The cases that
//! the fuzzer found are in `seeds/` and are part of every test run.

pub mod console_input;
pub mod deployment_ids;
pub mod drain_answers;
pub mod messages;
pub mod payload;
pub mod push_events;
pub mod tags;

/// Checks all properties of all parsers with the same bytes.
///
/// # Panics
/// If a property does not hold.
pub fn check(bytes: &[u8]) {
    push_events::check(bytes);
    console_input::check(bytes);
    drain_answers::check(bytes);
    let text = String::from_utf8_lossy(bytes);
    deployment_ids::check(&text);
    tags::check(&text);
    messages::check(&text);
}
