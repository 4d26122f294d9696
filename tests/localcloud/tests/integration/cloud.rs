//! A local cloud for each test, SDK clients for it, and the resources that tests create.

use aws_sdk_ecr::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_elasticloadbalancingv2::types::{
    Action, ActionTypeEnum, HttpHeaderConditionConfig, LoadBalancer, ProtocolEnum, RuleCondition,
    TargetTypeEnum,
};
use localcloud::ministack::Client;
use localcloud::{LocalCloud, Options, time_scale::TimeScale};

/// A zip file without entries, for functions whose code does not run.
pub const EMPTY_ZIP: &str = "UEsFBgAAAAAAAAAAAAAAAAAAAAAAAA==";

/// Starts a local cloud on free ports, at a twentieth of the durations of AWS.
pub async fn start() -> LocalCloud {
    start_with(Options::default()).await
}

/// The same as `start`, with other options.
pub async fn start_with(options: Options) -> LocalCloud {
    let time_scale = TimeScale(0.05);
    LocalCloud::start(Options {
        time_scale,
        ..options
    })
    .await
    .expect("the local cloud starts")
}

/// Calls an operation of Step Functions as root.
pub async fn states(
    client: &Client,
    operation: &str,
    body: serde_json::Value,
) -> serde_json::Value {
    let target = format!("AWSStepFunctions.{operation}");
    let answer = client.json("states", &target, body).await;
    answer.unwrap_or_else(|error| panic!("{operation}: {error}"))
}

/// Waits for the end of an execution, which `StartExecution` answered, and describes it.
pub async fn end_of_execution(client: &Client, started: &serde_json::Value) -> serde_json::Value {
    let which = serde_json::json!({"executionArn": started["executionArn"]});
    loop {
        let execution = states(client, "DescribeExecution", which.clone()).await;
        if execution["status"] != "RUNNING" {
            return execution;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// Creates a role that a service may assume. Returns its ARN.
pub async fn role(client: &Client, name: &str, service: &str) -> String {
    let trust = serde_json::json!({"Statement": [{
        "Effect": "Allow",
        "Principal": {"Service": service},
        "Action": "sts:AssumeRole",
    }]});
    let create = [
        ("Action", "CreateRole"),
        ("RoleName", name),
        ("AssumeRolePolicyDocument", &trust.to_string()),
    ];
    let created = client.query("iam", "2010-05-08", &create).await;
    created.expect("created");
    format!("arn:aws:iam::000000000000:role/{name}")
}

/// Creates a state machine with that role. Returns its ARN.
pub async fn machine(
    client: &Client,
    name: &str,
    role: &str,
    definition: &serde_json::Value,
) -> serde_json::Value {
    let create = serde_json::json!({
        "name": name, "roleArn": role, "definition": definition.to_string(),
    });
    states(client, "CreateStateMachine", create).await["stateMachineArn"].take()
}

/// The credentials of the root user.
pub fn root() -> Credentials {
    Credentials::new("test", "test", None, None, "tests")
}

macro_rules! sdk_client {
    ($name:ident, $service:ident) => {
        /// A client without retries, so that tests see every error.
        pub fn $name(cloud: &LocalCloud, credentials: Credentials) -> $service::Client {
            let config = $service::Config::builder()
                .behavior_version(BehaviorVersion::latest())
                .endpoint_url(cloud.endpoint_url())
                .region(Region::new("us-east-1"))
                .credentials_provider(credentials)
                .retry_config($service::config::retry::RetryConfig::disabled())
                .http_client(aws_smithy_http_client::Builder::new().build_http());
            $service::Client::from_conf(config.build())
        }
    };
}

sdk_client!(elbv2, aws_sdk_elasticloadbalancingv2);
sdk_client!(ecs, aws_sdk_ecs);
sdk_client!(ecr, aws_sdk_ecr);
sdk_client!(cloudwatch, aws_sdk_cloudwatch);

/// A load balancer with a listener whose default action answers 503.
pub struct Balancer {
    pub client: aws_sdk_elasticloadbalancingv2::Client,
    pub arn: String,
    pub listener: String,
}

impl Balancer {
    pub async fn create(cloud: &LocalCloud) -> Self {
        let client = elbv2(cloud, root());
        let created = client
            .create_load_balancer()
            .name("main")
            .subnets("subnet-1")
            .send()
            .await;
        let arn = created.expect("created").load_balancers()[0]
            .load_balancer_arn()
            .map(str::to_owned);
        let arn = arn.expect("an ARN");
        let listener = listener(&client, &arn, 80).await;
        Self {
            client,
            arn,
            listener,
        }
    }

    /// A target group with the settings that deployments have.
    pub async fn target_group(&self, name: &str) -> String {
        let created = self
            .client
            .create_target_group()
            .name(name)
            .protocol(ProtocolEnum::Http)
            .port(8000)
            .vpc_id("vpc-1")
            .target_type(TargetTypeEnum::Ip)
            .health_check_path("/_health")
            .send()
            .await
            .expect("created");
        created.target_groups()[0]
            .target_group_arn()
            .expect("an ARN")
            .to_owned()
    }

    /// Tries to create a rule. Returns its ARN, or the code of the error.
    pub async fn rule(&self, priority: i32, group: &str) -> Result<String, String> {
        let created = self
            .client
            .create_rule()
            .listener_arn(&self.listener)
            .priority(priority)
            .conditions(header_condition(&priority.to_string()))
            .actions(forward(group))
            .send()
            .await;
        match created {
            Ok(created) => Ok(created.rules()[0].rule_arn().expect("an ARN").to_owned()),
            Err(error) => Err(code(&error)),
        }
    }
}

/// A listener that answers 503.
pub async fn listener(
    client: &aws_sdk_elasticloadbalancingv2::Client,
    arn: &str,
    port: i32,
) -> String {
    use aws_sdk_elasticloadbalancingv2::types::FixedResponseActionConfig;
    let unavailable = FixedResponseActionConfig::builder()
        .status_code("503")
        .build();
    let action = Action::builder()
        .r#type(ActionTypeEnum::FixedResponse)
        .fixed_response_config(unavailable)
        .build();
    let created = client
        .create_listener()
        .load_balancer_arn(arn)
        .protocol(ProtocolEnum::Http)
        .port(port)
        .default_actions(action)
        .send()
        .await
        .expect("created");
    created.listeners()[0]
        .listener_arn()
        .expect("an ARN")
        .to_owned()
}

pub fn header_condition(value: &str) -> RuleCondition {
    let header = HttpHeaderConditionConfig::builder()
        .http_header_name("X-Pulse-Render-Affinity")
        .values(value)
        .build();
    RuleCondition::builder()
        .field("http-header")
        .http_header_config(header)
        .build()
}

pub fn forward(group: &str) -> Action {
    let action = Action::builder()
        .r#type(ActionTypeEnum::Forward)
        .target_group_arn(group);
    action.build()
}

/// The code of a service error, or `no answer`.
pub fn code<E, R>(error: &aws_sdk_ecr::error::SdkError<E, R>) -> String
where
    E: aws_sdk_ecr::error::ProvideErrorMetadata,
{
    match error.as_service_error() {
        Some(service) => service.code().unwrap_or("no code").to_owned(),
        None => "no answer".to_owned(),
    }
}

/// The names of load balancers.
pub fn names(balancers: &[LoadBalancer]) -> Vec<&str> {
    balancers
        .iter()
        .filter_map(LoadBalancer::load_balancer_name)
        .collect()
}

/// Creates a user with a policy. Returns its credentials.
pub async fn user_with_policy(
    cloud: &LocalCloud,
    name: &str,
    policy: &serde_json::Value,
) -> Credentials {
    let policy = policy.to_string();
    let iam = |parameters: Vec<(&'static str, String)>| {
        let client = cloud.client().clone();
        async move {
            let parameters: Vec<(&str, &str)> =
                parameters.iter().map(|(n, v)| (*n, v.as_str())).collect();
            client
                .query("iam", "2010-05-08", &parameters)
                .await
                .expect("IAM answers")
        }
    };
    iam(vec![
        ("Action", "CreateUser".into()),
        ("UserName", name.into()),
    ])
    .await;
    iam(vec![
        ("Action", "PutUserPolicy".into()),
        ("UserName", name.into()),
        ("PolicyName", "policy".into()),
        ("PolicyDocument", policy),
    ])
    .await;
    let key = iam(vec![
        ("Action", "CreateAccessKey".into()),
        ("UserName", name.into()),
    ])
    .await;
    let element = |name: &str| {
        let (_, rest) = key.split_once(&format!("<{name}>")).expect("there");
        rest.split_once('<').expect("closed").0.to_owned()
    };
    Credentials::new(
        element("AccessKeyId"),
        element("SecretAccessKey"),
        None,
        None,
        "tests",
    )
}

/// Calls the gateway with the AWS CLI, without retries. Returns the text that it prints, or the error.
pub async fn aws(
    cloud: &LocalCloud,
    credentials: &Credentials,
    arguments: &[&str],
) -> Result<String, String> {
    let mut command = cloud.command("aws").expect("the workspace has tools");
    let ran = command
        .env("AWS_ACCESS_KEY_ID", credentials.access_key_id())
        .env("AWS_SECRET_ACCESS_KEY", credentials.secret_access_key())
        .env("AWS_DEFAULT_OUTPUT", "text")
        .env("AWS_MAX_ATTEMPTS", "1")
        .args(arguments)
        .output()
        .await
        .expect("the AWS CLI runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8").trim().to_owned();
    if ran.status.success() {
        Ok(text(ran.stdout))
    } else {
        Err(text(ran.stderr))
    }
}

/// A client for plain HTTP. It requires a TLS provider even though it uses no TLS.
pub fn http() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}
