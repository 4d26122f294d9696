//! A shell whose AWS CLI calls nothing: `aws-cli/offline.py`, served as the local cloud serves its AWS CLI.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;

/// Names the command that failed. What is neither checked here nor part of the AWS CLI does nothing.
const PRELUDE: &str = r#"
trap 'echo "in: $BASH_COMMAND" >&2' ERR
docker() { [[ $1 != login ]] || cat >/dev/null; }
"#;

/// The AWS CLI. It ends when this is dropped.
pub struct OfflineCli {
    server: Child,
    folder: TempDir,
}

/// A call that the AWS CLI would have made.
#[derive(Debug, Clone, Deserialize)]
pub struct Call {
    /// The service as the SDK names it, such as `stepfunctions`.
    pub service: String,
    /// The operation, such as `StartExecution`.
    pub operation: String,
    /// Its parameters.
    pub parameters: Value,
}

/// What a script did.
#[derive(Debug)]
pub struct Ran {
    /// What it wrote to the standard error, if it failed.
    pub failure: Option<String>,
    /// The calls that the AWS CLI accepted, in order.
    pub calls: Vec<Call>,
}

impl OfflineCli {
    /// Loads the AWS CLI of the virtual environment.
    ///
    /// # Errors
    /// When it is not installed, or no folder can be made.
    pub fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let listener = UnixListener::bind(folder.path().join("aws-cli"))?;
        // A secret that a command reads.
        std::fs::write(folder.path().join("secret.txt"), "secret")?;
        let server = Command::new(root(".venv/bin/python"))
            .arg(root("tests/contract/aws-cli/offline.py"))
            .env("PYTHONPATH", root("tests/localcloud/aws-cli"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(OwnedFd::from(listener))
            // It kills its process group when it ends.
            .process_group(0)
            .spawn()
            .context(".venv is not there: run make build")?;
        Ok(OfflineCli { server, folder })
    }

    /// Runs a script up to its first failure.
    ///
    /// # Errors
    /// When the shell cannot be started, or a call is not recorded as expected.
    pub fn run(&self, script: &str) -> Result<Ran> {
        let folder = self.folder.path();
        let calls = folder.join("calls");
        std::fs::write(&calls, "")?;
        let folders = ["tests/localcloud/aws-cli", ".venv/bin"]
            .map(root)
            .join(":");
        let path = format!("{folders}:{}", std::env::var("PATH").unwrap_or_default());
        let ended = Command::new("bash")
            .args(["-euo", "pipefail", "-c", &format!("{PRELUDE}{script}")])
            .current_dir(folder)
            .env_clear()
            .env("PATH", path)
            .env("HOME", folder)
            .env("LOCALCLOUD_AWS_CLI", folder.join("aws-cli"))
            .env("OFFLINE_CALLS", &calls)
            .envs([
                ("AWS_DEFAULT_REGION", "eu-west-1"),
                ("AWS_ACCESS_KEY_ID", "test"),
                ("AWS_SECRET_ACCESS_KEY", "test"),
            ])
            .stdin(Stdio::null())
            .output()?;
        let said = String::from_utf8_lossy(&ended.stderr).trim().to_owned();
        let calls = std::fs::read_to_string(&calls)?;
        let calls: Result<Vec<Call>, _> = calls.lines().map(serde_json::from_str).collect();
        Ok(Ran {
            failure: (!ended.status.success()).then_some(said),
            calls: calls?,
        })
    }
}

impl Drop for OfflineCli {
    fn drop(&mut self) {
        // It ends with its standard input.
        drop(self.server.stdin.take());
        let _ = self.server.wait();
    }
}

/// A path in the repository.
fn root(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.join(path).display().to_string()
}
