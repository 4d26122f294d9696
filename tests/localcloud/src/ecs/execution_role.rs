//! What ECS does with the execution role of a task before it starts the task: it assumes the role,
//! fetches registry credentials and secrets, and prepares the log stream. Each failure has the message
//! of Fargate.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task_execution_IAM_role.html>
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/stopped-task-error-codes.html>

use std::collections::BTreeMap;

use serde_json::Value;

use super::backends::{Backends, CallError};
use super::logs::Destination;
use super::names::{account_of, last_part};

/// The execution role of a task.
pub struct ExecutionRole<'a> {
    pub backends: &'a dyn Backends,
    pub arn: &'a str,
    /// The id of the task, which is the name of the session.
    pub task_id: &'a str,
}

impl ExecutionRole<'_> {
    /// Checks that ECS can assume the role.
    pub async fn assume(&self) -> Result<(), String> {
        match self.backends.tasks_may_assume(self.arn).await {
            Ok(true) => Ok(()),
            _ => Err(cannot_assume(self.arn)),
        }
    }

    /// Checks that the role can get credentials for a private registry.
    pub async fn registry_credentials(&self) -> Result<(), String> {
        self.allows("ecr:GetAuthorizationToken", "*")
            .await
            .map_err(|error| {
                initialization_error(&format!(
                    "unable to retrieve ecr registry auth: service call has been retried 1 \
                     time(s): {}: {}",
                    error.code, error.message
                ))
            })
    }

    /// Checks that the role may read an image from a repository.
    pub async fn may_pull(&self, image: &str, repository_arn: &str) -> Result<(), String> {
        for action in ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"] {
            if self.allows(action, repository_arn).await.is_err() {
                return Err(format!(
                    "CannotPullContainerError: pull image manifest has been retried 1 time(s): \
                     failed to resolve ref {image}: unexpected status from HEAD request: 403 \
                     Forbidden"
                ));
            }
        }
        Ok(())
    }

    /// The values of the container's `secrets`, by the name of the environment variable.
    pub async fn secrets(&self, container: &Value) -> Result<BTreeMap<String, String>, String> {
        let mut environment = BTreeMap::new();
        for secret in container["secrets"].as_array().into_iter().flatten() {
            let name = secret["name"].as_str().unwrap_or_default();
            let value_from = secret["valueFrom"].as_str().unwrap_or_default();
            let value = self.secret(value_from).await?;
            environment.insert(name.to_owned(), value);
        }
        Ok(environment)
    }

    /// The value of a secret of Secrets Manager. Only a plain ARN is supported, without a JSON key or
    /// version.
    async fn secret(&self, arn: &str) -> Result<String, String> {
        let failed = |what: String| {
            initialization_error(&format!(
                "unable to retrieve secret from asm: service call has been retried 1 time(s): \
                 failed to fetch secret {arn} from secrets manager: {what}"
            ))
        };
        let parts: Vec<&str> = arn.split(':').collect();
        if parts.len() != 7 || parts[0] != "arn" || parts[5] != "secret" {
            return Err(failed("ValidationException: Invalid name.".into()));
        }
        let call = async {
            self.allows("secretsmanager:GetSecretValue", arn).await?;
            self.backends.secret(arn).await
        };
        call.await
            .map_err(|error| failed(format!("{}: {}", error.code, error.message)))
    }

    /// Creates the log stream, and returns whether the role may write lines to it. Fargate checks the
    /// creation before it starts the container, but loses lines silently if the role may not write.
    pub async fn log_stream(&self, to: &Destination, region_account: &str) -> Result<bool, String> {
        let group_arn = format!("arn:aws:logs:{region_account}:log-group:{}", to.group);
        let stream_arn = format!("{group_arn}:log-stream:{}", to.stream);
        let call = async {
            self.allows("logs:CreateLogStream", &stream_arn).await?;
            self.backends.create_log_stream(&to.group, &to.stream).await
        };
        call.await.map_err(|error| {
            format!(
                "ResourceInitializationError: failed to validate logger args: create stream has \
                 been retried 1 times: failed to create Cloudwatch log stream: {}: {}: exit \
                 status 1",
                error.code, error.message
            )
        })?;
        Ok(self.allows("logs:PutLogEvents", &stream_arn).await.is_ok())
    }

    async fn allows(&self, action: &str, resource: &str) -> Result<(), CallError> {
        if self
            .backends
            .role_allows(self.arn, action, resource)
            .await?
        {
            return Ok(());
        }
        Err(CallError {
            code: "AccessDeniedException".to_owned(),
            message: format!(
                "User: arn:aws:sts::{}:assumed-role/{}/{} is not authorized to perform: {action} \
                 on resource: {resource} because no identity-based policy allows the {action} \
                 action",
                account_of(self.arn),
                last_part(self.arn),
                self.task_id,
            ),
        })
    }
}

/// The message of ECS for a role that it cannot assume.
pub fn cannot_assume(role_arn: &str) -> String {
    format!(
        "ECS was unable to assume the role '{role_arn}' that was provided for this task. Please \
         verify that the role being passed has the proper trust relationship and permissions and \
         that your IAM user has permissions to pass this role."
    )
}

fn initialization_error(what: &str) -> String {
    format!(
        "ResourceInitializationError: unable to pull secrets or registry auth: execution resource \
         retrieval failed: {what}"
    )
}
