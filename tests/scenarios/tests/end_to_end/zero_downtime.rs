//! No request fails while deployments come and go, and nobody is moved who asked to stay.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;
use scenarios::visitors::Pin;
use scenarios::{TestEnvironment, Traffic, Visitor};

/// What is sent, and what is promised to be held, in requests per second.
const SENT: u32 = 240;
const HELD: f64 = 200.0;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_deployments_in_a_row_fail_no_request_and_move_nobody_who_is_pinned() -> Result<()> {
    let env = TestEnvironment::deploy().await?;
    let first = env.deploy_live(&[]).await?.name;
    // A browser keeps the cookie that its first answer set; a script sends the header.
    let browser = |id: &str| Pin::Cookie(id.to_owned());
    let script = |id: &str| Pin::Header(id.to_owned());
    let cookie = Visitor::of(&env)?.visit(&Pin::None).await?.cookie;
    assert_eq!(cookie.as_ref(), Some(&first));

    // Chapter 0: the first is live and the second is deployed. Half of the requests are new visitors'.
    let pins = vec![Pin::None, script(&first), Pin::None, browser(&first)];
    let traffic = Traffic::start(&env, SENT, pins)?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let second = env.deploy_live(&[]).await?.name;

    // Chapter 1: the second is live.
    traffic.next_phase();
    everyone_new_meets(&env, &second).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;

    // Chapter 2: visitors of the second come too, and the third is deployed.
    traffic.also(script(&second));
    traffic.also(browser(&second));
    traffic.also(Pin::None);
    traffic.next_phase();
    let third = env.deploy_live(&[]).await?.name;

    // Chapter 3: the third is live.
    traffic.next_phase();
    everyone_new_meets(&env, &third).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    // Where others kept this machine busy, what was late is made up for.
    let holds = async || Ok(traffic.rate() >= HELD);
    let _ = env.wait_until(Duration::from_secs(120), holds).await;
    let (tally, rate) = traffic.stop().await?;

    println!(
        "{} requests at {rate:.0}/s over two deployments: {} answered, {} failed",
        tally.sent,
        tally.answers(),
        tally.failed.len()
    );
    for ((pin, deployment), count) in &tally.answered {
        println!("  {pin:?}: {count} by {deployment}");
    }
    assert_eq!(tally.failed, Vec::<String>::new());
    assert_eq!(tally.answers(), tally.sent);
    assert!(rate >= HELD, "only {rate:.0} requests per second");
    let only = |id| BTreeSet::from([id]);
    for pin in [script(&first), browser(&first)] {
        assert_eq!(
            tally.answered_by(&pin, 0, 3),
            only(first.as_str()),
            "{pin:?}"
        );
    }
    for pin in [script(&second), browser(&second)] {
        assert_eq!(
            tally.answered_by(&pin, 2, 3),
            only(second.as_str()),
            "{pin:?}"
        );
    }
    // During a switch a new visitor meets the old one and may meet the new one (the phase can end
    // before a new visitor came), afterwards the new one only.
    for (phase, old, new) in [(0, &first, &second), (2, &second, &third)] {
        let met = tally.answered_by(&Pin::None, phase, phase);
        assert!(met.contains(&**old), "{met:?} lacks {old}");
        assert!(met.iter().all(|id| id == old || id == new), "{met:?}");
        assert_eq!(
            tally.answered_by(&Pin::None, phase + 1, phase + 1),
            only(new.as_str())
        );
    }

    env.tear_down().await;
    Ok(())
}

/// New visitors on connections of their own all meet that deployment and are given its cookie.
async fn everyone_new_meets(env: &TestEnvironment, id: &str) -> Result<()> {
    for _ in 0..10 {
        let answer = Visitor::of(env)?.visit(&Pin::None).await?;
        assert_eq!(answer.deployment, id);
        assert_eq!(answer.cookie.as_deref(), Some(id));
    }
    Ok(())
}
