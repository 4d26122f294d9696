//! Finds the deployment that a rollback goes to and makes it ready to be switched to.
//!
//! A warm one is ready as it is. One that drains gets fresh tasks, because an application that was
//! told to drain cannot be told otherwise, and one without tasks gets some. What keeps others from
//! draining or deleting it meanwhile is a mark on its target group: it is written before their marks
//! are looked at, and they look at it after they wrote theirs, so that at least one gives way.
//!
//! Run again, it starts nothing twice: the mark's time says which rollout of the service is ours.

mod target;

use aws_sdk_ecs::types::{Deployment, DeploymentRolloutState, Service};
use aws_sdk_elasticloadbalancingv2::types::Tag;
use lifecycle::aws_error::{code, failed};
use lifecycle::listener::DeploymentTargetGroup;
use lifecycle::tags::{self, Tags};
use lifecycle::{DeploymentId, ErrorName, Settings, StepError, defaults, listener};
use serde::{Deserialize, Serialize};
use time::UtcDateTime;

use target::Seen;

/// What an execution of the rollback machine may be started with.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Input {
    /// The deployment to go back to; the previous one when it is not given.
    pub deployment_id: Option<DeploymentId>,
}

/// What traffic is to be switched to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// The deployment to go back to.
    pub deployment_id: DeploymentId,
    /// Its target group.
    pub target_group_arn: String,
    /// How many tasks it has to have.
    pub desired_count: u32,
    /// Whether it gets fresh tasks, which have to be waited for.
    pub restored: bool,
    /// The deployment that is active now.
    pub left_deployment_id: Option<DeploymentId>,
    /// All that the rollback leaves, as it is now: what is active, and what is ready and newer than the
    /// target. What gets ready later was not meant by whoever started the rollback, and wins.
    pub leaves: Vec<DeploymentId>,
}

/// The clients that the step works with.
#[derive(Debug, Clone)]
pub struct Clients {
    /// The service.
    pub ecs: aws_sdk_ecs::Client,
    /// The listener and the target groups' tags.
    pub elb: aws_sdk_elasticloadbalancingv2::Client,
}

/// Chooses the deployment, marks it, and starts fresh tasks where they are needed.
///
/// # Errors
/// `InvalidInput` for an id of another environment; `NoRollbackTarget` when there is nothing to go
/// back to or what was named cannot be: it is gone, being deleted, was never live or is active; else
/// as [`lifecycle::aws_error::CODES`] say.
pub async fn run(
    clients: &Clients,
    settings: &Settings,
    now: UtcDateTime,
    input: Input,
) -> Result<Output, StepError> {
    if let Some(id) = &input.deployment_id
        && *id.environment() != settings.environment
    {
        return Err(StepError::new(
            ErrorName::InvalidInput,
            format!(
                "invalid input: field `deploymentId`: {id} is a deployment of environment {}, and this machine serves {}",
                id.environment(),
                settings.environment
            ),
        ));
    }
    let seen = target::look(&clients.elb, settings).await?;
    let group = seen.choose(input.deployment_id.as_ref())?;
    let restore = Restore {
        clients,
        settings,
        now,
        seen: &seen,
        group,
    };
    restore
        .run()
        .await
        .map_err(|error| error.of(&group.deployment))
}

struct Restore<'a> {
    clients: &'a Clients,
    settings: &'a Settings,
    now: UtcDateTime,
    seen: &'a Seen,
    group: &'a DeploymentTargetGroup,
}

impl Restore<'_> {
    async fn run(&self) -> Result<Output, StepError> {
        let id = &self.group.deployment;
        let service = create_service::find(&self.clients.ecs, self.settings, id)
            .await?
            .ok_or_else(|| self.service_is_gone())?;
        let since = self.mark().await?;
        let tags = self.tags_after_the_mark().await?;

        let draining = tags.contains_key(tags::DRAINING_SINCE);
        let wanted = u32::try_from(service.desired_count()).unwrap_or(0);
        let desired_count = match wanted {
            0 => defaults::DESIRED_COUNT,
            some => some,
        };
        // ECS starts no more tasks for a rollout that failed, as one of an earlier rollback may have:
        // https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-circuit-breaker.html
        let failed = newest_rollout(&service).and_then(Deployment::rollout_state)
            == Some(&DeploymentRolloutState::Failed);
        let needed = draining || wanted == 0 || failed;
        let started = since.is_some_and(|since| has_rollout_since(&service, since));
        if needed && (failed || !started) {
            self.start_fresh_tasks(desired_count).await?;
        }
        if draining {
            self.unmark(&[tags::DRAINING_SINCE, tags::IDLE_SINCE])
                .await?;
        }
        self.end_the_earlier_one().await?;
        Ok(Output {
            deployment_id: id.clone(),
            target_group_arn: self.group.arn.clone(),
            desired_count,
            // Fresh tasks that an earlier call started have to be waited for as well.
            restored: needed || is_rolling(&service),
            left_deployment_id: self.seen.active.clone(),
            leaves: self.seen.left_for(id),
        })
    }

    /// Keeps others from draining and deleting the deployment. Gives the time of a mark that an
    /// earlier call for the same rollback wrote.
    ///
    /// A mark past half its time is written anew: it may have been left by a rollback that died, and
    /// it must not end while this one goes on.
    async fn mark(&self) -> Result<Option<UtcDateTime>, StepError> {
        let earlier = tags::time(&self.group.tags, tags::RESTORING_SINCE)
            .filter(|since| self.now - *since < defaults::RESTORE_TIME / 2);
        if earlier.is_some() {
            return Ok(earlier);
        }
        let arn = &self.group.arn;
        self.clients
            .elb
            .add_tags()
            .resource_arns(arn)
            .tags(
                Tag::builder()
                    .key(tags::RESTORING_SINCE)
                    .value(tags::timestamp(self.now))
                    .build(),
            )
            .send()
            .await
            .map_err(|error| failed(format_args!("tag target group {arn}"), error))?;
        Ok(None)
    }

    /// Removes the mark of an earlier rollback from the deployment that this one leaves.
    ///
    /// Traffic is on it, so that rollback has done its work. If it could not say so, its mark would keep
    /// from being drained what nobody wants any more.
    async fn end_the_earlier_one(&self) -> Result<(), StepError> {
        let marked = self.seen.deployments.iter().find(|group| {
            Some(&group.deployment) == self.seen.active.as_ref()
                && group.tags.contains_key(tags::RESTORING_SINCE)
        });
        match marked {
            Some(active) => {
                self.unmark_group(&active.arn, &[tags::RESTORING_SINCE])
                    .await
            }
            None => Ok(()),
        }
    }

    /// The tags as they are with the mark among them.
    ///
    /// # Errors
    /// `NoRollbackTarget` when the deployment's deletion has begun since; the mark is taken back, for
    /// it would stop the deletion half-way.
    async fn tags_after_the_mark(&self) -> Result<Tags, StepError> {
        let arn = self.group.arn.clone();
        let tags = listener::tags(&self.clients.elb, std::slice::from_ref(&arn))
            .await?
            .remove(&arn);
        match tags {
            Some(tags) if tags.contains_key(tags::DELETING_SINCE) => {
                self.unmark(&[tags::RESTORING_SINCE]).await?;
                Err(self.being_deleted())
            }
            Some(tags) => Ok(tags),
            None => Err(self.being_deleted()),
        }
    }

    async fn start_fresh_tasks(&self, desired_count: u32) -> Result<(), StepError> {
        let id = &self.group.deployment;
        let answer = self
            .clients
            .ecs
            .update_service()
            .cluster(&self.settings.cluster)
            .service(id.as_str())
            .force_new_deployment(true)
            // It came from ECS, which keeps it as such a number.
            .desired_count(i32::try_from(desired_count).unwrap_or(i32::MAX))
            .health_check_grace_period_seconds(defaults::HEALTH_CHECK_GRACE_PERIOD_SECONDS)
            .send()
            .await;
        match answer {
            Ok(_) => Ok(()),
            Err(error)
                if matches!(
                    code(&error),
                    Some("ServiceNotFoundException" | "ServiceNotActiveException")
                ) =>
            {
                Err(self.service_is_gone())
            }
            Err(error) => Err(failed(
                format_args!("start fresh tasks of service {id}"),
                error,
            )),
        }
    }

    async fn unmark(&self, keys: &[&str]) -> Result<(), StepError> {
        self.unmark_group(&self.group.arn, keys).await
    }

    async fn unmark_group(&self, arn: &str, keys: &[&str]) -> Result<(), StepError> {
        self.clients
            .elb
            .remove_tags()
            .resource_arns(arn)
            .set_tag_keys(Some(keys.iter().map(|key| key.to_string()).collect()))
            .send()
            .await
            .map(drop)
            .map_err(|error| {
                failed(
                    format_args!("remove {} from target group {arn}", keys.join(", ")),
                    error,
                )
            })
    }

    fn being_deleted(&self) -> StepError {
        self.seen.refused(format!(
            "{} is being deleted; push its image again under a new deployment id",
            self.group.deployment
        ))
    }

    fn service_is_gone(&self) -> StepError {
        self.seen.refused(format!(
            "the service of {} is gone or does not carry its tags; push its image again under a new deployment id",
            self.group.deployment
        ))
    }
}

/// ECS calls a rollout of a service a deployment, and the newest one PRIMARY:
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Deployment.html>.
fn newest_rollout(service: &Service) -> Option<&Deployment> {
    service
        .deployments()
        .iter()
        .find(|rollout| rollout.status() == Some("PRIMARY"))
}

/// Whether the newest rollout began at that time or later.
fn has_rollout_since(service: &Service, since: UtcDateTime) -> bool {
    newest_rollout(service)
        .and_then(Deployment::created_at)
        .is_some_and(|created| created.secs() >= since.unix_timestamp())
}

/// Whether a rollout goes on, or old tasks are left of an earlier one.
fn is_rolling(service: &Service) -> bool {
    service.deployments().len() > 1
        || newest_rollout(service).and_then(Deployment::rollout_state)
            == Some(&DeploymentRolloutState::InProgress)
}

#[cfg(test)]
mod tests;
