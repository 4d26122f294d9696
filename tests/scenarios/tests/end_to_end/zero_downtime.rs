//! No request fails during deployments, and pinned visitors stay on their version.

use std::collections::BTreeSet;

use anyhow::Result;
use scenarios::visitors::Pin;
use scenarios::{TestEnvironment, Traffic, Visitor};

/// Requests per second. A busy machine sends fewer.
const SENT: u32 = 240;
/// How many requests with each pin are answered in each phase.
const ANSWERED: usize = 50;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_deployments_in_a_row_fail_no_request_and_move_no_pinned_visitor() -> Result<()> {
    let env = TestEnvironment::deploy().await?;
    let first = env.deploy_live(&[]).await?.name;
    // A browser keeps the cookie that its first answer set, and a script sends the header.
    let browser = |id: &str| Pin::Cookie(id.to_owned());
    let script = |id: &str| Pin::Header(id.to_owned());
    let cookie = Visitor::of(&env)?.visit(&Pin::None).await?.cookie;
    assert_eq!(cookie.as_ref(), Some(&first));

    // Phase 0: the first is live and the second is deployed. Half of the requests come from new visitors.
    let pins = vec![Pin::None, script(&first), Pin::None, browser(&first)];
    let traffic = Traffic::start(&env, SENT, pins)?;
    traffic.each_is_answered(ANSWERED).await?;
    let second = env.deploy_live(&[]).await?.name;

    // Phase 1: the second is live.
    traffic.next_phase();
    new_visitors_reach(&env, &second).await?;
    traffic.each_is_answered(ANSWERED).await?;

    // Phase 2: visitors of the second come too, and the third is deployed.
    traffic.also(script(&second));
    traffic.also(browser(&second));
    let both = Pin::HeaderOverCookie {
        header: second.clone(),
        cookie: first.clone(),
    };
    traffic.also(both.clone());
    traffic.also(Pin::None);
    traffic.next_phase();
    let third = env.deploy_live(&[]).await?.name;
    traffic.each_is_answered(ANSWERED).await?;

    // Phase 3: the third is live.
    traffic.next_phase();
    new_visitors_reach(&env, &third).await?;
    traffic.each_is_answered(ANSWERED).await?;
    let (tally, _) = traffic.stop().await?;
    assert_eq!(tally.failed, Vec::<String>::new());
    assert_eq!(tally.answers(), tally.sent);
    let only = |id| BTreeSet::from([id]);
    for pin in [script(&first), browser(&first)] {
        assert_eq!(
            tally.answered_by(&pin, 0, 3),
            only(first.as_str()),
            "{pin:?}"
        );
    }
    for pin in [script(&second), browser(&second), both] {
        assert_eq!(
            tally.answered_by(&pin, 2, 3),
            only(second.as_str()),
            "{pin:?}"
        );
    }
    // During a switch, the old one answers new visitors, and the new one may (the phase can end before).
    // Afterwards only the new one does.
    for (phase, old, new) in [(0, &first, &second), (2, &second, &third)] {
        let by = tally.answered_by(&Pin::None, phase, phase);
        assert!(by.contains(&**old), "{by:?} lacks {old}");
        assert!(by.iter().all(|id| id == old || id == new), "{by:?}");
        assert_eq!(
            tally.answered_by(&Pin::None, phase + 1, phase + 1),
            only(new.as_str())
        );
    }

    env.tear_down().await;
    Ok(())
}

/// The deployment answers all new visitors, and sets its cookie.
async fn new_visitors_reach(env: &TestEnvironment, id: &str) -> Result<()> {
    for _ in 0..10 {
        let answer = Visitor::of(env)?.visit(&Pin::None).await?;
        assert_eq!(answer.deployment, id);
        assert_eq!(answer.cookie.as_deref(), Some(id));
    }
    Ok(())
}
