//! Parameter Store, as functions and ECS read it.

use aws_sdk_ecs::config::Credentials;
use localcloud::LocalCloud;
use localcloud::gateway::faults::{Fault, FaultRule};
use serde_json::{Value, json};

use crate::cloud::{self, user_with_policy};

async fn ssm(cloud: &LocalCloud, operation: &str, body: Value) -> Result<Value, (String, String)> {
    let target = format!("AmazonSSM.{operation}");
    let answer = cloud.client().json("ssm", &target, body).await;
    answer.map_err(|error| (error.code, error.message))
}

async fn put(cloud: &LocalCloud, name: &str, value: &str) {
    let body = json!({"Name": name, "Value": value, "Type": "String"});
    ssm(cloud, "PutParameter", body).await.expect("stored");
}

/// Calls Parameter Store with the AWS CLI. Returns what it prints.
async fn cli(
    cloud: &LocalCloud,
    credentials: &Credentials,
    arguments: &[&str],
) -> Result<String, String> {
    cloud::aws(cloud, credentials, &[&["ssm"], arguments].concat()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_parameters_needs_the_permission_for_each_of_them() {
    let cloud = cloud::start().await;
    put(&cloud, "/pulse/test/settings", "one").await;
    put(&cloud, "/pulse/test/url", "two").await;
    put(&cloud, "/pulse/other/settings", "three").await;
    let prefix = "arn:aws:ssm:us-east-1:000000000000:parameter/pulse/test";
    let policy = json!({"Statement": [
        {"Effect": "Allow", "Action": "ssm:GetParameter", "Resource": format!("{prefix}/settings")},
        {"Effect": "Allow", "Action": "ssm:GetParameters", "Resource": format!("{prefix}/*")},
    ]});
    let reader = user_with_policy(&cloud, "reader", &policy).await;
    let get = async |name: &str| {
        let arguments = [
            "get-parameter",
            "--query",
            "Parameter.Value",
            "--name",
            name,
        ];
        cli(&cloud, &reader, &arguments).await
    };
    let get_both = async |one: &str, other: &str| {
        let query = "Parameters[].Value";
        let arguments = ["get-parameters", "--query", query, "--names", one, other];
        cli(&cloud, &reader, &arguments).await
    };
    for name in ["/pulse/test/settings", "/pulse/test/settings:1"] {
        assert_eq!(get(name).await, Ok("one".to_owned()));
    }
    let arn = format!("{prefix}/settings");
    assert_eq!(get(&arn).await, Ok("one".to_owned()));
    let both = get_both("/pulse/test/url", "/pulse/test/settings").await;
    assert_eq!(both, Ok("one\ttwo".to_owned()));
    let denied = [
        (get("/pulse/test/url").await, "GetParameter", "test/url"),
        (
            get("/pulse/other/settings").await,
            "GetParameter",
            "other/settings",
        ),
        (
            get_both("/pulse/test/url", "/pulse/other/settings").await,
            "GetParameters",
            "other/settings",
        ),
    ];
    for (answer, action, name) in denied {
        let error = answer.expect_err("denied");
        let part = format!(
            "not authorized to perform: ssm:{action} on resource: \
             arn:aws:ssm:us-east-1:000000000000:parameter/pulse/{name} "
        );
        assert!(error.contains(&part), "{error}");
    }
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_parameter_store_are_recorded_and_faults_hit_them() {
    let cloud = cloud::start().await;
    put(&cloud, "/pulse/test/settings", "one").await;
    let root = cloud::root();
    let arguments = ["get-parameter", "--name", "/pulse/test/settings"];
    for (fault, expected) in [
        (Fault::Throttled, "ThrottlingException"),
        (Fault::InternalError, "InternalServerError"),
        (Fault::AccessDenied, "AccessDeniedException"),
    ] {
        cloud
            .faults()
            .add(FaultRule::next("ssm", "GetParameter", fault));
        let error = cli(&cloud, &root, &arguments).await.expect_err("the fault");
        assert!(error.contains(expected), "{expected}: {error}");
    }
    assert!(cli(&cloud, &root, &arguments).await.is_ok());
    assert_eq!(cloud.calls().count("ssm", "GetParameter"), 4);
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_have_the_limits_of_aws() {
    let cloud = cloud::start().await;
    let put = async |length: usize, tier: Option<&str>| {
        let mut body =
            json!({"Name": "/p", "Value": "x".repeat(length), "Type": "String", "Overwrite": true});
        if let Some(tier) = tier {
            body["Tier"] = json!(tier);
        }
        match ssm(&cloud, "PutParameter", body).await {
            Ok(answer) => answer["Tier"].as_str().unwrap_or_default().to_owned(),
            Err((code, _)) => code,
        }
    };
    let refused = "ValidationException";
    assert_eq!(put(4096, None).await, "Standard");
    assert_eq!(put(4097, None).await, refused);
    assert_eq!(put(4097, Some("Standard")).await, refused);
    assert_eq!(put(4096, Some("Intelligent-Tiering")).await, "Standard");
    assert_eq!(put(4097, Some("Intelligent-Tiering")).await, "Advanced");
    assert_eq!(put(8192, Some("Advanced")).await, "Advanced");
    assert_eq!(put(8193, Some("Advanced")).await, refused);
    assert_eq!(put(8193, Some("Intelligent-Tiering")).await, refused);
    let nested = json!({"Name": "/n", "Value": "a{{b}}", "Type": "String"});
    let (code, message) = ssm(&cloud, "PutParameter", nested).await.unwrap_err();
    assert_eq!(code, refused);
    assert!(
        message.contains("can't nest another parameter"),
        "{message}"
    );

    let names = |count: usize| -> Value { (0..count).map(|n| json!(format!("/{n}"))).collect() };
    let ten = ssm(&cloud, "GetParameters", json!({"Names": names(10)})).await;
    let missing = ten.expect("ten are allowed")["InvalidParameters"].take();
    assert_eq!(missing, names(10));
    for count in [0, 11] {
        let refused = ssm(&cloud, "GetParameters", json!({"Names": names(count)})).await;
        assert_eq!(refused.unwrap_err().0, "ValidationException");
    }
    // A caller has to make the message itself.
    let missing = ssm(&cloud, "GetParameter", json!({"Name": "/none"})).await;
    assert_eq!(
        missing.unwrap_err(),
        ("ParameterNotFound".to_owned(), String::new())
    );
    cloud.stop().await;
}
