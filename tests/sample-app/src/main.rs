//! Runs the sample application as a process.

use std::process::ExitCode;

use sample_app::release::Release;
use sample_app::settings::Settings;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> ExitCode {
    let settings = match Settings::from_env() {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("sample-app: {error}");
            return ExitCode::FAILURE;
        }
    };
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match Release::read(&arguments) {
        Ok(Some(release)) => return ExitCode::from(release.run(&settings.deployment_id).await),
        Ok(None) => {}
        Err(error) => {
            eprintln!("sample-app: {error}");
            return ExitCode::FAILURE;
        }
    }
    if let Some(code) = settings.behaviour.crash_on_start {
        eprintln!("sample-app: cannot start: CRASH_ON_START asks for exit code {code}");
        return ExitCode::from(code);
    }
    match run(settings).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sample-app: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(settings: Settings) -> std::io::Result<()> {
    // Registered first, because SIGTERM does not end the first process of a container by default.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut stop = Box::pin(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        println!("stopping");
    });
    tokio::select! {
        () = tokio::time::sleep(settings.behaviour.start_delay) => {}
        () = &mut stop => return Ok(()),
    }
    let listener = TcpListener::bind((settings.host, settings.port)).await?;
    let address = listener.local_addr()?;
    println!("{} listening on {address}", settings.deployment_id);
    let turns_bad = settings.behaviour.turns_bad.clone();
    let crash = async move {
        match turns_bad {
            Some(turns_bad) => turns_bad.crash().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        served = sample_app::serve(settings, listener, stop) => served,
        () = crash => {
            eprintln!("sample-app: the database is gone");
            std::process::exit(3);
        }
    }
}
