//! The exploration finds what is wrong: the loop of the switch written once more, in one way right
//! and in several ways wrong.

use aws_sdk_elasticloadbalancingv2::Client;
use aws_sdk_elasticloadbalancingv2::types::{Action, ActionTypeEnum, Tag};
use delete_deployment::Clients;
use interleavings::call::{Deployment, LIVE, NOW, READY, ROLLED_BACK, group_arn, id};
use interleavings::explore::{Death, Plan, Scenario, explore};
use interleavings::learned::{Code, Ending, Invocation, shipped};
use interleavings::world::{Group, World};
use lifecycle::listener::DeploymentTargetGroup;
use lifecycle::{Settings, StepError, listener, tags};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Mutation {
    None,
    NoReadBack,
    LiveAfterTheSwitch,
    NewestWhetherReadyOrNot,
    RolledBackToo,
    DeletingToo,
    UnhealthyToo,
    OwnAlways,
}

fn code(mutation: Mutation) -> Code {
    let shipped = shipped();
    Box::new(move |invocation, clients| match invocation {
        Invocation::Switch { deployment, .. } => Box::pin(async move {
            switch(&clients, deployment, mutation)
                .await
                .unwrap_or_else(Ending::from)
        }),
        Invocation::Delete { .. } => shipped(invocation, clients),
    })
}

async fn switch(
    clients: &Clients,
    own: Deployment,
    mutation: Mutation,
) -> Result<Ending, StepError> {
    let (elb, settings, own_id) = (&clients.elb, Settings::for_tests(), id(own));
    mark(elb, &group_arn(own), tags::READY_AT).await;
    for _ in 0..10 {
        let rules = listener::rules(elb, &settings.listener_arn).await?;
        let forwards: Vec<_> = rules
            .iter()
            .flat_map(|rule| listener::forwards(rule.actions()))
            .collect();
        let arns = forwards.iter().filter_map(|group| group.target_group_arn());
        let mut groups = listener::deployments(elb, &settings.environment, arns).await?;
        let listener = listener::read(elb, &settings.listener_arn).await?;
        let active = listener::forwards(listener.default_actions())
            .first()
            .and_then(|group| group.target_group_arn().map(str::to_owned));
        groups.retain(|group| may_be_chosen(group, &group_arn(own), active.as_deref(), mutation));
        groups.sort_by(|a, b| b.deployment.cmp(&a.deployment));
        let mut choice = None;
        for group in groups {
            let passes = mutation == Mutation::UnhealthyToo || Some(&group.arn) == active.as_ref();
            if passes || healthy(elb, &group.arn).await {
                choice = Some(group);
                break;
            }
        }
        let Some(choice) = choice else {
            return Ok(Ending::Unhealthy);
        };
        let ending = match choice.deployment == own_id {
            true => Ending::Switched,
            false => Ending::Superseded,
        };
        if active.as_ref() == Some(&choice.arn) {
            return Ok(ending);
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
            .listener_arn(&settings.listener_arn)
            .default_actions(action);
        if modified.send().await.is_err() {
            return Ok(Ending::Failed("ResourceConflictError"));
        }
        if mutation == Mutation::LiveAfterTheSwitch {
            mark(elb, &choice.arn, tags::LIVE_SINCE).await;
        }
        if mutation == Mutation::NoReadBack {
            return Ok(ending);
        }
    }
    Ok(Ending::Failed("TransientError"))
}

fn may_be_chosen(
    group: &DeploymentTargetGroup,
    own: &str,
    active: Option<&str>,
    mutation: Mutation,
) -> bool {
    let has = |mark: &str| group.tags.contains_key(mark);
    let ready = has(tags::READY_AT);
    match mutation {
        Mutation::OwnAlways => group.arn == own,
        Mutation::NewestWhetherReadyOrNot => true,
        Mutation::RolledBackToo => ready && !has(tags::DELETING_SINCE),
        Mutation::DeletingToo => ready && !has(tags::ROLLED_BACK_AT),
        _ => {
            !has(tags::ROLLED_BACK_AT)
                && (Some(group.arn.as_str()) == active || ready && !has(tags::DELETING_SINCE))
        }
    }
}

async fn mark(elb: &Client, arn: &str, key: &str) {
    let tag = Tag::builder().key(key).value(tags::timestamp(NOW)).build();
    // A group that is gone shows itself in the next call.
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

/// Small scenarios in which each of the mutations does harm.
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
            "one beside a rolled back one",
            world(&[active, new, Group::with(READY | ROLLED_BACK)]),
            &[Plan::Switch(1)],
        ),
        Scenario::new(
            "one beside an unhealthy one",
            world(&[active, new, ready.unhealthy()]),
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
fn the_right_loop_holds_here_too() {
    assert_eq!(found(Mutation::None), None);
}

#[test]
fn every_wrong_loop_is_found() {
    for mutation in [
        Mutation::NoReadBack,
        Mutation::LiveAfterTheSwitch,
        Mutation::NewestWhetherReadyOrNot,
        Mutation::RolledBackToo,
        Mutation::DeletingToo,
        Mutation::UnhealthyToo,
        Mutation::OwnAlways,
    ] {
        match found(mutation) {
            Some(what) => println!("{mutation:?}: {}", what.lines().next().unwrap_or_default()),
            None => panic!("{mutation:?} was not found"),
        }
    }
}

#[test]
fn an_undo_that_does_not_wait_for_switches_in_flight_is_found() {
    let mut hasty = scenarios().pop().expect("the undo");
    hasty.undo_waits = false;
    let what = explore(&hasty, shipped()).expect_err("it does harm");
    println!("{what}");
}
