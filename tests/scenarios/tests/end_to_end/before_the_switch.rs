//! What a candidate has to pass before traffic moves to it: smoke tests, hooks and an approval.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use localcloud::scripted_function::{Reply, ScriptedFunction};
use scenarios::queues::{subscribe_to_failures, take};
use scenarios::visitors::Pin;
use scenarios::{Execution, TestEnvironment, Visitor};
use serde_json::{Value, json};

use crate::settings::put;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_passes_what_the_settings_ask_of_it_or_is_undone() -> Result<()> {
    let parameters = format!("CleanupState=DISABLED HookFunctionArns={LISTED}");
    let env = TestEnvironment::deploy_with_parameters(&parameters).await?;
    env.deploy_live(&[]).await?;
    smoke_tests(&env).await?;
    hooks(&env).await?;
    approvals(&env).await?;
    env.tear_down().await;
    Ok(())
}

async fn smoke_tests(env: &TestEnvironment) -> Result<()> {
    let right = json!([{"path": "/", "contains": "deploymentId"}, {"path": "/_health?x=1"}]);
    let passed = with(env, &json!({"smoke": right})).await?;
    ensure!(passed.ending() == "Succeeded", "{}", passed.cause);
    let path = passed.path();
    let at = |state: &str| path.iter().filter(|it| **it == state).count();
    assert_eq!((at("SmokeTest"), at("RaiseCount")), (1, 1), "{path:?}");
    assert!(passed.left("AreTargetsHealthy") < passed.entered("SmokeTest"));
    assert!(passed.left("SmokeTest") < passed.entered("RaiseCount"));
    env.reaches_visitors(&passed.name).await?;

    // A page that is not there, and one that takes longer than a task may take.
    let missing = async {
        let smoke = json!([{"path": "/"}, {"path": "/not-there"}]);
        is_undone(
            env,
            &with(env, &json!({"smoke": smoke})).await?,
            &[
                "SmokeTest failed (SmokeTestFailed): GET /not-there of task ",
                " answered 404, not 200",
            ],
        )
        .await
    };
    missing.await?;
    let smoke = json!([{"path": "/slow/20000"}]);
    is_undone(
        env,
        &with(env, &json!({"smoke": smoke})).await?,
        &[
            "SmokeTest failed (TransientError): ",
            "2 of 2 smoke tests of ",
            " had no answer: GET /slow/20000 of task ",
            "no answer within 5s",
        ],
    )
    .await
}

/// A hook whose name does not say so, and which the stack lists.
const LISTED: &str = "arn:aws:lambda:us-east-1:000000000000:function:judge";

async fn hooks(env: &TestEnvironment) -> Result<()> {
    let client = env.cloud.client();
    let [own, listed] = ["test-hook-check", "judge"];
    let own = ScriptedFunction::create(client, own).await?;
    let listed = ScriptedFunction::create(client, listed).await?;
    let answer = |value: Value| Reply::Answer(value);
    own.reply(&[
        answer(json!({"hookStatus": "IN_PROGRESS", "callBackDelay": 5, "hookDetails": {"job": 7}})),
        answer(json!({"hookStatus": "SUCCEEDED"})),
    ])?;
    listed.reply(&[answer(json!({"hookStatus": "SUCCEEDED"}))])?;
    let passed = with(env, &json!({"hooks": ["test-hook-check", LISTED]})).await?;
    ensure!(passed.ending() == "Succeeded", "{}", passed.cause);
    assert!(passed.left("InvokeHook") < passed.entered("RaiseCount"));
    env.reaches_visitors(&passed.name).await?;
    let service = env.service(&passed.name).await?;
    let mut event = json!({
        "executionId": env.execution_arn(&passed.name),
        "lifecycleStage": "POST_TEST_TRAFFIC_SHIFT",
        "resourceArn": service.service_arn(),
        "executionDetails": {"serviceArn": service.service_arn()},
        "deploymentId": passed.name,
        "imageDigest": passed.output["imageDigest"],
    });
    assert_eq!(listed.events()?, [event.clone()]);
    let first = event.clone();
    event["hookDetails"] = json!({"job": 7});
    assert_eq!(own.events()?, [first, event]);

    // The rest go on at the same time, each with a hook of its own.
    let in_progress = json!({"hookStatus": "IN_PROGRESS", "callBackDelay": 290});
    let crashes = "Runtime exited";
    let oops = Reply::Error {
        kind: "Oops",
        message: "the page is red",
    };
    let cases = [
        (
            "failed",
            answer(json!({"hookStatus": "FAILED"})),
            "answered {\"hookStatus\":\"FAILED\"}",
        ),
        (
            "invalid",
            answer(json!("yes")),
            "answered yes, and must answer with an object",
        ),
        (
            "error",
            oops,
            "InvokeHook failed (Oops): hook test-hook-error: the page is red",
        ),
        ("crash", Reply::Crash, crashes),
        ("silence", Reply::Silence, "timed out"),
        (
            "busy",
            answer(in_progress),
            "the 600 s that all hooks have are over",
        ),
    ];
    let mut functions = Vec::new();
    for (name, reply, _) in &cases {
        let function = ScriptedFunction::create(client, &format!("test-hook-{name}")).await?;
        function.reply(std::slice::from_ref(reply))?;
        functions.push(function);
    }
    let is_called = |name: &str, words: &str| (format!("test-hook-{name}"), words.to_owned());
    let mut refused: Vec<_> = cases
        .iter()
        .map(|(name, _, words)| is_called(name, words))
        .collect();
    // One that does not exist, and one that the machine may not call.
    for missing in ["test-hook-none", "somebody-elses"] {
        let words = "those that the parameter HookFunctionArns of the pipeline lists";
        refused.push((missing.to_owned(), words.to_owned()));
    }
    let undone = refused.iter().map(async |(hook, words)| {
        let id = env.new_id();
        env.push_without_event(&id, &[]).await?;
        let input = json!({"deploymentId": id, "desiredCount": 1, "hooks": [hook]});
        let ended = env.start_by_hand(&id, &input.to_string()).await?;
        let named = format!("hook {hook}");
        is_undone(env, &ended, &["InvokeHook failed (", &named, words]).await
    });
    try_join_all(undone).await?;
    for (function, (name, ..)) in functions.iter().zip(&cases) {
        let calls = function.events()?.len();
        // 290 s twice leave no time for a third call.
        let expected = if *name == "busy" { 3 } else { 1 };
        assert_eq!(calls, expected, "{name}");
    }
    Ok(())
}

async fn approvals(env: &TestEnvironment) -> Result<()> {
    let queue = subscribe_to_failures(env).await?;
    put(env, &json!({"desiredCount": 1, "approve": {}}).to_string()).await?;

    // Approved, by the commands of the message.
    let live = env.active().await?.context("nothing is live")?;
    let approved = waits(env).await?;
    let visitor = Visitor::of(env)?;
    let seen = visitor.visit(&Pin::Header(approved.clone())).await?;
    assert_eq!(seen.deployment, approved, "nobody can look at it");
    assert_eq!(visitor.visit(&Pin::None).await?.deployment, live);
    let message = message_of(env, &queue, &approved).await?;
    answer(env, &message, "send-task-success").await?;
    let ended = env.wait_for_deployment(&approved).await?;
    ensure!(ended.ending() == "Succeeded", "{}", ended.cause);
    env.reaches_visitors(&approved).await?;
    // Its size and a freeze are looked at after it.
    for later in ["RaiseCount", "CheckGate"] {
        assert!(
            ended.left("AwaitApproval") < ended.entered(later),
            "{later}"
        );
    }
    // The answer counts once.
    let again = answer(env, &message, "send-task-success").await;
    assert!(again.is_err(), "a second answer was taken");

    // Refused.
    let refused = waits(env).await?;
    let message = message_of(env, &queue, &refused).await?;
    answer(env, &message, "send-task-failure").await?;
    let ended = env.wait_for_deployment(&refused).await?;
    is_undone(env, &ended, &["AwaitApproval failed (Refused): why"]).await?;

    // Out of time.
    let late = env.new_id();
    env.push_without_event(&late, &[]).await?;
    let input = json!({"deploymentId": late, "approve": {"timeoutSeconds": 60}});
    let ended = env.start_by_hand(&late, &input.to_string()).await?;
    let words = ["AwaitApproval failed (States.Timeout): nobody approved it within 60 s"];
    is_undone(env, &ended, &words).await?;

    // Of two that wait, the newer one goes on; so it does after its switch, which needed no approval.
    let older = waits(env).await?;
    let newer = waits(env).await?;
    is_superseded(env, &older, &newer).await?;
    put(env, r#"{"desiredCount": 1}"#).await?;
    let newest = env.deploy_live(&[]).await?;
    is_superseded(env, &newer, &newest.name).await?;
    Ok(())
}

/// Pushes, and returns the id of the deployment when it waits for its approval.
async fn waits(env: &TestEnvironment) -> Result<String> {
    let id = env.new_id();
    env.push(&id, &[]).await?;
    let arn = env.execution_arn(&id);
    let is_asked = async || {
        // It cannot be read before it starts.
        let execution = Execution::read(&env.sfn, &arn).await;
        let is_submitted = |execution: Execution| {
            let mut events = execution.history.iter();
            events.any(|event| event.r#type().as_str() == "TaskSubmitted")
        };
        Ok(execution.is_ok_and(is_submitted))
    };
    let limit = Duration::from_secs(120);
    let asked = env.wait_until(limit, is_asked).await;
    asked.with_context(|| format!("{id} does not wait for its approval"))?;
    Ok(id)
}

/// The text that the topic has sent about the deployment.
async fn message_of(env: &TestEnvironment, queue: &str, id: &str) -> Result<String> {
    let found = std::sync::Mutex::new(None);
    let is_there = async || {
        for letter in take(env, queue).await? {
            let body: Value = serde_json::from_str(letter["Body"].as_str().unwrap_or_default())?;
            let text = body["Message"].as_str().unwrap_or_default();
            if text.starts_with(id) {
                *found.lock().expect("no panic") = Some(text.to_owned());
            }
        }
        Ok(found.lock().expect("no panic").is_some())
    };
    env.wait_until(Duration::from_secs(60), is_there).await?;
    found.into_inner()?.context("no message")
}

/// Runs two of the message's commands: that which gets the token, and one of those that answer.
async fn answer(env: &TestEnvironment, message: &str, how: &str) -> Result<()> {
    let command = |words: &str| {
        let mut lines = message.lines().filter(|line| line.contains(words));
        lines
            .next()
            .with_context(|| format!("no command with {words}"))
    };
    let script = format!("{}\n{}", command("token=$(aws ")?, command(how)?);
    let mut shell = env.cloud.command("bash")?;
    let ran = shell
        .args(["-euo", "pipefail", "-c", &script])
        .output()
        .await?;
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    ensure!(ran.status.success(), "{script}: {said}");
    Ok(())
}

/// It ended because the other one goes first, and nothing is left of it.
async fn is_superseded(env: &TestEnvironment, older: &str, newer: &str) -> Result<()> {
    let ended = env.wait_for_deployment(older).await?;
    ensure!(ended.ending() == "Superseded", "{older}: {}", ended.cause);
    let note = ended.output["note"].as_str().unwrap_or_default();
    assert!(note.contains(newer), "{note}");
    assert_eq!(env.remaining(older).await?, Vec::<String>::new());
    Ok(())
}

/// Deploys the sample application with these settings.
async fn with(env: &TestEnvironment, settings: &Value) -> Result<Execution> {
    put(env, &settings.to_string()).await?;
    env.push_and_wait(&[]).await
}

/// It failed with these words, nothing is left of it, and traffic did not move.
async fn is_undone(env: &TestEnvironment, execution: &Execution, words: &[&str]) -> Result<()> {
    let Execution { name, cause, .. } = execution;
    ensure!(
        execution.ending() == "Failed",
        "{name} ended as {}: {cause}",
        execution.ending()
    );
    for word in words {
        assert!(cause.contains(word), "`{word}` is not in: {cause}");
    }
    assert_eq!(execution.entered("SwitchTraffic"), None, "{name}");
    assert_eq!(env.remaining(name).await?, Vec::<String>::new());
    let live = env.active().await?.context("nothing is live")?;
    ensure!(live != *name, "{name} is live");
    Ok(())
}
