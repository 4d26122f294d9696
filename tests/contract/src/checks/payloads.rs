//! What the machines send to the functions and read from their answers.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use anyhow::{Context, Result};
use heck::ToLowerCamelCase;
use regex::Regex;

use crate::machine::function_of;
use crate::{Repository, Step};

/// A function knows every field that a machine sends to it.
///
/// # Errors
/// When a machine or a source file cannot be read.
pub fn fields(repository: &Repository) -> Result<Vec<String>> {
    let steps = repository.steps();
    let mut problems = Vec::new();
    for machine in repository.machines()? {
        for (name, state) in machine.states() {
            let payload = state["Arguments"]["Payload"].as_object();
            let (Some(function), Some(payload)) = (function_of(state), payload) else {
                continue;
            };
            let step = steps.iter().find(|step| step.pascal() == function);
            let known = input(repository, step.context(function.to_owned())?)?;
            for field in payload.keys().filter(|field| !known.contains(*field)) {
                problems.push(format!(
                    "{} {name}: {function} has no field {field}",
                    machine.name
                ));
            }
        }
    }
    Ok(problems)
}

/// A machine compares a verdict, outcome, state or action only with a word that a function answers, that the
/// machine itself assigns, or that is the name of one of its states.
///
/// # Errors
/// When a machine or a source file cannot be read.
pub fn words(repository: &Repository) -> Result<Vec<String>> {
    static COMPARED: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"\.(?:verdict|outcome|state|action) (?:!?= '(\w+)'|in \[([^\]]*)\])")
            .expect("a regex")
    });
    static ASSIGNED: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r#""(?:verdict|outcome)": "(\w+)""#).expect("a regex"));
    let answered = variants(repository)?;
    let mut problems = Vec::new();
    for machine in repository.machines()? {
        let assigned = ASSIGNED
            .captures_iter(&machine.text)
            .map(|it| it[1].to_owned());
        let states = machine.states().map(|(name, _)| name.to_owned());
        let known: BTreeSet<String> = answered
            .iter()
            .cloned()
            .chain(assigned)
            .chain(states)
            .collect();
        for compared in COMPARED.captures_iter(&machine.text) {
            let words = compared
                .get(1)
                .or(compared.get(2))
                .map_or("", |it| it.as_str());
            let words = words.split(',').map(|word| word.trim().trim_matches('\''));
            problems.extend(words.filter(|word| !known.contains(*word)).map(|word| {
                format!(
                    "{}: `{}`, but nothing answers {word}",
                    machine.name, &compared[0]
                )
            }));
        }
    }
    Ok(problems)
}

/// The fields of a step's input. The first step of a machine may get one that has the operator's in a field.
pub(crate) fn input(repository: &Repository, step: &Step) -> Result<BTreeSet<String>> {
    let mut fields = BTreeSet::new();
    let mut of_step = items(repository, &step.path("src/"))?;
    let begins = |(_, text): (&str, &str)| text.contains("Started::read(");
    if repository.below(&step.path("src/")).any(begins) {
        of_step.extend(items(repository, "functions/lifecycle/src/executions.rs")?);
    }
    for item in of_step {
        if let syn::Item::Struct(item) = item
            && ["Input", "Started"].iter().any(|name| item.ident == name)
        {
            let names = item.fields.iter().filter_map(|field| field.ident.as_ref());
            fields.extend(names.map(|name| name.to_string().to_lower_camel_case()));
        }
    }
    Ok(fields)
}

/// The words by which functions answer, as they are on the wire.
fn variants(repository: &Repository) -> Result<BTreeSet<String>> {
    let mut words = BTreeSet::new();
    for item in items(repository, "functions/")? {
        if let syn::Item::Enum(item) = item
            && ["Verdict", "Outcome", "State", "Action"]
                .iter()
                .any(|name| item.ident == name)
        {
            let names = item
                .variants
                .iter()
                .map(|variant| variant.ident.to_string());
            words.extend(names.map(|name| name.to_lower_camel_case()));
        }
    }
    Ok(words)
}

/// The items of all source files in a folder, except for tests.
fn items(repository: &Repository, folder: &str) -> Result<Vec<syn::Item>> {
    let mut items = Vec::new();
    for (path, text) in repository.below(folder) {
        if path.contains("/src/") && path.ends_with(".rs") && !path.contains("tests") {
            items.extend(
                syn::parse_file(text)
                    .with_context(|| path.to_owned())?
                    .items,
            );
        }
    }
    Ok(items)
}
