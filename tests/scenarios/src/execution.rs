//! An execution of a state machine, with its whole history.

use anyhow::Context;
use aws_sdk_sfn::types::{ExecutionStatus, HistoryEvent};
use serde_json::Value;

/// An execution with its history.
#[derive(Debug, Clone)]
pub struct Execution {
    /// The execution's name, which for a push is the deployment id.
    pub name: String,
    /// The status that Step Functions reports, such as `SUCCEEDED`.
    pub status: ExecutionStatus,
    /// The error that it failed with, or empty text.
    pub error: String,
    /// The cause that it failed with, or empty text.
    pub cause: String,
    /// The output, or null.
    pub output: Value,
    /// All events, oldest first.
    pub history: Vec<HistoryEvent>,
}

impl Execution {
    /// Reads an execution and every page of its history.
    ///
    /// # Errors
    /// When the execution does not exist.
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

    /// Whether it is no longer running.
    pub fn has_ended(&self) -> bool {
        self.status != ExecutionStatus::Running
    }

    /// The names of the states that it entered, in order.
    pub fn path(&self) -> Vec<&str> {
        self.history
            .iter()
            .filter_map(|event| event.state_entered_event_details())
            .map(|details| details.name())
            .collect()
    }

    /// The index in the history of the event with which a state was first entered.
    pub fn entered(&self, state: &str) -> Option<usize> {
        self.history.iter().position(|event| {
            let details = event.state_entered_event_details();
            details.is_some_and(|details| details.name() == state)
        })
    }

    /// The index in the history of the event with which a state was first left.
    pub fn left(&self, state: &str) -> Option<usize> {
        self.history.iter().position(|event| {
            let details = event.state_exited_event_details();
            details.is_some_and(|details| details.name() == state)
        })
    }

    /// How many tasks it scheduled, including retries.
    pub fn tasks(&self) -> usize {
        let scheduled = |event: &&HistoryEvent| event.r#type().as_str() == "TaskScheduled";
        self.history.iter().filter(scheduled).count()
    }

    /// How many events it would have on AWS, where each task also has a `TaskStarted`. For a machine
    /// with a Map this is too few, because the local cloud records only the tasks of its states.
    pub fn events_on_aws(&self) -> usize {
        self.history.len() + self.tasks()
    }

    /// The size in bytes of the largest input or output of a state, and the event that holds it.
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

    /// The names of the errors with which its tasks failed, including those that were retried.
    pub fn task_errors(&self) -> Vec<&str> {
        self.history
            .iter()
            .filter_map(|event| event.task_failed_event_details())
            .filter_map(|details| details.error())
            .collect()
    }

    /// The output of a state when it was first left.
    ///
    /// # Errors
    /// When it was not left or its output is not JSON.
    pub fn output_of(&self, state: &str) -> anyhow::Result<Value> {
        let position = self
            .left(state)
            .with_context(|| format!("{state} was not left"))?;
        let details = self.history[position].state_exited_event_details();
        let output = details.and_then(|details| details.output());
        Ok(serde_json::from_str(output.unwrap_or_default())?)
    }

    /// The ending: the last state that it entered.
    pub fn ending(&self) -> &str {
        self.path().last().copied().unwrap_or_default()
    }
}
