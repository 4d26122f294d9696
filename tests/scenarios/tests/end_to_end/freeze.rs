//! Settings that forbid deployments for now.

use anyhow::{Context, Result};
use scenarios::TestEnvironment;
use serde_json::json;

use crate::settings::put;

const REASON: &str = "the sale runs until Monday";

/// On an environment where a deployment is live and `previous` is warm.
pub async fn a_freeze_stops_deployments_and_no_rollback(
    env: &TestEnvironment,
    previous: &str,
) -> Result<()> {
    let live = env.active().await?.context("nothing is live")?;
    let frozen = json!({"frozen": REASON}).to_string();

    // One that is under way when the freeze begins is held to it before anything marks it as ready.
    env.cloud.ecs().pause_starts(true);
    let under_way = env.new_id();
    env.push(&under_way, &[]).await?;
    env.wait_until_left(&under_way, "CreateService").await?;
    put(env, &frozen).await?;
    env.cloud.ecs().pause_starts(false);
    let failed = env.wait_for_deployment(&under_way).await?;
    assert_eq!(failed.ending(), "Failed", "{}", failed.cause);
    for words in [
        "CheckGate failed (FrozenError)",
        REASON,
        "/pulse/test/settings",
    ] {
        assert!(failed.cause.contains(words), "{}", failed.cause);
    }
    assert_eq!(failed.entered("SwitchTraffic"), None);
    assert_eq!(env.remaining(&under_way).await?, Vec::<String>::new());

    // One that begins is refused.
    let before = env.cloud.calls().newest();
    let refused = env.push_and_wait(&[]).await?;
    assert_eq!(refused.ending(), "Refused", "{}", refused.cause);
    assert!(
        refused.cause.starts_with("FrozenError: "),
        "{}",
        refused.cause
    );
    assert!(refused.cause.contains(REASON), "{}", refused.cause);
    assert_eq!(env.changes_since(before), Vec::<String>::new());
    assert_eq!(env.active().await?.as_ref(), Some(&live));

    // A rescue goes on.
    let input = json!({"deploymentId": previous});
    let rollback = env.run("rollback", &input).await?;
    assert_eq!(rollback.ending(), "Succeeded", "{}", rollback.cause);
    env.reaches_visitors(previous).await?;

    // When it is over, what was refused can be started again.
    put(env, "{}").await?;
    let id = &refused.name;
    let again = env
        .start_by_hand(&format!("{id}-2"), &json!({"deploymentId": id}).to_string())
        .await?;
    assert_eq!(again.ending(), "Succeeded", "{}", again.cause);
    env.reaches_visitors(id).await?;
    env.deploy_live(&[]).await.map(drop)
}
