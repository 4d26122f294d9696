//! What a candidate has to pass before traffic moves to it: smoke tests.

use anyhow::{Context, Result, ensure};
use scenarios::{Execution, TestEnvironment};
use serde_json::{Value, json};

use crate::settings::put;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_passes_what_the_settings_ask_of_it_or_is_undone() -> Result<()> {
    let env = TestEnvironment::deploy_for_cleanups_by_hand().await?;
    env.deploy_live(&[]).await?;
    smoke_tests(&env).await?;
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
