//! The program `check-settings`: what an operator sees of it.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Whether it accepts a file with this text, and what it says.
fn check(name: &str, text: &str) -> (Option<i32>, String) {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, text).expect("written");
    run(&["test", &path.display().to_string()])
}

fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_check-settings"))
        .args(arguments)
        .output()
        .expect("started");
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8(said).expect("is text"),
    )
}

#[test]
fn a_document_that_a_push_can_use_is_accepted() {
    for (name, text, words) in [
        (
            "right.json",
            r#"{"cpu": 512, "release": {"command": ["migrate"]}}"#,
            "right.json: every field is right for a push to test\n",
        ),
        (
            "base.json",
            r#"{"base": "web", "cpu": 512}"#,
            "test; whether the task definition web exists and can be copied, the push finds out\n",
        ),
        (
            "frozen.json",
            r#"{"frozen": "the sale\nruns"}"#,
            "test; as long as it has `frozen`, every push is refused: the sale\\nruns\n",
        ),
    ] {
        let (code, said) = check(name, text);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.ends_with(words), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[test]
fn what_a_push_would_be_refused_for_is_said_with_the_file_and_the_field() {
    for (name, text, words) in [
        ("field.json", r#"{"cpu": 300}"#, "field `cpu`: "),
        ("no.json", "{\n\"cpu\" 512}", "line 2 column 7"),
        (
            "release.json",
            r#"{"release": {"timeoutSeconds": 60}}"#,
            "field `release.command`: is needed",
        ),
        (
            "scaling.json",
            r#"{"scaling": {"max": 1, "cpuPercent": 60}}"#,
            "field `scaling.max`: is 1, ",
        ),
    ] {
        let (code, said) = check(name, text);
        assert_eq!(code, Some(2), "{said}");
        let begins = format!("{name}: invalid settings (/pulse/test/settings): ");
        assert!(said.contains(&begins), "{said}");
        assert!(said.contains(words), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[test]
fn what_it_cannot_check_is_not_accepted() {
    for (arguments, words) in [
        (&["test"][..], "check-settings <environment> <file>"),
        (&["test", "no-such-folder/a.json"], "no-such-folder/a.json"),
        (&["Test", "a.json"], "not the name of an environment"),
    ] {
        let (code, said) = run(arguments);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(words), "{said}");
    }
}
