//! The variables of the state machines: assigned before they are read, on every path.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use crate::Repository;
use crate::expression;
use crate::machine::{Machine, Scope, assigned_by, transitions};

/// Every variable that a state reads is assigned on every path to that state, and every expression uses
/// only the fields that Step Functions provides there. Without this check a mistake shows at run time,
/// on the path that is taken least often: the undo.
///
/// # Errors
/// When a machine cannot be read.
pub fn assigned(repository: &Repository) -> Result<Vec<String>> {
    Ok(repository.machines()?.iter().flat_map(check).collect())
}

fn check(machine: &Machine) -> Vec<String> {
    let mut problems = Vec::new();
    // The variables at the entry of each state, over all scopes: an inner scope sees its outer's.
    let mut known: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for scope in machine.scopes() {
        let at_start = scope
            .inside
            .and_then(|outer| known.get(outer).cloned())
            .unwrap_or_default();
        let entered = on_entry(scope, at_start);
        for (name, state) in scope.states {
            // Another check reports a state that cannot be reached.
            let Some(assigned) = entered.get(name.as_str()) else {
                continue;
            };
            for (path, text) in expression::within(state) {
                let place = format!("{}: {name}{path}", machine.name);
                let names = expression::names(text);
                problems.extend(
                    names
                        .variables
                        .iter()
                        .filter(|variable| !assigned.contains(variable.as_str()))
                        .map(|variable| format!("{place} reads ${variable}, which is not assigned on every path there")),
                );
                problems.extend(
                    names
                        .unknown_functions
                        .iter()
                        .map(|function| format!("{place} calls ${function}, which does not exist")),
                );
                problems.extend(
                    names
                        .states
                        .iter()
                        .filter(|field| !given(field, &path))
                        .map(|field| format!("{place} reads $states.{field}, which is not there")),
                );
            }
        }
        known.extend(entered);
    }
    problems
}

/// No variable inside a Map or a Parallel has the name of one outside. Step Functions refuses to create
/// such a machine.
///
/// <https://docs.aws.amazon.com/step-functions/latest/dg/workflow-variables.html#variable-scope>
///
/// # Errors
/// When a machine cannot be read.
pub fn names(repository: &Repository) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for machine in repository.machines()? {
        // Outer scopes come first.
        let mut seen_by: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for scope in machine.scopes() {
            let outer = scope
                .inside
                .and_then(|state| seen_by.get(state).cloned())
                .unwrap_or_default();
            let own: BTreeSet<_> = scope.states.values().flat_map(assigned_by).collect();
            problems.extend(outer.intersection(&own).map(|variable| {
                format!(
                    "{}: ${variable} is assigned inside {} and outside of it",
                    machine.name,
                    scope.inside.unwrap_or_default()
                )
            }));
            let all: BTreeSet<_> = outer.union(&own).copied().collect();
            for name in scope.states.keys() {
                seen_by.insert(name, all.clone());
            }
        }
    }
    Ok(problems)
}

/// Whether Step Functions provides `$states.<field>` at this place in a state.
///
/// <https://docs.aws.amazon.com/step-functions/latest/dg/transforming-data.html#transforming-reserved-states-variable>
fn given(field: &str, path: &str) -> bool {
    let caught = path.starts_with("/Catch/");
    match field {
        "input" | "context" => true,
        "errorOutput" => caught,
        "result" => !caught && (path.starts_with("/Assign/") || path.starts_with("/Output")),
        _ => false,
    }
}

/// The variables that are assigned on every path to each state that can be reached.
fn on_entry<'a>(
    scope: Scope<'a>,
    at_start: BTreeSet<&'a str>,
) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
    let mut entered = BTreeMap::from([(scope.start, at_start)]);
    let mut open = vec![scope.start];
    // This ends, because the set of a state only shrinks after it was inserted.
    while let Some(name) = open.pop() {
        let Some(state) = scope.states.get(name) else {
            continue;
        };
        for transition in transitions(state) {
            let mut after = entered[name].clone();
            after.extend(transition.assigned);
            let changed = match entered.get_mut(transition.to) {
                Some(before) => {
                    let size = before.len();
                    before.retain(|variable| after.contains(variable));
                    before.len() < size
                }
                None => {
                    entered.insert(transition.to, after);
                    true
                }
            };
            if changed {
                open.push(transition.to);
            }
        }
    }
    entered
}
