use super::*;
use crate::{Action as Due, Input, State as Is};
use lifecycle::{ErrorName, defaults, tags};
use memory_aws::{
    DEPLOY_MACHINE_ARN, MemoryAws, NOW, State, Tags, fixed_response, forward, group_arn, own_tags,
    revision_arn,
};
use time::macros::utc_datetime;

/// When each service was created, in seconds since 1970.
const SERVICE_MADE: i64 = NOW - 86_400;

fn id(number: usize) -> String {
    format!("test-20251027-12{:02}{:02}Z", number / 60, number % 60)
}

/// `n` deployments of which the last is active and the others are to be left alone.
fn idle(n: usize) -> MemoryAws {
    let aws = MemoryAws::default();
    aws.with(|state| {
        for number in 0..n {
            state.deploy(&id(number), &[tags::READY_AT, tags::LIVE_SINCE]);
        }
        state.activate(&id(n - 1));
    });
    aws
}

type Change = fn(&mut State);

/// The same, changed so.
fn idle_with(n: usize, change: impl FnOnce(&mut State)) -> MemoryAws {
    let aws = idle(n);
    aws.with(change);
    aws
}

fn config() -> Config {
    Config {
        baseline: lifecycle::Baseline::for_tests(),
        state_machine_arn: DEPLOY_MACHINE_ARN.into(),
        keep_previous: 1000,
        drain_deadline: time::Duration::DAY,
        settle: time::Duration::MINUTE,
    }
}

fn clients(aws: &MemoryAws) -> Clients {
    Clients {
        ecs: aws_sdk_ecs::Client::new(&aws.config()),
        elb: aws_sdk_elasticloadbalancingv2::Client::new(&aws.config()),
        sfn: aws_sdk_sfn::Client::new(&aws.config()),
    }
}

async fn facts_of(aws: &MemoryAws) -> Facts {
    read(&clients(aws), &config()).await.unwrap()
}

const SWEEP: UtcDateTime = utc_datetime!(2025-10-28 12:00:00);

async fn run_step(aws: &MemoryAws) -> crate::Plan {
    sweep_at(SWEEP, aws).await
}

async fn sweep_at(now: UtcDateTime, aws: &MemoryAws) -> crate::Plan {
    aws.forget_calls();
    let output = crate::run(&clients(aws), &config(), &|| now, Input::default()).await;
    output.unwrap().plan
}

fn group_of(facts: &Facts, number: usize) -> &TargetGroup {
    let name = id(number);
    let found = facts.deployments.iter().find(|it| it.id.as_str() == name);
    &found.unwrap().target_group
}

/// The formula of [`read`]'s documentation, for `n` deployments that need nothing.
fn calls_for(n: usize) -> usize {
    4 + (2 * n + 1).div_ceil(400)
        + n.div_ceil(400)
        + n.div_ceil(20)
        + n.div_ceil(10)
        + 2 * n.div_ceil(100)
}

#[tokio::test]
async fn the_number_of_calls_follows_the_documented_formula() {
    for (n, documented) in [(10, Some(10)), (30, Some(13)), (60, Some(17)), (250, None)] {
        let aws = idle(n);
        // The first sweep notes once that the others were replaced.
        run_step(&aws).await;
        assert_eq!(aws.changes().len(), n - 1);
        let plan = run_step(&aws).await;
        assert_eq!(plan.deployments.len() + plan.left_out, n);
        assert!(plan.deployments.iter().all(|it| it.action == Due::Keep));
        let calls = aws.calls().len();
        assert_eq!(calls, calls_for(n));
        assert!(documented.is_none_or(|number| number == calls));
    }
}

#[tokio::test]
async fn every_list_is_read_past_its_first_page() {
    let aws = idle_with(25, |state| {
        for number in 0..5 {
            state.add_execution(&id(number), "");
        }
        state.add_task_definition(own_tags(&id(99)));
    });
    let whole = facts_of(&aws).await;
    aws.with(|state| state.page_size = 2);
    assert_eq!(facts_of(&aws).await, whole);
    assert_eq!(whole.deployments.len(), 26);
    assert_eq!(whole.executions.running.len(), 5);
    assert!(whole.deployments.is_sorted_by(|a, b| a.id > b.id));
    for number in 0..25 {
        let TargetGroup::Ours { in_use, .. } = group_of(&whole, number) else {
            panic!("{number} is not ours")
        };
        assert!(in_use);
    }
}

#[tokio::test]
async fn resources_that_are_not_ours_cost_no_call_of_their_own_and_are_in_no_plan() {
    let aws = idle_with(10, |state| {
        for number in 0..30 {
            for name in [
                format!("theirs-{number}"),
                format!("prod-20251027-1200{number:02}Z"),
            ] {
                state.add_target_group(&name, Tags::new());
                state.add_rule(1000, &name, Tags::new());
                state.add_service(&name, Tags::new());
            }
        }
        // Named like ours: only the tags show that they are not; perhaps of another deployment.
        for (number, tags) in [(80, Tags::new()), (81, own_tags(&id(90)))] {
            state.add_target_group(&id(number), tags.clone());
            state.add_service(&id(number), tags);
        }
    });
    let facts = facts_of(&aws).await;
    assert_eq!(facts.deployments.len(), 10);
    assert_eq!(aws.count("DescribeTags"), 1);
    assert_eq!(aws.count("DescribeServices"), 2);
    assert_eq!(aws.calls().len(), 11);
}

#[tokio::test]
async fn the_default_action_shows_what_is_active_even_without_tags() {
    let aws = idle_with(3, |state| {
        state.group(&id(2)).tags.clear();
        state.service(&id(2))["tags"] = serde_json::json!([]);
    });
    let facts = facts_of(&aws).await;
    assert_eq!(facts.named, [id(2).parse().unwrap()]);
    assert_eq!(facts.default_action, DefaultActionKind::Forward);
    let arn = group_arn(&id(2));
    assert_eq!(*group_of(&facts, 2), TargetGroup::NotOurs { arn });
}

#[tokio::test]
async fn of_several_named_deployments_the_heaviest_comes_first() {
    let aws = idle_with(3, |state| {
        let action = forward(&[(&id(0), 1), ("theirs", 2), (&id(2), 3)]);
        state.listeners[0].default_actions = vec![action];
    });
    let facts = facts_of(&aws).await;
    assert_eq!(facts.named, [id(2), id(0)].map(|id| id.parse().unwrap()));
}

#[tokio::test]
async fn a_rule_that_pins_to_the_active_deployment_and_is_missing_is_in_the_plan() {
    type Change = fn(&mut State);
    let changes: [(Change, &str); 6] = [
        (|_| {}, ""),
        (|state| drop(state.rules.remove(4)), "by header"),
        (|state| drop(state.rules.remove(5)), "by cookie"),
        (|state| state.rules.truncate(4), "by header or by cookie"),
        // It forwards elsewhere, and with another condition beside it matches less.
        (
            |state| state.rules[4].actions = vec![forward(&[(&id(1), 1)])],
            "by header",
        ),
        (
            |state| {
                let mut both = state.rules[4].conditions.as_array().unwrap().clone();
                both.extend(state.rules[5].conditions.as_array().unwrap().clone());
                state.rules[5].conditions = both.into();
            },
            "by cookie",
        ),
    ];
    for (change, missing) in changes {
        let aws = idle_with(3, change);
        let plan = run_step(&aws).await;
        let Some(rules) = plan.missing_rules else {
            assert_eq!(missing, "");
            continue;
        };
        assert_eq!(rules.deployment_id.as_str(), id(2));
        assert_eq!(rules.target_group_arn, group_arn(&id(2)));
        let words = format!("no rule pins visitors to {} {missing}, so", id(2));
        assert!(rules.reason.starts_with(&words), "{}", rules.reason);
    }
}

#[tokio::test]
async fn what_is_not_active_or_not_ours_misses_no_rules() {
    type Change = fn(&mut State);
    let changes: [Change; 4] = [
        // The active one has the last two.
        |state| drop(state.rules.drain(..4)),
        |state| {
            state.rules.clear();
            state.group(&id(2)).tags.clear();
        },
        |state| {
            state.rules.clear();
            state.listeners[0].default_actions = vec![fixed_response("503", "noon")];
        },
        |state| {
            state.rules.clear();
            state.listeners[0].default_actions = vec![forward(&[("gone", 1)])];
        },
    ];
    for change in changes {
        let plan = run_step(&idle_with(3, change)).await;
        assert_eq!(plan.missing_rules, None);
    }
}

#[tokio::test]
async fn default_actions_that_do_not_name_a_deployment_of_ours_are_distinguished() {
    for (action, what) in [
        (
            fixed_response("503", defaults::NOTHING_DEPLOYED),
            DefaultActionKind::NothingDeployed,
        ),
        (
            fixed_response("503", "We are moving house."),
            DefaultActionKind::Other,
        ),
        (
            fixed_response("200", defaults::NOTHING_DEPLOYED),
            DefaultActionKind::Other,
        ),
        (forward(&[("gone", 1)]), DefaultActionKind::ForwardToNothing),
        (
            forward(&[("gone", 1), ("theirs", 2)]),
            DefaultActionKind::Forward,
        ),
    ] {
        let aws = idle_with(1, |state| {
            state.add_target_group("theirs", Tags::new());
            state.listeners[0].default_actions = vec![action];
        });
        let facts = facts_of(&aws).await;
        assert_eq!(facts.default_action, what);
        assert!(facts.named.is_empty() && !facts.moved);
    }
}

#[test]
fn the_answer_before_the_first_deployment_is_that_of_the_new_listener() {
    let script = include_str!("../../../../infra/deploy.sh");
    let answer = format!("MessageBody={}}}'", defaults::NOTHING_DEPLOYED);
    assert!(script.contains(&answer));
}

#[tokio::test]
async fn a_switch_while_the_rest_is_read_is_noticed_and_the_last_read_counts() {
    let aws = idle_with(2, |state| state.activate(&id(0)));
    aws.on("DescribeListeners")
        .once()
        .after(|state, _| state.activate(&id(1)));
    let facts = facts_of(&aws).await;
    assert!(facts.moved);
    assert_eq!(facts.named, [id(1).parse().unwrap()]);
}

#[tokio::test]
async fn executions_are_listed_after_the_resources_and_the_listener_is_read_last() {
    let aws = idle(1);
    facts_of(&aws).await;
    let calls: Vec<String> = aws.calls().into_iter().map(|it| it.operation).collect();
    assert_eq!(
        calls,
        [
            "DescribeListeners",
            "DescribeRules",
            "DescribeTargetGroups",
            "DescribeTags",
            "ListServices",
            "DescribeServices",
            "ListTaskDefinitions",
            "DescribeTargetHealth",
            "ListExecutions",
            "DescribeListeners"
        ]
    );
}

#[tokio::test]
async fn the_input_of_an_execution_with_another_name_shows_its_deployment() {
    let input = |id: &str| format!(r#"{{"deploymentId": "{id}"}}"#);
    let aws = idle_with(1, |state| {
        state.add_execution(&id(3), "");
        state.add_execution("by-hand", &input(&id(4)));
        state.add_execution("ended", "");
        state.add_execution("nonsense", &input("latest"));
        state.add_execution("encrypted", "");
    });
    for (name, code) in [
        ("ended", "ExecutionDoesNotExist"),
        ("encrypted", "KmsInvalidStateException"),
    ] {
        aws.on("DescribeExecution").containing(name).fails(code);
    }
    let executions = facts_of(&aws).await.executions;
    assert_eq!(
        executions.running,
        [id(3), id(4)].map(|id| id.parse().unwrap()).into()
    );
    assert_eq!(executions.unknown, ["encrypted", "nonsense"]);
}

#[tokio::test]
async fn a_role_that_must_not_read_executions_is_an_error_and_not_a_quiet_sweep() {
    let aws = idle_with(1, |state| _ = state.add_execution("by-hand", ""));
    aws.on("DescribeExecution").fails("AccessDeniedException");
    let error = read(&clients(&aws), &config()).await.unwrap_err();
    assert_eq!(error.name, ErrorName::AccessDenied);
}

#[tokio::test]
async fn only_task_definitions_that_no_service_runs_are_read_one_by_one() {
    let aws = idle_with(2, |state| {
        // The third is deleted after it was listed.
        for tags in [own_tags(&id(50)), Tags::new(), own_tags(&id(52))] {
            state.add_task_definition(tags);
        }
    });
    aws.on("DescribeTaskDefinition")
        .containing(&revision_arn(5))
        .fails("ClientException");
    let facts = facts_of(&aws).await;
    assert_eq!(aws.count("DescribeTaskDefinition"), 3);
    assert_eq!(facts.deployments.len(), 3);
    let orphan = &facts.deployments[0];
    assert_eq!(orphan.id.as_str(), id(50));
    assert_eq!(orphan.target_group, TargetGroup::Absent);
    assert!(orphan.has_task_definition && orphan.service.is_none());
    // As young as the youngest of its parts that has a time.
    let made_at = |id: &str| {
        let mut all = facts.deployments.iter();
        let found = all.find(|it| it.id.as_str() == id).expect("listed");
        found.made_at.map(UtcDateTime::unix_timestamp)
    };
    assert_eq!(made_at(&id(50)), Some(NOW));
    assert_eq!(made_at(&id(1)), Some(SERVICE_MADE));
}

#[tokio::test]
async fn a_service_without_a_target_group_is_an_orphan_and_may_be_protected() {
    let aws = idle_with(1, |state| {
        for (number, mark) in [(7, "other"), (8, tags::PROTECTED)] {
            let mut tags = own_tags(&id(number));
            tags.insert(mark.into(), "2025-10-27T12:00:00Z".into());
            state.add_service(&id(number), tags);
        }
        state.add_service(&id(6), own_tags(&id(6)));
    });
    // It becomes inactive after it was listed, and is gone.
    aws.on("ListServices")
        .after(|state, _| state.service(&id(6))["status"] = "INACTIVE".into());
    let due = run_step(&aws).await.deployments;
    // The definition that a service runs is the deployment's.
    let left = "a service and a task definition were left";
    assert!(due[1].reason.starts_with(left), "{due:?}");
    let due: Vec<_> = due.iter().map(|it| (it.state, it.action)).collect();
    assert_eq!(
        due,
        [
            (Is::Orphaned, Due::Keep),
            (Is::Orphaned, Due::Delete),
            (Is::Active, Due::Keep)
        ]
    );
}

#[tokio::test]
async fn a_sweep_leaves_for_the_next_one_what_it_has_seen_and_a_dry_run_leaves_nothing() {
    let aws = idle_with(3, |state| {
        // Without a service there is no task, and the one that is active has no healthy target either.
        state
            .services
            .retain(|it| it["serviceName"] != id(1).as_str());
        state.group(&id(1)).health.clear();
        state.fail_health_checks(&id(2));
    });
    let dry_run = Input {
        dry_run: true,
        ..Input::default()
    };
    crate::run(&clients(&aws), &config(), &|| SWEEP, dry_run)
        .await
        .unwrap();
    assert_eq!(aws.changes(), [""; 0]);

    let noted = |number: usize, tag: &str| format!("AddTags {} {tag}", id(number));
    let first = run_step(&aws).await;
    let mut changes = aws.changes();
    changes.sort();
    let mut expected = [
        noted(0, tags::REPLACED_AT),
        noted(1, tags::REPLACED_AT),
        noted(1, tags::DOWN_SINCE),
        noted(1, tags::UNHEALTHY_SINCE),
        noted(2, tags::DOWN_SINCE),
    ];
    expected.sort();
    assert_eq!(changes, expected);
    assert_eq!((first.repair, first.problems.len()), (None, 0));
    // The function is run again, because its answer was lost.
    let again = run_step(&aws).await;
    assert_eq!((again.repair, aws.changes().len()), (None, 0));

    let second = sweep_at(SWEEP + time::Duration::minutes(5), &aws).await;
    assert_eq!(aws.changes(), [""; 0]);
    let repair = second.repair.expect("a repair");
    assert_eq!(repair.deployment_id.as_str(), id(0));
    assert_eq!(repair.replaced, [id(2).parse().unwrap()]);
    assert!(second.problems[0].starts_with(&format!("{}: it is active", id(2))));
    assert_eq!(second.unhealthy_targets, 2);

    // In order again.
    aws.with(|state| state.group(&id(2)).health = vec![serde_json::json!({"State": "healthy"})]);
    let third = sweep_at(SWEEP + time::Duration::minutes(10), &aws).await;
    assert_eq!(
        aws.changes(),
        [(1, tags::UNHEALTHY_SINCE), (2, tags::DOWN_SINCE)]
            .map(|(number, tag)| format!("RemoveTags {} {tag}", id(number)))
    );
    assert_eq!(
        (third.repair, third.problems.len(), third.unhealthy_targets),
        (None, 0, 1)
    );
    let unrouted: Vec<_> = third.deployments.iter().map(|it| it.action).collect();
    assert_eq!(unrouted, [Due::Keep, Due::Unroute, Due::Keep]);
}

#[tokio::test]
async fn a_rule_that_is_left_of_a_rollback_that_waited_in_vain_is_deleted_once_no_task_is_left() {
    let waiting =
        serde_json::json!([{"Field": "source-ip", "SourceIpConfig": {"Values": ["192.0.2.0/32"]}}]);
    let aws = idle_with(2, |state| {
        state
            .services
            .retain(|it| it["serviceName"] != id(0).as_str());
        state.group(&id(0)).health.clear();
        for rule in state
            .rules
            .iter_mut()
            .filter(|rule| rule.tags[tags::DEPLOYMENT_ID] == id(0))
        {
            rule.conditions = waiting.clone();
        }
    });
    let facts = facts_of(&aws).await;
    let left = &facts.deployments[1];
    assert!(left.waits && !left.may_take_over(), "{left:?}");
    assert_eq!(run_step(&aws).await.deployments[1].action, Due::Keep);
    let second = sweep_at(SWEEP + time::Duration::minutes(5), &aws).await;
    assert_eq!(second.deployments[1].action, Due::Unroute);
}

#[tokio::test]
async fn a_deployment_that_is_active_again_loses_the_note_that_it_was_replaced() {
    let aws = idle(2);
    run_step(&aws).await;
    aws.with(|state| state.activate(&id(0)));
    run_step(&aws).await;
    let mut changes = aws.changes();
    changes.sort();
    let [back, replaced] = [id(0), id(1)];
    assert_eq!(
        changes,
        [
            format!("AddTags {replaced} {}", tags::REPLACED_AT),
            format!("RemoveTags {back} {}", tags::REPLACED_AT)
        ]
    );
}

#[tokio::test]
async fn what_an_operator_gave_traffic_to_is_no_candidate_any_more() {
    let aws = idle(3);
    run_step(&aws).await;
    aws.forget_calls();
    aws.with(|state| {
        for number in [0, 2] {
            state.group(&id(number)).tags.remove(tags::LIVE_SINCE);
        }
        state.listeners[0].default_actions =
            vec![memory_aws::forward(&[(&id(2), 90), (&id(0), 10)])];
    });
    run_step(&aws).await;
    let changes = aws.changes();
    for number in [0, 2] {
        let live = format!("AddTags {} {}", id(number), tags::LIVE_SINCE);
        assert!(changes.contains(&live), "{changes:?}");
    }
}

#[tokio::test]
async fn that_one_was_replaced_is_noted_only_of_what_was_live_and_while_another_is_active() {
    let changes: [(usize, Change); 4] = [
        (1, |_| ()),
        (0, |state| {
            state.group(&id(0)).tags.remove(tags::LIVE_SINCE);
        }),
        (0, |state| {
            state.target_groups.retain(|group| group.name != id(1));
        }),
        (0, |state| {
            state.add_target_group("theirs", Tags::new());
            state.listeners[0].default_actions = vec![forward(&[("theirs", 1)])];
        }),
    ];
    for (number, (noted, change)) in changes.into_iter().enumerate() {
        let aws = idle_with(2, change);
        run_step(&aws).await;
        assert_eq!(aws.changes().len(), noted, "{number}: {aws:?}");
    }
}

#[tokio::test]
async fn nothing_is_noted_when_the_default_action_changes_meanwhile_or_a_group_is_gone() {
    let aws = idle_with(2, |state| state.activate(&id(0)));
    aws.on("DescribeListeners")
        .once()
        .after(|state, _| state.activate(&id(1)));
    run_step(&aws).await;
    assert_eq!(aws.changes(), [""; 0]);

    let aws = idle(2);
    aws.on("AddTags")
        .before(|state, _| state.target_groups.retain(|it| it.name != id(0)));
    run_step(&aws).await;

    let aws = idle(2);
    aws.on("AddTags").fails("AccessDenied");
    let error = crate::run(&clients(&aws), &config(), &|| SWEEP, Input::default()).await;
    assert_eq!(error.unwrap_err().name, ErrorName::AccessDenied);
}

#[tokio::test]
async fn a_failed_rollout_and_the_number_of_tasks_are_read_with_the_services() {
    let aws = idle_with(2, |state| {
        state.service(&id(1))["runningCount"] = 1.into();
        state.service(&id(1))["deployments"][0]["rolloutState"] = "FAILED".into();
    });
    let plan = run_step(&aws).await;
    assert_eq!(plan.deployments[0].action, Due::Restart);
}

#[tokio::test]
async fn any_part_with_its_tags_makes_a_deployment_ours() {
    let only = |keeps: &'static str| {
        idle_with(2, move |state| {
            let of_it = |name: &str| name == id(0);
            if keeps != "group" {
                state.target_groups.retain(|group| !of_it(&group.name));
                state
                    .rules
                    .retain(|rule| !of_it(&rule.tags[tags::DEPLOYMENT_ID]));
            }
            if keeps != "service" {
                state
                    .services
                    .retain(|it| !of_it(it["serviceName"].as_str().unwrap()));
            }
            if keeps != "definition" {
                state.task_definitions[0]["status"] = "INACTIVE".into();
            }
        })
    };
    for keeps in ["group", "service", "definition"] {
        let facts = facts_of(&only(keeps)).await;
        let found: Vec<_> = facts
            .deployments
            .iter()
            .map(|it| it.id.to_string())
            .collect();
        assert_eq!(found, [id(1), id(0)], "{keeps}");
    }
}

#[tokio::test]
async fn the_targets_of_a_replaced_one_are_read_only_if_it_may_lose_its_rules() {
    let changes: [(bool, Change); 7] = [
        (true, |_| ()),
        (false, |state| {
            state.service(&id(0))["runningCount"] = 1.into();
        }),
        (false, |state| {
            state.tag(&id(0), tags::DRAINING_SINCE, "2025-10-27T12:30:00Z");
        }),
        (false, |state| {
            state.tag(&id(0), tags::DELETING_SINCE, "2025-10-27T12:30:00Z");
        }),
        (false, |state| state.tag(&id(0), tags::PROTECTED, "yes")),
        (false, |state| {
            state.group(&id(0)).tags.remove(tags::LIVE_SINCE);
        }),
        (false, |state| {
            let of_it = |rule: &memory_aws::Rule| rule.tags[tags::DEPLOYMENT_ID] == id(0);
            state.rules.retain(|rule| !of_it(rule));
        }),
    ];
    for (number, (are_read, change)) in changes.into_iter().enumerate() {
        let aws = idle_with(2, |state| {
            state.service(&id(0))["runningCount"] = 0.into();
            change(state);
        });
        let facts = facts_of(&aws).await;
        let replaced = &facts.deployments[1];
        assert_eq!(
            replaced.targets.is_some(),
            are_read,
            "{number}: {replaced:?}"
        );
    }
}

#[tokio::test]
async fn a_target_that_is_being_deregistered_does_not_count() {
    let aws = idle_with(1, |state| {
        let states = ["healthy", "unhealthy", "draining"];
        let health = states.map(|it| serde_json::json!({"State": it}));
        state.group(&id(0)).health = health.into();
    });
    let targets = Targets {
        registered: 2,
        healthy: 1,
    };
    assert_eq!(facts_of(&aws).await.deployments[0].targets, Some(targets));
}

#[tokio::test]
async fn when_the_target_group_of_the_active_one_is_gone_the_targets_of_the_others_are_read() {
    for is_gone in [true, false] {
        let aws = idle_with(2, |state| {
            if is_gone {
                state.target_groups.retain(|group| group.name != id(1));
            }
        });
        let facts = facts_of(&aws).await;
        assert_eq!(facts.named, [id(1).parse().unwrap()]);
        let other = &facts.deployments[1];
        assert_eq!(other.targets.is_some(), is_gone, "{other:?}");
    }
}
