//! How the settings name a Lambda function.

use lifecycle::printable::printable;

/// The most characters of the name of a function or of an alias:
/// <https://docs.aws.amazon.com/lambda/latest/api/API_CreateFunction.html>.
const MAX_NAME: usize = 64;
const MAX_ALIAS: usize = 128;

/// Refuses what is neither a function's name nor its ARN, each with an alias or a version if it has one.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check(function: &str) -> Result<(), String> {
    if is_name(function) || is_arn(function) {
        return Ok(());
    }
    Err(format!(
        "is `{}`, and must be the name of a Lambda function, as `test-hook-check`, or its ARN",
        printable(function, 100)
    ))
}

/// `<name>` or `<name>:<alias>`.
fn is_name(text: &str) -> bool {
    let is_word = |word: &str, most: usize| {
        let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        !word.is_empty() && word.len() <= most && word.bytes().all(is_valid)
    };
    match text.split_once(':') {
        None => is_word(text, MAX_NAME),
        Some((name, "$LATEST")) => is_word(name, MAX_NAME),
        Some((name, alias)) => is_word(name, MAX_NAME) && is_word(alias, MAX_ALIAS),
    }
}

/// `arn:aws:lambda:<region>:<account>:function:<name>`, and an alias if it has one.
fn is_arn(text: &str) -> bool {
    let parts: Vec<&str> = text.splitn(7, ':').collect();
    let [arn, partition, lambda, region, account, function, name] = parts[..] else {
        return false;
    };
    let is_region = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (arn, lambda, function) == ("arn", "lambda", "function")
        && partition.starts_with("aws")
        && [partition, region]
            .iter()
            .all(|it| !it.is_empty() && it.bytes().all(is_region))
        && account.len() == 12
        && account.bytes().all(|byte| byte.is_ascii_digit())
        && is_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_has_a_name_or_an_arn_with_an_alias_or_without() {
        let arn = "arn:aws:lambda:eu-west-1:123456789012:function:test-hook";
        for right in [
            "test-hook-check",
            "Check_2:live",
            "check:$LATEST",
            "check:7",
            &"x".repeat(64),
            arn,
            &format!("{arn}:live"),
            "arn:aws-us-gov:lambda:us-gov-west-1:123456789012:function:a",
        ] {
            assert_eq!(check(right), Ok(()), "{right}");
        }
        for wrong in [
            "",
            "a b",
            "a:",
            ":a",
            "a:b:c",
            "a.b",
            "https://example.com",
            &"x".repeat(65),
            "arn:aws:lambda:eu-west-1:123456789012:function",
            "arn:aws:lambda:eu-west-1:12345678901:function:a",
            "arn:aws:lambda:eu-west-1:12345678901x:function:a",
            "arn:aws:lambda::123456789012:function:a",
            "arn:aws:lambda:eu-west-1:123456789012:layer:a",
            "arn:aws:states:eu-west-1:123456789012:function:a",
            "arn:gcp:lambda:eu-west-1:123456789012:function:a",
            "arx:aws:lambda:eu-west-1:123456789012:function:a",
            "arn:aws:lambda:eu-west-1:123456789012:function:a*",
            "arn:aws:lambda:eu west-1:123456789012:function:a",
        ] {
            let why = check(wrong).expect_err(wrong);
            assert!(why.contains("the name of a Lambda function"), "{why}");
        }
    }
}
