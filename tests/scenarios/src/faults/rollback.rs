//! A rollback in which something goes wrong, and then the same once more.

use anyhow::{Context, ensure};
use serde_json::json;

use super::FaultRunner;
use super::invariants::{AllowedAnswers, Observation};
use super::plan::{Case, Point, Workflow};
use super::run::{Recorded, Run, RunResult};
use crate::visitors::Pin;

/// Runs it: back to the other deployment of two, which is warm, or drains if that is to be restored.
///
/// # Errors
/// When the run itself is not possible; a broken invariant is no error here.
pub async fn run(
    runner: &mut FaultRunner,
    case: &Case,
) -> anyhow::Result<(Observation, Vec<Point>)> {
    let restoring = case.workflow == Workflow::Restore;
    let target = prepare(runner, restoring).await?;
    let env = &runner.env;
    let before = runner.active.clone();
    let input = json!({"deploymentId": target});

    let mut run = Run::begin(runner, case, allowed_answers(&before, &target)).await?;
    run.inject().await?;
    let ended = env.run("rollback", &input).await;
    let Recorded { was_hit, points } = run.stop_injecting().await?;
    let first = run.end(ended.map(Some), &target).await?;
    let ended = env.run("rollback", &input).await;
    let again = run.end(ended.map(Some), &target).await?;
    let active = again.active.clone().context("nothing is active")?;
    if active == target {
        env.reaches_visitors(&target).await?;
    }
    let left = match active == target {
        true => before.clone(),
        false => target.clone(),
    };
    // What was left is drained; in the warm case not yet, for it is the next one to go back to.
    if restoring {
        runner.drain(&left).await?;
    }
    let due = runner.due(&[&left]).await?;
    let result = RunResult {
        before,
        after: target,
        first,
        due,
        again,
    };
    let observation = run.finish(was_hit, result).await?;
    runner.active = active;
    runner.others = vec![left];
    Ok((observation, points))
}

/// Sees to it that there is a deployment to go back to, in the state that is asked for.
async fn prepare(runner: &mut FaultRunner, draining: bool) -> anyhow::Result<String> {
    if runner.others.is_empty() {
        runner.deploy_another().await?;
    }
    let target = runner.others[0].clone();
    if draining && !runner.is_draining(&target).await? {
        // The newest previous one is kept warm; what a rollback leaves is drained.
        let rolled_back = runner
            .env
            .run("rollback", &json!({"deploymentId": target}))
            .await?;
        ensure!(
            rolled_back.ending() == "Succeeded",
            "cannot roll back: {}",
            rolled_back.cause
        );
        let left = std::mem::replace(&mut runner.active, target);
        runner.others = vec![left.clone()];
        runner.drain(&left).await?;
        return Ok(left);
    }
    Ok(target)
}

fn allowed_answers(before: &str, target: &str) -> Vec<AllowedAnswers> {
    let (before, target) = (before.to_owned(), target.to_owned());
    vec![
        (Pin::None, vec![before.clone(), target.clone()]),
        (Pin::Header(before.clone()), vec![before.clone()]),
        (Pin::Cookie(before.clone()), vec![before]),
        (Pin::Header(target.clone()), vec![target]),
    ]
}
