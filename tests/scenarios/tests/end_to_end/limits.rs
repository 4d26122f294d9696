//! AWS's limits, and one more than they allow: rules and target groups of a load balancer, history and
//! data of an execution, and the time of a function.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aws_sdk_elasticloadbalancingv2::types::Rule;
use bytes::Bytes;
use http::Method;
use localcloud::gateway::faults::{Fault, FaultRule};
use localcloud::{Options, time_scale::TimeScale};
use scenarios::machines::{BY_HAND, outcome};
use scenarios::{Execution, TestEnvironment};
use serde_json::{Value, json};

/// The events of an execution, and the bytes of a state's input or output:
/// <https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html>.
const MAX_EVENTS: usize = 25_000;
const MAX_BYTES: usize = 262_144;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_over_a_quota_is_refused_with_advice() -> Result<()> {
    let env = TestEnvironment::deploy_keeping_no_previous().await?;
    let mut ours = vec![env.deploy_live(&[]).await?.name];
    let mut others = Others::on(&env, &ours[0]).await?;

    // 98 of 100 rules: one more deployment fits.
    others.fill_up_to(98).await?;
    ours.push(env.deploy_live(&[]).await?.name);
    assert_eq!(rules(&env).await?.len(), 100);
    let advice = ["run the cleanup machine", "raise the quota \"Rules per"];
    is_refused(
        &env,
        "needs 2 more rules, and the load balancer has 100 of 100",
        &advice,
    )
    .await?;
    others.remove_rules(1).await?;
    is_refused(
        &env,
        "needs 2 more rules, and the load balancer has 99 of 100",
        &advice,
    )
    .await?;
    others.remove_rules(1).await?;
    ours.push(race_for_the_last_rules(&env).await?);
    assert_eq!(rules(&env).await?.len(), 100);

    // 99 of 100 target groups: one more deployment fits.
    others.remove_rules(usize::MAX).await?;
    others.route_to_groups(99 - ours.len()).await?;
    assert_eq!(groups(&rules(&env).await?).len(), 99);
    ours.push(env.deploy_live(&[]).await?.name);
    assert_eq!(groups(&rules(&env).await?).len(), 100);
    let advice = ["run the cleanup machine", "cannot be raised"];
    let why = "needs 1 more target groups, and the load balancer has 100 of 100";
    is_refused(&env, why, &advice).await?;
    others.remove_rules(usize::MAX).await?;

    ours.push(a_function_that_runs_out_of_time_is_retried(&env).await?);
    ours.push(the_largest_environment_passes_the_machine(&env).await?);
    a_thousand_rules(&env, &mut others, ours).await?;
    env.tear_down().await;
    Ok(())
}

/// A deployment is refused with this reason and advice, and changes nothing.
async fn is_refused(env: &TestEnvironment, why: &str, advice: &[&str]) -> Result<()> {
    let id = env.new_id();
    let active = env.active().await?;
    env.push_without_event(&id, &[]).await?;
    let before = env.cloud.calls().newest();
    let input = json!({"deploymentId": id}).to_string();
    let ended = env.start_by_hand(&id, &input).await?;
    assert_eq!(
        (ended.ending(), ended.error.as_str()),
        ("Refused", "Refused")
    );
    assert!(
        ended.cause.starts_with("QuotaExceededError: "),
        "{}",
        ended.cause
    );
    for words in [why].iter().chain(advice) {
        assert!(ended.cause.contains(words), "no `{words}`: {}", ended.cause);
    }
    assert_eq!(env.changes_since(before), Vec::<String>::new());
    assert_eq!(env.remaining(&id).await?, Vec::<String>::new());
    assert_eq!(env.active().await?, active);
    Ok(())
}

/// Two deployments race for the last two rules, and get one each. The newest gets both in the end; returns it.
async fn race_for_the_last_rules(env: &TestEnvironment) -> Result<String> {
    let ids = [env.new_id(), env.new_id()];
    env.push_without_events(&ids, &[]).await?;
    let [older, newer] = ids;
    let start = async |id: &str| env.start("deploy", &json!({"deploymentId": id})).await;

    // Both find two rules free.
    let group = env.hold_calls(
        "create-target-group",
        "elasticloadbalancing",
        "CreateTargetGroup",
    );
    let one = start(&older).await?;
    env.call_arrived(&group).await?;
    let definition = env.hold_calls("register-task-definition", "ecs", "RegisterTaskDefinition");
    let other = start(&newer).await?;
    env.call_arrived(&definition).await?;

    // The older creates its first rule, and stands still at the second one while the newer creates its first.
    let function = format!("{}-create-listener-rule", env.name);
    let never = Fault::Slow {
        milliseconds: 3_600_000,
    };
    let second = FaultRule::next("elasticloadbalancing", "CreateRule", never).at(2);
    env.cloud.faults().add(second.clone());
    env.let_go(&group);
    env.call_arrived(&second).await?;
    let process = process_of(env, &function)?;
    signal("STOP", &process).await?;
    env.let_go(&definition);
    env.wait_until(Duration::from_secs(60), async || {
        let execution = Execution::read(&env.sfn, &other).await?;
        let mut failures = execution
            .history
            .iter()
            .filter_map(|event| event.task_failed_event_details()?.cause());
        let why = format!("the older {older} lacks a rule too and gives way");
        Ok(failures.any(|cause| cause.contains(&why)))
    })
    .await
    .context("the newer deployment does not lack a rule")?;
    signal("CONT", &process).await?;

    let (older_ended, newer_ended) =
        tokio::try_join!(env.wait_for_execution(&one), env.wait_for_execution(&other))?;
    env.cloud.faults().clear();
    let Execution { cause, .. } = &older_ended;
    assert_eq!(older_ended.ending(), "Failed", "{cause}");
    assert!(cause.contains("QuotaExceededError"), "{cause}");
    assert_eq!(env.remaining(&older).await?, Vec::<String>::new());
    let Execution { cause, .. } = &newer_ended;
    assert_eq!(newer_ended.ending(), "Succeeded", "{cause}");
    assert_eq!(env.active().await?.as_ref(), Some(&newer));
    env.reaches_visitors(&newer).await?;
    Ok(newer)
}

/// Deploys, undoes and cleans up with a quota of 1,000 rules.
async fn a_thousand_rules(
    env: &TestEnvironment,
    others: &mut Others<'_>,
    ours: Vec<String>,
) -> Result<()> {
    const RAISED: usize = 1_000;
    env.cloud.set_rules_per_load_balancer(RAISED);
    // Foreign rules take the priorities that ours would get.
    let taken = rules(env).await?;
    let taken: BTreeSet<u32> = taken.iter().filter_map(priority).collect();
    let free = |from: u32| (from..).filter(|priority| !taken.contains(priority));
    let more = RAISED - 2 - taken.len();
    let at: Vec<u32> = (free(100).take(more / 2))
        .chain(free(20_100).take(more - more / 2))
        .collect();
    others.rules_at(&at).await?;
    let (header, cookie) = (free(100).nth(more / 2), free(20_100).nth(more - more / 2));
    let last = env.deploy_live(&[]).await?;
    assert_eq!(priorities(&last)?, (header, cookie));
    assert_eq!(rules(env).await?.len(), RAISED);
    let why = "needs 2 more rules, and the load balancer has 1000 of 1000";
    is_refused(env, why, &["run the cleanup machine"]).await?;

    // A deployment takes free priorities in between, and its undo frees them.
    others.remove_rules_at(&[300, 20_300]).await?;
    let crashed = env.push_and_wait(&[("CRASH_ON_START", "3")]).await?;
    assert_eq!(crashed.ending(), "Failed", "{}", crashed.cause);
    assert_eq!(priorities(&crashed)?, (Some(300), Some(20_300)));
    assert_eq!(env.remaining(&crashed.name).await?, Vec::<String>::new());

    // An earlier cleanup began to delete all other deployments, and died.
    for id in &ours {
        env.drains_since_long_ago(id).await?;
        env.tag(id, "pulse:deleting-since", "2026-01-01T00:10:00Z")
            .await?;
    }
    let before = env.cloud.calls().newest();
    env.plan().await?;
    let calls = env.cloud.calls().since(before);
    let pages = calls
        .iter()
        .filter(|call| call.operation == "DescribeRules" && !call.caller.ends_with(":root"));
    // The two rules of the crashed one are gone, and the default rule is a rule too.
    assert_eq!(pages.count(), (RAISED - 2 + 1usize).div_ceil(400));
    let sweep = env.clean_up().await?;
    for id in &ours {
        assert_eq!(outcome(&sweep, id)?.0, "deleted");
        assert_eq!(env.remaining(id).await?, Vec::<String>::new());
    }
    assert_eq!(rules(env).await?.len(), RAISED - 2 - 2 * ours.len());
    env.reaches_visitors(&last.name).await?;
    Ok(())
}

/// The priorities of the rules that the execution created.
fn priorities(execution: &Execution) -> Result<(Option<u32>, Option<u32>)> {
    let made = execution.output_of("CreateListenerRule")?;
    let of = |rule: &str| {
        let priority = made["Payload"][rule]["priority"].as_u64();
        priority.and_then(|priority| u32::try_from(priority).ok())
    };
    Ok((of("headerRule"), of("cookieRule")))
}

/// A function waits for a call longer than its timeout, and another hangs until Lambda kills it.
async fn a_function_that_runs_out_of_time_is_retried(env: &TestEnvironment) -> Result<String> {
    let function = format!("{}-create-target-group", env.name);
    let path = format!("/2015-03-31/functions/{function}/configuration");
    let configured = env
        .cloud
        .client()
        .rest("lambda", Method::GET, &path, Bytes::new())
        .await?;
    let configured: Value = serde_json::from_slice(&configured)?;
    let set_timeout = async |timeout: &Value| {
        let body = Bytes::from(json!({"Timeout": timeout}).to_string());
        let client = env.cloud.client();
        client.rest("lambda", Method::PUT, &path, body).await
    };
    set_timeout(&json!(3)).await?;

    let slow = Fault::Slow {
        milliseconds: 4_000,
    };
    let fault = FaultRule::next("elasticloadbalancing", "CreateTargetGroup", slow);
    env.cloud.faults().add(fault);
    let waited = env.deploy_live(&[]).await?;
    // On a slow machine, the retry may run out of time as well.
    let errors = BTreeSet::from_iter(waited.task_errors());
    assert!(errors.contains("TransientError"), "{errors:?}");
    let failed = waited
        .history
        .iter()
        .filter_map(|event| event.task_failed_event_details());
    let why: Vec<_> = failed.filter_map(|details| details.cause()).collect();
    let words = "stopped before Lambda's timeout";
    assert!(why.iter().any(|why| why.contains(words)), "{why:?}");

    // The idle process is stopped, and does not react to its next event.
    let frozen = process_of(env, &function)?;
    signal("STOP", &frozen).await?;
    let stuck = env.deploy_live(&[]).await?;
    let errors = BTreeSet::from_iter(stuck.task_errors());
    assert!(errors.contains("Sandbox.Timedout"), "{errors:?}");
    set_timeout(&configured["Timeout"]).await?;
    // Both exist, each once.
    for id in [&waited.name, &stuck.name] {
        let all = rules(env).await?;
        let own = all
            .iter()
            .filter(|rule| groups([*rule]).iter().any(|arn| arn.contains(id.as_str())));
        assert_eq!(own.count(), 2, "{id}");
    }
    // The caller deletes the newest one, and this cleanup deletes the other one.
    env.drains_since_long_ago(&waited.name).await?;
    env.tag(&waited.name, "pulse:deleting-since", "2026-01-01T00:10:00Z")
        .await?;
    let sweep = env.clean_up().await?;
    ensure!(!sweep.output.is_null(), "the cleanup has no output");
    Ok(stuck.name)
}

/// The process that runs a function of this environment.
fn process_of(env: &TestEnvironment, function: &str) -> Result<String> {
    let wanted = [
        format!("AWS_LAMBDA_FUNCTION_NAME={function}"),
        format!("AWS_ENDPOINT_URL={}", env.cloud.endpoint_url()),
    ];
    let is_it = |folder: &PathBuf| {
        let environment = std::fs::read(folder.join("environ")).unwrap_or_default();
        let variables: Vec<_> = environment.split(|byte| *byte == 0).collect();
        wanted
            .iter()
            .all(|wanted| variables.contains(&wanted.as_bytes()))
    };
    std::fs::read_dir("/proc")?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(is_it)
        .and_then(|folder| Some(folder.file_name()?.to_string_lossy().into_owned()))
        .with_context(|| format!("no process runs {function}"))
}

/// Sends a signal to a process.
async fn signal(name: &str, process: &str) -> Result<()> {
    let mut kill = tokio::process::Command::new("kill");
    let sent = kill.args(["-s", name, process]).status().await?;
    ensure!(sent.success(), "process {process} is gone");
    Ok(())
}

/// The longest variable that is accepted. One more byte is refused, and the field is named.
async fn the_largest_environment_passes_the_machine(env: &TestEnvironment) -> Result<String> {
    let start = async |length| -> Result<Execution> {
        let id = env.new_id();
        env.push_without_event(&id, &[]).await?;
        let input = json!({"deploymentId": id, "environment": {"LONG": "x".repeat(length)}});
        env.start_by_hand(&id, &input.to_string()).await
    };
    // ECS adds 27 bytes around the text.
    let refused = start(32_742).await?;
    assert_eq!(refused.ending(), "Refused");
    assert!(
        refused.cause.contains("`environment`: takes 32769 bytes"),
        "{}",
        refused.cause
    );
    let live = start(32_741).await?;
    assert_eq!(live.ending(), "Succeeded", "{}", live.cause);
    let (bytes, whose) = live.largest_data();
    println!("| the largest environment | {bytes} bytes, {whose} |");
    assert!(bytes > 32_000 && bytes < MAX_BYTES / 7, "{bytes}");
    Ok(live.name)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_longest_wait_and_the_longest_input_stay_far_below_the_limits_of_an_execution()
-> Result<()> {
    let options = Options {
        time_scale: TimeScale(0.02),
        ..Options::default()
    };
    let env = TestEnvironment::deploy_as(options, &[("PIPELINE_PARAMETERS", BY_HAND)]).await?;

    // Almost as much input as Step Functions accepts, which the refusal quotes.
    let id = env.new_id();
    for (name, input) in [
        (
            "long-field",
            json!({"deploymentId": id, "x".repeat(250_000): 1}),
        ),
        ("long-id", json!({"deploymentId": "x".repeat(250_000)})),
        (
            "long-value",
            json!({"deploymentId": id, "cpu": "\u{1}".repeat(40_000)}),
        ),
    ] {
        let ended = env.start_by_hand(name, &input.to_string()).await?;
        assert_eq!(
            ended.ending(),
            "Refused",
            "{name}: {} {}",
            ended.error,
            ended.cause
        );
        assert!(
            ended
                .cause
                .starts_with("InvalidInputError: invalid input: "),
            "{name}"
        );
        assert!(ended.cause.len() < 4_200, "{name}: {}", ended.cause.len());
    }

    // The image pull never ends, so that the tasks stay pending.
    let event = env.push_without_event(&id, &[]).await?;
    let pull = format!("GET /v2/{}/manifests/{}", env.name, event.digest);
    let slow = Fault::Slow {
        milliseconds: 600_000,
    };
    env.cloud
        .faults()
        .add(FaultRule::next("ecr", &pull, slow).forever());
    let input = json!({"deploymentId": id}).to_string();
    let ended = env.start_by_hand(&id, &input).await?;
    assert_eq!(ended.ending(), "Failed", "{}", ended.cause);
    for words in ["OutOfTime", "not healthy after 600 s"] {
        assert!(ended.cause.contains(words), "{}", ended.cause);
    }
    assert_eq!(env.remaining(&id).await?, Vec::<String>::new());
    let path = ended.path();
    let count = |state| path.iter().filter(|entered| **entered == state).count();
    let (checks, waits) = (count("CheckTargetHealth"), count("WaitForTargets"));
    // There are fewer than one every five seconds, because the checks themselves take time.
    let most = 600 / 5 + 1;
    assert!((2..=most).contains(&checks), "{checks}");
    assert_eq!(waits, checks);
    let (events, (bytes, whose)) = (ended.events_on_aws(), ended.largest_data());
    println!("| {checks} checks and the undo | {events} events | {bytes} bytes, {whose} |");
    // The others, of the beginning and the undo, are few.
    assert!(events > 9 * checks, "{events}");
    assert!(events * most / checks < MAX_EVENTS / 10, "{events}");
    assert!(bytes < MAX_BYTES / 10, "{bytes}");
    env.tear_down().await;
    Ok(())
}

/// Foreign rules and target groups, created past the gateway, where a thousand take little time.
struct Others<'a> {
    env: &'a TestEnvironment,
    listener: String,
    vpc: String,
    /// Priorities and ARNs.
    rules: Vec<(u32, String)>,
    groups: usize,
}

impl Others<'_> {
    /// Creates none yet. They will be in the network of the deployment `like`.
    async fn on<'a>(env: &'a TestEnvironment, like: &str) -> Result<Others<'a>> {
        let described = env.elb.describe_target_groups().names(like).send().await?;
        let vpc = described
            .target_groups()
            .first()
            .and_then(|group| group.vpc_id());
        Ok(Others {
            env,
            listener: env.listener_arn().await?,
            vpc: vpc.context("no VPC")?.to_owned(),
            rules: Vec::new(),
            groups: 0,
        })
    }

    /// Creates rules until the listener has `number` rules, including ours.
    async fn fill_up_to(&mut self, number: usize) -> Result<()> {
        let more = number - rules(self.env).await?.len();
        let at: Vec<u32> = (30_000..).take(more).collect();
        self.rules_at(&at).await?;
        assert_eq!(rules(self.env).await?.len(), number);
        Ok(())
    }

    async fn rules_at(&mut self, priorities: &[u32]) -> Result<()> {
        for priority in priorities {
            let answer = [
                ("Actions.member.1.Type", "fixed-response"),
                ("Actions.member.1.FixedResponseConfig.StatusCode", "404"),
            ];
            self.rule(*priority, &answer).await?;
        }
        Ok(())
    }

    /// Creates `number` target groups, and rules to five of them each, the most that AWS allows.
    async fn route_to_groups(&mut self, number: usize) -> Result<()> {
        let mut groups = Vec::new();
        for _ in 0..number {
            self.groups += 1;
            let name = format!("others-{}", self.groups);
            let create = [
                ("Name", name.as_str()),
                ("Protocol", "HTTP"),
                ("Port", "8000"),
                ("TargetType", "ip"),
                ("VpcId", &self.vpc),
            ];
            groups.push(
                self.call("CreateTargetGroup", &create, "TargetGroupArn")
                    .await?,
            );
        }
        for (number, groups) in (31_000..).zip(groups.chunks(5)) {
            let forward: Vec<(String, &String)> = (1..)
                .zip(groups)
                .map(|(n, arn)| {
                    let field = format!("ForwardConfig.TargetGroups.member.{n}.TargetGroupArn");
                    (format!("Actions.member.1.{field}"), arn)
                })
                .collect();
            let mut action = vec![("Actions.member.1.Type", "forward")];
            action.extend(
                forward
                    .iter()
                    .map(|(field, arn)| (field.as_str(), arn.as_str())),
            );
            self.rule(number, &action).await?;
        }
        Ok(())
    }

    async fn rule(&mut self, priority: u32, action: &[(&str, &str)]) -> Result<()> {
        let (number, path) = (priority.to_string(), format!("/other/{priority}"));
        let mut create = vec![
            ("ListenerArn", self.listener.as_str()),
            ("Priority", &number),
            ("Conditions.member.1.Field", "path-pattern"),
            (
                "Conditions.member.1.PathPatternConfig.Values.member.1",
                &path,
            ),
        ];
        create.extend(action);
        let arn = self.call("CreateRule", &create, "RuleArn").await?;
        self.rules.push((priority, arn));
        Ok(())
    }

    /// Deletes up to `number` rules, the newest first.
    async fn remove_rules(&mut self, number: usize) -> Result<()> {
        for _ in 0..number.min(self.rules.len()) {
            let (_, arn) = self.rules.pop().context("no rule")?;
            self.delete(&arn).await?;
        }
        Ok(())
    }

    async fn remove_rules_at(&mut self, priorities: &[u32]) -> Result<()> {
        for priority in priorities {
            let position = self.rules.iter().position(|(at, _)| at == priority);
            let (_, arn) = self
                .rules
                .remove(position.context("no rule with this priority")?);
            self.delete(&arn).await?;
        }
        Ok(())
    }

    async fn delete(&self, rule: &str) -> Result<()> {
        let client = self.env.cloud.client();
        let delete = [("Action", "DeleteRule"), ("RuleArn", rule)];
        client
            .query("elasticloadbalancing", "2015-12-01", &delete)
            .await?;
        Ok(())
    }

    /// Calls Elastic Load Balancing; returns the first value of a field in the answer.
    async fn call(&self, action: &str, parameters: &[(&str, &str)], field: &str) -> Result<String> {
        let mut all = vec![("Action", action)];
        all.extend(parameters);
        let client = self.env.cloud.client();
        let xml = client
            .query("elasticloadbalancing", "2015-12-01", &all)
            .await?;
        let value = xml
            .split_once(&format!("<{field}>"))
            .and_then(|(_, rest)| rest.split_once('<'));
        Ok(value
            .with_context(|| format!("{action}: {xml}"))?
            .0
            .to_owned())
    }
}

/// The listener's rules on all pages, without the default rule.
async fn rules(env: &TestEnvironment) -> Result<Vec<Rule>> {
    let listener = env.listener_arn().await?;
    let list = env
        .elb
        .describe_rules()
        .listener_arn(listener)
        .page_size(400);
    let mut pages = list.into_paginator().items().send();
    let mut found = Vec::new();
    while let Some(rule) = pages.next().await {
        found.push(rule?);
    }
    found.retain(|rule| rule.is_default() != Some(true));
    Ok(found)
}

fn priority(rule: &Rule) -> Option<u32> {
    rule.priority()?.parse().ok()
}

/// The target groups that these rules forward to.
fn groups<'a>(rules: impl IntoIterator<Item = &'a Rule>) -> BTreeSet<String> {
    rules
        .into_iter()
        .flat_map(|rule| rule.actions())
        .filter_map(|action| action.forward_config())
        .flat_map(|config| config.target_groups())
        .filter_map(|group| group.target_group_arn().map(str::to_owned))
        .collect()
}
