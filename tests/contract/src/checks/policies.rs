//! Who may assume a role, who may send to a queue or a topic, and what a role may change.

use std::collections::BTreeSet;

use anyhow::Result;
use heck::ToUpperCamelCase;
use serde_json::{Value, json};

use crate::template::Statement;
use crate::{Machine, Repository, Template};

const PIPELINE: &str = "infra/pipeline.yaml";
const BASELINE: &str = "infra/baseline.yaml";
const RULES: &str = "events.amazonaws.com";
const ALARMS: &str = "cloudwatch.amazonaws.com";

/// The actions that change, delete or run a resource that exists. A role may do them only to what carries its environment's
/// tag, because a name alone can be anybody's.
const CHANGES: [&str; 12] = [
    "ecs:DeleteService",
    "ecs:RunTask",
    "ecs:StopTask",
    "ecs:TagResource",
    "ecs:UpdateService",
    "elasticloadbalancing:AddTags",
    "elasticloadbalancing:DeleteRule",
    "elasticloadbalancing:DeleteTargetGroup",
    "elasticloadbalancing:ModifyRule",
    "elasticloadbalancing:ModifyTargetGroup",
    "elasticloadbalancing:ModifyTargetGroupAttributes",
    "elasticloadbalancing:RemoveTags",
];

/// Each role is assumed by the service that uses it and by no other, on behalf of this account. Lambda sends no keys
/// for a condition.
///
/// # Errors
/// When a template cannot be read.
pub fn trust(repository: &Repository) -> Result<Vec<String>> {
    let pipeline = repository.template("pipeline")?;
    let mut problems = trusted(PIPELINE, &pipeline, |role| user_of(&pipeline, role));
    let baseline = repository.template("baseline")?;
    problems.extend(trusted(BASELINE, &baseline, |_| {
        Some("ecs-tasks.amazonaws.com")
    }));
    Ok(problems)
}

fn trusted(
    path: &str,
    template: &Template,
    user_of: impl Fn(&str) -> Option<&'static str>,
) -> Vec<String> {
    let account = json!({"aws:SourceAccount": {"Ref": "AWS::AccountId"}});
    let mut problems = Vec::new();
    for (role, value) in template.resources_of("AWS::IAM::Role") {
        let Some(user) = user_of(&role) else {
            problems.push(format!("{path}: nothing uses {role}"));
            continue;
        };
        let statements = &value["Properties"]["AssumeRolePolicyDocument"]["Statement"];
        let statements = statements.as_array().map_or(&[][..], Vec::as_slice);
        let [statement] = statements else {
            let number = statements.len();
            problems.push(format!("{path}: {role} has {number} trust statements"));
            continue;
        };
        let is_trusted = statement["Effect"] == "Allow"
            && statement["Principal"] == json!({"Service": user})
            && statement["Action"] == "sts:AssumeRole";
        if !is_trusted {
            problems.push(format!("{path}: {role} does not trust {user} alone"));
        }
        let needs_account = user != "lambda.amazonaws.com";
        if needs_account && statement["Condition"]["StringEquals"] != account {
            problems.push(format!("{path}: {role} is assumed for other accounts too"));
        }
    }
    problems
}

/// The service that a resource of the template gives the role to.
fn user_of(template: &Template, role: &str) -> Option<&'static str> {
    let arn = json!({"Fn::GetAtt": [role, "Arn"]});
    let resources = template.section("Resources");
    resources.values().find_map(|resource| {
        let properties = &resource["Properties"];
        match resource["Type"].as_str()? {
            "AWS::Serverless::Function" if properties["Role"] == arn => {
                Some("lambda.amazonaws.com")
            }
            "AWS::Serverless::StateMachine" if properties["Role"] == arn => {
                Some("states.amazonaws.com")
            }
            "AWS::Scheduler::Schedule" if properties["Target"]["RoleArn"] == arn => {
                Some("scheduler.amazonaws.com")
            }
            _ => None,
        }
    })
}

/// What a role may change carries the tag of its environment.
///
/// # Errors
/// When a template cannot be read.
pub fn changes(repository: &Repository) -> Result<Vec<String>> {
    Ok(untied(&repository.template("pipeline")?))
}

/// [`changes`] for a template that was read before.
pub fn untied(template: &Template) -> Vec<String> {
    let own = json!({"Ref": "Environment"});
    let mut problems = Vec::new();
    for statement in template.statements().iter().filter(|it| it.allows()) {
        let condition = &statement.value["Condition"]["StringEquals"];
        // While a resource is created, it has no tag yet.
        if condition.to_string().contains(":CreateAction\"") {
            continue;
        }
        let changes = statement.actions().into_iter();
        for action in changes.filter(|action| CHANGES.contains(&&**action)) {
            if condition["aws:ResourceTag/pulse:environment"] != own {
                problems.push(format!(
                    "{PIPELINE}:{} ({}) allows {action} of what is not the environment's",
                    statement.line, statement.resource
                ));
            }
        }
    }
    problems
}

const SCALING_OF_ECS: &str = "ecs.application-autoscaling.amazonaws.com";
const SECRETS: &str =
    "arn:${AWS::Partition}:secretsmanager:${AWS::Region}:${AWS::AccountId}:secret";

/// The actions that move traffic, run what visitors reach or read a secret: each role that may do them, with exactly the
/// resource. `docs/security.md` promises that no other role may do them.
fn narrow() -> Value {
    let of_the_baseline = |name: &str| -> Value {
        json!({"Fn::ImportValue": {"Fn::Sub": format!("${{Environment}}-baseline-{name}")}})
    };
    let listener = json!({"Ref": "ListenerArn"});
    let task_roles = json!(["ExecutionRoleArn", "TaskRoleArn"].map(of_the_baseline));
    let client_secret = json!(["", "-??????"].map(|suffix| {
        json!({"Fn::Sub": format!("{SECRETS}:${{Environment}}/oidc-client-secret{suffix}")})
    }));
    let of_releases = "arn:${AWS::Partition}:ecs:${AWS::Region}:${AWS::AccountId}:task-definition/${Environment}-release:*";
    json!({
        "ecs:RunTask": {"RunReleaseRole": {"Fn::Sub": of_releases}},
        "iam:CreateServiceLinkedRole": {"RegisterScalingRole": {"Fn::Sub": format!("arn:${{AWS::Partition}}:iam::${{AWS::AccountId}}:role/aws-service-role/{SCALING_OF_ECS}/AWSServiceRoleForApplicationAutoScaling_ECSService")}},
        "elasticloadbalancing:ModifyListener": {"SwitchTrafficRole": listener},
        "elasticloadbalancing:CreateRule": {"CreateListenerRuleRole": listener},
        "iam:PassRole": {
            "BaseRolesPolicy": {"Ref": "BaseRoleArns"},
            "CreateServiceRole": task_roles,
            "RegisterTaskDefinitionRole": task_roles,
            "RestartRolloutRole": task_roles,
            "RestoreDeploymentRole": task_roles,
            "RunReleaseRole": task_roles,
        },
        "secretsmanager:GetSecretValue": {
            "CreateListenerRuleRole": client_secret,
            "DrainDeploymentRole": of_the_baseline("DrainSecretArn"),
            "ExecutionRole": {"Fn::Sub": format!("{SECRETS}:${{Environment}}/*")},
            "SwitchTrafficRole": client_secret,
            "ValidateDeploymentRole": client_secret,
        },
        "sns:Publish": {
            "DeployStateMachineRole": {"Ref": "FailureTopic"},
            "FailureTopicPolicy": {"Ref": "FailureTopic"},
        },
        "states:SendTaskSuccess": {"EndApprovalsRole": "*"},
        "states:StartExecution": {
            "CleanupScheduleRole": {"Ref": "CleanupStateMachine"},
            "StartDeploymentRole": {
                "Fn::Sub": "arn:${AWS::Partition}:states:${AWS::Region}:${AWS::AccountId}:stateMachine:${Environment}-deploy"
            },
            "WatchDeploymentRole": {
                "Fn::Sub": "arn:${AWS::Partition}:states:${AWS::Region}:${AWS::AccountId}:stateMachine:${Environment}-rollback"
            },
        },
    })
}

/// Only the roles that need them may do the actions of `narrow`, each on exactly its resource.
///
/// # Errors
/// When a template cannot be read.
pub fn exact(repository: &Repository) -> Result<Vec<String>> {
    let narrow = narrow();
    let mut problems = Vec::new();
    for (path, name) in [(BASELINE, "baseline"), (PIPELINE, "pipeline")] {
        let statements = repository.template(name)?.statements();
        for statement in statements.iter().filter(|it| it.allows()) {
            for action in statement.actions() {
                let Some(roles) = narrow.get(&action) else {
                    continue;
                };
                let place = format!("{path}:{} ({})", statement.line, statement.resource);
                let resource = &statement.value["Resource"];
                if roles.get(&statement.resource) != Some(resource) {
                    problems.push(format!("{place} allows {action} of {resource}"));
                }
            }
        }
    }
    Ok(problems)
}

/// Roles are passed to tasks of ECS and to nothing else, and those of a team's own base task definition by every function
/// that passes roles.
///
/// # Errors
/// When a template cannot be read.
pub fn passed_roles(repository: &Repository) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    let mut passes = BTreeSet::new();
    let to_tasks = json!({"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}});
    for (name, path) in [("baseline", BASELINE), ("pipeline", PIPELINE)] {
        for statement in repository.template(name)?.statements() {
            let (role, line) = (&statement.resource, statement.line);
            if !statement.actions().iter().any(|it| it == "iam:PassRole") {
                continue;
            }
            if statement.value["Condition"] != to_tasks {
                problems.push(format!(
                    "{path}:{line} ({role}) passes roles to more than tasks of ECS"
                ));
            }
            if role.ends_with("Role") {
                passes.insert(role.clone());
            }
        }
    }
    let pipeline = repository.template("pipeline")?;
    let policy = &pipeline.value["Resources"]["BaseRolesPolicy"];
    let statement = &policy["Properties"]["PolicyDocument"]["Statement"];
    if policy["Condition"] != "HasBaseRoles"
        || statement.as_array().map(Vec::len) != Some(1)
        || statement[0]["Resource"] != json!({"Ref": "BaseRoleArns"})
    {
        problems.push(format!(
            "{PIPELINE}: BaseRolesPolicy is not for the roles of BaseRoleArns alone"
        ));
    }
    let roles = policy["Properties"]["Roles"]
        .as_array()
        .into_iter()
        .flatten();
    let roles: BTreeSet<_> = roles.filter_map(|it| it["Ref"].as_str()).collect();
    problems.extend(super::differences(
        "the role",
        ("what passes roles", passes.iter().map(String::as_str)),
        ("BaseRolesPolicy", roles),
    ));
    Ok(problems)
}

/// Queues, topics and keys let in what sends to them: a rule its events and its dead letters, an alarm its changes, a machine
/// its messages.
///
/// # Errors
/// When the template cannot be read.
pub fn senders(repository: &Repository) -> Result<Vec<String>> {
    let template = repository.template("pipeline")?;
    let statements = template.statements();
    let mut problems = Vec::new();
    for (rule, value) in template.resources_of("AWS::Events::Rule") {
        let targets = value["Properties"]["Targets"].as_array();
        for target in targets.into_iter().flatten() {
            let queue = &target["DeadLetterConfig"]["Arn"];
            let own = json!({"Fn::GetAtt": [rule, "Arn"]});
            let admits = |it: &Statement| {
                let sources = &it.value["Condition"]["ArnEquals"]["aws:SourceArn"];
                let is_named = sources.as_array().is_some_and(|all| all.contains(&own));
                lets(it, RULES, "sqs:SendMessage") && it.value["Resource"] == *queue && is_named
            };
            if !queue.is_null() && !statements.iter().any(admits) {
                problems.push(format!(
                    "{PIPELINE}: the dead-letter queue refuses what {rule} cannot deliver"
                ));
            }
            problems.extend(unpublished(
                &template,
                &statements,
                &rule,
                RULES,
                &target["Arn"],
            ));
        }
    }
    for (alarm, value) in template.resources_of("AWS::CloudWatch::Alarm") {
        let topics = value["Properties"]["AlarmActions"].as_array();
        for topic in topics.into_iter().flatten() {
            problems.extend(unpublished(&template, &statements, &alarm, ALARMS, topic));
        }
    }
    problems.extend(unpublished_by_roles(&template, &repository.machines()?));
    Ok(problems)
}

/// What keeps the role of a machine that publishes from the failure topic, for a template and machines that were read
/// before.
pub fn unpublished_by_roles(template: &Template, machines: &[Machine]) -> Vec<String> {
    let key = &template.value["Resources"]["FailureTopic"]["Properties"]["KmsMasterKeyId"]["Ref"];
    let topic = json!({"Ref": "FailureTopic"});
    let key = json!({"Fn::GetAtt": [key, "Arn"]});
    let needed = [
        ("sns:Publish", &topic),
        ("kms:Decrypt", &key),
        ("kms:GenerateDataKey", &key),
    ];
    let statements = template.statements();
    let publishes = |machine: &&Machine| {
        let mut resources = machine
            .states()
            .map(|(_, state)| state["Resource"].as_str());
        resources.any(|it| it.is_some_and(|it| it.contains(":sns:publish")))
    };
    let mut problems = Vec::new();
    for machine in machines.iter().filter(publishes) {
        let role = format!("{}StateMachineRole", machine.name.to_upper_camel_case());
        for (action, resource) in needed {
            let allows = |it: &Statement| {
                it.allows()
                    && it.resource == role
                    && it.actions().iter().any(|allowed| allowed == action)
                    && it.value["Resource"] == *resource
            };
            if !statements.iter().any(allows) {
                problems.push(format!(
                    "{PIPELINE}: {role} does not allow {action} of {resource}, to publish"
                ));
            }
        }
    }
    problems
}

/// What keeps a service from publishing to a topic: the topic's policy, or that of its key.
fn unpublished(
    template: &Template,
    statements: &[Statement],
    sender: &str,
    service: &str,
    topic: &Value,
) -> Vec<String> {
    let Some(name) = topic["Ref"].as_str() else {
        return Vec::new();
    };
    let resource = &template.value["Resources"][name];
    if resource["Type"] != "AWS::SNS::Topic" {
        return Vec::new();
    }
    let mut problems = Vec::new();
    let publishes =
        |it: &Statement| lets(it, service, "sns:Publish") && it.value["Resource"] == *topic;
    if !statements.iter().any(publishes) {
        problems.push(format!(
            "{PIPELINE}: {name} refuses what {sender} publishes"
        ));
    }
    let key = resource["Properties"]["KmsMasterKeyId"]["Ref"].as_str();
    for action in ["kms:Decrypt", "kms:GenerateDataKey"] {
        let of_the_key = |it: &&Statement| Some(it.resource.as_str()) == key;
        if !statements
            .iter()
            .filter(of_the_key)
            .any(|it| lets(it, service, action))
        {
            problems.push(format!(
                "{PIPELINE}: the key of {name} refuses {action} to {service}, which {sender} needs"
            ));
        }
    }
    problems
}

fn lets(statement: &Statement, service: &str, action: &str) -> bool {
    statement.allows()
        && statement.value["Principal"] == json!({"Service": service})
        && statement.actions().iter().any(|it| it == action)
}
