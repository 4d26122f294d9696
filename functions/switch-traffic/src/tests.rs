use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::*;
use aws_sdk_elasticloadbalancingv2::operation::add_tags::AddTagsOutput;
use aws_sdk_elasticloadbalancingv2::operation::describe_listeners::DescribeListenersOutput;
use aws_sdk_elasticloadbalancingv2::operation::describe_rules::DescribeRulesOutput;
use aws_sdk_elasticloadbalancingv2::operation::describe_tags::DescribeTagsOutput;
use aws_sdk_elasticloadbalancingv2::operation::describe_target_health::DescribeTargetHealthOutput;
use aws_sdk_elasticloadbalancingv2::operation::modify_listener::{
    ModifyListenerError, ModifyListenerOutput,
};
use aws_sdk_elasticloadbalancingv2::operation::remove_tags::{RemoveTagsError, RemoveTagsOutput};
use aws_sdk_elasticloadbalancingv2::types::{
    Action, ActionTypeEnum, Listener, Rule, TagDescription, TargetHealth, TargetHealthDescription,
};
use aws_sdk_elasticloadbalancingv2::types::{Tag, TargetHealthStateEnum};
use aws_smithy_mocks::{MockResponse, RuleMode, mock, mock_client};
use lifecycle::routing;

const OLD: &str = "test-20251027-122112Z";
const NEW: &str = "test-20251027-122113Z";
const NEWEST: &str = "test-20251027-122114Z";

/// A listener with deployments, kept as AWS would keep it.
#[derive(Default)]
struct World {
    default: Option<String>,
    tags: BTreeMap<String, BTreeMap<String, String>>,
    unhealthy: Vec<String>,
    /// ModifyListener calls, by the target group they named.
    switches: Vec<String>,
    /// What was marked and unmarked, in order, from 0 at each call of the step.
    marks: Vec<String>,
    /// ModifyListener fails, before the change or after it.
    fails: Option<Fails>,
    /// RemoveTags is denied.
    keeps_tags: bool,
    /// These lose their health after it was looked at once.
    loses_health: Vec<String>,
    /// What somebody else does right after our n-th modification (from 0).
    meanwhile: Vec<fn(&mut World)>,
}

/// Where ModifyListener fails.
#[derive(Clone, Copy, PartialEq)]
enum Fails {
    Before,
    After,
    /// After it, with an answer that replaced that open; somebody else has switched on meanwhile.
    Unclear,
}

impl World {
    fn with(deployments: &[(&str, &[&str])]) -> World {
        let mut world = World::default();
        for (id, marks) in deployments {
            let mut tags: BTreeMap<_, _> = tags::for_deployment(&id.parse().unwrap())
                .map(|(key, value)| (key.to_owned(), value))
                .into();
            tags.extend(
                marks
                    .iter()
                    .map(|mark| (mark.to_string(), "then".to_owned())),
            );
            world.tags.insert(arn(id), tags);
        }
        world
    }

    fn active(mut self, id: &str) -> World {
        self.default = Some(arn(id));
        self
    }
}

fn arn(id: &str) -> String {
    format!("arn:aws:elasticloadbalancing:us-east-1:1:targetgroup/{id}/abc")
}

fn forward(arn: &str) -> Action {
    Action::builder()
        .r#type(ActionTypeEnum::Forward)
        .target_group_arn(arn)
        .build()
}

async fn switch(world: World, id: &str) -> (Result<Output, StepError>, World) {
    call(world, id, None).await
}

async fn roll_back(world: World, id: &str) -> (Result<Output, StepError>, World) {
    call(world, id, Some(None)).await
}

async fn roll_back_from(
    world: World,
    replaced: &[&str],
    id: &str,
) -> (Result<Output, StepError>, World) {
    let replaced = replaced.iter().map(|id| id.parse().unwrap()).collect();
    call(world, id, Some(Some(replaced))).await
}

fn id_of(arn: &str) -> &str {
    target_group::name(arn).unwrap()
}

/// `roll_back` has what the rollback replaced, if it says so.
async fn call(
    mut world: World,
    id: &str,
    roll_back: Option<Option<Vec<DeploymentId>>>,
) -> (Result<Output, StepError>, World) {
    world.marks.clear();
    world.switches.clear();
    let world = Arc::new(Mutex::new(world));
    macro_rules! answer {
        ($operation:ident, |$world:ident, $request:ident| $body:expr) => {{
            let world = Arc::clone(&world);
            mock!(Client::$operation).then_compute_output(move |$request| {
                #[allow(unused_mut)]
                let mut $world = world.lock().unwrap();
                $body
            })
        }};
    }
    let listeners = answer!(describe_listeners, |world, _request| {
        let action = match &world.default {
            Some(arn) => forward(arn),
            None => Action::builder()
                .r#type(ActionTypeEnum::FixedResponse)
                .build(),
        };
        DescribeListenersOutput::builder()
            .listeners(Listener::builder().default_actions(action).build())
            .build()
    });
    let rules = answer!(describe_rules, |world, _request| {
        let rules = world
            .tags
            .keys()
            .map(|arn| Rule::builder().actions(forward(arn)).build())
            .collect();
        DescribeRulesOutput::builder()
            .set_rules(Some(rules))
            .build()
    });
    let described = answer!(describe_tags, |world, request| {
        let descriptions = request
            .resource_arns()
            .iter()
            .map(|arn| {
                let tags = world.tags[arn]
                    .iter()
                    .map(|(k, v)| Tag::builder().key(k).value(v).build())
                    .collect();
                TagDescription::builder()
                    .resource_arn(arn)
                    .set_tags(Some(tags))
                    .build()
            })
            .collect();
        DescribeTagsOutput::builder()
            .set_tag_descriptions(Some(descriptions))
            .build()
    });
    let health = answer!(describe_target_health, |world, request| {
        let asked = |arn: &String| Some(arn.as_str()) == request.target_group_arn();
        let state = match world.unhealthy.iter().any(asked) {
            true => TargetHealthStateEnum::Unhealthy,
            false => TargetHealthStateEnum::Healthy,
        };
        if let Some(place) = world.loses_health.iter().position(asked) {
            let arn = world.loses_health.remove(place);
            world.unhealthy.push(arn);
        }
        let target = TargetHealth::builder().state(state).build();
        DescribeTargetHealthOutput::builder()
            .target_health_descriptions(
                TargetHealthDescription::builder()
                    .target_health(target)
                    .build(),
            )
            .build()
    });
    let tagged = answer!(add_tags, |world, request| {
        for arn in request.resource_arns() {
            for tag in request.tags() {
                let (key, value) = (
                    tag.key().unwrap().to_owned(),
                    tag.value().unwrap().to_owned(),
                );
                world.marks.push(format!("{} +{key}", id_of(arn)));
                world.tags.get_mut(arn).unwrap().insert(key, value);
            }
        }
        AddTagsOutput::builder().build()
    });
    let removed = {
        let world = Arc::clone(&world);
        mock!(Client::remove_tags).then_compute_response(move |request| {
            let mut world = world.lock().unwrap();
            if world.keeps_tags {
                return MockResponse::Error(RemoveTagsError::generic(
                    aws_sdk_elasticloadbalancingv2::error::ErrorMetadata::builder()
                        .code("AccessDenied")
                        .message("no")
                        .build(),
                ));
            }
            for arn in request.resource_arns() {
                for key in request.tag_keys() {
                    world.marks.push(format!("{} -{key}", id_of(arn)));
                    world.tags.get_mut(arn).unwrap().remove(key);
                }
            }
            MockResponse::Output(RemoveTagsOutput::builder().build())
        })
    };
    let modified = {
        let world = Arc::clone(&world);
        mock!(Client::modify_listener).then_compute_response(move |request| {
            let mut world = world.lock().unwrap();
            let arn = routing::forwards(request.default_actions())[0]
                .target_group_arn()
                .unwrap()
                .to_owned();
            world.switches.push(arn.clone());
            if world.fails != Some(Fails::Before) {
                world.default = Some(arn);
            }
            if world.fails.is_some() {
                let meta = aws_sdk_elasticloadbalancingv2::error::ErrorMetadata::builder()
                    .code(match world.fails {
                        Some(Fails::Unclear) => "InternalFailure",
                        _ => "AccessDenied",
                    })
                    .build();
                if world.fails == Some(Fails::Unclear) {
                    world.default = Some(self::arn(OLD));
                }
                return MockResponse::Error(ModifyListenerError::generic(meta));
            }
            if !world.meanwhile.is_empty() {
                world.meanwhile.remove(0)(&mut world);
            }
            MockResponse::Output(ModifyListenerOutput::builder().build())
        })
    };
    let elb = mock_client!(
        aws_sdk_elasticloadbalancingv2,
        RuleMode::MatchAny,
        [
            &listeners, &rules, &described, &health, &tagged, &removed, &modified
        ]
    );
    let input = Input {
        deployment_id: id.parse().unwrap(),
        target_group_arn: arn(id),
        roll_back: roll_back.is_some(),
        replaced: roll_back.flatten(),
    };
    let now = time::macros::utc_datetime!(2025-10-27 12:30:00);
    let output = run(&elb, &Settings::for_tests(), now, input).await;
    drop((elb, listeners, rules, described, health, tagged, removed));
    drop(modified);
    let world = Arc::into_inner(world)
        .expect("the mocks are gone")
        .into_inner()
        .unwrap();
    (output, world)
}

#[tokio::test]
async fn the_first_deployment_replaces_the_fixed_response() {
    let (output, world) = switch(World::with(&[(NEW, &[])]), NEW).await;
    let output = output.unwrap();
    assert_eq!(output.outcome, Outcome::Switched);
    assert_eq!(output.previous_deployment_id, None);
    assert_eq!(world.default, Some(arn(NEW)));
    assert_eq!(
        world.tags[&arn(NEW)][tags::READY_AT],
        "2025-10-27T12:30:00Z"
    );
    assert_eq!(
        world.tags[&arn(NEW)][tags::LIVE_SINCE],
        "2025-10-27T12:30:00Z"
    );
}

#[tokio::test]
async fn the_newer_deployment_takes_over_and_the_previous_one_is_named() {
    let (output, world) = switch(
        World::with(&[(OLD, &[tags::READY_AT]), (NEW, &[])]).active(OLD),
        NEW,
    )
    .await;
    let output = output.unwrap();
    assert_eq!(output.outcome, Outcome::Switched);
    assert_eq!(output.previous_deployment_id, Some(OLD.parse().unwrap()));
    assert_eq!(world.switches, [arn(NEW)]);
}

#[tokio::test]
async fn switching_twice_modifies_once() {
    let (_, world) = switch(World::with(&[(NEW, &[])]), NEW).await;
    let (output, world) = switch(world, NEW).await;
    assert_eq!(output.unwrap().outcome, Outcome::Switched);
    assert!(world.switches.is_empty());
}

#[tokio::test]
async fn an_older_candidate_is_superseded_and_moves_nothing() {
    let (output, world) = switch(
        World::with(&[(OLD, &[]), (NEW, &[tags::READY_AT])]).active(NEW),
        OLD,
    )
    .await;
    assert_eq!(output.unwrap().outcome, Outcome::Superseded);
    assert!(world.switches.is_empty());
    assert!(!world.tags[&arn(OLD)].contains_key(tags::LIVE_SINCE));
}

#[tokio::test]
async fn a_newer_one_that_is_ready_but_not_yet_switched_goes_first() {
    let (output, world) = switch(World::with(&[(OLD, &[]), (NEW, &[tags::READY_AT])]), OLD).await;
    assert_eq!(output.unwrap().outcome, Outcome::Superseded);
    assert_eq!(world.switches, [arn(NEW)]);
    assert!(world.tags[&arn(NEW)].contains_key(tags::LIVE_SINCE));
}

#[tokio::test]
async fn a_stale_modification_is_noticed_and_put_right() {
    // Between our reading and our modification the newest got ready and was switched to.
    let mut world = World::with(&[(NEW, &[]), (NEWEST, &[])]);
    world.meanwhile = vec![|world| {
        world
            .tags
            .get_mut(&arn(NEWEST))
            .unwrap()
            .insert(tags::READY_AT.into(), "now".into());
    }];
    let (output, world) = switch(world, NEW).await;
    assert_eq!(output.unwrap().outcome, Outcome::Superseded);
    assert_eq!(world.switches, [arn(NEW), arn(NEWEST)]);
}

#[tokio::test]
async fn a_modification_that_was_overwritten_is_made_again() {
    let mut world = World::with(&[(OLD, &[tags::READY_AT]), (NEW, &[])]).active(OLD);
    world.meanwhile = vec![|world| world.default = Some(arn(OLD))];
    let (output, world) = switch(world, NEW).await;
    assert_eq!(output.unwrap().outcome, Outcome::Switched);
    assert_eq!(world.switches, [arn(NEW), arn(NEW)]);
}

#[tokio::test]
async fn what_fights_us_is_an_error_and_not_an_endless_loop() {
    let mut world = World::with(&[(OLD, &[tags::READY_AT]), (NEW, &[])]).active(OLD);
    world.meanwhile = vec![|world| world.default = Some(arn(OLD)); 100];
    let (output, world) = switch(world, NEW).await;
    assert_eq!(output.unwrap_err().name, ErrorName::Transient);
    assert_eq!(world.switches.len(), MAX_ROUNDS);
}

#[tokio::test]
async fn rolled_back_or_deleted_deployments_are_not_switched_to() {
    for mark in [tags::ROLLED_BACK_AT, tags::DELETING_SINCE] {
        let (output, world) = switch(
            World::with(&[(NEW, &[]), (NEWEST, &[tags::READY_AT, mark])]),
            NEW,
        )
        .await;
        assert_eq!(output.unwrap().outcome, Outcome::Switched, "{mark}");
        assert_eq!(world.switches, [arn(NEW)]);
    }
}

#[tokio::test]
async fn a_candidate_without_a_healthy_target_gets_no_mark_and_moves_nothing() {
    let mut world = World::with(&[(OLD, &[tags::READY_AT]), (NEW, &[])]).active(OLD);
    world.unhealthy = vec![arn(NEW)];
    let (output, world) = switch(world, NEW).await;
    let output = output.unwrap();
    assert_eq!(output.outcome, Outcome::Unhealthy);
    assert_eq!(output.active_deployment_id, Some(OLD.parse().unwrap()));
    assert!(!world.tags[&arn(NEW)].contains_key(tags::READY_AT));
    assert!(world.switches.is_empty());
}

#[tokio::test]
async fn a_newer_ready_one_that_lost_its_health_is_passed_over() {
    let mut world = World::with(&[(NEW, &[]), (NEWEST, &[tags::READY_AT])]);
    world.unhealthy = vec![arn(NEWEST)];
    let (output, world) = switch(world, NEW).await;
    assert_eq!(output.unwrap().outcome, Outcome::Switched);
    assert_eq!(world.default, Some(arn(NEW)));
}

#[tokio::test]
async fn the_active_newer_one_keeps_traffic_through_a_moment_of_bad_health() {
    let mut world = World::with(&[(NEW, &[]), (NEWEST, &[tags::READY_AT])]).active(NEWEST);
    world.unhealthy = vec![arn(NEWEST)];
    let (output, world) = switch(world, NEW).await;
    assert_eq!(output.unwrap().outcome, Outcome::Superseded);
    assert!(world.switches.is_empty());
}

#[tokio::test]
async fn the_active_newer_one_stays_active_even_without_its_tags() {
    let mut world = World::with(&[(NEW, &[])]).active(NEWEST);
    world.tags.insert(arn(NEWEST), BTreeMap::new());
    let (output, world) = switch(world, NEW).await;
    assert_eq!(output.unwrap().outcome, Outcome::Superseded);
    assert!(world.switches.is_empty());
    assert!(world.tags[&arn(NEWEST)].is_empty());
}

#[tokio::test]
async fn a_switch_that_failed_leaves_a_candidate_that_can_be_undone() {
    let mut world = World::with(&[(OLD, &[tags::READY_AT]), (NEW, &[])]).active(OLD);
    world.fails = Some(Fails::Before);
    let (output, world) = switch(world, NEW).await;
    assert_eq!(output.unwrap_err().name, ErrorName::AccessDenied);
    assert!(!world.tags[&arn(NEW)].contains_key(tags::LIVE_SINCE));
}

#[tokio::test]
async fn a_switch_that_may_have_taken_effect_keeps_its_mark_whatever_the_listener_says_now() {
    let mut world = World::with(&[(OLD, &[tags::READY_AT]), (NEW, &[])]).active(OLD);
    world.fails = Some(Fails::Unclear);
    let (output, world) = switch(world, NEW).await;
    assert_eq!(output.unwrap_err().name, ErrorName::Transient);
    assert!(world.tags[&arn(NEW)].contains_key(tags::LIVE_SINCE));
}

#[tokio::test]
async fn a_switch_that_took_effect_before_it_failed_is_still_known_to_be_live() {
    let mut world = World::with(&[(OLD, &[tags::READY_AT]), (NEW, &[])]).active(OLD);
    world.fails = Some(Fails::After);
    let (output, world) = switch(world, NEW).await;
    assert_eq!(output.unwrap_err().name, ErrorName::AccessDenied);
    assert!(world.tags[&arn(NEW)].contains_key(tags::LIVE_SINCE));
}

#[tokio::test]
async fn what_is_active_without_the_mark_gets_it() {
    let world = World::with(&[(NEW, &[tags::READY_AT])]).active(NEW);
    let (output, world) = switch(world, NEW).await;
    assert_eq!(output.unwrap().outcome, Outcome::Switched);
    assert!(world.tags[&arn(NEW)].contains_key(tags::LIVE_SINCE));
}

#[tokio::test]
async fn rules_that_are_not_there_are_looked_for_again_later() {
    let mut world = World::with(&[(OLD, &[tags::READY_AT])]).active(OLD);
    world.tags.insert(arn(NEW), BTreeMap::new());
    let (output, world) = switch(world, NEW).await;
    assert_eq!(output.unwrap_err().name, ErrorName::Transient);
    assert!(world.switches.is_empty());
}

/// Ready and live before.
const LIVE: &[&str] = &[tags::READY_AT, tags::LIVE_SINCE];

#[tokio::test]
async fn a_rollback_marks_what_it_leaves_and_all_that_is_newer_and_ready() {
    let world = World::with(&[(OLD, LIVE), (NEW, LIVE), (NEWEST, &[tags::READY_AT])]).active(NEW);
    let (output, world) = roll_back(world, OLD).await;
    let output = output.unwrap();
    assert_eq!(output.outcome, Outcome::Switched);
    assert_eq!(output.previous_deployment_id, Some(NEW.parse().unwrap()));
    assert_eq!(world.default, Some(arn(OLD)));
    for left in [NEW, NEWEST] {
        assert_eq!(
            world.tags[&arn(left)][tags::ROLLED_BACK_AT],
            "2025-10-27T12:30:00Z"
        );
    }
    assert!(!world.tags[&arn(OLD)].contains_key(tags::ROLLED_BACK_AT));
}

#[tokio::test]
async fn the_active_one_is_marked_last_and_the_targets_own_mark_goes_first() {
    let back = [tags::READY_AT, tags::LIVE_SINCE, tags::ROLLED_BACK_AT];
    let world = World::with(&[(OLD, &back), (NEW, LIVE), (NEWEST, &[tags::READY_AT])]).active(NEW);
    let (output, world) = roll_back(world, OLD).await;
    assert_eq!(output.unwrap().outcome, Outcome::Switched);
    assert_eq!(
        world.marks,
        [
            format!("{OLD} -{}", tags::ROLLED_BACK_AT),
            format!("{NEWEST} +{}", tags::ROLLED_BACK_AT),
            format!("{NEW} +{}", tags::ROLLED_BACK_AT),
            format!("{OLD} +{}", tags::READY_AT),
        ]
    );
}

#[tokio::test]
async fn rolling_back_twice_marks_and_modifies_once() {
    let world = World::with(&[(OLD, LIVE), (NEW, LIVE)]).active(NEW);
    let (first, world) = roll_back(world, OLD).await;
    assert_eq!(first.unwrap().outcome, Outcome::Switched);
    // As after an answer that was lost.
    let (second, world) = roll_back(world, OLD).await;
    assert_eq!(second.unwrap().outcome, Outcome::Switched);
    assert!(world.switches.is_empty());
    assert_eq!(world.marks, [format!("{OLD} +{}", tags::READY_AT)]);
}

#[tokio::test]
async fn nothing_switches_forward_again_to_what_was_rolled_back() {
    let world = World::with(&[(OLD, LIVE), (NEW, LIVE)]).active(NEW);
    let (_, world) = roll_back(world, OLD).await;
    let (output, world) = switch(world, NEW).await;
    let output = output.unwrap();
    assert_eq!(output.outcome, Outcome::Unhealthy);
    assert!(output.reason.contains("rolled back"), "{}", output.reason);
    assert_eq!(world.default, Some(arn(OLD)));
}

#[tokio::test]
async fn a_rollback_to_one_that_was_rolled_back_itself_brings_it_back() {
    let back = [tags::READY_AT, tags::LIVE_SINCE, tags::ROLLED_BACK_AT];
    let world = World::with(&[(OLD, LIVE), (NEW, &back)]).active(OLD);
    let (output, world) = roll_back(world, NEW).await;
    assert_eq!(output.unwrap().outcome, Outcome::Switched);
    assert_eq!(world.default, Some(arn(NEW)));
    assert!(world.tags[&arn(OLD)].contains_key(tags::ROLLED_BACK_AT));
}

#[tokio::test]
async fn a_candidate_that_gets_ready_after_the_marks_wins_over_a_rollback() {
    let mut world = World::with(&[(OLD, LIVE), (NEW, LIVE), (NEWEST, &[])]).active(NEW);
    world.meanwhile = vec![|world| {
        let tags = world.tags.get_mut(&arn(NEWEST)).unwrap();
        tags.insert(tags::READY_AT.into(), "now".into());
    }];
    let (output, world) = roll_back(world, OLD).await;
    assert_eq!(output.unwrap().outcome, Outcome::Superseded);
    assert_eq!(world.default, Some(arn(NEWEST)));
}

#[tokio::test]
async fn one_that_went_live_since_the_rollback_began_stays_and_the_rollback_says_so() {
    let world = World::with(&[(OLD, LIVE), (NEW, LIVE), (NEWEST, LIVE)]).active(NEWEST);
    let (output, world) = roll_back_from(world, &[NEW], OLD).await;
    let output = output.unwrap();
    assert_eq!(output.outcome, Outcome::Superseded);
    assert_eq!(output.reason, format!("{NEWEST} is newer and active"));
    assert!(world.switches.is_empty());
    assert!(!world.tags[&arn(NEWEST)].contains_key(tags::ROLLED_BACK_AT));
    // What was meant is taken back all the same.
    assert!(world.tags[&arn(NEW)].contains_key(tags::ROLLED_BACK_AT));
}

#[tokio::test]
async fn one_that_got_ready_since_the_rollback_began_goes_live_instead() {
    let world = World::with(&[(OLD, LIVE), (NEW, LIVE), (NEWEST, &[tags::READY_AT])]).active(NEW);
    let (output, world) = roll_back_from(world, &[NEW], OLD).await;
    assert_eq!(output.unwrap().outcome, Outcome::Superseded);
    assert_eq!(world.default, Some(arn(NEWEST)));
    assert!(world.tags[&arn(NEW)].contains_key(tags::ROLLED_BACK_AT));
}

#[tokio::test]
async fn one_that_a_rollback_at_the_same_time_gave_free_is_marked_again() {
    let mut world = World::with(&[(OLD, LIVE), (NEW, LIVE), (NEWEST, LIVE)]).active(NEWEST);
    world.meanwhile = vec![|world| {
        let tags = world.tags.get_mut(&arn(NEW)).unwrap();
        tags.remove(tags::ROLLED_BACK_AT);
    }];
    let (output, world) = roll_back(world, OLD).await;
    assert_eq!(output.unwrap().outcome, Outcome::Switched);
    assert_eq!(world.default, Some(arn(OLD)));
    for left in [NEW, NEWEST] {
        assert!(world.tags[&arn(left)].contains_key(tags::ROLLED_BACK_AT));
    }
}

#[tokio::test]
async fn one_that_was_ready_when_the_rollback_began_is_left_with_the_active_one() {
    let world = World::with(&[(OLD, LIVE), (NEW, LIVE), (NEWEST, LIVE)]).active(NEWEST);
    let (output, world) = roll_back_from(world, &[NEW, NEWEST], OLD).await;
    assert_eq!(output.unwrap().outcome, Outcome::Switched);
    assert_eq!(world.default, Some(arn(OLD)));
}

#[tokio::test]
async fn a_rollback_whose_target_loses_its_health_goes_to_no_older_one() {
    let mut world = World::with(&[(OLD, LIVE), (NEW, LIVE), (NEWEST, LIVE)]).active(NEWEST);
    world.loses_health = vec![arn(NEW)];
    let (output, world) = roll_back_from(world, &[NEWEST], NEW).await;
    let output = output.unwrap();
    assert_eq!(output.outcome, Outcome::Unhealthy);
    assert!(output.reason.contains("was left as it was"), "{output:?}");
    assert_eq!(world.default, Some(arn(NEWEST)));
    assert!(world.switches.is_empty());
}

#[tokio::test]
async fn a_target_that_cannot_be_switched_to_leaves_all_marks_as_they_were() {
    let deleting = [tags::READY_AT, tags::LIVE_SINCE, tags::DELETING_SINCE];
    let world = World::with(&[(OLD, &deleting), (NEW, LIVE)]).active(NEW);
    let (output, world) = roll_back(world, OLD).await;
    assert_eq!(output.unwrap_err().name, ErrorName::ResourceConflict);
    assert!(world.marks.is_empty() && world.switches.is_empty());

    let mut world = World::with(&[(OLD, LIVE), (NEW, LIVE)]).active(NEW);
    world.unhealthy = vec![arn(OLD)];
    let (output, world) = roll_back(world, OLD).await;
    assert_eq!(output.unwrap().outcome, Outcome::Unhealthy);
    assert!(world.marks.is_empty() && world.switches.is_empty());

    let world = World::with(&[(NEW, LIVE)]).active(NEW);
    let (output, world) = roll_back(world, OLD).await;
    assert_eq!(output.unwrap_err().name, ErrorName::Transient);
    assert!(world.marks.is_empty() && world.switches.is_empty());
}

#[tokio::test]
async fn an_active_one_whose_tags_were_removed_is_left_untouched() {
    let mut world = World::with(&[(OLD, LIVE)]).active(NEW);
    world.tags.insert(arn(NEW), BTreeMap::new());
    let (output, world) = roll_back(world, OLD).await;
    assert_eq!(output.unwrap().outcome, Outcome::Switched);
    assert_eq!(world.default, Some(arn(OLD)));
    assert!(world.tags[&arn(NEW)].is_empty());
}

#[tokio::test]
async fn marks_of_the_rollback_go_when_traffic_is_back() {
    let mut world = World::with(&[
        (
            OLD,
            &[tags::READY_AT, tags::LIVE_SINCE, tags::DRAINING_SINCE],
        ),
        (NEW, LIVE),
    ])
    .active(NEW);
    world
        .tags
        .get_mut(&arn(OLD))
        .unwrap()
        .insert(tags::RESTORING_SINCE.into(), "2025-10-27T12:29:00Z".into());
    let (output, world) = roll_back(world, OLD).await;
    assert_eq!(output.unwrap().outcome, Outcome::Switched);
    for mark in [tags::RESTORING_SINCE, tags::DRAINING_SINCE] {
        assert!(!world.tags[&arn(OLD)].contains_key(mark), "{mark}");
    }
}

#[tokio::test]
async fn a_mark_that_cannot_be_removed_is_told_and_fails_no_rollback() {
    let mut world = World::with(&[(OLD, LIVE), (NEW, LIVE)]).active(NEW);
    world
        .tags
        .get_mut(&arn(OLD))
        .unwrap()
        .insert(tags::RESTORING_SINCE.into(), "2025-10-27T12:29:00Z".into());
    world.keeps_tags = true;
    let (output, _) = roll_back(world, OLD).await;
    let output = output.unwrap();
    assert_eq!(output.outcome, Outcome::Switched);
    assert!(
        output.reason.contains(tags::RESTORING_SINCE),
        "{}",
        output.reason
    );
}
