//! `DescribeTags` takes at most 20 resources.
//!
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_DescribeTags.html>

use crate::gateway::{answer::AwsError, operation::Params};

/// The limit on resources per call.
const LIMIT: usize = 20;

/// Refuses a call that names more resources than the limit, with `ValidationError`.
pub fn check(params: &Params) -> Result<(), AwsError> {
    let arns = params.members("ResourceArns", "");
    if arns.len() <= LIMIT {
        return Ok(());
    }
    Err(AwsError::new(
        "ValidationError",
        format!(
            "Up to '{LIMIT}' resource ARNs can be specified, but '{}' were specified",
            arns.len()
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twenty_resources_are_allowed_and_twenty_one_are_not() {
        let names: Vec<String> = (1..=21)
            .map(|n| format!("ResourceArns.member.{n}"))
            .collect();
        let params = |count: usize| {
            names[..count]
                .iter()
                .map(|name| (name.as_str(), "arn"))
                .collect()
        };
        assert_eq!(check(&params(20)), Ok(()));
        assert_eq!(check(&params(21)).unwrap_err().code, "ValidationError");
    }
}
