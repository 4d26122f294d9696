//! What ECS does with the execution role of a task before it starts the task: it assumes the role,
//! fetches registry credentials and secrets, and prepares the log stream. Each failure has the message
//! of Fargate.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task_execution_IAM_role.html>
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/stopped-task-error-codes.html>

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::backends::{Backends, CallError};
use super::logs::Destination;
use super::names::{account_of, last_part};
use super::secrets::{PARAMETERS_PER_CALL, SecretReference, Source, parameter_arn};

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
    pub async fn secrets(
        &self,
        container: &Value,
        region_account: &str,
    ) -> Result<BTreeMap<String, String>, String> {
        let mut parameters = Vec::new();
        let mut environment = BTreeMap::new();
        for secret in container["secrets"].as_array().into_iter().flatten() {
            let name = secret["name"].as_str().unwrap_or_default().to_owned();
            let value_from = secret["valueFrom"].as_str().unwrap_or_default();
            match Source::of(value_from).map_err(|why| not_from_secrets_manager(&why))? {
                Source::Parameter(parameter) => parameters.push((name, parameter)),
                Source::Secret(reference) => {
                    environment.insert(name, self.secret(&reference).await?);
                }
            }
        }
        let wanted = parameters.iter().map(|(_, name)| name.clone()).collect();
        let values = self.parameters(wanted, region_account).await?;
        environment.extend(parameters.into_iter().filter_map(|(name, parameter)| {
            let value = values.get(&parameter)?;
            Some((name, value.clone()))
        }));
        Ok(environment)
    }

    /// The value of a secret of Secrets Manager, or one value in it.
    async fn secret(&self, reference: &SecretReference) -> Result<String, String> {
        let arn = &reference.arn;
        let call = async {
            self.allows("secretsmanager:GetSecretValue", arn).await?;
            self.backends.secret(reference).await
        };
        let secret = call.await.map_err(|error| {
            not_from_secrets_manager(&format!(
                "failed to fetch secret {arn} from secrets manager: {}: {}",
                error.code, error.message
            ))
        })?;
        reference
            .value(secret)
            .map_err(|why| not_from_secrets_manager(&why))
    }

    /// The values of parameters, by their names or ARNs as they are given. The role needs `ssm:GetParameters`, which
    /// is another permission than `ssm:GetParameter`.
    /// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/secrets-envvar-ssm-paramstore.html>
    async fn parameters(
        &self,
        mut wanted: Vec<String>,
        region_account: &str,
    ) -> Result<HashMap<String, String>, String> {
        wanted.sort();
        wanted.dedup();
        let mut values = HashMap::new();
        for names in wanted.chunks(PARAMETERS_PER_CALL) {
            let call = async {
                for name in names {
                    let arn = parameter_arn(name, region_account);
                    self.allows("ssm:GetParameters", &arn).await?;
                }
                self.backends.parameters(names).await
            };
            let found = call
                .await
                .map_err(|error| not_from_ssm(&format!("{}: {}", error.code, error.message)))?;
            let missing: Vec<&str> = names
                .iter()
                .filter(|name| !found.contains_key(*name))
                .map(String::as_str)
                .collect();
            if !missing.is_empty() {
                let list = missing.join(",");
                return Err(not_from_ssm(&format!("invalid ssm parameters: {list}")));
            }
            values.extend(found);
        }
        Ok(values)
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

fn not_from_secrets_manager(why: &str) -> String {
    initialization_error(&format!(
        "unable to retrieve secret from asm: service call has been retried 1 time(s): {why}"
    ))
}

fn not_from_ssm(why: &str) -> String {
    initialization_error(&format!(
        "unable to retrieve secrets from ssm: service call has been retried 1 time(s): {why}"
    ))
}

fn initialization_error(what: &str) -> String {
    format!(
        "ResourceInitializationError: unable to pull secrets or registry auth: execution resource \
         retrieval failed: {what}"
    )
}
