//! The properties over generated input: right ones with something wrong in them, more often than not.

use std::ops::Range;

use lifecycle::DeploymentId;
use properties::{console_input, deployment_ids, drain_answers, messages, push_events, tags};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};

/// Names that some step or event knows, with a value that is right for most of them.
const FIELDS: [(&str, &str); 18] = [
    ("deploymentId", "\"test-20251027-122112Z\""),
    (
        "imageDigest",
        "\"sha256:7f5b2640fe6fb4f46592dfd3410c4a79dac4f89e4782432e0378abcd12345678\"",
    ),
    ("desiredCount", "2"),
    ("cpu", "256"),
    ("memory", "512"),
    ("environment", "{\"A\":\"b\"}"),
    ("dryRun", "true"),
    ("removeEverything", "false"),
    ("targetGroupArn", "\"arn\""),
    ("taskDefinitionArn", "\"arn\""),
    ("rollBack", "true"),
    ("freshTasks", "true"),
    ("onlyIfNeverLive", "true"),
    ("onlyIfDraining", "true"),
    ("force", "false"),
    ("status", "\"already_draining\""),
    ("activeSessions", "0"),
    ("Comment", "\"Insert your JSON here\""),
];
const DETAIL: [(&str, &str); 5] = [
    ("action-type", "\"PUSH\""),
    ("result", "\"SUCCESS\""),
    ("repository-name", "\"test\""),
    (
        "image-digest",
        "\"sha256:7f5b2640fe6fb4f46592dfd3410c4a79dac4f89e4782432e0378abcd12345678\"",
    ),
    ("image-tag", "\"test-20251027-122112Z\""),
];
/// What is put into a text in the place of a character.
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
/// Values as JSON text, some of them none.
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

/// Texts in which some characters were replaced.
fn damaged(
    text: impl Strategy<Value = String>,
    times: Range<usize>,
) -> impl Strategy<Value = String> {
    let damage = (any::<Index>(), select(&PIECES[..]));
    (text, vec(damage, times)).prop_map(|(text, damages)| {
        let mut characters: Vec<String> = text.chars().map(String::from).collect();
        for (place, piece) in damages {
            if !characters.is_empty() {
                let place = place.index(characters.len());
                characters[place] = piece.to_owned();
            }
        }
        characters.concat()
    })
}

/// `YYYYMMDD-HHMMSS`, in every field up to a little past what exists.
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

/// JSON text, mostly: of any shape, with names twice.
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
            select(&FIELDS[..]).prop_map(|(name, _)| name.to_owned()),
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

/// An object with some of these fields, of which some have another value, and perhaps others.
fn filled(fields: &'static [(&'static str, &'static str)]) -> impl Strategy<Value = String> {
    let right = subsequence(fields.to_vec(), 0..=fields.len()).prop_map(|fields| {
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
    let detail = prop_oneof![4 => filled(&DETAIL), 1 => json()];
    detail.prop_map(|detail| {
        format!(r#"{{"detail-type":"ECR Image Action","source":"aws.ecr","detail":{detail}}}"#)
    })
}

/// An input for one step: only its fields, so that it is taken now and then.
fn input() -> impl Strategy<Value = String> {
    prop_oneof![
        filled(&FIELDS[..6]),
        filled(&FIELDS[6..8]),
        filled(&FIELDS[14..16]),
        filled(&FIELDS),
    ]
}

/// Bytes of which some were replaced, and perhaps the end left out.
fn damaged_bytes(text: impl Strategy<Value = String>) -> impl Strategy<Value = Vec<u8>> {
    let damage = vec((any::<Index>(), any::<u8>()), 0..3);
    let end = prop_oneof![9 => Just(None), 1 => any::<Index>().prop_map(Some)];
    (text, damage, end, prop::bool::weighted(0.3)).prop_map(|(text, damages, end, is_damaged)| {
        let mut bytes = text.into_bytes();
        if is_damaged && !bytes.is_empty() {
            for (place, byte) in damages {
                let place = place.index(bytes.len());
                bytes[place] = byte;
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
        // PROPTEST_CASES asks for more. What fails is shown whole and belongs into `seeds/`.
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_push_event_starts_a_deployment_or_nothing_or_is_refused(event in damaged_bytes(event())) {
        push_events::check(&event);
    }

    #[test]
    fn an_input_is_taken_and_right_or_refused_by_our_name(input in damaged_bytes(input())) {
        console_input::check(&input);
    }

    #[test]
    fn an_answer_to_a_drain_tells_its_sessions_or_nothing(answer in damaged_bytes(input())) {
        drain_answers::check(&answer);
    }

    #[test]
    fn an_id_is_taken_exactly_when_it_is_right(text in text()) {
        deployment_ids::check(&text);
    }

    #[test]
    fn ids_of_one_environment_order_as_their_texts(
        environment in environment(), one in time(), other in time(),
    ) {
        let ids = [one, other].map(|time| format!("{environment}-{time}Z").parse::<DeploymentId>());
        if let [Ok(one), Ok(other)] = ids {
            deployment_ids::order_as_text(&one, &other);
        }
    }

    #[test]
    fn whatever_a_tag_says_nothing_is_deleted_for_it(text in text()) {
        tags::check(&text);
    }

    #[test]
    fn any_text_can_be_shown(text in any::<String>()) {
        messages::check(&text);
    }

    #[test]
    fn any_bytes_do_no_harm(bytes in vec(any::<u8>(), 0..300)) {
        properties::check(&bytes);
    }
}
