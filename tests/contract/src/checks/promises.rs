//! What the documents promise of the templates, and that each promise has a test.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use anyhow::{Context, Result};
use regex::Regex;
use serde_json::{Value, json};

use crate::{Repository, markdown};

const BASELINE: &str = "infra/baseline.yaml";
const PIPELINE: &str = "infra/pipeline.yaml";
/// The document with the table of promises.
const TESTS: &str = "tests/README.md";
/// The heading above that table.
const SECTION: &str = "Which test holds which promise";

/// Each promise of the table in `tests/README.md` has a test, and each test that it names exists.
///
/// # Errors
/// When the document cannot be read.
pub fn tested(repository: &Repository) -> Result<Vec<String>> {
    static NAMED: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"(?m)^\s*(?:async )?fn (\w+)\(|^    (\w+): ").expect("a regex")
    });
    let text = repository.file(TESTS).context(TESTS)?;
    let tests: BTreeSet<&str> = repository
        .below("")
        .filter(|(path, _)| path.ends_with(".rs"))
        .flat_map(|(_, text)| NAMED.captures_iter(text))
        .filter_map(|found| found.get(1).or(found.get(2)))
        .map(|name| name.as_str())
        .collect();
    let (tables, _) = markdown::read(text);
    let rows: Vec<_> = tables
        .iter()
        .filter(|table| table.section == SECTION)
        .flat_map(|table| &table.rows)
        .collect();
    let mut problems = Vec::new();
    if rows.len() < 15 {
        problems.push(format!(
            "{TESTS}: the table of promises has {} rows",
            rows.len()
        ));
    }
    for row in rows {
        let (promise, named) = (&row[0], &row[1]);
        let names: Vec<&str> = named
            .split(',')
            .map(str::trim)
            .filter(|it| !it.is_empty())
            .collect();
        if names.is_empty() {
            problems.push(format!("{TESTS}: `{promise}` has no test"));
        }
        let unknown = names.into_iter().filter(|name| !tests.contains(name));
        problems
            .extend(unknown.map(|name| format!("{TESTS}: `{promise}`: there is no test {name}")));
    }
    Ok(problems)
}

/// The load balancer takes HTTPS, and HTTP only to redirect it; a task's port is open to the load balancer and the drain
/// function alone.
///
/// # Errors
/// When the template cannot be read.
pub fn network(repository: &Repository) -> Result<Vec<String>> {
    let template = repository.template("baseline")?;
    let ingress = |group: &str| -> Vec<Value> {
        let rules = &template.properties(group)["SecurityGroupIngress"];
        let rules = rules.as_array().into_iter().flatten();
        rules
            .map(|rule| {
                let from = match &rule["SourceSecurityGroupId"]["Ref"] {
                    Value::Null => &rule["CidrIp"],
                    group => group,
                };
                json!([rule["FromPort"], rule["ToPort"], from])
            })
            .collect()
    };
    let anyone = "0.0.0.0/0";
    let mut problems = Vec::new();
    if ingress("AlbSecurityGroup") != [json!([443, 443, anyone]), json!([80, 80, anyone])] {
        problems.push(format!(
            "{BASELINE}: the load balancer is open on other ports than 443 and 80"
        ));
    }
    let callers = ["AlbSecurityGroup", "DrainSecurityGroup"].map(|from| json!([8000, 8000, from]));
    if ingress("ServiceSecurityGroup") != callers {
        problems.push(format!(
            "{BASELINE}: tasks are reached by others than the load balancer and the drain function"
        ));
    }
    let redirect = json!([{
        "Type": "redirect",
        "RedirectConfig": {"Protocol": "HTTPS", "Port": "443", "StatusCode": "HTTP_301"},
    }]);
    if template.properties("HttpListener")["DefaultActions"] != redirect {
        problems.push(format!("{BASELINE}: HTTP is not redirected to HTTPS"));
    }
    Ok(problems)
}

/// The repository keeps what an operator has tagged and the newest images, as many as the documents say.
///
/// # Errors
/// When the template or the document cannot be read.
pub fn images(repository: &Repository) -> Result<Vec<String>> {
    let template = repository.template("baseline")?;
    let policy =
        &template.properties("Repository")["LifecyclePolicy"]["LifecyclePolicyText"]["Fn::Sub"];
    let policy = policy
        .as_str()
        .unwrap_or_default()
        .replace("${ImagesKept}", "0");
    let policy: Value = serde_json::from_str(&policy).context("the lifecycle policy")?;
    let prefixes: Vec<_> = policy["rules"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|rule| {
            (
                &rule["rulePriority"],
                &rule["selection"]["tagPrefixList"][0],
            )
        })
        .collect();
    let mut problems = Vec::new();
    let expected = [
        (&json!(1), &json!("KEEP-")),
        (&json!(2), &Value::Null),
        (&json!(3), &json!("${Environment}-")),
    ];
    if prefixes != expected {
        problems.push(format!(
            "{BASELINE}: images with a tag KEEP-… are not kept first"
        ));
    }
    let kept = &template.section("Parameters")["ImagesKept"]["Default"];
    let document = "docs/aws.md";
    let said = format!("keeps the newest {kept} images");
    if !repository.file(document).context(document)?.contains(&said) {
        problems.push(format!("{document} does not say `{said}`"));
    }
    Ok(problems)
}

/// Each alarm reports to the failure topic and is in the documents.
///
/// # Errors
/// When the template or the document cannot be read.
pub fn alarms(repository: &Repository) -> Result<Vec<String>> {
    let template = repository.template("pipeline")?;
    let document = "docs/aws.md";
    let text = repository.file(document).context(document)?;
    let mut problems = Vec::new();
    let mut names = BTreeSet::new();
    for (alarm, value) in template.resources_of("AWS::CloudWatch::Alarm") {
        let properties = &value["Properties"];
        if properties["AlarmActions"] != json!([{"Ref": "FailureTopic"}]) {
            problems.push(format!(
                "{PIPELINE}: {alarm} does not report to the failure topic"
            ));
        }
        let name = properties["AlarmName"]["Fn::Sub"]
            .as_str()
            .unwrap_or_default();
        names.insert(name.replace("${Environment}-", ""));
    }
    let machines = ["deploy", "cleanup", "rollback"];
    let endings = ["failed", "timed-out", "aborted"];
    let mut expected: BTreeSet<String> = machines
        .iter()
        .flat_map(|machine| endings.map(|ending| format!("{machine}-{ending}")))
        .collect();
    for (name, _) in text
        .match_indices("the alarm `test-")
        .filter_map(|(at, found)| text[at + found.len()..].split_once('`'))
    {
        expected.insert(name.to_owned());
    }
    problems.extend(super::differences(
        "the alarm",
        (document, expected.iter().map(String::as_str)),
        (PIPELINE, names.iter().map(String::as_str)),
    ));
    Ok(problems)
}

/// One rule may start deployments, and nothing else of EventBridge.
///
/// # Errors
/// When the template cannot be read.
pub fn one_trigger(repository: &Repository) -> Result<Vec<String>> {
    let template = repository.template("pipeline")?;
    let permissions: Vec<Value> = template
        .resources_of("AWS::Lambda::Permission")
        .into_iter()
        .map(|(_, permission)| permission["Properties"].clone())
        .collect();
    let expected = json!([{
        "FunctionName": {"Ref": "StartDeploymentFunction"},
        "Action": "lambda:InvokeFunction",
        "Principal": "events.amazonaws.com",
        "SourceArn": {"Fn::GetAtt": ["ImagePushedRule", "Arn"]},
    }]);
    let problem = format!("{PIPELINE}: something else than the rule of pushes may call a function");
    Ok(Vec::from_iter(
        (json!(permissions) != expected).then_some(problem),
    ))
}
