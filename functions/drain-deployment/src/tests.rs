mod application;
mod elsewhere;
mod leaks;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::*;
use application::{Application, Asked, address_of_nobody};
use aws_sdk_ecs::operation::describe_services::DescribeServicesOutput;
use aws_sdk_ecs::operation::describe_tasks::DescribeTasksOutput;
use aws_sdk_ecs::operation::list_tasks::ListTasksOutput;
use aws_sdk_ecs::operation::update_service::{UpdateServiceError, UpdateServiceOutput};
use aws_sdk_ecs::types::{Attachment, DesiredStatus, KeyValuePair, Service, Task};
use aws_sdk_elasticloadbalancingv2::operation::add_tags::{AddTagsError, AddTagsOutput};
use aws_sdk_elasticloadbalancingv2::operation::describe_listeners::DescribeListenersOutput;
use aws_sdk_elasticloadbalancingv2::operation::describe_tags::DescribeTagsOutput;
use aws_sdk_elasticloadbalancingv2::operation::remove_tags::RemoveTagsOutput;
use aws_sdk_elasticloadbalancingv2::types::{Action, ActionTypeEnum, Listener, TagDescription};
use aws_sdk_secretsmanager::operation::get_secret_value::{
    GetSecretValueError, GetSecretValueOutput,
};
use aws_smithy_mocks::{MockResponse, RuleMode, mock, mock_client};
use time::macros::utc_datetime;

const ID: &str = "test-20251027-122112Z";
const OTHER: &str = "test-20251027-122113Z";
const SECRET: &str = "N0tForLogsOrAnswers";
const NOW: UtcDateTime = utc_datetime!(2025-10-27 12:30:00);
const LATER: UtcDateTime = utc_datetime!(2025-10-27 12:35:00);

type Meanwhile = (&'static str, fn(&mut World));

/// One deployment as AWS would keep it, and what was done to it, in order.
struct World {
    active: &'static str,
    /// Tags of the target group.
    tags: BTreeMap<String, String>,
    service: Option<Service>,
    /// `(status, address)`, by task id.
    tasks: BTreeMap<String, (String, Option<String>)>,
    secret: Option<String>,
    done: Vec<String>,
    /// What somebody else does right after this was done.
    meanwhile: Option<Meanwhile>,
    /// This is carried out once and its answer lost.
    loses: Option<&'static str>,
}

impl World {
    /// Live before, no longer active, with these tasks.
    fn with(tasks: &[&str]) -> World {
        let own = tags::for_deployment(&ID.parse().unwrap());
        let mut tags: BTreeMap<_, _> = own.map(|(key, value)| (key.to_owned(), value)).into();
        tags.insert(tags::LIVE_SINCE.into(), "then".into());
        let service = Service::builder()
            .service_name(ID)
            .status("ACTIVE")
            .desired_count(2)
            .health_check_grace_period_seconds(120)
            .set_tags(Some(
                tags::for_deployment(&ID.parse().unwrap())
                    .map(|(key, value)| {
                        aws_sdk_ecs::types::Tag::builder()
                            .key(key)
                            .value(value)
                            .build()
                    })
                    .to_vec(),
            ))
            .build();
        let tasks = tasks.iter().enumerate().map(|(number, address)| {
            let task = ("RUNNING".to_owned(), Some(address.to_string()));
            (format!("t{number:03}"), task)
        });
        World {
            active: OTHER,
            tags,
            service: Some(service),
            tasks: tasks.collect(),
            secret: Some(SECRET.to_owned()),
            done: Vec::new(),
            meanwhile: None,
            loses: None,
        }
    }

    fn tagged(mut self, key: &str, value: &str) -> World {
        self.tags.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Notes what was done and lets the others act; true when the answer is lost.
    fn did(&mut self, what: String) -> bool {
        self.done.push(what.clone());
        if let Some((after, act)) = self.meanwhile
            && what == after
        {
            self.meanwhile = None;
            act(self);
        }
        let lost = self.loses == Some(what.as_str());
        if lost {
            self.loses = None;
        }
        lost
    }

    fn grace(&self) -> Option<i32> {
        self.service
            .as_ref()
            .unwrap()
            .health_check_grace_period_seconds()
    }
}

fn arn(id: &str) -> String {
    format!("arn:aws:elasticloadbalancing:us-east-1:1:targetgroup/{id}/abc")
}

fn ecs(world: &Arc<Mutex<World>>) -> aws_sdk_ecs::Client {
    use aws_sdk_ecs::Client;
    let kept = Arc::clone(world);
    let services = mock!(Client::describe_services).then_compute_output(move |_| {
        let service = kept.lock().unwrap().service.clone();
        DescribeServicesOutput::builder()
            .set_services(Some(service.into_iter().collect()))
            .build()
    });
    let kept = Arc::clone(world);
    let updated = mock!(Client::update_service).then_compute_response(move |request| {
        assert_eq!(request.force_new_deployment(), None);
        assert_eq!(request.desired_count(), None);
        let mut world = kept.lock().unwrap();
        let grace = request.health_check_grace_period_seconds();
        world
            .service
            .as_mut()
            .unwrap()
            .health_check_grace_period_seconds = grace;
        match world.did(format!("grace {}", grace.unwrap())) {
            false => MockResponse::Output(UpdateServiceOutput::builder().build()),
            true => MockResponse::Error(UpdateServiceError::generic(
                aws_sdk_ecs::error::ErrorMetadata::builder()
                    .code("ServerException")
                    .build(),
            )),
        }
    });
    let kept = Arc::clone(world);
    let listed = mock!(Client::list_tasks).then_compute_output(move |request| {
        assert_eq!(request.desired_status(), Some(&DesiredStatus::Running));
        assert_eq!(request.service_name(), Some(ID));
        assert_eq!(request.cluster(), Some("test"));
        let mut world = kept.lock().unwrap();
        let from: usize = request
            .next_token()
            .map_or(0, |token| token.parse().unwrap());
        let page: Vec<_> = world.tasks.keys().skip(from).take(100).cloned().collect();
        let next = from + page.len();
        let more = next < world.tasks.len();
        if !more {
            world.did("list".into());
        }
        let arns = page
            .iter()
            .map(|id| format!("arn:aws:ecs:us-east-1:1:task/test/{id}"));
        ListTasksOutput::builder()
            .set_task_arns(Some(arns.collect()))
            .set_next_token(more.then(|| next.to_string()))
            .build()
    });
    let kept = Arc::clone(world);
    let described = mock!(Client::describe_tasks).then_compute_output(move |request| {
        assert!(request.tasks().len() <= 100);
        assert_eq!(request.cluster(), Some("test"));
        let world = kept.lock().unwrap();
        let tasks = request.tasks().iter().filter_map(|arn| {
            let (status, address) = world.tasks.get(arn.rsplit('/').next()?)?;
            let detail =
                |name: &str, value: &str| KeyValuePair::builder().name(name).value(value).build();
            let mut interface = Attachment::builder()
                .r#type("ElasticNetworkInterface")
                .details(detail("subnetId", "subnet-1"));
            if let Some(address) = address {
                interface = interface.details(detail("privateIPv4Address", address));
            }
            Some(
                Task::builder()
                    .task_arn(arn)
                    .last_status(status)
                    .desired_status("RUNNING")
                    .attachments(interface.build())
                    .build(),
            )
        });
        DescribeTasksOutput::builder()
            .set_tasks(Some(tasks.collect()))
            .build()
    });
    mock_client!(
        aws_sdk_ecs,
        RuleMode::MatchAny,
        [&services, &updated, &listed, &described]
    )
}

fn elb(world: &Arc<Mutex<World>>) -> aws_sdk_elasticloadbalancingv2::Client {
    use aws_sdk_elasticloadbalancingv2::Client;
    let kept = Arc::clone(world);
    let listeners = mock!(Client::describe_listeners).then_compute_output(move |_| {
        let default = Action::builder()
            .r#type(ActionTypeEnum::Forward)
            .target_group_arn(arn(kept.lock().unwrap().active))
            .build();
        DescribeListenersOutput::builder()
            .listeners(Listener::builder().default_actions(default).build())
            .build()
    });
    let kept = Arc::clone(world);
    let described = mock!(Client::describe_tags).then_compute_output(move |request| {
        assert_eq!(request.resource_arns(), [arn(ID)]);
        let world = kept.lock().unwrap();
        // As for a target group that is gone.
        if world.tags.is_empty() {
            return DescribeTagsOutput::builder().build();
        }
        let tags = world.tags.iter().map(|(key, value)| {
            aws_sdk_elasticloadbalancingv2::types::Tag::builder()
                .key(key)
                .value(value)
                .build()
        });
        DescribeTagsOutput::builder()
            .tag_descriptions(
                TagDescription::builder()
                    .resource_arn(arn(ID))
                    .set_tags(Some(tags.collect()))
                    .build(),
            )
            .build()
    });
    let kept = Arc::clone(world);
    let tagged = mock!(Client::add_tags).then_compute_response(move |request| {
        let mut world = kept.lock().unwrap();
        let tag = &request.tags()[0];
        let key = tag.key().unwrap();
        world
            .tags
            .insert(key.to_owned(), tag.value().unwrap().to_owned());
        match world.did(format!("+{key}")) {
            false => MockResponse::Output(AddTagsOutput::builder().build()),
            true => MockResponse::Error(AddTagsError::generic(
                aws_sdk_elasticloadbalancingv2::error::ErrorMetadata::builder()
                    .code("InternalFailure")
                    .build(),
            )),
        }
    });
    let kept = Arc::clone(world);
    let untagged = mock!(Client::remove_tags).then_compute_output(move |request| {
        let mut world = kept.lock().unwrap();
        for key in request.tag_keys() {
            world.tags.remove(key);
            world.did(format!("-{key}"));
        }
        RemoveTagsOutput::builder().build()
    });
    mock_client!(
        aws_sdk_elasticloadbalancingv2,
        RuleMode::MatchAny,
        [&listeners, &described, &tagged, &untagged]
    )
}

fn secrets(world: &Arc<Mutex<World>>) -> aws_sdk_secretsmanager::Client {
    let kept = Arc::clone(world);
    let values = mock!(aws_sdk_secretsmanager::Client::get_secret_value).then_compute_response(
        move |request| {
            assert_eq!(
                request.secret_id(),
                Some(Settings::for_tests().drain_secret_arn.as_str())
            );
            let mut world = kept.lock().unwrap();
            world.did("secret".into());
            match &world.secret {
                Some(secret) => MockResponse::Output(
                    GetSecretValueOutput::builder()
                        .secret_string(secret)
                        .build(),
                ),
                None => MockResponse::Error(GetSecretValueError::generic(
                    aws_sdk_secretsmanager::error::ErrorMetadata::builder()
                        .code("ResourceNotFoundException")
                        .build(),
                )),
            }
        },
    );
    mock_client!(aws_sdk_secretsmanager, RuleMode::MatchAny, [&values])
}

/// Sweeps once.
async fn sweep_at(now: UtcDateTime, mut world: World) -> (Result<Output, StepError>, World) {
    world.done.clear();
    let world = Arc::new(Mutex::new(world));
    let clients = Clients {
        ecs: ecs(&world),
        elb: elb(&world),
        secrets: secrets(&world),
        http: drain_request::client(),
    };
    let input = Input {
        deployment_id: ID.parse().unwrap(),
        target_group_arn: arn(ID),
    };
    let output = run(&clients, &Settings::for_tests(), now, input).await;
    drop(clients);
    let world = Arc::into_inner(world).expect("the mocks are gone");
    (output, world.into_inner().unwrap())
}

async fn sweep(world: World) -> (Result<Output, StepError>, World) {
    sweep_at(NOW, world).await
}

/// The answers with the sessions, by task.
fn answers(output: &Output) -> Vec<(Answer, Option<u64>)> {
    output
        .tasks
        .iter()
        .map(|task| (task.answer, task.active_sessions))
        .collect()
}

#[tokio::test]
async fn every_task_is_asked_at_its_private_address_with_the_secret() {
    let [one, two] = [Application::with(3).await, Application::with(0).await];
    let (output, world) = sweep(World::with(&[one.address(), two.address()])).await;
    let output = output.unwrap();
    assert_eq!(output.verdict, Verdict::Draining);
    assert_eq!(
        answers(&output),
        [(Answer::Ok, Some(3)), (Answer::Ok, Some(0))]
    );
    assert_eq!(output.reason, "3 sessions on 2 tasks");
    assert_eq!(output.tasks[0].address.as_deref(), Some(one.address()));
    for application in [&one, &two] {
        assert_eq!(
            application.asked(),
            [Asked {
                method: "POST".into(),
                path: "/drain".into(),
                host: format!("{}:8000", application.address()),
                authorization: format!("Bearer {SECRET}"),
            }]
        );
    }
    assert_eq!(
        world.done,
        [
            "+pulse:draining-since",
            "grace 2147483647",
            "list",
            "secret"
        ]
    );
}

#[tokio::test]
async fn draining_again_keeps_the_mark_and_the_grace_period_and_asks_again() {
    let application = Application::with(1).await;
    let (_, world) = sweep(World::with(&[application.address()])).await;
    let (output, world) = sweep_at(LATER, world).await;
    assert_eq!(
        answers(&output.unwrap()),
        [(Answer::AlreadyDraining, Some(1))]
    );
    assert_eq!(world.done, ["list", "secret"]);
    assert_eq!(world.tags[tags::DRAINING_SINCE], "2025-10-27T12:30:00Z");
}

#[tokio::test]
async fn a_task_that_was_started_since_is_drained_by_the_next_sweep() {
    let [one, fresh] = [Application::with(1).await, Application::with(0).await];
    let (_, mut world) = sweep(World::with(&[one.address()])).await;
    let task = ("RUNNING".into(), Some(fresh.address().to_owned()));
    world.tasks.insert("t001".into(), task);
    let (output, _) = sweep_at(LATER, world).await;
    assert_eq!(
        answers(&output.unwrap()),
        [(Answer::AlreadyDraining, Some(1)), (Answer::Ok, Some(0))]
    );
    assert_eq!(fresh.asked().len(), 1);
}

#[tokio::test]
async fn drained_means_no_session_on_two_sweeps_in_a_row() {
    let application = Application::with(0).await;
    let (output, world) = sweep(World::with(&[application.address()])).await;
    assert_eq!(output.unwrap().verdict, Verdict::Draining);
    assert_eq!(world.tags[tags::IDLE_SINCE], "2025-10-27T12:30:00Z");
    // Somebody came back: begin again.
    application.says(2);
    let (output, world) = sweep_at(LATER, world).await;
    assert_eq!(output.unwrap().verdict, Verdict::Draining);
    assert!(!world.tags.contains_key(tags::IDLE_SINCE));
    application.says(0);
    let (output, world) = sweep_at(LATER, world).await;
    assert_eq!(output.unwrap().verdict, Verdict::Draining);
    let (output, world) = sweep_at(LATER + defaults::SWEEPS_APART, world).await;
    assert_eq!(output.unwrap().verdict, Verdict::Drained);
    // And again, after that answer was lost.
    let (output, _) = sweep_at(LATER + defaults::SWEEPS_APART, world).await;
    assert_eq!(output.unwrap().verdict, Verdict::Drained);
}

#[tokio::test]
async fn a_sweep_that_is_run_again_at_once_counts_once() {
    let application = Application::with(0).await;
    let (_, world) = sweep(World::with(&[application.address()])).await;
    let (output, world) = sweep_at(NOW + time::Duration::seconds(2), world).await;
    assert_eq!(output.unwrap().verdict, Verdict::Draining);
    assert_eq!(world.tags[tags::IDLE_SINCE], "2025-10-27T12:30:00Z");
}

#[tokio::test]
async fn an_idle_mark_that_is_no_time_is_written_anew() {
    let application = Application::with(0).await;
    for mark in [
        "long ago",
        "",
        "2025-02-30T12:00:00Z",
        "2025-10-27T12:30:01Z",
        "9999-12-31T23:59:59Z",
    ] {
        let world = World::with(&[application.address()]).tagged(tags::IDLE_SINCE, mark);
        let (output, world) = sweep(world).await;
        assert_eq!(output.unwrap().verdict, Verdict::Draining, "{mark}");
        assert_eq!(world.tags[tags::IDLE_SINCE], "2025-10-27T12:30:00Z");
    }
}

#[tokio::test]
async fn a_task_that_serves_nobody_any_more_is_idle() {
    let [one, two] = [
        Application::answering(503, "{}").await,
        Application::with(0).await,
    ];
    let world = World::with(&[one.address(), two.address()]);
    let (output, world) = sweep(world).await;
    assert_eq!(
        answers(&output.unwrap()),
        [(Answer::Unavailable, None), (Answer::Ok, Some(0))]
    );
    let (output, _) = sweep_at(LATER, world).await;
    assert_eq!(output.unwrap().verdict, Verdict::Drained);
}

#[tokio::test]
async fn a_deployment_without_tasks_is_drained_at_once_and_needs_no_secret() {
    for service in ["none", "no tasks", "being deleted"] {
        let mut world = World::with(&[]);
        match service {
            "none" => world.service = None,
            "being deleted" => {
                world.tasks = World::with(&["127.0.0.1"]).tasks;
                world.service.as_mut().unwrap().status = Some("DRAINING".into());
            }
            _ => (),
        }
        world.secret = None;
        let (output, world) = sweep(world).await;
        let output = output.unwrap();
        assert_eq!(output.verdict, Verdict::Drained, "{service}");
        assert!(output.tasks.is_empty());
        let (output, _) = sweep(world).await;
        assert_eq!(output.unwrap().verdict, Verdict::Drained, "{service}");
    }
}

#[tokio::test]
async fn what_does_not_say_how_many_are_left_is_reported_and_keeps_the_deployment() {
    for (status, body, answer) in [
        (404, "", Answer::NoDrainEndpoint),
        (405, "", Answer::NoDrainEndpoint),
        (401, "", Answer::Unauthorized),
        (403, "", Answer::Unauthorized),
        (500, "", Answer::Unexpected),
        (302, "", Answer::Unexpected),
        (200, "drained", Answer::Unexpected),
        (200, r#"{"status": "ok"}"#, Answer::Unexpected),
        (200, r#"{"activeSessions": -1}"#, Answer::Unexpected),
        (200, r#"["ok", 0]"#, Answer::Unexpected),
    ] {
        let application = Application::answering(status, body).await;
        let mut world = World::with(&[application.address()]);
        for now in [NOW, LATER] {
            let (output, end) = sweep_at(now, world).await;
            world = end;
            let output = output.unwrap();
            assert_eq!(output.verdict, Verdict::Draining, "{status} {body}");
            assert_eq!(answers(&output), [(answer, None)], "{status} {body}");
            assert!(
                output.reason.contains("t000") && output.reason.contains("deadline"),
                "{}",
                output.reason
            );
        }
        assert!(!world.tags.contains_key(tags::IDLE_SINCE));
    }
}

#[tokio::test]
async fn any_number_of_sessions_can_be_counted() {
    let [one, two] = [
        Application::with(u64::MAX).await,
        Application::with(2).await,
    ];
    let (output, _) = sweep(World::with(&[one.address(), two.address()])).await;
    let output = output.unwrap();
    assert_eq!(output.verdict, Verdict::Draining);
    assert_eq!(output.reason, "18446744073709551615 sessions on 2 tasks");
}

#[tokio::test]
async fn an_answer_without_end_is_not_read_to_the_end() {
    let application = Application::answering(200, &"x".repeat(1024 * 1024)).await;
    let (output, _) = sweep(World::with(&[application.address()])).await;
    assert_eq!(answers(&output.unwrap()), [(Answer::Unreachable, None)]);
}

#[tokio::test]
async fn a_task_that_is_not_there_or_hangs_holds_up_no_other() {
    let idle = Application::with(0).await;
    let hanging = [Application::hanging().await, Application::hanging().await];
    let nobody = address_of_nobody();
    let world = World::with(&[
        hanging[0].address(),
        hanging[1].address(),
        &nobody,
        idle.address(),
    ]);
    let began = std::time::Instant::now();
    let (output, _) = sweep(world).await;
    assert!(began.elapsed() < 2 * defaults::DRAIN_TIMEOUT);
    let output = output.unwrap();
    assert_eq!(output.verdict, Verdict::Draining);
    assert_eq!(
        answers(&output),
        [
            (Answer::TimedOut, None),
            (Answer::TimedOut, None),
            (Answer::Unreachable, None),
            (Answer::Ok, Some(0))
        ]
    );
    assert!(
        output.tasks[2].detail.contains("refused"),
        "{}",
        output.tasks[2].detail
    );
}

#[tokio::test]
async fn a_task_that_does_not_run_yet_is_left_for_the_next_sweep() {
    let idle = Application::with(0).await;
    let mut world = World::with(&[idle.address()]);
    world
        .tasks
        .insert("t001".into(), ("PROVISIONING".into(), None));
    let (output, _) = sweep(world).await;
    let output = output.unwrap();
    assert_eq!(output.verdict, Verdict::Draining);
    assert_eq!(output.tasks[1].answer, Answer::Unreachable);
    assert!(output.reason.contains("PROVISIONING"), "{}", output.reason);
}

#[tokio::test]
async fn tasks_are_asked_past_every_page() {
    let application = Application::with(0).await;
    let addresses = vec![application.address(); 205];
    let (output, _) = sweep(World::with(&addresses)).await;
    let output = output.unwrap();
    assert!(
        output.reason.contains("no session on 205 tasks"),
        "{output:?}"
    );
    assert_eq!(application.asked().len(), 205);
}

#[tokio::test]
async fn a_thousand_tasks_are_asked_some_at_a_time_and_told_of_in_few_bytes() {
    let application = Application::with(0).await;
    let most = defaults::MAX_TASKS as usize;
    let mut world = World::with(&vec![application.address(); most]);
    // The last ones do not run yet, so that they say nothing of sessions.
    let waiting = 300;
    for (_, task) in world.tasks.iter_mut().skip(most - waiting) {
        *task = ("PROVISIONING".into(), None);
    }
    let (output, _) = sweep(world).await;
    let output = output.unwrap();
    assert_eq!(application.asked().len(), most - waiting);
    assert_eq!(output.verdict, Verdict::Draining);
    assert_eq!(output.tasks.len(), defaults::MAX_REPORTED_TASKS);
    // Those that keep it come first.
    assert!(output.tasks.iter().all(|task| !task.is_idle()));
    for words in ["0 sessions on 1000 tasks", "and 290 more", "drain deadline"] {
        assert!(output.reason.contains(words), "{}", output.reason);
    }
    let bytes = serde_json::to_string(&output).unwrap().len();
    // A tenth of what Step Functions takes as the data of a state.
    assert!(bytes < 262_144 / 10, "{bytes}");
}

/// What keeps a deployment from being drained, by the world that it is in.
fn kept() -> [Meanwhile; 3] {
    [
        ("active", |world| world.active = ID),
        ("protected", |world| {
            world.tags.insert(tags::PROTECTED.into(), String::new());
        }),
        ("rolled back to", |world| {
            let now = tags::timestamp(NOW);
            world.tags.insert(tags::RESTORING_SINCE.into(), now);
        }),
    ]
}

#[tokio::test]
async fn what_is_to_stay_is_refused_and_left_as_it_is() {
    for (why, act) in kept() {
        let application = Application::with(0).await;
        let mut world = World::with(&[application.address()]);
        act(&mut world);
        for _ in 0..2 {
            let (output, end) = sweep(world).await;
            world = end;
            assert_eq!(
                output.unwrap_err().name,
                ErrorName::DeploymentActive,
                "{why}"
            );
            assert!(world.done.is_empty(), "{why}: {:?}", world.done);
        }
        assert!(application.asked().is_empty(), "{why}");
    }
}

#[tokio::test]
async fn what_is_to_stay_since_the_mark_is_given_back_as_it_was() {
    for (why, act) in kept() {
        for after in [
            "+pulse:draining-since",
            "grace 2147483647",
            "list",
            "secret",
        ] {
            let application = Application::with(0).await;
            let mut world = World::with(&[application.address()]);
            world.meanwhile = Some((after, act));
            let (output, world) = sweep(world).await;
            let error = output.unwrap_err();
            assert_eq!(error.name, ErrorName::DeploymentActive, "{why} {after}");
            assert!(application.asked().is_empty(), "{why} {after}");
            assert!(!world.tags.contains_key(tags::DRAINING_SINCE));
            assert_eq!(world.grace(), Some(120));
        }
    }
}

#[tokio::test]
async fn a_rollback_that_meets_an_older_mark_finds_it_where_it_was() {
    // The rollback has to see it, or it would take drained tasks for fresh ones.
    let application = Application::with(0).await;
    let mut world =
        World::with(&[application.address()]).tagged(tags::DRAINING_SINCE, "2025-10-27T12:00:00Z");
    world.meanwhile = Some(("list", kept()[2].1));
    let (output, world) = sweep(world).await;
    assert_eq!(output.unwrap_err().name, ErrorName::DeploymentActive);
    assert_eq!(world.tags[tags::DRAINING_SINCE], "2025-10-27T12:00:00Z");
}

#[tokio::test]
async fn a_mark_of_a_rollback_that_died_long_ago_keeps_nothing() {
    let application = Application::with(0).await;
    let world =
        World::with(&[application.address()]).tagged(tags::RESTORING_SINCE, "2025-10-27T10:00:00Z");
    let (output, _) = sweep(world).await;
    assert_eq!(output.unwrap().verdict, Verdict::Draining);
}

#[tokio::test]
async fn a_lost_answer_changes_nothing_the_second_time() {
    for lost in [
        "+pulse:draining-since",
        "grace 2147483647",
        "+pulse:idle-since",
    ] {
        let application = Application::with(0).await;
        let mut world = World::with(&[application.address()]);
        world.loses = Some(lost);
        let (output, world) = sweep(world).await;
        assert_eq!(output.unwrap_err().name, ErrorName::Transient, "{lost}");
        let (output, world) = sweep_at(NOW + time::Duration::seconds(2), world).await;
        assert_eq!(output.unwrap().verdict, Verdict::Draining, "{lost}");
        assert!(!world.done.contains(&lost.to_owned()), "{:?}", world.done);
        for mark in [tags::DRAINING_SINCE, tags::IDLE_SINCE] {
            assert!(world.tags.contains_key(mark), "{lost}: {mark}");
        }
        assert_eq!(world.grace(), Some(i32::MAX));
    }
}

#[tokio::test]
async fn what_does_not_carry_our_tags_is_not_drained() {
    let application = Application::with(0).await;
    let mut world = World::with(&[application.address()]);
    world.tags.remove(tags::DEPLOYMENT_ID);
    let (output, world) = sweep(world).await;
    assert_eq!(output.unwrap_err().name, ErrorName::ResourceConflict);
    assert!(world.done.is_empty());

    let mut world = World::with(&[application.address()]);
    world.service.as_mut().unwrap().tags = None;
    let (output, world) = sweep(world).await;
    assert_eq!(output.unwrap_err().name, ErrorName::ResourceConflict);
    assert!(world.done.is_empty());
    assert!(application.asked().is_empty());
}

#[tokio::test]
async fn what_another_cleanup_has_deleted_is_gone_and_no_failure() {
    let delete: fn(&mut World) = |world| {
        world.tags.clear();
        world.service = None;
    };
    for after in ["the plan", "list", "secret"] {
        let application = Application::with(0).await;
        let mut world = World::with(&[application.address()]);
        match after {
            "the plan" => delete(&mut world),
            _ => world.meanwhile = Some((after, delete)),
        }
        let (output, _) = sweep(world).await;
        assert_eq!(output.unwrap().verdict, Verdict::Gone, "{after}");
        assert!(application.asked().is_empty(), "{after}");
    }

    // With its service still there, it is not gone: somebody has deleted the target group.
    let application = Application::with(0).await;
    let mut world = World::with(&[application.address()]);
    world.tags.clear();
    let (output, _) = sweep(world).await;
    assert_eq!(output.unwrap_err().name, ErrorName::ResourceConflict);
}

#[tokio::test]
async fn a_secret_that_is_missing_or_unusable_is_the_baselines_trouble() {
    for secret in [None, Some(String::new()), Some("two\nlines".to_owned())] {
        let application = Application::with(0).await;
        let mut world = World::with(&[application.address()]);
        world.secret = secret;
        let (output, _) = sweep(world).await;
        let error = output.unwrap_err();
        assert_eq!(error.name, ErrorName::Configuration);
        assert!(!error.message.contains("lines"), "{}", error.message);
        assert!(application.asked().is_empty());
    }
}

#[test]
fn the_answer_is_as_documented() {
    let output = Output {
        verdict: Verdict::Draining,
        reason: "3 sessions on 1 tasks".into(),
        tasks: vec![Report {
            task_id: "t1".into(),
            address: Some("10.0.0.1".into()),
            answer: Answer::AlreadyDraining,
            active_sessions: Some(3),
            detail: "HTTP 200".into(),
        }],
    };
    assert_eq!(
        serde_json::to_value(&output).unwrap(),
        serde_json::json!({
            "verdict": "draining",
            "reason": "3 sessions on 1 tasks",
            "tasks": [{
                "taskId": "t1", "address": "10.0.0.1", "answer": "alreadyDraining",
                "activeSessions": 3, "detail": "HTTP 200"
            }]
        })
    );
}
