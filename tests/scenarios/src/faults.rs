//! Fault runs: every call of every workflow fails in every way, and what must hold is checked.

pub mod broken_function;
pub mod cleanup;
pub mod deployment;
pub mod first_checks;
pub mod foreign;
pub mod invariants;
pub mod plan;
pub mod rollback;
pub mod run;
pub mod summary;
pub mod watcher;

use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, ensure};
use aws_sdk_elasticloadbalancingv2::types::Rule;
use http::Method;
use serde_json::{Value, json};

use crate::TestEnvironment;
use crate::machines::planned;
use foreign::Foreign;
use invariants::Observation;
use plan::{Case, Point, Workflow};
pub use summary::Summary;

/// SettleSeconds. The load balancer applies a change within 1.3 s, and a cleanup keeps what was created
/// within this time.
const SETTLE: Duration = Duration::from_secs(2);
/// Long enough for a second look at a deployment that is live, a tenth of 15 s after the first.
const WATCH_SECONDS: u64 = 2;

/// Runs one case after the other on one environment.
pub struct FaultRunner {
    /// The environment that the cases run on.
    pub env: TestEnvironment,
    /// Resources that do not belong to the environment.
    pub foreign: Foreign,
    /// The deployment that is active between runs.
    active: String,
    /// The environment's other deployments, oldest first.
    others: Vec<String>,
    /// The workflow of the last run, which left the environment as its next run needs it.
    workflow: Workflow,
    listener: String,
}

impl FaultRunner {
    /// Deploys an environment with a live deployment and foreign resources.
    ///
    /// # Errors
    /// When the local cloud does not start or the first deployment fails.
    pub async fn prepare() -> anyhow::Result<FaultRunner> {
        // Only the runner starts cleanups.
        let parameters = format!(
            "SettleSeconds={} WatchSeconds={WATCH_SECONDS} CleanupState=DISABLED",
            SETTLE.as_secs()
        );
        let env = TestEnvironment::deploy_with_parameters(&parameters).await?;
        // So that the calls of the scaler are among those that fail. It has nothing to do.
        let name = format!("/pulse/{}/settings", env.name);
        let scaling = r#"{"scaling": {"max": 4, "requestsPerTarget": 1000000}}"#;
        let mut put = vec!["ssm", "put-parameter", "--type", "String"];
        put.extend(["--name", &name, "--value", scaling]);
        env.aws(&put).await?;
        let active = env.deploy_live(&[]).await?.name;
        Ok(FaultRunner {
            foreign: Foreign::make(&env, &active).await?,
            listener: env.listener_arn().await?,
            active,
            others: Vec::new(),
            workflow: Workflow::Deploy,
            env,
        })
    }

    /// Records the calls of a clean run, in which every invariant must hold.
    ///
    /// # Errors
    /// When an invariant does not hold, or the run is not possible.
    pub async fn record(&mut self, workflow: Workflow) -> anyhow::Result<Vec<Point>> {
        let clean = Case::clean(workflow);
        let (observation, points) = self.observe(&clean, async || Ok(())).await?;
        let violations = observation.violations();
        ensure!(
            violations.is_empty(),
            "a clean {workflow} violates {violations:?}"
        );
        ensure!(!points.is_empty(), "a clean {workflow} makes no calls");
        Ok(points)
    }

    /// Runs a case.
    ///
    /// # Errors
    /// When the run is not possible. A violated invariant is not an error here.
    pub async fn run(&mut self, case: &Case) -> anyhow::Result<Observation> {
        Ok(self.observe(case, async || Ok(())).await?.0)
    }

    /// As [`FaultRunner::run`] for a deployment, with `meanwhile` at the same time.
    ///
    /// # Errors
    /// As [`FaultRunner::run`], and those of `meanwhile`.
    pub async fn run_while(
        &mut self,
        case: &Case,
        meanwhile: impl AsyncFnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<Observation> {
        Ok(self.observe(case, meanwhile).await?.0)
    }

    async fn observe(
        &mut self,
        case: &Case,
        meanwhile: impl AsyncFnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<(Observation, Vec<Point>)> {
        let workflow = case.workflow;
        if workflow != self.workflow {
            // A rollback that failed after its switch leaves this tag on what is active now and is replaced
            // later, where it would keep a deployment for two hours.
            for id in self.others.iter().chain([&self.active]) {
                self.env.untag(id, "pulse:restoring-since").await?;
            }
            for other in std::mem::take(&mut self.others) {
                let left = self.delete(&other).await?;
                ensure!(left.is_empty(), "{other} still has {left:?}");
            }
            self.workflow = workflow;
        }
        match workflow {
            Workflow::Rollback | Workflow::Restore => rollback::run(self, case).await,
            Workflow::Evict => rollback::evict(self, case).await,
            Workflow::Cleanup => cleanup::run(self, case).await,
            Workflow::Deploy | Workflow::Undo | Workflow::Push => {
                deployment::run(self, case, meanwhile).await
            }
        }
    }

    /// Deploys one more, without a fault.
    async fn deploy_another(&mut self) -> anyhow::Result<()> {
        let live = self.env.deploy_live(&[]).await?.name;
        self.others.push(std::mem::replace(&mut self.active, live));
        Ok(())
    }

    /// Deletes a rule that pins visitors to the deployment.
    async fn delete_a_rule(&self, id: &str) -> anyhow::Result<()> {
        let elb = &self.env.elb;
        let listed = elb
            .describe_rules()
            .listener_arn(&self.listener)
            .send()
            .await?;
        let is_its =
            |rule: &&Rule| rule.is_default() != Some(true) && format!("{rule:?}").contains(id);
        let mut rules = listed.rules().iter().filter(is_its);
        let rule = rules.next().and_then(Rule::rule_arn).context("no rule")?;
        elb.delete_rule().rule_arn(rule).send().await?;
        Ok(())
    }

    /// Whether the deployment has begun to drain.
    async fn is_draining(&self, id: &str) -> anyhow::Result<bool> {
        let tags = self.env.tags(id).await?;
        Ok(tags.contains_key("pulse:draining-since"))
    }

    /// Waits until a cleanup plans this action for the deployment.
    async fn is_planned(&self, id: &str, action: &str) -> anyhow::Result<()> {
        let last = Mutex::new(String::new());
        let matches = async || {
            let plan = self.env.plan().await?;
            let (state, due, why) = planned(&plan, id)?;
            *last.lock().expect("no panic while waiting") = format!("{state}, {due}: {why}");
            Ok(due == action)
        };
        let planned = self.env.wait_until(Duration::from_secs(60), matches).await;
        planned.with_context(|| format!("the plan for {id} is not to {action} but {last:?}"))
    }

    /// Runs a cleanup that drains the deployment, once the switch has settled.
    async fn drain(&self, id: &str) -> anyhow::Result<()> {
        self.is_planned(id, "drain").await?;
        self.env.clean_up().await?;
        ensure!(self.is_draining(id).await?, "{id} is not draining");
        Ok(())
    }

    /// What the next cleanup would do, apart from draining these.
    async fn due(&self, draining: &[&str]) -> anyhow::Result<Vec<String>> {
        let plan = self.env.plan().await?;
        let items = plan["deployments"].as_array();
        let due = items.into_iter().flatten().filter(|item| {
            let id = item["deploymentId"].as_str().unwrap_or_default();
            let drains = item["action"] == "drain" && draining.contains(&id);
            item["action"] != "keep" && !drains
        });
        let missing = Some(&plan["missingRules"]).filter(|missing| !missing.is_null());
        Ok(due.chain(missing).map(Value::to_string).collect())
    }

    /// Deletes a deployment by the step `delete-deployment`; returns what remains of it.
    async fn delete(&self, id: &str) -> anyhow::Result<Vec<String>> {
        let function = format!("{}-delete-deployment", self.env.name);
        let path = format!("/2015-03-31/functions/{function}/invocations");
        let payload = json!({"deploymentId": id}).to_string();
        let deleted = self.env.wait_until(Duration::from_secs(60), async || {
            let client = self.env.cloud.client();
            let answer = client
                .rest("lambda", Method::POST, &path, payload.clone().into())
                .await?;
            let answer: Value = serde_json::from_slice(&answer)?;
            match answer["verdict"].as_str() {
                Some(verdict) => Ok(verdict == "deleted"),
                None => anyhow::bail!("{answer}"),
            }
        });
        let deleted = deleted.await;
        let mut left = self.env.remaining(id).await?;
        left.extend(deleted.err().map(|why| format!("not deleted: {why:#}")));
        Ok(left)
    }

    /// Stops the local cloud.
    pub async fn tear_down(self) {
        self.env.tear_down().await;
    }
}
