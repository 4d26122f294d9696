//! The inputs in the documents against the functions that accept them.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use anyhow::{Context, Result};
use lifecycle::{Baseline, StepError, input};
use regex::Regex;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use time::UtcDateTime;

use super::differences;
use crate::{Repository, markdown};

/// The environment in the examples of the documents and in [`Baseline::for_tests`].
const ENVIRONMENT: &str = "test";

/// Decodes and checks a machine's input as its first function does.
type Take = fn(Value) -> Result<(), StepError>;

/// The machines, each with the input of its first function.
const INPUTS: [(&str, Take); 3] = [
    ("cleanup", decode::<find_deployments::Input>),
    ("deploy", |value| {
        let baseline = Baseline::for_tests();
        let input = settings::Input::read(value, &baseline, UtcDateTime::now())?;
        settings::Deployment::of(input, None, None, settings::Defaults::of(&baseline)).map(drop)
    }),
    ("rollback", decode::<restore_deployment::Input>),
];

fn decode<T: DeserializeOwned>(value: Value) -> Result<(), StepError> {
    input::decode::<T>(value).map(drop)
}

/// The machine accepts every input in a table of machines and inputs, and the documents have an input for every machine.
///
/// # Errors
/// When a machine cannot be read.
pub fn examples(repository: &Repository) -> Result<Vec<String>> {
    let mut shown: Vec<(String, String, String)> = Vec::new();
    for (document, text) in repository.documents() {
        for table in markdown::read(text).0 {
            if let (Some(machines), Some(inputs)) = (table.column("Machine"), table.column("Input"))
            {
                shown.extend(machines.into_iter().zip(inputs).map(|(machine, input)| {
                    (document.to_owned(), machine.to_owned(), input.to_owned())
                }));
            }
        }
    }
    let mut problems = Vec::new();
    for (document, machine, input) in &shown {
        let refusal = refusal(machine, input);
        problems.extend(refusal.map(|why| format!("{document}: {why}")));
    }
    let machines = repository.machines()?;
    let expected: Vec<_> = machines
        .iter()
        .map(|machine| format!("{ENVIRONMENT}-{}", machine.name))
        .collect();
    problems.extend(differences(
        "an example input of",
        ("statemachine/", expected.iter().map(String::as_str)),
        (
            "the documents",
            shown.iter().map(|(_, machine, _)| machine.as_str()),
        ),
    ));
    Ok(problems)
}

/// Why the machine of that name refuses the input, if it does.
pub(crate) fn refusal(machine: &str, input: &str) -> Option<String> {
    let known = machine
        .strip_prefix(ENVIRONMENT)
        .and_then(|rest| rest.strip_prefix('-'))
        .and_then(|name| INPUTS.iter().find(|(known, _)| *known == name));
    let Some((_, take)) = known else {
        return Some(format!(
            "{machine} is started, which is not a machine of {ENVIRONMENT}"
        ));
    };
    let why = match serde_json::from_str(input).map(take) {
        Ok(Ok(())) => return None,
        Ok(Err(error)) => error.message,
        Err(error) => error.to_string(),
    };
    Some(format!("{machine} is started with {input}: {why}"))
}

/// The tables of fields in `docs/state-machine.md` list the fields that the functions accept.
///
/// # Errors
/// When the document is not there.
pub fn fields(repository: &Repository) -> Result<Vec<String>> {
    let path = "docs/state-machine.md";
    let text = repository
        .file(path)
        .with_context(|| format!("no {path}"))?;
    let (tables, _) = markdown::read(text);
    let mut problems = Vec::new();
    for (machine, take) in INPUTS {
        let section = format!("{{env}}-{machine}");
        let taken = taken(take);
        let said = tables
            .iter()
            .filter(|table| table.section == section)
            .filter(|table| table.header.first().is_some_and(|name| name == "Field"))
            .flat_map(|table| table.first_column());
        problems.extend(differences(
            &format!("{machine}: the field"),
            ("the input", taken.iter().map(String::as_str)),
            (path, said),
        ));
    }
    Ok(problems)
}

/// The fields that an input may have, from the message that refuses an unknown one.
fn taken(take: Take) -> BTreeSet<String> {
    static FIELD: LazyLock<Regex> = LazyLock::new(|| Regex::new("`([^`]+)`").expect("a regex"));
    let refusal = take(json!({"?": 0})).expect_err("an unknown field is refused");
    FIELD
        .captures_iter(&refusal.message)
        .map(|field| field[1].to_owned())
        .filter(|field| field != "?")
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_about_an_unknown_field_lists_the_known_ones() {
        let (_, take) = INPUTS[0];
        let fields: Vec<_> = taken(take).into_iter().collect();
        assert_eq!(fields, ["dryRun", "removeEverything"]);
    }
}
