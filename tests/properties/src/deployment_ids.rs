//! Deployment ids in the tags of images, in inputs, and in the names and tags of resources.

use lifecycle::{DeploymentId, Environment};
use time::UtcDateTime;
use time::format_description::StaticFormatDescription;
use time::macros::format_description;

use crate::messages::assert_printable;

const TIME: StaticFormatDescription = format_description!(
    "[year padding:zero repr:full range:standard sign:automatic][month][day]-[hour][minute][second]Z"
);

/// An id is accepted if and only if its grammar and its time are valid. It then has the properties that
/// the code relies on.
pub fn check(text: &str) {
    match text.parse::<DeploymentId>() {
        Ok(id) => {
            assert!(is_valid(text), "{text:?} was accepted");
            assert_id_properties(&id, text);
        }
        Err(error) => {
            assert!(!is_valid(text), "{text:?} was refused: {error}");
            assert_printable(&error);
        }
    }
    match text.parse::<Environment>() {
        Ok(environment) => {
            assert_eq!(environment.to_string(), text);
            let longest: DeploymentId = format!("{environment}-20251027-122112Z")
                .parse()
                .expect("an id in any environment");
            assert_eq!(longest.environment(), &environment);
        }
        Err(error) => assert_printable(&error),
    }
}

fn assert_id_properties(id: &DeploymentId, text: &str) {
    assert_eq!(id.to_string(), text);
    assert_eq!(id.as_str(), text);
    let json = serde_json::to_string(id).expect("a text");
    assert_eq!(
        &serde_json::from_str::<DeploymentId>(&json).expect("an id"),
        id
    );
    assert_target_group_name(text);
    let environment = id.environment().as_str();
    let time = id.created().format(&TIME).expect("a time");
    assert_eq!(format!("{environment}-{time}"), text);
    for other in ["00000101-000000Z", "20251027-122112Z", "99991231-235959Z"] {
        let other = format!("{environment}-{other}").parse().expect("an id");
        assert_order_as_text(id, &other);
    }
}

/// Two ids of one environment have the same order by time as their texts.
pub fn assert_order_as_text(one: &DeploymentId, other: &DeploymentId) {
    assert_eq!(one.environment(), other.environment());
    assert_eq!(
        one.cmp(other),
        one.as_str().cmp(other.as_str()),
        "{one} {other}"
    );
    assert_eq!(one.cmp(other), one.created().cmp(&other.created()));
    assert_eq!(one == other, one.as_str() == other.as_str());
}

/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_CreateTargetGroup.html>
fn assert_target_group_name(text: &str) {
    assert!((1..=32).contains(&text.len()), "{text:?}");
    assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'));
    assert!(!text.starts_with('-') && !text.ends_with('-'));
}

/// A second implementation of the grammar. The time is valid if the time library accepts it, in ASCII.
fn is_valid(text: &str) -> bool {
    let Some((environment, time)) = text
        .len()
        .checked_sub(17)
        .and_then(|split| text.split_at_checked(split))
    else {
        return false;
    };
    let letters = environment.as_bytes();
    let known = |b: &u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-');
    let is_environment = matches!(letters, [b'a'..=b'z', middle @ .., b'a'..=b'z' | b'0'..=b'9']
        if middle.len() <= 13 && middle.iter().all(known));
    let is_time = time.strip_prefix('-').is_some_and(|time| {
        let only_digits = time.bytes().filter(u8::is_ascii_digit).count() == 14;
        only_digits && UtcDateTime::parse(time, &TIME).is_ok()
    });
    is_environment && is_time
}
