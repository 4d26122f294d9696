//! The grammar of target group names, and requests for a name that exists.
//!
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_CreateTargetGroup.html>

use super::snapshot::{Snapshot, TargetGroup};
use crate::gateway::{answer::AwsError, operation::Params};

/// Checks the name: at most 32 letters, digits and hyphens, without a hyphen at either end.
pub fn check(params: &Params) -> Result<(), AwsError> {
    let name = params.get("Name").unwrap_or_default();
    let refused = |why: &str| {
        Err(AwsError::new(
            "ValidationError",
            format!("Target group name '{name}' {why}"),
        ))
    };
    if name.chars().count() > 32 {
        return refused("cannot be longer than '32' characters");
    }
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
        return refused(
            "can only contain characters that are alphanumeric characters and hyphens(-)",
        );
    }
    if name.starts_with('-') || name.ends_with('-') {
        return refused("cannot begin or end with a hyphen");
    }
    Ok(())
}

/// The group with the name of the request, if it exists with the same settings.
///
/// Tags are not compared, because AWS does not document that it compares them.
///
/// # Errors
/// `DuplicateTargetGroupName` if the settings differ.
pub fn existing<'a>(
    params: &Params,
    state: &'a Snapshot,
) -> Result<Option<&'a TargetGroup>, AwsError> {
    let name = params.get("Name").unwrap_or_default();
    let Some(group) = state
        .target_groups
        .iter()
        .find(|group| group.target_group_name == name)
    else {
        return Ok(None);
    };
    let TargetGroup {
        protocol,
        vpc_id,
        target_type,
        health_check_protocol,
        health_check_port,
        health_check_path,
        ..
    } = group;
    let number = |number: u32| number.to_string();
    // For a setting that the request leaves out, MiniStack's default is compared.
    let settings = [
        ("Protocol", protocol.clone(), "HTTP"),
        ("Port", group.port.to_string(), "80"),
        ("VpcId", vpc_id.clone(), ""),
        ("TargetType", target_type.clone(), "instance"),
        ("HealthCheckProtocol", health_check_protocol.clone(), "HTTP"),
        ("HealthCheckPort", health_check_port.clone(), "traffic-port"),
        ("HealthCheckPath", health_check_path.clone(), "/"),
        (
            "HealthCheckIntervalSeconds",
            number(group.health_check_interval_seconds),
            "30",
        ),
        (
            "HealthCheckTimeoutSeconds",
            number(group.health_check_timeout_seconds),
            "5",
        ),
        (
            "HealthyThresholdCount",
            number(group.healthy_threshold_count),
            "5",
        ),
        (
            "UnhealthyThresholdCount",
            number(group.unhealthy_threshold_count),
            "2",
        ),
        ("Matcher.HttpCode", group.matcher.http_code.clone(), "200"),
    ];
    let same = settings
        .iter()
        .all(|(name, has, default)| params.get(name).unwrap_or(default) == has);
    if same {
        return Ok(Some(group));
    }
    Err(AwsError::new(
        "DuplicateTargetGroupName",
        format!("A target group with the same name '{name}' exists, but with different settings"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::elbv2::examples::{default_rule, state};

    #[test]
    fn names_outside_the_grammar_are_refused() {
        for (name, allowed) in [
            ("test-20251027-122112Z", true),
            ("12345678901234567890123456789012", true),
            ("123456789012345678901234567890123", false),
            ("-a", false),
            ("a-", false),
            ("a_b", false),
        ] {
            assert_eq!(
                check(&[("Name", name)].into_iter().collect()).is_ok(),
                allowed,
                "{name}"
            );
        }
    }

    #[test]
    fn a_name_that_exists_gives_its_group_unless_a_setting_differs() {
        let state = state([default_rule(1, "a")]);
        let create = |path| {
            let params = [
                ("Name", "a"),
                ("Port", "8000"),
                ("VpcId", "vpc-1"),
                ("TargetType", "ip"),
                ("HealthCheckPath", path),
            ];
            existing(&params.into_iter().collect(), &state)
                .map(|group| group.map(|group| group.target_group_name.clone()))
                .map_err(|error| error.code)
        };
        assert_eq!(create("/_health"), Ok(Some("a".into())));
        assert_eq!(create("/other"), Err("DuplicateTargetGroupName"));
        assert!(
            existing(&[("Name", "b")].into_iter().collect(), &state)
                .unwrap()
                .is_none()
        );
    }
}
