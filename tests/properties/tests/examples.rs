//! Known edge cases, each in a named test.

use std::collections::BTreeSet;

use lifecycle::tags::{self, Tags};
use lifecycle::{DeploymentId, StepError};
use properties::console_input::{STEPS, validated};
use properties::messages::assert_input_refused;
use properties::{console_input, drain_answers, payload, push_events};
use serde_json::{Value, json};
use start_deployment::Asked;
use time::UtcDateTime;

const ID: &str = "test-20251027-122112Z";
const DIGEST: &str = "sha256:7f5b2640fe6fb4f46592dfd3410c4a79dac4f89e4782432e0378abcd12345678";
const ARN: &str = "arn:aws:elasticloadbalancing:us-east-1:1:targetgroup/test-20251027-122112Z/abc";

/// How a deployment is watched, with all fields.
fn watch() -> Value {
    json!({"seconds": 300, "alarms": ["errors"], "errors": {"percent": 5, "atLeast": 20}, "onBreach": "tell"})
}

/// An input with all fields of a step, which the step accepts.
fn whole_input(step: &str) -> Value {
    match step {
        "check-target-health" => {
            json!({"deploymentId": ID, "targetGroupArn": ARN, "desiredCount": 2, "warm": true, "waitedSeconds": 5})
        }
        "create-listener-rule" | "drain-deployment" => {
            json!({"deploymentId": ID, "targetGroupArn": ARN})
        }
        "check-gate" => {
            json!({"deploymentId": ID, "watch": watch(), "acceptedAlarms": ["latency"]})
        }
        "watch-deployment" => json!({
            "deploymentId": ID, "targetGroupArn": ARN, "watch": watch(), "acceptedAlarms": ["latency"],
            "desiredCount": 2, "previousDeploymentId": ID, "watchedSeconds": 15, "unhealthyBefore": true,
            "rollback": {"executionArn": "arn", "breach": "it crashed"},
        }),
        "end-approvals" => json!({"deploymentId": ID, "execution": ARN, "asks": true}),
        "smoke-test" => {
            let test = json!({"path": "/", "status": 200, "contains": "welcome"});
            json!({"deploymentId": ID, "targetGroupArn": ARN, "smoke": [test]})
        }
        "choose-count" => {
            json!({"deploymentId": ID, "desiredCount": 2, "parity": true, "rollBack": true})
        }
        "create-service" => {
            json!({"deploymentId": ID, "targetGroupArn": ARN, "taskDefinitionArn": "arn", "desiredCount": 2})
        }
        "create-target-group" | "restart-rollout" | "restore-deployment" => {
            json!({"deploymentId": ID})
        }
        "delete-deployment" => {
            json!({"deploymentId": ID, "onlyIfNeverLive": true, "onlyIfDraining": true, "force": true})
        }
        "evict-visitors" => {
            json!({"rolledBack": [{"deploymentId": ID, "rolledBackAt": "2025-10-27T12:30:00Z"}]})
        }
        "find-deployments" => json!({"dryRun": true, "removeEverything": true}),
        "register-scaling" => json!({"deploymentId": ID, "onlyIfMissing": true}),
        "register-task-definition" => {
            json!({"deploymentId": ID, "imageDigest": DIGEST, "cpu": 256, "memory": 512, "environment": {"A": "b"}, "base": "arn"})
        }
        "run-release" => {
            json!({"deploymentId": ID, "taskDefinitionArn": "arn", "command": ["migrate"], "timeoutSeconds": 60, "remainingSeconds": 60})
        }
        "switch-traffic" => {
            json!({"deploymentId": ID, "targetGroupArn": ARN, "rollBack": true})
        }
        "validate-deployment" => {
            json!({"deploymentId": ID, "imageDigest": DIGEST, "desiredCount": 2, "cpu": 256, "memory": 512, "environment": {"A": "b"}, "base": "web", "release": {"command": ["a"]}})
        }
        other => panic!("add an input for {other}"),
    }
}

fn whole_event() -> Value {
    json!({
        "version": "0", "id": "13cde686-328b-6117-af20-0e5566167482",
        "detail-type": "ECR Image Action", "source": "aws.ecr", "account": "123456789012",
        "time": "2019-11-16T01:54:34Z", "region": "us-west-2", "resources": [],
        "detail": {
            "result": "SUCCESS", "repository-name": "test", "image-digest": DIGEST,
            "action-type": "PUSH", "image-tag": ID
        }
    })
}

fn read_event(body: &[u8]) -> Result<Asked, StepError> {
    start_deployment::read(&push_events::config(), payload::decode(body)?)
}

/// Checks that everything that reads JSON from outside refuses the body. Returns the messages.
fn refused_by_all(body: &[u8]) -> BTreeSet<String> {
    let mut messages = BTreeSet::new();
    for (step, decode) in STEPS {
        let error = decode(body).expect_err(step);
        assert_input_refused(&error);
        messages.insert(error.message);
    }
    let error = read_event(body).expect_err("start-deployment");
    assert_input_refused(&error);
    messages.insert(error.message);
    drain_answers::check(body);
    let (_, sessions, _) = drain_deployment::drain_request::read(body);
    assert_eq!(sessions, None);
    let text = String::from_utf8_lossy(body);
    assert_eq!(lifecycle::executions::asked_for(&text), None);
    messages
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// A value of each JSON type.
fn one_of_each() -> [Value; 6] {
    [
        json!(null),
        json!(true),
        json!(7),
        json!("7"),
        json!([7]),
        json!({"7": 7}),
    ]
}

fn is_id(text: &str) -> bool {
    properties::deployment_ids::check(text);
    text.parse::<DeploymentId>().is_ok()
}

#[test]
fn the_complete_inputs_are_accepted() {
    for (step, decode) in STEPS {
        assert_eq!(
            decode(whole_input(step).to_string().as_bytes()),
            Ok(()),
            "{step}"
        );
    }
    let event = whole_event().to_string();
    assert!(matches!(read_event(event.as_bytes()), Ok(Asked::For(_))));
    push_events::check(event.as_bytes());
}

#[test]
fn a_value_of_a_wrong_type_is_refused_with_the_name_of_its_field() {
    for (step, decode) in STEPS {
        let whole = whole_input(step);
        for (field, right) in whole.as_object().unwrap() {
            for wrong in one_of_each() {
                if type_of(&wrong) == type_of(right) {
                    continue;
                }
                let mut input = whole.clone();
                input[field] = wrong.clone();
                let decoded = decode(input.to_string().as_bytes());
                // A field that may be absent may also be null.
                input.as_object_mut().unwrap().remove(field);
                let is_optional = decode(input.to_string().as_bytes()).is_ok();
                match decoded {
                    Ok(()) => assert!(is_optional && wrong.is_null(), "{step} {field} {wrong}"),
                    Err(error) => {
                        assert_input_refused(&error);
                        assert!(
                            error.message.contains(&format!("`{field}`")),
                            "{step}: {error}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn a_value_of_a_wrong_type_in_a_push_event_is_refused_with_the_name_of_its_field() {
    let whole = whole_event();
    let fields = |prefix: &str, value: &Value| -> Vec<String> {
        let fields = value.as_object().unwrap().keys();
        fields.map(|field| format!("{prefix}/{field}")).collect()
    };
    let mut all = fields("", &whole);
    all.extend(fields("/detail", &whole["detail"]));
    for pointer in all {
        let path = pointer[1..].replace('/', ".");
        for wrong in one_of_each() {
            let mut event = whole.clone();
            let place = event.pointer_mut(&pointer).unwrap();
            if type_of(&wrong) == type_of(place) {
                continue;
            }
            *place = wrong.clone();
            match read_event(event.to_string().as_bytes()) {
                Err(error) => {
                    assert_input_refused(&error);
                    assert!(error.message.contains(&path), "{path} {wrong}: {error}");
                }
                // A deployment does not require this field.
                Ok(_) => assert!(wrong.is_null(), "{path} {wrong}"),
            }
        }
    }
}

#[test]
fn megabytes_are_refused_with_a_short_message() {
    let long = "a".repeat(2_000_000);
    let messages = [
        refused_by_all(
            json!({&long: 1, "deploymentId": 1, "detail": []})
                .to_string()
                .as_bytes(),
        ),
        refused_by_all(long.as_bytes()),
        refused_by_all(json!(&long).to_string().as_bytes()),
        refused_by_all(format!("[{}1]", "1,".repeat(50_000)).as_bytes()),
    ];
    for message in messages.into_iter().flatten() {
        assert!(message.len() < 1000, "{message}");
    }
    for (field, value) in [
        ("deploymentId", json!(&long)),
        ("imageDigest", json!(&long)),
        ("desiredCount", json!(&long)),
        ("environment", json!({&long: "b"})),
        ("environment", json!({"A": &long})),
        ("environment", json!({&long: 1})),
    ] {
        let mut input = whole_input("validate-deployment");
        input[field] = value;
        let error = validated(input.to_string().as_bytes()).unwrap_err();
        assert_input_refused(&error);
        assert!(error.message.len() < 1000, "{field}: {error}");
        assert!(error.message.contains(field), "{field}: {error}");
    }
    let answer = json!({"status": &long, "activeSessions": 0}).to_string();
    drain_answers::check(answer.as_bytes());
    assert!(!is_id(&long));
    assert!(!is_id(&"é".repeat(1_000_000)));
}

#[test]
fn deep_nesting_is_refused() {
    for depth in [129, 100_000] {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let deep = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            refused_by_all(deep.as_bytes());
            // Nesting without an end.
            refused_by_all(open.repeat(depth).as_bytes());
            let inside = format!(
                "{{\"deploymentId\": {deep}, \"dryRun\": {deep}, \"activeSessions\": {deep}}}"
            );
            refused_by_all(inside.as_bytes());
        }
    }
}

#[test]
fn wrong_encodings_are_refused() {
    let input = json!({"deploymentId": ID, "dryRun": true, "activeSessions": 0}).to_string();
    let with_mark = [b"\xef\xbb\xbf", input.as_bytes()].concat();
    let utf16: Vec<u8> = input.encode_utf16().flat_map(u16::to_le_bytes).collect();
    refused_by_all(&with_mark);
    refused_by_all(&utf16);
    refused_by_all(&[b"\xff\xfe", utf16.as_slice()].concat());
    for text in [
        // Latin 1, an overlong slash, a surrogate and a code point beyond Unicode.
        &b"\xe9"[..],
        b"\xc0\xaf",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\x80",
        // JSON requires that control characters are escaped.
        b"\0",
        b"\n",
        b"\\x41",
        b"\\ud800",
        b"\\udc00",
        b"\\ud800\\ud800",
        b"\\ud800x",
        b"\\u12",
    ] {
        let body = [
            &b"{\"deploymentId\": \""[..],
            text,
            b"\", \"dryRun\": \"",
            text,
            b"\", \"status\": \"",
            text,
            b"\", \"activeSessions\": 0}",
        ];
        refused_by_all(&body.concat());
    }
    refused_by_all(b"");
    refused_by_all(b"\0");
}

#[test]
fn ids_with_unusual_characters_are_refused() {
    for text in [
        "test-２０２５1027-122112Z",
        "test-20251027-12211٢Z",
        "test-20251027-122112Ｚ",
        "test\u{2010}20251027-122112Z",
        "test-20251027\u{2212}122112Z",
        "tést-20251027-122112Z",
        "te\u{301}st-20251027-122112Z",
        // A dotless and a dotted i of Turkish, and a Cyrillic e.
        "lıve-20251027-122112Z",
        "lİve-20251027-122112Z",
        "t\u{435}st-20251027-122112Z",
        "\u{202e}test-20251027-122112Z",
        "test-20251027-122112Z\u{200f}",
        "test\u{200b}-20251027-122112Z",
        "\u{feff}test-20251027-122112Z",
        "test\0-20251027-122112Z",
        "test-20251027-122112Z\0",
        "test-20251027-122112Z\n",
        " test-20251027-122112Z",
        "test-20251027-122112z",
        "test-20251027T122112Z",
        "test_20251027_122112Z",
        "-2025-20251027-122112Z",
        "test--20251027-122112Z",
        "1est-20251027-122112Z",
        "test- 2251027-122112Z",
        "test-+2251027-122112Z",
        "test--2251027-122112Z",
        "𝟚est-20251027-122112Z",
        "test-20251027-1221\u{1F600}Z",
    ] {
        assert!(!is_id(text), "{text:?}");
        let input = json!({"deploymentId": text, "dryRun": text, "activeSessions": text});
        let mut event = whole_event();
        event["detail"]["image-tag"] = json!(text);
        match read_event(event.to_string().as_bytes()) {
            Ok(Asked::Nothing { reason }) => assert!(reason.contains("not "), "{reason}"),
            other => panic!("{text:?}: {other:?}"),
        }
        push_events::check(event.to_string().as_bytes());
        console_input::check(input.to_string().as_bytes());
        let mut tags = Tags::from([(tags::ENVIRONMENT.to_owned(), "test".to_owned())]);
        tags.insert(tags::DEPLOYMENT_ID.to_owned(), text.to_owned());
        assert_eq!(tags::deployment(&tags, &"test".parse().unwrap()), None);
    }
}

#[test]
fn an_id_has_at_most_32_characters() {
    for (environment, is_valid) in [
        ("a", false),
        ("ab", true),
        ("a1", true),
        ("a-", false),
        ("abcdefghijklmno", true),
        ("a-------------1", true),
        ("abcdefghijklmnop", false),
    ] {
        let text = format!("{environment}-20251027-122112Z");
        assert_eq!(is_id(&text), is_valid, "{text}");
        assert!(!is_valid || text.len() <= 32);
    }
    assert_eq!("abcdefghijklmno-20251027-122112Z".len(), 32);
    assert_eq!("abcdefghijklmnop-20251027-122112Z".len(), 33);
}

#[test]
fn the_time_of_an_id_must_exist() {
    for (time, exists) in [
        ("20240229-000000", true),
        ("20000229-000000", true),
        ("20230229-000000", false),
        ("19000229-000000", false),
        ("21000229-000000", false),
        ("20250230-000000", false),
        ("20250431-000000", false),
        ("20251301-000000", false),
        ("20250001-000000", false),
        ("20250100-000000", false),
        ("20250132-000000", false),
        ("20251027-235959", true),
        ("20251027-240000", false),
        ("20251027-236000", false),
        // A leap second of UTC, which Unix time does not have.
        ("20161231-235960", false),
        ("20251027-999999", false),
        // The calendar is extended into the past. Such an id is always superseded.
        ("00000101-000000", true),
        ("00000229-000000", true),
        ("00010101-000000", true),
        ("99991231-235959", true),
    ] {
        assert_eq!(is_id(&format!("test-{time}Z")), exists, "{time}");
    }
}

#[test]
fn a_time_in_a_tag_must_exist() {
    for (text, exists) in [
        ("2025-10-27T12:21:12Z", true),
        // Ahead of the clock, by less than two clocks can differ.
        ("2025-10-27T13:00:01Z", true),
        ("2025-10-27t12:21:12z", true),
        ("2025-10-27T12:21:12+02:00", true),
        ("2024-02-29T00:00:00Z", true),
        ("0000-01-01T00:00:00Z", true),
        ("9999-12-31T23:59:59Z", true),
        ("2023-02-29T00:00:00Z", false),
        ("2025-02-30T00:00:00Z", false),
        ("2025-10-27T24:00:00Z", false),
        ("2025-10-27T12:21:60Z", false),
        ("2025-10-27", false),
        ("2025-10-27T12:21:12", false),
        ("20251027T122112Z", false),
        ("٢٠٢٥-10-27T12:21:12Z", false),
        ("2025-10-27T12:21:12Z\0", false),
        ("\u{feff}2025-10-27T12:21:12Z", false),
        ("1761567672", false),
        ("NaN", false),
        ("", false),
    ] {
        properties::tags::check(text);
        let tags = Tags::from([(tags::READY_AT.to_owned(), text.to_owned())]);
        assert_eq!(
            tags::time(&tags, tags::READY_AT, UtcDateTime::MAX).is_some(),
            exists,
            "{text}"
        );
    }
    // Times outside of the range in UTC are not times, and cause no panic.
    for text in [
        "9999-12-31T23:59:59-23:59",
        "0000-01-01T00:00:00+23:59",
        "9999-12-31T23:59:60Z",
        "2016-12-31T23:59:60Z",
    ] {
        properties::tags::check(text);
    }
    properties::tags::check(&"9".repeat(1_000_000));
}

#[test]
fn numbers_must_be_whole_and_not_negative() {
    for number in [
        "2.0",
        "2e0",
        "0.5",
        "-1",
        "-0",
        "-0.0",
        "1e308",
        "4294967296",
        "18446744073709551615",
        "18446744073709551616",
        "-9223372036854775809",
        "\"2\"",
        "\"NaN\"",
        "\"Infinity\"",
        "\"２\"",
    ] {
        for field in ["desiredCount", "cpu", "memory"] {
            let body = format!("{{\"deploymentId\": \"{ID}\", \"{field}\": {number}}}");
            let error = validated(body.as_bytes()).expect_err(&body);
            assert_input_refused(&error);
            assert!(
                error.message.contains(&format!("`{field}`")),
                "{body}: {error}"
            );
        }
        // These numbers are too large for a field of a task, but valid numbers of sessions.
        if number != "4294967296" && number != "18446744073709551615" {
            let answer = format!("{{\"activeSessions\": {number}}}");
            let (_, sessions, _) = drain_deployment::drain_request::read(answer.as_bytes());
            assert_eq!(sessions, None, "{answer}");
        }
    }
    // These are not JSON, so everything refuses them.
    for number in [
        "NaN",
        "Infinity",
        "-Infinity",
        "+2",
        "02",
        "2.",
        ".5",
        "0x2",
        "1_000",
        "1e999",
        "２",
    ] {
        refused_by_all(
            format!("{{\"deploymentId\": \"{ID}\", \"cpu\": {number}, \"dryRun\": {number}, \"activeSessions\": {number}}}").as_bytes(),
        );
    }
}

#[test]
fn the_last_value_of_a_repeated_field_in_an_input_counts() {
    let other = "test-20251027-122111Z";
    let twice = format!("{{\"deploymentId\": \"{other}\", \"deploymentId\": \"{ID}\"}}");
    assert_eq!(
        validated(twice.as_bytes())
            .unwrap()
            .0
            .deployment_id
            .as_str(),
        ID
    );
    let twice = format!("{{\"deploymentId\": \"{ID}\", \"deploymentId\": 7}}");
    assert_input_refused(&validated(twice.as_bytes()).unwrap_err());
    let twice = b"{\"dryRun\": false, \"dryRun\": \"no\"}";
    assert_input_refused(&payload::decode::<find_deployments::Input>(twice).unwrap_err());
}

#[test]
fn an_ambiguous_answer_reports_no_sessions() {
    for answer in [
        r#"{"activeSessions": 0, "activeSessions": 5}"#,
        r#"{"activeSessions": 5, "activeSessions": 0}"#,
        r#"{"activeSessions": 0, "active\u0053essions": 5}"#,
        r#"["ok", 0]"#,
        r#"[{"activeSessions": 0}]"#,
        r#"{"activeSessions": 0} {"activeSessions": 5}"#,
        r#"{"activesessions": 0}"#,
        r#"{"active_sessions": 0}"#,
        r#"{"activeSessions": null}"#,
        r#"{"activeSessions": false}"#,
        r#"{"status": 0, "activeSessions": 0}"#,
        r#"{"ACTIVESESSIONS": 0}"#,
        "\u{feff}{\"activeSessions\": 0}",
        "0",
    ] {
        drain_answers::check(answer.as_bytes());
        let (_, sessions, _) = drain_deployment::drain_request::read(answer.as_bytes());
        assert_eq!(sessions, None, "{answer}");
    }
}

#[test]
fn names_from_the_input_are_escaped_in_messages() {
    let hostile = "A\u{1b}[2J\r\n\0\u{202e}\u{200f}";
    let escaped = r"A\u{1b}[2J\r\n\0\u{202e}\u{200f}";
    let mut unknown = whole_input("validate-deployment");
    unknown[hostile] = json!(1);
    let mut variable = whole_input("validate-deployment");
    variable["environment"] = json!({hostile: "b"});
    let mut path = whole_input("validate-deployment");
    path["environment"] = json!({hostile: 1});
    let mut id = whole_input("validate-deployment");
    id["deploymentId"] = json!(hostile);
    for input in [unknown, variable, path, id] {
        let error = validated(input.to_string().as_bytes()).unwrap_err();
        assert_input_refused(&error);
        assert!(error.message.contains(escaped), "{error}");
    }
}

#[test]
fn the_properties_hold_for_every_seed_of_the_fuzzer() {
    let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/seeds");
    let mut number = 0;
    for seed in std::fs::read_dir(seeds).unwrap() {
        let path = seed.unwrap().path();
        println!("{}", path.display());
        properties::check(&std::fs::read(path).unwrap());
        number += 1;
    }
    assert!(number >= 10, "{number} seeds in {seeds}");
}
