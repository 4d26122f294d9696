//! Application Auto Scaling of ECS services by target tracking. MiniStack has no such service.
//!
//! <https://docs.aws.amazon.com/autoscaling/application/APIReference/Welcome.html>

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

mod label;
mod pages;
mod requests;
mod scaler;
mod state;
mod tracking;

use super::{
    Incoming,
    answer::{Answer, AwsError, json_answer},
    forward::Forward,
    operation::Protocol,
};
use crate::{
    control_plane::ControlPlaneFeed,
    ecs::Ecs,
    ministack::{ApiError, Client},
};
use requests::{
    DeletePolicy, DescribePolicies, DescribeTargets, MetricType, Nothing, PutPolicy, Register,
    Request, ResourceId, missing, validation,
};
use state::State;

/// The largest pages, which are also the default ones.
const TARGETS_PER_PAGE: usize = 50;
const POLICIES_PER_PAGE: usize = 10;

/// The service to which the service-linked role belongs.
/// <https://docs.aws.amazon.com/autoscaling/application/userguide/application-auto-scaling-service-linked-roles.html>
const ROLE_OF: &str = "ecs.application-autoscaling.amazonaws.com";

/// The scalable targets of one local cloud. Clones share them.
#[derive(Clone)]
pub(crate) struct Autoscaling(Arc<Inner>);

struct Inner {
    client: Client,
    ecs: Ecs,
    feed: ControlPlaneFeed,
    state: Mutex<State>,
}

impl Autoscaling {
    pub fn new(client: Client, ecs: Ecs, feed: ControlPlaneFeed) -> Self {
        Self(Arc::new(Inner {
            client,
            ecs,
            feed,
            state: Mutex::default(),
        }))
    }

    /// Answers a call after MiniStack has authorised it.
    pub async fn answer(&self, forward: &Forward, incoming: &Incoming) -> Answer {
        let tags = self.tags_of_named_resources(incoming).to_string();
        if let Err(refusal) = forward.authorise_with_tags(incoming, &tags).await {
            return refusal;
        }
        match self.handle(&incoming.operation.name, &incoming.body).await {
            Ok(body) => json_answer(200, &body),
            Err(error) => error.answer(Protocol::Json),
        }
    }

    /// The tags of the target that a call names and of its service, for `aws:ResourceTag` conditions: a JSON object of
    /// tag objects by ARN. The launcher checks the call on the target if it is in it.
    fn tags_of_named_resources(&self, incoming: &Incoming) -> Value {
        let resource = Request::of(&incoming.body).and_then(|mut request| request.resource());
        let Ok(resource) = resource else {
            return json!({});
        };
        let mut tags = json!({});
        if let Some(target) = self.state().target(&resource) {
            tags[target.arn()] = json!(target.tags());
        }
        let service = resource.service_arn();
        if let Some(of_service) = self.0.ecs.tags_of(&service) {
            tags[service] = of_service;
        }
        tags
    }

    async fn handle(&self, operation: &str, body: &[u8]) -> Result<Value, AwsError> {
        let mut request = Request::of(body)?;
        match operation {
            "RegisterScalableTarget" => self.register(request.resource()?, request.rest()?).await,
            "DeregisterScalableTarget" => {
                let resource = request.resource()?;
                request.rest::<Nothing>()?;
                self.state().deregister(&resource).map(|()| json!({}))
            }
            "PutScalingPolicy" => self.put_policy(request.resource()?, request.rest()?).await,
            "DeleteScalingPolicy" => {
                let resource = request.resource()?;
                let DeletePolicy { policy_name } = request.rest()?;
                let deleted = self.state().delete_policy(&resource, &policy_name);
                deleted.map(|()| json!({}))
            }
            "DescribeScalableTargets" => {
                request.scope()?;
                let request: DescribeTargets = request.rest()?;
                pages::page(
                    "ScalableTargets",
                    self.state().targets(&request.resource_ids),
                    TARGETS_PER_PAGE,
                    request.max_results,
                    request.next_token.as_deref(),
                )
            }
            "DescribeScalingPolicies" => {
                let resource = request.scope()?;
                let request: DescribePolicies = request.rest()?;
                pages::page(
                    "ScalingPolicies",
                    self.state()
                        .policies(resource.as_ref(), &request.policy_names),
                    POLICIES_PER_PAGE,
                    request.max_results,
                    request.next_token.as_deref(),
                )
            }
            _ => Err(validation(format!(
                "The local cloud does not have the operation {operation}."
            ))),
        }
    }

    /// "If you call the RegisterScalableTarget API operation to update an existing scalable target, Application Auto
    /// Scaling retrieves the current capacity of the resource. If it's below the minimum capacity or above the maximum
    /// capacity, Application Auto Scaling adjusts the capacity of the scalable target to place it within these bounds,
    /// even if you don't include the MinCapacity or MaxCapacity request parameters."
    /// <https://docs.aws.amazon.com/autoscaling/application/APIReference/API_RegisterScalableTarget.html>
    async fn register(&self, resource: ResourceId, request: Register) -> Result<Value, AwsError> {
        let service = resource.service_arn();
        if self.0.ecs.scaling_of(&service).is_none() {
            // https://github.com/spinnaker/spinnaker/issues/4371
            return Err(validation(format!(
                "ECS service doesn't exist: {}",
                resource.as_str()
            )));
        }
        self.create_role().await?;
        let (arn, bounds) = {
            let mut state = self.state();
            state.register(&resource, request)?;
            let target = state.known(&resource)?;
            (target.arn().to_owned(), target.bounds())
        };
        if let Some(scaling) = self.0.ecs.scaling_of(&service) {
            let within = scaling.desired_count.clamp(*bounds.start(), *bounds.end());
            if within != scaling.desired_count {
                self.0.ecs.set_desired_count(&service, within);
            }
        }
        Ok(json!({"ScalableTargetARN": arn}))
    }

    /// Creates the service-linked role, unless it exists. The launcher has checked that the caller may create it.
    async fn create_role(&self) -> Result<(), AwsError> {
        let params = [
            ("Action", "CreateServiceLinkedRole"),
            ("AWSServiceName", ROLE_OF),
        ];
        let created = self.0.client.query("iam", "2010-05-08", &params).await;
        match created {
            Ok(_) => Ok(()),
            Err(error)
                if ["InvalidInput", "EntityAlreadyExists"].contains(&error.code.as_str()) =>
            {
                Ok(())
            }
            Err(error) => Err(internal(error)),
        }
    }

    async fn put_policy(
        &self,
        resource: ResourceId,
        request: PutPolicy,
    ) -> Result<Value, AwsError> {
        if !(1..=256).contains(&request.policy_name.chars().count()) {
            return Err(validation("A policy name has 1 to 256 characters."));
        }
        if request.policy_type.as_deref() != Some("TargetTrackingScaling") {
            return Err(validation(
                "The local cloud has policies of type TargetTrackingScaling only.",
            ));
        }
        let settings = request
            .target_tracking_scaling_policy_configuration
            .ok_or_else(|| missing("targetTrackingScalingPolicyConfiguration"))?;
        if settings.target_value <= 0.0 {
            return Err(validation("Target value must be greater than 0."));
        }
        self.state().known(&resource)?;
        let metric = &settings.predefined_metric_specification;
        let label = metric.resource_label.as_deref();
        let requests_to = match (metric.predefined_metric_type, label) {
            (MetricType::CpuUtilization, None) => None,
            (MetricType::CpuUtilization, Some(_)) => {
                return Err(validation(
                    "Resource label should not be specified for predefined metric type ECSServiceAverageCPUUtilization",
                ));
            }
            (MetricType::RequestsPerTarget, None) => {
                return Err(validation(
                    "Resource label should be specified for predefined metric type ALBRequestCountPerTarget",
                ));
            }
            (MetricType::RequestsPerTarget, Some(label)) => {
                Some(self.counted_group(&resource, label).await?)
            }
        };
        let name = &request.policy_name;
        self.state()
            .put_policy(&resource, name, settings, requests_to)
    }

    /// "You can't specify a resource label unless the metric type is ALBRequestCountPerTarget and there is a target
    /// group attached to the Spot Fleet or ECS service."
    /// <https://docs.aws.amazon.com/autoscaling/application/APIReference/API_PredefinedMetricSpecification.html>
    async fn counted_group(&self, resource: &ResourceId, label: &str) -> Result<String, AwsError> {
        let snapshot = self.0.feed.snapshot().await.map_err(internal)?;
        let group = label::target_group(label, &snapshot)?.to_owned();
        let scaling = self.0.ecs.scaling_of(&resource.service_arn());
        if scaling.is_none_or(|scaling| !scaling.target_groups.contains(&group)) {
            return Err(validation(format!(
                "The target group in resource label {label} is not attached to the ECS service"
            )));
        }
        Ok(group)
    }

    /// Removes the scalable target of a service that is deleted:
    /// <https://github.com/hashicorp/terraform-provider-aws/issues/10432>.
    pub fn service_deleted(&self, service_arn: &str) {
        if let Some(resource) = ResourceId::of_service(service_arn) {
            let _ = self.state().deregister(&resource);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn internal(error: ApiError) -> AwsError {
    AwsError::new("InternalServiceException", error.message).with_status(500)
}
