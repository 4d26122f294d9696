//! Starts the rollback of a deployment that is bad, and follows it.

use aws_sdk_sfn::operation::start_execution::StartExecutionError;
use aws_sdk_sfn::types::ExecutionStatus;
use lifecycle::aws_error::failed;
use lifecycle::routing::Routing;
use lifecycle::{StepError, executions, rollback_target, target_group};
use serde_json::json;

use crate::{Look, Output, Rollback, Verdict, output};

impl Look<'_> {
    /// Starts the rollback, unless there is nothing to go back to that is healthy.
    pub(crate) async fn roll_back(
        &self,
        breach: &str,
        has_lost_health: bool,
    ) -> Result<Output, StepError> {
        let id = &self.input.deployment_id;
        let routing = Routing::read(&self.clients.elb, &self.config.baseline).await?;
        if routing.default_action.active() != Some(id) {
            let (default_action, tags) = self.what_is_active().await?;
            return Ok(self.moved(&default_action, tags.as_ref(), None));
        }
        let Some(target) = rollback_target::previous(&routing) else {
            let why =
                format!("{breach}; it stays live, because there is no deployment to go back to");
            return Ok(output(Verdict::Unhealthy, why));
        };
        // One without healthy targets may get fresh tasks, and no visitor waits for them while this one serves some.
        let elb = &self.clients.elb;
        if has_lost_health && !target_group::has_healthy_target(elb, &target.arn).await? {
            let why = format!(
                "{breach}; it stays live, because {}, to which it would go back, has no healthy target either",
                target.deployment
            );
            return Ok(output(Verdict::Unhealthy, why));
        }
        let name = format!("watch-{id}");
        let machine = &self.config.rollback_machine_arn;
        let input = json!({"deploymentId": target.deployment, "from": id});
        let request = self.clients.sfn.start_execution();
        let request = request.state_machine_arn(machine).name(&name);
        let started = request.input(input.to_string()).send().await;
        let execution_arn = match started {
            Ok(started) => started.execution_arn,
            // An earlier try has started it, and it may have ended since.
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(StartExecutionError::is_execution_already_exists) =>
            {
                executions::arn(machine, &name)
            }
            Err(error) => return Err(failed(format_args!("start the rollback {name}"), error)),
        };
        let reason = format!("{breach}; it is rolled back to {}", target.deployment);
        Ok(Output {
            rollback: Some(Rollback {
                execution_arn,
                breach: breach.to_owned(),
            }),
            ..output(Verdict::RollingBack, reason)
        })
    }

    /// Where the rollback stands. When it has ended, what is active says how.
    pub(crate) async fn follow(&self, rollback: &Rollback) -> Result<Output, StepError> {
        let Rollback {
            execution_arn,
            breach,
        } = rollback;
        let request = self.clients.sfn.describe_execution();
        let execution = request.execution_arn(execution_arn).send().await;
        let attempt = format_args!("read execution {execution_arn}");
        let execution = execution.map_err(|error| failed(attempt, error))?;
        if *execution.status() == ExecutionStatus::Running {
            return Ok(Output {
                rollback: Some(rollback.clone()),
                ..output(Verdict::RollingBack, format!("{breach}; its rollback runs"))
            });
        }
        let (default_action, tags) = self.what_is_active().await?;
        if default_action.active() != Some(&self.input.deployment_id) {
            return Ok(self.moved(&default_action, tags.as_ref(), Some(breach)));
        }
        let why = match execution.cause() {
            Some(cause) => format!("its rollback failed: {cause}"),
            None => format!("its rollback ended as {}", execution.status().as_str()),
        };
        let why = format!("{breach}; it stays live, because {why}");
        Ok(output(Verdict::Unhealthy, why))
    }
}
