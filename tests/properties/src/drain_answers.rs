//! What an application's task answers to `POST /drain`.

use drain_deployment::ask::{Answer, Report, read};
use serde_json::Value;

use crate::messages::can_be_shown;

/// An answer tells a number of sessions or is unexpected, nothing that the application wrote is
/// repeated, and only one that says 0 makes the task idle.
///
/// # Panics
/// When it is not so.
pub fn check(body: &[u8]) {
    let (answer, active_sessions, detail) = read(body);
    can_be_shown(&detail);
    match answer {
        Answer::Ok | Answer::AlreadyDraining => {
            assert_eq!(detail, "HTTP 200");
            assert!(active_sessions.is_some());
            // Read once more, as loosely as JSON allows, unless what else is in it is more than that.
            if let Ok(said) = serde_json::from_slice::<Value>(body) {
                assert!(said.is_object(), "{said}");
                assert_eq!(said["activeSessions"].as_u64(), active_sessions);
            }
        }
        Answer::Unexpected => {
            assert_eq!(active_sessions, None);
            assert!(detail.starts_with("HTTP 200, but the answer is no JSON"));
        }
        other => panic!("an answer with 200 is {other:?}"),
    }
    let report = Report {
        task_id: "1".to_owned(),
        address: None,
        answer,
        active_sessions,
        detail,
    };
    assert_eq!(report.is_idle(), active_sessions == Some(0));
}
