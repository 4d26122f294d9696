//! The documents against the code and the machines that they describe.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use anyhow::{Context, Result};
use lifecycle::ErrorName;
use regex::Regex;

use super::differences;
use crate::machine::{is_ending, transitions};
use crate::template::strings;
use crate::{Repository, markdown};

const ERRORS: &str = "docs/errors.md";
const MACHINES: &str = "docs/state-machine.md";

fn document<'a>(repository: &'a Repository, path: &str) -> Result<&'a str> {
    repository.file(path).with_context(|| format!("no {path}"))
}

/// `docs/errors.md` lists the error names in the order of the code, marks those that are retried, and
/// lists each machine's endings.
///
/// # Errors
/// When the document or a machine cannot be read.
pub fn errors(repository: &Repository) -> Result<Vec<String>> {
    let (tables, _) = markdown::read(document(repository, ERRORS)?);
    let table = tables
        .iter()
        .find(|table| table.header.first().is_some_and(|name| name == "Error"))
        .context("docs/errors.md has no table of errors")?;
    let names: Vec<_> = ErrorName::ALL.iter().map(|name| name.as_str()).collect();
    let mut problems = Vec::new();
    if table.first_column() != names {
        problems.push(format!(
            "{ERRORS} lists {:?}, and the code has {names:?}",
            table.first_column()
        ));
    }
    let machines = repository.machines()?;
    let retried: BTreeSet<String> = machines
        .iter()
        .flat_map(|machine| machine.states().collect::<Vec<_>>())
        .flat_map(|(_, state)| state["Retry"].as_array().into_iter().flatten())
        .flat_map(|retry| strings(&retry["ErrorEquals"]))
        .collect();
    let said = table
        .column("Retried")
        .context("docs/errors.md has no column Retried")?;
    for (name, said) in table.first_column().into_iter().zip(said) {
        if said != if retried.contains(name) { "yes" } else { "no" } {
            problems.push(format!(
                "{ERRORS} says `{said}` to whether {name} is retried, and the machines differ"
            ));
        }
    }
    for (machine, section) in [
        ("deploy", "How a deployment ends"),
        ("cleanup", "How a cleanup ends"),
        ("rollback", "How a rollback ends"),
    ] {
        let endings = machines.iter().filter(|it| it.name == machine);
        let listed = tables.iter().filter(|table| table.section == section);
        problems.extend(differences(
            &format!("{machine}: the ending"),
            ("the machine", endings.flat_map(|it| it.endings())),
            (ERRORS, listed.flat_map(|table| table.first_column())),
        ));
    }
    Ok(problems)
}

/// `docs/state-machine.md` has a section for each machine, with one row for each state and each ending
/// and a diagram with exactly the machine's transitions.
///
/// # Errors
/// When the document or a machine cannot be read.
pub fn machines(repository: &Repository) -> Result<Vec<String>> {
    static WAY: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"(?m)^\s*(\S+) --> ([^\s:]+)").expect("a regex"));
    let (tables, blocks) = markdown::read(document(repository, MACHINES)?);
    let mut problems = Vec::new();
    for machine in repository.machines()? {
        let section = format!("{{env}}-{}", machine.name);
        let of_section = |header: &str| -> Vec<&str> {
            tables
                .iter()
                .filter(|table| {
                    table.section == section
                        && table.header.first().is_some_and(|name| name == header)
                })
                .flat_map(|table| table.first_column())
                .collect()
        };
        let (endings, others): (Vec<_>, Vec<_>) =
            machine.states().partition(|(_, state)| is_ending(state));
        for (header, expected) in [("State", others), ("Ending", endings)] {
            let rows = of_section(header);
            problems.extend(differences(
                &format!("{}: in the table of {header}s,", machine.name),
                ("the machine", expected.iter().map(|(name, _)| *name)),
                (MACHINES, rows.iter().copied()),
            ));
            let mut times: BTreeMap<&str, usize> = BTreeMap::new();
            rows.iter()
                .for_each(|row| *times.entry(row).or_default() += 1);
            problems.extend(
                times
                    .iter()
                    .filter(|(_, times)| **times > 1)
                    .map(|(name, times)| format!("{MACHINES} has {name} {times} times")),
            );
        }
        let drawn: BTreeSet<String> = blocks
            .iter()
            .filter(|block| block.section == section && block.language == "mermaid")
            .flat_map(|block| {
                WAY.captures_iter(&block.text)
                    .map(|way| format!("{} to {}", &way[1], &way[2]))
            })
            .collect();
        let mut ways = BTreeSet::new();
        for scope in machine.scopes() {
            ways.insert(format!("[*] to {}", scope.start));
            for (name, state) in scope.states {
                ways.extend(
                    transitions(state)
                        .iter()
                        .map(|way| format!("{name} to {}", way.to)),
                );
                if is_ending(state) || state["End"] == true {
                    ways.insert(format!("{name} to [*]"));
                }
            }
        }
        problems.extend(differences(
            &format!("{}: the transition from", machine.name),
            ("the machine", ways.iter().map(String::as_str)),
            (
                &format!("the diagram in {MACHINES}"),
                drawn.iter().map(String::as_str),
            ),
        ));
    }
    Ok(problems)
}

/// Every event and every ending that a document names exists: a code span that begins like a detail
/// type, and one after "ends as" or "ended as".
///
/// # Errors
/// When a machine cannot be read.
pub fn outcomes(repository: &Repository) -> Result<Vec<String>> {
    static EVENT: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"`((?:Deployment|Rollback|Cleanup) [A-Z][A-Za-z ]+)`").expect("a regex")
    });
    static ENDING: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"\bend(?:s|ed)?\s+as\s+(?:`\w+`\s+or\s+)?`([A-Z]\w+)`").expect("a regex")
    });
    let machines = repository.machines()?;
    let endings: BTreeSet<_> = machines.iter().flat_map(|it| it.endings()).collect();
    let events = super::events::published(repository)?;
    let mut problems = Vec::new();
    for (document, text) in repository.documents() {
        let named = |regex: &Regex| -> Vec<_> {
            regex
                .captures_iter(text)
                .map(|it| it[1].to_owned())
                .collect()
        };
        for event in named(&EVENT).iter().filter(|it| !events.contains_key(*it)) {
            problems.push(format!(
                "{document} names the event {event}, which no machine publishes"
            ));
        }
        for ending in named(&ENDING)
            .iter()
            .filter(|it| !endings.contains(it.as_str()))
        {
            problems.push(format!(
                "{document} names the ending {ending}, which no machine has"
            ));
        }
    }
    Ok(problems)
}

/// The tags in the code are those in `docs/state-machine.md`.
///
/// # Errors
/// When a file cannot be read.
pub fn tags(repository: &Repository) -> Result<Vec<String>> {
    static TAG: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r#"pub const \w+: &str = "(pulse:[^"]+)""#).expect("a regex"));
    let path = "functions/lifecycle/src/tags.rs";
    let code = document(repository, path)?;
    let (tables, _) = markdown::read(document(repository, MACHINES)?);
    let listed: Vec<_> = tables
        .iter()
        .filter(|table| table.header.first().is_some_and(|name| name == "Tag"))
        .flat_map(|table| table.first_column())
        .collect();
    Ok(differences(
        "the tag",
        (
            path,
            TAG.captures_iter(code).map(|tag| tag.extract::<1>().1[0]),
        ),
        (MACHINES, listed),
    ))
}

/// Decisions are numbered without a gap, and each has its context, decision and consequences.
///
/// # Errors
/// None.
pub fn decisions(repository: &Repository) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for (index, (path, text)) in repository.below("docs/adr/").enumerate() {
        let number = format!("{:04}", index + 1);
        if !path.starts_with(&format!("docs/adr/{number}-")) {
            problems.push(format!("{path} should have the number {number}"));
        }
        for heading in ["## Context", "## Decision", "## Consequences"] {
            if !text.lines().any(|line| line == heading) {
                problems.push(format!("{path} has no heading `{heading}`"));
            }
        }
    }
    Ok(problems)
}
