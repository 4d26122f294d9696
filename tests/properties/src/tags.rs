//! Tags and names of resources, into which people can write anything.

use find_deployments::facts::{DefaultAction, Deployment, Executions, Facts, TargetGroup};
use find_deployments::plan::{Action, Policy, plan};
use lifecycle::tags::{self, Tags};
use lifecycle::{DeploymentId, Environment, listener};
use time::{Duration, UtcDateTime};

use crate::console_input::NOW;
use crate::messages::can_be_shown;

/// The tags that hold a point in time.
const TIMES: [&str; 7] = [
    tags::READY_AT,
    tags::LIVE_SINCE,
    tags::DELETING_SINCE,
    tags::ROLLED_BACK_AT,
    tags::DRAINING_SINCE,
    tags::IDLE_SINCE,
    tags::RESTORING_SINCE,
];

/// Whatever stands in a tag: a time is read as it was written, an id is whose it says, and the plan
/// of a cleanup deletes nothing for it that was live.
///
/// # Panics
/// When it is not so.
pub fn check(text: &str) {
    times(text);
    ids(text);
    let id: DeploymentId = "test-20251027-122112Z".parse().expect("an id");
    plans(&id, text, &TIMES);
    // One by one only where it makes a difference which of them it is.
    let tags = Tags::from([(tags::IDLE_SINCE.to_owned(), text.to_owned())]);
    let alone = match tags::time(&tags, tags::IDLE_SINCE) {
        Some(_) => &TIMES[..],
        None => &[tags::DRAINING_SINCE, tags::ROLLED_BACK_AT],
    };
    for mark in alone {
        plans(&id, text, &[tags::LIVE_SINCE, mark]);
    }
}

fn times(text: &str) {
    let tags = Tags::from([(tags::IDLE_SINCE.to_owned(), text.to_owned())]);
    let Some(time) = tags::time(&tags, tags::IDLE_SINCE) else {
        return;
    };
    let written = tags::timestamp(time);
    can_be_shown(&written);
    // Years that RFC 3339 cannot write are no times of ours.
    if (0..=9999).contains(&time.year()) {
        let tags = Tags::from([(tags::IDLE_SINCE.to_owned(), written.clone())]);
        let again = tags::time(&tags, tags::IDLE_SINCE);
        assert_eq!(again, Some(time.truncate_to_second()), "{written}");
    }
    for now in [NOW, UtcDateTime::MIN, UtcDateTime::MAX] {
        let tags = Tags::from([(tags::RESTORING_SINCE.to_owned(), text.to_owned())]);
        let is_restored = tags::is_being_restored(&tags, now);
        assert!(is_restored || now > time);
    }
}

fn ids(text: &str) {
    let environment: Environment = "test".parse().expect("a name");
    let tags = Tags::from([
        (tags::DEPLOYMENT_ID.to_owned(), text.to_owned()),
        (tags::ENVIRONMENT.to_owned(), "test".to_owned()),
    ]);
    if let Some(id) = tags::deployment(&tags, &environment) {
        assert_eq!(id.as_str(), text);
        assert_eq!(id.environment(), &environment);
    }
    let named = format!("arn:aws:elasticloadbalancing:us-east-1:1:targetgroup/{text}/abc");
    for arn in [text, named.as_str()] {
        if let Some(id) = listener::named_like_ours(arn, &environment) {
            assert!(arn.contains(id.as_str()));
        }
    }
}

/// The plans for a deployment that was live, whose marks hold that text, while a newer one is active.
fn plans(id: &DeploymentId, text: &str, marks: &[&str]) {
    let active: DeploymentId = "test-20251027-122113Z".parse().expect("an id");
    let marked = |marks: &[&str]| -> Tags {
        let marks = marks.iter().map(|mark| (*mark).to_owned());
        marks.map(|mark| (mark, text.to_owned())).collect()
    };
    let deployment = |id: &DeploymentId, tags| Deployment {
        id: id.clone(),
        target_group: TargetGroup::Ours {
            arn: format!("arn:aws:elasticloadbalancing:us-east-1:1:targetgroup/{id}/abc"),
            tags,
            in_use: true,
        },
        has_service: true,
        has_task_definition: true,
        is_protected: false,
        made_at: None,
    };
    let facts = Facts {
        default_action: DefaultAction::Forward,
        named: vec![active.clone()],
        moved: false,
        deployments: vec![
            deployment(&active, marked(&[tags::LIVE_SINCE])),
            deployment(id, marked(marks)),
        ],
        executions: Executions::default(),
    };
    let policy = Policy {
        keep_previous: 0,
        drain_deadline: Duration::DAY,
        settle: Duration::MINUTE,
        remove_everything: false,
    };
    let deadline = tags::time(&marked(marks), tags::DRAINING_SINCE)
        .map(|since| since.saturating_add(policy.drain_deadline));
    let was_begun = marks.contains(&tags::DELETING_SINCE);
    for now in [NOW, UtcDateTime::MAX] {
        let planned = plan(&facts, &policy, now).deployments;
        for planned in &planned {
            can_be_shown(&planned.reason);
        }
        assert_eq!(planned[0].action, Action::Keep);
        if planned[1].action == Action::Delete {
            let is_late = deadline.is_some_and(|deadline| now >= deadline);
            assert!(is_late || was_begun, "{marks:?} {text:?}");
            assert_eq!(planned[1].force, is_late, "{marks:?} {text:?}");
        }
    }
}
