//! CloudWatch, as functions read it and operators set it. The SDKs call it in CBOR, the AWS CLI in JSON.

use std::net::SocketAddr;
use std::time::Duration;

use aws_sdk_cloudwatch::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_cloudwatch::primitives::DateTime;
use aws_sdk_cloudwatch::types::{
    AlarmType, Dimension, Metric, MetricDataQuery, MetricDatum, MetricStat, ScanBy, StateValue,
    StatusCode,
};
use axum::Router;
use axum::routing::get;
use localcloud::cloudwatch::PublicationDelay;
use localcloud::gateway::faults::{Fault, FaultRule};
use localcloud::{LocalCloud, Options};
use serde_json::json;
use time::OffsetDateTime;
use tokio::net::TcpListener;

use crate::cloud::{self, Balancer, aws, cloudwatch, root, user_with_policy};

/// The code of a service error.
fn code<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> &str {
    let service = error.as_service_error().expect("an answer");
    service.code().expect("a code")
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_cloudwatch_are_recorded_and_faults_hit_them() {
    let cloud = cloud::start().await;
    let client = cloudwatch(&cloud, root());
    let describe = [
        "cloudwatch",
        "describe-alarms",
        "--query",
        "length(MetricAlarms)",
    ];
    let in_json = async || aws(&cloud, &root(), &describe).await;
    for (fault, expected) in [
        (Fault::Throttled, "ThrottlingException"),
        (Fault::InternalError, "InternalServiceError"),
        (Fault::Unavailable, "ServiceUnavailable"),
        (Fault::AccessDenied, "AccessDenied"),
    ] {
        let rule = FaultRule::next("monitoring", "DescribeAlarms", fault);
        cloud.faults().add(rule.clone());
        let in_cbor = client.describe_alarms().send().await;
        assert_eq!(code(&in_cbor.expect_err("the fault")), expected);
        cloud.faults().add(rule);
        let error = in_json().await.expect_err("the fault");
        assert!(
            error.contains(&format!("({expected})")),
            "{expected}: {error}"
        );
    }
    client.describe_alarms().send().await.expect("answered");
    assert_eq!(in_json().await, Ok("0".to_owned()));
    let calls = cloud.calls().all();
    let seen: Vec<_> = calls
        .iter()
        .map(|call| (call.service.as_str(), call.operation.as_str(), call.status))
        .collect();
    let described = |status| ("monitoring", "DescribeAlarms", Some(status));
    let statuses = [400, 400, 500, 500, 503, 503, 403, 403, 200, 200];
    assert_eq!(seen, statuses.map(described));
    for call in &calls[8..] {
        assert_eq!(call.caller, "arn:aws:iam::000000000000:root");
    }
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_needs_permission_for_all_of_cloudwatch_and_a_change_for_its_alarm() {
    let cloud = cloud::start().await;
    let alarm = |name: &str| format!("arn:aws:cloudwatch:us-east-1:000000000000:alarm:{name}");
    let allow = |action: &str, resource: &str| json!({"Effect": "Allow", "Action": format!("cloudwatch:{action}"), "Resource": resource});
    let put = |name: &'static str| {
        [
            "put-metric-alarm",
            "--alarm-name",
            name,
            "--namespace",
            "Team",
            "--metric-name",
            "Errors",
            "--statistic",
            "Sum",
            "--period",
            "60",
            "--evaluation-periods",
            "1",
            "--threshold",
            "1",
            "--comparison-operator",
            "GreaterThanThreshold",
        ]
    };
    let set = |name: &'static str| {
        let state = ["--state-value", "ALARM", "--state-reason", "a test"];
        [&["set-alarm-state", "--alarm-name", name][..], &state].concat()
    };
    let describe = ["describe-alarms", "--alarm-names", "ours"];
    let delete = ["delete-alarms", "--alarm-names", "ours", "theirs"];
    let queries = r#"[{"Id": "a", "MetricStat": {"Period": 60, "Stat": "Sum",
        "Metric": {"Namespace": "Team", "MetricName": "Errors"}}}]"#;
    let times = [
        "--start-time",
        "2026-01-01T00:00:00Z",
        "--end-time",
        "2026-01-01T01:00:00Z",
    ];
    let metrics = [
        &["get-metric-data", "--metric-data-queries", queries][..],
        &times,
    ]
    .concat();

    let reader = [allow("DescribeAlarms", "*"), allow("GetMetricData", "*")];
    let narrow = [
        allow("DescribeAlarms", &alarm("ours")),
        allow("PutMetricAlarm", &alarm("ours")),
        allow("SetAlarmState", &alarm("ours")),
        allow("DeleteAlarms", &alarm("ours")),
    ];
    let reader = user_with_policy(&cloud, "reader", &json!({"Statement": reader})).await;
    let narrow = user_with_policy(&cloud, "narrow", &json!({"Statement": narrow})).await;
    for name in ["ours", "theirs"] {
        let arguments = [&["cloudwatch"][..], &put(name)].concat();
        aws(&cloud, &root(), &arguments).await.expect("created");
    }
    for (who, allowed) in [(&reader, true), (&narrow, false)] {
        let described = cloudwatch(&cloud, who.clone())
            .describe_alarms()
            .alarm_names("ours")
            .send()
            .await;
        let refused = described.as_ref().err().map(code);
        assert_eq!(refused, (!allowed).then_some("AccessDenied"));
    }
    for (who, arguments, refused) in [
        (&reader, &describe[..], None),
        (&reader, &metrics, None),
        (&reader, &set("ours"), Some("SetAlarmState")),
        (&narrow, &describe, Some("DescribeAlarms")),
        (&narrow, &metrics, Some("GetMetricData")),
        (&narrow, &put("ours"), None),
        (&narrow, &put("theirs"), Some("PutMetricAlarm")),
        (&narrow, &set("ours"), None),
        (&narrow, &set("theirs"), Some("SetAlarmState")),
        (&narrow, &delete, Some("DeleteAlarms")),
    ] {
        let arguments = [&["cloudwatch"][..], arguments].concat();
        let answer = aws(&cloud, who, &arguments).await;
        match refused {
            None => assert!(answer.is_ok(), "{arguments:?}: {answer:?}"),
            Some(action) => {
                let error = answer.expect_err("refused");
                let part = format!("not authorized to perform: cloudwatch:{action}");
                assert!(error.contains("(AccessDenied)"), "{error}");
                assert!(error.contains(&part), "{error}");
            }
        }
    }
    cloud.stop().await;
}

/// The query for the sum of a metric of the namespace `Team` in each minute.
fn sum_of(id: &str, metric: &str) -> MetricDataQuery {
    let metric = Metric::builder().namespace("Team").metric_name(metric);
    let statistic = MetricStat::builder()
        .metric(metric.build())
        .period(60)
        .stat("Sum");
    MetricDataQuery::builder()
        .id(id)
        .metric_stat(statistic.build())
        .build()
}

#[tokio::test(flavor = "multi_thread")]
async fn data_is_read_newest_first_from_the_minute_of_the_start_to_before_the_end() {
    let cloud = cloud::start().await;
    let client = cloudwatch(&cloud, root());
    // MiniStack forgets what is two weeks old.
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let minute = |number: i64| DateTime::from_secs((now / 60 - 10 + number) * 60);
    for number in 0..4_i32 {
        let datum = MetricDatum::builder()
            .metric_name("Errors")
            .timestamp(minute(number.into()))
            .value(number.into());
        let put = client.put_metric_data().namespace("Team");
        let put = put.metric_data(datum.build());
        put.send().await.expect("stored");
    }
    let read = |id: &str, start: DateTime, end: DateTime, order: Option<ScanBy>| {
        client
            .get_metric_data()
            .metric_data_queries(sum_of(id, "Errors"))
            .metric_data_queries(sum_of("none", "Others"))
            .start_time(start)
            .end_time(end)
            .set_scan_by(order)
            .send()
    };
    let late = DateTime::from_secs(minute(1).secs() + 59);
    for (order, values, numbers) in [
        (None, [2.0, 1.0], [2, 1]),
        (Some(ScanBy::TimestampAscending), [1.0, 2.0], [1, 2]),
    ] {
        let answer = read("a", late, minute(3), order).await.expect("read");
        let [errors, others] = answer.metric_data_results() else {
            panic!("{answer:?}");
        };
        assert_eq!(errors.values(), values);
        assert_eq!(errors.timestamps(), numbers.map(minute));
        assert!(others.values().is_empty(), "{others:?}");
        for result in [errors, others] {
            assert_eq!(result.status_code(), Some(&StatusCode::Complete));
        }
    }
    for id in ["A", "1", "a-b", "none"] {
        let refused = read(id, late, minute(3), None).await.expect_err(id);
        assert_eq!(code(&refused), "ValidationError");
    }
    // In JSON it is the same.
    let queries = r#"[{"Id": "a", "MetricStat": {"Period": 60, "Stat": "Sum",
        "Metric": {"Namespace": "Team", "MetricName": "Errors"}}}]"#;
    let [start, end] = [late, minute(4)].map(|time| time.secs().to_string());
    let arguments = [
        "cloudwatch",
        "get-metric-data",
        "--query",
        "MetricDataResults[0].Values",
        "--metric-data-queries",
        queries,
        "--start-time",
        &start,
        "--end-time",
        &end,
    ];
    let read = aws(&cloud, &root(), &arguments).await;
    assert_eq!(read, Ok("3.0\t2.0\t1.0".to_owned()));
    cloud.stop().await;
}

/// The state of an alarm, and when it changed, in seconds since 1970.
async fn state(client: &aws_sdk_cloudwatch::Client, name: &str) -> (StateValue, f64) {
    let described = client.describe_alarms().alarm_names(name).send().await;
    let described = described.expect("described");
    let [alarm] = described.metric_alarms() else {
        panic!("{described:?}");
    };
    let changed = alarm.state_transitioned_timestamp().expect("a time");
    let state = alarm.state_value().expect("a state").clone();
    (state, changed.as_secs_f64())
}

fn now() -> f64 {
    OffsetDateTime::now_utc().unix_timestamp_nanos() as f64 / 1e9
}

/// Creates an alarm with the AWS CLI: more than one error in each of two minutes.
async fn put_alarm(cloud: &LocalCloud, name: &str, dimension: &str) {
    let arguments = format!(
        "cloudwatch put-metric-alarm --alarm-name {name} --namespace Team --metric-name Errors \
         --dimensions Name=Group,Value={dimension} --statistic Sum --period 60 --evaluation-periods 2 \
         --threshold 1 --comparison-operator GreaterThanThreshold --treat-missing-data notBreaching"
    );
    let arguments: Vec<_> = arguments.split_whitespace().collect();
    aws(cloud, &root(), &arguments).await.expect("created");
}

/// Sets the state of an alarm with the AWS CLI.
async fn set_state(cloud: &LocalCloud, name: &str, state: &str) -> Result<String, String> {
    let arguments = format!(
        "cloudwatch set-alarm-state --alarm-name {name} --state-value {state} --state-reason test"
    );
    let arguments: Vec<_> = arguments.split_whitespace().collect();
    aws(cloud, &root(), &arguments).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_of_an_alarm_that_somebody_sets_stays_and_its_change_has_a_time() {
    let cloud = cloud::start().await;
    let client = cloudwatch(&cloud, root());
    let before = now();
    put_alarm(&cloud, "errors", "a").await;
    let (created, at) = state(&client, "errors").await;
    assert_eq!(created, StateValue::InsufficientData);
    assert!(at >= before, "{at} < {before}");

    let before = now();
    set_state(&cloud, "errors", "ALARM").await.expect("set");
    let (set, at) = state(&client, "errors").await;
    assert_eq!(set, StateValue::Alarm);
    assert!(at >= before, "{at} < {before}");
    // Neither the same state again nor an update of the alarm is a change.
    set_state(&cloud, "errors", "ALARM").await.expect("set");
    assert_eq!(state(&client, "errors").await, (StateValue::Alarm, at));
    put_alarm(&cloud, "errors", "a").await;
    assert_eq!(state(&client, "errors").await, (StateValue::Alarm, at));
    set_state(&cloud, "errors", "OK").await.expect("set");
    let (set, later) = state(&client, "errors").await;
    assert_eq!(set, StateValue::Ok);
    assert!(later > at, "{later} <= {at}");
    let unknown = set_state(&cloud, "missing", "OK").await;
    assert!(unknown.expect_err("unknown").contains("(ResourceNotFound)"));
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn alarms_of_one_type_only_are_described_and_unknown_names_are_left_out() {
    let cloud = cloud::start().await;
    let client = cloudwatch(&cloud, root());
    put_alarm(&cloud, "errors", "a").await;
    let put = client.put_composite_alarm().alarm_name("all");
    let put = put.alarm_rule("ALARM(errors)").send().await;
    put.expect("created");
    set_state(&cloud, "errors", "ALARM").await.expect("set");
    let described = async |types: &[AlarmType]| {
        let named = ["missing", "errors", "all"].map(str::to_owned).to_vec();
        let described = client
            .describe_alarms()
            .set_alarm_names(Some(named))
            .set_alarm_types(Some(types.to_vec()))
            .send()
            .await
            .expect("described");
        let metric = described.metric_alarms().iter();
        let metric = metric.map(|it| (it.alarm_name(), it.state_value()));
        let composite = described.composite_alarms().iter();
        let composite = composite.map(|it| (it.alarm_name(), it.state_value()));
        let own = |(name, state): (Option<&str>, Option<&StateValue>)| {
            (name.map(str::to_owned), state.cloned())
        };
        metric.chain(composite).map(own).collect::<Vec<_>>()
    };
    let alarm = |name: &str| (Some(name.to_owned()), Some(StateValue::Alarm));
    let (metric, composite) = (AlarmType::MetricAlarm, AlarmType::CompositeAlarm);
    assert_eq!(described(&[]).await, [alarm("errors")]);
    assert_eq!(
        described(std::slice::from_ref(&composite)).await,
        [alarm("all")]
    );
    let both = described(&[metric, composite]).await;
    assert_eq!(both, [alarm("errors"), alarm("all")]);
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_is_evaluated_on_new_data_with_exactly_its_dimensions() {
    let cloud = cloud::start().await;
    let client = cloudwatch(&cloud, root());
    put_alarm(&cloud, "errors", "a").await;
    let minute = OffsetDateTime::now_utc().unix_timestamp() / 60;
    let count = async |group: &str, number: i64, value: f64| {
        let group = Dimension::builder().name("Group").value(group).build();
        let datum = MetricDatum::builder()
            .metric_name("Errors")
            .dimensions(group)
            .timestamp(DateTime::from_secs((minute - 10 + number) * 60))
            .value(value);
        let put = client.put_metric_data().namespace("Team");
        put.metric_data(datum.build()).send().await.expect("stored");
        state(&client, "errors").await.0
    };
    assert_eq!(count("b", 0, 9.0).await, StateValue::InsufficientData);
    assert_eq!(count("b", 1, 9.0).await, StateValue::InsufficientData);
    assert_eq!(count("a", 1, 2.0).await, StateValue::Ok);
    assert_eq!(count("a", 2, 1.0).await, StateValue::Ok);
    // Of one minute, the sum counts.
    assert_eq!(count("a", 2, 1.0).await, StateValue::Alarm);
    set_state(&cloud, "errors", "OK").await.expect("set");
    assert_eq!(count("b", 3, 9.0).await, StateValue::Ok);
    assert_eq!(count("a", 3, 2.0).await, StateValue::Alarm);
    // The minute before this one is missing.
    assert_eq!(count("a", 5, 9.0).await, StateValue::Ok);
    cloud.stop().await;
}

/// The application behind the load balancer, on a free port.
async fn application() -> SocketAddr {
    let failing = get(|| async { axum::http::StatusCode::INTERNAL_SERVER_ERROR });
    let router = Router::new()
        .route("/fails", failing)
        .fallback(|| async { "fine" });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn load_balancers_publish_the_requests_of_each_minute_after_a_delay() {
    let delay = Duration::from_secs(3);
    let cloud = cloud::start_with(Options {
        publication_delay: PublicationDelay(delay),
        ..Options::default()
    })
    .await;
    let balancer = Balancer::create(&cloud).await;
    let group = balancer.target_group("a").await;
    balancer.rule(1, &group).await.expect("created");
    let address = application().await;
    let targets = cloud.targets();
    targets.register(&group, address.ip(), address.port(), "us-east-1a");
    while targets.health(&group)[0].state != "healthy" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let url = format!("http://127.0.0.1:{}", cloud.load_balancer().http_port());
    let http = cloud::http();
    let request = async |path: &str| {
        let sent = http
            .get(format!("{url}{path}"))
            .header("X-Pulse-Render-Affinity", "1");
        sent.send()
            .await
            .ok()
            .map(|answer| answer.status().as_u16())
    };
    // The listener begins before the rule, and answers 503 itself until then.
    let (mut own, mut status) = (0.0, None);
    while status != Some(200) {
        status = request("/").await;
        own += f64::from(status == Some(503));
    }
    assert_eq!(request("/fails").await, Some(500));
    assert_eq!(request("/fails").await, Some(500));

    let dimension = |name: &str, value: &str| {
        let dimension = Dimension::builder().name(name);
        dimension.value(value).build()
    };
    let (_, of_balancer) = balancer.arn.split_once("loadbalancer/").expect("an ARN");
    let (_, of_group) = group.rsplit_once(':').expect("an ARN");
    let of_balancer = dimension("LoadBalancer", of_balancer);
    let of_group = dimension("TargetGroup", of_group);
    let query = |number: usize, name: &str, dimensions: &[&Dimension]| {
        let metric = Metric::builder()
            .namespace("AWS/ApplicationELB")
            .metric_name(name)
            .set_dimensions(Some(dimensions.iter().copied().cloned().collect()));
        let statistic = MetricStat::builder()
            .metric(metric.build())
            .period(60)
            .stat("Sum");
        MetricDataQuery::builder()
            .id(format!("q{number}"))
            .metric_stat(statistic.build())
            .build()
    };
    let all = [&of_balancer];
    let one = [&of_group, &of_balancer];
    let expected = [
        ("RequestCount", &one[..], 3.0),
        ("RequestCount", &all, 3.0),
        ("HTTPCode_Target_5XX_Count", &one, 2.0),
        ("HTTPCode_Target_5XX_Count", &all, 2.0),
        ("HTTPCode_ELB_5XX_Count", &all, own),
        ("HTTPCode_ELB_503_Count", &all, own),
        ("HTTPCode_ELB_502_Count", &all, 0.0),
        ("HTTPCode_ELB_504_Count", &all, 0.0),
        ("HTTPCode_ELB_5XX_Count", &one, 0.0),
        ("TargetConnectionErrorCount", &one, 0.0),
    ];
    let queries = (0..).zip(expected);
    let queries = queries.map(|(number, (name, dimensions, _))| query(number, name, dimensions));
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let reader = cloudwatch(&cloud, root());
    let read = reader
        .get_metric_data()
        .set_metric_data_queries(Some(queries.collect()))
        .start_time(DateTime::from_secs(now - 600))
        .end_time(DateTime::from_secs(now + 600));
    loop {
        let answer = read.clone().send().await.expect("read");
        let results = answer.metric_data_results();
        let sums: Vec<f64> = results.iter().map(|it| it.values().iter().sum()).collect();
        let after = OffsetDateTime::now_utc().unix_timestamp();
        for result in results {
            // What is zero is not published.
            assert!(!result.values().contains(&0.0), "{result:?}");
            for timestamp in result.timestamps() {
                assert_eq!(timestamp.secs() % 60, 0);
                let published = timestamp.secs() + 60 + 3;
                assert!(published <= after, "{result:?} at {after}");
            }
        }
        // The requests may be of two minutes.
        if sums[0] >= 3.0 {
            assert_eq!(sums, expected.map(|(_, _, sum)| sum));
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    cloud.stop().await;
}
