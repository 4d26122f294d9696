//! The fuzz target, which checks all properties with the cases of libFuzzer. `make fuzz` builds and runs it.

#![no_main]
// The macro declares the function that libFuzzer calls.
#![allow(unsafe_code)]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| properties::check(bytes));
