//! A rollback that takes the visitors of what it takes back along.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result};
use scenarios::machines::{outcome, planned};
use scenarios::visitors::Pin;
use scenarios::{Execution, TestEnvironment, Traffic, Visitor};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_takes_visitors_along_and_one_back_to_that_version_makes_its_rules_again()
-> Result<()> {
    let env = TestEnvironment::deploy_for_cleanups_by_hand().await?;
    let good = env.deploy_live(&[]).await?.name;
    let bad = env.deploy_live(&[]).await?.name;
    let mut socket = scenarios::websocket::Socket::open(&env, &bad).await?;
    let on_bad = [Pin::Cookie(bad.clone()), Pin::Header(bad.clone())];
    let on_good = [Pin::Cookie(good.clone()), Pin::Header(good.clone())];
    let pins = [Pin::None]
        .into_iter()
        .chain(on_bad.clone())
        .chain(on_good.clone());
    let traffic = Traffic::start(&env, 50, pins.collect())?;
    traffic.each_is_answered(5).await?;
    traffic.next_phase();

    a_rollback_that_may_not_evict_is_done_and_says_so(&env, &good, &bad).await?;
    // Its eviction is over. Otherwise the next rollback would wait until it has deleted its last rule.
    for _ in 0..6 {
        env.age_sweeps().await?;
    }
    back_to(&env, &bad).await?;
    traffic.next_phase();
    traffic.each_is_answered(5).await?;
    traffic.next_phase();

    visitors_go_along(&env, &bad, &good).await?;
    traffic.next_phase();
    traffic.each_is_answered(5).await?;
    socket.talk("still here").await?;
    traffic.next_phase();

    // Its targets were not used, so its rules and its health come before the switch.
    let back = back_to(&env, &bad).await?;
    let order = ["CreateWaitingRule", "CreateListenerRule", "SwitchTraffic"];
    let entered = order.map(|state| back.entered(state));
    assert!(
        entered.is_sorted() && entered[0].is_some(),
        "{:?}",
        back.path()
    );
    traffic.next_phase();
    traffic.each_is_answered(5).await?;
    let visitor = Visitor::of(&env)?;
    for pin in &on_bad {
        assert_eq!(visitor.visit(pin).await?.deployment, bad, "{pin:?}");
    }
    traffic.next_phase();

    // Taken back once more, it is deleted without draining, and its sockets close.
    visitors_whom_a_rollback_has_left_go_along_with_the_next(&env, &bad, &good).await?;
    traffic.next_phase();
    traffic.each_is_answered(5).await?;
    let plan = env.plan().await?;
    let (state, action, why) = planned(&plan, &bad)?;
    assert_eq!((state, action), ("evicted", "delete"), "{why}");
    let sweep = env.clean_up().await?;
    assert_eq!(outcome(&sweep, &bad)?.0, "deleted");
    assert_eq!(env.remaining(&bad).await?, Vec::<String>::new());
    assert!(socket.talk("gone").await.is_err());

    let (tally, _) = traffic.stop().await?;
    assert_eq!(tally.failed, Vec::<String>::new());
    // Whoever was on the good one never moved. The phases that were evicted: 4 and 8.
    for pin in &on_good {
        assert_eq!(
            tally.answered_by(pin, 0, 8),
            BTreeSet::from([good.as_str()])
        );
    }
    for pin in &on_bad {
        for (phase, id) in [(0, &bad), (2, &bad), (4, &good), (6, &bad), (8, &good)] {
            let by = tally.answered_by(pin, phase, phase);
            assert_eq!(
                by,
                BTreeSet::from([id.as_str()]),
                "{pin:?} in phase {phase}"
            );
        }
    }
    env.tear_down().await;
    Ok(())
}

/// A rollback after which the next request of those who are pinned to the bad version gets the good one's cookie.
async fn visitors_go_along(env: &TestEnvironment, bad: &str, good: &str) -> Result<()> {
    env.age_switches().await?;
    let ended = env.run("rollback", &json!({})).await?;
    assert_eq!(ended.ending(), "Succeeded", "{}", ended.cause);
    assert_eq!(ended.output["evicted"], json!([bad]), "{}", ended.output);
    assert_eq!(ended.output["evictionReason"], json!(null));
    they_have_moved(env, bad, good).await
}

async fn they_have_moved(env: &TestEnvironment, bad: &str, good: &str) -> Result<()> {
    env.reaches_visitors(good).await?;
    let visitor = Visitor::of(env)?;
    let pins = [Pin::Cookie(bad.to_owned()), Pin::Header(bad.to_owned())];
    env.wait_until(Duration::from_secs(60), async || {
        for pin in &pins {
            let answer = visitor.visit(pin).await?;
            let cookie = answer.cookie.as_deref();
            let is_moved = answer.deployment == good;
            // A header is sent by a script, which gets no cookie for it.
            if !is_moved || matches!(pin, Pin::Cookie(_)) && cookie != Some(good) {
                return Ok(false);
            }
        }
        Ok(true)
    })
    .await
    .context("visitors stay on what was taken back")
}

/// Traffic moves all the same, and those who are pinned stay where they are.
async fn a_rollback_that_may_not_evict_is_done_and_says_so(
    env: &TestEnvironment,
    good: &str,
    bad: &str,
) -> Result<()> {
    let action = "elasticloadbalancing:DeleteRule";
    env.age_switches().await?;
    let permission = env.revoke_permission("EvictVisitorsRole", action).await?;
    let ended = env.run("rollback", &json!({})).await?;
    permission.restore().await?;
    assert_eq!(ended.ending(), "Succeeded", "{}", ended.cause);
    assert_eq!(ended.output["evicted"], json!([]), "{}", ended.output);
    let why = ended.output["evictionReason"].as_str().unwrap_or_default();
    assert!(why.contains(action), "{}", ended.output);
    assert_eq!(env.active().await?.as_deref(), Some(good));
    let visitor = Visitor::of(env)?;
    let pinned = visitor.visit(&Pin::Cookie(bad.to_owned())).await?;
    assert_eq!(pinned.deployment, bad);
    Ok(())
}

/// The same rollback once more takes along those whom the first one has left.
async fn visitors_whom_a_rollback_has_left_go_along_with_the_next(
    env: &TestEnvironment,
    bad: &str,
    good: &str,
) -> Result<()> {
    let first = env.run("rollback", &json!({"evict": false})).await?;
    assert_eq!(first.output["evicted"], json!([]), "{}", first.output);
    env.age_switches().await?;
    let again = json!({"deploymentId": good});
    let ended = env.run("rollback", &again).await?;
    assert_eq!(ended.ending(), "Succeeded", "{}", ended.cause);
    assert_eq!(ended.output["evicted"], json!([bad]), "{}", ended.output);
    assert_eq!(ended.entered("SwitchTraffic"), None);
    they_have_moved(env, bad, good).await?;
    let third = env.run("rollback", &again).await?;
    assert_eq!(third.ending(), "Refused");
    assert!(third.cause.contains("already active"), "{}", third.cause);
    Ok(())
}

/// Rolls back to a version, which is live then and not taken for one without visitors.
async fn back_to(env: &TestEnvironment, id: &str) -> Result<Execution> {
    let ended = env.run("rollback", &json!({"deploymentId": id})).await?;
    assert_eq!(ended.ending(), "Succeeded", "{}", ended.cause);
    assert_eq!(ended.output["evicted"], json!([]), "{}", ended.output);
    env.reaches_visitors(id).await?;
    let tags = env.tags(id).await?;
    assert!(!tags.contains_key("pulse:evicted-at"), "{tags:?}");
    Ok(ended)
}
