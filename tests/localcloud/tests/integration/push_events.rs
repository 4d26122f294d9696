//! Pushes to the registry, and their events.

use std::time::Duration;

use crate::cloud::{self, code, ecr, root};
use aws_sdk_ecr::types::ImageIdentifier;
use bytes::Bytes;
use http::Method;
use localcloud::{LocalCloud, gateway::ecr::Outcome};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The ARN of the rule of these tests.
const RULE: &str = "arn:aws:events:us-east-1:000000000000:rule/pushes";

async fn json_call(cloud: &LocalCloud, service: &str, target: &str, body: Value) -> Value {
    cloud
        .client()
        .json(service, target, body)
        .await
        .expect("answered")
}

async fn repository(cloud: &LocalCloud, mutability: &str) {
    let filter = json!({"filterType": "WILDCARD", "filter": "sha256-*"});
    let body = json!({
        "repositoryName": "test",
        "imageTagMutability": mutability,
        "imageTagMutabilityExclusionFilters": [filter],
    });
    json_call(
        cloud,
        "ecr",
        "AmazonEC2ContainerRegistry_V20150921.CreateRepository",
        body,
    )
    .await;
}

/// Creates a queue that takes messages of the rule. Returns its ARN.
async fn queue(cloud: &LocalCloud, name: &str) -> String {
    let arn = closed_queue(cloud, name).await;
    open_queue(cloud, name).await;
    arn
}

/// Creates a queue without a policy. Returns its ARN.
async fn closed_queue(cloud: &LocalCloud, name: &str) -> String {
    json_call(
        cloud,
        "sqs",
        "AmazonSQS.CreateQueue",
        json!({"QueueName": name}),
    )
    .await;
    format!("arn:aws:sqs:us-east-1:000000000000:{name}")
}

async fn queue_url(cloud: &LocalCloud, name: &str) -> Value {
    let asked = json!({"QueueName": name});
    json_call(cloud, "sqs", "AmazonSQS.GetQueueUrl", asked).await["QueueUrl"].clone()
}

/// Lets the rule send to a queue.
async fn open_queue(cloud: &LocalCloud, name: &str) {
    let policy = json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Action": "sqs:SendMessage",
        "Resource": format!("arn:aws:sqs:us-east-1:000000000000:{name}"),
        "Condition": {"ArnEquals": {"aws:SourceArn": RULE}},
    }]});
    let url = queue_url(cloud, name).await;
    let attributes = json!({
        "QueueUrl": url, "Attributes": {"Policy": policy.to_string()},
    });
    json_call(cloud, "sqs", "AmazonSQS.SetQueueAttributes", attributes).await;
}

/// Receives messages from a queue until the expected number has arrived.
async fn messages(cloud: &LocalCloud, name: &str, expected: usize) -> Vec<Value> {
    let url = queue_url(cloud, name).await;
    let receive = json!({
        "QueueUrl": url,
        "MaxNumberOfMessages": 10,
        "MessageAttributeNames": ["All"],
    });
    let mut all = Vec::new();
    while all.len() < expected {
        let received = json_call(cloud, "sqs", "AmazonSQS.ReceiveMessage", receive.clone()).await;
        all.extend(received["Messages"].as_array().cloned().unwrap_or_default());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    all
}

/// Creates a rule for tagged pushes to the repository `test`, as in the pipeline. Returns its ARN.
async fn rule(cloud: &LocalCloud, targets: Value) -> String {
    let pattern = json!({
        "source": ["aws.ecr"],
        "detail-type": ["ECR Image Action"],
        "detail": {
            "action-type": ["PUSH"],
            "result": ["SUCCESS"],
            "repository-name": ["test"],
            "image-tag": [{"prefix": "test-"}],
        },
    });
    let rule = json!({"Name": "pushes", "EventPattern": pattern.to_string()});
    let made = json_call(cloud, "events", "AWSEvents.PutRule", rule).await;
    let targets = json!({"Rule": "pushes", "Targets": targets});
    json_call(cloud, "events", "AWSEvents.PutTargets", targets).await;
    made["RuleArn"].as_str().expect("an ARN").to_owned()
}

/// Puts a manifest without credentials, as a registry client does. Returns status and digest.
async fn put_manifest(
    cloud: &LocalCloud,
    reference: Option<&str>,
    manifest: &Value,
) -> (u16, String) {
    let body = manifest.to_string();
    let digest: String = Sha256::digest(&body)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let digest = format!("sha256:{digest}");
    let reference = reference.unwrap_or(&digest);
    let media_type = manifest["mediaType"]
        .as_str()
        .expect("a media type")
        .to_owned();
    let answer = cloud::http()
        .put(format!(
            "http://{}/v2/test/manifests/{reference}",
            cloud.registry()
        ))
        .header("content-type", media_type)
        .body(body)
        .send()
        .await
        .expect("answered");
    (answer.status().as_u16(), digest)
}

fn manifest(label: &str) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json"},
        "annotations": {"label": label},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_event_of_a_tagged_push_reaches_the_targets_of_matching_rules() {
    let cloud = cloud::start().await;
    repository(&cloud, "IMMUTABLE").await;
    let arn = queue(&cloud, "pushes").await;
    rule(&cloud, json!([{"Id": "queue", "Arn": arn}])).await;

    // A multi-architecture image: its parts are pushed by digest, then its index by tag. The events that match no
    // rule are delivered here, so that their delivery is over when the message of the other one is received.
    let events = cloud.push_events();
    events.suppress(true);
    let (status, part) = put_manifest(&cloud, None, &manifest("amd64")).await;
    assert_eq!(status, 201);
    put_manifest(&cloud, Some("latest"), &manifest("other")).await;
    for event in events.emitted() {
        let delivered = events.deliver(&event).await.expect("rules are read");
        assert_eq!(delivered, [], "{}", event.tag);
    }
    events.suppress(false);
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{"digest": part}],
    });
    let (status, digest) = put_manifest(&cloud, Some("test-20251027-122112Z"), &index).await;
    assert_eq!(status, 201);

    let emitted = events.emitted();
    let tags: Vec<&str> = emitted.iter().map(|event| event.tag.as_str()).collect();
    assert_eq!(tags, ["", "latest", "test-20251027-122112Z"]);
    assert_eq!(
        emitted[2].artifact_media_type, None,
        "an index describes no artifact"
    );

    let received = messages(&cloud, "pushes", 1).await;
    assert_eq!(received.len(), 1, "one matches the rule");
    let event: Value =
        serde_json::from_str(received[0]["Body"].as_str().expect("text")).expect("JSON");
    assert_eq!(
        event["detail"],
        json!({
            "result": "SUCCESS",
            "repository-name": "test",
            "image-digest": digest,
            "action-type": "PUSH",
            "image-tag": "test-20251027-122112Z",
            "manifest-media-type": "application/vnd.oci.image.index.v1+json",
        })
    );
    assert_eq!(
        (&event["source"], &event["resources"]),
        (&json!("aws.ecr"), &json!([]))
    );
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn suppressed_events_can_be_delivered_by_the_test_in_any_order_and_repeatedly() {
    let cloud = cloud::start().await;
    repository(&cloud, "MUTABLE").await;
    let arn = queue(&cloud, "pushes").await;
    rule(&cloud, json!([{"Id": "queue", "Arn": arn}])).await;
    let events = cloud.push_events();
    events.suppress(true);
    put_manifest(&cloud, Some("test-1"), &manifest("1")).await;
    put_manifest(&cloud, Some("test-2"), &manifest("2")).await;
    let emitted = events.emitted();
    assert_eq!(events.deliveries(), []);
    for event in [&emitted[1], &emitted[0], &emitted[0]] {
        let delivered = events.deliver(event).await.expect("rules are read");
        assert_eq!(delivered.len(), 1);
        assert_eq!(delivered[0], Outcome::Delivered);
    }
    assert_eq!(messages(&cloud, "pushes", 3).await.len(), 3);
    assert_eq!(events.deliveries().len(), 3);
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_gets_an_event_only_with_a_permission_and_otherwise_the_dead_letter_queue_does()
{
    let cloud = cloud::start().await;
    repository(&cloud, "MUTABLE").await;
    let role = cloud::role(cloud.client(), "any", "lambda.amazonaws.com").await;
    let create = json!({
        "FunctionName": "start", "Runtime": "provided.al2023", "Handler": "bootstrap", "Role": role,
        "Code": {"ZipFile": cloud::EMPTY_ZIP},
    });
    let lambda = |method, path: &str, body: Value| {
        let path = format!("/2015-03-31/functions{path}");
        let client = cloud.client().clone();
        async move {
            client
                .rest("lambda", method, &path, Bytes::from(body.to_string()))
                .await
                .expect("answered")
        }
    };
    lambda(Method::POST, "", create).await;
    let dead = closed_queue(&cloud, "dead").await;
    let function = "arn:aws:lambda:us-east-1:000000000000:function:start";
    let target = json!({"Id": "start", "Arn": function, "DeadLetterConfig": {"Arn": dead}});
    let rule_arn = rule(&cloud, json!([target])).await;
    cloud.push_events().suppress(true);
    put_manifest(&cloud, Some("test-1"), &manifest("1")).await;
    let event = &cloud.push_events().emitted()[0];

    let lost = cloud
        .push_events()
        .deliver(event)
        .await
        .expect("rules are read");
    assert!(
        matches!(&lost[0], Outcome::Lost(why) if why.contains("sqs:SendMessage")),
        "{lost:?}"
    );
    open_queue(&cloud, "dead").await;
    let refused = cloud
        .push_events()
        .deliver(event)
        .await
        .expect("rules are read");
    assert!(matches!(&refused[0], Outcome::DeadLettered(why) if why.contains("NO_PERMISSIONS")));
    let letters = messages(&cloud, "dead", 1).await;
    let attributes = &letters[0]["MessageAttributes"];
    assert_eq!(attributes["ERROR_CODE"]["StringValue"], "NO_PERMISSIONS");
    assert_eq!(attributes["RULE_ARN"]["StringValue"], json!(rule_arn));

    let permission = json!({
        "StatementId": "events", "Action": "lambda:InvokeFunction",
        "Principal": "events.amazonaws.com", "SourceArn": rule_arn,
    });
    lambda(Method::POST, "/start/policy", permission).await;
    let delivered = cloud
        .push_events()
        .deliver(event)
        .await
        .expect("rules are read");
    assert_eq!(delivered[0], Outcome::Delivered);
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_tags_that_are_excluded_from_immutability_can_move() {
    let cloud = cloud::start().await;
    repository(&cloud, "IMMUTABLE_WITH_EXCLUSION").await;
    for (tag, moved) in [("test-1", 400), ("sha256-1.att", 201)] {
        let (status, _) = put_manifest(&cloud, Some(tag), &manifest("1")).await;
        assert_eq!(status, 201);
        let (status, _) = put_manifest(&cloud, Some(tag), &manifest("2")).await;
        assert_eq!(status, moved, "{tag}");
    }
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_immutable_tag_is_not_moved_and_images_are_found_by_tag_and_by_digest() {
    let cloud = cloud::start().await;
    repository(&cloud, "IMMUTABLE").await;
    let (status, digest) = put_manifest(&cloud, Some("test-1"), &manifest("1")).await;
    assert_eq!(status, 201);
    let (status, _) = put_manifest(&cloud, Some("test-1"), &manifest("2")).await;
    assert_eq!(status, 400, "the tag names another manifest");
    let (_, same) = put_manifest(&cloud, Some("test-1"), &manifest("1")).await;
    assert_eq!(same, digest);
    assert_eq!(
        cloud.push_events().emitted().len(),
        1,
        "a repeated push changes nothing"
    );

    let client = ecr(&cloud, root());
    let by = |tag: Option<&str>, digest: Option<&str>| {
        let id = ImageIdentifier::builder()
            .set_image_tag(tag.map(str::to_owned))
            .set_image_digest(digest.map(str::to_owned));
        client
            .describe_images()
            .repository_name("test")
            .image_ids(id.build())
            .send()
    };
    for found in [
        by(Some("test-1"), None).await,
        by(None, Some(&digest)).await,
    ] {
        let found = found.expect("found");
        assert_eq!(
            found.image_details()[0].image_digest(),
            Some(digest.as_str())
        );
    }
    assert_eq!(
        code(
            &by(Some("test-2"), None)
                .await
                .expect_err("it does not exist")
        ),
        "ImageNotFoundException"
    );
    let elsewhere = client
        .describe_images()
        .repository_name("other")
        .send()
        .await;
    assert_eq!(
        code(&elsewhere.expect_err("it does not exist")),
        "RepositoryNotFoundException"
    );
    let id = |tag: &str| ImageIdentifier::builder().image_tag(tag).build();
    let batch = client
        .batch_get_image()
        .repository_name("test")
        .image_ids(id("test-1"))
        .image_ids(id("x"));
    let batch = batch.send().await.expect("answered");
    let image = batch.images()[0].image_id().expect("an id");
    assert_eq!(image.image_digest(), Some(digest.as_str()));
    assert_eq!(
        batch.failures()[0].failure_code().map(|code| code.as_str()),
        Some("ImageNotFound")
    );
    cloud.stop().await;
}
