//! The limits of AWS that the numbers in templates, state machines and code must stay below, beside
//! each other.

use anyhow::Result;
use lifecycle::defaults;
use serde_json::Value;

use super::pipeline::timeout_of;
use crate::Repository;
use crate::machine::{Machine, Scope, function_of};

/// Events that an execution may have:
/// <https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html>.
const MOST_EVENTS: u64 = 25_000;
/// Events of the longest states, which run a function: entered, scheduled, started, succeeded, left.
const EVENTS_OF_A_STATE: u64 = 5;
/// Events of one look in a loop: a function's five, and two each of the wait and the choice.
const EVENTS_OF_A_LOOK: u64 = 9;
/// Iterations that a Map runs at once when it does not say how many:
/// <https://docs.aws.amazon.com/step-functions/latest/dg/state-map-inline.html>.
const ITERATIONS_AT_ONCE: u64 = 40;

/// An execution that looks again and again, as long as its machine lets it, stays below the events
/// that AWS allows; beyond them it would end without an undo.
///
/// # Errors
/// When a machine cannot be read.
pub fn history(repository: &Repository) -> Result<Vec<String>> {
    let machines = repository.machines()?;
    let events = machines.iter().map(|machine| (machine, events_of(machine)));
    Ok(events
        .filter(|(_, events)| *events >= MOST_EVENTS)
        .map(|(machine, events)| {
            format!(
                "{}: an execution may have {events} events, and AWS allows {MOST_EVENTS}",
                machine.name
            )
        })
        .collect())
}

fn events_of(machine: &Machine) -> u64 {
    let time = machine.definition["TimeoutSeconds"]
        .as_u64()
        .unwrap_or(u64::MAX / 1_000);
    let states = |scope: &Scope| scope.states.len() as u64 * EVENTS_OF_A_STATE;
    let scopes = machine.scopes();
    let of_scope = |scope: &Scope| {
        let (times, at_once) = match scope.inside {
            None => (1, 1),
            Some(map) => (defaults::MOST_PLANNED as u64, at_once(machine, map)),
        };
        let waits = scope
            .states
            .values()
            .filter_map(|it| it["Seconds"].as_u64());
        let looks = waits.min().map_or(0, |seconds| time / seconds.max(1));
        times * states(scope) + looks * at_once * EVENTS_OF_A_LOOK
    };
    scopes.iter().map(of_scope).sum()
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

/// A step that fails every time has had all its tries before the machine's own time is over: a
/// machine that runs out of time undoes nothing.
///
/// # Errors
/// When a machine cannot be read.
pub fn tries(repository: &Repository) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for machine in repository.machines()? {
        let whole = machine.definition["TimeoutSeconds"].as_u64().unwrap_or(0);
        for (name, state) in machine.states() {
            let longest = longest_of_all_tries(state);
            if longest >= whole {
                problems.push(format!(
                    "{}: all tries of {name} may take {longest} s, and the machine has {whole} s",
                    machine.name
                ));
            }
        }
    }
    Ok(problems)
}

fn longest_of_all_tries(state: &Value) -> u64 {
    let once = state["TimeoutSeconds"].as_u64().unwrap_or(0);
    let retriers = state["Retry"].as_array().into_iter().flatten();
    let longest = retriers
        .map(|retrier| {
            // AWS's own defaults, as at https://docs.aws.amazon.com/step-functions/latest/dg/concepts-error-handling.html
            let number = |field: &str, default| retrier[field].as_u64().unwrap_or(default);
            let mut wait = number("IntervalSeconds", 1);
            let tries = number("MaxAttempts", 3);
            let mut longest = 0;
            for _ in 0..tries {
                longest += wait.min(number("MaxDelaySeconds", u64::MAX)) + once;
                wait = wait.saturating_mul(number("BackoffRate", 2));
            }
            longest
        })
        .max();
    once + longest.unwrap_or(0)
}

/// The drain function has the time to ask every task of the largest deployment, though none answers,
/// and one call of AWS's to hang in.
///
/// # Errors
/// When the template cannot be read.
pub fn drain(repository: &Repository) -> Result<Vec<String>> {
    let template = repository.template("pipeline")?;
    let timeout = timeout_of(&template, "DrainDeployment");
    let rounds = (defaults::MOST_TASKS as usize).div_ceil(defaults::TASKS_ASKED_AT_ONCE) as u32;
    let asking = rounds * defaults::DRAIN_TIMEOUT;
    let needed = (asking + defaults::CALL_TIMEOUT + defaults::STOP_BEFORE_TIMEOUT).as_secs();
    Ok(match timeout < needed {
        false => Vec::new(),
        true => vec![format!(
            "drain-deployment times out after {timeout} s, and asking {} tasks may take {needed} s",
            defaults::MOST_TASKS
        )],
    })
}

/// A function gives up before the state that waits for it, and after its own calls: then the
/// function says what hung, not Lambda, and not Step Functions.
///
/// # Errors
/// When the template or a machine cannot be read.
pub fn timeouts(repository: &Repository) -> Result<Vec<String>> {
    /// The time that Lambda gives a cold function to start, beside its timeout:
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
                "{} times out after {timeout} s and stops {stop} s before, no later than one of its calls ({call} s)",
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
                    "{}: {name} has no TimeoutSeconds and waits for ever",
                    machine.name
                )),
            }
        }
    }
    Ok(problems)
}

/// The machine's time is twice the longest wait for health, so that an undo still fits: a machine
/// that runs out of time undoes nothing.
///
/// # Errors
/// When the template or a machine cannot be read.
pub fn deadlines(repository: &Repository) -> Result<Vec<String>> {
    let template = repository.template("pipeline")?;
    let longest = template.value["Parameters"]["HealthTimeoutSeconds"]["MaxValue"].as_u64();
    let mut problems = Vec::new();
    for machine in repository.machines()? {
        match (machine.definition["TimeoutSeconds"].as_u64(), longest) {
            (None, _) => problems.push(format!(
                "{}: no TimeoutSeconds, so an execution may hang for a year",
                machine.name
            )),
            (Some(whole), Some(longest))
                if machine.text.contains("${HealthTimeoutSeconds}") && whole < 2 * longest =>
            {
                problems.push(format!(
                    "{}: {whole} s in all are less than twice the {longest} s that HealthTimeoutSeconds may be",
                    machine.name
                ));
            }
            _ => {}
        }
    }
    Ok(problems)
}
