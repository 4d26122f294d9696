use std::sync::{Arc, Mutex};

use super::*;
use crate::{Action as Due, Input, State};
use aws_sdk_ecs::operation::describe_services::DescribeServicesOutput;
use aws_sdk_ecs::operation::describe_task_definition::{
    DescribeTaskDefinitionError, DescribeTaskDefinitionOutput,
};
use aws_sdk_ecs::operation::list_services::ListServicesOutput;
use aws_sdk_ecs::operation::list_task_definitions::ListTaskDefinitionsOutput;
use aws_sdk_ecs::types::{Service, TaskDefinition};
use aws_sdk_elasticloadbalancingv2::operation::describe_listeners::DescribeListenersOutput;
use aws_sdk_elasticloadbalancingv2::operation::describe_rules::DescribeRulesOutput;
use aws_sdk_elasticloadbalancingv2::operation::describe_tags::DescribeTagsOutput;
use aws_sdk_elasticloadbalancingv2::operation::describe_target_groups::DescribeTargetGroupsOutput;
use aws_sdk_elasticloadbalancingv2::types::{Action, ActionTypeEnum};
use aws_sdk_elasticloadbalancingv2::types::{
    FixedResponseActionConfig, Listener, Rule, Tag, TagDescription, TargetGroup as ElbTargetGroup,
};
use aws_sdk_sfn::error::ErrorMetadata;
use aws_sdk_sfn::operation::describe_execution::{DescribeExecutionError, DescribeExecutionOutput};
use aws_sdk_sfn::operation::list_executions::ListExecutionsOutput;
use aws_sdk_sfn::types::{ExecutionListItem, ExecutionStatus};
use aws_smithy_mocks::{MockResponse, RuleMode, mock, mock_client};
use lifecycle::ErrorName;
use lifecycle::defaults;
use time::macros::utc_datetime;

/// When each service and each revision was made, in seconds since 1970.
const SERVICE_MADE: i64 = 1_761_567_700;
const DEFINITION_MADE: i64 = 1_761_567_600;

/// What AWS holds, and the calls that were made, in order.
#[derive(Debug, Clone, Default)]
struct World {
    /// What each look at the listener finds; the last one stays.
    default_actions: Vec<Action>,
    /// Target groups by name, with their tags, in the order they are listed.
    groups: Vec<(String, Tags)>,
    /// What the rules forward to.
    rules: Vec<String>,
    services: Vec<(String, Tags)>,
    /// Revisions of the family, with their tags.
    revisions: Vec<(String, Tags)>,
    /// The revision that each service runs.
    runs: BTreeMap<String, String>,
    /// Running executions with their inputs; none is one that has ended meanwhile.
    executions: Vec<(String, Option<String>)>,
    /// Smaller pages than AWS's, for what has more than one.
    page: Option<usize>,
    calls: Vec<&'static str>,
}

fn id(number: usize) -> String {
    format!("test-20251027-12{:02}{:02}Z", number / 60, number % 60)
}

fn group_arn(name: &str) -> String {
    format!("arn:aws:elasticloadbalancing:us-east-1:1:targetgroup/{name}/abc")
}

fn revision_arn(number: usize) -> String {
    format!("arn:aws:ecs:us-east-1:1:task-definition/test-app:{number}")
}

fn ours(name: &str) -> Tags {
    let own = tags::for_deployment(&name.parse().unwrap());
    own.map(|(key, value)| (key.to_owned(), value)).into()
}

fn with(mut tags: Tags, mark: &str) -> Tags {
    tags.insert(mark.into(), "2025-10-27T12:00:00Z".into());
    tags
}

fn forward(names: &[&str]) -> Action {
    use aws_sdk_elasticloadbalancingv2::types::{ForwardActionConfig, TargetGroupTuple};
    // Later ones are heavier.
    let groups = (1..).zip(names).map(|(weight, name)| {
        TargetGroupTuple::builder()
            .target_group_arn(group_arn(name))
            .weight(weight)
            .build()
    });
    Action::builder()
        .r#type(ActionTypeEnum::Forward)
        .forward_config(
            ForwardActionConfig::builder()
                .set_target_groups(Some(groups.collect()))
                .build(),
        )
        .build()
}

fn fixed(status: &str, body: &str) -> Action {
    Action::builder()
        .r#type(ActionTypeEnum::FixedResponse)
        .fixed_response_config(
            FixedResponseActionConfig::builder()
                .status_code(status)
                .message_body(body)
                .build(),
        )
        .build()
}

impl World {
    /// Adds a whole deployment.
    fn deploy(&mut self, number: usize, marks: &[&str]) {
        let name = id(number);
        let marked = marks
            .iter()
            .fold(ours(&name), |tags, mark| with(tags, mark));
        self.groups.push((name.clone(), marked));
        // By header and by cookie.
        self.rules.extend([name.clone(), name.clone()]);
        self.services.push((name.clone(), ours(&name)));
        self.revisions.push((revision_arn(number), ours(&name)));
        self.runs.insert(name, revision_arn(number));
    }

    /// One page of `all`, which holds at most `most`, and the token of the next one.
    fn page<T: Clone>(
        &self,
        all: &[T],
        most: usize,
        token: Option<&str>,
    ) -> (Vec<T>, Option<String>) {
        let size = self.page.unwrap_or(most).min(most);
        let start: usize = token.map_or(0, |token| token.parse().unwrap());
        let end = (start + size).min(all.len());
        let next = (end < all.len()).then(|| end.to_string());
        (all[start..end].to_vec(), next)
    }
}

/// `n` deployments of which the last is active and the others are to be left alone.
fn idle(n: usize) -> World {
    let mut world = World::default();
    for number in 0..n {
        world.deploy(number, &[tags::READY_AT, tags::LIVE_SINCE]);
    }
    world.default_actions = vec![forward(&[&id(n - 1)])];
    world
}

fn settings() -> Settings {
    Settings {
        baseline: lifecycle::Settings::for_tests(),
        state_machine_arn: "arn:aws:states:us-east-1:1:stateMachine:test-deploy".into(),
        keep_previous: 1000,
        drain_deadline: time::Duration::DAY,
        settle: time::Duration::MINUTE,
    }
}

fn elb_tags(tags: &Tags) -> Vec<Tag> {
    tags.iter()
        .map(|(key, value)| Tag::builder().key(key).value(value).build())
        .collect()
}

fn ecs_tag_list(tags: &Tags) -> Vec<aws_sdk_ecs::types::Tag> {
    tags.iter()
        .map(|(key, value)| {
            aws_sdk_ecs::types::Tag::builder()
                .key(key)
                .value(value)
                .build()
        })
        .collect()
}

/// Runs `body` with clients that answer from the world, and gives the calls that it made.
async fn with_clients<T>(
    world: World,
    body: impl AsyncFnOnce(&Clients) -> Result<T, StepError>,
) -> (Result<T, StepError>, Vec<&'static str>) {
    use aws_sdk_ecs::Client as Ecs;
    use aws_sdk_elasticloadbalancingv2::Client as Elb;
    use aws_sdk_sfn::Client as Sfn;
    let world = Arc::new(Mutex::new(world));
    macro_rules! answer {
        ($client:ident :: $operation:ident, |$world:ident, $request:ident| $body:expr) => {{
            let world = Arc::clone(&world);
            mock!($client::$operation).then_compute_response(move |$request| {
                let mut $world = world.lock().unwrap();
                $world.calls.push(stringify!($operation));
                $body
            })
        }};
    }
    macro_rules! output {
        ($builder:expr) => {
            MockResponse::Output($builder.build())
        };
    }
    let listeners = answer!(Elb::describe_listeners, |world, _request| {
        let action = match world.default_actions.len() {
            0 | 1 => world.default_actions.first().cloned(),
            _ => Some(world.default_actions.remove(0)),
        };
        let listener = Listener::builder().set_default_actions(Some(action.into_iter().collect()));
        output!(DescribeListenersOutput::builder().listeners(listener.build()))
    });
    let rules = answer!(Elb::describe_rules, |world, request| {
        assert_eq!(request.page_size(), Some(400));
        let mut all: Vec<Rule> = world
            .rules
            .iter()
            .map(|name| Rule::builder().actions(forward(&[name])).build())
            .collect();
        let default = world.default_actions.first().cloned();
        all.push(
            Rule::builder()
                .is_default(true)
                .set_actions(Some(default.into_iter().collect()))
                .build(),
        );
        let (page, next) = world.page(&all, 400, request.marker());
        output!(
            DescribeRulesOutput::builder()
                .set_rules(Some(page))
                .set_next_marker(next)
        )
    });
    let groups = answer!(Elb::describe_target_groups, |world, request| {
        assert_eq!(request.page_size(), Some(400));
        let (page, next) = world.page(&world.groups, 400, request.marker());
        let page = page.into_iter().map(|(name, _)| {
            ElbTargetGroup::builder()
                .target_group_arn(group_arn(&name))
                .build()
        });
        output!(
            DescribeTargetGroupsOutput::builder()
                .set_target_groups(Some(page.collect()))
                .set_next_marker(next)
        )
    });
    let described_tags = answer!(Elb::describe_tags, |world, request| {
        assert!(request.resource_arns().len() <= 20);
        let descriptions = request.resource_arns().iter().map(|arn| {
            let found = world
                .groups
                .iter()
                .find(|(name, _)| group_arn(name) == *arn);
            TagDescription::builder()
                .resource_arn(arn)
                .set_tags(Some(elb_tags(&found.unwrap().1)))
                .build()
        });
        output!(DescribeTagsOutput::builder().set_tag_descriptions(Some(descriptions.collect())))
    });
    let services = answer!(Ecs::list_services, |world, request| {
        assert_eq!(request.cluster(), Some("test"));
        assert_eq!(request.max_results(), Some(100));
        let (page, next) = world.page(&world.services, 100, request.next_token());
        let arns = page
            .iter()
            .map(|(name, _)| format!("arn:aws:ecs:us-east-1:1:service/test/{name}"));
        output!(
            ListServicesOutput::builder()
                .set_service_arns(Some(arns.collect()))
                .set_next_token(next)
        )
    });
    let described_services = answer!(Ecs::describe_services, |world, request| {
        assert!(request.services().len() <= 10);
        assert_eq!(request.include(), [ServiceField::Tags]);
        let services = request.services().iter().map(|name| {
            let found = world.services.iter().find(|(known, _)| known == name);
            Service::builder()
                .service_name(name)
                .status(match found.unwrap().1.contains_key("inactive") {
                    true => "INACTIVE",
                    false => "ACTIVE",
                })
                .set_task_definition(world.runs.get(name).cloned())
                .created_at(DateTime::from_secs(SERVICE_MADE))
                .set_tags(Some(ecs_tag_list(&found.unwrap().1)))
                .build()
        });
        output!(DescribeServicesOutput::builder().set_services(Some(services.collect())))
    });
    let revisions = answer!(Ecs::list_task_definitions, |world, request| {
        assert_eq!(request.family_prefix(), Some("test-app"));
        assert_eq!(request.status(), Some(&TaskDefinitionStatus::Active));
        let (page, next) = world.page(&world.revisions, 100, request.next_token());
        let arns = page.into_iter().map(|(arn, _)| arn);
        output!(
            ListTaskDefinitionsOutput::builder()
                .set_task_definition_arns(Some(arns.collect()))
                .set_next_token(next)
        )
    });
    let revision = answer!(Ecs::describe_task_definition, |world, request| {
        let arn = request.task_definition().unwrap();
        let (_, tags) = world
            .revisions
            .iter()
            .find(|(known, _)| known == arn)
            .unwrap();
        if tags.contains_key("gone") {
            MockResponse::Error(DescribeTaskDefinitionError::generic(
                ErrorMetadata::builder().code("ClientException").build(),
            ))
        } else {
            let definition = TaskDefinition::builder()
                .task_definition_arn(arn)
                .registered_at(DateTime::from_secs(DEFINITION_MADE))
                .status(TaskDefinitionStatus::Active);
            output!(
                DescribeTaskDefinitionOutput::builder()
                    .task_definition(definition.build())
                    .set_tags(Some(ecs_tag_list(tags)))
            )
        }
    });
    let executions = answer!(Sfn::list_executions, |world, request| {
        assert_eq!(request.status_filter(), Some(&ExecutionStatus::Running));
        assert_eq!(
            request.state_machine_arn(),
            Some("arn:aws:states:us-east-1:1:stateMachine:test-deploy")
        );
        let (page, next) = world.page(&world.executions, 1000, request.next_token());
        let page = page.into_iter().map(|(name, _)| {
            ExecutionListItem::builder()
                .execution_arn(&name)
                .state_machine_arn("arn")
                .name(name)
                .status(ExecutionStatus::Running)
                .start_date(aws_sdk_sfn::primitives::DateTime::from_secs(0))
                .build()
                .unwrap()
        });
        let answer = ListExecutionsOutput::builder()
            .set_executions(Some(page.collect()))
            .set_next_token(next);
        MockResponse::Output(answer.build().unwrap())
    });
    let execution = answer!(Sfn::describe_execution, |world, request| {
        let name = request.execution_arn().unwrap();
        let (_, input) = world
            .executions
            .iter()
            .find(|(known, _)| known == name)
            .unwrap();
        let error = |code: &str| {
            MockResponse::Error(DescribeExecutionError::generic(
                ErrorMetadata::builder().code(code).build(),
            ))
        };
        match input.as_deref() {
            None => error("ExecutionDoesNotExist"),
            Some(code) if !code.starts_with('{') => error(code),
            Some(input) => MockResponse::Output(
                DescribeExecutionOutput::builder()
                    .execution_arn(name)
                    .state_machine_arn("arn")
                    .status(ExecutionStatus::Running)
                    .start_date(aws_sdk_sfn::primitives::DateTime::from_secs(0))
                    .input(input)
                    .build()
                    .unwrap(),
            ),
        }
    });
    let clients = Clients {
        ecs: mock_client!(
            aws_sdk_ecs,
            RuleMode::MatchAny,
            [&services, &described_services, &revisions, &revision]
        ),
        elb: mock_client!(
            aws_sdk_elasticloadbalancingv2,
            RuleMode::MatchAny,
            [&listeners, &rules, &groups, &described_tags]
        ),
        sfn: mock_client!(aws_sdk_sfn, RuleMode::MatchAny, [&executions, &execution]),
    };
    let result = body(&clients).await;
    let calls = std::mem::take(&mut world.lock().unwrap().calls);
    (result, calls)
}

async fn facts_of(world: World) -> Facts {
    let read = async |clients: &Clients| read(clients, &settings()).await;
    with_clients(world, read).await.0.unwrap()
}

fn group_of(facts: &Facts, number: usize) -> &TargetGroup {
    let name = id(number);
    let found = facts.deployments.iter().find(|it| it.id.as_str() == name);
    &found.unwrap().target_group
}

/// The formula of [`read`]'s documentation, for `n` deployments that need nothing.
fn calls_for(n: usize) -> usize {
    3 + (2 * n + 1).div_ceil(400)
        + n.div_ceil(400)
        + n.div_ceil(20)
        + n.div_ceil(10)
        + 2 * n.div_ceil(100)
}

#[tokio::test]
async fn the_number_of_calls_follows_the_documented_formula() {
    for (n, documented) in [(10, Some(9)), (30, Some(12)), (60, Some(16)), (250, None)] {
        let (output, calls) = with_clients(idle(n), async |clients: &Clients| {
            let now = utc_datetime!(2025-10-28 12:00:00);
            crate::run(clients, &settings(), now, Input::default()).await
        })
        .await;
        let plan = output.unwrap().plan;
        assert_eq!(plan.deployments.len() + plan.left_out, n);
        assert!(plan.deployments.iter().all(|it| it.action == Due::Keep));
        assert_eq!(calls.len(), calls_for(n), "{calls:?}");
        assert!(documented.is_none_or(|number| number == calls.len()));
    }
}

#[tokio::test]
async fn every_list_is_read_past_its_first_page() {
    let mut world = idle(25);
    world.executions = (0..5).map(|number| (id(number), None)).collect();
    world.revisions.push((revision_arn(99), ours(&id(99))));
    let whole = facts_of(world.clone()).await;
    world.page = Some(2);
    assert_eq!(facts_of(world).await, whole);
    assert_eq!(whole.deployments.len(), 26);
    assert_eq!(whole.executions.running.len(), 5);
    assert!(whole.deployments.is_sorted_by(|a, b| a.id > b.id));
    for number in 0..25 {
        let TargetGroup::Ours { in_use, .. } = group_of(&whole, number) else {
            panic!("{number} is not ours")
        };
        assert!(in_use);
    }
}

#[tokio::test]
async fn what_is_not_ours_costs_no_call_of_its_own_and_is_in_no_plan() {
    let mut world = idle(10);
    for number in 0..30 {
        for name in [
            format!("theirs-{number}"),
            format!("prod-20251027-1200{number:02}Z"),
        ] {
            world.groups.push((name.clone(), Tags::new()));
            world.rules.push(name.clone());
            world.services.push((name, Tags::new()));
        }
    }
    // Named like ours, which only the tags can tell; perhaps with those of another deployment.
    for (number, tags) in [(80, Tags::new()), (81, ours(&id(90)))] {
        world.groups.push((id(number), tags.clone()));
        world.services.push((id(number), tags));
    }
    let (facts, calls) = with_clients(world, async |clients: &Clients| {
        read(clients, &settings()).await
    })
    .await;
    let facts = facts.unwrap();
    assert_eq!(facts.deployments.len(), 10);
    let count = |operation| calls.iter().filter(|call| **call == operation).count();
    assert_eq!(count("describe_tags"), 1);
    assert_eq!(count("describe_services"), 2);
    assert_eq!(calls.len(), 10);
}

#[tokio::test]
async fn the_default_action_tells_what_is_active_even_without_tags() {
    let mut world = idle(3);
    world.groups[2].1.clear();
    world.services[2].1.clear();
    let facts = facts_of(world).await;
    assert_eq!(facts.named, [id(2).parse().unwrap()]);
    assert_eq!(facts.default_action, DefaultActionKind::Forward);
    assert_eq!(
        *group_of(&facts, 2),
        TargetGroup::NotOurs {
            arn: group_arn(&id(2))
        }
    );
}

#[tokio::test]
async fn of_several_named_deployments_the_heaviest_comes_first() {
    let mut world = idle(3);
    world.default_actions = vec![forward(&[&id(0), "theirs", &id(2)])];
    let facts = facts_of(world).await;
    assert_eq!(facts.named, [id(2), id(0)].map(|id| id.parse().unwrap()));
}

#[tokio::test]
async fn a_default_action_that_names_nothing_of_ours_is_told_apart() {
    for (action, what) in [
        (
            fixed("503", defaults::NOTHING_DEPLOYED),
            DefaultActionKind::NothingDeployed,
        ),
        (
            fixed("503", "We are moving house."),
            DefaultActionKind::Other,
        ),
        (
            fixed("200", defaults::NOTHING_DEPLOYED),
            DefaultActionKind::Other,
        ),
        (forward(&["gone"]), DefaultActionKind::ForwardToNothing),
        (forward(&["gone", "theirs"]), DefaultActionKind::Forward),
    ] {
        let mut world = idle(1);
        world.groups.push(("theirs".into(), Tags::new()));
        world.default_actions = vec![action];
        let facts = facts_of(world).await;
        assert_eq!(facts.default_action, what);
        assert!(facts.named.is_empty() && !facts.moved);
    }
}

#[test]
fn the_answer_before_the_first_deployment_is_the_templates() {
    let template = include_str!("../../../../infra/baseline.yaml");
    let answer = format!("MessageBody: {}\n", defaults::NOTHING_DEPLOYED);
    assert!(template.contains(&answer));
}

#[tokio::test]
async fn a_switch_while_the_rest_is_read_is_noticed_and_the_last_look_counts() {
    let mut world = idle(2);
    world.default_actions = vec![forward(&[&id(0)]), forward(&[&id(1)])];
    let facts = facts_of(world).await;
    assert!(facts.moved);
    assert_eq!(facts.named, [id(1).parse().unwrap()]);
}

#[tokio::test]
async fn executions_are_listed_after_the_resources_and_the_listener_is_read_last() {
    let (_, calls) = with_clients(idle(1), async |clients: &Clients| {
        read(clients, &settings()).await
    })
    .await;
    assert_eq!(
        calls,
        [
            "describe_listeners",
            "describe_rules",
            "describe_target_groups",
            "describe_tags",
            "list_services",
            "describe_services",
            "list_task_definitions",
            "list_executions",
            "describe_listeners"
        ]
    );
}

#[tokio::test]
async fn an_execution_with_a_name_of_its_own_is_asked_for_its_deployment() {
    let mut world = idle(1);
    let input = |id: &str| Some(format!(r#"{{"deploymentId": "{id}"}}"#));
    world.executions = vec![
        (id(3), None),
        ("by-hand".into(), input(&id(4))),
        ("ended".into(), None),
        ("nonsense".into(), input("latest")),
        ("encrypted".into(), Some("KmsInvalidStateException".into())),
    ];
    let executions = facts_of(world).await.executions;
    assert_eq!(
        executions.running,
        [id(3), id(4)].map(|id| id.parse().unwrap()).into()
    );
    assert_eq!(executions.unknown, ["nonsense", "encrypted"]);
}

#[tokio::test]
async fn a_role_that_must_not_read_executions_is_an_error_not_a_quiet_sweep() {
    let mut world = idle(1);
    world.executions = vec![("by-hand".into(), Some("AccessDeniedException".into()))];
    let read = async |clients: &Clients| read(clients, &settings()).await;
    let error = with_clients(world, read).await.0.unwrap_err();
    assert_eq!(error.name, ErrorName::AccessDenied);
}

#[tokio::test]
async fn only_task_definitions_that_no_service_runs_are_read_one_by_one() {
    let mut world = idle(2);
    world.revisions.push((revision_arn(50), ours(&id(50))));
    world.revisions.push((revision_arn(51), Tags::new()));
    world
        .revisions
        .push((revision_arn(52), with(ours(&id(52)), "gone")));
    let (facts, calls) = with_clients(world, async |clients: &Clients| {
        read(clients, &settings()).await
    })
    .await;
    let described = |call: &&&str| **call == "describe_task_definition";
    assert_eq!(calls.iter().filter(described).count(), 3);
    let facts = facts.unwrap();
    let orphan = &facts.deployments[0];
    assert_eq!(orphan.id.as_str(), id(50));
    assert_eq!(orphan.target_group, TargetGroup::Absent);
    assert!(orphan.has_task_definition && !orphan.has_service);
    // As young as its youngest part that says so.
    let made_at = |id: &str| {
        let mut all = facts.deployments.iter();
        let found = all.find(|it| it.id.as_str() == id).expect("listed");
        found.made_at.map(UtcDateTime::unix_timestamp)
    };
    assert_eq!(made_at(&id(50)), Some(DEFINITION_MADE));
    assert_eq!(made_at(&id(1)), Some(SERVICE_MADE));
}

#[tokio::test]
async fn a_service_without_a_target_group_is_an_orphan_and_may_be_protected() {
    let mut world = idle(1);
    // An inactive one is gone, whatever the list said a moment ago.
    for (number, mark) in [(6, "inactive"), (7, "other"), (8, tags::PROTECTED)] {
        let tags = with(ours(&id(number)), mark);
        world.services.push((id(number), tags));
    }
    let (output, _) = with_clients(world, async |clients: &Clients| {
        let now = utc_datetime!(2025-10-28 12:00:00);
        crate::run(clients, &settings(), now, Input::default()).await
    })
    .await;
    let planned = output.unwrap().plan.deployments;
    let due: Vec<_> = planned.iter().map(|it| (it.state, it.action)).collect();
    assert_eq!(
        due,
        [
            (State::Orphaned, Due::Keep),
            (State::Orphaned, Due::Delete),
            (State::Active, Due::Keep)
        ]
    );
}
