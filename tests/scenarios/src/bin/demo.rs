//! Shows the whole story on one machine: `make demo`.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use aws_sdk_sfn::types::ExecutionStatus;
use scenarios::machines::SWEEPS_APART;
use scenarios::visitors::Pin;
use scenarios::websocket::Socket;
use scenarios::{Execution, TestEnvironment, Traffic};
use serde_json::json;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let started = Instant::now();
    title("A local cloud, and the stacks of environment test");
    let env = TestEnvironment::deploy_for_cleanups_by_hand().await?;
    // The local cloud is stopped even if the story fails.
    let shown = show(&env).await;
    title("The local cloud stops");
    env.tear_down().await;
    shown?;
    println!(
        "\nEverything held, in {:.0} s. To push your own images: make local",
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

async fn show(env: &TestEnvironment) -> anyhow::Result<()> {
    title("The first image is pushed");
    let first = push_and_watch(env, &[]).await?;
    ensure_live(&first)?;
    env.reaches_visitors(&first.name).await?;
    line(format!("{} answers at {}", first.name, env.url()));

    title("The second image is pushed, during 200 requests per second");
    let pins = vec![
        Pin::None,
        Pin::Header(first.name.clone()),
        Pin::None,
        Pin::Cookie(first.name.clone()),
    ];
    let traffic = Traffic::start(env, 200, pins)?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let second = push_and_watch(env, &[]).await?;
    ensure_live(&second)?;
    env.reaches_visitors(&second.name).await?;
    traffic.next_phase();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (tally, rate) = traffic.stop().await?;
    for (key, count) in &tally.answered {
        let (pin, deployment) = key;
        // A request belongs to the phase in which it was sent.
        let since = tally.phases[1].answered.get(key).copied().unwrap_or(0);
        let who = match pin {
            Pin::None => "new visitors",
            Pin::Header(_) | Pin::HeaderOverCookie { .. } => "pinned by header",
            Pin::Cookie(_) => "pinned by cookie",
        };
        line(format!(
            "{who:<18} {count:>6} answers from {deployment}, {since} of them after the switch"
        ));
        let expected = if *pin == Pin::None {
            &second.name
        } else {
            &first.name
        };
        ensure!(
            since == 0 || deployment == expected,
            "{pin:?} was answered by {deployment} after the switch"
        );
    }
    for (pin, expected) in [
        (Pin::None, &second.name),
        (Pin::Header(first.name.clone()), &first.name),
        (Pin::Cookie(first.name.clone()), &first.name),
    ] {
        let answers = tally.phases[1]
            .answered
            .get(&(pin.clone(), expected.clone()));
        ensure!(
            answers.is_some_and(|answers| *answers > 0),
            "{pin:?} had no answer from {expected} after the switch"
        );
    }
    line(format!(
        "{} requests at {rate:.0} per second, {} failed",
        tally.sent,
        tally.failed.len()
    ));
    ensure!(
        tally.failed.is_empty(),
        "failed requests: {:?}",
        tally.failed
    );

    title("An image that crashes is pushed");
    let pushed = Instant::now();
    let crashed = push_and_watch(env, &[("CRASH_ON_START", "3")]).await?;
    ensure!(
        crashed.ending() == "Failed",
        "the crash ended as {}: {}",
        crashed.ending(),
        crashed.cause
    );
    line(format!(
        "after {:.0} s: {}",
        pushed.elapsed().as_secs_f64(),
        crashed.cause
    ));
    let left = env.remaining(&crashed.name).await?;
    ensure!(left.is_empty(), "{} still has {left:?}", crashed.name);
    line("no rule, target group, service or task definition of it remains".to_owned());
    ensure!(
        env.active().await?.as_deref() == Some(second.name.as_str()),
        "the default action moved"
    );
    line(format!("{} is still active", second.name));

    title("A third image is pushed, and the first version is drained while a visitor is on it");
    let mut session = Socket::open(env, &first.name).await?;
    line(format!("a visitor has a WebSocket open to {}", first.name));
    let third = push_and_watch(env, &[]).await?;
    ensure_live(&third)?;
    env.reaches_visitors(&third.name).await?;
    clean_up(env).await?;
    tokio::time::sleep(SWEEPS_APART).await;
    clean_up(env).await?;
    session
        .talk("still here")
        .await
        .context("the session was cut")?;
    line("the session is still open, so the first version stays".to_owned());
    session.close().await?;
    line("the visitor leaves".to_owned());
    for _ in 0..4 {
        clean_up(env).await?;
        if env.remaining(&first.name).await?.is_empty() {
            break;
        }
        tokio::time::sleep(SWEEPS_APART).await;
    }
    let left = env.remaining(&first.name).await?;
    ensure!(left.is_empty(), "{} still has {left:?}", first.name);
    line(format!("nothing of {} remains", first.name));

    title("A rollback to the previous version");
    let begun = Instant::now();
    let rollback = env.run("rollback", &json!({})).await?;
    ensure!(
        rollback.ending() == "Succeeded",
        "the rollback ended as {}: {}",
        rollback.ending(),
        rollback.cause
    );
    ensure!(
        env.active().await?.as_deref() == Some(second.name.as_str()),
        "the rollback did not go to {}",
        second.name
    );
    line(format!(
        "{} is active again after {:.1} s",
        second.name,
        begun.elapsed().as_secs_f64()
    ));
    Ok(())
}

/// Runs a cleanup and prints what it did.
async fn clean_up(env: &TestEnvironment) -> anyhow::Result<()> {
    let execution = env.clean_up().await?;
    for item in execution.output["deployments"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let text = |field: &str| item[field].as_str().unwrap_or_default().to_owned();
        line(format!(
            "cleanup: {} {} ({})",
            text("deploymentId"),
            text("outcome"),
            text("reason")
        ));
    }
    Ok(())
}

fn ensure_live(execution: &Execution) -> anyhow::Result<()> {
    let Execution {
        name,
        status,
        error,
        cause,
        ..
    } = execution;
    ensure!(
        *status == ExecutionStatus::Succeeded && execution.ending() == "Succeeded",
        "{name}: {error}: {cause}"
    );
    Ok(())
}

/// Pushes the sample application and prints each state as the execution enters it.
async fn push_and_watch(
    env: &TestEnvironment,
    variables: &[(&str, &str)],
) -> anyhow::Result<Execution> {
    let id = env.new_id();
    env.push(&id, variables).await?;
    line(format!("pushed {}:{id}", env.name));
    let begun = Instant::now();
    let mut shown = 0;
    loop {
        ensure!(
            begun.elapsed() < Duration::from_secs(180),
            "the execution of {id} does not end"
        );
        let Ok(execution) = Execution::read(&env.sfn, &env.execution_arn(&id)).await else {
            // The event is on its way.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let ended = execution.has_ended();
        let path = execution.path();
        for state in &path[shown..] {
            // Repeated polls are shown as dots.
            match *state {
                "WaitForTargets" | "WaitForUndo" => print!("."),
                "CheckTargetHealth" | "AreTargetsHealthy" | "UndoDeployment"
                | "IsDeploymentUndone"
                    if path[..shown].contains(state) => {}
                // Choices, and what explains a failure to the machine.
                state
                    if ["Is", "Are", "Choose", "Explain"]
                        .iter()
                        .any(|it| state.starts_with(it)) => {}
                state => print!("\n    {:>5.1} s  {state}", begun.elapsed().as_secs_f64()),
            }
            shown += 1;
        }
        std::io::stdout().flush()?;
        if ended {
            println!();
            return Ok(execution);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn title(text: &str) {
    println!("\n{text}");
}

fn line(text: String) {
    println!("  {text}");
}
