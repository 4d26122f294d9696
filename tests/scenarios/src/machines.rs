//! Runs the machines by hand, and reads the resources that cleanups and rollbacks act on.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use aws_sdk_ecs::types::{DesiredStatus, Service};
use aws_sdk_elasticloadbalancingv2::types::Tag;
use serde_json::{Value, json};

use crate::{Execution, TestEnvironment};

/// Pipeline parameters with which no schedule starts cleanups, and nothing waits for a switch to settle.
pub const BY_HAND: &str = "SettleSeconds=0 CleanupState=DISABLED";

/// Cleanups closer together than this count as one sweep (`lifecycle::defaults::SWEEPS_APART`).
pub const SWEEPS_APART: Duration = Duration::from_secs(10);

/// How long an execution may go without an event. It is longer than any step or wait, even on a slow
/// machine.
const EVENT_TIMEOUT: Duration = Duration::from_secs(120);

/// How long a whole execution may take, in [`EVENT_TIMEOUT`]s.
const MAX_EVENT_TIMEOUTS: usize = 8;

/// A running task.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Task {
    /// The last part of its ARN.
    pub id: String,
    /// Its private address.
    pub address: IpAddr,
}

impl TestEnvironment {
    /// As [`TestEnvironment::deploy`], with [`BY_HAND`] as pipeline parameters.
    ///
    /// # Errors
    /// As [`TestEnvironment::deploy`].
    pub async fn deploy_for_cleanups_by_hand() -> anyhow::Result<TestEnvironment> {
        Self::deploy_with_parameters(BY_HAND).await
    }

    /// As [`TestEnvironment::deploy_for_cleanups_by_hand`], but no previous deployment is kept warm:
    /// the next cleanup drains what a deployment replaced.
    ///
    /// # Errors
    /// As [`TestEnvironment::deploy`].
    pub async fn deploy_keeping_no_previous() -> anyhow::Result<TestEnvironment> {
        Self::deploy_with_parameters(&format!("{BY_HAND} KeepPrevious=0")).await
    }

    /// Starts a machine as from the console; returns the execution's ARN.
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

    /// Waits until an execution of the deploy machine, which may be still to start, has left a state.
    ///
    /// # Errors
    /// When that takes longer than two minutes.
    pub async fn wait_until_left(&self, name: &str, state: &str) -> anyhow::Result<()> {
        let arn = self.execution_arn(name);
        let has_left = async || {
            // It cannot be read before it starts.
            let execution = Execution::read(&self.sfn, &arn).await;
            Ok(execution.is_ok_and(|execution| execution.left(state).is_some()))
        };
        self.wait_until(EVENT_TIMEOUT, has_left).await
    }

    /// Waits for the end of an execution, as long as it makes progress.
    ///
    /// # Errors
    /// When it has no new event for `EVENT_TIMEOUT`, or does not end within `MAX_EVENT_TIMEOUTS` of them.
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
                "execution {arn} makes no progress after event {event}"
            );
            newest = event;
        }
        anyhow::bail!("execution {arn} does not end")
    }

    /// The execution of a machine with this name, once it has ended.
    ///
    /// # Errors
    /// When there is none, and as [`TestEnvironment::wait_for_execution`].
    pub async fn execution_of(&self, machine: &str, name: &str) -> anyhow::Result<Execution> {
        let executions = self
            .machine(machine)
            .replace(":stateMachine:", ":execution:");
        let arn = format!("{executions}:{name}");
        let described = self.sfn.describe_execution().execution_arn(&arn).send();
        described
            .await
            .with_context(|| format!("there is no execution {name}"))?;
        self.wait_for_execution(&arn).await
    }

    /// Stops an execution as from the console.
    ///
    /// # Errors
    /// When the execution does not exist.
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

    /// Runs a cleanup that must succeed, when no drain gives way to a switch of the past any more.
    ///
    /// # Errors
    /// When it fails; the message includes its cause.
    pub async fn clean_up(&self) -> anyhow::Result<Execution> {
        self.age_switches().await?;
        let execution = self.run("cleanup", &json!({})).await?;
        ensure!(
            execution.ending() == "CleanedUp",
            "the cleanup ended as {}: {}",
            execution.ending(),
            execution.cause
        );
        Ok(execution)
    }

    /// As [`TestEnvironment::clean_up`], as a sweep of its own after the one before.
    ///
    /// # Errors
    /// As [`TestEnvironment::clean_up`].
    pub async fn clean_up_later(&self) -> anyhow::Result<Execution> {
        self.age_sweeps().await?;
        self.clean_up().await
    }

    /// Runs a cleanup with `dryRun` and returns its plan.
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

    /// The deployment's running tasks, sorted by id.
    ///
    /// # Errors
    /// When ECS does not answer.
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

    /// Waits until `number` tasks of the deployment run.
    ///
    /// # Errors
    /// When a minute passes without.
    pub async fn tasks_running(&self, id: &str, number: usize) -> anyhow::Result<Vec<Task>> {
        self.wait_until(Duration::from_secs(60), async || {
            Ok(self.tasks(id).await?.len() == number)
        })
        .await
        .with_context(|| format!("{id} never had {number} running tasks"))?;
        self.tasks(id).await
    }

    /// The ARN of the deployment's target group.
    ///
    /// # Errors
    /// When the deployment has no target group.
    pub async fn target_group(&self, id: &str) -> anyhow::Result<String> {
        let groups = self.elb.describe_target_groups().names(id).send().await?;
        let group = groups.target_groups().first();
        Ok(group
            .and_then(|group| group.target_group_arn())
            .with_context(|| format!("{id} has no target group"))?
            .to_owned())
    }

    /// The tags of the deployment's target group, which hold its state.
    ///
    /// # Errors
    /// When the deployment has no target group.
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

    /// Sets a tag of the deployment's target group, as an operator could.
    ///
    /// # Errors
    /// When the deployment has no target group.
    pub async fn tag(&self, id: &str, key: &str, value: &str) -> anyhow::Result<()> {
        self.elb
            .add_tags()
            .resource_arns(self.target_group(id).await?)
            .tags(Tag::builder().key(key).value(value).build())
            .send()
            .await?;
        Ok(())
    }

    /// Moves the past of a replaced deployment to long ago: it was live, was replaced and began to drain, and
    /// its drain deadline is over.
    ///
    /// # Errors
    /// When the deployment has no target group.
    pub async fn drains_since_long_ago(&self, id: &str) -> anyhow::Result<()> {
        // Each a minute after the one before.
        for (minute, tag) in (0..).zip(["ready-at", "live-since", "replaced-at", "draining-since"])
        {
            let at = format!("2026-01-01T00:0{minute}:00Z");
            self.tag(id, &format!("pulse:{tag}"), &at).await?;
        }
        Ok(())
    }

    /// Removes a tag of the deployment's target group, as an operator could.
    ///
    /// # Errors
    /// When the deployment has no target group.
    pub async fn untag(&self, id: &str, key: &str) -> anyhow::Result<()> {
        self.elb
            .remove_tags()
            .resource_arns(self.target_group(id).await?)
            .tag_keys(key)
            .send()
            .await?;
        Ok(())
    }

    /// The deployment's ECS service.
    ///
    /// # Errors
    /// When the deployment has no service.
    pub async fn service(&self, id: &str) -> anyhow::Result<Service> {
        let service = self.find_service(id).await?;
        service.with_context(|| format!("{id} has no service"))
    }

    /// The deployment's ECS service as ECS describes it, if it does.
    ///
    /// # Errors
    /// When ECS does not answer.
    pub async fn find_service(&self, id: &str) -> anyhow::Result<Option<Service>> {
        let described = self
            .ecs
            .describe_services()
            .cluster(&self.name)
            .services(id)
            .send()
            .await?;
        Ok(described.services.unwrap_or_default().pop())
    }
}

impl Task {
    /// Requests a path from the task itself, past the load balancer, and returns the JSON of the answer.
    ///
    /// # Errors
    /// When the task does not answer, or answers with an error.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        // Reading the machine's certificates takes long, and the connection is not encrypted.
        let client = reqwest::Client::builder().tls_certs_only([]).build()?;
        let url = format!("http://{}:8000{path}", self.address);
        let answer = client.get(url).send().await?.error_for_status()?;
        Ok(serde_json::from_str(&answer.text().await?)?)
    }
}

/// The task's own record of the drain requests that it received.
///
/// # Errors
/// As [`Task::get`].
pub async fn drain_record(task: &Task) -> anyhow::Result<Value> {
    task.get("/drain-record").await
}

/// What a cleanup did with the deployment, and the reason.
///
/// # Errors
/// When the cleanup did nothing with it.
pub fn outcome<'a>(cleanup: &'a Execution, id: &str) -> anyhow::Result<(&'a str, &'a str)> {
    let [outcome, reason] = fields(&cleanup.output, id, ["outcome", "reason"])?;
    Ok((outcome, reason))
}

/// The state, the planned action and the reason of the deployment in a cleanup's plan.
///
/// # Errors
/// When the plan does not list the deployment.
pub fn planned<'a>(plan: &'a Value, id: &str) -> anyhow::Result<(&'a str, &'a str, &'a str)> {
    let [state, action, reason] = fields(plan, id, ["state", "action", "reason"])?;
    Ok((state, action, reason))
}

/// Text fields of the deployment's item in a cleanup's output.
fn fields<'a, const N: usize>(
    output: &'a Value,
    id: &str,
    names: [&str; N],
) -> anyhow::Result<[&'a str; N]> {
    let mut items = output["deployments"].as_array().into_iter().flatten();
    let item = items
        .find(|item| item["deploymentId"] == id)
        .with_context(|| format!("nothing about {id} in {output}"))?;
    Ok(names.map(|name| item[name].as_str().unwrap_or_default()))
}
