//! Chooses how many tasks a deployment needs, so that traffic never moves to something smaller than what it comes from,
//! and gives a service that has fewer that many.
//!
//! A deployment that replaces another one is made as large as that was *scaled to*: its number of tasks counts only where
//! it exceeds what it asked for itself. Otherwise a number in the settings could never be lowered. A rollback takes the
//! whole number of what it replaces, because it goes back to other settings. It notes on its target how many of them
//! those settings asked for, so that they do not count as scaled when the next deployment replaces the target.
//!
//! Numbers only go up here. The machine keeps the number that was chosen, so that a retry compares with that and
//! not with what the service has by then.

use autoscaling::Clients;
use aws_sdk_ecs::types::Service;
use lifecycle::aws_error::found;
use lifecycle::routing::DefaultAction;
use lifecycle::target_group::TargetGroup;
use lifecycle::{Baseline, DeploymentId, ErrorName, StepError, service, tags, target_group};
use serde::{Deserialize, Serialize};

/// The deployment, and the number of tasks that is known so far.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Input {
    /// The deployment.
    pub deployment_id: DeploymentId,
    /// The least number of tasks: what it asks for, or what was chosen before.
    pub desired_count: u32,
    /// Whether what it replaces may make it larger.
    #[serde(default = "yes")]
    pub parity: bool,
    /// Whether this is a rollback, which replaces [`Input::replaced_deployment_id`]; a deployment replaces what is active.
    #[serde(default)]
    pub roll_back: bool,
    /// What was active when the rollback began.
    #[serde(default)]
    pub replaced_deployment_id: Option<DeploymentId>,
    /// Whether the rollback has switched, so that it does not wait for anything.
    #[serde(default)]
    pub switched: bool,
}

fn yes() -> bool {
    true
}

/// What the machine does before it switches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// It has as many tasks as it needs.
    Enough,
    /// It needs more than it was known to need: wait until they are healthy.
    Raised,
    /// It needs more, and more of its targets are healthy than of what the rollback replaces: switch first.
    Later,
}

/// The number, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// What the machine does before it switches.
    pub verdict: Verdict,
    /// How many tasks the deployment needs.
    pub desired_count: u32,
    /// Why, in a sentence.
    pub reason: String,
}

/// Chooses the number, and raises the deployment's service if there is one with fewer tasks.
///
/// # Errors
/// `ResourceConflict` when a rollback's target has lost its service, else as [`lifecycle::aws_error::CODES`] say.
pub async fn run(
    clients: &Clients,
    baseline: &Baseline,
    input: Input,
) -> Result<Output, StepError> {
    let choose = Choose {
        clients,
        baseline,
        input: &input,
    };
    choose.run().await
}

struct Choose<'a> {
    clients: &'a Clients,
    baseline: &'a Baseline,
    input: &'a Input,
}

impl Choose<'_> {
    async fn run(&self) -> Result<Output, StepError> {
        let (desired_count, reason) = self.choose().await?;
        let mut output = Output {
            verdict: Verdict::Enough,
            desired_count,
            reason,
        };
        let is_more = desired_count > self.input.desired_count;
        if is_more && self.is_rescue().await? {
            output.verdict = Verdict::Later;
            output.reason += "; it gets them after the switch, because more of its targets are healthy than of what it \
                              replaces";
            return Ok(output);
        }
        // Also if an earlier attempt has raised it: its tasks have to be waited for.
        if self.raise(desired_count).await? || is_more {
            output.verdict = Verdict::Raised;
        }
        Ok(output)
    }

    /// The number of tasks, and why.
    async fn choose(&self) -> Result<(u32, String), StepError> {
        let least = self.input.desired_count;
        if !self.input.parity {
            let reason = "as the input of the execution says, even if the active deployment was scaled further";
            return Ok((least, number_of_tasks(least, reason)));
        }
        let Some(replaced) = self.replaced().await? else {
            return Ok((
                least,
                number_of_tasks(least, "because it replaces no deployment"),
            ));
        };
        let Some(service) = self.service(&replaced).await? else {
            let reason =
                format!("because {replaced}, which it replaces, has no service with its tags");
            return Ok((least, number_of_tasks(least, &reason)));
        };
        let running = u32::try_from(service.desired_count()).unwrap_or_default();
        let asked_for = match self.input.roll_back {
            true => None,
            false => self.asked_for(&replaced).await?,
        };
        let reason = match &asked_for {
            Some(AskedFor { count, by }) if running <= *count => {
                format!(
                    "because {replaced}, which it replaces, was not scaled beyond the {count} that {by}"
                )
            }
            _ if running > least => format!("because {replaced}, which it replaces, has {running}"),
            _ => format!("and {replaced}, which it replaces, has {running}"),
        };
        let is_scaled = asked_for.is_none_or(|it| running > it.count);
        let count = if is_scaled { least.max(running) } else { least };
        Ok((count, number_of_tasks(count, &reason)))
    }

    /// What the deployment replaces, unless that is the deployment itself.
    async fn replaced(&self) -> Result<Option<DeploymentId>, StepError> {
        let replaced = if self.input.roll_back {
            self.input.replaced_deployment_id.clone()
        } else {
            let default_action = DefaultAction::read(&self.clients.elb, self.baseline).await?;
            default_action.active().cloned()
        };
        Ok(replaced.filter(|it| *it != self.input.deployment_id))
    }

    /// How many tasks of a deployment settings asked for. Not known of one of an earlier version.
    async fn asked_for(&self, id: &DeploymentId) -> Result<Option<AskedFor>, StepError> {
        let group = target_group::find(&self.clients.elb, id).await?;
        Ok(group.and_then(|group| AskedFor::of(&group)))
    }

    /// Notes on the target of a rollback how many of the tasks that it is about to get settings asked for. What the replaced
    /// deployment was scaled to beyond that is needed for the load, and still counts when the target is replaced.
    async fn note(&self, desired_count: u32) -> Result<(), StepError> {
        let elb = &self.clients.elb;
        let Some(replaced) = self.replaced().await? else {
            return Ok(());
        };
        let Some(asked_for) = self.asked_for(&replaced).await? else {
            return Ok(());
        };
        let Some(group) = target_group::find(elb, &self.input.deployment_id).await? else {
            return Ok(());
        };
        let count = asked_for.count.min(desired_count).to_string();
        let noted = target_group::set_tag(elb, &group.arn, tags::RAISED_COUNT, &count).await;
        target_group::unless_gone(elb, &group.arn, noted).await
    }

    /// Whether the rollback comes to the rescue: what it replaces has fewer healthy targets than its own target.
    async fn is_rescue(&self) -> Result<bool, StepError> {
        if !self.input.roll_back || self.input.switched {
            return Ok(false);
        }
        let own = self.healthy(&self.input.deployment_id).await?;
        let replaced = match &self.input.replaced_deployment_id {
            Some(replaced) => self.healthy(replaced).await?,
            None => 0,
        };
        Ok(replaced < own)
    }

    async fn healthy(&self, id: &DeploymentId) -> Result<usize, StepError> {
        let elb = &self.clients.elb;
        let Some(TargetGroup { arn, .. }) = target_group::find(elb, id).await? else {
            return Ok(0);
        };
        let targets = target_group::health(elb, &arn).await?;
        Ok(target_group::healthy(&targets.unwrap_or_default()))
    }

    /// Gives the service that number of tasks if it has fewer. Returns whether it did.
    async fn raise(&self, desired_count: u32) -> Result<bool, StepError> {
        let id = &self.input.deployment_id;
        let Some(service) = self.service(id).await? else {
            // Before its service is created.
            return if self.input.roll_back {
                Err(self.service_is_gone())
            } else {
                Ok(false)
            };
        };
        // What came from ECS is an i32.
        let count = i32::try_from(desired_count).unwrap_or(i32::MAX);
        if service.desired_count() >= count {
            return Ok(false);
        }
        if self.input.roll_back {
            self.note(desired_count).await?;
            // What was replaced stays registered within its own bounds, and the scaler brings a service back into those. The
            // machine registers it again after the switch.
            let Clients {
                autoscaling, ecs, ..
            } = self.clients;
            autoscaling::take_off(autoscaling, ecs, self.baseline, id).await?;
        }
        let request = self
            .clients
            .ecs
            .update_service()
            .cluster(&self.baseline.cluster)
            .service(id.as_str())
            .desired_count(count);
        let attempt = format_args!("raise the task count of service {id} to {count}");
        match found(attempt, request.send().await, service::is_gone)? {
            Some(_) => Ok(true),
            None => Err(self.service_is_gone()),
        }
    }

    async fn service(&self, id: &DeploymentId) -> Result<Option<Service>, StepError> {
        service::find(&self.clients.ecs, self.baseline, id).await
    }

    fn service_is_gone(&self) -> StepError {
        let id = &self.input.deployment_id;
        StepError::new(
            ErrorName::ResourceConflict,
            format!(
                "the service of {id} is gone or does not carry its tags, so it gets no more tasks; push its image again \
                 under a new deployment id"
            ),
        )
    }
}

/// How many tasks of a deployment settings asked for, and whose.
struct AskedFor {
    count: u32,
    by: &'static str,
}

impl AskedFor {
    fn of(group: &TargetGroup) -> Option<AskedFor> {
        let wanted = tags::wanted_count(&group.tags)?;
        // What follows its load soon has as many as its load needs, also after a rollback gave it more.
        let raised = tags::raised_count(&group.tags).filter(|_| !group.has(tags::SCALING));
        Some(match raised {
            Some(count) if count > wanted => AskedFor {
                count,
                by: "a rollback gave it",
            },
            _ => AskedFor {
                count: wanted,
                by: "it asked for",
            },
        })
    }
}

fn number_of_tasks(count: u32, why: &str) -> String {
    match count {
        1 => format!("1 task, {why}"),
        _ => format!("{count} tasks, {why}"),
    }
}

#[cfg(test)]
mod tests;
