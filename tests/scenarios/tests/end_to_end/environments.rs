//! Two environments side by side in one account.

use anyhow::Result;
use scenarios::TestEnvironment;
use scenarios::machines::BY_HAND;
use scenarios::visitors::Pin;
use scenarios::{Traffic, Visitor};
use serde_json::json;

/// Everything of an environment that a deployment or a rollback changes: the default action and the rules of the
/// listener, the services with their task definitions and counts, and the tags of the target groups.
async fn state_of(env: &TestEnvironment, ids: &[&str]) -> Result<String> {
    let listener = env.listener_arn().await?;
    let rules = env
        .elb
        .describe_rules()
        .listener_arn(listener)
        .send()
        .await?;
    let mut state = format!("{:?}\n{:?}\n", env.default_actions().await?, rules.rules());
    let services = env.ecs.list_services().cluster(&env.name).send().await?;
    state += &format!("{:?}\n", services.service_arns());
    for id in ids {
        let service = env.service(id).await?;
        state += &format!(
            "{id}: {:?}, {:?}, {} of {} tasks, {:?}\n",
            service.status(),
            service.task_definition(),
            service.running_count(),
            service.desired_count(),
            env.tags(id).await?,
        );
    }
    Ok(state)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_and_a_rollback_in_one_environment_change_nothing_in_another() -> Result<()> {
    let test = TestEnvironment::deploy_for_cleanups_by_hand().await?;
    let prod = test
        .beside("prod", &[("PIPELINE_PARAMETERS", BY_HAND)])
        .await?;
    assert_ne!(test.url(), prod.url());

    // A push to each, at the same time.
    let (first, live) = tokio::try_join!(test.deploy_live(&[]), prod.deploy_live(&[]))?;
    let (first, live) = (first.name, live.name);
    assert!(first.starts_with("test-") && live.starts_with("prod-"));
    let before = state_of(&prod, &[&live]).await?;
    let newest = test.cloud.calls().newest();
    let visitors = Traffic::start(&prod, 50, vec![Pin::None, Pin::Cookie(live.clone())])?;

    let second = test.deploy_live(&[]).await?.name;
    let ended = test.run("rollback", &json!({})).await?;
    assert_eq!(ended.ending(), "Succeeded", "{}", ended.cause);
    assert_eq!(ended.output["replacedDeploymentId"], second);
    test.reaches_visitors(&first).await?;

    let (tally, _) = visitors.stop().await?;
    assert_eq!(tally.failed, Vec::<String>::new());
    let answered_by: Vec<&str> = tally.answered.keys().map(|(_, id)| id.as_str()).collect();
    assert_eq!(answered_by, [live.as_str(); 2], "{:?}", tally.answered);
    assert_eq!(state_of(&prod, &[&live]).await?, before);
    let changes = test.change_calls_since(newest);
    let by_test =
        |function: &Option<String>| function.as_ref().is_some_and(|it| it.starts_with("test-"));
    assert!(!changes.is_empty());
    let by_others = changes.iter().filter(|call| !by_test(&call.function));
    assert_eq!(
        by_others.collect::<Vec<_>>(),
        Vec::<&localcloud::gateway::calls::Call>::new()
    );

    // The other way round, a visitor of one environment who brings the cookie of the other gets the live version.
    let foreign = Visitor::of(&test)?.visit(&Pin::Cookie(live)).await?;
    assert_eq!(foreign.deployment, first);

    prod.tear_down().await;
    test.tear_down().await;
    Ok(())
}
