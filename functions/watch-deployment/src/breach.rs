//! What is wrong with a deployment that is live.

use aws_sdk_ecs::primitives::DateTime;
use lifecycle::routing::Routing;
use lifecycle::target_group::TargetGroup;
use lifecycle::{
    DeploymentId, StepError, defaults, failed_tasks, rollback_target, stopped_task, target_group,
};
use monitoring::{Failures, Window};
use settings::FailedShare;

use crate::Look;

/// What one look has found.
pub(crate) enum Found {
    /// That it is bad.
    Breach(Breach),
    /// That it has no healthy target, at this look for the first time.
    NoHealthyTarget,
    /// Nothing.
    Nothing {
        /// What is not watched, and why, a sentence for each.
        not_watched: Vec<String>,
    },
}

/// What is wrong with a deployment.
pub(crate) struct Breach {
    /// In words, with the figures that decided.
    pub(crate) why: String,
    /// Whether it has lost its health. Then it is left only for one that has a healthy target.
    pub(crate) has_lost_health: bool,
}

impl Found {
    fn breach(why: String) -> Found {
        Found::Breach(Breach {
            why,
            has_lost_health: false,
        })
    }
}

impl Look<'_> {
    /// What is wrong with it: first what can be seen at once, and of what CloudWatch says the alarms first, because its
    /// minutes come late.
    pub(crate) async fn breach(&self) -> Result<Found, StepError> {
        if let Some(crashes) = self.crashes().await? {
            return Ok(Found::breach(crashes));
        }
        let arn = &self.input.target_group_arn;
        let targets = target_group::health(&self.clients.elb, arn).await?;
        let targets = targets.unwrap_or_default();
        if target_group::healthy(&targets) == 0 {
            return Ok(match self.input.unhealthy_before {
                true => Found::Breach(Breach {
                    why: format!("none of its {} targets is healthy", targets.len()),
                    has_lost_health: true,
                }),
                false => Found::NoHealthyTarget,
            });
        }
        let mut not_watched = Vec::new();
        // At the same time, because each may take until it is given up.
        let (alarms, failures) = tokio::join!(self.alarms(), self.failures());
        for seen in [alarms, failures] {
            match seen {
                Ok(Some(breach)) => return Ok(Found::breach(breach)),
                Ok(None) => (),
                Err(why) => not_watched.extend(why),
            }
        }
        Ok(Found::Nothing { not_watched })
    }

    /// The tasks that crashed since the switch, if they are too many to be chance.
    async fn crashes(&self) -> Result<Option<String>, StepError> {
        let (ecs, baseline) = (&self.clients.ecs, &self.config.baseline);
        let id = &self.input.deployment_id;
        let since = self.switched_at().unix_timestamp();
        let stopped = failed_tasks::stopped_tasks(ecs, baseline, id).await?;
        let is_since = |time: Option<&DateTime>| time.is_some_and(|time| time.secs() >= since);
        let crashed: Vec<_> = stopped
            .iter()
            .filter(|task| is_since(task.stopping_at().or(task.stopped_at())))
            .filter(|task| failed_tasks::counts(task))
            .collect();
        let desired = self.input.desired_count.unwrap_or(defaults::DESIRED_COUNT);
        match crashed.first() {
            Some(newest) if crashed.len() >= defaults::crashes_mean_breach(desired) => {
                let (logs, number) = (&self.clients.logs, crashed.len());
                let described = stopped_task::describe(logs, baseline, id, newest, number).await;
                Ok(Some(described))
            }
            _ => Ok(None),
        }
    }

    /// The alarms that ring since the switch, or what of them is not watched, and why.
    async fn alarms(&self) -> Result<Option<String>, Vec<String>> {
        let (names, accepted) = (&self.input.watch.alarms, &self.input.accepted_alarms);
        if names.is_empty() {
            return Ok(None);
        }
        let read = monitoring::alarms(&self.clients.cloudwatch, names).await;
        let found = read.map_err(|error| vec![format!("alarms: {}", error.message)])?;
        let (since, before) = found.ringing_since(self.switched_at());
        let since: Vec<_> = since
            .filter(|name| !accepted.contains(name))
            .cloned()
            .collect();
        if !since.is_empty() {
            return Ok(Some(format!("in ALARM: {}", since.join(", "))));
        }
        let missing = found.missing.iter();
        let missing = missing.map(|name| format!("the alarm {name} does not exist any more"));
        let before = before.filter(|name| !accepted.contains(name));
        let before = before.map(|name| format!("the alarm {name} rang before the switch"));
        let rang = accepted.iter();
        let rang = rang.map(|name| format!("the alarm {name} rang before the deployment was made"));
        match missing.chain(before).chain(rang).collect::<Vec<_>>() {
            silent if silent.is_empty() => Ok(None),
            not_watched => Err(not_watched),
        }
    }

    /// The share of requests that failed, if it is too large, by the minutes that CloudWatch has, or why it is not watched.
    async fn failures(&self) -> Result<Option<String>, Vec<String>> {
        let Some(most) = &self.input.watch.errors else {
            return Ok(None);
        };
        let Some(window) = Window::since(self.switched_at(), (self.clock)()) else {
            return Ok(None);
        };
        let not_watched = |error: StepError| vec![format!("failed requests: {}", error.message)];
        let previous = self.previous().await.map_err(not_watched)?;
        let read = monitoring::failures(
            &self.clients.cloudwatch,
            &self.config.baseline.load_balancer_arn,
            &self.input.target_group_arn,
            previous.as_ref().map(|group| group.arn.as_str()),
            window,
        );
        let found = read.await.map_err(not_watched)?;
        let previous = previous.as_ref().map(|group| &group.deployment);
        Ok(too_many(&found, most, window.minutes(), previous))
    }

    /// The deployment that it replaced.
    async fn previous(&self) -> Result<Option<TargetGroup>, StepError> {
        let elb = &self.clients.elb;
        let group = match &self.input.previous_deployment_id {
            Some(previous) => target_group::find(elb, previous).await?,
            // The answer of the switch that replaced it was lost.
            None => {
                let routing = Routing::read(elb, &self.config.baseline).await?;
                rollback_target::previous(&routing).cloned()
            }
        };
        Ok(group)
    }
}

/// The sentence if too many requests failed.
fn too_many(
    found: &Failures,
    most: &FailedShare,
    minutes: i64,
    previous: Option<&DeploymentId>,
) -> Option<String> {
    let FailedShare { percent, at_least } = *most;
    let Failures {
        own,
        previous: other,
        load_balancer: all,
        load_balancer_before: before,
    } = found;
    if own.are_worse(percent, at_least, other) {
        let compared = match previous {
            Some(previous) => format!(
                "; of {previous} {:.1} % in the same minutes",
                other.failed_percent()
            ),
            None => String::new(),
        };
        return Some(format!(
            "{:.1} % of {:.0} requests failed in {minutes} min (allowed are {percent} %){compared}",
            own.failed_percent(),
            own.all,
        ));
    }
    all.are_worse(percent, at_least, before).then(|| {
        format!(
            "the load balancer answered {:.1} % of {:.0} requests with 502 or 504 in {minutes} min, because tasks did not \
             answer (allowed are {percent} %); {:.1} % in the ten minutes before",
            all.failed_percent(),
            all.all,
            before.failed_percent(),
        )
    })
}
