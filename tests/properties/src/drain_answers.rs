//! The responses of tasks to `POST /drain`.

use drain_deployment::drain_request::{Answer, Report, read};
use serde_json::Value;

use crate::messages::assert_printable;

/// Whether the response reports a number of sessions.
pub fn is_accepted(body: &[u8]) -> bool {
    read(body).1.is_some()
}

/// A response reports a number of sessions or is unexpected, no text of the application is repeated, and
/// the task is idle only if the number is 0.
pub fn check(body: &[u8]) {
    let (answer, active_sessions, detail) = read(body);
    assert_printable(&detail);
    match answer {
        Answer::Ok | Answer::AlreadyDraining => {
            assert_eq!(detail, "HTTP 200");
            assert!(active_sessions.is_some());
            // A second reading as general JSON, which can fail for other fields of the response.
            if let Ok(json) = serde_json::from_slice::<Value>(body) {
                assert!(json.is_object(), "{json}");
                assert_eq!(json["activeSessions"].as_u64(), active_sessions);
            }
        }
        Answer::Unexpected => {
            assert_eq!(active_sessions, None);
            assert!(detail.starts_with("HTTP 200, but the answer is not JSON"));
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
