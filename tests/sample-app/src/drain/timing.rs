//! The duration of the comparison does not reveal how much of a secret is right.
//!
//! The secret is so long that a comparison which stops at the first difference is hundreds of times
//! faster if the first byte differs than if the last one does. The load of the machine does not hide
//! such a difference, and does not cause one in the median of alternating tries.

use std::hint::black_box;
use std::time::{Duration, Instant};

use super::is_secret;

const LENGTH: usize = 256 * 1024;
const TRIES: usize = 41;
/// The ratio of two durations from which they count as different. Noise stays below it, and a comparison
/// that stops early is hundreds of times faster.
const RATIO: u32 = 5;

type Compare = fn(&[u8], &[u8]) -> bool;

/// Whether the comparison takes much longer with one wrong secret than with the other.
fn differs(compare: Compare, known: &[u8], one: &[u8], other: &[u8]) -> bool {
    let mut times: [Vec<Duration>; 2] = Default::default();
    for _ in 0..TRIES {
        for (token, times) in [one, other].into_iter().zip(&mut times) {
            let begun = Instant::now();
            assert!(!black_box(compare)(black_box(known), black_box(token)));
            times.push(begun.elapsed());
        }
    }
    let [one, other] = times.map(|mut times| {
        times.sort();
        // Shorter durations are below the resolution of the clock.
        times[TRIES / 2].max(Duration::from_nanos(200))
    });
    println!("{one:?} and {other:?}");
    one.max(other) > one.min(other) * RATIO
}

fn secret() -> Vec<u8> {
    (b'a'..=b'z').cycle().take(LENGTH).collect()
}

/// The secret with a different byte at a position.
fn wrong_at(at: usize) -> Vec<u8> {
    let mut wrong = secret();
    wrong[at] = b'0';
    wrong
}

/// Pairs of wrong secrets that differ early and late, of the right length and too short.
fn pairs() -> [[Vec<u8>; 2]; 2] {
    let short = |given: Vec<u8>| given[..LENGTH - 1].to_vec();
    [
        [wrong_at(0), wrong_at(LENGTH - 1)],
        [short(wrong_at(0)), short(secret())],
    ]
}

#[test]
fn the_position_of_a_wrong_byte_does_not_change_the_duration() {
    assert!(is_secret(&secret(), &secret()));
    for [first, last] in pairs() {
        assert!(!differs(is_secret, &secret(), &first, &last));
    }
}

#[test]
fn a_comparison_that_stops_at_the_first_difference_is_detected() {
    let plain: Compare = |known, token| known == token;
    let byte_by_byte: Compare = |known, token| {
        known.iter().zip(token).all(|(known, token)| known == token) && known.len() == token.len()
    };
    let [right_length, short] = &pairs();
    for (compare, [first, last]) in [
        (plain, right_length),
        (byte_by_byte, right_length),
        (byte_by_byte, short),
    ] {
        assert!(differs(compare, &secret(), first, last));
    }
}
