//! Runs the local cloud in the foreground, for pushes by hand.

use std::{io::Write, process::ExitCode};

use clap::Parser;
use localcloud::{LocalCloud, Options, time_scale::TimeScale};
use tokio::signal::unix::{SignalKind, signal};

/// Runs the parts of AWS that pulse-deploy depends on, on this machine, until Ctrl-C.
#[derive(Parser)]
#[command(name = "localcloud")]
struct Arguments {
    /// Port of the AWS endpoint and of the image registry
    #[arg(long, default_value_t = 4566)]
    port: u16,
    /// Port of the load balancer's HTTP listener
    #[arg(long, default_value_t = 8080)]
    http_port: u16,
    /// Port of the load balancer's HTTPS listener
    #[arg(long, default_value_t = 8443)]
    https_port: u16,
    /// Factor for the durations of AWS; 0.1 turns an interval of 30 s into 3 s
    #[arg(long, default_value_t = TimeScale::default().0)]
    time_scale: f64,
    /// Deploy the stacks of this environment after the start
    #[arg(long, value_name = "ENV")]
    deploy: Option<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into()),
        )
        .with_writer(std::io::stderr)
        .init();
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("localcloud: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    say("Starting the local cloud ...");
    let cloud = LocalCloud::start(Options {
        gateway_port: arguments.port,
        http_port: arguments.http_port,
        https_port: arguments.https_port,
        time_scale: TimeScale(arguments.time_scale),
        ..Options::default()
    })
    .await?;
    let outcome = tokio::select! {
        outcome = serve(&cloud, arguments.deploy.as_deref()) => outcome,
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    };
    say("\nStopping the local cloud ...");
    cloud.stop().await;
    outcome
}

/// Deploys the environment, if there is one, prints how to use the local cloud, and waits forever.
async fn serve(cloud: &LocalCloud, deploy: Option<&str>) -> anyhow::Result<()> {
    if let Some(environment) = deploy {
        say(format!("Deploying the environment {environment} ..."));
        cloud.deploy(environment).await?;
    }
    print_usage(cloud, deploy.unwrap_or("test"));
    std::future::pending().await
}

fn print_usage(cloud: &LocalCloud, environment: &str) {
    let balancer = cloud.load_balancer();
    say("\nThe local cloud is up. In another terminal:\n");
    for (name, value) in cloud.aws_settings() {
        say(format!("  export {name}={value}"));
    }
    say("");
    say(format!("  environment     {environment}"));
    say(format!(
        "  load balancer   http://127.0.0.1:{}",
        balancer.http_port()
    ));
    say(format!(
        "                  https://127.0.0.1:{} (self-signed)",
        balancer.https_port()
    ));
    say(format!(
        "  image registry  {} (plain HTTP)",
        cloud.registry()
    ));
    say("");
    say("Push an image, and it goes live:\n");
    say(format!(
        "  skopeo copy --dest-tls-verify=false docker://IMAGE \\\n    \
         docker://{}/{environment}:{environment}-$(date -u +%Y%m%d-%H%M%SZ)",
        cloud.registry()
    ));
    say("\nCtrl-C stops everything.");
}

/// Prints a line. A closed standard output, as in `make local | head`, is not an error.
fn say(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
