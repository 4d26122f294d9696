//! The limits on tags.
//!
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-tags.html>
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_AddTags.html>

use std::collections::BTreeSet;

use super::snapshot::{Snapshot, TargetGroup};
use crate::gateway::{answer::AwsError, operation::Params};

/// The limit on tags per resource.
const TAGS: usize = 50;
/// The limit on the length of a key, in characters. The API's reference allows one more.
const KEY: usize = 127;
/// The limit on the length of a value, in characters. The API's reference allows one more.
const VALUE: usize = 255;

/// Refuses tags that exceed a limit. Only the tags of target groups add up over calls: nothing else gets more
/// of them after its creation.
///
/// # Errors
/// `ValidationError`, `DuplicateTagKeys` or `TooManyTags`.
pub fn check(params: &Params, state: &Snapshot) -> Result<(), AwsError> {
    let keys = params.members("Tags", ".Key");
    for (number, key) in (1..).zip(&keys) {
        let value = params.get(&format!("Tags.member.{number}.Value"));
        for (text, limit) in [(*key, KEY), (value.unwrap_or_default(), VALUE)] {
            if !is_valid(text, limit) {
                return Err(AwsError::new(
                    "ValidationError",
                    format!("Tag '{key}' has a key or a value that is not valid: '{text}'"),
                ));
            }
        }
    }
    let distinct: BTreeSet<&str> = keys.iter().copied().collect();
    if distinct.len() < keys.len() {
        return Err(AwsError::new(
            "DuplicateTagKeys",
            "A tag key was specified more than once",
        ));
    }
    let arns = params.members("ResourceArns", "");
    let mut groups = arns.iter().filter_map(|arn| state.target_group(arn));
    let exceeds = |group: &TargetGroup| {
        let all = group.tags.keys().map(String::as_str);
        let all: BTreeSet<&str> = all.chain(keys.iter().copied()).collect();
        all.iter().filter(|key| !is_reserved(key)).count() > TAGS
    };
    if keys.len() > TAGS || (!keys.is_empty() && groups.any(exceeds)) {
        return Err(AwsError::new(
            "TooManyTags",
            "You've reached the limit on the number of tags for this resource",
        ));
    }
    Ok(())
}

fn is_valid(text: &str, limit: usize) -> bool {
    let is_allowed = |c: char| c.is_alphanumeric() || c == ' ' || "_.:/=+-@".contains(c);
    text.chars().count() <= limit
        && text.chars().all(is_allowed)
        && text.trim() == text
        && !is_reserved(text)
}

/// Such tags are AWS's own, and do not count.
fn is_reserved(text: &str) -> bool {
    text.to_ascii_lowercase().starts_with("aws:")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::elbv2::examples::{group, rule, state};

    fn check_tags(tags: &[(&str, &str)], state: &Snapshot) -> Result<(), &'static str> {
        let arn = group("a");
        let mut pairs = vec![("ResourceArns.member.1".to_owned(), arn)];
        for (number, (key, value)) in (1..).zip(tags) {
            pairs.push((format!("Tags.member.{number}.Key"), (*key).to_owned()));
            pairs.push((format!("Tags.member.{number}.Value"), (*value).to_owned()));
        }
        let pairs = pairs.iter().map(|(name, value)| (&**name, &**value));
        check(&pairs.collect(), state).map_err(|error| error.code)
    }

    #[test]
    fn keys_and_values_have_a_length_an_alphabet_and_a_reserved_prefix() {
        let (key, value) = ("k".repeat(127), "ä".repeat(255));
        let (longer_key, longer_value) = (format!("{key}k"), format!("{value}ä"));
        for (tag, valid) in [
            ((&*key, &*value), true),
            (("pulse:execution:a-b_c", ""), true),
            (("key", "arn:aws:states:us-east-1:0:execution:a:b"), true),
            ((&*longer_key, ""), false),
            (("key", &*longer_value), false),
            (("key", "50%"), false),
            (("key", "{}"), false),
            (("key", "a\nb"), false),
            (("key ", ""), false),
            (("aws:key", ""), false),
            (("AWS:key", ""), false),
            (("key", "aws:value"), false),
        ] {
            let expected = if valid {
                Ok(())
            } else {
                Err("ValidationError")
            };
            assert_eq!(check_tags(&[tag], &state([])), expected, "{tag:?}");
        }
    }

    #[test]
    fn a_key_is_given_once() {
        let twice = [("key", "1"), ("key", "2")];
        assert_eq!(check_tags(&twice, &state([])), Err("DuplicateTagKeys"));
    }

    #[test]
    fn a_resource_has_fifty_tags_at_most_and_those_of_aws_do_not_count() {
        let mut state = state([rule(1, "1", "a")]);
        let tags = &mut state.target_groups[0].tags;
        tags.insert("aws:cloudformation:stack-name".into(), "test".into());
        for number in 1..=49 {
            tags.insert(format!("key-{number}"), String::new());
        }
        assert_eq!(check_tags(&[("new", "")], &state), Ok(()));
        let two = [("new", ""), ("newer", "")];
        assert_eq!(check_tags(&two, &state), Err("TooManyTags"));
        let changed = [("key-1", "2"), ("new", "")];
        assert_eq!(check_tags(&changed, &state), Ok(()));
        assert_eq!(check_tags(&[], &state), Ok(()));

        let names: Vec<String> = (1..=51).map(|number| format!("key-{number}")).collect();
        let many: Vec<(&str, &str)> = names.iter().map(|name| (&**name, "")).collect();
        let nothing = Snapshot::default();
        assert_eq!(check_tags(&many[..50], &nothing), Ok(()));
        assert_eq!(check_tags(&many, &nothing), Err("TooManyTags"));
    }
}
