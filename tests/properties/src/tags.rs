//! Tags and names of resources, which operators can change to any text.

use find_deployments::executions::Executions;
use find_deployments::facts::{DefaultActionKind, Deployment, Facts, TargetGroup};
use find_deployments::plan::{Action, Policy, plan};
use lifecycle::tags::{self, Tags};
use lifecycle::{DeploymentId, Environment, defaults, target_group};
use time::{Duration, UtcDateTime};

use crate::console_input::NOW;
use crate::messages::assert_printable;

/// The tags that contain a time.
const TIMES: [&str; 9] = [
    tags::READY_AT,
    tags::LIVE_SINCE,
    tags::DELETING_SINCE,
    tags::ROLLED_BACK_AT,
    tags::DRAINING_SINCE,
    tags::IDLE_SINCE,
    tags::RESTORING_SINCE,
    tags::REPLACED_AT,
    tags::DOWN_SINCE,
];

/// For any text in a tag, a time is read as it was written, an id belongs to the environment, and the
/// plan of a cleanup does not delete a deployment that was live because of it.
pub fn check(text: &str) {
    times(text);
    ids(text);
    let id: DeploymentId = "test-20251027-122112Z".parse().expect("an id");
    plans(&id, text, &TIMES);
    // A text that is not a time is tried only in the tags where an invalid time makes a difference.
    let tags = Tags::from([(tags::IDLE_SINCE.to_owned(), text.to_owned())]);
    let alone = match tags::time(&tags, tags::IDLE_SINCE, UtcDateTime::MAX) {
        Some(_) => &TIMES[..],
        None => &[tags::DRAINING_SINCE, tags::ROLLED_BACK_AT],
    };
    for tag in alone {
        plans(&id, text, &[tags::LIVE_SINCE, tag]);
    }
}

fn times(text: &str) {
    let tags = Tags::from([(tags::IDLE_SINCE.to_owned(), text.to_owned())]);
    let Some(time) = tags::time(&tags, tags::IDLE_SINCE, UtcDateTime::MAX) else {
        return;
    };
    let written = tags::timestamp(time);
    assert_printable(&written);
    // RFC 3339 cannot represent other years, so this project does not write them.
    if (0..=9999).contains(&time.year()) {
        let tags = Tags::from([(tags::IDLE_SINCE.to_owned(), written.clone())]);
        let again = tags::time(&tags, tags::IDLE_SINCE, UtcDateTime::MAX);
        assert_eq!(again, Some(time.truncate_to_second()), "{written}");
    }
    for now in [NOW, UtcDateTime::MIN, UtcDateTime::MAX] {
        let tags = Tags::from([(tags::RESTORING_SINCE.to_owned(), text.to_owned())]);
        let is_plausible = time <= now.saturating_add(defaults::CLOCK_TOLERANCE);
        let read = tags::time(&tags, tags::RESTORING_SINCE, now);
        assert_eq!(read, is_plausible.then(|| time.min(now)), "{text:?} {now}");
        let is_restored = tags::is_being_restored(&tags, now);
        assert!(now > time || is_restored, "{text:?} {now}");
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
        if let Some(id) = target_group::deployment_from_name(arn, &environment) {
            assert!(arn.contains(id.as_str()));
        }
    }
}

/// The plans for a deployment that was live and has this text in these tags, while a newer one is active.
fn plans(id: &DeploymentId, text: &str, names: &[&str]) {
    let active: DeploymentId = "test-20251027-122113Z".parse().expect("an id");
    let tagged = |names: &[&str]| -> Tags {
        let names = names.iter().map(|name| (*name).to_owned());
        names.map(|name| (name, text.to_owned())).collect()
    };
    let deployment = |id: &DeploymentId, tags| Deployment {
        id: id.clone(),
        target_group: TargetGroup::Ours {
            arn: format!("arn:aws:elasticloadbalancing:us-east-1:1:targetgroup/{id}/abc"),
            tags,
            in_use: true,
        },
        service: None,
        targets: None,
        waits: false,
        has_task_definition: true,
        is_protected: false,
        made_at: None,
    };
    let facts = Facts {
        default_action: DefaultActionKind::Forward,
        named: vec![active.clone()],
        moved: false,
        deployments: vec![
            deployment(&active, tagged(&[tags::LIVE_SINCE])),
            deployment(id, tagged(names)),
        ],
        unpinned: Vec::new(),
        executions: Executions::default(),
    };
    let policy = Policy {
        keep_previous: 0,
        drain_deadline: Duration::DAY,
        settle: Duration::MINUTE,
        remove_everything: false,
    };
    let was_begun = names.contains(&tags::DELETING_SINCE);
    for now in [NOW, UtcDateTime::MAX] {
        // The deadline counts from the replacement too, which is as old, or is found by this sweep.
        let deadline = tags::time(&tagged(names), tags::DRAINING_SINCE, now)
            .filter(|_| names.contains(&tags::REPLACED_AT))
            .map(|since| since.saturating_add(policy.drain_deadline));
        let planned = plan(&facts, &policy, now).deployments;
        for planned in &planned {
            assert_printable(&planned.reason);
        }
        assert_eq!(planned[0].action, Action::Keep);
        if planned[1].action == Action::Delete {
            let is_late = deadline.is_some_and(|deadline| now >= deadline);
            assert!(is_late || was_begun, "{names:?} {text:?}");
            assert!(is_late || !planned[1].force, "{names:?} {text:?}");
        }
    }
}
