//! A version that turns bad after it went live is taken back, with its visitors.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use scenarios::machines::planned;
use scenarios::visitors::Pin;
use scenarios::{Execution, TestEnvironment, Traffic, Visitor};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::settings::put;

/// How long a change may take to be seen. It is longer than any wait, even on a slow machine.
const SOON: Duration = Duration::from_secs(120);

/// A version that turns bad when the test wants it.
struct TurnsBad {
    folder: TempDir,
    into: &'static str,
}

impl TurnsBad {
    fn into(into: &'static str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        Ok(TurnsBad { folder, into })
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("now")
    }

    /// Pushes it.
    async fn push(&self, env: &TestEnvironment) -> Result<String> {
        let (id, file) = (env.new_id(), self.file());
        let file = file.to_str().context("a path that is text")?;
        env.push(&id, &[("TURNS_BAD_WHEN", file), ("TURNS_BAD", self.into)])
            .await?;
        Ok(id)
    }

    fn now(&self) -> Result<()> {
        Ok(std::fs::write(self.file(), "")?)
    }
}

/// Waits until the deployment is active and its execution watches it.
async fn is_watched(env: &TestEnvironment, id: &str) -> Result<()> {
    env.wait_until_left(id, "IsWatchOver").await?;
    env.reaches_visitors(id).await
}

/// The execution once it has ended, which has to be as `RolledBack`.
async fn is_taken_back(env: &TestEnvironment, id: &str, words: &[&str]) -> Result<Execution> {
    let ended = env.wait_for_deployment(id).await?;
    ensure!(
        ended.ending() == "RolledBack",
        "{}: {} {}",
        ended.ending(),
        ended.cause,
        ended.output
    );
    for words in words {
        ensure!(
            ended.cause.contains(words),
            "{words} is not in: {}",
            ended.cause
        );
    }
    Ok(ended)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_turns_bad_is_taken_back_and_its_cure_is_not() -> Result<()> {
    let env = TestEnvironment::deploy_for_cleanups_by_hand().await?;
    let good = env.deploy_live(&[]).await?;
    assert_eq!(good.output["notWatched"], json!([]));
    let good = good.name;
    assert!(env.tags(&good).await?.contains_key("pulse:proven-at"));
    watch(&env, json!({"seconds": 600})).await?;

    bad_in_two_ways(&env, &good).await?;
    an_operator_or_a_newer_version_ends_the_watch(&env, &good).await?;
    let cure = the_cure_is_kept_and_what_was_good_is_too(&env, &good).await?;
    alarms(&env, &cure).await?;
    without_cloudwatch(&env).await?;
    only_told(&env).await?;
    env.tear_down().await;
    Ok(())
}

/// How many targets of the deployment are healthy.
async fn healthy(env: &TestEnvironment, id: &str) -> Result<usize> {
    let group = env.target_group(id).await?;
    let described = env
        .elb
        .describe_target_health()
        .target_group_arn(group)
        .send()
        .await?;
    let healths = described.target_health_descriptions().iter();
    let healthy = healths.filter(|it| {
        let health = it.target_health().and_then(|health| health.state());
        health.is_some_and(|state| state.as_str() == "healthy")
    });
    Ok(healthy.count())
}

async fn watch(env: &TestEnvironment, watch: Value) -> Result<()> {
    put(env, &json!({"watch": watch}).to_string()).await
}

/// Crashes, and health that is lost, are seen without CloudWatch.
async fn bad_in_two_ways(env: &TestEnvironment, good: &str) -> Result<()> {
    for (into, words) in [
        (
            "crash",
            ["tasks stopped", "exit code 3", "the database is gone"],
        ),
        (
            "unhealthy",
            ["none of its", "targets is healthy", "was live for"],
        ),
    ] {
        let turns_bad = TurnsBad::into(into)?;
        let id = turns_bad.push(env).await?;
        is_watched(env, &id).await?;
        turns_bad.now()?;
        if into == "unhealthy" {
            // The load balancer needs three failed checks.
            env.wait_until(SOON, async || Ok(healthy(env, &id).await? == 0))
                .await?;
        }
        let began = Instant::now();
        env.wait_until(SOON, async || {
            Ok(env.active().await?.as_deref() == Some(good))
        })
        .await?;
        let back = began.elapsed();
        let ended = is_taken_back(env, &id, &words).await?;
        let is_live = format!("{good} is live again");
        ensure!(ended.cause.contains(&is_live), "{}", ended.cause);
        println!("{into}: traffic was back {back:?} later, at a tenth of AWS's times");
        let rollback = env.execution_of("rollback", &format!("watch-{id}")).await?;
        assert_eq!(rollback.ending(), "Succeeded", "{}", rollback.cause);
        assert_eq!(
            rollback.output["evicted"],
            json!([id]),
            "{}",
            rollback.output
        );
        let tags = env.tags(&id).await?;
        assert!(tags.contains_key("pulse:rolled-back-at") && !tags.contains_key("pulse:proven-at"));
        let visitor = Visitor::of(env)?;
        env.wait_until(SOON, async || {
            let answer = visitor.visit(&Pin::Cookie(id.clone())).await;
            Ok(answer.is_ok_and(|it| it.deployment == good))
        })
        .await
        .context("visitors stay on what was taken back")?;
    }
    Ok(())
}

/// What a person does, and a push, are not undone by the watch.
async fn an_operator_or_a_newer_version_ends_the_watch(
    env: &TestEnvironment,
    good: &str,
) -> Result<()> {
    let turns_bad = TurnsBad::into("crash")?;
    let taken_back = turns_bad.push(env).await?;
    is_watched(env, &taken_back).await?;
    let rollback = env.run("rollback", &json!({})).await?;
    assert_eq!(
        rollback.output["deploymentId"],
        json!(good),
        "{}",
        rollback.cause
    );
    is_taken_back(env, &taken_back, &["another rollback took it back", good]).await?;
    let none = env
        .execution_of("rollback", &format!("watch-{taken_back}"))
        .await;
    assert!(
        none.is_err(),
        "the watch started a rollback of its own: {none:?}"
    );

    let replaced = turns_bad.push(env).await?;
    is_watched(env, &replaced).await?;
    watch(env, json!({"seconds": 0})).await?;
    let newer = env.deploy_live(&[]).await?.name;
    turns_bad.now()?;
    let ended = env.wait_for_deployment(&replaced).await?;
    assert_eq!(ended.ending(), "Succeeded", "{}", ended.cause);
    let found = ended.output["watch"].as_str().unwrap_or_default();
    assert!(found.contains(&newer), "{}", ended.output);
    assert_eq!(env.active().await?, Some(newer));
    watch(env, json!({"seconds": 600})).await
}

/// Good A, bad C, its cure D: while D is watched, A is kept and C is not gone back to. Returns what is live in the end.
async fn the_cure_is_kept_and_what_was_good_is_too(
    env: &TestEnvironment,
    good: &str,
) -> Result<String> {
    let before = env.active().await?.context("nothing is live")?;
    assert_ne!(before, good);
    let proven = env.tags(&before).await?.contains_key("pulse:proven-at");
    assert!(proven, "{before} was not to be watched");
    // It fails visitors, which the settings do not judge, and keeps its tasks.
    let (bad, cure) = (TurnsBad::into("fail")?, TurnsBad::into("unhealthy")?);
    let bad_id = bad.push(env).await?;
    is_watched(env, &bad_id).await?;
    let cure_id = cure.push(env).await?;
    is_watched(env, &cure_id).await?;
    bad.now()?;
    let ended = env.wait_for_deployment(&bad_id).await?;
    assert_eq!(ended.ending(), "Succeeded", "{}", ended.cause);
    // One previous version is kept warm: the bad one. The one before is kept as well, because it is proven.
    env.age_switches().await?;
    env.clean_up_later().await?;
    let plan = env.plan().await?;
    for id in [&bad_id, &before] {
        let (_, action, why) = planned(&plan, id)?;
        assert_eq!(action, "keep", "{id}: {why}");
    }
    cure.now()?;
    is_taken_back(env, &cure_id, &[&format!("{before} is live again")]).await?;
    assert_eq!(env.active().await?.as_deref(), Some(before.as_str()));
    Ok(before)
}

async fn alarm(env: &TestEnvironment, name: &str, state: &str) -> Result<()> {
    let set = format!(
        "cloudwatch set-alarm-state --alarm-name {name} --state-value {state} --state-reason test"
    );
    env.aws(&set.split(' ').collect::<Vec<_>>()).await.map(drop)
}

/// An alarm of the team's own takes a version back, and refuses one before anything is made.
async fn alarms(env: &TestEnvironment, live: &str) -> Result<()> {
    let create = "cloudwatch put-metric-alarm --alarm-name checkout --namespace Team --metric-name Errors --statistic Sum \
                  --period 60 --evaluation-periods 1 --threshold 0 --comparison-operator GreaterThanThreshold";
    env.aws(&create.split_whitespace().collect::<Vec<_>>())
        .await?;
    alarm(env, "checkout", "OK").await?;
    watch(env, json!({"seconds": 600, "alarms": ["checkout"]})).await?;
    let id = TurnsBad::into("crash")?.push(env).await?;
    is_watched(env, &id).await?;
    alarm(env, "checkout", "ALARM").await?;
    is_taken_back(
        env,
        &id,
        &["in ALARM: checkout", &format!("{live} is live again")],
    )
    .await?;

    // It still rings.
    let before = env.cloud.calls().newest();
    let refused = env.push_and_wait(&[]).await?;
    assert_eq!(refused.ending(), "Refused", "{}", refused.cause);
    for words in ["InAlarmError: ", "checkout", "despiteAlarms"] {
        assert!(refused.cause.contains(words), "{}", refused.cause);
    }
    assert_eq!(env.changes_since(before), Vec::<String>::new());
    // The cure goes live all the same.
    watch(env, json!({"seconds": 1, "alarms": ["checkout"]})).await?;
    let id = &refused.name;
    let cure = json!({"deploymentId": id, "despiteAlarms": true}).to_string();
    let cure = env.start_by_hand(&format!("{id}-2"), &cure).await?;
    assert_eq!(cure.ending(), "Succeeded", "{}", cure.cause);
    let not_watched = json!(["the alarm checkout rang before the deployment was made"]);
    assert_eq!(cure.output["notWatched"], not_watched);
    assert!(env.tags(id).await?.contains_key("pulse:proven-at"));

    watch(env, json!({"seconds": 60, "alarms": ["gone"]})).await?;
    let before = env.cloud.calls().newest();
    let refused = env.push_and_wait(&[]).await?;
    assert_eq!(refused.ending(), "Refused", "{}", refused.cause);
    for words in ["InvalidSettingsError: ", "`watch.alarms`", "`gone`"] {
        assert!(refused.cause.contains(words), "{}", refused.cause);
    }
    assert_eq!(env.changes_since(before), Vec::<String>::new());
    Ok(())
}

/// An outage of CloudWatch neither keeps a version from going live nor takes it back.
async fn without_cloudwatch(env: &TestEnvironment) -> Result<()> {
    alarm(env, "checkout", "OK").await?;
    watch(env, json!({"seconds": 1, "alarms": ["checkout"]})).await?;
    let mut revoked = Vec::new();
    for role in [
        "ValidateDeploymentRole",
        "CheckGateRole",
        "WatchDeploymentRole",
    ] {
        revoked.push(
            env.revoke_permission(role, "cloudwatch:DescribeAlarms")
                .await?,
        );
    }
    let live = env.push_and_wait(&[]).await?;
    for permission in revoked {
        permission.restore().await?;
    }
    assert_eq!(live.ending(), "Succeeded", "{}", live.cause);
    for field in ["warnings", "notWatched"] {
        let said = live.output[field][0].as_str().unwrap_or_default();
        assert!(
            said.contains("cloudwatch:DescribeAlarms"),
            "{field}: {}",
            live.output
        );
    }
    Ok(())
}

/// With `tell`, traffic stays where it is.
async fn only_told(env: &TestEnvironment) -> Result<()> {
    watch(env, json!({"seconds": 600, "onBreach": "tell"})).await?;
    let turns_bad = TurnsBad::into("crash")?;
    let id = turns_bad.push(env).await?;
    is_watched(env, &id).await?;
    turns_bad.now()?;
    let told = env.wait_for_deployment(&id).await?;
    assert_eq!(told.ending(), "Succeeded", "{}", told.cause);
    let found = told.output["watch"].as_str().unwrap_or_default();
    assert!(found.contains("exit code 3"), "{}", told.output);
    assert!(told.entered("PublishUnhealthy").is_some());
    assert_eq!(env.active().await?.as_deref(), Some(id.as_str()));
    Ok(())
}

/// Someone with a browser, who keeps the cookie that the last answer set.
struct Browser {
    on: String,
    /// Every version that answered.
    answered_by: Vec<String>,
}

/// A third of the answers of a version are errors, which CloudWatch shows some minutes later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_of_which_a_third_of_the_answers_are_errors_is_taken_back_with_everybody()
-> Result<()> {
    let env = TestEnvironment::deploy_for_cleanups_by_hand().await?;
    let good = env.deploy_live(&[]).await?.name;
    // An hour for the machine, whose waits are a tenth of AWS's, and six minutes for CloudWatch.
    watch(
        &env,
        json!({"seconds": 3600, "errors": {"percent": 5, "atLeast": 50}}),
    )
    .await?;
    let turns_bad = TurnsBad::into("fail")?;
    let bad = turns_bad.push(&env).await?;
    is_watched(&env, &bad).await?;
    let visitor = Visitor::of(&env)?;
    let mut on_good = Vec::new();
    let mut on_bad = Vec::new();
    for _ in 0..50 {
        for (pin, browsers) in [
            (Pin::Cookie(good.clone()), &mut on_good),
            (Pin::None, &mut on_bad),
        ] {
            let answer = visitor.visit(&pin).await?;
            let on = answer.cookie.unwrap_or(answer.deployment);
            browsers.push(Browser {
                on,
                answered_by: Vec::new(),
            });
        }
    }
    let are_on = |browsers: &[Browser], id: &str| browsers.iter().all(|browser| browser.on == id);
    assert!(are_on(&on_good, &good) && are_on(&on_bad, &bad));

    turns_bad.now()?;
    let traffic = Traffic::start(&env, 30, vec![Pin::None])?;
    // In turn, so that the bad version has some fifty requests a second.
    let arn = env.execution_arn(&bad);
    let mut errors = 0;
    while !Execution::read(&env.sfn, &arn).await?.has_ended() {
        for browser in on_good.iter_mut().chain(&mut on_bad) {
            errors += usize::from(!browse(&visitor, browser).await);
        }
    }
    let (tally, _) = traffic.stop().await?;
    assert!(
        errors > 0 && !tally.failed.is_empty(),
        "nobody met an error"
    );
    let ended = is_taken_back(
        &env,
        &bad,
        &["requests failed in", "allowed are 5 %", &good],
    )
    .await?;
    println!("{}", ended.cause);

    // Nobody meets an error any more, and those on the good version never moved.
    let traffic = Traffic::start(&env, 30, vec![Pin::None])?;
    for _ in 0..10 {
        for browser in on_good.iter_mut().chain(&mut on_bad) {
            assert!(
                browse(&visitor, browser).await,
                "an error after the eviction"
            );
        }
    }
    let (tally, _) = traffic.stop().await?;
    assert_eq!(tally.failed, Vec::<String>::new());
    assert!(are_on(&on_good, &good) && are_on(&on_bad, &good));
    for browser in &on_good {
        assert!(
            browser.answered_by.iter().all(|id| *id == good),
            "{:?}",
            browser.answered_by
        );
    }
    env.tear_down().await;
    Ok(())
}

/// Requests a page as the browser does. Returns whether it was answered without an error.
async fn browse(visitor: &Visitor, browser: &mut Browser) -> bool {
    let Ok(answer) = visitor.visit(&Pin::Cookie(browser.on.clone())).await else {
        return false;
    };
    browser.answered_by.push(answer.deployment);
    if let Some(cookie) = answer.cookie {
        browser.on = cookie;
    }
    true
}
