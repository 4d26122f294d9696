//! MiniStack as a child process, and a client that calls it as the account's root.

use std::{os::fd::OwnedFd, path::Path, process::Stdio, time::Duration};

use anyhow::{Context, bail};
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

mod client;

pub(crate) use client::element;
pub use client::{ApiError, Client, REGION};

/// The limit on the time until MiniStack answers its first request. It takes two seconds on an idle
/// machine, and longer in continuous integration.
const START_LIMIT: Duration = Duration::from_secs(60);

/// The timeout of one of the first requests. MiniStack listens before it serves.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// How long MiniStack may take to end its function processes.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// The settings of a MiniStack process.
pub(crate) struct MiniStackOptions<'a> {
    /// The Python interpreter of the environment in which MiniStack is installed.
    pub python: &'a Path,
    /// A directory for function code and logs. The launcher removes it when MiniStack ends, because this
    /// process may be killed before it could.
    pub state_dir: &'a Path,
    /// The URL of the gateway, `http://host:port`, which functions call.
    pub endpoint_url: &'a str,
    /// The factor for the waits and retries of Step Functions.
    pub wait_scale: f64,
}

/// A running MiniStack. It ends when this is stopped or dropped, and also when this process dies,
/// because its launcher watches its standard input.
pub(crate) struct MiniStack {
    child: Child,
    client: Client,
}

impl MiniStack {
    /// Starts MiniStack on a free port and waits until it answers.
    ///
    /// # Errors
    /// If the interpreter is missing, MiniStack ends early, or it does not answer in time. The message
    /// then contains the last lines of its log.
    pub async fn start(options: MiniStackOptions<'_>) -> anyhow::Result<Self> {
        let socket = TcpListener::bind("127.0.0.1:0").await?.into_std()?;
        let port = socket.local_addr()?.port();
        let log_path = options.state_dir.join("ministack.log");
        let log = std::fs::File::create(&log_path)?;
        let scratch = options.state_dir.join("ministack");
        std::fs::create_dir_all(&scratch)?;
        let launcher = Path::new(env!("CARGO_MANIFEST_DIR")).join("ministack/launcher.py");
        let mut command = Command::new(options.python);
        command
            .arg(launcher)
            // The AWS settings of the user must not reach the functions.
            .env_clear()
            .envs(["PATH", "LANG"].map(|name| (name, std::env::var(name).unwrap_or_default())))
            .env("HOME", &scratch)
            .env("TMPDIR", &scratch)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("AUTH", "true")
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("MINISTACK_REGION", REGION)
            .env("AWS_DEFAULT_REGION", REGION)
            .env("GATEWAY_PORT", port.to_string())
            .env("BIND_HOST", "127.0.0.1")
            .env("SFN_WAIT_SCALE", options.wait_scale.to_string())
            .env("AWS_ENDPOINT_URL", options.endpoint_url)
            .env("LOCALCLOUD_TEMPORARY", options.state_dir)
            .stdin(Stdio::piped())
            // MiniStack inherits the bound socket. If it bound the port itself, another process could
            // take the port first.
            .stdout(OwnedFd::from(socket))
            .stderr(log)
            .kill_on_drop(true)
            // Ctrl-C in the terminal must reach only the local cloud, which stops its children in order.
            .process_group(0);
        let mut child = command.spawn().with_context(|| {
            format!(
                "cannot start {}; `make build` creates the environment",
                options.python.display()
            )
        })?;
        // This closes the copy of the socket. Otherwise connections would succeed after MiniStack ends.
        drop(command);
        let client = Client::new(format!("127.0.0.1:{port}"));
        let deadline = Instant::now() + START_LIMIT;
        loop {
            if let Some(status) = child.try_wait()? {
                bail!("MiniStack ended with {status}:\n{}", tail(&log_path));
            }
            if let Ok(Ok(_)) = timeout(ANSWER_LIMIT, client.load_balancing()).await {
                return Ok(Self { child, client });
            }
            if Instant::now() > deadline {
                bail!("MiniStack does not answer:\n{}", tail(&log_path));
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Ends MiniStack and the function processes that it started.
    pub async fn stop(mut self) {
        drop(self.child.stdin.take());
        if timeout(STOP_LIMIT, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

impl Client {
    /// The state of all listeners, rules and target groups as JSON, from the launcher.
    pub(crate) async fn load_balancing(&self) -> Result<Bytes, ApiError> {
        self.unsigned(Method::GET, "/_localcloud/load-balancing", Bytes::new())
            .await
    }

    /// Whether a resource's own policy lets EventBridge do this to it on behalf of a rule.
    pub(crate) async fn lets_rule(
        &self,
        rule: &str,
        action: &str,
        resource: &str,
    ) -> Result<bool, ApiError> {
        let asked = json!({
            "service": "events.amazonaws.com", "action": action, "arn": resource, "source": rule,
        });
        let body = Bytes::from(asked.to_string());
        let path = "/_localcloud/service-allowed";
        let answer = self.unsigned(Method::POST, path, body).await?;
        Ok(answer == "true")
    }

    /// Whether a role's trust policy lets a service of this account assume the role.
    pub(crate) async fn role_trusts(&self, role: &str, service: &str) -> Result<bool, ApiError> {
        let body = Bytes::from(json!({"role": role, "service": service}).to_string());
        let path = "/_localcloud/role-trusts";
        let answer = self.unsigned(Method::POST, path, body).await?;
        Ok(answer == "true")
    }

    /// Lets Lambda refuse the next call that a state machine makes of each of these functions, with the
    /// given error. Returns the earlier ones that are still to come.
    ///
    /// # Errors
    /// Status 0 if there is no answer.
    pub async fn set_not_ready(&self, errors: &Value) -> Result<Value, ApiError> {
        let body = Bytes::from(errors.to_string());
        let path = "/_localcloud/not-ready";
        let answer = self.unsigned(Method::PUT, path, body).await?;
        Ok(serde_json::from_slice(&answer).unwrap_or_default())
    }
}
