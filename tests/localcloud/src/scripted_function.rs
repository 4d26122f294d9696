//! A Lambda function whose replies a test chooses, for what a team brings along, such as a hook.

use std::{
    fs::{self, File},
    io::{Cursor, Write},
};

use anyhow::Context;
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use crate::{local_cloud::workspace_python, ministack::Client};

/// Keeps each event, and replies as the first line of a file says, which it removes unless it is the last one. A lock
/// lets the environments of the function and the test take turns.
const PROGRAM: &str = r#"
import fcntl, json, os, time, urllib.request as http

folder = os.environ["SCRIPT_FOLDER"]
replies, events = os.path.join(folder, "replies"), os.path.join(folder, "events")
api = f"http://{os.environ['AWS_LAMBDA_RUNTIME_API']}/2018-06-01/runtime/invocation"


def reply_to(event):
    with open(os.path.join(folder, "lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with open(events, "a") as file:
            file.write(json.dumps(event) + "\n")
        with open(replies) as file:
            first, *others = file.read().splitlines()
        if others:
            with open(replies, "w") as file:
                file.write("\n".join(others))
        return json.loads(first)


while True:
    with http.urlopen(f"{api}/next") as invocation:
        request = invocation.headers["Lambda-Runtime-Aws-Request-Id"]
        event = json.load(invocation)
    [(kind, value)] = reply_to(event).items()
    if kind == "crash":
        os._exit(1)
    if kind == "silence":
        time.sleep(3600)
    path = f"{api}/{request}/{'response' if kind == 'answer' else 'error'}"
    http.urlopen(http.Request(path, json.dumps(value).encode(), method="POST"))
"#;

/// The function's timeout, in seconds that no time scale changes.
const TIMEOUT_SECONDS: u32 = 5;

/// A function whose replies a test chooses. Until it has chosen, the function answers `null`.
pub struct ScriptedFunction {
    name: String,
    folder: TempDir,
}

/// What the function does with an event.
#[derive(Debug, Clone)]
pub enum Reply {
    /// It returns this.
    Answer(Value),
    /// It returns an error.
    Error {
        /// The name of the error.
        kind: &'static str,
        /// Its description.
        message: &'static str,
    },
    /// Its process exits.
    Crash,
    /// It does nothing until its timeout, which is five seconds.
    Silence,
}

impl ScriptedFunction {
    /// Creates the function, with a role of its own that allows nothing.
    ///
    /// # Errors
    /// If the name is taken, or MiniStack does not answer.
    pub async fn create(client: &Client, name: &str) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("function-").tempdir()?;
        let function = Self {
            name: name.to_owned(),
            folder,
        };
        function.reply(&[Reply::Answer(Value::Null)])?;
        let role = format!("{name}-function");
        let trust = json!({"Statement": [{
            "Effect": "Allow",
            "Principal": {"Service": "lambda.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }]});
        let create_role = [
            ("Action", "CreateRole"),
            ("RoleName", &role),
            ("AssumeRolePolicyDocument", &trust.to_string()),
        ];
        client.query("iam", "2010-05-08", &create_role).await?;
        let create = json!({
            "FunctionName": name,
            "Runtime": "provided.al2023",
            "Handler": "bootstrap",
            "Timeout": TIMEOUT_SECONDS,
            "Role": format!("arn:aws:iam::000000000000:role/{role}"),
            "Environment": {"Variables": {"SCRIPT_FOLDER": function.folder.path()}},
            "Code": {"ZipFile": BASE64_STANDARD.encode(code()?)},
        });
        let body = Bytes::from(create.to_string());
        let path = "/2015-03-31/functions";
        client.rest("lambda", Method::POST, path, body).await?;
        Ok(function)
    }

    /// The name of the function.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Chooses the replies to the events that are still to come. The last one repeats.
    ///
    /// # Errors
    /// If they cannot be written to the function's folder.
    ///
    /// # Panics
    /// Without a reply.
    pub fn reply(&self, replies: &[Reply]) -> anyhow::Result<()> {
        assert!(!replies.is_empty(), "a function needs a reply");
        let lines: Vec<_> = replies.iter().map(Reply::line).collect();
        let _its_turn = self.lock()?;
        fs::write(self.folder.path().join("replies"), lines.join("\n"))?;
        Ok(())
    }

    /// The events that the function has received, oldest first.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn events(&self) -> anyhow::Result<Vec<Value>> {
        let _its_turn = self.lock()?;
        let path = self.folder.path().join("events");
        if !path.exists() {
            return Ok(Vec::new());
        }
        let event = |line| serde_json::from_str(line).context("an event that is not JSON");
        fs::read_to_string(path)?.lines().map(event).collect()
    }

    /// Keeps the function from its files until this is dropped.
    fn lock(&self) -> anyhow::Result<File> {
        let lock = File::create(self.folder.path().join("lock"))?;
        lock.lock()?;
        Ok(lock)
    }
}

impl Reply {
    fn line(&self) -> String {
        match self {
            Self::Answer(value) => json!({"answer": value}),
            Self::Error { kind, message } => {
                json!({"error": {"errorType": kind, "errorMessage": message}})
            }
            Self::Crash => json!({"crash": null}),
            Self::Silence => json!({"silence": null}),
        }
        .to_string()
    }
}

/// The zip file with the program.
fn code() -> anyhow::Result<Vec<u8>> {
    let python = workspace_python();
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    zip.start_file("bootstrap", stored.unix_permissions(0o755))?;
    write!(zip, "#!{} -IS{PROGRAM}", python.display())?;
    Ok(zip.finish()?.into_inner())
}
