//! The permissions of the roles in both templates.

use std::collections::BTreeSet;

use anyhow::Result;
use serde_json::{Value, json};

use crate::Repository;
use crate::calls::{self, Called};
use crate::template::{Statement, Template, strings};

/// Actions for which AWS supports no resource, so that only `*` allows them, according to the Service
/// Authorization Reference:
/// <https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonelasticcontainerservice.html>,
/// <https://docs.aws.amazon.com/service-authorization/latest/reference/list_awselasticloadbalancingv2.html>,
/// <https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonelasticcontainerregistry.html>,
/// <https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazoncloudwatchlogs.html>,
/// <https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonec2.html>,
/// <https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazoncloudwatch.html>,
/// <https://docs.aws.amazon.com/service-authorization/latest/reference/list_awsstepfunctions.html>;
/// those of log delivery are in <https://docs.aws.amazon.com/step-functions/latest/dg/cw-logs.html>.
const TIED_TO_NO_RESOURCE: [&str; 31] = [
    "application-autoscaling:DescribeScalableTargets",
    "application-autoscaling:DescribeScalingPolicies",
    "cloudwatch:DescribeAlarms",
    "cloudwatch:GetMetricData",
    "cloudwatch:PutMetricData",
    "ec2:DescribeInternetGateways",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:DescribeVpcs",
    "ecr:GetAuthorizationToken",
    "ecs:DeregisterTaskDefinition",
    "ecs:DescribeTaskDefinition",
    "ecs:ListServices",
    "ecs:ListTaskDefinitions",
    "ecs:ListTasks",
    "elasticloadbalancing:DescribeAccountLimits",
    "elasticloadbalancing:DescribeListeners",
    "elasticloadbalancing:DescribeRules",
    "elasticloadbalancing:DescribeTags",
    "elasticloadbalancing:DescribeTargetGroupAttributes",
    "elasticloadbalancing:DescribeTargetGroups",
    "elasticloadbalancing:DescribeTargetHealth",
    "logs:CreateLogDelivery",
    "logs:DeleteLogDelivery",
    "logs:DescribeLogGroups",
    "logs:DescribeResourcePolicies",
    "logs:GetLogDelivery",
    "logs:ListLogDeliveries",
    "logs:PutResourcePolicy",
    "logs:UpdateLogDelivery",
    "states:SendTaskSuccess",
];

/// Actions that AWS checks on no resource according to reports, although the reference lists one. The
/// tags of the request restrict them instead.
const TIED_TO_TAGS: [&str; 1] = ["ecs:RegisterTaskDefinition"];

/// Actions on the registration of a service, whose id is unknown before it exists. The service's kind restricts them.
/// <https://docs.aws.amazon.com/service-authorization/latest/reference/list_awsapplicationautoscaling.html>
const TIED_TO_A_DIMENSION: [&str; 3] = [
    "application-autoscaling:DeregisterScalableTarget",
    "application-autoscaling:PutScalingPolicy",
    "application-autoscaling:RegisterScalableTarget",
];
/// The condition on these.
fn of_services() -> Value {
    json!({"StringEquals": {
        "application-autoscaling:service-namespace": "ecs",
        "application-autoscaling:scalable-dimension": "ecs:service:DesiredCount",
    }})
}

/// Actions without a resource that a condition can restrict to a cluster.
const TIED_TO_A_CLUSTER: [&str; 2] = ["ecs:ListServices", "ecs:ListTasks"];

/// Actions that a function needs although its code does not call them: for its log, for the dead-letter
/// queue of asynchronous invocations, for the alarms and the role of Application Auto Scaling, for its role and for passing another, for its network interfaces,
/// which Lambda manages, and for the network and the user pool that Elastic Load Balancing reads.
/// <https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html#configuration-vpc-permissions>
const NOT_CALLED: [&str; 18] = [
    "cloudwatch:DeleteAlarms",
    "cloudwatch:DescribeAlarms",
    "cloudwatch:PutMetricAlarm",
    "cognito-idp:DescribeUserPoolClient",
    "ec2:AssignPrivateIpAddresses",
    "ec2:CreateNetworkInterface",
    "ec2:DeleteNetworkInterface",
    "ec2:DescribeInternetGateways",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:DescribeVpcs",
    "ec2:UnassignPrivateIpAddresses",
    "logs:CreateLogStream",
    "logs:PutLogEvents",
    "sqs:SendMessage",
    "iam:CreateServiceLinkedRole",
    "iam:PassRole",
    "sts:AssumeRole",
];

fn statements(repository: &Repository) -> Result<Vec<(&'static str, Statement)>> {
    let mut all = Vec::new();
    for name in ["baseline", "pipeline"] {
        let template = repository.template(name)?;
        all.extend(
            template
                .statements()
                .into_iter()
                .map(|statement| (name, statement)),
        );
    }
    Ok(all)
}

fn place(template: &str, statement: &Statement) -> String {
    format!(
        "infra/{template}.yaml:{} ({})",
        statement.line, statement.resource
    )
}

/// Every action is named, without wildcards.
///
/// # Errors
/// When a template cannot be read.
pub fn actions(repository: &Repository) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for (template, statement) in statements(repository)? {
        let place = place(template, &statement);
        for action in statement
            .actions()
            .iter()
            .filter(|action| action.contains('*'))
        {
            problems.push(format!(
                "{place} allows {action}; name the actions one by one"
            ));
        }
        for negation in ["NotAction", "NotResource", "NotPrincipal"] {
            if statement.value.get(negation).is_some() {
                problems.push(format!(
                    "{place} allows everything except what {negation} names"
                ));
            }
        }
    }
    Ok(problems)
}

/// The resource is `*` only where AWS supports nothing narrower.
///
/// # Errors
/// When a template cannot be read.
pub fn resources(repository: &Repository) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    let mut keys = BTreeSet::new();
    for name in ["baseline", "pipeline"] {
        let found = repository.template(name)?.resources_of("AWS::KMS::Key");
        keys.extend(found.into_iter().map(|(key, _)| (name, key)));
    }
    for (template, statement) in statements(repository)? {
        let everything = |resource: &String| resource == "*";
        if !statement.allows() || !strings(&statement.value["Resource"]).iter().any(everything) {
            continue;
        }
        // In the policy of a key, `*` is that key.
        // https://docs.aws.amazon.com/kms/latest/developerguide/key-policy-overview.html
        if keys.contains(&(template, statement.resource.clone())) {
            continue;
        }
        let place = place(template, &statement);
        for action in statement.actions() {
            let action = action.as_str();
            let by_tags = TIED_TO_TAGS.contains(&action)
                && statement.value["Condition"]
                    .to_string()
                    .contains("aws:RequestTag/");
            let by_denial = FOR_THE_VPC.contains(&action);
            let by_dimension = TIED_TO_A_DIMENSION.contains(&action)
                && statement.value["Condition"] == of_services();
            if !by_tags && !by_denial && !by_dimension && !TIED_TO_NO_RESOURCE.contains(&action) {
                problems.push(format!(
                    "{place} allows {action} on every resource, and AWS supports a narrower one"
                ));
            }
            if TIED_TO_A_CLUSTER.contains(&action)
                && !statement.value["Condition"]
                    .to_string()
                    .contains("ecs:cluster")
            {
                problems.push(format!(
                    "{place} allows {action} in every cluster; add a condition on ecs:cluster"
                ));
            }
        }
    }
    Ok(problems)
}

/// Every statement has a comment above it on what it allows or denies.
///
/// # Errors
/// When a template cannot be read.
pub fn comments(repository: &Repository) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for name in ["baseline", "pipeline"] {
        let template = repository.template(name)?;
        for statement in template.statements() {
            let comment = template.comment_above(statement.line);
            let verb = if statement.allows() {
                "Allows"
            } else {
                "Denies"
            };
            if !comment
                .iter()
                .any(|line| line.starts_with(&format!("{verb} ")))
            {
                problems.push(format!(
                    "{}: no comment `# {verb} …` above it",
                    place(name, &statement)
                ));
            }
        }
    }
    Ok(problems)
}

/// A role allows exactly the calls that the step's code makes.
///
/// # Errors
/// When the template, a manifest or a source file cannot be read.
pub fn calls(repository: &Repository) -> Result<Vec<String>> {
    let template = repository.template("pipeline")?;
    Ok(allowed_as_called(
        &template,
        &calls::of_every_step(repository)?,
    ))
}

/// [`calls()`] for a template and code that was read before.
pub fn allowed_as_called(template: &Template, called: &Called) -> Vec<String> {
    let statements = template.statements();
    let mut problems = Vec::new();
    for (step, called) in called {
        let role = format!("{}Role", step.pascal());
        let mut allowed = BTreeSet::new();
        for statement in statements
            .iter()
            .filter(|statement| statement.resource == role && statement.allows())
        {
            // It allows the tags of a creation, and the creation is the call.
            let with_creation = is_with_creation(statement);
            let actions = statement.actions().into_iter();
            // AWS needs it of the caller of another action.
            let is_with_a_call = |action: &str| {
                !called.contains(action) && with_calls(called).any(|it| it == action)
            };
            let is_not_called =
                |it: &str| NOT_CALLED.contains(&it) && !called.contains(it) || is_with_a_call(it);
            allowed.extend(actions.filter(|it| !with_creation && !is_not_called(it)));
        }
        problems.extend(super::differences(
            &format!("{}: the operation", step.name),
            ("what it calls", called.iter().map(String::as_str)),
            (
                &format!("what {role} allows"),
                allowed.iter().map(String::as_str),
            ),
        ));
    }
    problems
}

/// Whether a statement allows its actions only while a resource is created.
fn is_with_creation(statement: &Statement) -> bool {
    created_by(statement).is_some()
}

/// The creation with which a statement allows its actions.
fn created_by(statement: &Statement) -> Option<&str> {
    let conditions = statement.value["Condition"]["StringEquals"].as_object()?;
    let mut keys = conditions.iter();
    let (_, creation) = keys.find(|(key, _)| key.ends_with(":CreateAction"))?;
    creation.as_str()
}

/// The actions that set tags, of every service.
const TAGGING: [&str; 2] = [":AddTags", ":TagResource"];

/// The further actions that a call needs when it sets tags, passes roles, names a network, authenticates by
/// Cognito or scales a service.
/// <https://docs.aws.amazon.com/autoscaling/application/userguide/security_iam_id-based-policy-examples.html>,
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/supported-iam-actions-tagging.html>,
/// <https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonelasticcontainerservice.html>,
/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/userguide/tagging-resources-during-creation.html>,
/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/userguide/elb-api-permissions.html>,
/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/listener-authenticate-users.html>
const WITH_A_CALL: [(&str, &[&str]); 10] = [
    (
        "application-autoscaling:RegisterScalableTarget",
        &[
            "ecs:DescribeServices",
            "ecs:UpdateService",
            "iam:CreateServiceLinkedRole",
        ],
    ),
    (
        "application-autoscaling:PutScalingPolicy",
        &["cloudwatch:DescribeAlarms", "cloudwatch:PutMetricAlarm"],
    ),
    (
        "application-autoscaling:DeregisterScalableTarget",
        &["cloudwatch:DeleteAlarms", "cloudwatch:DescribeAlarms"],
    ),
    (
        "ecs:RegisterTaskDefinition",
        &["ecs:TagResource", "iam:PassRole"],
    ),
    ("ecs:CreateService", &["ecs:TagResource", "iam:PassRole"]),
    ("ecs:RunTask", &["ecs:TagResource", "iam:PassRole"]),
    (
        "elasticloadbalancing:CreateTargetGroup",
        &[
            "ec2:DescribeInternetGateways",
            "ec2:DescribeVpcs",
            "elasticloadbalancing:AddTags",
        ],
    ),
    (
        "elasticloadbalancing:CreateRule",
        &[
            "cognito-idp:DescribeUserPoolClient",
            "elasticloadbalancing:AddTags",
        ],
    ),
    (
        "elasticloadbalancing:ModifyRule",
        &["cognito-idp:DescribeUserPoolClient"],
    ),
    (
        "elasticloadbalancing:ModifyListener",
        &["cognito-idp:DescribeUserPoolClient"],
    ),
];
/// The further actions that these calls need.
fn with_calls(called: &BTreeSet<String>) -> impl Iterator<Item = &'static str> {
    WITH_A_CALL
        .iter()
        .filter(|(call, _)| called.contains(*call))
        .flat_map(|(_, actions)| actions.iter().copied())
}

/// The resources that AWS may check for the tags of a creation: the new one, and its parent; without one, its name
/// without a revision.
/// <https://github.com/kubernetes-sigs/aws-load-balancer-controller/pull/3086>
const TAGGED_BY: [(&str, &str, Option<&str>); 2] = [
    (
        "CreateRule",
        ":listener-rule/",
        Some("{\"Ref\":\"ListenerArn\"}"),
    ),
    ("RegisterTaskDefinition", ":*\"", None),
];
/// The steps whose UpdateService starts fresh tasks, which get roles like those of CreateService. An
/// UpdateService that changes only numbers needs no `iam:PassRole`.
const START_FRESH_TASKS: [&str; 2] = ["restart-rollout", "restore-deployment"];
/// The actions with which Lambda writes a function's log.
const FOR_THE_LOG: [&str; 2] = ["logs:CreateLogStream", "logs:PutLogEvents"];
/// The actions with which Lambda places a function in a VPC. AWS documents them with every resource, and a
/// denial to the function's own code:
/// <https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html#configuration-vpc-permissions>.
const FOR_THE_VPC: [&str; 6] = [
    "ec2:AssignPrivateIpAddresses",
    "ec2:CreateNetworkInterface",
    "ec2:DeleteNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:UnassignPrivateIpAddresses",
];
/// The actions with which Step Functions writes a machine's log.
/// <https://docs.aws.amazon.com/step-functions/latest/dg/cw-logs.html#cloudwatch-iam-policy>
const FOR_LOG_DELIVERY: [&str; 8] = [
    "logs:CreateLogDelivery",
    "logs:DeleteLogDelivery",
    "logs:DescribeLogGroups",
    "logs:DescribeResourcePolicies",
    "logs:GetLogDelivery",
    "logs:ListLogDeliveries",
    "logs:PutResourcePolicy",
    "logs:UpdateLogDelivery",
];

/// A role allows the actions that AWS itself needs to run a function or a machine. The code does not
/// call them, and a local run does not need them.
///
/// # Errors
/// When the template cannot be read.
pub fn what_aws_needs(repository: &Repository) -> Result<Vec<String>> {
    let template = repository.template("pipeline")?;
    Ok(allowed_as_aws_needs(
        &template,
        &calls::of_every_step(repository)?,
    ))
}

/// [`what_aws_needs`] for a template and code that was read before.
pub fn allowed_as_aws_needs(template: &Template, called: &Called) -> Vec<String> {
    let statements = template.statements();
    let mut problems = Vec::new();
    let mut demand = |role: String, needed: Vec<String>| {
        let allowed: BTreeSet<String> = statements
            .iter()
            .filter(|statement| statement.resource == role && statement.allows())
            .flat_map(|statement| {
                // Tags of a creation are allowed by a statement of their own.
                let with_creation = is_with_creation(statement);
                let is_tagging =
                    |action: &String| TAGGING.iter().any(|tagging| action.ends_with(tagging));
                let mut actions = statement.actions();
                actions.retain(|action| with_creation || !is_tagging(action));
                let creation = created_by(statement).unwrap_or_default();
                let in_it = |action: &String| format!("{action} in {creation}");
                let of_creation: Vec<_> = actions.iter().map(in_it).collect();
                actions.extend(of_creation);
                actions
            })
            .collect();
        for action in needed
            .into_iter()
            .filter(|action| !allowed.contains(action))
        {
            problems.push(format!("{role} does not allow {action}, which AWS needs"));
        }
    };
    // Each role names who may assume it.
    for (role, _) in template.resources_of("AWS::IAM::Role") {
        demand(role, vec!["sts:AssumeRole".to_owned()]);
    }
    // Tags of a creation and passed roles need an action of their own.
    for (step, called) in called {
        let needed = WITH_A_CALL
            .iter()
            .filter(|(call, _)| called.contains(*call))
            .flat_map(|(call, actions)| {
                actions.iter().map(move |action| {
                    let is_tagging = TAGGING.iter().any(|tagging| action.ends_with(tagging));
                    match call.split_once(':').filter(|_| is_tagging) {
                        Some((_, creation)) => format!("{action} in {creation}"),
                        None => (*action).to_owned(),
                    }
                })
            })
            .chain(
                START_FRESH_TASKS
                    .contains(&&*step.name)
                    .then_some("iam:PassRole".to_owned()),
            );
        demand(format!("{}Role", step.pascal()), needed.collect());
    }
    for (function, value) in template.resources_of("AWS::Serverless::Function") {
        let properties = &value["Properties"];
        let mut needed = FOR_THE_LOG.to_vec();
        if !properties["VpcConfig"].is_null() {
            needed.extend(FOR_THE_VPC);
        }
        if properties["EventInvokeConfig"]
            .to_string()
            .contains("OnFailure")
        {
            needed.push("sqs:SendMessage");
        }
        demand(
            format!("{}Role", function.trim_end_matches("Function")),
            needed.into_iter().map(str::to_owned).collect(),
        );
    }
    for (machine, value) in template.resources_of("AWS::Serverless::StateMachine") {
        let mut needed = vec!["lambda:InvokeFunction", "events:PutEvents"];
        if !value["Properties"]["Logging"].is_null() {
            needed.extend(FOR_LOG_DELIVERY);
        }
        let needed = needed.into_iter().map(str::to_owned).collect();
        demand(format!("{machine}Role"), needed);
    }
    for (schedule, _) in template.resources_of("AWS::Scheduler::Schedule") {
        let needed = ["states:StartExecution", "sqs:SendMessage"].map(str::to_owned);
        demand(
            format!("{}Role", schedule.trim_end_matches("Rule")),
            needed.to_vec(),
        );
    }
    problems.extend(not_denied_to_the_code(template));
    problems
}

/// The tags of a creation are allowed on every resource that AWS may check.
///
/// # Errors
/// When a template cannot be read.
pub fn tags_of_creations(repository: &Repository) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for (template, statement) in statements(repository)? {
        let condition = statement.value["Condition"].to_string();
        let resources = match &statement.value["Resource"] {
            Value::Array(resources) => resources.clone(),
            resource => vec![resource.clone()],
        };
        for (creation, created, parent) in TAGGED_BY {
            if !condition.contains(&format!(":CreateAction\":\"{creation}\"")) {
                continue;
            }
            let names = |resource: &Value| resource.to_string().contains(created);
            let (news, parents): (Vec<_>, Vec<_>) = resources.iter().partition(|it| names(it));
            let place = place(template, &statement);
            if news.is_empty() {
                problems.push(format!("{place}: the tags of {creation} lack {created}"));
            }
            let has = |parent: &str| parents.iter().any(|it| it.to_string().contains(parent));
            let without_revision = |new: &Value| new.to_string().replace(created, "\"");
            let needed = match parent {
                Some(parent) => vec![parent.to_owned()],
                None => news.iter().map(|new| without_revision(new)).collect(),
            };
            for parent in needed.iter().filter(|parent| !has(parent)) {
                problems.push(format!("{place}: the tags of {creation} lack {parent}"));
            }
        }
    }
    Ok(problems)
}

/// The actions of a function's network interfaces that the function's own code could call. Calls of the
/// code carry the function's ARN, and Lambda's do not:
/// <https://docs.aws.amazon.com/lambda/latest/dg/permissions-source-function-arn.html>.
fn not_denied_to_the_code(template: &Template) -> Vec<String> {
    let statements = template.statements();
    let functions = template.resources_of("AWS::Serverless::Function");
    let in_vpc = functions
        .iter()
        .filter(|(_, function)| !function["Properties"]["VpcConfig"].is_null());
    in_vpc
        .flat_map(|(function, value)| {
            let role = format!("{}Role", function.trim_end_matches("Function"));
            let name = &value["Properties"]["FunctionName"]["Fn::Sub"];
            let own = format!(":function:{}", name.as_str().unwrap_or_default());
            let denied: BTreeSet<String> = statements
                .iter()
                .filter(|it| it.resource == role && !it.allows())
                .filter(|it| {
                    let code = &it.value["Condition"]["ArnEquals"]["lambda:SourceFunctionArn"];
                    code["Fn::Sub"]
                        .as_str()
                        .is_some_and(|arn| arn.ends_with(&own))
                })
                .flat_map(Statement::actions)
                .collect();
            let open = FOR_THE_VPC
                .into_iter()
                .filter(move |it| !denied.contains(*it));
            open.map(move |action| {
                format!("{role} does not deny {action} to the function's own code")
            })
        })
        .collect()
}
