//! The properties with generated input. Most cases are valid input with some errors.

use std::ops::Range;

use lifecycle::DeploymentId;
use properties::{console_input, deployment_ids, drain_answers, messages, push_events, tags};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};
use proptest::strategy::ValueTree;
use proptest::test_runner::{FileFailurePersistence, TestRunner};

/// Names of fields, each with a value that is usually valid.
type Fields = [(&'static str, &'static str)];

/// The fields of a deployment.
const DEPLOYMENT: &Fields = &[
    ("deploymentId", "\"test-20251027-122112Z\""),
    (
        "imageDigest",
        "\"sha256:7f5b2640fe6fb4f46592dfd3410c4a79dac4f89e4782432e0378abcd12345678\"",
    ),
    ("desiredCount", "2"),
    ("cpu", "256"),
    ("memory", "512"),
    ("environment", "{\"A\":\"b\"}"),
];
/// The fields of a cleanup.
const CLEANUP: &Fields = &[("dryRun", "true"), ("removeEverything", "false")];
/// The fields of a task's answer to a drain request.
const DRAIN_ANSWER: &Fields = &[("status", "\"already_draining\""), ("activeSessions", "0")];
/// Fields that the state machines give to the other steps.
const STEP: &Fields = &[
    ("deploymentId", "\"test-20251027-122112Z\""),
    ("targetGroupArn", "\"arn\""),
    ("taskDefinitionArn", "\"arn\""),
    ("rollBack", "true"),
    ("warm", "true"),
    ("onlyIfNeverLive", "true"),
    ("onlyIfDraining", "true"),
    ("force", "false"),
];
/// What the console suggests as input, which no step takes.
const CONSOLE: &Fields = &[("Comment", "\"Insert your JSON here\"")];
/// The fields of a push.
const DETAIL: &Fields = &[
    ("action-type", "\"PUSH\""),
    ("result", "\"SUCCESS\""),
    ("repository-name", "\"test\""),
    (
        "image-digest",
        "\"sha256:7f5b2640fe6fb4f46592dfd3410c4a79dac4f89e4782432e0378abcd12345678\"",
    ),
    ("image-tag", "\"test-20251027-122112Z\""),
];
/// Replacements for a character of a text.
const PIECES: [&str; 22] = [
    "",
    "-",
    "0",
    "9",
    "Z",
    "z",
    "T",
    " ",
    "\0",
    "\n",
    "\u{1b}[2J",
    "\"",
    "\\",
    "é",
    "e\u{301}",
    "ı",
    "２",
    "\u{202e}",
    "\u{200f}",
    "\u{feff}",
    "\u{1F600}",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
];
/// Values as text, some of which are not JSON.
const VALUES: [&str; 24] = [
    "null",
    "true",
    "0",
    "-1",
    "-0",
    "1.5",
    "2.0",
    "1e999",
    "1e308",
    "4294967296",
    "18446744073709551616",
    "NaN",
    "\"NaN\"",
    "\"\"",
    "\"2\"",
    "[]",
    "{}",
    "\"\\ud800\"",
    "\"\\u0000\"",
    "\"\u{202e}\"",
    "\"２\"",
    "[[[[[[[[]]]]]]]]",
    "",
    "\u{feff}",
];

/// Texts in which some characters are replaced.
fn damaged(
    text: impl Strategy<Value = String>,
    times: Range<usize>,
) -> impl Strategy<Value = String> {
    let damage = (any::<Index>(), select(&PIECES[..]));
    (text, vec(damage, times)).prop_map(|(text, damages)| {
        let mut characters: Vec<String> = text.chars().map(String::from).collect();
        for (position, piece) in damages {
            if !characters.is_empty() {
                let position = position.index(characters.len());
                characters[position] = piece.to_owned();
            }
        }
        characters.concat()
    })
}

/// `YYYYMMDD-HHMMSS`. Each field can slightly exceed its valid range.
fn time() -> impl Strategy<Value = String> {
    let year = prop_oneof![0..=9999_u16, select(&[0, 1900, 2000, 2023, 2024, 9999][..])];
    (year, 0..=13_u8, 0..=32_u8, 0..=25_u8, 0..=61_u8, 0..=61_u8).prop_map(
        |(year, month, day, hour, minute, second)| {
            format!("{year:04}{month:02}{day:02}-{hour:02}{minute:02}{second:02}")
        },
    )
}

fn environment() -> impl Strategy<Value = String> {
    let letters = "abcxyz0189-".chars().collect::<Vec<_>>();
    prop_oneof![
        Just("test".to_owned()),
        vec(select(letters), 1..18).prop_map(|letters| letters.into_iter().collect()),
    ]
}

fn id() -> impl Strategy<Value = String> {
    (environment(), time()).prop_map(|(environment, time)| format!("{environment}-{time}Z"))
}

fn tag_time() -> impl Strategy<Value = String> {
    let offset = select(
        &[
            "Z",
            "z",
            "+00:00",
            "-23:59",
            "+23:59",
            "",
            ".5Z",
            ".999999999Z",
        ][..],
    );
    (time(), offset).prop_map(|(time, offset)| {
        let [year, month, day, hour, minute, second] =
            [0..4, 4..6, 6..8, 9..11, 11..13, 13..15].map(|part| &time[part]);
        format!("{year}-{month}-{day}T{hour}:{minute}:{second}{offset}")
    })
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => damaged(id(), 0..3),
        3 => damaged(tag_time(), 0..2),
        2 => any::<String>(),
        1 => (select(&PIECES[..]), 0..3000_usize).prop_map(|(piece, times)| piece.repeat(times)),
    ]
}

/// Text that is usually JSON, of any shape, perhaps with repeated names.
fn json() -> impl Strategy<Value = String> {
    let quoted = |text: String| serde_json::to_string(&text).unwrap();
    let leaf = prop_oneof![
        2 => select(&VALUES[..]).prop_map(str::to_owned),
        1 => any::<f64>().prop_map(|number| number.to_string()),
        1 => any::<i64>().prop_map(|number| number.to_string()),
        2 => text().prop_map(quoted),
    ];
    leaf.prop_recursive(4, 24, 4, move |inner| {
        let name = prop_oneof![
            select([DEPLOYMENT, CLEANUP, DRAIN_ANSWER, STEP, CONSOLE].concat())
                .prop_map(|(name, _)| name.to_owned()),
            text(),
        ];
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(|values| format!("[{}]", values.join(","))),
            vec((name.prop_map(quoted), inner), 0..4).prop_map(|fields| object(&fields)),
        ]
    })
}

fn object(fields: &[(String, String)]) -> String {
    let fields: Vec<_> = fields
        .iter()
        .map(|(name, value)| format!("{name}:{value}"))
        .collect();
    format!("{{{}}}", fields.join(","))
}

/// An object with some or all of these fields, perhaps with a wrong value or an unknown field.
fn filled(fields: &'static Fields) -> impl Strategy<Value = String> {
    let some = subsequence(fields.to_vec(), 0..=fields.len());
    let right = prop_oneof![2 => some, 1 => Just(fields.to_vec())].prop_map(|fields| {
        let quoted = |(name, value): (&str, &str)| (format!("\"{name}\""), value.to_owned());
        fields.into_iter().map(quoted).collect::<Vec<_>>()
    });
    let wrong = vec((select(fields), json()), 0..2).prop_map(|fields| {
        let quoted = |((name, _), value): ((&str, _), String)| (format!("\"{name}\""), value);
        fields.into_iter().map(quoted).collect::<Vec<_>>()
    });
    let unknown = vec((text(), json()), 0..2).prop_map(|fields| {
        let quoted = |(name, value)| (serde_json::to_string(&name).unwrap(), value);
        fields.into_iter().map(quoted).collect::<Vec<_>>()
    });
    (right, wrong, prop_oneof![3 => Just(vec![]), 1 => unknown])
        .prop_map(|(right, wrong, unknown)| object(&[right, wrong, unknown].concat()))
}

fn event() -> impl Strategy<Value = String> {
    let detail = prop_oneof![4 => filled(DETAIL), 1 => json()];
    detail.prop_map(|detail| {
        format!(r#"{{"detail-type":"ECR Image Action","source":"aws.ecr","detail":{detail}}}"#)
    })
}

/// An input for one step. It usually has only the fields of this step, so that it is sometimes accepted.
fn input() -> impl Strategy<Value = String> {
    prop_oneof![4 => filled(DEPLOYMENT), 4 => filled(CLEANUP), 4 => filled(STEP), 1 => filled(CONSOLE)]
}

/// A task's answer to a drain request.
fn drain_answer() -> impl Strategy<Value = String> {
    prop_oneof![3 => filled(DRAIN_ANSWER), 1 => json()]
}

/// Of a hundred generated inputs, how many this accepts, at least: with fewer, the properties of what is accepted
/// would hardly be checked.
fn assert_often_accepted(
    what: &str,
    inputs: impl Strategy<Value = Vec<u8>>,
    percent: usize,
    accepts: impl Fn(&[u8]) -> bool,
) {
    const CASES: usize = 500;
    let mut runner = TestRunner::deterministic();
    let accepted = (0..CASES)
        .filter(|_| accepts(&inputs.new_tree(&mut runner).unwrap().current()))
        .count();
    assert!(
        accepted * 100 >= CASES * percent,
        "{accepted} of {CASES}: {what}"
    );
}

#[test]
fn a_fair_share_of_what_is_generated_is_accepted() {
    assert_often_accepted(
        "a deployment",
        damaged_bytes(filled(DEPLOYMENT)),
        10,
        |input| console_input::validated(input).is_ok(),
    );
    let (_, decodes_a_cleanup) = console_input::STEPS
        .into_iter()
        .find(|(step, _)| *step == "find-deployments")
        .unwrap();
    assert_often_accepted("a cleanup", damaged_bytes(filled(CLEANUP)), 20, |input| {
        decodes_a_cleanup(input).is_ok()
    });
    assert_often_accepted(
        "a push",
        damaged_bytes(event()),
        10,
        push_events::starts_a_deployment,
    );
    assert_often_accepted(
        "an answer",
        damaged_bytes(drain_answer()),
        15,
        drain_answers::is_accepted,
    );
    assert_often_accepted("an id", id().prop_map(String::into_bytes), 5, |id| {
        String::from_utf8_lossy(id).parse::<DeploymentId>().is_ok()
    });
}

/// Bytes of which some are replaced, perhaps without their end.
fn damaged_bytes(text: impl Strategy<Value = String>) -> impl Strategy<Value = Vec<u8>> {
    let damage = vec((any::<Index>(), any::<u8>()), 0..3);
    let end = prop_oneof![9 => Just(None), 1 => any::<Index>().prop_map(Some)];
    (text, damage, end, prop::bool::weighted(0.3)).prop_map(|(text, damages, end, is_damaged)| {
        let mut bytes = text.into_bytes();
        if is_damaged && !bytes.is_empty() {
            for (position, byte) in damages {
                let position = position.index(bytes.len());
                bytes[position] = byte;
            }
            if let Some(end) = end {
                bytes.truncate(end.index(bytes.len()));
            }
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        // PROPTEST_CASES sets a higher number. A failing case is printed in full, and its seed is kept beside this file,
        // so that every later run begins with it. Keep both: the case in `seeds/`, the seed where it is.
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_push_event_starts_a_deployment_or_nothing_or_is_refused(event in damaged_bytes(event())) {
        push_events::check(&event);
    }

    #[test]
    fn an_input_is_accepted_and_valid_or_refused(input in damaged_bytes(input())) {
        console_input::check(&input);
    }

    #[test]
    fn a_response_to_a_drain_request_reports_its_sessions_or_is_unexpected(answer in damaged_bytes(drain_answer())) {
        drain_answers::check(&answer);
    }

    #[test]
    fn an_id_is_accepted_if_and_only_if_it_is_valid(text in text()) {
        deployment_ids::check(&text);
    }

    #[test]
    fn ids_of_one_environment_have_the_order_of_their_texts(
        environment in environment(), one in time(), other in time(),
    ) {
        let ids = [one, other].map(|time| format!("{environment}-{time}Z").parse::<DeploymentId>());
        if let [Ok(one), Ok(other)] = ids {
            deployment_ids::assert_order_as_text(&one, &other);
        }
    }

    #[test]
    fn no_text_in_a_tag_causes_the_deletion_of_a_deployment_that_was_live(text in text()) {
        tags::check(&text);
    }

    #[test]
    fn every_text_can_be_made_printable(text in prop_oneof![any::<String>(), text()]) {
        messages::check(&text);
    }

    #[test]
    fn all_properties_hold_for_any_bytes(bytes in vec(any::<u8>(), 0..300)) {
        properties::check(&bytes);
    }
}
