//! The state machines run in memory with answers in place of the functions. This evaluates every
//! expression, on every transition, and with the causes that AWS gives to a Catch.

use std::collections::{BTreeSet, HashMap};

use bumpalo::Bump;
use contract::checks::events;
use contract::machine::{function_of, runs_a_hook, transitions};
use contract::{Machine, Repository, expression};
use heck::ToKebabCase;
use jsonata_rs::{Error, JsonAta};
use lifecycle::executions::Execution;
use lifecycle::{StepError, input};
use properties::console_input::STEPS;
use regex::Regex;
use serde_json::{Value, json};

fn machine(name: &str) -> Machine {
    let machines = Repository::read().unwrap().machines().unwrap();
    let mut machines = machines.into_iter();
    machines.find(|machine| machine.name == name).unwrap()
}

/// The ARN of an execution.
const EXECUTION: &str = "arn:aws:states:eu-west-1:1:execution:test-deploy:test-1";
/// The time at which an execution begins, in milliseconds.
const BEGUN: u64 = 1_764_252_000_000;

/// One execution. Its clock advances only in its waits.
struct Run<'a> {
    machine: &'a Machine,
    /// By state: the payload that a task returns, or the `Error` and `Cause` with which it fails. A list
    /// has one answer for each call, and its last one is for all further calls.
    answers: Value,
    clock: u64,
    /// The transitions that were taken, as `state to state`.
    taken: BTreeSet<String>,
    /// When each of them was taken, in order.
    times: Vec<u64>,
    events: Vec<Value>,
    calls: Vec<Call<'a>>,
    /// The arguments of each call of a hook.
    hooks: Vec<Value>,
    /// Those with which it asked for its approval.
    asked: Vec<Value>,
}

/// A call of a function.
struct Call<'a> {
    state: &'a str,
    function: &'a str,
    payload: Value,
}

impl Run<'_> {
    /// The value of an expression. Step Functions fails an execution whose expression gives none.
    fn evaluated(&self, text: &str, variables: &Value) -> Value {
        let text = text
            .replace("${HealthTimeoutSeconds}", "600")
            .replace("${Domain}", "www.example.com")
            .replace("$millis()", &self.clock.to_string());
        let arena = Bump::new();
        let expression = JsonAta::new(&text, &arena).unwrap_or_else(|it| panic!("`{text}`: {it}"));
        // A function of Step Functions, which fails when the text is not JSON. JSON is also JSONata.
        expression.register_function("parse", 1, |context, arguments| {
            let text = arguments[0].as_str();
            serde_json::from_str::<Value>(&text).map_err(|it| Error::D3137Error(it.to_string()))?;
            JsonAta::new(&text, context.arena)?.evaluate(None, None)
        });
        let variables = variables.as_object().unwrap();
        let bindings: HashMap<_, _> = variables.iter().map(|(name, it)| (&**name, it)).collect();
        match expression.evaluate(None, Some(&bindings)) {
            Ok(value) if !value.is_undefined() => {
                serde_json::from_str(&value.serialize(false)).unwrap()
            }
            Ok(_) => panic!("`{text}` gives nothing with {variables:?}"),
            Err(error) => panic!("`{text}`: {error} with {variables:?}"),
        }
    }

    /// A part of a state with the values of its expressions.
    fn filled(&self, part: &Value, variables: &Value) -> Value {
        match part {
            Value::String(text) => match expression::of(text) {
                Some(expression) => self.evaluated(expression, variables),
                None => part.clone(),
            },
            Value::Array(items) => items.iter().map(|it| self.filled(it, variables)).collect(),
            Value::Object(fields) => fields
                .iter()
                .map(|(name, it)| (name.clone(), self.filled(it, variables)))
                .collect(),
            _ => part.clone(),
        }
    }

    fn answer(&mut self, state: &str) -> Value {
        match &mut self.answers[state] {
            Value::Array(answers) if answers.len() > 1 => answers.remove(0),
            Value::Array(answers) => answers[0].clone(),
            answer => answer.clone(),
        }
    }

    /// Runs a scope, and returns its last state with the output, or with the error and cause.
    fn run(&mut self, inside: Option<&str>, variables: &mut Value) -> (String, Value) {
        let machine = self.machine;
        let mut scopes = machine.scopes().into_iter();
        let scope = scopes.find(|scope| scope.inside == inside).unwrap();
        let input = variables["states"]["input"].clone();
        let mut name = scope.start;
        loop {
            let state = &scope.states[name];
            variables["states"] = json!({"input": input, "context": {
                "Execution": {"Id": EXECUTION, "StartTime": "2025-11-27T14:00:00.000Z"},
                "State": {"Name": name},
                "Task": {"Token": "a token"},
                "StateMachine": {"Id": "arn:aws:states:::stateMachine:test"},
            }});
            let mut rule = state;
            match state["Type"].as_str().unwrap() {
                "Task" | "Map" => {
                    let arguments = self.filled(&state["Arguments"], variables);
                    if events::publishes(state) {
                        self.events.push(arguments["Entries"][0].clone());
                    }
                    let seconds = self.filled(&state["TimeoutSeconds"], variables);
                    let is_map = state["Type"] == "Map";
                    assert!(is_map || seconds.as_u64() >= Some(1), "{name}: {seconds}");
                    if runs_a_hook(state) {
                        self.hooks.push(arguments.clone());
                    }
                    if name == "AwaitApproval" {
                        self.asked.push(arguments.clone());
                    }
                    if let Some(function) = function_of(state) {
                        self.calls.push(Call {
                            state: name,
                            function,
                            payload: arguments["Payload"].clone(),
                        });
                    }
                    let answer = self.answer(name);
                    // DescribeExecution returns the error of another execution, together with a status. This call has succeeded.
                    let is_description = answer.get("Status").is_some();
                    if let Some(error) = answer["Error"].as_str().filter(|_| !is_description) {
                        let catches = |it: &&Value| {
                            let names = it["ErrorEquals"].as_array().unwrap();
                            names.iter().any(|it| it == error || it == "States.ALL")
                        };
                        let catchers = state["Catch"].as_array().unwrap();
                        rule = catchers.iter().find(catches).unwrap();
                        variables["states"]["errorOutput"] = answer;
                    } else if state["Type"] == "Map" {
                        let items = self.filled(&state["Items"], variables);
                        let turn = |item: &Value| {
                            let mut variables = variables.clone();
                            variables["states"]["input"] = item.clone();
                            self.run(Some(name), &mut variables).1
                        };
                        let items = items.as_array().expect("a list");
                        variables["states"]["result"] = items.iter().map(turn).collect();
                    } else {
                        // Only a function's answer is a payload.
                        let is_payload = function_of(state).is_some() || runs_a_hook(state);
                        variables["states"]["result"] = match is_payload {
                            true => json!({"Payload": answer}),
                            false => answer,
                        };
                    }
                }
                "Wait" => {
                    let seconds = self.filled(&state["Seconds"], variables);
                    self.clock += 1000 * seconds.as_u64().unwrap();
                    assert!(self.clock < BEGUN + 86_400_000, "{name} has no end");
                }
                "Choice" => {
                    let is_true = |it: &&Value| match self.filled(&it["Condition"], variables) {
                        Value::Bool(is_true) => is_true,
                        other => panic!("{} gives {other}", it["Condition"]),
                    };
                    let rules = state["Choices"].as_array().unwrap();
                    rule = rules.iter().find(is_true).unwrap_or(state);
                }
                _ => {}
            }
            for (variable, value) in rule["Assign"].as_object().into_iter().flatten() {
                variables[variable] = self.filled(value, variables);
            }
            let Some(next) = rule["Next"].as_str().or(rule["Default"].as_str()) else {
                let output = if state["Type"] == "Fail" {
                    &json!({"Error": state["Error"], "Cause": state["Cause"]})
                } else {
                    &state["Output"]
                };
                return (name.to_owned(), self.filled(output, variables));
            };
            self.taken.insert(format!("{name} to {next}"));
            self.times.push(self.clock);
            name = next;
        }
    }
}

/// The input of each machine, the answers with which it goes straight to its good end, and executions with
/// other answers: the machine, what differs, and the ending. A text is an error. Some executions list the
/// payload of each call of a function.
fn fixtures() -> Value {
    serde_json::from_str(include_str!("executions.json")).unwrap()
}

/// Runs a machine with some other answers, and returns its ending, the output and the run.
fn run<'a>(machine: &'a Machine, differing: &Value) -> (String, Value, Run<'a>) {
    let mut fixtures = fixtures();
    let mut answers = fixtures["answers"][&machine.name].take();
    for (state, answer) in differing.as_object().unwrap() {
        match answer {
            Value::String(error) => answers[state] = json!({"Error": error, "Cause": "it did"}),
            Value::Object(fields)
                if answers[state].is_object() && !fields.contains_key("Error") =>
            {
                for (name, value) in fields {
                    answers[state][name] = value.clone();
                }
            }
            other => answers[state] = other.clone(),
        }
    }
    let mut run = Run {
        machine,
        answers,
        clock: BEGUN,
        taken: BTreeSet::new(),
        times: Vec::new(),
        events: Vec::new(),
        calls: Vec::new(),
        hooks: Vec::new(),
        asked: Vec::new(),
    };
    let input = &fixtures["inputs"][&machine.name];
    let (ending, output) = run.run(None, &mut json!({"states": {"input": input}}));
    (ending, output, run)
}

#[test]
fn every_transition_is_taken_and_every_expression_gives_a_value() {
    let fixtures = fixtures();
    for machine in Repository::read().unwrap().machines().unwrap() {
        let mut taken = BTreeSet::new();
        let executions = fixtures["executions"].as_array().unwrap().iter();
        for execution in executions.filter(|it| it[0] == *machine.name) {
            let (ending, output, run) = run(&machine, &execution[1]);
            assert_eq!(execution[2], ending, "{execution}: {output}");
            taken.extend(run.taken);
        }
        for (name, state) in machine.states() {
            for transition in transitions(state) {
                let way = format!("{name} to {}", transition.to);
                assert!(taken.contains(&way), "{}: {way} is not taken", machine.name);
            }
        }
    }
}

/// The payloads of the executions that list them are exactly those, and every state that calls a function is in
/// one of these executions.
pub fn payloads(repository: &Repository) -> anyhow::Result<Vec<String>> {
    let fixtures = fixtures();
    let mut problems = Vec::new();
    for machine in repository.machines()? {
        let name = &machine.name;
        let mut unlisted: BTreeSet<&str> = machine
            .states()
            .filter(|(_, state)| function_of(state).is_some())
            .map(|(state, _)| state)
            .collect();
        let executions = fixtures["executions"].as_array().unwrap().iter();
        for execution in executions.filter(|it| it[0] == **name) {
            let Some(listed) = execution[3].as_array() else {
                continue;
            };
            let answers = &execution[1];
            let calls = run(&machine, answers).2.calls;
            if calls.len() != listed.len() {
                let (made, listed) = (calls.len(), listed.len());
                problems.push(format!(
                    "{name} with {answers}: {made} calls in place of {listed}"
                ));
            }
            for (call, listed) in calls.iter().zip(listed) {
                unlisted.remove(call.state);
                let made = json!([call.state, call.payload]);
                if made != *listed {
                    problems.push(format!(
                        "{name} with {answers}: {made} in place of {listed}"
                    ));
                }
            }
        }
        problems.extend(
            unlisted
                .iter()
                .map(|state| format!("{name}: no execution lists {state}")),
        );
    }
    Ok(problems)
}

/// Decodes a payload as the function of that name does.
fn decode(function: &str, payload: &Value) -> Result<(), StepError> {
    let step = function.to_kebab_case();
    let known = STEPS.iter().find(|(name, _)| *name == step);
    let (_, decode) = known.unwrap_or_else(|| panic!("no input of {function}"));
    // The first steps of these machines get the operator's input with the execution.
    if !["validate-deployment", "restore-deployment"].contains(&step.as_str()) {
        return decode(payload.to_string().as_bytes());
    }
    decode(payload["input"].to_string().as_bytes())?;
    input::decode::<Execution>(payload["execution"].clone()).map(drop)
}

/// Functions can read the payload of every call in every execution.
pub fn inputs(repository: &Repository) -> anyhow::Result<Vec<String>> {
    let fixtures = fixtures();
    // The fixtures have shorter ids than functions accept.
    let id = Regex::new(r#""test-(\d)""#)?;
    let mut problems = BTreeSet::new();
    for machine in repository.machines()? {
        let executions = fixtures["executions"].as_array().unwrap().iter();
        for execution in executions.filter(|it| it[0] == *machine.name) {
            for call in run(&machine, &execution[1]).2.calls {
                let text = call.payload.to_string();
                let text = id.replace_all(&text, r#""test-20251027-12000${1}Z""#);
                let payload = serde_json::from_str(&text)?;
                if let Err(error) = decode(call.function, &payload) {
                    problems.insert(format!("{} {}: {text}: {error}", machine.name, call.state));
                }
            }
        }
    }
    Ok(problems.into_iter().collect())
}

/// Each step of a machine with each cause: its error, and the message that has to be reported.
///
/// `States.ALL` does not catch `States.DataLimitExceeded`, but its text is like others that it catches.
fn failures(machine: &Machine) -> Vec<(&str, Value, String)> {
    let causes: Vec<Value> = serde_json::from_str(include_str!("causes.json")).unwrap();
    let steps = machine.states().filter(|(_, it)| function_of(it).is_some());
    let with = |step, mut error: Value| {
        let message = error.as_object_mut().unwrap().remove("message").unwrap();
        (step, error, message.as_str().unwrap().to_owned())
    };
    steps
        .flat_map(|(step, _)| causes.iter().map(move |it| with(step, it.clone())))
        .collect()
}

/// The text has the message, and no JSON around it when the message was parsed.
fn assert_reported(text: &Value, message: &str) {
    let text = text.as_str().unwrap();
    assert!(text.contains(message), "`{message}` is not in: {text}");
    assert!(!text.contains(r#"{"errorType""#), "{text}");
}

#[test]
fn every_failure_of_a_deployment_is_undone_and_reported_with_its_message() {
    let machine = machine("deploy");
    for (step, failure, message) in failures(&machine) {
        if step == "WatchDeployment" {
            let (ending, output, _) = run(&machine, &json!({step: failure}));
            assert_eq!(ending, "Succeeded", "{failure}");
            assert_reported(&output["notWatched"][0], &message);
            let rolling_back = json!({
                "verdict": "rollingBack", "rollback": {"executionArn": "arn", "breach": "it crashed"}, "reason": "it crashed",
            });
            let (ending, error, _) = run(&machine, &json!({step: [rolling_back, failure]}));
            assert_eq!(ending, "Unhealthy", "{failure}");
            assert_reported(&error["Cause"], &message);
            continue;
        }
        if ["EndApprovals", "EndOlderApprovals"].contains(&step) {
            let (ending, output, _) = run(&machine, &json!({step: failure}));
            assert_eq!(ending, "Succeeded", "{failure}: {output}");
            continue;
        }
        if step == "RegisterScaling" {
            // It is live: a warning, and no failure.
            let (ending, output, _) = run(&machine, &json!({step: failure}));
            assert_eq!(ending, "Succeeded", "{failure}");
            assert_eq!(output["scaling"], json!(null));
            assert_reported(&output["warnings"][0], &message);
            continue;
        }
        let is_undo = step == "UndoDeployment";
        let mut answers = json!({step: failure});
        if is_undo {
            answers["CreateService"] = json!("AccessDeniedError");
        }
        let (ending, error, run) = run(&machine, &answers);
        assert_reported(&error["Cause"], &message);
        if step == "ValidateDeployment" {
            assert_eq!((ending.as_str(), run.events.len()), ("Refused", 0));
            continue;
        }
        let (expected, failed, field) = if is_undo {
            ("UndoFailed", "CreateService", "undoReason")
        } else {
            ("Failed", step, "reason")
        };
        assert_eq!(ending, expected, "{answers}");
        assert!(run.taken.contains(&format!("{failed} to UndoDeployment")));
        let published = &run.events.last().unwrap()["Detail"];
        assert_reported(&published[field], &message);
        assert_reported(&published["reason"], &format!("{failed} failed ("));
    }
}

/// The arguments with which the deployment of the executions asks for its approval.
fn asked() -> Value {
    let machine = machine("deploy");
    let run = run(&machine, &json!({})).2;
    let [asked] = &run.asked[..] else {
        panic!("{:?}", run.asked);
    };
    asked.clone()
}

#[test]
fn a_message_says_how_to_look_at_the_candidate_and_how_to_answer() {
    let asked = asked();
    let subject = asked["Subject"].as_str().unwrap();
    // Of the longest id too: https://docs.aws.amazon.com/sns/latest/api/API_Publish.html
    assert!(subject.is_ascii() && subject.len() + 32 < 100, "{subject}");
    assert!(!subject.contains(char::is_control), "{subject}");
    let message = asked["Message"].as_str().unwrap();
    for words in [
        "test-1 is healthy and waits for an approval, for 3600 s",
        "sha256:1",
        "curl --header \"X-Pulse-Render-Affinity: test-1\" https://www.example.com/",
        "token=$(aws stepfunctions get-execution-history --execution-arn arn:aws:states:eu-west-1:1:execution:test-deploy:test-1 ",
        "aws stepfunctions send-task-success --task-token \"$token\" --task-output '{}'",
        "aws stepfunctions send-task-failure --task-token \"$token\" --error Refused --cause \"why\"",
    ] {
        assert!(message.contains(words), "`{words}` is not in: {message}");
    }
    assert!(!message.contains("a token"), "a mail has the token");
    let documented = Repository::read().unwrap();
    let documented = documented.file("docs/operations.md").unwrap();
    for line in message
        .lines()
        .filter(|line| line.contains("aws stepfunctions"))
    {
        let line = line.trim().replace(
            "eu-west-1:1:execution:test-deploy:test-1",
            "eu-west-1:123456789012:execution:test-deploy:test-20251027-122112Z",
        );
        assert!(documented.contains(&line), "not in the documents: {line}");
    }
}

#[test]
fn an_approval_ends_by_its_time_by_a_refusal_or_by_a_newer_deployment() {
    let machine = machine("deploy");
    let long = "no ".repeat(3_000);
    let json = r#"{"errorMessage"}"#;
    for (answer, words) in [
        (
            json!({"Error": "States.Timeout", "Cause": ""}),
            "AwaitApproval failed (States.Timeout): nobody approved it within 3600 s",
        ),
        (
            json!({"Error": "Refused", "Cause": "Ada: not on a Friday"}),
            "AwaitApproval failed (Refused): Ada: not on a Friday",
        ),
        (json!({"Error": "Refused"}), "(Refused): no cause given"),
        (
            json!({"Error": "Refused", "Cause": long}),
            "(Refused): no no",
        ),
        // A person's words are not parsed, whatever they look like.
        (json!({"Error": "Refused", "Cause": json}), json),
    ] {
        let (ending, error, _) = run(&machine, &json!({"AwaitApproval": answer}));
        assert_eq!(ending, "Failed", "{answer}");
        let cause = error["Cause"].as_str().unwrap();
        assert!(cause.contains(words), "`{words}` is not in: {cause}");
        assert!(cause.len() < 1_500, "{cause}");
    }
    let newer = json!({"verdict": "superseded", "by": "test-2"});
    let (ending, output, _) = run(&machine, &json!({"AwaitApproval": newer}));
    assert_eq!(ending, "Superseded");
    let note = output["note"].as_str().unwrap();
    assert!(note.starts_with("test-2 is newer"), "{note}");
    // Traffic did not move for it.
    let answers = json!({"AwaitApproval": newer, "UndoDeployment": "AccessDeniedError"});
    let cause = run(&machine, &answers).1["Cause"].to_string();
    assert!(cause.contains("Traffic is untouched."), "{cause}");
    // Whatever else a person answers is an approval.
    for answer in [json!("yes"), json!(null), json!([1]), json!({"by": "Ada"})] {
        // The only one of a list.
        let (ending, output, _) = run(&machine, &json!({"AwaitApproval": [answer]}));
        assert_eq!(ending, "Succeeded", "{answer}: {output}");
    }
}

#[test]
fn what_a_candidate_has_passed_it_does_not_have_to_again() {
    let machine = machine("deploy");
    let unhealthy =
        json!([{"outcome": "unhealthy", "reason": "r"}, {"outcome": "switched", "reason": "r"}]);
    let raised = json!([{"verdict": "raised", "desiredCount": 8, "reason": "r"}, {"verdict": "enough", "desiredCount": 8, "reason": "r"}]);
    let answers = json!({"SwitchTraffic": unhealthy, "RaiseCount": raised});
    let (ending, output, run) = run(&machine, &answers);
    assert_eq!(ending, "Succeeded", "{output}");
    assert_eq!((run.hooks.len(), run.asked.len()), (1, 1));
    let times = |state: &str| run.calls.iter().filter(|call| call.state == state).count();
    assert_eq!(times("CheckTargetHealth"), 3);
    assert_eq!((times("SmokeTest"), times("EndApprovals")), (1, 1));
}

fn with_hooks(hooks: Value, answers: Value) -> Value {
    json!({"ValidateDeployment": {"hooks": hooks}, "InvokeHook": answers})
}

#[test]
fn each_hook_is_called_until_it_succeeds_with_what_it_said_last() {
    let machine = machine("deploy");
    let answers = json!([
        {"hookStatus": "IN_PROGRESS", "callBackDelay": 7.5, "hookDetails": {"at": 1}},
        {"hookStatus": "IN_PROGRESS", "callBackDelay": null},
        {"hookStatus": "SUCCEEDED", "hookDetails": "of the first"},
        {"hookStatus": "SUCCEEDED"},
    ]);
    let (ending, output, run) = run(&machine, &with_hooks(json!(["one", "two"]), answers));
    assert_eq!(ending, "Succeeded", "{output}");
    let service = "arn:aws:ecs:eu-west-1:1:service/${Environment}/test-1";
    let event = |details: Value| {
        let mut event = json!({
            "executionId": EXECUTION, "lifecycleStage": "POST_TEST_TRAFFIC_SHIFT", "resourceArn": service,
            "executionDetails": {"serviceArn": service}, "deploymentId": "test-1", "imageDigest": "sha256:1",
        });
        if !details.is_null() {
            event["hookDetails"] = details;
        }
        event
    };
    let call = |hook: &str, details| json!({"FunctionName": hook, "Payload": event(details)});
    assert_eq!(
        run.hooks,
        [
            call("one", json!(null)),
            call("one", json!({"at": 1})),
            call("one", json!(null)),
            call("two", json!(null)),
        ]
    );
    // 5 s for targets, then 8 s and 30 s for the first hook; the second one is called at once.
    assert_eq!((run.clock - BEGUN) / 1000, 5 + 8 + 30);
    assert!(run.taken.contains("KeepChecked to RaiseCount"));
}

#[test]
fn a_hook_that_fails_or_answers_otherwise_fails_the_deployment_by_name() {
    let machine = machine("deploy");
    let invalid = "must answer with an object that has a hookStatus";
    let error = |name: &str, cause: Value| json!({"Error": name, "Cause": cause});
    let long = json!({"errorMessage": "x".repeat(5_000), "errorType": "Oops"}).to_string();
    for (answer, words) in [
        (
            json!({"hookStatus": "FAILED", "hookDetails": {"why": "red"}}),
            r#""hookDetails":{"why":"red"}"#,
        ),
        (
            json!({"hookStatus": "FAILED"}),
            r#"(HookFailed): hook two answered {"hookStatus":"FAILED"}"#,
        ),
        (json!({}), invalid),
        (json!({"hookStatus": "DONE"}), invalid),
        (json!({"hookStatus": null}), invalid),
        (json!({"hookStatus": ["SUCCEEDED"]}), invalid),
        (json!([[{"hookStatus": "SUCCEEDED"}]]), invalid),
        (json!("SUCCEEDED"), invalid),
        (json!(null), invalid),
        (
            json!({"hookStatus": "IN_PROGRESS", "callBackDelay": 4}),
            invalid,
        ),
        (
            json!({"hookStatus": "IN_PROGRESS", "callBackDelay": -5}),
            invalid,
        ),
        (
            json!({"hookStatus": "IN_PROGRESS", "callBackDelay": "soon"}),
            invalid,
        ),
        (
            json!({"hookStatus": "SUCCEEDED", "callBackDelay": {}}),
            invalid,
        ),
        (
            json!({"hookStatus": "IN_PROGRESS"}),
            "(OutOfTime): hook two answered {\"hookStatus\":\"IN_PROGRESS\"}, and the 600 s",
        ),
        (
            json!({"hookStatus": "IN_PROGRESS", "callBackDelay": 600}),
            "are over before the next call",
        ),
        (error("Oops", json!(long)), "(Oops): hook two: xxxx"),
        (
            error(
                "Lambda.ResourceNotFoundException",
                json!("Function not found: two"),
            ),
            "hook two: Function not found: two; the machine may call functions named ${Environment}-hook-…",
        ),
        (
            error(
                "Lambda.AWSLambdaException",
                json!("User is not authorized to perform: lambda:InvokeFunction on two"),
            ),
            "on two; the machine may call functions named ${Environment}-hook-…, and those that the parameter HookFunctionArns",
        ),
        (
            error("States.Timeout", json!("")),
            "(States.Timeout): hook two: no cause given; all hooks together have 600 s",
        ),
        (
            error("States.DataLimitExceeded", json!("too long")),
            "hook two: too long",
        ),
    ] {
        let answers = json!([{"hookStatus": "SUCCEEDED"}, answer]);
        let answers = with_hooks(json!(["one", "two"]), answers);
        let (ending, error, run) = run(&machine, &answers);
        assert_eq!(ending, "Failed", "{answers}");
        let cause = error["Cause"].as_str().unwrap();
        assert!(cause.contains(words), "`{words}` is not in: {cause}");
        assert!(cause.contains("InvokeHook failed ("), "{cause}");
        assert!(cause.len() < 1_500, "{cause}");
        assert!(!run.taken.contains("KeepChecked to RaiseCount"));
        assert!((run.clock - BEGUN) / 1000 <= 5 + 600 + 5, "{answers}");
    }
}

/// Step Functions charges for each transition, and an alarm on their number would ring at each push.
#[test]
fn a_deployment_that_is_watched_for_long_takes_few_transitions_in_its_first_ten_minutes() {
    let machine = machine("deploy");
    let starting =
        json!({"verdict": "waiting", "unrouted": false, "missing": false, "reason": "0 of 2"});
    let mut health = vec![starting; 6];
    health.push(
        json!({"verdict": "healthy", "unrouted": false, "missing": false, "reason": "2 of 2"}),
    );
    let look = |seconds| {
        json!({
            "verdict": "watching", "nextLookSeconds": seconds, "unhealthy": false, "rollback": null, "notWatched": [],
            "reason": "nothing is wrong",
        })
    };
    // As watch-deployment says: closely for two minutes.
    let mut looks = vec![look(15); 8];
    looks.extend(vec![look(30); 116]);
    looks.push(json!({"verdict": "proven", "unhealthy": false, "rollback": null, "notWatched": [], "reason": "well"}));
    let answers = json!({
        "ValidateDeployment": {"release": null, "smoke": [], "hooks": [], "approve": null},
        "CheckTargetHealth": health, "WatchDeployment": looks,
    });
    let (ending, _, run) = run(&machine, &answers);
    assert_eq!(ending, "Succeeded");
    let of_the_first = run.times.iter().filter(|at| **at < BEGUN + 600_000).count();
    assert!((60..120).contains(&of_the_first), "{of_the_first}");
}

/// A plan with a repair, and with every action.
fn repair() -> Value {
    let repair = json!({
        "deploymentId": "test-3", "targetGroupArn": "arn", "rollBack": true, "replaced": ["test-4"], "reason": "down",
    });
    let mut answers = fixtures()["answers"]["cleanup"]["FindDeployments"].take();
    let items = answers["deployments"].as_array_mut().expect("a list");
    items.push(json!({"deploymentId": "test-3", "action": "restart"}));
    let missing = json!({"deploymentId": "test-3", "targetGroupArn": "arn", "reason": "no rule"});
    json!({"repair": repair, "missingRules": missing, "deployments": items})
}

#[test]
fn every_failure_of_a_cleanup_is_reported_with_its_message() {
    let machine = machine("cleanup");
    let repair = repair();
    for (step, failure, message) in failures(&machine) {
        let mut answers = json!({"FindDeployments": repair});
        answers[step] = failure;
        let (ending, error, run) = run(&machine, &answers);
        assert_eq!(ending, "CleanupFailed", "{answers}");
        assert_reported(&error["Cause"], &message);
        assert_reported(&run.events.last().unwrap()["Detail"]["reason"], &message);
    }
}

#[test]
fn every_failure_of_a_rollback_is_reported_with_its_message() {
    let machine = machine("rollback");
    for (step, failure, message) in failures(&machine) {
        // Every step runs if the deployment gets fresh tasks.
        let mut answers = json!({"RestoreDeployment": {"restored": true, "unrouted": true}});
        answers[step] = failure.clone();
        if step == "TakeMarksBack" {
            // It runs after a switch that failed, whose message counts.
            answers["SwitchTraffic"] = failure.clone();
        }
        let after = ["EvictVisitors", "RaiseAfterSwitch", "RegisterScaling"];
        if ["RaiseCount", "CheckRaisedTasks"].contains(&step) || after.contains(&step) {
            continue;
        }
        let (ending, error, run) = run(&machine, &answers);
        assert_eq!(ending, "RollbackFailed", "{step}: {failure}");
        assert_reported(&error["Cause"], &message);
        assert_reported(&run.events.last().unwrap()["Detail"]["reason"], &message);
    }
}

/// Rescue comes before size and before the visitors who are pinned: what fails there is reported, and the rollback goes on.
#[test]
fn no_failure_to_get_more_tasks_or_to_evict_stops_a_rollback() {
    let machine = machine("rollback");
    for (step, failure, message) in failures(&machine) {
        let verdict = match step {
            "RaiseCount" => json!({step: failure, "RaiseAfterSwitch": failure}),
            "CheckRaisedTasks" => json!({step: failure, "RaiseCount": {"verdict": "raised"}}),
            "RaiseAfterSwitch" => json!({step: failure, "RaiseCount": {"verdict": "later"}}),
            "EvictVisitors" | "RegisterScaling" => json!({step: failure}),
            _ => continue,
        };
        let (ending, output, _) = run(&machine, &verdict);
        assert_eq!(ending, "Succeeded", "{step}: {failure}");
        match step {
            "CheckRaisedTasks" => {}
            "EvictVisitors" => assert_reported(&output["evictionReason"], &message),
            "RegisterScaling" => assert_reported(&output["scaling"], &message),
            _ => assert_reported(&output["countReason"], &message),
        }
    }
}

/// One deployment keeps its visitors, and those of the other go along.
#[test]
fn what_was_evicted_is_reported_beside_what_was_not() {
    let machine = machine("rollback");
    let marks = ["test-2", "test-3"].map(|id| json!({"deploymentId": id, "rolledBackAt": "then"}));
    for (other, kept, reason) in [
        (
            json!({"Error": "AccessDeniedError", "Cause": "it did"}),
            false,
            "AccessDeniedError: it did",
        ),
        (
            json!({"evicted": [], "kept": ["test-3 is protected"]}),
            true,
            "test-3 is protected",
        ),
    ] {
        let answers = json!({
            "SwitchTraffic": {"rolledBack": marks},
            "EvictVisitors": [{"evicted": ["test-2"], "kept": []}, other],
        });
        let (ending, output, run) = run(&machine, &answers);
        assert_eq!(
            (ending.as_str(), &output["evicted"]),
            ("Succeeded", &json!(["test-2"]))
        );
        let why = output["evictionReason"].as_str().unwrap();
        assert_eq!(why == reason, kept, "{why}");
        assert!(why.contains(reason), "{why}");
        assert_eq!(
            why.contains("start the rollback with test-1 once more"),
            !kept,
            "{why}"
        );
        assert_eq!(run.events.last().unwrap()["Detail"]["evicted"], 1);
    }
}

/// A switch that fails may or may not have moved traffic. Every other failure has moved none.
#[test]
fn only_a_failed_switch_leaves_open_where_traffic_is() {
    for (name, known) in [
        ("deploy", "Traffic is untouched."),
        ("rollback", "Traffic was not moved back."),
    ] {
        let machine = machine(name);
        for (step, answer, is_known) in [
            ("CheckTargetHealth", json!("AccessDeniedError"), true),
            ("SwitchTraffic", json!({"outcome": "unhealthy"}), true),
            ("SwitchTraffic", json!("AccessDeniedError"), false),
        ] {
            let answers = json!({step: answer, "UndoDeployment": "AccessDeniedError"});
            let cause = run(&machine, &answers).1["Cause"].to_string();
            assert_eq!(cause.contains(known), is_known, "{name}: {cause}");
            let check = cause.contains("check which deployment is active");
            assert_eq!(check, !is_known, "{name}: {cause}");
        }
    }
}

/// A deadline is a time, and the waits alone take this one's time here.
#[test]
fn a_loop_ends_at_its_deadline() {
    let (denied, deleting) = (
        "AccessDeniedError",
        json!({"verdict": "deleting", "reason": "r"}),
    );
    for (name, seconds, answers) in [
        (
            "deploy",
            600,
            json!({"CheckTargetHealth": {"verdict": "pending"}, "UndoDeployment": denied}),
        ),
        (
            "deploy",
            600,
            json!({"CreateService": denied, "UndoDeployment": deleting}),
        ),
        (
            "rollback",
            600,
            json!({"CheckTargetHealth": {"verdict": "pending"}}),
        ),
        ("cleanup", 600, json!({"DeleteDeployment": deleting})),
    ] {
        let machine = machine(name);
        let waited = (run(&machine, &answers).2.clock - BEGUN) / 1000;
        assert_eq!(waited, seconds, "{name} with {answers}");
    }
}

#[test]
fn a_cleanup_that_failed_reports_every_failure() {
    let repair = repair();
    let denied = "AccessDeniedError";
    let answers = json!({"FindDeployments": repair, "SwitchTraffic": denied, "DrainDeployment": denied, "DeleteDeployment": denied});
    assert_eq!(
        run(&machine("cleanup"), &answers).1["Cause"],
        "AccessDeniedError: it did; test-2: AccessDeniedError: it did; test-1: AccessDeniedError: it did"
    );
}

#[test]
fn a_cleanup_with_many_long_failures_names_them_within_its_limits() {
    let machine = machine("cleanup");
    let long = "why ".repeat(2_000);
    let message = json!({"errorMessage": long}).to_string();
    let denied = json!({"Error": "AccessDeniedError", "Cause": message});
    let many: Vec<Value> = (1..=40)
        .map(|number| json!({"deploymentId": format!("test-{number}"), "action": "delete", "state": "previous", "force": false}))
        .collect();
    let answers = json!({"FindDeployments": {"deployments": many}, "DeleteDeployment": denied});
    let (ending, error, run) = run(&machine, &answers);
    assert_eq!(ending, "CleanupFailed");
    let cause = error["Cause"].as_str().unwrap();
    assert_eq!(cause.chars().count(), 10_000);
    // The name of the error and its message, of each that has room.
    let first = cause.split("; ").next().unwrap();
    assert!(
        first.starts_with("test-1: AccessDeniedError: why"),
        "{first}"
    );
    assert!((500..=550).contains(&first.len()), "{}", first.len());
    let published = run.events.last().unwrap()["Detail"]["reason"].as_str();
    assert_eq!(published, Some(cause));
}

/// What lasts fails every run, and a repair is news.
#[test]
fn a_failure_of_a_cleanup_is_marked_as_repeated_after_the_first_in_an_hour() {
    let machine = machine("cleanup");
    let failed_at =
        |time: &str| json!({"Executions": [{"StartDate": time, "ExecutionArn": "arn"}]});
    let [earlier, before] = ["2025-11-27T14:00:00.123Z", "2025-11-27T13:59:59.999Z"].map(failed_at);
    let denied = json!({"DeleteDeployment": "AccessDeniedError"});
    let refused = json!({
        "DeleteDeployment": "AccessDeniedError", "ReadEarlierFailure": {"Status": "FAILED", "Error": "Refused"},
    });
    let unread = json!({
        "DeleteDeployment": "AccessDeniedError", "ReadEarlierFailure": "AccessDeniedException",
    });
    let down = json!({"FindDeployments": {"problems": ["test-3: it is down"], "isDown": true}});
    for (answers, listed, is_repeated) in [
        (refused, earlier.clone(), false),
        (unread, earlier.clone(), false),
        (down, earlier.clone(), false),
        (denied.clone(), json!({"Executions": []}), false),
        (denied.clone(), before, false),
        (denied.clone(), earlier.clone(), true),
        (denied.clone(), json!("AccessDeniedException"), false),
        (
            json!({"FindDeployments": "AccessDeniedError"}),
            earlier.clone(),
            true,
        ),
        (
            json!({"FindDeployments": {"problems": ["test-5: it is newer"]}}),
            earlier.clone(),
            true,
        ),
        (
            json!({"FindDeployments": repair(), "SwitchTraffic": {"outcome": "unhealthy"}}),
            earlier,
            false,
        ),
    ] {
        let mut answers = answers;
        answers["FindEarlierFailures"] = listed;
        let (ending, _, run) = run(&machine, &answers);
        assert_eq!(ending, "CleanupFailed");
        assert_eq!(
            run.events.last().unwrap()["Detail"]["isRepeated"],
            is_repeated,
            "{answers}"
        );
    }
}

#[test]
fn what_a_person_has_to_decide_fails_a_cleanup_after_it_has_done_what_is_due() {
    let problems = json!(["test-3: it is down", "test-5: it is newer"]);
    let answers =
        json!({"FindDeployments": {"problems": problems}, "DeleteDeployment": "AccessDeniedError"});
    let machine = machine("cleanup");
    let (ending, error, run) = run(&machine, &answers);
    assert_eq!(ending, "CleanupFailed");
    assert!(run.taken.contains("CleanUpDeployments to DidAnythingFail"));
    assert_eq!(
        error["Cause"],
        "test-3: it is down; test-5: it is newer; test-1: AccessDeniedError: it did"
    );
}

#[test]
fn a_repair_that_takes_an_active_deployment_back_says_so() {
    let answers = json!({"FindDeployments": repair()});
    let machine = machine("cleanup");
    let (_, _, run) = run(&machine, &answers);
    let detail = &run.events[0]["Detail"];
    assert_eq!(detail["previousDeploymentId"], "test-4");
    assert_eq!(detail["reason"], "down");
}

#[test]
fn a_cleanup_returns_the_outcome_of_each_deployment() {
    let machine = machine("cleanup");
    let outcomes = |answers: Value| {
        let output = run(&machine, &answers).1;
        let outcomes = output["deployments"].as_array().expect("a list").iter();
        outcomes
            .map(|it| format!("{} {} {}", it["deploymentId"], it["outcome"], it["reason"]))
            .collect::<Vec<_>>()
    };
    let [drained, deleted] = [
        r#""test-2" "draining" "1 session""#,
        r#""test-1" "deleted" "drained""#,
    ];
    assert_eq!(outcomes(json!({})), [drained, deleted]);
    let gone = json!({"DrainDeployment": {"verdict": "gone"}});
    assert_eq!(outcomes(gone)[0], r#""test-2" "deleted" "replaced""#);
    for error in [
        "DeploymentActiveError",
        "DeploymentKeptError",
        "DeploymentWasLiveError",
    ] {
        let kept = outcomes(json!({"DeleteDeployment": error}));
        assert_eq!(kept, [drained, r#""test-1" "kept" "it did""#]);
    }
}
