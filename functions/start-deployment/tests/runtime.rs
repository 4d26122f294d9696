//! What Lambda sees of the function: the binary, served by a runtime API that hands it payloads which
//! Lambda lets through and the runtime cannot decode. The other steps are served by the same code.

use std::collections::VecDeque;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::Path;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::Value;
use tokio::sync::mpsc;

/// Far more than the function needs for one payload, however slow the machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// How one invocation ended: `response` or `error`, and what was said.
type Ended = (String, Value);

/// Lambda's runtime API: <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>.
async fn runtime_api(payloads: Vec<Vec<u8>>) -> (String, mpsc::UnboundedReceiver<Ended>) {
    let left = Arc::new(Mutex::new(VecDeque::from(payloads)));
    let (ended, endings) = mpsc::unbounded_channel();
    let next = move || {
        let payload = left.lock().unwrap().pop_front();
        async move {
            match payload {
                Some(payload) => invocation(payload),
                None => std::future::pending().await,
            }
        }
    };
    let end = move |Path((_, how)): Path<(String, String)>, headers: HeaderMap, body: Bytes| {
        let said: Value = serde_json::from_slice(&body).expect("JSON");
        if how == "error" {
            let name = &headers["lambda-runtime-function-error-type"];
            println!("{name:?}: {said}");
        }
        ended.send((how, said)).expect("the test listens");
        async { "" }
    };
    let router = Router::new()
        .route("/2018-06-01/runtime/invocation/next", get(next))
        .route("/2018-06-01/runtime/invocation/{id}/{how}", post(end));
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap().to_string();
    tokio::spawn(async move { axum::serve(socket, router).await.unwrap() });
    (address, endings)
}

fn invocation(payload: Vec<u8>) -> Response {
    let headers = [
        ("lambda-runtime-aws-request-id", "1"),
        ("lambda-runtime-deadline-ms", "4102444800000"),
        (
            "lambda-runtime-invoked-function-arn",
            "arn:aws:lambda:us-east-1:1:function:f",
        ),
        ("content-type", "application/json"),
    ];
    (headers, payload).into_response()
}

/// The function as Lambda starts it.
struct Function(Child);

impl Function {
    fn start(runtime_api: &str) -> Function {
        let child = Command::new(env!("CARGO_BIN_EXE_start-deployment"))
            .env_clear()
            .env("AWS_LAMBDA_RUNTIME_API", runtime_api)
            .env("AWS_LAMBDA_FUNCTION_NAME", "test-start-deployment")
            .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
            .env("AWS_LAMBDA_LOG_FORMAT", "JSON")
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("PULSE_ENVIRONMENT", "test")
            .env("REPOSITORY_NAME", "test")
            .env(
                "STATE_MACHINE_ARN",
                "arn:aws:states:us-east-1:1:stateMachine:test-deploy",
            )
            .stdout(Stdio::piped())
            .spawn()
            .expect("the function starts");
        Function(child)
    }

    /// Stops it and gives what it logged.
    fn log(mut self) -> String {
        self.0.kill().expect("it still runs");
        let mut log = String::new();
        let stdout = self.0.stdout.as_mut().expect("it is piped");
        stdout.read_to_string(&mut log).expect("text");
        log
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_lambda_hands_over_is_answered_by_our_error_name() {
    let deep = format!("{{\"detail\": {}1{}}}", "[".repeat(900), "]".repeat(900));
    let long = format!(
        "{{\"detail-type\": 1, \"{}\": 1}}",
        "\\u001b[2J".repeat(20_000)
    );
    let refused = [
        b"{\"detail-type\": \"\\ud800\"}".to_vec(),
        b"{\"version\": \"0\", \"time\": 1e999}".to_vec(),
        b"\xef\xbb\xbf{}".to_vec(),
        b"{\"detail-type\": \"\xff\"}".to_vec(),
        deep.into_bytes(),
        long.into_bytes(),
        b"null".to_vec(),
        b"{".to_vec(),
        Vec::new(),
    ];
    let asks_for_nothing = br#"{"detail-type": "ECR Image Action", "source": "aws.ecr", "detail": {
        "action-type": "PUSH", "result": "SUCCESS", "repository-name": "test",
        "image-tag": "\u001b[2J\nlatest"}}"#;
    let number = refused.len();
    let payloads = refused.into_iter().chain([asks_for_nothing.to_vec()]);
    let (address, mut endings) = runtime_api(payloads.collect()).await;
    let function = Function::start(&address);
    let mut ended = Vec::new();
    while ended.len() <= number {
        let ending = tokio::time::timeout(PATIENCE, endings.recv());
        ended.push(
            ending
                .await
                .expect("the function answers")
                .expect("it lives"),
        );
    }

    let (how, said) = ended.pop().unwrap();
    assert_eq!(
        (how.as_str(), &said["outcome"]),
        ("response", &Value::from("ignored"))
    );
    for (how, said) in ended {
        assert_eq!(how, "error", "{said}");
        assert_eq!(said["errorType"], "InvalidInputError");
        let message = said["errorMessage"].as_str().unwrap();
        assert!(message.starts_with("invalid input: "), "{message}");
        assert!(message.len() < 1000, "{message}");
    }
    let log = function.log();
    let lines = log.lines().map(|line| {
        assert!(
            !line.contains(char::is_control) && line.len() < 1500,
            "{line:?}"
        );
        serde_json::from_str::<Value>(line).expect("JSON")
    });
    let lines: Vec<_> = lines.collect();
    assert_eq!(lines.len(), number + 1, "{log}");
    for (number_of_line, line) in lines.iter().enumerate() {
        let (outcome, start) = if number_of_line < number {
            ("failed", "InvalidInputError: invalid input: ")
        } else {
            ("ignored", "")
        };
        assert_eq!(line["outcome"], outcome);
        assert!(
            line["message"].as_str().unwrap().starts_with(start),
            "{line}"
        );
        assert_eq!(line["step"], "start-deployment");
    }
}
