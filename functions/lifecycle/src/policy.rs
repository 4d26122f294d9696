//! What the listener does with a request before it routes it: authentication, or what AWS adds next.
//!
//! This is the operator's. It stands before every forward of ours, in rules as in the default action, because
//! a header or a cookie that anyone can guess must not lead past it:
//! `docs/adr/0008-rules-and-default-action-are-one-policy.md`.

use std::fmt;

use aws_sdk_elasticloadbalancingv2::Client;
use aws_sdk_elasticloadbalancingv2::types::{
    Action, ActionTypeEnum, AuthenticateOidcActionConfig, Rule,
};

use crate::aws_error::failed;
use crate::routing::{self, ListenerRule};
use crate::{Baseline, ErrorName, StepError, actions, tags, target_group};

/// The actions before the routing one, as they compare: in order, and without what AWS never shows.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy(Vec<Action>);

/// The secret of an OIDC client. Its `Debug` shows nothing of it.
pub struct ClientSecret(String);

impl fmt::Debug for ClientSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientSecret")
    }
}

impl Policy {
    /// The policy of these actions, which belong to `place`.
    ///
    /// # Errors
    /// `Configuration` for an action type that this version does not know: its settings would be lost.
    pub fn of(place: &str, actions: &[Action]) -> Result<Self, StepError> {
        let mut before = Vec::new();
        for action in actions {
            match action.r#type() {
                _ if is_routing(action) => {}
                Some(
                    ActionTypeEnum::AuthenticateOidc
                    | ActionTypeEnum::AuthenticateCognito
                    | ActionTypeEnum::JwtValidation,
                ) => before.push(action.clone()),
                other => return Err(unknown(place, other)),
            }
        }
        before.sort_by_key(Action::order);
        Ok(Policy(before.into_iter().map(comparable).collect()))
    }

    /// The policy of the listener's default action, which DescribeRules lists as the default rule.
    pub fn of_default_rule(rules: &[Rule]) -> Result<Self, StepError> {
        let default = rules.iter().find(|rule| rule.is_default() == Some(true));
        Policy::of(
            "the default action",
            default.map(Rule::actions).unwrap_or_default(),
        )
    }

    /// Whether the listener does nothing before it routes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The actions for a listener that has them already and keeps its client secret.
    pub fn with_existing_secret(&self) -> Vec<Action> {
        self.with(|oidc| oidc.use_existing_client_secret = Some(true))
    }

    /// The actions for a rule that does not exist yet or has another policy.
    pub fn with_secret(&self, secret: Option<&ClientSecret>) -> Vec<Action> {
        self.with(|oidc| oidc.client_secret = secret.map(|secret| secret.0.clone()))
    }

    fn with(&self, change: impl Fn(&mut AuthenticateOidcActionConfig)) -> Vec<Action> {
        let mut actions = self.0.clone();
        actions
            .iter_mut()
            .filter_map(|action| action.authenticate_oidc_config.as_mut())
            .for_each(change);
        actions
    }
}

/// Reads the client secret that a rule with this policy needs, or `None` when it needs none.
///
/// Elastic Load Balancing never returns it, and a new rule cannot use that of another:
/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_AuthenticateOidcActionConfig.html>.
///
/// # Errors
/// `Configuration` when the secret does not exist or is not text. No message contains any part of it.
pub async fn client_secret(
    secrets: &aws_sdk_secretsmanager::Client,
    baseline: &Baseline,
    policy: &Policy,
) -> Result<Option<ClientSecret>, StepError> {
    let needs_one = |action: &Action| action.authenticate_oidc_config().is_some();
    if !policy.0.iter().any(needs_one) {
        return Ok(None);
    }
    let name = format!("{}/oidc-client-secret", baseline.environment);
    let missing = |why: &str| {
        StepError::new(
            ErrorName::Configuration,
            format!(
                "the listener authenticates by OIDC, and the rules need the client's secret too, which the load \
                 balancer does not return: the secret {name} {why}; store the client's secret in it as plain text"
            ),
        )
    };
    match secrets.get_secret_value().secret_id(&name).send().await {
        Ok(answer) => match answer.secret_string.as_deref().and_then(of_one_line) {
            Some(secret) => Ok(Some(ClientSecret(secret.to_owned()))),
            None => Err(missing("is empty or is not one line of text")),
        },
        Err(error) => Err(match error.as_service_error() {
            Some(why) if why.is_resource_not_found_exception() => missing("does not exist"),
            // It is scheduled for deletion.
            Some(why) if why.is_invalid_request_exception() => {
                missing("cannot be read, perhaps because it was deleted")
            }
            _ => failed(format_args!("read the secret {name}"), error),
        }),
    }
}

/// The text without the line break that an editor puts at its end, if it is one line.
fn of_one_line(text: &str) -> Option<&str> {
    let line = text.trim_end_matches(['\r', '\n']);
    (!line.is_empty() && !line.contains(char::is_control)).then_some(line)
}

/// Gives the policy to those rules of deployments that have another one. Returns how many there were.
///
/// # Errors
/// As for [`Policy::of`] and [`client_secret`], else as [`crate::aws_error::CODES`] say. A rule
/// that is gone is not an error.
pub async fn apply<'a>(
    elb: &Client,
    secrets: &aws_sdk_secretsmanager::Client,
    baseline: &Baseline,
    policy: &Policy,
    rules: impl Iterator<Item = &'a Rule>,
) -> Result<usize, StepError> {
    let differing = differing(elb, baseline, policy, rules).await?;
    if differing.is_empty() {
        return Ok(0);
    }
    let secret = client_secret(secrets, baseline, policy).await?;
    for rule in &differing {
        let actions = actions::of_rule(policy.with_secret(secret.as_ref()), rule.actions());
        let arn = rule.rule_arn().unwrap_or_default();
        let modify = elb.modify_rule().rule_arn(arn);
        let Err(error) = modify.set_actions(Some(actions)).send().await else {
            continue;
        };
        // A rule that is gone has no tags either, and the role may change rules only by tag.
        let left = routing::rules(elb, &baseline.listener_arn).await?;
        if left.iter().any(|rule| rule.rule_arn() == Some(arn)) {
            let attempt = format_args!("put the listener's policy before rule {arn}");
            return Err(failed(attempt, error));
        }
    }
    Ok(differing.len())
}

/// The rules with another policy that forward to a deployment and carry its tags.
///
/// # Errors
/// As for [`Policy::of`], else as [`crate::aws_error::CODES`] say.
pub async fn differing<'a>(
    elb: &Client,
    baseline: &Baseline,
    policy: &Policy,
    rules: impl Iterator<Item = &'a Rule>,
) -> Result<Vec<&'a Rule>, StepError> {
    let mut differing = Vec::new();
    for rule in rules {
        let deployment = routing::forwarded_to(rule.actions())
            .iter()
            .find_map(|arn| target_group::deployment_from_name(arn, &baseline.environment));
        let (Some(it), Some(deployment)) = (ListenerRule::of(rule), deployment) else {
            continue;
        };
        if Policy::of(&it.arn, rule.actions()).ok().as_ref() != Some(policy) {
            differing.push((it.arn, deployment, rule));
        }
    }
    let arns: Vec<String> = differing.iter().map(|(arn, ..)| arn.clone()).collect();
    let tags = tags::read(elb, &arns).await?;
    differing.retain(|(arn, deployment, _)| {
        tags.get(arn)
            .is_some_and(|tags| tags::belong_to(tags, deployment))
    });
    let checked = differing.into_iter().map(|(arn, _, rule)| {
        Policy::of(&format!("rule {arn}"), rule.actions())?;
        Ok(rule)
    });
    checked.collect()
}

/// Whether the action routes, as the last one of every list does.
pub(crate) fn is_routing(action: &Action) -> bool {
    matches!(
        action.r#type(),
        Some(ActionTypeEnum::Forward | ActionTypeEnum::FixedResponse | ActionTypeEnum::Redirect)
    )
}

fn unknown(place: &str, action: Option<&ActionTypeEnum>) -> StepError {
    let name = action.map_or("none", ActionTypeEnum::as_str);
    StepError::new(
        ErrorName::Configuration,
        format!(
            "{place} has an action of the type `{name}`, which this version of pulse-deploy does not know and could not \
             keep; update pulse-deploy, or remove the action"
        ),
    )
}

/// An action without its order and without what differs between AWS's answers and what was sent.
fn comparable(mut action: Action) -> Action {
    action.order = None;
    if let Some(oidc) = &mut action.authenticate_oidc_config {
        oidc.client_secret = None;
        oidc.use_existing_client_secret = None;
        oidc.authentication_request_extra_params
            .take_if(|params| params.is_empty());
    }
    if let Some(cognito) = &mut action.authenticate_cognito_config {
        cognito
            .authentication_request_extra_params
            .take_if(|params| params.is_empty());
    }
    if let Some(jwt) = &mut action.jwt_validation_config {
        jwt.additional_claims.take_if(|claims| claims.is_empty());
    }
    action
}

#[cfg(test)]
mod tests;
