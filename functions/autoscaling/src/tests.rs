use super::*;
use memory_aws::{MemoryAws, group_arn, own_tags};
use serde_json::json;

const ID: &str = "test-20251027-122112Z";

struct Clients {
    autoscaling: Client,
    ecs: aws_sdk_ecs::Client,
}

fn clients(aws: &MemoryAws) -> Clients {
    let config = aws.config();
    Clients {
        autoscaling: Client::new(&config),
        ecs: aws_sdk_ecs::Client::new(&config),
    }
}

fn aws() -> MemoryAws {
    let aws = MemoryAws::default();
    aws.with(|state| {
        state.deploy(ID, &[]);
    });
    aws
}

fn scaling(cpu_percent: Option<u32>, requests_per_target: Option<u32>) -> Scaling {
    Scaling {
        max: 10,
        cpu_percent,
        requests_per_target,
    }
}

async fn register_with(aws: &MemoryAws, scaling: &Scaling) -> Result<(), StepError> {
    let (baseline, id) = (Baseline::for_tests(), ID.parse().unwrap());
    let Clients { autoscaling, .. } = clients(aws);
    register(
        &autoscaling,
        &baseline,
        &id,
        2..=10,
        scaling,
        &group_arn(ID),
    )
    .await
}

async fn is_shown(aws: &MemoryAws) -> bool {
    let (baseline, id) = (Baseline::for_tests(), ID.parse().unwrap());
    let Clients { autoscaling, .. } = clients(aws);
    is_registered(&autoscaling, &baseline, &id).await.unwrap()
}

async fn take(aws: &MemoryAws) -> Result<(), StepError> {
    let (baseline, id) = (Baseline::for_tests(), ID.parse().unwrap());
    let Clients { autoscaling, ecs } = clients(aws);
    take_off(&autoscaling, &ecs, &baseline, &id).await
}

#[tokio::test]
async fn a_service_is_registered_with_its_bounds_and_its_policy() {
    let of = json!({
        "ServiceNamespace": "ecs", "ResourceId": format!("service/test/{ID}"),
        "ScalableDimension": "ecs:service:DesiredCount",
    });
    let label = format!("app/test-alb/1/targetgroup/{ID}/abc");
    for (scaling, value, metric) in [
        (
            scaling(Some(60), None),
            60.0,
            json!({"PredefinedMetricType": "ECSServiceAverageCPUUtilization"}),
        ),
        (
            scaling(None, Some(500)),
            500.0,
            json!({"PredefinedMetricType": "ALBRequestCountPerTarget", "ResourceLabel": label}),
        ),
    ] {
        let aws = aws();
        assert!(!is_shown(&aws).await);
        register_with(&aws, &scaling).await.unwrap();
        assert!(is_shown(&aws).await);
        let mut registered = of.clone();
        registered["MinCapacity"] = json!(2);
        registered["MaxCapacity"] = json!(10);
        assert_eq!(aws.calls_to("RegisterScalableTarget"), [registered]);
        let mut put = of.clone();
        put["PolicyName"] = json!("pulse");
        put["PolicyType"] = json!("TargetTrackingScaling");
        put["TargetTrackingScalingPolicyConfiguration"] =
            json!({"TargetValue": value, "PredefinedMetricSpecification": metric});
        assert_eq!(aws.calls_to("PutScalingPolicy"), [put]);
        // Again, as after a lost answer.
        register_with(&aws, &scaling).await.unwrap();
    }
}

#[tokio::test]
async fn a_registration_without_its_policy_counts_as_missing() {
    let aws = aws();
    aws.on("PutScalingPolicy")
        .once()
        .fails("AccessDeniedException");
    let error = register_with(&aws, &scaling(Some(60), None)).await;
    assert_eq!(error.unwrap_err().name, ErrorName::AccessDenied);
    assert!(!is_shown(&aws).await);
}

#[tokio::test]
async fn a_registration_that_is_not_shown_yet_is_tried_again() {
    let aws = aws();
    aws.on("PutScalingPolicy")
        .once()
        .fails("ObjectNotFoundException");
    let error = register_with(&aws, &scaling(Some(60), None)).await;
    assert_eq!(error.unwrap_err().name, ErrorName::Transient);
    for code in ["ConcurrentUpdateException", "InternalServiceException"] {
        let aws = self::aws();
        aws.on("RegisterScalableTarget").fails(code);
        let error = register_with(&aws, &scaling(Some(60), None)).await;
        assert_eq!(error.unwrap_err().name, ErrorName::Transient, "{code}");
    }
}

#[tokio::test]
async fn what_is_registered_is_taken_off_and_what_is_not_is_no_error() {
    let aws = aws();
    take(&aws).await.unwrap();
    register_with(&aws, &scaling(Some(60), None)).await.unwrap();
    take(&aws).await.unwrap();
    assert!(!is_shown(&aws).await);
    take(&aws).await.unwrap();
}

#[tokio::test]
async fn what_is_registered_again_at_this_moment_is_not_taken_for_done() {
    let aws = aws();
    register_with(&aws, &scaling(Some(60), None)).await.unwrap();
    let registered = aws.with(|state| state.clone());
    aws.on("DescribeScalableTargets").once().shows(registered);
    let error = take(&aws).await.unwrap_err();
    assert_eq!(error.name, ErrorName::Transient);
    assert!(error.message.contains(ID), "{error}");
    take(&aws).await.unwrap();
}

#[tokio::test]
async fn a_service_of_others_keeps_its_registration() {
    let aws = aws();
    register_with(&aws, &scaling(Some(60), None)).await.unwrap();
    aws.with(|state| {
        state.services.clear();
        state.add_service(ID, own_tags("prod-20251027-122112Z"));
    });
    take(&aws).await.unwrap();
    assert!(is_shown(&aws).await);
}
