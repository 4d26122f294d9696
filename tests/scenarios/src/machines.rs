//! The machines after a switch, cleanup and rollback, started by hand, and what they act on.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use aws_sdk_ecs::types::DesiredStatus;
use aws_sdk_elasticloadbalancingv2::types::Tag;
use localcloud::Options;
use serde_json::{Value, json};

use crate::{Execution, TestEnvironment};

/// Parameters with which only the tests start cleanups, and nothing waits for a switch to settle.
pub const BY_HAND: &str = "SettleSeconds=0 CleanupState=DISABLED";

/// Sweeps closer together than this count as one (`lifecycle::defaults::SWEEPS_APART`).
pub const SWEEPS_APART: Duration = Duration::from_secs(10);

/// How long an execution may go without an event: longer than any of its steps and waits, also on a
/// slow machine.
const EVENT_TIMEOUT: Duration = Duration::from_secs(120);

/// How many times as long an execution may take as a whole.
const MAX_EVENT_TIMEOUTS: usize = 8;

/// A task that runs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Task {
    /// Its id.
    pub id: String,
    /// Its private address.
    pub address: IpAddr,
}

impl TestEnvironment {
    /// As [`TestEnvironment::deploy`], but that only the test starts cleanups and nothing has to settle.
    ///
    /// # Errors
    /// As [`TestEnvironment::deploy`].
    pub async fn deploy_for_cleanups_by_hand() -> anyhow::Result<TestEnvironment> {
        Self::deploy_as(Options::default(), &[("PIPELINE_PARAMETERS", BY_HAND)]).await
    }

    /// Starts a machine as from the console; the execution's ARN.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn start(&self, machine: &str, input: &Value) -> anyhow::Result<String> {
        let started = self
            .sfn
            .start_execution()
            .state_machine_arn(self.machine(machine))
            .input(input.to_string())
            .send()
            .await?;
        Ok(started.execution_arn)
    }

    /// Waits until the execution ended, as long as it goes on.
    ///
    /// # Errors
    /// When nothing happens in it for [`EVENT_TIMEOUT`], or it goes on for [`MAX_EVENT_TIMEOUTS`] of them.
    pub async fn wait_for_execution(&self, arn: &str) -> anyhow::Result<Execution> {
        let mut newest = 0;
        for _ in 0..MAX_EVENT_TIMEOUTS {
            let ended = async || {
                let described = self.sfn.describe_execution().execution_arn(arn).send();
                Ok(described.await?.status().as_str() != "RUNNING")
            };
            if self.wait_until(EVENT_TIMEOUT, ended).await.is_ok() {
                return Execution::read(&self.sfn, arn).await;
            }
            let history = self.sfn.get_execution_history().execution_arn(arn);
            let history = history.reverse_order(true).max_results(1).send().await?;
            let event = history.events.first().map_or(0, |event| event.id);
            ensure!(
                event > newest,
                "execution {arn} does not go on after event {event}"
            );
            newest = event;
        }
        anyhow::bail!("execution {arn} goes on and on")
    }

    /// Stops an execution as from the console.
    ///
    /// # Errors
    /// When there is none.
    pub async fn stop(&self, arn: &str) -> anyhow::Result<()> {
        self.sfn.stop_execution().execution_arn(arn).send().await?;
        Ok(())
    }

    /// Runs a machine to its end.
    ///
    /// # Errors
    /// As [`TestEnvironment::start`] and [`TestEnvironment::wait_for_execution`].
    pub async fn run(&self, machine: &str, input: &Value) -> anyhow::Result<Execution> {
        self.wait_for_execution(&self.start(machine, input).await?)
            .await
    }

    /// Runs a cleanup, which has to succeed.
    ///
    /// # Errors
    /// When it fails; the message has its cause.
    pub async fn clean_up(&self) -> anyhow::Result<Execution> {
        let execution = self.run("cleanup", &json!({})).await?;
        ensure!(
            execution.ending() == "CleanedUp",
            "the cleanup ended as {}: {}",
            execution.ending(),
            execution.cause
        );
        Ok(execution)
    }

    /// Runs a cleanup after a time at which it counts as a sweep of its own.
    ///
    /// # Errors
    /// As [`TestEnvironment::clean_up`].
    pub async fn clean_up_later(&self) -> anyhow::Result<Execution> {
        tokio::time::sleep(SWEEPS_APART + Duration::from_secs(1)).await;
        self.clean_up().await
    }

    /// What a cleanup would do.
    ///
    /// # Errors
    /// When the dry run does not end with a plan.
    pub async fn plan(&self) -> anyhow::Result<Value> {
        let execution = self.run("cleanup", &json!({"dryRun": true})).await?;
        ensure!(
            execution.ending() == "Planned",
            "the dry run ended as {}: {}",
            execution.ending(),
            execution.cause
        );
        Ok(execution.output)
    }

    /// The deployment's running tasks.
    ///
    /// # Errors
    /// When ECS cannot be asked.
    pub async fn tasks(&self, id: &str) -> anyhow::Result<Vec<Task>> {
        let listed = self
            .ecs
            .list_tasks()
            .cluster(&self.name)
            .service_name(id)
            .desired_status(DesiredStatus::Running)
            .send()
            .await?;
        let arns = listed.task_arns.unwrap_or_default();
        if arns.is_empty() {
            return Ok(Vec::new());
        }
        let described = self
            .ecs
            .describe_tasks()
            .cluster(&self.name)
            .set_tasks(Some(arns))
            .send()
            .await?;
        let mut tasks = Vec::new();
        for task in described.tasks() {
            let arn = task.task_arn().context("a task without an ARN")?;
            let address = task
                .attachments()
                .iter()
                .flat_map(|attachment| attachment.details())
                .find(|detail| detail.name() == Some("privateIPv4Address"))
                .and_then(|detail| detail.value());
            if let (Some("RUNNING"), Some(address)) = (task.last_status(), address) {
                tasks.push(Task {
                    id: arn.rsplit('/').next().unwrap_or_default().to_owned(),
                    address: address.parse()?,
                });
            }
        }
        tasks.sort();
        Ok(tasks)
    }

    /// Waits until so many tasks of the deployment run.
    ///
    /// # Errors
    /// When they do not within a minute.
    pub async fn tasks_running(&self, id: &str, number: usize) -> anyhow::Result<Vec<Task>> {
        self.wait_until(Duration::from_secs(60), async || {
            Ok(self.tasks(id).await?.len() == number)
        })
        .await
        .with_context(|| format!("{id} never had {number} running tasks"))?;
        self.tasks(id).await
    }

    /// The target group of the deployment.
    ///
    /// # Errors
    /// When there is none.
    pub async fn target_group(&self, id: &str) -> anyhow::Result<String> {
        let groups = self.elb.describe_target_groups().names(id).send().await?;
        let group = groups.target_groups().first();
        Ok(group
            .and_then(|group| group.target_group_arn())
            .with_context(|| format!("{id} has no target group"))?
            .to_owned())
    }

    /// The tags of the deployment's target group, which carries its state.
    ///
    /// # Errors
    /// When there is none.
    pub async fn tags(&self, id: &str) -> anyhow::Result<BTreeMap<String, String>> {
        let arn = self.target_group(id).await?;
        let tags = self.elb.describe_tags().resource_arns(arn).send().await?;
        Ok(tags
            .tag_descriptions()
            .iter()
            .flat_map(|description| description.tags())
            .map(|tag| {
                let key = tag.key().unwrap_or_default().to_owned();
                (key, tag.value().unwrap_or_default().to_owned())
            })
            .collect())
    }

    /// Sets a tag of the deployment's target group, as a person could.
    ///
    /// # Errors
    /// When there is none.
    pub async fn tag(&self, id: &str, key: &str, value: &str) -> anyhow::Result<()> {
        self.elb
            .add_tags()
            .resource_arns(self.target_group(id).await?)
            .tags(Tag::builder().key(key).value(value).build())
            .send()
            .await?;
        Ok(())
    }

    /// Removes a tag of the deployment's target group, as a person could.
    ///
    /// # Errors
    /// When there is none.
    pub async fn untag(&self, id: &str, key: &str) -> anyhow::Result<()> {
        self.elb
            .remove_tags()
            .resource_arns(self.target_group(id).await?)
            .tag_keys(key)
            .send()
            .await?;
        Ok(())
    }

    /// How many tasks the deployment's service wants.
    ///
    /// # Errors
    /// When there is no service.
    pub async fn desired_count(&self, id: &str) -> anyhow::Result<i32> {
        let described = self
            .ecs
            .describe_services()
            .cluster(&self.name)
            .services(id)
            .send()
            .await?;
        let service = described.services().first().context("no service")?;
        Ok(service.desired_count())
    }
}

impl Task {
    /// What the task itself answers for a path, as JSON, asked directly and not through the load balancer.
    ///
    /// # Errors
    /// When it does not answer, or with an error.
    pub async fn ask(&self, path: &str) -> anyhow::Result<Value> {
        // Reading the certificates of this machine takes long, and nothing here is encrypted.
        let client = reqwest::Client::builder().tls_certs_only([]).build()?;
        let url = format!("http://{}:8000{path}", self.address);
        let answer = client.get(url).send().await?.error_for_status()?;
        Ok(serde_json::from_str(&answer.text().await?)?)
    }
}

/// What the task says of its draining.
///
/// # Errors
/// As [`Task::ask`].
pub async fn drain_record(task: &Task) -> anyhow::Result<Value> {
    task.ask("/drain-record").await
}

/// What a cleanup did with the deployment, with its reason.
///
/// # Errors
/// When it did nothing with it.
pub fn outcome<'a>(cleanup: &'a Execution, id: &str) -> anyhow::Result<(&'a str, &'a str)> {
    let deployments = cleanup.output["deployments"].as_array();
    let item = deployments
        .into_iter()
        .flatten()
        .find(|item| item["deploymentId"] == id)
        .with_context(|| format!("nothing about {id} in {}", cleanup.output))?;
    Ok((
        item["outcome"].as_str().unwrap_or_default(),
        item["reason"].as_str().unwrap_or_default(),
    ))
}

/// What a plan says of the deployment: state, action and reason.
///
/// # Errors
/// When it does not know it.
pub fn planned<'a>(plan: &'a Value, id: &str) -> anyhow::Result<(&'a str, &'a str, &'a str)> {
    let deployments = plan["deployments"].as_array();
    let item = deployments
        .into_iter()
        .flatten()
        .find(|item| item["deploymentId"] == id)
        .with_context(|| format!("nothing about {id} in {plan}"))?;
    Ok((
        item["state"].as_str().unwrap_or_default(),
        item["action"].as_str().unwrap_or_default(),
        item["reason"].as_str().unwrap_or_default(),
    ))
}
