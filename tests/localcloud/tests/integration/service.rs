//! A service behind a load balancer, whose tasks answer every request.

use localcloud::LocalCloud;
use localcloud::image::{Config, File, Layer, pack, push};
use localcloud::ministack::Client;
use serde_json::{Value, json};

use crate::cloud;

const SERVER: &str = r#"#!/usr/bin/env python3
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()
    def log_message(self, *arguments):
        pass
http.server.ThreadingHTTPServer((os.environ["HOST"], 8000), Handler).serve_forever()
"#;

/// The service `app` in the cluster `test`, called through the gateway as root.
pub struct Service {
    client: Client,
    /// The part of the load balancer's and of the target group's ARN that names them to Application Auto Scaling.
    pub label: String,
}

impl Service {
    pub async fn create(cloud: &LocalCloud, desired_count: u32) -> Self {
        let client = Client::new(cloud.registry());
        let query = async |service, version, params: &[(&str, &str)], wanted| {
            let answer = client.query(service, version, params).await;
            let xml = answer.unwrap_or_else(|error| panic!("{params:?}: {error}"));
            element(&xml, wanted)
        };
        let ec2 = async |params: &[_], wanted| query("ec2", "2016-11-15", params, wanted).await;
        let vpc = [("Action", "CreateVpc"), ("CidrBlock", "10.0.0.0/16")];
        let vpc = ec2(&vpc, "vpcId").await;
        let mut subnets = Vec::new();
        for (zone, block) in [("us-east-1a", "10.0.1.0/24"), ("us-east-1b", "10.0.2.0/24")] {
            let subnet = [
                ("Action", "CreateSubnet"),
                ("VpcId", vpc.as_str()),
                ("CidrBlock", block),
                ("AvailabilityZone", zone),
            ];
            subnets.push(ec2(&subnet, "subnetId").await);
        }
        let elb = async |params: &[_], wanted| {
            query("elasticloadbalancing", "2015-12-01", params, wanted).await
        };
        let balancer = [
            ("Action", "CreateLoadBalancer"),
            ("Name", "front"),
            ("Subnets.member.1", subnets[0].as_str()),
            ("Subnets.member.2", subnets[1].as_str()),
        ];
        let balancer = elb(&balancer, "LoadBalancerArn").await;
        let group = [
            ("Action", "CreateTargetGroup"),
            ("Name", "app"),
            ("Protocol", "HTTP"),
            ("Port", "8000"),
            ("VpcId", vpc.as_str()),
            ("TargetType", "ip"),
            ("HealthCheckPath", "/_health"),
        ];
        let group = elb(&group, "TargetGroupArn").await;
        let listener = [
            ("Action", "CreateListener"),
            ("LoadBalancerArn", balancer.as_str()),
            ("Protocol", "HTTP"),
            ("Port", "80"),
            ("DefaultActions.member.1.Type", "forward"),
            ("DefaultActions.member.1.TargetGroupArn", group.as_str()),
        ];
        elb(&listener, "ListenerArn").await;

        let last_part = |arn: &str| arn.rsplit(':').next().expect("a part").to_owned();
        let balancer = last_part(&balancer).replace("loadbalancer/", "");
        let service = Self {
            label: format!("{balancer}/{}", last_part(&group)),
            client,
        };
        let repository = json!({"repositoryName": "test"});
        let target = "AmazonEC2ContainerRegistry_V20150921.CreateRepository";
        service.call("ecr", target, repository).await;
        let script = File {
            path: "server".into(),
            mode: 0o755,
            contents: SERVER.as_bytes().to_vec(),
        };
        let config = Config {
            entrypoint: vec!["/server".into()],
            ..Config::default()
        };
        let image = pack(&Layer::of(&[script]).expect("a layer"), &config).expect("an image");
        let digest = push(&cloud.registry(), "test", "one", &image).await;
        let digest = digest.expect("pushed");

        service
            .ecs("CreateCluster", json!({"clusterName": "test"}))
            .await;
        let role = cloud::role(cloud.client(), "execution", "ecs-tasks.amazonaws.com").await;
        let policy =
            json!({"Statement": [{"Effect": "Allow", "Action": "ecr:*", "Resource": "*"}]});
        let put = [
            ("Action", "PutRolePolicy"),
            ("RoleName", "execution"),
            ("PolicyName", "pull"),
            ("PolicyDocument", &policy.to_string()),
        ];
        let put = cloud.client().query("iam", "2010-05-08", &put).await;
        put.expect("a policy");
        let definition = json!({
            "family": "test-app",
            "networkMode": "awsvpc",
            "requiresCompatibilities": ["FARGATE"],
            "cpu": "256",
            "memory": "512",
            "executionRoleArn": role,
            "containerDefinitions": [{
                "name": "app",
                "image": format!("000000000000.dkr.ecr.us-east-1.amazonaws.com/test@{digest}"),
                "portMappings": [{"containerPort": 8000}],
            }],
        });
        service.ecs("RegisterTaskDefinition", definition).await;
        let create = json!({
            "cluster": "test",
            "serviceName": "app",
            "taskDefinition": "test-app",
            "desiredCount": desired_count,
            "launchType": "FARGATE",
            "loadBalancers": [{"targetGroupArn": group, "containerName": "app", "containerPort": 8000}],
            "networkConfiguration": {"awsvpcConfiguration": {"subnets": subnets}},
        });
        service.ecs("CreateService", create).await;
        service
    }

    pub async fn ecs(&self, operation: &str, body: Value) -> Value {
        let target = format!("AmazonEC2ContainerServiceV20141113.{operation}");
        self.call("ecs", &target, body).await
    }

    async fn call(&self, service: &str, target: &str, body: Value) -> Value {
        let answer = self.client.json(service, target, body).await;
        answer.unwrap_or_else(|error| panic!("{target}: {error}"))
    }

    pub async fn describe(&self) -> Value {
        let body = json!({"cluster": "test", "services": ["app"]});
        self.ecs("DescribeServices", body).await["services"][0].clone()
    }

    /// The desired count, and the number of deployments.
    pub async fn counts(&self) -> (u64, usize) {
        let service = self.describe().await;
        let deployments = service["deployments"].as_array().map_or(0, Vec::len);
        (
            service["desiredCount"].as_u64().expect("a count"),
            deployments,
        )
    }

    /// Calls Application Auto Scaling for the service with these further members. The error is the code and the
    /// message.
    pub async fn scaling(
        &self,
        operation: &str,
        members: Value,
    ) -> Result<Value, (String, String)> {
        let mut body = json!({
            "ServiceNamespace": "ecs",
            "ResourceId": "service/test/app",
            "ScalableDimension": "ecs:service:DesiredCount",
        });
        for (name, value) in members.as_object().expect("an object") {
            body[name] = value.clone();
        }
        let target = format!("AnyScaleFrontendService.{operation}");
        let answer = self
            .client
            .json("application-autoscaling", &target, body)
            .await;
        answer.map_err(|error| (error.code, error.message))
    }
}

pub fn element(xml: &str, name: &str) -> String {
    let (_, rest) = xml
        .split_once(&format!("<{name}>"))
        .unwrap_or_else(|| panic!("{xml}"));
    rest.split('<').next().unwrap_or_default().to_owned()
}
