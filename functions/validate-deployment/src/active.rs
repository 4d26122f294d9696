//! What a start of the active deployment asks for, compared with what runs.

use std::collections::BTreeMap;

use aws_sdk_ecs::types::{ContainerDefinition, Service, TaskDefinition};
use aws_sdk_elasticloadbalancingv2::types::TargetGroup;
use lifecycle::aws_error::failed;
use lifecycle::scaling::Scaling;
use lifecycle::tags::Tags;
use lifecycle::{Baseline, ErrorName, StepError, defaults, service, tags, task_definition};
use settings::{Fields, Input};

/// Compares every field that the input names with the service of the active deployment, whose target group has the tags
/// `marks`, and gives the digest of
/// the image that runs and the version of the settings that it was made with. A start changes nothing of a deployment that is live.
///
/// # Errors
/// `ResourceConflict`, with each difference, or when the deployment has no service.
pub async fn compare(
    ecs: &aws_sdk_ecs::Client,
    elb: &aws_sdk_elasticloadbalancingv2::Client,
    baseline: &Baseline,
    input: &Input,
    marks: &Tags,
) -> Result<(String, Option<i64>), StepError> {
    let id = &input.deployment_id;
    let gone = || {
        let message = format!(
            "{id} is active, but its service or its task definition is gone; deploy its image under a new deployment id"
        );
        StepError::new(ErrorName::ResourceConflict, message)
    };
    let service = service::find(ecs, baseline, id).await?.ok_or_else(gone)?;
    let revision = service.task_definition().ok_or_else(gone)?;
    let described = task_definition::describe(ecs, revision).await?;
    let (definition, tags) = described.ok_or_else(gone)?;
    let container = definition
        .container_definitions()
        .iter()
        .find(|it| it.name() == Some(defaults::CONTAINER))
        .ok_or_else(gone)?;
    let digest = container
        .image()
        .and_then(|image| image.split_once('@'))
        .map_or("", |(_, digest)| digest);
    let mut differences = Differences::default();
    differences.number_or_text("imageDigest", input.image_digest.as_ref(), digest);
    differences.of_size(&input.fields, marks);
    differences.of_tasks(&input.fields, &service, &definition, container);
    let copied = tags.get(tags::COPY_OF).map(String::as_str);
    let family = copied.and_then(|it| it.rsplit_once(':'));
    let family = family.map_or("none", |(family, _)| family);
    differences.number_or_text("base", input.fields.base.as_ref(), family);
    differences.of_routing(elb, &input.fields, &service).await?;
    if differences.0.is_empty() {
        let version = tags.get(tags::SETTINGS_VERSION);
        return Ok((digest.to_owned(), version.and_then(|tag| tag.parse().ok())));
    }
    Err(StepError::new(
        ErrorName::ResourceConflict,
        format!(
            "{id} is active and stays as it is: {}; deploy under a new deployment id",
            differences.0.join(", ")
        ),
    ))
}

/// What the input asks for and does not run, a sentence each.
#[derive(Default)]
struct Differences(Vec<String>);

impl Differences {
    fn number_or_text(
        &mut self,
        field: &str,
        asked: Option<impl ToString>,
        running: impl ToString,
    ) {
        let (asked, running) = (asked.map(|asked| asked.to_string()), running.to_string());
        if let Some(asked) = asked.filter(|asked| *asked != running) {
            self.0.push(format!("`{field}` is {running}, not {asked}"));
        }
    }

    /// Without the values, which may be long, or not meant to be read.
    fn words(&mut self, field: &str, asked: Option<&Vec<String>>, running: &[String]) {
        if asked.is_some_and(|asked| *asked != running) {
            self.0.push(format!("`{field}` is another"));
        }
    }

    /// The variables that the input names. Others may come from the settings. Without the values.
    fn variables(
        &mut self,
        field: &str,
        asked: Option<&BTreeMap<String, String>>,
        running: BTreeMap<&str, &str>,
    ) {
        let asked = asked.into_iter().flatten();
        let names: Vec<_> = asked
            .filter(|(name, value)| running.get(name.as_str()) != Some(&value.as_str()))
            .map(|(name, _)| name.as_str())
            .collect();
        if !names.is_empty() {
            self.0
                .push(format!("`{field}` differs in {}", names.join(", ")));
        }
    }

    /// By the number that it was started with. How many tasks it has been scaled to since is the operator's affair.
    fn of_size(&mut self, asked: &Fields, marks: &Tags) {
        if let Some(wanted) = tags::wanted_count(marks) {
            self.number_or_text("desiredCount", asked.desired_count, wanted);
        }
        let running = marks.get(tags::SCALING).map_or("off", String::as_str);
        let asked = asked.scaling.as_ref().map(Scaling::to_tag);
        self.number_or_text("scaling", asked, running);
    }

    fn of_tasks(
        &mut self,
        asked: &Fields,
        service: &Service,
        definition: &TaskDefinition,
        container: &ContainerDefinition,
    ) {
        self.number_or_text("cpu", asked.cpu, definition.cpu().unwrap_or_default());
        let memory = definition.memory().unwrap_or_default();
        self.number_or_text("memory", asked.memory, memory);
        let environment = container.environment().iter();
        let environment = environment.filter_map(|it| Some((it.name()?, it.value()?)));
        self.variables(
            "environment",
            asked.environment.as_ref(),
            environment.collect(),
        );
        let Fields { secrets: named, .. } = asked;
        let running = container.secrets().iter();
        let running = running.map(|it| (it.name(), it.value_from()));
        self.variables("secrets", named.as_ref(), running.collect());
        self.words("command", asked.command.as_ref(), container.command());
        self.words(
            "entryPoint",
            asked.entry_point.as_ref(),
            container.entry_point(),
        );
        let grace = asked
            .health
            .as_ref()
            .and_then(|health| health.grace_seconds);
        let running = service.health_check_grace_period_seconds();
        self.number_or_text("health.graceSeconds", grace, running.unwrap_or_default());
    }

    /// What the target group has. It is asked only for what the input names.
    async fn of_routing(
        &mut self,
        elb: &aws_sdk_elasticloadbalancingv2::Client,
        asked: &Fields,
        service: &Service,
    ) -> Result<(), StepError> {
        let path = asked
            .health
            .as_ref()
            .and_then(|health| health.path.as_ref());
        let balancers = service.load_balancers();
        let Some(arn) = balancers.iter().find_map(|it| it.target_group_arn()) else {
            return Ok(());
        };
        if path.is_some() {
            let request = elb.describe_target_groups().target_group_arns(arn);
            let answer = request.send().await;
            let answer = answer
                .map_err(|error| failed(format_args!("describe target group {arn}"), error))?;
            let groups = answer.target_groups().iter();
            let running = groups.filter_map(TargetGroup::health_check_path).next();
            self.number_or_text("health.path", path, running.unwrap_or_default());
        }
        if asked.stickiness.is_some() {
            let request = elb.describe_target_group_attributes();
            let answer = request.target_group_arn(arn).send().await;
            let answer = answer
                .map_err(|error| failed(format_args!("read the attributes of {arn}"), error))?;
            let value = |key: &str| {
                let mut attributes = answer.attributes().iter();
                let found = attributes.find(|it| it.key() == Some(key));
                found.and_then(|it| it.value()).unwrap_or_default()
            };
            let running = match value("stickiness.enabled") {
                "true" => value("stickiness.lb_cookie.duration_seconds"),
                _ => "off",
            };
            self.number_or_text("stickiness", asked.stickiness, running);
        }
        Ok(())
    }
}
