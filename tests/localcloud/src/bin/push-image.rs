//! Packs a program as an image without Docker, and pushes it to a registry over plain HTTP.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use localcloud::image;

/// Packs a program as a container image, pushes it and prints its digest.
#[derive(Parser)]
struct Arguments {
    /// The host and port of the registry.
    #[arg(long, default_value = "127.0.0.1:4566")]
    registry: String,
    /// The repository to push to.
    #[arg(long, default_value = "test")]
    repository: String,
    /// The tag of the image. A tag such as test-20251027-122112Z starts a deployment.
    #[arg(long)]
    tag: String,
    /// The program. The default is the sample application in the folder of this program.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// An environment variable of the image, NAME=VALUE. May be given several times.
    #[arg(long = "env", value_parser = pair)]
    env: Vec<(String, String)>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_string(), value.to_string())),
        _ => Err("expected NAME=VALUE".to_string()),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(digest) => {
            println!("{digest}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("push-image: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<String> {
    let binary = match arguments.binary {
        Some(binary) => binary,
        None => std::env::current_exe()?.with_file_name("sample-app"),
    };
    let layer = image::Layer::of_program(&binary, None)?;
    let image = image::pack(&layer, &image::Config::of_program(&arguments.env))?;
    image::push(
        &arguments.registry,
        &arguments.repository,
        &arguments.tag,
        &image,
    )
    .await
}
