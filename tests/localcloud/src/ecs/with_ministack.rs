//! A service in a complete local cloud. Calls go through the gateway, the image comes from the registry,
//! health from the load balancer, and MiniStack keeps logs, secrets and roles.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::image::{Config, File, Layer, pack, push};
use crate::ministack::Client;
use crate::time_scale::TimeScale;
use crate::{LocalCloud, Options};

const TRUST: &str = r#"{"Version": "2012-10-17", "Statement": [{"Effect": "Allow",
    "Principal": {"Service": "ecs-tasks.amazonaws.com"}, "Action": "sts:AssumeRole"}]}"#;

/// The permissions that an execution role needs.
const PERMISSIONS: &str = r#"{"Version": "2012-10-17", "Statement": [
    {"Effect": "Allow", "Action": "ecr:GetAuthorizationToken", "Resource": "*"},
    {"Effect": "Allow", "Action": ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"],
     "Resource": "arn:aws:ecr:us-east-1:000000000000:repository/test"},
    {"Effect": "Allow", "Action": ["logs:CreateLogStream", "logs:PutLogEvents"],
     "Resource": "arn:aws:logs:us-east-1:000000000000:log-group:/app:*"},
    {"Effect": "Allow", "Action": "secretsmanager:GetSecretValue",
     "Resource": "arn:aws:secretsmanager:us-east-1:000000000000:secret:test/drain-secret-*"},
    {"Effect": "Allow", "Action": "ssm:GetParameters",
     "Resource": "arn:aws:ssm:us-east-1:000000000000:parameter/pulse/test/*"}
]}"#;

/// A server, or with a number as its argument a program that ends with that exit code.
const SERVER: &str = r#"#!/usr/bin/env python3
import http.server, os, sys
if sys.argv[1:]:
    print(os.environ["DATABASE_URL"], os.environ["STEP"], flush=True)
    sys.exit(int(sys.argv[1]))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(os.environ["DEPLOYMENT_ID"].encode())
    def log_message(self, *arguments):
        pass
print("secret", os.environ["DRAIN_SECRET"], "of", sorted(set(os.environ) - {"LC_CTYPE"}), flush=True)
http.server.ThreadingHTTPServer((os.environ["HOST"], 8000), Handler).serve_forever()
"#;

/// Calls the gateway as root.
struct Caller(Client);

impl Caller {
    async fn query(&self, service: &str, action: &str, params: &[(&str, &str)]) -> String {
        let version = match service {
            "iam" => "2010-05-08",
            "ec2" => "2016-11-15",
            _ => "2015-12-01",
        };
        let all: Vec<_> = [("Action", action)]
            .into_iter()
            .chain(params.iter().copied())
            .collect();
        let answer = self.0.query(service, version, &all).await;
        answer.unwrap_or_else(|error| panic!("{action}: {error}"))
    }

    async fn json(&self, service: &str, target: &str, body: Value) -> Value {
        let answer = self.0.json(service, target, body).await;
        answer.unwrap_or_else(|error| panic!("{target}: {error}"))
    }

    async fn ecs(&self, operation: &str, body: Value) -> Value {
        let target = format!("AmazonEC2ContainerServiceV20141113.{operation}");
        self.json("ecs", &target, body).await
    }

    async fn service(&self) -> Value {
        let body = json!({"cluster": "test", "services": ["app"]});
        self.ecs("DescribeServices", body).await["services"][0].clone()
    }

    /// The first line of the container of a task.
    async fn first_line(&self, task_id: &str) -> String {
        let stream = format!("app/app/{task_id}");
        let request = json!({"logGroupName": "/app", "logStreamName": stream});
        loop {
            let operation = "Logs_20140328.GetLogEvents";
            let lines = self.json("logs", operation, request.clone()).await;
            if let Some(line) = lines["events"][0]["message"].as_str() {
                return line.to_owned();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn until(&self, is_expected: impl Fn(&Value) -> bool) -> Value {
        loop {
            let service = self.service().await;
            if is_expected(&service) {
                return service;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn element(xml: &str, name: &str) -> String {
    let (_, rest) = xml
        .split_once(&format!("<{name}>"))
        .unwrap_or_else(|| panic!("{xml}"));
    rest.split('<').next().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pushed_image_runs_as_a_healthy_service_and_its_deletion_leaves_nothing_behind() {
    let options = Options {
        time_scale: TimeScale(0.02),
        ..Options::default()
    };
    let cloud = LocalCloud::start(options).await.unwrap();
    let aws = Caller(Client::new(cloud.registry()));

    let script = File {
        path: "server".into(),
        mode: 0o755,
        contents: SERVER.as_bytes().to_vec(),
    };
    let config = Config {
        entrypoint: vec!["/server".into()],
        ..Config::default()
    };
    let image = pack(&Layer::of(&[script]).unwrap(), &config).unwrap();
    let ecr = "AmazonEC2ContainerRegistry_V20150921.CreateRepository";
    aws.json("ecr", ecr, json!({"repositoryName": "test"}))
        .await;
    let digest = push(&cloud.registry(), "test", "one", &image)
        .await
        .unwrap();

    let role = [
        ("RoleName", "execution"),
        ("AssumeRolePolicyDocument", TRUST),
    ];
    let role_arn = element(&aws.query("iam", "CreateRole", &role).await, "Arn");
    let permissions = [
        ("RoleName", "execution"),
        ("PolicyName", "permissions"),
        ("PolicyDocument", PERMISSIONS),
    ];
    aws.query("iam", "PutRolePolicy", &permissions).await;
    let secret = json!({"Name": "test/drain-secret", "SecretString": "abc"});
    let secret = aws
        .json("secretsmanager", "secretsmanager.CreateSecret", secret)
        .await;
    let secret_arn = secret["ARN"].as_str().unwrap();
    let parameter = json!({
        "Name": "/pulse/test/url", "Value": "postgres://db", "Type": "SecureString",
    });
    aws.json("ssm", "AmazonSSM.PutParameter", parameter).await;
    let group = json!({"logGroupName": "/app"});
    aws.json("logs", "Logs_20140328.CreateLogGroup", group)
        .await;

    let vpc = element(
        &aws.query("ec2", "CreateVpc", &[("CidrBlock", "10.0.0.0/16")])
            .await,
        "vpcId",
    );
    let mut subnets = Vec::new();
    for (zone, block) in [("us-east-1a", "10.0.1.0/24"), ("us-east-1b", "10.0.2.0/24")] {
        let params = [
            ("VpcId", vpc.as_str()),
            ("CidrBlock", block),
            ("AvailabilityZone", zone),
        ];
        subnets.push(element(
            &aws.query("ec2", "CreateSubnet", &params).await,
            "subnetId",
        ));
    }
    let elb = "elasticloadbalancing";
    let params = [
        ("Name", "front"),
        ("Subnets.member.1", subnets[0].as_str()),
        ("Subnets.member.2", subnets[1].as_str()),
    ];
    let lb = element(
        &aws.query(elb, "CreateLoadBalancer", &params).await,
        "LoadBalancerArn",
    );
    let params = [
        ("Name", "app"),
        ("Protocol", "HTTP"),
        ("Port", "8000"),
        ("VpcId", vpc.as_str()),
        ("TargetType", "ip"),
        ("HealthCheckPath", "/_health"),
    ];
    let target_group = element(
        &aws.query(elb, "CreateTargetGroup", &params).await,
        "TargetGroupArn",
    );

    aws.ecs("CreateCluster", json!({"clusterName": "test"}))
        .await;
    let definition = json!({
        "family": "test-app",
        "networkMode": "awsvpc",
        "requiresCompatibilities": ["FARGATE"],
        "cpu": "256",
        "memory": "512",
        "executionRoleArn": role_arn,
        "containerDefinitions": [{
            "name": "app",
            "image": format!("000000000000.dkr.ecr.us-east-1.amazonaws.com/test@{digest}"),
            "portMappings": [{"containerPort": 8000}],
            "environment": [{"name": "DEPLOYMENT_ID", "value": "one"}],
            "secrets": [
                {"name": "DRAIN_SECRET", "valueFrom": secret_arn},
                {"name": "DATABASE_URL", "valueFrom": "/pulse/test/url"},
            ],
            "logConfiguration": {"logDriver": "awslogs", "options": {
                "awslogs-group": "/app",
                "awslogs-region": "us-east-1",
                "awslogs-stream-prefix": "app",
            }},
        }],
    });
    aws.ecs("RegisterTaskDefinition", definition.clone()).await;
    let mut too_much_memory = definition;
    too_much_memory["memory"] = json!("4096");
    let refused = aws
        .0
        .json(
            "ecs",
            "AmazonEC2ContainerServiceV20141113.RegisterTaskDefinition",
            too_much_memory,
        )
        .await
        .unwrap_err();
    assert_eq!(refused.code, "ClientException");

    let create = json!({
        "cluster": "test",
        "serviceName": "app",
        "taskDefinition": "test-app",
        "desiredCount": 2,
        "launchType": "FARGATE",
        "loadBalancers": [
            {"targetGroupArn": target_group, "containerName": "app", "containerPort": 8000}
        ],
        "networkConfiguration": {"awsvpcConfiguration": {"subnets": subnets}},
        "clientToken": "once",
    });
    let operation = "AmazonEC2ContainerServiceV20141113.CreateService";
    let refused = aws
        .0
        .json("ecs", operation, create.clone())
        .await
        .unwrap_err();
    assert_eq!(refused.code, "InvalidParameterException");
    assert_eq!(
        refused.message,
        format!(
            "The target group with targetGroupArn {target_group} does not have an associated load \
             balancer."
        )
    );

    let params = [
        ("LoadBalancerArn", lb.as_str()),
        ("Protocol", "HTTP"),
        ("Port", "80"),
        ("DefaultActions.member.1.Type", "forward"),
        (
            "DefaultActions.member.1.TargetGroupArn",
            target_group.as_str(),
        ),
    ];
    aws.query(elb, "CreateListener", &params).await;
    aws.ecs("CreateService", create).await;
    let running = aws
        .until(|service| service["deployments"][0]["rolloutState"] == "COMPLETED")
        .await;
    assert_eq!(running["runningCount"], 2);
    let health = [("TargetGroupArn", target_group.as_str())];
    let health = aws.query(elb, "DescribeTargetHealth", &health).await;
    assert_eq!(
        health.matches("<State>healthy</State>").count(),
        2,
        "{health}"
    );

    let listed = aws
        .ecs(
            "ListTasks",
            json!({"cluster": "test", "serviceName": "app"}),
        )
        .await;
    let described = json!({"cluster": "test", "tasks": listed["taskArns"]});
    let tasks = aws.ecs("DescribeTasks", described).await["tasks"].clone();
    let zones: BTreeSet<_> = tasks
        .as_array()
        .unwrap()
        .iter()
        .map(|task| task["availabilityZone"].to_string())
        .collect();
    assert_eq!(zones.len(), 2, "{tasks:#}");
    let task = &tasks[0];
    assert_eq!(task["containers"][0]["imageDigest"], digest.as_str());
    let id = task["taskArn"]
        .as_str()
        .unwrap()
        .rsplit('/')
        .next()
        .unwrap();
    assert_eq!(
        aws.first_line(id).await,
        "secret abc of ['DATABASE_URL', 'DEPLOYMENT_ID', 'DRAIN_SECRET', 'HOST', 'PATH']"
    );

    the_sdk_reads_the_answers(&cloud, id).await;
    a_task_runs_on_its_own(&cloud, &subnets).await;

    let delete = json!({"cluster": "test", "service": "app", "force": true});
    aws.ecs("DeleteService", delete).await;
    aws.until(|service| service["status"] == "INACTIVE").await;
    while !cloud.ecs().processes().is_empty() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let health = [("TargetGroupArn", target_group.as_str())];
    let health = aws.query(elb, "DescribeTargetHealth", &health).await;
    assert!(!health.contains("<State>"), "{health}");
    cloud.stop().await;
}

fn sdk(cloud: &LocalCloud) -> aws_sdk_ecs::Client {
    use aws_sdk_ecs::config::{BehaviorVersion, Credentials, Region};
    let config = aws_sdk_ecs::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(cloud.endpoint_url())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "tests"))
        .http_client(aws_smithy_http_client::Builder::new().build_http());
    aws_sdk_ecs::Client::from_conf(config.build())
}

/// Runs the image of the service once, with another command, and reads the answers with the SDK.
async fn a_task_runs_on_its_own(cloud: &LocalCloud, subnets: &[String]) {
    use aws_sdk_ecs::types::{
        AwsVpcConfiguration, ContainerOverride, KeyValuePair, LaunchType, NetworkConfiguration,
        TaskOverride, TaskStopCode,
    };
    let ecs = sdk(cloud);
    let vpc = AwsVpcConfiguration::builder().set_subnets(Some(subnets.to_vec()));
    let network = NetworkConfiguration::builder().awsvpc_configuration(vpc.build().unwrap());
    let step = KeyValuePair::builder().name("STEP").value("migrate");
    let changed = ContainerOverride::builder()
        .name("app")
        .command("3")
        .environment(step.build());
    let request = ecs
        .run_task()
        .cluster("test")
        .task_definition("test-app:1")
        .launch_type(LaunchType::Fargate)
        .network_configuration(network.build())
        .overrides(
            TaskOverride::builder()
                .container_overrides(changed.build())
                .build(),
        )
        .client_token("deployment-1");
    let first = request.clone().send().await.unwrap();
    let again = request.clone().send().await.unwrap();
    let arn = first.tasks()[0].task_arn().unwrap();
    assert_eq!(again.tasks()[0].task_arn(), Some(arn));
    let other = request.started_by("another").send().await.unwrap_err();
    let other = other.into_service_error();
    assert!(other.is_conflict_exception(), "{other:?}");
    let ended = loop {
        let described = ecs.describe_tasks().cluster("test").tasks(arn).send().await;
        let task = described.unwrap().tasks()[0].clone();
        if task.last_status() == Some("STOPPED") {
            break task;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(
        ended.stop_code(),
        Some(&TaskStopCode::EssentialContainerExited)
    );
    assert_eq!(ended.containers()[0].exit_code(), Some(3));
    let aws = Caller(Client::new(cloud.registry()));
    let id = arn.rsplit('/').next().unwrap();
    assert_eq!(aws.first_line(id).await, "postgres://db migrate");
}

/// The SDK ignores values that it cannot read, so the important ones are checked by their types.
async fn the_sdk_reads_the_answers(cloud: &LocalCloud, task_id: &str) {
    use aws_sdk_ecs::types::{DeploymentRolloutState, LaunchType};
    let ecs = sdk(cloud);
    let answer = ecs
        .describe_services()
        .cluster("test")
        .services("app")
        .send()
        .await
        .unwrap();
    let service = &answer.services()[0];
    assert_eq!(service.launch_type(), Some(&LaunchType::Fargate));
    assert!(service.created_at().is_some());
    assert!(
        service
            .events()
            .iter()
            .all(|event| event.created_at().is_some())
    );
    let deployment = &service.deployments()[0];
    assert_eq!(
        deployment.rollout_state(),
        Some(&DeploymentRolloutState::Completed)
    );
    assert_eq!(
        (deployment.running_count(), deployment.failed_tasks()),
        (2, 0)
    );
    let answer = ecs
        .describe_tasks()
        .cluster("test")
        .tasks(task_id)
        .send()
        .await
        .unwrap();
    let task = &answer.tasks()[0];
    assert_eq!(task.last_status(), Some("RUNNING"));
    assert!(task.started_at().is_some() && task.pull_stopped_at().is_some());
    let address = task.containers()[0].network_interfaces()[0].private_ipv4_address();
    let detail = task.attachments()[0]
        .details()
        .iter()
        .find(|detail| detail.name() == Some("privateIPv4Address"));
    assert_eq!(detail.and_then(|detail| detail.value()), address);
    let error = ecs
        .describe_services()
        .cluster("missing")
        .services("app")
        .send()
        .await
        .unwrap_err();
    assert!(error.into_service_error().is_cluster_not_found_exception());
}
