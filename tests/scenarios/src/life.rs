//! A random life of an environment: pushes of all kinds, rollbacks, cleanups and double starts, with
//! visitors who must not notice any of it. `docs/life.md` says what must hold.

pub mod draw;
pub mod pinned;
pub mod records;
pub mod usage;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::{Value, json};

use crate::faults::watcher::Watcher;
use crate::machines::SWEEPS_APART;
use crate::visitors::Pin;
use crate::{TestEnvironment, Traffic};
use draw::{Draw, Image, Operation};
use pinned::{Pinned, Stays};
use records::{Records, Started};
use usage::{Sample, Usage};

/// A tenth of the default of `SettleSeconds`, as the local cloud takes a tenth of AWS's times.
const PARAMETERS: &str = "SettleSeconds=6";

/// Requests per second without a pin.
const REQUESTS: u32 = 20;

/// The visitors who stay on their version.
const PINNED: usize = 6;

/// How many sweeps after the end of all operations leave nothing to do. A sweep begins to drain what was
/// replaced, and the second one after that deletes it. A cleanup leaves a part to the next ones.
const LAST_SWEEPS: usize = 30;

/// How often memory and processes are measured.
const MEASURE_EVERY: Duration = Duration::from_secs(10);

/// Everything that was observed of a life.
#[derive(Debug, Default)]
pub struct Life {
    /// How long it lasted, without the sweeps at its end.
    pub lasted: Duration,
    /// The number of operations, by kind.
    pub operations: BTreeMap<Operation, usize>,
    /// The number of executions, by machine and ending.
    pub endings: BTreeMap<(String, String), usize>,
    /// The number of answered requests of new visitors and of pinned ones.
    pub answered: (usize, usize),
    /// How many times pinned visitors arrived.
    pub arrivals: usize,
    /// How many of them went along with a rollback.
    pub moved: usize,
    /// Memory and processes over time.
    pub usage: Usage,
    /// Everything that must not happen.
    pub wrong: Vec<String>,
}

/// Lives for `length` by the draws of `seed`, on an environment of its own.
///
/// # Errors
/// When the local cloud does not start, or does not answer.
pub async fn live(seed: u64, length: Duration) -> anyhow::Result<Life> {
    let env = TestEnvironment::deploy_with_parameters(PARAMETERS).await?;
    let life = live_on(&env, seed, length).await;
    env.tear_down().await;
    life
}

async fn live_on(env: &TestEnvironment, seed: u64, length: Duration) -> anyhow::Result<Life> {
    let mut draw = Draw::of(seed);
    let first = env.deploy_live(&[]).await?.name;
    let mut records = Records::of(env, &first);
    let begun = Instant::now();
    let mut life = Life::default();

    let traffic = Traffic::start(env, REQUESTS, vec![Pin::None])?;
    let watcher = Watcher::of(env, env.listener_arn().await?);
    let pinned: Vec<_> = (0..PINNED)
        .map(|_| Pinned::arrive(env, draw.visitor()))
        .collect::<anyhow::Result<_>>()?;

    let mut measured = None;
    let mut pushed = vec![first];
    while begun.elapsed() < length {
        let (pause, operation) = draw.operation();
        tokio::time::sleep(pause.min(length.saturating_sub(begun.elapsed()))).await;
        *life.operations.entry(operation).or_default() += 1;
        operate(env, operation, &mut draw, &mut pushed, &mut records).await?;
        records.read(env).await?;
        if measured.is_none_or(|last: Instant| last.elapsed() >= MEASURE_EVERY) {
            measured = Some(Instant::now());
            let sample = Sample::take(begun.elapsed())?;
            if life.usage.add(sample) {
                println!("{sample}");
            }
        }
    }
    life.lasted = begun.elapsed();

    let mut stays = Stays::default();
    for visitor in pinned {
        stays.merge(visitor.leave().await?);
    }
    records.all_end(env).await?;
    life.wrong.extend(converge(env, &mut records).await?);
    let watched = watcher.stop();
    let (tally, _) = traffic.stop().await?;

    life.endings = records.endings.clone();
    life.arrivals = stays.arrivals;
    life.moved = stays.moved.len();
    life.answered = (tally.answers(), stays.answers);
    life.wrong.extend(records.wrong.iter().cloned());
    life.wrong
        .extend(stays.wrong(&records.restored, &records.evicted));
    life.wrong.extend(watched.wrong);
    life.wrong.extend(tally.failed);
    let never_live = tally.answered.keys().map(|(_, id)| id);
    let never_live = never_live.filter(|id| !records.lived.contains(*id));
    let answered = never_live.map(|id| format!("{id} answered new visitors and was never live"));
    life.wrong.extend(answered);
    life.wrong.extend(life.usage.growth(length));
    for (what, count) in [
        ("a check of the default action", watched.checks),
        ("an answer to a new visitor", life.answered.0),
        ("an answer to a pinned visitor", life.answered.1),
    ] {
        if count == 0 {
            life.wrong.push(format!("there was not once {what}"));
        }
    }
    Ok(life)
}

async fn operate(
    env: &TestEnvironment,
    operation: Operation,
    draw: &mut Draw,
    pushed: &mut Vec<String>,
    records: &mut Records,
) -> anyhow::Result<()> {
    match operation {
        Operation::Push(image) => push(env, env.new_id(), image, pushed, records).await,
        Operation::PushTwo => {
            let (older, newer) = (env.new_id(), env.new_id());
            push(env, newer, Image::Good, pushed, records).await?;
            push(env, older, Image::Good, pushed, records).await
        }
        Operation::StartAgain => {
            let recent = &pushed[pushed.len().saturating_sub(5)..];
            let id = recent[draw.index(recent.len())].clone();
            // A start by hand follows what the operator sees running.
            if !records.has_started(env, &id).await? {
                return Ok(());
            }
            let number = records.starts_of(&id) + 1;
            let started = env
                .sfn
                .start_execution()
                .state_machine_arn(env.machine("deploy"))
                .name(format!("{id}-{number}"))
                .input(json!({"deploymentId": id}).to_string())
                .send()
                .await?;
            records.started(started.execution_arn, Started::Again(id));
            Ok(())
        }
        Operation::Rollback => {
            let input = json!({"evict": draw.evicts()});
            start(env, "rollback", &input, records).await
        }
        Operation::RollbackTo => {
            let lived: Vec<_> = records.lived.iter().rev().take(6).cloned().collect();
            let to = &lived[draw.index(lived.len())];
            let input = json!({"deploymentId": to, "evict": draw.evicts()});
            start(env, "rollback", &input, records).await
        }
        Operation::CleanUp => start(env, "cleanup", &json!({}), records).await,
    }
}

async fn push(
    env: &TestEnvironment,
    id: String,
    image: Image,
    pushed: &mut Vec<String>,
    records: &mut Records,
) -> anyhow::Result<()> {
    env.push(&id, image.variables()).await?;
    records.started(env.execution_arn(&id), Started::Push(id.clone(), image));
    pushed.push(id);
    Ok(())
}

async fn start(
    env: &TestEnvironment,
    machine: &str,
    input: &Value,
    records: &mut Records,
) -> anyhow::Result<()> {
    let arn = env.start(machine, input).await?;
    records.started(arn, Started::Machine(machine.to_owned()));
    Ok(())
}

/// Cleans up until nothing is due. Returns what is due in spite of that, and what should not exist.
async fn converge(env: &TestEnvironment, records: &mut Records) -> anyhow::Result<Vec<String>> {
    let mut due = Vec::new();
    for _ in 0..LAST_SWEEPS {
        tokio::time::sleep(SWEEPS_APART + Duration::from_secs(1)).await;
        let arn = env.start("cleanup", &json!({})).await?;
        records.started(arn, Started::Machine("cleanup".to_owned()));
        records.all_end(env).await?;
        let plan = env.plan().await?;
        let items = plan["deployments"].as_array().context("no plan")?;
        let is_due = |item: &&Value| item["action"] != "keep";
        due = items.iter().filter(is_due).map(Value::to_string).collect();
        if due.is_empty() && plan["repair"].is_null() {
            return leftovers(env, items).await;
        }
    }
    Ok(vec![format!("{LAST_SWEEPS} sweeps leave {due:#?}")])
}

/// Target groups, rules and tasks of deployments that the last plan does not keep.
async fn leftovers(env: &TestEnvironment, items: &[Value]) -> anyhow::Result<Vec<String>> {
    let kept: BTreeSet<&str> = items
        .iter()
        .filter_map(|item| item["deploymentId"].as_str())
        .collect();
    let mut wrong = Vec::new();
    // The active one, and the previous one that is kept warm.
    if kept.is_empty() || kept.len() > 2 {
        let items: Vec<_> = items.iter().map(Value::to_string).collect();
        wrong.push(format!("in the end these are kept: {items:#?}"));
    }
    let groups = env.elb.describe_target_groups().send().await?;
    for group in groups.target_groups() {
        let name = group.target_group_name().unwrap_or_default();
        if !kept.contains(name) {
            wrong.push(format!("in the end the target group {name} exists"));
        }
    }
    let services = env.cloud.ecs().processes().len();
    let mut tasks = 0;
    for id in &kept {
        tasks += env.tasks(id).await?.len();
    }
    if services != tasks {
        wrong.push(format!("{tasks} tasks are kept, and {services} run"));
    }
    Ok(wrong)
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:.0} s of life", self.lasted.as_secs_f64())?;
        for (operation, number) in &self.operations {
            writeln!(f, "  {operation:<28} {number:>6}")?;
        }
        writeln!(f, "executions by ending")?;
        for ((machine, ending), number) in &self.endings {
            writeln!(f, "  {machine:<10} {ending:<17} {number:>6}")?;
        }
        let (new, pinned) = self.answered;
        writeln!(
            f,
            "{new} requests of new visitors and {pinned} of pinned ones, who arrived {} times and went along {} times",
            self.arrivals, self.moved
        )?;
        write!(f, "{}", self.usage)?;
        for wrong in &self.wrong {
            writeln!(f, "WRONG: {wrong}")?;
        }
        Ok(())
    }
}
