//! Measures how long a deployment takes, and how much of that is due to pulse-deploy: `make bench`.
//!
//! A bare script makes the same AWS calls one after another, without look-ups, undo or state machine. Its
//! time is what AWS itself takes (here, the local cloud at its time scale). The difference is the cost
//! of the state machine.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::ensure;
use aws_sdk_elasticloadbalancingv2::types::TargetHealthStateEnum;
use localcloud::time_scale::TimeScale;
use scenarios::blueprint::{forward, header};
use scenarios::{Blueprint, Execution, TestEnvironment};

/// How many deployments of each kind are measured. Odd, so that the median is one of them.
const RUNS: usize = 7;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let env = TestEnvironment::deploy().await?;
    let measured = measure(&env).await;
    env.tear_down().await;
    measured
}

async fn measure(env: &TestEnvironment) -> anyhow::Result<()> {
    let (mut ours, mut transitions, mut calls) = (Vec::new(), Vec::new(), Vec::new());
    let mut steps: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let mut last = String::new();
    for _ in 0..RUNS {
        let id = env.new_id();
        let before = env.cloud.calls().newest();
        let begun = Instant::now();
        env.push(&id, &[]).await?;
        let execution = env.wait_for_deployment(&id).await?;
        ours.push(begun.elapsed().as_secs_f64());
        ensure!(
            execution.ending() == "Succeeded",
            "{id}: {}",
            execution.cause
        );
        transitions.push(execution.path().len() as f64);
        let by_functions = env
            .cloud
            .calls()
            .since(before)
            .iter()
            .filter(|call| call.caller.contains("assumed-role"))
            .count();
        calls.push(by_functions as f64);
        for (step, seconds) in durations(&execution) {
            steps.entry(step).or_default().push(seconds);
        }
        last = id;
    }
    let bare = Script(Blueprint::of(env, &last).await?);
    let mut script = Vec::new();
    for _ in 0..RUNS {
        script.push(bare.deploy(env).await?);
    }

    println!(
        "\n{RUNS} deployments each, on the local cloud at time scale {}; median (least to most)\n",
        TimeScale::default().0
    );
    row("push to live, pulse-deploy", &mut ours, "s");
    row("the same calls by a bare script", &mut script, "s");
    row("state transitions of a deployment", &mut transitions, "");
    row("AWS calls by functions of a deployment", &mut calls, "");
    println!("\nTime spent in each state, over all visits\n");
    for (step, seconds) in &mut steps {
        row(step, seconds, "s");
    }
    Ok(())
}

fn row(what: &str, values: &mut [f64], unit: &str) {
    values.sort_by(f64::total_cmp);
    let (least, median, most) = (
        values[0],
        values[values.len() / 2],
        values[values.len() - 1],
    );
    match unit {
        "" => println!("  {what:<40} {median:>6.0}   ({least:.0} to {most:.0})"),
        unit => println!("  {what:<40} {median:>6.2} {unit} ({least:.2} to {most:.2})"),
    }
}

/// The seconds spent in each state, over all visits.
fn durations(execution: &Execution) -> BTreeMap<String, f64> {
    let mut entered: BTreeMap<&str, f64> = BTreeMap::new();
    let mut spent: BTreeMap<String, f64> = BTreeMap::new();
    for event in &execution.history {
        let at = event.timestamp().as_secs_f64();
        if let Some(details) = event.state_entered_event_details() {
            entered.insert(details.name(), at);
        } else if let Some(details) = event.state_exited_event_details()
            && let Some(since) = entered.get(details.name())
        {
            *spent.entry(details.name().to_owned()).or_default() += at - since;
        }
    }
    spent
}

/// A bare script that deploys from this blueprint.
struct Script(Blueprint);

impl Script {
    /// Deploys; returns the seconds that it took.
    async fn deploy(&self, env: &TestEnvironment) -> anyhow::Result<f64> {
        let id = env.new_id();
        let begun = Instant::now();
        env.push_without_event(&id, &[]).await?;
        let Script(blueprint) = self;
        let definition = blueprint.register(env, "script", &[]).await?;
        let name = format!("script-{}", &id[id.len() - 8..id.len() - 1]);
        let group = blueprint.target_group(env, &name, &[]).await?;
        let priority = 40_000 + i32::try_from(begun.elapsed().subsec_nanos() % 9_000)?;
        let condition = header("X-Script", &id);
        blueprint
            .rule(env, priority, condition, forward(&group), &[])
            .await?;
        let name = format!("script-{id}");
        blueprint
            .service(env, &name, (&definition, 2), Some(&group), &[])
            .await?;
        env.wait_until(Duration::from_secs(120), async || {
            // As often as the state machine polls.
            tokio::time::sleep(TimeScale::default().seconds(5.0)).await;
            let health = env
                .elb
                .describe_target_health()
                .target_group_arn(&group)
                .send()
                .await?;
            let healthy = health
                .target_health_descriptions()
                .iter()
                .filter_map(|description| description.target_health()?.state())
                .filter(|state| **state == TargetHealthStateEnum::Healthy);
            Ok(healthy.count() >= 2)
        })
        .await?;
        env.elb
            .modify_listener()
            .listener_arn(&blueprint.listener)
            .default_actions(forward(&group))
            .send()
            .await?;
        Ok(begun.elapsed().as_secs_f64())
    }
}
