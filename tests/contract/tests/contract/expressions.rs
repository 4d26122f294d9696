//! The expressions of the state machines are valid JSONata and give a value on every path.

use bumpalo::Bump;
use contract::checks::events;
use contract::machine::{function_of, is_ending};
use contract::{Machine, Repository, expression};
use jsonata_rs::{ArrayFlags, Error, JsonAta};
use serde_json::{Map, Value, json};

/// CloudFormation's substitution.
fn filled_in(expression: &str) -> String {
    expression.replace("${HealthTimeoutSeconds}", "600")
}

fn machine(name: &str) -> Machine {
    let machines = Repository::read().unwrap().machines().unwrap();
    let mut machines = machines.into_iter();
    machines.find(|machine| machine.name == name).unwrap()
}

fn state<'a>(machine: &'a Machine, name: &str) -> &'a Value {
    let (_, state) = machine.states().find(|(state, _)| *state == name).unwrap();
    state
}

#[test]
fn every_expression_can_be_parsed() {
    let repository = Repository::read().unwrap();
    let mut problems = Vec::new();
    for machine in repository.machines().unwrap() {
        for (name, state) in machine.states() {
            for (path, text) in expression::within(state) {
                let arena = Bump::new();
                if let Err(error) = JsonAta::new(&filled_in(text), &arena) {
                    problems.push(format!("{}: {name}{path}: {error}", machine.name));
                }
            }
        }
    }
    assert!(problems.is_empty(), "\n- {}\n", problems.join("\n- "));
}

/// The value of an expression. Step Functions fails an execution whose expression gives none.
fn evaluated(text: &str, variables: &Value, states: &Value) -> Result<Value, String> {
    fn parsed<'a>(arena: &'a Bump, value: &Value) -> &'a jsonata_rs::Value<'a> {
        match value {
            Value::Null => jsonata_rs::Value::null(arena),
            Value::Bool(value) => jsonata_rs::Value::bool(*value),
            Value::Number(value) => jsonata_rs::Value::number(arena, value.as_f64().unwrap()),
            Value::String(value) => jsonata_rs::Value::string(arena, value),
            Value::Array(values) => {
                let array = jsonata_rs::Value::array(arena, ArrayFlags::empty());
                values.iter().for_each(|it| array.push(parsed(arena, it)));
                array
            }
            Value::Object(fields) => {
                let object = jsonata_rs::Value::object(arena);
                for (name, value) in fields {
                    object.insert(name, parsed(arena, value));
                }
                object
            }
        }
    }
    let arena = Bump::new();
    let expression = JsonAta::new(&filled_in(text), &arena).map_err(|error| error.to_string())?;
    // Step Functions' own function, which fails when the text is not JSON.
    expression.register_function("parse", 1, |context, arguments| {
        let value = serde_json::from_str::<Value>(&arguments[0].as_str())
            .map_err(|error| Error::D3137Error(error.to_string()))?;
        Ok(parsed(context.arena, &value))
    });
    let bindings = variables.as_object().unwrap().iter();
    let mut bindings: std::collections::HashMap<_, _> = bindings
        .map(|(name, value)| (name.as_str(), value))
        .collect();
    bindings.insert("states", states);
    match expression.evaluate(None, Some(&bindings)) {
        Ok(value) if !value.is_undefined() => {
            Ok(serde_json::from_str(&value.serialize(false)).unwrap())
        }
        Ok(_) => Err(format!("`{text}` gives nothing with {variables}")),
        Err(error) => Err(format!("`{text}`: {error} with {variables}")),
    }
}

/// A part of a state with the values of its expressions.
fn filled(part: &Value, variables: &Value, states: &Value) -> Result<Value, String> {
    match part {
        Value::String(text) => match expression::of(text) {
            Some(expression) => evaluated(expression, variables, states),
            None => Ok(part.clone()),
        },
        Value::Array(items) => items
            .iter()
            .map(|it| filled(it, variables, states))
            .collect(),
        Value::Object(fields) => {
            let filled = |(name, value): (&String, &Value)| {
                Ok((name.clone(), filled(value, variables, states)?))
            };
            let fields: Result<Map<_, _>, String> = fields.iter().map(filled).collect();
            fields.map(Value::Object)
        }
        _ => Ok(part.clone()),
    }
}

fn states_in(state: &str) -> Value {
    json!({"input": {}, "context": {"Execution": {"Id": "arn:aws:states:::execution:1"}, "State": {"Name": state}}})
}

fn assign(rule: &Value, variables: &mut Value, states: &Value) -> Result<(), String> {
    let assigned = filled(&rule["Assign"], variables, states)?;
    for (name, value) in assigned.as_object().into_iter().flatten() {
        variables[name] = value.clone();
    }
    Ok(())
}

/// Goes on from a state through choices and passes, and returns the first state of another kind, or
/// the pass at which an item ends.
fn go_on(machine: &Machine, from: &str, variables: &mut Value) -> Result<String, String> {
    let mut name = from.to_owned();
    loop {
        let (at, states) = (state(machine, &name), states_in(&name));
        let next = match at["Type"].as_str().unwrap() {
            "Pass" if at["End"] != true => {
                assign(at, variables, &states)?;
                &at["Next"]
            }
            "Choice" => {
                let mut taken = (at, &at["Default"]);
                for rule in at["Choices"].as_array().unwrap() {
                    match filled(&rule["Condition"], variables, &states)? {
                        Value::Bool(true) => {
                            taken = (rule, &rule["Next"]);
                            break;
                        }
                        Value::Bool(false) => {}
                        other => return Err(format!("{name}: the condition is {other}")),
                    }
                }
                assign(taken.0, variables, &states)?;
                taken.1
            }
            _ => return Ok(name),
        };
        name = next.as_str().unwrap().to_owned();
    }
}

/// Fails a state with an error, and returns the state to which its Catch leads.
fn caught(
    machine: &Machine,
    name: &str,
    (error, cause): (&str, Option<&str>),
    variables: &mut Value,
) -> String {
    let catchers = state(machine, name)["Catch"].as_array().unwrap();
    let catches = |catcher: &&Value| {
        let names = catcher["ErrorEquals"].as_array().unwrap();
        names
            .iter()
            .any(|name| name == error || name == "States.ALL")
    };
    let catcher = catchers.iter().find(catches).unwrap();
    let mut states = states_in(name);
    states["errorOutput"] = json!({"Error": error});
    if let Some(cause) = cause {
        states["errorOutput"]["Cause"] = json!(cause);
    }
    assign(catcher, variables, &states).unwrap();
    catcher["Next"].as_str().unwrap().to_owned()
}

/// The variables of a machine after its first state succeeded.
fn begun(machine: &str) -> Value {
    match machine {
        "deploy" => json!({
            "deployment": {"deploymentId": "test-1", "imageDigest": "sha256:1", "reason": "none is active"},
            "failure": null, "switched": null, "undo": null, "why": null, "undoDeadline": 0
        }),
        "cleanup" => json!({
            "found": {"dryRun": false, "activeDeploymentId": "test-3", "repair": null, "deployments": []},
            "failure": null, "switched": null, "outcomes": [], "deadline": 0,
            "item": {"deploymentId": "test-1", "state": "previous", "action": "drain", "reason": "replaced", "force": false}
        }),
        "rollback" => json!({
            "target": {"deploymentId": "test-1", "targetGroupArn": "arn", "replacedDeploymentId": "test-2"}, "failure": null
        }),
        other => panic!("{other} is not known"),
    }
}

fn with(machine: &str, more: Value) -> Value {
    let mut variables = begun(machine);
    for (name, value) in more.as_object().unwrap() {
        variables[name] = value.clone();
    }
    variables
}

/// A failure as a Catch keeps it.
fn failed(state: &str, error: &str, cause: &str) -> Value {
    json!({"state": state, "output": {"Error": error, "Cause": cause}})
}

/// Variables with what the state that explains failures adds to them.
fn explained(machine: &Machine, mut variables: Value) -> Value {
    let states = states_in("ExplainFailure");
    assign(state(machine, "ExplainFailure"), &mut variables, &states).unwrap();
    variables
}

/// The variables with which a state is entered, for every path to it.
fn paths_to(machine: &Machine, state: &str) -> Vec<Value> {
    let name = machine.name.as_str();
    let failure = failed("CheckTargetHealth", "Unhealthy", "exit code 1");
    let outcome = |outcome: &str| json!({"deploymentId": "test-1", "outcome": outcome, "reason": "not allowed"});
    let switched = |outcome: &str| json!({"outcome": outcome, "previousDeploymentId": null, "activeDeploymentId": "test-3", "reason": "test-2 is newer"});
    let undo = json!({"verdict": "deleted", "reason": "nothing is left"});
    let refused = json!({"verdict": "kept", "output": {"Error": "DeploymentWasLiveError", "Cause": "not allowed"}});
    let paths = match (name, state) {
        ("deploy", "PublishStarted") => vec![json!({})],
        // At once, after the switch, and after a failure that came too late.
        ("deploy", "PublishLive" | "Succeeded") => vec![
            json!({}),
            json!({"switched": switched("switched")}),
            json!({"failure": failure, "undo": {"verdict": "active", "output": {"Error": "DeploymentActiveError"}}}),
        ],
        ("deploy", "PublishSuperseded" | "Superseded") => vec![
            json!({}),
            json!({"switched": switched("superseded"), "undo": undo}),
            json!({"switched": switched("superseded"), "undo": refused}),
        ],
        ("deploy", "Refused") => vec![
            json!({"deployment": null, "failure": failed("ValidateDeployment", "InvalidInputError", "wrong")}),
        ],
        ("deploy", "PublishFailed" | "Failed") => vec![json!({"failure": failure, "undo": undo})],
        ("deploy", "PublishUndoFailed" | "UndoFailed") => vec![
            json!({"failure": failure, "undo": refused}),
            json!({"failure": failure, "undo": {"verdict": "deleting", "reason": "tasks are stopping"}}),
            json!({"switched": switched("superseded"), "undo": {"verdict": "failed", "output": {"Error": "States.Timeout"}}}),
        ],
        ("cleanup", "PublishLive") => vec![json!({"switched": switched("switched")})],
        ("cleanup", "Planned") => vec![json!({})],
        ("cleanup", "CleanedUp") => vec![
            json!({"found": {"activeDeploymentId": null}}),
            json!({"switched": switched("switched"), "outcomes": [outcome("deleted"), outcome("kept")]}),
        ],
        // No deployment found; no repair; one and two that failed; both.
        ("cleanup", "PublishCleanupFailed" | "CleanupFailed") => vec![
            json!({"failure": failure}),
            json!({"failure": failed("SwitchTraffic", "Unhealthy", "no target is healthy")}),
            json!({"outcomes": [outcome("failed"), outcome("kept")]}),
            json!({"outcomes": [outcome("failed"), outcome("failed")]}),
            json!({"failure": failure, "outcomes": [outcome("failed"), outcome("deleted")]}),
        ],
        ("cleanup", "PublishDraining" | "Draining" | "PublishDrained") => {
            vec![json!({"drained": {"verdict": "drained", "reason": "no session"}})]
        }
        ("cleanup", "PublishDeleted" | "Deleted" | "StillDeleting") => {
            vec![json!({"deleted": {"verdict": "deleting", "reason": "waiting for ECS"}})]
        }
        ("cleanup", "ExplainItem") => ["kept", "failed"]
            .map(|outcome| json!({"problem": {"outcome": outcome, "output": failure["output"]}}))
            .to_vec(),
        ("rollback", "PublishRollbackDone" | "Succeeded") => [json!("test-2"), json!(null)]
            .map(|replaced| {
                let target = json!({"deploymentId": "test-1", "replacedDeploymentId": replaced});
                json!({"target": target, "switched": switched("switched")})
            })
            .to_vec(),
        ("rollback", "Refused" | "PublishRollbackFailed" | "RollbackFailed") => {
            vec![
                json!({"failure": failed("RestoreDeployment", "NoRollbackTargetError", "there is none")}),
            ]
        }
        other => panic!("no path is known to {other:?}"),
    };
    let paths = paths.into_iter().map(|more| with(name, more));
    let explains = |variables: &Value| {
        variables["failure"].is_object()
            || variables["undo"].is_object()
            || state.contains("Cleanup")
    };
    paths
        .map(|variables| match explains(&variables) {
            true => explained(machine, variables),
            false => variables,
        })
        .collect()
}

/// The states that report an outcome: the endings, the events, and the ends of an item.
fn reports(state: &Value) -> bool {
    is_ending(state) || state["End"] == true || events::publishes(state)
}

/// Step Functions fails an execution whose expression gives nothing, even in its last state.
#[test]
fn every_state_that_reports_an_outcome_has_all_its_values() {
    let repository = Repository::read().unwrap();
    let mut problems = Vec::new();
    for machine in repository.machines().unwrap() {
        for (name, state) in machine.states().filter(|(_, state)| reports(state)) {
            for variables in paths_to(&machine, name) {
                let filled = filled(state, &variables, &states_in(name));
                problems.extend(
                    filled
                        .err()
                        .map(|it| format!("{}: {name}: {it}", machine.name)),
                );
            }
        }
    }
    assert!(problems.is_empty(), "\n- {}\n", problems.join("\n- "));
}

fn cause(machine: &Machine, ending: &str, variables: &Value) -> String {
    let cause = &state(machine, ending)["Cause"];
    let cause = filled(cause, variables, &states_in(ending)).unwrap();
    cause.as_str().unwrap().to_owned()
}

const TIMED_OUT: &str = r#"The cause could not be determined because Lambda did not return an error type. Returned payload: {"errorMessage":"2026-11-27T14:00:00.000Z 5a7e Task timed out after 30.00 seconds"}"#;

/// An error, its cause, and the message in it.
type Fixture = (&'static str, Option<&'static str>, &'static str);

/// Errors as AWS gives them to a Catch. `States.ALL` does not catch the last one, but its text is of
/// the same kind as others that it does catch.
const CAUSES: [Fixture; 12] = [
    (
        "QuotaExceededError",
        Some(r#"{"errorType":"QuotaExceededError","errorMessage":"no \"room\" in C:\\"}"#),
        r#"no "room" in C:\"#,
    ),
    (
        "TransientError",
        Some(r#"{"errorMessage":"too slow","errorType":"TransientError","stackTrace":[]}"#),
        "too slow",
    ),
    (
        "Runtime.ExitError",
        Some(
            r#"{"errorType":"Runtime.ExitError","errorMessage":"RequestId: 5a7e Error: Runtime exited with error: signal: killed"}"#,
        ),
        "signal: killed",
    ),
    (
        "Sandbox.Timedout",
        Some(
            r#"{"errorType":"Sandbox.Timedout","errorMessage":"RequestId: 5a7e Error: Task timed out after 30.00 seconds"}"#,
        ),
        "Task timed out after 30.00 seconds",
    ),
    (
        "Lambda.Unknown",
        Some(TIMED_OUT),
        "Task timed out after 30.00 seconds",
    ),
    (
        "Lambda.Unknown",
        Some(
            "The cause could not be determined because Lambda did not return an error type. Returned payload: null",
        ),
        "Returned payload: null",
    ),
    ("States.Timeout", None, "no cause given"),
    ("States.Timeout", Some(""), "no cause given"),
    (
        "Lambda.Unknown",
        Some(r#"{"message":"no field of ours"}"#),
        "no field of ours",
    ),
    (
        "Lambda.Unknown",
        Some(r#"{"errorMessage":"cut of"#),
        r#"{"errorMessage":"cut of"#,
    ),
    (
        "Lambda.TooManyRequestsException",
        Some("Rate Exceeded. (Service: Lambda, Status Code: 429, Request ID: 5a7e) – später"),
        "später",
    ),
    (
        "States.DataLimitExceeded",
        Some(
            "The state/task 'CreateService' returned a result with a size exceeding the maximum number of bytes service limit.",
        ),
        "exceeding the maximum",
    ),
];

/// The tasks of a machine that run functions.
fn steps(machine: &Machine) -> impl Iterator<Item = &str> {
    let steps = machine.states().filter(|(_, it)| function_of(it).is_some());
    steps.map(|(name, _)| name)
}

fn contains(text: &Value, message: &str) {
    let text = text.as_str().unwrap();
    // JSON is parsed when it is an error's, so that only its message is left.
    assert!(!text.contains(r#"{"errorType""#), "{text}");
    assert!(text.contains(message), "`{message}` is not in: {text}");
}

#[test]
fn every_failure_of_a_deployment_leads_to_its_undo_and_is_reported_with_its_message() {
    let machine = machine("deploy");
    for (name, (error, cause_of_it, message)) in
        steps(&machine).flat_map(|name| CAUSES.map(|fixture| (name, fixture)))
    {
        let mut variables = begun("deploy");
        if name == "UndoDeployment" {
            variables["failure"] = failed("SwitchTraffic", "Unhealthy", "lost its health");
        }
        let next = caught(&machine, name, (error, cause_of_it), &mut variables);
        let (ending, field) = match name {
            "ValidateDeployment" => {
                assert_eq!(go_on(&machine, &next, &mut variables).unwrap(), "Refused");
                contains(&json!(cause(&machine, "Refused", &variables)), message);
                continue;
            }
            "UndoDeployment" => ("UndoFailed", "undoReason"),
            _ => {
                assert_eq!(next, "UndoDeployment", "{name}");
                assert_eq!(variables["failure"]["state"], name);
                variables["undo"] = json!({"verdict": "deleted", "reason": "nothing is left"});
                ("Failed", "reason")
            }
        };
        let from = if ending == "Failed" {
            "IsDeploymentUndone"
        } else {
            &next
        };
        let reached = go_on(&machine, from, &mut variables).unwrap();
        assert_eq!(reached, format!("Publish{ending}"), "{name} {error}");
        let published = &state(&machine, &reached)["Arguments"]["Entries"][0]["Detail"];
        let published = filled(published, &variables, &states_in(&reached)).unwrap();
        contains(&published[field], message);
        contains(&json!(cause(&machine, ending, &variables)), message);
    }
}

#[test]
fn an_undo_that_is_refused_ends_as_what_the_deployment_is() {
    let machine = machine("deploy");
    let kept = ["DeploymentWasLiveError", "DeploymentKeptError"];
    let failure = json!({"failure": failed("SwitchTraffic", "States.Timeout", "lost")});
    let superseded = json!({"switched": {"outcome": "superseded", "reason": "test-2 is newer"}});
    let active = ("DeploymentActiveError", &failure, "PublishLive");
    let cases = kept
        .map(|error| (error, &failure, "PublishUndoFailed"))
        .into_iter()
        .chain(kept.map(|error| (error, &superseded, "PublishSuperseded")));
    for (error, before, expected) in cases.chain([active]) {
        let mut variables = with("deploy", before.clone());
        let next = caught(&machine, "UndoDeployment", (error, None), &mut variables);
        let reached = go_on(&machine, &next, &mut variables).unwrap();
        assert_eq!(reached, expected, "{error} with {before}");
    }
}

#[test]
fn every_failure_of_a_cleanup_is_reported_with_its_message() {
    let machine = machine("cleanup");
    for (name, (error, cause_of_it, message)) in
        steps(&machine).flat_map(|name| CAUSES.map(|fixture| (name, fixture)))
    {
        let mut variables = begun("cleanup");
        let next = caught(&machine, name, (error, cause_of_it), &mut variables);
        if next == "ExplainItem" {
            let output = &state(&machine, &next)["Output"];
            let output = filled(output, &variables, &states_in(&next)).unwrap();
            assert_eq!(output["outcome"], "failed");
            contains(&output["reason"], message);
            continue;
        }
        // The machine does what else is due, and then reports the failure.
        let from = if next == "CleanUpDeployments" {
            "DidAnythingFail"
        } else {
            &next
        };
        let reached = go_on(&machine, from, &mut variables).unwrap();
        assert_eq!(reached, "PublishCleanupFailed", "{name} {error}");
        contains(
            &json!(cause(&machine, "CleanupFailed", &variables)),
            message,
        );
    }
}

#[test]
fn a_cleanup_keeps_what_its_steps_refuse() {
    let machine = machine("cleanup");
    for (name, error) in [
        ("DrainDeployment", "DeploymentActiveError"),
        ("DrainDeployment", "DeploymentKeptError"),
        ("DeleteDeployment", "DeploymentActiveError"),
        ("DeleteDeployment", "DeploymentKeptError"),
        ("DeleteDeployment", "DeploymentWasLiveError"),
    ] {
        let mut variables = begun("cleanup");
        let next = caught(&machine, name, (error, Some("it is live")), &mut variables);
        let output = &state(&machine, &next)["Output"];
        let output = filled(output, &variables, &states_in(&next)).unwrap();
        let expected = json!({"deploymentId": "test-1", "outcome": "kept", "reason": "it is live"});
        assert_eq!(output, expected, "{name} {error}");
    }
}

#[test]
fn every_failure_of_a_rollback_is_reported_with_its_message() {
    let machine = machine("rollback");
    let refused = (
        "NoRollbackTargetError",
        Some(r#"{"errorMessage":"there is none"}"#),
        "there is none",
    );
    for (name, (error, cause_of_it, message)) in steps(&machine).flat_map(|name| {
        CAUSES
            .into_iter()
            .chain([refused])
            .map(move |fixture| (name, fixture))
    }) {
        let mut variables = begun("rollback");
        let next = caught(&machine, name, (error, cause_of_it), &mut variables);
        let reached = go_on(&machine, &next, &mut variables).unwrap();
        let is_refused = name == "RestoreDeployment" && error == refused.0;
        let ending = if is_refused {
            "Refused"
        } else {
            "RollbackFailed"
        };
        let expected = if is_refused {
            "Refused"
        } else {
            "PublishRollbackFailed"
        };
        assert_eq!(reached, expected, "{name} {error}");
        contains(&json!(cause(&machine, ending, &variables)), message);
    }
}

/// A deadline is a time, so it holds however long the calls take.
#[test]
fn a_loop_ends_at_its_deadline() {
    let pending = json!({"verdict": "pending", "reason": "0 of 2 targets are healthy"});
    let deleting = json!({"verdict": "deleting", "reason": "tasks are stopping"});
    for (name, choice, deadline, variables, waiting, over) in [
        (
            "deploy",
            "AreTargetsHealthy",
            "healthDeadline",
            json!({"health": pending}),
            "WaitForTargets",
            "UndoDeployment",
        ),
        (
            "deploy",
            "IsDeploymentUndone",
            "undoDeadline",
            json!({"undo": deleting, "failure": failed("CreateService", "X", "x")}),
            "WaitForUndo",
            "PublishUndoFailed",
        ),
        (
            "rollback",
            "AreTargetsHealthy",
            "healthDeadline",
            json!({"health": pending}),
            "WaitForTargets",
            "PublishRollbackFailed",
        ),
        (
            "cleanup",
            "IsDeleted",
            "deadline",
            json!({"deleted": deleting}),
            "WaitForDeletion",
            "StillDeleting",
        ),
    ] {
        let machine = machine(name);
        let now = evaluated("$millis()", &json!({}), &json!({}))
            .unwrap()
            .as_f64()
            .unwrap();
        for (time, expected) in [(now + 60_000.0, waiting), (now, over)] {
            let mut variables = with(name, variables.clone());
            variables[deadline] = json!(time);
            let reached = go_on(&machine, choice, &mut variables).unwrap();
            assert_eq!(reached, expected, "{name}: {choice}");
        }
    }
}

/// A switch that fails may or may not have moved traffic. Every other failure is known to have moved none.
#[test]
fn only_a_failed_switch_leaves_open_where_traffic_is() {
    for (name, ending, known, verdict) in [
        ("deploy", "UndoFailed", "Traffic is untouched.", "Unhealthy"),
        (
            "rollback",
            "RollbackFailed",
            "Traffic was not moved back.",
            "unhealthy",
        ),
    ] {
        let machine = machine(name);
        for (state, error, is_known) in [
            ("CheckTargetHealth", "AccessDeniedError", true),
            ("SwitchTraffic", verdict, true),
            ("SwitchTraffic", "AccessDeniedError", false),
        ] {
            let undo = json!({"verdict": "deleting", "reason": "tasks are stopping"});
            let failure = failed(state, error, "it did");
            let variables = with(name, json!({"failure": failure, "undo": undo}));
            let cause = cause(&machine, ending, &explained(&machine, variables));
            assert_eq!(cause.contains(known), is_known, "{name}: {cause}");
            assert_eq!(
                cause.contains("check which deployment is active"),
                !is_known,
                "{cause}"
            );
        }
    }
}

#[test]
fn a_cleanup_that_failed_reports_every_failure() {
    let machine = machine("cleanup");
    let causes: Vec<_> = paths_to(&machine, "CleanupFailed")
        .iter()
        .map(|variables| cause(&machine, "CleanupFailed", variables))
        .collect();
    assert_eq!(
        causes,
        [
            "Unhealthy: exit code 1",
            "Unhealthy: no target is healthy",
            "test-1: not allowed",
            "test-1: not allowed; test-1: not allowed",
            "Unhealthy: exit code 1; test-1: not allowed",
        ]
    );
}

/// JSONata would turn a list of one into the item itself.
#[test]
fn a_cleanup_works_on_a_list_however_many_deployments_are_due() {
    let machine = machine("cleanup");
    let planned = |actions: &[&str]| {
        let deployments: Vec<_> = actions
            .iter()
            .map(|action| json!({"action": action}))
            .collect();
        let variables = json!({"found": {"deployments": deployments}});
        let items = &state(&machine, "CleanUpDeployments")["Items"];
        let items = filled(items, &variables, &json!({})).unwrap();
        items.as_array().expect("a list").len()
    };
    assert_eq!(planned(&[]), 0);
    assert_eq!(planned(&["keep", "keep"]), 0);
    assert_eq!(planned(&["keep", "drain"]), 1);
    assert_eq!(planned(&["delete", "keep", "drain"]), 2);
}
