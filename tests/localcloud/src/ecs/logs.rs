//! The `awslogs` driver, which sends the output of a container to a log stream, line by line.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/using_awslogs.html>

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::backends::Backends;

/// The limit on the length of a line, in bytes. Longer lines are split, as in Docker.
const MAX_LINE: usize = 16 * 1024;

/// How long lines are collected before they are sent.
const FLUSH_EVERY: Duration = Duration::from_millis(200);

/// The limit on lines per PutLogEvents. With lines of usual size this is far below the 10,000 events and
/// the 1 MiB that the call allows.
/// <https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutLogEvents.html>
const MAX_LINES: usize = 60;

/// Where a container's output goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    pub group: String,
    /// `<awslogs-stream-prefix>/<container>/<task id>`.
    pub stream: String,
}

impl Destination {
    /// Reads the `logConfiguration` of a container definition. `None` without `awslogs`.
    pub fn for_container(container: &Value, task_id: &str) -> Option<Self> {
        let configuration = &container["logConfiguration"];
        if configuration["logDriver"] != "awslogs" {
            return None;
        }
        let option = |name: &str| configuration["options"][name].as_str();
        let name = container["name"].as_str()?;
        let prefix = option("awslogs-stream-prefix").unwrap_or("ecs");
        Some(Destination {
            group: option("awslogs-group")?.to_owned(),
            stream: format!("{prefix}/{name}/{task_id}"),
        })
    }
}

/// Reads both pipes to their end and sends their lines. Without a destination the lines are dropped. The
/// returned task ends when everything is sent.
pub fn collect(
    backends: Arc<dyn Backends>,
    destination: Option<Destination>,
    stdout: impl AsyncRead + Unpin + Send + 'static,
    stderr: impl AsyncRead + Unpin + Send + 'static,
) -> JoinHandle<()> {
    let (sender, receiver) = mpsc::channel(1024);
    tokio::spawn(read_lines(stdout, sender.clone()));
    tokio::spawn(read_lines(stderr, sender));
    tokio::spawn(send_lines(backends, destination, receiver))
}

type Line = (u64, String);

async fn read_lines(pipe: impl AsyncRead + Unpin, lines: mpsc::Sender<Line>) {
    let mut reader = BufReader::new(pipe);
    let mut line = Vec::new();
    loop {
        let available = match reader.fill_buf().await {
            Ok(available) if !available.is_empty() => available,
            _ => break,
        };
        let remaining = MAX_LINE - line.len();
        let chunk = &available[..available.len().min(remaining)];
        let end = chunk.iter().position(|byte| *byte == b'\n');
        line.extend_from_slice(&chunk[..end.unwrap_or(chunk.len())]);
        let used = end.map_or(chunk.len(), |end| end + 1);
        reader.consume(used);
        let complete = end.is_some() || line.len() == MAX_LINE;
        if complete && !send(&lines, &mut line).await {
            return;
        }
    }
    send(&lines, &mut line).await;
}

/// Passes a line on, unless it is empty, because CloudWatch refuses empty lines. Returns false if there
/// is no receiver.
async fn send(lines: &mpsc::Sender<Line>, line: &mut Vec<u8>) -> bool {
    let text = String::from_utf8_lossy(line).trim_end().to_owned();
    line.clear();
    text.is_empty() || lines.send((now_in_milliseconds(), text)).await.is_ok()
}

fn now_in_milliseconds() -> u64 {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

async fn send_lines(
    backends: Arc<dyn Backends>,
    destination: Option<Destination>,
    mut lines: mpsc::Receiver<Line>,
) {
    while let Some(first) = lines.recv().await {
        let mut batch = vec![first];
        let flush_at = tokio::time::Instant::now() + FLUSH_EVERY;
        while batch.len() < MAX_LINES {
            match tokio::time::timeout_at(flush_at, lines.recv()).await {
                Ok(Some(line)) => batch.push(line),
                Ok(None) | Err(_) => break,
            }
        }
        let Some(Destination { group, stream }) = &destination else {
            continue;
        };
        // CloudWatch requires a batch in order of time.
        batch.sort_by_key(|(time, _)| *time);
        if let Err(error) = backends.put_log_events(group, stream, batch).await {
            tracing::warn!(%group, %stream, code = %error.code, "lost lines: {}", error.message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_stream_is_prefix_container_and_task() {
        let container = json!({"name": "app", "logConfiguration": {
            "logDriver": "awslogs",
            "options": {"awslogs-group": "/aws/pulse/test/app", "awslogs-stream-prefix": "app"},
        }});
        let destination = Destination::for_container(&container, "0123").unwrap();
        assert_eq!(destination.group, "/aws/pulse/test/app");
        assert_eq!(destination.stream, "app/app/0123");
        assert_eq!(
            Destination::for_container(&json!({"name": "app"}), "0123"),
            None
        );
    }

    #[tokio::test]
    async fn lines_are_split_at_newlines_and_at_16_kib() {
        let long = "x".repeat(MAX_LINE + 5);
        let text = format!("one\n\ntwo\n{long}\nlast without newline");
        let (sender, mut receiver) = mpsc::channel(16);
        read_lines(std::io::Cursor::new(text), sender).await;
        let mut lengths = Vec::new();
        while let Some((_, line)) = receiver.recv().await {
            lengths.push(line.len());
        }
        assert_eq!(lengths, [3, 3, MAX_LINE, 5, 20]);
    }
}
