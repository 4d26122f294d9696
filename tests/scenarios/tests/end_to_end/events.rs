//! Push events arrive more than once, late and in any order.

use std::collections::BTreeSet;

use anyhow::Result;
use localcloud::Options;
use localcloud::gateway::ecr::Outcome;
use localcloud::time_scale::TimeScale;
use scenarios::TestEnvironment;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_or_reordered_events_start_one_execution_per_id_and_the_newest_stays_active()
-> Result<()> {
    let env = TestEnvironment::deploy_for_cleanups_by_hand().await?;
    let events = env.cloud.push_events().clone();
    let (older, newer) = (env.new_id(), env.new_id());
    let tags = [&older, &newer, &format!("KEEP-{older}")];
    let pushed = env.push_without_events(&tags, &[]).await?;
    let [older_event, newer_event, kept] = &pushed[..] else {
        panic!("not three events: {pushed:?}");
    };
    // A tag that keeps an image is not a deployment.
    assert_eq!(events.deliver(kept).await?, []);
    assert_eq!(env.executions().await?, Vec::<String>::new());

    // The newer event arrives first, three times, two of them at once.
    let (one, two) = tokio::join!(events.deliver(newer_event), events.deliver(newer_event));
    for delivery in [one?, two?, events.deliver(newer_event).await?] {
        assert_eq!(delivery, [Outcome::Delivered]);
    }
    let execution = env.wait_for_deployment(&newer).await?;
    assert_eq!(execution.ending(), "Succeeded", "{}", execution.cause);
    env.reaches_visitors(&newer).await?;

    // The older event arrives late, twice, and changes nothing.
    let before = env.cloud.calls().newest();
    events.deliver(older_event).await?;
    events.deliver(older_event).await?;
    let execution = env.wait_for_deployment(&older).await?;
    assert_eq!(execution.ending(), "Superseded", "{}", execution.cause);
    let note = execution.output["note"].as_str().unwrap_or_default();
    assert!(note.contains(&newer), "{}", execution.output);
    assert_eq!(env.changes_since(before), Vec::<String>::new());

    // Both arrive once more, after their executions.
    events.deliver(newer_event).await?;
    events.deliver(older_event).await?;
    env.events_are_acted_on(0, 7).await?;
    assert_eq!(env.changes_since(before), Vec::<String>::new());
    let names = env.executions().await?;
    assert_eq!(names.len(), 2, "{names:?}");
    assert_eq!(
        BTreeSet::from_iter(names),
        BTreeSet::from([older.clone(), newer.clone()])
    );
    assert_eq!(env.active().await?, Some(newer));
    assert_eq!(env.remaining(&older).await?, Vec::<String>::new());
    env.tear_down().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_images_pushed_at_the_same_time_the_newest_goes_live() -> Result<()> {
    // Slower than usual, so that ECS waits for the slow start of the oldest.
    let options = Options {
        time_scale: TimeScale(0.2),
        ..Options::default()
    };
    let env = TestEnvironment::deploy_with(options).await?;
    let (slow, quick, newest) = (env.new_id(), env.new_id(), env.new_id());
    // The oldest is ready last.
    let variables = [("START_DELAY_SECONDS", "9")];
    tokio::try_join!(
        env.push(&newest, &[]),
        env.push(&quick, &[]),
        env.push(&slow, &variables)
    )?;
    let (slow, quick, newest) = tokio::try_join!(
        env.wait_for_deployment(&slow),
        env.wait_for_deployment(&quick),
        env.wait_for_deployment(&newest)
    )?;

    assert_eq!(newest.ending(), "Succeeded", "{}", newest.cause);
    assert_eq!(env.active().await?.as_ref(), Some(&newest.name));
    env.reaches_visitors(&newest.name).await?;

    // It was created, and found a newer one live when it was ready. This is not a failure.
    assert_eq!(slow.ending(), "Superseded", "{}", slow.cause);
    assert_eq!(slow.output["outcome"], "superseded");
    assert!(slow.entered("CreateService").is_some(), "{:?}", slow.path());
    assert_eq!(env.remaining(&slow.name).await?, Vec::<String>::new());

    // Whether it was live for a moment depends on the order.
    let was_live = env.was_live(&quick.name).await?;
    match quick.ending() {
        "Succeeded" => assert!(was_live),
        ending => {
            assert_eq!(ending, "Superseded", "{}", quick.cause);
            let note = quick.output["note"].as_str().unwrap_or_default();
            assert!(note.contains(&newest.name), "{note}");
        }
    }
    env.tear_down().await;
    Ok(())
}
