mod application;

use super::*;
use application::{Application, Asked as Request};
use memory_aws::{MemoryAws, forward, group_arn};
use serde_json::{Value, json};

const ID: &str = "test-20251027-122112Z";
const OTHER: &str = "test-20251027-122111Z";
const DOMAIN: &str = "www.example.com";

/// A candidate with its rules, beside another deployment, with tasks at these addresses.
fn with(addresses: &[&str]) -> MemoryAws {
    let aws = MemoryAws::default();
    aws.with(|state| {
        for id in [OTHER, ID] {
            state.deploy(id, &[]);
        }
        state.activate(OTHER);
        for address in addresses {
            state.add_task(ID, address);
        }
        state.add_task(OTHER, "127.0.0.1");
    });
    aws
}

async fn test(aws: &MemoryAws, smoke: Value) -> Result<Output, StepError> {
    let clients = Clients {
        ecs: aws_sdk_ecs::Client::new(&aws.config()),
        elb: aws_sdk_elasticloadbalancingv2::Client::new(&aws.config()),
        http: task_requests::client(),
    };
    let config = Config {
        baseline: Baseline::for_tests(),
        domain: HeaderValue::from_static(DOMAIN),
    };
    let input =
        json!({"deploymentId": ID, "targetGroupArn": group_arn(ID), "smoke": smoke, "later": 1});
    run(&clients, &config, serde_json::from_value(input).unwrap()).await
}

fn front_page() -> Value {
    json!([{"path": "/", "status": 200, "contains": null}])
}

/// The reason of a test that failed.
async fn failed(aws: &MemoryAws, smoke: Value) -> String {
    let output = test(aws, smoke).await.unwrap();
    assert_eq!(output.verdict, Verdict::Failed, "{}", output.reason);
    output.reason
}

/// Why a test could not be judged.
async fn unanswered(aws: &MemoryAws, smoke: Value) -> String {
    let error = test(aws, smoke).await.unwrap_err();
    assert_eq!(error.name, ErrorName::Transient, "{error}");
    assert!(error.message.contains(ID), "{error}");
    error.message
}

#[tokio::test]
async fn every_task_is_asked_at_its_private_address_as_the_load_balancer_would() {
    let [one, two] = [(); 2].map(|()| Application::answering(200, "welcome"));
    let aws = with(&[one.address(), two.address()]);
    let smoke = json!([
        {"path": "/", "status": 200, "contains": "come"},
        {"path": "/up?full=1", "status": 200},
    ]);
    let output = test(&aws, smoke).await.unwrap();
    assert_eq!(output.verdict, Verdict::Passed, "{}", output.reason);
    assert_eq!(output.reason, "4 of 4 smoke tests were answered right");
    for application in [&one, &two] {
        let asked = |path: &str| Request {
            method: "GET".into(),
            path: path.into(),
            host: DOMAIN.into(),
            proto: "https".into(),
        };
        assert_eq!(application.asked(), [asked("/"), asked("/up?full=1")]);
    }
}

#[tokio::test]
async fn one_wrong_status_fails_with_path_task_and_what_was_answered() {
    let right = Application::answering(200, "welcome");
    let wrong = Application::answering(500, "\n \n  no\u{1b}[2J database\nat line 2");
    let aws = with(&[right.address(), wrong.address()]);
    let reason = failed(&aws, front_page()).await;
    assert_eq!(
        reason,
        r"GET / of task t2 answered 500, not 200; it begins: no\u{1b}[2J database"
    );
    let reason = failed(&aws, json!([{"path": "/", "status": 204}])).await;
    assert!(
        reason.starts_with("GET / of task t1 answered 200, not 204; it begins: welcome"),
        "{reason}"
    );
    assert!(reason.ends_with("; 1 more answers were wrong"), "{reason}");
}

#[tokio::test]
async fn a_long_or_empty_answer_is_shown_in_bounds() {
    let long = "x".repeat(100_000);
    for (body, words) in [(long.as_str(), "xx…xx"), ("", "; it is empty")] {
        let application = Application::answering(404, body);
        let reason = failed(&with(&[application.address()]), front_page()).await;
        assert!(reason.contains(words), "{reason}");
        assert!(reason.len() < 300, "{reason}");
    }
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let elsewhere = Application::answering(200, "welcome");
    let location = format!("http://{}:{}/", elsewhere.address(), defaults::PORT);
    let application = Application::redirecting(&location);
    let aws = with(&[application.address()]);
    let reason = failed(&aws, front_page()).await;
    assert!(reason.contains("answered 302, not 200"), "{reason}");
    let output = test(&aws, json!([{"path": "/", "status": 302}])).await;
    assert_eq!(output.unwrap().verdict, Verdict::Passed);
    assert_eq!(elsewhere.asked(), []);
}

#[tokio::test]
async fn the_text_is_found_within_the_first_64_kib_and_not_behind() {
    let smoke = || json!([{"path": "/", "status": 200, "contains": "end"}]);
    let filled = |bytes: usize| format!("{}end", "x".repeat(bytes - "end".len()));
    let application = Application::answering(200, &filled(65_536));
    let output = test(&with(&[application.address()]), smoke()).await;
    assert_eq!(output.unwrap().verdict, Verdict::Passed);
    let application = Application::answering(200, &filled(65_537));
    let reason = failed(&with(&[application.address()]), smoke()).await;
    assert!(
        reason.contains("answered 200 without `end` in its first 64 KiB; it begins: xx"),
        "{reason}"
    );
}

#[tokio::test]
async fn an_answer_that_does_not_end_is_read_only_as_far_as_it_matters() {
    let application = Application::streaming("begun");
    let aws = with(&[application.address()]);
    // Nothing of it is needed.
    let output = test(&aws, front_page()).await;
    assert_eq!(output.unwrap().verdict, Verdict::Passed);
    let smoke = json!([{"path": "/", "status": 200, "contains": "never"}]);
    let why = unanswered(&aws, smoke).await;
    assert!(why.contains("no answer within 5s"), "{why}");

    // Of one that goes on and on, the beginning decides.
    let application = Application::flooding("again and ");
    let smoke = |contains: &str| json!([{"path": "/", "status": 200, "contains": contains}]);
    let aws = with(&[application.address()]);
    let reason = failed(&aws, smoke("never")).await;
    assert!(
        reason.contains("in its first 64 KiB; it begins: again"),
        "{reason}"
    );
    let output = test(&aws, smoke("and again")).await;
    assert_eq!(output.unwrap().verdict, Verdict::Passed);
}

#[tokio::test]
async fn without_an_answer_nothing_is_judged_and_the_machine_asks_again() {
    let right = Application::answering(200, "welcome");
    let unused = memory_aws::socket_of_a_task(defaults::PORT).0.to_string();
    let why = unanswered(&with(&[right.address(), &unused]), front_page()).await;
    assert!(
        why.contains("1 of 2 smoke tests of test-20251027-122112Z had no answer: GET / of task t2"),
        "{why}"
    );

    // A wrong answer counts all the same.
    let wrong = Application::answering(503, "busy");
    let reason = failed(&with(&[&unused, wrong.address()]), front_page()).await;
    assert!(reason.contains("t2 answered 503"), "{reason}");

    let hanging = Application::hanging();
    let why = unanswered(&with(&[hanging.address()]), front_page()).await;
    assert!(why.contains("no answer within 5s"), "{why}");

    let aws = with(&[right.address()]);
    aws.with(|state| state.tasks[0]["lastStatus"] = "PENDING".into());
    let why = unanswered(&aws, front_page()).await;
    assert!(why.contains("the task is PENDING"), "{why}");

    let why = unanswered(&with(&["tasks.example.com"]), front_page()).await;
    assert!(why.contains("is not an IPv4 address"), "{why}");
    let why = unanswered(&with(&[]), front_page()).await;
    assert!(why.contains("no running task"), "{why}");
}

#[tokio::test]
async fn the_first_wrong_test_ends_the_tests() {
    let application = Application::answering(200, "welcome");
    let addresses = vec![application.address(); defaults::TASKS_ASKED_AT_ONCE];
    let aws = with(&addresses);
    let smoke = json!([{"path": "/wrong", "status": 404}, {"path": "/later", "status": 200}]);
    let reason = failed(&aws, smoke).await;
    assert!(reason.contains("; 249 more answers were wrong"), "{reason}");
    let asked = application.asked();
    assert_eq!(asked.len(), defaults::TASKS_ASKED_AT_ONCE);
    assert!(asked.iter().all(|it| it.path == "/wrong"));
}

#[tokio::test]
async fn rules_that_do_not_lead_to_the_candidate_alone_are_named_and_nobody_is_asked() {
    let application = Application::answering(200, "welcome");
    type Change = fn(&mut memory_aws::Rule);
    let changes: [(&str, Change); 3] = [
        ("header", |rule| rule.actions = vec![forward(&[(OTHER, 1)])]),
        ("cookie", |rule| {
            rule.actions = vec![forward(&[(ID, 1), (OTHER, 1)])];
        }),
        ("cookie", |rule| {
            rule.conditions = json!([{
                "Field": "http-header",
                "HttpHeaderConfig": {"HttpHeaderName": "Cookie", "Values": ["*other*"]},
            }]);
        }),
    ];
    for (affinity, change) in changes {
        let aws = with(&[application.address()]);
        aws.with(|state| {
            let is_it = |rule: &&mut memory_aws::Rule| {
                let of_it = forward(&[(ID, 1)]);
                rule.actions == [of_it] && (rule.priority >= 20_100) == (affinity == "cookie")
            };
            change(state.rules.iter_mut().find(is_it).unwrap());
        });
        let why = unanswered(&aws, front_page()).await;
        assert!(why.contains(&format!("no {affinity} rule")), "{why}");
        assert!(why.contains(&group_arn(ID)), "{why}");
    }
    assert_eq!(application.asked(), []);
}

#[tokio::test]
async fn what_aws_refuses_is_named() {
    for (operation, name) in [
        ("DescribeRules", ErrorName::AccessDenied),
        ("ListTasks", ErrorName::AccessDenied),
    ] {
        let aws = with(&[]);
        aws.on(operation).fails("AccessDenied");
        assert_eq!(test(&aws, front_page()).await.unwrap_err().name, name);
    }
}

#[tokio::test]
async fn tests_that_take_too_long_together_say_so() {
    let mut asked = Asked {
        right: 3,
        ..Asked::default()
    };
    let id: DeploymentId = ID.parse().unwrap();
    let error = std::mem::take(&mut asked).judge(&id, 8, false).unwrap_err();
    assert_eq!(error.name, ErrorName::Transient);
    assert!(
        error.message.contains("3 of 8 smoke tests after 30s"),
        "{error}"
    );
}

#[test]
fn the_domain_is_required_and_can_be_a_host() {
    let read = |domain: &str| {
        Config::read(|name| match name {
            "DOMAIN_NAME" => Some(domain.to_owned()),
            "HEALTH_TIMEOUT_SECONDS" | "WATCH_SECONDS" => None,
            _ => Some("test".to_owned()),
        })
    };
    assert_eq!(read(DOMAIN).unwrap().domain, DOMAIN);
    for domain in ["", "a\nb"] {
        let error = read(domain).unwrap_err();
        assert_eq!(error.name, ErrorName::Configuration);
        assert!(error.message.contains("DOMAIN_NAME"), "{error}");
    }
}
