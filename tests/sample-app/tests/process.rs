//! The sample application as a process, started and stopped as in a container.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

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
    let mut child = start(&[]);
    let address = address(&mut child);
    let mut stream = TcpStream::connect(&address).unwrap();
    // At the time of the signal, a request is in flight and another connection is idle.
    let _idle = TcpStream::connect(&address).unwrap();
    stream
        .write_all(b"GET /slow/800 HTTP/1.1\r\nHost: a\r\n\r\n")
        .unwrap();
    std::thread::sleep(Duration::from_millis(200));
    terminate(&child);
    let signalled = Instant::now();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(
        signalled.elapsed() > Duration::from_millis(300),
        "not in flight"
    );
    assert!(child.wait().unwrap().success());
    assert!(signalled.elapsed() < Duration::from_secs(5));
}

#[test]
fn sigterm_ends_a_process_that_has_not_started_to_listen() {
    let mut child = start(&[("START_DELAY_SECONDS", "60")]);
    std::thread::sleep(Duration::from_millis(300));
    terminate(&child);
    assert!(child.wait().unwrap().success());
}
