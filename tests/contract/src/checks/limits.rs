//! The numbers in templates, state machines and code stay below the limits of AWS and fit together.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use anyhow::Result;
use lifecycle::defaults;
use petgraph::algo::toposort;
use petgraph::graphmap::DiGraphMap;
use regex::Regex;
use serde_json::Value;

use super::pipeline::timeout_of;
use crate::Repository;
use crate::machine::{Machine, Scope, assignments, function_of, runs_a_hook, transitions};
use crate::template::strings;

/// Events that an execution may have, of the 25,000 that AWS allows: the rest is for a redrive, which goes on in the same
/// history, <https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html>.
const MAX_EVENTS: u64 = 20_000;
/// Events of a state that calls AWS: entered, scheduled, started, succeeded, exited.
const EVENTS_OF_A_TASK: u64 = 5;
/// Events of any other state: entered and exited.
const EVENTS_OF_A_STATE: u64 = 2;
/// Events of another try of a task: failed, scheduled, started.
const EVENTS_OF_A_RETRY: u64 = 3;
/// Iterations that a Map runs at once when it does not set a number:
/// <https://docs.aws.amazon.com/step-functions/latest/dg/state-map-inline.html>.
const ITERATIONS_AT_ONCE: u64 = 40;
/// Seconds in which Lambda refuses to call a function that is not ready.
const REFUSAL: u64 = 5;
/// The first state of what a candidate has to pass before its switch. A variable keeps it from a second round, as the
/// examples of executions show.
const PASSED_ONCE: &str = "IsSmokeTestWanted";
/// The least seconds that a hook may ask to be called again after, and how many hooks may follow each other at once.
const LEAST_CALL_BACK: u64 = 5;
const MAX_HOOKS: u64 = 5;

/// The rounds that begin at a Wait state, until a deadline. Those that share a deadline share its time.
struct Loop<'a> {
    /// Seconds of each wait.
    wait: u64,
    /// How many rounds begin without a wait.
    at_once: u64,
    /// The states of the longest round that leads back to the wait, without the wait.
    round: Vec<&'a Value>,
    /// The variable with the deadline.
    variable: String,
    /// Seconds until the deadline, counted from when it is set.
    deadline: u64,
}

impl Loop<'_> {
    /// Events until the deadline, when each round needs the number of tries that makes most of them. A
    /// round takes at least its waits.
    fn events(&self) -> u64 {
        let mut seconds = self.wait as f64;
        let own = self.round.iter().map(|state| events_of(state));
        let mut events = EVENTS_OF_A_STATE + own.sum::<u64>();
        let rounds = |seconds: f64| (self.deadline as f64 / seconds) as u64 + 1 + self.at_once;
        let whole = |events: u64, seconds: f64| events * rounds(seconds);
        let mut most = whole(events, seconds);
        for retrier in self.round.iter().flat_map(|state| retriers(state)) {
            for wait in waits_of(retrier) {
                // Full jitter waits half as long on average.
                seconds += wait / 2.0;
                events += EVENTS_OF_A_RETRY;
                most = most.max(whole(events, seconds));
            }
        }
        most
    }

    /// Seconds until the last round is over, which may begin just before the deadline.
    fn seconds(&self) -> u64 {
        let tries = self.round.iter().map(|state| seconds_of_all_tries(state));
        self.deadline + self.wait + tries.sum::<u64>()
    }
}

fn events_of(state: &Value) -> u64 {
    match state["Type"] == "Task" {
        true => EVENTS_OF_A_TASK,
        false => EVENTS_OF_A_STATE,
    }
}

/// The loops of a scope, and a sentence about each Wait state to which a choice leads without a deadline.
///
/// A deadline is a variable that a task sets to `$millis()` and a constant. The choice goes to the Wait state only
/// before it: it compares it with `$millis()` in the rule that leads there, or in another one if its default leads there.
/// `${HealthTimeoutSeconds}` counts with its largest value, and so does what the settings may have in its place.
fn loops<'a>(
    repository: &Repository,
    machine: &'a Machine,
    scope: Scope<'a>,
) -> Result<Vec<Result<Loop<'a>, String>>> {
    let deadlines = deadlines_of(repository, machine)?;
    let mut found = Vec::new();
    for (name, wait) in scope.states.iter().filter(|(_, it)| it["Type"] == "Wait") {
        let choices = scope.states.iter().filter(|(_, it)| it["Type"] == "Choice");
        for (choice, state) in choices {
            if !transitions(state).iter().any(|way| way.to == name) {
                continue;
            }
            let variable = deadline_of(state, name);
            let deadline = variable.as_ref().and_then(|it| deadlines.get(it));
            let round = longest_round(scope, name, choice);
            let is_of_hooks = wait["Seconds"] == "{% $hook.delay %}";
            let at_once = if is_of_hooks { MAX_HOOKS } else { 0 };
            let wait = wait["Seconds"]
                .as_u64()
                .or(is_of_hooks.then_some(LEAST_CALL_BACK));
            found.push(match (wait, round, variable, deadline) {
                (Some(wait), Some(round), Some(variable), Some(&deadline)) => Ok(Loop {
                    wait,
                    at_once,
                    round,
                    variable,
                    deadline,
                }),
                _ => Err(format!(
                    "{}: {name} belongs to a loop without a deadline",
                    machine.name
                )),
            });
        }
    }
    Ok(found)
}

/// The variable without whose time the choice does not lead to the Wait state.
fn deadline_of(choice: &Value, wait: &str) -> Option<String> {
    static PASSED: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"\$millis\(\) >= \$(\w+)").expect("a regex"));
    static BEFORE: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"and \$millis\(\) < \$(\w+) %\}$").expect("a regex"));
    let rules = || choice["Choices"].as_array().into_iter().flatten();
    let compared = |rule: &Value, how: &Regex| {
        let found = how.captures(rule["Condition"].as_str()?)?;
        Some(found[1].to_owned())
    };
    if choice["Default"] == *wait {
        return rules().find_map(|rule| compared(rule, &PASSED));
    }
    let mut leading = rules().filter(|rule| rule["Next"] == *wait);
    leading.next().and_then(|rule| compared(rule, &BEFORE))
}

/// The states from what follows the Wait state to the choice, on the way with most events that is taken again and again.
fn longest_round<'a>(scope: Scope<'a>, wait: &str, choice: &str) -> Option<Vec<&'a Value>> {
    let mut longest: Option<Vec<&str>> = None;
    let weight = |way: &[&str]| {
        way.iter()
            .map(|it| events_of(&scope.states[*it]))
            .sum::<u64>()
    };
    let first = scope.states[wait]["Next"].as_str()?;
    let mut ways = vec![vec![first]];
    while let Some(way) = ways.pop() {
        let last = *way.last()?;
        if last == choice {
            if longest.as_ref().is_none_or(|it| weight(it) < weight(&way)) {
                longest = Some(way);
            }
            continue;
        }
        for next in transitions(scope.states.get(last)?) {
            // Another Wait state begins a round of its own.
            let is_wait = scope.states.get(next.to)?["Type"] == "Wait";
            if !is_wait && next.to != PASSED_ONCE && !way.contains(&next.to) {
                ways.push(way.iter().copied().chain([next.to]).collect());
            }
        }
    }
    Some(longest?.into_iter().map(|it| &scope.states[it]).collect())
}

/// Of the loops that share a deadline, the largest of what each of them needs.
fn of_each_deadline(loops: Vec<Loop<'_>>, needs: impl Fn(&Loop<'_>) -> u64) -> u64 {
    let mut largest: BTreeMap<String, u64> = BTreeMap::new();
    for found in loops {
        let needed = needs(&found);
        let largest = largest.entry(found.variable).or_default();
        *largest = needed.max(*largest);
    }
    largest.values().sum()
}

/// The deadline variables of a machine, in seconds from when they are set: all seconds, if several states set one.
fn deadlines_of(repository: &Repository, machine: &Machine) -> Result<BTreeMap<String, u64>> {
    static SET: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(
            r"\$millis\(\) \+ (?:1000 \* \$\{(\w+)\}|1000 \* (\$deployment\.health\.timeoutSeconds)|(\d+)000\b)",
        )
        .expect("a regex")
    });
    let parameters = repository.template("pipeline")?.section("Parameters");
    let mut found = BTreeMap::new();
    for (_, state) in machine.states() {
        for (variable, value) in assignments(state) {
            let Some(set) = value.as_str().and_then(|text| SET.captures(text)) else {
                continue;
            };
            let largest = |parameter: &str| parameters[parameter]["MaxValue"].as_u64();
            let seconds = match (set.get(1), set.get(2)) {
                (Some(name), _) => largest(name.as_str()),
                // What the settings may name, or what the stack has if they name nothing.
                (_, Some(_)) => largest("HealthTimeoutSeconds")
                    .map(|stack| stack.max(defaults::MAX_WAIT_SECONDS.into())),
                _ => set[3].parse().ok(),
            };
            if let Some(seconds) = seconds {
                *found.entry(variable.to_owned()).or_default() += seconds;
            }
        }
    }
    Ok(found)
}

/// The largest sum of weights on a way through a scope that takes no loop; none when a loop has no
/// Wait state.
fn longest(scope: Scope<'_>, weight: impl Fn(&str, &Value) -> u64) -> Option<u64> {
    let mut graph: DiGraphMap<&str, ()> = DiGraphMap::new();
    for (name, state) in scope.states {
        graph.add_node(name.as_str());
        for way in transitions(state) {
            // A loop goes back from a choice to its Wait state.
            let goes_back = state["Type"] == "Choice"
                && scope
                    .states
                    .get(way.to)
                    .is_some_and(|to| to["Type"] == "Wait");
            if !goes_back {
                graph.add_edge(name.as_str(), way.to, ());
            }
        }
    }
    let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
    for name in toposort(&graph, None).ok()? {
        let before = graph
            .neighbors_directed(name, petgraph::Direction::Incoming)
            .filter_map(|before| sums.get(before))
            .max();
        let own = scope
            .states
            .get(name)
            .map_or(0, |state| weight(name, state));
        sums.insert(name, before.copied().unwrap_or(0) + own);
    }
    sums.into_values().max()
}

/// The longest execution has fewer events than AWS allows. With more, AWS would end it without an undo.
///
/// Tries of a cleanup's calls count in its loops only: a cleanup that AWS ends is continued by the next.
///
/// # Errors
/// When a machine or the template cannot be read.
pub fn history(repository: &Repository) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for machine in &repository.machines()? {
        let mut events = 0;
        for scope in machine.scopes() {
            let (turns, at_once) = match scope.inside {
                None => (1, 1),
                Some(map) => (defaults::MAX_PLANNED as u64, at_once(machine, map)),
            };
            let own = |_: &str, state: &Value| {
                if state["Type"] != "Task" {
                    EVENTS_OF_A_STATE
                } else if scope.inside.is_none() {
                    EVENTS_OF_A_TASK + EVENTS_OF_A_RETRY * retries_of(state)
                } else {
                    EVENTS_OF_A_TASK
                }
            };
            // An iteration of a Map has a beginning and an end of its own.
            events += turns * (longest(scope, own).unwrap_or(0) + EVENTS_OF_A_STATE);
            let loops = loops(repository, machine, scope)?.into_iter().flatten();
            events += at_once * of_each_deadline(loops.collect(), |it| it.events());
        }
        if events >= MAX_EVENTS {
            problems.push(format!(
                "{}: an execution may have {events} events, and may have {MAX_EVENTS}",
                machine.name
            ));
        }
    }
    Ok(problems)
}

fn at_once(machine: &Machine, map: &str) -> u64 {
    let (_, state) = machine
        .states()
        .find(|(name, _)| *name == map)
        .expect("a scope is inside of a state");
    match state["MaxConcurrency"].as_u64() {
        None | Some(0) => ITERATIONS_AT_ONCE,
        Some(number) => number,
    }
}

/// An execution that needs every try of every step and all the time of its loops still ends before its
/// machine's own time is over: AWS ends a machine that is out of time without an undo.
///
/// For a Map this counts one turn of its processor.
///
/// # Errors
/// When the template or a machine cannot be read.
pub fn deadlines(repository: &Repository) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for machine in &repository.machines()? {
        let name = &machine.name;
        let mut seconds = 0;
        for scope in machine.scopes() {
            match longest(scope, |_, state| seconds_of_all_tries(state)) {
                Some(longest) => seconds += longest,
                None => problems.push(format!("{name}: a loop has no Wait state")),
            }
            let (loops, endless): (Vec<_>, Vec<_>) = loops(repository, machine, scope)?
                .into_iter()
                .partition(Result::is_ok);
            let loops = loops.into_iter().flatten().collect();
            seconds += of_each_deadline(loops, |it| it.seconds());
            problems.extend(endless.into_iter().filter_map(Result::err));
        }
        match machine.definition["TimeoutSeconds"].as_u64() {
            None => problems.push(format!(
                "{name}: no TimeoutSeconds, so an execution may hang for a year"
            )),
            Some(whole) if seconds >= whole => problems.push(format!(
                "{name}: an execution may take {seconds} s, and the machine has {whole} s"
            )),
            Some(_) => {}
        }
    }
    Ok(problems)
}

fn retriers(state: &Value) -> impl Iterator<Item = &Value> {
    state["Retry"].as_array().into_iter().flatten()
}

/// The longest waits before each try of a retrier, in seconds. AWS's own defaults are for fields that are
/// not set: <https://docs.aws.amazon.com/step-functions/latest/dg/concepts-error-handling.html>
pub(super) fn waits_of(retrier: &Value) -> impl Iterator<Item = f64> {
    let number = |field: &str, default: f64| retrier[field].as_f64().unwrap_or(default);
    let (first, rate) = (number("IntervalSeconds", 1.0), number("BackoffRate", 2.0));
    let longest = number("MaxDelaySeconds", f64::MAX);
    let tries = retrier["MaxAttempts"].as_i64().unwrap_or(3) as i32;
    (0..tries).map(move |earlier| (first * rate.powi(earlier)).min(longest))
}

fn retries_of(state: &Value) -> u64 {
    retriers(state).map(|it| waits_of(it).count() as u64).sum()
}

/// How long a state may wait for its call.
fn seconds_of_a_try(state: &Value) -> u64 {
    // What is left of the time that all hooks have.
    if runs_a_hook(state) {
        return 600;
    }
    if state["TimeoutSeconds"] == "{% $deployment.approve.timeoutSeconds %}" {
        return defaults::MAX_APPROVAL_SECONDS.into();
    }
    state["TimeoutSeconds"].as_u64().unwrap_or(0)
}

/// Each retrier has its own number of tries. A try after a timeout may take as long again, and one after
/// a refusal only as long as the refusal.
fn seconds_of_all_tries(state: &Value) -> u64 {
    let once = seconds_of_a_try(state);
    let tries = retriers(state).flat_map(|retrier| {
        // Lambda may lose the answer of a hook at the end of its time.
        let times_out = strings(&retrier["ErrorEquals"]).iter().any(|it| {
            it == "States.Timeout" || (runs_a_hook(state) && it == "Lambda.ServiceException")
        });
        let each = if times_out { once } else { REFUSAL };
        waits_of(retrier).map(move |wait| each + wait.ceil() as u64)
    });
    once + tries.sum::<u64>()
}

/// The drain function has time to ask every task of the largest deployment when none answers, and for
/// one call to AWS that hangs.
///
/// # Errors
/// When the template cannot be read.
pub fn drain(repository: &Repository) -> Result<Vec<String>> {
    let template = repository.template("pipeline")?;
    let timeout = timeout_of(&template, "DrainDeployment");
    let rounds = (defaults::MAX_TASKS as usize).div_ceil(defaults::TASKS_ASKED_AT_ONCE) as u32;
    let asking = rounds * defaults::DRAIN_TIMEOUT;
    let needed = (asking + defaults::CALL_TIMEOUT + defaults::STOP_BEFORE_TIMEOUT).as_secs();
    let problem = format!(
        "drain-deployment times out after {timeout} s, and asking {} tasks may take {needed} s",
        defaults::MAX_TASKS
    );
    Ok(Vec::from_iter((timeout < needed).then_some(problem)))
}

/// A function gives up after its own calls do, and before the state that waits for it does. So the
/// function reports what hung, and not Lambda or Step Functions.
///
/// # Errors
/// When the template or a machine cannot be read.
pub fn timeouts(repository: &Repository) -> Result<Vec<String>> {
    /// The time that Lambda gives a cold function to start, in addition to its timeout:
    /// <https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html>.
    const START: u64 = 10;
    let template = repository.template("pipeline")?;
    let mut problems = Vec::new();
    for step in repository.steps() {
        let timeout = timeout_of(&template, &step.pascal());
        let call = defaults::CALL_TIMEOUT.as_secs();
        let stop = defaults::STOP_BEFORE_TIMEOUT.as_secs();
        if timeout <= call + stop {
            problems.push(format!(
                "{} times out after {timeout} s and stops {stop} s earlier, no later than one of its calls ({call} s)",
                step.name
            ));
        }
    }
    for machine in repository.machines()? {
        for (name, state) in machine.states() {
            let Some(function) = function_of(state) else {
                continue;
            };
            let timeout = timeout_of(&template, function);
            match state["TimeoutSeconds"].as_u64() {
                Some(seconds) if seconds >= timeout + START => {}
                Some(seconds) => problems.push(format!(
                    "{}: {name} waits {seconds} s, no longer than its function may take ({START} s to start and \
                     {timeout} s to run)",
                    machine.name
                )),
                None => problems.push(format!(
                    "{}: {name} has no TimeoutSeconds, so it may wait forever",
                    machine.name
                )),
            }
        }
    }
    Ok(problems)
}
