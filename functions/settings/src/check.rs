//! Checks the fields of one source by themselves.

use std::collections::BTreeMap;

use lifecycle::printable::printable;
use lifecycle::scaling::Scaling;
use lifecycle::{StepError, defaults};
use serde_json::json;

use crate::{Fields, HealthFields, SmokeFields, Source, WatchFields, fargate, function, secret};

/// Half of a task definition's 64 KiB, so that the rest of it always fits:
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-quotas.html>.
const MAX_ENVIRONMENT_BYTES: usize = 32 * 1024;
/// An eighth of a task definition for each of command, entry point, and where the secrets come from.
const MAX_COMMAND_BYTES: usize = 8 * 1024;
/// The most seconds that the load balancer's own cookie may last:
/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/edit-target-group-attributes.html>.
pub(crate) const MAX_STICKINESS_SECONDS: u32 = 604_800;
/// The most characters of the name of a family. With a revision, it has to fit into a tag of 256 characters.
const MAX_FAMILY: usize = 240;
/// The most characters of the path of a health check, and of a smoke test:
/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_CreateTargetGroup.html>.
const MAX_PATH: usize = 1024;
/// The most seconds for which a task that is not healthy is left alone: the wait for a candidate, twice.
pub(crate) const MAX_GRACE_SECONDS: u32 = 2 * defaults::MAX_WAIT_SECONDS;

/// More requests in a minute than any task answers.
pub(crate) const MAX_REQUESTS_PER_TARGET: u32 = 10_000_000;

/// The most smoke tests of a deployment. All tasks answer all of them within one run of a function.
pub(crate) const MAX_SMOKE_TESTS: usize = 10;
/// The most characters of a text that an answer contains.
pub(crate) const MAX_CONTAINED: usize = 1024;
/// The most hooks of a deployment, which share their time.
pub(crate) const MAX_HOOKS: usize = 5;

type Variables = BTreeMap<String, String>;

/// A field by its path, and what is wrong with it.
pub(crate) type Wrong = (String, String);

fn wrong<T>(field: impl Into<String>, why: impl Into<String>) -> Result<T, Wrong> {
    Err((field.into(), why.into()))
}

fn between(field: &str, value: Option<u32>, least: u32, most: u32) -> Result<(), Wrong> {
    match value {
        Some(value) if !(least..=most).contains(&value) => wrong(
            field,
            format!("is {value}, and must be between {least} and {most}"),
        ),
        _ => Ok(()),
    }
}

impl Fields {
    /// Checks every field by itself, and those that depend on each other as far as this source has both.
    ///
    /// # Errors
    /// The name of errors about the source, with the field's path.
    pub fn check(&self, source: &Source) -> Result<(), StepError> {
        self.wrong()
            .map_err(|(field, why)| source.refused(&field, why))
    }

    fn wrong(&self) -> Result<(), Wrong> {
        between("desiredCount", self.desired_count, 1, defaults::MAX_TASKS)?;
        if let Some(cpu) = self.cpu {
            let memory = self.memory.or(fargate::least_memory(cpu));
            fargate::check(cpu, memory.unwrap_or_default())
                .or_else(|(field, why)| wrong(field, why))?;
        }
        if let Some(memory) = self.memory
            && self.cpu.is_none()
            && !fargate::is_memory(memory)
        {
            return wrong(
                "memory",
                format!(
                    "Fargate offers {memory} MiB with no size of CPU; leave it out for the least that goes with `cpu`"
                ),
            );
        }
        check_variables("environment", self.environment.as_ref())?;
        self.environment
            .as_ref()
            .map_or(Ok(()), check_environment_size)?;
        check_variables("secrets", self.secrets.as_ref())?;
        self.secrets.as_ref().map_or(Ok(()), check_secrets_size)?;
        self.check_secrets()?;
        check_family("base", self.base.as_deref())?;
        check_command("command", self.command.as_deref())?;
        check_command("entryPoint", self.entry_point.as_deref())?;
        between("stickiness", self.stickiness, 1, MAX_STICKINESS_SECONDS)?;
        self.health.as_ref().map_or(Ok(()), check_health)?;
        if let Some(release) = &self.release {
            check_command("release.command", release.command.as_deref())?;
            let most = defaults::MAX_WAIT_SECONDS;
            between("release.timeoutSeconds", release.timeout_seconds, 1, most)?;
        }
        self.watch.as_ref().map_or(Ok(()), check_watch)?;
        self.scaling.as_ref().map_or(Ok(()), check_scaling)?;
        self.check_before_the_switch()
    }

    /// Checks what a candidate has to pass before traffic moves to it.
    fn check_before_the_switch(&self) -> Result<(), Wrong> {
        let (smoke, hooks) = (self.smoke.as_deref(), self.hooks.as_deref());
        let smoke = smoke.unwrap_or_default();
        at_most("smoke", smoke.len(), MAX_SMOKE_TESTS)?;
        for (number, test) in smoke.iter().enumerate() {
            check_smoke(&format!("smoke[{number}]"), test)?;
        }
        let hooks = hooks.unwrap_or_default();
        at_most("hooks", hooks.len(), MAX_HOOKS)?;
        for (number, hook) in hooks.iter().enumerate() {
            function::check(hook).or_else(|why| wrong(format!("hooks[{number}]"), why))?;
        }
        let timeout = self.approve.as_ref().and_then(|it| it.timeout_seconds);
        let (least, most) = (60, defaults::MAX_APPROVAL_SECONDS);
        between("approve.timeoutSeconds", timeout, least, most)
    }

    fn check_secrets(&self) -> Result<(), Wrong> {
        let secrets = self.secrets.iter().flatten();
        for (name, value_from) in secrets {
            secret::check(value_from)
                .or_else(|why| wrong(format!("secrets.{}", printable(name, 64)), why))?;
        }
        check_both(self.environment.as_ref(), self.secrets.as_ref())
    }
}

/// Refuses a name that is both a variable and a secret, as ECS does.
pub(crate) fn check_both(
    environment: Option<&Variables>,
    secrets: Option<&Variables>,
) -> Result<(), Wrong> {
    let (Some(environment), Some(secrets)) = (environment, secrets) else {
        return Ok(());
    };
    match secrets.keys().find(|name| environment.contains_key(*name)) {
        Some(name) => wrong(
            format!("secrets.{}", printable(name, 64)),
            "is also in `environment`, and a variable has one value",
        ),
        None => Ok(()),
    }
}

fn at_most(field: &str, number: usize, most: usize) -> Result<(), Wrong> {
    if number > most {
        return wrong(
            field,
            format!("has {number} entries; at most {most} are allowed"),
        );
    }
    Ok(())
}

fn check_smoke(field: &str, test: &SmokeFields) -> Result<(), Wrong> {
    check_path(&format!("{field}.path"), &test.path)?;
    // A fragment is not sent.
    if test.path.contains('#') {
        return wrong(
            format!("{field}.path"),
            "has a `#`, and what follows it is not sent",
        );
    }
    between(&format!("{field}.status"), test.status, 200, 599)?;
    let length = test.contains.as_ref().map(|text| text.chars().count());
    if length.is_some_and(|length| !(1..=MAX_CONTAINED).contains(&length)) {
        return wrong(
            format!("{field}.contains"),
            format!("must have 1 to {MAX_CONTAINED} characters; leave it out for any answer"),
        );
    }
    Ok(())
}

fn check_path(field: &str, path: &str) -> Result<(), Wrong> {
    let is_valid = path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_valid || path.len() > MAX_PATH {
        return wrong(
            field,
            format!(
                "is `{}`, and must begin with `/` and have at most {MAX_PATH} characters, none of them a space",
                printable(path, 100)
            ),
        );
    }
    Ok(())
}

fn check_health(health: &HealthFields) -> Result<(), Wrong> {
    if let Some(path) = &health.path {
        check_path("health.path", path)?;
    }
    let (least, most) = (60, defaults::MAX_WAIT_SECONDS);
    between("health.timeoutSeconds", health.timeout_seconds, least, most)?;
    between(
        "health.graceSeconds",
        health.grace_seconds,
        0,
        MAX_GRACE_SECONDS,
    )
}

/// The most alarms that are watched: what one call reads.
pub(crate) const MAX_ALARMS: usize = 100;
/// The most characters of the name of an alarm:
/// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricAlarm.html>.
const MAX_ALARM_NAME: usize = 255;
/// More requests than a version has to answer before it is judged.
pub(crate) const MAX_AT_LEAST: u32 = 1_000_000;

fn check_watch(watch: &WatchFields) -> Result<(), Wrong> {
    between(
        "watch.seconds",
        watch.seconds,
        0,
        defaults::MAX_WATCH_SECONDS,
    )?;
    let alarms = watch.alarms.as_deref().unwrap_or_default();
    if alarms.len() > MAX_ALARMS {
        let why = format!(
            "names {} alarms; at most {MAX_ALARMS} are watched",
            alarms.len()
        );
        return wrong("watch.alarms", why);
    }
    for (place, name) in alarms.iter().enumerate() {
        let field = format!("watch.alarms[{place}]");
        let is_valid = !name.is_empty()
            && name.chars().count() <= MAX_ALARM_NAME
            && !name.chars().any(char::is_control);
        if !is_valid {
            let shown = printable(name, 100);
            let why = format!(
                "is `{shown}`, and must be the name of an alarm, of 1 to {MAX_ALARM_NAME} characters"
            );
            return wrong(field, why);
        }
        if alarms[..place].contains(name) {
            return wrong(
                field,
                format!("is `{}`, which is named before", printable(name, 100)),
            );
        }
    }
    let Some(errors) = &watch.errors else {
        return Ok(());
    };
    if errors.percent.is_none() {
        let why =
            "is needed, because it says which share may fail; give it, or leave `watch.errors` out";
        return wrong("watch.errors.percent", why);
    }
    between("watch.errors.percent", errors.percent, 1, 99)?;
    between("watch.errors.atLeast", errors.at_least, 1, MAX_AT_LEAST)?;
    check_watch_lasts(watch, watch.seconds)
}

/// Refuses to judge failed requests by minutes that are complete only when the watch is over. `seconds` are those of the
/// watch, as far as they are known.
pub(crate) fn check_watch_lasts(watch: &WatchFields, seconds: Option<u32>) -> Result<(), Wrong> {
    let least = defaults::MIN_WATCH_SECONDS_WITH_ERRORS;
    match seconds {
        Some(seconds) if watch.errors.is_some() && seconds < least => wrong(
            "watch.seconds",
            format!(
                "is {seconds}{}, and must be {least} or more with `watch.errors`: CloudWatch has a minute two to three \
                 minutes late",
                if watch.seconds.is_none() {
                    " by default"
                } else {
                    ""
                },
            ),
        ),
        _ => Ok(()),
    }
}

/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_RegisterTaskDefinition.html>
fn check_family(field: &str, family: Option<&str>) -> Result<(), Wrong> {
    let Some(family) = family else {
        return Ok(());
    };
    let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if family.is_empty() || family.len() > MAX_FAMILY || !family.bytes().all(is_valid) {
        return wrong(
            field,
            format!(
                "is `{}`, and must be the family of a task definition, without a revision: up to {MAX_FAMILY} letters, \
                 digits, hyphens and underscores",
                printable(family, 100)
            ),
        );
    }
    Ok(())
}

fn check_scaling(scaling: &Scaling) -> Result<(), Wrong> {
    scaling.target().or_else(|why| wrong("scaling", why))?;
    between("scaling.max", Some(scaling.max), 1, defaults::MAX_TASKS)?;
    between("scaling.cpuPercent", scaling.cpu_percent, 1, 100)?;
    let (field, requests) = ("scaling.requestsPerTarget", scaling.requests_per_target);
    between(field, requests, 1, MAX_REQUESTS_PER_TARGET)
}

/// Refuses tasks that would be more than the most from the beginning.
pub(crate) fn check_scaling_count(
    scaling: &Scaling,
    desired_count: Option<u32>,
) -> Result<(), Wrong> {
    let is_default = desired_count.is_none();
    let desired_count = desired_count.unwrap_or(defaults::DESIRED_COUNT);
    if scaling.max < desired_count {
        return wrong(
            "scaling.max",
            format!(
                "is {}, and `desiredCount`, the least number of tasks, is {desired_count}{}; raise `scaling.max` or give \
                 a smaller `desiredCount`",
                scaling.max,
                if is_default { " by default" } else { "" },
            ),
        );
    }
    Ok(())
}

fn check_command(field: &str, command: Option<&[String]>) -> Result<(), Wrong> {
    let Some(command) = command else {
        return Ok(());
    };
    if command.is_empty() {
        return wrong(
            field,
            "must not be empty; leave it out for what the image says",
        );
    }
    if command.iter().any(|part| part.contains('\0')) {
        return wrong(
            field,
            "contains the character NUL, which an argument cannot hold",
        );
    }
    check_bytes(field, json!(command).to_string().len(), MAX_COMMAND_BYTES)
}

fn check_variables(field: &str, variables: Option<&Variables>) -> Result<(), Wrong> {
    let Some(variables) = variables else {
        return Ok(());
    };
    for (name, value) in variables {
        let path = format!("{field}.{}", printable(name, 64));
        let valid = !name.starts_with(|first: char| first.is_ascii_digit())
            && !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !valid {
            return wrong(
                path,
                "is not the name of a variable: letters, digits and underscores, not beginning with a digit",
            );
        }
        if defaults::RESERVED_VARIABLES.contains(&name.as_str()) {
            return wrong(path, "is set by the deployment itself; leave it out");
        }
        // A process cannot be started with one, and ECS would show that only by a task that never starts.
        if value.contains('\0') {
            return wrong(
                path,
                "contains the character NUL, which a variable cannot hold",
            );
        }
    }
    Ok(())
}

/// Refuses variables that do not fit into a task definition together.
pub(crate) fn check_environment_size(environment: &Variables) -> Result<(), Wrong> {
    let bytes = bytes_in_a_task_definition("value", environment);
    check_bytes("environment", bytes, MAX_ENVIRONMENT_BYTES)
}

/// The same for secrets.
pub(crate) fn check_secrets_size(secrets: &Variables) -> Result<(), Wrong> {
    let bytes = bytes_in_a_task_definition("valueFrom", secrets);
    check_bytes("secrets", bytes, MAX_COMMAND_BYTES)
}

/// ECS writes `{"name":"A","value":"x"},` for each. Some characters are longer there: a line break takes
/// two bytes, other control characters take six.
fn bytes_in_a_task_definition(value_is_called: &str, variables: &Variables) -> usize {
    variables
        .iter()
        .map(|(name, value)| {
            json!({"name": name, value_is_called: value})
                .to_string()
                .len()
                + ",".len()
        })
        .sum()
}

fn check_bytes(field: &str, bytes: usize, most: usize) -> Result<(), Wrong> {
    if bytes > most {
        return wrong(
            field,
            format!("takes {bytes} bytes of the task definition; at most {most} are allowed"),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_right(fields: Fields) -> bool {
        fields.check(&Source::Input).is_ok()
    }

    fn one(name: &str, length: usize) -> Option<Variables> {
        Some(Variables::from([(name.to_owned(), "x".repeat(length))]))
    }

    #[test]
    fn the_longest_and_the_most_are_accepted_and_one_more_is_not() {
        type Make = fn(usize) -> Fields;
        let cases: [(&str, usize, Make); 12] = [
            ("path", 1024, |length| Fields {
                health: Some(HealthFields {
                    path: Some(format!("/{}", "x".repeat(length - 1))),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ("grace", 7200, |seconds| Fields {
                health: Some(HealthFields {
                    grace_seconds: u32::try_from(seconds).ok(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ("family", 240, |length| Fields {
                base: Some("x".repeat(length)),
                ..Default::default()
            }),
            ("command", 8192, |bytes| Fields {
                command: Some(vec!["x".repeat(bytes - r#"[""]"#.len())]),
                ..Default::default()
            }),
            ("environment", 32_768, |bytes| Fields {
                environment: one("A", bytes - r#"{"name":"A","value":""},"#.len()),
                ..Default::default()
            }),
            ("valueFrom", 2048, |length| Fields {
                secrets: one("A", length),
                ..Default::default()
            }),
            ("stickiness", 604_800, |seconds| Fields {
                stickiness: u32::try_from(seconds).ok(),
                ..Default::default()
            }),
            ("smoke", 10, |number| Fields {
                smoke: Some(vec![smoke("/", None); number]),
                ..Default::default()
            }),
            ("smoke.path", 1024, |length| Fields {
                smoke: Some(vec![smoke(&format!("/{}", "x".repeat(length - 1)), None)]),
                ..Default::default()
            }),
            ("smoke.contains", 1024, |length| Fields {
                smoke: Some(vec![smoke("/", Some("é".repeat(length)))]),
                ..Default::default()
            }),
            ("hooks", 5, |number| Fields {
                hooks: Some(vec!["check".to_owned(); number]),
                ..Default::default()
            }),
            ("approve", 43_200, |seconds| Fields {
                approve: Some(crate::ApproveFields {
                    timeout_seconds: u32::try_from(seconds).ok(),
                }),
                ..Default::default()
            }),
        ];
        for (what, most, make) in cases {
            assert!(is_right(make(most)), "{what}");
            assert!(!is_right(make(most + 1)), "{what}");
        }
    }

    fn smoke(path: &str, contains: Option<String>) -> SmokeFields {
        let (path, status) = (path.to_owned(), None);
        SmokeFields {
            path,
            status,
            contains,
        }
    }

    #[test]
    fn the_name_of_a_variable_has_letters_digits_and_underscores() {
        for (name, is_accepted) in [("A_1", true), ("_a", true), ("A-1", false), ("1A", false)] {
            let environment = one(name, 1);
            let fields = Fields {
                environment,
                ..Default::default()
            };
            assert_eq!(is_right(fields), is_accepted, "{name}");
        }
    }
}
