use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::*;
use aws_sdk_ecs::operation::delete_service::DeleteServiceOutput;
use aws_sdk_ecs::operation::deregister_task_definition::DeregisterTaskDefinitionOutput;
use aws_sdk_ecs::operation::describe_services::DescribeServicesOutput;
use aws_sdk_ecs::operation::describe_task_definition::DescribeTaskDefinitionOutput;
use aws_sdk_ecs::operation::describe_tasks::DescribeTasksOutput;
use aws_sdk_ecs::operation::list_task_definitions::ListTaskDefinitionsOutput;
use aws_sdk_ecs::operation::list_tasks::ListTasksOutput;
use aws_sdk_ecs::operation::update_service::{UpdateServiceError, UpdateServiceOutput};
use aws_sdk_ecs::types::{DesiredStatus, Service, Task, TaskDefinition, TaskDefinitionStatus};
use aws_sdk_elasticloadbalancingv2::operation::add_tags::AddTagsOutput;
use aws_sdk_elasticloadbalancingv2::operation::delete_rule::DeleteRuleOutput;
use aws_sdk_elasticloadbalancingv2::operation::delete_target_group::{
    DeleteTargetGroupError, DeleteTargetGroupOutput,
};
use aws_sdk_elasticloadbalancingv2::operation::describe_listeners::DescribeListenersOutput;
use aws_sdk_elasticloadbalancingv2::operation::describe_rules::DescribeRulesOutput;
use aws_sdk_elasticloadbalancingv2::operation::describe_tags::DescribeTagsOutput;
use aws_sdk_elasticloadbalancingv2::operation::describe_target_groups::DescribeTargetGroupsOutput;
use aws_sdk_elasticloadbalancingv2::operation::remove_tags::RemoveTagsOutput;
use aws_sdk_elasticloadbalancingv2::types::Tag;
use aws_sdk_elasticloadbalancingv2::types::{
    Action, ActionTypeEnum, Listener, Rule, TagDescription, TargetGroup,
};
use aws_smithy_mocks::{MockResponse, RuleMode, mock, mock_client};

const ID: &str = "test-20251027-122112Z";
const OTHER: &str = "test-20251027-122113Z";
const NOW: UtcDateTime = time::macros::utc_datetime!(2025-10-27 12:30:00);
const SETTLE: Duration = Duration::seconds(60);
/// After which the load balancer has surely forgotten rules, as a mark to the second tells it.
const FORGOTTEN: Duration = Duration::seconds(61);

/// One deployment as AWS would keep it, and what was done to it, in order.
#[derive(Debug, Default)]
struct World {
    active: Option<&'static str>,
    /// Marks on the target group; none when there is no group.
    group: Option<BTreeMap<String, String>>,
    rules: Vec<String>,
    /// `ACTIVE`, `DRAINING` or gone.
    service: Option<&'static str>,
    desired: i32,
    running: i32,
    /// Told to stop and not stopped yet.
    stopping: usize,
    /// The next list of rules is older than the rules.
    hides_rules_once: bool,
    /// The next UpdateService is carried out and its answer lost.
    loses_an_answer: bool,
    task_definition: bool,
    done: Vec<String>,
    /// Makes the deployment active once its target group was marked.
    switched_to_after_the_mark: bool,
}

fn whole() -> World {
    World {
        active: Some(OTHER),
        group: Some(BTreeMap::new()),
        rules: vec!["rule/1".into(), "rule/2".into()],
        service: Some("ACTIVE"),
        desired: 2,
        running: 2,
        task_definition: true,
        ..World::default()
    }
}

fn marked(marks: &[&str]) -> World {
    World {
        group: Some(
            marks
                .iter()
                .map(|mark| (mark.to_string(), "then".to_owned()))
                .collect(),
        ),
        ..whole()
    }
}

fn arn(id: &str) -> String {
    format!("arn:aws:elasticloadbalancing:us-east-1:1:targetgroup/{id}/abc")
}

fn forward(id: &str) -> Action {
    Action::builder()
        .r#type(ActionTypeEnum::Forward)
        .target_group_arn(arn(id))
        .build()
}

fn elb_tags(marks: &BTreeMap<String, String>) -> Vec<Tag> {
    let own =
        tags::for_deployment(&ID.parse().unwrap()).map(|(key, value)| (key.to_owned(), value));
    let all = own.into_iter().chain(marks.clone());
    all.map(|(key, value)| Tag::builder().key(key).value(value).build())
        .collect()
}

fn ecs_tags() -> Vec<aws_sdk_ecs::types::Tag> {
    let own = tags::for_deployment(&ID.parse().unwrap());
    own.into_iter()
        .map(|(key, value)| {
            aws_sdk_ecs::types::Tag::builder()
                .key(key)
                .value(value)
                .build()
        })
        .collect()
}

/// Calls the step once.
async fn delete(world: World, only_if_never_live: bool) -> (Result<Output, StepError>, World) {
    call(
        world,
        Input {
            deployment_id: ID.parse().unwrap(),
            only_if_never_live,
            only_if_draining: false,
            force: false,
        },
    )
    .await
}

async fn force(world: World) -> (Result<Output, StepError>, World) {
    call(
        world,
        Input {
            deployment_id: ID.parse().unwrap(),
            only_if_never_live: false,
            only_if_draining: false,
            force: true,
        },
    )
    .await
}

async fn call(world: World, input: Input) -> (Result<Output, StepError>, World) {
    use aws_sdk_ecs::Client as Ecs;
    use aws_sdk_elasticloadbalancingv2::Client as Elb;
    let world = Arc::new(Mutex::new(world));
    macro_rules! answer {
        ($client:ident :: $operation:ident, |$world:ident, $request:ident| $body:expr) => {{
            let world = Arc::clone(&world);
            mock!($client::$operation).then_compute_output(move |$request| {
                #[allow(unused_mut)]
                let mut $world = world.lock().unwrap();
                $body
            })
        }};
    }
    let listeners = answer!(Elb::describe_listeners, |world, _request| {
        let default = match world.active {
            Some(id) => forward(id),
            None => Action::builder()
                .r#type(ActionTypeEnum::FixedResponse)
                .build(),
        };
        DescribeListenersOutput::builder()
            .listeners(Listener::builder().default_actions(default).build())
            .build()
    });
    let groups = answer!(Elb::describe_target_groups, |world, _request| {
        let group = world.group.as_ref().map(|_| {
            TargetGroup::builder()
                .target_group_arn(arn(ID))
                .target_group_name(ID)
                .build()
        });
        DescribeTargetGroupsOutput::builder()
            .set_target_groups(Some(group.into_iter().collect()))
            .build()
    });
    let rules = answer!(Elb::describe_rules, |world, _request| {
        let hidden = std::mem::take(&mut world.hides_rules_once);
        let rules = world.rules.iter().filter(|_| !hidden).map(|rule| {
            Rule::builder()
                .rule_arn(rule)
                .priority("100")
                .actions(forward(ID))
                .build()
        });
        DescribeRulesOutput::builder()
            .set_rules(Some(rules.collect()))
            .build()
    });
    let described_tags = answer!(Elb::describe_tags, |world, request| {
        let none = BTreeMap::new();
        let descriptions = request.resource_arns().iter().map(|resource| {
            let marks = if *resource == arn(ID) {
                world.group.as_ref().unwrap()
            } else {
                &none
            };
            TagDescription::builder()
                .resource_arn(resource)
                .set_tags(Some(elb_tags(marks)))
                .build()
        });
        DescribeTagsOutput::builder()
            .set_tag_descriptions(Some(descriptions.collect()))
            .build()
    });
    let tagged = answer!(Elb::add_tags, |world, request| {
        let tag = &request.tags()[0];
        world.done.push(format!("mark {}", tag.key().unwrap()));
        let (key, value) = (
            tag.key().unwrap().to_owned(),
            tag.value().unwrap().to_owned(),
        );
        world.group.as_mut().unwrap().insert(key, value);
        if world.switched_to_after_the_mark {
            world.active = Some(ID);
        }
        AddTagsOutput::builder().build()
    });
    let untagged = answer!(Elb::remove_tags, |world, request| {
        for key in request.tag_keys() {
            world.done.push(format!("unmark {key}"));
            world.group.as_mut().unwrap().remove(key);
        }
        RemoveTagsOutput::builder().build()
    });
    let rule_deleted = answer!(Elb::delete_rule, |world, request| {
        world
            .done
            .push(format!("delete {}", request.rule_arn().unwrap()));
        world
            .rules
            .retain(|rule| Some(rule.as_str()) != request.rule_arn());
        DeleteRuleOutput::builder().build()
    });
    let group_deleted = {
        let world = Arc::clone(&world);
        mock!(Elb::delete_target_group).then_compute_response(move |_request| {
            let mut world = world.lock().unwrap();
            if !world.rules.is_empty() {
                return MockResponse::Error(DeleteTargetGroupError::generic(
                    aws_sdk_ecs::error::ErrorMetadata::builder()
                        .code("ResourceInUse")
                        .build(),
                ));
            }
            world.done.push("delete target group".into());
            world.group = None;
            MockResponse::Output(DeleteTargetGroupOutput::builder().build())
        })
    };
    let services = answer!(Ecs::describe_services, |world, _request| {
        let service = world.service.map(|status| {
            Service::builder()
                .service_name(ID)
                .status(status)
                .desired_count(world.desired)
                .running_count(world.running)
                .set_tags(Some(ecs_tags()))
                .build()
        });
        DescribeServicesOutput::builder()
            .set_services(Some(service.into_iter().collect()))
            .build()
    });
    let updated = {
        let world = Arc::clone(&world);
        mock!(Ecs::update_service).then_compute_response(move |request| {
            let mut world = world.lock().unwrap();
            assert_eq!(request.force_new_deployment(), None);
            world.desired = request.desired_count().unwrap();
            let desired = world.desired;
            world.done.push(format!("want {desired}"));
            if std::mem::take(&mut world.loses_an_answer) {
                return MockResponse::Error(UpdateServiceError::generic(
                    aws_sdk_ecs::error::ErrorMetadata::builder()
                        .code("ServerException")
                        .build(),
                ));
            }
            MockResponse::Output(UpdateServiceOutput::builder().build())
        })
    };
    let listed_tasks = answer!(Ecs::list_tasks, |world, request| {
        assert_eq!(request.desired_status(), Some(&DesiredStatus::Stopped));
        let arns = (0..world.stopping).map(|task| format!("task/{task}"));
        ListTasksOutput::builder()
            .set_task_arns(Some(arns.chain(["task/stopped".to_owned()]).collect()))
            .build()
    });
    let tasks = mock!(Ecs::describe_tasks).then_compute_output(|request| {
        let tasks = request.tasks().iter().map(|arn| {
            let status = match arn.as_str() {
                "task/stopped" => "STOPPED",
                _ => "DEACTIVATING",
            };
            Task::builder().task_arn(arn).last_status(status).build()
        });
        DescribeTasksOutput::builder()
            .set_tasks(Some(tasks.collect()))
            .build()
    });
    let service_deleted = answer!(Ecs::delete_service, |world, _request| {
        world.done.push("delete service".into());
        world.service = Some("DRAINING");
        let service = Service::builder().status("DRAINING").build();
        DeleteServiceOutput::builder().service(service).build()
    });
    let definitions = answer!(Ecs::list_task_definitions, |world, _request| {
        let arns = world.task_definition.then(|| "test-app:1".to_owned());
        ListTaskDefinitionsOutput::builder()
            .set_task_definition_arns(Some(arns.into_iter().collect()))
            .build()
    });
    let definition = mock!(Ecs::describe_task_definition).then_output(|| {
        let definition = TaskDefinition::builder()
            .task_definition_arn("test-app:1")
            .family("test-app")
            .status(TaskDefinitionStatus::Active)
            .build();
        DescribeTaskDefinitionOutput::builder()
            .task_definition(definition)
            .set_tags(Some(ecs_tags()))
            .build()
    });
    let deregistered = answer!(Ecs::deregister_task_definition, |world, _request| {
        world.done.push("deregister task definition".into());
        world.task_definition = false;
        DeregisterTaskDefinitionOutput::builder().build()
    });
    let clients = Clients {
        ecs: mock_client!(
            aws_sdk_ecs,
            RuleMode::MatchAny,
            [
                &services,
                &updated,
                &listed_tasks,
                &tasks,
                &service_deleted,
                &definitions,
                &definition,
                &deregistered
            ]
        ),
        elb: mock_client!(
            aws_sdk_elasticloadbalancingv2,
            RuleMode::MatchAny,
            [
                &listeners,
                &groups,
                &rules,
                &described_tags,
                &tagged,
                &untagged,
                &rule_deleted,
                &group_deleted
            ]
        ),
    };
    let settings = Settings {
        baseline: lifecycle::Settings::for_tests(),
        settle: SETTLE,
    };
    let output = run(&clients, &settings, NOW, input).await;
    let end = std::mem::take(&mut *world.lock().unwrap());
    (output, end)
}

/// Calls the step until nothing is left, with ECS done after the first look.
async fn delete_all(mut world: World) -> Vec<String> {
    for _ in 0..10 {
        let (output, end) = delete(world, false).await;
        world = end;
        if output.unwrap().verdict == Verdict::Deleted {
            assert!(world.rules.is_empty() && world.group.is_none());
            assert!(world.service.is_none() && !world.task_definition);
            return world.done;
        }
        if world.service == Some("DRAINING") {
            world.service = None;
        }
    }
    panic!("never ends: {world:?}");
}

#[tokio::test]
async fn rules_go_first_then_the_service_the_target_group_and_the_task_definition() {
    assert_eq!(
        delete_all(whole()).await,
        [
            "mark pulse:deleting-since",
            "delete rule/1",
            "delete rule/2",
            "delete service",
            "delete target group",
            "deregister task definition"
        ]
    );
}

#[tokio::test]
async fn what_is_gone_already_is_success() {
    let nothing = World {
        active: Some(OTHER),
        ..World::default()
    };
    let (output, end) = delete(nothing, true).await;
    assert_eq!(output.unwrap().verdict, Verdict::Deleted);
    assert!(end.done.is_empty());
}

#[tokio::test]
async fn rules_that_an_old_list_hid_are_deleted_when_the_target_group_is_in_use() {
    let world = World {
        hides_rules_once: true,
        service: None,
        ..marked(&[tags::DELETING_SINCE])
    };
    let (output, world) = delete(world, false).await;
    assert_eq!(output.unwrap().verdict, Verdict::Deleting);
    assert_eq!(world.done, ["delete rule/1", "delete rule/2"]);
    let (output, world) = delete(world, false).await;
    assert_eq!(output.unwrap().verdict, Verdict::Deleted);
    assert!(world.group.is_none() && !world.task_definition);
}

#[tokio::test]
async fn the_active_deployment_is_refused_and_left_whole() {
    let (output, end) = delete(
        World {
            active: Some(ID),
            ..whole()
        },
        false,
    )
    .await;
    assert_eq!(output.unwrap_err().name, ErrorName::DeploymentActive);
    assert_eq!(
        end.done,
        ["unmark pulse:deleting-since", "unmark pulse:unrouted-since"]
    );
}

#[tokio::test]
async fn a_deployment_that_was_live_is_not_undone_like_a_candidate() {
    let (output, end) = delete(marked(&[tags::LIVE_SINCE]), true).await;
    assert_eq!(output.unwrap_err().name, ErrorName::DeploymentWasLive);
    assert!(end.done.is_empty());
}

#[tokio::test]
async fn one_that_was_brought_back_since_it_was_planned_is_kept() {
    let planned = || Input {
        deployment_id: ID.parse().unwrap(),
        only_if_never_live: false,
        only_if_draining: true,
        force: true,
    };
    let (output, end) = call(marked(&[tags::READY_AT, tags::LIVE_SINCE]), planned()).await;
    let error = output.unwrap_err();
    assert_eq!(error.name, ErrorName::DeploymentWasLive);
    assert!(error.message.contains("is no longer"), "{error}");
    assert!(end.done.is_empty(), "{:?}", end.done);
    for mark in [tags::DRAINING_SINCE, tags::DELETING_SINCE] {
        let world = marked(&[tags::READY_AT, tags::LIVE_SINCE, mark]);
        let (output, end) = call(world, planned()).await;
        assert_eq!(output.unwrap().verdict, Verdict::Deleting, "{mark}");
        assert!(!end.done.is_empty(), "{mark}");
    }
}

#[tokio::test]
async fn a_ready_candidate_is_marked_first_and_deleted_by_the_next_call() {
    let (output, world) = delete(marked(&[tags::READY_AT]), true).await;
    assert_eq!(output.unwrap().verdict, Verdict::Deleting);
    assert_eq!(world.done, ["mark pulse:deleting-since"]);
    // Called again at once, because the answer was lost, say.
    let (output, world) = delete(world, true).await;
    assert_eq!(output.unwrap().verdict, Verdict::Deleting);
    assert_eq!(world.done, ["mark pulse:deleting-since"]);
    let (output, world) = delete(
        marked_for(world, tags::DELETING_SINCE, defaults::SWITCH_IN_FLIGHT),
        true,
    )
    .await;
    assert_eq!(output.unwrap().verdict, Verdict::Deleting);
    assert!(
        world.done.contains(&"delete service".to_owned()),
        "{:?}",
        world.done
    );
}

#[tokio::test]
async fn one_that_was_switched_to_after_the_mark_is_kept_and_unmarked() {
    let world = World {
        switched_to_after_the_mark: true,
        ..whole()
    };
    let (output, world) = delete(world, false).await;
    assert_eq!(output.unwrap_err().name, ErrorName::DeploymentActive);
    assert_eq!(
        world.done,
        [
            "mark pulse:deleting-since",
            "unmark pulse:deleting-since",
            "unmark pulse:unrouted-since"
        ]
    );
    assert_eq!(world.rules.len(), 2);
}

#[tokio::test]
async fn one_that_went_live_during_its_undo_loses_the_mark_of_its_deletion() {
    let world = marked(&[tags::READY_AT, tags::DELETING_SINCE, tags::LIVE_SINCE]);
    let (output, world) = delete(world, true).await;
    assert_eq!(output.unwrap_err().name, ErrorName::DeploymentWasLive);
    assert_eq!(
        world.done,
        ["unmark pulse:deleting-since", "unmark pulse:unrouted-since"]
    );
}

#[tokio::test]
async fn one_that_was_protected_since_the_plan_is_refused_and_left_whole() {
    let world = marked(&[tags::READY_AT, tags::LIVE_SINCE, tags::PROTECTED]);
    let (output, world) = force(world).await;
    let error = output.unwrap_err();
    assert_eq!(error.name, ErrorName::DeploymentActive);
    assert!(error.message.contains("is protected"), "{error}");
    assert!(world.done.is_empty(), "{:?}", world.done);
}

#[tokio::test]
async fn a_protected_candidate_is_undone_all_the_same() {
    let (output, _) = delete(marked(&[tags::PROTECTED]), true).await;
    assert_eq!(output.unwrap().verdict, Verdict::Deleting);
}

#[tokio::test]
async fn tasks_outlive_the_rules_of_a_deployment_that_was_live() {
    let (output, world) = delete(marked(&[tags::LIVE_SINCE, tags::DELETING_SINCE]), false).await;
    let output = output.unwrap();
    assert_eq!(output.verdict, Verdict::Deleting);
    assert!(
        output.reason.contains("forget its rules"),
        "{}",
        output.reason
    );
    assert_eq!(world.service, Some("ACTIVE"));
    assert_eq!(
        world.done,
        [
            "delete rule/1",
            "delete rule/2",
            "mark pulse:unrouted-since"
        ]
    );
}

#[tokio::test]
async fn tasks_outlive_rules_whose_deletion_nobody_could_tell_of() {
    // The call that deleted the rules was killed before it wrote when.
    let mut world = marked(&[tags::LIVE_SINCE, tags::DELETING_SINCE]);
    world.rules.clear();
    for done in [&["mark pulse:unrouted-since"][..], &[]] {
        let (output, end) = delete(world, false).await;
        assert_eq!(output.unwrap().verdict, Verdict::Deleting);
        assert_eq!(end.done, done);
        assert_eq!(end.service, Some("ACTIVE"));
        world = World {
            done: Vec::new(),
            ..end
        };
    }
    // The mark may have been written almost a second later than it says.
    let (output, world) = delete(unrouted_for(world, SETTLE), false).await;
    assert_eq!(output.unwrap().verdict, Verdict::Deleting);
    assert!(world.done.is_empty(), "{:?}", world.done);
    let (_, world) = delete(unrouted_for(world, FORGOTTEN), false).await;
    assert_eq!(world.done, ["delete service"]);
}

#[tokio::test]
async fn the_time_counts_anew_when_rules_were_deleted_once_more() {
    let world = marked(&[tags::LIVE_SINCE, tags::DELETING_SINCE]);
    let (output, world) = delete(unrouted_for(world, FORGOTTEN), false).await;
    assert_eq!(output.unwrap().verdict, Verdict::Deleting);
    assert_eq!(
        world.done,
        [
            "delete rule/1",
            "delete rule/2",
            "mark pulse:unrouted-since"
        ]
    );
    let group = world.group.unwrap();
    assert_eq!(group[tags::UNROUTED_SINCE], tags::timestamp(NOW));
}

/// The same world, so long after its target group was marked.
fn marked_for(mut world: World, mark: &str, time: Duration) -> World {
    let since = tags::timestamp(NOW - time);
    let group = world.group.as_mut().unwrap();
    group.insert(mark.to_owned(), since);
    world
}

/// The same world, so long after its rules were seen gone.
fn unrouted_for(world: World, time: Duration) -> World {
    marked_for(world, tags::UNROUTED_SINCE, time)
}

/// Live before, past its deadline, its rules gone and forgotten.
fn without_rules() -> World {
    let world = World {
        rules: Vec::new(),
        ..marked(&[tags::READY_AT, tags::LIVE_SINCE, tags::DELETING_SINCE])
    };
    unrouted_for(world, FORGOTTEN)
}

#[tokio::test]
async fn forced_tasks_stop_one_after_another() {
    let mut world = without_rules();
    let mut calls = Vec::new();
    for _ in 0..20 {
        let (output, end) = force(world).await;
        world = end;
        calls.push(world.done.drain(..).collect::<Vec<_>>().join(", "));
        if output.unwrap().verdict == Verdict::Deleted {
            assert_eq!(
                calls,
                [
                    "want 1",
                    "", // the first task stops
                    "want 0",
                    "delete service",
                    "delete target group, deregister task definition"
                ]
            );
            return;
        }
        // What ECS does until the next call.
        if world.stopping > 0 {
            world.stopping = 0;
        } else if world.running > world.desired {
            world.running -= 1;
            world.stopping = 1;
        }
        if world.service == Some("DRAINING") {
            world.service = None;
        }
    }
    panic!("never ends: {calls:?}");
}

#[tokio::test]
async fn a_lost_answer_stops_no_second_task() {
    let world = World {
        loses_an_answer: true,
        ..without_rules()
    };
    let (output, world) = force(world).await;
    assert_eq!(output.unwrap_err().name, ErrorName::Transient);
    let (output, world) = force(world).await;
    let output = output.unwrap();
    assert_eq!(output.verdict, Verdict::Deleting);
    assert!(output.reason.contains("task to stop"), "{}", output.reason);
    assert_eq!(world.done, ["want 1"]);
}

#[tokio::test]
async fn forced_tasks_outlive_the_rules_too() {
    let world = marked(&[tags::READY_AT, tags::LIVE_SINCE, tags::DELETING_SINCE]);
    let (output, world) = force(world).await;
    assert_eq!(output.unwrap().verdict, Verdict::Deleting);
    assert_eq!(
        world.done,
        [
            "delete rule/1",
            "delete rule/2",
            "mark pulse:unrouted-since"
        ]
    );
}

#[tokio::test]
async fn nobody_is_on_a_candidate_so_its_tasks_stop_together_even_by_force() {
    let world = World {
        rules: Vec::new(),
        ..marked(&[tags::DELETING_SINCE])
    };
    let (_, world) = force(world).await;
    assert_eq!(world.done, ["delete service"]);
}

#[tokio::test]
async fn the_active_deployment_is_refused_even_by_force() {
    let world = World {
        active: Some(ID),
        ..without_rules()
    };
    let (output, world) = force(world).await;
    assert_eq!(output.unwrap_err().name, ErrorName::DeploymentActive);
    assert_eq!(world.desired, 2);
}

#[tokio::test]
async fn one_that_is_being_rolled_back_to_is_kept_and_unmarked() {
    let now = "2025-10-27T12:29:00Z".to_owned();
    for forced in [false, true] {
        let mut world = marked(&[tags::READY_AT, tags::LIVE_SINCE, tags::DELETING_SINCE]);
        let marks = world.group.as_mut().unwrap();
        marks.insert(tags::RESTORING_SINCE.into(), now.clone());
        let (output, world) = match forced {
            true => force(world).await,
            false => delete(world, false).await,
        };
        assert_eq!(output.unwrap_err().name, ErrorName::DeploymentActive);
        assert_eq!(
            world.done,
            ["unmark pulse:deleting-since", "unmark pulse:unrouted-since"]
        );
        // Again, as by a retry.
        let (output, world) = force(World {
            done: Vec::new(),
            ..world
        })
        .await;
        assert_eq!(output.unwrap_err().name, ErrorName::DeploymentActive);
        assert!(world.done.is_empty(), "{:?}", world.done);
    }
}

#[tokio::test]
async fn a_rollback_that_died_long_ago_keeps_nothing() {
    let mut world = without_rules();
    let marks = world.group.as_mut().unwrap();
    marks.insert(tags::RESTORING_SINCE.into(), "2025-10-27T10:00:00Z".into());
    let (output, _) = force(world).await;
    assert_eq!(output.unwrap().verdict, Verdict::Deleting);
}
