//! `infra/pipeline.yaml` against the functions and the state machines.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use anyhow::Result;
use heck::ToUpperCamelCase;
use regex::Regex;
use serde_json::{Value, json};

use super::differences;
use crate::Repository;
use crate::machine::{Machine, function_of, runs_a_hook};
use crate::template::{Template, strings};

const FUNCTION: &str = "AWS::Serverless::Function";
const STATE_MACHINE: &str = "AWS::Serverless::StateMachine";
/// The functions of the team's own that a machine may run: those whose name says so. A policy of its own allows those that
/// a parameter of the stack lists.
const HOOKS: &str =
    "arn:${AWS::Partition}:lambda:${AWS::Region}:${AWS::AccountId}:function:${Environment}-hook-*";

/// Every step has a function, a role and a log group with the names that follow from its folder, and
/// there are no other functions.
///
/// # Errors
/// When the template cannot be read.
pub fn resources(repository: &Repository) -> Result<Vec<String>> {
    let template = repository.template("pipeline")?;
    let steps = repository.steps();
    let functions = template.resources_of(FUNCTION);
    let expected: Vec<_> = steps
        .iter()
        .map(|step| format!("{}Function", step.pascal()))
        .collect();
    let mut problems = differences(
        "the function resource",
        ("functions/", expected.iter().map(String::as_str)),
        (
            "infra/pipeline.yaml",
            functions.iter().map(|(name, _)| name.as_str()),
        ),
    );
    for step in &steps {
        let (name, pascal) = (&step.name, step.pascal());
        let function = template.properties(&format!("{pascal}Function"));
        let group = template.properties(&format!("{pascal}LogGroup"));
        for (what, is, should) in [
            (
                "FunctionName",
                &function["FunctionName"],
                json!({"Fn::Sub": format!("${{Environment}}-{name}")}),
            ),
            (
                "CodeUri",
                &function["CodeUri"],
                json!(format!("../target/lambda/{name}/bootstrap.zip")),
            ),
            (
                "Role",
                &function["Role"],
                json!({"Fn::GetAtt": [format!("{pascal}Role"), "Arn"]}),
            ),
            (
                "log group",
                &function["LoggingConfig"]["LogGroup"],
                json!({"Ref": format!("{pascal}LogGroup")}),
            ),
            (
                "LogGroupName",
                &group["LogGroupName"],
                json!({"Fn::Sub": format!("/aws/lambda/${{Environment}}-{name}")}),
            ),
        ] {
            if *is != should {
                problems.push(format!("{name}: the {what} is {is}, not {should}"));
            }
        }
        if group["RetentionInDays"].is_null() {
            problems.push(format!("{name}: its log group keeps lines forever"));
        }
        if template.value["Resources"][format!("{pascal}Role")]["Type"] != "AWS::IAM::Role" {
            problems.push(format!("{name}: there is no role {pascal}Role"));
        }
    }
    Ok(problems)
}

/// No two resources share a role, so that each gets only its own permissions.
///
/// # Errors
/// When the template cannot be read.
pub fn roles(repository: &Repository) -> Result<Vec<String>> {
    let template = repository.template("pipeline")?;
    let mut users: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, resource) in template.section("Resources") {
        let role = &resource["Properties"]["Role"];
        if !role.is_null() {
            users.entry(role.to_string()).or_default().push(name);
        }
    }
    let shared = users
        .iter()
        .filter(|(_, users)| users.len() > 1)
        .map(|(role, users)| format!("{} share the role {role}", users.join(" and ")));
    let unused = template
        .resources_of("AWS::IAM::Role")
        .into_iter()
        .filter(|(name, _)| {
            let reference = json!({"Fn::GetAtt": [name, "Arn"]}).to_string();
            !template.value.to_string().contains(&reference)
        })
        .map(|(name, _)| format!("nothing uses the role {name}"));
    Ok(shared.chain(unused).collect())
}

/// Every parameter has a description.
///
/// # Errors
/// When a template cannot be read.
pub fn parameters(repository: &Repository) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for name in ["baseline", "pipeline"] {
        for (parameter, definition) in repository.template(name)?.section("Parameters") {
            let description = definition["Description"].as_str().unwrap_or_default();
            if description.split_whitespace().count() < 3 {
                problems.push(format!(
                    "infra/{name}.yaml: the parameter {parameter} has no Description"
                ));
            }
        }
    }
    Ok(problems)
}

/// Every machine has its resource, gets exactly the placeholders that it uses, and may invoke exactly
/// the functions that it calls.
///
/// # Errors
/// When the template or a machine cannot be read.
pub fn machines(repository: &Repository) -> Result<Vec<String>> {
    Ok(machines_in(
        &repository.template("pipeline")?,
        &repository.machines()?,
    ))
}

/// [`machines`] for a template and machines that were read before.
pub fn machines_in(template: &Template, machines: &[Machine]) -> Vec<String> {
    static PLACEHOLDER: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"\$\{(\w+)\}").expect("a regex"));
    let expected: Vec<_> = machines.iter().map(resource_of).collect();
    let declared = template.resources_of(STATE_MACHINE);
    let mut problems = differences(
        "the state machine resource",
        ("statemachine/", expected.iter().map(String::as_str)),
        (
            "infra/pipeline.yaml",
            declared.iter().map(|(name, _)| name.as_str()),
        ),
    );
    for (machine, resource) in machines.iter().zip(&expected) {
        let name = &machine.name;
        let properties = template.properties(resource);
        for (what, is, should) in [
            (
                "Name",
                &properties["Name"],
                json!({"Fn::Sub": format!("${{Environment}}-{name}")}),
            ),
            (
                "DefinitionUri",
                &properties["DefinitionUri"],
                json!(format!("../statemachine/{name}.asl.json")),
            ),
            (
                "Role",
                &properties["Role"],
                json!({"Fn::GetAtt": [format!("{resource}Role"), "Arn"]}),
            ),
        ] {
            if *is != should {
                problems.push(format!("{name}: the {what} is {is}, not {should}"));
            }
        }
        let substitutions = properties["DefinitionSubstitutions"]
            .as_object()
            .cloned()
            .unwrap_or_default();
        problems.extend(differences(
            &format!("{name}: the placeholder"),
            (
                "the machine",
                PLACEHOLDER
                    .captures_iter(&machine.text)
                    .map(|found| found.extract::<1>().1[0]),
            ),
            (
                "DefinitionSubstitutions",
                substitutions.keys().map(String::as_str),
            ),
        ));
        for (placeholder, value) in &substitutions {
            if let Some(function) = placeholder
                .strip_suffix("Arn")
                .filter(|name| name.ends_with("Function"))
                && *value != json!({"Fn::GetAtt": [function, "Arn"]})
            {
                problems.push(format!(
                    "{name}: {placeholder} is {value}, not the ARN of {function}"
                ));
            }
        }
        let granted = allowed_actions(template, &format!("{resource}Role"));
        for action in machine.states().filter_map(|(_, state)| integration(state)) {
            if !granted.contains(&action) {
                problems.push(format!("{name}: its role does not allow {action}"));
            }
        }
        let mut called: BTreeSet<_> = machine
            .states()
            .filter_map(|(_, state)| function_of(state))
            .map(|function| format!("{function}Function"))
            .collect();
        if machine.states().any(|(_, state)| runs_a_hook(state)) {
            called.insert(json!({"Fn::Sub": HOOKS}).to_string());
        }
        let allowed = may_invoke(template, &format!("{resource}Role"));
        problems.extend(differences(
            &format!("{name}: the function"),
            ("the machine", called.iter().map(String::as_str)),
            (
                "what its role may invoke",
                allowed.iter().map(String::as_str),
            ),
        ));
    }
    problems
}

fn resource_of(machine: &Machine) -> String {
    format!("{}StateMachine", machine.name.to_upper_camel_case())
}

fn may_invoke(template: &Template, role: &str) -> Vec<String> {
    let arns = template
        .statements()
        .into_iter()
        .filter(|statement| statement.resource == role)
        .filter(|statement| {
            statement
                .actions()
                .contains(&"lambda:InvokeFunction".to_owned())
        })
        .map(|statement| statement.value["Resource"].clone());
    arns.flat_map(|arns| match arns {
        Value::Array(arns) => arns,
        one => vec![one],
    })
    .map(|arn| match &strings(&arn["Fn::GetAtt"])[..] {
        [function, attribute] if attribute == "Arn" => function.clone(),
        _ => arn.to_string(),
    })
    .collect()
}

/// A state, a rule or a schedule runs every function.
///
/// # Errors
/// When the template or a machine cannot be read.
pub fn uses(repository: &Repository) -> Result<Vec<String>> {
    let template = repository.template("pipeline")?;
    let machines = repository.machines()?;
    let mut used: BTreeSet<String> = machines
        .iter()
        .flat_map(|machine| machine.states().filter_map(|(_, state)| function_of(state)))
        .map(|function| format!("{function}Function"))
        .collect();
    for kind in ["AWS::Events::Rule", "AWS::Scheduler::Schedule"] {
        for (_, resource) in template.resources_of(kind) {
            let targets = [
                &resource["Properties"]["Targets"],
                &resource["Properties"]["Target"],
            ];
            for target in targets.into_iter().flat_map(|target| match target {
                Value::Array(targets) => targets.iter().collect(),
                one => vec![one],
            }) {
                used.extend(strings(&target["Arn"]["Fn::GetAtt"]).into_iter().next());
            }
        }
    }
    Ok(repository
        .steps()
        .iter()
        .filter(|step| !used.contains(&format!("{}Function", step.pascal())))
        .map(|step| format!("no state, rule or schedule runs {}", step.name))
        .collect())
}

/// A function's timeout in seconds, by the name of its resource without `Function`.
pub(super) fn timeout_of(template: &Template, function: &str) -> u64 {
    let shared = &template.value["Globals"]["Function"]["Timeout"];
    template.properties(&format!("{function}Function"))["Timeout"]
        .as_u64()
        .or(shared.as_u64())
        // Lambda's own default:
        // https://docs.aws.amazon.com/lambda/latest/dg/configuration-timeout.html
        .unwrap_or(3)
}

/// The action that a state calls by an integration with an SDK:
/// <https://docs.aws.amazon.com/step-functions/latest/dg/supported-services-awssdk.html>.
fn integration(state: &Value) -> Option<String> {
    let (_, call) = state["Resource"].as_str()?.split_once(":aws-sdk:")?;
    let (service, operation) = call.split_once(':')?;
    let service = match service {
        "sfn" => "states",
        service => service,
    };
    Some(format!("{service}:{}", operation.to_upper_camel_case()))
}

/// The actions that a role allows.
fn allowed_actions(template: &Template, role: &str) -> BTreeSet<String> {
    let statements = template.statements().into_iter();
    let of_role = statements.filter(|statement| statement.resource == role);
    of_role.flat_map(|statement| statement.actions()).collect()
}
