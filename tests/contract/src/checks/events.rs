//! The events that the machines publish, against their document and the rule for failures.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde_json::Value;

use super::differences;
use crate::template::strings;
use crate::{Repository, markdown};

const EVENTS: &str = "docs/events.md";
const SOURCE: &str = "pulse.deploy";

/// The fields of every detail, each with the expression or the placeholder that it comes from.
const EVERYWHERE: [(&str, &str); 2] = [
    ("environment", "${Environment}"),
    ("execution", "{% $states.context.Execution.Id %}"),
];

/// Whether a state puts events on the bus.
pub fn publishes(state: &Value) -> bool {
    state["Resource"] == "arn:aws:states:::events:putEvents"
}

/// The events that a state publishes.
fn entries(state: &Value) -> impl Iterator<Item = &Value> {
    state["Arguments"]["Entries"]
        .as_array()
        .into_iter()
        .flatten()
}

/// The detail types, each with its fields except for those that every detail has.
pub(super) fn published(repository: &Repository) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for machine in repository.machines()? {
        for (_, state) in machine.states().filter(|(_, state)| publishes(state)) {
            for entry in entries(state) {
                let fields = entry["Detail"].as_object().into_iter().flatten();
                found
                    .entry(entry["DetailType"].as_str().unwrap_or_default().to_owned())
                    .or_default()
                    .extend(
                        fields
                            .map(|(name, _)| name.clone())
                            .filter(|name| EVERYWHERE.iter().all(|(own, _)| own != name)),
                    );
            }
        }
    }
    Ok(found)
}

/// The name of a state that publishes begins with `Publish`, and its event says where it comes from. A
/// detail type has the same fields wherever it is published. An execution goes on when an event cannot
/// be published.
///
/// # Errors
/// When a machine cannot be read.
pub fn states(repository: &Repository) -> Result<Vec<String>> {
    let all = published(repository)?;
    let mut problems = Vec::new();
    for machine in repository.machines()? {
        for (name, state) in machine.states() {
            let place = format!("{}: {name}", machine.name);
            if publishes(state) != name.starts_with("Publish") {
                problems.push(format!(
                    "{place} must either publish or have a name that does not begin with `Publish`"
                ));
            }
            if !publishes(state) {
                continue;
            }
            for entry in entries(state) {
                if entry["Source"] != SOURCE {
                    problems.push(format!("{place} publishes as {}", entry["Source"]));
                }
                let detail = &entry["Detail"];
                for (field, from) in EVERYWHERE {
                    if detail[field] != from {
                        problems.push(format!("{place}: the field {field} is not {from}"));
                    }
                }
                let kind = entry["DetailType"].as_str().unwrap_or_default();
                problems.extend(
                    all.get(kind)
                        .into_iter()
                        .flatten()
                        .filter(|field| detail.get(field.as_str()).is_none())
                        .map(|field| {
                            format!("{place}: {kind} has the field {field} elsewhere but not here")
                        }),
                );
            }
            let passed_over = match state["Catch"].as_array().map(Vec::as_slice) {
                Some([only]) => {
                    strings(&only["ErrorEquals"]) == ["States.ALL"] && only["Next"] == state["Next"]
                }
                _ => false,
            };
            if !passed_over {
                problems.push(format!(
                    "{place}: a failure to publish does not lead to the next state"
                ));
            }
            if !state["TimeoutSeconds"].is_u64() {
                problems.push(format!("{place} may wait forever"));
            }
        }
    }
    Ok(problems)
}

/// `docs/events.md` lists each detail type with its fields and an example, and marks those that the
/// failure topic gets.
///
/// # Errors
/// When the document, a machine or the template cannot be read.
pub fn documented(repository: &Repository) -> Result<Vec<String>> {
    let text = repository
        .file(EVENTS)
        .with_context(|| format!("no {EVENTS}"))?;
    let (tables, blocks) = markdown::read(text);
    let published = published(repository)?;
    let table = tables
        .iter()
        .find(|table| {
            table
                .header
                .first()
                .is_some_and(|name| name == "Detail type")
        })
        .context("docs/events.md has no table of detail types")?;
    let mut problems = differences(
        "the detail type",
        ("the machines", published.keys().map(String::as_str)),
        (EVENTS, table.first_column()),
    );
    let fields = table
        .column("Fields besides environment and execution")
        .context("docs/events.md has no column of fields")?;
    for (kind, said) in table.first_column().into_iter().zip(fields) {
        let fields = published.get(kind).into_iter().flatten();
        problems.extend(differences(
            &format!("{kind}: the field"),
            ("the machines", fields.map(String::as_str)),
            (EVENTS, said.split(", ").filter(|name| !name.is_empty())),
        ));
    }

    let explained: Vec<_> = tables
        .iter()
        .filter(|table| table.header.first().is_some_and(|name| name == "Field"))
        .flat_map(|table| table.first_column())
        .collect();
    let used = published.values().flatten().map(String::as_str);
    problems.extend(differences(
        "the field",
        (
            "the machines",
            used.chain(EVERYWHERE.iter().map(|(name, _)| *name)),
        ),
        ("the table of fields", explained),
    ));

    let mut shown: BTreeMap<String, Value> = BTreeMap::new();
    for block in blocks.iter().filter(|block| block.language == "json") {
        let example: Value = serde_json::from_str(&block.text)
            .with_context(|| format!("an example in {EVENTS} is not JSON"))?;
        match example["detail-type"].as_str() {
            Some(kind) => drop(shown.insert(kind.to_owned(), example["detail"].clone())),
            None => shown.extend(example.as_object().cloned().into_iter().flatten()),
        }
    }
    problems.extend(differences(
        "the example of",
        ("the machines", published.keys().map(String::as_str)),
        (EVENTS, shown.keys().map(String::as_str)),
    ));
    for (kind, fields) in &published {
        let Some(example) = shown.get(kind).and_then(Value::as_object) else {
            continue;
        };
        let expected = fields.iter().map(String::as_str);
        problems.extend(differences(
            &format!("{kind}: the field"),
            (
                "the machines",
                expected.chain(EVERYWHERE.iter().map(|(name, _)| *name)),
            ),
            ("its example", example.keys().map(String::as_str)),
        ));
    }

    let reported = reported(repository)?;
    let failures = table
        .column("Failure")
        .context("docs/events.md has no column Failure")?;
    for (kind, said) in table.first_column().into_iter().zip(failures) {
        if said != if reported.contains(kind) { "yes" } else { "no" } {
            problems.push(format!(
                "{EVENTS} says `{said}` to whether {kind} is a failure, and the rule differs"
            ));
        }
    }
    problems.extend(
        reported
            .iter()
            .filter(|kind| !published.contains_key(*kind))
            .map(|kind| format!("the rule matches {kind}, which no machine publishes")),
    );
    Ok(problems)
}

/// The detail types that a rule sends to the failure topic.
fn reported(repository: &Repository) -> Result<BTreeSet<String>> {
    Ok(repository
        .template("pipeline")?
        .resources_of("AWS::Events::Rule")
        .into_iter()
        .map(|(_, rule)| rule["Properties"]["EventPattern"].clone())
        .filter(|pattern| strings(&pattern["source"]) == [SOURCE])
        .flat_map(|pattern| strings(&pattern["detail-type"]))
        .collect())
}
