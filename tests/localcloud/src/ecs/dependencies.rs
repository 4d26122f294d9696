//! The order in which the containers of a task start and stop.
//! <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ContainerDependency.html>

use serde_json::Value;

/// What a container waits for before it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependency {
    /// The name of the other container.
    pub container: String,
    pub condition: Condition,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// The other container has started. `HEALTHY` is this too, because health checks of containers do not run
    /// here.
    Start,
    /// The other container has ended.
    Complete,
    /// The other container has ended with exit code 0.
    Success,
}

/// How far a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Waiting,
    Running,
    /// It ended with this exit code.
    Exited(i32),
    /// It never started, because what it waits for cannot happen any more.
    Impossible,
}

/// Whether a container may start.
#[derive(Debug, PartialEq, Eq)]
pub enum Readiness {
    Ready,
    Waiting,
    /// It can never start, because of this other container.
    Never(String),
}

/// The `dependsOn` of a container definition.
pub fn of(definition: &Value) -> Vec<Dependency> {
    let entries = definition["dependsOn"].as_array().into_iter().flatten();
    entries
        .map(|entry| Dependency {
            container: entry["containerName"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            condition: match entry["condition"].as_str() {
                Some("COMPLETE") => Condition::Complete,
                Some("SUCCESS") => Condition::Success,
                _ => Condition::Start,
            },
        })
        .collect()
}

/// Whether a container with these dependencies may start, when the other containers are in these phases.
pub fn readiness(dependencies: &[Dependency], phase: impl Fn(&str) -> Phase) -> Readiness {
    let mut ready = true;
    for Dependency {
        container,
        condition,
    } in dependencies
    {
        ready &= match (condition, phase(container)) {
            (_, Phase::Impossible) => return Readiness::Never(container.clone()),
            (Condition::Success, Phase::Exited(code)) if code != 0 => {
                return Readiness::Never(container.clone());
            }
            (_, Phase::Exited(_)) | (Condition::Start, Phase::Running) => true,
            (_, Phase::Waiting | Phase::Running) => false,
        };
    }
    if ready {
        Readiness::Ready
    } else {
        Readiness::Waiting
    }
}

/// The `reason` of a container that can never start. ECS gives it the exit code 143 as well:
/// <https://github.com/aws/amazon-ecs-agent/pull/3218>.
pub fn reason(dependency: &str, container: &str) -> String {
    format!(
        "CannotStartContainerError: dependency graph: failed to resolve container ordering dependency \
         [{dependency}] for target [{container}] as dependency did not exit successfully."
    )
}

/// Whether the dependencies of the containers lead in a circle.
pub fn have_cycle(containers: &[(&str, Vec<Dependency>)]) -> bool {
    // A container that depends on none that remains can start. What remains when none can is a circle.
    let mut remaining: Vec<_> = containers.iter().collect();
    loop {
        let names: Vec<&str> = remaining.iter().map(|(name, _)| *name).collect();
        let before = remaining.len();
        remaining.retain(|(_, dependencies)| {
            dependencies
                .iter()
                .any(|one| names.contains(&one.container.as_str()))
        });
        if remaining.is_empty() {
            return false;
        }
        if remaining.len() == before {
            return true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn on(condition: &str, phase: Phase) -> Readiness {
        let definition = json!({"dependsOn": [{"containerName": "a", "condition": condition}]});
        readiness(&of(&definition), |_| phase)
    }

    #[test]
    fn each_condition_is_met_by_its_own_phases() {
        use Phase::{Exited, Impossible, Running, Waiting};
        let never = || Readiness::Never("a".into());
        for (condition, phase, expected) in [
            ("START", Waiting, Readiness::Waiting),
            ("START", Running, Readiness::Ready),
            ("START", Exited(1), Readiness::Ready),
            ("COMPLETE", Running, Readiness::Waiting),
            ("COMPLETE", Exited(1), Readiness::Ready),
            ("SUCCESS", Running, Readiness::Waiting),
            ("SUCCESS", Exited(0), Readiness::Ready),
            ("SUCCESS", Exited(1), never()),
            ("COMPLETE", Impossible, never()),
            ("START", Impossible, never()),
        ] {
            assert_eq!(on(condition, phase), expected, "{condition} {phase:?}");
        }
        assert_eq!(readiness(&[], |_| Waiting), Readiness::Ready);
    }

    #[test]
    fn a_circle_is_found_and_a_chain_is_not_one() {
        let of = |names: &[&str]| -> Vec<Dependency> {
            let entry = |name: &&str| Dependency {
                container: (*name).into(),
                condition: Condition::Start,
            };
            names.iter().map(entry).collect()
        };
        let chain = [("a", of(&["b"])), ("b", of(&["c"])), ("c", of(&[]))];
        assert!(!have_cycle(&chain));
        let circle = [("a", of(&["b"])), ("b", of(&["c"])), ("c", of(&["b"]))];
        assert!(have_cycle(&circle));
        assert!(have_cycle(&[("a", of(&["a"]))]));
    }
}
