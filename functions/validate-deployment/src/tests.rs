use super::*;
use lifecycle::{Baseline, ErrorName, StepError, tags};
use memory_aws::{
    DIGEST, MemoryAws, State, authenticate_oidc, forward, group_arn, own_tags, tags as pairs,
};
use serde_json::{Value, json};

const OLD: &str = "test-20251027-122112Z";
const ID: &str = "test-20251027-122113Z";
const NEW: &str = "test-20251027-122114Z";

/// An account with the deployment's image, where an older deployment is active.
fn aws() -> MemoryAws {
    let aws = MemoryAws::default();
    aws.with(|state| {
        state.images.push((ID.into(), DIGEST.into()));
        state.deploy(OLD, &[]);
        state.activate(OLD);
    });
    aws
}

/// An account without the older deployment's rules, changed so.
fn with(change: impl FnOnce(&mut State)) -> MemoryAws {
    let aws = aws();
    aws.with(|state| {
        state.rules.clear();
        change(state);
    });
    aws
}

/// Adds so many rules that forward to the target groups of these names.
/// The conditions of a rule with which a rollback waits for tasks.
fn no_request() -> Value {
    json!([{"Field": "source-ip", "SourceIpConfig": {"Values": ["192.0.2.0/32"]}}])
}

fn add_rules(state: &mut State, names: impl IntoIterator<Item = String>) {
    for (priority, name) in (1..).zip(names) {
        state.add_rule(priority, &name, pairs([]));
    }
}

/// Runs the step with a payload as the machine sends it.
async fn run_with(aws: &MemoryAws, payload: Value) -> Result<Output, StepError> {
    let config = aws.config();
    let clients = Clients {
        cloudwatch: aws_sdk_cloudwatch::Client::new(&config),
        ecr: aws_sdk_ecr::Client::new(&config),
        ecs: aws_sdk_ecs::Client::new(&config),
        elb: aws_sdk_elasticloadbalancingv2::Client::new(&config),
        secrets: aws_sdk_secretsmanager::Client::new(&config),
        sfn: aws_sdk_sfn::Client::new(&config),
        ssm: aws_sdk_ssm::Client::new(&config),
    };
    let now = time::macros::utc_datetime!(2025-10-27 13:00:00);
    run(&clients, &Baseline::for_tests(), now, payload).await
}

/// Runs the step with an input as a machine of an earlier version sends it.
async fn validate_input(aws: &MemoryAws, input: Value) -> Result<Output, StepError> {
    run_with(aws, input).await
}

async fn validate(aws: &MemoryAws) -> Result<Output, StepError> {
    validate_input(aws, json!({"deploymentId": ID})).await
}

/// Runs the step for the execution of that name, which was started at 12:30.
async fn validate_as(aws: &MemoryAws, execution: &str) -> Result<Output, StepError> {
    let execution =
        json!({"id": execution_arn(execution), "startTime": "2025-10-27T12:30:00.000Z"});
    run_with(
        aws,
        json!({"input": {"deploymentId": ID}, "execution": execution}),
    )
    .await
}

fn execution_arn(name: &str) -> String {
    format!("arn:aws:states:us-east-1:1:execution:test-deploy:{name}")
}

/// An account where the deployment itself is active: two tasks of 0.25 vCPU.
fn with_itself_active() -> MemoryAws {
    let aws = aws();
    aws.with(activate_itself);
    aws
}

fn activate_itself(state: &mut State) {
    state.deploy(ID, &[]);
    state.activate(ID);
    let definition = state.task_definitions.last_mut().unwrap();
    definition["cpu"] = "256".into();
    definition["memory"] = "512".into();
    definition["containerDefinitions"] = json!([{
        "name": "app",
        "image": format!("1.dkr.ecr.us-east-1.amazonaws.com/test@{DIGEST}"),
        "environment": [
            {"name": "DEPLOYMENT_ID", "value": ID},
            {"name": "PORT", "value": "8000"},
            {"name": "LOG_LEVEL", "value": "debug"},
        ],
        "secrets": [
            {"name": "DRAIN_SECRET", "valueFrom": "arn:aws:secretsmanager:us-east-1:1:secret:test/drain-secret-a"},
            {"name": "API_KEY", "valueFrom": "/pulse/test/API_KEY"},
        ],
        "command": ["serve"],
        "entryPoint": ["/app"],
    }]);
    definition["tags"].as_array_mut().unwrap().extend([
        json!({"key": "pulse:settings-version", "value": "7"}),
        json!({"key": "pulse:copy-of", "value": "web:3"}),
    ]);
    let service = state.services.last_mut().unwrap();
    service["healthCheckGracePeriodSeconds"] = 90.into();
    service["loadBalancers"] = json!([{"targetGroupArn": group_arn(ID)}]);
    let group = state.target_groups.last_mut().unwrap();
    group.settings["HealthCheckPath"] = "/up".into();
    group.tags.extend(pairs([
        ("pulse:wanted-count", "2"),
        ("pulse:scaling", "max=8 cpuPercent=60"),
    ]));
    group.attributes.extend(pairs([
        ("stickiness.enabled", "true"),
        ("stickiness.lb_cookie.duration_seconds", "60"),
    ]));
}

#[tokio::test]
async fn a_newer_deployment_proceeds_with_its_digest_pinned() {
    let output = validate(&aws()).await.unwrap();
    assert_eq!(output.verdict, Verdict::Proceed);
    assert_eq!(
        serde_json::to_value(&output).unwrap(),
        json!({
            "verdict": "proceed", "reason": format!("{OLD} is active and older"), "imageDigest": DIGEST, "warnings": [],
            "deploymentId": ID, "settingsVersion": null, "desiredCount": 2, "parity": true, "cpu": 256, "memory": 512, "environment": {},
            "secrets": {}, "base": null, "command": null, "entryPoint": null, "stickiness": null,
            "health": {"path": "/_health", "graceSeconds": 600, "timeoutSeconds": 600}, "release": null, "scaling": null,
            "smoke": [], "hooks": [], "approve": null, "acceptedAlarms": [],
            "watch": {"seconds": 120, "alarms": [], "errors": null, "onBreach": "rollBack"},
        })
    );
}

#[tokio::test]
async fn the_first_deployment_proceeds() {
    let aws = MemoryAws::default();
    aws.with(|state| state.images.push((ID.into(), DIGEST.into())));
    assert_eq!(validate(&aws).await.unwrap().verdict, Verdict::Proceed);
}

#[tokio::test]
async fn a_deployment_that_is_active_already_needs_nothing() {
    let output = validate(&with_itself_active()).await.unwrap();
    assert_eq!(output.verdict, Verdict::AlreadyActive);
    assert_eq!(output.image_digest, DIGEST);
}

#[tokio::test]
async fn the_image_of_the_given_digest_is_deployed_whatever_the_tag_names() {
    let other = format!("sha256:{}", "a".repeat(64));
    let aws = aws();
    let input = json!({"deploymentId": ID, "imageDigest": other});
    // The tag names another image, and this one does not exist.
    let error = validate_input(&aws, input.clone()).await.unwrap_err();
    assert_eq!(error.name, ErrorName::ImageNotFound);
    for words in [&other, &format!("{ID}-2")] {
        assert!(error.message.contains(words.as_str()), "{error}");
    }
    // It exists under the tag of another deployment.
    aws.with(|state| state.images.push((OLD.into(), other.clone())));
    let output = validate_input(&aws, input).await.unwrap();
    assert_eq!(output.image_digest, other);
    let asked = aws.calls_to("DescribeImages").pop().unwrap();
    assert_eq!(asked["imageIds"], json!([{"imageDigest": other}]));
}

#[tokio::test]
async fn the_active_deployment_started_again_as_it_runs_gives_the_digest_that_runs() {
    let aws = with_itself_active();
    // The tag may have been moved or deleted since.
    aws.with(|state| state.images.clear());
    let same = json!({
        "deploymentId": ID, "imageDigest": DIGEST, "desiredCount": 2, "cpu": 256, "memory": 512,
        "environment": {"LOG_LEVEL": "debug"}, "secrets": {"API_KEY": "/pulse/test/API_KEY"},
        "command": ["serve"], "entryPoint": ["/app"], "stickiness": 60,
        "health": {"path": "/up", "graceSeconds": 90, "timeoutSeconds": 300},
        "scaling": {"max": 8, "cpuPercent": 60},
    });
    let output = validate_input(&aws, same).await.unwrap();
    assert_eq!(output.verdict, Verdict::AlreadyActive);
    assert_eq!(output.image_digest, DIGEST);
    assert_eq!(output.settings_version, Some(7));
}

#[tokio::test]
async fn the_settings_are_not_read_for_what_is_active_or_older() {
    let with_wrong_settings = |aws: MemoryAws| {
        put_settings(&aws, "no JSON");
        aws
    };
    let active = validate(&with_wrong_settings(with_itself_active())).await;
    assert_eq!(active.unwrap().verdict, Verdict::AlreadyActive);
    let older = aws();
    older.with(|state| {
        state.deploy(NEW, &[]);
        state.activate(NEW);
    });
    let older = validate(&with_wrong_settings(older)).await;
    assert_eq!(older.unwrap().verdict, Verdict::Superseded);
}

/// The seventh version of the environment's settings.
fn put_settings(aws: &MemoryAws, text: &str) {
    let parameter = json!({
        "Name": "/pulse/test/settings", "Type": "String", "Value": text, "Version": 7
    });
    aws.with(|state| {
        let name = "/pulse/test/settings".to_owned();
        state.parameters.insert(name, parameter);
    });
}

#[tokio::test]
async fn the_settings_of_the_environment_are_merged_with_the_input() {
    let aws = aws();
    let settings = json!({
        "cpu": 512, "desiredCount": 4, "environment": {"A": "settings", "B": "settings"},
        "secrets": {"KEY": "/pulse/test/KEY"}, "command": ["serve"], "stickiness": 3600,
        "health": {"path": "/up"}, "scaling": {"max": 8, "cpuPercent": 60},
    });
    put_settings(&aws, &settings.to_string());
    let input = json!({"deploymentId": ID, "desiredCount": 3, "environment": {"B": "input"}});
    let output = validate_input(&aws, input).await.unwrap();
    assert_eq!(
        serde_json::to_value(&output).unwrap(),
        json!({
            "verdict": "proceed", "reason": format!("{OLD} is active and older"), "imageDigest": DIGEST, "warnings": [],
            "deploymentId": ID, "settingsVersion": 7, "desiredCount": 3, "parity": false, "cpu": 512, "memory": 1024,
            "environment": {"A": "settings", "B": "input"}, "secrets": {"KEY": "/pulse/test/KEY"},
            "base": null, "command": ["serve"], "entryPoint": null, "stickiness": 3600,
            "health": {"path": "/up", "graceSeconds": 600, "timeoutSeconds": 600}, "release": null,
            "scaling": {"max": 8, "cpuPercent": 60}, "smoke": [], "hooks": [], "approve": null, "acceptedAlarms": [],
            "watch": {"seconds": 120, "alarms": [], "errors": null, "onBreach": "rollBack"},
        })
    );
    assert_eq!(
        aws.calls_to("GetParameter"),
        [json!({"Name": "/pulse/test/settings"})]
    );
}

#[tokio::test]
async fn settings_that_are_wrong_refuse_every_deployment_by_name() {
    for (kind, text, words) in [
        ("String", r#"{"cpu": 300}"#, "`cpu`"),
        ("String", "{", "line 1"),
        ("SecureString", "AQICAHh", "of type String"),
    ] {
        let aws = aws();
        put_settings(&aws, text);
        aws.with(|state| {
            let parameter = state.parameters.values_mut().next();
            parameter.expect("the settings")["Type"] = kind.into();
        });
        let error = validate(&aws).await.unwrap_err();
        assert_eq!(error.name, ErrorName::InvalidSettings, "{error}");
        for words in ["/pulse/test/settings, version 7", words] {
            assert!(error.message.contains(words), "{error}");
        }
        assert!(aws.changes().is_empty(), "{aws:?}");
    }
}

#[tokio::test]
async fn while_deployments_are_frozen_none_begins() {
    let aws = aws();
    put_settings(&aws, r#"{"frozen": "the sale runs"}"#);
    let error = validate(&aws).await.unwrap_err();
    assert_eq!(error.name, ErrorName::Frozen);
    assert!(error.message.contains("the sale runs"), "{error}");
    assert!(aws.changes().is_empty());
    // What is live already, or has lost to what is, needs no deployment.
    for aws in [with_itself_active(), with_newer_active()] {
        put_settings(&aws, r#"{"frozen": "the sale runs"}"#);
        assert!(validate(&aws).await.is_ok());
    }
}

fn with_newer_active() -> MemoryAws {
    let aws = aws();
    aws.with(|state| {
        state.deploy(NEW, &[]);
        state.activate(NEW);
    });
    aws
}

#[tokio::test]
async fn settings_that_cannot_be_read_stop_the_deployment() {
    let aws = aws();
    aws.on("GetParameter").fails("ThrottlingException");
    let error = validate(&aws).await.unwrap_err();
    assert_eq!(error.name, ErrorName::Transient, "{error}");
    assert!(error.message.contains("/pulse/test/settings"), "{error}");
}

#[tokio::test]
async fn the_active_deployment_started_again_with_anything_else_is_refused() {
    let other = format!("sha256:{}", "a".repeat(64));
    for (field, value) in [
        ("imageDigest", json!(other)),
        ("desiredCount", json!(3)),
        ("cpu", json!(512)),
        ("memory", json!(1024)),
        ("environment", json!({"LOG_LEVEL": "info"})),
        (
            "environment",
            json!({"LOG_LEVEL": "debug", "COLOUR": "green"}),
        ),
        ("secrets", json!({"API_KEY": "/pulse/test/OTHER"})),
        ("secrets", json!({"OTHER": "/pulse/test/API_KEY"})),
        ("base", json!("other")),
        ("command", json!(["serve", "--fast"])),
        ("entryPoint", json!(["/other"])),
        ("stickiness", json!(61)),
        ("health.path", json!("/_health")),
        ("health.graceSeconds", json!(91)),
        ("scaling", json!({"max": 9, "cpuPercent": 60})),
        ("scaling", json!({"max": 8, "requestsPerTarget": 60})),
    ] {
        let aws = with_itself_active();
        aws.with(|state| state.images.push((OLD.into(), other.clone())));
        let mut input = json!({"deploymentId": ID});
        match field.split_once('.') {
            Some((outer, inner)) => input[outer][inner] = value,
            None => input[field] = value,
        }
        let error = validate_input(&aws, input).await.unwrap_err();
        assert_eq!(error.name, ErrorName::ResourceConflict, "{error}");
        for words in [ID, &format!("`{field}`"), "new deployment id"] {
            assert!(error.message.contains(words), "{error}");
        }
    }
}

#[tokio::test]
async fn the_active_deployment_started_again_may_have_been_scaled_since() {
    let aws = with_itself_active();
    aws.with(|state| state.service(ID)["desiredCount"] = json!(6));
    let started_with = |count: u32| json!({"deploymentId": ID, "desiredCount": count});
    let output = validate_input(&aws, started_with(2)).await.unwrap();
    assert_eq!(output.verdict, Verdict::AlreadyActive);
    let error = validate_input(&aws, started_with(6)).await.unwrap_err();
    assert!(
        error.message.contains("`desiredCount` is 2, not 6"),
        "{error}"
    );
    // How many tasks one of an earlier version asked for is not known.
    aws.with(|state| state.group(ID).tags.remove("pulse:wanted-count"));
    let output = validate_input(&aws, started_with(6)).await.unwrap();
    assert_eq!(output.verdict, Verdict::AlreadyActive);
}

#[tokio::test]
async fn the_active_deployment_without_its_service_is_refused() {
    let aws = with_itself_active();
    aws.with(|state| state.services.clear());
    let error = validate(&aws).await.unwrap_err();
    assert_eq!(error.name, ErrorName::ResourceConflict);
    assert!(error.message.contains("service"), "{error}");
}

/// The name and start, in seconds after 12:30, of other running executions of the deployment.
fn with_others(others: &[(&str, i64)]) -> MemoryAws {
    let aws = aws();
    aws.with(|state| {
        for (name, later) in others {
            let start = state.now + later;
            let input = json!({"deploymentId": ID}).to_string();
            state.add_execution(name, &input)["startDate"] = start.into();
        }
    });
    aws
}

#[tokio::test]
async fn of_two_running_executions_the_first_one_goes_on() {
    let (own, other) = (ID, format!("{ID}-2"));
    for (start, goes_on) in [(1, true), (-1, false)] {
        // The list lags, and may not show the execution itself yet.
        for listed in [vec![(&*other, start)], vec![(&*other, start), (own, 0)]] {
            let ended = validate_as(&with_others(&listed), own).await;
            assert_eq!(ended.is_ok(), goes_on, "{listed:?}: {ended:?}");
            if let Err(error) = ended {
                assert_eq!(error.name, ErrorName::ResourceConflict);
                assert!(error.message.contains(&execution_arn(&other)), "{error}");
            }
        }
    }
}

#[tokio::test]
async fn of_two_executions_of_the_same_moment_the_lower_arn_goes_on() {
    let (one, two) = (ID.to_owned(), format!("{ID}-2"));
    let aws = with_others(&[(&two, 0), (&one, 0)]);
    assert!(validate_as(&aws, &one).await.is_ok());
    assert!(validate_as(&aws, &two).await.is_err());
}

#[tokio::test]
async fn an_execution_under_any_name_is_found_by_its_input_and_others_do_not_count() {
    let aws = with_others(&[("13cde686-328b", -60)]);
    assert!(validate_as(&aws, ID).await.is_err());
    let aws = with_others(&[(NEW, -60)]);
    assert!(validate_as(&aws, ID).await.is_ok());
    let aws = with_others(&[(&format!("{ID}-2"), -60)]);
    aws.with(|state| state.executions[0]["status"] = "FAILED".into());
    assert!(validate_as(&aws, ID).await.is_ok());
}

#[tokio::test]
async fn an_execution_that_is_named_after_another_deployment_is_refused() {
    for name in [OLD.to_owned(), format!("{OLD}-2"), "it's".to_owned()] {
        let error = validate_as(&aws(), &name).await.unwrap_err();
        assert_eq!(error.name, ErrorName::InvalidInput);
        assert!(error.message.contains(&format!("{ID}-2")), "{error}");
    }
    assert!(validate_as(&aws(), &format!("{ID}-3")).await.is_ok());
}

#[tokio::test]
async fn an_input_that_looks_like_the_machines_is_an_operators_mistake() {
    let input = json!({"input": {"deploymentId": ID}});
    let error = validate_input(&aws(), input).await.unwrap_err();
    assert_eq!(error.name, ErrorName::InvalidInput);
    assert!(error.message.contains("`input`"), "{error}");
}

#[tokio::test]
async fn what_an_operator_put_in_place_of_the_default_action_is_left_and_the_start_refused() {
    let maintenance = memory_aws::fixed_response("503", "We are back at noon.");
    let elsewhere = forward(&[("someone-elses", 1)]);
    for action in [maintenance, elsewhere] {
        let aws = aws();
        aws.with(|state| state.listeners[0].default_actions = vec![action]);
        let error = validate(&aws).await.unwrap_err();
        assert_eq!(error.name, ErrorName::DefaultActionNotOurs);
        for words in ["modify-listener", "Nothing is deployed here yet."] {
            assert!(error.message.contains(words), "{error}");
        }
        assert!(aws.changes().is_empty());
    }
}

#[tokio::test]
async fn a_default_action_that_forwards_to_a_deployment_that_is_gone_is_no_obstacle() {
    let aws = with(|state| state.target_groups.clear());
    assert_eq!(validate(&aws).await.unwrap().verdict, Verdict::Proceed);
}

#[tokio::test]
async fn a_deployment_from_the_future_that_supersedes_says_so() {
    let aws = aws();
    aws.with(|state| {
        let future = "test-20251027-134500Z";
        state.deploy(future, &[]);
        state.activate(future);
    });
    let output = validate(&aws).await.unwrap();
    assert_eq!(output.verdict, Verdict::Superseded);
    for words in ["WARNING", "46 more minutes", "test-20251027-134500Z"] {
        assert!(output.reason.contains(words), "{}", output.reason);
    }
}

#[tokio::test]
async fn a_rule_of_the_operator_behind_those_of_the_deployments_is_named() {
    let path = json!([{"Field": "path-pattern", "Values": ["/api/*"]}]);
    let warnings = async |priority: u32, group: &str| {
        let aws = aws();
        aws.with(|state| state.add_rule(priority, group, pairs([])).conditions = path.clone());
        validate(&aws).await.unwrap().warnings
    };
    for (priority, group) in [(30_000, "api"), (100, "api"), (30_000, OLD)] {
        let shown = warnings(priority, group).await.join(", ");
        for words in [&*format!("priority {priority}"), "1 to 98"] {
            assert!(shown.contains(words), "{shown}");
        }
    }
    assert!(warnings(98, "api").await.is_empty());
    let waiting = with(|state| state.add_rule(30_000, OLD, pairs([])).conditions = no_request());
    assert!(validate(&waiting).await.unwrap().warnings.is_empty());
    // The output of a state has a limit.
    let aws = aws();
    aws.with(|state| {
        for priority in 30_000..30_060 {
            state.add_rule(priority, "api", pairs([])).conditions = path.clone();
        }
    });
    assert_eq!(validate(&aws).await.unwrap().warnings.len(), 10);
}

/// The image is an index of images for these platforms.
fn with_platforms(platforms: Value) -> MemoryAws {
    let aws = aws();
    let manifest = json!({"schemaVersion": 2, "manifests": platforms}).to_string();
    aws.with(|state| state.manifests.insert(DIGEST.into(), manifest));
    aws
}

#[tokio::test]
async fn an_image_for_other_platforms_is_refused() {
    let arm = json!({"platform": {"os": "linux", "architecture": "arm64", "variant": "v8"}});
    let amd = json!({"platform": {"os": "linux", "architecture": "amd64"}});
    let attestation = json!({"platform": {"os": "unknown", "architecture": "unknown"}});
    for other in [json!([arm]), json!([arm, attestation])] {
        let error = validate(&with_platforms(other)).await.unwrap_err();
        assert_eq!(error.name, ErrorName::InvalidInput);
        for words in ["linux/arm64", "--platform linux/amd64", ID] {
            assert!(error.message.contains(words), "{error}");
        }
    }
    // What cannot be read is not taken for wrong.
    for right in [
        json!([arm, amd]),
        json!([amd, attestation]),
        json!([attestation]),
        json!([arm, {}]),
        json!([]),
        json!("?"),
    ] {
        assert!(
            validate(&with_platforms(right.clone())).await.is_ok(),
            "{right}"
        );
    }
}

#[tokio::test]
async fn an_older_deployment_is_superseded_before_anything_is_created() {
    let aws = aws();
    aws.with(|state| {
        state.deploy(NEW, &[]);
        state.activate(NEW);
    });
    let output = validate(&aws).await.unwrap();
    assert_eq!(output.verdict, Verdict::Superseded);
    assert!(output.reason.contains(NEW), "{}", output.reason);
}

#[tokio::test]
async fn a_deployment_that_was_rolled_back_is_refused_with_and_without_rules() {
    for has_rules in [true, false] {
        let aws = aws();
        aws.with(|state| {
            state.deploy(ID, &[tags::ROLLED_BACK_AT]);
            if !has_rules {
                state.rules.clear();
            }
        });
        let error = validate(&aws).await.unwrap_err();
        assert_eq!(error.name, ErrorName::DeploymentRolledBack);
    }
}

#[tokio::test]
async fn a_deployment_that_drains_is_refused_before_anything_is_made() {
    let draining = |state: &mut memory_aws::State| {
        state.deploy(ID, &[tags::LIVE_SINCE, tags::DRAINING_SINCE]);
    };
    let error = validate(&with(draining)).await.unwrap_err();
    assert_eq!(error.name, ErrorName::DeploymentDraining);
    assert!(error.message.contains("rollback machine"), "{error}");
}

#[tokio::test]
async fn a_rollback_during_the_reads_is_seen() {
    let roll_back = |state: &mut memory_aws::State| {
        state.tag(ID, tags::ROLLED_BACK_AT, "2025-10-27T12:30:00Z");
        state.activate(OLD);
    };
    for read in ["DescribeRules", "DescribeListeners", "DescribeTags"] {
        let aws = aws();
        aws.with(|state| {
            state.deploy(OLD, &[]);
            activate_itself(state);
        });
        aws.on(read).once().after(move |state, _| roll_back(state));
        match validate(&aws).await {
            Ok(output) => assert_eq!(output.verdict, Verdict::AlreadyActive, "{read}"),
            Err(error) => assert_eq!(error.name, ErrorName::DeploymentRolledBack, "{read}"),
        }
    }
}

#[tokio::test]
async fn two_rules_must_fit() {
    let same = |count| (0..count).map(|_| "other".to_owned());
    assert!(
        validate(&with(|state| add_rules(state, same(98))))
            .await
            .is_ok()
    );
    // One that waits for its tasks takes the room of two.
    let aws = with(|state| {
        add_rules(state, same(98));
        state.rules[0].conditions = no_request();
    });
    assert_eq!(
        validate(&aws).await.unwrap_err().name,
        ErrorName::QuotaExceeded
    );
    let aws = with(|state| add_rules(state, same(99)));
    let error = validate(&aws).await.unwrap_err();
    assert_eq!(error.name, ErrorName::QuotaExceeded);
    for words in ["2 more rules", "99 of 100"] {
        assert!(error.message.contains(words), "{error}");
    }
    // With a raised quota for rules, there is no room for the target group.
    let aws = with(|state| {
        add_rules(state, (0..100).map(|number| format!("other-{number}")));
        let quota = "rules-per-application-load-balancer".to_owned();
        state.limits.insert(quota, 1000);
    });
    let error = validate(&aws).await.unwrap_err();
    assert!(error.message.contains("1 more target groups"), "{error}");
    // This quota is one of AWS, which may raise it.
    aws.with(|state| {
        let quota = "target-groups-per-application-load-balancer".to_owned();
        state.limits.insert(quota, 1000);
    });
    validate(&aws).await.unwrap();
}

#[tokio::test]
async fn every_rule_of_every_listener_and_every_limit_counts() {
    let aws = with(|state| {
        state.page_size = 1;
        let mut other = state.listeners[0].clone();
        other.arn += "0";
        add_rules(state, (0..99).map(|_| "other".to_owned()));
        for rule in &mut state.rules {
            rule.listener_arn = other.arn.clone();
        }
        state.listeners.push(other);
    });
    let error = validate(&aws).await.unwrap_err();
    assert_eq!(error.name, ErrorName::QuotaExceeded);
    assert!(error.message.contains("99 of 100"), "{error}");
}

#[tokio::test]
async fn resources_of_an_earlier_run_are_not_counted_twice() {
    let aws = with(|state| {
        let others = (0..98).map(|_| "other".to_owned());
        add_rules(state, others.chain([ID.to_owned(), ID.to_owned()]));
        state.add_target_group(ID, own_tags(ID));
    });
    assert!(validate(&aws).await.is_ok());
    // Nor is the target group.
    let aws = with(|state| {
        let others = (0..98).map(|number| format!("other-{number}"));
        add_rules(state, others.chain([ID.to_owned(), ID.to_owned()]));
        state.add_target_group(ID, own_tags(ID));
        let quota = "rules-per-application-load-balancer".to_owned();
        state.limits.insert(quota, 1000);
    });
    validate(&aws).await.unwrap();
}

#[tokio::test]
async fn a_missing_image_is_named() {
    let aws = aws();
    aws.with(|state| state.images.clear());
    let error = validate(&aws).await.unwrap_err();
    assert_eq!(error.name, ErrorName::ImageNotFound);
    assert!(error.message.contains(&format!("test:{ID}")), "{error}");
    let asked = json!({"repositoryName": "test", "imageIds": [{"imageTag": ID}]});
    assert_eq!(aws.calls_to("DescribeImages"), [asked]);
}

#[tokio::test]
async fn a_deployment_that_the_default_action_names_with_weight_zero_is_not_active() {
    let aws = aws();
    aws.with(|state| {
        state.deploy(ID, &[]);
        state.listeners[0].default_actions = vec![forward(&[(OLD, 100), (ID, 0)])];
    });
    let output = validate(&aws).await.unwrap();
    assert_eq!(output.verdict, Verdict::Proceed, "{}", output.reason);
}

#[tokio::test]
async fn without_the_secret_that_new_rules_need_the_deployment_is_refused() {
    let aws = aws();
    aws.with(|state| state.put_before(authenticate_oidc("client")));
    let error = validate(&aws).await.unwrap_err();
    assert_eq!(error.name, ErrorName::Configuration);
    assert!(error.message.contains("test/oidc-client-secret"), "{error}");
    aws.with(|state| {
        let name = "test/oidc-client-secret".to_owned();
        state.secrets.insert(name, "secret of client".into());
    });
    assert_eq!(validate(&aws).await.unwrap().verdict, Verdict::Proceed);
}

#[tokio::test]
async fn an_action_type_that_no_rule_could_repeat_refuses_the_deployment() {
    let aws = aws();
    aws.with(|state| state.put_before(json!({"Type": "check-passport", "Order": "1"})));
    let error = validate(&aws).await.unwrap_err();
    assert_eq!(error.name, ErrorName::Configuration);
    assert!(error.message.contains("check-passport"), "{error}");
}

/// The settings name a base, of which there are two active revisions and a newer inactive one.
fn with_base(change: impl FnOnce(&mut Value)) -> MemoryAws {
    let aws = aws();
    put_settings(&aws, r#"{"base": "web"}"#);
    aws.with(|state| {
        for _ in 0..3 {
            state.add_task_definition(tags_of_nobody());
            let base = state.task_definitions.last_mut().unwrap();
            base["family"] = "web".into();
            base["networkMode"] = "awsvpc".into();
            base["cpu"] = "2048".into();
            base["memory"] = "4096".into();
            base["containerDefinitions"] = json!([{"name": "app", "image": "web:1"}]);
        }
        let [.., newest, inactive] = &mut state.task_definitions[..] else {
            panic!("three revisions");
        };
        inactive["status"] = "INACTIVE".into();
        change(newest);
    });
    aws
}

fn tags_of_nobody() -> memory_aws::Tags {
    pairs([])
}

#[tokio::test]
async fn the_newest_active_revision_of_the_base_is_pinned() {
    let output = validate(&with_base(|_| {})).await.unwrap();
    let output = json!(output);
    assert_eq!(output["base"], json!(memory_aws::revision_arn(3)));
    assert_eq!(
        (&output["cpu"], &output["memory"]),
        (&Value::Null, &Value::Null)
    );
}

#[tokio::test]
async fn a_base_that_a_deployment_cannot_copy_is_refused_before_anything_is_made() {
    let restarts = json!({"name": "app", "restartPolicy": {"enabled": true}});
    for (aws, why) in [
        (with_base(|base| base["family"] = "x".into()), None),
        (
            with_base(|base| base["networkMode"] = "bridge".into()),
            Some("`networkMode`"),
        ),
        (
            with_base(|base| base["containerDefinitions"][0]["name"] = "web".into()),
            Some("no container `app`"),
        ),
        (
            with_base(|base| base["volumes"] = json!([{"configuredAtLaunch": true}])),
            Some("`configuredAtLaunch`"),
        ),
        (
            with_base(|base| base["containerDefinitions"][0] = restarts),
            Some("`restartPolicy`"),
        ),
    ] {
        let Some(why) = why else {
            // The older revision is the newest one of the family then.
            assert!(validate(&aws).await.is_ok());
            continue;
        };
        let error = validate(&aws).await.unwrap_err();
        assert_eq!(error.name, ErrorName::InvalidSettings, "{error}");
        for words in ["version 7", "`base`", why] {
            assert!(error.message.contains(words), "{error}");
        }
        assert!(aws.changes().is_empty());
    }
    for (family, why) in [
        ("none", "has no active task definition"),
        ("test-app", "themselves"),
    ] {
        let input = json!({"deploymentId": ID, "base": family});
        let error = validate_input(&aws(), input).await.unwrap_err();
        assert_eq!(error.name, ErrorName::InvalidInput, "{error}");
        assert!(error.message.contains(why), "{error}");
    }
}

#[tokio::test]
async fn the_image_has_to_be_built_for_the_processor_of_the_base() {
    let arm = json!({"platform": {"os": "linux", "architecture": "arm64"}});
    let manifest = json!({"schemaVersion": 2, "manifests": [arm]}).to_string();
    for (architecture, is_right) in [("ARM64", true), ("X86_64", false)] {
        let aws = with_base(|base| {
            base["runtimePlatform"] = json!({"cpuArchitecture": architecture});
        });
        aws.with(|state| state.manifests.insert(DIGEST.into(), manifest.clone()));
        assert_eq!(validate(&aws).await.is_ok(), is_right, "{architecture}");
    }
}

/// The settings name two alarms, of which one rings.
fn watched_by_alarms() -> MemoryAws {
    let aws = aws();
    put_settings(&aws, r#"{"watch": {"alarms": ["errors", "latency"]}}"#);
    aws.with(|state| {
        state.alarms.insert("errors".into(), "OK".into());
        state.alarms.insert("latency".into(), "ALARM".into());
    });
    aws
}

#[tokio::test]
async fn an_alarm_that_rings_already_refuses_the_deployment_unless_its_input_accepts_that() {
    let aws = watched_by_alarms();
    let error = validate(&aws).await.unwrap_err();
    assert_eq!(error.name, ErrorName::InAlarm);
    for words in [ID, "latency", "despiteAlarms"] {
        assert!(error.message.contains(words), "{error}");
    }
    let input = json!({"deploymentId": ID, "despiteAlarms": true});
    let output = validate_input(&aws, input).await.unwrap();
    assert_eq!(output.accepted_alarms, ["latency"]);
    // Nothing is watched.
    put_settings(&aws, r#"{"watch": {"seconds": 0, "alarms": ["latency"]}}"#);
    assert_eq!(validate(&aws).await.unwrap().verdict, Verdict::Proceed);
}

#[tokio::test]
async fn an_alarm_that_does_not_exist_refuses_the_deployment_where_it_is_named() {
    let aws = watched_by_alarms();
    aws.with(|state| state.alarms.remove("latency"));
    let error = validate(&aws).await.unwrap_err();
    assert_eq!(error.name, ErrorName::InvalidSettings);
    for words in ["/pulse/test/settings", "`watch.alarms`", "`latency`"] {
        assert!(error.message.contains(words), "{error}");
    }
    let input = json!({"deploymentId": ID, "watch": {"alarms": ["gone"]}});
    let error = validate_input(&aws, input).await.unwrap_err();
    assert_eq!(error.name, ErrorName::InvalidInput, "{error}");
}

#[tokio::test]
async fn alarms_that_cannot_be_read_are_a_warning() {
    for code in ["ThrottlingException", "AccessDenied"] {
        let aws = watched_by_alarms();
        aws.on("DescribeAlarms").fails(code);
        let output = validate(&aws).await.unwrap();
        let [warning] = output.warnings.as_slice() else {
            panic!("{output:?}");
        };
        assert!(warning.contains("may not be watched") && warning.contains(code));
    }
}
