//! The execution environments of functions.

use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::Method;
use localcloud::gateway::calls::Call;
use localcloud::gateway::faults::{Fault, FaultRule};
use localcloud::{LocalCloud, Options, time_scale::TimeScale};
use serde_json::{Value, json};
use tempfile::TempDir;
use zip::write::SimpleFileOptions;

use crate::cloud;

/// A function that calls ECS, and answers with its process id and its access key. Before that, it waits until
/// as many environments as the event says have put a file into a folder.
const PROGRAM: &str = r#"
import json, os, time, urllib.request as http
from botocore.config import Config
from botocore.session import get_session

once = Config(retries={"total_max_attempts": 1})
ecs = get_session().create_client("ecs", config=once)
api = f"http://{os.environ['AWS_LAMBDA_RUNTIME_API']}/2018-06-01/runtime/invocation"
while True:
    with http.urlopen(f"{api}/next") as invocation:
        request = invocation.headers["Lambda-Runtime-Aws-Request-Id"]
        event = json.load(invocation)
    open(os.path.join(event["folder"], str(os.getpid())), "w").close()
    while len(os.listdir(event["folder"])) < event["together"]:
        time.sleep(0.01)
    ecs.list_clusters()
    answer = json.dumps({"process": os.getpid(), "key": os.environ["AWS_ACCESS_KEY_ID"]})
    http.urlopen(http.Request(f"{api}/{request}/response", answer.encode(), method="POST"))
"#;

/// Creates the function `lister`, with a role that may list clusters.
async fn create_function(cloud: &LocalCloud) {
    let policy =
        json!({"Statement": [{"Effect": "Allow", "Action": "ecs:ListClusters", "Resource": "*"}]});
    let role = cloud::role(cloud.client(), "lists", "lambda.amazonaws.com").await;
    let put_policy = [
        ("Action", "PutRolePolicy"),
        ("RoleName", "lists"),
        ("PolicyName", "policy"),
        ("PolicyDocument", &policy.to_string()),
    ];
    let put = cloud.client().query("iam", "2010-05-08", &put_policy);
    put.await.expect("put");
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.venv/bin/python3");
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    zip.start_file("bootstrap", stored.unix_permissions(0o755))
        .expect("begun");
    write!(zip, "#!{}{PROGRAM}", python.display()).expect("written");
    let code = zip.finish().expect("finished").into_inner();
    let function = json!({
        "FunctionName": "lister",
        "Runtime": "provided.al2023",
        "Handler": "bootstrap",
        "Timeout": 60,
        "Role": role,
        "Code": {"ZipFile": BASE64_STANDARD.encode(code)},
    });
    let body = Bytes::from(function.to_string());
    let path = "/2015-03-31/functions";
    let created = cloud.client().rest("lambda", Method::POST, path, body);
    created.await.expect("created");
}

/// Invokes the function as often as given, at the same time, so that each invocation has an environment of
/// its own.
async fn invoke(cloud: &LocalCloud, together: usize) -> Vec<Value> {
    let folder = TempDir::new().expect("made");
    let event = json!({"folder": folder.path(), "together": together}).to_string();
    let path = "/2015-03-31/functions/lister/invocations";
    let invocations = (0..together).map(|_| {
        let body = Bytes::from(event.clone());
        cloud.client().rest("lambda", Method::POST, path, body)
    });
    let answers = futures_util::future::join_all(invocations).await;
    let read = |answer: Result<Bytes, _>| {
        serde_json::from_slice(&answer.expect("answered")).expect("JSON")
    };
    answers.into_iter().map(read).collect()
}

/// The folder in which the kernel shows the process while it runs.
fn process(answer: &Value) -> PathBuf {
    Path::new("/proc").join(answer["process"].to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_environment_has_credentials_of_its_own_and_a_fault_kills_only_the_one_that_calls() {
    let cloud = cloud::start().await;
    create_function(&cloud).await;
    let answers = invoke(&cloud, 2).await;
    assert_ne!(answers[0]["process"], answers[1]["process"], "{answers:?}");
    assert_ne!(answers[0]["key"], answers[1]["key"], "{answers:?}");
    let calls = cloud.calls().all();
    let caller = "arn:aws:sts::000000000000:assumed-role/lists/lister";
    let by_the_function = |call: &Call| {
        call.function.as_deref() == Some("lister")
            && call.caller == caller
            && call.status == Some(200)
    };
    assert_eq!(calls.len(), 2, "{calls:?}");
    assert!(calls.iter().all(by_the_function), "{calls:?}");

    let rule = FaultRule::next("ecs", "ListClusters", Fault::KilledAfterCall).of("lister");
    cloud.faults().add(rule);
    let killed = invoke(&cloud, 1).await;
    assert_eq!(killed[0]["errorType"], "Runtime.ExitError", "{killed:?}");
    let running = answers.iter().filter(|answer| process(answer).exists());
    assert_eq!(running.count(), 1);
    assert_eq!(invoke(&cloud, 2).await.len(), 2);
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_environment_that_is_idle_ends() {
    let options = Options {
        time_scale: TimeScale(0.001),
        ..Options::default()
    };
    let cloud = LocalCloud::start(options).await.expect("it starts");
    create_function(&cloud).await;
    let answers = invoke(&cloud, 3).await;
    while answers.iter().any(|answer| process(answer).exists()) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let again = invoke(&cloud, 1).await;
    assert!(again[0]["process"].is_u64(), "{again:?}");
    cloud.stop().await;
}
