//! What a cleanup plans and does, by hand and on its schedule, and what it publishes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result};
use localcloud::Options;
use localcloud::gateway::faults::{Fault, FaultRule};
use localcloud::time_scale::TimeScale;
use scenarios::machines::{outcome, planned};
use scenarios::queues::{messages, receive, subscribe, subscribe_to_failures};
use scenarios::visitors::Pin;
use scenarios::{Execution, TestEnvironment, Visitor};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_plans_what_the_next_cleanup_does_and_changes_nothing() -> Result<()> {
    let env = TestEnvironment::deploy_for_cleanups_by_hand().await?;
    let first = env.deploy_live(&[]).await?.name;
    let second = env.deploy_live(&[]).await?.name;
    let third = env.deploy_live(&[]).await?.name;
    // A candidate whose execution is stopped after it has created the service.
    let stopped = env.new_id();
    env.cloud.ecs().pause_starts(true);
    env.push(&stopped, &[]).await?;
    let arn = env.execution_arn(&stopped);
    env.wait_until_left(&stopped, "CreateService").await?;
    // While the execution runs, the candidate is kept.
    assert_eq!(planned(&env.plan().await?, &stopped)?.1, "keep");
    env.stop(&arn).await?;
    env.cloud.ecs().pause_starts(false);

    let before = env.cloud.calls().newest();
    let plan = env.plan().await?;
    assert_eq!(env.changes_since(before), Vec::<String>::new());
    for (id, state, action) in [
        (&first, "previous", "drain"),
        (&second, "previous", "keep"),
        (&third, "active", "keep"),
        (&stopped, "candidate", "delete"),
    ] {
        let (is, due, why) = planned(&plan, id)?;
        assert_eq!((is, due), (state, action), "{id}: {why}");
    }

    let real = env.clean_up().await?;
    let mut found = result_of(&real, "FindDeployments")?;
    found["dryRun"] = json!(true);
    assert_eq!(found, plan);
    let done = real.output["deployments"].as_array();
    let done: BTreeSet<_> = done
        .into_iter()
        .flatten()
        .map(|item| item["deploymentId"].as_str().unwrap_or_default())
        .collect();
    assert_eq!(done, BTreeSet::from([first.as_str(), stopped.as_str()]));
    assert_eq!(outcome(&real, &first)?.0, "draining");
    assert_eq!(outcome(&real, &stopped)?.0, "deleted");
    assert_eq!(env.remaining(&stopped).await?, Vec::<String>::new());

    a_maintenance_page_stays(&env, &third).await?;

    // The default action no longer names a deployment: the cleanup repairs it.
    env.elb
        .modify_listener()
        .listener_arn(env.listener_arn().await?)
        .default_actions(nothing_deployed())
        .send()
        .await?;
    assert_eq!(env.active().await?, None);
    let plan = env.plan().await?;
    assert_eq!(plan["repair"]["deploymentId"], third.as_str(), "{plan}");
    let real = env.clean_up().await?;
    assert_eq!(real.output["repaired"], third.as_str(), "{}", real.output);
    assert_eq!(env.active().await?.as_ref(), Some(&third));
    env.reaches_visitors(&third).await?;

    // A deployment that an operator protects is kept.
    env.tag(&first, "pulse:protected", "yes").await?;
    assert_eq!(planned(&env.plan().await?, &first)?.1, "keep");
    env.clean_up_later().await?;
    assert_eq!(env.tasks(&first).await?.len(), 2);

    a_missing_rule_of_the_active_version_is_made_again(&env, &third).await?;
    env.tear_down().await;
    Ok(())
}

/// An operator shows a page of their own. Nothing is deployed or rolled back meanwhile, a cleanup leaves the page, and
/// visitors with the cookie stay on their version.
async fn a_maintenance_page_stays(env: &TestEnvironment, live: &str) -> Result<()> {
    const PAGE: &str = r#"Type=fixed-response,FixedResponseConfig={StatusCode=503,ContentType=text/plain,MessageBody="We are back at noon."}"#;
    let listener = env.listener_arn().await?;
    let mut show = vec!["elbv2", "modify-listener", "--listener-arn", &listener];
    show.extend(["--default-actions", PAGE]);
    env.aws(&show).await?;
    let actions = format!("{:?}", env.default_actions().await?);
    let id = env.new_id();
    env.push_without_event(&id, &[]).await?;
    let before = env.cloud.calls().newest();
    let input = json!({"deploymentId": id}).to_string();
    let deployed = env.start_by_hand(&id, &input).await?;
    let rollback = env.run("rollback", &json!({})).await?;
    for refused in [deployed, rollback] {
        let Execution { cause, .. } = &refused;
        assert_eq!(refused.ending(), "Refused", "{cause}");
        assert!(cause.contains("DefaultActionNotOursError"), "{cause}");
    }
    assert_eq!(env.changes_since(before), Vec::<String>::new());
    env.clean_up().await?;
    assert_eq!(format!("{:?}", env.default_actions().await?), actions);
    let pinned = Pin::Cookie(live.to_owned());
    assert_eq!(Visitor::of(env)?.visit(&pinned).await?.deployment, live);
    Ok(())
}

/// Somebody deletes a rule that pins visitors to the active version.
async fn a_missing_rule_of_the_active_version_is_made_again(
    env: &TestEnvironment,
    live: &str,
) -> Result<()> {
    let listener = env.listener_arn().await?;
    let rules = async || -> Result<Vec<String>> {
        let query = "Rules[?Priority != 'default'].[RuleArn, Actions[0].TargetGroupArn]";
        let list = [
            "elbv2",
            "describe-rules",
            "--listener-arn",
            &listener,
            "--query",
            query,
        ];
        let rules: Vec<(String, Option<String>)> = serde_json::from_str(&env.aws(&list).await?)?;
        let is_its = |group: &Option<String>| group.as_ref().is_some_and(|it| it.contains(live));
        let own = rules.into_iter().filter(|(_, group)| is_its(group));
        Ok(own.map(|(rule, _)| rule).collect())
    };
    let [by_header, by_cookie] = &rules().await?[..] else {
        anyhow::bail!("{live} has not two rules");
    };
    for (rule, kind) in [(by_cookie, "by cookie"), (by_header, "by header")] {
        env.aws(&["elbv2", "delete-rule", "--rule-arn", rule])
            .await?;
        let planned = env.plan().await?["missingRules"].clone();
        assert_eq!(planned["deploymentId"], live);
        let why = planned["reason"].as_str().unwrap_or_default();
        assert!(why.contains(kind), "{why}");
        let done = env.clean_up().await?.output;
        assert_eq!(done["rulesMade"], live, "{done}");
        assert_eq!(rules().await?.len(), 2);
        assert_eq!(env.plan().await?["missingRules"], Value::Null);
    }
    Ok(())
}

fn nothing_deployed() -> aws_sdk_elasticloadbalancingv2::types::Action {
    use aws_sdk_elasticloadbalancingv2::types::{
        Action, ActionTypeEnum, FixedResponseActionConfig,
    };
    let answer = FixedResponseActionConfig::builder()
        .status_code("503")
        .content_type("text/plain")
        .message_body("Nothing is deployed here yet.")
        .build();
    Action::builder()
        .r#type(ActionTypeEnum::FixedResponse)
        .fixed_response_config(answer)
        .build()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_that_cannot_be_deleted_is_reported_and_does_not_stop_others() -> Result<()> {
    let env = TestEnvironment::deploy_keeping_no_previous().await?;
    let failures = subscribe_to_failures(&env).await?;
    let mut old = Vec::new();
    for _ in 0..2 {
        old.push(env.deploy_live(&[]).await?.name);
    }
    let live = env.deploy_live(&[]).await?.name;
    for id in &old {
        env.drains_since_long_ago(id).await?;
    }
    env.cloud.faults().add(FaultRule::next(
        "elasticloadbalancing",
        "DeleteRule",
        Fault::AccessDenied,
    ));
    let sweep = env.run("cleanup", &json!({})).await?;
    assert_eq!(sweep.ending(), "CleanupFailed");
    let (failed, done): (Vec<_>, Vec<_>) = old.iter().partition(|id| sweep.cause.contains(*id));
    assert_eq!((failed.len(), done.len()), (1, 1), "{}", sweep.cause);
    assert!(sweep.cause.contains("AccessDeniedError"), "{}", sweep.cause);
    assert_eq!(env.remaining(done[0]).await?, Vec::<String>::new());

    env.wait_until(Duration::from_secs(60), async || {
        Ok(messages(&env, &failures).await? > 0)
    })
    .await
    .context("the failure was not published to the topic")?;
    let received = receive(&env, &failures).await?;
    assert_eq!(received.len(), 1, "{received:?}");
    let message = received[0]["Message"].as_str().context("no message")?;
    let failure: Value = serde_json::from_str(message)?;
    assert_eq!(failure["what"], "Cleanup Failed");
    let reason = failure["details"]["reason"].as_str();
    assert!(reason.is_some_and(|reason| reason.contains(failed[0].as_str())));

    // The next cleanup deletes what this one could not.
    let sweep = env.clean_up().await?;
    assert_eq!(outcome(&sweep, failed[0])?.0, "deleted");
    assert_eq!(env.remaining(failed[0]).await?, Vec::<String>::new());
    assert_eq!(env.active().await?, Some(live));
    env.tear_down().await;
    Ok(())
}

/// What a state's function returned.
fn result_of(execution: &Execution, state: &str) -> Result<Value> {
    let from = execution
        .entered(state)
        .context("the state was never entered")?;
    let output = execution.history[from..]
        .iter()
        .find_map(|event| event.task_succeeded_event_details()?.output())
        .context("the task never succeeded")?;
    let output: Value = serde_json::from_str(output)?;
    Ok(output["Payload"].clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_schedule_deletes_what_was_replaced() -> Result<()> {
    // The five minutes of the schedule are 15 s.
    let options = Options {
        time_scale: TimeScale(0.05),
        ..Options::default()
    };
    let parameters = [("PIPELINE_PARAMETERS", "SettleSeconds=0 KeepPrevious=0")];
    let env = TestEnvironment::deploy_as(options, &parameters).await?;
    let old = env.deploy_live(&[]).await?.name;
    let new = env.deploy_live(&[]).await?.name;
    env.wait_until(Duration::from_secs(120), async || {
        Ok(env.remaining(&old).await?.is_empty())
    })
    .await
    .context("the schedule did not delete what was replaced")?;
    assert_eq!(env.active().await?.as_ref(), Some(&new));
    env.reaches_visitors(&new).await?;
    env.tear_down().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_is_published_and_destroy_leaves_nothing() -> Result<()> {
    let env = TestEnvironment::deploy_for_cleanups_by_hand().await?;
    let queue = subscribe(&env).await?;
    let first = env.deploy_live(&[]).await?.name;
    let second = env.deploy_live(&[]).await?.name;
    let rollback = env.run("rollback", &json!({"evict": false})).await?;
    assert_eq!(rollback.ending(), "Succeeded", "{}", rollback.cause);
    env.clean_up().await?;
    let sweep = env.clean_up_later().await?;
    assert_eq!(outcome(&sweep, &second)?.0, "deleted");

    let mut published = BTreeMap::new();
    env.wait_until(Duration::from_secs(60), async || {
        Ok(messages(&env, &queue).await? >= 8)
    })
    .await
    .context("not all events arrived")?;
    for event in receive(&env, &queue).await? {
        let detail = event["detail"].clone();
        assert_eq!(event["source"], "pulse.deploy");
        assert_eq!(detail["environment"], env.name.as_str());
        let execution = detail["execution"].as_str().unwrap_or_default();
        assert!(execution.contains(":execution:test-"), "{event}");
        let kind = event["detail-type"].as_str().unwrap_or_default().to_owned();
        let about = detail["deploymentId"].as_str().unwrap_or_default();
        published.insert((kind, about.to_owned()), detail);
    }
    let detail = |kind: &str, id: &str| {
        published
            .get(&(kind.to_owned(), id.to_owned()))
            .with_context(|| format!("no `{kind}` of {id} in {:?}", published.keys()))
    };
    for id in [&first, &second] {
        let digest = detail("Deployment Started", id)?["imageDigest"].as_str();
        assert!(digest.is_some_and(|digest| digest.starts_with("sha256:")));
    }
    assert_eq!(
        detail("Deployment Live", &first)?["previousDeploymentId"],
        Value::Null
    );
    assert_eq!(
        detail("Deployment Live", &second)?["previousDeploymentId"],
        first.as_str()
    );
    assert_eq!(
        detail("Rollback Done", &first)?["replacedDeploymentId"],
        second.as_str()
    );
    for kind in [
        "Deployment Draining",
        "Deployment Drained",
        "Deployment Deleted",
    ] {
        let reason = detail(kind, &second)?["reason"].as_str();
        assert!(reason.is_some_and(|reason| !reason.is_empty()), "{kind}");
    }
    assert_eq!(published.len(), 8, "{:?}", published.keys());

    // Destroying removes everything, including what visitors use.
    let refused = env.destroy(&[]).await?;
    assert!(
        !refused.status.success(),
        "it did not wait for a confirmation"
    );
    assert_eq!(env.active().await?.as_ref(), Some(&first));
    env.destroy_with_images().await?;
    let stacks = env
        .cloud
        .client()
        .query(
            "cloudformation",
            "2010-05-15",
            &[("Action", "DescribeStacks")],
        )
        .await?;
    assert!(!stacks.contains("test-pipeline"), "{stacks}");
    assert!(!stacks.contains("test-baseline"), "{stacks}");
    let groups = env.elb.describe_target_groups().send().await?;
    assert_eq!(groups.target_groups().len(), 0);
    let balancers = env.elb.describe_load_balancers().send().await?;
    assert_eq!(balancers.load_balancers().len(), 0);
    assert!(env.cloud.ecs().processes().is_empty());
    let definitions = env.ecs.list_task_definitions().send().await?;
    assert_eq!(
        definitions.task_definition_arns(),
        Vec::<String>::new().as_slice()
    );
    env.tear_down().await;
    Ok(())
}
