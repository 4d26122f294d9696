//! A rollback in which something goes wrong, and then the same once more.

use anyhow::{Context, ensure};
use serde_json::json;

use super::Sweep;
use super::invariants::{Observation, Welcome};
use super::plan::{Case, Point, Workflow};
use super::run::{Run, Seen, Story};
use crate::visitors::Pin;

/// Runs it: back to the other deployment of two, which is warm, or drains if that is to be restored.
///
/// # Errors
/// When the run itself is not possible; a broken invariant is no error here.
pub async fn run(sweep: &mut Sweep, case: &Case) -> anyhow::Result<(Observation, Vec<Point>)> {
    let restoring = case.workflow == Workflow::Restore;
    let target = prepare(sweep, restoring).await?;
    let stage = &sweep.stage;
    let before = sweep.active.clone();
    let input = json!({"deploymentId": target});

    let mut run = Run::begin(sweep, case, welcome(&before, &target)).await?;
    run.trouble().await?;
    let ended = stage.run("rollback", &input).await;
    let Seen { befell, points } = run.over().await?;
    let first = run.end(ended.map(Some), &target).await?;
    let ended = stage.run("rollback", &input).await;
    let again = run.end(ended.map(Some), &target).await?;
    let active = again.active.clone().context("nothing is active")?;
    if active == target {
        stage.reaches_visitors(&target).await?;
    }
    let left = match active == target {
        true => before.clone(),
        false => target.clone(),
    };
    // What was left is drained; in the warm case not yet, for it is the next one to go back to.
    if restoring {
        sweep.drain(&left).await?;
    }
    let due = sweep.due(&[&left]).await?;
    let story = Story {
        before,
        after: target,
        first,
        due,
        again,
    };
    let observation = run.finish(befell, story).await?;
    sweep.active = active;
    sweep.others = vec![left];
    Ok((observation, points))
}

/// Sees to it that there is a deployment to go back to, in the state that is asked for.
async fn prepare(sweep: &mut Sweep, draining: bool) -> anyhow::Result<String> {
    if sweep.others.is_empty() {
        sweep.deploy_another().await?;
    }
    let target = sweep.others[0].clone();
    if draining && !sweep.is_draining(&target).await? {
        // The newest previous one is kept warm; what a rollback leaves is drained.
        let rolled_back = sweep
            .stage
            .run("rollback", &json!({"deploymentId": target}))
            .await?;
        ensure!(
            rolled_back.ending() == "Succeeded",
            "cannot roll back: {}",
            rolled_back.cause
        );
        let left = std::mem::replace(&mut sweep.active, target);
        sweep.others = vec![left.clone()];
        sweep.drain(&left).await?;
        return Ok(left);
    }
    Ok(target)
}

fn welcome(before: &str, target: &str) -> Vec<Welcome> {
    let (before, target) = (before.to_owned(), target.to_owned());
    vec![
        (Pin::None, vec![before.clone(), target.clone()]),
        (Pin::Header(before.clone()), vec![before.clone()]),
        (Pin::Cookie(before.clone()), vec![before]),
        (Pin::Header(target.clone()), vec![target]),
    ]
}
