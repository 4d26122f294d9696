//! What Application Auto Scaling does to the service of a deployment. It decides nothing, like the modules of
//! `lifecycle`; it is a crate of its own because few functions need the client.
//!
//! Each registration, even one that suspends, moves the number of tasks into its bounds, so a service whose tasks
//! are to go has none: <https://docs.aws.amazon.com/autoscaling/application/APIReference/API_RegisterScalableTarget.html>.

use std::ops::RangeInclusive;

use aws_config::SdkConfig;
use aws_sdk_applicationautoscaling::Client;
use aws_sdk_applicationautoscaling::operation::deregister_scalable_target::DeregisterScalableTargetError;
use aws_sdk_applicationautoscaling::types::{
    MetricType, PolicyType, PredefinedMetricSpecification, ScalableDimension, ServiceNamespace,
    TargetTrackingScalingPolicyConfiguration,
};
use lifecycle::aws_error::{failed, found};
use lifecycle::scaling::{Scaling, Target};
use lifecycle::{Baseline, DeploymentId, ErrorName, StepError, service, target_group};

/// The name of the one policy of a service.
const POLICY: &str = "pulse";

/// The clients of a step that changes what a service is scaled to.
#[derive(Debug, Clone)]
pub struct Clients {
    /// For the registration.
    pub autoscaling: Client,
    /// For the service.
    pub ecs: aws_sdk_ecs::Client,
    /// For the listener, and the tags and the health of target groups.
    pub elb: aws_sdk_elasticloadbalancingv2::Client,
}

impl Clients {
    /// The clients with this configuration.
    pub fn new(config: &SdkConfig) -> Self {
        Clients {
            autoscaling: Client::new(config),
            ecs: aws_sdk_ecs::Client::new(config),
            elb: aws_sdk_elasticloadbalancingv2::Client::new(config),
        }
    }
}

/// The service as Application Auto Scaling calls it.
fn resource(baseline: &Baseline, deployment: &DeploymentId) -> String {
    format!("service/{}/{deployment}", baseline.cluster)
}

/// Whether the deployment's service has the policy, and so a registration.
pub async fn is_registered(
    autoscaling: &Client,
    baseline: &Baseline,
    deployment: &DeploymentId,
) -> Result<bool, StepError> {
    let answer = autoscaling
        .describe_scaling_policies()
        .service_namespace(ServiceNamespace::Ecs)
        .resource_id(resource(baseline, deployment))
        .scalable_dimension(ScalableDimension::EcsServiceDesiredCount)
        .policy_names(POLICY)
        .send()
        .await;
    let attempt = format_args!("read the scaling policy of service {deployment}");
    let answer = answer.map_err(|error| failed(attempt, error))?;
    Ok(!answer.scaling_policies().is_empty())
}

/// Lets the number of tasks of the deployment's service follow its load within these bounds. Again, it changes the
/// bounds and the policy.
///
/// # Errors
/// `Configuration` when `scaling` does not say what is kept; `Transient` when the registration is gone again or not
/// shown yet; else as [`lifecycle::aws_error::CODES`] say.
pub async fn register(
    autoscaling: &Client,
    baseline: &Baseline,
    deployment: &DeploymentId,
    bounds: RangeInclusive<u32>,
    scaling: &Scaling,
    target_group_arn: &str,
) -> Result<(), StepError> {
    let policy = policy(baseline, scaling, target_group_arn)?;
    let count = |count: u32| i32::try_from(count).unwrap_or(i32::MAX);
    let registered = autoscaling
        .register_scalable_target()
        .service_namespace(ServiceNamespace::Ecs)
        .resource_id(resource(baseline, deployment))
        .scalable_dimension(ScalableDimension::EcsServiceDesiredCount)
        .min_capacity(count(*bounds.start()))
        .max_capacity(count(*bounds.end()))
        .send()
        .await;
    let attempt = format_args!("register service {deployment} with Application Auto Scaling");
    registered.map_err(|error| failed(attempt, error))?;
    let put = autoscaling
        .put_scaling_policy()
        .policy_name(POLICY)
        .service_namespace(ServiceNamespace::Ecs)
        .resource_id(resource(baseline, deployment))
        .scalable_dimension(ScalableDimension::EcsServiceDesiredCount)
        .policy_type(PolicyType::TargetTrackingScaling)
        .target_tracking_scaling_policy_configuration(policy)
        .send()
        .await;
    let Err(error) = put else { return Ok(()) };
    let is_not_shown = error
        .as_service_error()
        .is_some_and(|error| error.is_object_not_found_exception());
    let attempt = format_args!("set the scaling policy of service {deployment}");
    let mut error = failed(attempt, error);
    if is_not_shown {
        error.name = ErrorName::Transient;
    }
    Err(error)
}

fn policy(
    baseline: &Baseline,
    scaling: &Scaling,
    target_group_arn: &str,
) -> Result<TargetTrackingScalingPolicyConfiguration, StepError> {
    let wrong = |why: String| StepError::new(ErrorName::Configuration, why);
    let target = scaling
        .target()
        .map_err(|why| wrong(format!("`scaling` {why}")))?;
    let metric = PredefinedMetricSpecification::builder();
    let (value, metric) = match target {
        Target::Cpu(percent) => (
            percent,
            metric.predefined_metric_type(MetricType::EcsServiceAverageCpuUtilization),
        ),
        Target::Requests(requests) => (
            requests,
            metric
                .predefined_metric_type(MetricType::AlbRequestCountPerTarget)
                .resource_label(label(baseline, target_group_arn)),
        ),
    };
    let metric = metric
        .build()
        .map_err(|error| wrong(format!("could not describe the metric: {error}")))?;
    TargetTrackingScalingPolicyConfiguration::builder()
        .target_value(value.into())
        .predefined_metric_specification(metric)
        .build()
        .map_err(|error| wrong(format!("could not describe the policy: {error}")))
}

/// `app/<load balancer>/<hash>/targetgroup/<target group>/<hash>`:
/// <https://docs.aws.amazon.com/autoscaling/application/APIReference/API_PredefinedMetricSpecification.html>.
fn label(baseline: &Baseline, target_group_arn: &str) -> String {
    format!(
        "{}/{}",
        target_group::dimension_of_load_balancer(&baseline.load_balancer_arn),
        target_group::dimension(target_group_arn)
    )
}

/// Takes the deployment's service from Application Auto Scaling, so that nothing brings back what is taken from it. Reads
/// afterwards whether that is so, because the caller is about to lower the number of tasks.
///
/// # Errors
/// `Transient` when it is registered all the same, as by another execution; else as [`lifecycle::aws_error::CODES`] say. A
/// service that is not registered, or that is not ours, is not an error.
pub async fn take_off(
    autoscaling: &Client,
    ecs: &aws_sdk_ecs::Client,
    baseline: &Baseline,
    deployment: &DeploymentId,
) -> Result<(), StepError> {
    // With the service its registration goes.
    if service::find(ecs, baseline, deployment).await?.is_none() {
        return Ok(());
    }
    let attempt = format!("take service {deployment} from Application Auto Scaling");
    let answer = autoscaling
        .deregister_scalable_target()
        .service_namespace(ServiceNamespace::Ecs)
        .resource_id(resource(baseline, deployment))
        .scalable_dimension(ScalableDimension::EcsServiceDesiredCount)
        .send()
        .await;
    found(
        &attempt,
        answer,
        DeregisterScalableTargetError::is_object_not_found_exception,
    )?;
    let left = autoscaling
        .describe_scalable_targets()
        .service_namespace(ServiceNamespace::Ecs)
        .resource_ids(resource(baseline, deployment))
        .scalable_dimension(ScalableDimension::EcsServiceDesiredCount)
        .send()
        .await
        .map_err(|error| failed(&attempt, error))?;
    if left.scalable_targets().is_empty() {
        return Ok(());
    }
    Err(StepError::new(
        ErrorName::Transient,
        format!(
            "could not {attempt}: it is registered all the same; does another execution work on it?"
        ),
    ))
}

#[cfg(test)]
mod tests;
