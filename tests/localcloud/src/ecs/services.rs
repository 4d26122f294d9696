//! CreateService, UpdateService, DeleteService, DescribeServices and ListServices.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::{Value, json};

use super::answer::Refusal;
use super::model::{Deployment, Service, ServiceStatus, Subnet, TaskDefinition, Timestamp};
use super::names::{ClusterName, check_service_name};
use super::paging::page;
use super::requests::{
    self, CreateService, DeleteService, DescribeServices, Include, LaunchType, ListServices,
    LoadBalancer, NetworkConfiguration, Switch, UpdateService, read,
};
use super::rules::service_creation::{self, Name};
use super::shared::Shared;
use super::wire;

/// The cluster of calls that name none.
const DEFAULT_CLUSTER: &str = "default";

/// The default page size of ListServices.
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ListServices.html>
const SERVICES_PER_PAGE: usize = 10;

/// The quota of tasks per service.
/// <https://docs.aws.amazon.com/general/latest/gr/ecs-service.html>
const MAX_TASKS: i64 = 5000;

/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_CreateService.html>
pub async fn create(shared: &Shared, body: &Value) -> Result<Value, Refusal> {
    let request: CreateService = read(body)?;
    check_service_name(&request.service_name)?;
    check_supported(&request)?;
    check_client_token(request.client_token.as_deref(), 36)?;
    let desired_count = desired_count(request.desired_count.ok_or_else(|| {
        Refusal::invalid_parameter("The desired count is required for the REPLICA strategy.")
    })?)?;
    let cluster = cluster(shared, request.cluster.as_deref()).await?;
    let arn = cluster.service_arn(&request.service_name);
    let repeated = {
        let state = shared.state();
        let existing = state.services.get(&arn);
        match service_creation::name_is_free(existing, body)? {
            Name::SameRequest => existing.map(|service| wire::service(service, &state, true)),
            Name::Free => None,
        }
    };
    if let Some(service) = repeated {
        return Ok(json!({"service": service}));
    }
    let reference = request
        .task_definition
        .as_deref()
        .ok_or_else(|| Refusal::invalid_parameter("TaskDefinition can not be blank."))?;
    let definition = task_definition(shared, reference).await?;
    service_creation::task_definition_runs_on_fargate(
        &definition.body,
        request.network_configuration.is_some(),
    )?;
    check_load_balancers(shared, &request.load_balancers, &definition).await?;
    let grace_seconds = grace_period(
        request.health_check_grace_period_seconds,
        &request.load_balancers,
    )?;
    let network = request
        .network_configuration
        .ok_or_else(|| Refusal::invalid_parameter("Network Configuration must be provided."))?;
    let subnets = check_network(shared, &network).await?;
    check_tags(&request.tags)?;
    let service = Service {
        cluster,
        name: request.service_name,
        status: ServiceStatus::Active,
        request: body.clone(),
        desired_count,
        load_balancers: request.load_balancers,
        network,
        subnets,
        grace_seconds: grace_seconds.unwrap_or(0),
        deployment_configuration: request.deployment_configuration,
        availability_zone_rebalancing: request
            .availability_zone_rebalancing
            .unwrap_or(Switch::Enabled),
        platform_version: request
            .platform_version
            .unwrap_or_else(|| "LATEST".to_owned()),
        propagate_tags: request.propagate_tags,
        enable_ecs_managed_tags: request.enable_ecs_managed_tags,
        enable_execute_command: request.enable_execute_command,
        tags: request.tags,
        deployments: vec![Deployment::new(definition)],
        events: VecDeque::new(),
        steady: false,
        created_at: Timestamp::now(),
        inactive_since: None,
    };
    let mut state = shared.state();
    // Checked again, because a concurrent call may have created the service meanwhile.
    if let Name::Free = service_creation::name_is_free(state.services.get(&arn), body)? {
        state.services.insert(arn.clone(), service);
    }
    let answer = state
        .services
        .get(&arn)
        .map(|service| wire::service(service, &state, true));
    drop(state);
    shared.wake.notify_one();
    Ok(json!({"service": answer}))
}

fn check_supported(request: &CreateService) -> Result<(), Refusal> {
    let breaker = &request.deployment_configuration.deployment_circuit_breaker;
    match (request.launch_type, breaker.rollback) {
        (Some(LaunchType::Fargate), false) => Ok(()),
        // Without a launch type AWS uses EC2, which has no instances here.
        (None, _) => Err(Refusal::client(
            "The local cloud runs tasks with launchType FARGATE only.",
        )),
        (_, true) => Err(Refusal::client(
            "The circuit breaker of the local cloud does not roll back.",
        )),
    }
}

/// "Up to 36 ASCII characters in the range of 33-126 (inclusive) are allowed." RunTask allows 64.
pub fn check_client_token(token: Option<&str>, longest: usize) -> Result<(), Refusal> {
    let valid =
        |token: &str| token.len() <= longest && token.bytes().all(|b| (33..=126).contains(&b));
    match token {
        Some(token) if !valid(token) => Err(Refusal::invalid_parameter(format!(
            "Client token can have at most {longest} ASCII characters in the range of 33-126."
        ))),
        _ => Ok(()),
    }
}

/// Checks the tags of a resource.
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs-using-tags.html>
pub fn check_tags(tags: &[requests::Tag]) -> Result<(), Refusal> {
    if tags.len() > 50 {
        return Err(Refusal::invalid_parameter(
            "The maximum number of tags for a resource is 50.",
        ));
    }
    for tag in tags {
        if tag.key.is_empty() || tag.key.len() > 128 || tag.value.len() > 256 {
            return Err(Refusal::invalid_parameter(format!(
                "The tag {} is not valid.",
                tag.key
            )));
        }
        if tag.key.to_ascii_lowercase().starts_with("aws:") {
            return Err(Refusal::invalid_parameter(
                "Tag keys beginning with aws: are reserved for system use.",
            ));
        }
    }
    Ok(())
}

fn desired_count(count: i64) -> Result<u32, Refusal> {
    match u32::try_from(count) {
        Ok(valid) if count <= MAX_TASKS => Ok(valid),
        _ => Err(Refusal::invalid_parameter(format!(
            "desiredCount must be between 0 and {MAX_TASKS}."
        ))),
    }
}

fn grace_period(
    seconds: Option<i64>,
    load_balancers: &[LoadBalancer],
) -> Result<Option<u32>, Refusal> {
    let Some(seconds) = seconds else {
        return Ok(None);
    };
    if load_balancers.is_empty() {
        return Err(Refusal::invalid_parameter(
            "Health check grace period is only valid for services configured to use load balancers",
        ));
    }
    u32::try_from(seconds)
        .ok()
        .filter(|seconds| i32::try_from(*seconds).is_ok())
        .map(Some)
        .ok_or_else(|| {
            Refusal::invalid_parameter(
                "healthCheckGracePeriodSeconds must be between 0 and 2147483647.",
            )
        })
}

/// The cluster with a name or ARN.
pub async fn cluster(shared: &Shared, name: Option<&str>) -> Result<ClusterName, Refusal> {
    let name = name.unwrap_or(DEFAULT_CLUSTER);
    shared.backends.cluster(name).await
}

pub async fn task_definition(
    shared: &Shared,
    reference: &str,
) -> Result<Arc<TaskDefinition>, Refusal> {
    shared
        .backends
        .task_definition(reference)
        .await?
        .map(Arc::new)
        .ok_or_else(|| Refusal::client("TaskDefinition not found."))
}

async fn check_load_balancers(
    shared: &Shared,
    entries: &[LoadBalancer],
    definition: &TaskDefinition,
) -> Result<(), Refusal> {
    if entries.len() > 5 {
        return Err(Refusal::invalid_parameter(
            "load balancers can have at most 5 items.",
        ));
    }
    for entry in entries {
        service_creation::container_is_in_task_definition(entry, &definition.body)?;
    }
    check_target_groups(shared, entries).await
}

/// ECS checks them when a service is created, and again when it gets a new deployment:
/// <https://github.com/aws/copilot-cli/issues/5652>.
async fn check_target_groups(shared: &Shared, entries: &[LoadBalancer]) -> Result<(), Refusal> {
    for entry in entries {
        let group = &entry.target_group_arn;
        let used = shared.backends.target_group(group).await?;
        service_creation::target_group_is_attached(group, used)?;
    }
    Ok(())
}

pub async fn check_network(
    shared: &Shared,
    network: &NetworkConfiguration,
) -> Result<Vec<Subnet>, Refusal> {
    let vpc = &network.awsvpc_configuration;
    if vpc.subnets.is_empty() {
        return Err(Refusal::invalid_parameter("subnets can not be empty."));
    }
    if vpc.subnets.len() > 16 {
        return Err(Refusal::invalid_parameter(
            "subnets can have at most 16 items.",
        ));
    }
    if vpc.security_groups.len() > 5 {
        return Err(Refusal::invalid_parameter(
            "securityGroups can have at most 5 items.",
        ));
    }
    let mut subnets = Vec::new();
    for id in &vpc.subnets {
        let zone = shared.backends.subnet_zone(id).await?.ok_or_else(|| {
            Refusal::invalid_parameter(format!(
                "Error retrieving subnet information for [{id}]: The subnet ID '{id}' does not \
                 exist (ErrorCode: InvalidSubnetID.NotFound)"
            ))
        })?;
        subnets.push(Subnet {
            id: id.clone(),
            zone,
        });
    }
    for id in &vpc.security_groups {
        if !shared.backends.has_security_group(id).await? {
            return Err(Refusal::invalid_parameter(format!(
                "Error retrieving security group information for [{id}]: The security group \
                 '{id}' does not exist (ErrorCode: InvalidGroup.NotFound)"
            )));
        }
    }
    Ok(subnets)
}

/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_UpdateService.html>
pub async fn update(shared: &Shared, body: &Value) -> Result<Value, Refusal> {
    let request: UpdateService = read(body)?;
    let cluster = cluster(shared, request.cluster.as_deref()).await?;
    let arn = cluster.service_reference(&request.service);
    let load_balancers = {
        let state = shared.state();
        active(state.services.get(&arn))?.load_balancers.clone()
    };
    let desired = request.desired_count.map(desired_count).transpose()?;
    let grace = grace_period(request.health_check_grace_period_seconds, &load_balancers)?;
    if request.force_new_deployment {
        check_target_groups(shared, &load_balancers).await?;
    }
    let mut state = shared.state();
    active(state.services.get(&arn))?;
    if let Some(service) = state.services.get_mut(&arn) {
        if let Some(desired) = desired {
            service.set_desired_count(desired);
        }
        if let Some(grace) = grace {
            service.grace_seconds = grace;
        }
        if request.force_new_deployment {
            let definition = Arc::clone(&service.primary().task_definition);
            service.deployments.insert(0, Deployment::new(definition));
        } else {
            service.primary_mut().updated_at = Timestamp::now();
        }
        service.steady = false;
    }
    let answer = state
        .services
        .get(&arn)
        .map(|service| wire::service(service, &state, true));
    drop(state);
    shared.wake.notify_one();
    Ok(json!({"service": answer}))
}

fn active(service: Option<&Service>) -> Result<&Service, Refusal> {
    match service {
        None => Err(Refusal::no_service()),
        Some(service) if service.status == ServiceStatus::Active => Ok(service),
        Some(_) => Err(Refusal::service_not_active()),
    }
}

/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DeleteService.html>
pub async fn delete(shared: &Shared, body: &Value) -> Result<Value, Refusal> {
    let request: DeleteService = read(body)?;
    let cluster = cluster(shared, request.cluster.as_deref()).await?;
    let arn = cluster.service_reference(&request.service);
    let mut state = shared.state();
    let still_wanted = state.tasks_of(&arn).any(|task| task.wanted());
    let service = state
        .services
        .get_mut(&arn)
        .filter(|service| service.status != ServiceStatus::Inactive)
        .ok_or_else(Refusal::no_service)?;
    if !request.force && service.status == ServiceStatus::Active {
        if service.desired_count > 0 {
            return Err(Refusal::invalid_parameter(
                "The service cannot be stopped while it is scaled above 0.",
            ));
        }
        if still_wanted {
            return Err(Refusal::invalid_parameter(
                "The service cannot be stopped while deployments are active.",
            ));
        }
    }
    service.status = ServiceStatus::Draining;
    service.desired_count = 0;
    let answer = state
        .services
        .get(&arn)
        .map(|service| wire::service(service, &state, true));
    drop(state);
    shared.wake.notify_one();
    Ok(json!({"service": answer}))
}

/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DescribeServices.html>
pub async fn describe(shared: &Shared, body: &Value) -> Result<Value, Refusal> {
    let request: DescribeServices = read(body)?;
    if request.services.is_empty() {
        return Err(Refusal::invalid_parameter("Services cannot be empty."));
    }
    if request.services.len() > 10 {
        return Err(Refusal::invalid_parameter(
            "service names can have at most 10 items.",
        ));
    }
    let cluster = cluster(shared, request.cluster.as_deref()).await?;
    let with_tags = request.include.contains(&Include::Tags);
    let state = shared.state();
    let (mut services, mut failures) = (Vec::new(), Vec::new());
    for reference in &request.services {
        let arn = cluster.service_reference(reference);
        match state
            .services
            .get(&arn)
            .filter(|service| service.cluster == cluster)
        {
            Some(service) => services.push(wire::service(service, &state, with_tags)),
            None => failures.push(json!({"arn": arn, "reason": "MISSING"})),
        }
    }
    Ok(json!({"services": services, "failures": failures}))
}

/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ListServices.html>
pub async fn list(shared: &Shared, body: &Value) -> Result<Value, Refusal> {
    let request: ListServices = read(body)?;
    let cluster = cluster(shared, request.cluster.as_deref()).await?;
    let arns = shared
        .state()
        .services
        .values()
        .filter(|service| service.cluster == cluster)
        .filter(|service| service.status == ServiceStatus::Active)
        .map(Service::arn)
        .collect();
    let page = page(
        arns,
        request.max_results,
        SERVICES_PER_PAGE,
        request.next_token.as_deref(),
    )?;
    let mut answer = json!({"serviceArns": page.items});
    if let Some(token) = page.next_token {
        answer["nextToken"] = json!(token);
    }
    Ok(answer)
}
