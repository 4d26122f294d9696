//! The `secrets` of a container, in all forms of `valueFrom`.

use super::*;

const PARAMETER: &str = "arn:aws:ssm:us-east-1:000000000000:parameter/pulse/test/b";

/// Defines a task whose container prints the variables A and B, which come from these sources, and ends.
fn with_secrets(fake: &Fake, a: &str, b: &str) {
    let mut app = container("app", "variables");
    app["secrets"] = json!([{"name": "A", "valueFrom": a}, {"name": "B", "valueFrom": b}]);
    fake.define("variables", json!({"containerDefinitions": [app]}));
}

/// Runs the task to its end, and describes it.
async fn result(fake: &Arc<Fake>) -> Value {
    let ecs = start(fake);
    let task = run(&ecs, run_request("variables:1")).await;
    let ended = ended(&ecs, &task).await;
    ecs.shutdown().await;
    ended
}

/// The `stoppedReason` of a task that did not start, behind what all reasons of this kind have in common.
async fn reason(fake: &Arc<Fake>) -> String {
    let task = result(fake).await;
    assert_eq!(task["stopCode"], "TaskFailedToStart");
    assert_eq!(task["containers"][0]["exitCode"], Value::Null);
    let prefix = "ResourceInitializationError: unable to pull secrets or registry auth: execution \
                  resource retrieval failed: ";
    let reason = task["stoppedReason"].as_str().unwrap();
    let rest = reason.strip_prefix(prefix);
    rest.unwrap_or_else(|| panic!("{reason}")).to_owned()
}

#[tokio::test]
async fn parameters_are_read_by_name_and_by_arn() {
    let fake = Fake::new();
    fake.parameter("/pulse/test/a", "one");
    fake.parameter(PARAMETER, "two");
    with_secrets(&fake, "/pulse/test/a", PARAMETER);
    result(&fake).await;
    assert_eq!(fake.lines()[0].1, "A is one and B is two");
}

#[tokio::test]
async fn eleven_parameters_are_read_in_two_calls() {
    let fake = Fake::new();
    let mut app = container("app", "variables");
    let names: Vec<String> = (0..11).map(|number| format!("P{number}")).collect();
    for name in &names {
        fake.parameter(name, name);
    }
    let mut secrets: Vec<Value> = names
        .iter()
        .map(|name| json!({"name": name, "valueFrom": name}))
        .collect();
    secrets.push(json!({"name": "A", "valueFrom": "P0"}));
    secrets.push(json!({"name": "B", "valueFrom": "P10"}));
    app["secrets"] = json!(secrets);
    fake.define("variables", json!({"containerDefinitions": [app]}));
    result(&fake).await;
    assert_eq!(fake.lines()[0].1, "A is P0 and B is P10");
}

#[tokio::test]
async fn parameters_that_do_not_exist_are_all_named_in_the_reason() {
    let fake = Fake::new();
    with_secrets(&fake, "/x", "/y");
    assert_eq!(
        reason(&fake).await,
        "unable to retrieve secrets from ssm: service call has been retried 1 time(s): invalid ssm \
         parameters: /x,/y"
    );
}

#[tokio::test]
async fn reading_a_parameter_needs_the_permission_for_it() {
    let fake = Fake::new();
    fake.parameter("/pulse/test/a", "one");
    fake.parameter(PARAMETER, "two");
    with_secrets(&fake, "/pulse/test/a", PARAMETER);
    fake.deny_on("ssm:GetParameters", PARAMETER);
    let reason = reason(&fake).await;
    let start = "unable to retrieve secrets from ssm: service call has been retried 1 time(s): \
                 AccessDeniedException: User: \
                 arn:aws:sts::000000000000:assumed-role/test-execution/";
    assert!(reason.starts_with(start), "{reason}");
    let end = format!(
        " is not authorized to perform: ssm:GetParameters on resource: {PARAMETER} because no \
         identity-based policy allows the ssm:GetParameters action"
    );
    assert!(reason.ends_with(&end), "{reason}");
}

#[tokio::test]
async fn one_value_of_a_json_secret_is_read_by_its_key() {
    let fake = Fake::new();
    *fake.secret.lock().unwrap() = r#"{"user": "db", "port": 5432}"#.to_owned();
    with_secrets(
        &fake,
        &format!("{SECRET}:user::"),
        &format!("{SECRET}:port::"),
    );
    result(&fake).await;
    assert_eq!(fake.lines()[0].1, "A is db and B is 5432");
}

#[tokio::test]
async fn a_json_key_that_cannot_be_read_is_explained_in_the_reason() {
    for (secret, rest, expected) in [
        (
            r#"{"user": "db"}"#,
            ":password::",
            "retrieved secret from Secrets Manager did not contain json key password",
        ),
        (
            "plain",
            ":password::",
            "invalid character 'p' looking for beginning of value",
        ),
        (
            "plain",
            ":password",
            "unexpected ARN format with parameters when trying to retrieve ASM secret",
        ),
    ] {
        let fake = Fake::new();
        *fake.secret.lock().unwrap() = secret.to_owned();
        with_secrets(&fake, &format!("{SECRET}{rest}"), SECRET);
        assert_eq!(
            reason(&fake).await,
            format!(
                "unable to retrieve secret from asm: service call has been retried 1 time(s): \
                 {expected}"
            )
        );
    }
}
