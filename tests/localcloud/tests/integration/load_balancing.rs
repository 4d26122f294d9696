//! The control plane of ELBv2, called with the SDK through the gateway.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use localcloud::gateway::calls::Call;
use localcloud::{LocalCloud, Options, time_scale::TimeScale};

use crate::cloud::{self, Balancer, code, forward, header_condition, listener};
use aws_sdk_elasticloadbalancingv2::types::{
    Action, ActionTypeEnum, ForwardActionConfig, Tag, TargetDescription, TargetGroupAttribute,
    TargetGroupTuple,
};

#[tokio::test(flavor = "multi_thread")]
async fn only_one_of_two_concurrent_rules_gets_a_priority() {
    let cloud = cloud::start().await;
    let balancer = Balancer::create(&cloud).await;
    let group = balancer.target_group("a").await;
    let (first, second) = tokio::join!(balancer.rule(100, &group), balancer.rule(100, &group));
    let refused: Vec<_> = [&first, &second]
        .into_iter()
        .filter_map(|r| r.as_ref().err())
        .collect();
    assert_eq!(refused, ["PriorityInUse"], "{first:?} {second:?}");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_over_the_quota_is_refused() {
    let cloud = cloud::start().await;
    cloud.set_rules_per_load_balancer(3);
    let balancer = Balancer::create(&cloud).await;
    let group = balancer.target_group("a").await;
    // The rules of all listeners of the load balancer count.
    let second = Balancer {
        listener: listener(&balancer.client, &balancer.arn, 81).await,
        client: balancer.client.clone(),
        arn: balancer.arn.clone(),
    };
    for number in 1..=2 {
        balancer
            .rule(number, &group)
            .await
            .expect("within the quota");
    }
    second.rule(1, &group).await.expect("within the quota");
    assert_eq!(balancer.rule(4, &group).await, Err("TooManyRules".into()));
    let limits = balancer
        .client
        .describe_account_limits()
        .send()
        .await
        .expect("answered");
    let rules = limits
        .limits()
        .iter()
        .find(|l| l.name() == Some("rules-per-application-load-balancer"));
    assert_eq!(rules.and_then(|limit| limit.max()), Some("3"));
    cloud.set_rules_per_load_balancer(4);
    balancer.rule(4, &group).await.expect("the quota is raised");
    assert_eq!(balancer.rule(5, &group).await, Err("TooManyRules".into()));
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_balancer_has_at_most_100_rules_and_100_target_groups_and_lists_them_in_pages() {
    let cloud = cloud::start().await;
    let balancer = Balancer::create(&cloud).await;
    let mut last = String::new();
    for number in 1..=100 {
        last = balancer.target_group(&format!("group-{number}")).await;
        balancer
            .rule(number, &last)
            .await
            .expect("within the quota");
    }
    let one_more = balancer.target_group("group-101").await;
    assert_eq!(balancer.rule(101, &last).await, Err("TooManyRules".into()));
    let rules = balancer
        .client
        .describe_rules()
        .listener_arn(&balancer.listener);
    let first_rule = rules.clone().send().await.expect("listed").rules()[1]
        .rule_arn()
        .expect("ARN")
        .to_owned();
    balancer
        .client
        .delete_rule()
        .rule_arn(first_rule)
        .send()
        .await
        .expect("deleted");
    // No rule names its group now, so one more group is allowed. The group of the default action would be
    // one too many.
    balancer
        .rule(101, &one_more)
        .await
        .expect("within the quota");
    let over = balancer.target_group("group-102").await;
    let switched = balancer
        .client
        .modify_listener()
        .listener_arn(&balancer.listener);
    let switched = switched.default_actions(forward(&over)).send().await;
    assert_eq!(
        code(&switched.expect_err("over")),
        "TooManyUniqueTargetGroupsPerLoadBalancer"
    );

    let mut seen = Vec::new();
    let mut marker = None;
    let mut pages = 0;
    loop {
        let page = rules
            .clone()
            .page_size(40)
            .set_marker(marker)
            .send()
            .await
            .expect("a page");
        seen.extend(
            page.rules()
                .iter()
                .filter_map(|rule| rule.rule_arn().map(str::to_owned)),
        );
        pages += 1;
        marker = page.next_marker().map(str::to_owned);
        if marker.is_none() {
            break;
        }
    }
    seen.sort();
    seen.dedup();
    assert_eq!(
        (pages, seen.len()),
        (3, 101),
        "100 rules and the default rule"
    );
    let refused = rules.page_size(401).send().await;
    assert_eq!(code(&refused.expect_err("too large")), "ValidationError");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_group_that_an_action_names_cannot_be_deleted() {
    let cloud = cloud::start().await;
    let balancer = Balancer::create(&cloud).await;
    let group = balancer.target_group("a").await;
    let rule = balancer.rule(1, &group).await.expect("created");
    let delete = || {
        balancer
            .client
            .delete_target_group()
            .target_group_arn(&group)
            .send()
    };
    assert_eq!(
        code(&delete().await.expect_err("in a rule")),
        "ResourceInUse"
    );
    let modify = |action| {
        balancer
            .client
            .modify_listener()
            .listener_arn(&balancer.listener)
            .default_actions(action)
            .send()
    };
    modify(forward(&group)).await.expect("switched");
    balancer
        .client
        .delete_rule()
        .rule_arn(&rule)
        .send()
        .await
        .expect("deleted");
    let again = balancer.client.delete_rule().rule_arn(&rule).send().await;
    assert_eq!(code(&again.expect_err("it does not exist")), "RuleNotFound");
    assert_eq!(
        code(&delete().await.expect_err("in the default action")),
        "ResourceInUse"
    );
    modify(forward(&balancer.target_group("b").await))
        .await
        .expect("switched");
    delete().await.expect("no action names it");
    let missing = modify(forward(&group)).await;
    assert_eq!(
        code(&missing.expect_err("it does not exist")),
        "TargetGroupNotFound"
    );
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_creation_of_a_target_group_gives_the_first_one() {
    let cloud = cloud::start().await;
    let balancer = Balancer::create(&cloud).await;
    let group = balancer.target_group("a").await;
    assert_eq!(balancer.target_group("a").await, group);
    let create = |name: &str| {
        let name = name.to_owned();
        balancer
            .client
            .create_target_group()
            .name(name)
            .vpc_id("vpc-1")
            .port(81)
            .send()
    };
    let refused = create("a").await.expect_err("other settings");
    assert_eq!(code(&refused), "DuplicateTargetGroupName");
    let text = refused.into_service_error().to_string();
    assert!(
        text.contains("exists, but with different settings"),
        "{text}"
    );
    let refused = create("-a").await.expect_err("a hyphen first");
    assert_eq!(code(&refused), "ValidationError");
    let named = balancer
        .client
        .describe_target_groups()
        .names("b")
        .send()
        .await;
    assert_eq!(
        code(&named.expect_err("it does not exist")),
        "TargetGroupNotFound"
    );
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_are_kept_and_a_single_group_is_in_both_fields() {
    let cloud = cloud::start().await;
    let balancer = Balancer::create(&cloud).await;
    let (a, b) = (
        balancer.target_group("a").await,
        balancer.target_group("b").await,
    );
    let weighted = |arn: &str, weight| {
        TargetGroupTuple::builder()
            .target_group_arn(arn)
            .weight(weight)
            .build()
    };
    let config = ForwardActionConfig::builder()
        .target_groups(weighted(&a, 100))
        .target_groups(weighted(&b, 0))
        .build();
    let action = Action::builder()
        .r#type(ActionTypeEnum::Forward)
        .forward_config(config);
    balancer
        .client
        .modify_listener()
        .listener_arn(&balancer.listener)
        .default_actions(action.build())
        .send()
        .await
        .expect("modified");
    let read = balancer
        .client
        .describe_listeners()
        .listener_arns(&balancer.listener)
        .send()
        .await;
    let read = read.expect("read");
    let action = &read.listeners()[0].default_actions()[0];
    let weights = |action: &Action| {
        let config = action
            .forward_config()
            .expect("a forward")
            .target_groups()
            .to_vec();
        config
            .into_iter()
            .map(|g| (g.target_group_arn.unwrap(), g.weight.unwrap()))
            .collect::<Vec<_>>()
    };
    assert_eq!(weights(action), [(a.clone(), 100), (b, 0)]);
    assert_eq!(action.target_group_arn(), None);

    let rule = balancer.rule(1, &a).await.expect("created");
    let read = balancer
        .client
        .describe_rules()
        .rule_arns(&rule)
        .send()
        .await
        .expect("read");
    let rule = &read.rules()[0];
    assert_eq!(rule.actions()[0].target_group_arn(), Some(a.as_str()));
    assert_eq!(weights(&rule.actions()[0]), [(a.clone(), 1)]);
    let header = rule.conditions()[0]
        .http_header_config()
        .expect("a header condition");
    assert_eq!(
        (header.http_header_name(), header.values()),
        (Some("X-Pulse-Render-Affinity"), &["1".to_owned()][..])
    );

    let groups = balancer
        .client
        .describe_target_groups()
        .load_balancer_arn(&balancer.arn)
        .send()
        .await;
    assert_eq!(
        groups.expect("read").target_groups().len(),
        2,
        "both are in the default action"
    );
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_of_at_most_20_rules_and_target_groups_are_read_in_one_call() {
    let cloud = cloud::start().await;
    let balancer = Balancer::create(&cloud).await;
    let group = balancer.target_group("a").await;
    let tag = |key: &str, value: &str| Tag::builder().key(key).value(value).build();
    let client = &balancer.client;
    let rule = client
        .create_rule()
        .listener_arn(&balancer.listener)
        .priority(1)
        .conditions(header_condition("x"))
        .actions(forward(&group))
        .tags(tag("pulse:deployment-id", "x"))
        .send()
        .await
        .expect("created");
    let rule = rule.rules()[0].rule_arn().expect("an ARN").to_owned();
    let both = [rule.clone(), group.clone()];
    let add = client.add_tags().set_resource_arns(Some(both.to_vec()));
    add.tags(tag("pulse:environment", "test"))
        .tags(tag("old", "1"))
        .send()
        .await
        .expect("added");
    client
        .remove_tags()
        .resource_arns(&rule)
        .tag_keys("old")
        .send()
        .await
        .expect("removed");
    let read = client
        .describe_tags()
        .set_resource_arns(Some(both.to_vec()))
        .send()
        .await
        .expect("read");
    let tags: Vec<Vec<&str>> = read
        .tag_descriptions()
        .iter()
        .map(|d| d.tags().iter().filter_map(Tag::key).collect())
        .collect();
    assert_eq!(
        tags,
        [
            vec!["pulse:deployment-id", "pulse:environment"],
            vec!["pulse:environment", "old"]
        ]
    );
    let many = client
        .describe_tags()
        .set_resource_arns(Some(vec![rule; 21]))
        .send()
        .await;
    assert_eq!(code(&many.expect_err("too many")), "ValidationError");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_is_unused_until_a_rule_names_its_group_and_is_checked_then() {
    let cloud = cloud::start().await;
    let balancer = Balancer::create(&cloud).await;
    let group = balancer.target_group("a").await;
    let health = || async {
        let answer = balancer
            .client
            .describe_target_health()
            .target_group_arn(&group)
            .send()
            .await;
        let answer = answer.expect("answered");
        let target = &answer.target_health_descriptions()[0];
        let health = target.target_health().expect("health").clone();
        let reason = health.reason.map(|reason| reason.as_str().to_owned());
        (health.state.expect("a state").as_str().to_owned(), reason)
    };
    let application = axum::Router::new().route("/_health", axum::routing::get(|| async { "ok" }));
    let server = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("bound");
    let port = server.local_addr().expect("bound").port();
    tokio::spawn(async move { axum::serve(server, application).await });
    let target = TargetDescription::builder()
        .id("127.0.0.1")
        .port(i32::from(port))
        .build();
    let register = balancer
        .client
        .register_targets()
        .target_group_arn(&group)
        .targets(target.clone());
    register.send().await.expect("registered");
    assert_eq!(
        health().await,
        ("unused".into(), Some("Target.NotInUse".into()))
    );

    balancer.rule(1, &group).await.expect("created");
    let (state, _) = health().await;
    assert!(state == "initial" || state == "healthy", "{state}");
    while health().await.0 != "healthy" {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    let deregister = balancer
        .client
        .deregister_targets()
        .target_group_arn(&group)
        .targets(target);
    deregister.send().await.expect("deregistered");
    assert_eq!(
        health().await,
        (
            "draining".into(),
            Some("Target.DeregistrationInProgress".into())
        )
    );
    let missing = balancer
        .client
        .describe_target_health()
        .target_group_arn(format!("{group}x"));
    assert_eq!(
        code(&missing.send().await.expect_err("it does not exist")),
        "TargetGroupNotFound"
    );
    cloud.stop().await;
}

#[tokio::test]
async fn a_request_is_answered_while_all_other_work_is_held_up() {
    let cloud = cloud::start().await;
    Balancer::create(&cloud).await;
    let url = format!("http://127.0.0.1:{}", cloud.load_balancer().http_port());
    while cloud::http().get(&url).send().await.is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // From here on the test blocks the only thread of its runtime, on which the local cloud does its other work.
    let address = ("127.0.0.1", cloud.load_balancer().http_port());
    let mut stream = TcpStream::connect(address).expect("connected");
    let request = "GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_whose_callers_have_given_up_before_their_turn_do_not_hold_up_others() {
    let cloud = cloud::start().await;
    let balancer = Balancer::create(&cloud).await;
    let group = balancer.target_group("a").await;
    cloud.set_rules_per_load_balancer(50_000);
    // Too little patience ends a call before the gateway has it, and too much after its turn.
    let mut patience = Duration::from_millis(5);
    let mut next = 1..;
    let skipped = |call: &Call| call.operation == "CreateRule" && call.status == Some(503);
    while !cloud.calls().all().iter().any(skipped) {
        let calls = next.by_ref().take(30).map(|priority| {
            let created = balancer.rule(priority, &group);
            tokio::time::timeout(patience, created)
        });
        let calls = futures_util::future::join_all(calls).await;
        assert!(calls.iter().any(Result::is_err), "each call had its turn");
        // This one has its turn after all that still have one.
        let last = next.next().expect("a number");
        balancer.rule(last, &group).await.expect("created");
        patience *= 2;
    }
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_has_neither_tags_nor_settings() {
    let cloud = cloud::start().await;
    let balancer = Balancer::create(&cloud).await;
    let client = &balancer.client;
    let group = balancer.target_group("a").await;
    let rule = balancer.rule(1, &group).await.expect("created");
    let kept = balancer.target_group("b").await;
    let delete = client.delete_rule().rule_arn(&rule).send().await;
    delete.expect("deleted");
    let delete = client.delete_target_group().target_group_arn(&group);
    delete.send().await.expect("deleted");
    for (arn, expected) in [
        (&rule, "RuleNotFound"),
        (&group, "TargetGroupNotFound"),
        (&format!("{}x", balancer.listener), "ListenerNotFound"),
        (&format!("{}x", balancer.arn), "LoadBalancerNotFound"),
    ] {
        // One that is missing fails the call for all of them.
        let both = Some(vec![kept.clone(), arn.clone()]);
        let tag = Tag::builder().key("key").value("value").build();
        let add = client.add_tags().set_resource_arns(both.clone()).tags(tag);
        let added = add.send().await;
        assert_eq!(code(&added.expect_err("it does not exist")), expected);
        let read = client.describe_tags().set_resource_arns(both.clone());
        let read = read.send().await;
        assert_eq!(code(&read.expect_err("it does not exist")), expected);
        let remove = client.remove_tags().set_resource_arns(both);
        let removed = remove.tag_keys("key").send().await;
        assert_eq!(code(&removed.expect_err("it does not exist")), expected);
    }
    let read = client.describe_tags().resource_arns(&kept).send().await;
    let read = read.expect("read");
    assert!(read.tag_descriptions()[0].tags().is_empty(), "{read:?}");

    let attribute = TargetGroupAttribute::builder()
        .key("deregistration_delay.timeout_seconds")
        .value("60")
        .build();
    let modify = client.modify_target_group_attributes();
    let modify = modify.target_group_arn(&group).attributes(attribute);
    let modified = modify.send().await;
    assert_eq!(
        code(&modified.expect_err("it does not exist")),
        "TargetGroupNotFound"
    );
    let modify = client.modify_target_group().target_group_arn(&group);
    let modified = modify.health_check_path("/").send().await;
    assert_eq!(
        code(&modified.expect_err("it does not exist")),
        "TargetGroupNotFound"
    );
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_numbers_of_groups_and_tags_are_limited() {
    let cloud = cloud::start().await;
    let balancer = Balancer::create(&cloud).await;
    let client = &balancer.client;
    let mut groups = Vec::new();
    for name in ["a", "b", "c", "d", "e", "f"] {
        groups.push(balancer.target_group(name).await);
    }
    let forward = async |groups: &[String], weight: i32| {
        let groups = groups.iter().map(|arn| {
            let group = TargetGroupTuple::builder().target_group_arn(arn);
            group.weight(weight).build()
        });
        let config = ForwardActionConfig::builder()
            .set_target_groups(Some(groups.collect()))
            .build();
        let action = Action::builder()
            .r#type(ActionTypeEnum::Forward)
            .forward_config(config)
            .build();
        let modify = client.modify_listener().listener_arn(&balancer.listener);
        let modified = modify.default_actions(action).send().await;
        modified.map(drop).map_err(|error| code(&error))
    };
    let refused = || Err("ValidationError".to_owned());
    assert_eq!(forward(&groups[..5], 999).await, Ok(()));
    assert_eq!(forward(&groups, 1).await, refused());
    assert_eq!(forward(&groups[..1], 1000).await, refused());

    let tag = |key: String| Tag::builder().key(key).value("value").build();
    let add = async |keys: std::ops::RangeInclusive<u32>| {
        let tags = keys.map(|number| tag(format!("key-{number}"))).collect();
        let add = client.add_tags().resource_arns(&groups[0]);
        let added = add.set_tags(Some(tags)).send().await;
        added.map(drop).map_err(|error| code(&error))
    };
    assert_eq!(add(1..=30).await, Ok(()));
    assert_eq!(add(31..=51).await, Err("TooManyTags".to_owned()));
    assert_eq!(add(21..=50).await, Ok(()));
    let create = client.create_target_group().name("g").vpc_id("vpc-1");
    let created = create.port(80).tags(tag("aws:key".into())).send().await;
    assert_eq!(code(&created.expect_err("reserved")), "ValidationError");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_node_applies_a_change_at_once_and_the_first_one_after_the_delay() {
    for (time_scale, spreads) in [(TimeScale(1000.0), false), (TimeScale(0.05), true)] {
        let cloud = LocalCloud::start(Options {
            time_scale,
            second_node: true,
            ..Options::default()
        });
        let cloud = cloud.await.expect("it starts");
        Balancer::create(&cloud).await;
        let url = format!("http://127.0.0.1:{}", cloud.load_balancer().http_port());
        // Each client opens a connection, and the nodes get them in turn. A node closes it as long as it knows of
        // no listener.
        let served = async || cloud::http().get(&url).send().await.is_ok();
        let mut both = (served().await, served().await);
        while if spreads {
            !(both.0 && both.1)
        } else {
            both.0 == both.1
        } {
            tokio::time::sleep(Duration::from_millis(20)).await;
            both = (served().await, served().await);
        }
        assert_eq!(cloud.load_balancer().nodes_agree(), spreads);
        cloud.stop().await;
    }
}
