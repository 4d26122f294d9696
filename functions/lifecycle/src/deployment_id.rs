//! Environments and deployment ids, as they appear in names, tags and inputs.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{PrimitiveDateTime, UtcDateTime};

use crate::printable::printable;

/// The name of an environment: `[a-z][a-z0-9-]{0,13}[a-z0-9]`.
///
/// At most 15 characters, so that a deployment id fits a target group's name (32).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Environment(String);

impl Environment {
    /// The name as text, as it is part of the names of resources.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Environment {
    type Err = String;

    /// Checks the grammar.
    ///
    /// # Errors
    /// A sentence that describes what the name of an environment looks like.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let valid = (2..=15).contains(&text.len())
            && text.starts_with(|first: char| first.is_ascii_lowercase())
            && text.ends_with(|last: char| last.is_ascii_lowercase() || last.is_ascii_digit())
            && text
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        if valid {
            Ok(Environment(text.to_owned()))
        } else {
            Err(format!(
                "`{}` is not the name of an environment: 2 to 15 lower-case letters, digits and hyphens, \
                 beginning with a letter and not ending with a hyphen",
                printable(text, MAX_SHOWN)
            ))
        }
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One image on its way through the machine: `{environment}-{YYYYMMDD}-{HHMMSS}Z`, a real UTC time.
///
/// Ids of one environment order by time, which is what "newest wins" compares.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DeploymentId {
    environment: Environment,
    created: UtcDateTime,
    text: String,
}

/// The maximum number of characters of an invalid id that the error message shows.
const MAX_SHOWN: usize = 64;
/// What follows the environment, with a 0 for each digit.
const SUFFIX: &str = "-00000000-000000Z";
const CREATED: &[BorrowedFormatItem] =
    format_description!("-[year][month][day]-[hour][minute][second]Z");

impl DeploymentId {
    /// The whole id, which is also the name of its target group and service and its image's tag.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The environment that the id belongs to.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// The time that the id names, UTC, to the second.
    pub fn created(&self) -> UtcDateTime {
        self.created
    }

    /// The sentence that this deployment, which is active, is newer than another one. An id in the future also
    /// wins over pushes that are newer in truth, until its time has come.
    pub fn supersedes(&self, now: UtcDateTime) -> String {
        if self.created <= now {
            return format!("{self} is newer and active");
        }
        let minutes = (self.created - now).whole_minutes() + 1;
        format!(
            "WARNING: {self} is active, and its time lies in the future: for {minutes} more minutes it wins over every \
             deployment with a correct time; correct the clock that made this id, and roll back or push again then"
        )
    }
}

impl FromStr for DeploymentId {
    type Err = String;

    /// Checks the grammar and that the time is a real one.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the text.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || {
            format!(
                "`{}` is not a deployment id: it must look like `test-20251027-122112Z` \
                 ({{environment}}-{{YYYYMMDD}}-{{HHMMSS}}Z)",
                printable(text, MAX_SHOWN)
            )
        };
        let split = text.len().checked_sub(SUFFIX.len());
        let (environment, suffix) = split
            .and_then(|split| text.split_at_checked(split))
            .ok_or_else(malformed)?;
        let has_the_shape = suffix
            .bytes()
            .zip(SUFFIX.bytes())
            .all(|(byte, like)| match like {
                b'0' => byte.is_ascii_digit(),
                other => byte == other,
            });
        if !has_the_shape {
            return Err(malformed());
        }
        let environment: Environment = environment.parse()?;
        let created = PrimitiveDateTime::parse(suffix, CREATED)
            .map_err(|_| format!("`{text}` names a date or time that does not exist"))?
            .as_utc();
        Ok(DeploymentId {
            environment,
            created,
            text: text.to_owned(),
        })
    }
}

impl Ord for DeploymentId {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.created, &self.environment).cmp(&(other.created, &other.environment))
    }
}

impl PartialOrd for DeploymentId {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for DeploymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for DeploymentId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for DeploymentId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> DeploymentId {
        text.parse().unwrap()
    }

    #[test]
    fn an_id_gives_its_environment_and_time() {
        let id = id("test-20251027-122112Z");
        assert_eq!(id.environment().as_str(), "test");
        assert_eq!(
            id.created(),
            time::macros::utc_datetime!(2025-10-27 12:21:12)
        );
        assert_eq!(id.to_string(), "test-20251027-122112Z");
    }

    #[test]
    fn ids_order_by_time() {
        assert!(id("test-20251027-122112Z") < id("test-20251027-122113Z"));
        assert!(id("test-20251027-235959Z") < id("test-20251028-000000Z"));
    }

    #[test]
    fn the_longest_environment_fits_a_target_group_name() {
        assert_eq!(id("abcdefghijklmno-20251027-122112Z").as_str().len(), 32);
        assert!(
            "abcdefghijklmnop-20251027-122112Z"
                .parse::<DeploymentId>()
                .is_err()
        );
    }

    #[test]
    fn an_environment_has_lower_case_letters_digits_and_hyphens() {
        for name in ["ab", "test-eu-1", "a-1"] {
            assert_eq!(name.parse::<Environment>().unwrap().as_str(), name);
        }
        for name in ["a", "1st", "-ab", "ab-", "a_b", "a.b", "aB1", "a b"] {
            assert!(name.parse::<Environment>().is_err(), "{name}");
        }
    }

    #[test]
    fn an_id_in_the_future_is_reported_with_the_minutes_for_which_it_wins() {
        let id = id("test-20251027-122112Z");
        for after in [time::Duration::ZERO, time::Duration::DAY] {
            let text = id.supersedes(id.created() + after);
            assert_eq!(text, "test-20251027-122112Z is newer and active");
        }
        for (before, minutes) in [(1, 1), (90, 2), (600, 11)] {
            let text = id.supersedes(id.created() - time::Duration::seconds(before));
            assert!(text.starts_with("WARNING: test-20251027-122112Z"), "{text}");
            let minutes = format!("for {minutes} more minutes");
            assert!(text.contains(&minutes), "{before}: {text}");
        }
    }

    #[test]
    fn a_time_that_does_not_exist_is_refused() {
        for text in [
            "test-20250230-000000Z",
            "test-20251327-000000Z",
            "test-20251027-240000Z",
            "test-20251027-126000Z",
        ] {
            let error = text.parse::<DeploymentId>().unwrap_err();
            assert!(error.contains("does not exist"), "{error}");
        }
    }

    #[test]
    fn what_is_no_id_is_refused_whatever_it_holds() {
        for text in [
            "",
            "latest",
            "test",
            "test-20251027-122112",
            "test-2025102a-122112Z",
            "test-+2251027-122112Z",
            "Test-20251027-122112Z",
            "-test-20251027-122112Z",
            "test--20251027-122112Z",
            "t-20251027-122112Z",
            "тест-20251027-122112Z",
            "test-20251027-12211２Z",
            "\u{1F600}20251027-122112Z",
        ] {
            assert!(text.parse::<DeploymentId>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_message_never_carries_a_long_input_whole() {
        let error = "é".repeat(10_000).parse::<DeploymentId>().unwrap_err();
        assert!(error.len() < 400, "{}", error.len());
    }
}
