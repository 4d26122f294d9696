//! The commands of the documents against the AWS CLI, and what they send against what the functions accept.

use std::sync::LazyLock;

use anyhow::Result;
use lifecycle::defaults::NOTHING_DEPLOYED;
use regex::Regex;
use serde_json::Value;

use super::{inputs, payloads};
use crate::offline_cli::{Call, OfflineCli, Ran};
use crate::{Repository, markdown};

/// How many calls the commands of all documents make, at least. Fewer mean that commands were not found.
const LEAST: usize = 35;

/// The AWS CLI takes every `aws` command of the documents. It knows the service, the operation and the options, misses
/// none, and its query finds something in the answer. A machine or a function accepts what a command sends to it.
///
/// A shell runs the commands of a document one after another, so that a variable is set before it is used.
///
/// # Errors
/// When the AWS CLI cannot be started.
pub fn aws_cli(repository: &Repository) -> Result<Vec<String>> {
    let cli = OfflineCli::start()?;
    let mut problems = Vec::new();
    let mut number = 0;
    let mut ends_a_maintenance = false;
    for (document, text) in repository.documents() {
        let Ran { failure, calls } = cli.run(&script(text))?;
        number += calls.len();
        let mut found: Vec<String> = Vec::from_iter(failure);
        for call in &calls {
            found.extend(refusal(repository, call)?);
            let page = &call.parameters["DefaultActions"][0]["FixedResponseConfig"]["MessageBody"];
            ends_a_maintenance |= *page == NOTHING_DEPLOYED;
        }
        problems.extend(found.into_iter().map(|why| format!("{document}: {why}")));
    }
    if !ends_a_maintenance {
        problems.push(format!("no command shows `{NOTHING_DEPLOYED}` again"));
    }
    if number < LEAST {
        problems.push(format!("the documents have only {number} commands"));
    }
    Ok(problems)
}

/// The commands of a document, in order.
fn script(text: &str) -> String {
    static COMMAND: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"(?m)(?:^|[\s(])aws [a-z]").expect("a regex"));
    let mut script = String::new();
    for code in markdown::references(text).code {
        if !COMMAND.is_match(&code) {
            continue;
        }
        let is_session = code.starts_with("$ ");
        for line in code.lines() {
            let command = match line.strip_prefix("$ ") {
                Some(command) if COMMAND.is_match(command) => command,
                _ if is_session => continue,
                _ => line,
            };
            script.push_str(command);
            script.push('\n');
        }
        let is_mention = !code.contains("--");
        if is_mention {
            // It only names an operation, which this option does not call.
            script.truncate(script.trim_end().len());
            script.push_str(" --generate-cli-skeleton >/dev/null\n");
        }
    }
    script
}

/// Why what a command sends is refused, if it is.
fn refusal(repository: &Repository, call: &Call) -> Result<Option<String>> {
    let text = |name: &str| call.parameters[name].as_str().unwrap_or_default();
    Ok(match (call.service.as_str(), call.operation.as_str()) {
        ("stepfunctions", "StartExecution") => {
            let arn = text("stateMachineArn");
            let machine = arn.rsplit(':').next().unwrap_or_default();
            inputs::refusal(machine, text("input"))
        }
        ("lambda", "Invoke") => invoked(repository, text("FunctionName"), text("Payload"))?,
        ("elbv2", "AddTags") => tagged(repository, &call.parameters["Tags"][0]["Key"]),
        ("elbv2", "RemoveTags") => tagged(repository, &call.parameters["TagKeys"][0]),
        _ => None,
    })
}

fn invoked(repository: &Repository, function: &str, payload: &str) -> Result<Option<String>> {
    let steps = repository.steps();
    let named = |name: &str| Some(name) == function.strip_prefix("test-");
    let Some(step) = steps.iter().find(|step| named(&step.name)) else {
        return Ok(Some(format!("the function {function} does not exist")));
    };
    let known = payloads::input(repository, step)?;
    let payload: Value = serde_json::from_str(payload).unwrap_or_default();
    let mut sent = payload.as_object().into_iter().flatten();
    let unknown = sent.find(|(field, _)| !known.contains(*field));
    Ok(unknown.map(|(field, _)| format!("{function} has no field {field}")))
}

fn tagged(repository: &Repository, key: &Value) -> Option<String> {
    let tags = repository.file("functions/lifecycle/src/tags.rs")?;
    let is_known = tags.contains(&format!("= {key};"));
    (!is_known).then(|| format!("no function reads the tag {key}"))
}
