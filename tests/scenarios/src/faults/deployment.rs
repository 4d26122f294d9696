//! A deployment with faults, and then the same deployment again without.

use std::time::Duration;

use anyhow::ensure;
use localcloud::gateway::ecr::PushEvent;
use serde_json::json;

use super::invariants::{AllowedAnswers, Observation};
use super::plan::{Case, Injection, Point, Workflow};
use super::run::{Recorded, Run, RunResult};
use super::{FaultRunner, SETTLE};
use crate::visitors::Pin;
use crate::{Execution, TestEnvironment};

/// How long an event that must start an execution may take, including retries.
const STARTS_WITHIN: Duration = Duration::from_secs(30);
/// How long to wait for an execution that a function without permission may still start.
const MAY_START_WITHIN: Duration = Duration::from_secs(6);

/// Runs both deployments, the first one with `meanwhile` at the same time.
///
/// # Errors
/// When the run is not possible. A violated invariant is not an error here.
pub async fn run(
    runner: &mut FaultRunner,
    case: &Case,
    meanwhile: impl AsyncFnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<(Observation, Vec<Point>)> {
    let env = &runner.env;
    let (before, id) = (runner.active.clone(), env.new_id());
    let event = env.push_without_event(&id, &[]).await?;
    // A stale read of the listener in this run then answers the state before this run.
    let active = env.active().await?;
    ensure!(active.as_ref() == Some(&before), "{before} is not live");

    let mut run = Run::begin(runner, case, allowed_answers(&before, &id)).await?;
    run.inject().await?;
    let (ended, meanwhile) = tokio::join!(start(env, case, &id, &event), meanwhile());
    meanwhile?;
    let Recorded { was_hit, points } = run.stop_injecting().await?;
    let first = run.end(ended, &id).await?;

    if first.ending != "Succeeded" {
        // A cleanup keeps what was created more recently.
        tokio::time::sleep(SETTLE).await;
    }
    env.clean_up().await?;
    let mut due = runner.due(&[]).await?;
    if first.ending != "Succeeded" {
        due.extend(env.remaining(&id).await?);
    }
    let ended = env.start_by_hand(&format!("{id}-2"), &input(&id)).await;
    let again = run.end(ended.map(Some), &id).await?;
    let live = again.active.as_ref() == Some(&id);
    if live {
        env.reaches_visitors(&id).await?;
    }
    let after = id.clone();
    let result = RunResult {
        before: before.clone(),
        after,
        first,
        due,
        again,
    };
    let mut observation = run.finish(was_hit, result).await?;

    // What is not live must not affect the next run.
    let gone = if live { &before } else { &id };
    observation.left = runner.delete(gone).await?;
    if live {
        runner.active = id;
    }
    Ok((observation, points))
}

fn allowed_answers(before: &str, id: &str) -> Vec<AllowedAnswers> {
    let (before, id) = (before.to_owned(), id.to_owned());
    vec![
        (Pin::None, vec![before.clone(), id]),
        (Pin::Header(before.clone()), vec![before.clone()]),
        (Pin::Cookie(before.clone()), vec![before]),
    ]
}

/// A deployment with every step, a release and a smoke test too.
fn input(id: &str) -> String {
    let release = json!({"command": ["release", "0", "0"]});
    let smoke = json!([{"path": "/", "contains": id}]);
    json!({"deploymentId": id, "release": release, "smoke": smoke}).to_string()
}

/// Starts the deployment and waits for its end; `None` if no execution started.
async fn start(
    env: &TestEnvironment,
    case: &Case,
    id: &str,
    event: &PushEvent,
) -> anyhow::Result<Option<Execution>> {
    if case.workflow != Workflow::Push {
        return env.start_by_hand(id, &input(id)).await.map(Some);
    }
    let deliveries = match case.injections[..] {
        [Injection::EventNever] => 0,
        [Injection::EventTwice] => 2,
        _ => 1,
    };
    for _ in 0..deliveries {
        env.cloud.push_events().deliver(event).await?;
    }
    let limit = match deliveries {
        // Nothing starts one.
        0 => Duration::ZERO,
        _ if case.is_transient() => STARTS_WITHIN,
        _ => MAY_START_WITHIN,
    };
    let arn = env.execution_arn(id);
    let started = async || Ok(Execution::read(&env.sfn, &arn).await.is_ok());
    match env.wait_until(limit, started).await {
        Ok(()) => env.wait_for_deployment(id).await.map(Some),
        Err(_) => Ok(None),
    }
}
