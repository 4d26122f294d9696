//! A rollback with faults, and then the same rollback again without.

use anyhow::{Context, ensure};
use serde_json::json;

use super::FaultRunner;
use super::invariants::{AllowedAnswers, Observation};
use super::plan::{Case, Point, Workflow};
use super::run::{Recorded, Run, RunResult};
use crate::visitors::Pin;

/// Rolls back to the other one of two deployments, which is warm, or draining for [`Workflow::Restore`].
///
/// # Errors
/// When the run is not possible. A violated invariant is not an error here.
pub async fn run(
    runner: &mut FaultRunner,
    case: &Case,
) -> anyhow::Result<(Observation, Vec<Point>)> {
    let restoring = case.workflow == Workflow::Restore;
    let target = prepare(runner, restoring).await?;
    let env = &runner.env;
    let before = runner.active.clone();
    // Pinned visitors stay, so that the deployment can be gone back to again and again.
    let input = json!({"deploymentId": target, "evict": false});

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
    let replaced = if active == target {
        before.clone()
    } else {
        target.clone()
    };
    // What a rollback to an older deployment replaces drains. The next restore goes back to that.
    if restoring && replaced > active {
        runner.drain(&replaced).await?;
    }
    let due = runner.due(&[&replaced]).await?;
    let result = RunResult {
        before,
        after: target,
        first,
        due,
        again,
    };
    let observation = run.finish(was_hit, result).await?;
    runner.active = active;
    runner.others = vec![replaced];
    Ok((observation, points))
}

/// Rolls back to the older one of two deployments and takes the visitors of the newer one along. The second rollback takes
/// along those whom the first one has left.
///
/// # Errors
/// When the run is not possible. A violated invariant is not an error here.
pub async fn evict(
    runner: &mut FaultRunner,
    case: &Case,
) -> anyhow::Result<(Observation, Vec<Point>)> {
    let target = go_forward(runner).await?;
    let env = &runner.env;
    let before = runner.active.clone();
    let input = json!({"deploymentId": target});
    let (old, new) = (&target, &before);
    let either = vec![old.clone(), new.clone()];
    let allowed = vec![
        (Pin::None, either.clone()),
        (Pin::Header(new.clone()), either.clone()),
        (Pin::Cookie(new.clone()), either),
        (Pin::Header(old.clone()), vec![old.clone()]),
        (Pin::Cookie(old.clone()), vec![old.clone()]),
    ];
    let mut run = Run::begin(runner, case, allowed).await?;
    run.inject().await?;
    let ended = env.run("rollback", &input).await;
    let Recorded { was_hit, points } = run.stop_injecting().await?;
    // The deployment itself stays until a cleanup. Nobody reaches it if no rule is left.
    let are_rules = |left: &mut Vec<String>| left.retain(|what| what.starts_with("rule"));
    let mut first = run.end(ended.map(Some), &before).await?;
    are_rules(&mut first.left);
    let ended = env.run("rollback", &input).await;
    let mut again = run.end(ended.map(Some), &before).await?;
    are_rules(&mut again.left);
    env.reaches_visitors(&target).await?;
    let result = RunResult {
        before: before.clone(),
        after: target.clone(),
        first,
        due: Vec::new(),
        again,
    };
    let observation = run.finish(was_hit, result).await?;
    runner.active = target;
    runner.others = vec![before];
    Ok((observation, points))
}

/// Makes the newer one of two deployments active. Returns the other one.
async fn go_forward(runner: &mut FaultRunner) -> anyhow::Result<String> {
    if runner.others.is_empty() {
        runner.deploy_another().await?;
    }
    if runner.others[0] > runner.active {
        let newer = runner.others[0].clone();
        let forward = json!({"deploymentId": newer});
        let ended = runner.env.run("rollback", &forward).await?;
        ensure!(
            ended.ending() == "Succeeded",
            "cannot go forward: {}",
            ended.cause
        );
        runner.others = vec![std::mem::replace(&mut runner.active, newer)];
    }
    runner.env.reaches_visitors(&runner.active).await?;
    // An eviction waits until the last switch to what it evicts is over.
    runner.env.age_switches().await?;
    Ok(runner.others[0].clone())
}

/// Makes sure that a deployment to go back to exists, and that it is draining if it should be.
async fn prepare(runner: &mut FaultRunner, draining: bool) -> anyhow::Result<String> {
    if runner.others.is_empty() {
        runner.deploy_another().await?;
    }
    let mut target = runner.others[0].clone();
    while draining && !runner.is_draining(&target).await? {
        // Cleanups keep the newest previous deployment warm, and drain what a rollback to an older one replaced.
        let rolled_back = runner
            .env
            .run("rollback", &json!({"deploymentId": target, "evict": false}))
            .await?;
        ensure!(
            rolled_back.ending() == "Succeeded",
            "cannot roll back: {}",
            rolled_back.cause
        );
        target = std::mem::replace(&mut runner.active, target);
        runner.others = vec![target.clone()];
        if target > runner.active {
            runner.drain(&target).await?;
        }
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
