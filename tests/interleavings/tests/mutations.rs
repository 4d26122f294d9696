//! Checks that the exploration finds defects: the loop of the switch, written once more, once correct and
//! in several defective ways.

use std::collections::BTreeSet;

use aws_sdk_elasticloadbalancingv2::Client;
use aws_sdk_elasticloadbalancingv2::types::{Action, ActionTypeEnum, Tag};
use interleavings::call::{Deployment, LIVE, NOW, READY, ROLLED_BACK, group_arn, name};
use interleavings::explore::{Death, Plan, Scenario, explore};
use interleavings::learned::{Code, Ending, Invocation, shipped};
use interleavings::world::{Group, World};
use lifecycle::sdk::Clients;
use lifecycle::tags;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Mutation {
    None,
    NoReadBack,
    LiveAfterTheSwitch,
    NewestWhetherReadyOrNot,
    RolledBackToo,
    DeletingToo,
    DrainingToo,
    UnhealthyToo,
    OwnAlways,
}

fn code(mutation: Mutation) -> Code {
    let shipped = shipped();
    Box::new(move |invocation, clients| match invocation {
        Invocation::Switch { deployment, .. } => {
            Box::pin(async move { switch(&clients, deployment, mutation).await })
        }
        _ => shipped(invocation, clients),
    })
}

async fn switch(clients: &Clients, own: Deployment, mutation: Mutation) -> Ending {
    let (elb, own) = (&clients.elb, group_arn(&name(own)));
    mark(elb, &own, tags::READY_AT).await;
    for _ in 0..10 {
        let mut groups = groups(elb).await;
        let active = active(elb).await;
        groups.retain(|group| may_be_chosen(group, &own, active.as_deref(), mutation));
        // The newest first.
        groups.sort_by(|a, b| b.arn.cmp(&a.arn));
        let mut choice = None;
        for group in groups {
            let passes = mutation == Mutation::UnhealthyToo || Some(&group.arn) == active.as_ref();
            if passes || healthy(elb, &group.arn).await {
                choice = Some(group);
                break;
            }
        }
        let Some(choice) = choice else {
            return Ending::Unhealthy;
        };
        let ending = if choice.arn == own {
            Ending::Switched
        } else {
            Ending::Superseded
        };
        if active.as_ref() == Some(&choice.arn) {
            return ending;
        }
        if mutation != Mutation::LiveAfterTheSwitch {
            mark(elb, &choice.arn, tags::LIVE_SINCE).await;
        }
        let action = Action::builder()
            .r#type(ActionTypeEnum::Forward)
            .target_group_arn(&choice.arn)
            .build();
        let modified = elb
            .modify_listener()
            .listener_arn(memory_aws::LISTENER_ARN)
            .default_actions(action);
        if modified.send().await.is_err() {
            return Ending::Failed("ResourceConflictError");
        }
        if mutation == Mutation::LiveAfterTheSwitch {
            mark(elb, &choice.arn, tags::LIVE_SINCE).await;
        }
        if mutation == Mutation::NoReadBack {
            return ending;
        }
    }
    Ending::Failed("TransientError")
}

/// A target group that a rule names.
struct TargetGroup {
    arn: String,
    marks: BTreeSet<String>,
}

async fn active(elb: &Client) -> Option<String> {
    let answer = elb
        .describe_listeners()
        .listener_arns(memory_aws::LISTENER_ARN);
    let answer = answer.send().await.ok()?;
    let arn = answer.listeners()[0].default_actions()[0].target_group_arn();
    arn.map(str::to_owned)
}

async fn groups(elb: &Client) -> Vec<TargetGroup> {
    let answer = elb.describe_rules().listener_arn(memory_aws::LISTENER_ARN);
    let answer = answer.send().await.expect("rules can always be read");
    let actions = answer.rules().iter().flat_map(|rule| rule.actions());
    let arns: BTreeSet<String> = actions
        .filter_map(|it| it.target_group_arn.clone())
        .collect();
    if let Some(groups) = described(elb, &arns).await {
        return groups;
    }
    // One of them was deleted since it was listed.
    let mut groups = Vec::new();
    for arn in arns {
        groups.extend(described(elb, &[arn].into()).await.unwrap_or_default());
    }
    groups
}

async fn described(elb: &Client, arns: &BTreeSet<String>) -> Option<Vec<TargetGroup>> {
    let request = elb
        .describe_tags()
        .set_resource_arns(Some(arns.iter().cloned().collect()));
    let answer = request.send().await.ok()?;
    let groups = answer
        .tag_descriptions()
        .iter()
        .map(|described| TargetGroup {
            arn: described.resource_arn().unwrap_or_default().to_owned(),
            marks: described
                .tags()
                .iter()
                .filter_map(|tag| tag.key.clone())
                .collect(),
        });
    Some(groups.collect())
}

fn may_be_chosen(group: &TargetGroup, own: &str, active: Option<&str>, mutation: Mutation) -> bool {
    let has = |mark: &str| group.marks.contains(mark);
    let ready = has(tags::READY_AT) || mutation == Mutation::NewestWhetherReadyOrNot;
    let rolled_back = has(tags::ROLLED_BACK_AT) && mutation != Mutation::RolledBackToo;
    let draining = has(tags::DRAINING_SINCE) && mutation != Mutation::DrainingToo;
    let deleting = has(tags::DELETING_SINCE) && mutation != Mutation::DeletingToo;
    let is_active = Some(group.arn.as_str()) == active;
    if mutation == Mutation::OwnAlways {
        return group.arn == own;
    }
    !rolled_back && !draining && (is_active || ready && !deleting)
}

async fn mark(elb: &Client, arn: &str, key: &str) {
    let tag = Tag::builder().key(key).value(tags::timestamp(NOW)).build();
    // The next call fails if the group is gone.
    let _ = elb.add_tags().resource_arns(arn).tags(tag).send().await;
}

async fn healthy(elb: &Client, arn: &str) -> bool {
    let answer = elb.describe_target_health().target_group_arn(arn).send();
    answer.await.is_ok_and(|answer| {
        answer.target_health_descriptions().iter().any(|target| {
            target
                .target_health()
                .and_then(|health| health.state())
                .is_some_and(|state| state.as_str() == "healthy")
        })
    })
}

/// Small scenarios, of which each mutation breaks one.
fn scenarios() -> Vec<Scenario> {
    let active = Group::with(READY | LIVE);
    let world = |groups: &[Group]| World {
        default: Some(0),
        groups: groups.to_vec(),
    };
    let (new, ready) = (Group::with(0), Group::with(READY));
    let switch = [Plan::Switch(1), Plan::Switch(2)];
    vec![
        Scenario::new("two", world(&[active, new, new]), &switch),
        Scenario::new("two, one dies", world(&[active, new, new]), &switch)
            .dying(0, Death::Retried(1)),
        Scenario::new(
            "one and a rolled back one",
            world(&[active, new, Group::with(READY | ROLLED_BACK)]),
            &[Plan::Switch(1)],
        ),
        Scenario::new(
            "one and an unhealthy one",
            world(&[active, new, ready.unhealthy()]),
            &[Plan::Switch(1)],
        ),
        Scenario::new(
            "one and a draining one",
            world(&[active, new, active.asked()]),
            &[Plan::Switch(1)],
        ),
        Scenario::new(
            "switch, undo",
            world(&[active, new, ready]),
            &[Plan::Switch(1), Plan::Undo(2)],
        ),
    ]
}

fn found(mutation: Mutation) -> Option<String> {
    scenarios()
        .iter()
        .find_map(|scenario| explore(scenario, code(mutation)).err())
}

#[test]
fn the_correct_loop_holds() {
    assert_eq!(found(Mutation::None), None);
}

#[test]
fn every_defective_loop_is_found() {
    // Each with what is broken first.
    for (mutation, broken) in [
        (
            Mutation::NoReadBack,
            "two: the end is Some(1), the newest ready one Some(2)",
        ),
        (Mutation::LiveAfterTheSwitch, "not marked as live"),
        (Mutation::NewestWhetherReadyOrNot, "which was not announced"),
        (
            Mutation::RolledBackToo,
            "one and a rolled back one: the end is Some(2)",
        ),
        (Mutation::DeletingToo, "is active and lost its rules"),
        (Mutation::DrainingToo, "whose tasks were asked to drain"),
        (Mutation::UnhealthyToo, "which has no healthy target"),
        (
            Mutation::OwnAlways,
            "two: the end is Some(1), the newest ready one Some(2)",
        ),
    ] {
        let what = found(mutation).unwrap_or_else(|| panic!("{mutation:?} was not found"));
        let first = what.lines().next().unwrap_or_default();
        assert!(first.contains(broken), "{mutation:?}: {first}");
    }
}

#[test]
fn an_undo_that_does_not_wait_for_switches_in_flight_is_found() {
    let mut hasty = scenarios().pop().expect("the undo");
    hasty.undo_waits = false;
    let what = explore(&hasty, shipped()).expect_err("a defect");
    assert!(what.contains("is active and lost its rules"), "{what}");
}

#[test]
fn a_drain_that_does_not_look_again_before_it_asks_is_found() {
    let world = World {
        default: Some(1),
        groups: vec![Group::with(READY | LIVE); 2],
    };
    let plans = [Plan::Restore(0), Plan::Drain(0)];
    let what = explore(&Scenario::new("hasty drain", world, &plans), hasty_drain());
    let what = what.expect_err("a defect");
    assert!(what.contains("whose tasks were asked to drain"), "{what}");
}

/// A drain that marks and asks at once.
fn hasty_drain() -> Code {
    let shipped = shipped();
    Box::new(move |invocation, clients| match invocation {
        Invocation::Drain { deployment } => Box::pin(async move {
            let arn = group_arn(&name(deployment));
            let listed = clients
                .ecs
                .list_tasks()
                .cluster("test")
                .service_name(name(deployment));
            let _ = listed.send().await;
            if active(&clients.elb).await.as_ref() == Some(&arn) {
                return Ending::Failed("DeploymentActiveError");
            }
            mark(&clients.elb, &arn, tags::DRAINING_SINCE).await;
            Ending::Asked
        }),
        _ => shipped(invocation, clients),
    })
}
