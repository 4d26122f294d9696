//! Application Auto Scaling, as a deployment calls it.

use localcloud::LocalCloud;
use localcloud::gateway::faults::{Fault, FaultRule};
use serde_json::{Value, json};

use crate::cloud::{start, user_with_policy};
use crate::service::Service;

fn code(answer: Result<Value, (String, String)>) -> Result<(), String> {
    answer.map(|_| ()).map_err(|(code, _)| code)
}

fn bounds(minimum: u32, maximum: u32) -> Value {
    json!({"MinCapacity": minimum, "MaxCapacity": maximum})
}

/// A policy with this name that keeps the requests per target and minute at 60.
fn requests_policy(name: &str, label: &str) -> Value {
    json!({
        "PolicyName": name,
        "PolicyType": "TargetTrackingScaling",
        "TargetTrackingScalingPolicyConfiguration": {
            "TargetValue": 60.0,
            "PredefinedMetricSpecification": {
                "PredefinedMetricType": "ALBRequestCountPerTarget", "ResourceLabel": label,
            },
        },
    })
}

fn cpu_policy(name: &str) -> Value {
    json!({
        "PolicyName": name,
        "PolicyType": "TargetTrackingScaling",
        "TargetTrackingScalingPolicyConfiguration": {
            "TargetValue": 60.0,
            "PredefinedMetricSpecification": {"PredefinedMetricType": "ECSServiceAverageCPUUtilization"},
        },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_registration_moves_the_desired_count_into_the_bounds_without_a_deployment() {
    let cloud = start().await;
    cloud.ecs().pause_starts(true);
    let app = Service::create(&cloud, 2).await;
    let register = async |members| code(app.scaling("RegisterScalableTarget", members).await);

    assert_eq!(
        register(json!({"MinCapacity": 3})).await,
        Err("ValidationException".into())
    );
    assert_eq!(
        register(bounds(4, 3)).await,
        Err("ValidationException".into())
    );
    assert_eq!(app.counts().await, (2, 1));
    let mut with_tags = bounds(3, 5);
    with_tags["Tags"] = json!({"pulse:environment": "test"});
    assert_eq!(register(with_tags.clone()).await, Ok(()));
    assert_eq!(app.counts().await, (3, 1));
    // The tags of an existing target cannot be given again.
    assert_eq!(register(with_tags).await, Err("ValidationException".into()));

    let set = async |count: u32| {
        let body = json!({"cluster": "test", "service": "app", "desiredCount": count});
        app.ecs("UpdateService", body).await;
    };
    // A call that only suspends lifts a service at 0 too.
    set(0).await;
    let suspended = json!({"SuspendedState": {"DynamicScalingOutSuspended": true}});
    assert_eq!(register(suspended).await, Ok(()));
    assert_eq!(app.counts().await, (3, 1));
    set(9).await;
    assert_eq!(register(json!({"MinCapacity": 1})).await, Ok(()));
    assert_eq!(app.counts().await, (5, 1));
    let described = app
        .scaling("DescribeScalableTargets", json!({"ResourceId": null}))
        .await;
    let described = described.expect("an answer");
    let targets = described["ScalableTargets"].as_array().expect("a list");
    assert_eq!(targets.len(), 1);
    assert_eq!(targets[0]["MinCapacity"], 1);
    assert_eq!(targets[0]["MaxCapacity"], 5);
    assert_eq!(
        targets[0]["SuspendedState"],
        json!({
            "DynamicScalingInSuspended": false,
            "DynamicScalingOutSuspended": true,
            "ScheduledScalingSuspended": false,
        })
    );

    // A service that does not exist, or is deleted, has no desired count.
    let mut other = bounds(1, 2);
    other["ResourceId"] = json!("service/test/missing");
    assert_eq!(register(other).await, Err("ValidationException".into()));
    let delete = json!({"cluster": "test", "service": "app", "force": true});
    app.ecs("DeleteService", delete).await;
    let deregistered = app.scaling("DeregisterScalableTarget", json!({})).await;
    assert_eq!(code(deregistered), Err("ObjectNotFoundException".into()));
    assert_eq!(
        register(bounds(1, 2)).await,
        Err("ValidationException".into())
    );
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_need_a_target_and_a_group_of_the_service_and_go_with_the_target() {
    let cloud = start().await;
    cloud.ecs().pause_starts(true);
    let app = Service::create(&cloud, 1).await;
    let call = async |operation, members| code(app.scaling(operation, members).await);
    let named = |name: &str| json!({"PolicyName": name});
    let policies = async || {
        let described = app.scaling("DescribeScalingPolicies", json!({})).await;
        let described = described.expect("an answer");
        let policies = described["ScalingPolicies"].as_array().expect("a list");
        let name = |policy: &Value| policy["PolicyName"].as_str().unwrap_or_default().to_owned();
        policies.iter().map(name).collect::<Vec<_>>()
    };

    let requests = requests_policy("requests", &app.label);
    let missing = Err("ObjectNotFoundException".to_owned());
    assert_eq!(call("PutScalingPolicy", requests.clone()).await, missing);
    assert_eq!(call("DeregisterScalableTarget", json!({})).await, missing);
    assert_eq!(call("RegisterScalableTarget", bounds(1, 4)).await, Ok(()));
    assert_eq!(
        call("DeleteScalingPolicy", named("requests")).await,
        missing
    );

    let other = app.label.replace("targetgroup/app", "targetgroup/other");
    for label in [other.as_str(), "targetgroup/app/1", ""] {
        let refused = call("PutScalingPolicy", requests_policy("requests", label)).await;
        assert_eq!(refused, Err("ValidationException".into()), "{label}");
    }
    let put = app
        .scaling("PutScalingPolicy", requests.clone())
        .await
        .expect("put");
    let arn = put["PolicyARN"].as_str().expect("an ARN");
    assert!(
        arn.ends_with(":resource/ecs/service/test/app:policyName/requests"),
        "{arn}"
    );
    assert_eq!(put["Alarms"].as_array().expect("alarms").len(), 2);
    // Again is an update; the same metric under another name is refused.
    let again = app
        .scaling("PutScalingPolicy", requests)
        .await
        .expect("put");
    assert_eq!(again["PolicyARN"], arn);
    let second = call("PutScalingPolicy", requests_policy("second", &app.label)).await;
    assert_eq!(second, Err("ValidationException".into()));
    assert_eq!(call("PutScalingPolicy", cpu_policy("cpu")).await, Ok(()));
    assert_eq!(policies().await, ["cpu", "requests"]);

    assert_eq!(call("DeleteScalingPolicy", named("cpu")).await, Ok(()));
    assert_eq!(policies().await, ["requests"]);
    assert_eq!(call("DeregisterScalableTarget", json!({})).await, Ok(()));
    assert_eq!(policies().await, Vec::<String>::new());
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_and_the_record_of_calls_know_its_operations() {
    let cloud = start().await;
    cloud.ecs().pause_starts(true);
    let app = Service::create(&cloud, 1).await;
    let register = async || code(app.scaling("RegisterScalableTarget", bounds(2, 4)).await);
    let fault = |fault| {
        let rule = FaultRule::next("application-autoscaling", "RegisterScalableTarget", fault);
        cloud.faults().add(rule);
    };
    for (kind, expected, count) in [
        (Fault::Throttled, "ThrottlingException", 1),
        (Fault::InternalError, "InternalServiceException", 1),
        (Fault::AccessDenied, "AccessDeniedException", 1),
        (Fault::AnswerLost, "NoAnswer", 2),
    ] {
        fault(kind);
        assert_eq!(register().await, Err(expected.into()), "{kind:?}");
        assert_eq!(app.counts().await.0, count, "{kind:?}");
    }
    assert_eq!(register().await, Ok(()));
    let recorded = cloud
        .calls()
        .count("application-autoscaling", "RegisterScalableTarget");
    assert_eq!(recorded, 5);
    cloud.stop().await;
}

/// Calls Application Auto Scaling for the service as a new user with these statements. The error is the action that
/// the user may not perform, or else what the AWS CLI prints.
async fn as_user(
    cloud: &LocalCloud,
    user: &str,
    statements: &[&Value],
    operation: &str,
) -> Result<(), String> {
    let policy = json!({"Version": "2012-10-17", "Statement": statements});
    let credentials = user_with_policy(cloud, user, &policy).await;
    let script = format!(
        "aws application-autoscaling {operation} --service-namespace ecs --resource-id service/test/app \
         --scalable-dimension ecs:service:DesiredCount"
    );
    let output = cloud
        .command("bash")
        .expect("the workspace has tools")
        .args(["-c", &script])
        .env("AWS_ACCESS_KEY_ID", credentials.access_key_id())
        .env("AWS_SECRET_ACCESS_KEY", credentials.secret_access_key())
        .output()
        .await
        .expect("bash runs");
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    let denied = message.split_once("perform: ").map(|(_, action)| action);
    let action = denied.and_then(|action| action.split_whitespace().next());
    Err(action.map_or(message.clone(), str::to_owned))
}

fn allow(action: Value, resource: &str, condition: Value) -> Value {
    json!({"Effect": "Allow", "Action": action, "Resource": resource, "Condition": {"StringEquals": condition}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_needs_permissions_on_the_service_and_the_alarms_and_at_first_for_the_role() {
    let cloud = start().await;
    cloud.ecs().pause_starts(true);
    Service::create(&cloud, 1).await;
    let of_ecs = |dimension: &str| {
        let actions = json!([
            "application-autoscaling:RegisterScalableTarget",
            "application-autoscaling:PutScalingPolicy"
        ]);
        let keys = json!({
            "application-autoscaling:service-namespace": "ecs",
            "application-autoscaling:scalable-dimension": dimension,
        });
        allow(actions, "*", keys)
    };
    let scaling = of_ecs("ecs:service:DesiredCount");
    let account = "us-east-1:000000000000";
    let cluster = json!({"ecs:cluster": format!("arn:aws:ecs:{account}:cluster/test")});
    let service = format!("arn:aws:ecs:{account}:service/test/*");
    let ecs = allow(
        json!(["ecs:DescribeServices", "ecs:UpdateService"]),
        &service,
        cluster.clone(),
    );
    let only_reads = allow(json!("ecs:DescribeServices"), &service, cluster);
    let role = "arn:aws:iam::000000000000:role/aws-service-role/ecs.application-autoscaling.amazonaws.com/\
                AWSServiceRoleForApplicationAutoScaling_ECSService";
    let of_service = json!({"iam:AWSServiceName": "ecs.application-autoscaling.amazonaws.com"});
    let linked = allow(json!("iam:CreateServiceLinkedRole"), role, of_service);
    let register = "register-scalable-target --min-capacity 1 --max-capacity 2";
    let try_to_register =
        async |user, statements: &[&Value]| as_user(&cloud, user, statements, register).await;

    let denied = |action: &str| Err(action.to_owned());
    let missing = denied("iam:CreateServiceLinkedRole");
    assert_eq!(try_to_register("a", &[&scaling, &ecs]).await, missing);
    let missing = denied("application-autoscaling:RegisterScalableTarget");
    assert_eq!(try_to_register("b", &[&ecs, &linked]).await, missing);
    let other_dimension = of_ecs("ecs:service:Other");
    assert_eq!(
        try_to_register("c", &[&other_dimension, &ecs, &linked]).await,
        missing
    );
    let missing = denied("ecs:UpdateService");
    assert_eq!(
        try_to_register("d", &[&scaling, &only_reads, &linked]).await,
        missing
    );
    assert_eq!(
        try_to_register("e", &[&scaling, &ecs, &linked]).await,
        Ok(())
    );
    // The role exists now.
    assert_eq!(try_to_register("f", &[&scaling, &ecs]).await, Ok(()));

    let put = "put-scaling-policy --policy-name cpu --policy-type TargetTrackingScaling \
               --target-tracking-scaling-policy-configuration \
               TargetValue=60,PredefinedMetricSpecification={PredefinedMetricType=ECSServiceAverageCPUUtilization}";
    let reads = json!({"Effect": "Allow", "Action": "cloudwatch:DescribeAlarms", "Resource": "*"});
    let alarms = format!("arn:aws:cloudwatch:{account}:alarm:TargetTracking-service/test/*");
    let writes =
        json!({"Effect": "Allow", "Action": "cloudwatch:PutMetricAlarm", "Resource": alarms});
    let missing = denied("cloudwatch:PutMetricAlarm");
    assert_eq!(
        as_user(&cloud, "g", &[&scaling, &reads], put).await,
        missing
    );
    assert_eq!(
        as_user(&cloud, "h", &[&scaling, &reads, &writes], put).await,
        Ok(())
    );
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_scale_a_service_out_and_fewer_of_them_in_again() {
    let cloud = start().await;
    let app = Service::create(&cloud, 1).await;
    let until = async |is_expected: &dyn Fn(&Value) -> bool| {
        while !is_expected(&app.describe().await) {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    until(&|service| service["deployments"][0]["rolloutState"] == "COMPLETED").await;
    app.scaling("RegisterScalableTarget", bounds(1, 3))
        .await
        .expect("registered");
    // So that the speed of this machine does not matter, any request is enough for all tasks, and later all are enough
    // for one task only.
    let track = async |target: f64| {
        let mut policy = requests_policy("requests", &app.label);
        let tracking = &mut policy["TargetTrackingScalingPolicyConfiguration"];
        tracking["TargetValue"] = json!(target);
        tracking["ScaleInCooldown"] = json!(60);
        let put = app.scaling("PutScalingPolicy", policy).await;
        put.expect("put");
    };
    let url = format!("http://127.0.0.1:{}/", cloud.load_balancer().http_port());
    let client = crate::cloud::http();
    let request_until = async |desired: u64| {
        while app.counts().await.0 != desired {
            // Before the listener is in force there is no answer.
            let _ = client.get(&url).send().await;
        }
    };
    track(0.1).await;
    request_until(3).await;
    until(&|service| service["runningCount"] == 3).await;
    track(1_000_000.0).await;
    request_until(1).await;
    assert_eq!(app.counts().await, (1, 1));
    cloud.stop().await;
}
