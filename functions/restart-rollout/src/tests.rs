use super::*;
use lifecycle::{ErrorName, Settings, tags};
use memory_aws::{MemoryAws, State};
use serde_json::json;

const ID: &str = "test-20251027-122112Z";
const OTHER: &str = "test-20251027-122113Z";

/// An active deployment whose rollout has failed at one of two tasks, changed so.
fn failed_with(change: impl FnOnce(&mut State)) -> MemoryAws {
    let aws = MemoryAws::default();
    aws.with(|state| {
        for id in [ID, OTHER] {
            state.deploy(id, &[tags::LIVE_SINCE]);
        }
        state.activate(ID);
        let service = state.service(ID);
        service["runningCount"] = json!(1);
        service["deployments"][0]["rolloutState"] = "FAILED".into();
        change(state);
    });
    aws
}

async fn restart(aws: &MemoryAws) -> Result<Output, StepError> {
    let clients = Clients::new(&aws.config());
    let deployment_id = ID.parse().unwrap();
    run(&clients, &Settings::for_tests(), Input { deployment_id }).await
}

#[tokio::test]
async fn a_failed_rollout_with_missing_tasks_is_started_again_and_once() {
    let aws = failed_with(|_| ());
    let output = restart(&aws).await.unwrap();
    assert_eq!(output.verdict, Verdict::Restarted);
    assert_eq!(
        output.reason,
        "its rollout had failed and 1 of 2 tasks ran; ECS starts tasks again"
    );
    // The answer was lost, and the step runs again.
    assert_eq!(restart(&aws).await.unwrap().verdict, Verdict::Kept);
    let calls = aws.calls_to("UpdateService");
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0]["forceNewDeployment"], true);
    assert_eq!(calls[0]["desiredCount"], json!(null));
}

#[tokio::test]
async fn nothing_changes_unless_the_active_deployment_lacks_tasks_after_a_failure() {
    let changes: [fn(&mut State); 5] = [
        |state| state.activate(OTHER),
        |state| state.service(ID)["runningCount"] = json!(2),
        |state| state.service(ID)["deployments"][0]["rolloutState"] = "IN_PROGRESS".into(),
        |state| state.service(ID)["tags"] = json!([]),
        |state| state.services.clear(),
    ];
    for change in changes {
        let aws = failed_with(change);
        let output = restart(&aws).await.unwrap();
        assert_eq!(output.verdict, Verdict::Kept, "{}", output.reason);
        assert_eq!(aws.changes(), [""; 0]);
    }
}

#[tokio::test]
async fn a_service_that_is_deleted_meanwhile_needs_no_rollout_and_a_refusal_is_reported() {
    for (code, expected) in [
        ("ServiceNotActiveException", Ok(Verdict::Kept)),
        ("AccessDeniedException", Err(ErrorName::AccessDenied)),
        ("ThrottlingException", Err(ErrorName::Transient)),
    ] {
        let aws = failed_with(|_| ());
        aws.on("UpdateService").fails(code);
        let result = restart(&aws).await;
        let result = result.map(|it| it.verdict).map_err(|it| it.name);
        assert_eq!(result, expected, "{code}");
    }
}
