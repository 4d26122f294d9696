//! The state machines by themselves, and their error names against those of the functions.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use anyhow::Result;
use lifecycle::ErrorName;
use lifecycle::defaults::SWITCH_ANNOUNCED;
use petgraph::algo::dominators;
use petgraph::graphmap::DiGraphMap;
use petgraph::visit::{Dfs, Walker};
use regex::Regex;
use serde_json::Value;

use crate::checks::limits::waits_of;
use crate::machine::{Scope, function_of, is_ending, runs_a_hook, transitions};
use crate::template::strings;
use crate::{Repository, expression};

/// The errors after which the same call of a function may succeed at once. Every state that runs a
/// function retries all of these and those of `NOT_READY`, and no others.
///
/// Lambda's and Step Functions' names:
/// <https://docs.aws.amazon.com/step-functions/latest/dg/concepts-error-handling.html>,
/// <https://docs.aws.amazon.com/step-functions/latest/dg/sfn-best-practices.html#bp-lambda-serviceexception>.
/// Lambda reports `Runtime.ExitError` when the process died:
/// <https://docs.aws.amazon.com/lambda/latest/dg/troubleshooting-invocation.html>.
const TRANSIENT: [&str; 10] = [
    "TransientError",
    "Lambda.ClientExecutionTimeoutException",
    "Lambda.ServiceException",
    "Lambda.AWSLambdaException",
    "Lambda.SdkClientException",
    "Lambda.TooManyRequestsException",
    "Lambda.Unknown",
    "Sandbox.Timedout",
    "Runtime.ExitError",
    "States.Timeout",
];

/// The errors of a function that Lambda has to make ready first, so that retries have to wait longer. A
/// function that was not called for weeks becomes inactive, whether it is in a VPC or not.
///
/// <https://docs.aws.amazon.com/lambda/latest/dg/functions-states.html>,
/// <https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html#API_Invoke_Errors>.
const NOT_READY: [&str; 6] = [
    "Lambda.ResourceNotReadyException",
    "Lambda.ResourceConflictException",
    "Lambda.CodeArtifactUserPendingException",
    "Lambda.ENINotReadyException",
    "Lambda.EC2ThrottledException",
    "Lambda.EC2UnexpectedException",
];

/// How every state retries these: for about four minutes.
const UNTIL_READY: [(&str, f64); 4] = [
    ("IntervalSeconds", 20.0),
    ("MaxAttempts", 6.0),
    ("BackoffRate", 1.5),
    ("MaxDelaySeconds", 60.0),
];

/// A switch abandons its one attempt to modify the listener after five seconds without an answer. The retry must not
/// look at the listener before that attempt has taken effect, so it waits as long again, without jitter.
const A_LATE_SWITCH_LANDS_WITHIN: f64 = 5.0;

fn waits_for_a_late_switch(state: &str, retry: &Value) -> bool {
    state == "SwitchTraffic"
        && retry["JitterStrategy"].is_null()
        && retry["IntervalSeconds"].as_f64() >= Some(A_LATE_SWITCH_LANDS_WITHIN)
}

/// An eviction fails as long as a switch to what it evicts may be in flight, so its tries have to last longer than that.
fn outlasts_switches(state: &str, retry: &Value) -> bool {
    let lasts: f64 = waits_of(retry).sum();
    state == "EvictVisitors"
        && retry["JitterStrategy"].is_null()
        && lasts > SWITCH_ANNOUNCED.as_seconds_f64()
}

/// Further names that Step Functions documents.
const DOCUMENTED: [&str; 3] = [
    "States.ALL",
    "States.DataLimitExceeded",
    "States.QueryEvaluationError",
];

/// The errors of a topic after which the same message may be published at once:
/// <https://docs.aws.amazon.com/sns/latest/api/API_Publish.html#API_Publish_Errors>.
const OF_TOPICS: [&str; 4] = [
    "SNS.InternalErrorException",
    "SNS.KMSThrottlingException",
    "SNS.SdkClientException",
    "SNS.ThrottledException",
];

/// The errors of a hook after which it is called again: Lambda has not run it, or lost its answer by itself.
const RETRIED_OF_HOOKS: [&str; 3] = [
    "Lambda.ServiceException",
    "Lambda.SdkClientException",
    "Lambda.TooManyRequestsException",
];

/// States that run a function of another name. An undo is a deletion with a guard that refuses a
/// deployment that was live, marks belong to the switch, a restore starts the tasks, a waiting rule is a rule, whoever chooses a number raises to it, a registration ends where it was made, and the waits of
/// others end before the own one and after the switch; in the console the state's name should say why it
/// runs.
const OTHER_NAME: [(&str, &str); 9] = [
    ("CheckRaisedTasks", "CheckTargetHealth"),
    ("CreateWaitingRule", "CreateListenerRule"),
    ("DeregisterScaling", "RegisterScaling"),
    ("EndOlderApprovals", "EndApprovals"),
    ("RaiseAfterSwitch", "ChooseCount"),
    ("RaiseCount", "ChooseCount"),
    ("StartFreshTasks", "RestoreDeployment"),
    ("UndoDeployment", "DeleteDeployment"),
    ("TakeMarksBack", "SwitchTraffic"),
];

/// A comment with fewer words gives no reason.
const MIN_WORDS: usize = 8;

/// The only expressions in a `Catch`. Anything more could fail there, and would end the execution.
const CAUGHT: [&str; 2] = ["$states.context.State.Name", "$states.errorOutput"];

fn scopes(
    repository: &Repository,
    check: impl Fn(&str, Scope<'_>) -> Vec<String>,
) -> Result<Vec<String>> {
    Ok(repository
        .machines()?
        .iter()
        .flat_map(|machine| {
            machine
                .scopes()
                .into_iter()
                .flat_map(|scope| check(&machine.name, scope))
                .collect::<Vec<_>>()
        })
        .collect())
}

fn states(
    repository: &Repository,
    check: impl Fn(&str, &Value) -> Vec<String>,
) -> Result<Vec<String>> {
    scopes(repository, |machine, scope| {
        scope
            .states
            .iter()
            .flat_map(|(name, state)| {
                check(name, state)
                    .into_iter()
                    .map(|problem| format!("{machine}: {name} {problem}"))
                    .collect::<Vec<_>>()
            })
            .collect()
    })
}

/// The query language is JSONata and is set once, at the top. Below `States` it would be a state.
///
/// # Errors
/// When a machine cannot be read.
pub fn query_language(repository: &Repository) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for machine in repository.machines()? {
        if machine.definition["QueryLanguage"] != "JSONata" {
            problems.push(format!(
                "{}: the QueryLanguage at the top is not JSONata",
                machine.name
            ));
        }
        if machine.text.matches("\"QueryLanguage\"").count() > 1 {
            problems.push(format!(
                "{}: QueryLanguage is also set below the top",
                machine.name
            ));
        }
    }
    Ok(problems)
}

/// Every state has a comment with its reason, which operators read in the console. The machine's own
/// comment names every ending.
///
/// # Errors
/// When a machine cannot be read.
pub fn comments(repository: &Repository) -> Result<Vec<String>> {
    let mut problems = states(repository, |_, state| {
        let comment = state["Comment"].as_str().unwrap_or_default();
        let whole = comment.ends_with('.') && comment.split_whitespace().count() >= MIN_WORDS;
        (!whole)
            .then(|| "has no Comment that gives a reason in a sentence".to_owned())
            .into_iter()
            .collect()
    })?;
    for machine in repository.machines()? {
        let comment = machine.definition["Comment"].as_str().unwrap_or_default();
        for ending in machine.endings() {
            if !comment
                .split(|c: char| !c.is_alphanumeric())
                .any(|word| word == ending)
            {
                problems.push(format!(
                    "{}: its Comment does not name the ending {ending}",
                    machine.name
                ));
            }
        }
    }
    Ok(problems)
}

fn graph<'a>(scope: Scope<'a>) -> DiGraphMap<&'a str, ()> {
    let mut graph = DiGraphMap::new();
    graph.add_node(scope.start);
    for (name, state) in scope.states {
        graph.add_node(name.as_str());
        for transition in transitions(state) {
            graph.add_edge(name.as_str(), transition.to, ());
        }
    }
    graph
}

/// Every transition leads to a state that exists, every state can be reached, and every state either
/// ends or leads on.
///
/// # Errors
/// When a machine cannot be read.
pub fn ways(repository: &Repository) -> Result<Vec<String>> {
    scopes(repository, |machine, scope| {
        let graph = graph(scope);
        let reached: BTreeSet<_> = Dfs::new(&graph, scope.start).iter(&graph).collect();
        let mut problems = Vec::new();
        for name in graph.nodes() {
            let Some(state) = scope.states.get(name) else {
                problems.push(format!(
                    "{machine}: a transition leads to {name}, which does not exist"
                ));
                continue;
            };
            if !reached.contains(name) {
                problems.push(format!("{machine}: no transition leads to {name}"));
            }
            let ends = is_ending(state) || state["End"] == true;
            if ends != transitions(state).is_empty() {
                problems.push(format!("{machine}: {name} must either end or lead on"));
            }
            let last = state["Choices"].as_array().and_then(|rules| rules.last());
            if state["Type"] == "Choice"
                && state["Default"].is_null()
                && !last.is_some_and(is_otherwise)
            {
                problems.push(format!(
                    "{machine}: {name} has no Default, so an unexpected answer ends the execution"
                ));
            }
        }
        problems
    })
}

/// A choice assigns by its rules only. AWS's page says of an `Assign` beside `Choices` both that it applies
/// to `Default` alone and that it applies always, and interpreters differ. What comes otherwise is a last
/// rule with the condition `true` instead of a `Default`.
///
/// <https://docs.aws.amazon.com/step-functions/latest/dg/state-choice.html>
///
/// # Errors
/// When a machine cannot be read.
pub fn choices(repository: &Repository) -> Result<Vec<String>> {
    states(repository, |_, state| {
        let mut problems = Vec::new();
        if state["Type"] == "Choice" && state["Assign"].is_object() {
            problems.push("assigns beside its rules".to_owned());
        }
        let rules = state["Choices"].as_array().into_iter().flatten();
        let after_it: Vec<_> = rules.skip_while(|rule| !is_otherwise(rule)).collect();
        if !after_it.is_empty() && (after_it.len() > 1 || state.get("Default").is_some()) {
            problems.push("has ways after the rule that is always true".to_owned());
        }
        problems
    })
}

fn is_otherwise(rule: &Value) -> bool {
    rule["Condition"] == "{% true %}"
}

/// On every path the target group is attached before the service is created: ECS refuses a target
/// group without a load balancer.
///
/// # Errors
/// When a machine cannot be read.
pub fn rule_before_service(repository: &Repository) -> Result<Vec<String>> {
    let mut seen = false;
    let mut problems = Vec::new();
    for machine in repository.machines()? {
        for scope in machine
            .scopes()
            .into_iter()
            .filter(|scope| scope.states.contains_key("CreateService"))
        {
            seen = true;
            let graph = graph(scope);
            let before = dominators::simple_fast(&graph, scope.start)
                .dominators("CreateService")
                .is_some_and(|mut states| states.any(|state| state == "CreateListenerRule"));
            if !before {
                problems.push(format!(
                    "{}: CreateService can be reached without CreateListenerRule",
                    machine.name
                ));
            }
        }
    }
    if !seen {
        problems.push("no machine has the state CreateService".to_owned());
    }
    Ok(problems)
}

/// Transient errors are retried with backoff and jitter, a limited number of times. No others are.
///
/// # Errors
/// When a machine cannot be read.
pub fn retries(repository: &Repository) -> Result<Vec<String>> {
    let transient = [&TRANSIENT[..], &NOT_READY, &OF_TOPICS].concat();
    states(repository, |name, state| {
        let mut problems = Vec::new();
        let mut retried = BTreeSet::new();
        for retry in state["Retry"].as_array().into_iter().flatten() {
            retried.extend(strings(&retry["ErrorEquals"]));
            let bounded = retry["MaxAttempts"]
                .as_u64()
                .is_some_and(|attempts| (1..=10).contains(&attempts));
            let grows = retry["BackoffRate"].as_f64().is_some_and(|rate| rate > 1.0);
            if !(bounded
                && grows
                && retry["MaxDelaySeconds"].is_u64()
                && (retry["JitterStrategy"] == "FULL"
                    || waits_for_a_late_switch(name, retry)
                    || outlasts_switches(name, retry)))
            {
                problems.push(
                    "retries without a limit, backoff, a maximum delay or full jitter".to_owned(),
                );
            }
            let names = strings(&retry["ErrorEquals"]);
            if name == "SwitchTraffic"
                && names.contains(&"TransientError".to_owned())
                && !waits_for_a_late_switch(name, retry)
            {
                problems
                    .push("may look at the listener before its last try has changed it".to_owned());
            }
            if name == "EvictVisitors"
                && names.contains(&"TransientError".to_owned())
                && !outlasts_switches(name, retry)
            {
                problems.push("may give up while a switch is in flight".to_owned());
            }
            let waits = |(field, value): &(&str, f64)| retry[*field].as_f64() == Some(*value);
            if names.iter().any(|name| NOT_READY.contains(&name.as_str()))
                && !UNTIL_READY.iter().all(waits)
            {
                problems.push("does not wait until a function is ready".to_owned());
            }
        }
        for name in retried
            .iter()
            .filter(|name| !transient.contains(&name.as_str()))
        {
            problems.push(format!(
                "retries {name}, after which the same call fails again"
            ));
        }
        // A hook that crashes or does not end has failed, and is not called again.
        let of_hooks = [&RETRIED_OF_HOOKS[..], &NOT_READY].concat();
        if runs_a_hook(state) && retried != of_hooks.iter().map(|it| (*it).to_owned()).collect() {
            problems.push(format!("retries {retried:?} of a hook"));
        }
        if function_of(state).is_some() {
            let needed = transient.iter().filter(|name| !OF_TOPICS.contains(name));
            for name in needed.filter(|name| !retried.contains(**name)) {
                problems.push(format!("does not retry {name}"));
            }
        }
        problems
    })
}

/// Every failure of a function is caught, and every error name that a state matches, in `ErrorEquals`
/// or in an expression, can occur.
///
/// # Errors
/// When a machine cannot be read.
pub fn error_names(repository: &Repository) -> Result<Vec<String>> {
    static QUOTED: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"'(\w+Error)'").expect("a regex"));
    let ours: BTreeSet<_> = ErrorName::ALL.iter().map(|name| name.as_str()).collect();
    states(repository, |_, state| {
        let mut problems = Vec::new();
        let catchers = state["Catch"].as_array().cloned().unwrap_or_default();
        let rules = state["Retry"]
            .as_array()
            .into_iter()
            .flatten()
            .chain(&catchers);
        let mut matched: Vec<_> = rules
            .flat_map(|rule| strings(&rule["ErrorEquals"]))
            .collect();
        for (_, text) in expression::within(state) {
            matched.extend(QUOTED.captures_iter(text).map(|name| name[1].to_owned()));
        }
        for name in matched.iter().map(String::as_str) {
            let aws = [&TRANSIENT[..], &NOT_READY, &DOCUMENTED, &OF_TOPICS];
            if !ours.contains(name) && !aws.iter().any(|names| names.contains(&name)) {
                problems.push(format!(
                    "matches {name}, which is an error neither of a function nor of AWS"
                ));
            }
        }
        for (path, text) in expression::within(&state["Catch"]) {
            if !CAUGHT.contains(&text) {
                problems.push(format!("has the expression {text} in its Catch, at {path}"));
            }
        }
        let catches = |rule: &Value, name: &str| {
            strings(&rule["ErrorEquals"])
                .iter()
                .any(|caught| caught == name)
        };
        let all = |rule: &Value| catches(rule, "States.ALL");
        // What the team's function answers may be too long, and the name for all does not catch that.
        let too_long = |rule: &Value| catches(rule, "States.DataLimitExceeded");
        if runs_a_hook(state) && !catchers.iter().any(too_long) {
            problems.push("does not catch an answer that is too long".to_owned());
        }
        let runs = function_of(state).is_some() || runs_a_hook(state);
        if runs && !catchers.last().is_some_and(all) {
            problems.push(
                "does not catch States.ALL last, so a failure ends the execution without undo"
                    .to_owned(),
            );
        }
        // Step Functions requires it to be alone and last.
        let alone = |rule: &Value| strings(&rule["ErrorEquals"]).len() == 1;
        for (index, rule) in catchers.iter().enumerate().filter(|(_, rule)| all(rule)) {
            if index + 1 != catchers.len() || !alone(rule) {
                problems.push("catches States.ALL, but not alone or not last".to_owned());
            }
        }
        problems
    })
}

/// The step that ends waits for approvals finds them in the history of the deploy machine: its own state, the one that
/// waits, and where its call has the token.
///
/// # Errors
/// When a machine cannot be read.
pub fn approvals(repository: &Repository) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for machine in repository.machines()? {
        let waits = |state: &Value| {
            let resource = state["Resource"].as_str();
            resource.is_some_and(|it| it.ends_with(".waitForTaskToken"))
        };
        let waiting: Vec<_> = machine.states().filter(|(_, state)| waits(state)).collect();
        for (name, state) in &waiting {
            if *name != end_approvals::WAITS {
                problems.push(format!("{}: nothing ends the wait of {name}", machine.name));
            }
            let token = state["Arguments"].pointer(end_approvals::TOKEN);
            if token.is_none_or(|token| *token != "{% $states.context.Task.Token %}") {
                problems.push(format!("{}: {name} has no token there", machine.name));
            }
            let asks = machine.states().filter(|(asking, state)| {
                *asking == end_approvals::ASKS && function_of(state) == Some("EndApprovals")
            });
            let leads = |state: &Value| transitions(state).iter().any(|way| way.to == *name);
            if !asks.into_iter().any(|(_, state)| leads(state)) {
                problems.push(format!(
                    "{}: {name} does not look before it waits",
                    machine.name
                ));
            }
        }
        if machine.name == "deploy" && waiting.is_empty() {
            problems.push("deploy: no state waits for an approval".to_owned());
        }
    }
    Ok(problems)
}

/// A state has the name of the function that it runs, and a failure that of its ending.
///
/// # Errors
/// When a machine cannot be read.
pub fn names(repository: &Repository) -> Result<Vec<String>> {
    let steps: BTreeSet<_> = repository
        .steps()
        .iter()
        .map(|step| step.pascal())
        .collect();
    states(repository, |name, state| {
        let mut problems = Vec::new();
        if state["Type"] == "Fail" && state["Error"] != name {
            problems.push(format!("ends with the error {}", state["Error"]));
        }
        let lambda = state["Resource"] == "arn:aws:states:::lambda:invoke";
        match function_of(state) {
            Some(function) => {
                if !steps.contains(function) {
                    problems.push(format!(
                        "runs {function}, which is not a folder of functions/"
                    ));
                }
                if name != function && !OTHER_NAME.contains(&(name, function)) {
                    problems.push(format!(
                        "runs the function {function} and should have its name"
                    ));
                }
            }
            None if lambda && !runs_a_hook(state) => {
                problems.push("does not name its function by a placeholder".to_owned())
            }
            None => {}
        }
        problems
    })
}
