//! Deployment ids, as they stand in tags of images, inputs, names and tags of resources.

use lifecycle::{DeploymentId, Environment};
use time::UtcDateTime;
use time::format_description::StaticFormatDescription;
use time::macros::format_description;

use crate::messages::can_be_shown;

const TIME: StaticFormatDescription = format_description!(
    "[year padding:zero repr:full range:standard sign:automatic][month][day]-[hour][minute][second]Z"
);

/// An id is taken exactly when its grammar and its time are right, and then keeps what the code
/// relies on.
///
/// # Panics
/// When it is not so.
pub fn check(text: &str) {
    match text.parse::<DeploymentId>() {
        Ok(id) => {
            assert!(is_right(text), "{text:?} was taken");
            keeps_its_promises(&id, text);
        }
        Err(why) => {
            assert!(!is_right(text), "{text:?} was refused: {why}");
            can_be_shown(&why);
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
        Err(why) => can_be_shown(&why),
    }
}

fn keeps_its_promises(id: &DeploymentId, text: &str) {
    assert_eq!(id.to_string(), text);
    assert_eq!(id.as_str(), text);
    let json = serde_json::to_string(id).expect("a text");
    assert_eq!(
        &serde_json::from_str::<DeploymentId>(&json).expect("an id"),
        id
    );
    is_a_target_group_name(text);
    let environment = id.environment().as_str();
    let time = id.created().format(&TIME).expect("a time");
    assert_eq!(format!("{environment}-{time}"), text);
    for other in ["00000101-000000Z", "20251027-122112Z", "99991231-235959Z"] {
        let other = format!("{environment}-{other}").parse().expect("an id");
        order_as_text(id, &other);
    }
}

/// Two ids of one environment order by time as their texts do.
///
/// # Panics
/// When it is not so.
pub fn order_as_text(one: &DeploymentId, other: &DeploymentId) {
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
fn is_a_target_group_name(text: &str) {
    assert!((1..=32).contains(&text.len()), "{text:?}");
    assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'));
    assert!(!text.starts_with('-') && !text.ends_with('-'));
}

/// The grammar once more, in another way: the time is what the time library takes, in ASCII.
fn is_right(text: &str) -> bool {
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
