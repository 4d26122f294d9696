//! A cleanup in which something goes wrong, and then another one.

use serde_json::json;
use time::format_description::well_known::Rfc3339;
use time::{Duration, UtcDateTime};

use super::FaultRunner;
use super::invariants::{AllowedAnswers, Observation};
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
    /// Drains, and nobody was on it at the last runner: is deleted.
    idle: String,
}

/// Runs it.
///
/// # Errors
/// When the run itself is not possible; a broken invariant is no error here.
pub async fn run(
    runner: &mut FaultRunner,
    case: &Case,
) -> anyhow::Result<(Observation, Vec<Point>)> {
    let line = prepare(runner).await?;
    let env = &runner.env;
    let active = runner.active.clone();

    let mut run = Run::begin(runner, case, allowed_answers(&active, &line)).await?;
    run.inject().await?;
    let ended = env.run("cleanup", &json!({})).await;
    let Seen { was_hit, points } = run.stop_injecting().await?;
    let first = run.end(ended.map(Some), &line.idle).await?;
    let ended = env.run("cleanup", &json!({})).await;
    let again = run.end(ended.map(Some), &line.idle).await?;
    let mut due = runner.due(&[&line.outdated]).await?;
    due.extend(env.remaining(&line.idle).await?);
    for kept in [&active, &line.previous] {
        if env.desired_count(kept).await.ok() != Some(2) {
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
    let observation = run.finish(was_hit, story).await?;

    // A second sweep that came late enough has deleted what the first one drained.
    let drains = !runner.env.remaining(&line.outdated).await?.is_empty();
    runner.others = match drains {
        true => vec![line.outdated, line.previous],
        false => vec![line.previous],
    };
    Ok((observation, points))
}

/// Deploys until there is one to keep, one to drain and one to delete.
async fn prepare(runner: &mut FaultRunner) -> anyhow::Result<Line> {
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
    let since = (UtcDateTime::now() - IDLE_FOR).format(&Rfc3339)?;
    runner.env.tag(&idle, "pulse:idle-since", &since).await?;
    Ok(Line {
        previous: previous.clone(),
        outdated: outdated.clone(),
        idle,
    })
}

/// Who is pinned to one that is deleted meets the active one afterwards.
fn allowed_answers(active: &str, line: &Line) -> Vec<AllowedAnswers> {
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
