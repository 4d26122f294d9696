//! The executions of a life: how each one ended, and whether that is a documented ending.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_sfn::error::ProvideErrorMetadata;

use super::draw::Image;
use crate::{Execution, TestEnvironment};

/// How many executions are looked through for those that the schedule started.
const NEWEST: i32 = 100;

/// Why an execution started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Started {
    /// A push of this id and image.
    Push(String, Image),
    /// A further start of this id.
    Again(String),
    /// A start of another machine, by hand or by the schedule.
    Machine(String),
}

/// All executions.
pub struct Records {
    /// Those that have not ended, by ARN.
    running: BTreeMap<String, Started>,
    /// The names of those that ended.
    ended: BTreeSet<String>,
    images: BTreeMap<String, Image>,
    starts: BTreeMap<String, usize>,
    /// The number of executions, by machine and ending.
    pub endings: BTreeMap<(String, String), usize>,
    /// The deployments that traffic may have been switched to.
    pub lived: BTreeSet<String>,
    /// The deployments that rollbacks gave fresh tasks.
    pub restored: BTreeSet<String>,
    /// The deployments whose visitors rollbacks took along, or tried to.
    pub evicted: BTreeSet<String>,
    /// Executions with an ending that is not right for them.
    pub wrong: Vec<String>,
}

impl Records {
    /// The records of an environment in which one deployment is live.
    pub fn of(env: &TestEnvironment, first: &str) -> Records {
        Records {
            running: BTreeMap::new(),
            ended: BTreeSet::from([env.execution_arn(first)]),
            images: BTreeMap::from([(first.to_owned(), Image::Good)]),
            starts: BTreeMap::from([(first.to_owned(), 1)]),
            endings: BTreeMap::new(),
            lived: BTreeSet::from([first.to_owned()]),
            restored: BTreeSet::new(),
            evicted: BTreeSet::new(),
            wrong: Vec::new(),
        }
    }

    /// Adds an execution that has been started, or will be by its push.
    pub fn started(&mut self, arn: String, why: Started) {
        match &why {
            Started::Push(id, image) => {
                self.images.insert(id.clone(), *image);
                self.starts.insert(id.clone(), 1);
            }
            Started::Again(id) => *self.starts.entry(id.clone()).or_default() += 1,
            Started::Machine(_) => {}
        }
        self.running.insert(arn, why);
    }

    /// How many times the id has been started.
    pub fn starts_of(&self, id: &str) -> usize {
        self.starts.get(id).copied().unwrap_or_default()
    }

    /// Whether the execution of the push exists.
    ///
    /// # Errors
    /// When Step Functions does not answer.
    pub async fn has_started(&self, env: &TestEnvironment, id: &str) -> anyhow::Result<bool> {
        let arn = env.execution_arn(id);
        Ok(self.ended.contains(&arn) || is_running(env, &arn).await?.is_some())
    }

    /// Reads the executions that have ended.
    ///
    /// # Errors
    /// When Step Functions does not answer.
    pub async fn read(&mut self, env: &TestEnvironment) -> anyhow::Result<()> {
        self.find_scheduled(env).await?;
        let arns: Vec<String> = self.running.keys().cloned().collect();
        for arn in arns {
            if is_running(env, &arn).await? == Some(false) {
                let execution = Execution::read(&env.sfn, &arn).await?;
                self.end(arn, &execution);
            }
        }
        Ok(())
    }

    /// Waits until every execution has ended, and reads it.
    ///
    /// # Errors
    /// When one never starts, or does not end.
    pub async fn all_end(&mut self, env: &TestEnvironment) -> anyhow::Result<()> {
        self.find_scheduled(env).await?;
        while let Some((arn, why)) = self.running.first_key_value() {
            let arn = arn.clone();
            let execution = match why {
                Started::Push(id, _) => env.wait_for_deployment(id).await?,
                _ => env.wait_for_execution(&arn).await?,
            };
            self.end(arn, &execution);
        }
        Ok(())
    }

    async fn find_scheduled(&mut self, env: &TestEnvironment) -> anyhow::Result<()> {
        let listed = env
            .sfn
            .list_executions()
            .state_machine_arn(env.machine("cleanup"))
            .max_results(NEWEST)
            .send()
            .await?;
        for execution in listed.executions {
            let arn = execution.execution_arn;
            if !self.ended.contains(&arn) && !self.running.contains_key(&arn) {
                self.started(arn, Started::Machine("cleanup".to_owned()));
            }
        }
        Ok(())
    }

    fn end(&mut self, arn: String, execution: &Execution) {
        let Some(why) = self.running.remove(&arn) else {
            return;
        };
        let ending = match execution.status.as_str() {
            "ABORTED" | "TIMED_OUT" => execution.status.as_str(),
            _ => execution.ending(),
        };
        let machine = match &why {
            Started::Machine(name) => name,
            Started::Push(..) | Started::Again(_) => "deploy",
        };
        let key = (machine.to_owned(), ending.to_owned());
        *self.endings.entry(key).or_default() += 1;
        if let Started::Push(id, _) | Started::Again(id) = &why
            && execution.entered("SwitchTraffic").is_some()
        {
            self.lived.insert(id.clone());
        }
        if let Ok(output) = execution.output_of("RestoreDeployment")
            && output["Payload"]["restored"] == true
            && let Some(id) = output["Payload"]["deploymentId"].as_str()
        {
            self.restored.insert(id.to_owned());
        }
        if execution.entered("TakeVisitorsAlong").is_some() {
            let found = [
                ("SwitchTraffic", "rolledBack"),
                ("RestoreDeployment", "leftPinned"),
            ];
            for (state, field) in found {
                let output = execution.output_of(state).unwrap_or_default();
                let listed = output["Payload"][field].as_array().into_iter().flatten();
                let ids = listed.filter_map(|it| it["deploymentId"].as_str());
                self.evicted.extend(ids.map(str::to_owned));
            }
        }
        let image = match &why {
            Started::Push(id, _) | Started::Again(id) => self.images.get(id).copied(),
            Started::Machine(_) => None,
        };
        if !is_right(&why, image, ending, &execution.cause) {
            let Execution { name, cause, .. } = execution;
            self.wrong.push(format!(
                "{machine} {name} ({why:?}) ended as {ending}: {cause}"
            ));
        }
        self.ended.insert(arn);
    }
}

/// Why the first step of an execution refuses the second start of an id: a rollback has taken it back, its tasks were
/// asked to drain, or another execution of it goes first.
const REFUSALS: [&str; 3] = [
    "DeploymentRolledBackError",
    "DeploymentDrainingError",
    "ResourceConflictError",
];

/// Whether this is a documented ending that an execution like this may have.
fn is_right(why: &Started, image: Option<Image>, ending: &str, cause: &str) -> bool {
    let serves = image.is_some_and(Image::serves);
    match (why, ending) {
        (Started::Push(..) | Started::Again(_), "Succeeded") => serves,
        (Started::Push(..) | Started::Again(_), "Superseded") => true,
        // A rollback that begins later takes back what has just become ready.
        (Started::Push(..) | Started::Again(_), "Failed") => {
            !serves || cause.contains("rolled back")
        }
        (Started::Again(_), "Refused") => REFUSALS.iter().any(|name| cause.contains(name)),
        (Started::Machine(name), "Succeeded" | "Refused") => name == "rollback",
        // A deployment that became ready during the rollback wins, and so does another rollback.
        (Started::Machine(name), "RollbackFailed") => {
            name == "rollback" && (cause.contains("newer") || cause.contains("was rolled back"))
        }
        (Started::Machine(name), "CleanedUp" | "Planned") => name == "cleanup",
        _ => false,
    }
}

/// Whether an execution runs. `None` if it does not exist.
async fn is_running(env: &TestEnvironment, arn: &str) -> anyhow::Result<Option<bool>> {
    let described = env.sfn.describe_execution().execution_arn(arn).send().await;
    match described {
        Ok(execution) => Ok(Some(execution.status().as_str() == "RUNNING")),
        Err(error) if error.code() == Some("ExecutionDoesNotExist") => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(image: Image, ending: &str, cause: &str) -> bool {
        let why = Started::Push("test-20261127-203000Z".to_owned(), image);
        is_right(&why, Some(image), ending, cause)
    }

    #[test]
    fn a_push_ends_as_its_image_deserves() {
        assert!(push(Image::Good, "Succeeded", ""));
        assert!(push(Image::Slow, "Superseded", ""));
        assert!(push(Image::Crashing, "Failed", "exit code 3"));
        assert!(push(Image::Good, "Failed", "it was rolled back"));
        assert!(!push(Image::Good, "Failed", "TaskFailedError"));
        assert!(!push(Image::Crashing, "Succeeded", ""));
        assert!(!push(Image::Unhealthy, "UndoFailed", ""));
        assert!(!push(Image::Good, "Refused", "QuotaExceededError"));
        assert!(!push(Image::Good, "ABORTED", ""));
    }

    #[test]
    fn a_second_start_ends_like_a_push_or_is_refused_for_a_documented_reason() {
        let again = |image, ending, cause| {
            let why = Started::Again("test-20261127-203000Z".to_owned());
            is_right(&why, Some(image), ending, cause)
        };
        assert!(again(Image::Good, "Succeeded", ""));
        assert!(again(Image::Crashing, "Failed", "exit code 3"));
        assert!(again(Image::Good, "Failed", "it was rolled back"));
        assert!(!again(Image::Good, "Failed", "UnexpectedError"));
        assert!(again(
            Image::Good,
            "Refused",
            "DeploymentDrainingError: it drains"
        ));
        assert!(!again(Image::Good, "Refused", "InvalidInputError: no id"));
        assert!(!again(Image::Good, "Refused", ""));
    }

    #[test]
    fn a_cleanup_always_cleans_up_and_a_rollback_may_be_refused() {
        let ends = |machine: &str, ending, cause| {
            is_right(&Started::Machine(machine.to_owned()), None, ending, cause)
        };
        assert!(ends("cleanup", "CleanedUp", ""));
        assert!(!ends("cleanup", "CleanupFailed", "ConflictError"));
        assert!(!ends("cleanup", "Succeeded", ""));
        assert!(ends("rollback", "Succeeded", ""));
        assert!(ends("rollback", "Refused", ""));
        assert!(ends(
            "rollback",
            "RollbackFailed",
            "a newer deployment is ready"
        ));
        assert!(!ends("rollback", "RollbackFailed", "TargetUnhealthyError"));
    }
}
