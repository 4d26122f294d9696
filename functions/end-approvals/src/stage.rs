//! Where an execution stands, by the end of its history.

use aws_sdk_sfn::Client;
use aws_sdk_sfn::types::{HistoryEvent, HistoryEventType};
use lifecycle::StepError;
use lifecycle::aws_error::found;
use serde_json::Value;

/// The state of the deploy machine that runs this step before a wait.
pub const ASKS: &str = "EndApprovals";
/// The state in which a deployment waits for its approval.
pub const WAITS: &str = "AwaitApproval";
/// Where that state's call has the token, as a JSON pointer.
pub const TOKEN: &str = "/MessageAttributes/TaskToken/StringValue";

/// How many of the newest events are read: the entry of a state, and each try of its call.
const NEWEST: i32 = 50;

/// Where an execution stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It waits for its approval.
    Waits {
        /// What answers it.
        token: String,
    },
    /// It may be about to wait.
    IsAboutTo,
    /// It stands elsewhere, or has ended.
    Elsewhere,
}

impl Stage {
    /// Reads the newest events of an execution.
    ///
    /// # Errors
    /// As [`lifecycle::aws_error::CODES`] say.
    pub(crate) async fn read(sfn: &Client, execution: &str) -> Result<Self, StepError> {
        let request = sfn
            .get_execution_history()
            .execution_arn(execution)
            .reverse_order(true)
            .max_results(NEWEST);
        let answer = found(
            format_args!("read the history of execution {execution}"),
            request.send().await,
            |error| error.is_execution_does_not_exist(),
        )?;
        Ok(answer.map_or(Stage::Elsewhere, |it| Stage::of(&it.events)))
    }

    /// By the newest events, the newest first.
    fn of(events: &[HistoryEvent]) -> Self {
        let mut token = None;
        for event in events {
            if *event.r#type() == HistoryEventType::TaskScheduled {
                token = token.or_else(|| token_of(event));
            }
            let Some(entered) = event.state_entered_event_details() else {
                continue;
            };
            return match (entered.name(), token) {
                (WAITS, Some(token)) => Stage::Waits { token },
                (WAITS | ASKS, _) => Stage::IsAboutTo,
                _ => Stage::Elsewhere,
            };
        }
        Stage::Elsewhere
    }
}

fn token_of(event: &HistoryEvent) -> Option<String> {
    let details = event.task_scheduled_event_details()?;
    let parameters: Value = serde_json::from_str(details.parameters()).ok()?;
    Some(parameters.pointer(TOKEN)?.as_str()?.to_owned())
}
