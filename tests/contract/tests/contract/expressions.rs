//! The expressions of the state machines are JSONata and give an answer on every way.

use std::collections::HashMap;

use bumpalo::Bump;
use contract::checks::events;
use contract::machine::is_ending;
use contract::{Machine, Repository, expression};
use jsonata_rs::JsonAta;
use serde_json::{Value, json};

/// What CloudFormation puts in.
fn filled_in(expression: &str) -> String {
    expression.replace("${HealthTimeoutSeconds}", "600")
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

/// The variables as they are in a state, on every way to it.
fn ways_to(machine: &str, state: &str) -> Vec<Value> {
    match machine {
        "deploy" => deploy(state),
        "cleanup" => cleanup(state),
        "rollback" => rollback(state),
        other => panic!("no way is known through {other}"),
    }
}

fn deploy(state: &str) -> Vec<Value> {
    let deployment =
        json!({"deploymentId": "test-1", "imageDigest": "sha256:1", "reason": "none is active"});
    let failed =
        json!({"state": "CheckTargetHealth", "error": "Unhealthy", "reason": "exit code 1"});
    let switched =
        json!({"outcome": "switched", "previousDeploymentId": null, "reason": "test-1 is active"});
    let superseded =
        json!({"outcome": "superseded", "previousDeploymentId": null, "reason": "test-2 is newer"});
    let deleted = json!({"verdict": "deleted", "reason": "nothing is left"});
    let not_deleted = json!({"reason": "not allowed"});
    let ways = match state {
        "PublishStarted" => vec![(deployment, json!(null), json!(null), json!(null))],
        // From the first look, from the switch, and after a failure that came too late.
        "PublishLive" | "Succeeded" => vec![
            (deployment.clone(), json!(null), json!(null), json!(null)),
            (deployment.clone(), json!(null), switched, json!(null)),
            (deployment, failed, json!(null), json!(null)),
        ],
        "PublishSuperseded" | "Superseded" => vec![
            (deployment.clone(), json!(null), json!(null), json!(null)),
            (deployment.clone(), json!(null), superseded.clone(), deleted),
            (deployment, json!(null), superseded, not_deleted),
        ],
        "Refused" => vec![(json!(null), failed, json!(null), json!(null))],
        "PublishRolledBack" | "RolledBack" => vec![(deployment, failed, json!(null), deleted)],
        "PublishRollbackFailed" | "RollbackFailed" => vec![
            (deployment.clone(), failed, json!(null), not_deleted.clone()),
            (deployment, json!(null), superseded, not_deleted),
        ],
        other => panic!("no way is known to {other}"),
    };
    ways.into_iter()
        .map(|(deployment, failure, switched, undo)| {
            json!({"deployment": deployment, "failure": failure, "switched": switched, "undo": undo})
        })
        .collect()
}

fn cleanup(state: &str) -> Vec<Value> {
    let found =
        json!({"dryRun": false, "activeDeploymentId": "test-3", "repair": null, "deployments": []});
    let none_active =
        json!({"dryRun": false, "activeDeploymentId": null, "repair": null, "deployments": []});
    let switched = json!({"outcome": "switched", "activeDeploymentId": "test-3"});
    let failed = json!({"error": "AccessDeniedError", "reason": "not allowed"});
    let outcome = |outcome: &str| json!({"deploymentId": "test-1", "outcome": outcome, "reason": "not allowed"});
    let outer = |found: &Value, failure: Value, switched: Value, outcomes: Value| json!({"found": found, "failure": failure, "switched": switched, "outcomes": outcomes});
    let inner = |more: Value| {
        let mut variables = outer(&found, json!(null), json!(null), json!([]));
        variables["item"] = json!({"deploymentId": "test-1", "state": "previous", "action": "drain", "reason": "replaced", "force": false});
        variables["looks"] = json!(0);
        for (name, value) in more.as_object().unwrap() {
            variables[name] = value.clone();
        }
        vec![variables]
    };
    match state {
        "PublishLive" => vec![outer(&none_active, json!(null), switched, json!([]))],
        "Planned" => vec![
            outer(&found, json!(null), json!(null), json!([])),
            outer(&none_active, json!(null), json!(null), json!([])),
        ],
        "CleanedUp" => vec![
            outer(&none_active, json!(null), json!(null), json!([])),
            outer(&none_active, json!(null), switched, json!([])),
            outer(
                &found,
                json!(null),
                json!(null),
                json!([outcome("deleted"), outcome("kept")]),
            ),
        ],
        // Nothing found; nothing repaired; one and two that failed; both.
        "PublishCleanupFailed" | "CleanupFailed" => vec![
            json!({"failure": failed, "outcomes": []}),
            outer(&none_active, failed.clone(), json!(null), json!([])),
            outer(
                &found,
                json!(null),
                json!(null),
                json!([outcome("failed"), outcome("kept")]),
            ),
            outer(
                &found,
                json!(null),
                json!(null),
                json!([outcome("failed"), outcome("failed")]),
            ),
            outer(
                &none_active,
                failed,
                json!(null),
                json!([outcome("failed"), outcome("deleted")]),
            ),
        ],
        "PublishDraining" | "Draining" | "PublishDrained" => {
            inner(json!({"drained": {"verdict": "drained", "reason": "no session"}}))
        }
        "PublishDeleted" | "Deleted" | "StillDeleting" => {
            inner(json!({"deleted": {"verdict": "deleting", "reason": "waiting for ECS"}}))
        }
        "Kept" | "ItemFailed" => inner(json!({"problem": failed})),
        other => panic!("no way is known to {other}"),
    }
}

fn rollback(state: &str) -> Vec<Value> {
    let target = |left: Value| json!({"deploymentId": "test-1", "targetGroupArn": "arn", "leftDeploymentId": left});
    let failed = json!({"state": "RestoreDeployment", "error": "NoRollbackTargetError", "reason": "there is none"});
    match state {
        "PublishRollbackDone" | "Succeeded" => [json!("test-2"), json!(null)]
            .into_iter()
            .map(|left| {
                json!({"target": target(left), "failure": null, "switched": {"outcome": "switched", "reason": "test-1 is active"}})
            })
            .collect(),
        // Before there is a target, too.
        "Refused" | "PublishRollbackFailed" | "RollbackFailed" => vec![
            json!({"failure": failed}),
            json!({"failure": failed, "target": target(json!(null))}),
        ],
        other => panic!("no way is known to {other}"),
    }
}

/// The values of a state's expressions; what gives none is a problem.
fn values(state: &Value, variables: &Value, problems: &mut Vec<String>) -> HashMap<String, String> {
    let states = json!({"context": {"Execution": {"Id": "arn:aws:states:::execution:1"}}});
    let mut bindings: HashMap<&str, &Value> = variables
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| (name.as_str(), value))
        .collect();
    bindings.insert("states", &states);
    let mut found = HashMap::new();
    for (path, text) in expression::within(state) {
        // Assigned on the way out, from what the state itself got.
        if path.contains("/Assign/") {
            continue;
        }
        let arena = Bump::new();
        let parsed = JsonAta::new(text, &arena).unwrap();
        match parsed.evaluate(None, Some(&bindings)) {
            Ok(value) if !value.is_undefined() => drop(found.insert(path, value.serialize(false))),
            Ok(_) => problems.push(format!("{path} gives nothing with {variables}")),
            Err(error) => problems.push(format!("{path}: {error} with {variables}")),
        }
    }
    found
}

/// The states that say how it went: the endings, those that publish, and those that end an item.
fn tells(state: &Value) -> bool {
    is_ending(state) || state["End"] == true || events::publishes(state)
}

/// Step Functions fails an execution whose expression gives nothing, and does so at its last state.
#[test]
fn what_tells_how_it_went_has_all_its_words() {
    let repository = Repository::read().unwrap();
    let mut problems = Vec::new();
    for machine in repository.machines().unwrap() {
        for (name, state) in machine.states().filter(|(_, state)| tells(state)) {
            for variables in ways_to(&machine.name, name) {
                let mut found = Vec::new();
                values(state, &variables, &mut found);
                problems.extend(
                    found
                        .iter()
                        .map(|problem| format!("{}: {name}{problem}", machine.name)),
                );
            }
        }
    }
    assert!(problems.is_empty(), "\n- {}\n", problems.join("\n- "));
}

fn machine(name: &str) -> Machine {
    let machines = Repository::read().unwrap().machines().unwrap();
    let mut machines = machines.into_iter();
    machines.find(|machine| machine.name == name).unwrap()
}

/// The cause that a state gives, with these variables.
fn cause(machine: &Machine, state: &str, variables: &Value) -> String {
    let (_, state) = machine.states().find(|(name, _)| *name == state).unwrap();
    let mut problems = Vec::new();
    let cause = values(state, variables, &mut problems).remove("/Cause");
    cause.unwrap_or_else(|| panic!("{problems:?}"))
}

/// A switch that fails may have moved traffic or not. Everything else is known to have moved none.
#[test]
fn only_a_switch_that_failed_leaves_open_where_traffic_is() {
    for (name, known, verdict) in [
        ("deploy", "Traffic is untouched.", "Unhealthy"),
        ("rollback", "traffic was not moved back.", "unhealthy"),
    ] {
        let machine = machine(name);
        let told = |state: &str, error: &str| {
            let failure = json!({"state": state, "error": error, "reason": "it did"});
            let variables =
                json!({"deployment": {"deploymentId": "test-1"}, "failure": failure, "undo": {}});
            cause(&machine, "RollbackFailed", &variables)
        };
        for (state, error, is_known) in [
            ("CheckTargetHealth", "AccessDeniedError", true),
            ("SwitchTraffic", verdict, true),
            ("SwitchTraffic", "AccessDeniedError", false),
        ] {
            let told = told(state, error);
            assert_eq!(told.contains(known), is_known, "{name}: {told}");
            assert_eq!(told.contains("look what is active"), !is_known, "{told}");
        }
    }
}

/// Two failures of one run are both told.
#[test]
fn a_cleanup_that_failed_tells_of_every_failure() {
    let machine = machine("cleanup");
    let causes: Vec<_> = ways_to("cleanup", "CleanupFailed")
        .iter()
        .map(|variables| cause(&machine, "CleanupFailed", variables))
        .collect();
    assert_eq!(
        causes,
        [
            "\"AccessDeniedError: not allowed\"",
            "\"AccessDeniedError: not allowed\"",
            "\"test-1: not allowed\"",
            "\"test-1: not allowed; test-1: not allowed\"",
            "\"AccessDeniedError: not allowed; test-1: not allowed\"",
        ]
    );
}

/// A plan of one is a list of one: JSONata would make it the thing itself.
#[test]
fn a_cleanup_works_on_what_is_not_kept_whatever_the_number() {
    let machine = machine("cleanup");
    let (_, state) = machine
        .states()
        .find(|(name, _)| *name == "CleanUpDeployments")
        .unwrap();
    let planned = |actions: &[&str]| {
        let deployments: Vec<_> = actions
            .iter()
            .map(|action| json!({"action": action}))
            .collect();
        let variables = json!({"found": {"deployments": deployments}});
        let items = json!({"Items": state["Items"]});
        let found = values(&items, &variables, &mut Vec::new());
        let items: Value = serde_json::from_str(&found["/Items"]).unwrap();
        items.as_array().expect("a list").len()
    };
    assert_eq!(planned(&[]), 0);
    assert_eq!(planned(&["keep", "keep"]), 0);
    assert_eq!(planned(&["keep", "drain"]), 1);
    assert_eq!(planned(&["delete", "keep", "drain"]), 2);
}
