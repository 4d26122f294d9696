//! Many deployments, and many foreign resources.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use aws_sdk_ecs::types::ServiceField;
use aws_sdk_elasticloadbalancingv2::types::{
    Action, ActionTypeEnum, FixedResponseActionConfig, PathPatternConditionConfig, RuleCondition,
};
use scenarios::blueprint::{Tags, forward, header};
use scenarios::visitors::AFFINITY;
use scenarios::{Blueprint, TestEnvironment};
use serde_json::json;

/// More than a page of services, and together with ours more than a page of rules.
const FOREIGN_SERVICES: usize = 45;
const FOREIGN_GROUPS: usize = 30;
const FOREIGN_RULES: usize = 290;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_deployments_are_handled_in_few_calls_and_foreign_resources_do_not_change()
-> Result<()> {
    let env = TestEnvironment::deploy_keeping_no_previous().await?;
    env.cloud.set_rules_per_load_balancer(500);
    let live = env.deploy_live(&[]).await?.name;
    let maker = Maker::of(&env, &live).await?;

    // A cleanup reads protected deployments like others, but has nothing to do for them.
    let mut ids = Vec::new();
    println!("| Deployments | Calls | of which |");
    println!("|---|---|---|");
    for (number, documented) in [(10, 10), (30, 13), (60, 17)] {
        while ids.len() + 1 < number {
            ids.push(maker.make(&env, ids.len()).await?);
        }
        let calls = one_idle_cleanup(&env).await?;
        let total: usize = calls.values().sum();
        println!("| {number} | {total} | {} |", describe(&calls));
        assert_eq!(total, documented, "{calls:?}");
        assert_eq!(total, formula(&Counts::ours(number)), "{calls:?}");
    }

    maker.make_foreign(&env).await?;
    let foreign = foreign(&env, &ids, &live).await?;
    assert_eq!(
        foreign.len(),
        FOREIGN_SERVICES + FOREIGN_GROUPS + FOREIGN_RULES
    );
    let calls = one_idle_cleanup(&env).await?;
    let total: usize = calls.values().sum();
    println!("| 60 and foreign ones | {total} | {} |", describe(&calls));
    let ours = Counts::ours(60);
    let counts = Counts {
        rules: ours.rules + FOREIGN_RULES,
        groups: ours.groups + FOREIGN_GROUPS,
        groups_named_like_ours: 60 + NAMED_LIKE_OURS,
        services: 60 + FOREIGN_SERVICES,
        services_named_like_ours: 60 + NAMED_LIKE_OURS,
        revisions: 60,
    };
    assert!(counts.rules > 400 && counts.services > 100);
    assert_eq!(total, formula(&counts), "{calls:?}");

    // Some of them are deleted, then all the others.
    let (some, rest) = ids.split_at(12);
    for group in [some, rest] {
        maker.unprotect(&env, group).await?;
        let plan = env.plan().await?;
        let due = plan["deployments"].as_array().context("no plan")?;
        let due = due.iter().filter(|item| item["action"] != "keep").count();
        assert_eq!(due, group.len());
        // An empty list of tasks needs a second sweep.
        let first = env.clean_up().await?;
        let drained = first.output["deployments"].as_array().context("nothing")?;
        assert_eq!(drained.len(), group.len());
        assert!(drained.iter().all(|item| item["outcome"] == "draining"));
        let sweep = env.clean_up_later().await?;
        let (bytes, whose) = sweep.largest_data();
        // A poll adds nine events with its choice and its wait, and each item up to twenty.
        let events = sweep.history.len() + 9 * sweep.tasks() + 20 * due;
        println!("| {due} deletions | {events} events | {bytes} bytes, {whose} |");
        // Half of the events that AWS allows and a tenth of the bytes, for about half of the deployments
        // that fit a load balancer. There is room because the number of polls depends on ECS.
        assert!(events < 25_000 / 2 && bytes < 262_144 / 10);
        let done = sweep.output["deployments"].as_array().context("nothing")?;
        assert_eq!(done.len(), group.len());
        for item in done {
            assert_eq!(item["outcome"], "deleted", "{item}");
        }
    }
    for id in &ids {
        assert_eq!(env.remaining(id).await?, Vec::<String>::new(), "{id}");
    }
    let after = self::foreign(&env, &ids, &live).await?;
    for (name, before) in &foreign {
        assert_eq!(after.get(name), Some(before), "{name} changed");
    }
    assert_eq!(after.len(), foreign.len());
    assert_eq!(env.active().await?.as_ref(), Some(&live));
    env.reaches_visitors(&live).await?;
    env.tear_down().await;
    Ok(())
}

/// How many foreign services and target groups have a name like a deployment's.
const NAMED_LIKE_OURS: usize = 3;

/// How many resources a cleanup reads.
struct Counts {
    rules: usize,
    groups: usize,
    groups_named_like_ours: usize,
    services: usize,
    services_named_like_ours: usize,
    revisions: usize,
}

impl Counts {
    /// The resources of `number` deployments and nothing else. The default rule and that for `/drain` are rules too.
    fn ours(number: usize) -> Counts {
        Counts {
            rules: 2 * number + 2,
            groups: number,
            groups_named_like_ours: number,
            services: number,
            services_named_like_ours: number,
            revisions: number,
        }
    }
}

/// The number of calls that `find_deployments::facts::read` documents, without executions and leftovers.
fn formula(counts: &Counts) -> usize {
    3 + counts.rules.div_ceil(400)
        + counts.groups.div_ceil(400)
        + counts.groups_named_like_ours.div_ceil(20)
        + counts.services.div_ceil(100)
        + counts.services_named_like_ours.div_ceil(10)
        + counts.revisions.div_ceil(100)
        + 1
}

/// Runs a cleanup that has nothing to do, and counts its calls by operation. An earlier one notes what the
/// deployments that were made since did not have noted yet.
async fn one_idle_cleanup(env: &TestEnvironment) -> Result<BTreeMap<String, usize>> {
    env.clean_up().await?;
    let before = env.cloud.calls().newest();
    let sweep = env.clean_up().await?;
    assert_eq!(sweep.output["deployments"], json!([]));
    let mut calls = BTreeMap::new();
    for call in env.cloud.calls().since(before) {
        // The test itself calls as the root user.
        if !call.caller.ends_with(":root") {
            assert_eq!(call.status, Some(200), "{call:?}");
            *calls.entry(call.operation).or_default() += 1;
        }
    }
    Ok(calls)
}

fn describe(calls: &BTreeMap<String, usize>) -> String {
    let words: Vec<_> = calls
        .iter()
        .map(|(operation, number)| format!("{number} {operation}"))
        .collect();
    words.join(", ")
}

/// Creates deployments from the live one as a blueprint, and foreign resources.
struct Maker {
    environment: String,
    blueprint: Blueprint,
}

impl Maker {
    async fn of(env: &TestEnvironment, live: &str) -> Result<Maker> {
        Ok(Maker {
            environment: env.name.clone(),
            blueprint: Blueprint::of(env, live).await?,
        })
    }

    /// Creates a deployment that was live, is protected and has no tasks.
    async fn make(&self, env: &TestEnvironment, number: usize) -> Result<String> {
        let id = format!(
            "{}-20260101-{:02}{:02}00Z",
            self.environment,
            number / 60,
            number % 60
        );
        let tags = [
            ("pulse:deployment-id", id.as_str()),
            ("pulse:environment", &self.environment),
        ];
        let state = [
            ("pulse:ready-at", "2026-01-01T00:00:00Z"),
            ("pulse:live-since", "2026-01-01T00:00:00Z"),
            ("pulse:protected", "yes"),
        ];
        let Maker { blueprint, .. } = self;
        let definition = blueprint.register(env, "test-app", &tags).await?;
        let all = [tags.as_slice(), &state].concat();
        let group = blueprint.target_group(env, &id, &all).await?;
        // After those of the live one.
        let offset = 10 + i32::try_from(number)?;
        for (from, condition) in [
            (100, header(AFFINITY, &id)),
            (20_100, header("Cookie", &format!("*{AFFINITY}={id}*"))),
        ] {
            blueprint
                .rule(env, from + offset, condition, forward(&group), &tags)
                .await?;
        }
        blueprint
            .service(env, &id, (&definition, 0), Some(&group), &tags)
            .await?;
        Ok(id)
    }

    async fn unprotect(&self, env: &TestEnvironment, ids: &[String]) -> Result<()> {
        for id in ids {
            env.untag(id, "pulse:protected").await?;
        }
        Ok(())
    }

    /// Creates foreign services, target groups and rules. Some of them resemble ours.
    async fn make_foreign(&self, env: &TestEnvironment) -> Result<()> {
        let Maker { blueprint, .. } = self;
        let definition = blueprint.register(env, "other-app", &[]).await?;
        let theirs = [
            ("pulse:deployment-id", "test2-20260101-000000Z"),
            ("pulse:environment", "test2"),
        ];
        let mut groups = Vec::new();
        for number in 0..FOREIGN_GROUPS {
            let (name, tags) = foreign_name(number, &theirs);
            groups.push(blueprint.target_group(env, &name, tags).await?);
        }
        for number in 0..FOREIGN_RULES {
            let condition = RuleCondition::builder()
                .field("path-pattern")
                .path_pattern_config(
                    PathPatternConditionConfig::builder()
                        .values(format!("/other/{number}"))
                        .build(),
                )
                .build();
            let action = match groups.get(number) {
                Some(group) => forward(group),
                None => Action::builder()
                    .r#type(ActionTypeEnum::FixedResponse)
                    .fixed_response_config(
                        FixedResponseActionConfig::builder()
                            .status_code("404")
                            .build(),
                    )
                    .build(),
            };
            let priority = 30_000 + i32::try_from(number)?;
            let (_, tags) = foreign_name(number, &theirs);
            blueprint
                .rule(env, priority, condition, action, tags)
                .await?;
        }
        for number in 0..FOREIGN_SERVICES {
            let (name, tags) = foreign_name(number, &theirs);
            let group = groups.get(number).map(String::as_str);
            blueprint
                .service(env, &name, (&definition, 0), group, tags)
                .await?;
        }
        Ok(())
    }
}

/// The name and the tags of a foreign resource. The first ones are named like deployments but have no
/// tags; the next ones have the tags of another environment.
fn foreign_name(number: usize, theirs: Tags) -> (String, Tags) {
    match number {
        0..NAMED_LIKE_OURS => (format!("test-20250101-0000{number:02}Z"), &[]),
        NAMED_LIKE_OURS..10 => (format!("test2-20250101-0000{number:02}Z"), theirs),
        _ => (format!("other-{number}"), &[]),
    }
}

/// All foreign resources with their tags, as AWS describes them.
async fn foreign(
    env: &TestEnvironment,
    ids: &[String],
    live: &str,
) -> Result<BTreeMap<String, String>> {
    let is_ours = |name: &str| name == live || ids.iter().any(|id| id == name);
    let mut found = BTreeMap::new();
    let mut arns = Vec::new();
    let mut pages = env
        .elb
        .describe_rules()
        .listener_arn(env.listener_arn().await?)
        .page_size(400)
        .into_paginator()
        .send();
    while let Some(page) = pages.next().await {
        for rule in page?.rules() {
            let arn = rule.rule_arn().context("a rule without an ARN")?;
            let priority = rule.priority().unwrap_or_default();
            if priority.parse().is_ok_and(|number: u32| number >= 30_000) {
                arns.push(arn.to_owned());
                found.insert(arn.to_owned(), format!("{rule:?}"));
            }
        }
    }
    let groups = env.elb.describe_target_groups().page_size(400);
    for group in groups.send().await?.target_groups() {
        let arn = group.target_group_arn().context("a group without an ARN")?;
        if !is_ours(group.target_group_name().unwrap_or_default()) {
            arns.push(arn.to_owned());
            found.insert(arn.to_owned(), format!("{group:?}"));
        }
    }
    for batch in arns.chunks(20) {
        let tags = env
            .elb
            .describe_tags()
            .set_resource_arns(Some(batch.to_vec()));
        for description in tags.send().await?.tag_descriptions() {
            let described = found.get_mut(description.resource_arn().unwrap_or_default());
            *described.context("tags of an unknown resource")? +=
                &format!("{:?}", description.tags());
        }
    }
    let mut names = Vec::new();
    let mut pages = env
        .ecs
        .list_services()
        .cluster(&env.name)
        .into_paginator()
        .send();
    while let Some(page) = pages.next().await {
        names.extend(page?.service_arns.unwrap_or_default());
    }
    for batch in names.chunks(10) {
        let services = env
            .ecs
            .describe_services()
            .cluster(&env.name)
            .set_services(Some(batch.to_vec()))
            .include(ServiceField::Tags);
        for service in services.send().await?.services() {
            if !is_ours(service.service_name().unwrap_or_default()) {
                let arn = service.service_arn().context("a service without an ARN")?;
                found.insert(arn.to_owned(), format!("{service:?}"));
            }
        }
    }
    Ok(found)
}
