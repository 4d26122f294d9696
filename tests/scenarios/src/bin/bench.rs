//! Measures how long a deployment takes, and how much of that is due to pulse-deploy: `make bench`.
//!
//! A bare script makes the same AWS calls one after another, without look-ups, undo or state machine. Its
//! time is what AWS itself takes (here, the local cloud at its time scale). The difference is the cost
//! of the state machine.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use aws_sdk_ecs::types::{LaunchType, LoadBalancer};
use aws_sdk_elasticloadbalancingv2::types::{
    Action, ActionTypeEnum, HttpHeaderConditionConfig, ProtocolEnum, RuleCondition,
    TargetHealthStateEnum, TargetTypeEnum,
};
use localcloud::time_scale::TimeScale;
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
        let definition = &self.0.definition;
        let registered = env
            .ecs
            .register_task_definition()
            .family("script")
            .set_container_definitions(definition.container_definitions.clone())
            .set_cpu(definition.cpu.clone())
            .set_memory(definition.memory.clone())
            .set_network_mode(definition.network_mode.clone())
            .set_requires_compatibilities(definition.requires_compatibilities.clone())
            .set_execution_role_arn(definition.execution_role_arn.clone())
            .send()
            .await?;
        let definition = registered
            .task_definition
            .and_then(|definition| definition.task_definition_arn);
        let created = env
            .elb
            .create_target_group()
            .name(format!("script-{}", &id[id.len() - 8..id.len() - 1]))
            .target_type(TargetTypeEnum::Ip)
            .protocol(ProtocolEnum::Http)
            .port(8000)
            .vpc_id(&self.0.vpc)
            .health_check_path("/_health")
            .send()
            .await?;
        let group = created
            .target_groups()
            .first()
            .and_then(|group| group.target_group_arn())
            .context("no group")?;
        let forward = Action::builder()
            .r#type(ActionTypeEnum::Forward)
            .target_group_arn(group)
            .build();
        let condition = RuleCondition::builder()
            .field("http-header")
            .http_header_config(
                HttpHeaderConditionConfig::builder()
                    .http_header_name("X-Script")
                    .values(&id)
                    .build(),
            )
            .build();
        let priority = 40_000 + i32::try_from(begun.elapsed().subsec_nanos() % 9_000)?;
        env.elb
            .create_rule()
            .listener_arn(&self.0.listener)
            .priority(priority)
            .conditions(condition)
            .actions(forward.clone())
            .send()
            .await?;
        env.ecs
            .create_service()
            .cluster(&env.name)
            .service_name(format!("script-{id}"))
            .set_task_definition(definition)
            .desired_count(2)
            .launch_type(LaunchType::Fargate)
            .network_configuration(self.0.network.clone())
            .load_balancers(
                LoadBalancer::builder()
                    .target_group_arn(group)
                    .container_name("app")
                    .container_port(8000)
                    .build(),
            )
            .send()
            .await?;
        env.wait_until(Duration::from_secs(120), async || {
            // As often as the state machine polls.
            tokio::time::sleep(TimeScale::default().seconds(5.0)).await;
            let health = env
                .elb
                .describe_target_health()
                .target_group_arn(group)
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
            .listener_arn(&self.0.listener)
            .default_actions(forward)
            .send()
            .await?;
        Ok(begun.elapsed().as_secs_f64())
    }
}
