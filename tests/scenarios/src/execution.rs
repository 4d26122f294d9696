//! An execution of a state machine, read whole.

use anyhow::Context;
use aws_sdk_sfn::types::{ExecutionStatus, HistoryEvent};
use serde_json::Value;

/// An execution with its history.
#[derive(Debug, Clone)]
pub struct Execution {
    /// Its name.
    pub name: String,
    /// Its status.
    pub status: ExecutionStatus,
    /// The error it failed with.
    pub error: String,
    /// The cause it failed with.
    pub cause: String,
    /// What it returned.
    pub output: Value,
    /// All events.
    pub history: Vec<HistoryEvent>,
}

impl Execution {
    /// Reads an execution and its history, past every page.
    ///
    /// # Errors
    /// When there is no such execution.
    pub async fn read(sfn: &aws_sdk_sfn::Client, arn: &str) -> anyhow::Result<Execution> {
        let described = sfn.describe_execution().execution_arn(arn).send().await?;
        let mut history = Vec::new();
        let mut token = None;
        loop {
            let page = sfn
                .get_execution_history()
                .execution_arn(arn)
                .set_next_token(token)
                .send()
                .await?;
            history.extend(page.events);
            token = page.next_token;
            if token.is_none() {
                break;
            }
        }
        Ok(Execution {
            name: described
                .name
                .clone()
                .context("an execution without a name")?,
            status: described.status().clone(),
            error: described.error().unwrap_or_default().to_owned(),
            cause: described.cause().unwrap_or_default().to_owned(),
            output: described
                .output()
                .map(serde_json::from_str)
                .transpose()?
                .unwrap_or_default(),
            history,
        })
    }

    /// Whether it is not running any more.
    pub fn has_ended(&self) -> bool {
        self.status != ExecutionStatus::Running
    }

    /// The names of the states it entered, in order.
    pub fn path(&self) -> Vec<&str> {
        self.history
            .iter()
            .filter_map(|event| event.state_entered_event_details())
            .map(|details| details.name())
            .collect()
    }

    /// Where in the history a state was entered first.
    pub fn entered(&self, state: &str) -> Option<usize> {
        self.history.iter().position(|event| {
            let details = event.state_entered_event_details();
            details.is_some_and(|details| details.name() == state)
        })
    }

    /// Where in the history a state was left first.
    pub fn left(&self, state: &str) -> Option<usize> {
        self.history.iter().position(|event| {
            let details = event.state_exited_event_details();
            details.is_some_and(|details| details.name() == state)
        })
    }

    /// How many tasks it scheduled, tries that were made again among them.
    pub fn tasks(&self) -> usize {
        let scheduled = |event: &&HistoryEvent| event.r#type().as_str() == "TaskScheduled";
        self.history.iter().filter(scheduled).count()
    }

    /// How many events it would have on AWS, where each task has a `TaskStarted` as well. For a
    /// machine with a Map this is too few: the local cloud tells nothing of its states but the tasks.
    pub fn events_on_aws(&self) -> usize {
        self.history.len() + self.tasks()
    }

    /// The most bytes that a state took or gave, and where.
    pub fn largest_data(&self) -> (usize, String) {
        let mut state = "";
        let mut largest = (0, String::new());
        for event in &self.history {
            let entered = event.state_entered_event_details();
            let exited = event.state_exited_event_details();
            let succeeded = event.task_succeeded_event_details();
            state = entered
                .map(|it| it.name())
                .or(exited.map(|it| it.name()))
                .unwrap_or(state);
            let data = entered
                .and_then(|it| it.input())
                .or(exited.and_then(|it| it.output()))
                .or(succeeded.and_then(|it| it.output()));
            let bytes = data.map_or(0, str::len);
            if bytes > largest.0 {
                largest = (bytes, format!("{} of {state}", event.r#type().as_str()));
            }
        }
        largest
    }

    /// The names of the errors with which its tasks failed, tries that were made again among them.
    pub fn task_errors(&self) -> Vec<&str> {
        self.history
            .iter()
            .filter_map(|event| event.task_failed_event_details())
            .filter_map(|details| details.error())
            .collect()
    }

    /// What a state gave, the first time it was left.
    ///
    /// # Errors
    /// When it was not left or gave no JSON.
    pub fn given_by(&self, state: &str) -> anyhow::Result<Value> {
        let position = self
            .left(state)
            .with_context(|| format!("{state} was not left"))?;
        let details = self.history[position].state_exited_event_details();
        let output = details.and_then(|details| details.output());
        Ok(serde_json::from_str(output.unwrap_or_default())?)
    }

    /// The last state it entered: its ending.
    pub fn ending(&self) -> &str {
        self.path().last().copied().unwrap_or_default()
    }
}
