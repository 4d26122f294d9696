//! What the documents promise of the templates, and that each promise has a test.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use anyhow::{Context, Result};
use heck::ToUpperCamelCase;
use regex::Regex;
use serde_json::{Value, json};

use crate::{Machine, Repository, Template, markdown};

const BASELINE: &str = "infra/baseline.yaml";
const PIPELINE: &str = "infra/pipeline.yaml";
/// The document with the table of promises.
const TESTS: &str = "tests/README.md";
/// The heading above that table.
const SECTION: &str = "Which test holds which promise";
/// For how many days the repository keeps parts of images that no image refers to.
const UNTAGGED_DAYS: u8 = 14;
/// The folder of the tests that macros make.
const MADE_BY_MACROS: &str = "tests/contract/tests/contract/";

/// Each promise of the table in `tests/README.md` has a test, and each test that it names exists and runs.
///
/// # Errors
/// When the document cannot be read.
pub fn tested(repository: &Repository) -> Result<Vec<String>> {
    let text = repository.file(TESTS).context(TESTS)?;
    let tests: BTreeSet<&str> = repository
        .below("")
        .filter(|(path, _)| path.ends_with(".rs"))
        .flat_map(|(path, text)| tests_in(path, text))
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
        problems.extend(unknown.map(|name| {
            format!("{TESTS}: `{promise}`: the test {name} does not exist or does not run")
        }));
    }
    Ok(problems)
}

/// The tests that run by themselves: functions with the attribute of a test, and in this crate's tests the lines
/// of the macros that make one of each.
fn tests_in<'a>(path: &str, text: &'a str) -> Vec<&'a str> {
    static FUNCTION: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"(?m)((?:^[ \t]*(?:#\[.*\]|//.*)\n)+)^[ \t]*(?:async )?fn (\w+)\(\)")
            .expect("a regex")
    });
    static IS_TEST: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"(?m)^\s*#\[(?:tokio::)?test[\](]").expect("a regex"));
    static IS_LEFT_OUT: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"(?m)^\s*#\[(?:ignore|cfg)").expect("a regex"));
    static MACRO: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"(?ms)^(?:contract|mistakes)! \{$(.*?)^\}").expect("a regex"));
    static LINE: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"(?m)^    (\w+): \w+::\w+[;,]").expect("a regex"));
    let mut names = Vec::new();
    for found in FUNCTION.captures_iter(text) {
        let (attributes, name) = (&found[1], found.get(2).map(|it| it.as_str()));
        if IS_TEST.is_match(attributes) && !IS_LEFT_OUT.is_match(attributes) {
            names.extend(name);
        }
    }
    if path.starts_with(MADE_BY_MACROS) {
        for found in MACRO.captures_iter(text) {
            let lines = found.get(1).map_or("", |it| it.as_str());
            let lines = LINE.captures_iter(lines);
            names.extend(lines.filter_map(|line| line.get(1)).map(|it| it.as_str()));
        }
    }
    names
}

/// The load balancer takes HTTPS, and HTTP only to redirect it; a task's port is open to the load balancer and the drain
/// function alone, and nothing reaches that function.
///
/// # Errors
/// When a template cannot be read.
pub fn network(repository: &Repository) -> Result<Vec<String>> {
    let template = repository.template("baseline")?;
    let templates = [
        (BASELINE, &template),
        (PIPELINE, &repository.template("pipeline")?),
    ];
    let mut reached = reached(&templates);
    let from = |port: u16, (source, value): (&str, Value)| -> Value {
        json!({"IpProtocol": "tcp", "FromPort": port, "ToPort": port, source: value})
    };
    let anyone = || ("CidrIp", json!("0.0.0.0/0"));
    let group = |name: &str| ("SourceSecurityGroupId", json!({"Ref": name}));
    let mut problems = Vec::new();
    for (name, expected, problem) in [
        (
            "AlbSecurityGroup",
            vec![from(443, anyone()), from(80, anyone())],
            "the load balancer is open on other ports than 443 and 80",
        ),
        (
            "ServiceSecurityGroup",
            vec![
                from(8000, group("AlbSecurityGroup")),
                from(8000, group("DrainSecurityGroup")),
            ],
            "tasks are reached by others than the load balancer and the drain function",
        ),
        (
            "DrainSecurityGroup",
            Vec::new(),
            "the drain function is reached by others",
        ),
    ] {
        if reached.remove(name).unwrap_or_default() != sorted(expected) {
            problems.push(format!("{BASELINE}: {problem}"));
        }
    }
    let unknown = reached.into_iter().filter(|(_, rules)| !rules.is_empty());
    problems.extend(
        unknown.map(|(group, _)| format!("{group} is reached too, and no document says by whom")),
    );
    let redirect = json!([{
        "Type": "redirect",
        "RedirectConfig": {"Protocol": "HTTPS", "Port": "443", "StatusCode": "HTTP_301"},
    }]);
    if template.properties("HttpListener")["DefaultActions"] != redirect {
        problems.push(format!("{BASELINE}: HTTP is not redirected to HTTPS"));
    }
    Ok(problems)
}

/// What may reach each security group, by rules of the group and by rules that are resources of their own, in any
/// of the templates.
fn reached(templates: &[(&str, &Template)]) -> BTreeMap<String, Vec<Value>> {
    let mut reached: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for (path, template) in templates {
        for (group, value) in template.resources_of("AWS::EC2::SecurityGroup") {
            let rules = match &value["Properties"]["SecurityGroupIngress"] {
                Value::Null => Vec::new(),
                Value::Array(rules) => rules.clone(),
                // A condition, which no rule is equal to.
                other => vec![other.clone()],
            };
            let rules = rules.into_iter().map(plain);
            reached.entry(group).or_default().extend(rules);
        }
        for (name, value) in template.resources_of("AWS::EC2::SecurityGroupIngress") {
            let mut rule = value["Properties"].clone();
            let fields = rule.as_object_mut();
            let group = fields.and_then(|fields| fields.remove("GroupId"));
            let group = named(group.unwrap_or_default());
            let group = match group["Ref"].as_str() {
                Some(group) => group.to_owned(),
                None => format!("the group of {name} in {path}"),
            };
            reached.entry(group).or_default().push(plain(rule));
        }
    }
    reached
        .into_iter()
        .map(|(group, rules)| (group, sorted(rules)))
        .collect()
}

/// A rule without its description, and with its source as [`named`] has it.
fn plain(mut rule: Value) -> Value {
    if let Some(fields) = rule.as_object_mut() {
        fields.remove("Description");
        if let Some(source) = fields.get_mut("SourceSecurityGroupId") {
            *source = named(source.take());
        }
    }
    rule
}

/// A reference to a security group as `Ref`, whether by its attribute or as the baseline exports it.
fn named(group: Value) -> Value {
    if group["Fn::GetAtt"][1] == "GroupId" {
        return json!({"Ref": group["Fn::GetAtt"][0]});
    }
    let exported = group["Fn::ImportValue"]["Fn::Sub"].as_str();
    let exported = exported
        .and_then(|name| name.strip_prefix("${Environment}-baseline-"))
        .and_then(|name| name.strip_suffix("Id"));
    match exported {
        Some(name) => json!({"Ref": name}),
        None => group,
    }
}

fn sorted(mut rules: Vec<Value>) -> Vec<Value> {
    for rule in &mut rules {
        rule.sort_all_objects();
    }
    rules.sort_by_key(Value::to_string);
    rules
}

/// The repository keeps what an operator has tagged and the newest images, as many as the documents say.
///
/// # Errors
/// When the template or the document cannot be read.
pub fn images(repository: &Repository) -> Result<Vec<String>> {
    let template = repository.template("baseline")?;
    let policy =
        &template.properties("Repository")["LifecyclePolicy"]["LifecyclePolicyText"]["Fn::Sub"];
    // In place of the parameter, a number that the text does not contain.
    let policy = policy
        .as_str()
        .unwrap_or_default()
        .replace("${ImagesKept}", "777");
    let mut policy: Value = serde_json::from_str(&policy).context("the lifecycle policy")?;
    for rule in policy["rules"].as_array_mut().into_iter().flatten() {
        if let Some(fields) = rule.as_object_mut() {
            fields.remove("description");
        }
    }
    let newest = |priority: u8, prefix: &str, number: u32| {
        let selection = json!({
            "tagStatus": "tagged", "tagPrefixList": [prefix],
            "countType": "imageCountMoreThan", "countNumber": number,
        });
        json!({"rulePriority": priority, "selection": selection, "action": {"type": "expire"}})
    };
    let untagged = json!({
        "tagStatus": "untagged", "countType": "sinceImagePushed", "countUnit": "days", "countNumber": UNTAGGED_DAYS,
    });
    // An image that a rule matches is never expired by a later one, and no repository has that many images.
    // https://docs.aws.amazon.com/AmazonECR/latest/userguide/LifecyclePolicies.html#lp_evaluation_rules
    let expected = json!({"rules": [
        newest(1, "KEEP-", 100_000),
        {"rulePriority": 2, "selection": untagged, "action": {"type": "expire"}},
        newest(3, "${Environment}-", 777),
    ]});
    let mut problems = Vec::new();
    if policy != expected {
        problems.push(format!(
            "{BASELINE}: images are kept in another way: {policy} in place of {expected}"
        ));
    }
    let kept = &template.section("Parameters")["ImagesKept"]["Default"];
    let document = "docs/aws.md";
    let text = repository.file(document).context(document)?;
    for said in [
        format!("keeps the newest {kept} images"),
        format!("expire {UNTAGGED_DAYS} days after they were pushed"),
    ] {
        if !text.contains(&said) {
            problems.push(format!("{document} does not say `{said}`"));
        }
    }
    Ok(problems)
}

/// Each alarm reports to the failure topic, is in the documents, and watches what its name says.
///
/// # Errors
/// When the template, a machine or the document cannot be read.
pub fn alarms(repository: &Repository) -> Result<Vec<String>> {
    let template = repository.template("pipeline")?;
    let document = "docs/aws.md";
    let text = repository.file(document).context(document)?;
    let mut problems = Vec::new();
    let mut names = BTreeSet::new();
    for (alarm, value) in template.resources_of("AWS::CloudWatch::Alarm") {
        let properties = &value["Properties"];
        let topic = json!([{"Ref": "FailureTopic"}]);
        if properties["AlarmActions"] != topic || properties["ActionsEnabled"] == false {
            problems.push(format!(
                "{PIPELINE}: {alarm} does not report to the failure topic"
            ));
        }
        let name = properties["AlarmName"]["Fn::Sub"]
            .as_str()
            .unwrap_or_default()
            .replace("${Environment}-", "");
        let watched = match name.as_str() {
            "unhealthy-targets" => Some(reported_by_cleanups(repository, &template)?),
            name => ended(name).map(|watched| (watched, "Sum")),
        };
        if let Some((watched, statistic)) = watched {
            let keys = ["Namespace", "MetricName", "Dimensions"];
            let own: Value = keys
                .map(|key| properties[key].clone())
                .into_iter()
                .collect();
            let own_threshold = json!([
                properties["Statistic"],
                properties["ComparisonOperator"],
                properties["Threshold"]
            ]);
            if own != watched {
                problems.push(format!(
                    "{PIPELINE}: {alarm} watches {own} in place of {watched}"
                ));
            }
            let threshold = json!([statistic, "GreaterThanThreshold", 0]);
            if own_threshold != threshold {
                problems.push(format!(
                    "{PIPELINE}: {alarm} compares {own_threshold} in place of {threshold}"
                ));
            }
        }
        names.insert(name);
    }
    let mut expected: BTreeSet<String> = MACHINES
        .iter()
        .flat_map(|machine| ENDINGS.map(|(ending, _)| format!("{machine}-{ending}")))
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

/// The machines whose executions have alarms.
const MACHINES: [&str; 3] = ["deploy", "cleanup", "rollback"];
/// The ways in which an execution fails, each with its metric:
/// <https://docs.aws.amazon.com/step-functions/latest/dg/procedure-cw-metrics.html>.
const ENDINGS: [(&str, &str); 3] = [
    ("failed", "ExecutionsFailed"),
    ("timed-out", "ExecutionsTimedOut"),
    ("aborted", "ExecutionsAborted"),
];

/// What an alarm on a way in which executions fail watches, by the alarm's name: the namespace, the metric and the
/// dimensions.
fn ended(alarm: &str) -> Option<Value> {
    let (machine, ending) = alarm.split_once('-')?;
    let (_, metric) = ENDINGS.iter().find(|(known, _)| *known == ending)?;
    let machine = format!("{}StateMachine", machine.to_upper_camel_case());
    Some(json!(["AWS/States", metric, [{"Name": "StateMachineArn", "Value": {"Ref": machine}}]]))
}

/// What a cleanup reports of the active deployment's targets: the namespace, the metric and the dimensions. Its
/// alarm wants the minimum, because each cleanup within its period has to find too few.
fn reported_by_cleanups(
    repository: &Repository,
    template: &Template,
) -> Result<(Value, &'static str)> {
    let machines = repository.machines()?;
    let mut states = machines
        .iter()
        .filter(|machine| machine.name == "cleanup")
        .flat_map(Machine::states);
    let (_, state) = states
        .find(|(name, _)| *name == "ReportHealth")
        .context("no state ReportHealth")?;
    let arguments = &state["Arguments"];
    let metric = &arguments["MetricData"][0];
    let mut dimensions = metric["Dimensions"].clone();
    let substitutions = &template.properties("CleanupStateMachine")["DefinitionSubstitutions"];
    for dimension in dimensions.as_array_mut().into_iter().flatten() {
        let value = dimension["Value"].as_str().unwrap_or_default();
        let placeholder = value.strip_prefix("${").and_then(|it| it.strip_suffix('}'));
        if let Some(placeholder) = placeholder {
            dimension["Value"] = substitutions[placeholder].clone();
        }
    }
    let watched = json!([arguments["Namespace"], metric["MetricName"], dimensions]);
    Ok((watched, "Minimum"))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn reached_in(text: &str) -> BTreeMap<String, Vec<Value>> {
        reached(&[("a template", &Template::parse(text).expect("a template"))])
    }

    #[test]
    fn rules_count_whether_they_are_in_a_group_or_resources_of_their_own() {
        let within = "
Resources:
  Tasks:
    Type: AWS::EC2::SecurityGroup
    Properties:
      SecurityGroupIngress:
        - { Description: Requests, IpProtocol: tcp, FromPort: 8000, ToPort: 8000, SourceSecurityGroupId: !Ref Alb }
        - { IpProtocol: tcp, FromPort: 8000, ToPort: 8000, SourceSecurityGroupId: !GetAtt Drain.GroupId }
";
        let apart = "
Resources:
  Tasks:
    Type: AWS::EC2::SecurityGroup
  Draining:
    Type: AWS::EC2::SecurityGroupIngress
    Properties:
      GroupId: !ImportValue { \"Fn::Sub\": \"${Environment}-baseline-TasksId\" }
      SourceSecurityGroupId: !Ref Drain
      IpProtocol: tcp
      FromPort: 8000
      ToPort: 8000
  Requests:
    Type: AWS::EC2::SecurityGroupIngress
    Properties:
      GroupId: !GetAtt Tasks.GroupId
      IpProtocol: tcp
      FromPort: 8000
      ToPort: 8000
      SourceSecurityGroupId: !GetAtt Alb.GroupId
";
        assert_eq!(reached_in(within)["Tasks"].len(), 2);
        assert_eq!(reached_in(within), reached_in(apart));
    }

    #[test]
    fn tests_that_do_not_run_are_not_tests() {
        let text = "
#[test]
fn runs() {}

/// Says why.
#[tokio::test(flavor = \"multi_thread\")]
async fn runs_too() {}

#[test]
#[ignore = \"slow\"]
fn is_ignored() {}

#[cfg(any())]
#[test]
fn is_left_out() {}

fn is_a_helper() {}

contract! {
    is_made_by_a_macro: promises::network;
    // is_commented_out: promises::network;
}

struct Run {
    is_a_field: serde_json::Value,
}
";
        assert_eq!(
            tests_in("functions/a/src/tests.rs", text),
            ["runs", "runs_too"]
        );
        let made = ["runs", "runs_too", "is_made_by_a_macro"];
        assert_eq!(
            tests_in("tests/contract/tests/contract/main.rs", text),
            made
        );
    }
}
