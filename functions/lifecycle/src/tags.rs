//! The tags that make a resource ours and carry the state that AWS itself does not keep.
//!
//! The target group carries the tags of the state, because the listener's rules lead to it and one call
//! reads the tags of twenty.

use std::collections::HashMap;

use aws_sdk_ecs::types as ecs;
use aws_sdk_elasticloadbalancingv2::operation::describe_tags::DescribeTagsError;
use aws_sdk_elasticloadbalancingv2::types as elb;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime, UtcDateTime};

use crate::aws_error::found;
use crate::{Baseline, DeploymentId, Environment, StepError, defaults};

/// DescribeTags takes at most 20 resources:
/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_DescribeTags.html>.
const ARNS_PER_CALL: usize = 20;

/// The deployment that a resource belongs to. Only what carries this and [`ENVIRONMENT`] is changed or
/// deleted.
pub const DEPLOYMENT_ID: &str = "pulse:deployment-id";
/// The environment of the deployment.
pub const ENVIRONMENT: &str = "pulse:environment";
/// When the candidate was found healthy, so that traffic may be switched to it. Each switch writes it again and
/// then reads [`DRAINING_SINCE`]; a drain writes that tag and then reads this one, so that of the two at least
/// one sees the other.
pub const READY_AT: &str = "pulse:ready-at";
/// When traffic was first switched to the deployment. Written before the switch, so that a deployment that
/// carried traffic is never taken for a candidate.
pub const LIVE_SINCE: &str = "pulse:live-since";
/// When its deletion began. Traffic is not switched to it any more.
pub const DELETING_SINCE: &str = "pulse:deleting-since";
/// When its deletion found that no rule forwards to it any more. The load balancer may route by the deleted
/// rules for some seconds, and its tasks outlive that.
pub const UNROUTED_SINCE: &str = "pulse:unrouted-since";
/// When its deletion last asked ECS to stop one of its tasks.
pub const STOPPING_SINCE: &str = "pulse:stopping-since";
/// When it was rolled back. Only a rollback switches traffic to it again.
pub const ROLLED_BACK_AT: &str = "pulse:rolled-back-at";

/// When a watch of it that found nothing wrong ended. A rollback that names no deployment goes back to what carries it.
pub const PROVEN_AT: &str = "pulse:proven-at";
/// Until when its watch may last. Written with [`READY_AT`], before the switch, so that there is no moment in which
/// a cleanup takes a deployment that is watched for one that is not.
pub const WATCH_UNTIL: &str = "pulse:watch-until";

/// When a rollback began to take its visitors along, before it deleted the first of its rules. A time before the
/// deployment was last switched to, or before its [`ROLLED_BACK_AT`], says nothing.
pub const EVICTED_AT: &str = "pulse:evicted-at";

/// When its draining began, before any task was asked. It stays until fresh tasks have replaced those that were
/// asked, so what carries it is not made live.
pub const DRAINING_SINCE: &str = "pulse:draining-since";
/// Since when consecutive sweeps have found every task without sessions. The first such sweep writes it, a
/// sweep that finds a session removes it, and the second in a row makes the deployment drained.
pub const IDLE_SINCE: &str = "pulse:idle-since";
/// When a sweep first found that another deployment had replaced it. Its settling time and its drain deadline
/// count from here. A time before the deployment was last switched to says nothing.
pub const REPLACED_AT: &str = "pulse:replaced-at";
/// Since when consecutive sweeps have found that it serves no visitors: the active deployment without a healthy
/// target, another one without a target and without a running task.
pub const DOWN_SINCE: &str = "pulse:down-since";
/// Since when consecutive sweeps have found no healthy target of it while new visitors reach nothing and it may take
/// over: the second one passes over it.
pub const UNHEALTHY_SINCE: &str = "pulse:unhealthy-since";
/// When a rollback to it began. It is neither drained nor deleted until the rollback has switched traffic
/// and removes the tag. The rollback writes it before it reads [`DRAINING_SINCE`] and [`DELETING_SINCE`],
/// and other runs read it after they have written those, so that of two runs at least one sees the other. Its value
/// also names the execution, see [`restoring`]: of two rollbacks to one deployment, the later one has the tag.
pub const RESTORING_SINCE: &str = "pulse:restoring-since";
/// With an execution's name after it: the ARN of an execution of the deploy machine that created or adopted
/// the target group. While that execution runs, no undo of another one deletes the deployment.
pub const EXECUTION: &str = "pulse:execution:";
/// Seconds during which ECS leaves its tasks alone when they fail their health checks, if its settings say so.
pub const GRACE_SECONDS: &str = "pulse:grace-seconds";
/// How many tasks its settings, or the input of its execution, asked for. What it is scaled to since does not change it.
pub const WANTED_COUNT: &str = "pulse:wanted-count";
/// How many of its tasks it has because the settings of what a rollback to it replaced asked for as many. Written before
/// the rollback raises its number of tasks.
pub const RAISED_COUNT: &str = "pulse:raised-count";
/// How its number of tasks follows its load, as [`crate::scaling::Scaling::to_tag`] writes it, if its settings say so.
pub const SCALING: &str = "pulse:scaling";
/// On the task definition: the version of the environment's settings that the deployment was made with.
pub const SETTINGS_VERSION: &str = "pulse:settings-version";
/// On a task definition that is a copy: the family and the number of the revision that was copied.
pub const COPY_OF: &str = "pulse:copy-of";
/// On the task definition of a release: when its task was last about to be started, written before that, so that one
/// that ran is not taken for one that never did when AWS has forgotten it. Something else when AWS refused to start it.
pub const RELEASE_ATTEMPT: &str = "pulse:release-attempt";
/// On the task definition of a release: when it was seen to have ended well. It never runs again.
pub const RELEASED_AT: &str = "pulse:released-at";
/// Set by an operator, to any value: a cleanup neither drains nor deletes the deployment, unless its
/// deletion has begun. A candidate that fails is undone even with it.
pub const PROTECTED: &str = "pulse:protected";

/// A deployment that a rollback has taken back.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolledBack {
    /// The deployment.
    pub deployment_id: DeploymentId,
    /// The value of its tag [`ROLLED_BACK_AT`].
    pub rolled_back_at: String,
}

/// The tags of one resource, by key.
pub type Tags = HashMap<String, String>;

/// The two tags that every resource of a deployment carries, as key and value.
pub fn for_deployment(deployment: &DeploymentId) -> [(&'static str, String); 2] {
    [
        (DEPLOYMENT_ID, deployment.to_string()),
        (ENVIRONMENT, deployment.environment().to_string()),
    ]
}

/// [`for_deployment`] as Elastic Load Balancing takes it.
pub fn to_elb(deployment: &DeploymentId) -> Vec<elb::Tag> {
    for_deployment(deployment)
        .map(|(key, value)| elb::Tag::builder().key(key).value(value).build())
        .to_vec()
}

/// [`for_deployment`] as ECS takes it.
pub fn to_ecs(deployment: &DeploymentId) -> Vec<ecs::Tag> {
    for_deployment(deployment)
        .map(|(key, value)| ecs::Tag::builder().key(key).value(value).build())
        .to_vec()
}

/// Tags as Elastic Load Balancing describes them. A tag without a value is an empty one.
fn from_elb(tags: &[elb::Tag]) -> Tags {
    let value = |tag: &elb::Tag| tag.value().unwrap_or_default().to_owned();
    tags.iter()
        .filter_map(|tag| Some((tag.key()?.to_owned(), value(tag))))
        .collect()
}

/// Tags as ECS describes them. A tag without a value is an empty one.
pub fn from_ecs(tags: &[ecs::Tag]) -> Tags {
    let value = |tag: &ecs::Tag| tag.value().unwrap_or_default().to_owned();
    tags.iter()
        .filter_map(|tag| Some((tag.key()?.to_owned(), value(tag))))
        .collect()
}

/// The grace period of a service that does not drain, from the tags of its target group.
pub fn grace_seconds(tags: &Tags, baseline: &Baseline) -> i32 {
    let own = tags.get(GRACE_SECONDS).and_then(|tag| tag.parse().ok());
    let seconds: u32 = own.unwrap_or_else(|| baseline.health_check_grace_seconds());
    seconds.try_into().unwrap_or(i32::MAX)
}

/// The tags of these target groups and rules, by ARN. A resource that no longer exists is left out.
pub async fn read(
    elb: &aws_sdk_elasticloadbalancingv2::Client,
    arns: &[String],
) -> Result<HashMap<String, Tags>, StepError> {
    let mut by_arn = HashMap::new();
    for batch in arns.chunks(ARNS_PER_CALL) {
        if let Some(descriptions) = describe(elb, batch).await? {
            by_arn.extend(descriptions);
            continue;
        }
        // A resource that another run deleted after it was listed fails the call for all of them.
        for arn in batch {
            by_arn.extend(
                describe(elb, std::slice::from_ref(arn))
                    .await?
                    .unwrap_or_default(),
            );
        }
    }
    Ok(by_arn)
}

/// The tags of one resource, or `None` when it no longer exists.
pub async fn read_one(
    elb: &aws_sdk_elasticloadbalancingv2::Client,
    arn: &str,
) -> Result<Option<Tags>, StepError> {
    Ok(read(elb, &[arn.to_owned()]).await?.remove(arn))
}

/// The tags of up to [`ARNS_PER_CALL`] resources, or `None` when one of them does not exist.
async fn describe(
    elb: &aws_sdk_elasticloadbalancingv2::Client,
    arns: &[String],
) -> Result<Option<HashMap<String, Tags>>, StepError> {
    let request = elb.describe_tags().set_resource_arns(Some(arns.to_vec()));
    let is_gone = |error: &DescribeTagsError| {
        error.is_rule_not_found_exception() || error.is_target_group_not_found_exception()
    };
    let attempt = format!("read the tags of {}", arns.join(", "));
    let answer = found(attempt, request.send().await, is_gone)?;
    let descriptions = answer.map(|answer| answer.tag_descriptions.unwrap_or_default());
    Ok(descriptions.map(|descriptions| {
        let tagged = descriptions.iter().map(|description| {
            let arn = description.resource_arn().unwrap_or_default();
            (arn.to_owned(), from_elb(description.tags()))
        });
        tagged.collect()
    }))
}

/// Whether a resource with these tags belongs to that deployment.
pub fn belong_to(tags: &Tags, deployment: &DeploymentId) -> bool {
    for_deployment(deployment)
        .iter()
        .all(|(key, value)| tags.get(*key) == Some(value))
}

/// The deployment of that environment that a resource with these tags belongs to, if any.
pub fn deployment(tags: &Tags, environment: &Environment) -> Option<DeploymentId> {
    let id: DeploymentId = tags.get(DEPLOYMENT_ID)?.parse().ok()?;
    (id.environment() == environment && belong_to(tags, &id)).then_some(id)
}

/// How many tasks the deployment with these tags asked for. `None` for one of an earlier version, and for a value that
/// is not a number of tasks.
pub fn wanted_count(tags: &Tags) -> Option<u32> {
    count(tags, WANTED_COUNT)
}

/// How many tasks a rollback gave the deployment with these tags because other settings asked for them, if one did.
pub fn raised_count(tags: &Tags) -> Option<u32> {
    count(tags, RAISED_COUNT)
}

fn count(tags: &Tags, key: &str) -> Option<u32> {
    let count = tags.get(key)?.parse().ok()?;
    (1..=defaults::MAX_TASKS).contains(&count).then_some(count)
}

/// A point in time as a tag's value: RFC 3339, UTC, to the second.
pub fn timestamp(time: UtcDateTime) -> String {
    time.truncate_to_second()
        .format(&Rfc3339)
        .unwrap_or_else(|_| time.unix_timestamp().to_string())
}

/// What stands between the time and the execution.
const BY: &str = " by ";

/// The value of [`RESTORING_SINCE`]: the time, and which execution of the rollback machine wrote it.
pub fn restoring(time: UtcDateTime, execution: Option<&str>) -> String {
    let time = timestamp(time);
    match execution {
        Some(name) => format!("{time}{BY}{}", restoring_name(name)),
        None => time,
    }
}

/// The execution's name, of at most 80 characters, as a tag can hold it: an operator can give one others than AWS takes
/// in a tag, <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_Tag.html>.
pub fn restoring_name(execution: &str) -> String {
    let is_allowed = |it: &char| it.is_alphanumeric() || "_.:/=+-@".contains(*it);
    let allowed = |it| Some(it).filter(is_allowed).unwrap_or('_');
    execution.chars().map(allowed).collect()
}

/// The execution that the value of [`RESTORING_SINCE`] names, as [`restoring_name`] gives it.
pub fn restoring_execution(tags: &Tags) -> Option<String> {
    let (_, name) = tags.get(RESTORING_SINCE)?.split_once(BY)?;
    Some(name.to_owned())
}

/// The point in time that a tag holds, never later than `now`. `None` when the tag is absent or its
/// value is not a time that a function can have written.
///
/// A time up to [`defaults::CLOCK_TOLERANCE`] ahead counts as now. A time further ahead was written by
/// hand. If it were believed, a single tag of the year 2099 would stop all draining of an environment.
pub fn time(tags: &Tags, key: &str, now: UtcDateTime) -> Option<UtcDateTime> {
    let tolerated = now.saturating_add(defaults::CLOCK_TOLERANCE);
    let written = written(tags, key).filter(|written| *written <= tolerated)?;
    Some(written.min(now))
}

/// The point in time that a tag holds, as it was written.
pub(crate) fn written(tags: &Tags, key: &str) -> Option<UtcDateTime> {
    // With its offset first: parsed as UTC at once, the last hours of the year 9999 in a western offset
    // make the library panic.
    let time = tags.get(key)?.split(BY).next()?;
    OffsetDateTime::parse(time, &Rfc3339).ok()?.checked_to_utc()
}

/// How much later a tag may have been written than its value says, because [`timestamp`] drops fractions.
pub const PRECISION: Duration = Duration::SECOND;

/// When traffic was last switched to a deployment with these tags.
///
/// A switch that is retried keeps the live tag of its first attempt and writes the ready tag again.
pub fn switched_to_at(tags: &Tags, now: UtcDateTime) -> Option<UtcDateTime> {
    time(tags, LIVE_SINCE, now).max(time(tags, READY_AT, now))
}

/// When an earlier sweep wrote that tag, unless traffic was switched to the deployment since.
pub fn seen_at(tags: &Tags, key: &str, now: UtcDateTime) -> Option<UtcDateTime> {
    let seen = time(tags, key, now);
    seen.filter(|seen| switched_to_at(tags, now) <= Some(*seen))
}

/// Whether the rollback that has taken back the deployment with these tags has taken its visitors along, and no traffic was
/// switched to it since.
///
/// The tag of an eviction may be left from an earlier rollback: one that lands late, after the deployment was made live
/// again, or one that an operator's change of the listener did not end. A later rollback may leave the visitors where
/// they are, so only an eviction after its mark counts.
pub fn is_evicted(tags: &Tags, now: UtcDateTime) -> bool {
    let rolled_back = time(tags, ROLLED_BACK_AT, now);
    rolled_back.is_some() && rolled_back <= seen_at(tags, EVICTED_AT, now)
}

/// Whether a rollback to the deployment with these tags is under way.
///
/// A rollback that died leaves its tag behind, which expires after [`defaults::RESTORE_TIME`]. A time ahead
/// is believed here, because the tag protects: an operator who wrote it has to remove it.
pub fn is_being_restored(tags: &Tags, now: UtcDateTime) -> bool {
    written(tags, RESTORING_SINCE).is_some_and(|since| now - since < defaults::RESTORE_TIME)
}

/// Whether the deployment with these tags is still on trial: a watch of it may be going on, and none has found it well.
///
/// A time further ahead than any watch lasts was written by hand, and says nothing.
pub fn is_on_trial(tags: &Tags, now: UtcDateTime) -> bool {
    let longest = defaults::watch_ends_within(defaults::MAX_WATCH_SECONDS);
    let latest = now.saturating_add(longest + defaults::CLOCK_TOLERANCE);
    let until = written(tags, WATCH_UNTIL).filter(|until| *until <= latest);
    until.is_some_and(|until| now < until) && !tags.contains_key(PROVEN_AT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(pairs: &[(&str, &str)]) -> Tags {
        pairs
            .iter()
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .collect()
    }

    #[test]
    fn a_resource_without_both_tags_is_not_ours() {
        let id: DeploymentId = "test-20251027-122112Z".parse().unwrap();
        let whole = tags(&[(DEPLOYMENT_ID, id.as_str()), (ENVIRONMENT, "test")]);
        assert!(belong_to(&whole, &id));
        assert_eq!(deployment(&whole, id.environment()), Some(id.clone()));
        for lacking in [
            tags(&[(DEPLOYMENT_ID, id.as_str())]),
            tags(&[(ENVIRONMENT, "test")]),
            tags(&[(DEPLOYMENT_ID, id.as_str()), (ENVIRONMENT, "prod")]),
            tags(&[
                (DEPLOYMENT_ID, "prod-20251027-122112Z"),
                (ENVIRONMENT, "test"),
            ]),
            tags(&[]),
        ] {
            assert!(!belong_to(&lacking, &id), "{lacking:?}");
            assert_eq!(deployment(&lacking, id.environment()), None, "{lacking:?}");
        }
    }

    #[test]
    fn what_a_tag_cannot_hold_of_the_name_of_an_execution_is_replaced() {
        assert_eq!(restoring_name("Ü-1_a.b:c/d=e+f@g"), "Ü-1_a.b:c/d=e+f@g");
        assert_eq!(restoring_name("again (2) #3"), "again__2___3");
    }

    #[test]
    fn timestamps_are_utc_to_the_second() {
        let time = time::macros::utc_datetime!(2025-10-27 12:21:12.345);
        assert_eq!(timestamp(time), "2025-10-27T12:21:12Z");
    }

    #[test]
    fn a_timestamp_is_read_back_and_anything_else_is_none() {
        let moment = time::macros::utc_datetime!(2025-10-27 12:21:12);
        let tags = tags(&[(LIVE_SINCE, &timestamp(moment)), (READY_AT, "yesterday")]);
        assert_eq!(time(&tags, LIVE_SINCE, moment), Some(moment));
        assert_eq!(time(&tags, READY_AT, moment), None);
        assert_eq!(time(&tags, IDLE_SINCE, moment), None);
    }

    #[test]
    fn a_time_past_the_end_of_all_times_is_none() {
        for text in ["9999-12-31T23:59:59-00:01", "9999-12-31T00:01:00-23:59"] {
            assert_eq!(
                time(&tags(&[(IDLE_SINCE, text)]), IDLE_SINCE, UtcDateTime::MAX),
                None,
                "{text}"
            );
        }
    }

    #[test]
    fn a_time_ahead_counts_as_now_when_a_clock_can_differ_by_that_much_and_else_not_at_all() {
        let now = time::macros::utc_datetime!(2025-10-27 12:21:12);
        for (ahead, read) in [
            (Duration::ZERO, Some(now)),
            (defaults::CLOCK_TOLERANCE, Some(now)),
            (defaults::CLOCK_TOLERANCE + Duration::SECOND, None),
            (Duration::days(30_000), None),
        ] {
            let tags = tags(&[(LIVE_SINCE, &timestamp(now + ahead))]);
            assert_eq!(time(&tags, LIVE_SINCE, now), read, "{ahead}");
        }
    }

    #[test]
    fn only_an_eviction_by_the_rollback_that_took_it_back_counts() {
        let began = time::macros::utc_datetime!(2025-10-27 12:00:00);
        let now = began + Duration::HOUR;
        let at = |minutes| timestamp(began + Duration::minutes(minutes));
        for (ready, rolled_back, evicted, is_evicted) in [
            (0, Some(10), Some(11), true),
            (0, Some(10), Some(10), true),
            // It was made live since.
            (12, Some(10), Some(11), false),
            // Another rollback took it back without its visitors.
            (0, Some(20), Some(11), false),
            (0, None, Some(11), false),
            (0, Some(10), None, false),
        ] {
            let mut marked = tags(&[(LIVE_SINCE, &at(0)), (READY_AT, &at(ready))]);
            let marks = [(ROLLED_BACK_AT, rolled_back), (EVICTED_AT, evicted)];
            let marks = marks.into_iter().filter_map(|(key, at)| Some((key, at?)));
            marked.extend(marks.map(|(key, minutes)| (key.to_owned(), at(minutes))));
            let case = (ready, rolled_back, evicted);
            assert_eq!(super::is_evicted(&marked, now), is_evicted, "{case:?}");
        }
    }

    #[test]
    fn a_mark_of_a_rollback_that_died_ends_by_itself() {
        let began = time::macros::utc_datetime!(2025-10-27 12:00:00);
        let marked = tags(&[(RESTORING_SINCE, &timestamp(began))]);
        assert!(is_being_restored(&marked, began));
        assert!(!is_being_restored(&marked, began + defaults::RESTORE_TIME));
        assert!(is_being_restored(&marked, began - Duration::days(30)));
        assert!(!is_being_restored(&tags(&[]), began));
    }
}
