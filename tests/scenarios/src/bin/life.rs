//! A random life of an environment on the local cloud: `make life`.
//!
//! `LIFE_SECONDS` is how long it lasts, and `LIFE_SEED` the seed of what happens.

use std::time::Duration;

use anyhow::ensure;
use scenarios::life;
use scenarios::settings::setting;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let seconds = setting("LIFE_SECONDS")?.unwrap_or(600);
    let seed = setting("LIFE_SEED")?.unwrap_or_else(|| fastrand::u64(..1_000_000));
    println!("{seconds} s, seed {seed}");
    let life = life::live(seed, Duration::from_secs(seconds)).await?;
    print!("{life}");
    println!("seed {seed}");
    ensure!(
        life.wrong.is_empty(),
        "{} things went wrong",
        life.wrong.len()
    );
    println!("everything held");
    Ok(())
}
