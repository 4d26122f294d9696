//! The record of calls, and the faults that are injected into them.

use crate::cloud::{self, Balancer, code, ecs, elbv2, names, root, user_with_policy};
use localcloud::gateway::faults::{Fault, FaultRule};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn each_call_is_recorded_with_its_caller_and_its_status() {
    let cloud = cloud::start().await;
    let policy = json!({"Statement": [{"Effect": "Allow", "Action": "elasticloadbalancing:Describe*", "Resource": "*"}]});
    let reader = elbv2(&cloud, user_with_policy(&cloud, "reader", &policy).await);
    reader
        .describe_load_balancers()
        .send()
        .await
        .expect("allowed");
    let denied = reader
        .create_load_balancer()
        .name("x")
        .subnets("s")
        .send()
        .await;
    assert_eq!(code(&denied.expect_err("not allowed")), "AccessDenied");

    let calls = cloud.calls().all();
    let seen: Vec<_> = calls
        .iter()
        .map(|c| (c.operation.as_str(), c.status, c.caller.as_str()))
        .collect();
    let reader = "arn:aws:iam::000000000000:user/reader";
    assert_eq!(
        seen,
        [
            ("DescribeLoadBalancers", Some(200), reader),
            ("CreateLoadBalancer", Some(403), reader)
        ]
    );
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_hit_the_calls_they_name() {
    let cloud = cloud::start().await;
    let client = elbv2(&cloud, root());
    let describe = || client.describe_load_balancers().send();
    let fault = |fault| {
        cloud.faults().add(FaultRule::next(
            "elasticloadbalancing",
            "DescribeLoadBalancers",
            fault,
        ))
    };
    for (kind, expected) in [
        (Fault::Throttled, "ThrottlingException"),
        (Fault::InternalError, "InternalFailure"),
        (Fault::Unavailable, "ServiceUnavailable"),
        (Fault::AccessDenied, "AccessDenied"),
        (Fault::ConnectionReset, "no answer"),
    ] {
        fault(kind);
        assert_eq!(
            code(&describe().await.expect_err("a fault")),
            expected,
            "{kind:?}"
        );
        describe().await.expect("the next call succeeds");
        cloud.faults().clear();
    }
    let tasks = ecs(&cloud, root());
    cloud
        .faults()
        .add(FaultRule::next("ecs", "ListClusters", Fault::Throttled));
    let throttled = tasks.list_clusters().send().await;
    assert_eq!(
        code(&throttled.expect_err("a fault")),
        "ThrottlingException"
    );

    fault(Fault::Slow { milliseconds: 300 });
    let started = std::time::Instant::now();
    describe().await.expect("late, but answered");
    assert!(started.elapsed() >= std::time::Duration::from_millis(300));
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_change_takes_effect_although_its_caller_has_given_up() {
    let cloud = cloud::start().await;
    let client = elbv2(&cloud, root());
    let create = FaultRule::next(
        "elasticloadbalancing",
        "CreateLoadBalancer",
        Fault::Slow { milliseconds: 300 },
    );
    cloud.faults().add(create);
    let given_up = client
        .create_load_balancer()
        .name("main")
        .subnets("s")
        .send();
    let patience = std::time::Duration::from_millis(50);
    tokio::time::timeout(patience, given_up)
        .await
        .expect_err("the caller gives up first");
    loop {
        let read = client.describe_load_balancers().send().await;
        if names(read.expect("answered").load_balancers()) == ["main"] {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_answer_is_lost_took_effect() {
    let cloud = cloud::start().await;
    let client = elbv2(&cloud, root());
    cloud.faults().add(FaultRule::next(
        "elasticloadbalancing",
        "CreateLoadBalancer",
        Fault::AnswerLost,
    ));
    let lost = client
        .create_load_balancer()
        .name("main")
        .subnets("s")
        .send()
        .await;
    assert_eq!(code(&lost.expect_err("lost")), "no answer");
    let read = client
        .describe_load_balancers()
        .send()
        .await
        .expect("answered");
    assert_eq!(names(read.load_balancers()), ["main"]);
    assert_eq!(cloud.calls().all()[0].status, None);
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_read_shows_the_state_before_the_last_change() {
    let cloud = cloud::start().await;
    let balancer = Balancer::create(&cloud).await;
    let read = || async {
        let rules = balancer
            .client
            .describe_rules()
            .listener_arn(&balancer.listener)
            .send()
            .await;
        rules.expect("answered").rules().len()
    };
    assert_eq!(read().await, 1);
    let group = balancer.target_group("a").await;
    balancer.rule(1, &group).await.expect("created");
    cloud.faults().add(FaultRule::next(
        "elasticloadbalancing",
        "DescribeRules",
        Fault::StaleRead,
    ));
    assert_eq!(read().await, 1, "stale");
    assert_eq!(read().await, 2);
    cloud.stop().await;
}
