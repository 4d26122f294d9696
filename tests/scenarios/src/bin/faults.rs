//! Lets every call of every workflow fail in every way, one at a time and in pairs: `make faults`.
//!
//! `FAULTS_SEED` is the seed that cases and pairs are drawn with. `FAULTS_CASES` and `FAULTS_PAIRS` are
//! the numbers of cases and pairs. `FAULTS_ONLY` keeps the cases whose name contains a text, such as
//! `cleanup: drain-deployment`. `FAULTS_ENVIRONMENTS` is the number of environments that run cases at
//! the same time.

use std::cell::RefCell;
use std::collections::VecDeque;

use anyhow::ensure;
use futures_util::future::join_all;
use scenarios::faults::plan::{self, Case, Workflow};
use scenarios::faults::{FaultRunner, Summary};
use scenarios::settings::setting;

struct Settings {
    seed: u64,
    cases: usize,
    pairs: usize,
    only: String,
    environments: usize,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let settings = Settings {
        seed: setting("FAULTS_SEED")?.unwrap_or_else(|| fastrand::u64(..1_000_000)),
        cases: setting("FAULTS_CASES")?.unwrap_or(usize::MAX),
        pairs: setting("FAULTS_PAIRS")?.unwrap_or(40),
        only: setting("FAULTS_ONLY")?.unwrap_or_default(),
        environments: setting("FAULTS_ENVIRONMENTS")?.unwrap_or(2),
    };
    let cases = draw(&settings).await?;
    let number = cases.len();
    let queue = RefCell::new((1..).zip(cases).collect());
    let environments = (0..settings.environments.max(1)).map(|_| work(&queue, number));
    let mut summary = Summary::default();
    for worked in join_all(environments).await {
        summary.merge(worked?);
    }
    print!("{summary}");
    println!("seed {}", settings.seed);
    ensure!(
        summary.holds(),
        "a case violated an invariant or could not be run, or too many faults hit no call"
    );
    Ok(())
}

/// Records clean runs of the wanted workflows, and draws the cases from them.
async fn draw(settings: &Settings) -> anyhow::Result<Vec<Case>> {
    let Settings {
        seed, pairs, only, ..
    } = settings;
    let mut runner = FaultRunner::prepare().await?;
    let mut all = Vec::new();
    for workflow in Workflow::ALL {
        // The name of a case begins with its workflow.
        let starts_with = |workflow: &Workflow| only.starts_with(&format!("{workflow}: "));
        if Workflow::ALL.iter().any(starts_with) && !starts_with(&workflow) {
            continue;
        }
        if workflow == Workflow::Deploy {
            // The first release of an environment finds no earlier one, and reads less.
            runner.record(workflow).await?;
        }
        let points = runner.record(workflow).await?;
        // A seed draws the same cases only from the same calls. Other workflows find more tags the second time.
        if matches!(workflow, Workflow::Deploy | Workflow::Cleanup) {
            let again = runner.record(workflow).await?;
            let in_one: Vec<String> = points
                .iter()
                .filter(|point| !again.contains(point))
                .chain(again.iter().filter(|point| !points.contains(point)))
                .map(ToString::to_string)
                .collect();
            ensure!(
                in_one.is_empty(),
                "two clean runs of {workflow} make different calls: {}",
                in_one.join(", ")
            );
        }
        let cases = plan::cases(workflow, &points);
        println!("{workflow}: {} calls, {} cases", points.len(), cases.len());
        all.extend(cases);
    }
    runner.tear_down().await;
    let drawn_pairs = plan::pairs(&all, *seed, *pairs);
    let wanted = |case: &Case| case.to_string().contains(only.as_str());
    let singles = all.into_iter().filter(wanted).collect();
    let mut cases = plan::sample(singles, *seed, settings.cases);
    cases.extend(drawn_pairs.into_iter().filter(wanted));
    // One workflow after the other, because each leaves the environment as its next run needs it.
    cases.sort_by_key(|case| case.workflow);
    ensure!(!cases.is_empty(), "no case contains `{only}` in its name");
    println!("running {} cases, seed {seed}", cases.len());
    Ok(cases)
}

/// Runs cases from the queue until it is empty.
async fn work(queue: &RefCell<VecDeque<(usize, Case)>>, number: usize) -> anyhow::Result<Summary> {
    let mut summary = Summary::default();
    let mut runner = FaultRunner::prepare().await?;
    while let Some((run, case)) = next(queue) {
        let observed = runner.run(&case).await;
        let broken = observed.is_err();
        println!("{run}/{number} {}", summary.add(&case, observed));
        if broken {
            // The state of its environment is unknown.
            std::mem::replace(&mut runner, FaultRunner::prepare().await?)
                .tear_down()
                .await;
        }
    }
    runner.tear_down().await;
    Ok(summary)
}

fn next(queue: &RefCell<VecDeque<(usize, Case)>>) -> Option<(usize, Case)> {
    queue.borrow_mut().pop_front()
}
