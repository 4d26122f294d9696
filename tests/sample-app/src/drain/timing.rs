//! How long the comparison takes does not tell how much of a secret was right.
//!
//! The secret is so long that a comparison which stops at the first difference is hundreds of times
//! faster when that comes first than when it comes last: a difference that no load of the machine
//! hides, and that none makes up in the median of tries that take turns.

use std::hint::black_box;
use std::time::{Duration, Instant};

use super::is_secret;

const LENGTH: usize = 256 * 1024;
const TRIES: usize = 41;
/// Between what is the same but for noise and what is hundreds of times slower.
const TELLING: u32 = 5;

type Compare = fn(&[u8], &[u8]) -> bool;

/// Whether one of two wrong secrets takes so much longer than the other that it tells something.
fn tells(compare: Compare, known: &[u8], one: &[u8], other: &[u8]) -> bool {
    let mut times: [Vec<Duration>; 2] = Default::default();
    for _ in 0..TRIES {
        for (given, times) in [one, other].into_iter().zip(&mut times) {
            let begun = Instant::now();
            assert!(!black_box(compare)(black_box(known), black_box(given)));
            times.push(begun.elapsed());
        }
    }
    let [one, other] = times.map(|mut times| {
        times.sort();
        // Below this it is the clock that is measured.
        times[TRIES / 2].max(Duration::from_nanos(200))
    });
    println!("{one:?} and {other:?}");
    one.max(other) > one.min(other) * TELLING
}

fn secret() -> Vec<u8> {
    (b'a'..=b'z').cycle().take(LENGTH).collect()
}

/// The secret with another byte at a place.
fn wrong_at(at: usize) -> Vec<u8> {
    let mut wrong = secret();
    wrong[at] = b'0';
    wrong
}

/// Two wrong secrets that differ in how much of them is right: of the right length, and too short.
fn pairs() -> [[Vec<u8>; 2]; 2] {
    let short = |given: Vec<u8>| given[..LENGTH - 1].to_vec();
    [
        [wrong_at(0), wrong_at(LENGTH - 1)],
        [short(wrong_at(0)), short(secret())],
    ]
}

#[test]
fn a_wrong_secret_takes_as_long_wherever_it_is_wrong() {
    assert!(is_secret(&secret(), &secret()));
    for [first, last] in pairs() {
        assert!(!tells(is_secret, &secret(), &first, &last));
    }
}

#[test]
fn a_comparison_that_stops_at_the_first_difference_is_noticed() {
    let plain: Compare = |known, given| known == given;
    let byte_by_byte: Compare = |known, given| {
        known.iter().zip(given).all(|(known, given)| known == given) && known.len() == given.len()
    };
    let [right_length, short] = &pairs();
    for (compare, [first, last]) in [
        (plain, right_length),
        (byte_by_byte, right_length),
        (byte_by_byte, short),
    ] {
        assert!(tells(compare, &secret(), first, last));
    }
}
