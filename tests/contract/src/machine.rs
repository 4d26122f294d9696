//! A state machine in Amazon States Language: its states and the transitions between them.
//!
//! <https://states-language.net/spec.html>

use anyhow::{Context, Result};
use serde_json::{Map, Value};

/// One file of `statemachine/`.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The file's name without `.asl.json`.
    pub name: String,
    /// The text, before CloudFormation replaces `${…}`.
    pub text: String,
    /// The definition.
    pub definition: Value,
}

/// States that belong together: those of the machine, of a Map's processor or of a Parallel's branch.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// The state that contains the scope; none for the machine itself.
    pub inside: Option<&'a str>,
    /// The state at which it starts.
    pub start: &'a str,
    /// Its states.
    pub states: &'a Map<String, Value>,
}

/// A transition out of a state.
#[derive(Debug, Clone)]
pub struct Transition<'a> {
    /// The next state.
    pub to: &'a str,
    /// The variables that it assigns.
    pub assigned: Vec<&'a str>,
}

impl Machine {
    /// Reads a definition.
    ///
    /// # Errors
    /// When the text is not JSON with states.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        let definition: Value = serde_json::from_str(text)?;
        scope(&definition, None).context("no StartAt and States")?;
        Ok(Machine {
            name: name.to_owned(),
            text: text.to_owned(),
            definition,
        })
    }

    /// The machine's own states first, then those inside its states.
    pub fn scopes(&self) -> Vec<Scope<'_>> {
        let mut found: Vec<_> = scope(&self.definition, None).into_iter().collect();
        let mut next = 0;
        while next < found.len() {
            let states = found[next].states;
            for (name, state) in states {
                let branches = state["Branches"].as_array().into_iter().flatten();
                let processor = state.get("ItemProcessor").into_iter();
                found.extend(
                    processor
                        .chain(branches)
                        .filter_map(|inner| scope(inner, Some(name))),
                );
            }
            next += 1;
        }
        found
    }

    /// All states with their names, including those inside other states.
    pub fn states(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.scopes().into_iter().flat_map(|scope| {
            scope
                .states
                .iter()
                .map(|(name, state)| (name.as_str(), state))
        })
    }

    /// The states in which an execution ends.
    pub fn endings(&self) -> Vec<&str> {
        self.states()
            .filter(|(_, state)| is_ending(state))
            .map(|(name, _)| name)
            .collect()
    }
}

fn scope<'a>(definition: &'a Value, inside: Option<&'a str>) -> Option<Scope<'a>> {
    Some(Scope {
        inside,
        start: definition["StartAt"].as_str()?,
        states: definition["States"].as_object()?,
    })
}

/// Whether an execution ends in this state.
pub fn is_ending(state: &Value) -> bool {
    state["Type"] == "Succeed" || state["Type"] == "Fail"
}

/// Whether a state runs a function of the team's own, which the settings name.
pub fn runs_a_hook(state: &Value) -> bool {
    state["Arguments"]["FunctionName"]
        .as_str()
        .is_some_and(|name| name.starts_with("{% $deployment.hooks["))
}

/// The function that a state runs, by the name of its resource without `Function`.
pub fn function_of(state: &Value) -> Option<&str> {
    state["Arguments"]["FunctionName"]
        .as_str()?
        .strip_prefix("${")?
        .strip_suffix("FunctionArn}")
}

/// The variables that a state assigns by any of its transitions.
pub fn assigned_by(state: &Value) -> impl Iterator<Item = &str> {
    assignments(state).map(|(variable, _)| variable)
}

/// The same with what they are assigned.
pub fn assignments(state: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let rules = ["Choices", "Catch"]
        .into_iter()
        .flat_map(|rules| state[rules].as_array().into_iter().flatten());
    std::iter::once(state)
        .chain(rules)
        .flat_map(|assigning| assigning["Assign"].as_object().into_iter().flatten())
        .map(|(variable, value)| (variable.as_str(), value))
}

/// All transitions out of a state. The first is the ordinary one, if there is one.
pub fn transitions(state: &Value) -> Vec<Transition<'_>> {
    let ordinary = [&state["Next"], &state["Default"]]
        .into_iter()
        .filter_map(|to| transition(to, state));
    let rules = ["Choices", "Catch"]
        .into_iter()
        .flat_map(|rules| state[rules].as_array().into_iter().flatten())
        .filter_map(|rule| transition(&rule["Next"], rule));
    ordinary.chain(rules).collect()
}

fn transition<'a>(to: &'a Value, assigning: &'a Value) -> Option<Transition<'a>> {
    Some(Transition {
        to: to.as_str()?,
        assigned: assigning["Assign"]
            .as_object()
            .into_iter()
            .flat_map(|variables| variables.keys().map(String::as_str))
            .collect(),
    })
}
