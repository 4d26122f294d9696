//! Every call of a deployment failing in every way, one at a time: `make faults`.
//!
//! `FAULTS_SEED` and `FAULTS_CASES` draw a sample that the same seed draws again; `FAULTS_ONLY` keeps
//! the cases whose name holds a text, as in `FAULTS_ONLY='CreateService #1'`.

use std::env::VarError;
use std::str::FromStr;

use anyhow::{Context, ensure};
use scenarios::sweep::{Summary, Sweep, plan};

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let seed: u64 = setting("FAULTS_SEED")?.unwrap_or_else(|| fastrand::u64(..1_000_000));
    let number: usize = setting("FAULTS_CASES")?.unwrap_or(usize::MAX);
    let only: String = setting("FAULTS_ONLY")?.unwrap_or_default();
    let mut sweep = Sweep::prepare().await?;
    let summary = run(&mut sweep, seed, number, &only).await;
    sweep.strike().await;
    let summary = summary?;
    print!("{summary}");
    println!("seed {seed}");
    ensure!(summary.holds(), "not everything held");
    Ok(())
}

async fn run(sweep: &mut Sweep, seed: u64, number: usize, only: &str) -> anyhow::Result<Summary> {
    let points = sweep.record().await?;
    let undo = sweep.record_undo().await?;
    let mut all = plan::cases(&points, false);
    all.extend(plan::cases(&undo, true));
    println!(
        "{} calls of a deployment and {} of an undo, {} cases, seed {seed}",
        points.len(),
        undo.len(),
        all.len()
    );
    let wanted = all
        .into_iter()
        .filter(|case| case.to_string().contains(only))
        .collect();
    let cases = plan::sample(wanted, seed, number);
    let mut summary = Summary::default();
    for (run, case) in (1..).zip(&cases) {
        let observed = sweep.run(case).await;
        println!("{run}/{} {}", cases.len(), summary.add(case, observed));
    }
    Ok(summary)
}

/// An environment variable's value, if it is set.
fn setting<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(
    name: &'static str,
) -> anyhow::Result<Option<T>> {
    match std::env::var(name) {
        Ok(text) => Ok(Some(text.parse().context(name)?)),
        Err(VarError::NotPresent) => Ok(None),
        Err(error) => Err(error).context(name),
    }
}
