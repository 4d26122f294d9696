//! The program that `make local` runs: what it says, and that it leaves nothing behind.
#![cfg(target_os = "linux")]

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Starts the program on free ports; it, what it said, and the processes it has started.
fn start(temporary: &Path) -> (Child, String, Vec<String>) {
    let mut program = Command::new(env!("CARGO_BIN_EXE_localcloud"))
        .args(["--port", "0", "--http-port", "0", "--https-port", "0"])
        .env("TMPDIR", temporary)
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let mut said = String::new();
    let lines = BufReader::new(program.stdout.take().expect("piped")).lines();
    for line in lines.map_while(Result::ok) {
        said += &line;
        said.push('\n');
        if line.contains("Ctrl-C") {
            break;
        }
    }
    let pid = program.id();
    // By thread: the one that started MiniStack need not be the first.
    let children: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/task"))
        .expect("running")
        .flatten()
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|children| {
            children
                .split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .collect();
    assert!(!children.is_empty(), "MiniStack is a child process: {said}");
    (program, said, children)
}

fn all_end(processes: &[String]) -> bool {
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        if !processes
            .iter()
            .any(|pid| Path::new("/proc").join(pid).join("exe").exists())
        {
            return true;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    false
}

/// How many entries a directory has.
fn left(directory: &Path) -> usize {
    std::fs::read_dir(directory).expect("there").count()
}

fn signal(program: &Child, name: &str) {
    let sent = Command::new("kill")
        .args([format!("-{name}"), program.id().to_string()])
        .status();
    assert!(sent.expect("kill runs").success());
}

#[test]
fn it_says_what_to_export_and_a_signal_stops_every_process() {
    for name in ["INT", "TERM"] {
        let temporary = tempfile::tempdir().expect("made");
        let (mut program, said, children) = start(temporary.path());
        for expected in [
            "export AWS_ENDPOINT_URL=http://127.0.0.1:",
            "export AWS_REGION=us-east-1",
            "export AWS_ACCESS_KEY_ID=test",
            "export AWS_SECRET_ACCESS_KEY=test",
            "https://127.0.0.1:",
        ] {
            assert!(said.contains(expected), "{expected}: {said}");
        }
        signal(&program, name);
        assert!(program.wait().expect("ended").success(), "{name}");
        assert!(all_end(&children), "{name} leaves {children:?}");
        assert_eq!(left(temporary.path()), 0, "{name}");
    }
}

#[test]
fn a_killed_local_cloud_leaves_no_process_and_no_file_behind() {
    let temporary = tempfile::tempdir().expect("made");
    let (mut program, _, children) = start(temporary.path());
    signal(&program, "KILL");
    program.wait().expect("ended");
    assert!(all_end(&children), "{children:?} are left");
    assert_eq!(left(temporary.path()), 0);
}
