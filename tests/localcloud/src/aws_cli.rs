//! The AWS CLI, which is loaded once for all calls of scripts.

use std::{
    os::{fd::OwnedFd, unix::net::UnixListener},
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::Context;
use tokio::process::{Child, Command};

/// A server that runs calls of the AWS CLI. The server and its calls end when this is dropped, and also
/// when this process dies, because the server watches its standard input.
pub struct AwsCli {
    _server: Child,
    socket: PathBuf,
}

impl AwsCli {
    /// Starts the server with the Python interpreter of the environment that the AWS CLI is
    /// installed in. Calls wait until it is ready.
    ///
    /// # Errors
    /// If its socket cannot be created in `state_dir`, or the interpreter is missing.
    pub fn start(python: &Path, state_dir: &Path) -> anyhow::Result<Self> {
        let socket = state_dir.join("aws-cli");
        // An earlier local cloud may have left its socket in this directory.
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket)
            .with_context(|| format!("cannot create a socket at {}", socket.display()))?;
        let server = Command::new(python)
            .arg(folder().join("server.py"))
            .env_clear()
            .envs(["PATH", "LANG"].map(|name| (name, std::env::var(name).unwrap_or_default())))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(OwnedFd::from(listener))
            // The server kills its process group when it ends.
            .process_group(0)
            .spawn()
            .with_context(|| format!("{} cannot be started", python.display()))?;
        Ok(Self {
            _server: server,
            socket,
        })
    }

    /// The environment variables with which a script finds `aws`, which calls the server. `path` is the
    /// `PATH` for everything else, and must contain a `python3`.
    pub fn settings(&self, path: &str) -> [(&'static str, String); 2] {
        [
            ("PATH", format!("{}:{path}", folder().display())),
            ("LOCALCLOUD_AWS_CLI", self.socket.display().to_string()),
        ]
    }
}

/// The folder of `aws` and its server.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("aws-cli")
}
