//! `DescribeAccountLimits`, which MiniStack does not provide.
//!
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_DescribeAccountLimits.html>
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-limits.html>

use super::{forward_actions::TARGET_GROUPS, quotas::TARGET_GROUPS_PER_LOAD_BALANCER};
use crate::gateway::answer::{Answer, query_answer};

/// The limits of application load balancers.
pub fn answer(rules_per_load_balancer: usize) -> Answer {
    let limits = [
        ("application-load-balancers", 50),
        ("condition-values-per-alb-rule", 5),
        ("condition-wildcards-per-alb-rule", 5),
        ("listeners-per-application-load-balancer", 50),
        (
            "rules-per-application-load-balancer",
            rules_per_load_balancer,
        ),
        ("target-groups", 3000),
        (
            "target-groups-per-action-on-application-load-balancer",
            TARGET_GROUPS,
        ),
        (
            "target-groups-per-application-load-balancer",
            TARGET_GROUPS_PER_LOAD_BALANCER,
        ),
        ("targets-per-application-load-balancer", 1000),
    ];
    let members: String = limits
        .iter()
        .map(|(name, max)| format!("<member><Name>{name}</Name><Max>{max}</Max></member>"))
        .collect();
    query_answer(
        "DescribeAccountLimits",
        &format!("<Limits>{members}</Limits>"),
    )
}
