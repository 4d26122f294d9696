//! The scalable targets and their policies.

use std::collections::{BTreeMap, btree_map::Entry};
use std::ops::RangeInclusive;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::requests::{
    DIMENSION, MetricType, NAMESPACE, PredefinedMetric, Register, ResourceId, Suspensions,
    TargetTracking, missing, validation,
};
use super::tracking::{Demand, LowMinutes, Minute, Wish};
use crate::{gateway::answer::AwsError, ministack::REGION};

/// The limit on tags per resource.
const TAGS: usize = 50;

/// The quota of policies per scalable target.
/// <https://docs.aws.amazon.com/general/latest/gr/as-app.html>
const POLICIES: usize = 50;

/// "For ECS services: 300 seconds".
/// <https://docs.aws.amazon.com/autoscaling/application/userguide/target-tracking-scaling-policy-overview.html>
const COOLDOWN_SECONDS: u32 = 300;

const ROLE: &str = "arn:aws:iam::000000000000:role/aws-service-role/\
    ecs.application-autoscaling.amazonaws.com/AWSServiceRoleForApplicationAutoScaling_ECSService";

#[derive(Debug, Default)]
pub struct State(BTreeMap<ResourceId, Target>);

#[derive(Debug)]
pub struct Target {
    arn: String,
    created_at: f64,
    bounds: RangeInclusive<u32>,
    in_suspended: bool,
    out_suspended: bool,
    schedules_suspended: bool,
    tags: BTreeMap<String, String>,
    policies: BTreeMap<String, Policy>,
    low: LowMinutes,
}

#[derive(Debug)]
pub struct Policy {
    arn: String,
    created_at: f64,
    settings: TargetTracking,
    /// The ARN of the target group whose requests are counted.
    requests_to: Option<String>,
    alarms: [String; 2],
}

impl State {
    /// `RegisterScalableTarget`: creates a target, or changes the members that the request has.
    pub fn register(&mut self, resource: &ResourceId, request: Register) -> Result<(), AwsError> {
        let tags = request.tags.unwrap_or_default();
        check_tags(&tags)?;
        let known = self.0.get(resource);
        if known.is_some() && !tags.is_empty() {
            return Err(validation(
                "The scalable target that you tried to tag already exists. To update tags on an existing scalable \
                 target, use the TagResource API.",
            ));
        }
        let minimum = capacity("minCapacity", request.min_capacity)?
            .or(known.map(|target| *target.bounds.start()))
            .ok_or_else(|| missing("minCapacity"))?;
        let maximum = capacity("maxCapacity", request.max_capacity)?
            .or(known.map(|target| *target.bounds.end()))
            .ok_or_else(|| missing("maxCapacity"))?;
        if maximum < minimum {
            return Err(validation(
                "Maximum capacity cannot be less than minimum capacity",
            ));
        }
        let target = self.0.entry(resource.clone()).or_insert_with(|| Target {
            arn: format!(
                "arn:aws:application-autoscaling:{REGION}:000000000000:scalable-target/{}",
                &uuid::Uuid::new_v4().simple().to_string()[..20]
            ),
            created_at: now(),
            bounds: minimum..=maximum,
            in_suspended: false,
            out_suspended: false,
            schedules_suspended: false,
            tags,
            policies: BTreeMap::new(),
            low: LowMinutes::default(),
        });
        target.bounds = minimum..=maximum;
        target.suspend(&request.suspended_state);
        Ok(())
    }

    pub fn target(&self, resource: &ResourceId) -> Option<&Target> {
        self.0.get(resource)
    }

    /// `DeregisterScalableTarget`: removes a target with its policies.
    pub fn deregister(&mut self, resource: &ResourceId) -> Result<(), AwsError> {
        let removed = self.0.remove(resource).map(drop);
        removed.ok_or_else(|| not_found("scalable target found", resource))
    }

    /// `PutScalingPolicy` after its metric was checked.
    pub fn put_policy(
        &mut self,
        resource: &ResourceId,
        name: &str,
        settings: TargetTracking,
        requests_to: Option<String>,
    ) -> Result<Value, AwsError> {
        let target = self.known(resource)?;
        let same_metric = |policy: &Policy| {
            policy.settings.predefined_metric_specification
                == settings.predefined_metric_specification
        };
        let mut others = target.policies.iter().filter(|(other, _)| *other != name);
        if others.any(|(_, policy)| same_metric(policy)) {
            return Err(validation(
                "Only one TargetTrackingScaling policy for a given metric specification is allowed.",
            ));
        }
        let is_full = target.policies.len() >= POLICIES;
        let policy = match target.policies.entry(name.to_owned()) {
            Entry::Vacant(_) if is_full => {
                return Err(AwsError::new(
                    "LimitExceededException",
                    format!("A scalable target has at most {POLICIES} scaling policies."),
                ));
            }
            Entry::Vacant(entry) => {
                entry.insert(Policy::new(resource, name, settings, requests_to))
            }
            Entry::Occupied(entry) => {
                let policy = entry.into_mut();
                policy.settings = settings;
                policy.requests_to = requests_to;
                policy
            }
        };
        Ok(json!({"PolicyARN": policy.arn, "Alarms": policy.alarms()}))
    }

    /// Whether there is a target, for a policy that is to be put.
    pub fn known(&mut self, resource: &ResourceId) -> Result<&mut Target, AwsError> {
        let target = self.0.get_mut(resource);
        target.ok_or_else(|| not_found("scalable target registered", resource))
    }

    /// `DeleteScalingPolicy`.
    pub fn delete_policy(&mut self, resource: &ResourceId, name: &str) -> Result<(), AwsError> {
        let target = self.0.get_mut(resource);
        let removed = target.and_then(|target| target.policies.remove(name));
        removed
            .map(drop)
            .ok_or_else(|| not_found(&format!("scaling policy {name} found"), resource))
    }

    /// All targets, or those of these resources, by their keys for pages.
    pub fn targets(&self, resources: &[String]) -> Vec<(String, Value)> {
        self.0
            .iter()
            .filter(|(id, _)| resources.is_empty() || resources.iter().any(|it| it == id.as_str()))
            .map(|(id, target)| (id.as_str().to_owned(), target.json(id)))
            .collect()
    }

    /// All policies, or those of this resource or with these names, by their keys for pages.
    pub fn policies(&self, of: Option<&ResourceId>, names: &[String]) -> Vec<(String, Value)> {
        self.0
            .iter()
            .filter(|(id, _)| of.is_none_or(|of| of == *id))
            .flat_map(|(id, target)| target.policies.iter().map(move |named| (id, named)))
            .filter(|(_, (name, _))| names.is_empty() || names.contains(name))
            .map(|(id, (name, policy))| (format!("{}/{name}", id.as_str()), policy.json(id, name)))
            .collect()
    }

    pub fn resources(&self) -> Vec<ResourceId> {
        self.0.keys().cloned().collect()
    }

    /// The new desired count of a service after a minute, if it changes. `requests` has the number of requests by
    /// target group.
    pub fn after_a_minute(
        &mut self,
        resource: &ResourceId,
        desired: u32,
        rolling_out: bool,
        requests: &dyn Fn(&str) -> u64,
    ) -> Option<u32> {
        let target = self.0.get_mut(resource)?;
        let minute = Minute {
            desired,
            bounds: target.bounds.clone(),
            rolling_out,
            out_suspended: target.out_suspended,
            in_suspended: target.in_suspended,
            wishes: target
                .policies
                .values()
                .map(|it| it.wish(requests))
                .collect(),
        };
        target.low.after(&minute)
    }
}

impl Target {
    pub fn arn(&self) -> &str {
        &self.arn
    }

    pub fn bounds(&self) -> RangeInclusive<u32> {
        self.bounds.clone()
    }

    pub fn tags(&self) -> &BTreeMap<String, String> {
        &self.tags
    }

    fn suspend(&mut self, suspensions: &Suspensions) {
        for (current, new) in [
            (
                &mut self.in_suspended,
                suspensions.dynamic_scaling_in_suspended,
            ),
            (
                &mut self.out_suspended,
                suspensions.dynamic_scaling_out_suspended,
            ),
            (
                &mut self.schedules_suspended,
                suspensions.scheduled_scaling_suspended,
            ),
        ] {
            *current = new.unwrap_or(*current);
        }
    }

    fn json(&self, id: &ResourceId) -> Value {
        json!({
            "ServiceNamespace": NAMESPACE,
            "ResourceId": id.as_str(),
            "ScalableDimension": DIMENSION,
            "MinCapacity": self.bounds.start(),
            "MaxCapacity": self.bounds.end(),
            "RoleARN": ROLE,
            "CreationTime": self.created_at,
            "SuspendedState": {
                "DynamicScalingInSuspended": self.in_suspended,
                "DynamicScalingOutSuspended": self.out_suspended,
                "ScheduledScalingSuspended": self.schedules_suspended,
            },
            "ScalableTargetARN": self.arn,
        })
    }
}

impl Policy {
    fn new(
        resource: &ResourceId,
        name: &str,
        settings: TargetTracking,
        requests_to: Option<String>,
    ) -> Self {
        let (id, resource) = (uuid::Uuid::new_v4(), resource.as_str());
        let alarm = |kind| format!("TargetTracking-{resource}-{kind}-{}", uuid::Uuid::new_v4());
        Policy {
            arn: format!(
                "arn:aws:autoscaling:{REGION}:000000000000:scalingPolicy:{id}:resource/{NAMESPACE}/{resource}:\
                 policyName/{name}"
            ),
            created_at: now(),
            settings,
            requests_to,
            alarms: [alarm("AlarmHigh"), alarm("AlarmLow")],
        }
    }

    fn wish(&self, requests: &dyn Fn(&str) -> u64) -> Wish {
        let demand = match &self.requests_to {
            Some(group) => Demand::of_requests(requests(group), self.settings.target_value),
            // Nothing measures the processors of tasks.
            None => Demand::Unknown,
        };
        Wish {
            demand,
            disable_scale_in: self.settings.disable_scale_in,
            scale_in_cooldown_seconds: self.settings.scale_in_cooldown.unwrap_or(COOLDOWN_SECONDS),
        }
    }

    fn alarms(&self) -> Value {
        let alarm = |name: &String| {
            json!({
                "AlarmName": name,
                "AlarmARN": format!("arn:aws:cloudwatch:{REGION}:000000000000:alarm:{name}"),
            })
        };
        self.alarms.iter().map(alarm).collect()
    }

    fn json(&self, id: &ResourceId, name: &str) -> Value {
        let TargetTracking {
            target_value,
            predefined_metric_specification:
                PredefinedMetric {
                    predefined_metric_type,
                    resource_label,
                },
            scale_out_cooldown,
            scale_in_cooldown,
            disable_scale_in,
        } = &self.settings;
        let mut metric = json!({"PredefinedMetricType": match predefined_metric_type {
            MetricType::CpuUtilization => "ECSServiceAverageCPUUtilization",
            MetricType::RequestsPerTarget => "ALBRequestCountPerTarget",
        }});
        if let Some(label) = resource_label {
            metric["ResourceLabel"] = json!(label);
        }
        let mut tracking = json!({
            "TargetValue": target_value,
            "PredefinedMetricSpecification": metric,
            "DisableScaleIn": disable_scale_in,
        });
        for (name, seconds) in [
            ("ScaleOutCooldown", scale_out_cooldown),
            ("ScaleInCooldown", scale_in_cooldown),
        ] {
            if let Some(seconds) = seconds {
                tracking[name] = json!(seconds);
            }
        }
        json!({
            "PolicyARN": self.arn,
            "PolicyName": name,
            "ServiceNamespace": NAMESPACE,
            "ResourceId": id.as_str(),
            "ScalableDimension": DIMENSION,
            "PolicyType": "TargetTrackingScaling",
            "TargetTrackingScalingPolicyConfiguration": tracking,
            "Alarms": self.alarms(),
            "CreationTime": self.created_at,
        })
    }
}

/// "For the following resources, the minimum value allowed is 0: … ECS services".
/// <https://docs.aws.amazon.com/autoscaling/application/APIReference/API_RegisterScalableTarget.html>
fn capacity(member: &str, value: Option<i32>) -> Result<Option<u32>, AwsError> {
    value
        .map(|value| {
            u32::try_from(value)
                .map_err(|_| validation(format!("{member} cannot be less than 0: {value}")))
        })
        .transpose()
}

/// <https://docs.aws.amazon.com/autoscaling/application/APIReference/API_TagResource.html>
fn check_tags(tags: &BTreeMap<String, String>) -> Result<(), AwsError> {
    let is_valid = |(key, value): (&String, &String)| {
        (1..=128).contains(&key.chars().count())
            && value.chars().count() <= 256
            && !key.to_ascii_lowercase().starts_with("aws:")
    };
    if tags.len() > TAGS || !tags.iter().all(is_valid) {
        return Err(validation(
            "A scalable target has at most 50 tags, with keys of up to 128 and values of up to 256 characters.",
        ));
    }
    Ok(())
}

fn not_found(what: &str, resource: &ResourceId) -> AwsError {
    AwsError::new(
        "ObjectNotFoundException",
        format!(
            "No {what} for service namespace: {NAMESPACE}, resource ID: {}, scalable dimension: {DIMENSION}",
            resource.as_str()
        ),
    )
}

fn now() -> f64 {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    (elapsed.as_secs_f64() * 1000.0).round() / 1000.0
}
