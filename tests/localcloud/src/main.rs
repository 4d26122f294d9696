//! Runs the local cloud in the foreground, for pushes by hand.

use std::{io::Write, process::ExitCode, time::Duration};

use clap::Parser;
use localcloud::{
    LocalCloud, Options, cloudwatch::PublicationDelay, load_balancer::LoadBalancer,
    time_scale::TimeScale,
};
use tokio::signal::unix::{SignalKind, signal};

/// Runs the parts of AWS that pulse-deploy depends on, on this machine, until Ctrl-C.
#[derive(Parser)]
#[command(name = "localcloud")]
struct Arguments {
    /// Port of the AWS endpoint and of the image registry
    #[arg(long, default_value_t = 4566)]
    port: u16,
    /// Port of the HTTP listener of the first environment's load balancer; further ones take free ports
    #[arg(long, default_value_t = 8080)]
    http_port: u16,
    /// Port of the HTTPS listener of the first environment's load balancer; further ones take free ports
    #[arg(long, default_value_t = 8443)]
    https_port: u16,
    /// Factor for the durations of AWS; 0.1 turns an interval of 30 s into 3 s
    #[arg(long, default_value_t = TimeScale::default().0)]
    time_scale: f64,
    /// Seconds from the end of a minute until CloudWatch has its metrics of the load balancers
    #[arg(long, value_name = "SECONDS", default_value_t = PublicationDelay::default().0.as_secs())]
    publication_delay: u64,
    /// Deploy the stacks of this environment after the start; can be given several times
    #[arg(long, value_name = "ENV")]
    deploy: Vec<String>,
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
        publication_delay: PublicationDelay(Duration::from_secs(arguments.publication_delay)),
        ..Options::default()
    })
    .await?;
    let outcome = tokio::select! {
        outcome = serve(&cloud, &arguments.deploy) => outcome,
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    };
    say("\nStopping the local cloud ...");
    cloud.stop().await;
    outcome
}

/// Deploys the environments, prints how to use the local cloud, and waits forever.
async fn serve(cloud: &LocalCloud, deploy: &[String]) -> anyhow::Result<()> {
    let mut addresses = Vec::new();
    for environment in deploy {
        say(format!("Deploying the environment {environment} ..."));
        cloud.deploy(environment).await?;
        let balancer = cloud.load_balancer_of(environment).await?;
        addresses.push((environment.as_str(), ports(&balancer)));
    }
    if deploy.is_empty() {
        addresses.push(("test", ports(cloud.load_balancer())));
    }
    print_usage(cloud, &addresses);
    std::future::pending().await
}

/// The local ports for HTTP and for HTTPS.
fn ports(balancer: &LoadBalancer) -> (u16, u16) {
    (balancer.http_port(), balancer.https_port())
}

/// Prints the settings, and for each environment the ports of its load balancer.
fn print_usage(cloud: &LocalCloud, environments: &[(&str, (u16, u16))]) {
    say("\nThe local cloud is up. In another terminal:\n");
    for (name, value) in cloud.aws_settings() {
        say(format!("  export {name}={value}"));
    }
    say("");
    for (environment, (http, https)) in environments {
        say(format!("  environment     {environment}"));
        say(format!("  load balancer   http://127.0.0.1:{http}"));
        say(format!(
            "                  https://127.0.0.1:{https} (self-signed)"
        ));
    }
    say(format!(
        "  image registry  {} (plain HTTP)",
        cloud.registry()
    ));
    say("");
    say("Push an image, and it goes live:\n");
    for (environment, _) in environments {
        say(format!(
            "  skopeo copy --dest-tls-verify=false docker://IMAGE \\\n    \
             docker://{}/{environment}:{environment}-$(date -u +%Y%m%d-%H%M%SZ)",
            cloud.registry()
        ));
    }
    say("\nCtrl-C stops everything.");
}

/// Prints a line. A closed standard output, as in `make local | head`, is not an error.
fn say(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
