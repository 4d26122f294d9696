//! Permissions are checked as the Service Authorization Reference documents.

use crate::cloud::{
    self, Balancer, code, ecs, elbv2, end_of_execution, forward, header_condition, root, states,
    user_with_policy,
};
use aws_sdk_ecs::types::ContainerDefinition;
use aws_sdk_elasticloadbalancingv2::types::Tag;
use localcloud::LocalCloud;
use serde_json::{Value, json};

const ROLE: &str = "arn:aws:iam::000000000000:role/task";

fn policy(statements: &[Value]) -> Value {
    json!({"Version": "2012-10-17", "Statement": statements})
}

fn allow(action: &str, resource: &str, condition: Value) -> Value {
    json!({"Effect": "Allow", "Action": action, "Resource": resource, "Condition": condition})
}

async fn register(cloud: &LocalCloud, name: &str, statements: &[Value]) -> Result<(), String> {
    let client = ecs(
        cloud,
        user_with_policy(cloud, name, &policy(statements)).await,
    );
    let container = ContainerDefinition::builder()
        .name("app")
        .image("image")
        .build();
    let tag = aws_sdk_ecs::types::Tag::builder()
        .key("pulse:environment")
        .value("test")
        .build();
    let registered = client
        .register_task_definition()
        .family("test-app")
        .task_role_arn(ROLE)
        .requires_compatibilities(aws_sdk_ecs::types::Compatibility::Fargate)
        .network_mode(aws_sdk_ecs::types::NetworkMode::Awsvpc)
        .cpu("256")
        .memory("512")
        .container_definitions(container)
        .tags(tag)
        .send()
        .await;
    registered.map(|_| ()).map_err(|error| {
        let message = error.into_service_error().to_string();
        let (_, action) = message.split_once("perform: ").unwrap_or(("", &message));
        action
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .to_owned()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn registering_a_task_definition_also_requires_permission_for_its_roles_and_tags() {
    let cloud = cloud::start().await;
    cloud::role(cloud.client(), "task", "ecs-tasks.amazonaws.com").await;
    let create_action = |name: &str| json!({"StringEquals": {"ecs:CreateAction": name}});
    let passed_to = |service: &str| json!({"StringEquals": {"iam:PassedToService": service}});
    let family = "arn:aws:ecs:us-east-1:000000000000:task-definition/test-app:*";
    let register_allowed = allow(
        "ecs:RegisterTaskDefinition",
        "*",
        json!({"StringEquals": {"aws:RequestTag/pulse:environment": "test"}}),
    );
    let tag_allowed = allow(
        "ecs:TagResource",
        family,
        create_action("RegisterTaskDefinition"),
    );
    let pass_allowed = allow("iam:PassRole", ROLE, passed_to("ecs-tasks.amazonaws.com"));
    let all = [
        register_allowed.clone(),
        tag_allowed.clone(),
        pass_allowed.clone(),
    ];
    assert_eq!(register(&cloud, "all", &all).await, Ok(()));
    for (name, statements, missing) in [
        (
            "a",
            vec![tag_allowed.clone(), pass_allowed.clone()],
            "ecs:RegisterTaskDefinition",
        ),
        (
            "b",
            vec![register_allowed.clone(), pass_allowed.clone()],
            "ecs:TagResource",
        ),
        (
            "c",
            vec![register_allowed.clone(), tag_allowed.clone()],
            "iam:PassRole",
        ),
        (
            "d",
            vec![
                register_allowed,
                tag_allowed,
                allow("iam:PassRole", ROLE, passed_to("ec2.amazonaws.com")),
            ],
            "iam:PassRole",
        ),
    ] {
        assert_eq!(
            register(&cloud, name, &statements).await,
            Err(missing.into()),
            "{name}"
        );
    }
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn permission_to_create_a_rule_depends_on_the_listener_and_to_delete_one_on_its_tags() {
    let cloud = cloud::start().await;
    let balancer = Balancer::create(&cloud).await;
    let group = balancer.target_group("a").await;
    let prefix = "arn:aws:elasticloadbalancing:us-east-1:000000000000";
    let listeners = format!("{prefix}:listener/app/main/*");
    let rules = format!("{prefix}:listener-rule/app/main/*");
    let create = allow("elasticloadbalancing:CreateRule", &listeners, json!({}));
    let tag_at_creation = allow(
        "elasticloadbalancing:AddTags",
        &rules,
        json!({"StringEquals": {"elasticloadbalancing:CreateAction": "CreateRule"}}),
    );
    let delete_ours = allow(
        "elasticloadbalancing:DeleteRule",
        &rules,
        json!({"StringEquals": {"aws:ResourceTag/pulse:environment": "test"}}),
    );
    let attempt = |client: aws_sdk_elasticloadbalancingv2::Client, priority| {
        let tag = Tag::builder()
            .key("pulse:environment")
            .value("test")
            .build();
        client
            .create_rule()
            .listener_arn(&balancer.listener)
            .priority(priority)
            .conditions(header_condition("x"))
            .actions(forward(&group))
            .tags(tag)
            .send()
    };
    let untagging =
        user_with_policy(&cloud, "a", &policy(&[create.clone(), delete_ours.clone()])).await;
    let refused = attempt(elbv2(&cloud, untagging), 1)
        .await
        .expect_err("no AddTags");
    assert_eq!(code(&refused), "AccessDenied");
    let client = elbv2(
        &cloud,
        user_with_policy(
            &cloud,
            "b",
            &policy(&[create, tag_at_creation, delete_ours]),
        )
        .await,
    );
    let ours = attempt(client.clone(), 1).await.expect("allowed");
    let theirs = balancer.rule(2, &group).await.expect("root may");
    let refused = client.delete_rule().rule_arn(theirs).send().await;
    assert_eq!(code(&refused.expect_err("without our tag")), "AccessDenied");
    let arn = ours.rules()[0].rule_arn().expect("an ARN");
    client
        .delete_rule()
        .rule_arn(arn)
        .send()
        .await
        .expect("it has our tag");
    let reader = policy(&[allow("elasticloadbalancing:Describe*", "*", json!({}))]);
    // The permission is checked before the priority, so that a caller without permission does not learn
    // whether the priority is in use.
    let refused = attempt(
        elbv2(&cloud, user_with_policy(&cloud, "c", &reader).await),
        2,
    )
    .await;
    assert_eq!(code(&refused.expect_err("no permission")), "AccessDenied");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn permissions_for_services_depend_on_their_arn_and_their_cluster() {
    let cloud = cloud::start().await;
    let admin = ecs(&cloud, root());
    admin
        .create_cluster()
        .cluster_name("test")
        .send()
        .await
        .expect("created");
    let services = "arn:aws:ecs:us-east-1:000000000000:service/test/test-*";
    let in_cluster = |name: &str| json!({"ArnEquals": {"ecs:cluster": format!("arn:aws:ecs:us-east-1:000000000000:cluster/{name}")}});
    let statements = [
        allow("ecs:DescribeServices", services, json!({})),
        allow("ecs:ListServices", "*", in_cluster("test")),
    ];
    let client = ecs(
        &cloud,
        user_with_policy(&cloud, "a", &policy(&statements)).await,
    );
    let describe = |name: &str| {
        client
            .describe_services()
            .cluster("test")
            .services(name)
            .send()
    };
    describe("test-20251027-122112Z").await.expect("allowed");
    assert_eq!(
        code(&describe("other").await.expect_err("another name")),
        "AccessDeniedException"
    );
    client
        .list_services()
        .cluster("test")
        .send()
        .await
        .expect("allowed");
    let other = client.list_services().cluster("other").send().await;
    assert_eq!(
        code(&other.expect_err("another cluster")),
        "AccessDeniedException"
    );
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_machine_invokes_only_the_functions_that_its_role_may_invoke() {
    let cloud = cloud::start().await;
    let client = cloud.client().clone();
    let iam = |parameters: Vec<(&'static str, String)>| {
        let client = client.clone();
        async move {
            let parameters: Vec<(&str, &str)> = parameters
                .iter()
                .map(|(name, value)| (*name, value.as_str()))
                .collect();
            client
                .query("iam", "2010-05-08", &parameters)
                .await
                .expect("IAM answers")
        }
    };
    let trust = json!({"Statement": [{
        "Effect": "Allow",
        "Principal": {"Service": ["states.amazonaws.com", "lambda.amazonaws.com"]},
        "Action": "sts:AssumeRole",
    }]});
    let policy_for = |function: &str| {
        let arn = format!("arn:aws:lambda:us-east-1:000000000000:function:{function}");
        policy(&[allow("lambda:InvokeFunction", &arn, json!({}))]).to_string()
    };
    iam(vec![
        ("Action", "CreateRole".into()),
        ("RoleName", "machine".into()),
        ("AssumeRolePolicyDocument", trust.to_string()),
    ])
    .await;
    let role = "arn:aws:iam::000000000000:role/machine";
    let function = json!({
        "FunctionName": "step", "Runtime": "provided.al2023", "Handler": "bootstrap", "Role": role,
        "Code": {"ZipFile": cloud::EMPTY_ZIP},
    });
    let body = function.to_string().into();
    client
        .rest("lambda", http::Method::POST, "/2015-03-31/functions", body)
        .await
        .expect("created");
    let definition = json!({"StartAt": "Step", "QueryLanguage": "JSONata", "States": {"Step": {
        "Type": "Task",
        "Resource": "arn:aws:states:::lambda:invoke",
        "Arguments": {"FunctionName": "arn:aws:lambda:us-east-1:000000000000:function:step", "Payload": {}},
        "End": true,
    }}});
    let machine = json!({"name": "machine", "roleArn": role, "definition": definition.to_string()});
    let machine = states(&client, "CreateStateMachine", machine).await["stateMachineArn"].clone();
    let run = || async {
        let start = json!({"stateMachineArn": machine, "input": "{}"});
        let started = states(&client, "StartExecution", start).await;
        let ended = end_of_execution(&client, &started).await;
        ended["error"].as_str().unwrap_or_default().to_owned()
    };
    for (function, refused) in [("other", true), ("step", false)] {
        iam(vec![
            ("Action", "PutRolePolicy".into()),
            ("RoleName", "machine".into()),
            ("PolicyName", "invoke".into()),
            ("PolicyDocument", policy_for(function)),
        ])
        .await;
        // The function has no code, so that an allowed invocation fails with a different error.
        let error = run().await;
        assert_eq!(error == "Lambda.AWSLambdaException", refused, "{error}");
        assert_ne!(error, "", "{function}");
    }
    cloud.stop().await;
}

/// Asks for a task. Returns the error, or else the action that the caller lacks.
async fn run_task(cloud: &LocalCloud, name: &str, statements: &[Value]) -> String {
    use aws_sdk_ecs::types::{AwsVpcConfiguration, LaunchType, NetworkConfiguration};
    let client = ecs(
        cloud,
        user_with_policy(cloud, name, &policy(statements)).await,
    );
    let vpc = AwsVpcConfiguration::builder().subnets("subnet-x").build();
    let network = NetworkConfiguration::builder()
        .awsvpc_configuration(vpc.expect("it has a subnet"))
        .build();
    let tag = aws_sdk_ecs::types::Tag::builder()
        .key("pulse:environment")
        .value("test")
        .build();
    let refused = client
        .run_task()
        .cluster("test")
        .task_definition("test-app")
        .launch_type(LaunchType::Fargate)
        .network_configuration(network)
        .tags(tag)
        .send()
        .await
        .expect_err("the subnet does not exist");
    let code = code(&refused);
    let message = refused.into_service_error().to_string();
    match message.split_once("perform: ") {
        Some((_, action)) => action.split(' ').next().unwrap_or_default().to_owned(),
        None => code,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn running_a_task_requires_permission_for_its_definition_its_roles_and_its_tags() {
    let cloud = cloud::start().await;
    let admin = ecs(&cloud, root());
    let created = admin.create_cluster().cluster_name("test").send().await;
    created.expect("created");
    for role in ["task", "execution"] {
        cloud::role(cloud.client(), role, "ecs-tasks.amazonaws.com").await;
    }
    let container = ContainerDefinition::builder()
        .name("app")
        .image("image")
        .build();
    admin
        .register_task_definition()
        .family("test-app")
        .task_role_arn(ROLE)
        .execution_role_arn("arn:aws:iam::000000000000:role/execution")
        .requires_compatibilities(aws_sdk_ecs::types::Compatibility::Fargate)
        .network_mode(aws_sdk_ecs::types::NetworkMode::Awsvpc)
        .cpu("256")
        .memory("512")
        .container_definitions(container)
        .send()
        .await
        .expect("registered");
    let prefix = "arn:aws:ecs:us-east-1:000000000000";
    let in_cluster =
        |name: &str| json!({"ArnEquals": {"ecs:cluster": format!("{prefix}:cluster/{name}")}});
    let run_in = |cluster: &str| {
        let revision = format!("{prefix}:task-definition/test-app:1");
        allow("ecs:RunTask", &revision, in_cluster(cluster))
    };
    let tag = allow(
        "ecs:TagResource",
        &format!("{prefix}:task/test/*"),
        json!({"StringEquals": {"ecs:CreateAction": "RunTask"}}),
    );
    let pass = |name: &str| {
        let role = format!("arn:aws:iam::000000000000:role/{name}");
        let to_tasks = json!({"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}});
        allow("iam:PassRole", &role, to_tasks)
    };
    let [task_role, execution_role] = [pass("task"), pass("execution")];
    let run = run_in("test");
    let of =
        |parts: &[&Value]| -> Vec<Value> { parts.iter().map(|part| (*part).clone()).collect() };
    for (name, statements, expected) in [
        (
            "all",
            of(&[&run, &tag, &task_role, &execution_role]),
            "InvalidParameterException",
        ),
        ("a", of(&[&tag, &task_role, &execution_role]), "ecs:RunTask"),
        (
            "b",
            of(&[&run_in("other"), &tag, &task_role, &execution_role]),
            "ecs:RunTask",
        ),
        (
            "c",
            of(&[&run, &task_role, &execution_role]),
            "ecs:TagResource",
        ),
        ("d", of(&[&run, &tag, &execution_role]), "iam:PassRole"),
        ("e", of(&[&run, &tag, &task_role]), "iam:PassRole"),
    ] {
        assert_eq!(
            run_task(&cloud, name, &statements).await,
            expected,
            "{name}"
        );
    }
    cloud.stop().await;
}
