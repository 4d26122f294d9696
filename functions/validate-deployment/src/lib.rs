//! The first step: checks that the input is valid, the image exists, the deployment is still wanted, its rules
//! can have the listener's policy, and the load balancer has room. Changes nothing.

mod active;
mod alarms;
mod base;
pub mod execution;
mod image;
pub mod quota;
mod shadowed;

use lifecycle::routing::DefaultAction;
use lifecycle::tags::{self, Tags};
use lifecycle::{Baseline, DeploymentId, ErrorName, StepError, guard, policy, target_group};
use serde::Serialize;
use serde_json::Value;
use settings::{Defaults, Deployment, Document, Input, Source, parameter};
use time::UtcDateTime;

use lifecycle::executions::Started;

/// Whether the deployment continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// It continues.
    Proceed,
    /// It is already active, so nothing is to be done.
    AlreadyActive,
    /// A newer deployment is active; nothing was created.
    Superseded,
}

/// The deployment with everything the next steps need.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// Whether it continues.
    pub verdict: Verdict,
    /// Why, in a sentence.
    pub reason: String,
    /// The digest of the image, `sha256:…`. Of an active deployment, of the image that runs.
    pub image_digest: String,
    /// What an operator should correct, although the deployment goes on.
    pub warnings: Vec<String>,
    /// The id of the deployment.
    pub deployment_id: DeploymentId,
    /// The version of the settings that it is made with, or, if it is active, was made with; none without settings.
    pub settings_version: Option<i64>,
    /// The alarms that ring and that it goes on in spite of. They are not watched.
    pub accepted_alarms: Vec<String>,
    /// What it runs with, if it continues.
    #[serde(flatten)]
    pub deployment: Option<Deployment>,
}

/// The clients that the step reads with.
#[derive(Debug, Clone)]
pub struct Clients {
    /// For the alarms that the settings name.
    pub cloudwatch: aws_sdk_cloudwatch::Client,
    /// For the image.
    pub ecr: aws_sdk_ecr::Client,
    /// For what runs.
    pub ecs: aws_sdk_ecs::Client,
    /// For the listener, its rules and its quotas.
    pub elb: aws_sdk_elasticloadbalancingv2::Client,
    /// For the secret of the listener's OIDC client.
    pub secrets: aws_sdk_secretsmanager::Client,
    /// For other executions.
    pub sfn: aws_sdk_sfn::Client,
    /// For the settings of the environment.
    pub ssm: aws_sdk_ssm::Client,
}

/// Checks the input and that no other execution of the deployment goes first, compares the deployment with what is
/// active, pins the image, and merges the input with the environment's settings. Those, and which
/// revision of a base is the newest, are read here and nowhere else, so that a change of them never affects what runs.
///
/// # Errors
/// `InvalidInput`, `InvalidSettings`, `Frozen`, `InAlarm`, `ImageNotFound`, `DeploymentRolledBack`, `QuotaExceeded`; `Configuration` when its
/// rules cannot have the listener's policy; `DefaultActionNotOurs` for a
/// maintenance page; `ResourceConflict` when another execution goes first or the active deployment differs from
/// the input; or as [`lifecycle::aws_error::CODES`] say.
pub async fn run(
    clients: &Clients,
    baseline: &Baseline,
    now: UtcDateTime,
    payload: Value,
) -> Result<Output, StepError> {
    let Started { input, execution } = Started::read(payload);
    let input = Input::read(input, baseline, now)?;
    let id = &input.deployment_id;
    if let Some(execution) = &execution {
        execution::check_name(execution, id)?;
        execution::refuse_if_not_first(&clients.sfn, execution, id).await?;
    }
    let elb = &clients.elb;
    let usage = quota::usage(elb, baseline, id).await?;
    // Before the tags: a rollback tags what it replaces before it switches, so that the tag is seen whenever
    // the switch is.
    let default_action = DefaultAction::read(elb, baseline).await?;
    default_action.refuse_others(baseline)?;
    // By its name: a cleanup may have deleted its rules.
    let own = target_group::find(elb, id).await?;
    let marks = own.map_or_else(Tags::new, |own| own.tags);
    refuse_if_rolled_back(&marks, id)?;
    let (verdict, reason) = verdict(&default_action, id, now);
    let (mut settings_version, mut deployment) = (None, None);
    let mut alarms = alarms::Checked::default();
    let mut architecture = baseline.cpu_architecture.clone();
    if verdict == Verdict::Proceed {
        guard::refuse_draining(id, &marks)?;
        // Whether the new rules can do what the default action does before it routes.
        let policy = default_action.policy()?;
        policy::client_secret(&clients.secrets, baseline, &policy).await?;
        quota::check(elb, &usage, id).await?;
        let settings = parameter::read(&clients.ssm, baseline).await?;
        if let Some(freeze) = settings.as_ref().and_then(|it| it.frozen.as_ref()) {
            return Err(freeze.refuses(id));
        }
        settings_version = settings.as_ref().and_then(Document::version);
        let base = base::read(&clients.ecs, baseline, &input, settings.as_ref()).await?;
        if let Some(of_base) = base.as_ref().and_then(base::architecture) {
            architecture = of_base.to_owned();
        }
        let source = settings
            .as_ref()
            .map_or(Source::Input, |it| it.source.clone());
        let otherwise = Defaults::of(baseline);
        let own = Deployment::of(input.clone(), settings, base.as_ref(), otherwise)?;
        alarms = self::alarms::check(&clients.cloudwatch, &input, &source, &own.watch).await?;
        deployment = Some(own);
    }
    let image_digest = if verdict == Verdict::AlreadyActive {
        let (digest, version) =
            active::compare(&clients.ecs, elb, baseline, &input, &marks).await?;
        settings_version = version;
        digest
    } else {
        image::find(&clients.ecr, baseline, &input, &architecture).await?
    };
    let warnings = usage.warnings.into_iter().chain(alarms.warning);
    Ok(Output {
        verdict,
        reason,
        image_digest,
        warnings: warnings.collect(),
        deployment_id: input.deployment_id,
        settings_version,
        accepted_alarms: alarms.accepted,
        deployment,
    })
}

/// Compares the deployment with the active one.
fn verdict(
    default_action: &DefaultAction,
    id: &DeploymentId,
    now: UtcDateTime,
) -> (Verdict, String) {
    match default_action.active() {
        Some(active) if active == id => (
            Verdict::AlreadyActive,
            format!("{id} is already active; nothing was changed"),
        ),
        Some(active) if active > id => (Verdict::Superseded, active.supersedes(now)),
        Some(active) => (Verdict::Proceed, format!("{active} is active and older")),
        None => (Verdict::Proceed, "no deployment is active".to_owned()),
    }
}

fn refuse_if_rolled_back(marks: &Tags, id: &DeploymentId) -> Result<(), StepError> {
    match marks.get(tags::ROLLED_BACK_AT) {
        Some(when) => Err(StepError::new(
            ErrorName::DeploymentRolledBack,
            format!(
                "{id} was rolled back at {when}, so only a rollback can make it live again; push the image under a new \
                 deployment id, or start the rollback machine with {id}"
            ),
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
