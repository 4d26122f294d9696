//! The crates of the steps.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::LazyLock;

use anyhow::{Context, Result};
use regex::Regex;
use serde_json::Value;

use crate::repository::LIBRARIES;
use crate::{Repository, Step};

/// A `main.rs` builds clients and serves `run`, and does nothing else.
const MAX_LINES_OF_MAIN: usize = 30;

/// Folder, package and binary have the same name.
///
/// # Errors
/// When a manifest is not TOML.
pub fn names(repository: &Repository) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for step in repository.steps() {
        let path = step.path("Cargo.toml");
        let Some(text) = repository.file(&path) else {
            problems.push(format!("{} has no Cargo.toml", step.name));
            continue;
        };
        let manifest: toml::Table = text.parse().with_context(|| path.clone())?;
        let package = manifest
            .get("package")
            .and_then(|package| package.get("name"));
        if package.and_then(|name| name.as_str()) != Some(&step.name) {
            problems.push(format!("{path}: the package is not called {}", step.name));
        }
        // By default cargo gives the binary and the library the package's name.
        let binaries = manifest.get("bin").and_then(|binaries| binaries.as_array());
        let sections = manifest
            .get("lib")
            .into_iter()
            .map(|library| ("lib", library));
        let sections = sections.chain(binaries.into_iter().flatten().map(|bin| ("bin", bin)));
        for (section, target) in sections {
            let name = target.get("name").and_then(|name| name.as_str());
            if name.is_some_and(|name| section == "lib" || name != step.name) {
                problems.push(format!("{path}: [{section}] gives the step another name"));
            }
        }
    }
    Ok(problems)
}

/// `lib.rs` holds a `run` that tests can call, `main.rs` only serves it.
///
/// # Errors
/// None.
pub fn shape(repository: &Repository) -> Result<Vec<String>> {
    static RUN: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"(?m)^pub async fn run\(").expect("a regex"));
    let mut problems = Vec::new();
    for step in repository.steps() {
        match repository.file(&step.path("src/lib.rs")) {
            Some(text) if RUN.is_match(text) => {}
            _ => problems.push(format!(
                "{}: src/lib.rs has no `pub async fn run`",
                step.name
            )),
        }
        let Some(main) = repository.file(&step.path("src/main.rs")) else {
            problems.push(format!("{} has no src/main.rs", step.name));
            continue;
        };
        let crate_name = step.name.replace('-', "_");
        if !main.contains(&format!("{crate_name}::run(")) {
            problems.push(format!(
                "{}: src/main.rs does not serve {crate_name}::run",
                step.name
            ));
        }
        if main.lines().count() > MAX_LINES_OF_MAIN {
            problems.push(format!(
                "{}: src/main.rs has {} lines, more than {MAX_LINES_OF_MAIN}; move code to lib.rs, where tests reach it",
                step.name,
                main.lines().count()
            ));
        }
    }
    Ok(problems)
}

/// The only files that read the weights of a forward action: what is active, and what replaces it, is decided
/// there and nowhere else.
const WEIGHTS: [&str; 2] = [
    "functions/lifecycle/src/actions.rs",
    "functions/lifecycle/src/routing.rs",
];

/// One place decides which deployment is active.
///
/// # Errors
/// None.
pub fn active(repository: &Repository) -> Result<Vec<String>> {
    let weighs = |text: &str| text.contains(".weight") || text.contains("TargetGroupTuple");
    Ok(repository
        .below("functions/")
        .filter(|(path, _)| path.contains("/src/") && !path.contains("tests"))
        .filter(|(path, text)| !WEIGHTS.contains(path) && weighs(text))
        .map(|(path, _)| {
            format!("{path} weighs target groups; ask lifecycle::routing what is active")
        })
        .collect())
}

/// The step whose undo is composed of the undos of other steps.
const COMPOSED: &str = "delete-deployment";

/// No step depends on another one: they share only the library.
///
/// # Errors
/// None.
pub fn dependencies(repository: &Repository) -> Result<Vec<String>> {
    let steps = repository.steps();
    let mut problems = Vec::new();
    let folders = steps.iter().map(|step| step.name.as_str()).chain(LIBRARIES);
    for folder in folders.filter(|folder| *folder != COMPOSED) {
        // A dependency can have another name, and can be in several tables. The folder is always named.
        let manifest = repository.file(&format!("functions/{folder}/Cargo.toml"));
        let names = |other: &str| manifest.is_some_and(|text| text.contains(other));
        for other in steps
            .iter()
            .filter(|other| other.name != folder && names(&other.name))
        {
            problems.push(format!("{folder} depends on the step {}", other.name));
        }
    }
    Ok(problems)
}

/// Reads what a function knows of its environment, and returns whether that is complete.
type Read = fn(&dyn Fn(&str) -> Option<String>) -> bool;

/// Steps with a configuration of their own. All others read [`lifecycle::Baseline`].
const OWN_CONFIG: [(&str, Read); 5] = [
    ("delete-deployment", |variable| {
        delete_deployment::Config::read(variable).is_ok()
    }),
    ("find-deployments", |variable| {
        find_deployments::Config::read(variable).is_ok()
    }),
    ("smoke-test", |variable| {
        smoke_test::Config::read(variable).is_ok()
    }),
    ("start-deployment", |variable| {
        start_deployment::Config::read(variable).is_ok()
    }),
    ("watch-deployment", |variable| {
        watch_deployment::Config::read(variable).is_ok()
    }),
];

/// Variables that are whole numbers.
const NUMBERS: [&str; 5] = [
    "DRAIN_DEADLINE_SECONDS",
    "HEALTH_TIMEOUT_SECONDS",
    "KEEP_PREVIOUS",
    "SETTLE_SECONDS",
    "WATCH_SECONDS",
];

/// The template sets exactly the variables that a function reads.
///
/// # Errors
/// When the template cannot be read.
pub fn environment(repository: &Repository) -> Result<Vec<String>> {
    let pipeline = repository.template("pipeline")?;
    let shared = variables(&pipeline.value["Globals"]["Function"]);
    let mut problems = Vec::new();
    let (mut read_by_any, mut set_for_any) = (BTreeSet::new(), shared.clone());
    for step in repository.steps() {
        let own_config = OWN_CONFIG.iter().find(|(name, _)| *name == step.name);
        let read = match own_config {
            Some((_, read)) => recorded(*read),
            None => recorded(|variable| lifecycle::Baseline::read(variable).is_ok()),
        };
        // Lambda itself sets this one.
        let read: BTreeSet<_> = read
            .into_iter()
            .filter(|name| name != "AWS_REGION")
            .collect();
        let own = variables(pipeline.properties(&format!("{}Function", step.pascal())));
        for name in read
            .iter()
            .filter(|name| !shared.contains(*name) && !own.contains(*name))
        {
            problems.push(format!(
                "{} reads {name}, which infra/pipeline.yaml does not set",
                step.name
            ));
        }
        problems.extend(own.difference(&read).map(|name| {
            format!(
                "infra/pipeline.yaml sets {name} for {}, which does not read it",
                step.name
            )
        }));
        problems.extend(reads_elsewhere(repository, &step, own_config.is_some()));
        read_by_any.extend(read);
        set_for_any.extend(own);
    }
    problems.extend(
        set_for_any
            .difference(&read_by_any)
            .map(|name| format!("infra/pipeline.yaml sets {name}, which no function reads")),
    );
    Ok(problems)
}

/// The names of the variables that `read` reads. Their values are valid words or numbers.
fn recorded(read: Read) -> BTreeSet<String> {
    let asked = RefCell::new(BTreeSet::new());
    let complete = read(&|name| {
        asked.borrow_mut().insert(name.to_owned());
        let answer = if NUMBERS.contains(&name) {
            "60"
        } else {
            "test"
        };
        Some(answer.to_owned())
    });
    assert!(
        complete,
        "the environment was not read completely; give every variable a valid value"
    );
    asked.into_inner()
}

fn variables(function: &Value) -> BTreeSet<String> {
    function["Environment"]["Variables"]
        .as_object()
        .into_iter()
        .flat_map(|variables| variables.keys().cloned())
        .collect()
}

/// Only `Baseline` and `Config` read the environment, or the check would not know the variable.
fn reads_elsewhere(repository: &Repository, step: &Step, own_config: bool) -> Vec<String> {
    let mut problems = Vec::new();
    for (path, text) in repository.below(&step.path("src/")) {
        let is_allowed = path.ends_with("/src/main.rs") && own_config;
        let reads = text.matches("Config::read(|name| std::env::var(name).ok())");
        let allowed = if is_allowed { reads.count() } else { 0 };
        if text.matches("env::var").count() > allowed {
            problems.push(format!(
                "{path} reads the environment past Baseline or Config"
            ));
        }
        if text.contains("struct Config") && !own_config {
            problems.push(format!(
                "{path} has its own configuration, which OWN_CONFIG of this test does not list"
            ));
        }
    }
    problems
}
