use super::*;
use lifecycle::{ErrorName, input};
use serde_json::{Value, json};

fn variable(name: &str) -> Option<String> {
    Some(match name {
        "PULSE_ENVIRONMENT" => "test".into(),
        "KEEP_PREVIOUS" => "3".into(),
        "SETTLE_SECONDS" => "5".into(),
        "DRAIN_DEADLINE_SECONDS" | "HEALTH_TIMEOUT_SECONDS" | "WATCH_SECONDS" => return None,
        _ => "x".into(),
    })
}

#[test]
fn an_empty_input_is_an_ordinary_run_with_changes() {
    let input: Input = input::decode(json!({})).unwrap();
    assert!(!input.dry_run && !input.remove_everything);
}

#[test]
fn a_mistyped_field_is_refused_by_name() {
    for (payload, named) in [
        (json!({"dryrun": true}), "dryrun"),
        (json!({"dryRun": "yes"}), "dryRun"),
        (json!({"removeEverything": 1}), "removeEverything"),
    ] {
        let error = input::decode::<Input>(payload).unwrap_err();
        assert_eq!(error.name, ErrorName::InvalidInput);
        assert!(error.message.contains(named), "{}", error.message);
    }
}

#[test]
fn the_policy_has_defaults_and_can_be_set() {
    let config = Config::read(variable).unwrap();
    assert_eq!(config.keep_previous, 3);
    assert_eq!(config.settle, Duration::seconds(5));
    assert_eq!(config.drain_deadline, Duration::DAY);
}

#[test]
fn a_policy_that_is_not_a_number_is_refused_by_name() {
    let error = Config::read(|name| match name {
        "KEEP_PREVIOUS" => Some("all".into()),
        _ => variable(name),
    })
    .unwrap_err();
    assert_eq!(error.name, ErrorName::Configuration);
    assert!(error.message.contains("KEEP_PREVIOUS"));
}

#[test]
fn the_output_is_as_the_state_machine_reads_it() {
    let output = Output {
        dry_run: true,
        plan: Plan {
            active_deployment_id: None,
            repair: Some(Repair {
                deployment_id: "test-20251027-122112Z".parse().unwrap(),
                target_group_arn: "arn".into(),
                roll_back: true,
                replaced: vec!["test-20251027-130000Z".parse().unwrap()],
                reason: "because".into(),
            }),
            missing_rules: Some(MissingRules {
                deployment_id: "test-20251027-122112Z".parse().unwrap(),
                target_group_arn: "arn".into(),
                reason: "no rule".into(),
            }),
            problems: vec!["trouble".into()],
            unhealthy_targets: 1,
            is_down: true,
            is_scaled: true,
            deployments: vec![Planned {
                deployment_id: "test-20251027-122112Z".parse().unwrap(),
                state: State::RolledBack,
                action: Action::Drain,
                reason: "why".into(),
                force: false,
                target_group_arn: None,
            }],
            left_out: 0,
        },
    };
    let expected: Value = json!({
        "dryRun": true,
        "activeDeploymentId": null,
        "repair": {
            "deploymentId": "test-20251027-122112Z",
            "targetGroupArn": "arn",
            "rollBack": true,
            "replaced": ["test-20251027-130000Z"],
            "reason": "because"
        },
        "missingRules": {
            "deploymentId": "test-20251027-122112Z",
            "targetGroupArn": "arn",
            "reason": "no rule"
        },
        "problems": ["trouble"],
        "unhealthyTargets": 1,
        "isDown": true,
        "isScaled": true,
        "deployments": [{
            "deploymentId": "test-20251027-122112Z",
            "state": "rolledBack",
            "action": "drain",
            "reason": "why",
            "force": false,
            "targetGroupArn": null
        }],
        "leftOut": 0
    });
    assert_eq!(serde_json::to_value(output).unwrap(), expected);
}
