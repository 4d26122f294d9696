//! What a function knows of its environment, read once at start.

use crate::variables::{environment, number, required};
use crate::{Environment, StepError, defaults};

/// The baseline's resources, handed to every function by `infra/pipeline.yaml`.
#[derive(Debug, Clone)]
pub struct Baseline {
    /// The environment that this function serves.
    pub environment: Environment,
    /// The AWS region.
    pub region: String,
    /// The ECS cluster's name.
    pub cluster: String,
    /// The HTTPS listener that carries the rules and the default action.
    pub listener_arn: String,
    /// The load balancer of that listener.
    pub load_balancer_arn: String,
    /// The VPC of the target groups.
    pub vpc_id: String,
    /// Where the tasks run.
    pub private_subnets: Vec<String>,
    /// The tasks' security group.
    pub service_security_group: String,
    /// The application's log group.
    pub log_group: String,
    /// The ECR repository's name.
    pub repository_name: String,
    /// The ECR repository's URI, without tag or digest.
    pub repository_uri: String,
    /// The role with which ECS pulls the image, reads the secret and writes the logs.
    pub execution_role_arn: String,
    /// The role of the application itself.
    pub task_role_arn: String,
    /// The secret that `POST /drain` is authorised with.
    pub drain_secret_arn: String,
    /// `X86_64` or `ARM64`: what the image is built for.
    pub cpu_architecture: String,
    /// Seconds that a candidate has to become healthy, unless its settings say otherwise.
    pub health_timeout_seconds: u32,
    /// Seconds for which a deployment is watched after the switch, unless its settings say otherwise.
    pub watch_seconds: u32,
}

impl Baseline {
    /// Reads it through `variable`, which gives the value of an environment variable.
    ///
    /// # Errors
    /// `Configuration`, naming the first variable that is missing or wrong.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, StepError> {
        let required = |name: &str| required(&variable, name);
        Ok(Baseline {
            environment: environment(&variable)?,
            region: required("AWS_REGION")?,
            cluster: required("CLUSTER_NAME")?,
            listener_arn: required("LISTENER_ARN")?,
            load_balancer_arn: required("LOAD_BALANCER_ARN")?,
            vpc_id: required("VPC_ID")?,
            private_subnets: required("PRIVATE_SUBNETS")?
                .split(',')
                .map(|s| s.trim().to_owned())
                .collect(),
            service_security_group: required("SERVICE_SECURITY_GROUP_ID")?,
            log_group: required("LOG_GROUP_NAME")?,
            repository_name: required("REPOSITORY_NAME")?,
            repository_uri: required("REPOSITORY_URI")?,
            execution_role_arn: required("EXECUTION_ROLE_ARN")?,
            task_role_arn: required("TASK_ROLE_ARN")?,
            drain_secret_arn: required("DRAIN_SECRET_ARN")?,
            cpu_architecture: required("CPU_ARCHITECTURE")?,
            health_timeout_seconds: number(
                &variable,
                "HEALTH_TIMEOUT_SECONDS",
                defaults::HEALTH_TIMEOUT_SECONDS,
            )?,
            watch_seconds: number(&variable, "WATCH_SECONDS", defaults::WATCH_SECONDS)?,
        })
    }

    /// The grace period of a service that does not drain, unless its settings say otherwise: seconds during which
    /// ECS does not stop a new task for failing its health checks. At least the time that a candidate has to become
    /// healthy.
    pub fn health_check_grace_seconds(&self) -> u32 {
        defaults::grace_seconds(self.health_timeout_seconds)
    }

    /// Reads it from the process's environment.
    pub fn from_env() -> Result<Self, StepError> {
        Self::read(|name| std::env::var(name).ok())
    }

    /// A baseline for unit tests: environment `test`, region `us-east-1`, ARNs that look like AWS's.
    #[doc(hidden)]
    pub fn for_tests() -> Self {
        Baseline {
            environment: "test".parse().expect("a valid name"),
            region: "us-east-1".into(),
            cluster: "test".into(),
            listener_arn: "arn:aws:elasticloadbalancing:us-east-1:1:listener/app/test-alb/1/2"
                .into(),
            load_balancer_arn:
                "arn:aws:elasticloadbalancing:us-east-1:1:loadbalancer/app/test-alb/1".into(),
            vpc_id: "vpc-1".into(),
            private_subnets: vec!["subnet-1".into(), "subnet-2".into()],
            service_security_group: "sg-1".into(),
            log_group: "/aws/pulse/test/app".into(),
            repository_name: "test".into(),
            repository_uri: "1.dkr.ecr.us-east-1.amazonaws.com/test".into(),
            execution_role_arn: "arn:aws:iam::1:role/test-execution".into(),
            task_role_arn: "arn:aws:iam::1:role/test-task".into(),
            drain_secret_arn: "arn:aws:secretsmanager:us-east-1:1:secret:test/drain-secret-a"
                .into(),
            cpu_architecture: "X86_64".into(),
            health_timeout_seconds: 600,
            watch_seconds: 120,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorName;

    #[test]
    fn a_missing_variable_is_named() {
        let error = Baseline::read(|name| (name != "VPC_ID").then(|| "test".to_owned()));
        let error = error.unwrap_err();
        assert_eq!(error.name, ErrorName::Configuration);
        assert!(error.message.contains("VPC_ID"), "{}", error.message);
    }

    #[test]
    fn subnets_are_separated_by_commas() {
        let baseline = read_with("PRIVATE_SUBNETS", "subnet-a, subnet-b");
        assert_eq!(baseline.private_subnets, ["subnet-a", "subnet-b"]);
    }

    #[test]
    fn a_task_has_as_much_time_to_start_as_its_deployment_has_to_become_healthy() {
        for (timeout, grace) in [("60", 120), ("", 600), ("600", 600), ("3600", 3600)] {
            let baseline = read_with("HEALTH_TIMEOUT_SECONDS", timeout);
            assert_eq!(baseline.health_check_grace_seconds(), grace, "{timeout}");
        }
    }

    /// All other variables are `test`, or not set if they are numbers.
    fn read_with(variable: &str, value: &str) -> Baseline {
        Baseline::read(|name| match name {
            _ if name == variable => Some(value.to_owned()),
            "HEALTH_TIMEOUT_SECONDS" | "WATCH_SECONDS" => None,
            _ => Some("test".to_owned()),
        })
        .unwrap()
    }
}
