//! No log line, error or answer contains the secret, at any log level and for any answer of a task.

use std::io::Write;
use std::sync::{Arc, Mutex};

use tracing_subscriber::fmt::MakeWriter;

use super::*;

/// Not that of the other tests, whose log lines are searched as well.
const SECRET: &str = "N0tForLogsOrAnswersEither";

/// Everything that was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Log;

    fn make_writer(&self) -> Log {
        self.clone()
    }
}

/// Secrets Manager itself, so that the lines that the SDK logs of the real answer are checked as well.
async fn secrets_manager() -> aws_sdk_secretsmanager::Client {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", socket.local_addr().unwrap());
    let body = format!(r#"{{"Name": "test/drain-secret", "SecretString": "{SECRET}"}}"#);
    let router = axum::Router::new().fallback(move || async move { body });
    tokio::spawn(async move { axum::serve(socket, router).await.unwrap() });
    let http_client = aws_smithy_http_client::Builder::new().build_http();
    let config = MemoryAws::default().config().into_builder();
    let config = config.endpoint_url(endpoint).http_client(http_client);
    aws_sdk_secretsmanager::Client::new(&config.build())
}

#[tokio::test]
async fn the_secret_is_in_no_log_line_error_or_answer() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(log.clone())
        .finish();
    // For all threads: tests that run at the same time without one would turn places to log from off
    // for this one too. What those tests log is searched as well.
    tracing::subscriber::set_global_default(subscriber).expect("no other test sets one");

    let repeats = format!("you said Bearer {SECRET}");
    let applications = [
        Application::with(1).await,
        Application::answering(200, &repeats).await,
        Application::answering(403, &repeats).await,
        Application::answering(500, &repeats).await,
    ];
    let unused = unused_address();
    let mut addresses: Vec<_> = applications.iter().map(Application::address).collect();
    addresses.push(&unused);
    let secrets = secrets_manager().await;
    let mut said = Vec::new();
    for is_rolled_back_to in [false, true] {
        let aws = with(&addresses);
        if is_rolled_back_to {
            let (_, roll_back) = reasons_to_keep()[2];
            aws.on("ListTasks").after(move |state, _| roll_back(state));
        }
        let clients = Clients {
            secrets: secrets.clone(),
            ..clients(&aws)
        };
        let output = run(&clients, &Baseline::for_tests(), &|| NOW, input()).await;
        said.push(format!("{output:?} {clients:?}"));
        if let Ok(output) = output {
            said.push(serde_json::to_string(&output).unwrap());
        }
    }
    // The secret was really read and sent, and the log really written.
    assert_eq!(
        applications[0].asked()[0].authorization,
        format!("Bearer {SECRET}")
    );
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("TRACE") && log.contains("GetSecretValue"));
    for text in [&log, &said.join("\n")] {
        let line = text.lines().find(|line| line.contains(SECRET));
        assert_eq!(line, None);
    }
}
