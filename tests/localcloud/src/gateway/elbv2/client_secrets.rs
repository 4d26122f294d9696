//! The secret of an OIDC client: a new rule or listener needs it, and one that exists can keep its own.
//!
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_AuthenticateOidcActionConfig.html>

use super::snapshot::{Action, Snapshot};
use crate::gateway::{answer::AwsError, operation::Params};

/// Refuses an action that authenticates by OIDC without a secret, or with two.
///
/// # Errors
/// `InvalidLoadBalancerAction`.
pub fn check(params: &Params, state: &Snapshot) -> Result<(), AwsError> {
    let refused = |message: &str| Err(AwsError::new("InvalidLoadBalancerAction", message));
    for list in ["Actions", "DefaultActions"] {
        // A list has ten actions at most.
        for number in 1..=10 {
            let action = format!("{list}.member.{number}");
            let config = format!("{action}.AuthenticateOidcConfig");
            if params.get(&format!("{action}.Type")) != Some("authenticate-oidc") {
                continue;
            }
            let has_one = params.get(&format!("{config}.ClientSecret")).is_some();
            let keeps_its_own =
                params.get(&format!("{config}.UseExistingClientSecret")) == Some("true");
            match (has_one, keeps_its_own) {
                (true, false) => {}
                (false, true) if existing(params, state) => {}
                // https://github.com/ansible-collections/amazon.aws/issues/1877
                (true, true) => {
                    return refused(
                        "You cannot both specify a client secret and set UseExistingClientSecret to true",
                    );
                }
                (false, _) => return refused("You must specify a client secret"),
            }
        }
    }
    Ok(())
}

/// Whether the rule or listener that the call modifies has a secret.
fn existing(params: &Params, state: &Snapshot) -> bool {
    let actions: &[Action] = match params.get("Action") {
        Some("ModifyRule") => {
            let rule = params.get("RuleArn").and_then(|arn| state.rule(arn));
            rule.map_or(&[], |rule| &rule.actions)
        }
        Some("ModifyListener") => {
            let listener = params.get("ListenerArn");
            let listener = listener.and_then(|arn| state.listener(arn));
            listener.map_or(&[], |listener| &listener.default_actions)
        }
        _ => &[],
    };
    actions
        .iter()
        .filter_map(|action| action.authenticate_oidc_config.as_ref())
        .any(|oidc| oidc.client_secret.is_some() || oidc.use_existing_client_secret)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::elbv2::examples::{listener, rule, state};
    use crate::gateway::elbv2::snapshot::AuthenticateOidcConfig;

    fn ask(action: &str, secret: &[(&str, &str)], state: &Snapshot) -> bool {
        let (listener, config) = (listener(1), "Actions.member.1.AuthenticateOidcConfig");
        let arn = state.rules[0].rule_arn.as_str();
        let fields: Vec<_> = secret
            .iter()
            .map(|(name, value)| (format!("{config}.{name}"), *value))
            .collect();
        let mut params = vec![
            ("Action", action),
            ("ListenerArn", listener.as_str()),
            ("RuleArn", arn),
            ("Actions.member.1.Type", "authenticate-oidc"),
        ];
        params.extend(fields.iter().map(|(name, value)| (name.as_str(), *value)));
        check(&params.into_iter().collect(), state).is_ok()
    }

    #[test]
    fn a_new_rule_needs_the_secret_and_one_that_has_it_may_keep_it() {
        let without = state([rule(1, "1", "a")]);
        let mut with = without.clone();
        with.rules[0].actions[0].authenticate_oidc_config = Some(AuthenticateOidcConfig {
            client_secret: Some("secret".into()),
            use_existing_client_secret: false,
        });
        let given = &[("ClientSecret", "secret")][..];
        let kept = &[("UseExistingClientSecret", "true")][..];
        for state in [&without, &with] {
            assert!(ask("CreateRule", given, state));
            assert!(ask("ModifyRule", given, state));
            assert!(!ask("CreateRule", kept, state));
            assert!(!ask("CreateRule", &[], state));
            assert!(!ask("ModifyRule", &[], state));
            assert!(!ask("ModifyRule", &[given, kept].concat(), state));
        }
        assert!(ask("ModifyRule", kept, &with));
        assert!(!ask("ModifyRule", kept, &without));
    }
}
