//! The real backends: MiniStack, the targets of the load balancer, and the registry.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use super::answer::Refusal;
use super::backends::{Backends, CallError, Health, Image, TargetGroupUse};
use super::model::TaskDefinition;
use super::names::ClusterName;
use super::references;
use super::requests::Tag;
use super::secrets::SecretReference;
use crate::gateway::elbv2::snapshot::Snapshot;
use crate::load_balancer::targets::Targets;
use crate::ministack::{ApiError, Client, element};

const IAM_VERSION: &str = "2010-05-08";
const EC2_VERSION: &str = "2016-11-15";

/// The backends of a running local cloud.
pub struct Aws {
    client: Client,
    targets: Targets,
    /// `host:port` of the registry, plain HTTP.
    registry: String,
    images: PathBuf,
}

impl Aws {
    /// Images are unpacked into `state_dir`.
    pub fn new(client: Client, targets: Targets, registry: String, state_dir: PathBuf) -> Self {
        Aws {
            client,
            targets,
            registry,
            images: state_dir.join("images"),
        }
    }

    async fn ecs(&self, operation: &str, body: Value) -> Result<Value, ApiError> {
        let target = format!("AmazonEC2ContainerServiceV20141113.{operation}");
        self.client.json("ecs", &target, body).await
    }

    async fn logs(&self, operation: &str, body: Value) -> Result<Value, ApiError> {
        let target = format!("Logs_20140328.{operation}");
        self.client.json("logs", &target, body).await
    }

    async fn ec2(&self, action: &str, key: &str, value: &str) -> Result<String, ApiError> {
        let params = [("Action", action), (key, value)];
        self.client.query("ec2", EC2_VERSION, &params).await
    }

    async fn find_cluster(&self, name: &str) -> Result<ClusterName, Refusal> {
        let answer = self
            .ecs("DescribeClusters", json!({"clusters": [name]}))
            .await
            .map_err(call_refused)?;
        let cluster = &answer["clusters"][0];
        if cluster["status"] == "INACTIVE" {
            return Err(Refusal::new(
                "ClusterNotFoundException",
                "The referenced cluster was inactive.",
            ));
        }
        cluster["clusterArn"]
            .as_str()
            .and_then(ClusterName::from_arn)
            .ok_or_else(Refusal::no_cluster)
    }

    async fn find_task_definition(
        &self,
        reference: &str,
    ) -> Result<Option<TaskDefinition>, Refusal> {
        let request = json!({"taskDefinition": reference, "include": ["TAGS"]});
        let answer = match self.ecs("DescribeTaskDefinition", request).await {
            Ok(answer) => answer,
            Err(error) if error.code == "ClientException" => return Ok(None),
            Err(error) => return Err(call_refused(error)),
        };
        let body = answer["taskDefinition"].clone();
        let tags = serde_json::from_value::<Vec<Tag>>(answer["tags"].clone()).unwrap_or_default();
        Ok(body["taskDefinitionArn"]
            .as_str()
            .map(|arn| TaskDefinition {
                arn: arn.to_owned(),
                tags,
                body: body.clone(),
            }))
    }

    async fn find_target_group(&self, arn: &str) -> Result<TargetGroupUse, Refusal> {
        let snapshot = Snapshot::read(&self.client).await.map_err(call_refused)?;
        let control_plane = snapshot.control_plane();
        Ok(if !control_plane.target_groups.contains_key(arn) {
            TargetGroupUse::Missing
        } else if control_plane.target_groups_in_use().contains(arn) {
            TargetGroupUse::Attached
        } else {
            TargetGroupUse::Unattached
        })
    }

    async fn simulate(
        &self,
        role_arn: &str,
        action: &str,
        resource: &str,
    ) -> Result<bool, ApiError> {
        let params = [
            ("Action", "SimulatePrincipalPolicy"),
            ("PolicySourceArn", role_arn),
            ("ActionNames.member.1", action),
            ("ResourceArns.member.1", resource),
        ];
        let xml = self.client.query("iam", IAM_VERSION, &params).await?;
        Ok(element(&xml, "EvalDecision").as_deref() == Some("allowed"))
    }

    async fn get_secret(&self, reference: &SecretReference) -> Result<String, ApiError> {
        let mut request = json!({"SecretId": reference.arn});
        if let Some(stage) = &reference.version_stage {
            request["VersionStage"] = json!(stage);
        }
        if let Some(id) = &reference.version_id {
            request["VersionId"] = json!(id);
        }
        let answer = self
            .client
            .json("secretsmanager", "secretsmanager.GetSecretValue", request)
            .await?;
        Ok(answer["SecretString"]
            .as_str()
            .unwrap_or_default()
            .to_owned())
    }

    async fn get_parameters(&self, names: &[String]) -> Result<HashMap<String, String>, ApiError> {
        let request = json!({"Names": names, "WithDecryption": true});
        let answer = self
            .client
            .json("ssm", "AmazonSSM.GetParameters", request)
            .await?;
        let found: Vec<&Value> = answer["Parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .collect();
        // The order of the answer is not that of the request.
        Ok(names
            .iter()
            .filter_map(|name| {
                let is_it = |one: &&&Value| named(one, name);
                let value = found.iter().find(is_it)?["Value"].as_str()?;
                Some((name.clone(), value.to_owned()))
            })
            .collect())
    }
}

/// Whether a parameter is the one with this name or ARN, to which a version or label may be added.
fn named(parameter: &Value, name_or_arn: &str) -> bool {
    let selector = parameter["Selector"].as_str().unwrap_or_default();
    ["Name", "ARN"].iter().any(|member| {
        let text = parameter[member].as_str().unwrap_or_default();
        name_or_arn.strip_prefix(text) == Some(selector)
    })
}

impl Backends for Aws {
    fn cluster<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<ClusterName, Refusal>> {
        self.find_cluster(name).boxed()
    }

    fn task_definition<'a>(
        &'a self,
        reference: &'a str,
    ) -> BoxFuture<'a, Result<Option<TaskDefinition>, Refusal>> {
        self.find_task_definition(reference).boxed()
    }

    fn target_group<'a>(&'a self, arn: &'a str) -> BoxFuture<'a, Result<TargetGroupUse, Refusal>> {
        self.find_target_group(arn).boxed()
    }

    fn subnet_zone<'a>(
        &'a self,
        subnet: &'a str,
    ) -> BoxFuture<'a, Result<Option<String>, Refusal>> {
        async move {
            match self.ec2("DescribeSubnets", "SubnetId.1", subnet).await {
                Ok(xml) => Ok(element(&xml, "availabilityZone")),
                Err(error) if error.code == "InvalidSubnetID.NotFound" => Ok(None),
                Err(error) => Err(call_refused(error)),
            }
        }
        .boxed()
    }

    fn has_security_group<'a>(&'a self, group: &'a str) -> BoxFuture<'a, Result<bool, Refusal>> {
        async move {
            match self.ec2("DescribeSecurityGroups", "GroupId.1", group).await {
                Ok(xml) => Ok(element(&xml, "groupId").is_some()),
                Err(error) if error.code.starts_with("InvalidGroup") => Ok(false),
                Err(error) => Err(call_refused(error)),
            }
        }
        .boxed()
    }

    fn tasks_may_assume<'a>(&'a self, role_arn: &'a str) -> BoxFuture<'a, Result<bool, CallError>> {
        // https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task_execution_IAM_role.html
        let trusted = self.client.role_trusts(role_arn, "ecs-tasks.amazonaws.com");
        async move { Ok(trusted.await?) }.boxed()
    }

    fn role_allows<'a>(
        &'a self,
        role_arn: &'a str,
        action: &'a str,
        resource: &'a str,
    ) -> BoxFuture<'a, Result<bool, CallError>> {
        async move { Ok(self.simulate(role_arn, action, resource).await?) }.boxed()
    }

    fn secret<'a>(
        &'a self,
        reference: &'a SecretReference,
    ) -> BoxFuture<'a, Result<String, CallError>> {
        async move { Ok(self.get_secret(reference).await?) }.boxed()
    }

    fn parameters<'a>(
        &'a self,
        names: &'a [String],
    ) -> BoxFuture<'a, Result<HashMap<String, String>, CallError>> {
        async move { Ok(self.get_parameters(names).await?) }.boxed()
    }

    fn create_log_stream<'a>(
        &'a self,
        group: &'a str,
        stream: &'a str,
    ) -> BoxFuture<'a, Result<(), CallError>> {
        async move {
            let request = json!({"logGroupName": group, "logStreamName": stream});
            match self.logs("CreateLogStream", request).await {
                Ok(_) => Ok(()),
                Err(error) if error.code == "ResourceAlreadyExistsException" => Ok(()),
                Err(error) => Err(error.into()),
            }
        }
        .boxed()
    }

    fn put_log_events<'a>(
        &'a self,
        group: &'a str,
        stream: &'a str,
        lines: Vec<(u64, String)>,
    ) -> BoxFuture<'a, Result<(), CallError>> {
        async move {
            let events: Vec<Value> = lines
                .into_iter()
                .map(|(timestamp, message)| json!({"timestamp": timestamp, "message": message}))
                .collect();
            let request =
                json!({"logGroupName": group, "logStreamName": stream, "logEvents": events});
            self.logs("PutLogEvents", request).await?;
            Ok(())
        }
        .boxed()
    }

    fn image<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<Image, String>> {
        async move {
            let name = references::without_registry(reference);
            let image = crate::image::pull(&self.registry, name, &self.images)
                .await
                .map_err(|error| error.of(reference).to_string())?;
            Ok(Image {
                root: image.root.clone(),
                entrypoint: image.entrypoint.clone(),
                command: image.cmd.clone(),
                environment: image.env.clone(),
                working_dir: image.working_dir.clone(),
                digest: image.digest.clone(),
                stop_signal: image.stop_signal.clone(),
                folder: Some(image.folder),
            })
        }
        .boxed()
    }

    fn register(&self, group_arn: &str, ip: IpAddr, port: u16, zone: &str) {
        self.targets.register(group_arn, ip, port, zone);
    }

    fn deregister(&self, group_arn: &str, ip: IpAddr, port: u16) {
        self.targets.deregister(group_arn, ip, port);
    }

    fn health(&self, group_arn: &str) -> Vec<Health> {
        self.targets
            .health(group_arn)
            .into_iter()
            .map(|target| Health {
                ip: target.ip,
                port: target.port,
                state: target.state.to_owned(),
                description: target.description,
            })
            .collect()
    }
}

impl From<ApiError> for CallError {
    fn from(error: ApiError) -> Self {
        CallError {
            code: error.code,
            message: error.message,
        }
    }
}

/// The error for the caller after a call on its behalf failed.
fn call_refused(error: ApiError) -> Refusal {
    if error.status == 0 || error.status >= 500 {
        Refusal::new("ServerException", error.to_string())
    } else {
        Refusal::new(error.code, error.message)
    }
}
