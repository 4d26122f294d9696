//! The program that `make local` runs: what it prints, and that it leaves no processes or files behind.
#![cfg(target_os = "linux")]

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

/// Starts the program on free ports. Returns it, its output, and the ids of its child processes.
fn start(temporary: &Path) -> (Child, String, Vec<String>) {
    let mut program = Command::new(env!("CARGO_BIN_EXE_localcloud"))
        .args(["--port", "0", "--http-port", "0", "--https-port", "0"])
        .env("TMPDIR", temporary)
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let mut output = String::new();
    let lines = BufReader::new(program.stdout.take().expect("piped")).lines();
    for line in lines.map_while(Result::ok) {
        output += &line;
        output.push('\n');
        if line.contains("Ctrl-C") {
            break;
        }
    }
    let pid = program.id();
    // Each thread has its own list, and any thread may have started MiniStack.
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
    assert!(
        !children.is_empty(),
        "MiniStack is a child process: {output}"
    );
    (program, output, children)
}

fn wait_for_the_end_of(processes: &[String]) {
    let runs = |pid: &String| Path::new("/proc").join(pid).join("exe").exists();
    while processes.iter().any(runs) {
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The number of entries in a directory.
fn entries_in(directory: &Path) -> usize {
    std::fs::read_dir(directory).expect("there").count()
}

fn signal(program: &Child, name: &str) {
    let sent = Command::new("kill")
        .args([format!("-{name}"), program.id().to_string()])
        .status();
    assert!(sent.expect("kill runs").success());
}

#[test]
fn it_prints_the_settings_and_a_signal_stops_every_process() {
    for name in ["INT", "TERM"] {
        let temporary = tempfile::tempdir().expect("made");
        let (mut program, output, children) = start(temporary.path());
        for expected in [
            "export AWS_ENDPOINT_URL=http://127.0.0.1:",
            "export AWS_REGION=us-east-1",
            "export AWS_ACCESS_KEY_ID=test",
            "export AWS_SECRET_ACCESS_KEY=test",
            "https://127.0.0.1:",
        ] {
            assert!(output.contains(expected), "{expected}: {output}");
        }
        signal(&program, name);
        assert!(program.wait().expect("ended").success(), "{name}");
        wait_for_the_end_of(&children);
        assert_eq!(entries_in(temporary.path()), 0, "{name}");
    }
}

#[test]
fn a_killed_local_cloud_leaves_no_process_and_no_file_behind() {
    let temporary = tempfile::tempdir().expect("made");
    let (mut program, _, children) = start(temporary.path());
    signal(&program, "KILL");
    program.wait().expect("ended");
    wait_for_the_end_of(&children);
    assert_eq!(entries_in(temporary.path()), 0);
}
