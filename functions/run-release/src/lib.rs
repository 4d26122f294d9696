//! Runs the release of a deployment, such as the migration of a database: once, as a task of the new image, before
//! anything else of the deployment is made.
//!
//! One call takes one small step and reports where the release stands. The state machine waits and calls again.
//!
//! What keeps it from running twice: its own task is looked for first, by its task definition. While AWS shows the
//! task, that is enough. Before the task is started, its task definition is tagged with the time; when it has ended
//! well, with that. So a call that comes after AWS has forgotten the task knows that it ran, or that its end is not known.

mod definition;
mod lock;

use aws_sdk_ecs::error::ProvideErrorMetadata;
use aws_sdk_ecs::types::{LaunchType, Tag, Task, TaskDefinition, TaskStopCode};
use lifecycle::aws_error::{code, failed};
use lifecycle::routing::DefaultAction;
use lifecycle::stopped_task::{self, container};
use lifecycle::tags::{self, Tags};
use lifecycle::{
    Baseline, Clock, DeploymentId, ErrorName, StepError, defaults, raw_task_definition,
    task_definition, tasks,
};
use serde::{Deserialize, Serialize};
use time::{Duration, UtcDateTime};

/// The release to run.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Input {
    /// The deployment.
    pub deployment_id: DeploymentId,
    /// The ARN of the deployment's task definition.
    pub task_definition_arn: String,
    /// What the container runs.
    pub command: Vec<String>,
    /// Seconds after which it is stopped.
    pub timeout_seconds: u32,
    /// Seconds that the execution has left for it. It does not begin if that is less than it may take.
    pub remaining_seconds: i64,
}

/// What the state machine decides by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// Another release runs; call again.
    Waiting,
    /// It runs; call again.
    Running,
    /// It has ended well, now or earlier.
    Succeeded,
    /// It has ended otherwise, or it is not known how.
    Failed,
    /// That of a newer deployment has begun, or a newer deployment is active, so this one does not begin.
    Superseded,
}

/// Where the release stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// The verdict, by which the state machine decides.
    pub verdict: Verdict,
    /// Why, in words that an operator can act on.
    pub reason: String,
}

/// The clients of the step.
#[derive(Debug, Clone)]
pub struct Clients {
    /// For tasks and their definitions.
    pub ecs: aws_sdk_ecs::Client,
    /// For what is active.
    pub elb: aws_sdk_elasticloadbalancingv2::Client,
    /// For the last log lines of a release that failed.
    pub logs: aws_sdk_cloudwatchlogs::Client,
}

/// Takes the next step of the release.
///
/// # Errors
/// `Transient` when AWS has no room for the task; `ResourceConflict` when the deployment's task definition is gone;
/// else as [`lifecycle::aws_error::CODES`] say. A release that fails is not an error.
pub async fn run(
    clients: &Clients,
    baseline: &Baseline,
    clock: Clock<'_>,
    input: Input,
) -> Result<Output, StepError> {
    let release = Release {
        clients,
        baseline,
        clock,
        input: &input,
        id: &input.deployment_id,
        family: task_definition::release_family(baseline),
    };
    release.run().await
}

struct Release<'a> {
    clients: &'a Clients,
    baseline: &'a Baseline,
    clock: Clock<'a>,
    input: &'a Input,
    id: &'a DeploymentId,
    family: String,
}

impl Release<'_> {
    async fn run(&self) -> Result<Output, StepError> {
        let ecs = &self.clients.ecs;
        let all = task_definition::since(ecs, &self.family, self.id).await?;
        let is_own = |it: &&(TaskDefinition, Tags)| definition::is_same(&it.0, &it.1, self.input);
        // More than one, if a registration was not seen at once.
        let own: Vec<_> = all.iter().filter(is_own).collect();
        let mut released = own
            .iter()
            .filter_map(|(_, tags)| tags.get(tags::RELEASED_AT));
        if let Some(at) = released.next() {
            return judged(
                Verdict::Succeeded,
                format!("the release ended well at {at}"),
            );
        }
        let tasks = tasks::of_family(ecs, self.baseline, &self.family).await?;
        let is_of = |task: &Task, definition: &TaskDefinition| {
            task.task_definition_arn() == definition.task_definition_arn()
        };
        // One that withdrew did nothing, and so the release has not begun.
        let mut begun = tasks.iter().filter(|task| !lock::has_withdrawn(task));
        if let Some(task) = begun.find(|task| own.iter().any(|it| is_of(task, &it.0))) {
            return self.judge(task, &tasks).await;
        }
        let marks = all.iter().map(|(_, tags)| tags);
        if let Some(newer) = lock::newest_begun(&self.baseline.environment, &tasks, marks)
            .filter(|begun| begun > self.id)
        {
            let reason = format!("the release of {newer} has begun, which is newer");
            return judged(Verdict::Superseded, reason);
        }
        if let Some(other) = lock::holder(&tasks) {
            for (refused, tags) in &own {
                self.note_again(refused, tags).await?;
            }
            return self.wait_for(other).await;
        }
        if let Some(at) = own.iter().find_map(|(_, tags)| self.forgotten(tags)) {
            let at = tags::timestamp(at);
            return judged(
                Verdict::Failed,
                format!(
                    "the release was started at {at} or soon after, and AWS does not show its task any more, so that it \
                     is not known whether it ended well; it is not run twice. Check what it did, and push the image \
                     under a new deployment id"
                ),
            );
        }
        if self.input.remaining_seconds < self.input.timeout_seconds.into() {
            let reason = format!(
                "the release waited for others, and the execution has no time left for the {} s that it may take",
                self.input.timeout_seconds
            );
            return judged(Verdict::Failed, reason);
        }
        // One without a release may have gone live while this one waited, and its schema must not change to an older one.
        let default_action = DefaultAction::read(&self.clients.elb, self.baseline).await?;
        if let Some(active) = default_action.active().filter(|active| *active > self.id) {
            return judged(Verdict::Superseded, active.supersedes((self.clock)()));
        }
        let found = own
            .first()
            .and_then(|(found, _)| found.task_definition_arn());
        let arn = match found {
            Some(arn) => arn.to_owned(),
            None => self.register().await?,
        };
        self.start(&arn, lock::token(&tasks)).await
    }

    /// Notes that an attempt has come to nothing, if the call that found that out could not, or if its task withdrew: AWS
    /// would show another task by now, and another release runs.
    async fn note_again(&self, own: &TaskDefinition, tags: &Tags) -> Result<(), StepError> {
        let now = (self.clock)();
        let attempt = tags::time(tags, tags::RELEASE_ATTEMPT, now);
        let is_shown = |at| now - at >= defaults::RELEASE_IS_SHOWN_WITHIN;
        match own.task_definition_arn() {
            Some(arn) if attempt.is_some_and(is_shown) && self.forgotten(tags).is_none() => {
                self.was_refused(arn).await
            }
            _ => Ok(()),
        }
    }

    /// Waits for another release. One that is past the longest time that any may have is stopped, because the execution
    /// that should have stopped it has ended.
    async fn wait_for(&self, other: &Task) -> Result<Output, StepError> {
        let whose = other.started_by().unwrap_or("another deployment");
        let is_ours = tags::deployment(&tags::from_ecs(other.tags()), &self.baseline.environment);
        let most =
            Duration::seconds(defaults::MAX_WAIT_SECONDS.into()) + defaults::RELEASE_STOPS_WITHIN;
        if self.age(other) >= most && is_ours.is_some() && other.desired_status() != Some("STOPPED")
        {
            let arn = other.task_arn().unwrap_or_default();
            let why = "the release is past the longest time that one may have";
            stop(&self.clients.ecs, self.baseline, arn, why).await?;
        }
        let reason = format!("the release of {whose} runs, and two never run at once");
        judged(Verdict::Waiting, reason)
    }

    /// How long ago the task was created.
    fn age(&self, task: &Task) -> Duration {
        let created = task.created_at().map(|at| at.secs());
        let created = created.and_then(|at| UtcDateTime::from_unix_timestamp(at).ok());
        created.map_or(Duration::ZERO, |at| (self.clock)() - at)
    }

    /// When the task was about to be started, if that was so long ago that AWS may have forgotten it.
    fn forgotten(&self, tags: &Tags) -> Option<UtcDateTime> {
        let now = (self.clock)();
        let at = tags::time(tags, tags::RELEASE_ATTEMPT, now)?;
        (now - at >= defaults::STOPPED_TASKS_ARE_SHOWN).then_some(at)
    }

    async fn register(&self) -> Result<String, StepError> {
        let ecs = &self.clients.ecs;
        let of_deployment = &self.input.task_definition_arn;
        let deployed = raw_task_definition::read(ecs, of_deployment).await?;
        // That of a deployment that was undone is described for a long time after.
        let deployed = deployed.filter(|deployed| deployed["status"] != "INACTIVE");
        let deployed = deployed.ok_or_else(|| {
            StepError::new(
                ErrorName::ResourceConflict,
                format!("{}: its task definition {of_deployment} is gone", self.id),
            )
        })?;
        let wanted = definition::wanted(self.baseline, self.input, deployed);
        let attempt = format!("register the task definition of the release of {}", self.id);
        raw_task_definition::register(ecs, &attempt, &wanted).await
    }

    /// Starts the task, unless another release has taken the lock.
    async fn start(&self, definition: &str, token: String) -> Result<Output, StepError> {
        let ecs = &self.clients.ecs;
        let now = tags::timestamp((self.clock)());
        self.tag(definition, tags::RELEASE_ATTEMPT, &now).await?;
        let attempt = format!("start the release of {}", self.id);
        // A call that is repeated after a lost answer has the same parameters, and so starts nothing more.
        let answer = ecs
            .run_task()
            .cluster(&self.baseline.cluster)
            .task_definition(definition)
            .client_token(token)
            .launch_type(LaunchType::Fargate)
            .count(1)
            .network_configuration(tasks::network(self.baseline)?)
            .started_by(self.id.as_str())
            .set_tags(Some(tags::to_ecs(self.id)))
            .send()
            .await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) if code(&error) == Some("ConflictException") => {
                self.was_refused(definition).await?;
                let reason = "another release began at the same moment".to_owned();
                return judged(Verdict::Waiting, reason);
            }
            Err(error) => return Err(failed(&attempt, error)),
        };
        if let Some(task) = answer.tasks().first() {
            // The list may not show a task yet that has just been started, so its own is the one in the answer.
            let tasks = tasks::of_family(ecs, self.baseline, &self.family).await?;
            return self.watch(task, &tasks).await;
        }
        self.was_refused(definition).await?;
        let failure = answer.failures().first();
        let reason = failure.and_then(|it| it.reason()).unwrap_or("no reason");
        let detail = failure.and_then(|it| it.detail()).unwrap_or_default();
        // As with "Capacity is unavailable at this time" and "You've reached the limit on the number of vCPUs".
        // https://docs.aws.amazon.com/AmazonECS/latest/developerguide/api_failures_messages.html
        let text = reason.to_lowercase();
        let is_room = ["capacity", "limit"].iter().any(|it| text.contains(it));
        let name = if is_room {
            ErrorName::Transient
        } else {
            ErrorName::Unexpected
        };
        let message = format!("could not {attempt}: ECS started no task: {reason} {detail}");
        Err(StepError::new(name, message.trim_end()))
    }

    /// Notes that the attempt has started nothing.
    async fn was_refused(&self, definition: &str) -> Result<(), StepError> {
        self.tag(definition, tags::RELEASE_ATTEMPT, "refused").await
    }

    async fn tag(&self, definition: &str, key: &str, value: &str) -> Result<(), StepError> {
        let ecs = &self.clients.ecs;
        let tag = Tag::builder().key(key).value(value).build();
        let answer = ecs.tag_resource().resource_arn(definition).tags(tag).send();
        let attempt = format_args!("tag {definition}");
        answer.await.map_err(|error| failed(attempt, error))?;
        Ok(())
    }

    /// What its own task says.
    async fn judge(&self, task: &Task, all: &[Task]) -> Result<Output, StepError> {
        if !lock::has_ended(task) {
            return self.watch(task, all).await;
        }
        let exit_code = container(task).and_then(|container| container.exit_code());
        // One that a person or AWS has stopped may end with 0 all the same.
        let ended_by_itself = task.stop_code() == Some(&TaskStopCode::EssentialContainerExited);
        if exit_code == Some(0) && ended_by_itself {
            let definition = task.task_definition_arn().unwrap_or_default();
            let now = tags::timestamp((self.clock)());
            self.tag(definition, tags::RELEASED_AT, &now).await?;
            return judged(Verdict::Succeeded, "the release ended well".to_owned());
        }
        let logs = &self.clients.logs;
        let why = stopped_task::describe(logs, self.baseline, self.id, task, 1).await;
        judged(Verdict::Failed, format!("the release failed: {why}"))
    }

    /// Stops the task if another release goes before it, or if its time is up. The next calls see how it ends.
    async fn watch(&self, task: &Task, all: &[Task]) -> Result<Output, StepError> {
        let arn = task.task_arn().unwrap_or_default();
        if let Some(first) = lock::goes_before(all, task) {
            // If this call dies after it, the next one sees the task as stopping, and does not begin before it has ended.
            if task.desired_status() != Some("STOPPED") {
                stop(&self.clients.ecs, self.baseline, arn, lock::WITHDRAWN).await?;
            }
            return self.wait_for(first).await;
        }
        let since = self.age(task);
        let seconds = self.input.timeout_seconds;
        if since < Duration::seconds(seconds.into()) {
            let status = task.last_status().unwrap_or("unknown");
            return judged(
                Verdict::Running,
                format!(
                    "the release has been under way for {} of {seconds} s ({status})",
                    since.whole_seconds()
                ),
            );
        }
        if task.desired_status() != Some("STOPPED") {
            let why = format!("the release is out of time, it had {seconds} s");
            stop(&self.clients.ecs, self.baseline, arn, &why).await?;
        }
        let reason = format!("the release had {seconds} s and is being stopped");
        judged(Verdict::Running, reason)
    }
}

fn judged(verdict: Verdict, reason: String) -> Result<Output, StepError> {
    Ok(Output { verdict, reason })
}

/// Stops a task. One that ECS does not know any more has stopped.
async fn stop(
    ecs: &aws_sdk_ecs::Client,
    baseline: &Baseline,
    task: &str,
    why: &str,
) -> Result<(), StepError> {
    let request = ecs.stop_task().cluster(&baseline.cluster).task(task);
    let Err(error) = request.reason(why).send().await else {
        return Ok(());
    };
    let message = error.message().unwrap_or_default();
    if message.contains("task was not found") {
        return Ok(());
    }
    Err(failed(format_args!("stop task {task}"), error))
}

/// What an undo found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undone {
    /// Its task has to stop first.
    Stopping,
    /// Nothing runs, and so many revisions are deregistered.
    Gone(usize),
}

/// Stops the deployment's release, if it runs, and deregisters its task definition when it has stopped.
///
/// # Errors
/// As [`lifecycle::aws_error::CODES`] say.
pub async fn undo(
    ecs: &aws_sdk_ecs::Client,
    baseline: &Baseline,
    deployment: &DeploymentId,
) -> Result<Undone, StepError> {
    let family = task_definition::release_family(baseline);
    let tasks = tasks::of_family(ecs, baseline, &family).await?;
    let own = tasks.iter().filter(|task| {
        !lock::has_ended(task) && tags::belong_to(&tags::from_ecs(task.tags()), deployment)
    });
    let mut undone = None;
    for task in own {
        if task.desired_status() != Some("STOPPED") {
            let arn = task.task_arn().unwrap_or_default();
            stop(ecs, baseline, arn, "its deployment is being deleted").await?;
        }
        undone = Some(Undone::Stopping);
    }
    match undone {
        Some(stopping) => Ok(stopping),
        None => {
            let deregistered = task_definition::deregister_all(ecs, &family, deployment).await?;
            Ok(Undone::Gone(deregistered))
        }
    }
}

#[cfg(test)]
mod tests;
