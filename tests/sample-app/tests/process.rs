//! The sample application as a process, started and stopped as in a container.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

fn start(variables: &[(&str, &str)]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_sample-app"))
        .env_clear()
        .envs([
            ("HOST", "127.0.0.1"),
            ("PORT", "0"),
            ("DEPLOYMENT_ID", "test-1"),
        ])
        .envs(variables.iter().copied())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The address in the first line of output.
fn address(child: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    line.trim()
        .strip_prefix("test-1 listening on ")
        .unwrap()
        .to_string()
}

fn terminate(child: &Child) {
    let id = child.id().to_string();
    assert!(Command::new("kill").arg(id).status().unwrap().success());
}

#[test]
fn a_release_works_and_exits_with_the_code_without_listening() {
    let output = Command::new(env!("CARGO_BIN_EXE_sample-app"))
        .env_clear()
        .env("DEPLOYMENT_ID", "test-1")
        .args(["release", "0", "4"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(4));
    let lines = String::from_utf8(output.stdout).unwrap();
    assert!(lines.contains("the release of test-1 ends"), "{lines}");
    assert!(!lines.contains("listening"), "{lines}");
}

#[test]
fn a_crash_on_start_prints_the_reason_and_exits_with_the_code() {
    let output = start(&[("CRASH_ON_START", "7")])
        .wait_with_output()
        .unwrap();
    assert_eq!(output.status.code(), Some(7));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("cannot start"), "{errors}");
}

#[test]
fn sigterm_lets_a_request_in_flight_finish_and_ends_the_process_with_success() {
    // A slow machine needs more time until the request is in flight.
    let pauses = [200, 2_000, 20_000].map(Duration::from_millis);
    assert!(pauses.into_iter().any(request_in_flight_is_answered));
}

/// Whether a request that was sent so long before the signal is answered. Another connection is idle then.
fn request_in_flight_is_answered(pause: Duration) -> bool {
    let mut child = start(&[]);
    let address = address(&mut child);
    let mut stream = TcpStream::connect(&address).unwrap();
    let _idle = TcpStream::connect(&address).unwrap();
    let takes = 2 * pause.as_millis();
    let request = format!("GET /slow/{takes} HTTP/1.1\r\nHost: a\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    std::thread::sleep(pause);
    terminate(&child);
    let mut answer = String::new();
    // A connection that is cut off may be reset.
    let _ = stream.read_to_string(&mut answer);
    assert!(child.wait().unwrap().success());
    answer.starts_with("HTTP/1.1 200 OK")
}

#[test]
fn sigterm_ends_a_process_that_has_not_started_to_listen() {
    let mut child = start(&[("START_DELAY_SECONDS", "60")]);
    std::thread::sleep(Duration::from_millis(300));
    terminate(&child);
    assert!(child.wait().unwrap().success());
}
