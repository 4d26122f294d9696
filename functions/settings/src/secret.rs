//! Where ECS may get the value of a secret.
//!
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/secrets-envvar-ssm-paramstore.html>
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/secrets-envvar-secrets-manager.html>

/// The longest that is accepted: the ARN of a parameter with a name of 1,011 characters, or of a secret with a key
/// and a version, is shorter.
const MAX_CHARACTERS: usize = 2048;

/// Checks the form of `valueFrom`.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check(value_from: &str) -> Result<(), String> {
    if value_from.len() > MAX_CHARACTERS {
        return Err(format!(
            "has more than {MAX_CHARACTERS} characters, which no name or ARN has"
        ));
    }
    let parts: Vec<&str> = value_from.split(':').collect();
    match parts[..] {
        [name] => check_name(name),
        ["arn", partition, "ssm", region, account, resource]
            if is_owner(partition, region, account) =>
        {
            match resource.strip_prefix("parameter/") {
                Some(name) => check_name(name),
                None => Err(WHAT.to_owned()),
            }
        }
        [
            "arn",
            partition,
            "secretsmanager",
            region,
            account,
            "secret",
            name,
            ref rest @ ..,
        ] if is_owner(partition, region, account) && !name.is_empty() => check_rest(rest),
        _ => Err(WHAT.to_owned()),
    }
}

const WHAT: &str = "must be the name of a parameter of Parameter Store, such as `/pulse/test/API_KEY`, or the ARN of a \
                    parameter or of a secret of Secrets Manager";

fn is_owner(partition: &str, region: &str, account: &str) -> bool {
    partition.starts_with("aws")
        && !region.is_empty()
        && account.len() == 12
        && account.bytes().all(|byte| byte.is_ascii_digit())
}

fn check_name(name: &str) -> Result<(), String> {
    let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-/".contains(&byte);
    if !name.is_empty() && name.bytes().all(is_valid) {
        Ok(())
    } else {
        Err(WHAT.to_owned())
    }
}

/// What follows the name of a secret: nothing, or a JSON key, a version stage and a version id, each of which may be
/// empty.
fn check_rest(rest: &[&str]) -> Result<(), String> {
    match rest {
        [] => Ok(()),
        [_, stage, id] if !stage.is_empty() && !id.is_empty() => {
            Err("names both a version stage and a version id; ECS takes one of them".to_owned())
        }
        [_, _, _] => Ok(()),
        _ => Err(
            "must have three parts after the secret's name once it has one, `…:json-key:version-stage:version-id`; each \
             may be empty"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:test/db-AbCdEf";

    #[test]
    fn every_form_that_ecs_takes_is_accepted() {
        for value_from in [
            "API_KEY",
            "/pulse/test/API_KEY",
            "arn:aws:ssm:eu-west-1:123456789012:parameter/pulse/test/API_KEY",
            "arn:aws-cn:ssm:cn-north-1:123456789012:parameter/API_KEY",
            SECRET,
            &format!("{SECRET}:password::"),
            &format!("{SECRET}::AWSPREVIOUS:"),
            &format!("{SECRET}:password::9d4cb84b-ad69-40c0-a0ab-cead3EXAMPLE"),
        ] {
            assert_eq!(check(value_from), Ok(()), "{value_from}");
        }
    }

    #[test]
    fn what_ecs_would_not_find_is_refused() {
        for (value_from, why) in [
            ("", "must be the name"),
            ("a b", "must be the name"),
            ("test/db:password", "must be the name"),
            ("arn:aws:s3:::bucket", "must be the name"),
            (
                "arn:aws:ssm:eu-west-1:12345:parameter/a",
                "must be the name",
            ),
            ("arn:aws:ssm::123456789012:parameter/a", "must be the name"),
            (
                "arn:other:ssm:eu-west-1:123456789012:parameter/a",
                "must be the name",
            ),
            (
                "arn:aws:ssm:eu-west-1:12345678901a:parameter/a",
                "must be the name",
            ),
            (
                "arn:aws:ssm:eu-west-1:123456789012:document/a",
                "must be the name",
            ),
            (
                "arn:aws:secretsmanager:eu-west-1:123456789012:secret:",
                "must be the name",
            ),
            (&format!("{SECRET}:password"), "three parts"),
            (&format!("{SECRET}:password:"), "three parts"),
            (&format!("{SECRET}:a:b:c:d"), "three parts"),
            (&format!("{SECRET}::AWSPREVIOUS:9d4cb84b"), "both"),
            (&"a".repeat(3000), "characters"),
        ] {
            let refused = check(value_from).expect_err(value_from);
            assert!(refused.contains(why), "{value_from}: {refused}");
        }
    }
}
