//! A cleanup with faults, and then another one without. The active deployment has lost a rule.

use serde_json::json;
use time::format_description::well_known::Rfc3339;
use time::{Duration, UtcDateTime};

use super::FaultRunner;
use super::invariants::{AllowedAnswers, Observation};
use super::plan::{Case, Point};
use super::run::{Recorded, Run, RunResult};
use crate::visitors::Pin;

/// How long the deployment that is to be deleted has been idle: longer than the time between two sweeps.
const IDLE_FOR: Duration = Duration::minutes(1);

/// The deployments that a cleanup finds, besides the active one.
struct Deployments {
    /// Was active last, and is kept warm.
    previous: String,
    /// Was active before that, and begins to drain.
    outdated: String,
    /// Is draining without sessions, and is deleted.
    idle: String,
}

/// Runs both cleanups.
///
/// # Errors
/// When the run is not possible. A violated invariant is not an error here.
pub async fn run(
    runner: &mut FaultRunner,
    case: &Case,
) -> anyhow::Result<(Observation, Vec<Point>)> {
    let deployments = prepare(runner).await?;
    let env = &runner.env;
    let active = runner.active.clone();

    let mut run = Run::begin(runner, case, allowed_answers(&active, &deployments)).await?;
    run.inject().await?;
    let ended = env.run("cleanup", &json!({})).await;
    let Recorded { was_hit, points } = run.stop_injecting().await?;
    let first = run.end(ended.map(Some), &deployments.idle).await?;
    let ended = env.run("cleanup", &json!({})).await;
    let again = run.end(ended.map(Some), &deployments.idle).await?;
    let mut due = runner.due(&[&deployments.outdated]).await?;
    due.extend(env.remaining(&deployments.idle).await?);
    for kept in [&active, &deployments.previous] {
        if env.service(kept).await?.desired_count() != 2 {
            due.push(format!("{kept} does not have its two tasks"));
        }
    }
    let result = RunResult {
        before: active.clone(),
        after: active,
        first,
        due,
        again,
    };
    let observation = run.finish(was_hit, result).await?;

    // If the second cleanup came late enough, it deleted what the first one drained.
    let drains = !runner
        .env
        .remaining(&deployments.outdated)
        .await?
        .is_empty();
    runner.others = if drains {
        vec![deployments.outdated, deployments.previous]
    } else {
        vec![deployments.previous]
    };
    Ok((observation, points))
}

/// Deploys until one is to be kept, one is to drain and one is to be deleted.
async fn prepare(runner: &mut FaultRunner) -> anyhow::Result<Deployments> {
    while runner.others.len() < 2 {
        runner.deploy_another().await?;
    }
    let idle = runner.others[0].clone();
    if !runner.is_draining(&idle).await? {
        runner.drain(&idle).await?;
    }
    runner.deploy_another().await?;
    let [_, outdated, previous] = &runner.others[..] else {
        anyhow::bail!("there are {:?}", runner.others);
    };
    runner.is_planned(outdated, "drain").await?;
    runner.env.age_switches().await?;
    let since = (UtcDateTime::now() - IDLE_FOR).format(&Rfc3339)?;
    runner.env.tag(&idle, "pulse:idle-since", &since).await?;
    runner.delete_a_rule(&runner.active).await?;
    Ok(Deployments {
        previous: previous.clone(),
        outdated: outdated.clone(),
        idle,
    })
}

/// The active deployment answers visitors who were pinned to a deleted one.
fn allowed_answers(active: &str, deployments: &Deployments) -> Vec<AllowedAnswers> {
    let or_active = |id: &String| vec![id.clone(), active.to_owned()];
    let previous = || vec![deployments.previous.clone()];
    vec![
        (Pin::None, vec![active.to_owned()]),
        (Pin::Header(deployments.previous.clone()), previous()),
        (Pin::Cookie(deployments.previous.clone()), previous()),
        (
            Pin::Header(deployments.outdated.clone()),
            or_active(&deployments.outdated),
        ),
        (
            Pin::Header(deployments.idle.clone()),
            or_active(&deployments.idle),
        ),
    ]
}
