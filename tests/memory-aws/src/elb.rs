//! Elastic Load Balancing: <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/>.

use serde_json::{Value, json};

use crate::state::{Rule, State, Tags, TargetGroup, group_arn, number, rule_arn, texts};
use crate::wire::text;
use crate::{Error, Listener};

type Answer = Result<Value, Error>;

/// The entries on a page of a list: by default, and at most.
const PAGE: (usize, usize) = (400, 400);

/// The answer, if the operation is one of this service.
pub(crate) fn answer(state: &mut State, operation: &str, params: &Value) -> Option<Answer> {
    let known = match operation {
        "DescribeListeners" => describe_listeners,
        "DescribeRules" => describe_rules,
        "DescribeTargetGroups" => describe_target_groups,
        "DescribeTags" => describe_tags,
        "DescribeTargetHealth" => describe_target_health,
        "DescribeAccountLimits" => describe_account_limits,
        "AddTags" => add_tags,
        "RemoveTags" => remove_tags,
        "CreateTargetGroup" => create_target_group,
        "ModifyTargetGroup" => modify_target_group,
        "ModifyTargetGroupAttributes" => modify_attributes,
        "DescribeTargetGroupAttributes" => describe_attributes,
        "DeleteTargetGroup" => delete_target_group,
        "CreateRule" => create_rule,
        "ModifyRule" => modify_rule,
        "DeleteRule" => delete_rule,
        "ModifyListener" => modify_listener,
        _ => return None,
    };
    Some(known(state, params))
}

/// An action as AWS shows it: a forward to one target group names it in both places.
pub(crate) fn as_shown(action: &Value) -> Value {
    let mut shown = action.clone();
    if action["Type"] != "forward" {
        return shown;
    }
    let arn = &action["TargetGroupArn"];
    match action["ForwardConfig"]["TargetGroups"].as_array() {
        None => {
            shown["ForwardConfig"] =
                json!({"TargetGroups": [{"TargetGroupArn": arn, "Weight": "1"}]});
        }
        Some(groups) if groups.len() == 1 => {
            shown["TargetGroupArn"] = groups[0]["TargetGroupArn"].clone();
        }
        Some(_) => (),
    }
    shown
}

fn oidc_of(action: &mut Value) -> Option<&mut serde_json::Map<String, Value>> {
    action.get_mut("AuthenticateOidcConfig")?.as_object_mut()
}

/// Actions as AWS describes them: never with the secret of an OIDC client.
fn described(actions: &[Value]) -> Value {
    let mut described = actions.to_vec();
    for action in &mut described {
        if let Some(oidc) = oidc_of(action) {
            oidc.retain(|field, _| field != "ClientSecret");
        }
    }
    described.into()
}

/// Checks actions against what a rule or listener had before, and puts its OIDC client's secret in where
/// they ask for that.
///
/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_Action.html>,
/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_AuthenticateOidcActionConfig.html>.
fn checked(mut actions: Vec<Value>, before: &[Value]) -> Result<Vec<Value>, Error> {
    let refused = |why: &str| Err(Error::new("InvalidLoadBalancerAction", why));
    if actions.len() > 1 && actions.iter().any(|action| action["Order"].is_null()) {
        return Err(Error::new("ValidationError", "every action needs an order"));
    }
    actions.sort_by_key(|action| number(&action["Order"]));
    let routes = |action: &Value| {
        let kind = text(&action["Type"]);
        ["forward", "fixed-response", "redirect"].contains(&kind)
    };
    if actions.iter().position(routes).map(|at| at + 1) != Some(actions.len()) {
        return refused("the last action, and no other one, must route");
    }
    for action in &mut actions {
        let Some(oidc) = oidc_of(action) else {
            continue;
        };
        let uses_existing = oidc.remove("UseExistingClientSecret") == Some("true".into());
        let existing = before.iter().find_map(|action| {
            let secret = &action["AuthenticateOidcConfig"]["ClientSecret"];
            secret.as_str().filter(|_| uses_existing)
        });
        match (oidc.contains_key("ClientSecret"), uses_existing, existing) {
            (true, false, _) => {}
            (false, true, Some(secret)) => drop(oidc.insert("ClientSecret".into(), secret.into())),
            (true, true, _) => {
                return refused(
                    "You cannot both specify a client secret and set UseExistingClientSecret to true",
                );
            }
            (false, true, None) => return refused("there is no existing client secret"),
            (false, false, _) => return refused("You must specify a client secret"),
        }
    }
    Ok(actions)
}

pub(crate) fn all_as_shown(actions: &Value) -> Vec<Value> {
    let actions = actions.as_array().into_iter().flatten();
    actions.map(as_shown).collect()
}

/// The target groups that actions forward to.
pub(crate) fn named(actions: &[Value]) -> Vec<&str> {
    let groups = actions
        .iter()
        .filter_map(|action| action["ForwardConfig"]["TargetGroups"].as_array());
    groups
        .flatten()
        .map(|group| text(&group["TargetGroupArn"]))
        .collect()
}

fn not_found(what: &str, arn: &str) -> Error {
    Error::new(format!("{what}NotFound"), format!("{arn} not found"))
}

impl State {
    fn listener(&mut self, arn: &str) -> Result<&mut Listener, Error> {
        let found = self.listeners.iter_mut().find(|it| it.arn == arn);
        found.ok_or_else(|| not_found("Listener", arn))
    }

    fn target_group(&mut self, arn: &str) -> Result<&mut TargetGroup, Error> {
        let groups = &mut self.target_groups;
        let found = groups.iter_mut().find(|it| group_arn(&it.name) == arn);
        found.ok_or_else(|| not_found("TargetGroup", arn))
    }

    fn tags_of(&mut self, arn: &str) -> Result<&mut Tags, Error> {
        if arn.contains(":listener-rule/") {
            let found = self.rules.iter_mut().find(|rule| rule.arn == arn);
            return found
                .map(|rule| &mut rule.tags)
                .ok_or_else(|| not_found("Rule", arn));
        }
        self.target_group(arn).map(|group| &mut group.tags)
    }

    pub(crate) fn is_in_use(&self, group: &str) -> bool {
        let defaults = self.listeners.iter().map(|it| &it.default_actions);
        let rules = self.rules.iter().map(|rule| &rule.actions);
        defaults.chain(rules).any(|it| named(it).contains(&group))
    }

    /// Actions as they are kept, when every target group that they name is there.
    fn actions(&mut self, actions: &Value, before: &[Value]) -> Result<Vec<Value>, Error> {
        let actions = checked(all_as_shown(actions), before)?;
        for arn in named(&actions) {
            self.target_group(arn)?;
        }
        Ok(actions)
    }
}

fn describe_listeners(state: &mut State, params: &Value) -> Answer {
    let asked = texts(&params["ListenerArns"]);
    for arn in &asked {
        state.listener(arn)?;
    }
    let listeners = state.listeners.iter();
    let listeners = listeners.filter(|it| asked.is_empty() || asked.contains(&it.arn.as_str()));
    state.page(
        params,
        "Listeners",
        PAGE,
        listeners,
        |it| json!({"ListenerArn": it.arn, "DefaultActions": described(&it.default_actions)}),
    )
}

fn shown_rule(rule: &Rule) -> Value {
    json!({
        "RuleArn": rule.arn,
        "Priority": rule.priority.to_string(),
        "IsDefault": "false",
        "Conditions": rule.conditions,
        "Actions": described(&rule.actions),
    })
}

fn describe_rules(state: &mut State, params: &Value) -> Answer {
    let arn = text(&params["ListenerArn"]);
    let default = json!({
        "RuleArn": rule_arn("default"),
        "Priority": "default",
        "IsDefault": "true",
        "Actions": described(&state.listener(arn)?.default_actions),
    });
    let rules = state.rules.iter().filter(|it| it.listener_arn == arn);
    let mut rules: Vec<Option<&Rule>> = rules.map(Some).collect();
    rules.sort_by_key(|rule| rule.map(|rule| rule.priority));
    rules.push(None);
    state.page(params, "Rules", PAGE, rules, |rule| {
        rule.map_or_else(|| default.clone(), shown_rule)
    })
}

fn shown_group(group: &TargetGroup) -> Value {
    json!({
        "TargetGroupArn": group_arn(&group.name),
        "TargetGroupName": group.name,
        "HealthCheckPath": group.settings["HealthCheckPath"],
    })
}

fn describe_target_groups(state: &mut State, params: &Value) -> Answer {
    let names = texts(&params["Names"]);
    if let Some(missing) = names.iter().find(|name| !state.has_group(name)) {
        return Err(not_found("TargetGroup", missing));
    }
    let arns = texts(&params["TargetGroupArns"]);
    for arn in &arns {
        state.target_group(arn)?;
    }
    let groups = state.target_groups.iter();
    let groups = groups.filter(|it| names.is_empty() || names.contains(&it.name.as_str()));
    let groups =
        groups.filter(|it| arns.is_empty() || arns.contains(&group_arn(&it.name).as_str()));
    state.page(params, "TargetGroups", PAGE, groups, shown_group)
}

fn describe_tags(state: &mut State, params: &Value) -> Answer {
    let arns = texts(&params["ResourceArns"]);
    if !(1..=20).contains(&arns.len()) {
        return Err(Error::new("ValidationError", "1 to 20 resources a call"));
    }
    let mut descriptions = Vec::new();
    for arn in arns {
        let tags = state.tags_of(arn)?.iter();
        let tags: Vec<_> = tags
            .map(|(key, value)| json!({"Key": key, "Value": value}))
            .collect();
        descriptions.push(json!({"ResourceArn": arn, "Tags": tags}));
    }
    Ok(json!({"TagDescriptions": descriptions}))
}

fn describe_target_health(state: &mut State, params: &Value) -> Answer {
    let group = state.target_group(text(&params["TargetGroupArn"]))?;
    let health = group.health.iter();
    let descriptions: Vec<_> = health
        .map(|health| json!({"Target": {"Id": health["Id"]}, "TargetHealth": health}))
        .collect();
    Ok(json!({"TargetHealthDescriptions": descriptions}))
}

fn describe_account_limits(state: &mut State, params: &Value) -> Answer {
    state.page(
        params,
        "Limits",
        PAGE,
        &state.limits,
        |(name, max)| json!({"Name": name, "Max": max.to_string()}),
    )
}

fn read_tags(tags: &Value) -> Tags {
    let tags = tags.as_array().into_iter().flatten();
    tags.map(|tag| (text(&tag["Key"]).to_owned(), text(&tag["Value"]).to_owned()))
        .collect()
}

fn add_tags(state: &mut State, params: &Value) -> Answer {
    for arn in texts(&params["ResourceArns"]) {
        state.tags_of(arn)?.extend(read_tags(&params["Tags"]));
    }
    Ok(json!({}))
}

fn remove_tags(state: &mut State, params: &Value) -> Answer {
    for arn in texts(&params["ResourceArns"]) {
        let tags = state.tags_of(arn)?;
        for key in texts(&params["TagKeys"]) {
            tags.remove(key);
        }
    }
    Ok(json!({}))
}

fn create_target_group(state: &mut State, params: &Value) -> Answer {
    let name = text(&params["Name"]);
    if let Some(existing) = state.target_groups.iter().find(|it| it.name == name) {
        // The same call again is answered with the same group.
        return if existing.settings == *params {
            Ok(json!({"TargetGroups": [shown_group(existing)]}))
        } else {
            Err(Error::new("DuplicateTargetGroupName", "the name is in use"))
        };
    }
    let group = state.add_target_group(name, read_tags(&params["Tags"]));
    group.settings = params.clone();
    group.health.clear();
    Ok(json!({"TargetGroups": [shown_group(group)]}))
}

fn modify_target_group(state: &mut State, params: &Value) -> Answer {
    let group = state.target_group(text(&params["TargetGroupArn"]))?;
    group.settings["HealthCheckPath"] = params["HealthCheckPath"].clone();
    Ok(json!({"TargetGroups": [shown_group(group)]}))
}

fn modify_attributes(state: &mut State, params: &Value) -> Answer {
    let group = state.target_group(text(&params["TargetGroupArn"]))?;
    group.attributes.extend(read_tags(&params["Attributes"]));
    Ok(json!({}))
}

fn describe_attributes(state: &mut State, params: &Value) -> Answer {
    let group = state.target_group(text(&params["TargetGroupArn"]))?;
    let attributes = group.attributes.iter();
    let attributes: Vec<_> = attributes
        .map(|(key, value)| json!({"Key": key, "Value": value}))
        .collect();
    Ok(json!({"Attributes": attributes}))
}

fn delete_target_group(state: &mut State, params: &Value) -> Answer {
    let arn = text(&params["TargetGroupArn"]);
    if state.is_in_use(arn) {
        return Err(Error::new("ResourceInUse", format!("{arn} is in use")));
    }
    let name = state.target_group(arn)?.name.clone();
    state.target_groups.retain(|group| group.name != name);
    Ok(json!({}))
}

fn create_rule(state: &mut State, params: &Value) -> Answer {
    let listener_arn = state.listener(text(&params["ListenerArn"]))?.arn.clone();
    let priority = number(&params["Priority"]) as u32;
    if state
        .rules
        .iter()
        .any(|it| it.listener_arn == listener_arn && it.priority == priority)
    {
        return Err(Error::new("PriorityInUse", "the priority is in use"));
    }
    if state.rules.len() >= state.limits["rules-per-application-load-balancer"] {
        return Err(Error::new("TooManyRules", "no room for another rule"));
    }
    let actions = state.actions(&params["Actions"], &[])?;
    let rule = state.add_rule(priority, "", read_tags(&params["Tags"]));
    rule.listener_arn = listener_arn;
    rule.conditions = params["Conditions"].clone();
    rule.actions = actions;
    Ok(json!({"Rules": [shown_rule(rule)]}))
}

fn modify_rule(state: &mut State, params: &Value) -> Answer {
    let arn = text(&params["RuleArn"]);
    let at = state.rules.iter().position(|rule| rule.arn == arn);
    let at = at.ok_or_else(|| not_found("Rule", arn))?;
    let before = state.rules[at].actions.clone();
    state.rules[at].actions = state.actions(&params["Actions"], &before)?;
    Ok(json!({"Rules": [shown_rule(&state.rules[at])]}))
}

fn delete_rule(state: &mut State, params: &Value) -> Answer {
    let arn = text(&params["RuleArn"]);
    let before = state.rules.len();
    state.rules.retain(|rule| rule.arn != arn);
    if state.rules.len() < before {
        Ok(json!({}))
    } else {
        Err(not_found("Rule", arn))
    }
}

fn modify_listener(state: &mut State, params: &Value) -> Answer {
    let arn = text(&params["ListenerArn"]);
    let before = state.listener(arn)?.default_actions.clone();
    let actions = state.actions(&params["DefaultActions"], &before)?;
    state.listener(arn)?.default_actions = actions;
    Ok(json!({}))
}
