//! A deployment in which something goes wrong, and then the same once more.

use std::time::Duration;

use anyhow::ensure;
use localcloud::front_door::ecr::PushEvent;
use serde_json::json;

use super::invariants::{Observation, Welcome};
use super::plan::{Case, Point, Trouble, Workflow};
use super::run::{Run, Seen, Story};
use super::{SETTLE, Sweep};
use crate::visitors::Pin;
use crate::{Execution, Stage};

/// How long an event that must start something may take, with all that is tried again.
const STARTS_WITHIN: Duration = Duration::from_secs(30);
/// How long it is looked whether an event that may be lost starts something after all.
const MAY_START_WITHIN: Duration = Duration::from_secs(6);

/// Runs it while `meanwhile` happens.
///
/// # Errors
/// When the run itself is not possible; a broken invariant is no error here.
pub async fn run(
    sweep: &mut Sweep,
    case: &Case,
    meanwhile: impl AsyncFnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<(Observation, Vec<Point>)> {
    let stage = &sweep.stage;
    let (before, id) = (sweep.active.clone(), stage.new_id());
    let event = stage.push_unnoticed(&id, &[]).await?;
    // Refreshes what a stale read of the listener answers to the state of this run.
    let active = stage.active().await?;
    ensure!(active.as_ref() == Some(&before), "{before} is not live");

    let mut run = Run::begin(sweep, case, welcome(&before, &id)).await?;
    run.trouble().await?;
    let (ended, meanwhile) = tokio::join!(start(stage, case, &id, &event), meanwhile());
    meanwhile?;
    let Seen { befell, points } = run.over().await?;
    let first = run.end(ended, &id).await?;

    if first.ending != "Succeeded" {
        // Whatever it left is old enough by then.
        tokio::time::sleep(SETTLE).await;
    }
    stage.clean_up().await?;
    let mut due = sweep.due(&[]).await?;
    if first.ending != "Succeeded" {
        due.extend(stage.leftovers(&id).await?);
    }
    let input = json!({"deploymentId": id}).to_string();
    let ended = stage.start_by_hand(&format!("again-{id}"), &input).await;
    let again = run.end(ended.map(Some), &id).await?;
    let live = again.active.as_ref() == Some(&id);
    if live {
        stage.reaches_visitors(&id).await?;
    }
    let after = id.clone();
    let story = Story {
        before: before.clone(),
        after,
        first,
        due,
        again,
    };
    let mut observation = run.finish(befell, story).await?;

    // What is not live must not stand in the way of the next run.
    let gone = if live { &before } else { &id };
    observation.left = sweep.delete(gone).await?;
    if live {
        sweep.active = id;
    }
    Ok((observation, points))
}

fn welcome(before: &str, id: &str) -> Vec<Welcome> {
    let (before, id) = (before.to_owned(), id.to_owned());
    vec![
        (Pin::None, vec![before.clone(), id]),
        (Pin::Header(before.clone()), vec![before.clone()]),
        (Pin::Cookie(before.clone()), vec![before]),
    ]
}

/// Starts the deployment and waits for its end; nothing if none began.
async fn start(
    stage: &Stage,
    case: &Case,
    id: &str,
    event: &PushEvent,
) -> anyhow::Result<Option<Execution>> {
    if case.workflow != Workflow::Push {
        let input = json!({"deploymentId": id}).to_string();
        return stage.start_by_hand(id, &input).await.map(Some);
    }
    let deliveries = match case.troubles[..] {
        [Trouble::EventNever] => 0,
        [Trouble::EventTwice] => 2,
        _ => 1,
    };
    for _ in 0..deliveries {
        stage.cloud.push_events().deliver(event).await?;
    }
    let limit = match case.is_passing() {
        true => STARTS_WITHIN,
        false => MAY_START_WITHIN,
    };
    let arn = stage.execution_arn(id);
    let begun = async || Ok(Execution::read(&stage.sfn, &arn).await.is_ok());
    match stage.within(limit, begun).await {
        Ok(()) => stage.end_of(id).await.map(Some),
        Err(_) => Ok(None),
    }
}
