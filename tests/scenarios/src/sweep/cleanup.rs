//! A cleanup in which something goes wrong, and then another one.

use serde_json::json;
use time::format_description::well_known::Rfc3339;
use time::{Duration, UtcDateTime};

use super::Sweep;
use super::invariants::{Observation, Welcome};
use super::plan::{Case, Point};
use super::run::{Run, Seen, Story};
use crate::visitors::Pin;

/// Since when nobody is on the one that is to be deleted: longer than two sweeps have to be apart.
const IDLE_FOR: Duration = Duration::minutes(1);

/// The deployments that a cleanup meets, besides the active one.
struct Line {
    /// Was active last: is kept warm.
    previous: String,
    /// Was active before that: begins to drain.
    outdated: String,
    /// Drains, and nobody was on it at the last sweep: is deleted.
    idle: String,
}

/// Runs it.
///
/// # Errors
/// When the run itself is not possible; a broken invariant is no error here.
pub async fn run(sweep: &mut Sweep, case: &Case) -> anyhow::Result<(Observation, Vec<Point>)> {
    let line = prepare(sweep).await?;
    let stage = &sweep.stage;
    let active = sweep.active.clone();

    let mut run = Run::begin(sweep, case, welcome(&active, &line)).await?;
    run.trouble().await?;
    let ended = stage.run("cleanup", &json!({})).await;
    let Seen { befell, points } = run.over().await?;
    let first = run.end(ended.map(Some), &line.idle).await?;
    let ended = stage.run("cleanup", &json!({})).await;
    let again = run.end(ended.map(Some), &line.idle).await?;
    let mut due = sweep.due(&[&line.outdated]).await?;
    due.extend(stage.leftovers(&line.idle).await?);
    for kept in [&active, &line.previous] {
        if stage.desired_count(kept).await.ok() != Some(2) {
            due.push(format!("{kept} does not have its two tasks"));
        }
    }
    let story = Story {
        before: active.clone(),
        after: active,
        first,
        due,
        again,
    };
    let observation = run.finish(befell, story).await?;

    // A second sweep that came late enough has deleted what the first one drained.
    let drains = !sweep.stage.leftovers(&line.outdated).await?.is_empty();
    sweep.others = match drains {
        true => vec![line.outdated, line.previous],
        false => vec![line.previous],
    };
    Ok((observation, points))
}

/// Deploys until there is one to keep, one to drain and one to delete.
async fn prepare(sweep: &mut Sweep) -> anyhow::Result<Line> {
    while sweep.others.len() < 2 {
        sweep.deploy_another().await?;
    }
    let idle = sweep.others[0].clone();
    if !sweep.is_draining(&idle).await? {
        sweep.drain(&idle).await?;
    }
    sweep.deploy_another().await?;
    let [_, outdated, previous] = &sweep.others[..] else {
        anyhow::bail!("there are {:?}", sweep.others);
    };
    sweep.is_planned(outdated, "drain").await?;
    let since = (UtcDateTime::now() - IDLE_FOR).format(&Rfc3339)?;
    sweep.stage.mark(&idle, "pulse:idle-since", &since).await?;
    Ok(Line {
        previous: previous.clone(),
        outdated: outdated.clone(),
        idle,
    })
}

/// Who is pinned to one that is deleted meets the active one afterwards.
fn welcome(active: &str, line: &Line) -> Vec<Welcome> {
    let or_active = |id: &String| vec![id.clone(), active.to_owned()];
    let previous = || vec![line.previous.clone()];
    vec![
        (Pin::None, vec![active.to_owned()]),
        (Pin::Header(line.previous.clone()), previous()),
        (Pin::Cookie(line.previous.clone()), previous()),
        (
            Pin::Header(line.outdated.clone()),
            or_active(&line.outdated),
        ),
        (Pin::Header(line.idle.clone()), or_active(&line.idle)),
    ]
}
